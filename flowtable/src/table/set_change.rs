//! Changes of named sets, and which sets rules may name.

use std::sync::Arc;

use super::{
    Tables,
    change::{Refusal, Transaction},
    error::RuleError,
};
use crate::{
    flow::{Match, Rule, Values},
    key::low_bits,
    set::{MAX_MEMBERS, MAX_PREFIXES, NamedSet, SetKind, SetName, Sets, ValueRange},
    text::nearest,
    types::TableId,
};

/// A change of a named set. None of them touches a rule or its statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetChange {
    /// Adds a set; there must be none of its name.
    Add(NamedSet),
    /// Gives a set other members, all at once. Its kind stays.
    Replace(NamedSet),
    /// Adds members to a set; those that are there already stay.
    Insert {
        /// Which set.
        set: SetName,
        /// What the members are; numbers suit sets of ports too.
        kind: SetKind,
        /// The members.
        members: Vec<ValueRange>,
    },
    /// Takes members out of a set, each of which must be there just as it was added.
    Remove {
        /// Which set.
        set: SetName,
        /// What the members are; numbers suit sets of ports too.
        kind: SetKind,
        /// The members.
        members: Vec<ValueRange>,
    },
    /// Deletes a set that no rule names.
    Delete(SetName),
}

impl SetChange {
    /// The set that changes.
    pub fn name(&self) -> &SetName {
        match self {
            Self::Add(set) | Self::Replace(set) => set.name(),
            Self::Insert { set, .. } | Self::Remove { set, .. } | Self::Delete(set) => set,
        }
    }
}

/// Why a set may not be, or not be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is one of this name.
    #[error("the set `{0}` exists already; replace its members, or add to them")]
    Exists(SetName),
    /// There is none of this name.
    #[error("there is no set `{name}`{}", did_you_mean(.nearest))]
    Missing {
        /// The name.
        name: SetName,
        /// The nearest one there is.
        nearest: Option<SetName>,
    },
    /// A rule names it.
    #[error("rules name the set `{name}`, such as `{rule}`; change them first")]
    InUse {
        /// The set.
        name: SetName,
        /// One of the rules.
        rule: String,
    },
    /// Members or fields of another kind.
    #[error("the set `{name}` is of type {kind}, which does not suit {what}")]
    WrongKind {
        /// The set.
        name: SetName,
        /// What it holds.
        kind: SetKind,
        /// What does not suit.
        what: String,
    },
    /// A value that no field of the kind has.
    #[error("a value of the set `{name}` has more than {} bits", .kind.n_bits())]
    TooLarge {
        /// The set.
        name: SetName,
        /// What it holds.
        kind: SetKind,
    },
    /// Not a member.
    #[error("the set `{name}` has no member {member}")]
    NoMember {
        /// The set.
        name: SetName,
        /// What is not there, as text.
        member: String,
    },
    /// Too many.
    #[error("a set has at most {MAX_MEMBERS} members, which are made up of at most {MAX_PREFIXES} prefixes")]
    TooManyMembers,
}

fn did_you_mean(nearest: &Option<SetName>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl Transaction {
    pub(super) fn change_set(&mut self, change: SetChange) -> Result<(), Refusal> {
        let name = change.name().clone();
        let refused = |error| Refusal { what: format!("set {name}"), reason: RuleError::Set(error) };
        self.try_change_set(change).map_err(refused)
    }

    fn try_change_set(&mut self, change: SetChange) -> Result<(), SetError> {
        match change {
            SetChange::Add(set) => {
                if self.next.sets.get(set.name()).is_some() {
                    return Err(SetError::Exists(set.name().clone()));
                }
                check_members(&set, set.members())?;
                self.sets_mut().insert(set);
            }
            SetChange::Replace(set) => {
                let old = known(&self.next.sets, set.name())?;
                if set.kind() != old.kind() {
                    return Err(wrong_kind(old, format!("members of type {}", set.kind())));
                }
                check_members(&set, set.members())?;
                self.sets_mut().insert(set);
            }
            SetChange::Insert { set: name, kind, members } => {
                check_change(known(&self.next.sets, &name)?, kind, &members)?;
                for member in members {
                    self.sets_mut().insert_member(&name, member);
                }
                check_members(known(&self.next.sets, &name)?, [].into_iter())?;
            }
            SetChange::Remove { set: name, kind, members } => {
                let kind = check_change(known(&self.next.sets, &name)?, kind, &members)?;
                for member in members {
                    if !self.sets_mut().remove_member(&name, member) {
                        let member = crate::text::print_member(kind, member);
                        return Err(SetError::NoMember { name, member });
                    }
                }
            }
            SetChange::Delete(name) => {
                known(&self.next.sets, &name)?;
                let user = self.next.rules_of_set(&name).next().map(|rule| rule.to_string());
                if let Some(rule) = user {
                    return Err(SetError::InUse { name, rule });
                }
                self.sets_mut().remove(&name);
            }
        }
        Ok(())
    }

    fn sets_mut(&mut self) -> &mut Sets {
        Arc::make_mut(&mut self.next.sets)
    }

    /// The sets that a match names are there and suit their fields.
    pub(super) fn check_sets(&self, matching: &Match) -> Result<(), SetError> {
        for membership in matching.memberships() {
            let Values::Set(name) = &membership.values else { continue };
            let set = known(&self.next.sets, name)?;
            if SetKind::of(membership.field) != Some(set.kind()) {
                let suited = SetKind::of(membership.field).map_or("no set does", SetKind::name);
                return Err(wrong_kind(set, format!("`{}` (that needs: {suited})", membership.field)));
            }
        }
        Ok(())
    }

    /// Like [`Transaction::check_sets`], of what chooses rules.
    pub(super) fn check_choice(&self, matching: &Match) -> Result<(), Refusal> {
        self.check_sets(matching)
            .map_err(|error| Refusal { what: matching.to_string(), reason: RuleError::Set(error) })
    }
}

impl Tables {
    /// All named sets.
    pub fn sets(&self) -> &Sets {
        &self.sets
    }

    /// The set with this name.
    pub fn set(&self, name: &SetName) -> Option<&Arc<NamedSet>> {
        self.sets.get(name)
    }

    /// Rules that name a set, in order of table.
    ///
    /// # Cost
    /// Looks at each rule.
    pub fn rules_of_set<'a>(&'a self, name: &'a SetName) -> impl Iterator<Item = &'a Arc<Rule>> {
        let names = move |rule: &&Arc<Rule>| {
            let mut memberships = rule.matching.memberships().iter();
            memberships.any(|membership| matches!(&membership.values, Values::Set(set) if set == name))
        };
        (0..self.tables.len()).filter_map(|idx| TableId::new(idx as u8).ok()).flat_map(move |table| {
            use crate::classifier::Classifier;
            self.table(table).rules().filter(names)
        })
    }
}

fn known<'a>(sets: &'a Sets, name: &SetName) -> Result<&'a Arc<NamedSet>, SetError> {
    sets.get(name).ok_or_else(|| missing(sets, name))
}

fn missing(sets: &Sets, name: &SetName) -> SetError {
    let nearest = nearest(name.as_str(), sets.iter().map(|set| set.name().as_str()));
    SetError::Missing { name: name.clone(), nearest: nearest.and_then(|near| SetName::new(near).ok()) }
}

fn wrong_kind(set: &NamedSet, what: String) -> SetError {
    SetError::WrongKind { name: set.name().clone(), kind: set.kind(), what }
}

/// The set's kind, if the members suit it.
fn check_change(set: &NamedSet, kind: SetKind, members: &[ValueRange]) -> Result<SetKind, SetError> {
    let suits = kind == set.kind() || kind == SetKind::Number && set.kind() == SetKind::Port;
    if !suits && !members.is_empty() {
        return Err(wrong_kind(set, format!("members of type {kind}")));
    }
    check_members(set, members.iter().copied()).map(|()| set.kind())
}

fn check_members(set: &NamedSet, mut members: impl Iterator<Item = ValueRange>) -> Result<(), SetError> {
    if members.any(|member| member.last() > low_bits(set.kind().n_bits())) {
        return Err(SetError::TooLarge { name: set.name().clone(), kind: set.kind() });
    }
    check_size(set.len(), set.n_prefixes())
}

pub(super) fn check_size(n_members: usize, n_prefixes: usize) -> Result<(), SetError> {
    if n_members > MAX_MEMBERS || n_prefixes > MAX_PREFIXES { Err(SetError::TooManyMembers) } else { Ok(()) }
}
