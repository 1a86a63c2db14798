//! A hash table from hashes to slots: open addressing with linear probing, so that a
//! probe is one cache line nearly always, and deletion leaves no tombstones.

use std::ops::Range;

use super::bytes_of;
use crate::hints::prefetch;

/// Cells in use at first, so that what is used of a small table stays together.
const MIN_CELLS: usize = 256;

/// A cell; all zero: free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell(u64);

impl Cell {
    const FREE: Self = Self(0);

    fn new(hash: u32, slot: u32) -> Self {
        Self(u64::from(hash) << 32 | (u64::from(slot) + 1))
    }

    #[inline]
    fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Meaningless in a free cell.
    #[inline]
    fn slot(self) -> u32 {
        (self.0 as u32).wrapping_sub(1)
    }
}

/// Slots by hash. Several may have the same hash: the caller compares. No slot is
/// [`u32::MAX`].
///
/// # Cost
/// Memory for all that there may be is set aside at once, but only touched as the table
/// grows, by doubling.
#[derive(Debug)]
pub(crate) struct Index {
    cells: Vec<u64>,
    /// Of the cells in use.
    mask: usize,
    n_used: usize,
}

impl Index {
    /// For at most `capacity` slots; at most half of the cells are ever taken.
    pub(crate) fn new(capacity: usize) -> Self {
        let n_cells = (capacity * 2).next_power_of_two().max(2);
        // Zeros need not be written: fresh memory has them.
        Self { cells: vec![Cell::FREE.0; n_cells], mask: n_cells.min(MIN_CELLS) - 1, n_used: 0 }
    }

    /// The memory of the table.
    pub(crate) fn memory(&self) -> Range<*const u8> {
        bytes_of(&self.cells)
    }

    /// Fetches what [`Index::first`] looks at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(&self.cells[self.home(hash)]);
    }

    /// The first slot with this hash that `matches`.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let cell = self.cell(at);
            if cell == Cell::FREE {
                return None;
            }
            if cell.hash() == hash && matches(cell.slot()) {
                return Some(cell.slot());
            }
            at = self.after(at);
        }
    }

    /// The slot in the hash's own cell, if the cell has this hash.
    #[inline]
    pub(crate) fn first(&self, hash: u32) -> Option<u32> {
        let cell = self.cell(self.home(hash));
        (cell.hash() == hash && cell != Cell::FREE).then_some(cell.slot())
    }

    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        if self.n_used * 2 > self.mask && self.mask + 1 < self.cells.len() {
            self.grow();
        }
        self.n_used += 1;
        self.put(Cell::new(hash, slot));
    }

    /// Takes a slot out and closes the gap: later cells of the run move up unless
    /// that would put them before their home.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let mut gap = self.home(hash);
        while self.cell(gap).slot() != slot {
            if self.cell(gap) == Cell::FREE {
                return;
            }
            gap = self.after(gap);
        }
        self.n_used -= 1;
        let mut at = gap;
        loop {
            at = self.after(at);
            let cell = self.cell(at);
            if cell == Cell::FREE {
                break;
            }
            let from_home = at.wrapping_sub(self.home(cell.hash())) & self.mask;
            let from_gap = at.wrapping_sub(gap) & self.mask;
            if from_home >= from_gap {
                self.cells[gap] = cell.0;
                gap = at;
            }
        }
        self.cells[gap] = Cell::FREE.0;
    }

    fn put(&mut self, cell: Cell) {
        let mut at = self.home(cell.hash());
        while self.cell(at) != Cell::FREE {
            at = self.after(at);
        }
        self.cells[at] = cell.0;
    }

    /// Twice as many cells.
    fn grow(&mut self) {
        let old: Vec<u64> = self.cells[..=self.mask].iter().copied().filter(|cell| *cell != 0).collect();
        self.cells[..=self.mask].fill(Cell::FREE.0);
        self.mask = self.mask * 2 + 1;
        old.into_iter().for_each(|cell| self.put(Cell(cell)));
    }

    #[inline]
    fn cell(&self, at: usize) -> Cell {
        Cell(self.cells[at])
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_grows_with_what_is_in_it() {
        let mut index = Index::new(100_000);
        let hash = |slot: u32| slot.wrapping_mul(0x9e37_79b9);
        (0..5_000).for_each(|slot| index.insert(hash(slot), slot));
        assert!((10_000..=20_000).contains(&index.mask));
        (0..5_000).step_by(2).for_each(|slot| index.remove(hash(slot), slot));
        for slot in 0..5_000 {
            assert_eq!(index.find(hash(slot), |other| other == slot).is_some(), slot % 2 == 1);
        }
    }

    proptest! {
        /// Few hashes, so that runs are long, wrap around, and lose cells in the middle.
        #[test]
        fn the_index_agrees_with_a_map(ops in prop::collection::vec((any::<bool>(), 0_u32..16, 0_u32..12), 1..200)) {
            let mut index = Index::new(16);
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (insert, slot, hash) in ops {
                if insert && !model.contains_key(&slot) {
                    index.insert(hash, slot);
                    model.insert(slot, hash);
                } else if !insert && let Some(hash) = model.remove(&slot) {
                    index.remove(hash, slot);
                }
                for slot in 0..16 {
                    for hash in 0..12 {
                        let found = index.find(hash, |other| other == slot).is_some();
                        prop_assert_eq!(found, model.get(&slot) == Some(&hash));
                    }
                }
            }
        }
    }
}
