//! The entries behind the lock: by address, and by port in the order of their silence.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{ARP_HOLD, FdbConfig, FdbCounters, FdbEntry, FdbFilter, Key, Station};
use crate::types::{PortNo, Timestamp};

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: PortNo,
    /// `None`: static.
    seen: Option<Timestamp>,
    /// When it was last announced by a gratuitous ARP.
    announced: Option<Timestamp>,
}

/// # Invariants
/// `by_port` has the entries that are not static, each under its port and time.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: FdbConfig,
    pub(super) counters: FdbCounters,
    entries: HashMap<Key, Entry>,
    by_port: BTreeMap<PortNo, BTreeSet<(Timestamp, Key)>>,
}

/// Told which entry has changed.
type Turn<'a> = &'a mut dyn FnMut(&Key);

impl Inner {
    pub(super) fn new(config: FdbConfig) -> Self {
        let counters = FdbCounters::default();
        Self { config, counters, entries: HashMap::new(), by_port: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.entries.len() > self.config.max_entries
    }

    pub(super) fn port_of(&self, key: &Key) -> Option<PortNo> {
        self.entries.get(key).map(|entry| entry.port)
    }

    pub(super) fn learn(&mut self, now: Timestamp, station: &Station, turn: Turn<'_>) -> bool {
        let key = (station.vlan, station.mac);
        let old = self.entries.get(&key).copied();
        if let Some(old) = old {
            let held = old.announced.is_some_and(|at| now.since(at) < ARP_HOLD);
            if old.port != station.port && (old.seen.is_none() || held && !station.is_announced) {
                self.counters.n_refused += 1;
                return false;
            }
        }
        let announced = if station.is_announced { Some(now) } else { old.and_then(|old| old.announced) };
        let is_news = old.is_none_or(|old| old.port != station.port);
        match old {
            Some(Entry { seen: None, .. }) => return false,
            Some(old) => {
                self.counters.n_moved += u64::from(old.port != station.port);
                self.unlist(&key, &old);
            }
            None => {
                while self.entries.len() >= self.config.max_entries {
                    if !self.evict(turn) {
                        return false;
                    }
                }
                self.counters.n_learned += 1;
            }
        }
        let seen = old.and_then(|old| old.seen).map_or(now, |seen| seen.max(now));
        self.list(key, Entry { port: station.port, seen: Some(seen), announced });
        if is_news {
            turn(&key);
        }
        is_news
    }

    pub(super) fn refresh(&mut self, seen: Timestamp, station: &Station) {
        let key = (station.vlan, station.mac);
        let Some(old) = self.entries.get(&key).copied() else { return };
        if old.port != station.port || old.seen.is_none_or(|before| before >= seen) {
            return;
        }
        self.unlist(&key, &old);
        let announced = if station.is_announced { Some(seen) } else { old.announced };
        self.list(key, Entry { seen: Some(seen), announced, ..old });
    }

    pub(super) fn set_static(&mut self, key: Key, port: PortNo, turn: Turn<'_>) {
        if let Some(old) = self.entries.get(&key).copied() {
            self.unlist(&key, &old);
        }
        self.entries.insert(key, Entry { port, seen: None, announced: None });
        turn(&key);
    }

    pub(super) fn expire(&mut self, now: Timestamp, turn: Turn<'_>) -> usize {
        let max_age = self.config.max_age;
        let is_old = |seen: &Timestamp| now.since(*seen) >= max_age;
        let lists = self.by_port.values();
        let old: Vec<Key> = lists
            .flat_map(|list| list.iter().take_while(|(seen, _)| is_old(seen)))
            .map(|(_, key)| *key)
            .collect();
        old.iter().for_each(|key| self.remove(key, turn));
        self.counters.n_expired += old.len() as u64;
        old.len()
    }

    pub(super) fn flush(&mut self, filter: &FdbFilter, turn: Turn<'_>) -> usize {
        let FdbFilter { port, vlan, mac, with_static } = *filter;
        let passes = |(key, entry): &(&Key, &Entry)| {
            port.is_none_or(|port| port == entry.port)
                && vlan.is_none_or(|vlan| vlan == key.0)
                && mac.is_none_or(|mac| mac == key.1)
                && (with_static || entry.seen.is_some())
        };
        let chosen: Vec<Key> = self.entries.iter().filter(passes).map(|(key, _)| *key).collect();
        chosen.iter().for_each(|key| self.remove(key, turn));
        self.counters.n_flushed += chosen.len() as u64;
        chosen.len()
    }

    /// The port that has most loses what was silent for longest. `false`: there was nothing
    /// to lose.
    pub(super) fn evict(&mut self, turn: Turn<'_>) -> bool {
        let most = self.by_port.values().max_by_key(|list| list.len());
        let Some((_, key)) = most.and_then(|list| list.first()).copied() else { return false };
        self.remove(&key, turn);
        self.counters.n_evicted += 1;
        true
    }

    pub(super) fn dump(&self) -> Vec<FdbEntry> {
        let entry = |((vlan, mac), entry): (&Key, &Entry)| FdbEntry {
            vlan: *vlan,
            mac: *mac,
            port: entry.port,
            seen: entry.seen,
        };
        let mut all: Vec<_> = self.entries.iter().map(entry).collect();
        all.sort_by_key(|entry| (entry.vlan, entry.mac));
        all
    }

    fn list(&mut self, key: Key, entry: Entry) {
        if let Some(seen) = entry.seen {
            self.by_port.entry(entry.port).or_default().insert((seen, key));
        }
        self.entries.insert(key, entry);
    }

    fn unlist(&mut self, key: &Key, entry: &Entry) {
        let (Some(seen), Some(list)) = (entry.seen, self.by_port.get_mut(&entry.port)) else { return };
        list.remove(&(seen, *key));
        if list.is_empty() {
            self.by_port.remove(&entry.port);
        }
    }

    fn remove(&mut self, key: &Key, turn: Turn<'_>) {
        if let Some(entry) = self.entries.remove(key) {
            self.unlist(key, &entry);
            turn(key);
        }
    }
}
