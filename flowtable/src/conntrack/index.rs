//! The index: from a tuple's hash to slot and direction. Open addressing in flat cells
//! with linear probing and no tombstones, as in the cache's index, but read without a
//! lock while one writer changes it.
//!
//! A reader that finds nothing while the version changes has perhaps been overtaken by
//! a cell that moved, and looks again. A reader that finds something checks the slot
//! itself.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use crate::hints::prefetch;

/// Cells of a cache line.
const CELLS_OF_LINE: usize = 8;
/// Lookups without a lock before the caller shall take it.
const MAX_RETRIES: usize = 4;

/// What a lookup without a lock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// This slot, in this direction.
    At(u32, usize),
    /// Not there.
    Nothing,
    /// The index changed too often meanwhile.
    Unsure,
}

/// The cells, and the version that tells readers of changes.
pub(super) struct Index<'a> {
    pub(super) cells: &'a [AtomicU64],
    pub(super) version: &'a AtomicU64,
}

impl Index<'_> {
    /// Fetches what a lookup reads first.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        if let Some(cell) = self.cells.get(self.home(hash)) {
            prefetch(cell);
        }
    }

    /// The slot that a hash most likely leads to: that of the first cell with the hash, among
    /// those of a cache line.
    #[inline]
    pub(super) fn first(&self, hash: u32) -> Option<u32> {
        let home = self.home(hash);
        let cells = self.cells.get(home..self.cells.len().min(home + CELLS_OF_LINE))?;
        let found = cells.iter().map(|cell| cell.load(Relaxed)).find(|cell| (cell >> 32) as u32 == hash)?;
        Some(target(found).0)
    }

    /// Looks up without a lock. `matches` decides about a slot and direction.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut matches: impl FnMut(u32, usize) -> bool) -> Found {
        for _ in 0..MAX_RETRIES {
            let version = self.version.load(Acquire);
            if let Some((slot, direction)) = self.probe(hash, &mut matches) {
                return Found::At(slot, direction);
            }
            fence(Acquire);
            if version & 1 == 0 && self.version.load(Relaxed) == version {
                return Found::Nothing;
            }
        }
        Found::Unsure
    }

    /// Looks up where nobody changes the index: under the ledger's mutex.
    pub(super) fn probe(
        &self,
        hash: u32,
        matches: &mut impl FnMut(u32, usize) -> bool,
    ) -> Option<(u32, usize)> {
        let mut at = self.home(hash);
        for _ in 0..self.cells.len() {
            let cell = self.cells[at].load(Acquire);
            if cell == 0 {
                return None;
            }
            let (slot, direction) = target(cell);
            if (cell >> 32) as u32 == hash && matches(slot, direction) {
                return Some((slot, direction));
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a cell; under the mutex. There are twice as many cells as can be used.
    pub(super) fn insert(&self, hash: u32, slot: u32, direction: usize) {
        let mut at = self.home(hash);
        while self.cells[at].load(Relaxed) != 0 {
            at = self.after(at);
        }
        self.cells[at].store(cell(hash, slot, direction), Release);
    }

    /// Takes a cell out and closes the gap; under the mutex.
    pub(super) fn remove(&self, hash: u32, slot: u32, direction: usize) {
        let wanted = cell(hash, slot, direction);
        let mut gap = self.home(hash);
        loop {
            match self.cells[gap].load(Relaxed) {
                0 => return,
                found if found == wanted => break,
                _ => gap = self.after(gap),
            }
        }
        self.version.fetch_add(1, SeqCst);
        fence(Release);
        let mut at = gap;
        loop {
            at = self.after(at);
            let cell = self.cells[at].load(Relaxed);
            if cell == 0 {
                break;
            }
            let from_home = self.distance(self.home((cell >> 32) as u32), at);
            if from_home >= self.distance(gap, at) {
                self.cells[gap].store(cell, Release);
                gap = at;
            }
        }
        self.cells[gap].store(0, Release);
        self.version.fetch_add(1, Release);
    }

    pub(super) fn clear(&self) {
        self.cells.iter().for_each(|cell| cell.store(0, Relaxed));
    }

    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.cells.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.cells.len() { 0 } else { at + 1 }
    }

    /// Steps from one cell to another, around the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.cells.len() - from }
    }
}

fn cell(hash: u32, slot: u32, direction: usize) -> u64 {
    u64::from(hash) << 32 | (u64::from(slot << 1 | direction as u32) + 1)
}

fn target(cell: u64) -> (u32, usize) {
    let place = (cell as u32).wrapping_sub(1);
    (place >> 1, (place & 1) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few hashes near the end, so that runs are long, wrap and lose cells.
        #[test]
        fn the_index_agrees_with_a_set(ops in prop::collection::vec((any::<bool>(), 0_u32..8, 0_usize..2, 0_u32..6), 1..200)) {
            let cells: Vec<AtomicU64> = (0..40).map(|_| AtomicU64::new(0)).collect();
            let version = AtomicU64::new(0);
            let index = Index { cells: &cells, version: &version };
            let mut model = BTreeSet::new();
            for (insert, slot, direction, spread) in ops {
                let hash = u32::MAX - spread * 0x0800_0000;
                if insert && model.len() < 20 && model.insert((hash, slot, direction)) {
                    index.insert(hash, slot, direction);
                } else if !insert && model.remove(&(hash, slot, direction)) {
                    index.remove(hash, slot, direction);
                }
                for spread in 0..6 {
                    let hash = u32::MAX - spread * 0x0800_0000;
                    for slot in 0..8 {
                        for direction in 0..2 {
                            let found = index.find(hash, |s, d| (s, d) == (slot, direction));
                            prop_assert_eq!(found != Found::Nothing, model.contains(&(hash, slot, direction)));
                        }
                    }
                }
            }
        }
    }
}
