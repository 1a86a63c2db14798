//! What a match says of a field beyond masks: its value is in a range, or in a named set.

use crate::{
    field::Field,
    key::{FlowKey, Tracked},
    set::{SetName, Sets, ValueRange},
};

/// The value of a field is one of some.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Membership {
    /// The field; of those that share its place in the key, the first.
    pub field: Field,
    /// Which values.
    pub values: Values,
}

/// Some values of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Values {
    /// From one to another.
    Range(ValueRange),
    /// Those that a set holds.
    Set(SetName),
}

impl Values {
    /// A value is one of them, and how many leading bits of a field of `n_bits` prove that
    /// it is, or is not. A set that is not there holds nothing.
    pub(crate) fn search(&self, sets: &Sets, value: u128, n_bits: u32) -> (bool, u32) {
        match self {
            Self::Range(range) => range.search(value, n_bits),
            Self::Set(name) => sets.get(name).map_or((false, 0), |set| set.search(value, n_bits)),
        }
    }
}

impl Membership {
    /// Fields that share their place in the key are the same here: what a packet must be
    /// for one of them to have a meaning is in the other part of the match.
    pub fn new(field: Field, values: Values) -> Self {
        let first = Field::ALL.iter().copied().find(|other| other.shares_place(field));
        Self { field: first.unwrap_or(field), values }
    }

    /// The range; `None` for a set.
    pub(crate) fn range(&self) -> Option<ValueRange> {
        match self.values {
            Values::Range(range) => Some(range),
            Values::Set(_) => None,
        }
    }

    /// The key's value is one of those.
    pub fn has(&self, key: &FlowKey, sets: &Sets) -> bool {
        self.values.search(sets, key.get(self.field), self.field.info().n_bits).0
    }

    /// The key's value is one of those; un-wildcards what proves that it is, or is not.
    pub(crate) fn examine(&self, key: &mut Tracked, sets: &Sets) -> bool {
        let mut found = false;
        key.read_prefix(self.field, |value| {
            let (is_there, n_examined) = self.values.search(sets, value, self.field.info().n_bits);
            found = is_there;
            n_examined
        });
        found
    }
}
