//! Sets of numbers as intervals: comparisons of one field are joined, cut and inverted
//! here exactly, and only then turned into masks, so that `1000 <= tcp.dst <= 2000` is
//! eight masks and not the product of two lists.

use flowtable::key::low_bits;

/// Numbers of a given width, as intervals with both ends: sorted, disjoint, not adjacent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IntervalSet {
    n_bits: u32,
    parts: Vec<(u128, u128)>,
}

impl IntervalSet {
    /// From intervals in any order; empty ones (`lo > hi`) are left out.
    pub(crate) fn new(n_bits: u32, mut parts: Vec<(u128, u128)>) -> Self {
        parts.retain(|(lo, hi)| lo <= hi);
        parts.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::new();
        for (lo, hi) in parts {
            match joined.last_mut() {
                Some(last) if lo <= last.1.saturating_add(1) => last.1 = last.1.max(hi),
                _ => joined.push((lo, hi)),
            }
        }
        Self { n_bits, parts: joined }
    }

    /// Numbers that agree with `value` under `mask`; `None` if these are no interval.
    pub(crate) fn masked(n_bits: u32, value: u128, mask: u128) -> Option<(u128, u128)> {
        let free = low_bits(n_bits) & !mask;
        (free & free.wrapping_add(1) == 0).then_some((value, value | free))
    }

    /// The numbers that are not in it.
    pub(crate) fn complement(&self) -> Self {
        let mut parts = Vec::new();
        let mut next = Some(0);
        for (lo, hi) in &self.parts {
            if let Some(start) = next.filter(|start| start < lo) {
                parts.push((start, lo - 1));
            }
            next = hi.checked_add(1);
        }
        let max = low_bits(self.n_bits);
        if let Some(start) = next.filter(|start| *start <= max) {
            parts.push((start, max));
        }
        Self { n_bits: self.n_bits, parts }
    }

    /// The numbers in at least one of the two.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::new(self.n_bits, self.parts.iter().chain(&other.parts).copied().collect())
    }

    /// The numbers in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.complement().union(&other.complement()).complement()
    }

    /// The intervals.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (u128, u128)> {
        self.parts.iter().copied()
    }

    /// An interval as (value, mask) pairs, disjoint, in rising order.
    pub(crate) fn masks_of(&self, (lo, hi): (u128, u128)) -> Vec<(u128, u128)> {
        prefixes(lo, hi, self.n_bits)
    }

    /// The numbers one by one; `None` if there are more than `limit`.
    pub(crate) fn values(&self, limit: usize) -> Option<Vec<u128>> {
        let mut values = Vec::new();
        for (lo, hi) in &self.parts {
            let n = usize::try_from(hi - lo).ok()?.checked_add(1)?;
            if values.len().checked_add(n)? > limit {
                return None;
            }
            values.extend(*lo..=*hi);
        }
        Some(values)
    }
}

/// The largest aligned blocks that make up `lo..=hi`.
fn prefixes(mut lo: u128, hi: u128, n_bits: u32) -> Vec<(u128, u128)> {
    let mut blocks = Vec::new();
    loop {
        let mut n_free = lo.trailing_zeros().min(n_bits);
        while lo | low_bits(n_free) > hi {
            n_free -= 1;
        }
        blocks.push((lo, low_bits(n_bits) & !low_bits(n_free)));
        let end = lo | low_bits(n_free);
        if end >= hi {
            return blocks;
        }
        lo = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl IntervalSet {
        fn masks(&self) -> Vec<(u128, u128)> {
            self.parts().flat_map(|part| self.masks_of(part)).collect()
        }
    }

    fn set(parts: &[(u8, u8)]) -> IntervalSet {
        IntervalSet::new(8, parts.iter().map(|(a, b)| (u128::from(*a), u128::from(*b))).collect())
    }

    fn holds(parts: &[(u8, u8)], x: u8) -> bool {
        parts.iter().any(|(lo, hi)| (*lo..=*hi).contains(&x))
    }

    fn masked(set: &IntervalSet, x: u8) -> bool {
        set.masks().iter().filter(|(value, mask)| u128::from(x) & mask == *value).count() == 1
    }

    proptest! {
        #[test]
        fn masks_hold_exactly_the_numbers(
            a in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..5),
            b in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..5),
        ) {
            let (set_a, set_b) = (set(&a), set(&b));
            for x in 0..=u8::MAX {
                prop_assert_eq!(masked(&set_a, x), holds(&a, x));
                prop_assert_eq!(set_a.values(256).unwrap().contains(&x.into()), holds(&a, x));
                prop_assert_eq!(masked(&set_a.complement(), x), !holds(&a, x));
                prop_assert_eq!(masked(&set_a.intersection(&set_b), x), holds(&a, x) && holds(&b, x));
                prop_assert_eq!(masked(&set_a.union(&set_b), x), holds(&a, x) || holds(&b, x));
            }
        }
    }

    #[test]
    fn the_widest_set_is_one_mask_of_nothing() {
        assert_eq!(IntervalSet::new(128, vec![(0, u128::MAX)]).masks(), [(0, 0)]);
        assert_eq!(IntervalSet::new(16, vec![(1000, 2000)]).masks().len(), 8);
        assert_eq!(IntervalSet::new(128, vec![(0, u128::MAX)]).values(9), None);
        assert_eq!(IntervalSet::new(16, vec![(2, 4), (9, 9)]).values(4).unwrap(), [2, 3, 4, 9]);
        assert_eq!(IntervalSet::new(16, vec![(2, 4), (9, 9)]).values(3), None);
        assert!(IntervalSet::new(128, vec![(0, u128::MAX)]).complement().masks().is_empty());
    }
}
