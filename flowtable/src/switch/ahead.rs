//! A version to come: before it is in force, the entries of the caches are looked at, some at a
//! time, so that they need not all be translated at once when it is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::Switch;
use crate::{
    pipeline::{self, Frozen, NoTrace},
    port::PortRole,
    snapshot::Snapshot,
    types::{Epoch, Timestamp},
};

/// Entries that carried nothing for so long are left as they are.
const IN_USE: Duration = Duration::from_secs(1);

/// How far the entries have been looked at.
#[derive(Debug)]
pub(super) struct Ahead {
    next: Epoch,
    /// The next slot.
    at: usize,
    /// Walks that go on after the tracker, by their numbers.
    frozen: HashMap<u32, Arc<Frozen>>,
}

impl Switch {
    /// Looks at `n` more slots of the cache, whether what is in them holds in a version to come as
    /// well, which differs from the present one (`epoch`). True when all have been looked at.
    pub fn look_at_entries(&mut self, now: Timestamp, epoch: Epoch, next: &Snapshot, n: usize) -> bool {
        let frozen_ids = &self.frozen_ids;
        let ahead = match self.ahead.take() {
            Some(ahead) if ahead.next == next.epoch => ahead,
            _ => Ahead { next: next.epoch, at: 0, frozen: frozen_ids.by_number() },
        };
        let since = Timestamp::from_nanos(now.nanos().saturating_sub(IN_USE.as_nanos() as u64));
        let end = ahead.at.saturating_add(n).min(self.megaflows.n_slots());
        for slot in ahead.at..end {
            self.look_at_entry(slot, (epoch, since), next, &ahead.frozen);
        }
        let is_done = end == self.megaflows.n_slots();
        self.ahead = (!is_done).then_some(Ahead { at: end, ..ahead });
        is_done
    }

    fn look_at_entry(
        &mut self,
        slot: usize,
        (epoch, since): (Epoch, Timestamp),
        next: &Snapshot,
        frozen: &HashMap<u32, Arc<Frozen>>,
    ) {
        let Some((port, mut key)) = self.megaflows.stands_for(slot, epoch, since) else { return };
        let mut translation = match key.recirc_id.get() {
            0 => pipeline::translate(next, &key, &mut NoTrace),
            id => {
                let Some(frozen) = frozen.get(&id) else { return };
                frozen.restore(&mut key);
                pipeline::translate_frozen(next, &key, frozen, &mut NoTrace)
            }
        };
        self.frozen_ids.number(&mut translation.program);
        let from_tunnel = next.ports.get(port).is_some_and(|port| port.role == PortRole::Tunnel);
        let way = (from_tunnel, key.recirc_id.get() != 0);
        self.megaflows.extend(slot, &translation, way, next.epoch);
    }
}
