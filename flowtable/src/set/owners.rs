//! Which sets a value is in: one search for rules that name more sets than one would ask
//! one by one.

use super::{NamedSet, SetName, ValueRange};
use crate::trie::{Entry, Trie};

/// Names of sets that a prefix is a part of, once for each member that it is part of.
#[derive(Debug, Clone, Default)]
struct Names(Vec<SetName>);

impl Entry for Names {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The members of all sets of a kind.
///
/// # Cost
/// As of one set with all those members, again.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners {
    trie: Trie<Names>,
}

impl Owners {
    /// Of these sets.
    pub(super) fn of<'a>(sets: impl Iterator<Item = &'a NamedSet>) -> Self {
        let mut owners = Self::default();
        for set in sets {
            owners.add(set);
        }
        owners
    }

    pub(super) fn add(&mut self, set: &NamedSet) {
        set.members().for_each(|member| self.insert(set, member));
    }

    pub(super) fn take(&mut self, set: &NamedSet) {
        set.members().for_each(|member| self.remove(set, member));
    }

    pub(super) fn insert(&mut self, set: &NamedSet, member: ValueRange) {
        for (bits, len) in member.prefixes(set.kind().n_bits()) {
            self.trie.update(bits, len, |names| names.0.push(set.name().clone()));
        }
    }

    pub(super) fn remove(&mut self, set: &NamedSet, member: ValueRange) {
        for (bits, len) in member.prefixes(set.kind().n_bits()) {
            self.trie.update(bits, len, |names| {
                if let Some(idx) = names.0.iter().position(|name| *name == *set.name()) {
                    names.0.swap_remove(idx);
                }
            });
        }
    }

    /// The sets that a value, left-aligned, is in, in order; and how many leading bits
    /// prove that it is in these and no others.
    pub(super) fn search(&self, value: u128) -> (Vec<&SetName>, u32) {
        let mut names = Vec::new();
        let n_examined = self.trie.walk(value, |_, more| {
            names.extend(&more.0);
            true
        });
        names.sort_unstable();
        names.dedup();
        (names, n_examined)
    }
}
