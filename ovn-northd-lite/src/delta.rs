//! Differences between two southbound states, and how to apply them.

use std::collections::{BTreeMap, BTreeSet};

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
    /// New and changed groups.
    pub groups: BTreeMap<(DatapathKey, PortKey), MulticastGroup>,
    /// New and changed hosts.
    pub chassis: BTreeMap<String, ChassisRecord>,
    /// New and changed flows.
    pub flows: BTreeMap<u64, LogicalFlow>,
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
    let (groups, gone_groups) = diff_map(&old.groups, &new.groups);
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

    /// Makes the changes.
    pub fn apply(self, sb: &mut Southbound) {
        apply_map(&mut sb.datapaths, self.datapaths, &self.removed.datapaths);
        apply_map(&mut sb.bindings, self.bindings, &self.removed.bindings);
        apply_map(&mut sb.groups, self.groups, &self.removed.groups);
        apply_map(&mut sb.chassis, self.chassis, &self.removed.chassis);
        apply_map(&mut sb.flows, self.flows, &self.removed.flows);
        sb.sets.retain(|name, _| !self.removed.sets.contains(name));
        for (name, change) in self.sets {
            let members = sb.sets.entry(name).or_default();
            members.retain(|member| !change.removed.contains(member));
            members.extend(change.added);
        }
    }
}

fn diff_map<K: Ord + Clone, V: PartialEq + Clone>(
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
