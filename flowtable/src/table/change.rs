//! Transactions: what can be changed, and how a list of changes becomes a new version.

use std::sync::Arc;

use super::{
    Tables,
    check::check_rule,
    edits::RuleEdit,
    error::RuleError,
    group_change::GroupChange,
    learn::{LearnerKey, Learners},
    life::{Removed, RemovedReason},
    meter_change::MeterChange,
    reference::{Reference, refers_to},
    set_change::SetChange,
    settings::{FragmentMode, TableSettings},
};
use crate::{
    classifier::Classifier,
    flow::{Action, Match, Rule, RuleFlags, RuleLife},
    tunnel::OptionChange,
    types::{GroupId, PortNo, Priority, TableId, Timestamp},
};

/// A change of the tables, with the meaning OpenFlow 1.5 §6.4 gives it.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a rule. It replaces the one of same table, priority and match and goes on with
    /// its statistics, unless it has the flag `reset_counts`.
    Add(Rule),
    /// Gives all rules that pass the filter other actions; they keep their statistics.
    Modify {
        /// Which rules.
        filter: Filter,
        /// Their new actions.
        actions: Vec<Action>,
    },
    /// Gives the rule of this table, priority and match other actions, if there is one;
    /// it keeps its statistics.
    ModifyStrict {
        /// Its table.
        table: TableId,
        /// Its priority.
        priority: Priority,
        /// Its match.
        matching: Match,
        /// Its new actions.
        actions: Vec<Action>,
    },
    /// Deletes all rules that pass the filter.
    Delete(Filter),
    /// Deletes the rule of this table, priority and match, if there is one.
    DeleteStrict {
        /// Its table.
        table: TableId,
        /// Its priority.
        priority: Priority,
        /// Its match.
        matching: Match,
    },
    /// Deletes all rules of all tables.
    Clear,
    /// Changes a group.
    Group(GroupChange),
    /// Changes a meter.
    Meter(MeterChange),
    /// Changes a named set.
    Set(SetChange),
    /// Changes how a table is run.
    Table(TableId, TableSettings),
    /// Changes how all tables see IP fragments.
    Fragments(FragmentMode),
    /// Changes which Geneve options have fields.
    Option(OptionChange),
}

/// Chooses rules. The default one chooses all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this table; `None`: in all.
    pub table: Option<TableId>,
    /// Whose match is this or within it.
    pub matching: Match,
    /// Whose cookie has these bits,
    pub cookie: u64,
    /// under this mask.
    pub cookie_mask: u64,
    /// That can send to this port.
    pub out_port: Option<PortNo>,
    /// That can send to this group.
    pub out_group: Option<GroupId>,
}

impl Filter {
    /// The rule is one of those chosen.
    pub fn passes(&self, rule: &Rule) -> bool {
        let sends_to = |reference| refers_to(&rule.actions, reference);
        self.table.is_none_or(|table| table == rule.table)
            && (rule.cookie ^ self.cookie) & self.cookie_mask == 0
            && rule.matching.is_within(&self.matching)
            && self.out_port.is_none_or(|port| sends_to(Reference::Port(port)))
            && self.out_group.is_none_or(|group| sends_to(Reference::Group(group)))
    }
}

/// A transaction was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {change}, `{rule}`: {reason}")]
pub struct TransactionError {
    /// Index of the change.
    pub change: usize,
    /// The rule, group, meter, set or table, as text.
    pub rule: String,
    /// What is wrong with it.
    pub reason: RuleError,
}

/// What a transaction made of the tables.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The new version.
    pub tables: Tables,
    /// Rules that are gone and wanted that to be told, in the order they went.
    pub removed: Vec<Removed>,
    /// What was done to the rules, in order.
    pub edits: Vec<RuleEdit>,
}

impl Tables {
    /// The tables after these changes, applied in order: all of them or, with an error,
    /// none. Tables that no change touches are shared with this version. For rules that
    /// come without a timeout and go unnoticed; see [`Tables::commit`] for others.
    ///
    /// # Errors
    /// Names the first rule that may not be in a table, and why.
    ///
    /// # Cost
    /// Linear in the changes, but for filters, which look at each rule of their tables.
    pub fn transact(&self, changes: Vec<Change>) -> Result<Self, TransactionError> {
        self.commit(changes, Timestamp::default()).map(|commit| commit.tables)
    }

    /// Like [`Tables::transact`], at the moment `now`, and with what is to be told of rules
    /// that are gone.
    ///
    /// # Errors
    /// Names the first rule, group or meter that may not be there, and why.
    pub fn commit(&self, changes: Vec<Change>, now: Timestamp) -> Result<Commit, TransactionError> {
        let mut transaction = Transaction::new(self, now);
        for (change, wish) in changes.into_iter().enumerate() {
            let refused = |Refusal { what, reason }| TransactionError { change, rule: what, reason };
            transaction.apply(wish).map_err(refused)?;
        }
        Ok(transaction.finish())
    }
}

/// What may not be, and why.
pub(super) struct Refusal {
    pub(super) what: String,
    pub(super) reason: RuleError,
}

/// A version in the making.
pub(super) struct Transaction {
    pub(super) next: Tables,
    pub(super) now: Timestamp,
    /// Learners that may be gone.
    pub(super) orphaned: Vec<LearnerKey>,
    removed: Vec<Removed>,
    edits: Vec<RuleEdit>,
}

impl Transaction {
    pub(super) fn new(tables: &Tables, now: Timestamp) -> Self {
        Self { next: tables.clone(), now, orphaned: Vec::new(), removed: Vec::new(), edits: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Commit {
        self.next.trim();
        Commit { tables: self.next, removed: self.removed, edits: self.edits }
    }

    fn apply(&mut self, change: Change) -> Result<(), Refusal> {
        match change {
            Change::Add(rule) => self.add(rule)?,
            Change::Modify { filter, actions } => {
                self.check_choice(&filter.matching)?;
                for rule in self.chosen(&filter) {
                    self.put(with_actions(&rule, actions.clone()))?;
                }
            }
            Change::ModifyStrict { table, priority, matching, actions } => {
                self.check_choice(&matching)?;
                if let Some(rule) = self.next.get(table, priority, &matching).cloned() {
                    self.put(with_actions(&rule, actions))?;
                }
            }
            Change::Delete(filter) => {
                self.check_choice(&filter.matching)?;
                for rule in self.chosen(&filter) {
                    self.take(&rule, RemovedReason::Delete);
                }
            }
            Change::DeleteStrict { table, priority, matching } => {
                self.check_choice(&matching)?;
                if let Some(rule) = self.next.get(table, priority, &matching).cloned() {
                    self.take(&rule, RemovedReason::Delete);
                }
            }
            Change::Clear => {
                let told = |rule: &&Arc<Rule>| rule.life.flags.has(RuleFlags::SEND_FLOW_REM);
                let gone: Vec<_> = self.next.rules().filter(told).cloned().collect();
                gone.iter().for_each(|rule| self.take(rule, RemovedReason::Delete));
                self.next.tables.clear();
                self.next.learners = Learners::default();
                self.orphaned.clear();
                self.next.n_mortal = 0;
                self.edits.push(RuleEdit::Cleared);
            }
            Change::Group(change) => self.change_group(change)?,
            Change::Meter(change) => self.change_meter(change)?,
            Change::Set(change) => self.change_set(change)?,
            Change::Table(table, settings) => self.change_table(table, settings)?,
            Change::Fragments(mode) => self.next.fragments = mode,
            Change::Option(change) => self.change_options(change)?,
        }
        self.take_learned();
        Ok(())
    }

    /// A rule from outside: new, or in the place of another.
    fn add(&mut self, rule: Rule) -> Result<(), Refusal> {
        if let Err(reason) = self.check_overlap(&rule) {
            return Err(Refusal { what: rule.to_string(), reason });
        }
        let old = self.next.get(rule.table, rule.priority, &rule.matching);
        let stats = match old {
            Some(old) if !rule.life.flags.has(RuleFlags::RESET_COUNTS) => Arc::clone(&old.stats),
            _ => Arc::clone(&rule.stats),
        };
        if old.is_none()
            && let Err(reason) = self.make_room(&rule)
        {
            return Err(Refusal { what: rule.to_string(), reason });
        }
        self.put(Rule { life: RuleLife { born: self.now, ..rule.life }, stats, ..rule })
    }

    pub(super) fn put(&mut self, rule: Rule) -> Result<(), Refusal> {
        let sets = || self.check_sets(&rule.matching).map_err(RuleError::Set);
        let checked =
            check_rule(&rule).and_then(|()| sets()).and_then(|()| self.check_references(&rule.actions));
        if let Err(reason) = checked {
            return Err(Refusal { what: rule.to_string(), reason });
        }
        self.next.n_mortal += usize::from(rule.is_mortal());
        let rule = Arc::new(rule);
        let old = self.next.table_mut(rule.table).insert(Arc::clone(&rule));
        self.next.n_mortal -= usize::from(old.as_ref().is_some_and(|old| old.is_mortal()));
        self.enrol(&rule, old.as_deref());
        self.edits.push(RuleEdit::Put(rule));
        Ok(())
    }

    /// A rule goes, and whoever wants to know is told.
    pub(super) fn take(&mut self, rule: &Arc<Rule>, reason: RemovedReason) {
        let Some(rule) = self.next.table_mut(rule.table).remove(rule.priority, &rule.matching) else {
            return;
        };
        self.next.n_mortal -= usize::from(rule.is_mortal());
        self.dismiss(&rule);
        self.edits.push(RuleEdit::Taken(Arc::clone(&rule)));
        if rule.life.flags.has(RuleFlags::SEND_FLOW_REM) {
            self.removed.push(Removed { rule, reason, at: self.now });
        }
    }

    /// Rules that refer to a group or meter that is gone go with it (OpenFlow 1.5 §6.7, §6.8).
    pub(super) fn take_referring(&mut self, reference: Reference, reason: RemovedReason) {
        let referring: Vec<_> =
            self.next.rules().filter(|rule| refers_to(&rule.actions, reference)).cloned().collect();
        referring.iter().for_each(|rule| self.take(rule, reason));
    }

    fn chosen(&self, filter: &Filter) -> Vec<Arc<Rule>> {
        let tables = match filter.table {
            Some(table) => {
                let idx = usize::from(table.get());
                self.next.tables.get(idx).map(std::slice::from_ref).unwrap_or_default()
            }
            None => &self.next.tables,
        };
        let rules = tables.iter().flat_map(|table| table.rules());
        rules.filter(|rule| filter.passes(rule)).cloned().collect()
    }
}

/// A new version of a rule that shares its statistics.
pub(super) fn with_actions(rule: &Rule, actions: Vec<Action>) -> Rule {
    Rule { actions, ..rule.clone() }
}
