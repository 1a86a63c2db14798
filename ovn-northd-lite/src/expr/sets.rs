//! Sets with a name: `$web` stands for addresses, `@db` for ports. Before an expression
//! becomes matches, its sets are replaced by their members; what travels and what is
//! shown keeps the names.

use std::{collections::BTreeSet, fmt};

use super::{
    ExprError,
    ast::{Constant, Expr, Operand},
    lexer::Notation,
};

/// A set that an expression names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetName<'a> {
    /// `$name`
    Addresses(&'a str),
    /// `@name`
    Ports(&'a str),
}

/// Knows the members of sets; `None`: there is no such set.
pub type SetResolver<'a> = &'a dyn Fn(SetName<'_>) -> Option<Vec<Constant>>;

impl fmt::Display for SetName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(name) => write!(f, "${name}"),
            Self::Ports(name) => write!(f, "@{name}"),
        }
    }
}

impl<'a> SetName<'a> {
    fn of(constant: &'a Constant) -> Option<Self> {
        match constant {
            Constant::AddressSet(name) => Some(Self::Addresses(name)),
            Constant::PortGroup(name) => Some(Self::Ports(name)),
            Constant::Number { .. } | Constant::Port(_) => None,
        }
    }
}

impl Expr {
    /// The sets it names, as it writes them.
    pub(crate) fn sets(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.visit(&mut |name| {
            found.insert(name.to_string());
        });
        found
    }

    fn visit(&self, see: &mut dyn FnMut(SetName<'_>)) {
        match self {
            Self::Bool(_) | Self::Test(_) | Self::Resident(_) => {}
            Self::Not(inner) => inner.visit(see),
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.visit(see)),
            Self::Compare { values, .. } => values.iter().filter_map(SetName::of).for_each(see),
        }
    }

    /// The expression with the members of its sets instead of their names. Members of
    /// another kind than the field (IPv6 addresses for an IPv4 field) are left out.
    ///
    /// # Errors
    /// A set that there is not.
    pub fn with_sets(self, sets: SetResolver<'_>) -> Result<Self, ExprError> {
        let each = |parts: Vec<Self>| {
            parts.into_iter().map(|part| part.with_sets(sets)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::Bool(_) | Self::Test(_) | Self::Resident(_) => self,
            Self::Not(inner) => Self::Not(Box::new(inner.with_sets(sets)?)),
            Self::And(parts) => Self::And(each(parts)?),
            Self::Or(parts) => Self::Or(each(parts)?),
            Self::Compare { field, op, values } => {
                let mut members = Vec::with_capacity(values.len());
                for value in values {
                    match SetName::of(&value) {
                        None => members.push(value),
                        Some(name) => members.extend(resolve(name, &field, sets)?),
                    }
                }
                Self::Compare { field, op, values: members }
            }
        })
    }
}

fn resolve(name: SetName<'_>, field: &Operand, sets: SetResolver<'_>) -> Result<Vec<Constant>, ExprError> {
    let mut members = sets(name).ok_or_else(|| {
        let kind = match name {
            SetName::Addresses(_) => "address set",
            SetName::Ports(_) => "port group",
        };
        ExprError::new(0, format!("there is no {kind} `{name}`"))
    })?;
    members.retain(|member| match member {
        Constant::Number { notation, .. } => match notation {
            Notation::Mac => field.max_bits() == 48,
            Notation::Ipv4 => field.max_bits() == 32,
            Notation::Ipv6 => field.max_bits() == 128,
            Notation::Decimal | Notation::Hex => true,
        },
        Constant::Port(_) => field.is_port(),
        Constant::AddressSet(_) | Constant::PortGroup(_) => false,
    });
    Ok(members)
}
