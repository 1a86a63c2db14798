//! The buffer pool: a worker's frames, all allocated at its start.
//!
//! A [`Frame`] is an exclusive handle to one slot of the pool's memory. The worker takes
//! frames with [`Pool::get`] and gives them back with [`Pool::put`]: a push and a pop on
//! a plain vector. A frame that is dropped anywhere else, by another worker or on an
//! error path, finds its way home by a lock-free queue that the pool empties when its
//! vector runs dry. So a frame cannot leak, and the common case costs no atomic
//! operation.
//!
//! Most frames are [`FRAME_LEN`] bytes; some are large, for packets that come in uncut
//! (`flowtable::packet::Gso`).

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
/// Longest packet that the switch takes, one to be cut included: what a
/// [`flowtable::packet::Layout`] can address, less what a tunnel puts in front.
pub(crate) const MAX_PACKET_LEN: usize = u16::MAX as usize - HEADROOM;
/// Bytes of a large frame: the longest IP packet, what is in front of it, and headroom.
const LARGE_FRAME_LEN: usize = (1 << 16) + 512;
/// Large frames of a worker: two batches, and as many under way to other workers. Memory that
/// is never used is never there.
const N_LARGE: usize = 128;

const _: () = assert!(HEADROOM + crate::sys::xsk::MAX_FRAME_LEN as usize <= FRAME_LEN);
const _: () = assert!(HEADROOM + MAX_PACKET_LEN <= LARGE_FRAME_LEN);

/// Memory of frames of one size, and the way home for those dropped elsewhere.
#[derive(Debug)]
struct Region {
    memory: NonNull<u8>,
    layout: Layout,
    frame_len: usize,
    stride: usize,
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
    /// # Safety
    /// There is no other handle to this slot, and it is one of the region's.
    unsafe fn handle(self: &Arc<Self>, idx: u32) -> Frame {
        // SAFETY: the index is inside the allocation.
        let data = unsafe { self.memory.add(idx as usize * self.stride) };
        Frame { region: Arc::clone(self), data, idx, len: self.frame_len as u32 }
    }
}

/// The frames of one size.
#[derive(Debug)]
struct Shelf {
    region: Arc<Region>,
    /// Free frames; the one used last is taken first, while the cache still knows it.
    free: Vec<Frame>,
    n_frames: usize,
}

impl Shelf {
    fn new(n_frames: usize, frame_len: usize, stride: usize) -> Self {
        let layout = n_frames
            .checked_mul(stride)
            .and_then(|len| Layout::from_size_align(len, 4096).ok())
            .expect("the pool is smaller than the address space");
        // SAFETY: the layout is not empty.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        let returned = ArrayQueue::new(n_frames);
        let region = Arc::new(Region { memory, layout, frame_len, stride, returned });
        // SAFETY: each index is used once, so each slot gets one handle.
        let free = (0..n_frames as u32).rev().map(|idx| unsafe { region.handle(idx) }).collect();
        Self { region, free, n_frames }
    }

    #[inline]
    fn get(&mut self) -> Option<Frame> {
        if self.free.is_empty() {
            self.collect();
        }
        self.free.pop()
    }

    /// Takes in the frames that were dropped elsewhere.
    fn collect(&mut self) {
        while let Some(idx) = self.region.returned.pop() {
            // SAFETY: the index was pushed by the drop of its slot's only handle.
            let frame = unsafe { self.region.handle(idx) };
            self.free.push(frame);
        }
    }

    fn n_free(&self) -> usize {
        self.free.len() + self.region.returned.len()
    }
}

/// A fixed number of frames, owned by one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    usual: Shelf,
    large: Shelf,
    n_exhausted: u64,
}

impl Pool {
    /// Allocates `n_frames` frames (at least one), and some large ones.
    ///
    /// # Panics
    /// When the address space cannot hold them; pools are made at start-up.
    pub(crate) fn new(n_frames: usize) -> Self {
        let n_frames = n_frames.clamp(1, u32::MAX as usize);
        Self {
            usual: Shelf::new(n_frames, FRAME_LEN, STRIDE),
            large: Shelf::new(N_LARGE, LARGE_FRAME_LEN, LARGE_FRAME_LEN + 64),
            n_exhausted: 0,
        }
    }

    /// A free frame; its content is whatever was in it last.
    #[inline]
    pub(crate) fn get(&mut self) -> Option<Frame> {
        let frame = self.usual.get();
        if frame.is_none() {
            self.count_exhausted();
        }
        frame
    }

    /// A free large frame.
    pub(crate) fn get_large(&mut self) -> Option<Frame> {
        let frame = self.large.get();
        if frame.is_none() {
            self.count_exhausted();
        }
        frame
    }

    /// A free frame of at least so many bytes.
    pub(crate) fn get_for(&mut self, len: usize) -> Option<Frame> {
        if len <= FRAME_LEN { self.get() } else { self.get_large() }
    }

    /// A frame was wanted and there was none.
    pub(crate) fn count_exhausted(&mut self) {
        self.n_exhausted += 1;
    }

    /// Takes a frame back. A frame of another pool goes home by its own way.
    #[inline]
    pub(crate) fn put(&mut self, frame: Frame) {
        if Arc::ptr_eq(&self.usual.region, &frame.region) {
            self.usual.free.push(frame);
        } else if Arc::ptr_eq(&self.large.region, &frame.region) {
            self.large.free.push(frame);
        }
    }

    /// Frames in the pool, free or not; large ones are not among them.
    pub(crate) fn n_frames(&self) -> usize {
        self.usual.n_frames
    }

    /// Frames that could be had now. A large one that is in use is one less, so that none is
    /// lost unnoticed.
    pub(crate) fn n_free(&self) -> usize {
        self.usual.n_free().saturating_sub(self.large.n_frames - self.large.n_free())
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

    #[test]
    fn large_frames_are_apart_and_none_is_lost_unnoticed() {
        let mut pool = Pool::new(4);
        let usual = pool.get_for(FRAME_LEN).unwrap();
        let mut large: Vec<_> = (0..N_LARGE).map(|_| pool.get_for(FRAME_LEN + 1).unwrap()).collect();
        assert!(pool.get_large().is_none());
        assert_eq!((usual.as_ref().len(), large[0].as_ref().len()), (FRAME_LEN, LARGE_FRAME_LEN));
        for (idx, frame) in large.iter_mut().enumerate() {
            frame.as_mut().fill(idx as u8);
        }
        assert!(
            large.iter().enumerate().all(|(idx, frame)| frame.as_ref().iter().all(|byte| *byte == idx as u8))
        );
        pool.put(usual);
        let last = large.pop().unwrap();
        drop(large);
        assert_eq!((pool.n_frames(), pool.n_free()), (4, 3));
        pool.put(last);
        assert_eq!(pool.n_free(), 4);
    }
}
