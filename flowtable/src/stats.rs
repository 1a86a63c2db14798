//! What the switch counts, apart from rules: caches, ports, drops.
//!
//! The counters of a [`Switch`](crate::switch::Switch) obey one law, conservation: each
//! received packet is counted once, as forwarded (at least one copy went to the sink or into the queue for
//! the controller) or
//! as dropped (in one row of the drop table). Copies that failed while others left are
//! counted apart.

use std::{collections::HashMap, sync::Arc};

use crate::{
    drop::DropReason,
    flow::Rule,
    types::{MeterId, PortNo},
};

/// Rows of the drop table with a rule. Beyond that, rows of rules that are gone are
/// merged, and what still does not fit is counted without naming its rule.
pub const MAX_DROP_ROWS: usize = 8192;
/// Causes without a row between two attempts to merge rows.
const MERGE_EVERY: usize = 1024;

/// What became of the packets of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwitchCounters {
    /// Packets received.
    pub n_packets: u64,
    /// Packets that found a session.
    pub n_session_hits: u64,
    /// Packets that found a megaflow without a session.
    pub n_megaflow_hits: u64,
    /// Packets that were translated, having found nothing in the caches.
    pub n_misses: u64,
    /// Packets that found an entry of older rules, which was translated again.
    pub n_renewals: u64,
    /// Megaflows evicted to make room.
    pub n_evictions: u64,
    /// Packets of which a copy left.
    pub n_forwarded: u64,
    /// Packets of which none left.
    pub n_dropped: u64,
    /// Copies that failed.
    pub n_failed_copies: u64,
    /// Passes of packets that came back from the connection tracker.
    pub n_recirculations: u64,
    /// Packets from controllers, which the other counters of packets leave out.
    pub n_injected: u64,
}

impl std::ops::AddAssign for SwitchCounters {
    fn add_assign(&mut self, other: Self) {
        self.n_packets += other.n_packets;
        self.n_session_hits += other.n_session_hits;
        self.n_megaflow_hits += other.n_megaflow_hits;
        self.n_misses += other.n_misses;
        self.n_renewals += other.n_renewals;
        self.n_evictions += other.n_evictions;
        self.n_forwarded += other.n_forwarded;
        self.n_dropped += other.n_dropped;
        self.n_failed_copies += other.n_failed_copies;
        self.n_recirculations += other.n_recirculations;
        self.n_injected += other.n_injected;
    }
}

/// What became of the packets received from a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounters {
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets of which a copy left.
    pub rx_forwarded: u64,
    /// Packets of which none left.
    pub rx_dropped: u64,
}

/// Drops of one port for one reason by one rule.
#[derive(Debug, Clone)]
pub struct DropCount {
    /// Port the packets were received from.
    pub in_port: PortNo,
    /// Why.
    pub reason: DropReason,
    /// The rule that dropped them, if one did; its origin names the object.
    pub rule: Option<Arc<Rule>>,
    /// The meter that dropped them, if one did.
    pub meter: Option<MeterId>,
    /// Packets of which nothing left.
    pub n_packets: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Copies lost of packets that had several.
    pub n_copies: u64,
}

/// A rule's identity across changes that keep its statistics.
type RuleId = usize;
type CauseId = (PortNo, DropReason, RuleId, Option<MeterId>);

/// Why packets of a port are dropped, and by whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) in_port: PortNo,
    pub(crate) reason: DropReason,
    pub(crate) rule: Option<&'a Arc<Rule>>,
    pub(crate) meter: Option<MeterId>,
}

impl Cause<'_> {
    fn id(&self) -> CauseId {
        (self.in_port, self.reason, rule_id(self.rule), self.meter)
    }
}

/// The drop table. Rows are never lost, only merged.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    rows: Vec<DropCount>,
    by_cause: HashMap<CauseId, usize>,
    /// Causes that found the table full.
    n_overflows: usize,
}

impl Drops {
    /// The row of a cause, given where it was the last time.
    pub(crate) fn row(&mut self, hint: usize, cause: Cause<'_>) -> (usize, &mut DropCount) {
        let id = cause.id();
        let idx = if self.rows.get(hint).is_some_and(|row| row.id() == id) {
            hint
        } else {
            self.find_or_add(cause)
        };
        let row = &mut self.rows[idx];
        if let (Some(known), Some(now)) = (&mut row.rule, cause.rule)
            && !Arc::ptr_eq(known, now)
        {
            known.clone_from(now);
        }
        (idx, row)
    }

    /// All rows.
    pub(crate) fn rows(&self) -> &[DropCount] {
        &self.rows
    }

    /// Takes the rows of a port away: whoever asks keeps them.
    pub(crate) fn take(&mut self, in_port: PortNo) -> Vec<DropCount> {
        let (taken, kept) =
            std::mem::take(&mut self.rows).into_iter().partition(|row| row.in_port == in_port);
        self.rows = kept;
        self.by_cause = self.rows.iter().enumerate().map(|(idx, row)| (row.id(), idx)).collect();
        taken
    }

    fn find_or_add(&mut self, cause: Cause<'_>) -> usize {
        if let Some(idx) = self.by_cause.get(&cause.id()) {
            return *idx;
        }
        if cause.rule.is_some() && self.rows.len() >= MAX_DROP_ROWS {
            if self.n_overflows.is_multiple_of(MERGE_EVERY) {
                self.merge_gone();
            }
            if self.rows.len() >= MAX_DROP_ROWS {
                self.n_overflows += 1;
                return self.find_or_add(Cause { rule: None, meter: None, ..cause });
            }
        }
        let Cause { in_port, reason, rule, meter } = cause;
        let rule = rule.cloned();
        self.rows.push(DropCount { in_port, reason, rule, meter, n_packets: 0, n_bytes: 0, n_copies: 0 });
        self.by_cause.insert(cause.id(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    /// Merges the rows of rules that only this table still knows.
    fn merge_gone(&mut self) {
        self.by_cause.clear();
        for mut row in std::mem::take(&mut self.rows) {
            if row.rule.as_ref().is_some_and(is_gone) {
                row.rule = None;
                row.meter = None;
            }
            let idx = *self.by_cause.entry(row.id()).or_insert(self.rows.len());
            match self.rows.get_mut(idx) {
                Some(same) => {
                    same.n_packets += row.n_packets;
                    same.n_bytes += row.n_bytes;
                    same.n_copies += row.n_copies;
                }
                None => self.rows.push(row),
            }
        }
    }
}

impl DropCount {
    fn id(&self) -> CauseId {
        (self.in_port, self.reason, rule_id(self.rule.as_ref()), self.meter)
    }
}

/// Nobody else knows the rule, nor a changed one that goes on with its statistics.
fn is_gone(rule: &Arc<Rule>) -> bool {
    Arc::strong_count(rule) == 1 && Arc::strong_count(&rule.stats) == 1
}

/// Rows keep their rule, and with it the statistics, so the address stays taken.
fn rule_id(rule: Option<&Arc<Rule>>) -> RuleId {
    rule.map_or(0, |rule| Arc::as_ptr(&rule.stats) as usize)
}
