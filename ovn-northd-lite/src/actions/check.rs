//! `handle_svc_check(inport);`: the packet is the answer to a health check, for the host's
//! responder, and ends here.

use std::fmt;

use flowtable::flow::{Action, ToController};

use super::lower::{Flow, Lowered};
use crate::{
    expr::{ExprError, parser::Parser},
    punt::{Request, Service},
};

/// An answer to a health check, by the port that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check;

impl Check {
    /// What follows `handle_svc_check`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let operand = parser.operand()?;
        if operand.symbol.name != "inport" {
            return Err(parser.error(format!("`handle_svc_check` is about `inport`, not `{operand}`")));
        }
        parser.expect_mark(")")?;
        Ok(Self)
    }

    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) {
        let service = Service::HealthCheck;
        let userdata = Request { service, continuation: 0, table: flow.table.get() }.encode();
        out.actions.push(Action::Meter((flow.meter)(service)));
        out.actions.push(Action::Controller(Box::new(ToController { userdata, ..ToController::default() })));
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("handle_svc_check(inport);")
    }
}
