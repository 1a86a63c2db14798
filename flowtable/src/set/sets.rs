//! All sets of a version of the tables.

use std::{collections::BTreeMap, sync::Arc};

use super::{NamedSet, SetKind, SetName, ValueRange, owners::Owners};
use crate::field::Field;

/// Sets of a kind that are asked one by one; for more of them there is one search.
pub(crate) const FEW_SETS: usize = 16;

/// All sets of a version.
///
/// # Cost
/// A copy is one reference count per set; a change after it, what changes. Where there are
/// many sets of a kind, members are kept twice.
#[derive(Debug, Clone, Default)]
pub struct Sets {
    by_name: BTreeMap<SetName, Arc<NamedSet>>,
    /// Of each kind.
    n_sets: [usize; SetKind::ALL.len()],
    /// Of each kind of which there are many.
    owners: [Option<Owners>; SetKind::ALL.len()],
}

impl Sets {
    /// The set with this name.
    pub fn get(&self, name: &SetName) -> Option<&Arc<NamedSet>> {
        self.by_name.get(name)
    }

    /// All sets in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NamedSet>> {
        self.by_name.values()
    }

    /// Adds a set, in the place of one of its name.
    pub fn insert(&mut self, set: NamedSet) {
        self.remove(&set.name().clone());
        let kind = set.kind();
        if let Some(owners) = &mut self.owners[kind as usize] {
            owners.add(&set);
        }
        self.by_name.insert(set.name().clone(), Arc::new(set));
        self.n_sets[kind as usize] += 1;
        if self.n_sets[kind as usize] == FEW_SETS + 1 {
            let sets = self.by_name.values().map(|set| &**set).filter(|set| set.kind() == kind);
            self.owners[kind as usize] = Some(Owners::of(sets));
        }
    }

    /// Takes a set out; false when there is none.
    pub fn remove(&mut self, name: &SetName) -> bool {
        let Some(set) = self.by_name.remove(name) else { return false };
        let kind = set.kind() as usize;
        self.n_sets[kind] -= 1;
        if self.n_sets[kind] <= FEW_SETS {
            self.owners[kind] = None;
        } else if let Some(owners) = &mut self.owners[kind] {
            owners.take(&set);
        }
        true
    }

    /// Adds a member to a set; false when it is there already, or there is no such set.
    pub fn insert_member(&mut self, name: &SetName, member: ValueRange) -> bool {
        let Some(set) = self.by_name.get_mut(name).map(Arc::make_mut) else { return false };
        let is_new = set.insert(member);
        if let Some(owners) = self.owners[set.kind() as usize].as_mut().filter(|_| is_new) {
            owners.insert(set, member);
        }
        is_new
    }

    /// Takes a member out of a set; false when there is none, or no such set.
    pub fn remove_member(&mut self, name: &SetName, member: ValueRange) -> bool {
        let Some(set) = self.by_name.get_mut(name).map(Arc::make_mut) else { return false };
        let was_there = set.remove(member);
        if let Some(owners) = self.owners[set.kind() as usize].as_mut().filter(|_| was_there) {
            owners.remove(set, member);
        }
        was_there
    }

    /// The sets of a field's kind that a value of it is in, in order, and how many leading
    /// bits prove that it is in these and no others; `None` where there are few of them.
    pub(crate) fn owners(&self, field: Field, value: u128) -> Option<(Vec<&SetName>, u32)> {
        let kind = SetKind::of(field)?;
        let owners = self.owners[kind as usize].as_ref()?;
        let (width, n_bits) = (kind.n_bits(), field.info().n_bits);
        let (names, n_examined) = owners.search(value.checked_shl(128 - width).unwrap_or(0));
        Some((names, n_examined.saturating_sub(width.saturating_sub(n_bits))))
    }
}

/// The same sets.
impl PartialEq for Sets {
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

impl Eq for Sets {}
