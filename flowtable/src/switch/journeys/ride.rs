//! The short way of a packet whose conversation has a journey.

use std::sync::Arc;

use super::Said;
use crate::{
    cache::Handle,
    conntrack::{Tuple, View},
    hints::prefetch,
    packet::{FrameBuf, Packet},
    program::FieldEdit,
    switch::{
        Moment, Sink, Stage, Switch,
        recirculate::{Failure, Fate, overlay},
        run::{Sender, send},
    },
};

/// The tuple of a packet after edits.
pub(super) fn after(tuple: &Tuple, edits: &[FieldEdit]) -> Tuple {
    let mut tuple = *tuple;
    overlay(&mut tuple, edits);
    tuple
}

impl Switch {
    /// Where the journey of a packet is, of whose places the first is known; fetches what it will need.
    #[inline]
    pub(in crate::switch) fn fetch_journey(&self, idx: usize) -> Option<usize> {
        let from = self.lanes.lookups[idx].handle()?;
        let at = self.journeys.find(self.lanes.journeys[idx], &self.lanes.signatures[idx], from)?;
        let (journey, tracker) = (self.journeys.table.get(at)?.as_ref()?, self.conntrack.as_deref()?);
        prefetch(&*journey.emit);
        journey.emit.edits.first().into_iter().for_each(prefetch);
        journey.places[..journey.way.said.len()].iter().for_each(|place| tracker.fetch_place(place));
        Some(at)
    }

    /// All of the way of a packet, if its journey is here. One that is on none is given back.
    #[inline(never)]
    pub(in crate::switch) fn ride_journey<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        from: Handle,
        idx: usize,
        packet: Packet<B>,
        sink: &mut S,
    ) -> Option<Packet<B>> {
        let at = self.lanes.journeys[idx];
        // An earlier packet of the batch may have taken its place.
        if self.journeys.get(at, &self.lanes.signatures[idx], from).is_none() {
            return Some(packet);
        }
        if !self.is_as_noted(moment, from, at) || !self.touch_all(moment, idx, at, sink) {
            self.journeys.remove(at);
            return Some(packet);
        }
        self.journeys.n_rides += 1;
        let Some(journey) = &self.journeys.table[at] else { return Some(packet) };
        let n_bytes = self.lanes.lens[idx];
        self.books.received(1, n_bytes);
        for (entry, _) in &journey.way.entries {
            self.books.all.n_recirculations += 1;
            if let Some(entry) = self.megaflows.get_mut(*entry) {
                entry.count(moment.now, 1, n_bytes);
            }
        }
        let sender = Sender { key: None, hash: journey.flow_hash, now: moment.now };
        match send(packet, &journey.emit, (sender, 0), &mut self.punts, sink) {
            Ok(()) => self.books.forwarded(1),
            Err(reason) => {
                let mut fate = Fate::default();
                self.fail(&mut fate, Failure::of(reason));
                self.settle(fate, n_bytes);
            }
        }
        None
    }

    /// All entries are there, current, and do what they did.
    fn is_as_noted(&self, moment: &Moment<'_>, from: Handle, at: usize) -> bool {
        let Some(journey) = self.journeys.table.get(at).and_then(Option::as_ref) else { return false };
        let epoch = moment.snapshot.epoch;
        let does = |(handle, program): &(Handle, Arc<_>)| {
            let entry = self.megaflows.get(*handle);
            entry.is_some_and(|entry| Arc::ptr_eq(&entry.program, program))
                && self.megaflows.is_current(*handle, epoch)
        };
        let first = self.megaflows.get(from);
        first.is_some_and(|first| Arc::ptr_eq(&first.program, &journey.way.first))
            && journey.way.entries.iter().all(does)
    }

    /// The tracker says of the packet what it said when the journey was noted.
    fn touch_all<B, S: Sink<B>>(&self, moment: &Moment<'_>, idx: usize, at: usize, sink: &mut S) -> bool {
        let (Some(journey), Some(tracker)) =
            (self.journeys.table.get(at).and_then(Option::as_ref), self.conntrack.as_deref())
        else {
            return false;
        };
        sink.enter(Stage::Track);
        let view = &self.lanes.views[idx];
        let leaves_as = after(&view.tuple, &journey.emit.edits);
        let is_touched = journey.way.said.iter().zip(&journey.places).all(|(said, place)| {
            let Said { zone, state, mark, label, is_translated } = *said;
            let tuple = if is_translated { leaves_as } else { view.tuple };
            let seen = View { tuple: Tuple { zone, ..tuple }, ..*view };
            let touched = tracker.touch_at(moment.now, &seen, place, &Tuple { zone, ..leaves_as });
            touched
                .is_some_and(|touched| (touched.state, touched.mark, touched.label) == (state, mark, label))
        });
        sink.enter(Stage::Execute);
        is_touched
    }
}
