//! The rules of a chassis, kept up to date: each datapath is lowered by itself, again when
//! something of it has changed, and of its flows only those that have, or that name
//! something which means something else now.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use flowtable::{
    flow::Rule,
    group::Group,
    meter::MeterConfig,
    set::{NamedSet, SetName},
    table::{Change, GroupChange, MeterChange, SetChange},
    types::{GroupId, MeterId},
};

use super::{
    Context, Index, Interface, LocalPorts, LowerError, Lowered, gateway, memory::Memory, meters, part::Part,
    sets::SetSource, zones::Owner,
};
use crate::{
    build::whole::datapath_of,
    delta::SouthboundDelta,
    key::{DatapathKey, PortKey},
    southbound::{PortBinding, Southbound, Wire},
};

/// A chassis's view and what it became.
///
/// # Invariants
/// - After each [`Lowering::update`] [`Lowering::lowered`] is what [`super::lower`] makes of
///   the view, but for the numbers that were given out before.
#[derive(Debug, Clone, Default)]
pub struct Lowering {
    pub(super) view: Southbound,
    local: LocalPorts,
    index: Index,
    memory: Memory,
    /// What belongs to no datapath; empty before the first update.
    pub(super) common: Part,
    pub(super) parts: BTreeMap<DatapathKey, Part>,
    /// Where its members are from, how many parts name it, and what it holds.
    pub(super) sets: BTreeMap<SetName, (SetSource, usize, Option<NamedSet>)>,
}

/// How the rules of a chassis differ.
#[derive(Debug, Clone, Default)]
pub struct LoweredDelta {
    /// New rules, and those that do something else.
    pub rules: Vec<Rule>,
    /// Rules that are gone.
    pub gone_rules: Vec<Rule>,
    /// New and changed groups.
    pub groups: Vec<Group>,
    /// Groups that are gone.
    pub gone_groups: Vec<GroupId>,
    /// Sets with other members; true: the set is new.
    pub sets: Vec<(bool, NamedSet)>,
    /// Sets that are gone.
    pub gone_sets: Vec<SetName>,
    /// New and changed meters.
    pub meters: Vec<MeterConfig>,
    /// Meters that are gone.
    pub gone_meters: Vec<MeterId>,
}

impl Lowering {
    /// With the zones that connections were tracked in before, as [`Lowering::zones`] wrote
    /// them. Lines that say nothing are left out.
    pub fn with_zones(text: &str) -> Self {
        let mut lowering = Self::default();
        for line in text.lines() {
            let Some((zone, owner)) = line.split_once(' ') else { continue };
            if let (Ok(zone), Ok(owner)) = (zone.parse(), owner.parse()) {
                lowering.memory.zones.restore(owner, zone);
            }
        }
        lowering
    }

    /// The zones of tracked connections, a line each.
    pub fn zones(&self) -> String {
        self.memory.zones.iter().map(|(owner, zone)| format!("{zone} {owner}\n")).collect()
    }

    /// The view.
    pub fn view(&self) -> &Southbound {
        &self.view
    }

    /// The port that has a key in its datapath.
    pub fn port(&self, datapath: DatapathKey, key: PortKey) -> Option<(&str, &PortBinding)> {
        let ids = self.index.bindings.get(&datapath)?;
        let mut ports = ids.iter().filter_map(|id| Some((id.as_str(), self.view.bindings.get(id)?)));
        ports.find(|(_, binding)| binding.key == key)
    }

    /// The same numbers, and nothing else.
    #[cfg(test)]
    pub(crate) fn emptied(&self) -> Self {
        Self { memory: self.memory.clone(), ..Self::default() }
    }

    /// What could not be realised.
    pub fn errors(&self) -> BTreeSet<&LowerError> {
        self.parts.values().chain([&self.common]).flat_map(|part| &part.errors).collect()
    }

    /// All rules, with what they name.
    pub fn lowered(&self) -> Lowered {
        let parts = || self.parts.values().chain([&self.common]);
        let rules: BTreeMap<_, _> = parts().flat_map(|part| &part.rules).collect();
        let groups: BTreeMap<_, _> = parts().flat_map(|part| &part.groups).collect();
        Lowered {
            rules: rules.into_values().cloned().collect(),
            sets: self.sets.values().filter_map(|(.., set)| set.clone()).collect(),
            groups: groups.into_values().cloned().collect(),
            meters: self.meters().into_values().collect(),
            errors: self.errors().into_iter().cloned().collect(),
        }
    }

    /// All meters.
    pub(super) fn meters(&self) -> BTreeMap<MeterId, MeterConfig> {
        let mut meters = meters::all(&self.view);
        let of_flows = self.parts.values().chain([&self.common]).flat_map(|part| &part.meters);
        meters.extend(of_flows.map(|(id, meter)| (*id, meter.clone())));
        meters
    }

    /// Follows a change of the view and of the ports.
    ///
    /// # Cost
    /// That of the datapaths that it touches: lowering the flows that changed, and a look at
    /// the others.
    pub fn update(&mut self, delta: SouthboundDelta, local: LocalPorts) -> LoweredDelta {
        let mut touched = self.touched_by(&delta, &local);
        self.follow_bindings(&delta);
        let sets: BTreeSet<_> = delta.sets.keys().chain(&delta.removed.sets).cloned().collect();
        let is_first = self.common.rules.is_empty();
        let old_meters = meters::own(&self.view);
        delta.apply(&mut self.view);
        self.local = local;
        touched.extend(self.index.elect(&self.view, &self.local));
        touched.extend(self.follow_holders());
        touched.extend(self.follow_residents());
        let mut change = LoweredDelta::default();
        let meters = if is_first { meters::all(&self.view) } else { meters::own(&self.view) };
        change.meters(&old_meters, &meters);
        let common = Part::common(&self.index, &self.local);
        change.part(&self.common, &common);
        self.common = common;
        for key in &touched {
            self.lower_again(*key, &mut change);
        }
        self.forget_zones(&touched);
        self.fill_sets(&sets, &touched, &mut change);
        change
    }

    /// Datapaths that may become something else.
    fn touched_by(&self, delta: &SouthboundDelta, local: &LocalPorts) -> BTreeSet<DatapathKey> {
        let mut touched = BTreeSet::new();
        let identity = |local: &LocalPorts| (local.chassis.clone(), local.tunnel, local.vxlan);
        if identity(&self.local) != identity(local) {
            touched.extend(self.view.datapaths.keys());
        }
        let here = |ports: &LocalPorts, id: &String| ports.ports.get(id).copied();
        for id in self.local.ports.keys().chain(local.ports.keys()) {
            if here(&self.local, id) != here(local, id) {
                touched.extend(self.view.bindings.get(id).map(|binding| binding.datapath));
            }
        }
        touched.extend(self.rewired(local));
        touched.extend(delta.datapaths.keys().chain(&delta.removed.datapaths));
        touched.extend(delta.groups.keys().chain(&delta.removed.groups).map(|(key, _)| *key));
        touched.extend(delta.flows.keys().chain(&delta.removed.flows).filter_map(|id| datapath_of(*id)));
        for id in delta.bindings.keys().chain(&delta.removed.bindings) {
            for binding in self.view.bindings.get(id).into_iter().chain(delta.bindings.get(id)) {
                touched.insert(binding.datapath);
                // The other side of a patch knows where this one leads.
                let peer = binding.peer.as_ref();
                let sides = [&self.view.bindings, &delta.bindings];
                touched.extend(sides.iter().filter_map(|all| Some(all.get(peer?)?.datapath)));
            }
        }
        let hosts: BTreeSet<_> = delta.chassis.keys().chain(&delta.removed.chassis).collect();
        if !hosts.is_empty() {
            let is_there = |binding: &&PortBinding| {
                let candidates = binding.gateway.iter().map(|candidate| &candidate.chassis);
                binding.chassis.iter().chain(candidates).any(|id| hosts.contains(id))
            };
            touched.extend(self.view.bindings.values().filter(is_there).map(|binding| binding.datapath));
        }
        let is_other = |name: &String| {
            !self.view.sets.contains_key(name)
                || delta.removed.sets.contains(name)
                || self.parts.values().any(|part| part.has_odd_set(name))
        };
        let sets: Vec<_> =
            delta.sets.keys().chain(&delta.removed.sets).filter(|name| is_other(name)).collect();
        for (key, datapath) in self.view.datapaths.iter().filter(|_| !sets.is_empty()) {
            if sets.iter().any(|name| datapath.sets.contains(*name)) {
                touched.insert(*key);
            }
        }
        touched
    }

    /// Datapaths of ports that have frames by another one's interface, or by one to a network,
    /// that is other than before.
    fn rewired(&self, local: &LocalPorts) -> BTreeSet<DatapathKey> {
        let is_other = |binding: &&PortBinding| match &binding.wire {
            Wire::Nested { parent, .. } => self.local.ports.get(parent) != local.ports.get(parent),
            Wire::Network { name, .. } => self.local.networks.get(name) != local.networks.get(name),
            Wire::Own | Wire::Redirect { .. } | Wire::EachChassis | Wire::External => false,
        };
        let wired = self.index.wired.iter().filter_map(|id| self.view.bindings.get(id));
        wired.filter(is_other).map(|binding| binding.datapath).collect()
    }

    fn follow_bindings(&mut self, delta: &SouthboundDelta) {
        for id in delta.bindings.keys().chain(&delta.removed.bindings) {
            if let Some(old) = self.view.bindings.get(id) {
                self.index.follow(id, old, false);
            }
        }
        for (id, binding) in &delta.bindings {
            self.index.follow(id, binding, true);
        }
        self.index.bindings.retain(|_, ids| !ids.is_empty());
    }

    /// Finds out anew which logical ports the ports of the switch are for; where several
    /// contend, their datapaths.
    fn follow_holders(&mut self) -> BTreeSet<DatapathKey> {
        let mut holders: BTreeMap<Interface, BTreeSet<(DatapathKey, String)>> = BTreeMap::new();
        for id in self.local.ports.keys().chain(&self.index.wired).collect::<BTreeSet<_>>() {
            let Some(binding) = self.view.bindings.get(id) else { continue };
            if let Some(interface) = gateway::interface(&self.view, &self.local, id, binding) {
                holders.entry(interface).or_default().insert((binding.datapath, id.clone()));
            }
        }
        let old = std::mem::replace(&mut self.index.holders, holders);
        let new = &self.index.holders;
        let contended = old.iter().chain(new).filter(|(_, ids)| ids.len() > 1).map(|(port, _)| port);
        let contended = contended.filter(|port| old.get(port) != new.get(port));
        let ids = contended.flat_map(|port| [old.get(port), new.get(port)]).flatten().flatten();
        ids.map(|(datapath, _)| *datapath).collect()
    }

    /// Datapaths that depend on a port that has come to this chassis or has left it.
    fn follow_residents(&self) -> BTreeSet<DatapathKey> {
        let has_moved =
            |(id, was_here): (&String, &bool)| gateway::is_resident(&self.view, &self.local, id) != *was_here;
        let parts = self.parts.iter().filter(|(_, part)| part.residents.iter().any(has_moved));
        parts.map(|(key, _)| *key).collect()
    }

    fn lower_again(&mut self, key: DatapathKey, change: &mut LoweredDelta) {
        let mut old = self.parts.remove(&key).unwrap_or_default();
        let mut new = Part::default();
        if self.view.datapaths.contains_key(&key) {
            let memory = RefCell::new(&mut self.memory);
            let context = Context { view: &self.view, local: &self.local, index: &self.index, memory };
            new = Part::of(&context, key, &mut old);
        }
        change.part(&old, &new);
        let (places, conjunctions) = new.numbers();
        // What has been taken over by the new part is not in the old one any more.
        let (old_places, old_conjunctions) = old.numbers();
        old_places.difference(&places).for_each(|place| self.memory.flows.release(place));
        let gone = old_conjunctions.difference(&conjunctions);
        gone.for_each(|conjunction| self.memory.conjunctions.release(conjunction));
        for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
            if let Some((_, n_users, _)) = self.sets.get_mut(name) {
                *n_users -= 1;
            }
        }
        for (name, source) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
            let empty = || (source.clone(), 0, None);
            self.sets.entry(name.clone()).or_insert_with(empty).1 += 1;
        }
        if self.view.datapaths.contains_key(&key) {
            self.parts.insert(key, new);
        }
    }

    /// Lets go the zones of what is not here any more.
    fn forget_zones(&mut self, touched: &BTreeSet<DatapathKey>) {
        let (view, local) = (&self.view, &self.local);
        let ids = |key| self.index.bindings.get(&key).into_iter().flatten();
        let is_needed = |owner: &Owner| match owner {
            Owner::Dnat(key) | Owner::Snat(key) => view.datapaths.contains_key(key),
            // Also of a port that is not attached now: it comes back.
            Owner::Port(key, port) => ids(*key).any(|id| {
                let binding = view.bindings.get(id);
                binding.is_some_and(|binding| {
                    binding.key == *port
                        && (binding.chassis.as_ref() == Some(&local.chassis)
                            || local.ports.contains_key(id)
                            || matches!(binding.wire, Wire::Network { .. }))
                })
            }),
        };
        let zones = self.memory.zones.iter().map(|(owner, _)| *owner);
        let gone: Vec<_> =
            zones.filter(|owner| touched.contains(&owner.datapath()) && !is_needed(owner)).collect();
        gone.iter().for_each(|owner| self.memory.zones.release(owner));
    }

    /// Brings the members of the switch's sets up to date.
    fn fill_sets(
        &mut self,
        changed: &BTreeSet<String>,
        touched: &BTreeSet<DatapathKey>,
        change: &mut LoweredDelta,
    ) {
        let memory = RefCell::new(&mut self.memory);
        let context = Context { view: &self.view, local: &self.local, index: &self.index, memory };
        self.sets.retain(|name, (source, n_users, set)| {
            if *n_users == 0 {
                change.gone_sets.extend(set.as_ref().map(|_| name.clone()));
                return false;
            }
            let is_touched = source.datapath.is_some_and(|key| touched.contains(&key));
            if set.is_none() || is_touched || changed.contains(&source.set) {
                let new = source.fill(&context, name);
                if set.as_ref() != Some(&new) {
                    change.sets.push((set.is_none(), new.clone()));
                    *set = Some(new);
                }
            }
            true
        });
    }
}

impl LoweredDelta {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.gone_rules.is_empty()
            && self.groups.is_empty()
            && self.gone_groups.is_empty()
            && self.sets.is_empty()
            && self.gone_sets.is_empty()
            && self.meters.is_empty()
            && self.gone_meters.is_empty()
    }

    /// As changes of the tables: what rules refer to comes before them, and goes after them.
    pub fn changes(self) -> Vec<Change> {
        let set = |set: NamedSet| Change::Set(SetChange::Replace(set));
        // A number that one flow has let go, another may have been given.
        let given: BTreeSet<_> = self.groups.iter().map(|group| group.id).collect();
        let metered: BTreeSet<_> = self.meters.iter().map(|meter| meter.id).collect();
        let mut changes = Vec::new();
        for (is_new, filled) in self.sets {
            changes.push(if is_new { Change::Set(SetChange::Add(filled)) } else { set(filled) });
        }
        changes.extend(self.meters.into_iter().map(|meter| Change::Meter(MeterChange::Set(meter))));
        changes.extend(self.groups.into_iter().map(|group| Change::Group(GroupChange::Set(group))));
        let delete =
            |Rule { table, priority, matching, .. }| Change::DeleteStrict { table, priority, matching };
        changes.extend(self.gone_rules.into_iter().map(delete));
        changes.extend(self.rules.into_iter().map(Change::Add));
        let gone = self.gone_groups.into_iter().filter(|id| !given.contains(id));
        changes.extend(gone.map(|id| Change::Group(GroupChange::Delete(id))));
        changes.extend(self.gone_sets.into_iter().map(|name| Change::Set(SetChange::Delete(name))));
        let gone = self.gone_meters.into_iter().filter(|id| !metered.contains(id));
        changes.extend(gone.map(|id| Change::Meter(MeterChange::Delete(id))));
        changes
    }

    /// Adds how the meters of datapaths differ.
    fn meters(&mut self, old: &BTreeMap<MeterId, MeterConfig>, new: &BTreeMap<MeterId, MeterConfig>) {
        let changed = new.iter().filter(|(id, meter)| old.get(id) != Some(meter));
        self.meters = changed.map(|(_, meter)| meter.clone()).collect();
        self.gone_meters = old.keys().filter(|id| !new.contains_key(id)).copied().collect();
    }

    /// Adds how a part differs.
    fn part(&mut self, old: &Part, new: &Part) {
        let is_same = |old: &Rule, new: &Rule| {
            old.actions == new.actions && old.cookie == new.cookie && old.origin == new.origin
        };
        for (place, rule) in &new.rules {
            if !old.rules.get(place).is_some_and(|old| is_same(old, rule)) {
                self.rules.push(rule.clone());
            }
        }
        let gone = old.rules.iter().filter(|(place, _)| !new.rules.contains_key(place));
        self.gone_rules.extend(gone.map(|(_, rule)| rule.clone()));
        let changed = new.groups.iter().filter(|(id, group)| old.groups.get(id) != Some(group));
        self.groups.extend(changed.map(|(_, group)| group.clone()));
        let gone = old.groups.keys().filter(|id| !new.groups.contains_key(id));
        self.gone_groups.extend(gone);
        let changed = new.meters.iter().filter(|(id, meter)| old.meters.get(id) != Some(meter));
        self.meters.extend(changed.map(|(_, meter)| meter.clone()));
        self.gone_meters.extend(old.meters.keys().filter(|id| !new.meters.contains_key(id)));
    }
}
