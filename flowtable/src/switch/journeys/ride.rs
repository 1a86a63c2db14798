//! The short way of a packet whose conversation has a journey.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    vec,
};

use super::{Ends, Journey, Said, Way, rewrite::readdress};
use crate::{
    cache::{Handle, Megaflows},
    conntrack::{Conntrack, Directions, Place, Touched, Tuple, View},
    drop::DropReason,
    execute,
    packet::{FrameBuf, Packet},
    program::FieldEdit,
    switch::{
        Moment, Sink, Stage, Switch,
        books::Totals,
        recirculate::{Failure, Fate, overlay},
        run::{Sender, send},
    },
    types::Timestamp,
};

/// The tuple of a packet after edits.
pub(super) fn after(tuple: &Tuple, edits: &[FieldEdit]) -> Tuple {
    let mut tuple = *tuple;
    overlay(&mut tuple, edits);
    tuple
}

impl Said {
    /// The connection in this slot is the one that said so.
    fn place(&self, slot: u32) -> Place {
        let Said { direction, translates, identity, .. } = *self;
        Place { slot, direction, translates, identity }
    }

    fn says(&self, touched: &Touched) -> bool {
        (touched.state, touched.mark, touched.label) == (self.state, self.mark, self.label)
    }
}

impl Way {
    /// What the entries say only changes with the version.
    fn rests_on_nothing(&self, megaflows: &Megaflows) -> bool {
        let rests_not = |(handle, _): &(Handle, Arc<_>)| {
            megaflows.get(*handle).is_some_and(|entry| entry.rests_on_nothing())
        };
        rests_not(&self.from) && self.entries.iter().all(rests_not)
    }
}

impl Journey {
    /// The tracker says of the packet what it said when the journey was noted, of the same connections.
    #[inline]
    fn is_known<B: FrameBuf>(&self, tracker: &Conntrack, now: Timestamp, packet: &Packet<B>) -> bool {
        if let Some(emit) = &self.emit {
            let view = tracker.view_of_plain(packet, &self.signature);
            return self.is_known_at_length(tracker, now, &view, &emit.edits);
        }
        let l4 = tracker.l4_of_plain(packet, &self.signature);
        let (came_as, leaves_as) = (Ends::of(&self.signature), self.rewrite.ends);
        self.way.said.iter().zip(self.slots).all(|(said, slot)| {
            let own = if said.is_translated { leaves_as } else { came_as };
            let answer = if said.translates { leaves_as } else { own }.reversed();
            let directions =
                Directions { own: (own.addresses, own.ports), answer: (answer.addresses, answer.ports) };
            let touched = tracker.touch_short(now, &l4, &said.place(slot), &directions);
            touched.is_some_and(|touched| said.says(&touched))
        })
    }

    #[inline(never)]
    fn is_known_at_length(
        &self,
        tracker: &Conntrack,
        now: Timestamp,
        view: &View,
        edits: &[FieldEdit],
    ) -> bool {
        let leaves_as = after(&view.tuple, edits);
        self.way.said.iter().zip(self.slots).all(|(said, slot)| {
            let (zone, tuple) = (said.zone, if said.is_translated { leaves_as } else { view.tuple });
            let seen = View { tuple: Tuple { zone, ..tuple }, ..*view };
            let touched = tracker.touch_at(now, &seen, &said.place(slot), &Tuple { zone, ..leaves_as });
            touched.is_some_and(|touched| said.says(&touched))
        })
    }

    /// Makes of the packet what leaves.
    #[inline]
    fn change<B: FrameBuf>(&self, packet: &mut Packet<B>) -> Result<(), DropReason> {
        if self.way.rewrites {
            self.rewrite.apply(packet);
        }
        if let Some(macs) = &self.way.macs {
            readdress(packet, macs);
        }
        let Some(header) = &self.way.tunnel else { return Ok(()) };
        let ecn = self.rewrite.tos & 3;
        execute::encapsulate_marked(packet, header, (Some(ecn), self.flow_hash))
    }
}

impl Switch {
    /// All of the way of the next packet, which is on a journey. If it turns out that it is not, it stays where
    /// it is, as if nothing were known of it.
    #[inline(never)]
    pub(in crate::switch) fn ride_next<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        idx: usize,
        packets: &mut vec::Drain<'_, Packet<B>>,
        (totals, sink): (&mut Totals, &mut S),
    ) -> bool {
        sink.enter(Stage::Track);
        let is_right = packets.as_slice().first().is_some_and(|packet| self.is_right(moment, idx, packet));
        sink.enter(Stage::Execute);
        if !is_right {
            self.lanes.forget(idx);
            return false;
        }
        packets.next().is_some_and(|packet| self.ride_journey(moment, idx, packet, (totals, sink)))
    }

    #[inline(always)]
    fn ride_journey<B: FrameBuf, S: Sink<B>>(
        &mut self,
        moment: &Moment<'_>,
        idx: usize,
        mut packet: Packet<B>,
        (totals, sink): (&mut Totals, &mut S),
    ) -> bool {
        let (at, lookup) = (self.lanes.journeys[idx], self.lanes.lookups[idx]);
        let Some(Some(journey)) = self.journeys.table.get(at as usize) else { return false };
        let n_bytes = self.lanes.lens[idx];
        let way = &journey.way;
        for (entry, _) in std::iter::once(&way.from).chain(&way.entries) {
            if let Some(entry) = self.megaflows.get_mut(*entry) {
                entry.count(moment.now, 1, n_bytes);
            }
        }
        self.books.all.n_recirculations += way.entries.len() as u64;
        self.journeys.n_rides += 1;
        let sent = match &journey.emit {
            None => match journey.change(&mut packet) {
                Ok(()) => {
                    sink.output(journey.way.port, packet);
                    Ok(())
                }
                Err(reason) => {
                    sink.release(packet);
                    Err(reason)
                }
            },
            Some(emit) => {
                let sender = Sender { key: None, hash: journey.flow_hash, now: moment.now };
                send(packet, emit, (sender, 0), &mut self.punts, sink)
            }
        };
        match sent {
            Ok(()) => totals.add(lookup, 1, n_bytes),
            Err(reason) => {
                self.books.found(lookup);
                self.books.received(1, n_bytes);
                let mut fate = Fate::default();
                self.fail(&mut fate, Failure::of(reason));
                self.settle(fate, n_bytes);
            }
        }
        true
    }

    /// The packet's journey is here, and does for it what the long way would. One that does not is removed.
    #[inline(always)]
    fn is_right<B: FrameBuf>(&mut self, moment: &Moment<'_>, idx: usize, packet: &Packet<B>) -> bool {
        let at = self.lanes.journeys[idx];
        // Earlier packets of the batch may have changed what was found.
        let is_there = self.lanes.n_journey_changes == self.journeys.n_changes
            || self.journeys.get(at, &self.lanes.signatures[idx]).is_some();
        let (Some(Some(journey)), Some(tracker), true) =
            (self.journeys.table.get(at as usize), self.conntrack.as_deref(), is_there)
        else {
            return false;
        };
        let is_seen = journey.way.seen_in.load(Relaxed) == self.journeys.n_batches
            && self.lanes.n_renewed == self.megaflows.n_renewed();
        let is_right = (is_seen || self.is_as_noted(moment, &journey.way))
            && journey.is_known(tracker, moment.now, packet);
        if !is_right {
            self.journeys.remove(at);
        }
        is_right
    }

    /// All entries are there, current, and do what they did.
    #[inline(never)]
    fn is_as_noted(&self, moment: &Moment<'_>, way: &Way) -> bool {
        let epoch = moment.snapshot.epoch;
        let does = |(handle, program): &(Handle, Arc<_>)| {
            let entry = self.megaflows.get(*handle);
            entry.is_some_and(|entry| Arc::ptr_eq(&entry.program, program))
                && self.megaflows.is_current(*handle, epoch)
        };
        let is_as_noted = does(&way.from) && way.entries.iter().all(does);
        if is_as_noted && way.rests_on_nothing(&self.megaflows) {
            way.seen_in.store(self.journeys.n_batches, Relaxed);
        }
        is_as_noted
    }
}
