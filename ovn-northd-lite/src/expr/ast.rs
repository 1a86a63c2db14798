//! A match expression as a tree, and its text form. Trees come from the parser alone:
//! names are known, constants fit, ports are only compared for equality.

use std::fmt::{self, Display as _};

use flowtable::{
    field::{Field, SubField},
    set::SetKind,
};

use super::{
    lexer::{Notation, print_number, quote},
    symbols::{Kind, Symbol},
};

/// A match expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// `1` or `0`: always or never.
    Bool(bool),
    /// `!e`
    Not(Box<Expr>),
    /// `a && b && …`
    And(Vec<Expr>),
    /// `a || b || …`
    Or(Vec<Expr>),
    /// A predicate or a single bit on its own: `tcp`, `ip.frag[1]`.
    Test(Operand),
    /// `field op {constants}`
    Compare {
        /// Left side.
        field: Operand,
        /// How.
        op: Relation,
        /// Right side: one constant, or several as a set.
        values: Vec<Constant>,
    },
    /// `is_chassis_resident("port")`: the port is on the chassis that asks.
    Resident(String),
}

/// A name, or some of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    pub(crate) symbol: &'static Symbol,
    /// First bit and number of bits within the symbol, when not all of it.
    pub(crate) bits: Option<(u32, u32)>,
}

/// Relational operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// Right side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constant {
    /// Number or address.
    Number {
        /// Its value; no bit outside the mask.
        value: u128,
        /// Bits to compare; `None`: all.
        mask: Option<u128>,
        /// How it is written.
        notation: Notation,
    },
    /// Name of a logical port or group.
    Port(String),
    /// `$name`: all members of an address set.
    AddressSet(String),
    /// `@name`: all ports of a port group.
    PortGroup(String),
    /// `^name`: what a variable is on the chassis that asks.
    Variable(String),
}

impl Operand {
    /// Its place in the key; `None` for predicates.
    pub(crate) fn place(&self) -> Option<SubField> {
        match self.symbol.kind {
            Kind::Number { field, start, n_bits, .. } => {
                let (offset, n_bits) = self.bits.unwrap_or((0, n_bits));
                SubField::new(field, start + offset, n_bits)
            }
            Kind::Port(field) => Some(SubField::whole(field)),
            Kind::Predicate(_) => None,
        }
    }

    /// Bits that a constant for it can have.
    pub(crate) fn max_bits(&self) -> u32 {
        match (self.bits, self.symbol.kind) {
            (Some((_, n_bits)), _) => n_bits,
            (None, Kind::Number { max_bits, .. }) => max_bits,
            (None, _) => 0,
        }
    }

    /// Parts of it can be matched; else only the whole.
    pub(crate) fn is_maskable(&self) -> bool {
        self.place().is_some_and(|place| place.field.info().maskable)
    }

    /// The field that it is the whole of, and what sets for it hold.
    pub(crate) fn set_kind(&self) -> Option<(Field, SetKind)> {
        let place = self.place()?;
        let is_whole = place.start == 0 && place.n_bits == place.field.info().n_bits;
        SetKind::of(place.field).filter(|_| is_whole).map(|kind| (place.field, kind))
    }

    /// It is the name of a logical port.
    pub(crate) fn is_port(&self) -> bool {
        matches!(self.symbol.kind, Kind::Port(_))
    }
}

impl Relation {
    /// The relation that holds exactly when this one does not.
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Ge => Self::Lt,
            Self::Gt => Self::Le,
            Self::Le => Self::Gt,
        }
    }

    /// The relation with its sides exchanged.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::Lt => Self::Gt,
            Self::Gt => Self::Lt,
            Self::Le => Self::Ge,
            Self::Ge => Self::Le,
        }
    }

    /// The operator.
    pub fn text(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{}", u8::from(*value)),
            Self::Not(inner) => match **inner {
                Self::Test(_) => write!(f, "!{inner}"),
                _ => write!(f, "!({inner})"),
            },
            Self::And(parts) => print_joined(f, parts, " && "),
            Self::Or(parts) => print_joined(f, parts, " || "),
            Self::Test(operand) => operand.fmt(f),
            Self::Resident(port) => write!(f, "is_chassis_resident({})", quote(port)),
            Self::Compare { field, op, values } => {
                write!(f, "{field} {} ", op.text())?;
                match values.as_slice() {
                    [value] => value.fmt(f),
                    values => {
                        let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
                        write!(f, "{{{}}}", texts.join(", "))
                    }
                }
            }
        }
    }
}

/// The parts with an operator between them, and parentheses around those that are joined
/// themselves.
fn print_joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], operator: &str) -> fmt::Result {
    for (idx, part) in parts.iter().enumerate() {
        if idx > 0 {
            f.write_str(operator)?;
        }
        match part {
            Expr::And(_) | Expr::Or(_) => write!(f, "({part})")?,
            _ => part.fmt(f)?,
        }
    }
    Ok(())
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol.name)?;
        match self.bits {
            None => Ok(()),
            Some((start, 1)) => write!(f, "[{start}]"),
            Some((start, n_bits)) => write!(f, "[{start}..{}]", start + n_bits - 1),
        }
    }
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { value, mask, notation } => {
                f.write_str(&print_number(*value, *notation))?;
                match mask {
                    None => Ok(()),
                    Some(mask) => match prefix_len(*mask, *notation) {
                        Some(len) => write!(f, "/{len}"),
                        None => write!(f, "/{}", print_number(*mask, *notation)),
                    },
                }
            }
            Self::Port(name) => f.write_str(&quote(name)),
            Self::AddressSet(name) => write!(f, "${name}"),
            Self::PortGroup(name) => write!(f, "@{name}"),
            Self::Variable(name) => write!(f, "^{name}"),
        }
    }
}

/// Length of the prefix that an IP mask is, if it is one.
fn prefix_len(mask: u128, notation: Notation) -> Option<u32> {
    let (mask, width) = match notation {
        Notation::Ipv4 => (mask << 96, 32),
        Notation::Ipv6 => (mask, 128),
        Notation::Decimal | Notation::Hex | Notation::Mac => return None,
    };
    let len = mask.leading_ones();
    (len <= width && mask.checked_shl(len).unwrap_or(0) == 0).then_some(len)
}
