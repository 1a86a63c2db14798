//! Which memory the sockets of a port use. One memory serves several queues of any ports, so
//! that packets between these are not copied; when its queues are all taken, there is another.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    pool::Memory,
    sys::xsk::{MAX_CHUNK, MIN_CHUNK, RING_LEN},
};

/// Queues that a memory is for. All of it is locked when its first socket is opened: 32 MiB.
const N_QUEUES: usize = 4;
/// Frames for each: what is to be received into, and as many for what is under way.
const FRAMES_PER_QUEUE: usize = 2 * RING_LEN as usize;

/// The memories of a dataplane.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    list: Mutex<Vec<Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    memory: Memory,
    /// NUMA node that it was wanted on.
    node: Option<u32>,
    n_queues: usize,
    n_taken: Mutex<usize>,
}

/// A memory for the queues of one port, for as long as it has them.
#[derive(Debug)]
pub(crate) struct Share {
    slot: Arc<Slot>,
    n_queues: usize,
}

impl Memories {
    /// A memory whose frames are long enough, if one descriptor can be, for so many queues of a card of this NUMA
    /// node, if it has one. `None`: there is no more memory to be had.
    pub(crate) fn share(&self, frame_len: u32, n_queues: usize, node: Option<u32>) -> Option<Share> {
        let chunk = if frame_len <= room(MIN_CHUNK) { MIN_CHUNK } else { MAX_CHUNK } as usize;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let suits =
            |slot: &&Arc<Slot>| slot.memory.frame_len() == chunk && (node.is_none() || node == slot.node);
        if let Some(share) = list.iter().filter(suits).find_map(|slot| Share::of(slot, n_queues)) {
            return Some(share);
        }
        let n_all = n_queues.max(N_QUEUES);
        let memory = Memory::new(n_all * FRAMES_PER_QUEUE, chunk, node)?;
        let slot = Arc::new(Slot { memory, node, n_queues: n_all, n_taken: Mutex::new(n_queues) });
        // It stays when its last port goes: the next one will want it.
        list.push(Arc::clone(&slot));
        Some(Share { slot, n_queues })
    }
}

impl Share {
    fn of(slot: &Arc<Slot>, n_queues: usize) -> Option<Self> {
        let mut n_taken = slot.n_taken.lock().unwrap_or_else(PoisonError::into_inner);
        (*n_taken + n_queues <= slot.n_queues).then(|| *n_taken += n_queues)?;
        Some(Self { slot: Arc::clone(slot), n_queues })
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.slot.memory
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut n_taken = self.slot.n_taken.lock().unwrap_or_else(PoisonError::into_inner);
        *n_taken = n_taken.saturating_sub(self.n_queues);
    }
}

/// Bytes of a packet that a frame takes, of so many bytes.
pub(super) const fn room(frame_len: u32) -> u32 {
    frame_len - crate::sys::xsk::KERNEL_HEADROOM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_share_a_memory_until_its_queues_are_taken() {
        let memories = Memories::default();
        let share = |frame_len, n_queues| memories.share(frame_len, n_queues, None).unwrap();
        let (first, second) = (share(1518, 2), share(1518, 2));
        let (third, long) = (share(1518, 1), share(1793, 1));
        assert!(first.memory().is(second.memory()));
        assert!(!first.memory().is(third.memory()) && !first.memory().is(long.memory()));
        assert_eq!((first.memory().frame_len(), long.memory().frame_len()), (2048, 4096));
        let memory = second.memory().clone();
        drop(second);
        assert!(share(64, 2).memory().is(&memory), "what a port has left is for the next");
        assert_eq!(share(64, 8).memory().n_free(), 8 * FRAMES_PER_QUEUE);
    }

    #[test]
    fn cards_of_another_node_have_another_memory() {
        let memories = Memories::default();
        let shares = [Some(0), Some(1), Some(0), None].map(|node| memories.share(1518, 1, node).unwrap());
        let [first, second, third, any] = shares.each_ref().map(Share::memory);
        assert!(first.is(third) && !first.is(second), "each has that of its node");
        assert!(any.is(first), "what has no card takes what is there");
    }
}
