//! Rules by their places. Several units may make a rule for one place: which of them holds
//! depends on all of them, and not on who came first.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
};

use flowtable::{
    flow::{Action, Match, Rule},
    types::{Priority, TableId},
};

use super::unit::Unit;

/// Where a rule is, in the order of the tables.
pub(super) type RuleKey = (TableId, Reverse<Priority>, Match);

/// What was in places that were touched.
pub(super) type Before = BTreeMap<RuleKey, Option<Rule>>;

/// The rules of a chassis.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(BTreeMap<RuleKey, Holding>);

/// What is in a place.
#[derive(Debug, Clone)]
enum Holding {
    One(Unit, Rule),
    Several(Box<Contended>),
}

/// More than one rule for a place.
#[derive(Debug, Clone)]
struct Contended {
    /// What comes of them.
    rule: Rule,
    /// In order of their units.
    all: Vec<(Unit, Rule)>,
}

/// The place of a rule.
pub(super) fn place(rule: &Rule) -> RuleKey {
    (rule.table, Reverse(rule.priority), rule.matching.clone())
}

/// Two rules of one place are the same, but for what they have counted.
pub(super) fn is_same(one: &Rule, other: &Rule) -> bool {
    one.actions == other.actions && one.cookie == other.cookie && one.origin == other.origin
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rule of a place.
    pub(super) fn get(&self, place: &RuleKey) -> Option<&Rule> {
        self.0.get(place).map(Holding::rule)
    }

    /// All rules, in order.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.values().map(Holding::rule)
    }

    /// Rules from a place on.
    pub(super) fn from(&self, first: Bound<RuleKey>) -> impl Iterator<Item = (&RuleKey, &Rule)> {
        let range = self.0.range((first, Bound::Unbounded));
        range.map(|(place, holding)| (place, holding.rule()))
    }

    /// Adds a rule of a unit; those of one unit come in order.
    pub(super) fn put(&mut self, unit: &Unit, rule: Rule, before: &mut Before) {
        match self.0.entry(place(&rule)) {
            Entry::Vacant(slot) => {
                before.entry(slot.key().clone()).or_insert(None);
                slot.insert(Holding::One(unit.clone(), rule));
            }
            Entry::Occupied(slot) => {
                before.entry(slot.key().clone()).or_insert_with(|| Some(slot.get().rule().clone()));
                let (place, holding) = slot.remove_entry();
                let mut all = holding.all();
                let at = all.partition_point(|(other, _)| other <= unit);
                all.insert(at, (unit.clone(), rule));
                self.0.extend(Holding::of(all).map(|holding| (place, holding)));
            }
        }
    }

    /// Takes all rules out that a unit has in a place.
    pub(super) fn take(&mut self, unit: &Unit, place: &RuleKey, before: &mut Before) {
        let Some((place, holding)) = self.0.remove_entry(place) else { return };
        match holding {
            Holding::One(owner, rule) if owner == *unit => drop(before.entry(place).or_insert(Some(rule))),
            holding => {
                before.entry(place.clone()).or_insert_with(|| Some(holding.rule().clone()));
                let mut all = holding.all();
                all.retain(|(other, _)| other != unit);
                self.0.extend(Holding::of(all).map(|holding| (place, holding)));
            }
        }
    }
}

impl Holding {
    fn rule(&self) -> &Rule {
        match self {
            Self::One(_, rule) => rule,
            Self::Several(contended) => &contended.rule,
        }
    }

    fn all(self) -> Vec<(Unit, Rule)> {
        match self {
            Self::One(unit, rule) => vec![(unit, rule)],
            Self::Several(contended) => contended.all,
        }
    }

    fn of(mut all: Vec<(Unit, Rule)>) -> Option<Self> {
        if all.len() > 1 {
            let rule = settled(&all)?;
            return Some(Self::Several(Box::new(Contended { rule, all })));
        }
        all.pop().map(|(unit, rule)| Self::One(unit, rule))
    }
}

/// What comes of rules for one place: one that drops wins, else the first one does. A match
/// may be part of several conjunctions.
fn settled(all: &[(Unit, Rule)]) -> Option<Rule> {
    let mut rules = all.iter().map(|(_, rule)| rule);
    let mut settled = rules.next()?.clone();
    for rule in rules {
        if is_part(rule) && is_part(&settled) {
            settled.actions.extend(rule.actions.iter().cloned());
        } else if rule.actions.is_empty() && !settled.actions.is_empty() {
            settled = rule.clone();
        }
    }
    Some(settled)
}

/// The rule is a way to satisfy clauses of conjunctions.
fn is_part(rule: &Rule) -> bool {
    !rule.actions.is_empty() && rule.actions.iter().all(|action| matches!(action, Action::Conjunction { .. }))
}
