//! `learn`, as ovs-actions(7) writes it.

use std::fmt;

use super::Part;
use crate::field::Field;

/// Makes a rule out of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learn {
    /// Where the rule goes.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Rules of the table with the cookie before no more are learned; 0: any number.
    pub limit: u32,
    /// Bit that says whether the rule is, or will be, there.
    pub result: Option<Part>,
    /// What the rule matches and does.
    pub specs: Vec<Spec>,
}

/// A part of the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// It matches bits.
    Match(Part, Source),
    /// It sets bits.
    Load(Part, Source),
    /// It sends to the port that these bits name now.
    Output(Part),
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The action.
    Value(u128),
    /// The packet.
    Bits(Part),
}

impl fmt::Display for Learn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, priority, cookie, limit, result, specs } = self;
        write!(f, "learn(table={table},priority={priority},cookie={cookie:#x}")?;
        if *limit != 0 {
            write!(f, ",limit={limit}")?;
        }
        if let Some(Part { field, start, .. }) = result {
            write!(f, ",result_dst={}[{start}]", field.name())?;
        }
        specs.iter().try_for_each(|spec| write!(f, ",{spec}"))?;
        f.write_str(")")
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match(dst, Source::Bits(src)) => write!(f, "{}={}", named(*dst), named(*src)),
            Self::Match(dst, Source::Value(value)) => write!(f, "{}={value:#x}", dst.field.name()),
            Self::Load(dst, Source::Bits(src)) => write!(f, "load:{}->{dst}", named(*src)),
            Self::Load(dst, Source::Value(value)) => write!(f, "load:{value:#x}->{dst}"),
            Self::Output(src) => write!(f, "output:{}", named(*src)),
        }
    }
}

/// A port has a name for all its bits only.
fn named(part: Part) -> String {
    if part.field == Field::InPort { "NXM_OF_IN_PORT[]".to_owned() } else { part.to_string() }
}
