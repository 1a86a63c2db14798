//! The classifier as one would explain it: look at the rules by falling priority until
//! one matches. Oracle for [`super::TupleSpace`].

use std::sync::Arc;

use super::{Classifier, conjunction::complete, match_order};
use crate::{
    flow::{Match, Rule},
    key::Tracked,
    set::Sets,
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
    /// The first rule that matches by itself.
    fn first(&self, sets: &Sets, key: &mut Tracked) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| !rule.is_conjunctive() && matches(rule, sets, key))
    }

    fn position(&self, priority: Priority, matching: &Match) -> Option<usize> {
        self.rules.iter().position(|rule| rule.priority == priority && rule.matching == *matching)
    }
}

fn matches(rule: &Rule, sets: &Sets, key: &mut Tracked) -> bool {
    let mut memberships = rule.matching.memberships().iter();
    matches_bits(rule, key) && memberships.all(|membership| membership.examine(key, sets))
}

impl Classifier for Reference {
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        if let Some(idx) = self.position(rule.priority, &rule.matching) {
            return Some(std::mem::replace(&mut self.rules[idx], rule));
        }
        self.rules.push(rule);
        self.rules
            .sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| match_order(&a.matching, &b.matching)));
        None
    }

    fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        self.position(priority, matching).map(|idx| self.rules.remove(idx))
    }

    fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        self.position(priority, matching).map(|idx| &self.rules[idx])
    }

    fn lookup<'a>(&'a self, sets: &'a Sets, key: &mut Tracked) -> Option<&'a Arc<Rule>> {
        let plain = self.first(sets, key);
        let wins = |rule: &&Arc<Rule>| plain.is_none_or(|plain| rule.priority > plain.priority);
        let parts = self.rules.iter().filter(|rule| rule.is_conjunctive()).filter(wins);
        let parts: Vec<_> = parts.filter(|rule| matches(rule, sets, key)).collect();
        complete(key, &parts, plain, |key| self.first(sets, key))
    }

    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }
}

/// The masked bits are those that the rule requires.
fn matches_bits(rule: &Rule, key: &mut Tracked) -> bool {
    let mut words = rule.matching.words().iter();
    words.all(|word| key.read_word(usize::from(word.idx), word.mask) == word.value)
}
