//! The classifier of the tables: one hash table per distinct mask, searched by falling
//! priority, in stages, with tries in front. How much it examines is what counts; see
//! `subtable.rs` for the stages and `prefix_trie.rs` for the tries.

use std::sync::Arc;

use super::{
    Classifier,
    branch::SetSearch,
    bucket::Goal,
    conjunction::complete,
    match_order,
    prefix_trie::{Answer, PrefixTrie},
    subtable::{PREFIX_FIELDS, PlaceInSubtable, Subtable},
};
use crate::{
    field::Field,
    flow::{Match, Rule},
    key::Tracked,
    set::Sets,
    types::Priority,
};

/// Tuple space search over subtables.
///
/// # Cost
/// A lookup probes each subtable whose highest priority can still win. A copy shares
/// everything; a change after it copies the list of subtables and, of the one it
/// touches, the page of the rule.
#[derive(Debug, Clone, Default)]
pub struct TupleSpace {
    /// In [`Subtable::order`].
    subtables: Vec<Arc<Subtable>>,
    /// For each of [`PREFIX_FIELDS`].
    tries: [PrefixTrie; PREFIX_FIELDS.len()],
    n_rules: usize,
    /// Rules of conjunctions, none of which are in the other fields.
    parts: Option<Box<TupleSpace>>,
}

/// Where a rule is in the table of one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RulePlace {
    subtable: u32,
    at: PlaceInSubtable,
}

impl TupleSpace {
    /// Where a rule of this table is; `None`: among others that ranges or sets tell apart.
    pub(crate) fn place_of(&self, rule: &Arc<Rule>) -> Option<RulePlace> {
        let idx = self.position(&rule.matching)?;
        Some(RulePlace { subtable: idx as u32, at: self.subtables.get(idx)?.place_of(rule)? })
    }

    /// The rule in a place that this version has told.
    #[inline]
    pub(crate) fn rule_at(&self, place: RulePlace) -> Option<&Arc<Rule>> {
        self.subtables.get(place.subtable as usize)?.rule_at(place.at)
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.n_rules + self.parts.as_ref().map_or(0, |parts| parts.n_rules)
    }

    /// There is no rule.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of distinct masks: the most probes a lookup can need.
    pub fn n_subtables(&self) -> usize {
        self.subtables.len() + self.parts.as_ref().map_or(0, |parts| parts.n_subtables())
    }

    /// All rules in the order of precedence, where they are few and plain.
    pub(crate) fn few_rules(&self, max: usize) -> Option<Vec<&Arc<Rule>>> {
        if self.parts.is_some() || self.n_rules > max {
            return None;
        }
        let mut rules: Vec<_> = self.rules().collect();
        let order = |a: &&Arc<Rule>, b: &&Arc<Rule>| {
            b.priority.cmp(&a.priority).then_with(|| match_order(&a.matching, &b.matching))
        };
        rules.sort_by(order);
        rules.iter().all(|rule| rule.matching.memberships().is_empty()).then_some(rules)
    }

    /// What a rule matches may depend on a set's members.
    pub(crate) fn asks_for_members(&self) -> bool {
        let parts = self.parts.iter().flat_map(|parts| &parts.subtables);
        self.subtables.iter().chain(parts).any(|subtable| subtable.asks_for_members())
    }

    fn position(&self, matching: &Match) -> Option<usize> {
        self.subtables.iter().position(|subtable| subtable.suits(matching))
    }

    /// Applies `change` to the trie of each field that the subtable's mask has a prefix of.
    fn change_tries(
        tries: &mut [PrefixTrie],
        subtable: &Subtable,
        matching: &Match,
        change: impl Fn(&mut PrefixTrie, u128, u32),
    ) {
        for ((trie, len), (field, _)) in tries.iter_mut().zip(subtable.prefix_lens()).zip(PREFIX_FIELDS) {
            if len > 0 {
                change(trie, matching.get(field).0 << (128 - field.info().n_bits), len);
            }
        }
    }
}

impl Classifier for TupleSpace {
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        // A rule of the same priority and match may be of the other kind.
        if rule.is_conjunctive() {
            let replaced = self.remove_plain(rule.priority, &rule.matching);
            return self.parts.get_or_insert_default().insert_plain(rule).or(replaced);
        }
        let replaced = self.remove_part(rule.priority, &rule.matching);
        self.insert_plain(rule).or(replaced)
    }

    fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        self.remove_plain(priority, matching).or_else(|| self.remove_part(priority, matching))
    }

    fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        let part = || self.parts.as_ref()?.get_plain(priority, matching);
        self.get_plain(priority, matching).or_else(part)
    }

    fn lookup<'a>(&'a self, sets: &'a Sets, key: &mut Tracked) -> Option<&'a Arc<Rule>> {
        let plain = self.lookup_plain(sets, key);
        let Some(parts) = &self.parts else { return plain };
        let matching = parts.lookup_all(sets, key, plain.map(|rule| rule.priority));
        complete(key, &matching, plain, |key| self.lookup_plain(sets, key))
    }

    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let parts = self.parts.iter().flat_map(|parts| &parts.subtables);
        self.subtables.iter().chain(parts).flat_map(|subtable| subtable.rules())
    }
}

impl TupleSpace {
    fn remove_part(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        let parts = self.parts.as_mut()?;
        let removed = parts.remove_plain(priority, matching);
        if parts.n_rules == 0 {
            self.parts = None;
        }
        removed
    }

    /// All rules above a priority that match.
    fn lookup_all<'a>(
        &'a self,
        sets: &'a Sets,
        key: &mut Tracked,
        above: Option<Priority>,
    ) -> Vec<&'a Arc<Rule>> {
        let mut prefixes = PrefixSearch::new(&self.tries);
        let mut sets = SetSearch::new(sets);
        let mut goal = Goal::All { above, found: Vec::new() };
        for subtable in &self.subtables {
            if !goal.wants(subtable.max_priority()) {
                break;
            }
            subtable.search(key, &mut prefixes, &mut sets, &mut goal);
        }
        match goal {
            Goal::All { found, .. } => found,
            Goal::Best { best, .. } => best.into_iter().collect(),
        }
    }

    fn insert_plain(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>> {
        let idx = self.position(&rule.matching).unwrap_or_else(|| {
            self.subtables.push(Arc::new(Subtable::new(&rule.matching)));
            self.subtables.len() - 1
        });
        let subtable = Arc::make_mut(&mut self.subtables[idx]);
        let (was_empty, max_priority) = (subtable.is_empty(), subtable.max_priority());
        let replaced = subtable.insert(rule.clone());
        if replaced.is_none() {
            self.n_rules += 1;
            Self::change_tries(&mut self.tries, subtable, &rule.matching, PrefixTrie::insert);
        }
        if was_empty || subtable.max_priority() != max_priority {
            self.subtables.sort_by(|a, b| a.order(b));
        }
        replaced
    }

    fn remove_plain(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>> {
        let idx = self.position(matching)?;
        self.subtables[idx].get(priority, matching)?;
        let subtable = Arc::make_mut(&mut self.subtables[idx]);
        let max_priority = subtable.max_priority();
        let removed = subtable.remove(priority, matching)?;
        self.n_rules -= 1;
        Self::change_tries(&mut self.tries, subtable, matching, PrefixTrie::remove);
        if subtable.is_empty() {
            self.subtables.remove(idx);
        } else if subtable.max_priority() != max_priority {
            self.subtables.sort_by(|a, b| a.order(b));
        }
        Some(removed)
    }

    fn get_plain(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>> {
        self.subtables[self.position(matching)?].get(priority, matching)
    }

    fn lookup_plain<'a>(&'a self, sets: &'a Sets, key: &mut Tracked) -> Option<&'a Arc<Rule>> {
        let mut sets = SetSearch::new(sets);
        let mut prefixes = PrefixSearch::new(&self.tries);
        let mut best: Option<(&Arc<Rule>, &Subtable)> = None;
        for subtable in &self.subtables {
            if let Some((rule, from)) = best {
                // Of equal priority, only a lower rank can win; in this order all later
                // subtables have neither a higher priority nor, with the same, a lower rank.
                let max_priority = subtable.max_priority();
                if max_priority < rule.priority
                    || max_priority == rule.priority && subtable.rank(from).is_gt()
                {
                    break;
                }
            }
            let floor = best.map(|(rule, _)| rule.priority);
            let mut goal = Goal::Best { floor, best: None };
            subtable.search(key, &mut prefixes, &mut sets, &mut goal);
            let Goal::Best { best: Some(rule), .. } = goal else { continue };
            let wins = best.is_none_or(|(old, from)| {
                rule.priority > old.priority || rule.priority == old.priority && subtable.rank(from).is_lt()
            });
            if wins {
                best = Some((rule, subtable));
            }
        }
        best.map(|(rule, _)| rule)
    }
}

/// The tries during one lookup; each is searched at most once.
pub(super) struct PrefixSearch<'a> {
    tries: &'a [PrefixTrie],
    found: [Option<Found>; PREFIX_FIELDS.len()],
}

/// What a trie has answered.
#[derive(Debug, Clone, Copy)]
struct Found {
    answer: Answer,
    /// Leading bits of the field that are recorded.
    n_recorded: u32,
}

impl<'a> PrefixSearch<'a> {
    fn new(tries: &'a [PrefixTrie]) -> Self {
        Self { tries, found: [None; PREFIX_FIELDS.len()] }
    }

    /// No rule with a prefix of this length of the field can match; un-wildcards what
    /// proves it. Where one can, nothing is recorded: the caller goes on to examine the
    /// prefix itself.
    #[inline]
    pub(super) fn exclude(&mut self, idx: u8, len: u8, key: &mut Tracked) -> bool {
        let idx = usize::from(idx);
        let (field, _) = PREFIX_FIELDS[idx];
        let trie = &self.tries[idx];
        let found = self.found[idx].get_or_insert_with(|| search(trie, field, key));
        let Some(proof) = found.answer.excludes(len.into()) else { return false };
        if proof > found.n_recorded {
            key.read_prefix(field, |_| proof);
            found.n_recorded = proof;
        }
        true
    }
}

/// Searches for the value of a field; what the answer is used for is recorded then.
fn search(trie: &PrefixTrie, field: Field, key: &mut Tracked) -> Found {
    let mut answer = Answer::default();
    key.read_prefix(field, |value| {
        answer = trie.lookup(value << (128 - field.info().n_bits));
        0
    });
    Found { answer, n_recorded: 0 }
}
