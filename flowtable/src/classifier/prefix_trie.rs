//! The prefixes of one field that the rules of a table use: which prefix lengths can
//! match a value at all, and how few of the value's leading bits prove it. Without it a
//! route lookup would examine the whole address and every address would need a megaflow
//! of its own.

use crate::trie::Trie;

/// The prefixes of the rules, counted. A prefix is left-aligned in 128 bits, whatever the
/// width of the field.
///
/// # Cost
/// A copy is one reference count; a change copies the nodes on its way, at most 128.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixTrie {
    /// Rules with just this prefix.
    n_rules: Trie<u32>,
}

/// What the trie says about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// Bit `n - 1`: a prefix of length `n` is one of the value's.
    lens: u128,
    /// Leading bits of the value that the answer rests on.
    n_examined: u32,
}

impl Answer {
    /// How many leading bits prove that no prefix of this length is the value's; `None`:
    /// there is one.
    pub(super) fn excludes(&self, len: u32) -> Option<u32> {
        let present = len.checked_sub(1).is_none_or(|bit| self.lens >> bit & 1 != 0);
        (!present).then(|| len.min(self.n_examined))
    }
}

impl PrefixTrie {
    /// Adds a prefix, 1 to 128 bits; prefixes are counted.
    pub(super) fn insert(&mut self, bits: u128, len: u32) {
        self.n_rules.update(bits, len, |n_rules| *n_rules += 1);
    }

    /// Takes a prefix out that was added before.
    pub(super) fn remove(&mut self, bits: u128, len: u32) {
        self.n_rules.update(bits, len, |n_rules| *n_rules = n_rules.saturating_sub(1));
    }

    /// What there is along the value's path.
    pub(super) fn lookup(&self, value: u128) -> Answer {
        let mut lens = 0;
        let n_examined = self.n_rules.walk(value, |len, _| {
            lens |= len.checked_sub(1).map_or(0, |bit| 1 << bit);
            true
        });
        Answer { lens, n_examined }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trie::prefix_mask;

    proptest! {
        /// Against a plain list of prefixes: the lengths are right, and any value that
        /// agrees in the examined bits is excluded from the same lengths.
        #[test]
        fn answers_follow_from_the_examined_bits(
            prefixes in proptest::collection::vec((0..64_u128, 1..=32_u32), 0..20),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            value in 0..64_u128, other in any::<u32>(),
        ) {
            let spread = |n: u128| (n & 7 | (n >> 3) << 27) << 96;
            let mut trie = PrefixTrie::default();
            let mut list: Vec<_> = prefixes
                .iter()
                .map(|(n, len)| (spread(*n) & prefix_mask(*len), *len))
                .collect();
            for (bits, len) in &list {
                trie.insert(*bits, *len);
            }
            for idx in removed {
                if !list.is_empty() {
                    let (bits, len) = list.swap_remove(idx.index(list.len()));
                    trie.remove(bits, len);
                }
            }
            prop_assert!(!list.is_empty() || trie.n_rules.is_empty());
            let value = spread(value);
            for len in 1..=32 {
                let present = list.iter().any(|(bits, l)| *l == len && (bits ^ value) & prefix_mask(len) == 0);
                let proof = trie.lookup(value).excludes(len);
                prop_assert_eq!(proof.is_none(), present);
                if let Some(n) = proof {
                    let twin = value & prefix_mask(n) | (u128::from(other) << 96) & !prefix_mask(n);
                    prop_assert!(trie.lookup(twin).excludes(len).is_some());
                }
            }
        }
    }
}
