//! How rules end: by a timeout, by eviction, by deletion; and what may begin.

use std::sync::Arc;

use super::{
    Tables,
    change::{Commit, Transaction},
    error::RuleError,
    precedence,
    settings::OverflowPolicy,
};
use crate::{
    classifier::Classifier,
    flow::{Rule, RuleFlags, RuleLife},
    types::{TableId, Timestamp},
};

/// Why a rule is gone (OpenFlow 1.5 §7.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovedReason {
    /// No packet came for as long as its idle timeout.
    IdleTimeout,
    /// Its hard timeout ended.
    HardTimeout,
    /// It was deleted.
    Delete,
    /// A group that it sends to was deleted.
    GroupDelete,
    /// A meter that it uses was deleted.
    MeterDelete,
    /// A more important rule needed its place.
    Eviction,
}

impl RemovedReason {
    /// Name, as in commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle",
            Self::HardTimeout => "hard",
            Self::Delete => "delete",
            Self::GroupDelete => "group-delete",
            Self::MeterDelete => "meter-delete",
            Self::Eviction => "eviction",
        }
    }
}

/// A rule with the flag `send_flow_rem` is gone. Its statistics are final when each
/// worker has seen the new version and flushed its counters.
#[derive(Debug, Clone)]
pub struct Removed {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Why.
    pub reason: RemovedReason,
    /// When.
    pub at: Timestamp,
}

impl Tables {
    /// Number of rules that may go by a timeout.
    pub fn n_mortal(&self) -> usize {
        self.n_mortal
    }

    /// The tables without the rules whose time has come; `None` when there are none. The
    /// fast path does not visit rules, so when a rule was last used is what the switches
    /// have told: call [`Switch::flush_stats`](crate::switch::Switch::flush_stats) of each
    /// before.
    ///
    /// # Cost
    /// Looks at each rule, if any rule has a timeout.
    pub fn expire(&self, now: Timestamp) -> Option<Commit> {
        if self.n_mortal == 0 {
            return None;
        }
        let mut ended: Vec<_> = self
            .rules()
            .filter_map(|rule| ended(rule, now).map(|reason| (Arc::clone(rule), reason)))
            .collect();
        if ended.is_empty() {
            return None;
        }
        let mut transaction = Transaction::new(self, now);
        ended.drain(..).for_each(|(rule, reason)| transaction.take(&rule, reason));
        transaction.take_learned();
        Some(transaction.finish())
    }

    /// When to call [`Tables::expire`] next, if nothing happens until then.
    ///
    /// # Cost
    /// Looks at each rule, if any rule has a timeout.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        if self.n_mortal == 0 {
            return None;
        }
        self.tables.iter().flat_map(|table| table.rules()).filter_map(|rule| end(rule)).min()
    }
}

impl Transaction {
    /// Refuses a rule with the flag `check_overlap` for which there is another of its
    /// priority that a packet of its can match.
    pub(super) fn check_overlap(&self, rule: &Rule) -> Result<(), RuleError> {
        if !rule.life.flags.has(RuleFlags::CHECK_OVERLAP) {
            return Ok(());
        }
        let mut rules = self.next.table(rule.table).rules();
        let other =
            rules.find(|other| other.priority == rule.priority && other.matching.overlaps(&rule.matching));
        match other {
            Some(other) => Err(RuleError::Overlap { other: other.to_string() }),
            None => Ok(()),
        }
    }

    /// Sees to it that a new rule has room in its table.
    pub(super) fn make_room(&mut self, rule: &Rule) -> Result<(), RuleError> {
        let settings = self.next.settings(rule.table);
        let Some(max) = settings.max_rules.filter(|max| self.next.n_rules(rule.table) >= *max) else {
            return Ok(());
        };
        let may_evict = settings.overflow == OverflowPolicy::Evict;
        if may_evict && self.evict(rule.table, Some(rule.life.importance)) {
            return Ok(());
        }
        Err(RuleError::TableFull { table: rule.table, max })
    }

    /// Evicts the least important rule of a table, unless it is more important than that.
    pub(super) fn evict(&mut self, table: TableId, than: Option<u16>) -> bool {
        let worth = |rule: &Rule| {
            (rule.life.importance, end(rule).unwrap_or(Timestamp::from_nanos(u64::MAX)), rule.life.born)
        };
        let rules = self.next.table(table).rules();
        let least = rules.min_by(|a, b| worth(a).cmp(&worth(b)).then_with(|| precedence(b, a))).cloned();
        let victim = least.filter(|rule| than.is_none_or(|than| rule.life.importance <= than));
        if let Some(rule) = &victim {
            self.take(rule, super::RemovedReason::Eviction);
        }
        victim.is_some()
    }
}

/// When a rule's timeouts end it.
fn end(rule: &Rule) -> Option<Timestamp> {
    let (hard, idle) = ends(rule);
    hard.into_iter().chain(idle).min()
}

/// When the hard and the idle timeout end a rule. A packet that makes the rule anew begins
/// the hard one again; the idle one waits for packets that match (as in Open vSwitch).
fn ends(rule: &Rule) -> (Option<Timestamp>, Option<Timestamp>) {
    let life = rule.current_life();
    let renewed = RuleLife { born: life.born.max(rule.stats.renewed()), ..life };
    (renewed.hard_end(), life.idle_end(rule.stats.used()))
}

/// Why a rule has ended, if it has.
fn ended(rule: &Rule, now: Timestamp) -> Option<RemovedReason> {
    let is_over = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
    let (hard, idle) = ends(rule);
    if is_over(hard) {
        Some(RemovedReason::HardTimeout)
    } else {
        is_over(idle).then_some(RemovedReason::IdleTimeout)
    }
}
