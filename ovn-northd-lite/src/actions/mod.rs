//! The action language of logical flows: OVN's, see ovn-sb(5), table `Logical_Flow`,
//! column `actions`, as far as the compiler uses it. Text → statements ([`parse`]) →
//! actions of the switch ([`lower`]).

mod lower;
mod parser;

use std::fmt;

pub(crate) use lower::{Lowering, lower};
pub use parser::parse;

use crate::{
    expr::{Constant, Operand},
    southbound::Pipeline,
};

/// One statement of an action list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `next;`, `next(4);`, `next(pipeline=egress, table=4);`: go on in a stage.
    Next {
        /// Pipeline; `None`: the flow's own.
        pipeline: Option<Pipeline>,
        /// Stage; `None`: the one after the flow's.
        stage: Option<u8>,
    },
    /// `output;`: send to `outport`.
    Output,
    /// `drop;`: nothing more happens to the packet.
    Drop,
    /// `field = constant;`
    Set {
        /// What is written.
        dst: Operand,
        /// What it becomes.
        value: Constant,
    },
    /// `field = field;`
    Copy {
        /// What is written.
        dst: Operand,
        /// What it becomes a copy of.
        src: Operand,
    },
    /// `field <-> field;`
    Exchange(Operand, Operand),
    /// `ip.ttl--;`
    DecTtl,
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next { pipeline: None, stage: None } => f.write_str("next;"),
            Self::Next { pipeline: None, stage: Some(stage) } => write!(f, "next({stage});"),
            Self::Next { pipeline: Some(pipeline), stage } => {
                let pipeline = match pipeline {
                    Pipeline::Ingress => "ingress",
                    Pipeline::Egress => "egress",
                };
                write!(f, "next(pipeline={pipeline}")?;
                stage.map_or(Ok(()), |stage| write!(f, ", table={stage}"))?;
                f.write_str(");")
            }
            Self::Output => f.write_str("output;"),
            Self::Drop => f.write_str("drop;"),
            Self::Set { dst, value } => write!(f, "{dst} = {value};"),
            Self::Copy { dst, src } => write!(f, "{dst} = {src};"),
            Self::Exchange(a, b) => write!(f, "{a} <-> {b};"),
            Self::DecTtl => f.write_str("ip.ttl--;"),
        }
    }
}

/// The text of an action list.
pub fn print(statements: &[Statement]) -> String {
    statements.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
