//! Programs that pass packets through the connection tracker: one packet at a time,
//! until nothing of it comes back, so that packets keep their order.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use super::{
    Moment, Sink, Stage, Switch,
    flow_hash::flow_hash,
    fragments::Whole,
    metered::Verdicts,
    rider::{Rider, Translated},
    run::{Sender, copy, send},
};
use crate::{
    cache::{Handle, Remembered},
    conntrack::{self, Config, Conntrack, Storage, Tuple, Verdict, View},
    drop::DropReason,
    execute,
    field::Field,
    flow::Rule,
    key::FlowKey,
    packet::{FrameBuf, Packet},
    pipeline::{self, Frozen, MAX_PASSES, NoTrace, Translation},
    program::{CtPass, Emit, FieldEdit, MeterStep, Program},
    types::{MeterId, PortNo, Timestamp},
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

    /// All of them by their numbers.
    pub(super) fn by_number(&self) -> HashMap<u32, Arc<Frozen>> {
        self.ids.iter().map(|(frozen, id)| (*id, Arc::clone(frozen))).collect()
    }

    /// The frozen walk with this number.
    #[cfg(test)]
    pub(super) fn get(&self, id: u32) -> Option<&Arc<Frozen>> {
        self.ids.iter().find(|(_, known)| **known == id).map(|(frozen, _)| frozen)
    }
}

/// What becomes of one packet and its copies.
#[derive(Default)]
pub(super) struct Fate {
    pub(super) sent: bool,
    /// Why something of it did not leave.
    pub(super) failure: Option<Failure>,
    pub(super) n_passes: usize,
}

pub(super) struct Failure {
    reason: DropReason,
    rule: Option<Arc<Rule>>,
    /// Rules drop it, as they should.
    is_meant: bool,
    /// A meter dropped it.
    meter: Option<MeterId>,
}

impl Failure {
    pub(super) fn of(reason: DropReason) -> Self {
        Self { reason, rule: None, is_meant: false, meter: None }
    }

    fn metered(step: &MeterStep) -> Self {
        let (rule, meter) = (Some(Arc::clone(&step.rule)), Some(step.meter.config().id));
        Self { reason: DropReason::Metered, rule, is_meant: false, meter }
    }
}

/// A packet that is only to be tracked.
struct Seen<'a, B> {
    view: View,
    in_port: PortNo,
    whole: Option<&'a Rc<Whole>>,
    translated: Option<Translated>,
    /// Itself, as long as it is there.
    packet: Option<&'a Packet<B>>,
}

/// How a packet goes on.
type Again<B> = Option<(Rider<B>, Arc<Program>)>;

impl Switch {
    /// Does with a packet what any program says, and enters what became of it.
    pub(super) fn carry_rider<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        rider: (Rider<B>, &mut FlowKey),
        n_bytes: u64,
        sink: &mut S,
    ) {
        self.books.received(1, n_bytes);
        let mut fate = Fate::default();
        self.ride(moment, program, rider, sink, &mut fate);
        self.settle(fate, n_bytes);
    }

    /// Enters what became of a packet.
    pub(super) fn settle(&mut self, fate: Fate, n_bytes: u64) {
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

    /// One pass after the other. The key is the packet's, and changes with it.
    pub(super) fn ride<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        (rider, key): (Rider<B>, &mut FlowKey),
        sink: &mut S,
        fate: &mut Fate,
    ) {
        let mut again = match (&program.emits[..], &program.meters[..]) {
            ([emit], []) if emit.forwards() && !program.has_side_effects() => {
                self.dispatch(moment, (emit, 0), (rider, key), sink, fate)
            }
            _ => self.execute(moment, program, (rider, key), sink, fate),
        };
        while let Some((rider, program)) = again {
            again = self.execute(moment, &program, (rider, key), sink, fate);
        }
    }

    /// Carries out a program; the last copy may have another pass before it.
    fn execute<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        (rider, key): (Rider<B>, &mut FlowKey),
        sink: &mut S,
        fate: &mut Fate,
    ) -> Again<B> {
        let Rider { packet, depth, mut view, whole, translated } = rider;
        self.teach(moment, &program.effects, packet.in_port);
        let steps = &program.meters[..];
        let verdicts = (!steps.is_empty())
            .then(|| Verdicts::measure(steps, moment.now, (packet.in_port, packet.len() as u64)));
        let n_levels = |idx| verdicts.as_ref().map_or(Ok(0), |verdicts| verdicts.of(steps, idx));
        let passes = |step| verdicts.as_ref().is_none_or(|verdicts| verdicts.passes(step));
        self.samples.show(&program.samples, &packet, passes);
        let mut emits = program.emits.iter().enumerate();
        // The last one that something becomes of takes the packet itself, unless a helper wants to
        // read it after that.
        let last = emits.rposition(|(idx, emit)| emit.leaves() && n_levels(idx).is_ok());
        // One that goes nowhere is still there when mirrors have their copies.
        let goes_on = |(idx, emit): (usize, &Emit)| emit.forwards() && n_levels(idx).is_ok();
        let last = last.filter(|_| program.emits.iter().enumerate().any(goes_on));
        let is_read = |emit: &Emit| emit.ct.as_ref().is_some_and(|pass| pass.request.alg.is_some());
        let last = last.filter(|last| !program.emits[last + 1..].iter().any(is_read));
        let in_port = packet.in_port;
        let mut packet = Some(packet);
        for (idx, emit) in program.emits.iter().enumerate() {
            let n_levels = match n_levels(idx) {
                Ok(n_levels) => n_levels,
                Err(step) if emit.is_mirrored() => {
                    self.books.metered_copy(step);
                    continue;
                }
                Err(step) => {
                    self.fail(fate, Failure::metered(step));
                    continue;
                }
            };
            if let Some(pass) = emit.ct.as_ref().filter(|pass| pass.next.is_none()) {
                // Known already where the packet itself is gone: only the last one takes it.
                let seen = view.or_else(|| packet.as_ref().map(|packet| self.tracker().view(packet)));
                view = seen;
                let seen = Seen {
                    view: seen.unwrap_or(View::NONE),
                    in_port,
                    whole: whole.as_ref(),
                    translated,
                    packet: packet.as_ref(),
                };
                self.note(moment, &seen, emit, pass, fate);
                continue;
            }
            let is_last = Some(idx) == last;
            if is_last && view.is_none() && idx + 1 < program.emits.len() {
                view = packet.as_ref().map(|packet| self.tracker().view(packet));
            }
            let copied = match (if is_last { packet.take() } else { None }, &packet) {
                (Some(own), _) => Ok(own),
                (None, Some(packet)) => copy(packet, sink),
                (None, None) => continue,
            };
            let packet = match copied {
                Ok(packet) => packet,
                Err(reason) if emit.is_mirrored() => {
                    self.books.failed_copy(reason);
                    continue;
                }
                Err(reason) => {
                    self.fail(fate, Failure::of(reason));
                    continue;
                }
            };
            let rider = Rider { packet, depth, view, whole: whole.clone(), translated };
            if is_last && idx + 1 == program.emits.len() {
                return self.dispatch(moment, (emit, n_levels), (rider, key), sink, fate);
            }
            let mut key = *key;
            if let Some((rider, program)) =
                self.dispatch(moment, (emit, n_levels), (rider, &mut key), sink, fate)
            {
                self.ride(moment, &program, (rider, &mut key), sink, fate);
            }
        }
        if let Some(packet) = packet {
            match (&fate.failure, &program.drop) {
                _ if fate.sent => sink.release(packet),
                (Some(by), _) if by.meter.is_some() => {
                    sink.drop_packet(packet, by.reason, by.rule.as_ref());
                }
                (None, Some(cause)) => sink.drop_packet(packet, cause.reason, cause.rule.as_ref()),
                (Some(_), _) | (None, None) => sink.release(packet),
            }
            if let (None, Some(cause)) = (&fate.failure, &program.drop) {
                let (reason, rule) = (cause.reason, cause.rule.clone());
                fate.failure = Some(Failure { rule, is_meant: true, ..Failure::of(reason) });
            }
        }
        None
    }

    /// A copy leaves, or goes through the tracker into the next pass.
    fn dispatch<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (emit, n_levels): (&Emit, u8),
        (mut rider, key): (Rider<B>, &mut FlowKey),
        sink: &mut S,
        fate: &mut Fate,
    ) -> Again<B> {
        let Some((pass, next)) = emit.ct.as_ref().and_then(|pass| Some((pass, pass.next.as_ref()?))) else {
            let hash = if emit.tunnel.is_some() { flow_hash(key) } else { 0 };
            if let Some(recording) = &mut self.journeys.recording {
                recording.leave(emit, *key, hash);
            }
            let sender = Sender { key: Some(key), hash, now: moment.now };
            match send(rider.packet, emit, (sender, n_levels), &mut self.punts, sink) {
                Ok(()) => fate.sent |= !emit.is_mirrored(),
                Err(reason) if emit.is_mirrored() => self.books.failed_copy(reason),
                Err(reason) => self.fail(fate, Failure::of(reason)),
            }
            return None;
        };
        fate.n_passes += 1;
        let tracked = if rider.depth >= MAX_PASSES || fate.n_passes > MAX_RECIRCULATIONS {
            Err(DropReason::RecircLimit)
        } else {
            sink.enter(Stage::Track);
            self.pass(moment, (emit, n_levels), (pass, next), &mut rider, key)
        };
        sink.enter(Stage::Megaflow);
        match tracked {
            Ok(()) => {
                rider.depth += 1;
                let program = self.next_program(moment, next, &rider, key);
                sink.enter(Stage::Execute);
                Some((rider, program))
            }
            Err(reason) => {
                sink.drop_packet(rider.packet, reason, None);
                self.fail(fate, Failure::of(reason));
                None
            }
        }
    }

    /// Carries out the edits, asks the tracker, translates; makes of the key that of the next
    /// pass.
    fn pass<B: FrameBuf>(
        &mut self,
        moment: &Moment<'_>,
        (emit, n_levels): (&Emit, u8),
        (pass, next): (&CtPass, &Frozen),
        rider: &mut Rider<B>,
        key: &mut FlowKey,
    ) -> Result<(), DropReason> {
        let mut is_changed = n_levels != 0 || !emit.leaves_frame();
        if is_changed {
            execute::apply_remarked(&mut rider.packet, emit, 0, n_levels)?;
        }
        let view = match (rider.view, &rider.whole) {
            (Some(view), Some(_)) => overlaid(view, &emit.edits),
            (Some(view), None) if !is_changed => view,
            _ => self.tracker().view(&rider.packet),
        };
        rider.view = Some(view);
        let request = conntrack::Request { in_port: rider.packet.in_port.get() as u16, ..pass.request };
        let before = Translated::known(rider.translated, request.zone, &view);
        let tracker = self.tracker();
        let seen = (moment.now, &request, before.as_ref().unwrap_or(&view));
        let verdict = track(tracker, seen, rider.whole.as_ref())?;
        if let Some(recording) = &mut self.journeys.recording {
            recording.track(&request, seen.2, &verdict);
        }
        let tracker = self.tracker();
        if before.is_none() {
            is_changed |= rider.translate(tracker, seen, &verdict)?;
        }
        rider.finish_pass((pass, next), &verdict, is_changed, key)
    }

    /// Tracks a packet of which nothing comes back: there is no need for a copy.
    fn note<B: FrameBuf>(
        &mut self,
        moment: &Moment<'_>,
        seen: &Seen<'_, B>,
        emit: &Emit,
        pass: &CtPass,
        fate: &mut Fate,
    ) {
        let view = overlaid(seen.view, &emit.edits);
        let request = conntrack::Request { in_port: seen.in_port.get() as u16, ..pass.request };
        let before = Translated::known(seen.translated, request.zone, &view);
        let view = before.unwrap_or(view);
        let tracker = self.tracker();
        let verdict = track(tracker, (moment.now, &request, &view), seen.whole);
        let helped = verdict.and_then(|verdict| match (seen.packet, seen.whole, before) {
            // What is announced stays as it is: nothing of this copy goes on.
            (Some(packet), None, None) if verdict.alg.is_some() => {
                tracker.help((moment.now, &request), (&view, &verdict), packet).map(|_| ())
            }
            _ => Ok(()),
        });
        if let Err(reason) = helped {
            self.fail(fate, Failure::of(reason));
        }
    }

    /// What the tables make of a packet that comes back.
    pub(super) fn next_program<B: FrameBuf>(
        &mut self,
        moment: &Moment<'_>,
        frozen: &Frozen,
        rider: &Rider<B>,
        key: &FlowKey,
    ) -> Arc<Program> {
        self.books.all.n_recirculations += 1;
        if let Some(reason) = self.refusal(moment, rider.packet.in_port, key) {
            return Arc::new(Program::dropping(reason));
        }
        let n_bytes = rider.packet.len() as u64;
        match self.resolve_frozen(moment, rider.packet.in_port, key, frozen) {
            Ok(handle) => match self.megaflows.get_mut(handle) {
                Some(entry) => {
                    entry.count(moment.now, 1, n_bytes);
                    if let Some(recording) = &mut self.journeys.recording {
                        recording.enter(handle, &entry.program);
                    }
                    Arc::clone(&entry.program)
                }
                // Resolving has just found it; should that ever be wrong, do without.
                None => {
                    Arc::new(pipeline::translate_frozen(moment.snapshot, key, frozen, &mut NoTrace).program)
                }
            },
            Err(translation) => {
                translation.tally.credit(&translation.rules, 1, n_bytes, moment.now);
                Arc::new(translation.program)
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
        let mut translation =
            pipeline::translate_recalling(moment.snapshot, key, Some(frozen), &mut self.recent);
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
    pub(super) fn fail(&mut self, fate: &mut Fate, failure: Failure) {
        if let Some(earlier) = fate.failure.replace(failure).filter(|earlier| !earlier.is_meant) {
            self.books.lost_copy((earlier.reason, earlier.rule.as_ref(), earlier.meter));
        }
    }

    /// The tracker, made when it is first needed unless one was given.
    pub(super) fn tracker(&mut self) -> &Conntrack {
        let seed = self.seed;
        self.conntrack.get_or_insert_with(|| {
            let config = Config { seed, ..Config::default() };
            Arc::new(Conntrack::new(config, Storage::on_heap(DEFAULT_CONNECTIONS)))
        })
    }
}

/// Asks the tracker; about a fragment, once for the whole packet.
fn track(
    tracker: &Conntrack,
    (now, request, view): (Timestamp, &conntrack::Request, &View),
    whole: Option<&Rc<Whole>>,
) -> Result<Verdict, DropReason> {
    match whole {
        None => tracker.track(now, request, view),
        Some(whole) => whole.track(tracker, (now, request, view)),
    }
}

/// A view of a packet after edits.
fn overlaid(mut view: View, edits: &[FieldEdit]) -> View {
    overlay(&mut view.tuple, edits);
    view
}

/// The tuple of a packet after edits.
pub(super) fn overlay(tuple: &mut Tuple, edits: &[FieldEdit]) {
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
