//! A binary trie of prefixes, cheap to copy and then change: the shape that prefixes of
//! rules, ranges and sets of addresses have in common. What it tells of a value rests on
//! some of the value's leading bits, and it says on how many: a walk is a search and the
//! proof of its answer in one.

use std::sync::Arc;

use crate::key::low_bits;

/// What the trie keeps for a prefix.
pub(crate) trait Entry: Clone + Default {
    /// There is nothing here: the prefix is only a fork, or can go.
    fn is_empty(&self) -> bool;
}

/// How often something is there.
impl Entry for u32 {
    fn is_empty(&self) -> bool {
        *self == 0
    }
}

/// A path-compressed binary trie. A prefix is left-aligned in 128 bits, whatever the
/// width of the field, and has 0 to 128 bits.
///
/// # Cost
/// A copy is one reference count; a change copies the nodes on its way, at most 129.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trie<T> {
    root: Option<Arc<Node<T>>>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    /// The first `len` bits; zero behind them.
    bits: u128,
    len: u32,
    entry: T,
    /// Something is kept for each value with this prefix: here or, all together, below.
    full: bool,
    /// By the bit that follows.
    children: [Option<Arc<Node<T>>>; 2],
}

impl<T: Entry> Node<T> {
    fn is_full(&self) -> bool {
        let half = |child: &Option<Arc<Self>>| {
            child.as_ref().is_some_and(|child| child.full && child.len == self.len + 1)
        };
        !self.entry.is_empty() || self.children.iter().all(half)
    }
}

impl<T: Entry> Trie<T> {
    /// Changes what is kept for a prefix; what is empty afterwards goes.
    pub(crate) fn update(&mut self, bits: u128, len: u32, change: impl FnOnce(&mut T)) {
        update(&mut self.root, bits & prefix_mask(len), len, change);
    }

    /// Shows what is kept for each prefix of the value, with its length, the shortest
    /// first, until `visit` answers false. Gives back how many leading bits the walk
    /// rests on: for each value that agrees in them it is the same.
    pub(crate) fn walk<'a>(&'a self, value: u128, mut visit: impl FnMut(u32, &'a T) -> bool) -> u32 {
        let mut n_examined = 0;
        let mut slot = &self.root;
        while let Some(node) = slot {
            let common = (node.bits ^ value).leading_zeros().min(node.len);
            if common < node.len {
                return common + 1;
            }
            let goes_on = node.entry.is_empty() || visit(node.len, &node.entry);
            // A leaf ends the search by itself, a fork by its next bit.
            if !goes_on || node.children.iter().all(Option::is_none) {
                return node.len;
            }
            n_examined = node.len + 1;
            slot = &node.children[bit(value, node.len)];
        }
        n_examined
    }

    /// Something is kept for a prefix of the value, and how many leading bits prove that it
    /// is so, or not: the fewest that do.
    pub(crate) fn covers(&self, value: u128) -> (bool, u32) {
        let mut slot = &self.root;
        while let Some(node) = slot {
            let common = (node.bits ^ value).leading_zeros().min(node.len);
            if common < node.len {
                return (false, common + 1);
            }
            if node.full {
                return (true, node.len);
            }
            // What is kept is below, on both sides.
            slot = &node.children[bit(value, node.len)];
        }
        (false, 0)
    }

    /// Nothing is kept.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

fn update<T: Entry>(slot: &mut Option<Arc<Node<T>>>, bits: u128, len: u32, change: impl FnOnce(&mut T)) {
    let Some(node) = slot else {
        let mut leaf = Node { bits, len, entry: T::default(), full: true, children: [None, None] };
        change(&mut leaf.entry);
        if !leaf.entry.is_empty() {
            *slot = Some(Arc::new(leaf));
        }
        return;
    };
    let common = (node.bits ^ bits).leading_zeros().min(node.len).min(len);
    if common < node.len {
        let (side, mut children) = (bit(node.bits, common), [None, None]);
        children[side] = slot.take();
        let bits_there = bits & prefix_mask(common);
        let mut fork = Node { bits: bits_there, len: common, entry: T::default(), full: false, children };
        if common == len {
            change(&mut fork.entry);
        } else {
            update(&mut fork.children[bit(bits, common)], bits, len, change);
        }
        *slot = Some(Arc::new(fork));
    } else if len == node.len {
        change(&mut Arc::make_mut(node).entry);
    } else {
        let side = bit(bits, node.len);
        update(&mut Arc::make_mut(node).children[side], bits, len, change);
    }
    settle(slot);
}

/// Takes a node out that neither keeps something nor forks; else notes whether it is full.
fn settle<T: Entry>(slot: &mut Option<Arc<Node<T>>>) {
    let Some(node) = slot else { return };
    let node = Arc::make_mut(node);
    if node.entry.is_empty() && node.children.iter().any(Option::is_none) {
        let [left, right] = &mut node.children;
        let only = left.take().or_else(|| right.take());
        *slot = only;
    } else {
        node.full = node.is_full();
    }
}

/// The highest `len` bits set.
pub(crate) fn prefix_mask(len: u32) -> u128 {
    !u128::MAX.checked_shr(len).unwrap_or(0)
}

/// Bit `idx` from the left; there is none beyond the last, and nobody goes there.
fn bit(bits: u128, idx: u32) -> usize {
    usize::from(bits.checked_shl(idx).unwrap_or(0) >> 127 != 0)
}

/// The fewest prefixes that make up the values from `first` to `last` of a field of
/// `n_bits`, left-aligned, with their lengths: at most two of each length.
pub(crate) fn prefixes(first: u128, last: u128, n_bits: u32) -> impl Iterator<Item = (u128, u32)> {
    let mut next = (first <= last).then_some(first);
    std::iter::from_fn(move || {
        let start = next?;
        let fits = (last - start).checked_add(1).map_or(128, u128::ilog2);
        let n_wild = start.trailing_zeros().min(fits).min(n_bits);
        let end = start | low_bits(n_wild);
        next = if end < last { end.checked_add(1) } else { None };
        Some((start.checked_shl(128 - n_bits).unwrap_or(0), n_bits - n_wild))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The prefixes of a range make up just the range, without overlap, and are few.
        #[test]
        fn prefixes_make_up_their_range(a: u16, b: u16, n_bits in prop::sample::select(vec![16_u32, 48, 128])) {
            let (first, last) = (u128::from(a.min(b)), u128::from(a.max(b)));
            let mut next = first;
            let mut n = 0;
            for (bits, len) in prefixes(first, last, n_bits) {
                prop_assert_eq!(bits >> (128 - n_bits), next);
                next += 1 << (n_bits - len);
                n += 1;
            }
            prop_assert_eq!(next, last + 1);
            prop_assert!(n <= 30);
        }

        /// Against a plain list: a walk shows all prefixes of the value, and any value
        /// that agrees in the examined bits is shown the same ones.
        #[test]
        fn walks_rest_on_the_examined_bits(
            list in proptest::collection::vec((0..64_u128, 0..=32_u32), 0..20),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
            value in 0..64_u128, other in any::<u32>(),
        ) {
            let spread = |n: u128| (n & 7 | (n >> 3) << 27) << 96;
            let mut list: Vec<_> = list.iter().map(|(n, len)| (spread(*n) & prefix_mask(*len), *len)).collect();
            let mut trie = Trie::<u32>::default();
            for (bits, len) in &list {
                trie.update(*bits, *len, |n| *n += 1);
            }
            for idx in removed {
                if !list.is_empty() {
                    let (bits, len) = list.swap_remove(idx.index(list.len()));
                    trie.update(bits, len, |n| *n -= 1);
                }
            }
            prop_assert_eq!(list.is_empty(), trie.is_empty());
            let shown = |value| {
                let mut lens = Vec::new();
                let n_examined = trie.walk(value, |len, n| {
                    lens.extend(std::iter::repeat_n(len, *n as usize));
                    true
                });
                (lens, n_examined)
            };
            let value = spread(value);
            let (lens, n_examined) = shown(value);
            let mut wanted: Vec<_> = list
                .iter()
                .filter(|(bits, len)| (bits ^ value) & prefix_mask(*len) == 0)
                .map(|(_, len)| *len)
                .collect();
            wanted.sort_unstable();
            prop_assert_eq!(&lens, &wanted);
            let twin = value & prefix_mask(n_examined) | (u128::from(other) << 96) & !prefix_mask(n_examined);
            prop_assert_eq!(shown(twin), (lens, n_examined));
            prop_assert_eq!(trie.covers(value).0, !wanted.is_empty());
        }

        /// The proof that something is kept for a value, or not, is one, and the shortest.
        #[test]
        fn covers_needs_the_fewest_bits(
            list in proptest::collection::vec((any::<u8>(), 0..=8_u32), 0..40),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..20), value: u8,
        ) {
            let place = |value: u8| u128::from(value) << 120;
            // Single values, most of all.
            let mut list: Vec<_> = list.iter().map(|(bits, n)| (place(*bits), 8 - n % 3 * (n / 3))).collect();
            let mut trie = Trie::<u32>::default();
            list.iter().for_each(|(bits, len)| trie.update(*bits, *len, |n| *n += 1));
            for idx in removed {
                if list.len() < 2 {
                    break;
                }
                let (bits, len) = list.swap_remove(idx.index(list.len()));
                trie.update(bits, len, |n| *n -= 1);
            }
            let kept = |value: u8| list.iter().any(|(bits, len)| (bits ^ place(value)) & prefix_mask(*len) == 0);
            let (found, n_examined) = trie.covers(place(value));
            prop_assert_eq!(found, kept(value));
            let same = |n: u32| (0..=u8::MAX).all(|other| {
                (place(other) ^ place(value)) & prefix_mask(n) != 0 || kept(other) == found
            });
            prop_assert!(same(n_examined));
            prop_assert!(n_examined == 0 || !same(n_examined - 1));
        }
    }

    #[test]
    fn the_widest_ranges_have_prefixes() {
        assert_eq!(prefixes(0, u128::MAX, 128).collect::<Vec<_>>(), [(0, 0)]);
        assert_eq!(prefixes(1, u128::MAX, 128).count(), 128);
        assert_eq!(prefixes(0, u128::MAX - 1, 128).count(), 128);
        assert_eq!(prefixes(5, 4, 16).count(), 0);
        assert_eq!(prefixes(0, 0xffff, 16).collect::<Vec<_>>(), [(0, 0)]);
    }
}
