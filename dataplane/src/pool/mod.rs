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
//! (`flowtable::packet::Gso`). Frames that AF_XDP sockets write to and read from are of a memory
//! that all workers share ([`Memory`]), and that another process may go on with; a pool has some of them at hand.

mod batch;
mod lent;
mod region;
mod shared;

use std::{mem::ManuallyDrop, ops::Range, ptr, sync::Arc};

use flowtable::packet::{HEADROOM, Packet};

use self::region::Region;
pub(crate) use self::{
    batch::add,
    lent::{Lent, Side, write},
    region::Frame,
    shared::{Memory, Slot, word},
};

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
const _: () = assert!(HEADROOM <= crate::sys::xsk::KERNEL_HEADROOM as usize);
const _: () = assert!(HEADROOM + MAX_PACKET_LEN <= LARGE_FRAME_LEN);

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
        let region = Region::new(n_frames, (frame_len, stride), 0).expect("there is memory to start with");
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

    /// Takes back the frame of a packet. From its place to its place: moved by way of the stack it is written in
    /// pieces and read whole, for which the processor waits longer than all else takes.
    #[inline(always)]
    fn put_packet(&mut self, packet: Packet<Frame>) {
        let (n_free, packet) = (self.free.len(), ManuallyDrop::new(packet));
        self.free.reserve(1);
        // SAFETY: there is room for one more, and the packet, which has no other, is not dropped.
        unsafe {
            ptr::copy_nonoverlapping(packet.buf(), self.free.as_mut_ptr().add(n_free), 1);
            self.free.set_len(n_free + 1);
        }
    }

    /// Takes in the frames that were dropped elsewhere.
    fn collect(&mut self) {
        while let Some(frame) = self.region.take_returned() {
            self.free.push(frame);
        }
    }

    fn n_free(&self) -> usize {
        self.free.len() + self.region.returned.len()
    }

    /// The memory of the first frames.
    fn first(&self, n_frames: usize) -> Range<*const u8> {
        let start = self.region.memory.as_ptr().cast_const();
        let len = self.region.len / self.n_frames * n_frames.min(self.n_frames);
        start..start.wrapping_add(len)
    }
}

/// Frames that are in use soon after a start, as those that were used last are taken first: some batches, and
/// a batch of large ones.
const N_FIRST: usize = 256;
const N_FIRST_LARGE: usize = 32;

/// Most frames of a memory that a worker has at hand, free; others may need them.
const MAX_AT_HAND: usize = 512;
/// How many go and come at a time.
const N_AT_ONCE: usize = 64;

/// Free frames of a shared memory.
#[derive(Debug)]
struct AtHand {
    memory: Memory,
    free: Vec<Frame>,
}

impl AtHand {
    fn new(memory: &Memory) -> Self {
        Self { memory: memory.clone(), free: Vec::with_capacity(MAX_AT_HAND + 1) }
    }

    #[inline]
    fn get(&mut self) -> Option<Frame> {
        if self.free.is_empty() {
            self.free.extend(std::iter::from_fn(|| self.memory.take()).take(N_AT_ONCE));
        }
        self.free.pop()
    }

    #[inline]
    fn put(&mut self, frame: Frame) {
        self.free.push(frame);
        if self.free.len() > MAX_AT_HAND {
            // Those that were used longest ago; each goes home as it is dropped.
            self.free.drain(..N_AT_ONCE);
        }
    }
}

/// A fixed number of frames, owned by one worker.
#[derive(Debug)]
pub(crate) struct Pool {
    usual: Shelf,
    large: Shelf,
    /// Of each memory that frames have come from.
    at_hand: Vec<AtHand>,
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
            at_hand: Vec::new(),
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
    #[inline(always)]
    pub(crate) fn put(&mut self, frame: Frame) {
        if Arc::ptr_eq(&self.usual.region, &frame.region) {
            self.usual.free.push(frame);
        } else {
            self.put_other(frame);
        }
    }

    /// Takes back the frame of a packet.
    #[inline(always)]
    pub(crate) fn put_packet(&mut self, packet: Packet<Frame>) {
        if Arc::ptr_eq(&self.usual.region, &packet.buf().region) {
            self.usual.put_packet(packet);
        } else {
            self.put_other(packet.into_buf());
        }
    }

    #[inline(never)]
    fn put_other(&mut self, frame: Frame) {
        if let Some(at_hand) = self.at_hand.iter_mut().find(|own| own.memory.has(&frame)) {
            at_hand.put(frame);
        } else if Arc::ptr_eq(&self.large.region, &frame.region) {
            self.large.free.push(frame);
        }
    }

    /// A free frame of a memory that is shared.
    #[inline]
    pub(crate) fn get_of(&mut self, memory: &Memory) -> Option<Frame> {
        let frame = match self.at_hand.iter_mut().find(|own| own.memory.is(memory)) {
            Some(at_hand) => at_hand.get(),
            None => {
                self.at_hand.push(AtHand::new(memory));
                self.at_hand.last_mut()?.get()
            }
        };
        if frame.is_none() {
            self.count_exhausted();
        }
        frame
    }

    /// The memory of the frames that are taken first.
    pub(crate) fn first_used(&self) -> [Range<*const u8>; 2] {
        [self.usual.first(N_FIRST), self.large.first(N_FIRST_LARGE)]
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
