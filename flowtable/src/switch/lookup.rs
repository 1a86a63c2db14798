//! The passes that find the packets of a batch in the caches: signatures and what is found by
//! them, then keys and megaflows for what is left.

use super::{Lanes, MAX_BATCH, Moment, Switch, flow_hash};
use crate::{
    cache::{Handle, State, Words, bits, tunnelled},
    drop::DropReason,
    key::{FlowKey, nw_frag},
    offload,
    packet::{FrameBuf, Packet},
    parse::{fill_key, parse},
    tunnel::{self, KnownPeers},
};

/// How far the lookup of a packet has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// It never got to the tables.
    Dropped(DropReason),
    /// Not looked for yet.
    Unknown,
    /// It was in no cache.
    Missed,
    /// Found by its session.
    Session(Handle),
    /// Its megaflow was found by its signature.
    Signed(Handle),
    /// Its megaflow was found by its key.
    Megaflow(Handle),
}

impl Lookup {
    pub(super) fn handle(self) -> Option<Handle> {
        match self {
            Self::Session(handle) | Self::Signed(handle) | Self::Megaflow(handle) => Some(handle),
            Self::Dropped(_) | Self::Unknown | Self::Missed => None,
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
        key.set_frame_len(packet.wire_len());
        self.has_key[idx] = true;
    }

    /// A packet is on a journey.
    #[inline]
    pub(super) fn is_riding(&self, idx: usize) -> bool {
        self.riding >> idx & 1 != 0
    }

    /// Nothing is known of a packet but how it came.
    pub(super) fn forget(&mut self, idx: usize) {
        self.riding &= !(1 << idx);
        (self.lookups[idx], self.current[idx], self.hops[idx]) = (Lookup::Unknown, false, None);
    }

    /// Takes a packet's signature, or else parses it.
    fn take_in<B: FrameBuf>(&mut self, idx: usize, packet: &mut Packet<B>) -> Result<(), DropReason> {
        if self.signatures[idx].take_packet(packet) {
            self.has_signature[idx] = true;
            return Ok(());
        }
        self.parse(idx, packet)
    }

    fn parse<B: FrameBuf>(&mut self, idx: usize, packet: &mut Packet<B>) -> Result<(), DropReason> {
        self.has_key[idx] = true;
        parse(packet, &mut self.keys[idx])?;
        self.keys[idx].set_frame_len(packet.wire_len());
        Ok(())
    }

    /// The same for a packet from an uplink, which loses its tunnel header.
    fn unwrap<B: FrameBuf>(
        &mut self,
        (moment, peers): (&Moment<'_>, &mut KnownPeers),
        (idx, by_signature): (usize, bool),
        packet: &mut Packet<B>,
    ) -> Result<(), DropReason> {
        let arrival = tunnel::unwrap_known(
            packet,
            (&moment.snapshot.underlay, moment.snapshot.tables.options()),
            peers,
        )?;
        self.arrivals[idx] = arrival;
        if by_signature && !arrival.marks_congestion() && self.signatures[idx].take_packet(packet) {
            self.long[idx] = tunnelled(&self.signatures[idx], &arrival.words());
            self.has_signature[idx] = true;
            return Ok(());
        }
        self.has_key[idx] = true;
        tunnel::parse_inner(packet, &mut self.keys[idx], &arrival)?;
        self.keys[idx].set_frame_len(packet.wire_len());
        Ok(())
    }
}

impl Switch {
    /// First pass: what tells each packet's conversation from others.
    pub(super) fn receive_all<B: FrameBuf>(&mut self, moment: &Moment<'_>, packets: &mut [Packet<B>]) {
        let lanes = &mut *self.lanes;
        let by_signature = self.megaflows.has_signatures();
        for (idx, packet) in packets.iter_mut().enumerate() {
            packet.in_port = moment.in_port;
            lanes.lens[idx] = packet.len() as u64;
            (lanes.has_key[idx], lanes.has_signature[idx]) = (false, false);
            let received = if moment.is_uplink() {
                lanes.unwrap((moment, &mut self.known_peers), (idx, by_signature), packet)
            } else if by_signature {
                lanes.take_in(idx, packet)
            } else {
                lanes.parse(idx, packet)
            };
            let received = match received {
                Ok(()) if !packet.offload.is_none() => offload::check(packet),
                // Of a tunnelled packet, the one inside: a sender on this machine leaves that to a device.
                Ok(()) if moment.partial_checksums => {
                    offload::detect_partial(packet);
                    Ok(())
                }
                received => received,
            };
            lanes.ports[idx] = packet.in_port;
            (lanes.current[idx], lanes.needs_key[idx]) = (false, false);
            lanes.lookups[idx] = received.map_or_else(Lookup::Dropped, |()| Lookup::Unknown);
        }
    }

    /// Second pass: what has a signature is looked up by it. Packets of one port at a time;
    /// only those of an uplink can be of several, one for each tunnel.
    pub(super) fn find_signed(&mut self, moment: &Moment<'_>, n: usize) {
        let lanes = &mut *self.lanes;
        let mut pending =
            lanes.has_signature[..n].iter().rev().fold(0_u32, |set, has| set << 1 | u32::from(*has))
                & !lanes.riding;
        while let Some(first) = bits(pending).next() {
            let port = lanes.ports[first];
            let mut select = pending;
            let found = if moment.is_uplink() {
                select =
                    bits(pending).filter(|idx| lanes.ports[*idx] == port).fold(0, |set, idx| set | 1 << idx);
                self.megaflows.find_tunnelled(port, select, &lanes.long)
            } else {
                self.megaflows.find_signed((port, moment.snapshot.epoch), select, &lanes.signatures)
            };
            pending &= !select;
            for idx in bits(found.by_form | found.by_session) {
                let Some((handle, state)) = self.megaflows.look_at(found.slots[idx], moment.snapshot.epoch)
                else {
                    continue;
                };
                let is_session = found.by_session >> idx & 1 != 0;
                lanes.lookups[idx] =
                    if is_session { Lookup::Session(handle) } else { Lookup::Signed(handle) };
                lanes.current[idx] = state != State::Stale;
                lanes.needs_key[idx] = state == State::NeedsKey;
            }
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
                self.megaflows.settle(lanes.ports[idx]);
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
            lanes.lookups[idx] = match first.or_else(|| self.megaflows.find(port, key)) {
                Some(handle) => {
                    lanes.current[idx] = self.megaflows.is_current(handle, epoch);
                    Lookup::Megaflow(handle)
                }
                None => Lookup::Missed,
            };
        }
    }

    /// Packets like this one, which was found by its key, shall be found by their signature.
    pub(super) fn remember(&mut self, moment: &Moment<'_>, idx: usize, handle: Handle) {
        let lanes = &*self.lanes;
        if !lanes.has_signature[idx] {
            return;
        }
        let n = self.megaflows.n_sessions();
        let admits = self.quotas.admit_session(lanes.ports[idx], (n, self.max_sessions), moment.now);
        let signature = &lanes.signatures[idx];
        let words = if moment.is_uplink() {
            Words::Tunnel(signature, &lanes.arrivals[idx])
        } else {
            Words::Port(signature)
        };
        self.megaflows.enter(handle, lanes.ports[idx], (words, admits));
    }
}
