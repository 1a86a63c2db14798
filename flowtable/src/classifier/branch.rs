//! Rules told apart by the range or set that they name for a field. See the essay in
//! [`super`].

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, btree_map},
    hash::{Hash, Hasher},
    sync::Arc,
};

use rapidhash::quality::RapidHasher;

use super::{
    bucket::{Bucket, Goal},
    paged_map::PagedMap,
};
use crate::{
    field::Field,
    flow::{Match, Membership, Rule, Values},
    key::Tracked,
    set::{FEW_SETS, SetName, Sets, ValueRange},
    trie::{Entry, Trie},
    types::Priority,
};

/// Ranges of a branch that are compared one by one; more of them are found by a trie.
const FEW_RANGES: usize = 8;
/// Seed of the hashes; fixed, as ranges and names come from rules.
const HASH_SEED: u64 = 0x7365_7473_616e_6472;

/// An arm for each range and each set.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    field: Field,
    ranges: Arms<ValueRange>,
    /// The ranges that each prefix is a part of, when they are more than a few.
    index: Trie<Spans>,
    sets: Arms<SetName>,
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

/// Buckets by what rules say, cheap to copy and then change.
#[derive(Debug, Clone)]
struct Arms<K> {
    by_hash: PagedMap<Vec<(K, Bucket)>>,
    n_arms: usize,
}

/// An arm that a packet may belong to.
struct Candidate<'a> {
    priority: Priority,
    test: Test<'a>,
    arm: &'a Bucket,
}

/// What is left to be found out.
enum Test<'a> {
    Passed,
    Range(ValueRange),
    Set(&'a SetName),
}

/// What one lookup knows of sets: each is searched once for a field.
pub(super) struct SetSearch<'a> {
    sets: &'a Sets,
    /// Most lookups ask for none.
    known: Option<Box<Known<'a>>>,
}

#[derive(Default)]
struct Known<'a> {
    answers: BTreeMap<(Field, &'a SetName), bool>,
    owners: BTreeMap<Field, Vec<&'a SetName>>,
}

impl<'a> SetSearch<'a> {
    pub(super) fn new(sets: &'a Sets) -> Self {
        Self { sets, known: None }
    }

    /// The key's value is in the set; un-wildcards what proves that it is, or is not.
    fn has(&mut self, field: Field, name: &'a SetName, key: &mut Tracked) -> bool {
        let sets = self.sets;
        *self.known.get_or_insert_default().answers.entry((field, name)).or_insert_with(|| {
            let mut found = false;
            key.read_prefix(field, |value| {
                let n_bits = field.info().n_bits;
                let (is_there, n_examined) =
                    sets.get(name).map_or((false, 0), |set| set.search(value, n_bits));
                found = is_there;
                n_examined
            });
            found
        })
    }

    /// A membership holds; un-wildcards what proves that it does, or does not.
    pub(super) fn holds(&mut self, membership: &'a Membership, key: &mut Tracked) -> bool {
        match &membership.values {
            Values::Range(range) => is_in(membership.field, *range, key),
            Values::Set(name) => self.has(membership.field, name, key),
        }
    }

    /// The sets that the key's value is in, where there are many sets; un-wildcards what
    /// proves that it is in these and no others.
    fn owners(&mut self, field: Field, key: &mut Tracked) -> Option<&[&'a SetName]> {
        let (sets, known) = (self.sets, self.known.get_or_insert_default());
        let entry = match known.owners.entry(field) {
            btree_map::Entry::Occupied(entry) => return Some(entry.into_mut()),
            btree_map::Entry::Vacant(entry) => entry,
        };
        let mut found = None;
        key.read_prefix(field, |value| {
            let (names, n_examined) = sets.owners(field, value).unzip();
            found = names;
            n_examined.unwrap_or(0)
        });
        Some(entry.insert(found?))
    }
}

impl Branch {
    pub(super) fn new(field: Field) -> Self {
        Self {
            field,
            ranges: Arms::new(),
            index: Trie::default(),
            sets: Arms::new(),
            priorities: BTreeMap::new(),
        }
    }

    /// All arms.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        let ranges = self.ranges.iter().map(|(_, arm)| arm);
        ranges.chain(self.sets.iter().map(|(_, arm)| arm))
    }

    /// The highest priority of its rules.
    pub(super) fn max_priority(&self) -> Option<Priority> {
        self.priorities.last_key_value().map(|(priority, _)| *priority)
    }

    /// Adds a rule whose membership at `depth` is of the branch's field; gives back the one
    /// it replaces.
    pub(super) fn insert(&mut self, rule: Arc<Rule>, depth: usize) -> Option<Arc<Rule>> {
        let Membership { values, .. } = rule.matching.memberships().get(depth)?.clone();
        let priority = rule.priority;
        let replaced = self.change(&values, |arm| arm.insert(rule, depth + 1));
        if replaced.is_none() {
            *self.priorities.entry(priority).or_default() += 1;
        }
        replaced
    }

    /// Takes the rule of this priority and match out.
    pub(super) fn remove(&mut self, priority: Priority, matching: &Match, depth: usize) -> Option<Arc<Rule>> {
        let Membership { values, .. } = matching.memberships().get(depth)?;
        self.arm(values)?;
        let removed = self.change(values, |arm| arm.remove(priority, matching, depth + 1))?;
        if let Some(n) = self.priorities.get_mut(&priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&priority);
            }
        }
        Some(removed)
    }

    /// The arm of these values.
    pub(super) fn arm(&self, values: &Values) -> Option<&Bucket> {
        match values {
            Values::Range(range) => self.ranges.get(range),
            Values::Set(name) => self.sets.get(name),
        }
    }

    /// Changes the arm of these values, a new one if there is none; one that is empty then
    /// goes.
    fn change<R>(&mut self, values: &Values, change: impl FnOnce(&mut Bucket) -> R) -> R {
        match values {
            Values::Set(name) => self.sets.change(name, change).0,
            Values::Range(range) => {
                let (answer, growth) = self.ranges.change(range, change);
                match growth {
                    Ordering::Greater => self.add_to_index(*range),
                    Ordering::Less => self.take_from_index(*range),
                    Ordering::Equal => {}
                }
                answer
            }
        }
    }

    fn add_to_index(&mut self, range: ValueRange) {
        if self.ranges.n_arms == FEW_RANGES + 1 {
            let all: Vec<_> = self.ranges.iter().map(|(range, _)| *range).collect();
            all.into_iter().for_each(|range| self.index(range));
        } else if self.ranges.n_arms > FEW_RANGES {
            self.index(range);
        }
    }

    fn index(&mut self, range: ValueRange) {
        for (bits, len) in range.prefixes(self.field.info().n_bits) {
            self.index.update(bits, len, |spans| spans.0.push(range));
        }
    }

    fn take_from_index(&mut self, range: ValueRange) {
        if self.ranges.n_arms <= FEW_RANGES {
            self.index = Trie::default();
            return;
        }
        for (bits, len) in range.prefixes(self.field.info().n_bits) {
            self.index.update(bits, len, |spans| spans.0.retain(|other| *other != range));
        }
    }

    /// Offers the rules that match and are wanted. The best come first: what cannot win
    /// then is not looked at.
    pub(super) fn search<'a>(
        &'a self,
        depth: usize,
        key: &mut Tracked,
        sets: &mut SetSearch<'a>,
        goal: &mut Goal<'a>,
    ) {
        let mut candidates = Vec::new();
        self.add_ranges(&mut candidates, key);
        self.add_sets(&mut candidates, key, sets);
        candidates.sort_by_key(|candidate| Reverse(candidate.priority));
        for Candidate { priority, test, arm } in candidates {
            if !goal.wants(priority) {
                break;
            }
            let passes = match test {
                Test::Passed => true,
                Test::Range(range) => is_in(self.field, range, key),
                Test::Set(name) => sets.has(self.field, name, key),
            };
            if passes {
                arm.search(depth + 1, key, sets, goal);
            }
        }
    }

    /// Few ranges are all to be compared; of many those that the value is in are found,
    /// and what proves that it is in no others is un-wildcarded.
    fn add_ranges<'a>(&'a self, candidates: &mut Vec<Candidate<'a>>, key: &mut Tracked) {
        if self.ranges.n_arms <= FEW_RANGES {
            let arms = self.ranges.iter();
            return candidates.extend(arms.filter_map(|(range, arm)| candidate(Test::Range(*range), arm)));
        }
        key.read_prefix(self.field, |value| {
            let n_bits = self.field.info().n_bits;
            self.index.walk(value << (128 - n_bits), |_, spans| {
                let arms = spans.0.iter().filter_map(|range| self.ranges.get(range));
                candidates.extend(arms.filter_map(|arm| candidate(Test::Passed, arm)));
                true
            })
        });
    }

    /// Like [`Self::add_ranges`], of sets.
    fn add_sets<'a>(
        &'a self,
        candidates: &mut Vec<Candidate<'a>>,
        key: &mut Tracked,
        sets: &mut SetSearch<'a>,
    ) {
        if self.sets.n_arms > FEW_SETS
            && let Some(owners) = sets.owners(self.field, key)
        {
            let arms = owners.iter().filter_map(|name| self.sets.get(name));
            return candidates.extend(arms.filter_map(|arm| candidate(Test::Passed, arm)));
        }
        candidates.extend(self.sets.iter().filter_map(|(name, arm)| candidate(Test::Set(name), arm)));
    }
}

/// The key's value is in the range; un-wildcards what proves that it is, or is not.
fn is_in(field: Field, range: ValueRange, key: &mut Tracked) -> bool {
    let mut found = false;
    key.read_prefix(field, |value| {
        let (is_there, n_examined) = range.search(value, field.info().n_bits);
        found = is_there;
        n_examined
    });
    found
}

fn candidate<'a>(test: Test<'a>, arm: &'a Bucket) -> Option<Candidate<'a>> {
    arm.max_priority().map(|priority| Candidate { priority, test, arm })
}

impl<K: Hash + Eq + Clone> Arms<K> {
    fn new() -> Self {
        Self { by_hash: PagedMap::default(), n_arms: 0 }
    }

    fn iter(&self) -> impl Iterator<Item = &(K, Bucket)> {
        self.by_hash.values().flatten()
    }

    fn get(&self, wanted: &K) -> Option<&Bucket> {
        let arms = self.by_hash.get(hash(wanted))?;
        arms.iter().find(|(other, _)| other == wanted).map(|(_, arm)| arm)
    }

    /// Changes an arm; answers besides whether there are more or fewer of them now.
    fn change<R>(&mut self, wanted: &K, change: impl FnOnce(&mut Bucket) -> R) -> (R, Ordering) {
        let (answer, n_before, n_after) = self.by_hash.update(hash(wanted), |arms| {
            let n_before = arms.len();
            let idx = arms.iter().position(|(other, _)| other == wanted).unwrap_or_else(|| {
                arms.push((wanted.clone(), Bucket::default()));
                arms.len() - 1
            });
            let answer = change(&mut arms[idx].1);
            if arms[idx].1.is_empty() {
                arms.swap_remove(idx);
            }
            (!arms.is_empty(), (answer, n_before, arms.len()))
        });
        self.n_arms = self.n_arms + n_after - n_before;
        (answer, n_after.cmp(&n_before))
    }
}

fn hash(values: &impl Hash) -> u64 {
    let mut hasher = RapidHasher::new(HASH_SEED);
    values.hash(&mut hasher);
    hasher.finish()
}
