//! `log(verdict=drop, severity=info, name="…");`: the host logs the packet, at a bounded
//! rate. The packet goes on.

use std::fmt;

use flowtable::flow::{Action, ToController};

use super::lower::Lowered;
use crate::{
    expr::{
        ExprError,
        lexer::{Token, quote},
        parser::Parser,
    },
    lower::meters,
    model::Severity,
    punt::{LogEntry, Verdict},
};

/// Bytes of the headers that are logged.
const HEADERS_LEN: u16 = 128;

/// A line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log(pub(crate) LogEntry);

impl Log {
    /// What follows `log`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        let mut entry =
            LogEntry { verdict: Verdict::Allow, severity: Severity::default(), name: String::new() };
        parser.expect_mark("(")?;
        loop {
            let position = parser.position();
            let Token::Name(key) = parser.take() else {
                return Err(ExprError::new(position, "expected `verdict=`, `severity=` or `name=`"));
            };
            parser.expect_mark("=")?;
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
        Ok(Self(entry))
    }

    pub(super) fn lower(&self, out: &mut Lowered) {
        let to_log =
            ToController { userdata: self.0.encode(), max_len: HEADERS_LEN, ..ToController::default() };
        // In a clone the meter decides about the line alone, not about the packet.
        let line = vec![Action::Meter(meters::LOG), Action::Controller(Box::new(to_log))];
        out.actions.push(Action::Clone(line));
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogEntry { verdict, severity, name } = &self.0;
        write!(f, "log(verdict={}, severity={severity}", verdict.name())?;
        if !name.is_empty() {
            write!(f, ", name={}", quote(name))?;
        }
        f.write_str(");")
    }
}
