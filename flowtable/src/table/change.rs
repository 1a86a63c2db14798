//! Transactions: what can be changed, and how a list of changes becomes a new version.

use std::sync::Arc;

use super::{
    Tables,
    check::{RuleError, check_rule},
};
use crate::{
    classifier::Classifier,
    flow::{Action, Match, Rule},
    types::{Priority, TableId},
};

/// A change of the tables, with the meaning OpenFlow 1.5 §6.4 gives it.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds a rule. It replaces the one of same table, priority and match, with new
    /// statistics.
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
}

impl Filter {
    /// The rule is one of those chosen.
    pub fn passes(&self, rule: &Rule) -> bool {
        self.table.is_none_or(|table| table == rule.table)
            && (rule.cookie ^ self.cookie) & self.cookie_mask == 0
            && rule.matching.is_within(&self.matching)
    }
}

/// A transaction was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {change}, rule `{rule}`: {reason}")]
pub struct TransactionError {
    /// Index of the change.
    pub change: usize,
    /// The rule, as text.
    pub rule: String,
    /// What is wrong with it.
    pub reason: RuleError,
}

impl Tables {
    /// The tables after these changes, applied in order: all of them or, with an error,
    /// none. Tables that no change touches are shared with this version.
    ///
    /// # Errors
    /// Names the first rule that may not be in a table, and why.
    ///
    /// # Cost
    /// Linear in the changes, but for filters, which look at each rule of their tables.
    pub fn transact(&self, changes: Vec<Change>) -> Result<Self, TransactionError> {
        let mut next = self.clone();
        for (idx, change) in changes.into_iter().enumerate() {
            next.apply(change).map_err(|(rule, reason)| TransactionError {
                change: idx,
                rule: rule.to_string(),
                reason,
            })?;
        }
        next.trim();
        Ok(next)
    }

    fn apply(&mut self, change: Change) -> Result<(), (Box<Rule>, RuleError)> {
        match change {
            Change::Add(rule) => self.put(rule)?,
            Change::Modify { filter, actions } => {
                for rule in self.chosen(&filter) {
                    self.put(with_actions(&rule, actions.clone()))?;
                }
            }
            Change::ModifyStrict { table, priority, matching, actions } => {
                if let Some(rule) = self.get(table, priority, &matching).cloned() {
                    self.put(with_actions(&rule, actions))?;
                }
            }
            Change::Delete(filter) => {
                for rule in self.chosen(&filter) {
                    self.table_mut(rule.table).remove(rule.priority, &rule.matching);
                }
            }
            Change::DeleteStrict { table, priority, matching } => {
                if self.get(table, priority, &matching).is_some() {
                    self.table_mut(table).remove(priority, &matching);
                }
            }
            Change::Clear => self.tables.clear(),
        }
        Ok(())
    }

    fn put(&mut self, rule: Rule) -> Result<(), (Box<Rule>, RuleError)> {
        if let Err(reason) = check_rule(&rule) {
            return Err((Box::new(rule), reason));
        }
        self.table_mut(rule.table).insert(Arc::new(rule));
        Ok(())
    }

    fn chosen(&self, filter: &Filter) -> Vec<Arc<Rule>> {
        let tables = match filter.table {
            Some(table) => {
                self.tables.get(usize::from(table.get())).map(std::slice::from_ref).unwrap_or_default()
            }
            None => &self.tables,
        };
        let rules = tables.iter().flat_map(|table| table.rules());
        rules.filter(|rule| filter.passes(rule)).cloned().collect()
    }
}

/// A new version of a rule that shares its statistics.
fn with_actions(rule: &Rule, actions: Vec<Action>) -> Rule {
    Rule { actions, ..rule.clone() }
}
