//! One ring of a guest, in the hands of whoever moves frames: from the guest, or to it.
//!
//! Frames are copied once, between the guest's memory and a frame of ours. What has been used
//! shows to the guest once for a burst, and it is woken once, if it wants to be.

use std::sync::Arc;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::{
    chain::{self, Direction, MAX_PARTS, Part},
    fault::Fault,
    features::Features,
};
use crate::{
    pool::{self, FRAME_LEN, Frame, MAX_PACKET_LEN, Pool},
    port::BATCH,
    sys::{
        event_file::EventFile,
        vnet::{self, RECORD_LEN, Record},
        vring::RingMemory,
    },
};

/// First byte of a frame.
const START: usize = HEADROOM;
/// Shortest frame: its Ethernet header.
const MIN_FRAME_LEN: usize = 14;
/// Longest record in front of a frame.
const MAX_HEADER_LEN: usize = 12;
/// How far ahead of a frame that is written its descriptor is brought near, and its place: longer than a line of memory
/// takes from a core far away, where a guest has more buffers than caches hold.
const AHEAD: u16 = 28;
const PLACE_AHEAD: u16 = 16;

/// Bytes of a line of memory.
const LINE_LEN: usize = 64;

/// A ring and how far we are with it.
#[derive(Debug)]
pub(crate) struct Vring {
    memory: RingMemory,
    features: Features,
    call: Option<Arc<EventFile>>,
    /// The next chain of those that are available.
    next: u16,
    /// How many there were when last looked.
    n_available: u16,
    /// There was none left; what is said until the next publication. To look again for each frame would only
    /// take from the guest the line of memory in which it says that there are more.
    is_full: bool,
    /// How many have been used, and how many of those the guest sees.
    n_used: u16,
    n_published: u16,
    /// The guest wakes us with each chain; it was told to when we went to sleep.
    is_kicked: bool,
    parts: Vec<Part>,
    /// First descriptor and bytes of each chain of a frame that is written.
    chains: Vec<(u16, u32)>,
}

/// Why a frame was not written.
#[derive(Debug)]
pub(super) enum NotSent {
    /// For this reason; the ring is well.
    Dropped(DropReason),
    /// The guest has broken the ring.
    Broken(Fault),
}

impl From<Fault> for NotSent {
    fn from(fault: Fault) -> Self {
        Self::Broken(fault)
    }
}

impl Vring {
    /// A ring from its beginning, or from where it was left: all that was taken of it has been
    /// used, in order, so the guest's memory says where that is, whatever the other side
    /// remembers.
    pub(super) fn new(memory: RingMemory, features: Features, call: Option<Arc<EventFile>>) -> Self {
        let n_used = memory.n_used();
        memory.set_wants_no_kick(true);
        Self {
            memory,
            features,
            call,
            next: n_used,
            n_available: n_used,
            is_full: false,
            n_used,
            n_published: n_used,
            is_kicked: false,
            parts: Vec::with_capacity(MAX_PARTS),
            chains: Vec::with_capacity(BATCH),
        }
    }

    /// Whom to wake from now on.
    pub(super) fn set_call(&mut self, call: Option<Arc<EventFile>>) {
        self.call = call;
    }

    /// The next chain: where the guest's side would go on.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// What guest and switch have agreed on.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Looks how many chains are available.
    #[inline]
    fn look(&mut self) -> Result<u16, Fault> {
        self.n_available = self.memory.n_available();
        let (n, size) = (self.n_available.wrapping_sub(self.next), self.memory.size());
        if n > size { Err(Fault::TooManyAvailable { n, size }) } else { Ok(n) }
    }

    /// Looks whether there are more chains than there were; once until the next publication, if not.
    #[inline]
    fn is_used_up(&mut self) -> Result<bool, Fault> {
        if !self.is_full {
            let before = self.n_available;
            self.look()?;
            self.is_full = self.n_available == before;
        }
        Ok(self.is_full)
    }

    /// There is a chain that has not been taken, or something that looks like it.
    pub(super) fn has_available(&self) -> bool {
        self.memory.n_available() != self.next
    }

    /// Has the guest wake us from its next chain on, or not.
    pub(super) fn set_kicked(&mut self, is_kicked: bool) {
        self.is_kicked = is_kicked;
        if !self.features.has_event_index() {
            self.memory.set_wants_no_kick(!is_kicked);
        } else if is_kicked {
            self.memory.set_available_event(self.next);
        }
        self.memory.barrier();
    }

    /// It does.
    #[inline]
    pub(super) fn is_kicked(&self) -> bool {
        self.is_kicked
    }

    /// Takes frames of the guest until the batch has `max`; answers how many were no frames.
    ///
    /// # Errors
    /// The guest has broken the ring; the batch has the frames before.
    pub(super) fn receive(
        &mut self,
        (from, max): (PortNo, usize),
        pool: &mut Pool,
        batch: &mut Vec<Packet<Frame>>,
    ) -> Result<u64, Fault> {
        let n = usize::from(self.look()?).min(max.saturating_sub(batch.len())).min(BATCH);
        let mut heads = [0; BATCH];
        for (idx, head) in heads.iter_mut().take(n).enumerate() {
            *head = self.memory.available(self.next.wrapping_add(idx as u16));
            self.memory.prefetch(*head);
        }
        let (leaves_undone, header_len) = (self.features.leaves_undone(), self.features.header_len());
        for head in heads.iter().take(n) {
            let descriptor = self.memory.descriptor(*head);
            let skipped = if leaves_undone { 0 } else { header_len };
            let len = (descriptor.len as usize).saturating_sub(skipped + 1).min(LINE_LEN);
            self.memory.memory().prefetch(descriptor.addr.wrapping_add(skipped as u64), len);
        }
        let mut n_refused = 0;
        for head in heads.iter().take(n) {
            match self.read_frame(*head, pool)? {
                Read::Frame(frame, len, offload) => {
                    pool::add(batch, (frame, START, len), from);
                    if let (false, Some(packet)) = (offload.is_none(), batch.last_mut()) {
                        packet.offload = offload;
                    }
                }
                Read::None => n_refused += 1,
                // It stays where it is until there is room.
                Read::NoRoom => break,
            }
            self.memory.put_used(self.n_used, *head, 0);
            (self.next, self.n_used) = (self.next.wrapping_add(1), self.n_used.wrapping_add(1));
        }
        // Those of the next round come meanwhile.
        let n_left = self.n_available.wrapping_sub(self.next).min(BATCH as u16);
        for idx in 0..n_left {
            self.memory.prefetch(self.memory.available(self.next.wrapping_add(idx)));
        }
        Ok(n_refused)
    }

    #[inline]
    fn read_frame(&mut self, head: u16, pool: &mut Pool) -> Result<Read, Fault> {
        self.parts.clear();
        let total = chain::collect(&self.memory, head, Direction::FromGuest, &mut self.parts)?;
        let header_len = self.features.header_len();
        let len = usize::try_from(total).unwrap_or(usize::MAX).saturating_sub(header_len);
        if !(MIN_FRAME_LEN..=MAX_PACKET_LEN).contains(&len) {
            return Ok(Read::None);
        }
        let Some(mut frame) = pool.get_for(START + len) else { return Ok(Read::NoRoom) };
        let mut header = [0; MAX_HEADER_LEN];
        let wanted = if self.features.leaves_undone() { &mut header[..header_len] } else { &mut [] };
        let copied = self.gather(header_len, wanted, &mut frame.as_mut()[START..START + len]);
        if let Err(fault) = copied {
            pool.put(frame);
            return Err(fault);
        }
        let record = header.first_chunk::<RECORD_LEN>().map_or_else(Default::default, vnet::decode);
        Ok(Read::Frame(frame, len, record))
    }

    /// Copies what the parts have, one behind the other, to what is in front and what follows; what is
    /// in front may not be wanted.
    #[inline]
    fn gather(&self, header_len: usize, mut header: &mut [u8], mut body: &mut [u8]) -> Result<(), Fault> {
        let memory = self.memory.memory();
        let mut in_front = header_len;
        for part in &self.parts {
            let (mut addr, mut len) = (part.addr, part.len as usize);
            if in_front > 0 {
                let n = len.min(in_front);
                let n_wanted = n.min(header.len());
                let (now, later) = std::mem::take(&mut header).split_at_mut(n_wanted);
                let is_there = if now.is_empty() { memory.has(addr) } else { memory.read(addr, now) };
                if n > 0 && !is_there {
                    return Err(Fault::Outside(addr));
                }
                (header, in_front) = (later, in_front - n);
                (addr, len) = (addr.wrapping_add(n as u64), len - n);
            }
            let n = len.min(body.len());
            let (now, later) = std::mem::take(&mut body).split_at_mut(n);
            if !memory.read(addr, now) {
                return Err(Fault::Outside(addr));
            }
            body = later;
        }
        Ok(())
    }

    /// Writes a frame to the guest, in as many chains as it takes.
    ///
    /// # Errors
    /// Why not; then nothing has been used.
    #[inline]
    pub(super) fn send(&mut self, record: &Record, frame: &[u8]) -> Result<(), NotSent> {
        if self.n_available == self.next && self.is_used_up()? {
            return Err(NotSent::Dropped(DropReason::TxRingFull));
        }
        self.prefetch_ahead();
        let header_len = self.features.header_len();
        let needed = (header_len + frame.len()) as u64;
        self.find_room(needed)?;
        self.scatter(&Header::new(record, self.chains.len() as u16, header_len), frame)?;
        let mut left = needed;
        for (head, room) in &self.chains {
            let len = left.min(u64::from(*room));
            self.memory.put_used(self.n_used, *head, len as u32);
            left -= len;
            (self.next, self.n_used) = (self.next.wrapping_add(1), self.n_used.wrapping_add(1));
        }
        Ok(())
    }

    /// Brings near where one of the next frames goes.
    #[inline]
    fn prefetch_ahead(&self) {
        let (near, far) = (self.next.wrapping_add(PLACE_AHEAD), self.next.wrapping_add(AHEAD));
        self.memory.prefetch(self.memory.available(far));
        let descriptor = self.memory.descriptor(self.memory.available(near));
        // The record is in front of the frame, often in a line of its own.
        self.memory.memory().prefetch_to_write(descriptor.addr, LINE_LEN);
    }

    /// Finds chains for so many bytes.
    #[inline]
    fn find_room(&mut self, needed: u64) -> Result<(), NotSent> {
        self.parts.clear();
        self.chains.clear();
        let (mut found, mut at) = (0, self.next);
        while found < needed {
            if !self.chains.is_empty() && !self.features.is_mergeable() {
                return Err(NotSent::Dropped(DropReason::TooBig));
            }
            if at == self.n_available && self.is_used_up()? {
                return Err(NotSent::Dropped(DropReason::TxRingFull));
            }
            let head = self.memory.available(at);
            let room = chain::collect(&self.memory, head, Direction::ToGuest, &mut self.parts)?;
            let room = u32::try_from(room).unwrap_or(u32::MAX);
            if room == 0 {
                return Err(Fault::NoRoom.into());
            }
            self.chains.push((head, room));
            (found, at) = (found + u64::from(room), at.wrapping_add(1));
        }
        Ok(())
    }

    /// Copies what is in front and what follows to the parts, one behind the other.
    #[inline]
    fn scatter(&self, header: &Header, frame: &[u8]) -> Result<(), Fault> {
        let memory = self.memory.memory();
        let Some((first, rest)) = self.parts.split_first() else { return Err(Fault::NoRoom) };
        let len = header.len;
        let rest_of_first = (first.len as usize).checked_sub(len);
        let Some(room) = rest_of_first.filter(|_| memory.update(first.addr, header.words, len)) else {
            return self.scatter_bytes(&header.bytes()[..len], frame, &self.parts);
        };
        let (now, later) = frame.split_at(frame.len().min(room));
        let addr = first.addr.wrapping_add(len as u64);
        if !memory.write(addr, now) {
            return Err(Fault::Outside(addr));
        }
        if later.is_empty() { Ok(()) } else { self.scatter_bytes(&[], later, rest) }
    }

    fn scatter_bytes(&self, mut header: &[u8], mut body: &[u8], parts: &[Part]) -> Result<(), Fault> {
        let memory = self.memory.memory();
        for part in parts {
            let (mut addr, mut len) = (part.addr, part.len as usize);
            if !header.is_empty() {
                let (now, later) = header.split_at(len.min(header.len()));
                if !memory.write(addr, now) {
                    return Err(Fault::Outside(addr));
                }
                (header, addr, len) = (later, addr.wrapping_add(now.len() as u64), len - now.len());
            }
            let (now, later) = body.split_at(len.min(body.len()));
            if !memory.write(addr, now) {
                return Err(Fault::Outside(addr));
            }
            body = later;
            if body.is_empty() && header.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Has the guest see what was used, and wakes it if it wants to be.
    ///
    /// # Errors
    /// Its memory is gone: what was copied from there means nothing.
    #[inline]
    pub(super) fn publish(&mut self) -> Result<(), Fault> {
        self.is_full = false;
        if self.memory.memory().is_broken() {
            return Err(Fault::MemoryGone);
        }
        let before = self.n_published;
        if self.n_used == before {
            return Ok(());
        }
        self.memory.publish_used(self.n_used);
        self.n_published = self.n_used;
        // It sees what was used before we look whether it sleeps.
        self.memory.barrier();
        let is_wanted = if self.features.has_event_index() {
            is_passed(self.memory.used_event(), before, self.n_used)
        } else {
            !self.memory.wants_no_call()
        };
        if is_wanted && let Some(call) = &self.call {
            call.signal();
        }
        Ok(())
    }
}

/// What is in front of a frame that is written: the record and the number of buffers.
struct Header {
    /// As integers: the next thing is a comparison, and bytes that were put together in memory are not at once
    /// read from there as a whole.
    words: (u64, u32),
    len: usize,
}

impl Header {
    #[inline]
    fn new(record: &Record, n_buffers: u16, len: usize) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = *record.bytes();
        let last = u32::from(u16::from_le_bytes([i, j])) | u32::from(n_buffers) << 16;
        Self { words: (u64::from_le_bytes([a, b, c, d, e, f, g, h]), last), len }
    }

    fn bytes(&self) -> [u8; MAX_HEADER_LEN] {
        let mut bytes = [0; MAX_HEADER_LEN];
        let (first, last) = bytes.split_at_mut(8);
        first.copy_from_slice(&self.words.0.to_le_bytes());
        last.copy_from_slice(&self.words.1.to_le_bytes());
        bytes
    }
}

/// A frame that was read.
enum Read {
    Frame(Frame, usize, flowtable::packet::Offload),
    /// It is no frame of any port.
    None,
    /// There is no buffer for it.
    NoRoom,
}

/// One of the chains from `before` on up to `now` is the one after which somebody wants to be
/// told (virtio 1.2 §2.7.7).
fn is_passed(event: u16, before: u16, now: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

const _: () = assert!(START + MIN_FRAME_LEN < FRAME_LEN);
