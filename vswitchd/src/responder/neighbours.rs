//! What has been learned of neighbours.

use std::{collections::HashMap, time::Duration};

use flowtable::types::{MacAddr, Timestamp};
use ovn_northd_lite::Learned;

use super::{Effect, waiting::Wanted};

/// Neighbours that are remembered; those that came first go first.
const MAX_NEIGHBOURS: usize = 16_384;
/// How long one is remembered. Then the router asks again, while packets wait.
const LIFE: Duration = Duration::from_secs(300);

/// Who has been heard of.
#[derive(Debug, Default)]
pub(super) struct Neighbours(HashMap<Wanted, (MacAddr, Timestamp)>);

impl Neighbours {
    /// The MAC address of a neighbour.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<MacAddr> {
        self.0.get(wanted).map(|(mac, _)| *mac)
    }

    /// Remembers a neighbour: what changes by that.
    pub(super) fn learn(&mut self, now: Timestamp, learned: Learned) -> Vec<Effect> {
        let wanted = Wanted::from(learned);
        let mut effects = Vec::new();
        if !self.0.contains_key(&wanted) && self.0.len() >= MAX_NEIGHBOURS {
            let oldest = self.0.iter().min_by_key(|(_, (_, heard))| *heard);
            if let Some((wanted, (mac, _))) = oldest.map(|(wanted, known)| (*wanted, *known)) {
                self.0.remove(&wanted);
                effects.push(Effect::Forget(neighbour(wanted, mac)));
            }
        }
        match self.0.insert(wanted, (learned.mac, now)) {
            Some((mac, _)) if mac == learned.mac => return effects,
            Some((mac, _)) => effects.push(Effect::Forget(neighbour(wanted, mac))),
            None => {}
        }
        effects.push(Effect::Learn(learned));
        effects
    }

    /// Forgets those that were heard of long ago.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Learned> {
        let old = self.0.iter().filter(|(_, (_, heard))| now.since(*heard) >= LIFE);
        let old: Vec<_> = old.map(|(wanted, (mac, _))| neighbour(*wanted, *mac)).collect();
        for learned in &old {
            self.0.remove(&Wanted::from(*learned));
        }
        old
    }
}

fn neighbour(Wanted { datapath, port, ip }: Wanted, mac: MacAddr) -> Learned {
    Learned { datapath, port, ip, mac }
}
