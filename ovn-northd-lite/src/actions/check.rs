//! `handle_svc_check(inport);`, `handle_bfd_msg();`: the packet is the answer to a health
//! check, or a next hop says by it that it lives. It is for the host's responder, and ends
//! here.

use std::fmt;

use flowtable::flow::{Action, ToController};

use super::lower::{Flow, Lowered};
use crate::{
    expr::{ExprError, parser::Parser},
    punt::{Request, Service},
};

/// A packet that somebody is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// An answer to a health check, by the port that it came by.
    Health,
    /// Of the session with a next hop.
    Liveness,
}

impl Check {
    /// What follows `handle_svc_check`.
    pub(super) fn health(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let operand = parser.operand()?;
        if operand.symbol.name != "inport" {
            return Err(parser.error(format!("`handle_svc_check` is about `inport`, not `{operand}`")));
        }
        parser.expect_mark(")")?;
        Ok(Self::Health)
    }

    /// What follows `handle_bfd_msg`.
    pub(super) fn liveness(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        parser.expect_mark(")")?;
        Ok(Self::Liveness)
    }

    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) {
        let service = match self {
            Self::Health => Service::HealthCheck,
            Self::Liveness => Service::BfdMessage,
        };
        let userdata = Request { service, continuation: 0, table: flow.table.get() }.encode();
        out.actions.push(Action::Meter((flow.meter)(service)));
        out.actions.push(Action::Controller(Box::new(ToController { userdata, ..ToController::default() })));
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health => "handle_svc_check(inport);",
            Self::Liveness => "handle_bfd_msg();",
        })
    }
}
