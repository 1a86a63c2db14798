//! Differences between two southbound states, and how to apply them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    key::{DatapathKey, PortKey},
    southbound::{ChassisRecord, Datapath, LogicalFlow, MulticastGroup, PortBinding, Southbound},
};

/// What is new or changed, and what is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SouthboundDelta {
    /// New and changed datapaths.
    pub datapaths: BTreeMap<DatapathKey, Datapath>,
    /// New and changed bindings.
    pub bindings: BTreeMap<String, PortBinding>,
    /// Groups that are new or have other ports.
    pub groups: BTreeMap<(DatapathKey, PortKey), GroupChange>,
    /// New and changed hosts.
    pub chassis: BTreeMap<String, ChassisRecord>,
    /// New and changed flows.
    pub flows: BTreeMap<u64, Arc<LogicalFlow>>,
    /// Sets that are new or have other members.
    pub sets: BTreeMap<String, SetChange>,
    /// Keys of what is gone.
    pub removed: Removed,
}

/// How a set differs; one that is new has no members before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetChange {
    /// New members.
    pub added: BTreeSet<String>,
    /// Members that are gone.
    pub removed: BTreeSet<String>,
}

/// How a group differs; one that is new has no ports before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Its name.
    pub name: String,
    /// Ids of new ports.
    pub added: BTreeSet<String>,
    /// Ids of ports that are gone.
    pub removed: BTreeSet<String>,
}

/// Keys of what is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Datapaths.
    pub datapaths: BTreeSet<DatapathKey>,
    /// Bindings.
    pub bindings: BTreeSet<String>,
    /// Groups.
    pub groups: BTreeSet<(DatapathKey, PortKey)>,
    /// Hosts.
    pub chassis: BTreeSet<String>,
    /// Flows.
    pub flows: BTreeSet<u64>,
    /// Sets.
    pub sets: BTreeSet<String>,
}

/// What leads from `old` to `new`: applied to `old` it yields `new`.
pub fn diff(old: &Southbound, new: &Southbound) -> SouthboundDelta {
    let (datapaths, gone_datapaths) = diff_map(&old.datapaths, &new.datapaths);
    let (bindings, gone_bindings) = diff_map(&old.bindings, &new.bindings);
    let (groups, gone_groups) = diff_groups(&old.groups, &new.groups);
    let (chassis, gone_chassis) = diff_map(&old.chassis, &new.chassis);
    let (flows, gone_flows) = diff_map(&old.flows, &new.flows);
    let removed = Removed {
        datapaths: gone_datapaths,
        bindings: gone_bindings,
        groups: gone_groups,
        chassis: gone_chassis,
        flows: gone_flows,
        sets: old.sets.keys().filter(|name| !new.sets.contains_key(*name)).cloned().collect(),
    };
    let sets = diff_sets(&old.sets, &new.sets);
    SouthboundDelta { datapaths, bindings, groups, chassis, flows, sets, removed }
}

type Groups<G> = BTreeMap<(DatapathKey, PortKey), G>;

fn diff_groups(
    old: &Groups<MulticastGroup>,
    new: &Groups<MulticastGroup>,
) -> (Groups<GroupChange>, BTreeSet<(DatapathKey, PortKey)>) {
    let none = MulticastGroup::default();
    let (changed, mut gone) = diff_map(old, new);
    let change = |(key, group): ((DatapathKey, PortKey), MulticastGroup)| {
        let same_name = |group: &&MulticastGroup| group.name == new.get(&key).map_or("", |group| &group.name);
        let before = old.get(&key).filter(same_name).unwrap_or(&none);
        let added = group.ports.difference(&before.ports).cloned().collect();
        let removed = before.ports.difference(&group.ports).cloned().collect();
        (key, GroupChange { name: group.name, added, removed })
    };
    // A group of another name is another group.
    let renamed = |key: &(DatapathKey, PortKey)| {
        old.get(key).zip(new.get(key)).is_some_and(|(old, new)| old.name != new.name)
    };
    gone.extend(new.keys().filter(|key| renamed(key)));
    (changed.into_iter().map(change).collect(), gone)
}

fn diff_sets(
    old: &BTreeMap<String, BTreeSet<String>>,
    new: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, SetChange> {
    let none = BTreeSet::new();
    let changed = new.iter().filter(|(name, members)| old.get(*name) != Some(members));
    let change = |(name, members): (&String, &BTreeSet<String>)| {
        let before = old.get(name).unwrap_or(&none);
        let added = members.difference(before).cloned().collect();
        let removed = before.difference(members).cloned().collect();
        (name.clone(), SetChange { added, removed })
    };
    changed.map(change).collect()
}

impl SouthboundDelta {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes away all that this adds.
    pub(crate) fn undone(self) -> Self {
        let removed = Removed {
            datapaths: self.datapaths.into_keys().collect(),
            bindings: self.bindings.into_keys().collect(),
            groups: self.groups.into_keys().collect(),
            chassis: self.chassis.into_keys().collect(),
            flows: self.flows.into_keys().collect(),
            sets: self.sets.into_keys().collect(),
        };
        Self { removed, ..Self::default() }
    }

    /// Adds what comes later.
    pub fn merge(&mut self, later: Self) {
        let removed = later.removed;
        merge_map(&mut self.datapaths, &mut self.removed.datapaths, later.datapaths, removed.datapaths);
        merge_map(&mut self.bindings, &mut self.removed.bindings, later.bindings, removed.bindings);
        merge_map(&mut self.chassis, &mut self.removed.chassis, later.chassis, removed.chassis);
        merge_map(&mut self.flows, &mut self.removed.flows, later.flows, removed.flows);
        for key in removed.groups {
            self.groups.remove(&key);
            self.removed.groups.insert(key);
        }
        for (key, change) in later.groups {
            let mine = self.groups.entry(key).or_default();
            mine.name = change.name;
            merge_members((&mut mine.added, &mut mine.removed), change.added, change.removed);
        }
        for name in removed.sets {
            self.sets.remove(&name);
            self.removed.sets.insert(name);
        }
        for (name, change) in later.sets {
            let mine = self.sets.entry(name).or_default();
            merge_members((&mut mine.added, &mut mine.removed), change.added, change.removed);
        }
    }

    /// Makes the changes.
    pub fn apply(self, sb: &mut Southbound) {
        apply_map(&mut sb.datapaths, self.datapaths, &self.removed.datapaths);
        apply_map(&mut sb.bindings, self.bindings, &self.removed.bindings);
        self.removed.groups.iter().for_each(|key| drop(sb.groups.remove(key)));
        for (key, change) in self.groups {
            let group = sb.groups.entry(key).or_default();
            group.name = change.name;
            for port in &change.removed {
                group.ports.remove(port);
            }
            group.ports.extend(change.added);
        }
        apply_map(&mut sb.chassis, self.chassis, &self.removed.chassis);
        apply_map(&mut sb.flows, self.flows, &self.removed.flows);
        self.removed.sets.iter().for_each(|name| drop(sb.sets.remove(name)));
        for (name, change) in self.sets {
            let members = sb.sets.entry(name).or_default();
            for member in &change.removed {
                members.remove(member);
            }
            members.extend(change.added);
        }
    }
}

/// Later removals, then later changes.
fn merge_map<K: Ord, V>(
    changed: &mut BTreeMap<K, V>,
    removed: &mut BTreeSet<K>,
    later: BTreeMap<K, V>,
    later_removed: BTreeSet<K>,
) {
    for key in later_removed {
        changed.remove(&key);
        removed.insert(key);
    }
    for (key, value) in later {
        removed.remove(&key);
        changed.insert(key, value);
    }
}

fn merge_members(
    (added, removed): (&mut BTreeSet<String>, &mut BTreeSet<String>),
    later_added: BTreeSet<String>,
    later_removed: BTreeSet<String>,
) {
    for member in later_removed {
        added.remove(&member);
        removed.insert(member);
    }
    for member in later_added {
        removed.remove(&member);
        added.insert(member);
    }
}

pub(crate) fn diff_map<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> (BTreeMap<K, V>, BTreeSet<K>) {
    let changed = new.iter().filter(|(key, value)| old.get(key) != Some(value));
    let gone = old.keys().filter(|key| !new.contains_key(key));
    (changed.map(|(key, value)| (key.clone(), value.clone())).collect(), gone.cloned().collect())
}

fn apply_map<K: Ord, V>(map: &mut BTreeMap<K, V>, changed: BTreeMap<K, V>, gone: &BTreeSet<K>) {
    for key in gone {
        map.remove(key);
    }
    map.extend(changed);
}
