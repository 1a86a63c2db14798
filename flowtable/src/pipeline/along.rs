//! A walk along one that was taken in an older version of the tables.
//!
//! As long as it finds the same rules, its key is the same at each table as it was then: a table
//! that has not changed gives what it gave. So only the changed ones are searched. Its mask has
//! the bits of those searches and of the actions; what the other tables examined is among the
//! bits of the walk taken then.

use std::sync::Arc;

use crate::{flow::Rule, table::TableSet, types::TableId};

/// A walk that was taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken<'a> {
    /// The rules it hit.
    pub(crate) rules: &'a [Arc<Rule>],
    /// The tables that had none, in order.
    pub(crate) misses: &'a [TableId],
    /// Tables that have changed since. Nothing else has.
    pub(crate) differing: TableSet,
}

/// What the walk taken then found next.
pub(super) enum Step<'a> {
    /// The same as now.
    Known(Option<&'a Arc<Rule>>),
    /// What the table says now has to be this.
    Expected(Option<&'a Arc<Rule>>),
    /// It went elsewhere, or it cannot be told.
    Apart,
}

impl<'a> Taken<'a> {
    /// There was no further step.
    pub(super) fn is_done(&self) -> bool {
        self.rules.is_empty() && self.misses.is_empty()
    }

    /// The next step, which is at this table.
    pub(super) fn next(&mut self, table: TableId) -> Step<'a> {
        let rule = self.rules.split_first().filter(|(rule, _)| rule.table == table);
        let miss = self.misses.split_first().filter(|(missed, _)| **missed == table);
        let found = match (rule, miss) {
            (Some((rule, rest)), None) => {
                self.rules = rest;
                Some(rule)
            }
            (None, Some((_, rest))) => {
                self.misses = rest;
                None
            }
            _ => return Step::Apart,
        };
        if self.differing.has(table) { Step::Expected(found) } else { Step::Known(found) }
    }
}
