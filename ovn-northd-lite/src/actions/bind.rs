//! `bind_vport("vip", inport);`: the packet's sender says that it has the address of a
//! virtual port, for the host's responder. The packet itself goes on.

use std::fmt;

use flowtable::flow::{Action, ToController};

use super::lower::{Flow, Lowered};
use crate::{
    expr::{
        ExprError,
        lexer::{Token, quote},
        parser::Parser,
    },
    punt::{Request, Service},
};

/// Somebody has the address of a virtual port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Id of the virtual port.
    port: String,
}

impl Bind {
    /// What follows `bind_vport`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let Token::Text(port) = parser.take() else {
            return Err(parser.error("expected the name of a port in quotes"));
        };
        parser.expect_mark(",")?;
        let operand = parser.operand()?;
        if operand.symbol.name != "inport" {
            return Err(parser.error(format!("`bind_vport` is about `inport`, not `{operand}`")));
        }
        parser.expect_mark(")")?;
        Ok(Self { port })
    }

    /// # Errors
    /// There is no such port.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let key = (flow.ports)(&self.port).ok_or_else(|| format!("there is no port `{}`", self.port))?;
        let service = Service::BindVirtual;
        let mut userdata = Request { service, continuation: 0, table: flow.table.get() }.encode();
        userdata.extend(key.to_be_bytes());
        let punt = Action::Controller(Box::new(ToController { userdata, ..ToController::default() }));
        out.actions.push(Action::Clone(vec![Action::Meter((flow.meter)(service)), punt]));
        Ok(())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bind_vport({}, inport);", quote(&self.port))
    }
}
