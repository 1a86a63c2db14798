//! Which units may become something else by a change: those that the change names, and those
//! that depend on what it names. What is not found here stays as it is, so this has to find
//! all of them; that it does, random changes show.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    LocalPorts, groups_of, incremental::Lowering, index::Index, is_resident, key_of, sets::SetSource,
    unit::Unit, zones::Owner,
};
use crate::{
    delta::SouthboundDelta,
    key::{DatapathKey, PortKey},
    southbound::{Datapath, PortBinding, Southbound, Wire},
};

/// Units that may become something else, and what leads to more of them.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// With everything that they have.
    pub(super) datapaths: BTreeSet<DatapathKey>,
    /// Where they lead to may be other than before.
    pub(super) ports: BTreeSet<String>,
    /// Only what is said of them may be other than before.
    pub(super) told: BTreeSet<String>,
    pub(super) groups: BTreeSet<(DatapathKey, PortKey)>,
    pub(super) flows: BTreeSet<u64>,
    /// Names of ports and groups that may have other keys.
    pub(super) names: BTreeSet<(DatapathKey, String)>,
    /// Sets that have other members.
    pub(super) sets: BTreeSet<String>,
    /// Who may need no zone any more.
    pub(super) owners: BTreeSet<Owner>,
}

/// Units by what they depend on.
#[derive(Debug, Clone, Default)]
pub(super) struct Users {
    /// Flows that name a port or group.
    pub(super) names: BTreeMap<(DatapathKey, String), BTreeSet<u64>>,
    /// Flows that name a set.
    pub(super) sets: BTreeMap<String, BTreeSet<u64>>,
    /// Those to which it matters whether a port is on this chassis.
    pub(super) residents: BTreeMap<String, BTreeSet<Unit>>,
}

impl Stale {
    /// Everything.
    fn all(&mut self, view: &Southbound) {
        self.datapaths.extend(view.datapaths.keys());
    }

    /// What a change of the view names, before it is made.
    fn follow_view(&mut self, view: &Southbound, delta: &SouthboundDelta, index: &Index) {
        for key in delta.datapaths.keys().chain(&delta.removed.datapaths) {
            if !is_same(view.datapaths.get(key), delta.datapaths.get(key)) {
                self.datapaths.insert(*key);
            }
        }
        self.flows.extend(delta.flows.keys().chain(&delta.removed.flows));
        for (key, change) in &delta.groups {
            self.groups.insert(*key);
            if view.groups.get(key).is_none_or(|group| group.name != change.name) {
                self.names.insert((key.0, change.name.clone()));
            }
        }
        self.groups.extend(&delta.removed.groups);
        for key in delta.groups.keys().chain(&delta.removed.groups) {
            let old = view.groups.get(key);
            let is_kept = |name| delta.groups.get(key).is_some_and(|change| change.name == name);
            self.names.extend(old.filter(|old| !is_kept(&*old.name)).map(|old| (key.0, old.name.clone())));
        }
        for id in delta.bindings.keys().chain(&delta.removed.bindings) {
            self.follow_binding(id, (view.bindings.get(id), delta.bindings.get(id)), index);
            self.follow_membership(view, id);
        }
        self.follow_hosts(view, delta);
    }

    /// A port comes, changes or goes.
    fn follow_binding(
        &mut self,
        id: &String,
        (old, new): (Option<&PortBinding>, Option<&PortBinding>),
        index: &Index,
    ) {
        self.ports.insert(id.clone());
        // The other side of a patch knows where this one leads.
        self.ports.extend(index.peers.get(id).into_iter().flatten().cloned());
        let owner = |binding: &PortBinding| (binding.datapath, binding.key);
        let has_moved = old.map(owner) != new.map(owner);
        for binding in old.into_iter().chain(new) {
            self.owners.insert(Owner::Port(binding.datapath, binding.key));
            if has_moved {
                self.names.insert((binding.datapath, id.clone()));
            }
            if matches!(binding.wire, Wire::Network { .. }) {
                // All ports of a switch may lead there.
                self.ports.extend(index.ports(binding.datapath).cloned());
            }
            // Whether a network is missed, depends on who is here.
            self.told.extend(index.networks.get(&binding.datapath).into_iter().flatten().cloned());
        }
    }

    /// Groups that a port is in.
    fn follow_membership(&mut self, view: &Southbound, id: &String) {
        let Some(datapath) = view.bindings.get(id).map(|binding| binding.datapath) else { return };
        let groups = groups_of(view, datapath).filter(|(_, group)| group.ports.contains(id));
        self.groups.extend(groups.map(|(key, _)| (datapath, key)));
    }

    /// Hosts come, change or go: ports that are there, or may be.
    fn follow_hosts(&mut self, view: &Southbound, delta: &SouthboundDelta) {
        let hosts: BTreeSet<_> = delta.chassis.keys().chain(&delta.removed.chassis).collect();
        if hosts.is_empty() {
            return;
        }
        let is_there = |binding: &PortBinding| {
            let candidates = binding.gateway.iter().map(|candidate| &candidate.chassis);
            binding.chassis.iter().chain(candidates).chain(&binding.additional).any(|id| hosts.contains(id))
        };
        let there = view.bindings.iter().filter(|(_, binding)| is_there(binding));
        self.ports.extend(there.map(|(id, _)| id.clone()));
    }

    /// What a change of the ports of the switch concerns.
    fn follow_local(&mut self, view: &Southbound, index: &Index, (old, new): (&LocalPorts, &LocalPorts)) {
        if (&old.chassis, old.tunnels()) != (&new.chassis, new.tunnels()) {
            self.all(view);
        }
        for id in differing(&old.ports, &new.ports) {
            self.ports.extend(index.children.get(id).into_iter().flatten().cloned());
            self.ports.insert(id.clone());
            let owner = view.bindings.get(id).map(|binding| Owner::Port(binding.datapath, binding.key));
            self.owners.extend(owner);
        }
        self.ports.extend(old.activated.symmetric_difference(&new.activated).cloned());
        let networks = differing(&old.networks, &new.networks);
        if networks.is_empty() {
            return;
        }
        for id in index.networks.values().flatten() {
            let wire = view.bindings.get(id).map(|binding| &binding.wire);
            if let Some(Wire::Network { name, .. }) = wire
                && networks.contains(&name)
            {
                self.ports.insert(id.clone());
            }
        }
    }

    /// What datapaths have, of which everything may be other than before.
    fn follow_datapaths(&mut self, view: &Southbound, index: &Index) {
        for key in &self.datapaths {
            self.ports.extend(index.ports(*key).cloned());
            let patches = index.ports(*key).filter_map(|id| index.peers.get(id));
            self.ports.extend(patches.flatten().cloned());
            self.groups.extend(groups_of(view, *key).map(|(group, _)| (*key, group)));
            self.flows.extend(view.flows.range(crate::build::whole::ids(*key)).map(|(id, _)| *id));
            // Zones of it may be remembered from before.
            self.owners.extend([Owner::Dnat(*key), Owner::Snat(*key)]);
        }
    }

    /// Ports that lead to networks outside: all ports of their switches may lead there.
    fn follow_networks(&mut self, view: &Southbound, index: &Index) {
        let bindings = self.ports.iter().filter_map(|id| view.bindings.get(id));
        let outside = bindings.filter(|binding| matches!(binding.wire, Wire::Network { .. }));
        let datapaths: BTreeSet<_> = outside.map(|binding| binding.datapath).collect();
        self.ports.extend(datapaths.into_iter().flat_map(|key| index.ports(key).cloned()));
    }

    /// All of them, in order.
    pub(super) fn units(&self) -> BTreeSet<Unit> {
        let datapaths = self.datapaths.iter().map(|key| Unit::Datapath(*key));
        let ports = self.ports.iter().chain(&self.told).map(|id| Unit::port(id));
        let groups = self.groups.iter().map(|(datapath, key)| Unit::Group(*datapath, *key));
        let flows = self.flows.iter().map(|id| Unit::Flow(*id));
        datapaths.chain(ports).chain(groups).chain(flows).collect()
    }
}

impl Lowering {
    /// What a change may make stale, as far as can be seen before it is made.
    pub(super) fn stale_before(&self, delta: &SouthboundDelta, local: &LocalPorts) -> Stale {
        let mut stale = Stale::default();
        stale.follow_view(&self.view, delta, &self.index);
        stale.follow_local(&self.view, &self.index, (&self.local, local));
        for (name, flows) in self.set_users(delta) {
            stale.flows.extend(flows);
            stale.sets.insert(name);
        }
        stale
    }

    /// Sets that come, change or go, each with the flows that become something else by that:
    /// where the members are in the rules, and where there is no set where there was one, or
    /// the other way around.
    fn set_users(&self, delta: &SouthboundDelta) -> Vec<(String, Vec<u64>)> {
        let mut users = Vec::new();
        for name in delta.sets.keys().chain(&delta.removed.sets) {
            let was_there = self.view.sets.contains_key(name) && !delta.removed.sets.contains(name);
            let is_there = delta.sets.contains_key(name) || was_there;
            let is_kept = was_there && is_there;
            let change = delta.sets.get(name);
            let is_odd = change.is_some_and(|change| SetSource::has_odd(name, &change.added));
            let needs_it = |id: &&u64| {
                let made = self.units.get(&Unit::Flow(**id));
                made.is_none_or(|made| made.needs.odd_sets.contains(name))
            };
            let flows = self.users.sets.get(name).into_iter().flatten();
            let flows = flows.filter(|id| !is_kept || is_odd || needs_it(id));
            users.push((name.clone(), flows.copied().collect()));
        }
        users
    }

    /// Completes it, when the change has been made.
    pub(super) fn stale_after(&mut self, stale: &mut Stale) {
        let elected = self.index.elect(&self.view, &self.local);
        stale.ports.extend(elected.ports);
        for key in elected.datapaths {
            stale.ports.extend(self.index.ports(key).cloned());
        }
        stale.follow_datapaths(&self.view, &self.index);
        stale.follow_networks(&self.view, &self.index);
        for id in stale.ports.clone() {
            let contenders = self.index.follow_interface(&self.view, &self.local, &id);
            stale.ports.extend(contenders);
        }
        self.follow_names(stale);
        self.follow_residents(stale);
        for id in &stale.ports {
            let Some(binding) = self.view.bindings.get(id) else { continue };
            stale.told.extend(self.index.networks.get(&binding.datapath).into_iter().flatten().cloned());
        }
        for id in stale.ports.clone() {
            stale.follow_membership(&self.view, &id);
        }
    }

    /// Flows that name something that has another key now.
    fn follow_names(&mut self, stale: &mut Stale) {
        for (datapath, name) in &stale.names {
            let Some(flows) = self.users.names.get(&(*datapath, name.clone())) else { continue };
            let key = key_of(&self.view, *datapath, name);
            let is_other = |id: &&u64| {
                let made = self.units.get(&Unit::Flow(**id));
                made.is_none_or(|made| !made.needs.names.iter().any(|(n, k)| n == name && *k == key))
            };
            stale.flows.extend(flows.iter().filter(is_other));
        }
    }

    /// Units to which it matters that a port has come to this chassis, or has left it.
    fn follow_residents(&mut self, stale: &mut Stale) {
        let mut dependents = Vec::new();
        for id in &stale.ports {
            let Some(units) = self.users.residents.get(id) else { continue };
            let is_here = is_resident(&self.view, &self.local, id);
            let is_other = |unit: &&Unit| {
                let made = self.units.get(*unit);
                made.is_none_or(|made| made.needs.residents.get(id) != Some(&is_here))
            };
            dependents.extend(units.iter().filter(is_other).cloned());
        }
        for unit in dependents {
            match unit {
                Unit::Flow(id) => drop(stale.flows.insert(id)),
                Unit::Port(id) => drop(stale.ports.insert(id.as_ref().to_owned())),
                Unit::Common | Unit::Datapath(_) | Unit::Group(..) => {}
            }
        }
    }
}

/// Nothing of a datapath differs that rules depend on.
fn is_same(old: Option<&Datapath>, new: Option<&Datapath>) -> bool {
    let of = |datapath: &Datapath| {
        (datapath.name.clone(), datapath.is_router, datapath.limits.clone(), datapath.snat_zone)
    };
    old.map(of) == new.map(of)
}

/// Keys whose values differ.
fn differing<'a, V: PartialEq>(
    old: &'a BTreeMap<String, V>,
    new: &'a BTreeMap<String, V>,
) -> Vec<&'a String> {
    if old == new {
        return Vec::new();
    }
    let changed = new.iter().filter(|(id, value)| old.get(*id) != Some(value)).map(|(id, _)| id);
    let gone = old.keys().filter(|id| !new.contains_key(*id));
    changed.chain(gone).collect()
}
