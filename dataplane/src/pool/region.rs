//! Memory of frames of one size, and the handles to them.

use std::{
    alloc::{self, Layout},
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicU64},
};

use crossbeam::queue::ArrayQueue;

use crate::sys::shared_memory::{Mapping, PAGE};

/// Words begin at a cache line.
const LINE: usize = 64;

/// Memory of frames of one size, and the way home for those dropped elsewhere.
#[derive(Debug)]
pub(super) struct Region {
    /// Where the first frame begins: at a page.
    pub(super) memory: NonNull<u8>,
    /// Bytes from there on.
    pub(super) len: usize,
    backing: Backing,
    /// Words behind the frames.
    words: (NonNull<AtomicU64>, usize),
    pub(super) frame_len: usize,
    stride: usize,
    /// Indices of frames that were dropped and not `put`.
    pub(super) returned: ArrayQueue<u32>,
}

/// What it is made of.
#[derive(Debug)]
enum Backing {
    Allocated(NonNull<u8>, Layout),
    /// A file, which another process may go on with.
    File(Mapping),
}

// SAFETY: the memory is only reached through frames, and each slot has at most one; words are atomic.
unsafe impl Send for Region {}
// SAFETY: as above; the queue is made for sharing.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // No frame is left, each holds the region. A file is unmapped as it is dropped.
        if let Backing::Allocated(start, layout) = self.backing {
            // SAFETY: allocated with this layout.
            unsafe { alloc::dealloc(start.as_ptr(), layout) };
        }
    }
}

/// One buffer. Dropping it returns it to its pool, from any thread.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(super) region: Arc<Region>,
    data: NonNull<u8>,
    pub(super) idx: u32,
    len: u32,
}

// SAFETY: a frame is the only handle to its slot, like a box.
unsafe impl Send for Frame {}
// SAFETY: shared access only reads.
unsafe impl Sync for Frame {}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the slot has `len` initialised bytes and no other handle; the region lives as
        // long as the frame.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }
}

impl AsMut<[u8]> for Frame {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading, and we hold the only handle exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // The queue has room for all frames, so this cannot fail.
        let _ = self.region.returned.push(self.idx);
    }
}

impl Region {
    /// `n_frames` frames, each `stride` bytes after the one before, and so many words behind them; no handle to any
    /// of them. Nothing touches the memory here: what is zero anyway need not be written, so a frame that is never
    /// used is never there, and a worker begins at once.
    /// `None`: there is no memory to be had, or the address space cannot hold them.
    pub(super) fn new(
        n_frames: usize,
        (frame_len, stride): (usize, usize),
        n_words: usize,
    ) -> Option<Arc<Self>> {
        let (len, words_at) = frames_len(n_frames, stride)?;
        let all = n_words.checked_mul(size_of::<AtomicU64>())?.checked_add(words_at)?;
        let layout = Layout::from_size_align(all.checked_add(PAGE)?, 1).ok()?;
        // A larger alignment would have the allocator write the zeros. SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        // SAFETY: less than a page further, and there is a page more than needed.
        let memory = unsafe { start.add(start.align_offset(PAGE)) };
        // SAFETY: inside the allocation, and aligned since its beginning is.
        let words = (unsafe { memory.add(words_at) }.cast(), n_words);
        let (returned, backing) = (ArrayQueue::new(n_frames), Backing::Allocated(start, layout));
        Some(Arc::new(Self { memory, len, backing, words, frame_len, stride, returned }))
    }

    /// The same in a file. `None`: it is shorter than that.
    pub(super) fn of(
        mapping: Mapping,
        n_frames: usize,
        frame_len: usize,
        n_words: usize,
    ) -> Option<Arc<Self>> {
        let (len, words_at) = frames_len(n_frames, frame_len)?;
        let all = n_words.checked_mul(size_of::<AtomicU64>())?.checked_add(words_at)?;
        if all > mapping.len() {
            return None;
        }
        let memory = mapping.start();
        // SAFETY: inside the mapping, and aligned since that begins at a page.
        let words = (unsafe { memory.add(words_at) }.cast(), n_words);
        let (returned, backing) = (ArrayQueue::new(n_frames), Backing::File(mapping));
        Some(Arc::new(Self { memory, len, backing, words, frame_len, stride: frame_len, returned }))
    }

    /// The words behind the frames.
    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words of the memory, aligned and initialised, which live as long as the region; whoever
        // writes to them, here or in another process, does so atomically.
        unsafe { std::slice::from_raw_parts(self.words.0.as_ptr(), self.words.1) }
    }

    /// Bytes of the file; none: 0.
    pub(super) fn file_len(&self) -> usize {
        match &self.backing {
            Backing::Allocated(..) => 0,
            Backing::File(mapping) => mapping.len(),
        }
    }

    /// The file, if it is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Allocated(..) => None,
            Backing::File(mapping) => Some(mapping.fd()),
        }
    }

    /// # Safety
    /// There is no other handle to this slot, and it is one of the region's.
    pub(super) unsafe fn handle(self: &Arc<Self>, idx: u32) -> Frame {
        let region = Arc::clone(self);
        // SAFETY: as the caller has promised.
        unsafe { region.into_handle(idx) }
    }

    /// The same, with this reference to the region in it.
    ///
    /// # Safety
    /// There is no other handle to this slot, and it is one of the region's.
    pub(super) unsafe fn into_handle(self: Arc<Self>, idx: u32) -> Frame {
        // SAFETY: the index is inside the allocation.
        let data = unsafe { self.memory.add(idx as usize * self.stride) };
        let len = self.frame_len as u32;
        Frame { region: self, data, idx, len }
    }

    /// A frame that was dropped.
    pub(super) fn take_returned(self: &Arc<Self>) -> Option<Frame> {
        let idx = self.returned.pop()?;
        // SAFETY: the index was pushed by the drop of its slot's only handle, or when there was
        // none yet.
        Some(unsafe { self.handle(idx) })
    }
}

/// Bytes of so many frames, and where words behind them begin.
pub(super) fn frames_len(n_frames: usize, stride: usize) -> Option<(usize, usize)> {
    let len = n_frames.checked_mul(stride).filter(|len| *len > 0)?;
    Some((len, len.checked_next_multiple_of(LINE)?))
}
