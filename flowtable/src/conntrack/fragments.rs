//! Fragments that wait for the rest of their packet.
//!
//! A packet is tracked as a whole, so its fragments are kept, as copies on the heap, until
//! all are there; then they go on, one by one and of the size that they came in. What
//! waits is bounded in memory and time, and each port has a share of its own: one that
//! sends nothing but first halves pushes out its own.
//!
//! Fragments that overlap make their packet worthless (RFC 5722, here for IPv4 too); it
//! is remembered for as long as it could have waited, so that what still comes of it
//! is dropped as well. An exact copy of a fragment is dropped by itself.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use super::{
    Conntrack,
    piece::{PacketId, Piece},
};
use crate::{
    drop::DropReason,
    key::FlowKey,
    packet::{Layout, Packet},
    types::{BridgeId, PortNo, Timestamp},
};

/// Fragments of a packet: the largest packet over links of 552 bytes has 124.
const MAX_PIECES: usize = 128;
/// Bytes that a packet costs beside its fragments.
const PACKET_COST: usize = 256;
/// Bytes that a fragment costs beside its frame.
const PIECE_COST: usize = size_of::<Held>() + size_of::<FlowKey>();
/// Bytes of all zones.
const MAX_MEMORY: usize = 64 << 20;
/// What part of a zone's memory a port may use.
const PORT_SHARE: usize = 4;

/// What may wait for the rest of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Bytes of a zone, of which a port may have a quarter.
    pub memory: usize,
    /// From a packet's first fragment on.
    pub timeout: Duration,
    /// Bytes of payload of a fragment that is not the last: smaller ones are no link's
    /// doing.
    pub min_len: u32,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self { memory: 4 << 20, timeout: Duration::from_secs(30), min_len: 256 }
    }
}

/// A fragment that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) frame: Box<[u8]>,
    pub(crate) layout: Layout,
    pub(crate) key: Box<FlowKey>,
    pub(crate) piece: Piece,
    /// Port whose rules apply.
    pub(crate) port: PortNo,
    /// Port it came in by, and its bytes then.
    pub(crate) received: (PortNo, u64),
}

impl Held {
    fn cost(&self) -> usize {
        self.frame.len() + PIECE_COST
    }

    fn end(&self) -> u32 {
        self.piece.offset + self.piece.len()
    }

    /// The fragment as a packet, to look at.
    pub(crate) fn packet(&self) -> Packet<Vec<u8>> {
        let mut packet = Packet::new(self.frame.to_vec(), 0, self.frame.len(), self.port);
        packet.layout = self.layout;
        packet
    }
}

/// What became of a fragment.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It waits.
    Kept,
    /// It was the last one missing: all of the packet, in order.
    Whole(Vec<Held>),
    /// It is dropped.
    Refused(DropReason, Box<Held>),
}

/// A packet of which fragments wait.
#[derive(Debug)]
struct Gathering {
    /// By offset; without overlaps.
    pieces: Vec<Held>,
    n_bytes: u32,
    total: Option<u32>,
    /// Why all of it is dropped.
    spoilt: Option<DropReason>,
    memory: usize,
    port: PortNo,
    due: (Timestamp, u64),
}

/// What the packets of a port take in a zone.
#[derive(Debug, Default)]
struct Share {
    memory: usize,
    /// Oldest first.
    packets: BTreeMap<u64, PacketId>,
}

/// All fragments that wait.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    packets: HashMap<PacketId, Gathering>,
    due: BTreeMap<(Timestamp, u64), PacketId>,
    shares: HashMap<(u16, PortNo), Share>,
    zones: HashMap<u16, usize>,
    memory: usize,
    limits: HashMap<u16, FragmentLimits>,
    default_limits: FragmentLimits,
    n_packets: u64,
    /// What was dropped and nobody has been told of yet.
    lost: Vec<(DropReason, Held)>,
}

impl Fragments {
    fn limits(&self, zone: u16) -> FragmentLimits {
        self.limits.get(&zone).copied().unwrap_or(self.default_limits)
    }

    fn offer(&mut self, now: Timestamp, held: Held) -> Offered {
        let of = held.piece.of;
        let limits = self.limits(of.zone);
        if held.piece.more && held.piece.len() < limits.min_len {
            return Offered::Refused(DropReason::FragmentInvalid, Box::new(held));
        }
        if let Some(reason) = self.packets.get(&of).and_then(|packet| packet.refuses(&held)) {
            if !matches!(reason, DropReason::FragmentDuplicate) {
                self.spoil(&of, reason);
            }
            return Offered::Refused(reason, Box::new(held));
        }
        if !self.make_room(&limits, &held) {
            return Offered::Refused(DropReason::FragmentLimit, Box::new(held));
        }
        self.add(now, &limits, held);
        match self.packets.get(&of).is_some_and(Gathering::is_whole) {
            true => Offered::Whole(self.remove(&of).map_or_else(Vec::new, |packet| packet.pieces)),
            false => Offered::Kept,
        }
    }

    /// Drops the oldest packets of the port until there is room for another fragment.
    fn make_room(&mut self, limits: &FragmentLimits, held: &Held) -> bool {
        let (zone, cost) = (held.piece.of.zone, held.cost() + PACKET_COST);
        loop {
            let share = self.shares.get(&(zone, held.port)).map_or(0, |share| share.memory);
            let used = self.zones.get(&zone).copied().unwrap_or(0);
            let fits = share + cost <= limits.memory / PORT_SHARE
                && used + cost <= limits.memory
                && self.memory + cost <= MAX_MEMORY;
            if fits {
                return true;
            }
            let share = self.shares.get(&(zone, held.port));
            let oldest = share.and_then(|share| share.packets.values().find(|id| **id != held.piece.of));
            let Some(oldest) = oldest.copied() else { return false };
            self.lose(&oldest, DropReason::FragmentLimit);
        }
    }

    fn add(&mut self, now: Timestamp, limits: &FragmentLimits, held: Held) {
        let (of, port, cost) = (held.piece.of, held.port, held.cost());
        let due = &mut self.due;
        let (shares, n_packets) = (&mut self.shares, &mut self.n_packets);
        let mut cost_in_all = cost;
        let packet = self.packets.entry(of).or_insert_with(|| {
            *n_packets += 1;
            let timeout = limits.timeout.as_nanos().min(u64::MAX.into()) as u64;
            let moment = (Timestamp::from_nanos(now.nanos().saturating_add(timeout)), *n_packets);
            due.insert(moment, of);
            shares.entry((of.zone, port)).or_default().packets.insert(moment.1, of);
            cost_in_all += PACKET_COST;
            Gathering {
                pieces: Vec::new(),
                n_bytes: 0,
                total: None,
                spoilt: None,
                memory: 0,
                port,
                due: moment,
            }
        });
        packet.n_bytes += held.piece.len();
        if !held.piece.more {
            packet.total = Some(held.end());
        }
        packet.memory += cost_in_all;
        let (owner, at) =
            (packet.port, packet.pieces.partition_point(|other| other.end() <= held.piece.offset));
        packet.pieces.insert(at, held);
        self.charge(of.zone, owner, cost_in_all as isize);
    }

    /// Memory comes or goes.
    fn charge(&mut self, zone: u16, port: PortNo, change: isize) {
        self.memory = self.memory.saturating_add_signed(change);
        let used = self.zones.entry(zone).or_default();
        *used = used.saturating_add_signed(change);
        if *used == 0 {
            self.zones.remove(&zone);
        }
        if let Some(share) = self.shares.get_mut(&(zone, port)) {
            share.memory = share.memory.saturating_add_signed(change);
            if share.packets.is_empty() {
                self.shares.remove(&(zone, port));
            }
        }
    }

    fn remove(&mut self, id: &PacketId) -> Option<Gathering> {
        let packet = self.packets.remove(id)?;
        self.due.remove(&packet.due);
        if let Some(share) = self.shares.get_mut(&(id.zone, packet.port)) {
            share.packets.remove(&packet.due.1);
        }
        self.charge(id.zone, packet.port, -(packet.memory as isize));
        Some(packet)
    }

    /// Gives a packet up.
    fn lose(&mut self, id: &PacketId, reason: DropReason) {
        if let Some(packet) = self.remove(id) {
            self.lost.extend(packet.pieces.into_iter().map(|held| (reason, held)));
        }
    }

    /// Gives a packet up, and what still comes of it.
    fn spoil(&mut self, id: &PacketId, reason: DropReason) {
        let Some(packet) = self.packets.get_mut(id) else { return };
        packet.spoilt = Some(reason);
        let freed = packet.memory - PACKET_COST.min(packet.memory);
        packet.memory -= freed;
        let (port, pieces) = (packet.port, std::mem::take(&mut packet.pieces));
        self.lost.extend(pieces.into_iter().map(|held| (reason, held)));
        self.charge(id.zone, port, -(freed as isize));
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.due.first_key_value().filter(|((due, _), _)| *due <= now) {
            let id = *id;
            self.lose(&id, DropReason::FragmentTimeout);
        }
    }
}

impl Gathering {
    /// Why a fragment does not fit with the others.
    fn refuses(&self, held: &Held) -> Option<DropReason> {
        if self.spoilt.is_some() {
            return self.spoilt;
        }
        let (start, end) = (held.piece.offset, held.end());
        let is_copy = |other: &Held| {
            (other.piece.offset, other.end(), other.piece.more) == (start, end, held.piece.more)
        };
        if self.pieces.iter().any(is_copy) {
            return Some(DropReason::FragmentDuplicate);
        }
        let overlaps = |other: &Held| other.piece.offset < end && start < other.end();
        // The last fragment says where the packet ends; there is one end.
        let furthest = self.pieces.last().map_or(0, Held::end);
        let contradicts = match (held.piece.more, self.total) {
            (false, Some(total)) => total != end,
            (false, None) => furthest > end,
            (true, Some(total)) => end >= total,
            (true, None) => false,
        };
        if contradicts || self.pieces.iter().any(overlaps) {
            return Some(DropReason::FragmentOverlap);
        }
        (self.pieces.len() >= MAX_PIECES).then_some(DropReason::FragmentLimit)
    }

    fn is_whole(&self) -> bool {
        self.total == Some(self.n_bytes)
    }
}

impl Conntrack {
    /// Takes a fragment, until its packet is whole.
    pub(crate) fn gather(&self, now: Timestamp, held: Held) -> Offered {
        let mut fragments = self.fragments();
        let offered = fragments.offer(now, held);
        self.n_gathering.store(fragments.packets.len() + fragments.lost.len(), Relaxed);
        offered
    }

    /// The fragments of a bridge that were dropped since the last call: to be called after
    /// [`Conntrack::gather`], and now and then for those whose time is over.
    pub(crate) fn lost_fragments(&self, now: Timestamp, bridge: BridgeId) -> Vec<(DropReason, Held)> {
        if self.n_gathering.load(Relaxed) == 0 {
            return Vec::new();
        }
        let mut fragments = self.fragments();
        fragments.expire(now);
        let all = std::mem::take(&mut fragments.lost);
        let (lost, others) = all.into_iter().partition(|(_, held)| held.piece.of.bridge == bridge);
        fragments.lost = others;
        self.n_gathering.store(fragments.packets.len() + fragments.lost.len(), Relaxed);
        lost
    }

    /// What may wait for the rest of its packet in a zone; `None`: what holds for all
    /// zones. No zone: that itself.
    pub fn set_fragment_limits(&self, zone: Option<u16>, limits: Option<FragmentLimits>) {
        let mut fragments = self.fragments();
        match (zone, limits) {
            (None, limits) => fragments.default_limits = limits.unwrap_or_default(),
            (Some(zone), Some(limits)) => {
                fragments.limits.insert(zone, limits);
            }
            (Some(zone), None) => {
                fragments.limits.remove(&zone);
            }
        }
    }

    /// Fragments that wait, and their bytes with all that they cost.
    pub fn fragments_held(&self) -> (usize, usize) {
        let fragments = self.fragments();
        let n_pieces = fragments.packets.values().map(|packet| packet.pieces.len()).sum();
        (n_pieces, fragments.memory)
    }
}
