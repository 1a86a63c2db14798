//! Tracking: `ct_next;` asks what is known of the packet's connection in its port's zone,
//! or in its router's for translated destinations; `ct_commit { … };` has it remembered
//! there, with marks; `ct_commit_to_zone(snat);` in a router's zone for translated sources.

use std::fmt;

use flowtable::flow::{Action, Ct};

use super::{
    Statement,
    lower::{Flow, Lowered, list},
    print,
};
use crate::{
    expr::{ExprError, lexer::Token, parser::Parser, symbols::Kind},
    lower::zones,
};

/// A pass through the tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// `ct_next;`: goes on in the next stage, tracked.
    Next,
    /// `ct_commit { ct_mark.blocked = 1; };`
    Commit(Vec<Statement>),
    /// `ct_commit_to_zone(snat);`: in the router's zone for translated sources.
    CommitToSnat,
}

impl Connection {
    /// A commit that writes nothing but marks.
    ///
    /// # Errors
    /// Names what else it would do.
    pub(super) fn commit(position: usize, inner: Vec<Statement>) -> Result<Self, ExprError> {
        let is_mark = |statement: &Statement| match statement {
            Statement::Set { dst, .. } | Statement::Copy { dst, .. } => match dst.symbol.kind {
                Kind::Number { .. } => dst.symbol.name.starts_with("ct_"),
                Kind::Port(_) | Kind::Predicate(_) => false,
            },
            _ => false,
        };
        match inner.iter().find(|statement| !is_mark(statement)) {
            None => Ok(Self::Commit(inner)),
            Some(other) => {
                let reason = format!("`ct_commit` writes ct_mark and ct_label, it cannot do `{other}`");
                Err(ExprError::new(position, reason))
            }
        }
    }

    /// What follows `ct_commit_to_zone`.
    ///
    /// # Errors
    /// It is another zone.
    pub(super) fn commit_to(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let position = parser.position();
        match parser.take() {
            Token::Name(zone) if zone == "snat" => {}
            other => {
                return Err(ExprError::new(position, format!("expected `snat`, not {}", other.describe())));
            }
        }
        parser.expect_mark(")")?;
        Ok(Self::CommitToSnat)
    }

    /// # Errors
    /// There is no next stage.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let zone = flow.balance_zone();
        let ct = match self {
            Self::Next => Ct { table: Some(flow.next()?), zone, ..Ct::default() },
            Self::Commit(inner) => {
                let mut exec = Lowered::default();
                list(inner, flow, &mut exec)?;
                Ct { commit: true, zone, exec: exec.actions, ..Ct::default() }
            }
            Self::CommitToSnat => {
                Ct { commit: true, zone: zones::from_register(zones::SNAT), ..Ct::default() }
            }
        };
        out.actions.push(Action::Ct(Box::new(ct)));
        Ok(())
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str("ct_next;"),
            Self::CommitToSnat => f.write_str("ct_commit_to_zone(snat);"),
            Self::Commit(inner) => write!(f, "ct_commit {{ {} }};", print(inner)),
        }
    }
}
