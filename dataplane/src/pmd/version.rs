//! Another version of the rules comes into force, without a gap.
//!
//! A cache of many entries is made ready first: in rounds in which packets leave time, some
//! entries at a time are shown to hold in the new version as well ([`Switch::look_at_entries`]).
//! Until that is done all packets see the old version, then all see the new one, and only then
//! is it told that it is in force. What cannot be shown in time is translated again at its next
//! hit.
//!
//! [`Switch::look_at_entries`]: flowtable::switch::Switch::look_at_entries

use std::{sync::Arc, time::Duration};

use flowtable::types::{BridgeId, Timestamp};

use super::{Worker, fabric::Plan};
use crate::port::BATCH;

/// Entries that are translated again without further ado: it takes less than a millisecond.
const FEW: usize = 256;
/// Longest that a version waits.
const PATIENCE: Duration = Duration::from_millis(150);
/// Longest that it waits for a first moment without packets; if there is none, there will be
/// none.
const NO_MOMENT: Duration = Duration::from_millis(10);
/// Entries translated in a round that left time, as far as they have to be.
const SOME: usize = 4;
/// The same in a round without packets.
const MORE: usize = 16;

/// A version that is about to come into force.
pub(super) struct Coming {
    plan: Arc<Plan>,
    since: Timestamp,
    /// There was time to look at entries.
    has_begun: bool,
}

impl Worker {
    /// Looks for another version.
    pub(super) fn observe_version(&mut self) {
        let n_published = self.fabric.n_published();
        if n_published == self.n_published {
            return;
        }
        self.n_published = n_published;
        let plan = self.fabric.plan();
        let changed = self.changed(&plan);
        let count = |id| self.switch(id).map_or(0, |switch| switch.n_megaflows());
        let n_megaflows: usize = changed.into_iter().map(count).sum();
        if n_megaflows <= FEW {
            return self.take_version(plan);
        }
        // The newest takes the place of one that waits, and has no more time for that.
        let now = self.fabric.uptime();
        let (since, has_begun) =
            self.coming.as_ref().map_or((now, false), |coming| (coming.since, coming.has_begun));
        if let Some(passed_over) = self.coming.replace(Coming { plan, since, has_begun }) {
            self.fabric.retire(passed_over.plan);
        }
    }

    /// Bridges whose packets will see another version.
    fn changed(&self, plan: &Plan) -> Vec<BridgeId> {
        let is_other = |id: &BridgeId| match (self.plan.of(*id), plan.of(*id)) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (None, None) => false,
            _ => true,
        };
        self.bridges().into_iter().filter(is_other).collect()
    }

    /// Has the caches made ready a little more, after a round whose longest batch was of so many
    /// packets; takes the version when they are.
    pub(super) fn make_ready(&mut self, n_packets: usize) {
        let Some(mut coming) = self.coming.take() else { return };
        let waited = self.fabric.uptime().since(coming.since);
        let n_entries = match n_packets {
            0 => MORE,
            BATCH.. => 0,
            _ => SOME,
        };
        coming.has_begun |= n_entries > 0;
        let is_ready = n_entries > 0 && self.look_at(&coming.plan, n_entries);
        let is_late = waited >= PATIENCE || !coming.has_begun && waited >= NO_MOMENT;
        if is_ready || is_late {
            self.take_version(coming.plan);
        } else {
            self.coming = Some(coming);
        }
    }

    /// Has the caches of all bridges that change made ready a little more; true when they are.
    fn look_at(&mut self, plan: &Plan, n_entries: usize) -> bool {
        let (now, current) = (self.fabric.now(), Arc::clone(&self.plan));
        let mut is_ready = true;
        for id in self.changed(plan) {
            let (Some(old), Some(new)) = (current.of(id), plan.of(id)) else { continue };
            if let Some(switch) = self.switch(id) {
                is_ready &= switch.look_at_entries(now, old, new, n_entries);
            }
        }
        is_ready
    }

    /// Has packets see a version, and tells whoever waits for that.
    fn take_version(&mut self, plan: Arc<Plan>) {
        let epoch = plan.epoch;
        let old = std::mem::replace(&mut self.plan, plan);
        // Taking a large one apart takes long: not here.
        self.fabric.retire(old);
        if let Some(passed_over) = self.coming.take() {
            self.fabric.retire(passed_over.plan);
        }
        self.fabric.set_applied(&self.seat, epoch);
    }
}
