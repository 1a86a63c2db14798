//! What a pass teaches is taught before its copies go on through the tracker: the tables have been
//! walked to the pass's end by then (ovs-actions(7), `ct`: the copy is another packet, which comes
//! later). Here copies go on at once, where `ct` stands. So a pass that may teach is rehearsed first,
//! without its copies: that tells what it teaches, and where stations were when it asked.
//!
//! A pass behind a translation begins in the middle of an action list, and ends where that ends. So
//! there is no way to come back to its beginning but to walk all of the way again.

use std::collections::BTreeMap;

use super::{
    lessons::Sighting,
    walk::{Stop, Walk, Way},
};
use crate::syntax::Flow;

/// What is known of a pass before it happens.
#[derive(Debug, Clone, Default)]
pub(super) struct Rehearsal {
    /// Rules with their limits, in order.
    pub(super) lessons: Vec<(Flow, usize)>,
    pub(super) sightings: Vec<Sighting>,
    /// Where the destinations were, in the order of asking.
    pub(super) answers: Vec<Option<u128>>,
}

/// Where a walk is with the rehearsals of its passes.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// Those that are done, by pass. Nothing: none is needed.
    pub(super) done: Option<BTreeMap<usize, Rehearsal>>,
    /// That of the pass under way.
    under_way: Option<Rehearsal>,
    /// It is done, and all begins again.
    pub(super) is_over: bool,
}

impl Walk<'_> {
    pub(super) fn is_rehearsing(&self) -> bool {
        self.stage.under_way.is_some()
    }

    /// A pass begins: what it will teach is taught, or it is rehearsed.
    pub(super) fn open_pass(&mut self) {
        let Some(done) = &self.stage.done else { return };
        let Some(rehearsal) = done.get(&self.pass.id).cloned() else {
            self.stage.under_way = Some(Rehearsal::default());
            return;
        };
        rehearsal.lessons.into_iter().for_each(|(flow, limit)| self.memory.queue(flow, limit));
        rehearsal.sightings.iter().for_each(|sighting| self.memory.see_station(self.now, sighting));
    }

    /// A pass ends. One that was broken off has taught nothing.
    pub(super) fn close_pass(&mut self, id: usize, is_aborted: bool) -> Way {
        if let (Some(mut rehearsal), Some(done)) = (self.stage.under_way.take(), &mut self.stage.done) {
            if is_aborted {
                (rehearsal.lessons, rehearsal.sightings) = Default::default();
            }
            done.insert(id, rehearsal);
            self.stage.is_over = true;
        }
        if self.stage.is_over { Err(Stop::Over) } else { Ok(()) }
    }

    /// The rehearsal that this pass follows.
    pub(super) fn rehearsal(&self) -> Option<&Rehearsal> {
        self.stage.done.as_ref()?.get(&self.pass.id)
    }

    /// Notes what is found out, if the pass is being rehearsed.
    pub(super) fn rehearse(&mut self, note: impl FnOnce(&mut Rehearsal)) {
        if let Some(rehearsal) = &mut self.stage.under_way {
            note(rehearsal);
        }
    }
}
