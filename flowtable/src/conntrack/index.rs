//! The index: from a tuple's hash to slot and direction. Buckets of one cache line, read
//! without a lock while one writer changes them.
//!
//! A cell never moves: an entry is written into a free cell of its bucket, or of the next
//! one that has any, and stays there until it is taken out. Each bucket counts the entries
//! that had to go past it, so that a lookup knows where to stop, and needs neither
//! tombstones nor a second look: what is there all the time is found.
//!
//! A cell is four bytes: number and direction of a slot, and in what is left a part of the
//! hash, so that few slots are looked at in vain (one in 2000 per entry passed with a
//! million slots). The reader checks the slot itself.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

use crate::hints::prefetch;

/// Cells of a bucket that entries are in.
const N_CELLS: usize = 15;
/// Slots that there is a bucket for: their eight entries fill half of it, and one bucket in a
/// hundred overflows.
pub const SLOTS_PER_BUCKET: usize = 4;
/// Slots that can be numbered: four bits of a hash are left in a cell.
pub(super) const MAX_SLOTS: usize = 1 << 26;

/// A part of the index: one cache line. All zero: empty.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Bucket {
    cells: [AtomicU32; N_CELLS],
    /// Entries that belong here or before and are further behind.
    n_passed: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);
const _: () = assert!(N_CELLS > SLOTS_PER_BUCKET * 2);

/// The buckets, and how many bits of a cell are a place.
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    buckets: &'a [Bucket],
    place_bits: u32,
}

impl<'a> Index<'a> {
    /// The index in these buckets, for this many slots.
    #[inline]
    pub(super) fn new(buckets: &'a [Bucket], n_slots: usize) -> Self {
        // Places count from one.
        Self { buckets, place_bits: u32::BITS - (n_slots as u32 * 2).leading_zeros() }
    }

    /// Fetches what a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        if let Some(bucket) = self.buckets.get(self.home(hash)) {
            prefetch(bucket);
        }
    }

    /// The slot and direction that a hash most likely leads to: what is in its own cell, or in
    /// the first one of its bucket that agrees.
    #[inline]
    pub(super) fn first(&self, hash: u32) -> Option<(u32, usize)> {
        let bucket = self.buckets.get(self.home(hash))?;
        let own = bucket.cells.get(own_cell(hash))?.load(Acquire);
        if own != 0 && self.is_part_of(own, hash) {
            return Some(self.target(own));
        }
        let agreeing = self.agreeing(bucket, hash);
        let cell = bucket.cells.get(agreeing.trailing_zeros() as usize)?.load(Acquire);
        (cell != 0).then(|| self.target(cell))
    }

    /// The entry with this hash that `matches` accepts, as slot and direction.
    #[inline]
    pub(super) fn find(
        &self,
        hash: u32,
        mut matches: impl FnMut(u32, usize) -> bool,
    ) -> Option<(u32, usize)> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = self.buckets.get(at)?;
            let mut agreeing = self.agreeing(bucket, hash);
            while agreeing != 0 {
                let cell = bucket.cells.get(agreeing.trailing_zeros() as usize)?.load(Acquire);
                agreeing &= agreeing - 1;
                let (slot, direction) = self.target(cell);
                if cell != 0 && matches(slot, direction) {
                    return Some((slot, direction));
                }
            }
            if bucket.n_passed.load(Acquire) == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds an entry; under the mutex. There are more cells than entries.
    pub(super) fn insert(&self, hash: u32, slot: u32, direction: usize) {
        let new = self.cell(hash, slot, direction);
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let Some(bucket) = self.buckets.get(at) else { return };
            // Its own cell first, where a lookup looks first.
            let (before, behind) = bucket.cells.split_at(own_cell(hash));
            if let Some(free) = behind.iter().chain(before).find(|cell| cell.load(Relaxed) == 0) {
                return free.store(new, Release);
            }
            bucket.n_passed.fetch_add(1, Release);
            at = self.after(at);
        }
    }

    /// Takes an entry out; under the mutex.
    pub(super) fn remove(&self, hash: u32, slot: u32, direction: usize) {
        let wanted = self.cell(hash, slot, direction);
        let mut at = self.home(hash);
        for n_before in 0..self.buckets.len() {
            let Some(bucket) = self.buckets.get(at) else { return };
            if let Some(cell) = bucket.cells.iter().find(|cell| cell.load(Relaxed) == wanted) {
                cell.store(0, Release);
                return self.forget_passing(self.home(hash), n_before);
            }
            if bucket.n_passed.load(Relaxed) == 0 {
                return;
            }
            at = self.after(at);
        }
    }

    /// One entry less has gone past this many buckets.
    fn forget_passing(&self, home: usize, n_buckets: usize) {
        let mut at = home;
        for _ in 0..n_buckets {
            if let Some(bucket) = self.buckets.get(at) {
                bucket.n_passed.fetch_sub(1, Release);
            }
            at = self.after(at);
        }
    }

    pub(super) fn clear(&self) {
        for bucket in self.buckets {
            // What is empty already is not touched: most of it is.
            for word in bucket.cells.iter().chain([&bucket.n_passed]).filter(|word| word.load(Relaxed) != 0) {
                word.store(0, Relaxed);
            }
        }
    }

    /// No entry is left, nor a trace of one.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let is_zero = |word: &AtomicU32| word.load(Relaxed) == 0;
        self.buckets.iter().all(|bucket| bucket.cells.iter().all(is_zero) && is_zero(&bucket.n_passed))
    }

    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 >= self.buckets.len() { 0 } else { at + 1 }
    }

    /// Which cells are of an entry whose hash may be this one, or free. Without branches: which
    /// cell it is nobody can predict.
    #[inline]
    fn agreeing(&self, bucket: &Bucket, hash: u32) -> u32 {
        let cells = bucket.cells.iter().enumerate();
        let agreeing = cells
            .fold(0, |bits, (idx, cell)| bits | u32::from(self.is_part_of(cell.load(Relaxed), hash)) << idx);
        fence(Acquire);
        agreeing
    }

    /// What a cell has of a hash is of this one.
    fn is_part_of(&self, cell: u32, hash: u32) -> bool {
        (cell ^ hash << self.place_bits) >> self.place_bits == 0
    }

    fn cell(&self, hash: u32, slot: u32, direction: usize) -> u32 {
        hash << self.place_bits | ((slot << 1 | direction as u32 & 1) + 1)
    }

    fn target(&self, cell: u32) -> (u32, usize) {
        let place = (cell & ((1 << self.place_bits) - 1)).wrapping_sub(1);
        (place >> 1, (place & 1) as usize)
    }
}

/// The cell of its bucket that an entry is in if it can be.
fn own_cell(hash: u32) -> usize {
    // The high bits are those of the bucket, some of the low ones are in the cell.
    hash as usize % N_CELLS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const N_SLOTS: usize = 40;

    proptest! {
        /// Few hashes, near the end and alike in the bits that cells keep, so that buckets
        /// overflow, around the end too, and lose entries that others have gone past.
        #[test]
        fn the_index_agrees_with_a_set(ops in prop::collection::vec((any::<bool>(), 0_u32..40, 0_usize..2, 0_u32..3), 1..200)) {
            let buckets: Vec<Bucket> = (0..N_SLOTS / SLOTS_PER_BUCKET).map(|_| Bucket::default()).collect();
            let index = Index::new(&buckets, N_SLOTS);
            let mut model = BTreeSet::new();
            let hash_of = |spread: u32| u32::MAX - spread * 0x1000_0000;
            for (insert, slot, direction, spread) in ops {
                let entry = (hash_of(spread), slot, direction);
                if insert && model.insert(entry) {
                    index.insert(entry.0, slot, direction);
                } else if !insert && model.remove(&entry) {
                    index.remove(entry.0, slot, direction);
                }
            }
            for spread in 0..3 {
                let mut found = BTreeSet::new();
                let hash = hash_of(spread);
                index.find(hash, |slot, direction| {
                    found.insert((slot, direction));
                    false
                });
                for slot in 0..40 {
                    for direction in 0..2 {
                        // Of entries that agree in a cell only the slot would tell which it is.
                        let is_there = index.find(hash, |s, d| (s, d) == (slot, direction)).is_some();
                        prop_assert!(is_there || !model.contains(&(hash, slot, direction)));
                        let may_be_there = (0..3).any(|spread| model.contains(&(hash_of(spread), slot, direction)));
                        prop_assert!(!found.contains(&(slot, direction)) || may_be_there);
                    }
                }
            }
            for (hash, slot, direction) in model {
                index.remove(hash, slot, direction);
            }
            prop_assert!(index.is_empty());
        }
    }

    /// Lookups by other threads see an entry that stays, whatever happens around it.
    #[test]
    fn entries_that_stay_are_always_found() {
        let buckets: Vec<Bucket> = (0..4).map(|_| Bucket::default()).collect();
        let index = Index::new(&buckets, 16);
        let hash = 0x4000_0000;
        // The home is full when it comes, and is not later.
        (0..8).for_each(|slot| (0..2).for_each(|direction| index.insert(hash, slot, direction)));
        index.insert(hash, 15, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2000 {
                    (0..8).for_each(|slot| index.remove(hash, slot, 0));
                    (0..8).for_each(|slot| index.insert(hash, slot, 0));
                }
            });
            for _ in 0..20_000 {
                assert_eq!(index.find(hash, |slot, _| slot == 15), Some((15, 0)));
            }
        });
    }
}
