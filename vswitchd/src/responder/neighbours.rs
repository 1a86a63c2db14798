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
pub(super) struct Neighbours {
    known: HashMap<Wanted, Known>,
    /// What of this host's own hearing is new, and not yet told: `true`, it has heard of it;
    /// `false`, it has not for too long.
    news: Vec<(Learned, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    mac: MacAddr,
    heard: Timestamp,
    /// This host has heard it; else others have.
    is_own: bool,
}

impl Neighbours {
    /// The MAC address of a neighbour.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<MacAddr> {
        self.known.get(wanted).map(|known| known.mac)
    }

    /// What of this host's own hearing is new.
    pub(super) fn take_news(&mut self) -> Vec<(Learned, bool)> {
        std::mem::take(&mut self.news)
    }

    /// Remembers a neighbour that this host has heard: what changes by that.
    pub(super) fn learn(&mut self, now: Timestamp, learned: Learned) -> Vec<Effect> {
        let before = self.known.get(&learned.into());
        if before.is_none_or(|known| !known.is_own || known.mac != learned.mac) {
            self.news.push((learned, true));
        }
        self.remember(now, learned, true)
    }

    /// Remembers a neighbour that another host has heard, after whatever this one has: its
    /// word came later.
    pub(super) fn hear_of(&mut self, now: Timestamp, learned: Learned) -> Vec<Effect> {
        let known = self.known.get(&learned.into());
        if known.is_some_and(|known| known.is_own && known.mac == learned.mac) {
            return Vec::new();
        }
        self.remember(now, learned, false)
    }

    /// Nobody has heard of a neighbour any more, unless this host itself has.
    pub(super) fn unhear(&mut self, learned: Learned) -> Option<Effect> {
        let wanted = Wanted::from(learned);
        self.known.get(&wanted).filter(|known| !known.is_own && known.mac == learned.mac)?;
        self.known.remove(&wanted);
        Some(Effect::Forget(learned))
    }

    /// It does not matter any more, whoever has heard of it.
    pub(super) fn drop(&mut self, learned: Learned) {
        let wanted = Wanted::from(learned);
        if let Some(known) = self.known.remove(&wanted) {
            self.forgotten(wanted, known);
        }
    }

    fn remember(&mut self, now: Timestamp, learned: Learned, is_own: bool) -> Vec<Effect> {
        let wanted = Wanted::from(learned);
        let mut effects = Vec::new();
        if !self.known.contains_key(&wanted) && self.known.len() >= MAX_NEIGHBOURS {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.heard);
            if let Some((wanted, known)) = oldest.map(|(wanted, known)| (*wanted, *known)) {
                self.known.remove(&wanted);
                effects.push(Effect::Forget(self.forgotten(wanted, known)));
            }
        }
        match self.known.insert(wanted, Known { mac: learned.mac, heard: now, is_own }) {
            Some(known) if known.mac == learned.mac => return effects,
            Some(known) => effects.push(Effect::Forget(neighbour(wanted, known.mac))),
            None => {}
        }
        effects.push(Effect::Learn(learned));
        effects
    }

    fn forgotten(&mut self, wanted: Wanted, known: Known) -> Learned {
        let learned = neighbour(wanted, known.mac);
        if known.is_own {
            self.news.push((learned, false));
        }
        learned
    }

    /// Forgets those that this host heard of long ago; others say when theirs are old.
    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Learned> {
        let is_old = |known: &Known| known.is_own && now.since(known.heard) >= LIFE;
        let old = self.known.iter().filter(|(_, known)| is_old(known));
        let old: Vec<_> = old.map(|(wanted, known)| (*wanted, *known)).collect();
        let forget = |(wanted, known): (Wanted, Known)| {
            self.known.remove(&wanted);
            self.forgotten(wanted, known)
        };
        old.into_iter().map(forget).collect()
    }
}

fn neighbour(Wanted { datapath, port, ip }: Wanted, mac: MacAddr) -> Learned {
    Learned { datapath, port, ip, mac }
}
