//! The short way through the tracker. Most packets that are tracked are asked about as they
//! came, belong to a connection that is known, and leave as they came: for these there is
//! no copy, no new key and no parsing between the passes. Everything else takes the long
//! way (`recirculate.rs`), from wherever this one ends.

use std::sync::Arc;

use super::{
    Moment, Sink, Switch,
    passes::{End, Way, follows},
    recirculate::{Failure, Fate},
    rider::Rider,
};
use crate::{
    cache::Handle,
    conntrack::{L4, Request, Verdict, View},
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

impl Switch {
    /// Of packets that will be tracked as they came, most need no key.
    pub(super) fn spare_keys(&mut self, n: usize) {
        let lanes = &mut *self.lanes;
        for idx in 0..n {
            if lanes.needs_key[idx] && lanes.has_signature[idx] {
                let entry = lanes.lookups[idx].handle().and_then(|handle| self.megaflows.get(handle));
                lanes.needs_key[idx] = entry.is_none_or(|entry| only_pass(&entry.program).is_none());
            }
        }
    }

    /// Reads packets that will be tracked, and fetches where their connections are: for all of
    /// the batch at a time, so that the accesses do not wait for each other.
    pub(super) fn look_ahead<B: FrameBuf>(&mut self, packets: &[Packet<B>]) {
        let Some(tracker) = self.conntrack.as_deref() else { return };
        let lanes = &mut *self.lanes;
        for (idx, packet) in packets.iter().enumerate() {
            lanes.views[idx] = None;
            let handle = lanes.lookups[idx].handle().filter(|_| lanes.current[idx]);
            let Some(entry) = handle.and_then(|handle| self.megaflows.get_mut(handle)) else { continue };
            if !entry.is_alone || lanes.is_fragment(idx) {
                continue;
            }
            if let Some((_, pass, _)) = only_pass(&entry.program) {
                let view = tracker.view(packet);
                let zone = pass.request.zone;
                lanes.views[idx] = Some((view, zone, tracker.hash_of(zone, &view)));
            }
        }
        for (_, _, hash) in lanes.views.iter().take(packets.len()).flatten() {
            tracker.fetch(*hash);
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
    ) -> Option<(Packet<B>, Option<Verdict>)> {
        let seen = self.lanes.views[idx].as_ref();
        let (Some(tracker), Some((view, zone, hash)), Some(first)) =
            (self.conntrack.as_deref(), seen, self.megaflows.get(from))
        else {
            return Some((packet, None));
        };
        // The rules may have changed within the batch.
        let pass = only_pass(&first.program).map(|(_, pass, _)| pass);
        let Some(pass) = pass.filter(|pass| pass.request.zone == *zone) else { return Some((packet, None)) };
        let Some(verdict) = tracker.touch(moment.now, &pass.request, view, *hash) else {
            return Some((packet, None));
        };
        let Way::Short(end) = self.passes.find(from, &first.program, &verdict) else {
            return Some((packet, Some(verdict)));
        };
        let repeats = !end.is_noted || !matches!(view.l4, L4::Tcp(_) | L4::Sctp { .. });
        let is_current = self.megaflows.is_current(end.to, moment.snapshot.epoch);
        let second = if repeats && is_current { self.megaflows.get_mut(end.to) } else { None };
        let Some(second) = second.filter(|second| Arc::ptr_eq(&second.program, &end.program)) else {
            return Some((packet, Some(verdict)));
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
        (from, verdict): (Handle, Option<Verdict>),
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
        match (self.lanes.views[idx].take(), only_pass(&program)) {
            (Some(seen), Some((_, pass, next))) if !self.lanes.is_fragment(idx) => {
                self.books.received(1, self.lanes.lens[idx]);
                let way = (&program, pass, next);
                self.hop(moment, way, (idx, seen), (from, verdict), packet, sink);
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
        let (n_bytes, mut key) = (self.lanes.lens[idx], *self.lanes.key(idx));
        self.carry_rider(moment, program, (Rider::fresh(packet), &mut key), n_bytes, sink);
    }

    /// The first pass, and the second one when it is the last.
    fn hop<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (program, pass, next): (&Arc<Program>, &CtPass, &Frozen),
        (idx, (view, zone, hash)): (usize, (View, u16, u32)),
        (from, verdict): (Handle, Option<Verdict>),
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let (n_bytes, in_port) = (self.lanes.lens[idx], packet.in_port.get() as u16);
        let tracker = self.tracker();
        // The rules may have changed within the batch.
        let is_same = zone == pass.request.zone;
        let hash = if is_same { hash } else { tracker.hash_of(pass.request.zone, &view) };
        let tracked = match verdict {
            Some(verdict) => Ok(verdict),
            None => tracker.track_as((moment.now, in_port), &pass.request, &view, hash),
        };
        let verdict = match tracked {
            Ok(verdict) => verdict,
            Err(reason) => {
                sink.release(packet);
                self.books.dropped(0, reason, None, n_bytes);
                return;
            }
        };
        if verdict.rewrite.is_some() || verdict.alg.is_some() {
            return self.hop_changed(moment, (pass, next), (idx, &verdict, view), packet, sink);
        }
        let key = &mut self.lanes.keys[idx];
        next.restore(key);
        key.recirc_id.set(pass.recirc_id);
        if next.knows_connection() {
            pipeline::set_connection(key, pass.request.zone, &verdict);
        }
        let found = self.megaflows.find(packet.in_port, key);
        let epoch = moment.snapshot.epoch;
        let handle = found.filter(|handle| self.megaflows.is_current(*handle, epoch));
        let Some(entry) = handle.and_then(|handle| self.megaflows.get_mut(handle)) else {
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            return self.hop_on(moment, next, idx, rider, sink);
        };
        self.books.all.n_recirculations += 1;
        entry.count(moment.now, 1, n_bytes);
        let second = Arc::clone(&entry.program);
        let Some((note, emit)) = plain_end(&second) else {
            let (mut fate, mut key) = (Fate { n_passes: 1, ..Fate::default() }, *key);
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            self.ride(moment, &second, (rider, &mut key), sink, &mut fate);
            return self.settle(fate, n_bytes);
        };
        if let Some(to) = handle {
            let is_short = note.is_none_or(|note| repeats(&note.request, &pass.request));
            let end = End { to, program: Arc::clone(&second), port: emit.port, is_noted: note.is_some() };
            self.learn_way((from, program), &verdict, is_short.then_some(end));
        }
        if let (Some(note), Some(tracker)) = (note, self.conntrack.as_deref()) {
            let same = note.request.zone == pass.request.zone;
            let hash = if same { hash } else { tracker.hash_of(note.request.zone, &view) };
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
    fn learn_way(&mut self, (from, program): (Handle, &Arc<Program>), verdict: &Verdict, end: Option<End>) {
        if !matches!(self.passes.find(from, program, verdict), Way::Unknown) {
            return;
        }
        let megaflows = &self.megaflows;
        self.passes.remember(from, program, verdict, || {
            end.filter(|end| {
                let masks = megaflows.mask_of(from).zip(megaflows.mask_of(end.to));
                masks.is_some_and(|(first, second)| follows(&first, &second))
            })
        });
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
            sink.release(rider.packet);
            let mut fate = Fate::default();
            self.fail(&mut fate, Failure::of(reason));
            return self.settle(fate, n_bytes);
        }
        rider.depth = 2;
        self.hop_on(moment, next, idx, rider, sink);
    }
}
