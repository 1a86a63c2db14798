//! A version to come: before it is in force, the entries of the caches are looked at, some at a
//! time, so that they need not all be translated at once when it is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::Switch;
use crate::{
    pipeline::{self, Frozen, NoTrace},
    port::PortRole,
    snapshot::Snapshot,
    table::TableSet,
    types::{Epoch, Timestamp},
};

/// Entries that carried nothing for so long are left as they are.
const IN_USE: Duration = Duration::from_secs(1);

/// What a look at an entry costs that does not have to be translated, and what one that has to,
/// by the time it takes.
const GLANCE: usize = 1;
const LOOK: usize = 16;

/// How far the entries have been looked at.
#[derive(Debug)]
pub(super) struct Ahead {
    next: Epoch,
    /// The next slot.
    at: usize,
    /// Tables that differ; `None`: more than that.
    differing: Option<TableSet>,
    /// Walks that go on after the tracker, by their numbers.
    frozen: HashMap<u32, Arc<Frozen>>,
}

impl Ahead {
    fn new(current: &Snapshot, next: &Snapshot, frozen: HashMap<u32, Arc<Frozen>>) -> Self {
        let is_alike =
            Arc::ptr_eq(&current.ports, &next.ports) && Arc::ptr_eq(&current.underlay, &next.underlay);
        let differing = if is_alike { current.tables.differing(&next.tables) } else { None };
        Self { next: next.epoch, at: 0, differing, frozen }
    }
}

impl Switch {
    /// Looks whether more of the cache's entries hold in a version to come as well. True when all
    /// have been looked at. `n`: for how many there is time that have to be translated; others
    /// take a small part of that.
    pub fn look_at_entries(&mut self, now: Timestamp, current: &Snapshot, next: &Snapshot, n: usize) -> bool {
        let frozen_ids = &self.frozen_ids;
        let mut ahead = match self.ahead.take() {
            Some(ahead) if ahead.next == next.epoch => ahead,
            _ => Ahead::new(current, next, frozen_ids.by_number()),
        };
        let since = Timestamp::from_nanos(now.nanos().saturating_sub(IN_USE.as_nanos() as u64));
        let moment = (current.epoch, since);
        let mut cost = 0;
        while ahead.at < self.megaflows.n_slots() && cost < n.saturating_mul(LOOK) {
            let has_to = self.megaflows.begin_look(ahead.at, moment, ahead.differing.as_ref(), next.epoch);
            if has_to {
                self.look_at_entry(ahead.at, next, &ahead);
            }
            cost += if has_to { LOOK } else { GLANCE };
            ahead.at += 1;
        }
        let is_done = ahead.at >= self.megaflows.n_slots();
        self.ahead = (!is_done).then_some(ahead);
        is_done
    }

    fn look_at_entry(&mut self, slot: usize, next: &Snapshot, ahead: &Ahead) {
        let Some((port, mut key)) = self.megaflows.stands_for(slot) else { return };
        let frozen = match key.recirc_id.get() {
            0 => None,
            id => match ahead.frozen.get(&id) {
                Some(frozen) => Some(frozen),
                None => return,
            },
        };
        if let Some(frozen) = frozen {
            frozen.restore(&mut key);
        }
        let taken = ahead.differing.and_then(|differing| self.megaflows.taken(slot, differing));
        let translation = match (taken, frozen) {
            (Some(taken), frozen) => {
                pipeline::translate_along(next, &key, frozen.map(|frozen| &**frozen), taken)
            }
            (None, None) => Some(pipeline::translate(next, &key, &mut NoTrace)),
            (None, Some(frozen)) => Some(pipeline::translate_frozen(next, &key, frozen, &mut NoTrace)),
        };
        let Some(mut translation) = translation else { return };
        self.frozen_ids.number(&mut translation.program);
        let from_tunnel = next.ports.get(port).is_some_and(|port| port.role == PortRole::Tunnel);
        let way = (from_tunnel, key.recirc_id.get() != 0);
        self.megaflows.extend(slot, &translation, way, next.epoch);
    }
}
