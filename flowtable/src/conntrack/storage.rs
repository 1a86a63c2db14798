//! The memory of a tracker, from wherever the caller has it.

use std::{ops::Range, sync::atomic::AtomicU64};

use super::slot::{CELLS_PER_SLOT, Slot};

/// Slots and index cells. All zero is an empty tracker; slots with connections in them
/// are taken over.
#[derive(Debug)]
pub struct Storage {
    slots: Memory<Slot>,
    cells: Memory<AtomicU64>,
}

#[derive(Debug)]
enum Memory<T: 'static> {
    Owned(Box<[T]>),
    Lent(&'static [T]),
}

impl<T> Memory<T> {
    fn get(&self) -> &[T] {
        match self {
            Self::Owned(memory) => memory,
            Self::Lent(memory) => memory,
        }
    }
}

/// Memory cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// No slots, or more than an index can number.
    #[error("a tracker has 1 to {MAX_SLOTS} slots, not {0}")]
    NumberOfSlots(usize),
    /// The index does not fit the slots.
    #[error("{n_slots} slots need {} index cells, not {n_cells}", .n_slots * CELLS_PER_SLOT)]
    NumberOfCells {
        /// Slots there are.
        n_slots: usize,
        /// Cells there are.
        n_cells: usize,
    },
}

/// An index cell has 31 bits for a slot's number.
const MAX_SLOTS: usize = 1 << 30;

impl Storage {
    /// Memory of its own for this many IPv4 connections, or half as many of IPv6.
    pub fn on_heap(n_slots: usize) -> Self {
        Self::on_heap_advised(n_slots, |_| {})
    }

    /// The same; `advise` is told of the memory before it is used, to have it backed by large
    /// pages: connections are all over it, and each small page costs a walk.
    pub fn on_heap_advised(n_slots: usize, advise: impl Fn(Range<*const u8>)) -> Self {
        fn filled<T: Default>(n: usize, advise: impl Fn(Range<*const u8>)) -> Box<[T]> {
            let mut memory: Vec<T> = Vec::with_capacity(n);
            let start = memory.as_ptr().cast::<u8>();
            advise(start..start.wrapping_add(n * size_of::<T>()));
            memory.extend((0..n).map(|_| T::default()));
            memory.into_boxed_slice()
        }
        let n_slots = n_slots.clamp(1, MAX_SLOTS);
        Self {
            slots: Memory::Owned(filled(n_slots, &advise)),
            cells: Memory::Owned(filled(n_slots * CELLS_PER_SLOT, &advise)),
        }
    }

    /// Memory that somebody else keeps, a file on huge pages for example. What the index
    /// cells hold does not matter.
    ///
    /// # Errors
    /// The lengths do not fit each other.
    pub fn lent(slots: &'static [Slot], cells: &'static [AtomicU64]) -> Result<Self, StorageError> {
        if slots.is_empty() || slots.len() > MAX_SLOTS {
            return Err(StorageError::NumberOfSlots(slots.len()));
        }
        if cells.len() != slots.len() * CELLS_PER_SLOT {
            return Err(StorageError::NumberOfCells { n_slots: slots.len(), n_cells: cells.len() });
        }
        Ok(Self { slots: Memory::Lent(slots), cells: Memory::Lent(cells) })
    }

    pub(super) fn slots(&self) -> &[Slot] {
        self.slots.get()
    }

    pub(super) fn cells(&self) -> &[AtomicU64] {
        self.cells.get()
    }
}
