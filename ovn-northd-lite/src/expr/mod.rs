//! The match language of logical flows and ACLs: OVN's, see ovn-sb(5), table
//! `Logical_Flow`, column `match`. Text → words ([`lexer`]) → checked tree
//! ([`parser`], [`ast`]) → matches of the switch ([`normal`]). [`eval`] says what an
//! expression means; the rest must agree with it.
//!
//! Fields that can only be matched as a whole (`ip.proto`, `ip.ttl`) may be negated and
//! compared by order, unlike in OVN: they are matched value by value, as far as
//! [`MAX_MATCHES`] allows. It does not for `eth.type`, so `!ip4` is refused as in OVN.

mod ast;
mod eval;
mod interval;
pub(crate) mod lexer;
mod normal;
pub(crate) mod parser;
mod spelling;
pub(crate) mod symbols;

pub use ast::{Constant, Expr, Operand, Relation};
pub use lexer::Notation;
pub use normal::{MAX_MATCHES, Resolver};
pub use parser::parse;
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

/// Checks the match of an ACL: it is well-formed, asks for nothing that is not supported
/// yet, and is not too large. The ports it names need not exist.
///
/// # Errors
/// Says where the text is wrong and why.
pub fn check_match(text: &str) -> Result<(), ExprError> {
    let expr = parse(text)?;
    if let Some(word) = unsupported(&expr) {
        let position = text.find(&word.0).unwrap_or(0);
        return Err(ExprError::new(position, word.1));
    }
    expr.to_matches(&|_| Some(1)).map(|_| ())
}

/// The first thing in it that the switch cannot do yet: its text and the reason.
fn unsupported(expr: &Expr) -> Option<(String, String)> {
    match expr {
        Expr::Bool(_) => None,
        Expr::Not(inner) => unsupported(inner),
        Expr::And(parts) | Expr::Or(parts) => parts.iter().find_map(unsupported),
        Expr::Test(operand) => untracked(operand),
        Expr::Compare { field, values, .. } => untracked(field).or_else(|| {
            values.iter().find_map(|value| match value {
                Constant::AddressSet(name) => {
                    Some((value.to_string(), format!("there is no address set `{name}`")))
                }
                Constant::PortGroup(name) => {
                    Some((value.to_string(), format!("there is no port group `{name}`")))
                }
                Constant::Number { .. } | Constant::Port(_) => None,
            })
        }),
    }
}

fn untracked(operand: &Operand) -> Option<(String, String)> {
    let connection = matches!(operand.symbol.kind, symbols::Kind::Connection);
    let name = operand.symbol.name;
    connection.then(|| (name.to_owned(), format!("`{name}` needs connection tracking, not supported yet")))
}

#[cfg(test)]
mod tests;
