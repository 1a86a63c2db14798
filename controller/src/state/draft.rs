//! A transaction in the making.
//!
//! Operations are applied one after the other to a draft; what resources mean to each
//! other is judged at the end, so operations may come in any order as long as the end
//! is sound. Nothing outside the draft changes until it is committed and applied.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use ferroflow_proto::northbound as pb;
use flowtable::types::VlanId;
use ovn_northd_lite::model::{PortAddresses, RouteTarget, StaticRoute};

use super::{
    Binding, Change, Known, Reason, Record, Refusal, State, addresses, encode_counter,
    index::{Address, addresses_of, is_port, members_of, peer_of},
    keys::{self, Allocator, KeyTaken},
    nats, nested, services, sets, tags,
};
use crate::{
    resource::{Kind, Name, Spec, check_labels, merge, parse_spec, strip},
    store::{Revision, Txn},
};

/// Changes on top of a [`State`].
pub struct Draft<'a> {
    pub(super) state: &'a State,
    pub(super) revision: Revision,
    pub(super) touched: BTreeMap<Name, Touched>,
    results: Vec<Name>,
}

pub(super) struct Touched {
    /// The resource after the change; `None`: deleted.
    pub(super) record: Option<Record>,
    /// The operation that touched it last.
    operation: Option<usize>,
    /// It is not the resource the state has under this name.
    is_new: bool,
}

/// The chassis that already have a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The one that it goes to, unless it is there.
    pub chassis: Option<String>,
    /// Those that have another interface of it, of the ones that may.
    pub additional: BTreeSet<String>,
}

/// What came of a create or an update.
#[derive(Debug, Clone)]
pub struct Resulting {
    /// Of the resource.
    pub name: Name,
    /// The resource after the change; `None`: a later operation of the same change has deleted it.
    pub record: Option<Arc<Record>>,
}

/// A sound transaction, ready to be committed.
#[derive(Debug)]
pub struct Prepared {
    /// The revision it makes.
    pub revision: Revision,
    /// What changes, in order of names; empty: nothing.
    pub changes: Vec<Change>,
    /// What came of creates and updates, in their order.
    pub results: Vec<Resulting>,
    pub(super) counters: BTreeMap<String, Option<u32>>,
}

impl Prepared {
    /// The writes to the store.
    pub fn txn(&self, based_on: Revision) -> Txn {
        let records = self
            .changes
            .iter()
            .map(|change| (change.name.to_string(), change.after.as_ref().map(|record| record.encode())));
        let counters =
            self.counters.iter().map(|(scope, counter)| (scope.clone(), counter.map(encode_counter)));
        Txn { based_on, writes: records.chain(counters).collect() }
    }
}

impl<'a> Draft<'a> {
    /// A draft without changes.
    pub fn new(state: &'a State) -> Self {
        Self { state, revision: state.revision().next(), touched: BTreeMap::new(), results: Vec::new() }
    }

    /// What the draft is made on.
    pub const fn state(&self) -> &'a State {
        self.state
    }

    /// ACLs that name a set in their match, as of before the draft, and not changed in it.
    pub(super) fn untouched_mentions(&self, set: &str) -> impl Iterator<Item = &Name> {
        let acls = self.state.index.mentions.get(set).into_iter().flatten();
        acls.filter(|acl| !self.touched.contains_key(*acl))
    }

    /// Resources below one, as of before the draft, and not changed in it.
    pub(super) fn untouched_below<'b>(&'b self, parent: &'b Name) -> impl Iterator<Item = &'b Record> {
        let below = self.state.below(parent).filter(|name| !self.touched.contains_key(*name));
        below.filter_map(|name| self.state.get(name).map(|record| &**record))
    }

    /// Resources that the draft writes, with the operations that do.
    pub(super) fn written(&self) -> impl Iterator<Item = (&Record, Option<usize>)> {
        self.touched.values().filter_map(|touched| Some((touched.record.as_ref()?, touched.operation)))
    }

    /// What the draft has changed so far: name, before, after.
    pub fn changed(&self) -> impl Iterator<Item = (&Name, Option<&Record>, Option<&Record>)> {
        self.touched.iter().map(|(name, touched)| {
            let before = self.state.get(name).map(|record| &**record);
            (name, before, touched.record.as_ref())
        })
    }

    /// The draft writes or deletes it.
    pub(super) fn touches(&self, name: &Name) -> bool {
        self.touched.contains_key(name)
    }

    /// Names of what the draft deletes or makes anew.
    pub(super) fn replaced(&self) -> impl Iterator<Item = &Name> {
        let gone = self.touched.iter().filter(|(_, touched)| touched.record.is_none() || touched.is_new);
        gone.map(|(name, _)| name)
    }

    /// Writes the addresses that were chosen for a port.
    pub(super) fn set_chosen(&mut self, port: &Name, chosen: Option<PortAddresses>, by: Option<usize>) {
        let Some(present) = self.get(port).filter(|record| record.chosen != chosen) else { return };
        let record = Record { chosen, ..present.clone() };
        self.touch(by, port.clone(), Some(record), false);
    }

    /// Writes the tag that was chosen for a port.
    pub(super) fn set_tag(&mut self, port: &Name, tag: Option<VlanId>, by: Option<usize>) {
        let Some(present) = self.get(port).filter(|record| record.chosen_tag != tag) else { return };
        let record = Record { chosen_tag: tag, ..present.clone() };
        self.touch(by, port.clone(), Some(record), false);
    }

    /// The resource as it is in the draft.
    pub fn get(&self, name: &Name) -> Option<&Record> {
        match self.touched.get(name) {
            Some(touched) => touched.record.as_ref(),
            None => self.state.get(name).map(|record| &**record),
        }
    }

    /// Creates a resource.
    ///
    /// # Errors
    /// [`Reason`].
    pub fn create(&mut self, operation: usize, resource: pb::Resource) -> Result<(), Reason> {
        let name = writable(&resource.name)?;
        if self.get(&name).is_some() {
            return Err(Reason::AlreadyExists(name));
        }
        self.insert(Some(operation), name, resource)
    }

    /// Changes a resource: the fields in `paths`, or all when there are none.
    ///
    /// # Errors
    /// [`Reason`].
    pub fn update(
        &mut self,
        operation: usize,
        resource: pb::Resource,
        paths: &[String],
        allow_missing: bool,
    ) -> Result<(), Reason> {
        let name = writable(&resource.name)?;
        if allow_missing && !paths.is_empty() {
            return Err(Reason::MissingWithMask(name));
        }
        let Some(present) = self.get(&name) else {
            if allow_missing {
                return self.insert(Some(operation), name, resource);
            }
            return Err(Reason::NotFound(name));
        };
        let mut record = present.clone();
        let mut new_spec = resource.spec;
        new_spec.iter_mut().for_each(strip);
        let field = |error| Reason::Field { name: name.clone(), error };
        if paths.is_empty() {
            record.spec = parse_spec(&name, new_spec.as_ref()).map_err(field)?;
            record.wire = new_spec.ok_or(Reason::Empty("spec"))?;
            record.labels = resource.labels;
        } else {
            let to = (&mut record.wire, &mut record.labels);
            merge(&name, to, (new_spec.as_ref(), &resource.labels), paths).map_err(field)?;
            record.spec = parse_spec(&name, Some(&record.wire)).map_err(field)?;
        }
        check_labels(&record.labels).map_err(field)?;
        record.holder = record.parent_port().is_some().then_some(record.holder).flatten();
        let is_allowed = record.binding.as_ref().is_none_or(|binding| record.may_be_on(&binding.chassis));
        if !record.is_workload() || !is_allowed {
            record.binding = None;
        }
        let wanted: BTreeSet<_> = record.wanted_additional().cloned().collect();
        record.additional.retain(|id| wanted.contains(id));
        let checked = record.checked();
        record.health.retain(|backend, _| checked.contains_key(backend));
        record.update_revision = self.revision;
        self.results.push(name.clone());
        self.touch(Some(operation), name, Some(record), false);
        Ok(())
    }

    /// Deletes a resource and what is below it.
    ///
    /// # Errors
    /// [`Reason`].
    pub fn delete(&mut self, operation: usize, name: &str, allow_missing: bool) -> Result<(), Reason> {
        let name = Name::parse(name)?;
        if self.get(&name).is_none() {
            return if allow_missing { Ok(()) } else { Err(Reason::NotFound(name)) };
        }
        let prefix = format!("{name}/");
        let mut below: Vec<Name> = self.state.below(&name).cloned().collect();
        let drafted = self
            .touched
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .map(|(name, _)| name);
        below.extend(drafted.take_while(|name| name.as_str().starts_with(&prefix)).cloned());
        for child in below {
            self.touch(Some(operation), child, None, false);
        }
        self.touch(Some(operation), name, None, false);
        Ok(())
    }

    /// Writes the record of a chassis, on behalf of the chassis itself.
    ///
    /// # Errors
    /// [`Reason`].
    pub fn register(&mut self, name: Name, chassis: pb::Chassis) -> Result<(), Reason> {
        let spec = pb::resource::Spec::Chassis(chassis);
        match self.get(&name) {
            Some(present) => {
                let mut record = present.clone();
                record.spec = parse_spec(&name, Some(&spec))
                    .map_err(|error| Reason::Field { name: name.clone(), error })?;
                record.wire = spec;
                record.update_revision = self.revision;
                self.touch(None, name, Some(record), false);
                Ok(())
            }
            None => {
                let resource = pb::Resource { spec: Some(spec), ..Default::default() };
                self.insert(None, name, resource)
            }
        }
    }

    fn insert(
        &mut self,
        operation: Option<usize>,
        name: Name,
        mut resource: pb::Resource,
    ) -> Result<(), Reason> {
        resource.spec.iter_mut().for_each(strip);
        let field = |error| Reason::Field { name: name.clone(), error };
        let spec = parse_spec(&name, resource.spec.as_ref()).map_err(field)?;
        check_labels(&resource.labels).map_err(field)?;
        let record = Record {
            name: name.clone(),
            create_revision: self.revision,
            update_revision: self.revision,
            labels: resource.labels,
            wire: resource.spec.ok_or(Reason::Empty("spec"))?,
            spec,
            key: 0,
            binding: None,
            additional: BTreeSet::new(),
            chosen: None,
            chosen_tag: None,
            health: Known::new(),
            heard: BTreeMap::new(),
            holder: None,
            sessions: BTreeMap::new(),
        };
        if operation.is_some() {
            self.results.push(name.clone());
        }
        self.touch(operation, name, Some(record), true);
        Ok(())
    }

    pub(super) fn touch(
        &mut self,
        operation: Option<usize>,
        name: Name,
        record: Option<Record>,
        is_new: bool,
    ) {
        let earlier = self.touched.get(&name);
        let operation = operation.or(earlier.and_then(|touched| touched.operation));
        let was_new = earlier.is_some_and(|touched| touched.is_new);
        let was_here = self.get(&name).is_some();
        let touched = Touched { operation, is_new: is_new || (was_new && was_here), record };
        self.touched.insert(name, touched);
    }

    /// Judges the whole, gives new resources their keys, and ports that are written the chassis
    /// that `claimant` says have them.
    ///
    /// # Errors
    /// [`Refusal`] names the operation.
    pub fn finish(mut self, claimant: impl Fn(&Record) -> Claimed) -> Result<Prepared, Refusal> {
        self.leave_deleted_chassis();
        self.leave_groups();
        for (name, touched) in &self.touched {
            let verdict = match &touched.record {
                Some(record) => self.check_put(record),
                None => self.check_deleted(name),
            };
            verdict.map_err(|reason| Refusal { operation: touched.operation, reason })?;
        }
        let cursors = addresses::choose(&mut self)?;
        tags::choose(&mut self)?;
        self.check_unique()?;
        self.bind_claimed(claimant);
        let mut counters = self.allocate_keys()?;
        counters.extend(cursors);
        Ok(self.into_prepared(counters))
    }

    /// A switch port or load balancer that is deleted is no longer in its groups.
    fn leave_groups(&mut self) {
        let deleted = self.touched.iter().filter(|(_, touched)| touched.record.is_none());
        let deleted: Vec<Name> = deleted.map(|(name, _)| name.clone()).collect();
        let groups = deleted.iter().filter_map(|member| self.state.index.groups.get(member)).flatten();
        let groups: BTreeSet<Name> = groups.cloned().collect();
        for group in groups {
            let Some(mut record) = self.get(&group).cloned() else { continue };
            let stays = |member: &Name| self.get(member).is_some() || !deleted.contains(member);
            if sets::retain_members(&mut record, stays) {
                record.update_revision = self.revision;
                self.touch(None, group, Some(record), false);
            }
        }
    }

    fn check_put(&self, record: &Record) -> Result<(), Reason> {
        let name = &record.name;
        if let Some(parent) = name.parent().filter(|parent| self.get(parent).is_none()) {
            return Err(Reason::NoParent { name: name.clone(), parent });
        }
        let dangling = |field: String, target: Name| Reason::Dangling { name: name.clone(), field, target };
        if let Some(peer) = peer_of(record).filter(|peer| self.get(peer).is_none()) {
            return Err(dangling("router_port".to_owned(), peer.clone()));
        }
        if let Spec::Router(router) = &record.spec {
            for (i, route) in router.static_routes.iter().enumerate() {
                let Some(port) = output_port(route) else { continue };
                let target = Name::parse(&format!("{name}/ports/{port}"))?;
                if self.get(&target).is_none() {
                    return Err(dangling(format!("static_routes[{i}].output_port"), target));
                }
            }
        }
        nats::check_put(self, record)?;
        nested::check_put(self, record)?;
        services::check_put(self, record)?;
        let mut members = members_of(record).iter().enumerate();
        if let Some((i, member)) = members.find(|(_, member)| self.get(member).is_none()) {
            let field = if member.kind() == Kind::LoadBalancer { "load_balancers" } else { "ports" };
            return Err(dangling(format!("{field}[{i}]"), member.clone()));
        }
        sets::check_put(self, record)
    }

    /// Nobody may still refer to what is gone.
    fn check_deleted(&self, name: &Name) -> Result<(), Reason> {
        if name.kind() == Kind::SwitchPort {
            nested::check_deleted(self, name)?;
        }
        if name.kind() != Kind::RouterPort {
            return sets::check_deleted(self, name);
        }
        nats::check_deleted(self, name)?;
        let referenced = |by: &Name| Reason::Referenced { name: name.clone(), by: by.clone() };
        if let Some(by) = self.state.index.peers.get(name) {
            let still = self.get(by).and_then(peer_of) == Some(name);
            // One that was written in this transaction is refused for its own field.
            if still && !self.touched.contains_key(by) {
                return Err(referenced(by));
            }
        }
        let router = name.parent().and_then(|router| self.get(&router));
        if let Some(Record { name: by, spec: Spec::Router(router), .. }) = router {
            let mut outputs = router.static_routes.iter().filter_map(output_port);
            if outputs.any(|port| port == name.id()) {
                return Err(referenced(by));
            }
        }
        Ok(())
    }

    /// Port ids, peers and addresses have one owner each.
    fn check_unique(&self) -> Result<(), Refusal> {
        let index = &self.state.index;
        let mut ids: HashMap<&str, &Name> = HashMap::new();
        let mut peers: HashMap<&Name, &Name> = HashMap::new();
        let mut addresses: HashMap<(Name, Address), &Name> = HashMap::new();
        for (name, touched) in &self.touched {
            let Some(record) = &touched.record else { continue };
            let refuse = |reason| Refusal { operation: touched.operation, reason };
            if is_port(name) {
                let other = self.untouched(index.ports.get(name.id()), name);
                if let Some(other) = ids.insert(name.id(), name).or(other) {
                    let (name, other) = (name.clone(), other.clone());
                    return Err(refuse(Reason::PortIdTaken { name, other }));
                }
            }
            if let Some(peer) = peer_of(record) {
                let other = self.untouched(index.peers.get(peer), name);
                if let Some(other) = peers.insert(peer, name).or(other) {
                    let (name, peer, other) = (name.clone(), peer.clone(), other.clone());
                    return Err(refuse(Reason::PeerTaken { name, peer, other }));
                }
            }
            let Some(switch) = name.parent() else { continue };
            let owners = index.addresses.get(&switch);
            for address in addresses_of(record) {
                let other = self.untouched(owners.and_then(|owners| owners.get(&address)), name);
                if let Some(other) = addresses.insert((switch.clone(), address), name).or(other) {
                    let (name, other) = (name.clone(), other.clone());
                    let address = address.to_string();
                    return Err(refuse(Reason::AddressTaken { name, address, other }));
                }
            }
        }
        Ok(())
    }

    /// An owner by the state's index that is another resource and not in this draft.
    fn untouched<'b>(&self, owner: Option<&'b Name>, name: &Name) -> Option<&'b Name> {
        owner.filter(|owner| *owner != name && !self.touched.contains_key(*owner))
    }

    fn bind_claimed(&mut self, claimant: impl Fn(&Record) -> Claimed) {
        let is_written = |touched: &&mut Touched| touched.operation.is_some();
        for touched in self.touched.values_mut().filter(is_written) {
            let Some(record) = touched.record.as_mut().filter(|record| record.is_workload()) else {
                continue;
            };
            let Claimed { chassis, additional } = claimant(record);
            let present = record.binding.as_ref().map(|binding| &binding.chassis);
            if let Some(chassis) = chassis.filter(|chassis| present != Some(chassis)) {
                record.binding = Some(Binding { chassis, up: false, since: self.revision });
            }
            record.additional = additional;
        }
    }

    /// Gives keys to what is new; the counters as they are to be stored.
    fn allocate_keys(&mut self) -> Result<BTreeMap<String, Option<u32>>, Refusal> {
        let state = self.state;
        let anew = |name: &Name| self.touched.get(name).is_some_and(|touched| touched.is_new);
        // A datapath made anew starts to count anew.
        let datapaths = self.touched.keys().filter(|name| name.kind().child_kinds().next().is_some());
        let reset: HashSet<String> = datapaths.filter(|name| anew(name)).map(keys::scope_below).collect();
        let mut allocator = Allocator::new(&state.counters, &state.index.keys, reset);
        // Keys that are asked for go first: nobody else shall get them.
        for (name, touched) in &mut self.touched {
            let Some(record) = &mut touched.record else { continue };
            let (wanted, Some(scope)) = (record.wanted_key(), keys::scope(name)) else { continue };
            if wanted == 0 || (record.key == wanted && !touched.is_new) {
                continue;
            }
            let is_own = state.get(name).is_some_and(|before| before.key == wanted);
            allocator.take(&scope, wanted, is_own).map_err(|KeyTaken| Refusal {
                operation: touched.operation,
                reason: Reason::KeyTaken { name: name.clone(), key: wanted },
            })?;
            record.key = wanted;
        }
        for (name, touched) in &mut self.touched {
            let is_new = touched.is_new;
            let Some(record) = touched.record.as_mut().filter(|_| is_new) else { continue };
            let Some(scope) = keys::scope(name).filter(|_| record.wanted_key() == 0) else { continue };
            record.key = allocator.allocate(&scope).map_err(|exhausted| Refusal {
                operation: touched.operation,
                reason: Reason::KeysExhausted { name: name.clone(), max: exhausted.max },
            })?;
        }
        let moved = allocator.into_counters();
        let gone = self.touched.iter().filter(|(_, touched)| touched.record.is_none() || touched.is_new);
        let mut result: BTreeMap<String, Option<u32>> = gone
            .map(|(name, _)| keys::scope_below(name))
            .filter(|scope| state.counters.contains_key(scope))
            .map(|scope| (scope, None))
            .collect();
        result.extend(moved.into_iter().map(|(scope, counter)| (scope, Some(counter))));
        Ok(result)
    }

    fn into_prepared(self, counters: BTreeMap<String, Option<u32>>) -> Prepared {
        let Self { state, revision, touched, results } = self;
        let mut changes = Vec::with_capacity(touched.len());
        for (name, touched) in touched {
            let before = state.get(&name);
            let is_same = match (before, &touched.record) {
                (Some(before), Some(after)) => !touched.is_new && before.same_content(after),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_same {
                changes.push(Change { name, before: before.cloned(), after: touched.record.map(Arc::new) });
            }
        }
        let result = |name: Name| {
            let record = match changes.binary_search_by(|change| change.name.cmp(&name)) {
                Ok(i) => changes.get(i).and_then(|change| change.after.clone()),
                Err(_) => state.get(&name).cloned(),
            };
            Resulting { name, record }
        };
        let results = results.into_iter().map(result).collect();
        Prepared { revision, results, changes, counters }
    }
}

/// The port that a route names.
fn output_port(route: &StaticRoute) -> Option<&str> {
    match &route.target {
        RouteTarget::Via(hop) => hop.output_port.as_deref(),
        RouteTarget::Discard => None,
    }
}

fn writable(name: &str) -> Result<Name, Reason> {
    let name = Name::parse(name)?;
    if name.kind() == Kind::Chassis { Err(Reason::ReadOnly(name)) } else { Ok(name) }
}
