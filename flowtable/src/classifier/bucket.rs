//! The rules of a subtable whose masked bits are the same: told apart by the ranges and
//! sets that they name. See the essay in [`super`].

use std::{collections::BTreeMap, hash::Hasher, sync::Arc};

use rapidhash::quality::RapidHasher;

use super::{paged_map::PagedMap, value_order};
use crate::{
    field::Field,
    flow::{Match, Membership, Rule, Values},
    key::Tracked,
    set::{SetName, Sets, ValueRange},
    trie::{Entry, Trie},
    types::Priority,
};

/// Ranges of a branch that are compared one by one; more of them are found by a trie.
const FEW: usize = 8;
/// Seed of the hashes; fixed, as ranges come from rules.
const HASH_SEED: u64 = 0x7365_7473_616e_6472;

/// Rules by falling priority, or a branch by what they say of one more field.
#[derive(Debug, Clone)]
pub(super) enum Bucket {
    /// Their matches say nothing more.
    Rules(Vec<Arc<Rule>>),
    /// Their matches name ranges or sets of the same field.
    Branch(Arc<Branch>),
}

impl Default for Bucket {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}

/// Rules told apart by the range or set that they name for a field.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    field: Field,
    /// By the hash of their range.
    ranges: PagedMap<Vec<(ValueRange, Bucket)>>,
    n_ranges: usize,
    /// The ranges that each prefix is a part of, when they are more than a few.
    index: Trie<Spans>,
    /// In the order of search: falling highest priority, then name.
    sets: Vec<(SetName, Bucket)>,
    /// How many rules have each priority.
    priorities: BTreeMap<Priority, usize>,
}

/// Ranges that a prefix is a part of.
#[derive(Debug, Clone, Default)]
struct Spans(Vec<ValueRange>);

impl Entry for Spans {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// What one lookup knows of sets: each is searched once for a field.
pub(super) struct SetSearch<'a> {
    sets: &'a Sets,
    answers: Vec<(Field, SetName, bool)>,
}

impl<'a> SetSearch<'a> {
    pub(super) fn new(sets: &'a Sets) -> Self {
        Self { sets, answers: Vec::new() }
    }

    fn has(&mut self, field: Field, name: &SetName, key: &mut Tracked) -> bool {
        let known = self.answers.iter().find(|(of, set, _)| *of == field && set == name);
        if let Some((.., found)) = known {
            return *found;
        }
        let found = Membership { field, values: Values::Set(name.clone()) }.examine(key, self.sets);
        self.answers.push((field, name.clone(), found));
        found
    }
}

impl Bucket {
    /// There is no rule.
    pub(super) fn is_empty(&self) -> bool {
        self.max_priority().is_none()
    }

    fn max_priority(&self) -> Option<Priority> {
        match self {
            Self::Rules(rules) => rules.first().map(|rule| rule.priority),
            Self::Branch(branch) => branch.priorities.last_key_value().map(|(priority, _)| *priority),
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
            (Self::Rules(rules), []) => {
                rules.iter().find(|rule| rule.priority == priority && rule.matching == *matching)
            }
            (Self::Branch(branch), [membership, rest @ ..]) => {
                branch.arm(&membership.values)?.get(priority, matching, rest)
            }
            (Self::Rules(_), [_, ..]) | (Self::Branch(_), []) => None,
        }
    }

    /// Adds a rule, of whose match the first `depth` memberships have been looked at;
    /// gives back the one it replaces.
    pub(super) fn insert(&mut self, rule: Arc<Rule>, depth: usize) -> Option<Arc<Rule>> {
        let membership = rule.matching.memberships().get(depth).cloned();
        if let (Self::Rules(rules), Some(membership)) = (&*self, &membership)
            && rules.is_empty()
        {
            *self = Self::Branch(Arc::new(Branch::new(membership.field)));
        }
        match (self, membership) {
            (Self::Branch(branch), Some(Membership { values, .. })) => {
                let branch = Arc::make_mut(branch);
                let priority = rule.priority;
                let replaced = branch.change(&values, |arm| arm.insert(rule, depth + 1));
                if replaced.is_none() {
                    *branch.priorities.entry(priority).or_default() += 1;
                }
                replaced
            }
            (Self::Rules(rules), _) => {
                let is_same =
                    |old: &&mut Arc<Rule>| old.priority == rule.priority && old.matching == rule.matching;
                if let Some(old) = rules.iter_mut().find(is_same) {
                    return Some(std::mem::replace(old, rule));
                }
                let idx = rules.partition_point(|other| other.priority >= rule.priority);
                rules.insert(idx, rule);
                None
            }
            // The fields of a subtable's matches are all the same.
            (Self::Branch(_), None) => None,
        }
    }

    /// Takes the rule of this priority and match out.
    pub(super) fn remove(&mut self, priority: Priority, matching: &Match, depth: usize) -> Option<Arc<Rule>> {
        match (self, matching.memberships().get(depth)) {
            (Self::Branch(branch), Some(Membership { values, .. })) => {
                branch.arm(values)?;
                let branch = Arc::make_mut(branch);
                let removed = branch.change(values, |arm| arm.remove(priority, matching, depth + 1))?;
                if let Some(n) = branch.priorities.get_mut(&priority) {
                    *n -= 1;
                    if *n == 0 {
                        branch.priorities.remove(&priority);
                    }
                }
                Some(removed)
            }
            (Self::Rules(rules), _) => {
                let is_it = |rule: &Arc<Rule>| rule.priority == priority && rule.matching == *matching;
                rules.iter().position(is_it).map(|idx| rules.remove(idx))
            }
            (Self::Branch(_), None) => None,
        }
    }

    /// Offers the rules that match and are wanted.
    pub(super) fn search<'a>(&'a self, key: &mut Tracked, sets: &mut SetSearch<'_>, goal: &mut Goal<'a>) {
        match self {
            Self::Branch(branch) => branch.search(key, sets, goal),
            Self::Rules(rules) => {
                for rule in rules {
                    if !goal.wants(rule.priority) {
                        break;
                    }
                    // Different masked bits may have the same hash.
                    if matches_bits(rule, key) {
                        goal.offer(rule);
                    }
                }
            }
        }
    }
}

impl Branch {
    fn new(field: Field) -> Self {
        Self {
            field,
            ranges: PagedMap::default(),
            n_ranges: 0,
            index: Trie::default(),
            sets: Vec::new(),
            priorities: BTreeMap::new(),
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        let ranges = self.ranges.values().flatten().map(|(_, arm)| arm);
        ranges.chain(self.sets.iter().map(|(_, arm)| arm))
    }

    fn arm(&self, values: &Values) -> Option<&Bucket> {
        match values {
            Values::Range(range) => self.range_arm(*range),
            Values::Set(name) => self.sets.iter().find(|(set, _)| set == name).map(|(_, arm)| arm),
        }
    }

    fn range_arm(&self, range: ValueRange) -> Option<&Bucket> {
        let arms = self.ranges.get(hash(range))?;
        arms.iter().find(|(other, _)| *other == range).map(|(_, arm)| arm)
    }

    /// Changes the arm of these values, a new one if there is none; one that is empty then
    /// goes.
    fn change<R>(&mut self, values: &Values, change: impl FnOnce(&mut Bucket) -> R) -> R {
        match values {
            Values::Range(range) => self.change_range(*range, change),
            Values::Set(name) => self.change_set(name, change),
        }
    }

    fn change_set<R>(&mut self, name: &SetName, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let idx = self.sets.iter().position(|(set, _)| set == name).unwrap_or_else(|| {
            self.sets.push((name.clone(), Bucket::default()));
            self.sets.len() - 1
        });
        let answer = change(&mut self.sets[idx].1);
        self.sets.retain(|(_, arm)| !arm.is_empty());
        let rank = |(name, arm): &(SetName, Bucket)| (std::cmp::Reverse(arm.max_priority()), name.clone());
        self.sets.sort_by_cached_key(rank);
        answer
    }

    fn change_range<R>(&mut self, range: ValueRange, change: impl FnOnce(&mut Bucket) -> R) -> R {
        let (answer, growth) = self.ranges.update(hash(range), |arms| {
            let n_before = arms.len();
            let idx = arms.iter().position(|(other, _)| *other == range).unwrap_or_else(|| {
                arms.push((range, Bucket::default()));
                arms.len() - 1
            });
            let answer = change(&mut arms[idx].1);
            if arms[idx].1.is_empty() {
                arms.swap_remove(idx);
            }
            (!arms.is_empty(), (answer, arms.len().cmp(&n_before)))
        });
        match growth {
            std::cmp::Ordering::Greater => self.add_to_index(range),
            std::cmp::Ordering::Less => self.take_from_index(range),
            std::cmp::Ordering::Equal => {}
        }
        answer
    }

    fn add_to_index(&mut self, range: ValueRange) {
        self.n_ranges += 1;
        if self.n_ranges == FEW + 1 {
            let all: Vec<_> = self.ranges.values().flatten().map(|(range, _)| *range).collect();
            all.into_iter().for_each(|range| self.index_range(range));
        } else if self.n_ranges > FEW {
            self.index_range(range);
        }
    }

    fn index_range(&mut self, range: ValueRange) {
        for (bits, len) in range.prefixes(self.field.info().n_bits) {
            self.index.update(bits, len, |spans| spans.0.push(range));
        }
    }

    fn take_from_index(&mut self, range: ValueRange) {
        self.n_ranges -= 1;
        if self.n_ranges <= FEW {
            self.index = Trie::default();
            return;
        }
        for (bits, len) in range.prefixes(self.field.info().n_bits) {
            self.index.update(bits, len, |spans| spans.0.retain(|other| *other != range));
        }
    }

    fn search<'a>(&'a self, key: &mut Tracked, sets: &mut SetSearch<'_>, goal: &mut Goal<'a>) {
        let mut arms = if self.n_ranges > FEW { self.indexed_arms(key) } else { self.few_arms() };
        // The best first: what cannot win then is not looked at.
        arms.sort_by(|(a, x), (b, y)| y.max_priority().cmp(&x.max_priority()).then_with(|| a.cmp(b)));
        for (range, arm) in arms {
            if !arm.max_priority().is_some_and(|priority| goal.wants(priority)) {
                break;
            }
            let membership = Membership { field: self.field, values: Values::Range(range) };
            if self.n_ranges > FEW || membership.examine(key, sets.sets) {
                arm.search(key, sets, goal);
            }
        }
        for (name, arm) in &self.sets {
            if !arm.max_priority().is_some_and(|priority| goal.wants(priority)) {
                break;
            }
            if sets.has(self.field, name, key) {
                arm.search(key, sets, goal);
            }
        }
    }

    fn few_arms(&self) -> Vec<(ValueRange, &Bucket)> {
        self.ranges.values().flatten().map(|(range, arm)| (*range, arm)).collect()
    }

    /// The arms whose range the key's value is in; un-wildcards what proves that it is in
    /// these and no others.
    fn indexed_arms(&self, key: &mut Tracked) -> Vec<(ValueRange, &Bucket)> {
        let mut arms = Vec::new();
        key.read_prefix(self.field, |value| {
            let n_bits = self.field.info().n_bits;
            self.index.walk(value << (128 - n_bits), |_, spans| {
                arms.extend(spans.0.iter().filter_map(|range| Some((*range, self.range_arm(*range)?))));
                true
            })
        });
        arms
    }
}

fn hash(range: ValueRange) -> u64 {
    let mut hasher = RapidHasher::new(HASH_SEED);
    hasher.write_u128(range.first());
    hasher.write_u128(range.last());
    hasher.finish()
}

/// The masked bits are those that the rule requires.
pub(super) fn matches_bits(rule: &Rule, key: &mut Tracked) -> bool {
    let mut words = rule.matching.words().iter();
    words.all(|word| key.read_word(usize::from(word.idx), word.mask) == word.value)
}
