//! A rule of a table.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Action, Match, RuleLife};
use crate::types::{Priority, TableId, Timestamp};

/// Where a rule comes from: the chain that every drop and every trace names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Origin {
    /// Id of the logical flow, 0 when there is none.
    pub logical_flow: u64,
    /// Stage of the logical pipeline, `ls_in_acl_eval`, or the physical table's name.
    pub stage: String,
    /// Northbound resource, `switches/web/acls/no-telnet`; empty: the system itself.
    pub object: String,
}

/// Packets and bytes of a rule, a group or a bucket, and when the last one came. Workers
/// add to them in bulk, from their caches.
#[derive(Debug, Default)]
pub struct RuleStats {
    n_packets: AtomicU64,
    n_bytes: AtomicU64,
    used: AtomicU64,
}

impl RuleStats {
    /// Adds what a cache entry has seen.
    pub fn add(&self, n_packets: u64, n_bytes: u64) {
        self.n_packets.fetch_add(n_packets, Relaxed);
        self.n_bytes.fetch_add(n_bytes, Relaxed);
    }

    /// Adds what a cache entry has seen, the last packet at `used`.
    pub fn credit(&self, n_packets: u64, n_bytes: u64, used: Timestamp) {
        self.add(n_packets, n_bytes);
        self.used.fetch_max(used.nanos(), Relaxed);
    }

    /// When the last packet came, as far as the caches have told.
    pub fn used(&self) -> Timestamp {
        Timestamp::from_nanos(self.used.load(Relaxed))
    }

    /// (packets, bytes) so far.
    pub fn get(&self) -> (u64, u64) {
        (self.n_packets.load(Relaxed), self.n_bytes.load(Relaxed))
    }
}

/// What to do with which packets of a table. Never changed once in a table: a change
/// makes a new rule, which shares the statistics unless they are to be reset.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Table it is in.
    pub table: TableId,
    /// The highest matching priority wins; between equals the result is undefined.
    pub priority: Priority,
    /// Which packets.
    pub matching: Match,
    /// What to do; an empty list drops.
    pub actions: Vec<Action>,
    /// The controller's own mark.
    pub cookie: u64,
    /// Where it comes from.
    pub origin: Arc<Origin>,
    /// How long it stays, and what happens when it goes.
    pub life: RuleLife,
    /// Its counters.
    pub stats: Arc<RuleStats>,
}

impl Rule {
    /// The rule is a part of conjunctions and matches nothing by itself.
    pub fn is_conjunctive(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Conjunction { .. }))
    }
}
