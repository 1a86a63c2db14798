//! One ring of an AF_XDP socket, shared with the kernel: one side puts in, the other takes out.
//!
//! # Invariants
//! - Of producer and consumer index, one is written by us and one by the kernel. They only grow,
//!   modulo 2^32; an entry is ours between them or outside, by our side.
//! - An entry is written before the producer index is stored (release), and read after it was
//!   loaded (acquire); the same holds for the consumer index and giving an entry back.
//!
//! Both indices outlive the process, with the socket: another one goes on where they are ([`Producer::catch_up`],
//! [`Consumer::catch_up`]).

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crate::{death, pool::write};

const NEED_WAKEUP: u32 = libc::XDP_RING_NEED_WAKEUP;

/// A mapped ring.
#[derive(Debug)]
struct Map<T> {
    memory: NonNull<u8>,
    len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
}

// SAFETY: the mapping has no ties to a thread; that one side is not used by two at a time is
// seen to by `&mut`.
unsafe impl<T: Send> Send for Map<T> {}

impl<T> Map<T> {
    /// Maps the ring at a page offset of a socket; it has `size` entries, a power of two.
    fn new(socket: &OwnedFd, at: i64, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<Self> {
        let len = offsets.desc as usize + size as usize * size_of::<T>();
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel puts it.
        let memory = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, socket.as_raw_fd(), at) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        // SAFETY: the kernel says where in the mapping these are, and aligns them.
        let index = |offset: u64| unsafe { memory.add(offset as usize).cast::<AtomicU32>() };
        Ok(Self {
            memory,
            len,
            producer: index(offsets.producer),
            consumer: index(offsets.consumer),
            flags: index(offsets.flags),
            // SAFETY: as above.
            entries: unsafe { memory.add(offsets.desc as usize) }.cast(),
            size,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: inside the mapping, which lives as long as we do.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }.load(Relaxed) & NEED_WAKEUP != 0
    }

    /// Has an index of ours be that.
    fn set(&self, index: &AtomicU32, value: u32) {
        if death::may_write() {
            index.store(value, Release);
        }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked, it is one of the ring's entries.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

impl<T> Drop for Map<T> {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// The side that puts in: fill and tx ring.
#[derive(Debug)]
pub(super) struct Producer<T> {
    map: Map<T>,
    /// Where the next entry goes; those before are written.
    next: u32,
    /// Up to where the kernel has been told.
    told: u32,
    /// Up to where the kernel has taken out, as seen last.
    taken: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn new(
        socket: &OwnedFd,
        at: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let map = Map::new(socket, at, offsets, size)?;
        Ok(Self { map, next: 0, told: 0, taken: 0 })
    }

    /// There is room for so many entries.
    #[inline]
    pub(super) fn has_room(&mut self, n: u32) -> bool {
        if self.room() < n {
            self.taken = self.map.consumer().load(Acquire);
        }
        self.room() >= n
    }

    #[inline]
    fn room(&self) -> u32 {
        self.map.size.saturating_sub(self.next.wrapping_sub(self.taken))
    }

    /// Writes an entry, which the kernel gets with the next [`Producer::tell`], and then that it is written. False:
    /// there is no room.
    #[inline]
    pub(super) fn put(&mut self, value: T, written: &AtomicU64) -> bool {
        if !self.has_room(1) {
            return false;
        }
        if death::may_write() {
            // SAFETY: the entry is in the mapping, and ours until the kernel is told of it.
            unsafe { self.map.entry(self.next).write(value) };
        }
        self.next = self.next.wrapping_add(1);
        write(written, self.next.into(), Release);
        true
    }

    /// Gives the kernel what was written. True if there was something.
    #[inline]
    pub(super) fn tell(&mut self) -> bool {
        let is_new = self.next != self.told;
        if is_new {
            self.map.set(self.map.producer(), self.next);
            self.told = self.next;
        }
        is_new
    }

    /// Goes on where another process has stopped, which had written up to there: entries that the kernel was not told
    /// of are as good as unwritten. `None`: the indices cannot be.
    pub(super) fn catch_up(&mut self) -> Option<()> {
        self.taken = self.map.consumer().load(Acquire);
        self.told = self.map.producer().load(Acquire);
        self.next = self.told;
        (self.n_told() <= self.map.size).then_some(())
    }

    /// Entries that the kernel was told of and has not taken, as seen last.
    pub(super) fn n_told(&self) -> u32 {
        self.told.wrapping_sub(self.taken)
    }

    /// Those.
    pub(super) fn told(&self) -> impl Iterator<Item = T> {
        // SAFETY: the kernel reads them too; nobody writes to them before it has taken them.
        (0..self.n_told()).map(|n| unsafe { self.map.entry(self.taken.wrapping_add(n)).read() })
    }

    /// Entries that another process had written up to there, and that the kernel was not told of. `None`: it cannot be
    /// there.
    pub(super) fn untold(&self, written: u64) -> Option<Vec<T>> {
        let n = u32::try_from(written).ok()?.wrapping_sub(self.told);
        // SAFETY: the kernel does not know of them, and they are ours.
        let entry = |n| unsafe { self.map.entry(self.told.wrapping_add(n)).read() };
        (n <= self.map.size - self.n_told()).then(|| (0..n).map(entry).collect())
    }

    /// So many of them are written after all.
    pub(super) fn keep(&mut self, n: u32, written: &AtomicU64) {
        self.next = self.told.wrapping_add(n);
        write(written, self.next.into(), Release);
    }

    /// Entries are written that the kernel was not told of.
    pub(super) fn has_untold(&self) -> bool {
        self.next != self.told
    }

    /// The kernel has to be called to look at the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.map.needs_wakeup()
    }
}

/// The side that takes out: rx and completion ring.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    map: Map<T>,
    /// The next entry to take.
    next: u32,
    /// Up to where the kernel has put in, as seen last.
    known: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn new(
        socket: &OwnedFd,
        at: i64,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let map = Map::new(socket, at, offsets, size)?;
        Ok(Self { map, next: 0, known: 0 })
    }

    /// An entry waits.
    #[inline]
    fn has_more(&mut self) -> bool {
        if self.known == self.next {
            self.known = self.map.producer().load(Acquire);
        }
        self.known != self.next
    }

    /// Takes an entry; its place is the kernel's again with the next [`Consumer::release`].
    #[inline]
    pub(super) fn take(&mut self) -> Option<T> {
        if !self.has_more() {
            return None;
        }
        // SAFETY: the entry is in the mapping, and the kernel has told us of it, so it is
        // written and ours.
        let value = unsafe { self.map.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Gives the kernel the places of what was taken.
    #[inline]
    pub(super) fn release(&mut self) {
        self.map.set(self.map.consumer(), self.next);
    }

    /// Goes on where another process has stopped. `None`: the indices cannot be.
    pub(super) fn catch_up(&mut self) -> Option<()> {
        self.next = self.map.consumer().load(Acquire);
        self.known = self.map.producer().load(Acquire);
        (self.n_waiting() <= self.map.size).then_some(())
    }

    /// Entries that wait, as seen last.
    pub(super) fn n_waiting(&self) -> u32 {
        self.known.wrapping_sub(self.next)
    }

    /// Where the next entry is taken.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Entries that wait, the next one first, as seen last; none is taken.
    pub(super) fn waiting(&self) -> impl Iterator<Item = T> {
        // SAFETY: entries that the kernel has told us of, and that are ours.
        (0..self.n_waiting()).map(|n| unsafe { self.map.entry(self.next.wrapping_add(n)).read() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A ring in ordinary memory, of which both sides are ours.
    pub(in super::super) struct OnHeap<T> {
        size: u32,
        memory: NonNull<u8>,
        _entries: std::marker::PhantomData<T>,
    }

    impl<T: Copy> OnHeap<T> {
        pub(in super::super) fn new(size: u32) -> Self {
            // Of a test, and never freed.
            let memory = vec![0_u64; 2 + size as usize * size_of::<T>().div_ceil(8)].leak();
            Self { size, memory: NonNull::from(memory).cast(), _entries: std::marker::PhantomData }
        }

        fn map(&self) -> Map<T> {
            let memory = self.memory;
            // SAFETY: the first four words of the memory, and what is behind them.
            let at = |word: usize| unsafe { memory.cast::<AtomicU32>().add(word) };
            let (producer, consumer, flags, entries) = (at(0), at(1), at(2), at(4).cast());
            // Unmapping nothing is an error that nobody looks at.
            Map { memory, len: 0, producer, consumer, flags, entries, size: self.size }
        }

        /// Of a process that comes new.
        pub(in super::super) fn producer(&self) -> Producer<T> {
            Producer { map: self.map(), next: 0, told: 0, taken: 0 }
        }

        pub(in super::super) fn consumer(&self) -> Consumer<T> {
            Consumer { map: self.map(), next: 0, known: 0 }
        }
    }
}
