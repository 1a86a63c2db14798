//! The match language of logical flows and ACLs: OVN's, see ovn-sb(5), table
//! `Logical_Flow`, column `match`. Text → words (`lexer`) → checked tree
//! (`parser`, `ast`) → matches of the switch (`normal`). `eval` says what an
//! expression means; the rest must agree with it.
//!
//! Fields that can only be matched as a whole (`eth.type`, `ip.proto`, `ip.ttl`) may be
//! negated and compared by order, unlike in OVN, and so may predicates like `tcp`: what is
//! not one value is a range of the others.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

mod ast;
mod eval;
mod interval;
pub(crate) mod lexer;
mod normal;
pub(crate) mod parser;
mod residence;
mod sets;
mod spelling;
pub(crate) mod symbols;

pub use ast::{Constant, Expr, Operand, Relation};
pub(crate) use interval::IntervalSet;
pub use lexer::Notation;
pub use normal::{MAX_MATCHES, Matches, Resolver, SetNamer};
pub use parser::{constant, parse};
pub use sets::{SetName, SetResolver};
pub(crate) use spelling::nearest;

/// A text is not a valid expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {}: {reason}", position + 1)]
pub struct ExprError {
    /// Byte of the text where the error is.
    pub position: usize,
    /// What is wrong, and what may have been meant.
    pub reason: String,
}

impl ExprError {
    pub(crate) fn new(position: usize, reason: impl Into<String>) -> Self {
        Self { position, reason: reason.into() }
    }
}

/// Checks the match of an ACL: it is well-formed and not too large. The ports and sets it
/// names need not exist; a set counts as one member.
///
/// # Errors
/// Says where the text is wrong and why.
pub fn check_match(text: &str) -> Result<(), ExprError> {
    let expr = parse(text)?.with_sets(&|set| {
        let any = |value| Constant::Number { value, mask: None, notation: Notation::Hex };
        Some(match set {
            SetName::Addresses(_) => vec![any(1)],
            SetName::Ports(name) => vec![Constant::Port(format!("@{name}"))],
            SetName::Variable(name) => vec![any(1), Constant::Port(format!("^{name}"))],
        })
    })?;
    // Each name a key of its own, as it will have: else a long set would look short.
    let names = RefCell::new(BTreeMap::new());
    let key = |name: &str| {
        let mut names = names.borrow_mut();
        let next = u16::try_from(names.len() + 1).ok()?;
        Some(*names.entry(name.to_owned()).or_insert(next))
    };
    match expr.to_matches(&key)?.len() {
        n if n > MAX_MATCHES => Err(normal::too_many()),
        _ => Ok(()),
    }
}

/// The sets that a match speaks of, as it writes them: `$web`, `@db`, `^node`. Nothing if it
/// cannot be read.
pub fn sets_of(text: &str) -> BTreeSet<String> {
    if !text.contains(['$', '@', '^']) {
        return BTreeSet::new();
    }
    parse(text).map(|expr| expr.sets()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
