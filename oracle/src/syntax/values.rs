//! Ranges and named sets of values, which Open vSwitch does not have.

use std::fmt;

use super::written;
use crate::field::{Field, Form};

/// The value of a field is one of some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The field.
    pub field: Field,
    /// Which values.
    pub values: Values,
}

/// Some values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// From one to another.
    Range(u128, u128),
    /// Those of a set.
    Set(&'static str),
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSet {
    /// Its name.
    pub name: &'static str,
    /// What it holds: `ipv4` and its like.
    pub kind: &'static str,
    /// A field whose values are written as its members are.
    pub field: Field,
    /// First and last value of each member.
    pub members: Vec<(u128, u128)>,
}

impl NamedSet {
    /// The set has a value.
    pub fn has(&self, value: u128) -> bool {
        self.members.iter().any(|(first, last)| (*first..=*last).contains(&value))
    }
}

/// What sets there can be for the values of a field.
pub fn kind_of(field: Field) -> Option<&'static str> {
    match field.form() {
        Form::Ipv4 => Some("ipv4"),
        Form::Ipv6 => Some("ipv6"),
        Form::Mac => Some("mac"),
        Form::Frag | Form::CtState => None,
        Form::Number | Form::Hex => match field {
            Field::TcpSrc | Field::TcpDst | Field::UdpSrc | Field::UdpDst => Some("port"),
            Field::SctpSrc | Field::SctpDst | Field::IcmpType | Field::IcmpCode => Some("port"),
            Field::TcpFlags => None,
            _ => Some("number"),
        },
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.field.name())?;
        match &self.values {
            Values::Range(first, last) => range(f, self.field, *first, *last),
            Values::Set(name) => write!(f, "${name}"),
        }
    }
}

impl fmt::Display for NamedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} type={}", self.name, self.kind)?;
        for (idx, (first, last)) in self.members.iter().enumerate() {
            f.write_str(if idx == 0 { " " } else { "," })?;
            if first == last {
                f.write_str(&written(self.field, *first))?;
            } else {
                range(f, self.field, *first, *last)?;
            }
        }
        Ok(())
    }
}

fn range(f: &mut fmt::Formatter<'_>, field: Field, first: u128, last: u128) -> fmt::Result {
    write!(f, "{}-{}", written(field, first), written(field, last))
}
