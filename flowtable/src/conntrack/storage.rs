//! The memory of a tracker, from wherever the caller has it.

use std::{
    ops::Range,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use super::{
    index::{Bucket, MAX_SLOTS, SLOTS_PER_BUCKET},
    slot::Slot,
};

/// Slots and index. All zero is an empty tracker; slots with connections in them are taken
/// over.
#[derive(Debug)]
pub struct Storage {
    slots: Memory<Slot>,
    buckets: Memory<Bucket>,
    used: Used,
}

/// How many slots, from the first on, have been used: behind them nothing needs to be looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used(Option<&'static AtomicU64>);

impl Used {
    /// `None`: it is not counted.
    pub(super) fn get(self) -> Option<u64> {
        self.0.map(|used| used.load(Acquire))
    }

    /// Before the last of them is written to.
    pub(super) fn set(self, n_slots: u32) {
        #[cfg(test)]
        if !super::slot::death::may_write() {
            return;
        }
        if let Some(used) = self.0 {
            used.store(n_slots.into(), Release);
        }
    }
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
    #[error("{n_slots} slots need {} index buckets, not {n_buckets}", .n_slots.div_ceil(SLOTS_PER_BUCKET))]
    NumberOfBuckets {
        /// Slots there are.
        n_slots: usize,
        /// Buckets there are.
        n_buckets: usize,
    },
}

impl Storage {
    /// Memory of its own for this many connections; those that need two slots count twice
    /// (see [`Slot`]).
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
            buckets: Memory::Owned(filled(n_slots.div_ceil(SLOTS_PER_BUCKET), &advise)),
            used: Used::default(),
        }
    }

    /// Memory that somebody else keeps, a file on huge pages for example. What the index
    /// holds does not matter.
    ///
    /// # Errors
    /// The lengths do not fit each other.
    pub fn lent(slots: &'static [Slot], buckets: &'static [Bucket]) -> Result<Self, StorageError> {
        if slots.is_empty() || slots.len() > MAX_SLOTS {
            return Err(StorageError::NumberOfSlots(slots.len()));
        }
        if buckets.len() != slots.len().div_ceil(SLOTS_PER_BUCKET) {
            return Err(StorageError::NumberOfBuckets { n_slots: slots.len(), n_buckets: buckets.len() });
        }
        Ok(Self { slots: Memory::Lent(slots), buckets: Memory::Lent(buckets), used: Used::default() })
    }

    /// Counts where the next process finds it how many slots, from the first on, have been used, so that
    /// it goes through no others. Now it says so of those that are there: zero where all memory is.
    pub fn counting(mut self, used: &'static AtomicU64) -> Self {
        self.used = Used(Some(used));
        self
    }

    /// Bytes of all of it.
    pub fn n_bytes(&self) -> usize {
        size_of_val(self.slots()) + size_of_val(self.buckets())
    }

    pub(super) fn slots(&self) -> &[Slot] {
        self.slots.get()
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        self.buckets.get()
    }

    pub(super) fn used(&self) -> Used {
        self.used
    }
}
