//! The flow tables: up to 255 of them, changed by transactions, shared between versions.
//!
//! [`Tables`] is one version. [`Tables::transact`] yields the next one, or says which
//! rule was wrong and why, in which case there is none. What may be in a table is
//! decided in `check.rs`; how a rule is found, in [`crate::classifier`].

mod change;
mod check;
mod check_learn;
mod difference;
mod edits;
mod error;
mod group_change;
mod learn;
mod life;
mod meter_change;
mod reference;
mod set_change;
mod settings;
mod stats;

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

pub(crate) use crate::classifier::RulePlace;
pub use change::{Change, Commit, Filter, TransactionError};
pub use check::check_rule;
pub(crate) use check::{MAX_ACTIONS, MAX_NESTING, check_match};
pub(crate) use difference::TableSet;
pub use edits::RuleEdit;
pub use error::RuleError;
pub use group_change::{BucketChoice, BucketPlace, GroupChange, GroupError, MAX_BUCKETS, MAX_GROUP_CHAIN};
pub use learn::Learning;
pub use life::{Removed, RemovedReason};
pub use meter_change::{MAX_BANDS, MeterChange, MeterError};
pub use set_change::{SetChange, SetError};
pub use settings::{FragmentMode, MissPolicy, OverflowPolicy, TableSettings};
pub use stats::{TableCounters, TableStats};

use self::{group_change::Groups, learn::Learners, meter_change::Meters};

use crate::{
    classifier::{Classifier, TupleSpace},
    fdb::Fdb,
    flow::{Match, Rule},
    key::Tracked,
    set::Sets,
    tunnel::OptionMap,
    types::{Priority, TableId},
};

static NO_RULES: LazyLock<TupleSpace> = LazyLock::new(TupleSpace::default);
static DEFAULT_SETTINGS: LazyLock<TableSettings> = LazyLock::new(TableSettings::default);

/// One version of all flow tables, groups, meters and named sets.
///
/// # Cost
/// A copy is one reference count per table; tables are shared until changed.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Up to the last table that has rules.
    tables: Vec<Arc<TupleSpace>>,
    groups: Arc<Groups>,
    meters: Arc<Meters>,
    sets: Arc<Sets>,
    /// Those that are not the default ones.
    settings: Arc<BTreeMap<TableId, TableSettings>>,
    fragments: FragmentMode,
    options: Arc<OptionMap>,
    /// Shared by all versions.
    stats: Arc<TableStats>,
    /// Stations of `NORMAL`, shared by all versions.
    fdb: Arc<Fdb>,
    /// Rules that learn.
    learners: Learners,
    /// Rules that may go by a timeout.
    n_mortal: usize,
}

impl Tables {
    /// The rule of highest priority that matches; records everything examined.
    pub fn lookup(&self, table: TableId, key: &mut Tracked) -> Option<&Arc<Rule>> {
        let rules = self.tables.get(usize::from(table.get()))?;
        self.lookup_as_set(key, |key| rules.lookup(&self.sets, key))
    }

    /// Where a rule is, for [`Tables::rule_at`]; `None`: it moves about with others.
    pub(crate) fn place_of(&self, rule: &Arc<Rule>) -> Option<RulePlace> {
        self.table(rule.table).place_of(rule)
    }

    /// The rule in a place that this version has told.
    #[inline]
    pub(crate) fn rule_at(&self, table: TableId, place: RulePlace) -> Option<&Arc<Rule>> {
        self.tables.get(usize::from(table.get()))?.rule_at(place)
    }

    /// The rules of a table in the order of precedence, where there are no more than `max`, and
    /// none has a range or a set or is part of a conjunction.
    pub(crate) fn few_rules(&self, table: TableId, max: usize) -> Option<Vec<&Arc<Rule>>> {
        self.table(table).few_rules(max)
    }

    /// The rule of just this table, priority and match.
    pub fn get(&self, table: TableId, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        self.table(table).get(priority, matching)
    }

    /// All rules in order of table, falling priority, match: always the same order for
    /// the same rules.
    ///
    /// # Cost
    /// Sorts.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.tables.iter().flat_map(|table| {
            let mut rules: Vec<_> = table.rules().collect();
            rules.sort_by(|a, b| precedence(a, b));
            rules
        })
    }

    /// How a table is run.
    pub fn settings(&self, table: TableId) -> &TableSettings {
        self.settings.get(&table).unwrap_or_else(|| &DEFAULT_SETTINGS)
    }

    /// The table with this name.
    pub fn by_name(&self, name: &str) -> Option<TableId> {
        self.settings.iter().find(|(_, settings)| settings.name == name).map(|(table, _)| *table)
    }

    /// The counters of the tables, which all versions share.
    pub fn stats(&self) -> &Arc<TableStats> {
        &self.stats
    }

    /// Where stations are, for the port `NORMAL`; all versions share it.
    pub fn fdb(&self) -> &Arc<Fdb> {
        &self.fdb
    }

    /// The same tables with another database of stations.
    #[must_use]
    pub fn with_fdb(self, fdb: Arc<Fdb>) -> Self {
        Self { fdb, ..self }
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.tables.iter().map(|table| table.len()).sum()
    }

    /// There is no rule.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of rules of a table.
    pub fn n_rules(&self, table: TableId) -> usize {
        self.table(table).len()
    }

    fn table(&self, table: TableId) -> &TupleSpace {
        self.tables.get(usize::from(table.get())).map_or(&NO_RULES, |table| table)
    }

    fn table_mut(&mut self, table: TableId) -> &mut TupleSpace {
        let idx = usize::from(table.get());
        if self.tables.len() <= idx {
            self.tables.resize_with(idx + 1, Arc::default);
        }
        Arc::make_mut(&mut self.tables[idx])
    }

    fn trim(&mut self) {
        while self.tables.last().is_some_and(|table| table.is_empty()) {
            self.tables.pop();
        }
    }
}

/// The same rules, groups, meters, sets and settings, whatever their statistics.
impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        self.tables.len() == other.tables.len()
            && self.tables.iter().zip(&other.tables).all(|(a, b)| {
                let known = |rule: &Arc<Rule>| {
                    b.get(rule.priority, &rule.matching).is_some_and(|twin| same_rule(rule, twin))
                };
                Arc::ptr_eq(a, b) || a.len() == b.len() && a.rules().all(known)
            })
            && self.groups == other.groups
            && self.sets == other.sets
            && self.meters().map(|meter| meter.config()).eq(other.meters().map(|meter| meter.config()))
            && self.settings == other.settings
            && self.fragments == other.fragments
            && self.options == other.options
    }
}

impl Eq for Tables {}

fn same_rule(a: &Arc<Rule>, b: &Arc<Rule>) -> bool {
    Arc::ptr_eq(a, b)
        || a.actions == b.actions
            && a.cookie == b.cookie
            && a.origin == b.origin
            && a.life.asks_the_same(&b.life)
}

fn precedence(a: &Rule, b: &Rule) -> Ordering {
    b.priority.cmp(&a.priority).then_with(|| a.matching.cmp(&b.matching))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_group;
#[cfg(test)]
mod tests_life;
#[cfg(test)]
mod tests_set;
