//! The flow tables: stand-in until the real ones are merged.

use std::sync::Arc;

use crate::{flow::Rule, key::Tracked, types::TableId};

/// One version of all flow tables.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    rules: Vec<Arc<Rule>>,
}

/// A change.
#[derive(Debug)]
pub enum Change {
    /// Adds a rule.
    Add(Rule),
}

impl Tables {
    /// The rule of highest priority that matches; records everything examined.
    pub fn lookup(&self, table: TableId, key: &mut Tracked) -> Option<&Arc<Rule>> {
        self.rules.iter().filter(|rule| rule.table == table).find(|rule| {
            rule.matching.words().iter().all(|w| key.read_word(usize::from(w.idx), w.mask) == w.value)
        })
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    /// All or nothing.
    pub fn transact(&self, changes: Vec<Change>) -> Result<Self, String> {
        let mut rules = self.rules.clone();
        rules.extend(changes.into_iter().map(|Change::Add(rule)| Arc::new(rule)));
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        Ok(Self { rules })
    }
}
