//! What a commit has done to the rules, one by one: for whoever keeps a record of the tables
//! that grows with the changes, not with the rules.

use std::sync::Arc;

use super::Tables;
use crate::{flow::Rule, types::TableId};

/// One step from a version of the rules to the next.
#[derive(Debug, Clone)]
pub enum RuleEdit {
    /// The rule is there now, in the place of the one of its table, priority and match if there
    /// was one.
    Put(Arc<Rule>),
    /// The rule is gone.
    Taken(Arc<Rule>),
    /// All rules are gone.
    Cleared,
}

impl Tables {
    /// Groups, meters, sets, settings, Geneve options and the handling of fragments are those of another
    /// version of the same tables. A false `false` is possible.
    ///
    /// # Cost
    /// None that grows with anything.
    pub fn shares_all_but_rules(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.groups, &other.groups)
            && Arc::ptr_eq(&self.meters, &other.meters)
            && Arc::ptr_eq(&self.sets, &other.sets)
            && Arc::ptr_eq(&self.settings, &other.settings)
            && self.fragments == other.fragments
            && Arc::ptr_eq(&self.options, &other.options)
    }

    /// The number of every table that there can be.
    pub fn ids() -> impl Iterator<Item = TableId> {
        (0..=u8::MAX).filter_map(|raw| TableId::new(raw).ok())
    }
}
