//! The last known network in the form it was sent, kept to be saved.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_proto::chassis::{
    Chassis, Datapath, LogicalFlow, MulticastGroup, PortBinding, SetChange, SyncResponse,
};

/// The sum of all updates since the last full one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct LastView {
    datapaths: BTreeMap<u32, Datapath>,
    bindings: BTreeMap<String, PortBinding>,
    groups: BTreeMap<(u32, u32), Group>,
    chassis: BTreeMap<String, Chassis>,
    flows: BTreeMap<u64, LogicalFlow>,
    sets: BTreeMap<String, BTreeSet<String>>,
}

impl LastView {
    /// Adds an update: removals first, as the typed view does.
    pub(super) fn apply(&mut self, update: SyncResponse) {
        if update.full {
            *self = Self::default();
        }
        let removed = update.removed.unwrap_or_default();
        self.datapaths.retain(|key, _| !removed.datapaths.contains(key));
        for name in &removed.port_bindings {
            self.bindings.remove(name);
        }
        for group in &removed.multicast_groups {
            self.groups.remove(&(group.datapath, group.key));
        }
        for name in &removed.chassis {
            self.chassis.remove(name);
        }
        for id in &removed.logical_flows {
            self.flows.remove(id);
        }
        for name in &removed.sets {
            self.sets.remove(name);
        }
        for change in update.set_changes {
            let members = self.sets.entry(change.name).or_default();
            for member in &change.removed {
                members.remove(member);
            }
            members.extend(change.added);
        }
        self.datapaths.extend(update.datapaths.into_iter().map(|datapath| (datapath.key, datapath)));
        self.bindings.extend(update.port_bindings.into_iter().map(|port| (port.name.clone(), port)));
        for change in update.multicast_groups {
            let group = self.groups.entry((change.datapath, change.key)).or_default();
            group.name = change.name;
            for port in &change.removed_ports {
                group.ports.remove(port);
            }
            group.ports.extend(change.ports);
        }
        self.chassis.extend(update.chassis.into_iter().map(|chassis| (chassis.name.clone(), chassis)));
        self.flows.extend(update.logical_flows.into_iter().map(|flow| (flow.id, flow)));
    }

    /// The whole as one update.
    pub(super) fn to_update(&self, revision: u64) -> SyncResponse {
        SyncResponse {
            revision,
            full: true,
            datapaths: self.datapaths.values().cloned().collect(),
            port_bindings: self.bindings.values().cloned().collect(),
            multicast_groups: self.groups.iter().map(whole_group).collect(),
            chassis: self.chassis.values().cloned().collect(),
            logical_flows: self.flows.values().cloned().collect(),
            removed: None,
            set_changes: self.sets.iter().map(whole_set).collect(),
            takes_claim_changes: false,
        }
    }
}

/// A group by its name, with the ports in it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    name: String,
    ports: BTreeSet<String>,
}

fn whole_group(((datapath, key), group): (&(u32, u32), &Group)) -> MulticastGroup {
    MulticastGroup {
        datapath: *datapath,
        key: *key,
        name: group.name.clone(),
        ports: group.ports.iter().cloned().collect(),
        removed_ports: Vec::new(),
    }
}

fn whole_set((name, members): (&String, &BTreeSet<String>)) -> SetChange {
    SetChange { name: name.clone(), added: members.iter().cloned().collect(), removed: Vec::new() }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::chassis::Removed;

    use super::*;

    #[test]
    fn the_saved_whole_equals_the_sum_of_updates() {
        let flow = |id, text: &str| LogicalFlow { id, actions: text.to_owned(), ..Default::default() };
        let mut view = LastView::default();
        let set = |added: &[&str], removed: &[&str]| SetChange {
            name: "$web".to_owned(),
            added: added.iter().map(|text| (*text).to_owned()).collect(),
            removed: removed.iter().map(|text| (*text).to_owned()).collect(),
        };
        let updates = [
            SyncResponse {
                full: true,
                logical_flows: vec![flow(1, "a"), flow(2, "b")],
                set_changes: vec![set(&["10.0.0.1", "10.0.0.2"], &[])],
                ..Default::default()
            },
            SyncResponse {
                logical_flows: vec![flow(2, "c"), flow(3, "d")],
                set_changes: vec![set(&["10.0.0.3"], &["10.0.0.1"])],
                removed: Some(Removed { logical_flows: vec![1, 3], ..Default::default() }),
                ..Default::default()
            },
        ];
        for update in updates {
            view.apply(update);
        }
        let whole = view.to_update(5);
        assert_eq!(whole.logical_flows, [flow(2, "c"), flow(3, "d")]);
        assert_eq!(whole.set_changes, [set(&["10.0.0.2", "10.0.0.3"], &[])]);
        let mut again = LastView::default();
        again.apply(whole);
        assert_eq!(again, view);
    }
}
