//! `reg9[1] = check_pkt_larger(1414);`: whether the frame is longer.

use std::fmt;

use flowtable::flow::Action;

use super::lower::{Lowered, place};
use crate::expr::{ExprError, Notation, Operand, lexer::Token, parser::Parser};

/// A look at the frame's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckLength {
    /// A bit that says whether it is longer.
    dst: Operand,
    max_len: u16,
}

impl CheckLength {
    /// What follows `field = check_pkt_larger`.
    pub(super) fn parse(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        let position = parser.position();
        if dst.is_port() || dst.place().is_none_or(|place| place.n_bits != 1) {
            return Err(ExprError::new(position, format!("`{dst}` is not one bit")));
        }
        parser.expect_mark("(")?;
        let max_len = short(parser)?;
        parser.expect_mark(")")?;
        Ok(Self { dst, max_len })
    }

    /// # Errors
    /// The operand is no field.
    pub(super) fn lower(&self, out: &mut Lowered) -> Result<(), String> {
        out.actions.push(Action::CheckPktLarger { max_len: self.max_len, dst: place(&self.dst)? });
        Ok(())
    }
}

/// A length.
pub(super) fn short(parser: &mut Parser) -> Result<u16, ExprError> {
    let position = parser.position();
    let number = match parser.take() {
        Token::Constant(number, Notation::Decimal) => u16::try_from(number).ok(),
        _ => None,
    };
    number.ok_or_else(|| ExprError::new(position, format!("expected a length, up to {}", u16::MAX)))
}

impl fmt::Display for CheckLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = check_pkt_larger({});", self.dst, self.max_len)
    }
}
