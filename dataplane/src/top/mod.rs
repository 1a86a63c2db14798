//! Which flows and pairs of ports have most of the traffic, while somebody wants to know.
//!
//! Each worker looks at some of its packets at random, or at all, and keeps those keys that have
//! most in sketches of bounded size (`space_saving.rs`), which are put together when they are
//! read. Without a watch workers do nothing for it.

mod space_saving;
mod watch;

use std::{
    collections::HashSet,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex},
    time::Duration,
};

use flowtable::{
    account::FlowId,
    types::{BridgeId, Timestamp},
};

use self::space_saving::{Counter, SpaceSaving};
pub(crate) use self::watch::{Watch, Watcher};
use crate::{
    config::PortId,
    handle::{Dataplane, lock},
    pmd::Fabric,
};

/// Of a normal distribution, 95 of 100 are so many standard deviations from the middle at most.
const SPREAD: f64 = 1.96;

/// By what flows are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By bytes.
    #[default]
    Bytes,
    /// By packets.
    Packets,
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopConfig {
    /// In which bridge; `None`: in all.
    pub bridge: Option<BridgeId>,
    /// One packet of so many is looked at; 1: all.
    pub every: u32,
    /// Flows, and pairs of ports, that each worker can have in mind.
    pub capacity: usize,
    /// By what they are compared.
    pub order: Order,
}

/// A flow, or a pair of ports, with what it had.
///
/// In what was compared by, the truth is from what is told here to what is told and
/// [`Talker::missed`] together; where not all packets are looked at, with 95 % certainty, and
/// [`Talker::spread`] away from there at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Talker<K> {
    /// Which one.
    pub key: K,
    /// Packets.
    pub n_packets: u64,
    /// Bytes.
    pub n_bytes: u64,
    /// What it can have had while it was not in mind, at most.
    pub missed: u64,
    /// How far chance may have led away.
    pub spread: u64,
}

/// What was seen in some time.
#[derive(Debug, Clone, PartialEq)]
pub struct TopReport {
    /// In so long.
    pub elapsed: Duration,
    /// All packets that came in, and their bytes; as estimated, where not all are looked at.
    pub total: (u64, u64),
    /// Flows, each in its bridge; the greatest first.
    pub flows: Vec<Talker<(BridgeId, FlowId)>>,
    /// Ports that packets come and leave by, likewise.
    pub pairs: Vec<Talker<(PortId, PortId)>>,
    /// What a flow that is not told of can have had, at most, but for chance.
    pub most_missed: u64,
}

/// A watch, until it is dropped.
pub struct Top {
    watch: Arc<Watch>,
    fabric: Arc<Fabric>,
    began: Mutex<Timestamp>,
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.watch.fmt(f)
    }
}

impl Top {
    /// What was seen since this was asked last; the `n` greatest.
    pub fn take(&self, n: usize) -> TopReport {
        let now = self.fabric.now();
        let began = std::mem::replace(&mut *lock(&self.began), now);
        let mut all: Vec<_> = self.watch.all().collect();
        let every = u64::from(self.watch.config.every.max(1));
        let seen = all.iter().fold((0, 0), |sum, one| (sum.0 + one.seen.0, sum.1 + one.seen.1));
        let flows: Vec<_> = all.iter().map(|one| &one.flows).collect();
        let pairs: Vec<_> = all.iter().map(|one| &one.pairs).collect();
        let most_missed = flows.iter().map(|flows| flows.most_missed()).sum::<u64>() * every;
        let report = TopReport {
            elapsed: now.since(began),
            total: (seen.0 * every, seen.1 * every),
            flows: self.merge(&flows, n),
            pairs: self.merge(&pairs, n),
            most_missed,
        };
        for one in &mut all {
            one.flows.clear();
            one.pairs.clear();
            one.seen = (0, 0);
        }
        report
    }

    /// Puts together what workers have in mind.
    fn merge<K: Copy + Eq + Hash>(&self, sketches: &[&SpaceSaving<K>], n: usize) -> Vec<Talker<K>> {
        let keys: HashSet<K> = sketches.iter().flat_map(|sketch| sketch.keys()).collect();
        let order = self.watch.config.order;
        let mut talkers: Vec<_> = keys.into_iter().map(|key| self.talker(key, sketches)).collect();
        let weight = |talker: &Talker<K>| match order {
            Order::Bytes => talker.n_bytes,
            Order::Packets => talker.n_packets,
        };
        talkers.sort_by_key(|talker| std::cmp::Reverse(weight(talker)));
        talkers.truncate(n);
        talkers
    }

    fn talker<K: Copy + Eq + Hash>(&self, key: K, sketches: &[&SpaceSaving<K>]) -> Talker<K> {
        let every = u64::from(self.watch.config.every.max(1));
        let mut sum = Counter::default();
        for sketch in sketches {
            match sketch.get(&key) {
                Some(counter) => {
                    sum.n_packets += counter.n_packets;
                    sum.n_bytes += counter.n_bytes;
                    sum.squares += counter.squares;
                    sum.missed += counter.missed;
                }
                None => sum.missed += sketch.most_missed(),
            }
        }
        // Each packet was looked at or not, by a throw of its own.
        let squares = match self.watch.config.order {
            Order::Bytes => sum.squares,
            Order::Packets => sum.n_packets as f64,
        };
        let factor = every as f64;
        let spread = SPREAD * factor * (squares * (1.0 - 1.0 / factor)).sqrt();
        Talker {
            key,
            n_packets: sum.n_packets * every,
            n_bytes: sum.n_bytes * every,
            missed: sum.missed * every,
            spread: spread.ceil() as u64,
        }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        for seat in self.fabric.seats() {
            let watch = Arc::clone(&self.watch);
            seat.post(move |worker| worker.remove_watch(&watch));
        }
    }
}

impl Dataplane {
    /// Watches from now on.
    pub fn watch_top(&self, config: TopConfig) -> Top {
        let watch = Arc::new(Watch::new(config, self.fabric().seats().len()));
        for seat in self.fabric().seats() {
            let watch = Arc::clone(&watch);
            let _ = seat.ask(move |worker| worker.add_watch(watch));
        }
        let began = Mutex::new(self.now());
        Top { watch, fabric: Arc::clone(&self.fabric), began }
    }
}
