//! The rules of a subtable whose masked bits are the same: told apart by the ranges and
//! sets that they name. See the essay in [`super`].

use std::sync::Arc;

use super::{
    branch::{Branch, SetSearch},
    value_order,
};
use crate::{
    flow::{Match, Membership, Rule},
    key::Tracked,
    types::Priority,
};

/// Rules of a bucket that are compared one by one; more of them branch, if they can.
const FEW_RULES: usize = 4;

/// Rules whose matches are the same up to some membership.
#[derive(Debug, Clone)]
pub(super) enum Bucket {
    /// By falling priority. They are few, or their matches say nothing more.
    Rules(Vec<Arc<Rule>>),
    /// Told apart by the next membership, which is of the same field in all of them.
    Branch(Arc<Branch>),
}

impl Default for Bucket {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

/// What a search wants, and what it has found.
pub(super) enum Goal<'a> {
    /// The rule of highest priority, at least that of `floor`.
    Best { floor: Option<Priority>, best: Option<&'a Arc<Rule>> },
    /// All rules above a priority.
    All { above: Option<Priority>, found: Vec<&'a Arc<Rule>> },
}

impl<'a> Goal<'a> {
    /// Rules of this priority matter.
    pub(super) fn wants(&self, priority: Priority) -> bool {
        match self {
            Self::Best { floor, best } => {
                let least = best.map(|best| best.priority).max(*floor);
                least.is_none_or(|least| priority >= least)
            }
            Self::All { above, .. } => above.is_none_or(|above| priority > above),
        }
    }

    fn offer(&mut self, rule: &'a Arc<Rule>) {
        match self {
            Self::Best { best, .. } => {
                let wins = best.is_none_or(|best| {
                    rule.priority > best.priority
                        || rule.priority == best.priority
                            && value_order(&rule.matching, &best.matching).is_lt()
                });
                if wins {
                    *best = Some(rule);
                }
            }
            Self::All { found, .. } => found.push(rule),
        }
    }
}

impl Bucket {
    /// There is no rule.
    pub(super) fn is_empty(&self) -> bool {
        self.max_priority().is_none()
    }

    /// The highest priority of its rules.
    pub(super) fn max_priority(&self) -> Option<Priority> {
        match self {
            Self::Rules(rules) => rules.first().map(|rule| rule.priority),
            Self::Branch(branch) => branch.max_priority(),
        }
    }

    /// The rules by falling priority, unless ranges or sets tell them apart.
    pub(super) fn plain(&self) -> Option<&[Arc<Rule>]> {
        match self {
            Self::Rules(rules) => Some(rules),
            Self::Branch(_) => None,
        }
    }

    /// All rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let (plain, mut below) = match self {
            Self::Rules(rules) => (rules.as_slice(), Vec::new()),
            Self::Branch(branch) => ([].as_slice(), vec![&**branch]),
        };
        let mut rules = Vec::new();
        while let Some(branch) = below.pop() {
            for bucket in branch.buckets() {
                match bucket {
                    Self::Rules(more) => rules.extend(more),
                    Self::Branch(branch) => below.push(branch),
                }
            }
        }
        plain.iter().chain(rules)
    }

    /// The rule of this priority and match, of which `at` is what has not been looked at
    /// yet.
    pub(super) fn get(&self, priority: Priority, matching: &Match, at: &[Membership]) -> Option<&Arc<Rule>> {
        match (self, at) {
            (Self::Rules(rules), _) => {
                rules.iter().find(|rule| rule.priority == priority && rule.matching == *matching)
            }
            (Self::Branch(branch), [membership, rest @ ..]) => {
                branch.arm(&membership.values)?.get(priority, matching, rest)
            }
            (Self::Branch(_), []) => None,
        }
    }

    /// Adds a rule, of whose match the first `depth` memberships have been looked at;
    /// gives back the one it replaces.
    pub(super) fn insert(&mut self, rule: Arc<Rule>, depth: usize) -> Option<Arc<Rule>> {
        let rules = match self {
            Self::Branch(branch) => return Arc::make_mut(branch).insert(rule, depth),
            Self::Rules(rules) => rules,
        };
        let is_same = |old: &&mut Arc<Rule>| old.priority == rule.priority && old.matching == rule.matching;
        if let Some(old) = rules.iter_mut().find(is_same) {
            return Some(std::mem::replace(old, rule));
        }
        match rule.matching.memberships().get(depth) {
            Some(Membership { field, .. }) if rules.len() >= FEW_RULES => {
                let mut branch = Branch::new(*field);
                for rule in std::mem::take(rules).into_iter().chain([rule]) {
                    branch.insert(rule, depth);
                }
                *self = Self::Branch(Arc::new(branch));
            }
            _ => {
                let idx = rules.partition_point(|other| other.priority >= rule.priority);
                rules.insert(idx, rule);
            }
        }
        None
    }

    /// Takes the rule of this priority and match out.
    pub(super) fn remove(&mut self, priority: Priority, matching: &Match, depth: usize) -> Option<Arc<Rule>> {
        match self {
            Self::Branch(branch) => Arc::make_mut(branch).remove(priority, matching, depth),
            Self::Rules(rules) => {
                let is_it = |rule: &Arc<Rule>| rule.priority == priority && rule.matching == *matching;
                rules.iter().position(is_it).map(|idx| rules.remove(idx))
            }
        }
    }

    /// Offers the rules that match and are wanted; the first `depth` memberships of their
    /// matches hold.
    pub(super) fn search<'a>(
        &'a self,
        depth: usize,
        key: &mut Tracked,
        sets: &mut SetSearch<'a>,
        goal: &mut Goal<'a>,
    ) {
        let rules = match self {
            Self::Branch(branch) => return branch.search(depth, key, sets, goal),
            Self::Rules(rules) => rules,
        };
        for rule in rules {
            if !goal.wants(rule.priority) {
                break;
            }
            let mut memberships = rule.matching.memberships().iter().skip(depth);
            // Different masked bits may have the same hash.
            if matches_bits(rule, key) && memberships.all(|membership| sets.holds(membership, key)) {
                goal.offer(rule);
            }
        }
    }
}

/// The masked bits are those that the rule requires. Who looks here has recorded them.
fn matches_bits(rule: &Rule, key: &Tracked) -> bool {
    let (mut required, words) = (rule.matching.words().iter(), key.peek().words());
    required.all(|word| words[usize::from(word.idx)] & word.mask == word.value)
}
