//! Changes of groups, and which groups may be there: buckets that can be carried out,
//! and no group that leads to itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    MAX_ACTIONS, Tables,
    change::{Refusal, Transaction},
    check::{check_output, check_set},
    error::RuleError,
    life::RemovedReason,
    reference::{Reference, each_reference, refers_to},
};
use crate::{
    flow::{Action, action_set},
    group::{Bucket, Group, GroupKind, SelectionMethod},
    types::{BucketId, GroupId},
};

/// Groups within each other.
pub const MAX_GROUP_CHAIN: usize = 16;
/// Buckets of a group: each is looked at for each translation.
pub const MAX_BUCKETS: usize = 4096;

/// All groups of a version.
pub(super) type Groups = BTreeMap<GroupId, Arc<Group>>;

/// A change of a group (OpenFlow 1.5 §6.7).
#[derive(Debug, Clone)]
pub enum GroupChange {
    /// Adds a group; there must be none of its number.
    Add(Group),
    /// Changes a group, which must be there. It keeps its statistics, and so does each
    /// bucket whose number stays.
    Modify(Group),
    /// Adds a group or changes it, whichever it takes.
    Set(Group),
    /// Deletes a group, if it is there, and the rules that send to it.
    Delete(GroupId),
    /// Deletes all groups and the rules that send to one.
    DeleteAll,
    /// Puts more buckets into a group.
    InsertBuckets {
        /// Which group.
        group: GroupId,
        /// Where.
        at: BucketPlace,
        /// Which buckets.
        buckets: Vec<Bucket>,
    },
    /// Takes buckets out of a group.
    RemoveBuckets {
        /// Which group.
        group: GroupId,
        /// Which buckets.
        which: BucketChoice,
    },
}

/// Where buckets are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketPlace {
    /// Before all others.
    First,
    /// Behind all others.
    Last,
    /// Behind this one.
    After(BucketId),
}

/// Which buckets are taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketChoice {
    /// The first one.
    First,
    /// The last one.
    Last,
    /// This one.
    Id(BucketId),
    /// All of them.
    All,
}

/// Why a group may not be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// There is one of this number.
    #[error("group {0} exists already; modify it instead")]
    Exists(GroupId),
    /// There is none of this number.
    #[error("there is no group {0}; add it first")]
    Missing(GroupId),
    /// There is no such bucket.
    #[error("group {group} has no bucket {bucket}")]
    NoBucket {
        /// The group.
        group: GroupId,
        /// The bucket.
        bucket: BucketId,
    },
    /// Two buckets of one number.
    #[error("two buckets have the number {0}")]
    SameBucket(BucketId),
    /// Too many.
    #[error("more than {MAX_BUCKETS} buckets")]
    TooManyBuckets,
    /// An indirect group has another number of buckets than one.
    #[error("an indirect group has one bucket, not {0}")]
    NotOneBucket(usize),
    /// Nobody could tell whether the bucket is live.
    #[error("bucket {0} of a fast failover group needs `watch_port` or `watch_group`")]
    NotWatching(BucketId),
    /// Fields that the method does not hash.
    #[error("only the selection method `hash` takes fields")]
    FieldsWithoutHash,
    /// The group leads back to itself.
    #[error("the group leads to itself, by group {0}")]
    Loop(GroupId),
    /// Too deep.
    #[error("groups lead to groups more than {MAX_GROUP_CHAIN} times")]
    TooDeep,
    /// Another group leads to it.
    #[error("group {0} leads to it; change that group first")]
    InUse(GroupId),
}

impl Transaction {
    pub(super) fn change_group(&mut self, change: GroupChange) -> Result<(), Refusal> {
        match change {
            GroupChange::Add(group) if self.next.groups.contains_key(&group.id) => {
                refuse(group.id, GroupError::Exists(group.id))
            }
            GroupChange::Modify(group) if !self.next.groups.contains_key(&group.id) => {
                refuse(group.id, GroupError::Missing(group.id))
            }
            GroupChange::Add(group) | GroupChange::Modify(group) | GroupChange::Set(group) => {
                self.put_group(group)
            }
            GroupChange::Delete(id) => self.delete_group(id),
            GroupChange::DeleteAll => {
                for id in std::mem::take(&mut self.next.groups).keys() {
                    self.take_referring(Reference::Group(*id), RemovedReason::GroupDelete);
                }
                Ok(())
            }
            GroupChange::InsertBuckets { group: id, at, buckets } => {
                let mut group = self.group_to_change(id)?;
                let idx = match at {
                    BucketPlace::First => 0,
                    BucketPlace::Last => group.buckets.len(),
                    BucketPlace::After(bucket) => bucket_idx(&group, bucket)? + 1,
                };
                group.buckets.splice(idx..idx, buckets);
                self.put_group(group)
            }
            GroupChange::RemoveBuckets { group: id, which } => {
                let mut group = self.group_to_change(id)?;
                match which {
                    BucketChoice::First => drop(group.buckets.drain(..group.buckets.len().min(1))),
                    BucketChoice::Last => drop(group.buckets.pop()),
                    BucketChoice::Id(bucket) => drop(group.buckets.remove(bucket_idx(&group, bucket)?)),
                    BucketChoice::All => group.buckets.clear(),
                }
                self.put_group(group)
            }
        }
    }

    fn group_to_change(&self, id: GroupId) -> Result<Group, Refusal> {
        match self.next.groups.get(&id) {
            Some(group) => Ok((**group).clone()),
            None => refuse(id, GroupError::Missing(id)),
        }
    }

    fn delete_group(&mut self, id: GroupId) -> Result<(), Refusal> {
        let leads_here = |group: &&Arc<Group>| group.id != id && leads_to(group, Reference::Group(id));
        if let Some(user) = self.next.groups.values().find(leads_here) {
            return refuse(id, GroupError::InUse(user.id));
        }
        if Arc::make_mut(&mut self.next.groups).remove(&id).is_some() {
            self.take_referring(Reference::Group(id), RemovedReason::GroupDelete);
        }
        Ok(())
    }

    fn put_group(&mut self, mut group: Group) -> Result<(), Refusal> {
        let id = group.id;
        check_shape(&group).or_else(|error| refuse(id, error))?;
        let refused = |reason| Refusal { what: format!("group_id={id}"), reason };
        for bucket in &group.buckets {
            self.check_bucket(&group, bucket).map_err(refused)?;
        }
        check_chain(&self.next.groups, &group).or_else(|error| refuse(id, error))?;
        match self.next.groups.get(&id) {
            Some(old) => {
                (group.stats, group.born) = (Arc::clone(&old.stats), old.born);
                let known: BTreeMap<_, _> =
                    old.buckets.iter().map(|bucket| (bucket.id, &bucket.stats)).collect();
                for bucket in &mut group.buckets {
                    if let Some(stats) = known.get(&bucket.id) {
                        bucket.stats = Arc::clone(stats);
                    }
                }
            }
            None => group.born = self.now,
        }
        Arc::make_mut(&mut self.next.groups).insert(id, Arc::new(group));
        Ok(())
    }

    fn check_bucket(&self, group: &Group, bucket: &Bucket) -> Result<(), RuleError> {
        if bucket.actions.len() > MAX_ACTIONS {
            return Err(RuleError::TooManyActions);
        }
        check_set(&bucket.actions)?;
        if let Some(port) = bucket.watch_port {
            check_output(port)?;
        }
        let is_there = |id: &GroupId| *id == group.id || self.next.groups.contains_key(id);
        if let Some(missing) = bucket.watch_group.filter(|id| !is_there(id)) {
            return Err(GroupError::Missing(missing).into());
        }
        // A group that names itself is a loop, which is found later.
        let others: Vec<Action> =
            bucket.actions.iter().filter(|action| **action != Action::Group(group.id)).cloned().collect();
        self.check_references(&others)
    }

    /// What the actions name is there.
    pub(super) fn check_references(&self, actions: &[Action]) -> Result<(), RuleError> {
        each_reference(actions, &mut |reference| match reference {
            Reference::Group(id) if !self.next.groups.contains_key(&id) => {
                Err(GroupError::Missing(id).into())
            }
            Reference::Meter(id) if !self.next.meters.contains_key(&id) => Err(RuleError::NoSuchMeter { id }),
            Reference::Group(_) | Reference::Meter(_) | Reference::Port(_) => Ok(()),
        })
    }
}

impl Tables {
    /// The group with this number.
    pub fn group(&self, id: GroupId) -> Option<&Arc<Group>> {
        self.groups.get(&id)
    }

    /// All groups in the order of their numbers.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// All groups, those that others lead to before these: the order in which they can be
    /// added.
    pub fn groups_bottom_up(&self) -> Vec<&Arc<Group>> {
        fn visit<'a>(
            groups: &'a Groups,
            id: GroupId,
            seen: &mut BTreeSet<GroupId>,
            out: &mut Vec<&'a Arc<Group>>,
        ) {
            let Some(group) = groups.get(&id).filter(|_| seen.insert(id)) else { return };
            for next in next_groups(group) {
                visit(groups, next, seen, out);
            }
            out.push(group);
        }
        let (mut seen, mut out) = (BTreeSet::new(), Vec::with_capacity(self.groups.len()));
        self.groups.keys().for_each(|id| visit(&self.groups, *id, &mut seen, &mut out));
        out
    }

    /// Rules and groups that lead to a group.
    ///
    /// # Cost
    /// Looks at each rule.
    pub fn n_references_to_group(&self, id: GroupId) -> usize {
        let reference = Reference::Group(id);
        let rules = self.rules().filter(|rule| refers_to(&rule.actions, reference)).count();
        rules + self.groups.values().filter(|group| leads_to(group, reference)).count()
    }
}

fn refuse<T>(id: GroupId, error: GroupError) -> Result<T, Refusal> {
    Err(Refusal { what: format!("group_id={id}"), reason: error.into() })
}

fn bucket_idx(group: &Group, bucket: BucketId) -> Result<usize, Refusal> {
    let idx = group.buckets.iter().position(|other| other.id == bucket);
    idx.map_or_else(|| refuse(group.id, GroupError::NoBucket { group: group.id, bucket }), Ok)
}

/// Whether a bucket of the group names it.
pub(super) fn leads_to(group: &Group, reference: Reference) -> bool {
    group.buckets.iter().any(|bucket| {
        bucket.watch_group.is_some_and(|id| Reference::Group(id) == reference)
            || refers_to(&bucket.actions, reference)
    })
}

fn check_shape(group: &Group) -> Result<(), GroupError> {
    if group.buckets.len() > MAX_BUCKETS {
        return Err(GroupError::TooManyBuckets);
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = group.buckets.iter().find(|bucket| !ids.insert(bucket.id)) {
        return Err(GroupError::SameBucket(twice.id));
    }
    match &group.kind {
        GroupKind::Indirect if group.buckets.len() != 1 => Err(GroupError::NotOneBucket(group.buckets.len())),
        GroupKind::FastFailover => match group.buckets.iter().find(|bucket| !bucket.is_watching()) {
            Some(bucket) => Err(GroupError::NotWatching(bucket.id)),
            None => Ok(()),
        },
        GroupKind::Select(selection) => {
            let is_hash = selection.method == SelectionMethod::Hash;
            if is_hash || selection.fields.is_empty() { Ok(()) } else { Err(GroupError::FieldsWithoutHash) }
        }
        GroupKind::All | GroupKind::Indirect => Ok(()),
    }
}

/// The group does not lead to itself, nor the longest way from or to it over too many groups.
fn check_chain(groups: &Groups, group: &Group) -> Result<(), GroupError> {
    let down = depth_below(groups, group, &mut BTreeMap::new())?;
    // Ways that lead here get longer, too.
    let up = height_above(groups, group.id, &mut BTreeMap::new());
    if down + up + 1 > MAX_GROUP_CHAIN { Err(GroupError::TooDeep) } else { Ok(()) }
}

/// Groups on the longest way from this group on.
fn depth_below(
    groups: &Groups,
    start: &Group,
    known: &mut BTreeMap<GroupId, usize>,
) -> Result<usize, GroupError> {
    fn below(
        groups: &Groups,
        start: GroupId,
        group: &Group,
        known: &mut BTreeMap<GroupId, usize>,
    ) -> Result<usize, GroupError> {
        let mut deepest = 0;
        for id in next_groups(group) {
            if id == start {
                return Err(GroupError::Loop(group.id));
            }
            let depth = match (known.get(&id), groups.get(&id)) {
                (Some(depth), _) => *depth,
                // Other groups have no loops among themselves, so this ends.
                (None, Some(next)) => below(groups, start, next, known)?,
                (None, None) => 0,
            };
            known.insert(id, depth);
            deepest = deepest.max(depth + 1);
        }
        Ok(deepest)
    }
    below(groups, start.id, start, known)
}

/// Groups on the longest way to this one.
fn height_above(groups: &Groups, id: GroupId, known: &mut BTreeMap<GroupId, usize>) -> usize {
    if let Some(height) = known.get(&id) {
        return *height;
    }
    let leading = groups.values().filter(|group| group.id != id && leads_to(group, Reference::Group(id)));
    let height = leading.map(|group| height_above(groups, group.id, known) + 1).max().unwrap_or(0);
    known.insert(id, height);
    height
}

/// Groups that the group's buckets name.
fn next_groups(group: &Group) -> BTreeSet<GroupId> {
    let mut next: BTreeSet<GroupId> = group.buckets.iter().filter_map(|bucket| bucket.watch_group).collect();
    for bucket in &group.buckets {
        next.extend(bucket.actions.iter().filter_map(|action| match action {
            Action::Group(id) => Some(*id),
            _ => None,
        }));
    }
    next
}

/// The actions of a bucket or of `write_actions` can be in a set.
pub(super) fn check_allowed(actions: &[Action]) -> Result<(), RuleError> {
    match actions.iter().find(|action| !action_set::is_allowed(action)) {
        Some(action) => Err(RuleError::NotInActionSet { action: action.to_string() }),
        None => Ok(()),
    }
}
