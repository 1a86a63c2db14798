//! What each chassis needs, kept up to date: a change of the network becomes a change for
//! each chassis that it concerns, and nothing for the others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    build::whole::ids as ids_of,
    delta::{GroupChange, SetChange, SouthboundDelta, diff_map},
    key::{DatapathKey, PortKey},
    southbound::{ChassisRecord, MulticastGroup, PortBinding, Southbound},
    template,
    view::{hosts_of, is_way},
};

/// Who needs what.
///
/// # Invariants
/// - A chassis that makes each change it is given has [`crate::chassis_view`] of the network.
#[derive(Debug, Clone, Default)]
pub struct Views {
    datapaths: BTreeMap<DatapathKey, OfDatapath>,
    /// As they were told last.
    bindings: HashMap<String, PortBinding>,
    /// How many ports of each datapath are on a chassis.
    locals: BTreeMap<String, BTreeMap<DatapathKey, usize>>,
    /// Ports that have a way through some patch on their own chassis, and how many.
    opening: BTreeMap<String, usize>,
    /// Datapaths whose flows name a set.
    naming: BTreeMap<String, BTreeSet<DatapathKey>>,
    /// Chassis that have been told of a set.
    holders: HashMap<String, BTreeSet<String>>,
    views: BTreeMap<String, View>,
}

/// What there is of a datapath.
#[derive(Debug, Clone, Default)]
struct OfDatapath {
    bindings: BTreeSet<String>,
    /// Bindings with a peer.
    patches: BTreeSet<String>,
    /// Chassis that ports are on, and how many.
    hosts: BTreeMap<String, usize>,
    /// Sets that its flows name.
    sets: BTreeSet<String>,
    /// Chassis that need it.
    users: BTreeSet<String>,
}

/// What a chassis has been told of.
#[derive(Debug, Clone, Default)]
struct View {
    datapaths: BTreeSet<DatapathKey>,
    hosts: BTreeMap<String, ChassisRecord>,
    sets: BTreeSet<String>,
}

/// Whose view is to be looked at.
#[derive(Default)]
struct Concerned {
    /// May need other datapaths.
    reach: BTreeSet<String>,
    /// May need to know other hosts.
    hosts: BTreeSet<String>,
    /// Which sets they may need, or need no more, or have with other members.
    sets: BTreeMap<String, BTreeSet<String>>,
    /// Have a datapath that has changed.
    content: BTreeSet<String>,
}

impl Views {
    /// Follows a change of the network, which is `sb` now; what each chassis that it
    /// concerns is to be told, `None` for those that do not listen. Nobody begins to listen
    /// meanwhile. Chassis that are told the same share it.
    ///
    /// # Cost
    /// That of the change, for each of those chassis that listen; where links change, also
    /// that of finding what each chassis that has one of their ends reaches.
    pub fn update(
        &mut self,
        sb: &Southbound,
        delta: &SouthboundDelta,
        listens: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Option<Arc<SouthboundDelta>>> {
        let parts = self.parts(delta, &listens);
        let mut concerned = Concerned::default();
        self.follow_bindings(delta, &mut concerned);
        self.follow_sets(delta, &mut concerned);
        self.follow_hosts(sb, delta, &mut concerned);
        for key in parts.keys() {
            concerned.content.extend(self.users(*key).cloned());
        }
        let mut told = BTreeMap::new();
        // Most have the same of it as others.
        let mut merged: BTreeMap<Vec<DatapathKey>, Arc<SouthboundDelta>> = BTreeMap::new();
        let Concerned { reach, hosts, sets, content } = &concerned;
        let all = reach.iter().chain(hosts).chain(sets.keys()).chain(content);
        for id in all.collect::<BTreeSet<_>>() {
            let Some(view) = self.views.get(id) else { continue };
            let listens = listens(id);
            let kept = view.datapaths.iter().filter(|key| parts.contains_key(key));
            let kept: Vec<_> = kept.copied().collect();
            let mut change = SouthboundDelta::default();
            let is_other = reach.contains(id) && self.reach(sb, id, &parts, listens.then_some(&mut change));
            if is_other || hosts.contains(id) {
                self.tell_hosts(sb, id, &mut change);
            }
            if is_other {
                self.tell_sets(sb, delta, id, &self.sets_of(id), &mut change);
            } else if let Some(names) = sets.get(id) {
                self.tell_sets(sb, delta, id, names, &mut change);
            }
            let change = if is_other || !listens || kept.is_empty() {
                Arc::new(change)
            } else {
                let of_parts = merged.entry(kept).or_insert_with_key(|kept| {
                    let mut all = SouthboundDelta::default();
                    merge_parts(&mut all, kept.iter().filter_map(|key| parts.get(key)).cloned().collect());
                    Arc::new(all)
                });
                let mut all = Arc::clone(of_parts);
                if !change.is_empty() {
                    Arc::make_mut(&mut all).merge(change);
                }
                all
            };
            let differs = is_other || content.contains(id) || !change.is_empty();
            if listens && !change.is_empty() {
                told.insert(id.clone(), Some(change));
            } else if !listens && differs {
                told.insert(id.clone(), None);
            }
        }
        told
    }

    /// The whole view of a chassis.
    pub fn of(&self, sb: &Southbound, chassis: &str) -> Southbound {
        let Some(view) = self.views.get(chassis) else { return Southbound::default() };
        let keys = || view.datapaths.iter();
        let ids = keys().filter_map(|key| self.datapaths.get(key)).flat_map(|datapath| &datapath.bindings);
        Southbound {
            datapaths: keys().filter_map(|key| Some((*key, sb.datapaths.get(key)?.clone()))).collect(),
            bindings: ids.filter_map(|id| Some((id.clone(), sb.bindings.get(id)?.clone()))).collect(),
            groups: keys().flat_map(|key| groups(sb, *key)).map(|(id, group)| (*id, group.clone())).collect(),
            chassis: view.hosts.clone(),
            // In the order of the datapaths, so that they need no sorting.
            flows: keys()
                .flat_map(|key| sb.flows.range(ids_of(*key)))
                .map(|(id, flow)| (*id, flow.clone()))
                .collect(),
            sets: view
                .sets
                .iter()
                .filter_map(|name| Some((name, sb.sets.get(name)?)))
                .map(|(name, members)| (name.clone(), template::seen_by(chassis, name, members).into_owned()))
                .collect(),
        }
    }

    /// Chassis that have something of what a change touches.
    pub fn concerned_by(&self, delta: &SouthboundDelta) -> BTreeSet<String> {
        let SouthboundDelta { datapaths, bindings, groups, flows, sets, removed, .. } = delta;
        let mut keys: BTreeSet<_> = datapaths.keys().chain(&removed.datapaths).copied().collect();
        keys.extend(bindings.values().map(|binding| binding.datapath));
        let gone = removed.bindings.iter().filter_map(|id| self.bindings.get(id));
        keys.extend(gone.map(|binding| binding.datapath));
        keys.extend(groups.keys().chain(&removed.groups).map(|(key, _)| *key));
        keys.extend(flows.values().map(|flow| flow.datapath));
        keys.extend(removed.flows.iter().filter_map(|id| crate::build::whole::datapath_of(*id)));
        let named = sets.keys().chain(&removed.sets).filter_map(|name| self.naming.get(name));
        keys.extend(named.flatten());
        keys.into_iter().flat_map(|key| self.users(key)).cloned().collect()
    }

    fn users(&self, key: DatapathKey) -> impl Iterator<Item = &String> {
        self.datapaths.get(&key).into_iter().flat_map(|datapath| &datapath.users)
    }

    /// The change, by datapath; what nobody listens to has no content.
    fn parts(
        &self,
        delta: &SouthboundDelta,
        listens: &dyn Fn(&str) -> bool,
    ) -> BTreeMap<DatapathKey, SouthboundDelta> {
        let mut parts = Parts { views: self, listens, parts: BTreeMap::new() };
        for (key, datapath) in &delta.datapaths {
            parts.add(*key, |part| drop(part.datapaths.insert(*key, datapath.clone())));
        }
        for key in &delta.removed.datapaths {
            parts.add(*key, |part| {
                part.removed.datapaths.insert(*key);
            });
        }
        for (id, binding) in &delta.bindings {
            parts.add(binding.datapath, |part| drop(part.bindings.insert(id.clone(), binding.clone())));
        }
        for id in delta.bindings.keys().chain(&delta.removed.bindings) {
            let Some(old) = self.bindings.get(id) else { continue };
            if delta.bindings.get(id).is_none_or(|new| new.datapath != old.datapath) {
                parts.add(old.datapath, |part| {
                    part.removed.bindings.insert(id.clone());
                });
            }
        }
        for (key, group) in &delta.groups {
            parts.add(key.0, |part| drop(part.groups.insert(*key, group.clone())));
        }
        for key in &delta.removed.groups {
            parts.add(key.0, |part| {
                part.removed.groups.insert(*key);
            });
        }
        for (id, flow) in &delta.flows {
            parts.add(flow.datapath, |part| drop(part.flows.insert(*id, flow.clone())));
        }
        for id in &delta.removed.flows {
            let Some(key) = crate::build::whole::datapath_of(*id) else { continue };
            parts.add(key, |part| {
                part.removed.flows.insert(*id);
            });
        }
        parts.parts.into_iter().map(|(key, part)| (key, part.unwrap_or_default())).collect()
    }

    fn follow_bindings(&mut self, delta: &SouthboundDelta, concerned: &mut Concerned) {
        for id in delta.removed.bindings.iter().chain(delta.bindings.keys()) {
            let old = self.bindings.remove(id);
            let new = delta.bindings.get(id);
            for (binding, is_new) in old.iter().map(|old| (old, false)).chain(new.map(|new| (new, true))) {
                self.count(id, binding, is_new, concerned);
            }
            if let Some(new) = new {
                self.bindings.insert(id.clone(), new.clone());
            }
        }
    }

    /// A binding comes or goes.
    fn count(&mut self, id: &str, binding: &PortBinding, is_new: bool, concerned: &mut Concerned) {
        let key = binding.datapath;
        let datapath = self.datapaths.entry(key).or_default();
        if binding.peer.is_some() {
            concerned.reach.extend(datapath.users.iter().cloned());
        }
        let hosts_before = datapath.hosts.len();
        if is_new {
            datapath.bindings.insert(id.to_owned());
            if binding.peer.is_some() {
                datapath.patches.insert(id.to_owned());
            }
        } else {
            datapath.bindings.remove(id);
            datapath.patches.remove(id);
        }
        for port in &binding.open_for {
            step(&mut self.opening, port.clone(), is_new);
        }
        if self.opening.contains_key(id) {
            concerned.reach.extend(binding.chassis.clone());
        }
        let hosts = hosts_of(binding).map(str::to_owned);
        for chassis in hosts.collect::<BTreeSet<_>>() {
            step(&mut datapath.hosts, chassis.clone(), is_new);
            let locals = self.locals.entry(chassis.clone()).or_default();
            if step(locals, key, is_new) {
                concerned.reach.insert(chassis.clone());
            }
            if locals.is_empty() {
                self.locals.remove(&chassis);
            }
        }
        if datapath.hosts.len() != hosts_before {
            concerned.hosts.extend(datapath.users.iter().cloned());
        }
    }

    fn follow_sets(&mut self, delta: &SouthboundDelta, concerned: &mut Concerned) {
        let removed = delta.removed.datapaths.iter().map(|key| (key, None));
        let changed = delta.datapaths.iter().map(|(key, datapath)| (key, Some(&datapath.sets)));
        for (key, sets) in removed.chain(changed) {
            let new = sets.cloned().unwrap_or_default();
            let datapath = self.datapaths.entry(*key).or_default();
            for name in datapath.sets.difference(&new) {
                if let Some(naming) = self.naming.get_mut(name) {
                    naming.remove(key);
                    if naming.is_empty() {
                        self.naming.remove(name);
                    }
                }
            }
            for name in new.difference(&datapath.sets) {
                self.naming.entry(name.clone()).or_default().insert(*key);
            }
            let changed = datapath.sets.symmetric_difference(&new).cloned().collect::<BTreeSet<_>>();
            if !changed.is_empty() {
                for user in &datapath.users {
                    concerned.sets.entry(user.clone()).or_default().extend(changed.iter().cloned());
                }
                datapath.sets = new;
            }
        }
        for name in delta.sets.keys().chain(&delta.removed.sets) {
            let holders = self.holders.get(name);
            // Whoever needs a set that is there has it, but for those whose datapaths name it just now,
            // and these are looked at already.
            let is_new = holders.is_none().then(|| self.naming.get(name)).flatten();
            let users = is_new.into_iter().flatten().flat_map(|key| self.users(*key));
            for chassis in holders.into_iter().flatten().chain(users) {
                concerned.sets.entry(chassis.clone()).or_default().insert(name.clone());
            }
        }
    }

    fn follow_hosts(&mut self, sb: &Southbound, delta: &SouthboundDelta, concerned: &mut Concerned) {
        for id in &delta.removed.chassis {
            let View { datapaths, sets, .. } = self.views.remove(id).unwrap_or_default();
            for key in datapaths {
                if let Some(datapath) = self.datapaths.get_mut(&key) {
                    datapath.users.remove(id);
                }
            }
            sets.iter().for_each(|name| self.forget_holder(name, id));
        }
        for id in delta.chassis.keys().filter(|id| sb.chassis.contains_key(*id)) {
            if !self.views.contains_key(id) {
                self.views.insert(id.clone(), View::default());
                concerned.reach.insert(id.clone());
            }
            concerned.hosts.insert(id.clone());
        }
        for id in delta.chassis.keys().chain(&delta.removed.chassis) {
            for key in self.locals.get(id).into_iter().flat_map(BTreeMap::keys) {
                concerned.hosts.extend(self.users(*key).cloned());
            }
        }
    }

    /// Finds the datapaths that a chassis needs; false when they are those it has.
    fn reach(
        &mut self,
        sb: &Southbound,
        chassis: &str,
        parts: &BTreeMap<DatapathKey, SouthboundDelta>,
        change: Option<&mut SouthboundDelta>,
    ) -> bool {
        let needed = self.needed(chassis);
        let had = self.views.get(chassis).map(|view| view.datapaths.clone()).unwrap_or_default();
        if needed == had {
            return false;
        }
        if let Some(change) = change {
            self.tell_datapaths(sb, (&had, &needed), parts, change);
        }
        for key in had.difference(&needed) {
            if let Some(datapath) = self.datapaths.get_mut(key) {
                datapath.users.remove(chassis);
            }
        }
        for key in needed.difference(&had) {
            self.datapaths.entry(*key).or_default().users.insert(chassis.to_owned());
        }
        if let Some(view) = self.views.get_mut(chassis) {
            view.datapaths = needed;
        }
        true
    }

    /// What it is to a chassis that it needs other datapaths than it had.
    fn tell_datapaths(
        &self,
        sb: &Southbound,
        (had, needed): (&BTreeSet<DatapathKey>, &BTreeSet<DatapathKey>),
        parts: &BTreeMap<DatapathKey, SouthboundDelta>,
        change: &mut SouthboundDelta,
    ) {
        let mut news = Vec::new();
        for key in had {
            let part = parts.get(key).cloned().unwrap_or_default();
            if needed.contains(key) {
                news.push(part);
            } else {
                news.push(self.whole_datapath(sb, *key).undone());
                // What has gone just now, it still has.
                news.push(SouthboundDelta { removed: part.removed, ..SouthboundDelta::default() });
            }
        }
        news.extend(needed.difference(had).map(|key| self.whole_datapath(sb, *key)));
        merge_parts(change, news);
    }

    /// The datapaths with a port on the chassis and those reachable through patches that
    /// are there.
    fn needed(&self, chassis: &str) -> BTreeSet<DatapathKey> {
        let mut frontier: Vec<_> =
            self.locals.get(chassis).into_iter().flat_map(BTreeMap::keys).copied().collect();
        let mut needed = BTreeSet::new();
        while let Some(key) = frontier.pop() {
            if !needed.insert(key) {
                continue;
            }
            let patches = self.datapaths.get(&key).into_iter().flat_map(|datapath| &datapath.patches);
            let find = |id: &str| self.bindings.get(id);
            let here =
                patches.filter_map(|id| self.bindings.get(id)).filter(|patch| is_way(patch, chassis, &find));
            let peers = here.filter_map(|binding| self.bindings.get(binding.peer.as_ref()?));
            frontier.extend(peers.map(|peer| peer.datapath));
        }
        needed
    }

    /// All of a datapath but its sets and hosts.
    fn whole_datapath(&self, sb: &Southbound, key: DatapathKey) -> SouthboundDelta {
        let mut whole = SouthboundDelta::default();
        whole.datapaths.extend(sb.datapaths.get(&key).map(|datapath| (key, datapath.clone())));
        let bindings = self.datapaths.get(&key).into_iter().flat_map(|datapath| &datapath.bindings);
        let bindings = bindings.filter_map(|id| Some((id.clone(), sb.bindings.get(id)?.clone())));
        whole.bindings.extend(bindings);
        whole.groups.extend(groups(sb, key).map(|(id, group)| {
            let change = GroupChange {
                name: group.name.clone(),
                added: group.ports.clone(),
                removed: BTreeSet::new(),
            };
            (*id, change)
        }));
        whole.flows.extend(sb.flows.range(ids_of(key)).map(|(id, flow)| (*id, flow.clone())));
        whole
    }

    fn tell_hosts(&mut self, sb: &Southbound, chassis: &str, change: &mut SouthboundDelta) {
        let Some(view) = self.views.get(chassis) else { return };
        let datapaths = view.datapaths.iter().filter_map(|key| self.datapaths.get(key));
        let ids = datapaths.flat_map(|datapath| datapath.hosts.keys()).map(String::as_str);
        let hosts: BTreeMap<_, _> = ids
            .chain([chassis])
            .filter_map(|id| Some((id.to_owned(), sb.chassis.get(id)?.clone())))
            .collect();
        let (changed, removed) = diff_map(&view.hosts, &hosts);
        change.chassis.extend(changed);
        change.removed.chassis.extend(removed);
        if let Some(view) = self.views.get_mut(chassis) {
            view.hosts = hosts;
        }
    }

    /// Names of the sets that a chassis needs, or has been told of.
    fn sets_of(&self, chassis: &str) -> BTreeSet<String> {
        let Some(view) = self.views.get(chassis) else { return BTreeSet::new() };
        let datapaths = view.datapaths.iter().filter_map(|key| self.datapaths.get(key));
        datapaths.flat_map(|datapath| &datapath.sets).chain(&view.sets).cloned().collect()
    }

    /// What of some sets is new to a chassis.
    fn tell_sets(
        &mut self,
        sb: &Southbound,
        delta: &SouthboundDelta,
        chassis: &str,
        names: &BTreeSet<String>,
        change: &mut SouthboundDelta,
    ) {
        for name in names {
            let Some(view) = self.views.get_mut(chassis) else { return };
            let naming = self.naming.get(name);
            let is_named = naming.is_some_and(|naming| view.datapaths.iter().any(|key| naming.contains(key)));
            match sb.sets.get(name).filter(|_| is_named) {
                Some(members) if view.sets.insert(name.clone()) => {
                    let added = template::seen_by(chassis, name, members).into_owned();
                    change.sets.insert(name.clone(), SetChange { added, removed: BTreeSet::new() });
                    self.holders.entry(name.clone()).or_default().insert(chassis.to_owned());
                }
                Some(_) => {
                    let members = delta.sets.get(name);
                    let seen = members.and_then(|members| template::change_seen_by(chassis, name, members));
                    change.sets.extend(seen.map(|seen| (name.clone(), seen)));
                }
                None if view.sets.remove(name) => {
                    change.removed.sets.insert(name.clone());
                    self.forget_holder(name, chassis);
                }
                None => {}
            }
        }
    }

    /// A chassis has a set no longer.
    fn forget_holder(&mut self, name: &str, chassis: &str) {
        if let Some(holders) = self.holders.get_mut(name) {
            holders.remove(chassis);
            if holders.is_empty() {
                self.holders.remove(name);
            }
        }
    }
}

/// The groups of a datapath.
fn groups(
    sb: &Southbound,
    key: DatapathKey,
) -> impl Iterator<Item = (&(DatapathKey, PortKey), &MulticastGroup)> {
    let all = PortKey::new(1).into_iter().flat_map(move |first| sb.groups.range((key, first)..));
    all.take_while(move |((of, _), _)| *of == key)
}

/// A change while it is divided by datapath; `None`: nobody who has the datapath listens.
struct Parts<'a> {
    views: &'a Views,
    listens: &'a dyn Fn(&str) -> bool,
    parts: BTreeMap<DatapathKey, Option<SouthboundDelta>>,
}

impl Parts<'_> {
    fn add(&mut self, key: DatapathKey, add: impl FnOnce(&mut SouthboundDelta)) {
        let part = self.parts.entry(key).or_insert_with(|| {
            let is_heard = self.views.users(key).any(|user| (self.listens)(user));
            is_heard.then(SouthboundDelta::default)
        });
        part.as_mut().map(add);
    }
}

/// Merges the changes of several datapaths. What moves from one to another stays.
fn merge_parts(change: &mut SouthboundDelta, mut parts: Vec<SouthboundDelta>) {
    for part in &mut parts {
        let removed = std::mem::take(&mut part.removed);
        change.merge(SouthboundDelta { removed, ..SouthboundDelta::default() });
    }
    parts.into_iter().for_each(|part| change.merge(part));
}

/// Counts up or down; true when there was none before, or is none after.
fn step<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K, up: bool) -> bool {
    if up {
        let n = counts.entry(key).or_default();
        *n += 1;
        return *n == 1;
    }
    match counts.get_mut(&key) {
        Some(n) if *n > 1 => {
            *n -= 1;
            false
        }
        Some(_) => counts.remove(&key).is_some(),
        None => false,
    }
}
