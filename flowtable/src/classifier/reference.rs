//! The classifier as one would explain it: look at the rules by falling priority until
//! one matches. Oracle for [`super::TupleSpace`].

use std::sync::Arc;

use super::{Classifier, mask_order};
use crate::{
    flow::{Match, Rule},
    key::Tracked,
    types::Priority,
};

/// Rules in order of precedence.
///
/// # Cost
/// Everything is linear in the number of rules.
#[derive(Debug, Clone, Default)]
pub struct Reference {
    rules: Vec<Arc<Rule>>,
}

impl Reference {
    fn position(&self, priority: Priority, matching: &Match) -> Option<usize> {
        self.rules.iter().position(|rule| rule.priority == priority && rule.matching == *matching)
    }
}

impl Classifier for Reference {
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        if let Some(idx) = self.position(rule.priority, &rule.matching) {
            return Some(std::mem::replace(&mut self.rules[idx], rule));
        }
        self.rules.push(rule);
        self.rules
            .sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| mask_order(&a.matching, &b.matching)));
        None
    }

    fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        self.position(priority, matching).map(|idx| self.rules.remove(idx))
    }

    fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        self.position(priority, matching).map(|idx| &self.rules[idx])
    }

    fn lookup(&self, key: &mut Tracked) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| {
            rule.matching
                .words()
                .iter()
                .all(|word| key.read_word(usize::from(word.idx), word.mask) == word.value)
        })
    }

    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }
}
