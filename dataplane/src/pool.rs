//! The buffer pool: a worker's frames, all allocated at its start.
//!
//! A [`Frame`] is an exclusive handle to one slot of the pool's memory. The worker takes
//! frames with [`Pool::get`] and gives them back with [`Pool::put`]: a push and a pop on
//! a plain vector. A frame that is dropped anywhere else, by another worker or on an
//! error path, finds its way home by a lock-free queue that the pool empties when its
//! vector runs dry. So a frame cannot leak, and the common case costs no atomic
//! operation.

use std::{
    alloc::{self, Layout},
    ptr::NonNull,
    sync::Arc,
};

use crossbeam::queue::ArrayQueue;
use flowtable::packet::HEADROOM;

/// Bytes of a frame: headroom and the longest frame of any port.
pub(crate) const FRAME_LEN: usize = 4096;
/// From one frame to the next. One cache line more than a power of two, so that the
/// starts of frames do not all fall into the same sets of the cache.
const STRIDE: usize = FRAME_LEN + 64;

const _: () = assert!(HEADROOM + crate::sys::xsk::MAX_FRAME_LEN as usize <= FRAME_LEN);

/// Memory of all frames, and the way home for those dropped elsewhere.
#[derive(Debug)]
struct Region {
    memory: NonNull<u8>,
    layout: Layout,
    /// Indices of frames that were dropped and not `put`.
    returned: ArrayQueue<u32>,
}

// SAFETY: the memory is only reached through frames, and each slot has at most one.
unsafe impl Send for Region {}
// SAFETY: as above; the queue is made for sharing.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; no frame is left, each holds the region.
        unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// One buffer. Dropping it returns it to its pool, from any thread.
#[derive(Debug)]
pub(crate) struct Frame {
    region: Arc<Region>,
    data: NonNull<u8>,
    idx: u32,
}

// SAFETY: a frame is the only handle to its slot, like a box.
unsafe impl Send for Frame {}
// SAFETY: shared access only reads.
unsafe impl Sync for Frame {}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the slot has FRAME_LEN initialised bytes and no other handle; the
        // region lives as long as the frame.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), FRAME_LEN) }
    }
}

impl AsMut<[u8]> for Frame {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for reading, and we hold the only handle exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), FRAME_LEN) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // The queue has room for all frames, so this cannot fail.
        let _ = self.region.returned.push(self.idx);
    }
}

/// A fixed number of frames, owned by one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    region: Arc<Region>,
    /// Free frames; the one used last is taken first, while the cache still knows it.
    free: Vec<Frame>,
    n_frames: usize,
    n_exhausted: u64,
}

impl Pool {
    /// Allocates `n_frames` frames (at least one).
    ///
    /// # Panics
    /// When the address space cannot hold them; pools are made at start-up.
    pub(crate) fn new(n_frames: usize) -> Self {
        let n_frames = n_frames.clamp(1, u32::MAX as usize);
        let layout = n_frames
            .checked_mul(STRIDE)
            .and_then(|len| Layout::from_size_align(len, 4096).ok())
            .expect("the pool is smaller than the address space");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        let region = Arc::new(Region { memory, layout, returned: ArrayQueue::new(n_frames) });
        let mut pool = Self { region, free: Vec::with_capacity(n_frames), n_frames, n_exhausted: 0 };
        for idx in (0..n_frames).rev() {
            // SAFETY: each index is used once, so each slot gets one handle.
            let frame = unsafe { pool.handle(idx as u32) };
            pool.free.push(frame);
        }
        pool
    }

    /// A free frame; its content is whatever was in it last.
    pub(crate) fn get(&mut self) -> Option<Frame> {
        if self.free.is_empty() {
            self.collect();
        }
        let frame = self.free.pop();
        if frame.is_none() {
            self.count_exhausted();
        }
        frame
    }

    /// A frame was wanted and there was none.
    pub(crate) fn count_exhausted(&mut self) {
        self.n_exhausted += 1;
    }

    /// Takes a frame back. A frame of another pool goes home by its own way.
    pub(crate) fn put(&mut self, frame: Frame) {
        if Arc::ptr_eq(&self.region, &frame.region) {
            self.free.push(frame);
        }
    }

    /// Takes in the frames that were dropped elsewhere.
    fn collect(&mut self) {
        while let Some(idx) = self.region.returned.pop() {
            // SAFETY: the index was pushed by the drop of its slot's only handle.
            let frame = unsafe { self.handle(idx) };
            self.free.push(frame);
        }
    }

    /// # Safety
    /// There is no other handle to this slot, and `idx < n_frames`.
    unsafe fn handle(&self, idx: u32) -> Frame {
        // SAFETY: the index is inside the allocation.
        let data = unsafe { self.region.memory.add(idx as usize * STRIDE) };
        Frame { region: Arc::clone(&self.region), data, idx }
    }

    /// Frames in the pool, free or not.
    pub(crate) fn n_frames(&self) -> usize {
        self.n_frames
    }

    /// Frames that could be had now.
    pub(crate) fn n_free(&self) -> usize {
        self.free.len() + self.region.returned.len()
    }

    /// How often a frame was asked for and none was free.
    pub(crate) fn n_exhausted(&self) -> u64 {
        self.n_exhausted
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn frames_are_distinct_and_come_home_from_anywhere() {
        let mut pool = Pool::new(64);
        for round in 0..5_u8 {
            let mut frames: Vec<Frame> = (0..64).map(|_| pool.get().unwrap()).collect();
            assert!(pool.get().is_none());
            for (idx, frame) in frames.iter_mut().enumerate() {
                frame.as_mut().fill(idx as u8 ^ round);
            }
            for (idx, frame) in frames.iter().enumerate() {
                assert!(frame.as_ref().iter().all(|byte| *byte == idx as u8 ^ round));
            }
            let elsewhere = frames.split_off(20);
            thread::spawn(move || drop(elsewhere)).join().unwrap();
            for frame in frames {
                pool.put(frame);
            }
            assert_eq!(pool.n_free(), 64);
        }
        assert_eq!(pool.n_exhausted(), 5);
    }

    #[test]
    fn a_frame_outlives_its_pool_and_never_enters_another() {
        let (mut pool, mut other) = (Pool::new(2), Pool::new(2));
        let mut frame = pool.get().unwrap();
        let stray = pool.get().unwrap();
        other.put(stray);
        assert_eq!((pool.n_free(), other.n_free()), (1, 2));
        drop(pool);
        frame.as_mut()[FRAME_LEN - 1] = 7;
        assert_eq!(frame.as_ref()[FRAME_LEN - 1], 7);
    }
}
