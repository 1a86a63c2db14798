//! Noting a packet's long way, so that the next one of its conversation can take the short one.

use std::{
    mem::offset_of,
    sync::{Arc, LazyLock, atomic::AtomicU64},
};

use super::{Journey, Journeys, MAX_TRACKED, Rewrite, Said, Way};
use crate::{
    cache::Handle,
    conntrack::{Conntrack, Place, Request, Tuple, Verdict, View},
    field::Field,
    key::{FlowKey, FlowMask, ct_state},
    parse::Signature,
    program::{Emit, FieldEdit, Program},
    switch::Switch,
    types::PortNo,
    wire::{ethertype, ip_proto},
};

/// States of conversations that are noted, but for what says that they are translated.
const SPOKEN: [u16; 2] = [ct_state::TRK | ct_state::EST, ct_state::TRK | ct_state::EST | ct_state::RPL];
const TRANSLATED: u16 = ct_state::SNAT | ct_state::DNAT;
/// Of packets on their long way, one in so many is noted.
const RECORD_ONE_IN: u32 = if cfg!(test) { 1 } else { 4 };
/// Where other journeys have to make way, or after so many in a row that came to nothing, one in so many.
const RARELY_ONE_IN: u32 = if cfg!(test) { 1 } else { 64 };
const MANY_IN_VAIN: u32 = 64;

/// What has been seen of a packet's way.
#[derive(Debug)]
pub(in crate::switch) struct Recording {
    /// Where it came in.
    port: PortNo,
    signature: Signature,
    /// The key as it came.
    key: FlowKey,
    from: Handle,
    first: Arc<Program>,
    entries: Vec<(Handle, Arc<Program>)>,
    tracked: Vec<(Said, Tuple)>,
    end: Option<(Emit, u32)>,
    /// Something happened that is not for journeys.
    is_odd: bool,
}

impl Recording {
    /// The tracker has been asked about a packet that looked like this to it.
    pub(in crate::switch) fn track(&mut self, request: &Request, view: &View, verdict: &Verdict) {
        let state = verdict.state & !TRANSLATED;
        self.is_odd |= request.commit || verdict.alg.is_some() || !SPOKEN.contains(&state);
        let Verdict { mark, label, .. } = *verdict;
        let zone = request.zone;
        let said = Said { zone, state, mark, label, ..Said::default() };
        self.tracked.push((said, Tuple { zone, ..view.tuple }));
    }

    /// An entry has been found for the next pass.
    pub(in crate::switch) fn enter(&mut self, entry: Handle, program: &Arc<Program>) {
        self.is_odd |= !is_straight(program);
        self.entries.push((entry, Arc::clone(program)));
    }

    /// Something happened that is not for journeys.
    pub(in crate::switch) fn give_up(&mut self) {
        self.is_odd = true;
    }

    /// The packet leaves like this; `key` is what it is before that.
    pub(in crate::switch) fn leave(&mut self, emit: &Emit, mut key: FlowKey, flow_hash: u32) {
        key.frame_len = self.key.frame_len;
        for FieldEdit { field, value, mask } in &emit.edits {
            key.set(*field, key.get(*field) & !mask | value & mask);
        }
        let edits = changes(&self.key, &key);
        self.is_odd |= self.end.is_some() || !changes_headers_only(emit) || edits.is_none();
        let (port, tunnel) = (emit.port, emit.tunnel.clone());
        let edits = edits.unwrap_or_default();
        let (vlan_pushes, extras, ct) = (Vec::new(), None, None);
        self.end = Some((Emit { n_vlan_pops: 0, vlan_pushes, edits, tunnel, port, extras, ct }, flow_hash));
    }
}

/// One copy, and nothing besides.
pub(super) fn is_straight(program: &Program) -> bool {
    let [emit] = &program.emits[..] else { return false };
    program.meters.is_empty() && !program.has_side_effects() && emit.leaves() && changes_headers_only(emit)
}

fn changes_headers_only(emit: &Emit) -> bool {
    emit.n_vlan_pops == 0 && emit.vlan_pushes.is_empty() && emit.extras.is_none()
}

/// The edits that make of a packet with one key one with another; `None` where they are not enough.
fn changes(old: &FlowKey, new: &FlowKey) -> Option<Vec<FieldEdit>> {
    use Field::{
        EthDst, EthSrc, Ipv6Dst, Ipv6Src, NwDst, NwSrc, NwTos, NwTtl, TcpDst, TcpSrc, UdpDst, UdpSrc,
    };
    let [src, dst] = match old.eth_type.get() {
        ethertype::IPV4 => [NwSrc, NwDst],
        ethertype::IPV6 => [Ipv6Src, Ipv6Dst],
        _ => return None,
    };
    let ports = match old.nw_proto {
        ip_proto::TCP => [TcpSrc, TcpDst],
        ip_proto::UDP => [UdpSrc, UdpDst],
        _ => return None,
    };
    let mut edited = *old;
    let mut edits = Vec::new();
    for field in [EthDst, EthSrc, src, dst, NwTos, NwTtl].into_iter().chain(ports) {
        let value = new.get(field);
        if value != old.get(field) {
            edits.push(FieldEdit { field, value, mask: field.all_bits() });
            edited.set(field, value);
        }
    }
    let headers = offset_of!(FlowKey, eth_dst) / 8..offset_of!(FlowKey, ct_mark) / 8;
    (edited.words()[headers.clone()] == new.words()[headers]).then_some(edits)
}

/// What an entry compares follows from the signature, from what the first entry compares, and from the
/// connections. Packets that come by no tunnel have none of its fields.
fn follows(first: &FlowMask, later: &FlowMask, is_tunnelled: bool) -> bool {
    let given = if is_tunnelled { &*GIVEN_BEHIND_TUNNELS } else { &*GIVEN };
    let words = first.words().iter().zip(given.words());
    words.zip(later.words()).all(|((first, given), later)| later & !(first | given) == 0)
}

static GIVEN: LazyLock<FlowMask> = LazyLock::new(|| given(false));
static GIVEN_BEHIND_TUNNELS: LazyLock<FlowMask> = LazyLock::new(|| given(true));

/// What the signature and the connections say of all packets of a journey.
fn given(is_tunnelled: bool) -> FlowMask {
    let mut given = FlowMask::empty();
    let end = if is_tunnelled { offset_of!(FlowKey, tun_tos) } else { offset_of!(FlowKey, metadata) };
    let same = offset_of!(FlowKey, eth_dst)..end;
    let options = offset_of!(FlowKey, tun_metadata_present);
    let left_out = [Field::TcpFlags, Field::Ipv6Label, Field::FrameLen];
    for field in Field::ALL {
        let offset = field.info().offset;
        let is_said = same.contains(&offset) || !is_tunnelled && offset >= options;
        let is_left_out = left_out.iter().any(|out| out.shares_place(*field));
        if is_said && !is_left_out || matches!(field, Field::InPort | Field::RecircId) {
            given.add(*field, field.all_bits());
        }
    }
    given
}

impl Journeys {
    /// A packet that goes the long way shall be noted, of a conversation of which the tracker says this.
    pub(in crate::switch) fn notes(&mut self, state: u16) -> bool {
        if !SPOKEN.contains(&(state & !TRANSLATED)) || self.max == 0 {
            return false;
        }
        let is_seldom = self.is_full() || self.n_in_vain >= MANY_IN_VAIN;
        self.n_recordings = self.n_recordings.wrapping_add(1);
        self.n_recordings.is_multiple_of(if is_seldom { RARELY_ONE_IN } else { RECORD_ONE_IN })
    }
}

impl Switch {
    /// Begins to note the way of a packet, now and then: of one whose conversation is known to the tracker, which
    /// has just said so.
    #[inline]
    pub(in crate::switch) fn record(
        &mut self,
        port: PortNo,
        (idx, from): (usize, Handle),
        first: &Arc<Program>,
        (request, view, verdict): (&Request, &View, &Verdict),
    ) {
        self.journeys.recording = None;
        if !self.lanes.has_signature[idx] {
            return;
        }
        let decided = self.journeys.is_to_note.take();
        if decided.unwrap_or_else(|| self.journeys.notes(verdict.state)) {
            self.begin_record(port, (idx, from), first);
            if let Some(recording) = &mut self.journeys.recording {
                recording.track(request, view, verdict);
            }
        }
    }

    fn begin_record(&mut self, port: PortNo, (idx, from): (usize, Handle), first: &Arc<Program>) {
        let key = &self.lanes.keys[idx];
        if !matches!(key.nw_proto, ip_proto::TCP | ip_proto::UDP) || !is_straight(first) {
            return;
        }
        self.journeys.recording = Some(Box::new(Recording {
            port,
            signature: self.lanes.signatures[idx],
            key: *key,
            from,
            first: Arc::clone(first),
            entries: Vec::new(),
            tracked: Vec::new(),
            end: None,
            is_odd: false,
        }));
        self.journeys.n_in_vain = self.journeys.n_in_vain.saturating_add(1);
    }

    /// Keeps what has been noted, if it is a journey; of a packet that came by a tunnel or did not.
    pub(in crate::switch) fn keep_record(&mut self, is_tunnelled: bool) {
        let Some(recording) = self.journeys.recording.take() else { return };
        let Recording { port, signature, from, first, entries, tracked, end, is_odd, .. } = *recording;
        let (Some((emit, flow_hash)), Some(tracker)) = (end, self.conntrack.as_deref()) else { return };
        if is_odd || tracked.len() != entries.len() || tracked.len() > MAX_TRACKED {
            return;
        }
        let Some(mask) = self.megaflows.mask_of(from) else { return };
        // A journey is found by nothing but the signature, unless its packets come by a tunnel.
        if !is_tunnelled && !follows(&FlowMask::empty(), &mask, false) {
            return;
        }
        let mut later = entries.iter().map(|(entry, _)| self.megaflows.mask_of(*entry));
        if !later.all(|later| later.is_some_and(|later| follows(&mask, &later, is_tunnelled))) {
            return;
        }
        let mut slots = [0; MAX_TRACKED];
        let mut said = Vec::with_capacity(tracked.len());
        let Some((_, came_as)) = tracked.first() else { return };
        let leaves_as = super::ride::after(came_as, &emit.edits);
        for (slot, (one, tuple)) in slots.iter_mut().zip(&tracked) {
            let Some((place, is_translated)) = locate(tracker, tuple, [came_as, &leaves_as]) else { return };
            let Place { direction, translates, identity, .. } = place;
            *slot = place.slot;
            said.push(Said { is_translated, direction, translates, identity, ..*one });
        }
        let (rewrite, macs) = Rewrite::new(&signature, &emit.edits).unzip();
        let way = self.journeys.share(Way {
            from: (from, first),
            entries,
            said,
            macs: macs.flatten(),
            rewrites: rewrite.is_some_and(|rewrite| !rewrite.is_none()),
            tunnel: emit.tunnel.clone(),
            port: emit.port,
            seen_in: AtomicU64::new(0),
        });
        self.journeys.note_port(port);
        let emit = rewrite.is_none().then(|| Box::new(emit));
        let (hash, rewrite) = (self.journeys.hash(&signature), rewrite.unwrap_or_default());
        self.journeys.insert(Journey { signature, way, emit, slots, rewrite, flow_hash, hash });
    }
}

/// The connection of a packet that was tracked when it looked like this, if its place follows from how the packet
/// came and how it leaves; and whether it was tracked as it leaves.
fn locate(tracker: &Conntrack, tuple: &Tuple, [came_as, leaves_as]: [&Tuple; 2]) -> Option<(Place, bool)> {
    let is = |other: &Tuple| *tuple == Tuple { zone: tuple.zone, ..*other };
    let is_translated = !is(came_as);
    if is_translated && !is(leaves_as) {
        return None;
    }
    Some((tracker.locate(tuple, &Tuple { zone: tuple.zone, ..*leaves_as })?, is_translated))
}
