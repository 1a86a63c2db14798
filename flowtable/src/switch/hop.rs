//! The short way through the tracker. Most packets that are tracked are asked about as they
//! came, belong to a connection that is known, and leave as they came: for these there is
//! no copy, no new key and no parsing between the passes. Everything else takes the long
//! way (`recirculate.rs`), from wherever this one ends.

use std::sync::Arc;

use super::{
    Moment, Sink, Stage, Switch,
    passes::{End, Way, follows},
    recirculate::{Failure, Fate},
    rider::Rider,
};
use crate::{
    cache::{Handle, Megaflow},
    conntrack::{L4, Request, Touched, Untouched, Verdict, View},
    packet::{FrameBuf, Packet},
    pipeline::{self, Frozen, NoTrace},
    program::{CtPass, Emit, Program},
};

/// The way through the tracker of a program that does nothing else.
fn only_pass(program: &Program) -> Option<(&Emit, &CtPass, &Frozen)> {
    let ([emit], []) = (&program.emits[..], &program.meters[..]) else { return None };
    if program.has_side_effects() {
        return None;
    }
    let pass = emit.ct.as_ref()?;
    let next = pass.next.as_ref()?;
    emit.leaves_frame().then_some((emit, pass, next))
}

/// Where a program sends the packet as it is, and what it has the tracker note before that.
fn plain_end(program: &Program) -> Option<(Option<&CtPass>, &Emit)> {
    if !program.meters.is_empty() || program.has_side_effects() {
        return None;
    }
    match &program.emits[..] {
        [emit] if emit.is_plain() => Some((None, emit)),
        [note, emit] if emit.is_plain() && note.leaves_frame() => {
            let pass = note.ct.as_ref().filter(|pass| pass.next.is_none() && pass.request.alg.is_none())?;
            Some((Some(pass), emit))
        }
        _ => None,
    }
}

/// Committing a connection that is known changes nothing that the first look at this packet
/// has not changed.
fn repeats(commit: &Request, first: &Request) -> bool {
    commit.zone == first.zone && !commit.force && commit.mark.1 == 0 && commit.label.1 == 0
}

/// How a packet will be tracked as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop {
    zone: u16,
    /// It is translated if its connection is.
    translates: bool,
    /// A connection that is known stays as it is.
    only_looks: bool,
    hash: u32,
    /// Where its connection most likely is.
    likely: Option<(u32, usize)>,
}

/// What the tracker has said of a packet.
pub(super) enum Seen {
    /// It was not asked, or has not answered.
    Nothing,
    /// There is no such connection.
    Unknown,
    /// There is one.
    Touched(Touched),
}

/// How an entry has its packets tracked, if that is as they come.
fn hop_of(entry: &Megaflow) -> Option<Hop> {
    let (_, pass, _) = if entry.is_alone { only_pass(&entry.program)? } else { return None };
    let Request { zone, nat, commit, .. } = pass.request;
    Some(Hop { zone, translates: nat.is_some(), only_looks: !commit, hash: 0, likely: None })
}

impl Switch {
    /// Of packets that will be tracked as they came, most need no key.
    pub(super) fn spare_keys(&mut self, n: usize) {
        let lanes = &mut *self.lanes;
        // Neighbours often have the same entry.
        let mut last = (None, true);
        for idx in 0..n {
            if lanes.needs_key[idx] && lanes.has_signature[idx] {
                let handle = lanes.lookups[idx].handle();
                if last.0 != handle {
                    let entry = handle.and_then(|handle| self.megaflows.get(handle));
                    last = (handle, entry.is_none_or(|entry| only_pass(&entry.program).is_none()));
                }
                lanes.needs_key[idx] = last.1;
            }
        }
    }

    /// Reads packets that will be tracked, and fetches where their connections are: for all of
    /// the batch at a time, so that the accesses do not wait for each other.
    pub(super) fn look_ahead<B: FrameBuf>(&mut self, packets: &[Packet<B>]) {
        let lanes = &mut *self.lanes;
        lanes.hops[..packets.len()].fill(None);
        let Some(tracker) = self.conntrack.as_deref() else { return };
        lanes.n_renewed = self.megaflows.n_renewed();
        // Neighbours often have the same entry.
        let mut last = (None, None);
        for (idx, packet) in packets.iter().enumerate() {
            let is_hop = lanes.current[idx] && !lanes.is_riding(idx);
            let Some(handle) = lanes.lookups[idx].handle().filter(|_| is_hop) else { continue };
            if last.0 != Some(handle) {
                last = (Some(handle), self.megaflows.get(handle).and_then(hop_of));
            }
            let Some(mut hop) = last.1 else { continue };
            lanes.views[idx] = match lanes.has_signature[idx] {
                true => tracker.view_of_plain(packet, &lanes.signatures[idx]),
                false if lanes.is_fragment(idx) => continue,
                false => tracker.view(packet),
            };
            hop.hash = tracker.hash_of(hop.zone, &lanes.views[idx]);
            lanes.hops[idx] = Some(hop);
        }
        for hop in lanes.hops[..packets.len()].iter_mut().flatten() {
            hop.likely = tracker.fetch(hop.hash);
        }
    }

    /// All of the way of a packet whose connection is known, and what follows from that.
    /// Anything else is given back, with what the tracker said if it was asked.
    #[inline]
    pub(super) fn hop_known<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        from: Handle,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) -> Option<(Packet<B>, Seen)> {
        self.journeys.is_to_note = None;
        let is_unchanged = self.lanes.n_renewed == self.megaflows.n_renewed();
        let hop = self.lanes.hops[idx].filter(|hop| hop.only_looks && is_unchanged);
        let (Some(tracker), Some(Hop { zone, translates, hash, likely, .. })) =
            (self.conntrack.as_deref(), hop)
        else {
            return Some((packet, Seen::Nothing));
        };
        let view = &self.lanes.views[idx];
        sink.enter(Stage::Track);
        let touched = tracker.touch(moment.now, (zone, translates), view, (hash, likely));
        sink.enter(Stage::Execute);
        let touched = match touched {
            Ok(touched) => touched,
            Err(Untouched::Unknown) => return Some((packet, Seen::Unknown)),
            Err(Untouched::Other) => return Some((packet, Seen::Nothing)),
        };
        let way = self.megaflows.get(from).map(|first| self.passes.find(from, &first.program, &touched));
        let notes = self.journeys.notes(touched.state);
        self.journeys.is_to_note = Some(notes);
        let Some(Way::Short(end)) = way.filter(|_| !notes) else {
            return Some((packet, Seen::Touched(touched)));
        };
        let repeats = !end.is_noted || !matches!(view.l4, L4::Tcp(_));
        let is_current = repeats && self.megaflows.is_current(end.to, moment.snapshot.epoch);
        let second = if is_current { self.megaflows.get_mut(end.to) } else { None };
        let Some(second) = second.filter(|second| Arc::ptr_eq(&second.program, &end.program)) else {
            return Some((packet, Seen::Touched(touched)));
        };
        let n_bytes = self.lanes.lens[idx];
        second.count(moment.now, 1, n_bytes);
        self.books.received(1, n_bytes);
        self.books.all.n_recirculations += 1;
        sink.output(end.port, packet);
        self.books.forwarded(1);
        None
    }

    /// Does with one packet what its entry says, with what the tracker has said of it if it
    /// was asked.
    pub(super) fn carry_first<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (from, seen): (Handle, Seen),
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        // The entry may have become such a one within the pass.
        self.lanes.ensure_key(moment, idx, &packet);
        let program = match self.megaflows.get(from) {
            Some(entry) => Arc::clone(&entry.program),
            // Resolving has just found it; should that ever be wrong, do without.
            None => {
                let key = self.lanes.key(idx);
                let mut translation = pipeline::translate(moment.snapshot, key, &mut NoTrace);
                self.frozen_ids.number(&mut translation.program);
                Arc::new(translation.program)
            }
        };
        match (self.lanes.hops[idx], only_pass(&program)) {
            (Some(hop), Some((_, pass, next))) => {
                self.books.received(1, self.lanes.lens[idx]);
                self.hop(moment, (&program, pass, next), (idx, hop), (from, seen), packet, sink);
                self.keep_record(moment.is_uplink());
            }
            _ => self.carry_alone(moment, &program, idx, packet, sink),
        }
    }

    /// Does with one packet what a program with `ct` says.
    pub(super) fn carry_tracked<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        if self.lanes.is_fragment(idx) {
            return self.gather(moment, program, idx, packet, sink);
        }
        sink.enter(Stage::Track);
        let (n_bytes, mut key) = (self.lanes.lens[idx], *self.lanes.key(idx));
        self.carry_rider(moment, program, (Rider::fresh(packet), &mut key), n_bytes, sink);
    }

    /// The first pass, and the second one when it is the last.
    fn hop<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (program, pass, next): (&Arc<Program>, &CtPass, &Frozen),
        (idx, hop): (usize, Hop),
        (from, seen): (Handle, Seen),
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let (n_bytes, in_port) = (self.lanes.lens[idx], packet.in_port.get() as u16);
        let (view, tracker) = (self.lanes.views[idx], self.tracker());
        // The rules may have changed within the batch.
        let zone = pass.request.zone;
        let hash = if hop.zone == zone { hop.hash } else { tracker.hash_of(zone, &view) };
        let touched = if let Seen::Touched(touched) = seen { Some(touched) } else { None };
        let is_unknown = matches!(seen, Seen::Unknown);
        let tracked = match touched.and_then(|touched| tracker.verdict_of(zone, &view, &touched)) {
            Some(verdict) => Ok(verdict),
            None => tracker.track_as((moment.now, in_port), &pass.request, &view, (hash, is_unknown)),
        };
        let verdict = match tracked {
            Ok(verdict) => verdict,
            Err(reason) => {
                sink.drop_packet(packet, reason, None);
                self.books.dropped(0, reason, None, n_bytes);
                return;
            }
        };
        if hop.only_looks {
            self.record(moment.in_port, (idx, from), program, (&pass.request, &view, &verdict));
        }
        if verdict.rewrite.is_some() || verdict.alg.is_some() {
            return self.hop_changed(moment, (pass, next), (idx, &verdict, view), packet, sink);
        }
        let key = &mut self.lanes.keys[idx];
        next.restore(key);
        key.recirc_id.set(pass.recirc_id);
        if next.knows_connection() {
            pipeline::set_connection(key, zone, &verdict);
        }
        sink.enter(Stage::Megaflow);
        let found = self.megaflows.find(packet.in_port, key);
        let epoch = moment.snapshot.epoch;
        let current = found.filter(|handle| self.megaflows.is_current(*handle, epoch));
        let entry = current.and_then(|handle| Some((handle, self.megaflows.get_mut(handle)?)));
        let Some((to, entry)) = entry else {
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            return self.hop_on(moment, next, idx, rider, sink);
        };
        sink.enter(Stage::Execute);
        self.books.all.n_recirculations += 1;
        entry.count(moment.now, 1, n_bytes);
        let second = Arc::clone(&entry.program);
        if let Some(recording) = &mut self.journeys.recording {
            recording.enter(to, &second);
        }
        let end = plain_end(&second);
        if let Some(touched) = touched {
            self.learn_way((from, program), (to, &second), end.map(|end| (pass, end)), &touched);
        }
        if let Some(recording) = &mut self.journeys.recording {
            match end {
                Some((None, emit)) => recording.leave(emit, *self.lanes.key(idx), 0),
                Some(_) => recording.give_up(),
                None => {}
            }
        }
        let Some((note, emit)) = end else {
            let (mut fate, mut key) = (Fate { n_passes: 1, ..Fate::default() }, *self.lanes.key(idx));
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            self.ride(moment, &second, (rider, &mut key), sink, &mut fate);
            return self.settle(fate, n_bytes);
        };
        if let (Some(note), Some(tracker)) = (note, self.conntrack.as_deref()) {
            let same = note.request.zone == zone;
            let hash =
                if same { (hash, is_unknown) } else { (tracker.hash_of(note.request.zone, &view), false) };
            let noted = tracker.track_as((moment.now, in_port), &note.request, &view, hash);
            let helped = noted.and_then(|verdict| match verdict.alg {
                // In another zone the connection may have a helper that this one has not.
                Some(_) => tracker.help((moment.now, &note.request), (&view, &verdict), &packet).map(|_| ()),
                None => Ok(()),
            });
            if let Err(reason) = helped {
                self.books.failed_copy(reason);
            }
        }
        sink.output(emit.port, packet);
        self.books.forwarded(1);
    }

    /// Remembers where packets end of which the tracker says this, unless it is known.
    fn learn_way(
        &mut self,
        (from, program): (Handle, &Arc<Program>),
        (to, second): (Handle, &Arc<Program>),
        end: Option<(&CtPass, (Option<&CtPass>, &Emit))>,
        said: &Touched,
    ) {
        if !matches!(self.passes.find(from, program, said), Way::Unknown) {
            return;
        }
        let short =
            end.filter(|(pass, (note, _))| note.is_none_or(|note| repeats(&note.request, &pass.request)));
        let masks = self.megaflows.mask_of(from).zip(self.megaflows.mask_of(to));
        let end = short.filter(|_| masks.is_some_and(|(first, second)| follows(&first, &second)));
        let end = end.map(|(_, (note, emit))| End {
            to,
            program: Arc::clone(second),
            port: emit.port,
            is_noted: note.is_some(),
        });
        self.passes.remember((from, program), said, end);
    }

    /// A second pass that no entry is known for.
    fn hop_on<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        next: &Frozen,
        idx: usize,
        rider: Rider<B>,
        sink: &mut S,
    ) {
        let (n_bytes, mut key) = (self.lanes.lens[idx], self.lanes.keys[idx]);
        let mut fate = Fate { n_passes: 1, ..Fate::default() };
        let program = self.next_program(moment, next, &rider, &key);
        self.ride(moment, &program, (rider, &mut key), sink, &mut fate);
        self.settle(fate, n_bytes);
    }

    /// A first pass that translates the packet.
    fn hop_changed<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (pass, next): (&CtPass, &Frozen),
        (idx, verdict, view): (usize, &Verdict, View),
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let n_bytes = self.lanes.lens[idx];
        let mut key = self.lanes.keys[idx];
        let mut rider = Rider { view: Some(view), ..Rider::fresh(packet) };
        let seen = (moment.now, &pass.request, &view);
        let changed = rider.translate(self.tracker(), seen, verdict);
        let finished =
            changed.and_then(|is_changed| rider.finish_pass((pass, next), verdict, is_changed, &mut key));
        self.lanes.keys[idx] = key;
        if let Err(reason) = finished {
            sink.drop_packet(rider.packet, reason, None);
            let mut fate = Fate::default();
            self.fail(&mut fate, Failure::of(reason));
            return self.settle(fate, n_bytes);
        }
        rider.depth = 2;
        self.hop_on(moment, next, idx, rider, sink);
    }
}
