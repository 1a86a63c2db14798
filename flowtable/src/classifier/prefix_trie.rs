//! The prefixes of one field that the rules of a table use, as a binary trie: it tells
//! which prefix lengths can match a value at all, and how few of the value's leading
//! bits prove it. Without it a route lookup would examine the whole address and every
//! address would need a megaflow of its own.

use std::sync::Arc;

/// A path-compressed binary trie of prefixes. A prefix is left-aligned in 128 bits,
/// whatever the width of the field.
///
/// # Cost
/// A copy is one reference count; a change copies the nodes on its way, at most 128.
#[derive(Debug, Clone, Default)]
pub(super) struct PrefixTrie {
    root: Option<Arc<Node>>,
}

#[derive(Debug, Clone)]
struct Node {
    /// The first `len` bits; zero behind them.
    bits: u128,
    len: u32,
    /// Rules with just this prefix; 0: only a fork.
    n_rules: u32,
    /// By the bit that follows.
    children: [Option<Arc<Node>>; 2],
}

/// What the trie says about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
        insert(&mut self.root, bits & prefix_mask(len), len);
    }

    /// Takes a prefix out that was added before.
    pub(super) fn remove(&mut self, bits: u128, len: u32) {
        remove(&mut self.root, bits & prefix_mask(len), len);
    }

    /// What there is along the value's path.
    pub(super) fn lookup(&self, value: u128) -> Answer {
        let mut answer = Answer { lens: 0, n_examined: 0 };
        let mut slot = &self.root;
        while let Some(node) = slot {
            let common = (node.bits ^ value).leading_zeros().min(node.len);
            if common < node.len {
                answer.n_examined = common + 1;
                break;
            }
            if node.n_rules > 0 {
                answer.lens |= 1 << (node.len - 1);
            }
            // A leaf ends the search by itself, a fork by its next bit.
            let is_leaf = node.children.iter().all(Option::is_none);
            answer.n_examined = node.len + u32::from(!is_leaf);
            if is_leaf {
                break;
            }
            slot = &node.children[bit(value, node.len)];
        }
        answer
    }
}

fn insert(slot: &mut Option<Arc<Node>>, bits: u128, len: u32) {
    let Some(node) = slot else {
        *slot = Some(Arc::new(Node { bits, len, n_rules: 1, children: [None, None] }));
        return;
    };
    let common = (node.bits ^ bits).leading_zeros().min(node.len).min(len);
    if common < node.len {
        let side = bit(node.bits, common);
        let mut children = [None, None];
        children[side] = slot.take();
        *slot = Some(Arc::new(Node { bits: bits & prefix_mask(common), len: common, n_rules: 0, children }));
        insert(slot, bits, len);
    } else if len == node.len {
        Arc::make_mut(node).n_rules += 1;
    } else {
        let child = bit(bits, node.len);
        insert(&mut Arc::make_mut(node).children[child], bits, len);
    }
}

fn remove(slot: &mut Option<Arc<Node>>, bits: u128, len: u32) {
    let Some(node) = slot else { return };
    if node.len > len || (node.bits ^ bits) & prefix_mask(node.len) != 0 {
        return;
    }
    let node = Arc::make_mut(node);
    if node.len == len {
        node.n_rules = node.n_rules.saturating_sub(1);
    } else {
        remove(&mut node.children[bit(bits, node.len)], bits, len);
    }
    if node.n_rules == 0 && node.children.iter().any(Option::is_none) {
        let [left, right] = &mut node.children;
        *slot = left.take().or_else(|| right.take());
    }
}

/// The highest `len` bits set.
fn prefix_mask(len: u32) -> u128 {
    !u128::MAX.checked_shr(len).unwrap_or(0)
}

/// Bit `idx` from the left; there is none beyond the last, and nobody goes there.
fn bit(bits: u128, idx: u32) -> usize {
    usize::from(bits.checked_shl(idx).unwrap_or(0) >> 127 != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            prop_assert!(!list.is_empty() || trie.root.is_none());
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
