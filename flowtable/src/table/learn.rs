//! Rules that packets make: how what `learn` actions have queued gets into the tables, and
//! who has learned what.
//!
//! A worker only reads the tables, so a `learn` action does not change them. It looks
//! whether its rule is in the packet's version. If it is, the packet makes it anew, which
//! begins its hard timeout again, by a counter that is told in bulk like others. (The idle
//! timeout waits for packets that match the rule, whoever made it.) If not, the rule is queued
//! ([`Switch::take_learned`](crate::switch::Switch::take_learned)), and whoever owns the tables
//! commits what the workers have queued by [`Tables::learn`]. The new version has a new
//! epoch; the entries that queued the rule are then out of date, and translated again they
//! find it there.
//!
//! `limit` counts the rules of the table with the learner's cookie, `delete_learned` deletes
//! them. To know their number without looking at each rule, the tables keep one count for
//! each table and cookie that some rule's `learn` with one of these options names.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Tables,
    change::{Commit, Refusal, Transaction, with_actions},
    error::RuleError,
    life::RemovedReason,
};
use crate::{
    classifier::Classifier,
    flow::{Learn, Learned, Rule, each_learn},
    types::{TableId, Timestamp},
};

/// Table and cookie of learned rules.
pub(super) type LearnerKey = (TableId, u64);

/// What is known of the rules of one table with one cookie.
#[derive(Debug, Clone, Copy, Default)]
struct Learner {
    /// `learn` actions that need this count.
    n_actions: usize,
    /// Those of them with `delete_learned`.
    n_deleting: usize,
    n_rules: usize,
}

/// The counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Learners(Arc<BTreeMap<LearnerKey, Learner>>);

/// What became of learned rules.
#[derive(Debug, Clone, Default)]
pub struct Learning {
    /// The new version, unless nothing has changed.
    pub commit: Option<Commit>,
    /// Rules that are new.
    pub n_added: usize,
    /// Rules that were there and do something else now.
    pub n_changed: usize,
    /// Rules that were there, and have been made anew.
    pub n_renewed: usize,
    /// Rules that the limit of their learner forbids.
    pub n_over_limit: usize,
    /// Rules that may not be in their table, or found it full.
    pub n_refused: usize,
    /// Why the last of these was refused.
    pub refusal: Option<RuleError>,
}

impl Tables {
    /// Takes what switches have learned, in that order. A rule of same table, priority and
    /// match gets the new actions and cookie, keeps the rest, and its hard timeout begins
    /// again.
    ///
    /// # Cost
    /// As of a transaction with so many changes.
    pub fn learn(&self, learned: &[Learned], now: Timestamp) -> Learning {
        let mut transaction = Transaction::new(self, now);
        let mut learning = Learning::default();
        for one in learned {
            if let Err(Refusal { reason, .. }) = transaction.learn(one, &mut learning) {
                learning.n_refused += 1;
                learning.refusal = Some(reason);
            }
        }
        transaction.take_learned();
        let is_new = learning.n_added + learning.n_changed > 0;
        learning.commit = is_new.then(|| transaction.finish());
        learning
    }

    /// Rules of a table with a cookie, where some rule learns them under a limit.
    pub(crate) fn n_learned(&self, table: TableId, cookie: u64) -> usize {
        self.learners.0.get(&(table, cookie)).map_or(0, |learner| learner.n_rules)
    }
}

impl Transaction {
    fn learn(&mut self, learned: &Learned, learning: &mut Learning) -> Result<(), Refusal> {
        let Learned { rule, limit } = learned;
        if let Some(old) = self.next.get(rule.table, rule.priority, &rule.matching).cloned() {
            let is_same = old.actions == rule.actions && old.cookie == rule.cookie;
            if is_same {
                learning.n_renewed += 1;
            } else {
                self.put(Rule { cookie: rule.cookie, ..with_actions(&old, rule.actions.clone()) })?;
                learning.n_changed += 1;
            }
            old.stats.renew(rule.life.born);
            return Ok(());
        }
        if *limit != 0 && self.next.n_learned(rule.table, rule.cookie) >= *limit as usize {
            learning.n_over_limit += 1;
            return Ok(());
        }
        self.make_room(rule).map_err(|reason| Refusal { what: rule.to_string(), reason })?;
        self.put(rule.clone())?;
        learning.n_added += 1;
        Ok(())
    }

    /// A rule is in its table now, in the place of another perhaps.
    pub(super) fn enrol(&mut self, rule: &Rule, old: Option<&Rule>) {
        if let Some(old) = old {
            self.dismiss(old);
        }
        let key = (rule.table, rule.cookie);
        if self.next.learners.0.contains_key(&key) {
            self.learner(key).n_rules += 1;
        }
        each_learn(&rule.actions, &mut |learn| {
            let Some(key) = counted(learn) else { return };
            if !self.next.learners.0.contains_key(&key) {
                let rules = self.next.table(learn.table).rules();
                let n_rules = rules.filter(|rule| rule.cookie == learn.cookie).count();
                self.learner(key).n_rules = n_rules;
            }
            let learner = self.learner(key);
            learner.n_actions += 1;
            learner.n_deleting += usize::from(learn.delete_learned);
        });
    }

    /// A rule is no longer in its table.
    pub(super) fn dismiss(&mut self, rule: &Rule) {
        let key = (rule.table, rule.cookie);
        if self.next.learners.0.contains_key(&key) {
            let learner = self.learner(key);
            learner.n_rules = learner.n_rules.saturating_sub(1);
        }
        each_learn(&rule.actions, &mut |learn| {
            let Some(key) = counted(learn) else { return };
            let learner = self.learner(key);
            learner.n_actions = learner.n_actions.saturating_sub(1);
            if learn.delete_learned {
                learner.n_deleting = learner.n_deleting.saturating_sub(1);
                self.orphaned.push(key);
            }
            if self.learner(key).n_actions == 0 {
                Arc::make_mut(&mut self.next.learners.0).remove(&key);
            }
        });
    }

    /// Deletes what those have learned who wanted that, once the last of them is gone.
    pub(super) fn take_learned(&mut self) {
        while let Some(key) = self.orphaned.pop() {
            if self.next.learners.0.get(&key).is_some_and(|learner| learner.n_deleting > 0) {
                continue;
            }
            let rules = self.next.table(key.0).rules();
            let learned: Vec<_> = rules.filter(|rule| rule.cookie == key.1).cloned().collect();
            learned.iter().for_each(|rule| self.take(rule, RemovedReason::Delete));
        }
    }

    fn learner(&mut self, key: LearnerKey) -> &mut Learner {
        Arc::make_mut(&mut self.next.learners.0).entry(key).or_default()
    }
}

/// Where the rules of a `learn` are counted, if they are.
fn counted(learn: &Learn) -> Option<LearnerKey> {
    (learn.limit != 0 || learn.delete_learned).then_some((learn.table, learn.cookie))
}
