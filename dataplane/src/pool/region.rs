//! Memory of frames of one size, and the handles to them.

use std::{
    alloc::{self, Layout},
    ops::Range,
    ptr::NonNull,
    sync::Arc,
};

use crossbeam::queue::ArrayQueue;

const PAGE: usize = 4096;

/// Memory of frames of one size, and the way home for those dropped elsewhere.
#[derive(Debug)]
pub(super) struct Region {
    /// Where the first frame begins: at a page.
    pub(super) memory: NonNull<u8>,
    /// Bytes from there on.
    pub(super) len: usize,
    allocated: (NonNull<u8>, Layout),
    pub(super) frame_len: usize,
    stride: usize,
    /// Indices of frames that were dropped and not `put`.
    pub(super) returned: ArrayQueue<u32>,
}

// SAFETY: the memory is only reached through frames, and each slot has at most one.
unsafe impl Send for Region {}
// SAFETY: as above; the queue is made for sharing.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        let (start, layout) = self.allocated;
        // SAFETY: allocated with this layout; no frame is left, each holds the region.
        unsafe { alloc::dealloc(start.as_ptr(), layout) };
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
    /// `n_frames` frames, each `stride` bytes after the one before; no handle to any of them.
    /// `prepare` sees the memory before it is touched. Nothing touches it here: what is zero anyway
    /// need not be written, so a frame that is never used is never there, and a worker begins at once.
    /// `None`: there is no memory to be had, or the address space cannot hold them.
    pub(super) fn new(
        n_frames: usize,
        (frame_len, stride): (usize, usize),
        prepare: impl FnOnce(Range<*const u8>),
    ) -> Option<Arc<Self>> {
        let len = n_frames.checked_mul(stride).filter(|len| *len > 0)?;
        let layout = Layout::from_size_align(len.checked_add(PAGE)?, 1).ok()?;
        // A larger alignment would have the allocator write the zeros. SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) })?;
        // SAFETY: less than a page further, and there is a page more than needed.
        let memory = unsafe { start.add(start.align_offset(PAGE)) };
        let first = memory.as_ptr().cast_const();
        prepare(first..first.wrapping_add(len));
        let returned = ArrayQueue::new(n_frames);
        Some(Arc::new(Self { memory, len, allocated: (start, layout), frame_len, stride, returned }))
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
