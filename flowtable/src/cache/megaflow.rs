//! Megaflows: translations by masked key, with what they have carried.
//!
//! Each entry belongs to the port its packets come in by, for the input port is part of
//! every mask. A port's entries queue up in the order they were made; the one to go
//! when room is needed is the first in the queue that was not used since it joined
//! (least recently used, as seen from a queue that hits need not touch).

use std::{ops::Range, sync::Arc, time::Duration};

use super::{
    Secrets,
    by_signature::BySignature,
    bytes_of,
    index::Index,
    shape::{PortShapes, ReceivedBits, Shape, port_idx},
    signed::{self, Signed},
};
use crate::{
    fdb::Dependencies,
    flow::Rule,
    key::{FlowKey, FlowMask, N_WORDS},
    parse::Signature,
    pipeline::{Tally, Translation},
    program::Program,
    types::{Epoch, PortNo, Timestamp},
};

/// An entry that carried nothing for this long is forgotten, and with it perhaps the
/// last of its shape.
pub(crate) const MAX_IDLE: Duration = Duration::from_secs(10);
/// Entries that are looked at for idleness at a time: a full table takes a second or so.
const SWEEP_LEN: usize = 64;
/// Time between two looks.
const SWEEP_INTERVAL: Duration = Duration::from_millis(1);
/// Entries in use that are put back before one is evicted all the same.
const SECOND_CHANCES: usize = 8;
/// Entries that there is room for from the start, so that tables of usual sizes stay where
/// they are; memory is only used once it is touched.
const MAX_RESERVED: usize = 1 << 18;
/// In place of a shape: the entry is found by its rule.
const NO_SHAPE: u8 = u8::MAX;
/// Entries that are told of or asked about at a time, while packets wait.
const SLICE: usize = 128;
/// No slot.
const NIL: u32 = u32::MAX;

/// Words of a key that are kept beside an entry's slot number: enough for the masks of
/// usual rule sets, and one cache line.
const N_INLINE: usize = 7;

/// Where an entry is; of no use once the entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Handle {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Handle {
    /// A number that no other entry has at the time.
    pub(crate) fn slot(self) -> u32 {
        self.slot
    }
}

/// A translation and what it has carried. What a hit needs is in the first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Megaflow {
    /// Shared with other entries that do the same.
    pub(crate) program: Arc<Program>,
    pub(crate) epoch: Epoch,
    pub(super) last_used: Timestamp,
    n_packets: u64,
    n_bytes: u64,
    /// As in its [`SlotKey`].
    pub(super) generation: u32,
    /// Row of the drop table that its drops were last counted in.
    pub(crate) drop_row: u32,
    /// Versions after its own that it is known to hold in as well.
    n_later: u16,
    /// Signatures say all that the entry's mask looks at.
    pub(crate) is_signed: bool,
    /// See [`Program::is_alone`].
    pub(crate) is_alone: bool,
    /// Where its packets leave as they came, if that is all; else [`PortNo::UNSET`].
    pub(crate) plain: PortNo,
    /// What must not have changed, besides the epoch.
    pub(super) rests_on: Dependencies,
    /// Packets and bytes that the rules know of.
    pushed: (u64, u64),
    pub(super) rules: Vec<Arc<Rule>>,
    pub(super) tally: Tally,
    /// Masked words of the key beyond those in its [`SlotKey`].
    pub(super) more_words: Box<[u64]>,
    hash: u32,
    queue: Links,
}

/// What a lookup compares: one cache line per slot, apart from the rest of the entry.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SlotKey {
    pub(super) words: [u64; N_INLINE],
    /// Which entry has the slot; counts up with each that leaves.
    generation: u32,
    pub(super) port: u16,
    pub(super) shape: u8,
    pub(super) n_words: u8,
}

const _: () = assert!(size_of::<SlotKey>() == 64);
const _: () = assert!(std::mem::offset_of!(Megaflow, rests_on) < 64);

/// What has become of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds.
    Current,
    /// It holds, but its program needs the packet's key.
    NeedsKey,
    /// It is of another epoch, or rests on something that has changed.
    Stale,
}

/// An entry's place in its port's queue.
#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
    /// When it joined at the end.
    joined: Timestamp,
}

impl Megaflow {
    /// Counts packets that the entry carried.
    pub(crate) fn count(&mut self, now: Timestamp, n_packets: u64, n_bytes: u64) {
        self.last_used = now;
        self.n_packets += n_packets;
        self.n_bytes += n_bytes;
    }

    /// What has become of it since an epoch.
    #[inline]
    pub(super) fn state(&self, epoch: Epoch) -> State {
        if !self.is_of(epoch) || !self.rests_on.hold() {
            State::Stale
        } else if self.is_alone {
            State::NeedsKey
        } else {
            State::Current
        }
    }

    /// It was made for this version, or holds in it all the same.
    #[inline]
    pub(super) fn is_of(&self, epoch: Epoch) -> bool {
        epoch.get().wrapping_sub(self.epoch.get()) <= u64::from(self.n_later)
    }

    /// It holds in a later version as well, and in those between, which nobody uses any more.
    pub(super) fn holds_until(&mut self, epoch: Epoch) {
        // Of one that is too far away it is not.
        let n_later = u16::try_from(epoch.get().wrapping_sub(self.epoch.get()));
        self.n_later = n_later.unwrap_or(self.n_later);
    }

    /// Tells the rules what they do not know yet.
    fn push_stats(&mut self) {
        let (n_packets, n_bytes) = (self.n_packets - self.pushed.0, self.n_bytes - self.pushed.1);
        if n_packets > 0 {
            self.tally.credit(&self.rules, n_packets, n_bytes, self.last_used);
            self.pushed = (self.n_packets, self.n_bytes);
        }
    }
}

/// A translation for packets like the one with this key.
pub(crate) struct Remembered<'a> {
    pub(crate) key: &'a FlowKey,
    pub(crate) from_tunnel: bool,
    pub(crate) translation: Translation,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
}

/// One entry, for commands.
#[derive(Debug, Clone)]
pub struct MegaflowDump {
    /// The masked bits of its packets.
    pub key: FlowKey,
    /// Which bits are compared.
    pub mask: FlowMask,
    /// What is done with its packets.
    pub program: Program,
    /// The rules that made it, in the order of the walk.
    pub rules: Vec<Arc<Rule>>,
    /// Packets carried.
    pub n_packets: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Version of the rules it was made from.
    pub epoch: Epoch,
    /// When it last carried a packet.
    pub last_used: Timestamp,
    /// A station that it forwards to or learned has moved or gone since: it is translated
    /// again before it is used.
    pub is_stale: bool,
}

/// What a port has in the table.
#[derive(Debug)]
pub(super) struct PortEntries {
    pub(super) shapes: PortShapes,
    first: u32,
    last: u32,
    n_entries: usize,
}

impl Default for PortEntries {
    fn default() -> Self {
        Self { shapes: PortShapes::default(), first: NIL, last: NIL, n_entries: 0 }
    }
}

/// The megaflows of a worker.
#[derive(Debug)]
pub(crate) struct Megaflows {
    pub(super) received: ReceivedBits,
    secrets: Secrets<N_WORDS>,
    next_salt: u64,
    capacity: usize,
    index: Index,
    /// By slot, like `entries`.
    pub(super) keys: Vec<SlotKey>,
    pub(super) entries: Vec<Option<Megaflow>>,
    free: Vec<u32>,
    /// By port number.
    pub(super) ports: Vec<PortEntries>,
    n_ports_in_use: usize,
    n_entries: usize,
    n_evicted: u64,
    /// Entries that a port may have.
    max_of_port: usize,
    n_renewed: u64,
    swept: Timestamp,
    sweep_at: usize,
    /// The ways to entries of packets from ports and from tunnels that have signatures.
    pub(super) by_signature: Option<Box<BySignature>>,
}

impl Megaflows {
    /// A table for `capacity` entries; 0: none. Packets are found by their signatures as well,
    /// with so many sessions, unless that is 0.
    pub(crate) fn new(capacity: usize, n_sessions: usize, seed: u64) -> Self {
        let capacity = capacity.min(1 << 30);
        let reserved = capacity.min(MAX_RESERVED);
        let by_signature = (capacity > 0 && n_sessions > 0).then(|| {
            let ports = Signed::new((capacity, reserved), n_sessions, seed);
            let tunnels = Signed::new((capacity, reserved), n_sessions, seed);
            Box::new(BySignature { direct: Vec::new(), ports, tunnels })
        });
        Self {
            by_signature,
            received: ReceivedBits::new(),
            secrets: Secrets::new(seed),
            next_salt: seed,
            capacity,
            index: Index::new(capacity),
            keys: Vec::with_capacity(capacity.min(MAX_RESERVED)),
            entries: Vec::with_capacity(capacity.min(MAX_RESERVED)),
            free: Vec::new(),
            ports: Vec::new(),
            n_ports_in_use: 0,
            n_entries: 0,
            n_evicted: 0,
            max_of_port: usize::MAX,
            n_renewed: 0,
            swept: Timestamp::default(),
            sweep_at: 0,
        }
    }

    /// The memory of the table's large parts.
    pub(crate) fn memory(&self) -> Vec<Range<*const u8>> {
        let by_signature = self.by_signature.iter();
        let by_signature =
            by_signature.flat_map(|by| by.ports.memory().into_iter().chain(by.tunnels.memory()));
        let own = [bytes_of(&self.keys), bytes_of(&self.entries), self.index.memory()];
        own.into_iter().chain(by_signature).collect()
    }

    /// Keeps such a translation.
    pub(crate) fn install_direct(
        &mut self,
        port: PortNo,
        signature: &Signature,
        new: Remembered<'_>,
    ) -> Handle {
        if self.n_entries >= self.capacity {
            self.make_room(port, new.now);
        }
        let program = Arc::new(new.translation.program);
        let entry = Megaflow {
            is_alone: program.is_alone(),
            plain: plain(&program),
            program,
            epoch: new.epoch,
            last_used: new.now,
            n_packets: 0,
            n_bytes: 0,
            generation: 0,
            drop_row: 0,
            n_later: 0,
            is_signed: false,
            pushed: (0, 0),
            rules: new.translation.rules,
            tally: new.translation.tally,
            rests_on: new.translation.rests_on,
            more_words: Box::default(),
            hash: 0,
            queue: Links { before: NIL, after: NIL, joined: new.now },
        };
        let handle = self.place(port, NO_SHAPE, &[], entry);
        if let Some(direct) = self.by_signature.as_mut().and_then(|by| by.direct.get_mut(port_idx(port))) {
            direct.enter(signature, handle);
        }
        handle
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.capacity == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.n_entries
    }

    /// Entries that had to go to make room.
    pub(crate) fn n_evicted(&self) -> u64 {
        self.n_evicted
    }

    /// Counts entries that do something else than before.
    pub(crate) fn n_renewed(&self) -> u64 {
        self.n_renewed
    }

    /// The hash of a packet's key in the shape that its port's packets mostly have.
    #[inline]
    pub(crate) fn first_hash(&self, port: PortNo, key: &FlowKey) -> Option<u32> {
        let (_, shape) = self.ports.get(port_idx(port))?.shapes.probes().next()?;
        Some(shape.hash(key, &self.secrets) as u32)
    }

    /// The slot that such a hash most often leads to.
    #[inline]
    pub(crate) fn first_slot(&self, hash: u32) -> Option<u32> {
        self.index.first(hash)
    }

    /// The entry in this slot, if it is for the packet.
    #[inline]
    pub(crate) fn confirm(&mut self, slot: u32, port: PortNo, key: &FlowKey) -> Option<Handle> {
        let place = self.keys.get(slot as usize)?;
        let shapes = &mut self.ports.get_mut(port_idx(port))?.shapes;
        let (id, shape) = shapes.probes().next()?;
        if !is_for(place, &self.entries, slot, port, (id, shape), key) {
            return None;
        }
        shapes.count(Some(id));
        Some(Handle { slot, generation: place.generation })
    }

    /// The entry for a packet.
    #[inline]
    pub(crate) fn find(&mut self, port: PortNo, key: &FlowKey) -> Option<Handle> {
        let (index, keys, entries) = (&self.index, &self.keys, &self.entries);
        let shapes = &mut self.ports.get_mut(port_idx(port))?.shapes;
        let found = shapes.probes().find_map(|(id, shape)| {
            let slot = index.find(shape.hash(key, &self.secrets) as u32, |slot| {
                let place = keys.get(slot as usize);
                place.is_some_and(|place| is_for(place, entries, slot, port, (id, shape), key))
            })?;
            Some((id, slot))
        });
        shapes.count(found.map(|(id, _)| id));
        let (_, slot) = found?;
        let generation = keys.get(slot as usize)?.generation;
        Some(Handle { slot, generation })
    }

    /// The entry, unless it is gone.
    #[inline]
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut Megaflow> {
        let entry = self.entries.get_mut(handle.slot as usize)?.as_mut();
        entry.filter(|entry| entry.generation == handle.generation)
    }

    /// The entry, unless it is gone.
    #[inline]
    pub(crate) fn get(&self, handle: Handle) -> Option<&Megaflow> {
        let entry = self.entries.get(handle.slot as usize)?.as_ref();
        entry.filter(|entry| entry.generation == handle.generation)
    }

    /// Which bits an entry compares.
    pub(crate) fn mask_of(&self, handle: Handle) -> Option<FlowMask> {
        self.get(handle)?;
        let place = self.keys.get(handle.slot as usize)?;
        Some(self.ports.get(usize::from(place.port))?.shapes.get(place.shape)?.mask())
    }

    /// The entry is there, of this epoch, and rests on nothing that has changed.
    #[inline]
    pub(crate) fn is_current(&self, handle: Handle, epoch: Epoch) -> bool {
        let entry = self.entries.get(handle.slot as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.generation == handle.generation && entry.state(epoch) != State::Stale)
    }

    /// The entry if it is there and rests on nothing that has changed, of whatever epoch it is.
    #[inline]
    pub(crate) fn get_holding(&mut self, handle: Handle) -> Option<&mut Megaflow> {
        self.get_mut(handle).filter(|entry| entry.rests_on.hold())
    }

    /// The entry is there, of whatever epoch.
    #[inline]
    pub(crate) fn is_present(&self, handle: Handle) -> bool {
        let entry = self.entries.get(handle.slot as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.generation == handle.generation)
    }

    /// Keeps a translation. The table must not be disabled.
    pub(crate) fn install(&mut self, port: PortNo, new: Remembered<'_>) -> Handle {
        if self.ports.len() <= port_idx(port) {
            self.ports.resize_with(port_idx(port) + 1, PortEntries::default);
        }
        if self.n_entries >= self.capacity || self.is_at_limit(port) {
            self.make_room(port, new.now);
        }
        let mask = self.fit(port, &new);
        let shapes = &mut self.ports[port_idx(port)].shapes;
        let id = shapes.take(&mask, &mut self.next_salt);
        let (words, hash, program) = match shapes.get_mut(id) {
            Some(shape) => (
                shape.words_of(new.key).collect(),
                shape.hash(new.key, &self.secrets) as u32,
                shape.share(new.translation.program),
            ),
            None => (Vec::new(), 0, Arc::new(new.translation.program)),
        };
        let entry = Megaflow {
            is_alone: program.is_alone(),
            plain: plain(&program),
            program,
            epoch: new.epoch,
            last_used: new.now,
            n_packets: 0,
            n_bytes: 0,
            generation: 0,
            drop_row: 0,
            is_signed: signed::covers(&mask),
            n_later: 0,
            pushed: (0, 0),
            rules: new.translation.rules,
            tally: new.translation.tally,
            rests_on: new.translation.rests_on,
            more_words: words.get(N_INLINE..).unwrap_or_default().into(),
            hash,
            queue: Links { before: NIL, after: NIL, joined: new.now },
        };
        self.place(port, id, &words, entry)
    }

    /// Brings an entry up to date with a new translation of one of its packets. When
    /// the new one is for other packets than the old one, it gets an entry of its own
    /// and the old entry goes.
    pub(crate) fn renew(&mut self, handle: Handle, port: PortNo, new: Remembered<'_>) -> Handle {
        self.n_renewed += 1;
        let mask = self.fit(port, &new);
        let id = self.keys.get(handle.slot as usize).map(|place| place.shape);
        let entry = self.entries.get_mut(handle.slot as usize).and_then(Option::as_mut);
        let shapes = self.ports.get_mut(port_idx(port)).map(|entries| &mut entries.shapes);
        let shape = id.and_then(|id| shapes.and_then(|shapes| shapes.get_mut(id)));
        if let (Some(entry), Some(shape)) = (entry, shape)
            && shape.mask() == mask
        {
            entry.push_stats();
            entry.program = shape.share(new.translation.program);
            entry.is_alone = entry.program.is_alone();
            entry.plain = plain(&entry.program);
            entry.rules = new.translation.rules;
            entry.tally = new.translation.tally;
            entry.rests_on = new.translation.rests_on;
            (entry.epoch, entry.n_later) = (new.epoch, 0);
            return handle;
        }
        self.remove(handle.slot);
        // Another entry, whose shape comes later, may be for this packet and up to date.
        match self.find(port, new.key) {
            Some(other) if self.is_current(other, new.epoch) => other,
            _ => self.install(port, new),
        }
    }

    /// Forgets some of the idle entries, when it is time to look for them, and tells the
    /// rules of the others what they do not know yet.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        if self.entries.is_empty() || now.since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        for _ in 0..SWEEP_LEN.min(self.entries.len()) {
            self.sweep_at = (self.sweep_at + 1) % self.entries.len();
            let Some(entry) = &mut self.entries[self.sweep_at] else { continue };
            entry.push_stats();
            if now.since(entry.last_used) >= MAX_IDLE {
                self.remove(self.sweep_at as u32);
            }
        }
    }

    /// Brings the counters of some rules up to date: those of the entries from a slot on. Answers
    /// where to go on.
    pub(crate) fn push_stats_from(&mut self, from: usize) -> Option<usize> {
        let slots = self.entries.iter_mut().skip(from).take(SLICE);
        slots.flatten().for_each(Megaflow::push_stats);
        (from + SLICE < self.entries.len()).then_some(from + SLICE)
    }

    /// The entries from a slot on, as many as are told at a time, and where to go on.
    pub(crate) fn dump_from(&self, from: usize) -> (Vec<MegaflowDump>, Option<usize>) {
        let slots = self.keys.iter().zip(&self.entries).skip(from).take(SLICE);
        let dumped = slots.filter_map(|(place, entry)| self.dump_one(place, entry.as_ref()?)).collect();
        (dumped, (from + SLICE < self.entries.len()).then_some(from + SLICE))
    }

    /// Limits the entries of each port; 0: to none but the table's size.
    pub(crate) fn limit_ports(&mut self, max: usize) {
        self.max_of_port = if max == 0 { usize::MAX } else { max };
    }

    fn is_at_limit(&self, port: PortNo) -> bool {
        self.ports.get(port_idx(port)).is_some_and(|entries| entries.n_entries >= self.max_of_port)
    }

    fn dump_one(&self, place: &SlotKey, entry: &Megaflow) -> Option<MegaflowDump> {
        let shape = self.ports.get(usize::from(place.port))?.shapes.get(place.shape)?;
        let inline = place.words.iter().take(usize::from(place.n_words));
        Some(MegaflowDump {
            key: shape.expand(inline.chain(&entry.more_words)),
            mask: shape.mask(),
            program: (*entry.program).clone(),
            rules: entry.rules.clone(),
            n_packets: entry.n_packets,
            n_bytes: entry.n_bytes,
            epoch: entry.epoch,
            last_used: entry.last_used,
            is_stale: !entry.rests_on.hold(),
        })
    }

    /// The mask to keep a translation under.
    fn fit(&self, port: PortNo, new: &Remembered<'_>) -> FlowMask {
        let received = self.received.of(new.from_tunnel, new.key.recirc_id.get() != 0);
        let mask = ReceivedBits::clean(&new.translation.mask, received);
        let shapes = self.ports.get(port_idx(port)).map(|entries| &entries.shapes);
        shapes.map_or(mask, |shapes| shapes.fit(&mask, received))
    }

    fn place(&mut self, port: PortNo, shape: u8, words: &[u64], mut entry: Megaflow) -> Handle {
        let hash = entry.hash;
        let slot = self.free.pop().unwrap_or_else(|| {
            let generation = 1;
            self.keys.push(SlotKey { words: [0; N_INLINE], generation, port: 0, shape: 0, n_words: 0 });
            self.entries.push(None);
            (self.keys.len() - 1) as u32
        });
        let place = &mut self.keys[slot as usize];
        (place.port, place.shape, place.n_words) = (port.get() as u16, shape, words.len() as u8);
        for (inline, word) in place.words.iter_mut().zip(words) {
            *inline = *word;
        }
        let handle = Handle { slot, generation: place.generation };
        entry.generation = place.generation;
        self.entries[slot as usize] = Some(entry);
        if shape != NO_SHAPE {
            self.index.insert(hash, slot);
        }
        self.n_entries += 1;
        let entries = &mut self.ports[port_idx(port)];
        self.n_ports_in_use += usize::from(entries.n_entries == 0);
        entries.n_entries += 1;
        self.enqueue(slot);
        handle
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if self.entries.get(slot as usize).is_none_or(Option::is_none) {
            return;
        }
        self.dequeue(slot);
        let Some(mut entry) = self.entries[slot as usize].take() else { return };
        entry.push_stats();
        let place = &mut self.keys[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        let (port, shape) = (usize::from(place.port), place.shape);
        if let Some(by) = self.by_signature.as_mut().filter(|_| entry.is_signed)
            && let Ok(port) = PortNo::new(place.port.into())
        {
            by.ports.forget(port, slot);
            by.tunnels.forget(port, slot);
        }
        if shape != NO_SHAPE {
            self.index.remove(entry.hash, slot);
        } else if let Some(direct) = self.by_signature.as_mut().and_then(|by| by.direct.get_mut(port)) {
            direct.forget(Handle { slot, generation: entry.generation });
        }
        self.free.push(slot);
        self.n_entries -= 1;
        let entries = &mut self.ports[port];
        entries.shapes.release(shape);
        entries.n_entries -= 1;
        self.n_ports_in_use -= usize::from(entries.n_entries == 0);
    }

    /// Evicts an entry: one of `port`'s own if it has its share or more, else one of
    /// the port that has most.
    fn make_room(&mut self, port: PortNo, now: Timestamp) {
        let own = self.ports[port_idx(port)].n_entries;
        let n_ports = self.n_ports_in_use + usize::from(own == 0);
        let victim = if own > 0 && (own >= self.capacity / n_ports.max(1) || self.is_at_limit(port)) {
            port_idx(port)
        } else {
            let most = self.ports.iter().enumerate().max_by_key(|(_, entries)| entries.n_entries);
            most.map_or(0, |(idx, _)| idx)
        };
        for _ in 0..SECOND_CHANCES {
            let first = self.ports[victim].first;
            let Some(Some(entry)) = self.entries.get(first as usize) else { break };
            if entry.last_used <= entry.queue.joined {
                break;
            }
            self.dequeue(first);
            if let Some(links) = self.links(first) {
                links.joined = now;
            }
            self.enqueue(first);
        }
        self.remove(self.ports[victim].first);
        self.n_evicted += 1;
    }

    fn links(&mut self, slot: u32) -> Option<&mut Links> {
        self.entries.get_mut(slot as usize)?.as_mut().map(|entry| &mut entry.queue)
    }

    /// Puts an entry at the end of its port's queue.
    fn enqueue(&mut self, slot: u32) {
        let Some(port) = self.port_of(slot) else { return };
        let last = std::mem::replace(&mut self.ports[port].last, slot);
        if let Some(links) = self.links(slot) {
            (links.before, links.after) = (last, NIL);
        }
        match self.links(last) {
            Some(links) => links.after = slot,
            None => self.ports[port].first = slot,
        }
    }

    /// Takes an entry out of its port's queue.
    fn dequeue(&mut self, slot: u32) {
        let Some(port) = self.port_of(slot) else { return };
        let Some(Links { before, after, .. }) = self.links(slot).copied() else { return };
        match self.links(before) {
            Some(links) => links.after = after,
            None => self.ports[port].first = after,
        }
        match self.links(after) {
            Some(links) => links.before = before,
            None => self.ports[port].last = before,
        }
    }

    fn port_of(&self, slot: u32) -> Option<usize> {
        self.keys.get(slot as usize).map(|place| usize::from(place.port))
    }
}

/// See [`Megaflow::plain`].
fn plain(program: &Program) -> PortNo {
    match &program.emits[..] {
        [emit] if emit.is_plain() && program.meters.is_empty() && !program.has_side_effects() => emit.port,
        _ => PortNo::UNSET,
    }
}

/// The slot's entry is for packets with this key and shape.
#[inline]
fn is_for(
    place: &SlotKey,
    entries: &[Option<Megaflow>],
    slot: u32,
    port: PortNo,
    (id, shape): (u8, &Shape),
    key: &FlowKey,
) -> bool {
    if place.shape != id || u32::from(place.port) != port.get() {
        return false;
    }
    let inline = shape.words_of(key).zip(&place.words).fold(0, |sum, (a, b)| sum | (a ^ b));
    if inline != 0 || usize::from(place.n_words) <= N_INLINE {
        return inline == 0 && place.n_words > 0;
    }
    let entry = entries.get(slot as usize).and_then(Option::as_ref);
    entry.is_some_and(|entry| shape.words_of(key).skip(N_INLINE).eq(entry.more_words.iter().copied()))
}
