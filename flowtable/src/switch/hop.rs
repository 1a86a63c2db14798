//! The short way through the tracker. Most packets that are tracked are asked about as they
//! came, belong to a connection that is known, and leave as they came: for these there is
//! no copy, no new key and no parsing between the passes. Everything else takes the long
//! way (`recirculate.rs`), from wherever this one ends.

use std::sync::Arc;

use super::{
    Moment, Sink, Stage, Switch,
    recirculate::{Failure, Fate},
    rider::Rider,
};
use crate::{
    conntrack::{Verdict, View},
    key::nw_frag,
    packet::{FrameBuf, Packet},
    pipeline::{self, Frozen},
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

impl Switch {
    /// Reads packets that will be tracked, and fetches where their connections are: for all of
    /// the batch at a time, so that the accesses do not wait for each other.
    pub(super) fn look_ahead<B: FrameBuf>(&mut self, packets: &[Packet<B>]) {
        let Some(tracker) = self.conntrack.as_deref() else { return };
        let lanes = &mut *self.lanes;
        for (idx, packet) in packets.iter().enumerate() {
            lanes.views[idx] = None;
            let handle = lanes.lookups[idx].handle().filter(|_| lanes.current[idx]);
            let Some(entry) = handle.and_then(|handle| self.megaflows.get_mut(handle)) else { continue };
            if !entry.is_alone || lanes.keys[idx].nw_frag & nw_frag::ANY != 0 {
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

    /// Does with one packet what a program with `ct` says.
    pub(super) fn carry_through<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        program: &Program,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) {
        if self.lanes.key(idx).nw_frag & nw_frag::ANY != 0 {
            return self.gather(moment, program, idx, packet, sink);
        }
        let n_bytes = self.lanes.lens[idx];
        match (self.lanes.views[idx].take(), only_pass(program)) {
            (Some(seen), Some(way)) => {
                self.books.received(1, n_bytes);
                sink.enter(Stage::Track);
                self.hop(moment, way, (idx, seen), packet, sink);
            }
            _ => {
                let mut key = *self.lanes.key(idx);
                self.carry_rider(moment, program, (Rider::fresh(packet), &mut key), n_bytes, sink);
            }
        }
    }

    /// The first pass, and the second one when it is the last.
    fn hop<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        (_, pass, next): (&Emit, &CtPass, &Frozen),
        (idx, (view, zone, hash)): (usize, (View, u16, u32)),
        packet: Packet<B>,
        sink: &mut S,
    ) {
        let (n_bytes, in_port) = (self.lanes.lens[idx], packet.in_port.get() as u16);
        let tracker = self.tracker();
        // The rules may have changed within the batch.
        let is_same = zone == pass.request.zone;
        let hash = if is_same { hash } else { tracker.hash_of(pass.request.zone, &view) };
        let verdict = match tracker.track_as((moment.now, in_port), &pass.request, &view, hash) {
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
        sink.enter(Stage::Megaflow);
        let found = self.megaflows.find(packet.in_port, key);
        let epoch = moment.snapshot.epoch;
        let handle = found.filter(|handle| self.megaflows.is_current(*handle, epoch));
        let Some(entry) = handle.and_then(|handle| self.megaflows.get_mut(handle)) else {
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            return self.hop_on(moment, next, idx, rider, sink);
        };
        sink.enter(Stage::Execute);
        self.books.all.n_recirculations += 1;
        entry.count(moment.now, 1, n_bytes);
        let Some((note, emit)) = plain_end(&entry.program) else {
            let program = Arc::clone(&entry.program);
            let (mut fate, mut key) = (Fate { n_passes: 1, ..Fate::default() }, *key);
            let rider = Rider { depth: 2, view: Some(view), ..Rider::fresh(packet) };
            self.ride(moment, &program, (rider, &mut key), sink, &mut fate);
            return self.settle(fate, n_bytes);
        };
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
