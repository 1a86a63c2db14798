//! Which memory the sockets of a port use. One memory serves several queues of any ports, so
//! that packets between these are not copied; when its queues are all taken, there is another.
//!
//! Where somebody holds what outlives the process, memories are files that he has as well.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::kept::Leftover;
use crate::{
    keep::{Beginning, Keeper},
    pool::{Memory, Slot},
    sys::xsk::{MAX_CHUNK, MIN_CHUNK, RING_LEN},
};

/// Queues that a memory is for. All of it is locked when its first socket is opened: 32 MiB.
const N_QUEUES: usize = 4;
/// Frames for each: what is to be received into, and as many for what is under way.
const FRAMES_PER_QUEUE: usize = 2 * RING_LEN as usize;

/// The memories of a dataplane.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    keeper: Option<Arc<dyn Keeper>>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// They stay when their last port goes: the next one will want them.
    list: Vec<Memory>,
    /// What was held of interfaces and cannot be gone on with, as long as the process before has it.
    leftovers: BTreeMap<String, Leftover>,
    /// Another process has had the memories.
    were_given: bool,
}

/// What the keeper has a memory as. Without the others, the next process gets it no more than connections.
fn kept_name(id: u64) -> String {
    format!("memory/frames/{id:016x}")
}

impl Memories {
    pub(crate) fn new(beginning: &Beginning) -> Self {
        Self { keeper: beginning.keeper.clone(), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who holds them as well.
    pub(crate) fn keeper(&self) -> Option<&dyn Keeper> {
        self.keeper.as_deref()
    }

    /// Places for so many queues in a memory whose frames are long enough, if one descriptor can be, of a card of
    /// this NUMA node, if it has one; what is held for the next process is for sockets that are held as well. `None`:
    /// there is no more memory to be had.
    pub(crate) fn share(
        &self,
        frame_len: u32,
        n_queues: usize,
        (node, is_kept): (Option<u32>, bool),
    ) -> Option<Vec<Slot>> {
        let chunk = chunk(frame_len);
        let mut known = self.known();
        let suits = |memory: &&Memory| {
            memory.frame_len() == chunk
                && memory.to_keep().is_some() == is_kept
                && (node.is_none() || node == memory.node())
        };
        if let Some(slots) = known.list.iter().filter(suits).find_map(|memory| memory.claim(n_queues)) {
            return Some(slots);
        }
        let n_slots = n_queues.max(N_QUEUES);
        let n_frames = n_slots * FRAMES_PER_QUEUE;
        let memory = match self.keeper().filter(|_| is_kept) {
            Some(keeper) => make((n_frames, chunk), n_slots, node, keeper)?,
            None => Memory::new(n_frames, chunk, n_slots, node)?,
        };
        let slots = memory.claim(n_queues);
        known.list.push(memory);
        slots
    }

    /// The memory of this number, of the process before if need be.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub(super) fn find(&self, id: u64, is_waiting: bool) -> Result<Memory, String> {
        let mut known = self.known();
        if let Some(memory) = known.list.iter().find(|memory| memory.id() == id) {
            return Ok(memory.clone());
        }
        let kept = self.keeper().and_then(|keeper| keeper.take(&kept_name(id)));
        let memory = Memory::adopt(kept.ok_or("the memory of its frames is not held")?)?;
        if memory.id() != id {
            return Err("the memory of its frames is another one's".to_owned());
        }
        if !is_waiting {
            memory.settle();
        }
        known.list.push(memory.clone());
        Ok(memory)
    }

    /// The process before takes no packets any more: what it has left is looked at.
    pub(crate) fn settle(&self) {
        self.known().list.iter().for_each(Memory::settle);
    }

    /// Another process has all memories that are held: what is of them is left. False: there are none.
    pub(crate) fn give_away(&self) -> bool {
        let mut known = self.known();
        let given = known.list.iter().filter(|memory| memory.to_keep().is_some());
        let n_given = given.inspect(|memory| memory.give_away()).count();
        known.were_given |= n_given > 0;
        n_given > 0
    }

    /// Nobody has gone on with them, or not for long: ports get others. False: none were given away.
    pub(crate) fn replace_given(&self) -> bool {
        let mut known = self.known();
        for memory in known.list.extract_if(.., |memory| memory.is_given()) {
            self.keeper().inspect(|keeper| keeper.forget(&kept_name(memory.id())));
        }
        std::mem::take(&mut known.were_given)
    }

    /// Puts by what cannot be gone on with.
    pub(super) fn put_by(&self, interface: &str, leftover: Leftover) {
        self.known().leftovers.insert(interface.to_owned(), leftover);
    }

    /// What was put by.
    pub(super) fn take_put_by(&self, interface: &str) -> Option<Leftover> {
        self.known().leftovers.remove(interface)
    }
}

/// Memory in a file that a keeper has as well.
fn make(
    (n_frames, chunk): (usize, usize),
    n_slots: usize,
    node: Option<u32>,
    keeper: &dyn Keeper,
) -> Option<Memory> {
    let memory = Memory::in_file(n_frames, chunk, n_slots, node).ok()?;
    let (note, fd) = memory.to_keep()?;
    if let Err(error) = keeper.keep(&kept_name(memory.id()), &note, &[fd]) {
        tracing::warn!(%error, "AF_XDP ports will not outlive this process");
    }
    Some(memory)
}

/// Bytes of a frame's memory, for frames that long.
pub(super) fn chunk(frame_len: u32) -> usize {
    if frame_len <= room(MIN_CHUNK) { MIN_CHUNK as usize } else { MAX_CHUNK as usize }
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
        let share = |frame_len, n_queues| memories.share(frame_len, n_queues, (None, false)).unwrap();
        let (first, second) = (share(1518, 2), share(1518, 2));
        let (third, long) = (share(1518, 1), share(1793, 1));
        let memory = |slots: &[Slot]| slots[0].memory().clone();
        assert!(memory(&first).is(&memory(&second)));
        assert!(!memory(&first).is(&memory(&third)) && !memory(&first).is(&memory(&long)));
        assert_eq!((memory(&first).frame_len(), memory(&long).frame_len()), (2048, 4096));
        let mut numbers: Vec<_> = first.iter().chain(&second).map(Slot::number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
        let left = memory(&second);
        drop(second);
        assert!(memory(&share(64, 2)).is(&left), "what a port has left is for the next");
        assert_eq!(memory(&share(64, 8)).n_free(), 8 * FRAMES_PER_QUEUE);
    }

    #[test]
    fn cards_of_another_node_have_another_memory() {
        let memories = Memories::default();
        let shares =
            [Some(0), Some(1), Some(0), None].map(|node| memories.share(1518, 1, (node, false)).unwrap());
        let [first, second, third, any] = shares.each_ref().map(|slots| slots[0].memory());
        assert!(first.is(third) && !first.is(second), "each has that of its node");
        assert!(any.is(first), "what has no card takes what is there");
    }
}
