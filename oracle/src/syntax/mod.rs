//! Rules as the oracle has them: plain trees, printed in the syntax of ovs-ofctl(8). The text is what
//! the switch and Open vSwitch read; the interpreter takes the tree.
//!
//! Here: rules and their matches. [`Step`] what they do · [`Learn`] rules that packets make · [`Member`]
//! ranges and sets · [`Group`], [`Meter`].

mod learn;
mod step;
mod values;
mod way;

use std::fmt;

pub use self::{
    learn::{Learn, Source, Spec},
    step::{Bundle, Ct, Hashed, Multipath, Nat, Step, Tell, Zone},
    values::{Member, NamedSet, Values, kind_of},
    way::{Band, Bucket, Group, GroupKind, Meter, Selection},
};
use crate::field::{Field, Form};

/// A rule set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules.
    pub flows: Vec<Flow>,
    /// Groups; those that lead to others come before them.
    pub groups: Vec<Group>,
    /// Meters.
    pub meters: Vec<Meter>,
    /// Named sets.
    pub sets: Vec<NamedSet>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its table.
    pub table: u8,
    /// Its priority, different from that of each other rule of the table; but ways to satisfy clauses
    /// of one conjunction share theirs.
    pub priority: u16,
    /// The controller's own mark.
    pub cookie: u64,
    /// Which packets.
    pub matching: Matching,
    /// What to do.
    pub steps: Vec<Step>,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// Protocol keyword.
    pub kind: Option<Kind>,
    /// What else must hold.
    pub terms: Vec<Term>,
    /// Values that fields may have, where masks cannot say it.
    pub members: Vec<Member>,
}

/// Some bits of a field have given values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The field.
    pub field: Field,
    /// The bits' values.
    pub value: u128,
    /// The bits.
    pub mask: u128,
}

/// Protocol keywords of ovs-fields(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Arp,
    Ip,
    Ipv6,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Tcp6,
    Udp6,
    Sctp6,
    Icmp6,
    Mpls,
}

impl Kind {
    /// Keyword, EtherType, IP protocol.
    pub fn meaning(self) -> (&'static str, u16, Option<u8>) {
        match self {
            Self::Arp => ("arp", 0x0806, None),
            Self::Ip => ("ip", 0x0800, None),
            Self::Ipv6 => ("ipv6", 0x86dd, None),
            Self::Tcp => ("tcp", 0x0800, Some(6)),
            Self::Udp => ("udp", 0x0800, Some(17)),
            Self::Sctp => ("sctp", 0x0800, Some(132)),
            Self::Icmp => ("icmp", 0x0800, Some(1)),
            Self::Tcp6 => ("tcp6", 0x86dd, Some(6)),
            Self::Udp6 => ("udp6", 0x86dd, Some(17)),
            Self::Sctp6 => ("sctp6", 0x86dd, Some(132)),
            Self::Icmp6 => ("icmp6", 0x86dd, Some(58)),
            Self::Mpls => ("mpls", 0x8847, None),
        }
    }
}

/// Some bits of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The field.
    pub field: Field,
    /// Lowest bit.
    pub start: u32,
    /// Number of bits.
    pub n_bits: u32,
}

impl Part {
    /// Some bits of a field.
    pub fn new(field: Field, start: u32, n_bits: u32) -> Self {
        Self { field, start, n_bits }
    }

    /// All bits of a field.
    pub fn whole(field: Field) -> Self {
        Self { field, start: 0, n_bits: field.n_bits() }
    }
}

/// The lowest `n` bits.
pub fn ones(n: u32) -> u128 {
    if n >= 128 { u128::MAX } else { (1 << n) - 1 }
}

impl Term {
    /// All bits of a field.
    pub fn whole(field: Field, value: u128) -> Self {
        Self { field, value, mask: ones(field.n_bits()) }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sets.iter().try_for_each(|set| writeln!(f, "set {set}"))?;
        self.meters.iter().try_for_each(|meter| writeln!(f, "{meter}"))?;
        self.groups.iter().try_for_each(|group| writeln!(f, "{group}"))?;
        self.flows.iter().try_for_each(|flow| writeln!(f, "{flow}"))
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cookie != 0 {
            write!(f, "cookie={:#x},", self.cookie)?;
        }
        write!(f, "table={},priority={}{}", self.table, self.priority, self.matching)?;
        f.write_str(",actions=")?;
        if self.steps.is_empty() { f.write_str("drop") } else { step::list(f, &self.steps) }
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, ",{}", kind.meaning().0)?;
        }
        for Term { field, value, mask } in &self.terms {
            write!(f, ",{}=", field.name())?;
            match field.form() {
                Form::Frag => f.write_str(fragment(*value, *mask))?,
                Form::CtState => ct_state(f, *value, *mask)?,
                _ => masked(f, *field, *value, *mask)?,
            }
        }
        self.members.iter().try_for_each(|member| write!(f, ",{member}"))
    }
}

fn masked(f: &mut fmt::Formatter<'_>, field: Field, value: u128, mask: u128) -> fmt::Result {
    f.write_str(&written(field, value))?;
    if mask != ones(field.n_bits()) {
        write!(f, "/{}", written(field, mask))?;
    }
    Ok(())
}

/// Names of `ip_frag`.
fn fragment(value: u128, mask: u128) -> &'static str {
    match (value, mask) {
        (_, 1) if value == 0 => "no",
        (_, 1) => "yes",
        (1, _) => "first",
        (3, _) => "later",
        (_, 2) if value == 0 => "not_later",
        (_, 2) => "later",
        _ => "no",
    }
}

/// Flags of `ct_state`, from the lowest bit.
const CT_FLAGS: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

fn ct_state(f: &mut fmt::Formatter<'_>, value: u128, mask: u128) -> fmt::Result {
    let asked = CT_FLAGS.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 != 0);
    asked.into_iter().try_for_each(|(bit, name)| {
        let sign = if value >> bit & 1 != 0 { '+' } else { '-' };
        write!(f, "{sign}{name}")
    })
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}..{}]", self.field.name(), self.start, self.start + self.n_bits - 1)
    }
}

/// A value as ovs-fields(7) writes it.
fn written(field: Field, value: u128) -> String {
    match field.form() {
        Form::Number => value.to_string(),
        Form::Hex | Form::Frag | Form::CtState => format!("{value:#x}"),
        Form::Mac => {
            let bytes = value.to_be_bytes();
            bytes[10..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
        }
        Form::Ipv4 => std::net::Ipv4Addr::from_bits(value as u32).to_string(),
        Form::Ipv6 => std::net::Ipv6Addr::from_bits(value).to_string(),
    }
}
