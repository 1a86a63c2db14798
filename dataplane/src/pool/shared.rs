//! Frames that are handed to the kernel and come back: the memory of AF_XDP sockets.
//!
//! A [`Memory`] is of no worker: sockets of all workers use it, so that a packet goes from the
//! one that received it to the one that sends it as it is. Each socket notes in its [`Lent`]
//! which frames the kernel has of it.

use std::{mem, ops::Range, sync::Arc};

use super::{Frame, Region};
use crate::sys::{advise_huge_pages, near};

/// Memory of frames that sockets share. Their starts are `frame_len` bytes apart.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    region: Arc<Region>,
}

impl Memory {
    /// Memory of so many frames of so many bytes, on this NUMA node if one is wanted. `None`: it cannot be had.
    pub(crate) fn new(n_frames: usize, frame_len: usize, node: Option<u32>) -> Option<Self> {
        let n_frames = n_frames.clamp(1, u32::MAX as usize);
        let region = Region::new(n_frames, (frame_len, frame_len), |memory: Range<*const u8>| {
            advise_huge_pages(memory.clone());
            if let Some(node) = node {
                near::prefer(memory, node);
            }
        })?;
        for idx in 0..n_frames as u32 {
            // The queue has room for all.
            let _ = region.returned.push(idx);
        }
        Some(Self { region })
    }

    /// Where it is.
    pub(crate) fn range(&self) -> Range<*const u8> {
        let start = self.region.memory.as_ptr().cast_const();
        start..start.wrapping_add(self.region.len)
    }

    /// Bytes of a frame.
    pub(crate) fn frame_len(&self) -> usize {
        self.region.frame_len
    }

    /// A free frame that no worker has at hand.
    pub(crate) fn take(&self) -> Option<Frame> {
        self.region.take_returned()
    }

    /// A frame is of it.
    #[inline]
    pub(crate) fn has(&self, frame: &Frame) -> bool {
        Arc::ptr_eq(&self.region, &frame.region)
    }

    /// It is the same.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.region, &other.region)
    }

    /// Free frames that no worker has at hand.
    #[cfg(test)]
    pub(crate) fn n_free(&self) -> usize {
        self.region.returned.len()
    }
}

/// Frames of a memory that the kernel has.
///
/// # Invariants
/// - A frame is noted if and only if its handle was given to [`Lent::lend`] and has not come
///   back. So there is no other handle to it, and a number that nobody lent, or twice the same,
///   makes none.
/// - Dropping it gives all of them back to their memory. The kernel must be done with them by
///   then: the socket is closed.
#[derive(Debug)]
pub(crate) struct Lent {
    memory: Memory,
    noted: Box<[u64]>,
    n_lent: usize,
}

impl Lent {
    /// Nothing is lent yet.
    pub(crate) fn new(memory: &Memory) -> Self {
        let n_frames = memory.region.returned.capacity();
        let noted = vec![0; n_frames.div_ceil(64)].into();
        Self { memory: memory.clone(), noted, n_lent: 0 }
    }

    /// How many are lent.
    pub(crate) fn len(&self) -> usize {
        self.n_lent
    }

    /// Notes a frame; answers where it starts in the memory.
    ///
    /// # Errors
    /// It is of another memory.
    #[inline]
    pub(crate) fn lend(&mut self, frame: Frame) -> Result<u64, Frame> {
        if !self.memory.has(&frame) {
            return Err(frame);
        }
        let idx = frame.idx as usize;
        self.noted[idx / 64] |= 1 << (idx % 64);
        self.n_lent += 1;
        // Its reference to the region is that of the note from now on.
        mem::forget(frame);
        Ok((idx * self.memory.region.frame_len) as u64)
    }

    /// Takes back the frame that an address is in, with the address's place in it. `None`: it
    /// was not lent.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64) -> Option<(Frame, usize)> {
        let address = usize::try_from(address).ok()?;
        let (idx, offset) = (address / self.memory.region.frame_len, address % self.memory.region.frame_len);
        let (word, bit) = (self.noted.get_mut(idx / 64)?, 1_u64 << (idx % 64));
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        self.n_lent -= 1;
        // SAFETY: the pointer is that of the region, and the note stands for one reference to
        // it, which `lend` has forgotten; it is gone now.
        let region = unsafe { Arc::from_raw(Arc::as_ptr(&self.memory.region)) };
        // SAFETY: the note says that the slot's only handle was given up, and the index is one
        // of a frame, which had it.
        let frame = unsafe { region.into_handle(idx as u32) };
        Some((frame, offset))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for word in 0..self.noted.len() {
            while self.noted[word] != 0 {
                let idx = word * 64 + self.noted[word].trailing_zeros() as usize;
                drop(self.take_back((idx * self.memory.region.frame_len) as u64));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Pool, *};

    #[test]
    fn a_lent_frame_comes_back_once() {
        let memory = Memory::new(100, 2048, None).unwrap();
        let mut lent = Lent::new(&memory);
        let mut frames: Vec<Frame> = std::iter::from_fn(|| memory.take()).collect();
        assert_eq!(frames.len(), 100);
        for (n, frame) in frames.iter_mut().enumerate() {
            frame.as_mut()[300] = n as u8;
        }
        let addresses: Vec<u64> = frames.drain(..).map(|frame| lent.lend(frame).unwrap()).collect();
        assert_eq!((lent.len(), memory.n_free()), (100, 0));
        for (n, address) in addresses.iter().enumerate().take(60) {
            let (frame, offset) = lent.take_back(address + 300).unwrap();
            assert_eq!((frame.as_ref()[offset], offset), (n as u8, 300));
            assert!(lent.take_back(address + 300).is_none());
        }
        assert!([u64::MAX, 100 * 2048, 1 << 40].iter().all(|wrong| lent.take_back(*wrong).is_none()));
        assert_eq!((lent.len(), memory.n_free()), (40, 60));
        drop(lent);
        assert_eq!(memory.n_free(), 100, "what the kernel had is free when the socket is gone");
    }

    #[test]
    fn memory_that_cannot_be_had_is_no_memory() {
        assert!(Memory::new(u32::MAX as usize, usize::MAX / 2, None).is_none());
        assert!(Memory::new(u32::MAX as usize, 1 << 28, None).is_none(), "more than addresses can be");
    }

    #[test]
    fn frames_of_others_are_not_lent() {
        let (memory, other) = (Memory::new(1, 2048, None).unwrap(), Memory::new(1, 2048, None).unwrap());
        let mut lent = Lent::new(&memory);
        let frame = lent.lend(other.take().unwrap()).unwrap_err();
        drop(lent.lend(Pool::new(1).get().unwrap()).unwrap_err());
        assert!(other.has(&frame) && !memory.has(&frame) && lent.len() == 0);
    }

    #[test]
    fn workers_have_some_at_hand_and_leave_some_to_others() {
        let memory = Memory::new(2000, 2048, None).unwrap();
        let (mut here, mut there) = (Pool::new(1), Pool::new(1));
        let frames: Vec<Frame> = (0..2000).map_while(|_| here.get_of(&memory)).collect();
        assert_eq!((frames.len(), there.get_of(&memory).is_none()), (2000, true));
        frames.into_iter().for_each(|frame| here.put(frame));
        let frames: Vec<Frame> = (0..2000).map_while(|_| there.get_of(&memory)).collect();
        assert!((1400..1600).contains(&frames.len()), "{} of 2000", frames.len());
        assert_eq!((here.n_free(), here.n_exhausted(), there.n_exhausted()), (1, 0, 2));
        // They come home from where they were not taken.
        frames.into_iter().for_each(drop);
        drop((here, there));
        assert_eq!(memory.n_free(), 2000);
    }
}
