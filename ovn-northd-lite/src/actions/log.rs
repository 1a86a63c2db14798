//! `log(verdict=drop, severity=info, name="…", rate=10, burst=5);`: the host logs the packet,
//! at a bounded rate: one of the flow's own, or that of all. The packet goes on.

use std::fmt;

use flowtable::{
    flow::{Action, PuntReason, ToController},
    meter::MeterUnit,
};

use super::{
    lower::{Flow, Lowered},
    meter,
};
use crate::{
    expr::{
        ExprError,
        lexer::{Token, quote},
        parser::Parser,
    },
    lower::meters,
    model::{Rate, Severity},
    punt::{LogEntry, Verdict},
};

/// Bytes of the headers that are logged.
const HEADERS_LEN: u16 = 128;

/// A line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub(crate) entry: LogEntry,
    /// Lines per second; `None`: the part of what all flows may.
    pub(crate) rate: Option<Rate>,
}

impl Log {
    /// What follows `log`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        let mut entry =
            LogEntry { verdict: Verdict::Allow, severity: Severity::default(), name: String::new() };
        let (mut pps, mut burst) = (None, None);
        parser.expect_mark("(")?;
        loop {
            let position = parser.position();
            let Token::Name(key) = parser.take() else {
                return Err(ExprError::new(
                    position,
                    "expected `verdict=`, `severity=`, `name=`, `rate=` or `burst=`",
                ));
            };
            parser.expect_mark("=")?;
            if let Some(slot) = match key.as_str() {
                "rate" => Some(&mut pps),
                "burst" => Some(&mut burst),
                _ => None,
            } {
                *slot = Some(meter::rate(parser)?);
                if parser.take_mark(",") { continue } else { break }
            }
            let position = parser.position();
            let wrong = |found: &Token| {
                ExprError::new(position, format!("{} is not a {key} of `log`", found.describe()))
            };
            match (key.as_str(), parser.take()) {
                ("name", Token::Text(text)) => entry.name = text,
                ("verdict", Token::Name(name)) => {
                    let found = Verdict::ALL.into_iter().find(|verdict| verdict.name() == name);
                    entry.verdict = found.ok_or_else(|| wrong(&Token::Name(name)))?;
                }
                ("severity", Token::Name(name)) => {
                    let found = Severity::ALL.into_iter().find(|severity| severity.name() == name);
                    entry.severity = found.ok_or_else(|| wrong(&Token::Name(name)))?;
                }
                (_, other) => return Err(wrong(&other)),
            }
            if !parser.take_mark(",") {
                break;
            }
        }
        parser.expect_mark(")")?;
        let rate = pps.map(|pps| Rate { pps, burst: burst.unwrap_or(pps) });
        Ok(Self { entry, rate })
    }

    /// # Errors
    /// The flow has a meter already.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let userdata = self.entry.encode();
        let (max_len, reason) = (HEADERS_LEN, PuntReason::Log);
        let to_log = ToController { userdata, max_len, reason, ..ToController::default() };
        let meter = match self.rate {
            None => meters::LOG,
            Some(rate) => {
                out.meter(meters::of_flow(flow.number, MeterUnit::Pktps, (rate.pps, rate.burst))?)?
            }
        };
        // In a clone the meter decides about the line alone, not about the packet.
        let line = vec![Action::Meter(meter), Action::Controller(Box::new(to_log))];
        out.actions.push(Action::Clone(line));
        Ok(())
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogEntry { verdict, severity, name } = &self.entry;
        write!(f, "log(verdict={}, severity={severity}", verdict.name())?;
        if !name.is_empty() {
            write!(f, ", name={}", quote(name))?;
        }
        if let Some(Rate { pps, burst }) = self.rate {
            write!(f, ", rate={pps}, burst={burst}")?;
        }
        f.write_str(");")
    }
}
