//! What has been learned of neighbours.

use std::{collections::HashMap, time::Duration};

use flowtable::types::{MacAddr, Timestamp};
use ovn_northd_lite::Learned;

use super::{Effect, waiting::Wanted};

/// Neighbours that are remembered; those that came first go first.
const MAX_NEIGHBOURS: usize = 16_384;
/// How long one is remembered, where the router says nothing else. Then the router asks again, while
/// packets wait.
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
    /// How long it is remembered; `None`: for ever.
    life: Option<Duration>,
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

    /// Remembers a neighbour that this host has heard, for so many seconds (0: for ever; `None`: as
    /// usual): what changes by that.
    pub(super) fn learn(&mut self, now: Timestamp, learned: Learned, age: Option<u16>) -> Vec<Effect> {
        let life = match age {
            None => Some(LIFE),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds.into())),
        };
        let before = self.known.get(&learned.into());
        if before.is_none_or(|known| !known.is_own || known.mac != learned.mac) {
            self.news.push((learned, true));
        }
        self.remember(learned, Known { mac: learned.mac, heard: now, is_own: true, life })
    }

    /// Remembers a neighbour that another host has heard, after whatever this one has: its
    /// word came later.
    pub(super) fn hear_of(&mut self, now: Timestamp, learned: Learned) -> Vec<Effect> {
        let known = self.known.get(&learned.into());
        if known.is_some_and(|known| known.is_own && known.mac == learned.mac) {
            return Vec::new();
        }
        // Others say when theirs are old.
        self.remember(learned, Known { mac: learned.mac, heard: now, is_own: false, life: None })
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

    fn remember(&mut self, learned: Learned, new: Known) -> Vec<Effect> {
        let wanted = Wanted::from(learned);
        let mut effects = Vec::new();
        if !self.known.contains_key(&wanted) && self.known.len() >= MAX_NEIGHBOURS {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.heard);
            if let Some((wanted, known)) = oldest.map(|(wanted, known)| (*wanted, *known)) {
                self.known.remove(&wanted);
                effects.push(Effect::Forget(self.forgotten(wanted, known)));
            }
        }
        match self.known.insert(wanted, new) {
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
        let is_old =
            |known: &Known| known.is_own && known.life.is_some_and(|life| now.since(known.heard) >= life);
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

#[cfg(test)]
mod tests {
    use ovn_northd_lite::key::{DatapathKey, PortKey};

    use super::*;

    #[test]
    fn each_is_remembered_for_as_long_as_its_router_says() {
        let learned = |last: u8| Learned {
            datapath: DatapathKey::new(1).unwrap(),
            port: PortKey::new(1).unwrap(),
            ip: [10, 0, 0, last].into(),
            mac: MacAddr::new([10, 0, 0, 0, 0, last]),
        };
        let at = |seconds: u64| Timestamp::from_nanos(seconds * 1_000_000_000);
        let mut neighbours = Neighbours::default();
        for (last, age) in [(1, None), (2, Some(60)), (3, Some(0)), (4, Some(400))] {
            assert_eq!(neighbours.learn(at(0), learned(last), age), [Effect::Learn(learned(last))]);
        }
        // It moves: what its router says by then counts.
        neighbours.learn(at(50), Learned { mac: learned(9).mac, ..learned(4) }, Some(10));
        for (now, gone) in [(59, &[][..]), (60, &[2, 4]), (299, &[]), (300, &[1]), (1_000_000, &[])] {
            let mut forgotten: Vec<_> = neighbours.expire(at(now)).into_iter().map(|one| one.ip).collect();
            forgotten.sort();
            let wanted: Vec<_> = gone.iter().map(|last| learned(*last).ip).collect();
            assert_eq!(forgotten, wanted, "after {now} s");
        }
        assert!(neighbours.find(&learned(3).into()).is_some());
    }
}
