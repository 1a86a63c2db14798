//! The whole, as units come and go: what each part of it comes from, and what of it
//! differs from the southbound state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    hash::BuildHasherDefault,
    sync::Arc,
};

use smallvec::SmallVec;

use super::built::{Built, PlaceHash, PlaceHasher};
use crate::{
    build::{
        unit::{DatapathHead, GroupName, Item, Output},
        whole::{self, Rank, place},
    },
    delta::{GroupChange, SouthboundDelta, diff_map},
    key::{DatapathKey, PortKey},
    southbound::{LogicalFlow, MulticastGroup, PortBinding, Southbound},
};

/// A flow that a unit asks for.
#[derive(Debug, Clone)]
struct Candidate {
    rank: Rank,
    id: u64,
    flow: Arc<LogicalFlow>,
}

/// What is in one place: flows that exclude each other or, seldom, only share a hash; by rank. Nearly always there
/// is just one.
#[derive(Debug, Clone, Default)]
struct Slot {
    candidates: SmallVec<[Candidate; 1]>,
    /// Since the last [`Assembly::settle`].
    is_touched: bool,
}

/// Flows of a slot that are in force, with their ids.
type InForce = SmallVec<[(u64, Arc<LogicalFlow>); 1]>;
type GroupKey = (DatapathKey, PortKey);

/// What units contribute, and what of it has been touched since the last [`Assembly::settle`].
#[derive(Debug, Clone, Default)]
pub(super) struct Assembly {
    datapaths: BTreeMap<DatapathKey, DatapathParts>,
    bindings: HashMap<String, PortBinding>,
    groups: BTreeMap<GroupKey, GroupParts>,
    flows: HashMap<PlaceHash, Slot, BuildHasherDefault<PlaceHasher>>,
    touched: Touched,
}

#[derive(Debug, Clone, Default)]
struct DatapathParts {
    datapath: Option<DatapathHead>,
    /// Sets that flows name, and how many units have such flows.
    sets: BTreeMap<String, usize>,
    /// Two of its flows have the same hash.
    collides: bool,
}

#[derive(Debug, Clone, Default)]
struct GroupParts {
    /// From those that say so; `None`: nobody does.
    name: Option<GroupName>,
    n_declared: usize,
    ports: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
struct Touched {
    datapaths: BTreeSet<DatapathKey>,
    bindings: BTreeSet<String>,
    /// Ports that were touched.
    groups: BTreeMap<GroupKey, BTreeSet<String>>,
    /// The flows that were in force, by their slots.
    flows: Vec<(PlaceHash, InForce)>,
}

impl Assembly {
    pub(super) fn remove(&mut self, item: &Arc<Item>, output: &Output) {
        let Some(key) = output.key else { return };
        let parts = self.datapaths.entry(key).or_default();
        for set in &output.named_sets {
            self.touched.datapaths.insert(key);
            if let Some(n) = parts.sets.get_mut(set) {
                *n -= 1;
                if *n == 0 {
                    parts.sets.remove(set);
                }
            }
        }
        if output.datapath.is_some() {
            self.touched.datapaths.insert(key);
            parts.datapath = None;
        }
        for (id, _) in &output.bindings {
            self.bindings.remove(id);
            self.touched.bindings.insert(id.clone());
        }
        for (group, _) in &output.groups {
            self.group(key, *group).n_declared -= 1;
        }
        for (group, _, port) in &output.members {
            self.group(key, *group).ports.remove(port);
            self.touched.groups.entry((key, *group)).or_default().insert(port.clone());
        }
        for (_, flow) in &output.flows {
            self.touch(PlaceHash::of(key, flow)).candidates.retain(|candidate| candidate.rank.1 != *item);
        }
    }

    /// Makes room for the flows of units that are inserted next.
    pub(super) fn reserve(&mut self, n_flows: usize) {
        if n_flows > self.flows.len() {
            self.flows.reserve(n_flows);
            self.touched.flows.reserve(n_flows);
        }
    }

    pub(super) fn insert(&mut self, Built { unit: (_, item), output, hashes }: &Built) {
        let Some(key) = output.key else { return };
        let parts = self.datapaths.entry(key).or_default();
        for set in &output.named_sets {
            self.touched.datapaths.insert(key);
            *parts.sets.entry(set.clone()).or_default() += 1;
        }
        if output.datapath.is_some() {
            self.touched.datapaths.insert(key);
            parts.datapath.clone_from(&output.datapath);
        }
        for (id, binding) in &output.bindings {
            self.bindings.insert(id.clone(), binding.clone());
            self.touched.bindings.insert(id.clone());
        }
        for (group, name) in &output.groups {
            let parts = self.group(key, *group);
            parts.name = Some(name.clone());
            parts.n_declared += 1;
        }
        for (group, name, port) in &output.members {
            let parts = self.group(key, *group);
            parts.name = Some(name.clone());
            parts.ports.insert(port.clone());
            self.touched.groups.entry((key, *group)).or_default().insert(port.clone());
        }
        for (n, ((rank, flow), (place, id))) in output.flows.iter().zip(hashes).enumerate() {
            let candidate = Candidate { rank: (*rank, Arc::clone(item), n), id: *id, flow: Arc::clone(flow) };
            let candidates = &mut self.touch(*place).candidates;
            let at = candidates.partition_point(|other| other.rank < candidate.rank);
            candidates.insert(at, candidate);
        }
    }

    fn group(&mut self, datapath: DatapathKey, group: PortKey) -> &mut GroupParts {
        self.touched.groups.entry((datapath, group)).or_default();
        self.groups.entry((datapath, group)).or_default()
    }

    /// A slot that is about to change; what is in force there is remembered.
    fn touch(&mut self, place: PlaceHash) -> &mut Slot {
        let slot = self.flows.entry(place).or_default();
        if !slot.is_touched {
            slot.is_touched = true;
            self.touched.flows.push((place, slot.in_force().collect()));
        }
        slot
    }

    /// Brings the southbound state up to what the units contribute now.
    pub(super) fn settle(&mut self, sb: &mut Southbound) -> SouthboundDelta {
        let touched = std::mem::take(&mut self.touched);
        let mut delta = SouthboundDelta::default();
        self.settle_bindings(touched.bindings, sb, &mut delta);
        self.settle_groups(touched.groups, sb, &mut delta);
        self.settle_flows(touched.flows, sb, &mut delta);
        self.settle_datapaths(touched.datapaths, sb, &mut delta);
        delta
    }

    fn settle_bindings(&self, ids: BTreeSet<String>, sb: &mut Southbound, delta: &mut SouthboundDelta) {
        for id in ids {
            match self.bindings.get(&id) {
                Some(new) if sb.bindings.get(&id) != Some(new) => {
                    sb.bindings.insert(id.clone(), new.clone());
                    delta.bindings.insert(id, new.clone());
                }
                Some(_) => {}
                None => {
                    if sb.bindings.remove(&id).is_some() {
                        delta.removed.bindings.insert(id);
                    }
                }
            }
        }
    }

    fn settle_groups(
        &mut self,
        touched: BTreeMap<GroupKey, BTreeSet<String>>,
        sb: &mut Southbound,
        delta: &mut SouthboundDelta,
    ) {
        for (key, ports) in touched {
            let parts = self.groups.get(&key).filter(|parts| parts.n_declared > 0 || !parts.ports.is_empty());
            let Some(parts) = parts else {
                self.groups.remove(&key);
                if sb.groups.remove(&key).is_some() {
                    delta.removed.groups.insert(key);
                }
                continue;
            };
            let name = parts.name.as_deref().unwrap_or_default();
            // A group of another name is another group.
            if sb.groups.get(&key).is_some_and(|group| group.name != name) {
                sb.groups.remove(&key);
                delta.removed.groups.insert(key);
            }
            let is_new = !sb.groups.contains_key(&key);
            let new = || MulticastGroup { name: name.to_owned(), ..Default::default() };
            let group = sb.groups.entry(key).or_insert_with(new);
            let mut change = GroupChange { name: group.name.clone(), ..GroupChange::default() };
            for port in ports {
                if parts.ports.contains(&port) {
                    if group.ports.insert(port.clone()) {
                        change.added.insert(port);
                    }
                } else if group.ports.remove(&port) {
                    change.removed.insert(port);
                }
            }
            if is_new || !change.added.is_empty() || !change.removed.is_empty() {
                delta.groups.insert(key, change);
            }
        }
    }

    fn settle_flows(
        &mut self,
        touched: Vec<(PlaceHash, InForce)>,
        sb: &mut Southbound,
        delta: &mut SouthboundDelta,
    ) {
        let mut gone = Vec::new();
        let mut fresh = Vec::with_capacity(touched.len());
        let mut colliding = BTreeSet::new();
        for (place, before) in touched {
            let Entry::Occupied(mut slot) = self.flows.entry(place) else { continue };
            slot.get_mut().is_touched = false;
            let now: InForce = slot.get().in_force().collect();
            if now.is_empty() {
                slot.remove();
            }
            let lacks = |flows: &InForce, flow: &Arc<LogicalFlow>| {
                !flows.iter().any(|(_, other)| Arc::ptr_eq(other, flow) || other == flow)
            };
            gone.extend(before.iter().filter(|(_, flow)| lacks(&now, flow)).cloned());
            fresh.extend(now.into_iter().filter(|(_, flow)| lacks(&before, flow)));
            if self.datapaths.get(&place.datapath).is_some_and(|parts| parts.collides) {
                colliding.insert(place.datapath);
            }
        }
        fresh.sort_unstable_by_key(|(id, _)| *id);
        for ((id, flow), (next, _)) in fresh.iter().zip(fresh.iter().skip(1)) {
            if id == next {
                colliding.insert(flow.datapath);
            }
        }
        // Made at once: that is much less than one by one.
        let (gone, mut fresh): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (gone.into_iter().collect(), fresh.into_iter().collect());
        for (id, flow) in &fresh {
            if sb.flows.contains_key(id) && !gone.contains_key(id) {
                colliding.insert(flow.datapath);
            }
        }
        for (id, flow) in gone {
            if !colliding.contains(&flow.datapath) && !fresh.contains_key(&id) {
                sb.flows.remove(&id);
                delta.removed.flows.insert(id);
            }
        }
        if !colliding.is_empty() {
            fresh.retain(|_, flow| !colliding.contains(&flow.datapath));
        }
        if fresh.len() > sb.flows.len() / 8 {
            sb.flows.append(&mut fresh.clone());
        } else {
            sb.flows.extend(fresh.iter().map(|(id, flow)| (*id, Arc::clone(flow))));
        }
        delta.flows = fresh;
        for datapath in colliding {
            self.number_anew(datapath, sb, delta);
        }
    }

    /// Two flows of the datapath have, or had, the same hash: which id each gets depends on
    /// all of them.
    fn number_anew(&mut self, datapath: DatapathKey, sb: &mut Southbound, delta: &mut SouthboundDelta) {
        let of_datapath = self.flows.iter().filter(|(place, _)| place.datapath == datapath);
        let new =
            whole::number(datapath, of_datapath.flat_map(|(_, slot)| slot.in_force()).map(|(_, flow)| flow));
        let old: BTreeMap<_, _> =
            sb.flows.range(whole::ids(datapath)).map(|(id, flow)| (*id, Arc::clone(flow))).collect();
        if let Some(parts) = self.datapaths.get_mut(&datapath) {
            parts.collides = new.iter().any(|(id, flow)| *id != whole::id(datapath, flow));
        }
        let (changed, gone) = diff_map(&old, &new);
        for id in &gone {
            sb.flows.remove(id);
        }
        sb.flows.extend(changed.iter().map(|(id, flow)| (*id, Arc::clone(flow))));
        delta.flows.extend(changed);
        delta.removed.flows.extend(gone);
    }

    fn settle_datapaths(
        &mut self,
        touched: BTreeSet<DatapathKey>,
        sb: &mut Southbound,
        delta: &mut SouthboundDelta,
    ) {
        for key in touched {
            let Some(parts) = self.datapaths.get(&key) else { continue };
            let Some(head) = parts.datapath.clone() else {
                if sb.datapaths.remove(&key).is_some() {
                    delta.removed.datapaths.insert(key);
                }
                if parts.sets.is_empty() {
                    self.datapaths.remove(&key);
                }
                continue;
            };
            let new = head.with_sets(parts.sets.keys().cloned().collect());
            if sb.datapaths.get(&key) != Some(&new) {
                sb.datapaths.insert(key, new.clone());
                delta.datapaths.insert(key, new);
            }
        }
    }
}

impl Slot {
    /// Of the flows for the same packets the first one.
    fn in_force(&self) -> impl Iterator<Item = (u64, Arc<LogicalFlow>)> + '_ {
        let is_first = |(n, candidate): &(usize, &Candidate)| {
            self.candidates.iter().take(*n).all(|other| place(&other.flow) != place(&candidate.flow))
        };
        let in_force = self.candidates.iter().enumerate().filter(is_first);
        in_force.map(|(_, candidate)| (candidate.id, Arc::clone(&candidate.flow)))
    }
}
