//! `set_meter(8000, 800);`: thousands of bits per second, and how many may come at once. What
//! is beyond is dropped, by a meter that no other flow has.

use std::fmt;

use flowtable::{flow::Action, meter::MeterUnit};

use super::lower::{Flow, Lowered};
use crate::{
    expr::{ExprError, Notation, lexer::Token, parser::Parser},
    lower::meters,
    model::Bandwidth,
};

/// A bound on what a flow lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetMeter(pub(crate) Bandwidth);

impl SetMeter {
    /// What follows `set_meter`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let kbps = rate(parser)?;
        let burst_kbit = if parser.take_mark(",") { rate(parser)? } else { kbps };
        parser.expect_mark(")")?;
        Ok(Self(Bandwidth { kbps, burst_kbit }))
    }

    /// # Errors
    /// The flow has a meter already.
    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let Self(Bandwidth { kbps, burst_kbit }) = self;
        let id = out.meter(meters::of_flow(flow.number, MeterUnit::Kbps, (kbps, burst_kbit))?)?;
        out.actions.push(Action::Meter(id));
        Ok(())
    }
}

/// A number that is a rate: at least one.
pub(super) fn rate(parser: &mut Parser) -> Result<u32, ExprError> {
    let position = parser.position();
    let number = match parser.take() {
        Token::Constant(number, Notation::Decimal) => u32::try_from(number).ok().filter(|rate| *rate > 0),
        _ => None,
    };
    number.ok_or_else(|| ExprError::new(position, format!("expected a rate, 1 to {}", u32::MAX)))
}

impl fmt::Display for SetMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set_meter({}, {});", self.0.kbps, self.0.burst_kbit)
    }
}
