//! Frames that the kernel has.
//!
//! # Who has which frame, whenever a process dies
//!
//! A frame is noted when it is on a ring, and struck out when it was taken off. The place on the ring is written first
//! and counted in a word beside the notes, so what is written and not told to the kernel is found again; the note is
//! there before the kernel is told. In the other direction, the note goes before the place is given back. So
//! whoever comes next finds, wherever the last one has died:
//!
//! | frame | is |
//! |---|---|
//! | noted, and on a ring | the kernel's, or what it has to say |
//! | noted, and on no ring | in the kernel: it is on a ring again when that is done with it |
//! | not noted, and first on a ring that the kernel fills | taken off and not given back: passed over |
//! | not noted otherwise | free |
//!
//! No frame is lost by that. A note costs a load and a store to a word that this half alone writes to.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{self, Relaxed, Release},
        },
    },
};

use super::{Frame, Memory, shared::word};
use crate::death;

/// Direction of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Receive = 0,
    Send = 1,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Receive, Self::Send];
}

/// Frames of a memory that the kernel has of one half of a socket.
///
/// # Invariants
/// - A frame is noted if and only if its handle was given to [`Lent::lend`] and has not come
///   back, here or in the process before. So there is no other handle to it, and a number that nobody lent, or twice
///   the same, makes none.
/// - Dropping it gives all of them back to their memory. The kernel must be done with them by
///   then: the socket is closed. Where another process has the memory, they are its.
#[derive(Debug)]
pub(crate) struct Lent {
    memory: Memory,
    /// Where the words of this half are.
    line: usize,
    notes: usize,
    n_lent: usize,
}

/// Writes a word that the next process reads.
#[inline(always)]
pub(crate) fn write(word: &AtomicU64, value: u64, order: Ordering) {
    if death::may_write() {
        word.store(value, order);
    }
}

impl Lent {
    /// Nothing is lent yet.
    pub(super) fn new(memory: &Memory, half: usize) -> Self {
        let (line, notes) = (Memory::line_of(half), memory.notes_of(half));
        memory.region.words()[line..][..=word::DROPPED].iter().for_each(|word| word.store(0, Release));
        Self { memory: memory.clone(), line, notes, n_lent: 0 }
    }

    /// What was lent by another process.
    pub(super) fn found(memory: &Memory, half: usize) -> Self {
        let (line, notes) = (Memory::line_of(half), memory.notes_of(half));
        let mut lent = Self { memory: memory.clone(), line, notes, n_lent: 0 };
        lent.n_lent = lent.noted().map(|word| word.load(Relaxed).count_ones() as usize).sum();
        for _ in 0..lent.n_lent {
            // A note stands for a reference to the region.
            mem::forget(Arc::clone(&memory.region));
        }
        lent
    }

    fn noted(&self) -> impl Iterator<Item = &AtomicU64> {
        self.memory.region.words()[self.notes..].iter().take(self.memory.n_frames().div_ceil(64))
    }

    /// How many are lent.
    pub(crate) fn len(&self) -> usize {
        self.n_lent
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A word of this half.
    #[inline]
    pub(crate) fn word(&self, word: usize) -> &AtomicU64 {
        &self.memory.region.words()[self.line + word]
    }

    /// Has a frame put on a ring, told where it starts in the memory and the word that counts what is written; then
    /// notes it.
    ///
    /// # Errors
    /// It is of another memory, or there was no room.
    #[inline]
    pub(crate) fn lend(
        &mut self,
        frame: Frame,
        put: impl FnOnce(u64, &AtomicU64) -> bool,
    ) -> Result<(), Frame> {
        if !self.memory.has(&frame) {
            return Err(frame);
        }
        let idx = frame.idx as usize;
        if !put((idx * self.memory.region.frame_len) as u64, self.word(word::WRITTEN)) {
            return Err(frame);
        }
        let noted = &self.memory.region.words()[self.notes + idx / 64];
        write(noted, noted.load(Relaxed) | 1 << (idx % 64), Release);
        self.n_lent += 1;
        // Its reference to the region is that of the note from now on.
        mem::forget(frame);
        Ok(())
    }

    /// Takes back the frame that an address is in, with the address's place in it. `None`: it
    /// was not lent.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64) -> Option<(Frame, usize)> {
        let (idx, offset) = self.place(address)?;
        let (word, bit) = (&self.memory.region.words()[self.notes + idx / 64], 1_u64 << (idx % 64));
        let noted = word.load(Relaxed);
        if noted & bit == 0 {
            return None;
        }
        write(word, noted & !bit, Relaxed);
        self.n_lent -= 1;
        // SAFETY: the pointer is that of the region, and the note stands for one reference to
        // it, which was forgotten when it was made or found; it is gone now.
        let region = unsafe { Arc::from_raw(Arc::as_ptr(&self.memory.region)) };
        // SAFETY: the note says that the slot's only handle was given up, and the index is one
        // of a frame, which had it.
        let frame = unsafe { region.into_handle(idx as u32) };
        Some((frame, offset))
    }

    /// Number of the frame that an address is in, if there is one and it is lent.
    pub(crate) fn lent_at(&self, address: u64) -> Option<usize> {
        let (idx, _) = self.place(address)?;
        let word = self.memory.region.words()[self.notes + idx / 64].load(Relaxed);
        (word & 1 << (idx % 64) != 0).then_some(idx)
    }

    #[inline]
    fn place(&self, address: u64) -> Option<(usize, usize)> {
        let address = usize::try_from(address).ok()?;
        let (idx, offset) = (address / self.memory.region.frame_len, address % self.memory.region.frame_len);
        (idx < self.memory.n_frames()).then_some((idx, offset))
    }

    /// Leaves the notes as they are, to whoever has the memory next.
    pub(crate) fn leave(mut self) {
        self.forget();
    }

    fn forget(&mut self) {
        for _ in 0..mem::take(&mut self.n_lent) {
            // SAFETY: as in `take_back`; nobody makes handles of these notes any more.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(&self.memory.region)) });
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.memory.is_given() || self.n_lent == 0 {
            return self.forget();
        }
        for at in 0..self.memory.n_frames().div_ceil(64) {
            let noted = self.memory.region.words()[self.notes + at].load(Relaxed);
            for bit in (0..64).filter(|bit| noted & 1 << bit != 0) {
                drop(self.take_back(((at * 64 + bit) * self.memory.region.frame_len) as u64));
            }
        }
    }
}
