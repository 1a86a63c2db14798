//! A split virtqueue in a guest's memory (virtio 1.2 §2.7): descriptors, what the guest has made
//! available, what we have used. Where in memory it is has been checked; what is in it has not.
//! Fields are read and written one by one, each once: a guest may change them in between.
//! Integers are in the order of little-endian machines, which ours are.

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{
            AtomicU16,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
    },
};

use super::guest_memory::{self, GuestMemory};

#[cfg(target_endian = "big")]
compile_error!("virtqueues are little-endian, and so must the machine be");

/// Most descriptors of a ring.
const MAX_SIZE: u16 = 1 << 15;
const DESCRIPTOR_LEN: usize = 16;
/// Flags and index in front of the entries of both rings.
const HEADER_LEN: usize = 4;
const USED_LEN: usize = 8;
const EVENT_LEN: usize = 2;

/// Where the parts of a ring are, by addresses of the guest's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RingAddresses {
    /// The descriptors.
    pub(crate) descriptors: u64,
    /// What is available.
    pub(crate) available: u64,
    /// What has been used.
    pub(crate) used: u64,
}

/// A part of memory and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub(crate) struct Descriptor {
    /// Where it is in the guest's memory.
    pub(crate) addr: u64,
    /// Its bytes.
    pub(crate) len: u32,
    /// What it is for.
    pub(crate) flags: u16,
    /// The next one, if there is one.
    pub(crate) next: u16,
}

const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR_LEN);

impl Descriptor {
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    const INDIRECT: u16 = 4;

    /// As it lies in memory.
    pub(crate) fn of(bytes: [u8; DESCRIPTOR_LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            addr: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            len: u32::from_le_bytes([i, j, k, l]),
            flags: u16::from_le_bytes([m, n]),
            next: u16::from_le_bytes([o, p]),
        }
    }

    /// Another one follows.
    pub(crate) fn has_next(&self) -> bool {
        self.flags & Self::NEXT != 0
    }

    /// We write to it; otherwise we read it.
    pub(crate) fn is_writable(&self) -> bool {
        self.flags & Self::WRITE != 0
    }

    /// It is a table of descriptors.
    pub(crate) fn is_indirect(&self) -> bool {
        self.flags & Self::INDIRECT != 0
    }
}

/// Where in memory a ring cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RingPlaceError {
    /// Not a power of two, or too large.
    #[error("a ring of {0} descriptors; powers of two up to {max} are possible", max = MAX_SIZE)]
    Size(u32),
    /// A part is not where it may be.
    #[error("a ring whose {0} are not aligned")]
    Unaligned(&'static str),
    /// A part is not in the guest's memory.
    #[error("a ring whose {0} are not inside one memory region")]
    Outside(&'static str),
}

/// A ring.
#[derive(Debug)]
pub(crate) struct RingMemory {
    descriptors: NonNull<Descriptor>,
    /// Flags, index, entries, and the guest's event index.
    available: NonNull<u16>,
    /// Flags, index, entries of two integers, and our event index.
    used: NonNull<u16>,
    mask: u16,
    memory: Arc<GuestMemory>,
}

// SAFETY: the pointers are into `memory`, which may be reached from any thread.
unsafe impl Send for RingMemory {}

impl RingMemory {
    /// A ring of so many descriptors at these places.
    ///
    /// # Errors
    /// It cannot be there.
    pub(crate) fn new(
        memory: &Arc<GuestMemory>,
        at: &RingAddresses,
        size: u32,
    ) -> Result<Self, RingPlaceError> {
        let size16 = u16::try_from(size).ok().filter(|size| size.is_power_of_two() && *size <= MAX_SIZE);
        let n = usize::from(size16.ok_or(RingPlaceError::Size(size))?);
        let place = |what: &'static str, addr: u64, align: u64, len: usize| {
            if !addr.is_multiple_of(align) {
                return Err(RingPlaceError::Unaligned(what));
            }
            let data = memory.user(addr, len).ok_or(RingPlaceError::Outside(what))?;
            // A file may begin anywhere in the memory of the guest's side.
            let aligned = data.as_ptr().addr().is_multiple_of(align as usize);
            if aligned { Ok(data) } else { Err(RingPlaceError::Unaligned(what)) }
        };
        let used_len = HEADER_LEN + n * USED_LEN + EVENT_LEN;
        Ok(Self {
            descriptors: place("descriptors", at.descriptors, 16, n * DESCRIPTOR_LEN)?.cast(),
            available: place("available entries", at.available, 2, HEADER_LEN + n * 2 + EVENT_LEN)?.cast(),
            used: place("used entries", at.used, 4, used_len)?.cast(),
            mask: (n - 1) as u16,
            memory: Arc::clone(memory),
        })
    }

    /// The memory it is in.
    #[inline]
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// How many descriptors it has.
    #[inline]
    pub(crate) fn size(&self) -> u16 {
        self.mask + 1
    }

    /// A descriptor; numbers that are too large start over.
    #[inline]
    pub(crate) fn descriptor(&self, idx: u16) -> Descriptor {
        // SAFETY: the table has `mask + 1` aligned descriptors; volatile, so that it is read once
        // and as it is now. All bit patterns are valid.
        unsafe { self.descriptors.add(usize::from(idx & self.mask)).read_volatile() }
    }

    /// Says that a descriptor is read soon.
    #[inline]
    pub(crate) fn prefetch(&self, idx: u16) {
        // SAFETY: the table has so many.
        guest_memory::prefetch(unsafe { self.descriptors.add(usize::from(idx & self.mask)) }.as_ptr().cast());
    }

    #[inline]
    fn available_at(&self, idx: usize) -> &AtomicU16 {
        // SAFETY: callers stay within flags, index, entries and event index, which are mapped,
        // aligned and only reached by atomic accesses.
        unsafe { AtomicU16::from_ptr(self.available.add(idx).as_ptr()) }
    }

    #[inline]
    fn used_at(&self, idx: usize) -> &AtomicU16 {
        // SAFETY: as for what is available.
        unsafe { AtomicU16::from_ptr(self.used.add(idx).as_ptr()) }
    }

    /// How many chains the guest has made available since the start; what it wrote before is
    /// visible.
    #[inline]
    pub(crate) fn n_available(&self) -> u16 {
        self.available_at(1).load(Acquire)
    }

    /// First descriptor of a chain that is available.
    #[inline]
    pub(crate) fn available(&self, at: u16) -> u16 {
        self.available_at(2 + usize::from(at & self.mask)).load(Relaxed)
    }

    /// The guest does not want to be told.
    #[inline]
    pub(crate) fn wants_no_call(&self) -> bool {
        self.available_at(0).load(Relaxed) & 1 != 0
    }

    /// After which chain the guest wants to be told.
    #[inline]
    pub(crate) fn used_event(&self) -> u16 {
        self.available_at(2 + usize::from(self.size())).load(Relaxed)
    }

    /// How many chains have been used since the start, as the ring says.
    pub(crate) fn n_used(&self) -> u16 {
        self.used_at(1).load(Relaxed)
    }

    /// Notes a chain as used; the guest sees it later. Guests often use their chains in the same order
    /// again and again: what is there already is not written, so that the line stays with the guest's core, too.
    #[inline]
    pub(crate) fn put_used(&self, at: u16, head: u16, len: u32) {
        let entry = [u32::from(head), len];
        let offset = 2 + usize::from(at & self.mask) * (USED_LEN / 2);
        // SAFETY: the entry is mapped and aligned to four bytes, as the ring is.
        unsafe {
            let place = self.used.add(offset).cast::<[u32; 2]>();
            if place.read_volatile() != entry {
                place.write_volatile(entry);
            }
        }
    }

    /// Has the guest see what has been used up to here.
    #[inline]
    pub(crate) fn publish_used(&self, n_used: u16) {
        self.used_at(1).store(n_used, Release);
    }

    /// Says whether we want to be told of chains.
    pub(crate) fn set_wants_no_kick(&self, wants_none: bool) {
        self.used_at(0).store(wants_none.into(), Relaxed);
    }

    /// Says after which chain we want to be told.
    pub(crate) fn set_available_event(&self, after: u16) {
        self.used_at(2 + usize::from(self.size()) * (USED_LEN / 2)).store(after, Relaxed);
    }

    /// What was written before is visible to the guest before what is read after.
    #[inline]
    pub(crate) fn barrier(&self) {
        fence(SeqCst);
    }
}
