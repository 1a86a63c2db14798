//! Programs that pass packets through the connection tracker: one packet at a time,
//! until nothing of it comes back, so that packets keep their order.

use std::{collections::HashMap, sync::Arc};

use super::{
    Moment, Sink, Switch,
    flow_hash::flow_hash,
    metered::Verdicts,
    run::{copy, send},
};
use crate::{
    cache::{Handle, Remembered},
    conntrack::{self, Config, Conntrack, L4, Storage, Tuple, View},
    drop::DropReason,
    execute,
    field::Field,
    flow::Rule,
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    pipeline::{self, Frozen, MAX_PASSES, NoTrace, Translation},
    program::{CtPass, Emit, FieldEdit, MeterStep, Program},
    types::{MeterId, PortNo},
};

/// Frozen walks that are remembered, before those that no entry leads to are forgotten.
const MAX_FROZEN: usize = 1 << 16;
/// Passes of all copies of one packet.
const MAX_RECIRCULATIONS: usize = 64;
/// Connections of a switch that nobody has given a tracker.
const DEFAULT_CONNECTIONS: usize = 1 << 16;

/// The numbers of frozen walks.
#[derive(Debug, Default)]
pub(super) struct FrozenIds {
    ids: HashMap<Arc<Frozen>, u32>,
    last: u32,
}

impl FrozenIds {
    /// Gives the frozen walks of a program their numbers.
    pub(super) fn number(&mut self, program: &mut Program) {
        for emit in &mut program.emits {
            let Some(pass) = emit.ct.as_mut() else { continue };
            let Some(next) = pass.next.as_ref() else { continue };
            let (next, id) = match self.ids.get_key_value(next) {
                Some((known, id)) => (Arc::clone(known), *id),
                None => (Arc::clone(next), self.add(next)),
            };
            *pass = Arc::new(CtPass { request: pass.request, next: Some(next), recirc_id: id });
        }
    }

    fn add(&mut self, frozen: &Arc<Frozen>) -> u32 {
        if self.ids.len() >= MAX_FROZEN {
            self.ids.retain(|frozen, _| Arc::strong_count(frozen) > 1);
        }
        // Zero is for packets fresh from a port. A number of old that comes round again has
        // long lost its entries.
        self.last = self.last.checked_add(1).unwrap_or(1);
        if self.ids.len() < MAX_FROZEN {
            self.ids.insert(Arc::clone(frozen), self.last);
        }
        self.last
    }

    /// The frozen walk with this number.
    #[cfg(test)]
    pub(super) fn get(&self, id: u32) -> Option<&Arc<Frozen>> {
        self.ids.iter().find(|(_, known)| **known == id).map(|(frozen, _)| frozen)
    }
}

/// What becomes of one packet and its copies.
#[derive(Default)]
struct Fate {
    sent: bool,
    /// Why something of it did not leave.
    failure: Option<Failure>,
    n_passes: usize,
}

struct Failure {
    reason: DropReason,
    rule: Option<Arc<Rule>>,
    /// Rules drop it, as they should.
    is_meant: bool,
    /// A meter dropped it.
    meter: Option<MeterId>,
}

impl Failure {
    fn of(reason: DropReason) -> Self {
        Self { reason, rule: None, is_meant: false, meter: None }
    }

    fn metered(step: &MeterStep) -> Self {
        let (rule, meter) = (Some(Arc::clone(&step.rule)), Some(step.meter.config().id));
        Self { reason: DropReason::Metered, rule, is_meant: false, meter }
    }
}

/// What the tracker needs of a packet that is about to leave.
struct Seen {
    view: View,
    in_port: PortNo,
}

/// A packet at the beginning of a pass.
struct Rider<B> {
    packet: Packet<B>,
    key: FlowKey,
    depth: usize,
}

impl Switch {
    /// Does with one packet what a program with `ct` says.
    pub(super) fn carry_through<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let n_bytes = self.lanes.lens[idx];
        self.books.received(1, n_bytes);
        let mut fate = Fate::default();
        let rider = Rider { packet, key: *self.lanes.key(idx), depth: 1 };
        self.ride(moment, program, rider, sink, &mut fate);
        match fate.failure {
            Some(failure) if fate.sent => {
                if !failure.is_meant {
                    self.books.lost_copy((failure.reason, failure.rule.as_ref(), failure.meter));
                }
                self.books.forwarded(1);
            }
            Some(failure) => {
                self.books.dropped_by(0, (failure.reason, failure.rule.as_ref(), failure.meter), n_bytes);
            }
            None if fate.sent => self.books.forwarded(1),
            None => {
                self.books.dropped(0, DropReason::TableMiss, None, n_bytes);
            }
        }
    }

    fn ride<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        rider: Rider<B>,
        sink: &mut S,
        fate: &mut Fate,
    ) {
        let Rider { packet, key, depth } = rider;
        let steps = &program.meters[..];
        let verdicts = (!steps.is_empty()).then(|| Verdicts::measure(steps, moment.now, packet.len() as u64));
        let n_levels = |idx| verdicts.as_ref().map_or(Ok(0), |verdicts| verdicts.of(steps, idx));
        let mut emits = program.emits.iter().enumerate();
        // The last one that something becomes of takes the packet itself.
        let last = emits.rposition(|(idx, emit)| emit.leaves() && n_levels(idx).is_ok());
        let seen = Seen { view: View::read(&packet).unwrap_or(NOT_IP), in_port: packet.in_port };
        let mut packet = Some(packet);
        for (idx, emit) in program.emits.iter().enumerate() {
            let n_levels = match n_levels(idx) {
                Ok(n_levels) => n_levels,
                Err(step) => {
                    self.fail(fate, Failure::metered(step));
                    continue;
                }
            };
            if let Some(pass) = emit.ct.as_ref().filter(|pass| pass.next.is_none()) {
                self.note(moment, &seen, emit, pass, fate);
                continue;
            }
            let own = if Some(idx) == last { packet.take() } else { None };
            let copied = match (own, &packet) {
                (Some(own), _) => Ok(own),
                (None, Some(packet)) => copy(packet, sink),
                (None, None) => continue,
            };
            match copied {
                Ok(packet) => {
                    self.dispatch(moment, (emit, n_levels), Rider { packet, key, depth }, sink, fate);
                }
                Err(reason) => self.fail(fate, Failure::of(reason)),
            }
        }
        if let Some(packet) = packet {
            sink.release(packet);
            if let (None, Some(cause)) = (&fate.failure, &program.drop) {
                let (reason, rule) = (cause.reason, cause.rule.clone());
                fate.failure = Some(Failure { rule, is_meant: true, ..Failure::of(reason) });
            }
        }
    }

    /// A copy leaves, or goes through the tracker into the next pass.
    fn dispatch<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (emit, n_levels): (&Emit, u8),
        rider: Rider<B>,
        sink: &mut S,
        fate: &mut Fate,
    ) {
        let Some((pass, next)) = emit.ct.as_ref().and_then(|pass| Some((pass, pass.next.as_ref()?))) else {
            let hash = if emit.tunnel.is_some() { flow_hash(&rider.key) } else { 0 };
            match send(rider.packet, emit, (hash, n_levels), &mut self.punts, sink) {
                Ok(()) => fate.sent = true,
                Err(reason) => self.fail(fate, Failure::of(reason)),
            }
            return;
        };
        fate.n_passes += 1;
        let Rider { mut packet, key, depth } = rider;
        let tracked = if depth >= MAX_PASSES || fate.n_passes > MAX_RECIRCULATIONS {
            Err(DropReason::RecircLimit)
        } else {
            self.pass(moment, (emit, n_levels), (pass, next), &mut packet, &key)
        };
        match tracked {
            Ok(key) => self.next_pass(moment, next, Rider { packet, key, depth: depth + 1 }, sink, fate),
            Err(reason) => {
                sink.release(packet);
                self.fail(fate, Failure::of(reason));
            }
        }
    }

    /// Carries out the edits, asks the tracker, translates; answers the key of the next
    /// pass.
    fn pass<B: FrameBuf>(
        &mut self,
        moment: &Moment<'_>,
        (emit, n_levels): (&Emit, u8),
        (pass, next): (&CtPass, &Frozen),
        packet: &mut Packet<B>,
        key: &FlowKey,
    ) -> Result<FlowKey, DropReason> {
        execute::apply_remarked(packet, emit, 0, n_levels)?;
        let view = View::read(packet).unwrap_or(NOT_IP);
        let request = conntrack::Request { in_port: packet.in_port.get() as u16, ..pass.request };
        let verdict = self.tracker().track(moment.now, &request, &view)?;
        if let Some(new) = &verdict.rewrite {
            conntrack::rewrite(packet, &view, new)?;
        }
        let mut frame = FlowKey::zero();
        parse(packet, &mut frame)?;
        let mut key = next.thaw(key, &frame, pass.recirc_id);
        if next.knows_connection() {
            pipeline::set_connection(&mut key, request.zone, &verdict);
        }
        Ok(key)
    }

    /// Tracks a packet of which nothing comes back: there is no need for a copy.
    fn note(&mut self, moment: &Moment<'_>, seen: &Seen, emit: &Emit, pass: &CtPass, fate: &mut Fate) {
        let mut view = seen.view;
        overlay(&mut view.tuple, &emit.edits);
        let request = conntrack::Request { in_port: seen.in_port.get() as u16, ..pass.request };
        if let Err(reason) = self.tracker().track(moment.now, &request, &view) {
            self.fail(fate, Failure::of(reason));
        }
    }

    fn next_pass<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        frozen: &Frozen,
        rider: Rider<B>,
        sink: &mut S,
        fate: &mut Fate,
    ) {
        self.books.all.n_recirculations += 1;
        let n_bytes = rider.packet.len() as u64;
        let port = rider.packet.in_port;
        match self.resolve_frozen(moment, port, &rider.key, frozen) {
            Ok(handle) => {
                let Some(entry) = self.megaflows.get_mut(handle) else {
                    // Resolving has just found it; should that ever be wrong, do without.
                    sink.release(rider.packet);
                    return self.fail(fate, Failure::of(DropReason::NoBuffer));
                };
                entry.count(moment.now, 1, n_bytes);
                let program = Arc::clone(&entry.program);
                self.ride(moment, &program, rider, sink, fate);
            }
            Err(translation) => {
                translation.tally.credit(&translation.rules, 1, n_bytes, moment.now);
                self.ride(moment, &translation.program, rider, sink, fate);
            }
        }
    }

    /// As [`Switch::resolve`], for a packet that comes back.
    fn resolve_frozen(
        &mut self,
        moment: &Moment<'_>,
        port: PortNo,
        key: &FlowKey,
        frozen: &Frozen,
    ) -> Result<Handle, Box<Translation>> {
        let epoch = moment.snapshot.epoch;
        let found = self.megaflows.find(port, key);
        if let Some(handle) = found
            && self.megaflows.is_current(handle, epoch)
        {
            return Ok(handle);
        }
        let mut translation = pipeline::translate_frozen(moment.snapshot, key, frozen, &mut NoTrace);
        self.frozen_ids.number(&mut translation.program);
        if self.megaflows.is_disabled() {
            return Err(Box::new(translation));
        }
        let from_tunnel = moment.is_uplink();
        let new = Remembered { key, from_tunnel, translation, epoch, now: moment.now };
        Ok(match found {
            Some(handle) => self.megaflows.renew(handle, port, new),
            None => self.megaflows.install(port, new),
        })
    }

    /// Something was not done for the packet. Of several such things the last may be what
    /// it ends by; the others are failed copies.
    fn fail(&mut self, fate: &mut Fate, failure: Failure) {
        if let Some(earlier) = fate.failure.replace(failure).filter(|earlier| !earlier.is_meant) {
            self.books.lost_copy((earlier.reason, earlier.rule.as_ref(), earlier.meter));
        }
    }

    /// The tracker, made when it is first needed unless one was given.
    fn tracker(&mut self) -> &Conntrack {
        let seed = self.seed;
        self.conntrack.get_or_insert_with(|| {
            let config = Config { seed, ..Config::default() };
            Arc::new(Conntrack::new(config, Storage::on_heap(DEFAULT_CONNECTIONS)))
        })
    }
}

/// A packet that no connection can have.
const NOT_IP: View = View {
    tuple: Tuple { zone: 0, ipv6: false, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0 },
    l4: L4::Invalid,
};

/// The tuple of a packet after edits.
fn overlay(tuple: &mut Tuple, edits: &[FieldEdit]) {
    let is_icmp = tuple.is_icmp();
    for FieldEdit { field, value, mask } in edits {
        let (value, mask) = (*value, *mask);
        let port = |old: u16, shift: u32| {
            let (value, mask) = ((value << shift) as u16, (mask << shift) as u16);
            old & !mask | value & mask
        };
        match field {
            Field::NwSrc | Field::Ipv6Src => tuple.src = tuple.src & !mask | value & mask,
            Field::NwDst | Field::Ipv6Dst => tuple.dst = tuple.dst & !mask | value & mask,
            Field::TcpSrc | Field::UdpSrc | Field::SctpSrc => tuple.src_port = port(tuple.src_port, 0),
            Field::TcpDst | Field::UdpDst | Field::SctpDst => tuple.dst_port = port(tuple.dst_port, 0),
            Field::IcmpType | Field::Icmpv6Type if is_icmp => tuple.dst_port = port(tuple.dst_port, 8),
            Field::IcmpCode | Field::Icmpv6Code if is_icmp => tuple.dst_port = port(tuple.dst_port, 0),
            _ => {}
        }
    }
}
