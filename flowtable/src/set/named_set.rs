//! One set.

use super::{SetKind, SetName, ValueRange, members::Members};

/// A set of values with a name.
///
/// # Cost
/// A copy costs little more than a hundredth of the members; a change after it, what
/// changes.
#[derive(Debug, Clone)]
pub struct NamedSet {
    name: SetName,
    kind: SetKind,
    members: Members,
}

impl NamedSet {
    /// An empty set.
    pub fn new(name: SetName, kind: SetKind) -> Self {
        Self { name, kind, members: Members::default() }
    }

    /// Its name.
    pub fn name(&self) -> &SetName {
        &self.name
    }

    /// What it holds.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Prefixes that the members are made up of: what they cost to keep.
    pub fn n_prefixes(&self) -> usize {
        self.members.n_prefixes()
    }

    /// It has no members: no value is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in order. They may overlap: each is there until it is taken out.
    pub fn members(&self) -> impl Iterator<Item = ValueRange> {
        self.members.iter()
    }

    /// Just this is a member, not only part of one.
    pub fn has_member(&self, member: ValueRange) -> bool {
        self.members.has(member)
    }

    /// A value is within a member.
    pub fn contains(&self, value: u128) -> bool {
        self.search(value, self.kind.n_bits()).0
    }

    /// Adds a member; false when it is there already. Bits beyond those of the kind are
    /// the caller's to refuse: such values are never found.
    pub fn insert(&mut self, member: ValueRange) -> bool {
        self.members.insert(member, self.kind.n_bits())
    }

    /// Takes a member out; false when there is none.
    pub fn remove(&mut self, member: ValueRange) -> bool {
        self.members.remove(member, self.kind.n_bits())
    }

    /// A value of a field of `n_bits` is in the set, and how many of its leading bits
    /// prove that it is, or is not.
    pub(crate) fn search(&self, value: u128, n_bits: u32) -> (bool, u32) {
        let width = self.kind.n_bits();
        let (found, n_examined) = self.members.search(value.checked_shl(128 - width).unwrap_or(0));
        // Numbers are kept as wide as the widest field; the bits in front are zero in all
        // values of the narrower one.
        (found, n_examined.saturating_sub(width.saturating_sub(n_bits)))
    }
}

/// The same name, kind and members.
impl PartialEq for NamedSet {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.kind == other.kind
            && self.len() == other.len()
            && self.members().eq(other.members())
    }
}

impl Eq for NamedSet {}
