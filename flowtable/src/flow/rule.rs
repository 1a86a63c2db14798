//! A rule of a table.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{Action, Match, RuleLife, has_fin_timeout};
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
    /// When a packet last made the rule, if packets do.
    renewed: AtomicU64,
    /// Timeouts that `fin_timeout` has lowered: the low bits of when the rule was born that
    /// they are for, idle and hard timeout.
    lowered: AtomicU64,
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

    /// A packet has made the rule anew at that time: its hard timeout begins again.
    pub fn renew(&self, at: Timestamp) {
        self.renewed.fetch_max(at.nanos(), Relaxed);
    }

    /// When a packet last made the rule; zero: never again since it came.
    pub fn renewed(&self) -> Timestamp {
        Timestamp::from_nanos(self.renewed.load(Relaxed))
    }

    /// Lowers the timeouts of a rule with these statistics; 0 leaves one as it is.
    pub fn lower(&self, life: &RuleLife, idle_timeout: u16, hard_timeout: u16) {
        let mut old = self.lowered.load(Relaxed);
        loop {
            let life = self.lower_by(life, old);
            let lower = |old: u16, new: u16| if new != 0 && (old == 0 || old > new) { new } else { old };
            let (idle, hard) =
                (lower(life.idle_timeout, idle_timeout), lower(life.hard_timeout, hard_timeout));
            let new = u64::from(mark(&life)) << 32 | u64::from(idle) << 16 | u64::from(hard);
            match self.lowered.compare_exchange_weak(old, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(other) => old = other,
            }
        }
    }

    fn lower_by(&self, life: &RuleLife, lowered: u64) -> RuleLife {
        if lowered == 0 || (lowered >> 32) as u32 != mark(life) {
            return *life;
        }
        RuleLife { idle_timeout: (lowered >> 16) as u16, hard_timeout: lowered as u16, ..*life }
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
    /// Its life with the timeouts that it has now: `fin_timeout` may have lowered them.
    pub fn current_life(&self) -> RuleLife {
        self.stats.lower_by(&self.life, self.stats.lowered.load(Relaxed))
    }

    /// It may go some day without being deleted.
    pub fn is_mortal(&self) -> bool {
        self.life.is_mortal() || has_fin_timeout(&self.actions)
    }

    /// The rule is a part of conjunctions and matches nothing by itself.
    pub fn is_conjunctive(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Conjunction { .. }))
    }
}

/// Tells a rule from one that had its statistics before.
fn mark(life: &RuleLife) -> u32 {
    let nanos = life.born.nanos();
    (nanos ^ nanos >> 32) as u32 | 1
}
