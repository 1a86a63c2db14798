//! The memory of AF_XDP sockets: frames that are handed to the kernel and come back.
//!
//! A [`Memory`] is of no worker: sockets of all workers use it, so that a packet goes from the
//! one that received it to the one that sends it as it is. Behind the frames are words, which say which frames the
//! kernel has of whom ([`Lent`]). Frames and words may be in a file that a keeper has: then another
//! process goes on with both.
//!
//! | words | what |
//! |---|---|
//! | head | what this is, with a checksum: layout, number and length of frames, number of halves, a number of its own |
//! | a line for each half of a socket | how far its rings are ([`word`]) |
//! | a bit for each frame, for each half | the kernel has it of this half |
//!
//! A frame that no half has noted is free, or was the last process's, which is the same.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use flowtable::crc32c;

use super::{Frame, Lent, Region, Side, region::frames_len};
use crate::{
    keep::Kept,
    sys::{advise_huge_pages, near, shared_memory::Mapping, xsk::RING_LEN},
};

/// Tells this memory from others.
const MAGIC: u64 = u64::from_le_bytes(*b"ffframes");
/// Counts up with each change of what is in a word, or of what it means.
const LAYOUT: u64 = 1;
/// Words of the head, and of the line of a half.
const HEAD_LEN: usize = 8;
const LINE_LEN: usize = 8;

/// Words of the head.
mod head {
    pub(super) const MAGIC: usize = 0;
    pub(super) const LAYOUT: usize = 1;
    pub(super) const N_FRAMES: usize = 2;
    pub(super) const FRAME_LEN: usize = 3;
    pub(super) const N_SLOTS: usize = 4;
    pub(super) const ID: usize = 5;
    /// Of those before it.
    pub(super) const CHECKSUM: usize = 6;
}

/// Words of the line of a half.
pub(crate) mod word {
    /// Where the next entry goes on the ring that is filled; those before are written, of which the kernel need not
    /// have been told.
    pub(crate) const WRITTEN: usize = 0;
    /// Where the next entry is taken off the rx ring, doubled; odd: within a packet.
    pub(crate) const WITHIN: usize = 1;
    /// Frames that the kernel has dropped, as was read last.
    pub(crate) const DROPPED: usize = 2;
}

/// Memory of frames that sockets share. Their starts are `frame_len` bytes apart.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(super) region: Arc<Region>,
    pub(super) state: Arc<State>,
}

/// What all that have to do with a memory share of it.
#[derive(Debug)]
pub(super) struct State {
    id: u64,
    n_frames: usize,
    /// NUMA node that it was wanted on.
    node: Option<u32>,
    /// Frames that have been handed to nobody here.
    unissued: Mutex<Unissued>,
    /// Sockets that use it.
    slots: Mutex<Vec<Whose>>,
    /// It is known which frames are nobody's.
    is_settled: AtomicBool,
    /// Another process has it from now on.
    pub(super) is_given: AtomicBool,
}

/// Whose a place for a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Nobodys,
    /// Frames are noted there, by a process before.
    Found,
    Ours,
}

/// Frames that have been handed to nobody: a bit for each.
#[derive(Debug, Default)]
struct Unissued {
    bits: Vec<u64>,
    n: usize,
}

impl Unissued {
    fn take(&mut self) -> Option<u32> {
        while let Some(last) = self.bits.last_mut() {
            if *last != 0 {
                let bit = last.trailing_zeros();
                *last &= *last - 1;
                self.n -= 1;
                return Some((self.bits.len() - 1) as u32 * u64::BITS + bit);
            }
            self.bits.pop();
        }
        None
    }
}

/// How the words are laid out.
#[derive(Debug, Clone, Copy)]
struct Plan {
    n_frames: usize,
    frame_len: usize,
    n_slots: usize,
}

impl Plan {
    /// A half is one direction of a socket.
    fn n_halves(&self) -> usize {
        self.n_slots * Side::BOTH.len()
    }

    fn n_words(&self) -> Option<usize> {
        let of_half = self.n_frames.div_ceil(64).checked_add(LINE_LEN)?;
        self.n_halves().checked_mul(of_half)?.checked_add(HEAD_LEN)
    }

    /// Bytes of all of it.
    fn len(&self) -> Option<usize> {
        let (_, words_at) = frames_len(self.n_frames, self.frame_len)?;
        self.n_words()?.checked_mul(size_of::<AtomicU64>())?.checked_add(words_at)
    }

    fn head(&self, id: u64) -> [u64; HEAD_LEN - 2] {
        let layout = LAYOUT | u64::from(RING_LEN) << 32;
        [MAGIC, layout, self.n_frames as u64, self.frame_len as u64, self.n_slots as u64, id]
    }
}

const _: () = assert!(head::MAGIC == 0 && head::LAYOUT == 1 && head::ID == 5 && head::CHECKSUM == 6);
const _: () = assert!(head::N_FRAMES == 2 && head::FRAME_LEN == 3 && head::N_SLOTS == 4);

/// Of the words of a head. Zero is what empty memory has.
fn checksum(words: &[u64]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    u64::from(crc32c::of([&bytes[..]])) | 1 << 32
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Memory of so many frames of so many bytes for so many sockets, on this NUMA node if one is wanted; of this
    /// process alone. `None`: it cannot be had.
    pub(crate) fn new(n_frames: usize, frame_len: usize, n_slots: usize, node: Option<u32>) -> Option<Self> {
        let plan = Plan { n_frames: n_frames.clamp(1, u32::MAX as usize), frame_len, n_slots };
        let region = Region::new(plan.n_frames, (frame_len, frame_len), plan.n_words()?)?;
        let memory = Self::of(region, plan, (new_id(), node));
        prepare(memory.range(), node);
        memory.begin(plan);
        Some(memory)
    }

    /// The same in a file, which another process can go on with.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn in_file(
        n_frames: usize,
        frame_len: usize,
        n_slots: usize,
        node: Option<u32>,
    ) -> io::Result<Self> {
        let none = || io::Error::from_raw_os_error(libc::ENOMEM);
        let plan = Plan { n_frames: n_frames.clamp(1, u32::MAX as usize), frame_len, n_slots };
        let len = plan.len().ok_or_else(none)?;
        let mapping = Mapping::create(c"ferroflow-frames", len, |memory| prepare(memory, node))?;
        let n_words = plan.n_words().ok_or_else(none)?;
        let region = Region::of(mapping, plan.n_frames, frame_len, n_words).ok_or_else(none)?;
        let memory = Self::of(region, plan, (new_id(), node));
        memory.begin(plan);
        Ok(memory)
    }

    /// A file of another process, of which is known which frames are free when it is [settled](Memory::settle).
    ///
    /// # Errors
    /// Why it is not what it should be.
    pub(crate) fn adopt(kept: Kept) -> Result<Self, String> {
        let wrong = || format!("it is noted in another way: {}", kept.note);
        let numbers: Option<Vec<usize>> = kept.note.split(' ').map(|word| word.parse().ok()).collect();
        let [n_frames, frame_len, n_slots, node, len] = numbers.as_deref().ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let plan = Plan { n_frames: *n_frames, frame_len: *frame_len, n_slots: *n_slots };
        let file = kept.files.into_iter().next().ok_or("there is no file")?;
        let mapping = Mapping::open(file, *len).map_err(|error| error.to_string())?;
        let n_words = plan.n_words().ok_or("it is too large")?;
        let region = Region::of(mapping, plan.n_frames, plan.frame_len, n_words)
            .ok_or("it is shorter than it should be")?;
        let get = |word: usize| region.words()[word].load(Relaxed);
        let expected = plan.head(get(head::ID));
        if get(head::CHECKSUM) != checksum(&std::array::from_fn::<u64, { HEAD_LEN - 2 }, _>(get)) {
            return Err("its head is damaged".to_owned());
        }
        if (0..expected.len()).any(|word| get(word) != expected[word]) {
            return Err("another version of vswitchd has laid it out".to_owned());
        }
        let node = u32::try_from(*node).ok().and_then(|node| node.checked_sub(1));
        let id = get(head::ID);
        Ok(Self::of(region, plan, (id, node)))
    }

    fn of(region: Arc<Region>, plan: Plan, (id, node): (u64, Option<u32>)) -> Self {
        let state = State {
            id,
            n_frames: plan.n_frames,
            node,
            unissued: Mutex::default(),
            slots: Mutex::new(vec![Whose::Nobodys; plan.n_slots]),
            is_settled: AtomicBool::new(false),
            is_given: AtomicBool::new(false),
        };
        Self { region, state: Arc::new(state) }
    }

    /// Writes the head of a new memory; all frames are free.
    fn begin(&self, plan: Plan) {
        let values = plan.head(self.state.id);
        self.settle();
        for (to, value) in self.region.words().iter().zip(values.iter().chain([&checksum(&values)])) {
            to.store(*value, Release);
        }
    }

    /// What a keeper is to know of its file; `None`: it has none.
    pub(crate) fn to_keep(&self) -> Option<(String, BorrowedFd<'_>)> {
        let n_slots = lock(&self.state.slots).len();
        let (n_frames, frame_len) = (self.state.n_frames, self.frame_len());
        let (fd, len) = (self.region.fd()?, self.region.file_len());
        let node = self.node().map_or(0, |node| u64::from(node) + 1);
        Some((format!("{n_frames} {frame_len} {n_slots} {node} {len}"), fd))
    }

    /// NUMA node that it was wanted on.
    pub(crate) fn node(&self) -> Option<u32> {
        self.state.node
    }

    /// Its number.
    pub(crate) fn id(&self) -> u64 {
        self.state.id
    }

    /// Finds out which frames are nobody's: those that no half has noted, of a process that is gone or takes no
    /// packets any more. Only the first time.
    pub(crate) fn settle(&self) {
        let mut unissued = lock(&self.state.unissued);
        if self.is_settled() {
            return;
        }
        let n_frames = self.state.n_frames;
        let mut bits = vec![u64::MAX; n_frames.div_ceil(64)];
        if let Some(last) = bits.last_mut().filter(|_| !n_frames.is_multiple_of(64)) {
            *last = (1 << (n_frames % 64)) - 1;
        }
        let (mut slots, mut is_sound) = (lock(&self.state.slots), true);
        for half in 0..slots.len() * Side::BOTH.len() {
            let noted = &self.region.words()[self.notes_of(half)..][..bits.len()];
            for (free, noted) in bits.iter_mut().zip(noted) {
                let noted = noted.load(Relaxed);
                is_sound &= *free & noted == noted;
                *free &= !noted;
                let whose = &mut slots[half / Side::BOTH.len()];
                if noted != 0 && *whose == Whose::Nobodys {
                    *whose = Whose::Found;
                }
            }
        }
        if !is_sound {
            tracing::error!(
                "two sockets of the process before have the same frames; none of them is used again"
            );
            self.give_away();
            bits.clear();
        }
        let n = bits.iter().map(|word| word.count_ones() as usize).sum();
        *unissued = Unissued { bits, n };
        self.state.is_settled.store(true, Release);
    }

    /// It is known which frames are nobody's.
    pub(crate) fn is_settled(&self) -> bool {
        self.state.is_settled.load(Acquire)
    }

    /// Another process has the frames from now on: nobody here touches them any more.
    pub(crate) fn give_away(&self) {
        self.state.is_given.store(true, Release);
    }

    /// Another process has the frames.
    pub(crate) fn is_given(&self) -> bool {
        self.state.is_given.load(Acquire)
    }

    /// Where the notes of a half begin.
    pub(super) fn notes_of(&self, half: usize) -> usize {
        let n_halves = (self.region.words().len() - HEAD_LEN) / (LINE_LEN + self.state.n_frames.div_ceil(64));
        HEAD_LEN + n_halves * LINE_LEN + half * self.state.n_frames.div_ceil(64)
    }

    /// Where the line of a half begins.
    pub(super) fn line_of(half: usize) -> usize {
        HEAD_LEN + half * LINE_LEN
    }

    /// Number of its frames.
    pub(crate) fn n_frames(&self) -> usize {
        self.state.n_frames
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
        self.region.take_returned().or_else(|| self.issue())
    }

    /// One that has been handed to nobody yet.
    fn issue(&self) -> Option<Frame> {
        let idx = lock(&self.state.unissued).take()?;
        // SAFETY: it was nobody's, as no half had noted it, and is handed out this once.
        Some(unsafe { self.region.handle(idx) })
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

    /// Places for so many sockets. `None`: there are not as many.
    pub(crate) fn claim(&self, n: usize) -> Option<Vec<Slot>> {
        let mut slots = lock(&self.state.slots);
        let free: Vec<_> =
            (0..slots.len()).filter(|number| slots[*number] == Whose::Nobodys).take(n).collect();
        (free.len() == n && !self.is_given()).then(|| {
            free.iter().for_each(|number| slots[*number] = Whose::Ours);
            free.into_iter().map(|number| Slot { memory: self.clone(), number }).collect()
        })
    }

    /// Those that sockets of the process before had. Nobody else may have them.
    pub(crate) fn claim_again(&self, numbers: &[usize]) -> Option<Vec<Slot>> {
        let mut slots = lock(&self.state.slots);
        let is_free = |number: &usize| slots.get(*number).is_some_and(|whose| *whose != Whose::Ours);
        (numbers.iter().all(is_free) && !self.is_given()).then(|| {
            numbers.iter().for_each(|number| slots[*number] = Whose::Ours);
            numbers.iter().map(|number| Slot { memory: self.clone(), number: *number }).collect()
        })
    }

    /// Free frames that no worker has at hand.
    #[cfg(test)]
    pub(crate) fn n_free(&self) -> usize {
        self.region.returned.len() + lock(&self.state.unissued).n
    }
}

/// A place for a socket: its frames are noted there.
#[derive(Debug)]
pub(crate) struct Slot {
    memory: Memory,
    number: usize,
}

impl Slot {
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What the kernel has of one half of its socket, which is new.
    pub(crate) fn lent(&self, side: Side) -> Lent {
        Lent::new(&self.memory, self.half(side))
    }

    /// The same of one that was here before.
    pub(crate) fn found(&self, side: Side) -> Lent {
        Lent::found(&self.memory, self.half(side))
    }

    /// A word of a half.
    pub(crate) fn word(&self, side: Side, word: usize) -> &AtomicU64 {
        &self.memory.region.words()[Memory::line_of(self.half(side)) + word]
    }

    /// The frames of a socket that is closed are free.
    pub(crate) fn reclaim(&self) {
        Side::BOTH.into_iter().for_each(|side| drop(self.found(side)));
    }

    fn half(&self, side: Side) -> usize {
        self.number * Side::BOTH.len() + side as usize
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // What was not given back is nobody else's.
        let is_noted = Side::BOTH.iter().any(|side| {
            let notes = &self.memory.region.words()[self.memory.notes_of(self.half(*side))..];
            notes.iter().take(self.memory.n_frames().div_ceil(64)).any(|word| word.load(Relaxed) != 0)
        });
        if let Some(whose) = lock(&self.memory.state.slots).get_mut(self.number) {
            *whose = if is_noted { Whose::Found } else { Whose::Nobodys };
        }
    }
}

/// Where memory is to be, before there is any.
fn prepare(memory: Range<*const u8>, node: Option<u32>) {
    advise_huge_pages(memory.clone());
    if let Some(node) = node {
        near::prefer(memory, node);
    }
}

/// A number that no other memory has.
fn new_id() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
