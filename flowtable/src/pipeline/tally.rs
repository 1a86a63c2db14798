//! What counts the packets of a walk, and what they keep young.

use std::sync::Arc;

use crate::{
    fdb::{Fdb, Station},
    flow::{Rule, RuleStats},
    table::TableStats,
    types::{TableId, Timestamp},
};

/// What counts the packets of a walk besides its rules.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Groups and buckets, in the order of the walk.
    pub groups: Vec<Arc<RuleStats>>,
    /// Tables that had no rule.
    pub misses: Vec<TableId>,
    /// Counters of the tables.
    pub tables: Arc<TableStats>,
    /// Rules that the packets have learned and make anew.
    pub renewed: Vec<Arc<RuleStats>>,
    /// Rules whose timeouts the packets lower.
    pub finished: Vec<Finished>,
    /// Sources that are where they are known to be.
    pub stations: Vec<Station>,
    /// Who knows them.
    pub(crate) fdb: Option<Arc<Fdb>>,
}

/// A rule whose timeouts are lowered, for the packets end a TCP connection.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The rule.
    pub rule: Arc<Rule>,
    /// New idle timeout; 0: stays.
    pub idle_timeout: u16,
    /// New hard timeout; 0: stays.
    pub hard_timeout: u16,
}

impl Tally {
    /// Counts nothing yet.
    pub(super) fn of(tables: &Arc<TableStats>) -> Self {
        Self {
            groups: Vec::new(),
            misses: Vec::new(),
            tables: Arc::clone(tables),
            renewed: Vec::new(),
            finished: Vec::new(),
            stations: Vec::new(),
            fdb: None,
        }
    }

    /// Counts packets that took the walk over these rules, the last one at `used`.
    pub(crate) fn credit(&self, rules: &[Arc<Rule>], n_packets: u64, n_bytes: u64, used: Timestamp) {
        for rule in rules {
            rule.stats.credit(n_packets, n_bytes, used);
            self.tables.matched(rule.table, n_packets);
        }
        self.groups.iter().for_each(|stats| stats.credit(n_packets, n_bytes, used));
        self.misses.iter().for_each(|table| self.tables.missed(*table, n_packets));
        self.renewed.iter().for_each(|stats| stats.renew(used));
        for Finished { rule, idle_timeout, hard_timeout } in &self.finished {
            rule.stats.lower(&rule.life, *idle_timeout, *hard_timeout);
        }
        if let Some(fdb) = &self.fdb {
            self.stations.iter().for_each(|station| fdb.refresh(used, station));
        }
    }

    /// Forgets what the packets would have kept young.
    pub(super) fn forget_side_effects(&mut self) {
        self.renewed.clear();
        self.finished.clear();
        self.stations.clear();
    }
}
