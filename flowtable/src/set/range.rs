//! Values from one to another.

use crate::{key::low_bits, trie::prefixes};

/// The values from `first` to `last` of a field, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueRange {
    first: u128,
    last: u128,
}

impl ValueRange {
    /// From `first` to `last`; `None` when they are the wrong way round.
    pub const fn new(first: u128, last: u128) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// A single value.
    pub const fn one(value: u128) -> Self {
        Self { first: value, last: value }
    }

    /// The smallest value.
    pub const fn first(self) -> u128 {
        self.first
    }

    /// The largest value.
    pub const fn last(self) -> u128 {
        self.last
    }

    /// The value is one of them.
    pub const fn contains(self, value: u128) -> bool {
        self.first <= value && value <= self.last
    }

    /// All values of this are in `other`.
    pub const fn is_within(self, other: Self) -> bool {
        other.first <= self.first && self.last <= other.last
    }

    /// The number of bits behind the prefix, when these are just the values with one
    /// prefix.
    pub fn n_wild(self) -> Option<u32> {
        let n_wild = 128 - (self.first ^ self.last).leading_zeros();
        (self.first & low_bits(n_wild) == 0 && self.last & low_bits(n_wild) == low_bits(n_wild))
            .then_some(n_wild)
    }

    /// Bits behind those that all values have in common.
    pub(crate) fn n_open(self) -> u32 {
        128 - (self.first ^ self.last).leading_zeros()
    }

    /// The value is one of them, and how many leading bits of a field of `n_bits` prove
    /// that it is, or is not: all values that agree in them are, or are not.
    pub(crate) fn search(self, value: u128, n_bits: u32) -> (bool, u32) {
        let all = low_bits(n_bits);
        let (found, around) = if value < self.first {
            (false, Self { first: 0, last: self.first - 1 })
        } else if value > self.last {
            (false, Self { first: self.last + 1, last: all })
        } else {
            (true, self)
        };
        (found, n_bits - around.largest_block(value).min(n_bits))
    }

    /// Low bits that a value of the range can have any way without leaving it.
    fn largest_block(self, value: u128) -> u32 {
        // Towards either end: bits below the highest that differs from the end are free,
        // and if the end itself is one of a block, that whole block is.
        let towards = |end: u128, n_free: u32| {
            let n_differing = 128 - (value ^ end).leading_zeros();
            if n_free >= n_differing { n_free } else { n_differing - 1 }
        };
        towards(self.first, self.first.trailing_zeros()).min(towards(self.last, self.last.trailing_ones()))
    }

    /// The prefixes that make up the range.
    pub(crate) fn prefixes(self, n_bits: u32) -> impl Iterator<Item = (u128, u32)> {
        prefixes(self.first, self.last, n_bits)
    }

    /// One of the values has these bits: (value, mask).
    pub(crate) fn meets(self, value: u128, mask: u128) -> bool {
        // The smallest value with these bits that is not below the first one.
        let fits = |candidate: u128| (candidate ^ value) & mask == 0;
        if fits(self.first) {
            return true;
        }
        let above = (0..128).find_map(|bit| {
            let one = 1_u128 << bit;
            let raised = self.first & !(one | (one - 1)) | one | value & mask & (one - 1);
            (self.first & one == 0 && fits(raised)).then_some(raised)
        });
        above.is_some_and(|smallest| smallest <= self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The proof is one, and the shortest there is.
        #[test]
        fn proofs_hold_and_are_short(a: u8, b: u8, value: u8) {
            let (a, b) = (u128::from(a.min(b)), u128::from(a.max(b)));
            let range = ValueRange::new(a, b).unwrap();
            let value = u128::from(value);
            let (found, n) = range.search(value, 8);
            prop_assert_eq!(found, range.contains(value));
            let same = |n: u32| {
                let wild = low_bits(8 - n);
                (0..=wild).all(|low| range.contains(value & !wild | low) == found)
            };
            prop_assert!(same(n));
            prop_assert!(n == 0 || !same(n - 1));
        }

        #[test]
        fn meeting_is_having_a_common_value(a: u8, b: u8, value: u8, mask: u8) {
            let (a, b) = (u128::from(a.min(b)), u128::from(a.max(b)));
            let (value, mask) = (u128::from(value & mask), u128::from(mask));
            let common = (a..=b).any(|x| x & mask == value);
            prop_assert_eq!(ValueRange::new(a, b).unwrap().meets(value, mask), common);
        }
    }

    #[test]
    fn ranges_at_the_ends_of_the_world() {
        let all = ValueRange::new(0, u128::MAX).unwrap();
        assert_eq!(all.search(7, 128), (true, 0));
        assert_eq!((all.n_wild(), all.n_open()), (Some(128), 128));
        assert_eq!(ValueRange::one(u128::MAX).search(u128::MAX, 128), (true, 128));
        assert_eq!(ValueRange::one(0).search(u128::MAX, 128), (false, 1));
        assert_eq!(ValueRange::one(3).n_wild(), Some(0));
        assert_eq!(ValueRange::new(4, 7).unwrap().n_wild(), Some(2));
        assert_eq!(ValueRange::new(4, 8).unwrap().n_wild(), None);
        assert!(ValueRange::new(2, 1).is_none());
    }
}
