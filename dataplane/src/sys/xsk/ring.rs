//! One ring of an AF_XDP socket, shared with the kernel: one side puts in, the other takes out.
//!
//! # Invariants
//! - Of producer and consumer index, one is written by us and one by the kernel. They only grow,
//!   modulo 2^32; an entry is ours between them or outside, by our side.
//! - An entry is written before the producer index is stored (release), and read after it was
//!   loaded (acquire); the same holds for the consumer index and giving an entry back.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

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

    /// Writes an entry, which the kernel gets with the next [`Producer::tell`]. False: there is
    /// no room.
    #[inline]
    pub(super) fn put(&mut self, value: T) -> bool {
        if !self.has_room(1) {
            return false;
        }
        // SAFETY: the entry is in the mapping, and ours until the kernel is told of it.
        unsafe { self.map.entry(self.next).write(value) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Gives the kernel what was written. True if there was something.
    #[inline]
    pub(super) fn tell(&mut self) -> bool {
        let is_new = self.next != self.told;
        if is_new {
            self.map.producer().store(self.next, Release);
            self.told = self.next;
        }
        is_new
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
        self.map.consumer().store(self.next, Release);
    }
}
