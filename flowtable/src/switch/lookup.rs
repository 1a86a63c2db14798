//! The passes that find the packets of a batch in the caches: signatures, sessions, then
//! keys and megaflows for what is left.

use super::{Lanes, MAX_BATCH, Moment, Switch, flow_hash};
use crate::{
    cache::{Handle, Megaflows, Sessions, State, tunnelled},
    drop::DropReason,
    key::{FlowKey, nw_frag},
    offload,
    packet::{FrameBuf, Packet},
    parse::{Signature, fill_key, parse},
    tunnel,
};

/// How far the lookup of a packet has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It never got to the tables.
    Dropped(DropReason),
    /// Not in the caches, as far as is known.
    Unknown,
    /// Found by its session.
    Session(Handle),
    /// Found by its megaflow.
    Megaflow(Handle),
}

impl Lookup {
    pub(super) fn handle(self) -> Option<Handle> {
        match self {
            Self::Session(handle) | Self::Megaflow(handle) => Some(handle),
            Self::Dropped(_) | Self::Unknown => None,
        }
    }
}

impl Lanes {
    /// The key of a packet that has one.
    pub(super) fn key(&self, idx: usize) -> &FlowKey {
        debug_assert!(self.has_key[idx], "a key is read that was not filled in");
        &self.keys[idx]
    }

    /// The key of a packet, if it was needed so far.
    pub(super) fn known_key(&self, idx: usize) -> Option<&FlowKey> {
        self.has_key[idx].then(|| &self.keys[idx])
    }

    /// Hash of a packet's conversation.
    pub(super) fn flow_hash(&self, idx: usize) -> u32 {
        if self.has_signature[idx] {
            flow_hash::flow_hash_of_signature(&self.signatures[idx])
        } else {
            flow_hash::flow_hash(self.key(idx))
        }
    }

    /// The packet is a fragment: those have no signature.
    pub(super) fn is_fragment(&self, idx: usize) -> bool {
        !self.has_signature[idx] && self.key(idx).nw_frag & nw_frag::ANY != 0
    }

    /// Fills in the key of a packet whose signature was taken, unless it is there already.
    pub(super) fn ensure_key<B: FrameBuf>(&mut self, moment: &Moment<'_>, idx: usize, packet: &Packet<B>) {
        if self.has_key[idx] {
            return;
        }
        let key = &mut self.keys[idx];
        // A frame that has a signature can be parsed.
        let filled = fill_key(packet, key);
        debug_assert!(filled.is_ok());
        if moment.is_uplink() {
            self.arrivals[idx].describe(key);
        }
        key.set_frame_len(packet.len());
        self.has_key[idx] = true;
    }

    /// Takes a packet's signature, or else parses it.
    fn take_in<B: FrameBuf>(&mut self, idx: usize, packet: &mut Packet<B>) -> Result<(), DropReason> {
        match Signature::of(packet.bytes(), packet.in_port) {
            Some((signature, layout)) => {
                packet.layout = layout;
                self.signatures[idx] = signature;
                self.has_signature[idx] = true;
                Ok(())
            }
            None => self.parse(idx, packet),
        }
    }

    fn parse<B: FrameBuf>(&mut self, idx: usize, packet: &mut Packet<B>) -> Result<(), DropReason> {
        self.has_key[idx] = true;
        parse(packet, &mut self.keys[idx])?;
        self.keys[idx].set_frame_len(packet.len());
        Ok(())
    }

    /// The same for a packet from an uplink, which loses its tunnel header.
    fn unwrap<B: FrameBuf>(
        &mut self,
        moment: &Moment<'_>,
        (idx, by_signature): (usize, bool),
        packet: &mut Packet<B>,
    ) -> Result<(), DropReason> {
        let arrival = tunnel::unwrap(packet, &moment.snapshot.underlay)?;
        self.arrivals[idx] = arrival;
        if by_signature
            && !arrival.marks_congestion()
            && let Some((signature, layout)) = Signature::of(packet.bytes(), packet.in_port)
        {
            packet.layout = layout;
            self.signatures[idx] = signature;
            self.has_signature[idx] = true;
            return Ok(());
        }
        self.has_key[idx] = true;
        tunnel::parse_inner(packet, &mut self.keys[idx], &arrival)?;
        self.keys[idx].set_frame_len(packet.len());
        Ok(())
    }
}

impl Switch {
    /// First pass: what tells each packet's conversation from others.
    pub(super) fn receive_all<B: FrameBuf>(&mut self, moment: &Moment<'_>, packets: &mut [Packet<B>]) {
        let lanes = &mut *self.lanes;
        let by_signature = !self.port_sessions.is_disabled();
        for (idx, packet) in packets.iter_mut().enumerate() {
            packet.in_port = moment.in_port;
            lanes.lens[idx] = packet.len() as u64;
            (lanes.has_key[idx], lanes.has_signature[idx]) = (false, false);
            let received = if moment.is_uplink() {
                lanes.unwrap(moment, (idx, by_signature), packet)
            } else if by_signature {
                lanes.take_in(idx, packet)
            } else {
                lanes.parse(idx, packet)
            };
            if moment.partial_checksums && !moment.is_uplink() && received.is_ok() {
                offload::detect_partial(packet);
            }
            lanes.ports[idx] = packet.in_port;
            (lanes.current[idx], lanes.needs_key[idx]) = (false, false);
            lanes.lookups[idx] = received.map_or_else(Lookup::Dropped, |()| Lookup::Unknown);
        }
    }

    /// Second pass: exact lookup of what has a signature.
    pub(super) fn find_sessions(&mut self, moment: &Moment<'_>, n: usize) {
        let (lanes, megaflows) = (&mut *self.lanes, &self.megaflows);
        if moment.is_uplink() {
            let words =
                |lanes: &Lanes, idx: usize| tunnelled(&lanes.signatures[idx], &lanes.arrivals[idx].words());
            find_among(&mut self.tunnel_sessions, (lanes, megaflows), (moment, n), words);
        } else {
            let words = |lanes: &Lanes, idx: usize| lanes.signatures[idx].0;
            find_among(&mut self.port_sessions, (lanes, megaflows), (moment, n), words);
        }
    }

    /// Third pass: keys for those that need one.
    pub(super) fn parse_rest<B: FrameBuf>(&mut self, moment: &Moment<'_>, packets: &[Packet<B>]) {
        let lanes = &mut *self.lanes;
        for (idx, packet) in packets.iter().enumerate() {
            let is_found = lanes.current[idx] && !lanes.needs_key[idx]
                || matches!(lanes.lookups[idx], Lookup::Dropped(_));
            if !is_found {
                lanes.ensure_key(moment, idx, packet);
            }
        }
    }

    /// Fourth pass: masked lookup of the rest. Most packets are in the first shape of their
    /// port and in the first cell of their hash; these are found in steps of one memory
    /// access each, taken for all packets at a time.
    pub(super) fn find_megaflows(&mut self, moment: &Moment<'_>, n: usize) {
        let (lanes, epoch) = (&mut *self.lanes, moment.snapshot.epoch);
        let unknown = |lookup: &Lookup| *lookup == Lookup::Unknown;
        if !lanes.lookups[..n].iter().any(unknown) {
            return;
        }
        let mut hashes = [None; MAX_BATCH];
        for (idx, hash) in hashes.iter_mut().enumerate().take(n) {
            if unknown(&lanes.lookups[idx]) {
                *hash = self.megaflows.first_hash(lanes.ports[idx], lanes.key(idx));
            }
        }
        let slots = hashes.map(|hash| hash.and_then(|hash| self.megaflows.first_slot(hash)));
        for (idx, slot) in slots.into_iter().enumerate().take(n) {
            if !unknown(&lanes.lookups[idx]) {
                continue;
            }
            let (port, key) = (lanes.ports[idx], lanes.key(idx));
            let first = slot.and_then(|slot| self.megaflows.confirm(slot, port, key));
            if let Some(handle) = first.or_else(|| self.megaflows.find(port, key)) {
                lanes.lookups[idx] = Lookup::Megaflow(handle);
                lanes.current[idx] = self.megaflows.is_current(handle, epoch);
            }
        }
    }

    /// Makes a session for a packet that was found by its megaflow.
    pub(super) fn remember(&mut self, moment: &Moment<'_>, idx: usize, handle: Handle) {
        let lanes = &*self.lanes;
        if !lanes.has_signature[idx] || !matches!(lanes.lookups[idx], Lookup::Megaflow(_)) {
            return;
        }
        let n = if moment.is_uplink() { self.tunnel_sessions.len() } else { self.port_sessions.len() };
        if !self.quotas.admit_session(lanes.ports[idx], (n, self.max_sessions), moment.now) {
            return;
        }
        if moment.is_uplink() {
            let words = tunnelled(&lanes.signatures[idx], &lanes.arrivals[idx].words());
            self.tunnel_sessions.insert(lanes.hashes[idx], &words, handle);
        } else {
            self.port_sessions.insert(lanes.hashes[idx], &lanes.signatures[idx].0, handle);
        }
    }
}

/// Looks packets up by what their sessions compare, in steps of one memory access each.
#[inline]
fn find_among<const N: usize>(
    sessions: &mut Sessions<N>,
    (lanes, megaflows): (&mut Lanes, &Megaflows),
    (moment, n): (&Moment<'_>, usize),
    words: impl Fn(&Lanes, usize) -> [u64; N],
) {
    if sessions.is_disabled() {
        return;
    }
    for idx in 0..n {
        if lanes.has_signature[idx] {
            lanes.hashes[idx] = sessions.hash(&words(lanes, idx));
            sessions.prefetch(lanes.hashes[idx]);
        }
    }
    let mut candidates = [(0, false); MAX_BATCH];
    for (idx, candidate) in candidates.iter_mut().enumerate().take(n) {
        let (place, tag_agrees) = sessions.candidate(lanes.hashes[idx]);
        *candidate = (place, tag_agrees & lanes.has_signature[idx]);
    }
    let mut handles = [None; MAX_BATCH];
    for (idx, (place, tag_agrees)) in candidates.into_iter().enumerate().take(n) {
        if tag_agrees && sessions.is_for(place, &words(lanes, idx)) {
            let handle = sessions.hit(place);
            megaflows.prefetch(handle);
            handles[idx] = Some(handle);
        }
    }
    for (idx, handle) in handles.into_iter().enumerate().take(n) {
        let Some(handle) = handle else { continue };
        let state = megaflows.state(handle, moment.snapshot.epoch);
        if state == State::Gone {
            sessions.forget(candidates[idx].0);
            continue;
        }
        lanes.lookups[idx] = Lookup::Session(handle);
        lanes.current[idx] = state == State::Current || state == State::NeedsKey;
        lanes.needs_key[idx] = state == State::NeedsKey;
    }
}
