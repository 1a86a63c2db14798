//! A hash table from hashes to slots: open addressing with linear probing, so that a
//! probe is one cache line nearly always, and deletion leaves no tombstones.

use std::ops::Range;

use super::bytes_of;
use crate::hints::prefetch;

/// A free cell.
const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Cell {
    hash: u32,
    slot: u32,
}

/// Slots by hash. Several may have the same hash: the caller compares.
#[derive(Debug)]
pub(crate) struct Index {
    cells: Vec<Cell>,
}

impl Index {
    /// For at most `capacity` slots; at most half of the cells are ever taken.
    pub(crate) fn new(capacity: usize) -> Self {
        let n_cells = (capacity * 2).next_power_of_two().max(2);
        Self { cells: vec![Cell { hash: 0, slot: EMPTY }; n_cells] }
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
            let cell = self.cells[at];
            if cell.slot == EMPTY {
                return None;
            }
            if cell.hash == hash && matches(cell.slot) {
                return Some(cell.slot);
            }
            at = self.after(at);
        }
    }

    /// The slot in the hash's own cell, if the cell has this hash.
    #[inline]
    pub(crate) fn first(&self, hash: u32) -> Option<u32> {
        let cell = self.cells[self.home(hash)];
        (cell.hash == hash && cell.slot != EMPTY).then_some(cell.slot)
    }

    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        let mut at = self.home(hash);
        while self.cells[at].slot != EMPTY {
            at = self.after(at);
        }
        self.cells[at] = Cell { hash, slot };
    }

    /// Takes a slot out and closes the gap: later cells of the run move up unless
    /// that would put them before their home.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let mut gap = self.home(hash);
        while self.cells[gap].slot != slot {
            if self.cells[gap].slot == EMPTY {
                return;
            }
            gap = self.after(gap);
        }
        let mut at = gap;
        loop {
            at = self.after(at);
            let cell = self.cells[at];
            if cell.slot == EMPTY {
                break;
            }
            let from_home = at.wrapping_sub(self.home(cell.hash)) & (self.cells.len() - 1);
            let from_gap = at.wrapping_sub(gap) & (self.cells.len() - 1);
            if from_home >= from_gap {
                self.cells[gap] = cell;
                gap = at;
            }
        }
        self.cells[gap].slot = EMPTY;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.cells.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

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
