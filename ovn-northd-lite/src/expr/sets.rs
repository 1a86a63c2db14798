//! Sets with a name: `$web` stands for addresses, `@db` for ports, `^node` for what it is on
//! the chassis that asks. Before an expression becomes matches, its sets are replaced by
//! their members; what travels and what is shown keeps the names.

use std::{collections::BTreeSet, fmt};

use flowtable::set::SetKind;

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
    /// `^name`
    Variable(&'a str),
}

/// Knows the members of sets; `None`: there is no such set.
pub type SetResolver<'a> = &'a dyn Fn(SetName<'_>) -> Option<Vec<Constant>>;

impl fmt::Display for SetName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(name) => write!(f, "${name}"),
            Self::Ports(name) => write!(f, "@{name}"),
            Self::Variable(name) => write!(f, "^{name}"),
        }
    }
}

impl<'a> SetName<'a> {
    /// There is no such set.
    pub(super) fn missing(self) -> ExprError {
        let kind = match self {
            Self::Addresses(_) => "address set",
            Self::Ports(_) => "port group",
            Self::Variable(_) => "template variable with values to compare",
        };
        ExprError::new(0, format!("there is no {kind} `{self}`"))
    }

    /// A field can be matched with the switch's own set of that name.
    fn suits(self, field: &Operand) -> bool {
        match field.set_kind() {
            Some((_, SetKind::Ipv4 | SetKind::Ipv6 | SetKind::Mac)) => matches!(self, Self::Addresses(_)),
            Some((_, SetKind::Number)) => matches!(self, Self::Ports(_)) && field.is_port(),
            Some((_, SetKind::Port)) | None => false,
        }
    }

    fn of(constant: &'a Constant) -> Option<Self> {
        match constant {
            Constant::AddressSet(name) => Some(Self::Addresses(name)),
            Constant::PortGroup(name) => Some(Self::Ports(name)),
            Constant::Variable(name) => Some(Self::Variable(name)),
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
        self.inlined(sets, &|_, _| true)
    }

    /// As [`Expr::with_sets`], but only where the switch has no sets: for parts of fields, and
    /// for addresses in registers.
    ///
    /// # Errors
    /// A set that there is not.
    pub fn with_odd_sets(self, sets: SetResolver<'_>) -> Result<Self, ExprError> {
        self.inlined(sets, &|name, field| !name.suits(field))
    }

    fn inlined(
        self,
        sets: SetResolver<'_>,
        chosen: &dyn Fn(SetName<'_>, &Operand) -> bool,
    ) -> Result<Self, ExprError> {
        let each = |parts: Vec<Self>| {
            parts.into_iter().map(|part| part.inlined(sets, chosen)).collect::<Result<Vec<_>, _>>()
        };
        Ok(match self {
            Self::Bool(_) | Self::Test(_) | Self::Resident(_) => self,
            Self::Not(inner) => Self::Not(Box::new(inner.inlined(sets, chosen)?)),
            Self::And(parts) => Self::And(each(parts)?),
            Self::Or(parts) => Self::Or(each(parts)?),
            Self::Compare { field, op, values } => {
                let mut members = Vec::with_capacity(values.len());
                for value in values {
                    match SetName::of(&value) {
                        Some(name) if chosen(name, &field) => members.extend(resolve(name, &field, sets)?),
                        _ => members.push(value),
                    }
                }
                Self::Compare { field, op, values: members }
            }
        })
    }
}

fn resolve(name: SetName<'_>, field: &Operand, sets: SetResolver<'_>) -> Result<Vec<Constant>, ExprError> {
    let mut members = sets(name).ok_or_else(|| name.missing())?;
    members.retain(|member| match member {
        Constant::Number { notation, .. } => match notation {
            Notation::Mac => field.max_bits() == 48,
            Notation::Ipv4 => field.max_bits() == 32,
            Notation::Ipv6 => field.max_bits() == 128,
            Notation::Decimal | Notation::Hex => true,
        },
        Constant::Port(_) => field.is_port(),
        Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => false,
    });
    Ok(members)
}
