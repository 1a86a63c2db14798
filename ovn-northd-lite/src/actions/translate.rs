//! Address translation: `ct_dnat` and `ct_snat`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use flowtable::{
    conntrack::{Nat, NatKind, NatOrder, NatRange},
    flow::{Action, Ct},
};

use super::lower::{Flow, Lowered};
use crate::{
    expr::{Constant, ExprError, Notation, lexer::Token, parser::Parser},
    lower::zones::{DNAT, SNAT, from_register},
};

/// `ct_dnat;` and `ct_snat;` translate as the connection has it; with an address, a new
/// connection is translated to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translate {
    /// Which address, and with it the name space.
    pub(super) kind: NatKind,
    /// Address and ports for new connections.
    pub(super) to: Option<(IpAddr, Option<(u16, u16)>)>,
}

impl Translate {
    /// What follows the action's name.
    pub(super) fn parse(parser: &mut Parser, kind: NatKind) -> Result<Self, ExprError> {
        if !parser.take_mark("(") {
            return Ok(Self { kind, to: None });
        }
        let position = parser.position();
        let ip = match parser.constant()? {
            Constant::Number { value, mask: None, notation: Notation::Ipv4 } => {
                IpAddr::V4(Ipv4Addr::from(value as u32))
            }
            Constant::Number { value, mask: None, notation: Notation::Ipv6 } => IpAddr::V6(value.into()),
            _ => return Err(ExprError::new(position, "expected an address")),
        };
        let ports = if parser.take_mark(",") {
            let first = port(parser)?;
            parser.expect_mark("..")?;
            Some((first, port(parser)?))
        } else {
            None
        };
        parser.expect_mark(")")?;
        Ok(Self { kind, to: Some((ip, ports)) })
    }

    /// # Errors
    /// There is no next stage.
    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let zone = match self.kind {
            NatKind::Destination => DNAT,
            NatKind::Source => SNAT,
        };
        let nat = match self.to {
            None => Nat::Existing,
            Some((ip, ports)) => Nat::New(NatRange {
                kind: self.kind,
                addresses: Some((ip, ip)),
                ports,
                order: NatOrder::Keep,
                persistent: false,
            }),
        };
        out.actions.push(Action::Ct(Box::new(Ct {
            commit: self.to.is_some(),
            table: Some(flow.next()?),
            zone: from_register(zone),
            nat: Some(nat),
            ..Ct::default()
        })));
        Ok(())
    }
}

fn port(parser: &mut Parser) -> Result<u16, ExprError> {
    let position = parser.position();
    match parser.take() {
        Token::Constant(number @ 1..=0xffff, Notation::Decimal) => Ok(number as u16),
        other => Err(ExprError::new(position, format!("expected a port, not {}", other.describe()))),
    }
}

impl fmt::Display for Translate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            NatKind::Destination => "ct_dnat",
            NatKind::Source => "ct_snat",
        })?;
        match self.to {
            None => f.write_str(";"),
            Some((ip, None)) => write!(f, "({ip});"),
            Some((ip, Some((first, last)))) => write!(f, "({ip}, {first}..{last});"),
        }
    }
}
