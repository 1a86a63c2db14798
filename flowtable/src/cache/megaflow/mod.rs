//! Megaflows: translations by masked key, with what they have carried.
//!
//! Each entry belongs to the port its packets come in by, for the input port is part of
//! every mask. A port's entries queue up in the order they were made; the one to go
//! when room is needed is the first in the queue that was not used since it joined
//! (least recently used, as seen from a queue that hits need not touch).
//!
//! Here: the table. `entry.rs` one entry · `room.rs` who goes · `report.rs` what they have carried.

mod entry;
mod report;
mod room;

use std::{ops::Range, sync::Arc};

pub use entry::MegaflowDump;
pub(in crate::cache) use entry::SlotKey;
pub(crate) use entry::{Handle, Megaflow, Remembered, State};

use self::entry::{N_INLINE, plain};
use super::{
    Secrets,
    by_signature::BySignature,
    bytes_of,
    index::Index,
    shape::{PortShapes, ReceivedBits, Shape, port_idx},
    signed::Signed,
};
use crate::{
    key::{FlowKey, FlowMask, N_WORDS},
    parse::Signature,
    pipeline::Translation,
    types::{Epoch, PortNo, Timestamp},
};

/// Entries that there is room for from the start, so that tables of usual sizes stay where
/// they are; memory is only used once it is touched.
const MAX_RESERVED: usize = 1 << 18;
/// In place of a shape: the entry is found by its rule.
const NO_SHAPE: u8 = u8::MAX;
/// No slot.
const NIL: u32 = u32::MAX;

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
    /// The words of the mask that is being fitted.
    mask: Vec<(u8, u64)>,
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
            mask: Vec::new(),
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
        let Translation { program, rules, tally, rests_on, .. } = new.translation;
        let entry = Megaflow::new(Arc::new(program), (new.epoch, new.now), (rules, tally, rests_on));
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
        let shapes = &self.ports.get(port_idx(port))?.shapes;
        let found = self.find_among(shapes.probes(), port, key);
        self.ports.get_mut(port_idx(port))?.shapes.count(found.map(|(id, _)| id));
        found.map(|(_, handle)| handle)
    }

    /// The same for a packet that was not found: among what has come since [`Megaflows::settle`].
    pub(crate) fn find_fresh(&mut self, port: PortNo, key: &FlowKey) -> Option<Handle> {
        let shapes = &self.ports.get(port_idx(port))?.shapes;
        self.find_among(shapes.fresh(), port, key).map(|(_, handle)| handle)
    }

    /// From now on, what is fresh of a port is what comes.
    #[inline]
    pub(crate) fn settle(&mut self, port: PortNo) {
        if let Some(entries) = self.ports.get_mut(port_idx(port)) {
            entries.shapes.settle();
        }
    }

    #[inline]
    fn find_among<'a>(
        &self,
        mut shapes: impl Iterator<Item = (u8, &'a Shape)>,
        port: PortNo,
        key: &FlowKey,
    ) -> Option<(u8, Handle)> {
        let (id, slot) = shapes.find_map(|(id, shape)| {
            let slot = self.index.find(shape.hash(key, &self.secrets) as u32, |slot| {
                let place = self.keys.get(slot as usize);
                place.is_some_and(|place| is_for(place, &self.entries, slot, port, (id, shape), key))
            })?;
            Some((id, slot))
        })?;
        Some((id, Handle { slot, generation: self.keys.get(slot as usize)?.generation }))
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
        let received = self.received.of(new.from_tunnel, new.key.recirc_id.get() != 0);
        self.mask.clear();
        self.mask.extend(received.part_of(&new.translation.mask));
        let shapes = &mut self.ports[port_idx(port)].shapes;
        let id = shapes.take(&self.mask, received, &mut self.next_salt);
        let Translation { program, rules, tally, rests_on, .. } = new.translation;
        let (words, hash, is_signed, program) = match shapes.get_mut(id) {
            Some(shape) => (
                shape.words_of(new.key).collect(),
                shape.hash(new.key, &self.secrets) as u32,
                shape.is_signed,
                shape.share(program),
            ),
            None => (Vec::new(), 0, false, Arc::new(program)),
        };
        let entry = Megaflow {
            is_signed,
            more_words: words.get(N_INLINE..).unwrap_or_default().into(),
            hash,
            ..Megaflow::new(program, (new.epoch, new.now), (rules, tally, rests_on))
        };
        self.place(port, id, &words, entry)
    }

    /// Brings an entry up to date with a new translation of one of its packets. When
    /// the new one is for other packets than the old one, it gets an entry of its own
    /// and the old entry goes.
    pub(crate) fn renew(&mut self, handle: Handle, port: PortNo, new: Remembered<'_>) -> Handle {
        self.n_renewed += 1;
        let id = self.keys.get(handle.slot as usize).map(|place| place.shape);
        let fits = self.fit(port, &new);
        let entry = self.entries.get_mut(handle.slot as usize).and_then(Option::as_mut);
        let shapes = self.ports.get_mut(port_idx(port)).map(|entries| &mut entries.shapes);
        let shape = id.and_then(|id| shapes.and_then(|shapes| shapes.get_mut(id)));
        if let (Some(entry), Some(shape)) = (entry, shape)
            && fits == id
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

    /// The shape to keep a translation under, if it is there.
    fn fit(&mut self, port: PortNo, new: &Remembered<'_>) -> Option<u8> {
        let received = self.received.of(new.from_tunnel, new.key.recirc_id.get() != 0);
        self.mask.clear();
        self.mask.extend(received.part_of(&new.translation.mask));
        self.ports.get(port_idx(port))?.shapes.fit(&self.mask, received)
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
