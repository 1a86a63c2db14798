//! The rules of a chassis, kept up to date: what a change concerns is made again, a port, a
//! group or a flow at a time (`unit.rs`); what that is, `stale.rs` finds out.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use flowtable::{
    group::Group,
    meter::MeterConfig,
    set::{NamedSet, SetName},
    types::{GroupId, MeterId},
};

use super::{
    Context, LocalPorts, LowerError, Lowered, LoweredDelta,
    held::{Before, Held, is_same},
    index::Index,
    is_resident,
    memory::{FlowPlace, Memory},
    meters,
    sets::SetSource,
    stale::{Stale, Users},
    unit::{CommonInput, Made, Output, Unit},
    zones::Owner,
};
use crate::{
    build::whole::datapath_of,
    delta::SouthboundDelta,
    key::{DatapathKey, PortKey},
    southbound::{PortBinding, Shaping, Southbound, Wire},
};

/// A chassis's view and what it became.
///
/// # Invariants
/// - After each [`Lowering::update`] [`Lowering::lowered`] is what [`super::lower`] makes of
///   the view, but for the numbers that were given out before.
#[derive(Debug, Clone, Default)]
pub struct Lowering {
    pub(super) view: Southbound,
    pub(super) local: LocalPorts,
    pub(super) index: Index,
    memory: Memory,
    /// What the rules that belong to no datapath depend on; `None` before the first update.
    common: Option<CommonInput>,
    pub(super) units: BTreeMap<Unit, Made>,
    pub(super) users: Users,
    pub(super) rules: Held,
    pub(super) groups: Named<GroupId, Group>,
    /// Meters that flows have for themselves.
    flow_meters: Named<MeterId, MeterConfig>,
    /// How many units say it.
    errors: BTreeMap<LowerError, usize>,
    /// How many flows have a number.
    n_numbered: BTreeMap<u32, usize>,
    /// Where its members are from, how many flows name it, and what it holds.
    pub(super) sets: BTreeMap<SetName, (SetSource, usize, Option<NamedSet>)>,
}

/// What units have made by name; of several the last one.
#[derive(Debug, Clone)]
pub(super) struct Named<K, V>(BTreeMap<K, BTreeMap<Unit, V>>);

/// What is other than before, or may be.
#[derive(Default)]
struct News {
    rules: Before,
    groups: BTreeMap<GroupId, Option<Group>>,
    meters: BTreeMap<MeterId, Option<MeterConfig>>,
    /// Numbers that flows had.
    numbers: Vec<(FlowPlace, u32)>,
    /// Flows with as many conjunctions as they had.
    conjunctions: Vec<(u64, usize)>,
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

    /// Changes whenever [`Lowering::zones`] does.
    pub fn zones_version(&self) -> u64 {
        self.memory.zones.version()
    }

    /// The view.
    pub fn view(&self) -> &Southbound {
        &self.view
    }

    /// The port that has a key in its datapath.
    pub fn port(&self, datapath: DatapathKey, key: PortKey) -> Option<(&str, &PortBinding)> {
        let id = self.index.keys.get(&(datapath, key))?.first()?;
        Some((id.as_str(), self.view.bindings.get(id)?))
    }

    /// The same numbers, and nothing else: to lower a network at once that was lowered change by change.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { memory: self.memory.clone(), ..Self::default() }
    }

    /// How fast what workloads that are here send is to leave, by the queue that they send by.
    pub fn shaped(&self) -> BTreeMap<u16, Shaping> {
        if self.index.shaped.is_empty() {
            return BTreeMap::new();
        }
        let zones: BTreeMap<_, _> = self.memory.zones.iter().collect();
        let here = self.index.shaped.iter().filter(|id| is_resident(&self.view, &self.local, id));
        here.filter_map(|id| {
            let binding = self.view.bindings.get(id)?;
            let zone = zones.get(&Owner::Port(binding.datapath, binding.key))?;
            Some((u16::try_from(*zone).ok()?, binding.shaping?))
        })
        .collect()
    }

    /// Zones that may have so many connections and no more.
    pub fn zone_limits(&self) -> BTreeMap<u16, u32> {
        let of_datapath = |key: &DatapathKey| self.view.datapaths.get(key);
        let has_some = self.view.datapaths.values().any(|datapath| datapath.max_connections.is_some())
            || self.view.bindings.values().any(|binding| binding.max_connections.is_some());
        let given = self.memory.zones.iter().filter(|_| has_some);
        let given = given.map(|(owner, zone)| (*owner, zone));
        let given = given.filter(|(owner, _)| owner.asked(&self.view).is_none());
        let routers = self.view.datapaths.keys().map(|key| Owner::Snat(*key)).filter(|_| has_some);
        let asked = routers.filter_map(|owner| Some((owner, owner.asked(&self.view)?.into())));
        let limits = given.chain(asked).filter_map(|(owner, zone)| {
            let limit = match &owner {
                Owner::Port(key, port) => {
                    let own = self.port(*key, *port).and_then(|(_, binding)| binding.max_connections);
                    own.or(of_datapath(key)?.max_connections)
                }
                Owner::Dnat(key) | Owner::Snat(key) => {
                    of_datapath(key).filter(|datapath| datapath.is_router)?.max_connections
                }
            };
            Some((u16::try_from(zone).ok()?, limit?))
        });
        let mut least = BTreeMap::new();
        for (zone, limit) in limits {
            let known = least.entry(zone).or_insert(limit);
            *known = limit.min(*known);
        }
        least
    }

    /// What could not be realised, in order.
    pub fn errors(&self) -> impl Iterator<Item = &LowerError> {
        self.errors.keys()
    }

    /// All rules, with what they name.
    pub fn lowered(&self) -> Lowered {
        Lowered {
            rules: self.rules.rules().cloned().collect(),
            sets: self.sets.values().filter_map(|(.., set)| set.clone()).collect(),
            groups: self.groups.iter().map(|(_, group)| group.clone()).collect(),
            meters: self.meters().into_values().collect(),
            errors: self.errors().cloned().collect(),
        }
    }

    /// All meters.
    pub(super) fn meters(&self) -> BTreeMap<MeterId, MeterConfig> {
        let mut meters = meters::all(&self.view);
        meters.extend(self.flow_meters.iter().map(|(id, meter)| (*id, meter.clone())));
        meters
    }

    /// Follows a change of the view and of the ports.
    ///
    /// # Cost
    /// That of what it concerns: ports with the groups that they are in, and flows that have
    /// changed or name something that has; and a look at each port of the switch.
    pub fn update(&mut self, delta: SouthboundDelta, local: LocalPorts) -> LoweredDelta {
        let mut stale = self.stale_before(&delta, &local);
        self.follow_bindings(&delta);
        let has_meters = !delta.datapaths.is_empty() || !delta.removed.datapaths.is_empty();
        let old_meters = if has_meters { meters::own(&self.view) } else { BTreeMap::new() };
        delta.apply(&mut self.view);
        self.local = local;
        self.stale_after(&mut stale);
        let mut change = LoweredDelta::default();
        let mut units = stale.units();
        let common = (self.local.tunnels(), !self.index.shared.is_empty(), !self.index.open.is_empty());
        let is_first = self.common.is_none();
        if self.common.replace(common) != Some(common) {
            units.insert(Unit::Common);
        }
        if is_first {
            change.meters(&BTreeMap::new(), &meters::all(&self.view));
        } else if has_meters {
            change.meters(&old_meters, &meters::own(&self.view));
        }
        self.make_again(&units, common, &mut change);
        self.forget_zones(&stale);
        self.fill_sets(&stale, &mut change);
        change
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
    }

    /// Makes units again; how that differs is added to `change`.
    fn make_again(&mut self, units: &BTreeSet<Unit>, common: CommonInput, change: &mut LoweredDelta) {
        let mut news = News::default();
        units.iter().for_each(|unit| self.forget(unit, &mut news));
        for unit in units {
            let memory = RefCell::new(&mut self.memory);
            let context = Context { view: &self.view, local: &self.local, index: &self.index, memory };
            if let Some(output) = unit.make(&context, common) {
                self.keep(unit, output, &mut news);
            }
        }
        self.release(&news);
        for (place, before) in news.rules {
            match (before, self.rules.get(&place)) {
                (Some(before), Some(rule)) if is_same(&before, rule) => {}
                (_, Some(rule)) => change.rules.push(rule.clone()),
                (Some(before), None) => change.gone_rules.push(before),
                (None, None) => {}
            }
        }
        self.groups.compare(news.groups, &mut change.groups, &mut change.gone_groups);
        self.flow_meters.compare(news.meters, &mut change.meters, &mut change.gone_meters);
    }

    /// Takes out what a unit has become.
    fn forget(&mut self, unit: &Unit, news: &mut News) {
        let Some(Made { places, groups, meter, errors, needs }) = self.units.remove(unit) else { return };
        places.iter().for_each(|place| self.rules.take(unit, place, &mut news.rules));
        groups.into_iter().for_each(|id| self.groups.take(unit, id, &mut news.groups));
        meter.into_iter().for_each(|id| self.flow_meters.take(unit, id, &mut news.meters));
        for error in errors {
            if let Some(n_units) = self.errors.get_mut(&error) {
                *n_units -= 1;
                if *n_units == 0 {
                    self.errors.remove(&error);
                }
            }
        }
        for name in needs.sets.keys() {
            if let Some((_, n_users, _)) = self.sets.get_mut(name) {
                *n_users -= 1;
            }
        }
        self.users.follow(unit, &needs, false);
        if let Unit::Flow(id) = unit
            && needs.n_conjunctions > 0
        {
            news.conjunctions.push((*id, needs.n_conjunctions));
        }
        if let Some((place, number)) = needs.number {
            self.n_numbered.entry(number).and_modify(|n_flows| *n_flows -= 1);
            news.numbers.push((place, number));
        }
    }

    /// Takes in what a unit becomes.
    fn keep(&mut self, unit: &Unit, output: Output, news: &mut News) {
        let Output { rules, groups, meter, errors, needs } = output;
        let mut made = Made { errors, needs, ..Made::default() };
        for rule in rules {
            made.places.push(super::held::place(&rule));
            self.rules.put(unit, rule, &mut news.rules);
        }
        for group in groups {
            made.groups.push(group.id);
            self.groups.put(unit, group.id, group, &mut news.groups);
        }
        if let Some(meter) = meter {
            made.meter = Some(meter.id);
            self.flow_meters.put(unit, meter.id, meter, &mut news.meters);
        }
        for error in &made.errors {
            *self.errors.entry(error.clone()).or_default() += 1;
        }
        for (name, source) in &made.needs.sets {
            self.sets.entry(name.clone()).or_insert_with(|| (source.clone(), 0, None)).1 += 1;
        }
        self.users.follow(unit, &made.needs, true);
        if let Some((_, number)) = &made.needs.number {
            *self.n_numbered.entry(*number).or_default() += 1;
        }
        self.units.insert(unit.clone(), made);
    }

    /// Lets numbers go that nobody has any more.
    fn release(&mut self, news: &News) {
        for (place, number) in &news.numbers {
            if self.n_numbered.get(number) == Some(&0) {
                self.n_numbered.remove(number);
                self.memory.flows.release(place);
            }
        }
        for (id, n_before) in &news.conjunctions {
            let n_now = self.units.get(&Unit::Flow(*id)).map_or(0, |made| made.needs.n_conjunctions);
            (n_now..*n_before).for_each(|idx| self.memory.conjunctions.release(&(*id, idx)));
        }
    }

    /// Lets go the zones of what is not here any more.
    fn forget_zones(&mut self, stale: &Stale) {
        let (view, local, index) = (&self.view, &self.local, &self.index);
        let is_needed = |owner: &Owner| match owner {
            Owner::Dnat(key) | Owner::Snat(key) => view.datapaths.contains_key(key),
            // Also of a port that is not attached now: it comes back.
            Owner::Port(key, port) => index.keys.get(&(*key, *port)).into_iter().flatten().any(|id| {
                let binding = view.bindings.get(id);
                binding.is_some_and(|binding| {
                    binding.chassis.as_ref() == Some(&local.chassis)
                        || local.ports.contains_key(id)
                        || binding.tracked
                        || matches!(binding.wire, Wire::Network { .. })
                })
            }),
        };
        // Of datapaths that are new, zones may be remembered from before.
        let zones = &self.memory.zones;
        let all = stale.datapaths.iter().filter_map(|key| Owner::ports_of(*key));
        let remembered = all.flat_map(|all| zones.range(all));
        let owners = stale.owners.iter().chain(remembered).copied();
        let gone: BTreeSet<_> = owners.filter(|owner| !is_needed(owner)).collect();
        gone.iter().for_each(|owner| self.memory.zones.release(owner));
    }

    /// Brings the members of the switch's sets up to date.
    fn fill_sets(&mut self, stale: &Stale, change: &mut LoweredDelta) {
        let memory = RefCell::new(&mut self.memory);
        let context = Context { view: &self.view, local: &self.local, index: &self.index, memory };
        self.sets.retain(|name, (source, n_users, set)| {
            if *n_users == 0 {
                change.gone_sets.extend(set.as_ref().map(|_| name.clone()));
                return false;
            }
            if set.is_none() || stale.sets.contains(&source.set) || source.is_touched(&context, stale) {
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

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy, V: Clone + PartialEq> Named<K, V> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().filter_map(|(key, all)| Some((key, all.last_key_value()?.1)))
    }

    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.0.get(&key)?.last_key_value().map(|(_, value)| value)
    }

    fn put(&mut self, unit: &Unit, key: K, value: V, before: &mut BTreeMap<K, Option<V>>) {
        before.entry(key).or_insert_with(|| self.get(key).cloned());
        self.0.entry(key).or_default().insert(unit.clone(), value);
    }

    fn take(&mut self, unit: &Unit, key: K, before: &mut BTreeMap<K, Option<V>>) {
        before.entry(key).or_insert_with(|| self.get(key).cloned());
        if let Some(all) = self.0.get_mut(&key) {
            all.remove(unit);
            if all.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// What differs from before.
    fn compare(&self, before: BTreeMap<K, Option<V>>, changed: &mut Vec<V>, gone: &mut Vec<K>) {
        for (key, before) in before {
            match self.get(key) {
                Some(value) if before.as_ref() != Some(value) => changed.push(value.clone()),
                None if before.is_some() => gone.push(key),
                Some(_) | None => {}
            }
        }
    }
}

impl Users {
    /// A unit has these needs, or has them no more.
    fn follow(&mut self, unit: &Unit, needs: &super::unit::Needs, is_new: bool) {
        for id in needs.residents.keys() {
            follow(&mut self.residents, id.clone(), unit.clone(), is_new);
        }
        let Unit::Flow(id) = unit else { return };
        let Some(datapath) = datapath_of(*id) else { return };
        for (name, _) in &needs.names {
            follow(&mut self.names, (datapath, name.clone()), *id, is_new);
        }
        for name in needs.set_names() {
            follow(&mut self.sets, name.clone(), *id, is_new);
        }
    }
}

fn follow<K: Ord, V: Ord>(users: &mut BTreeMap<K, BTreeSet<V>>, key: K, user: V, is_new: bool) {
    if is_new {
        users.entry(key).or_default().insert(user);
    } else if let Some(known) = users.get_mut(&key) {
        known.remove(&user);
        if known.is_empty() {
            users.remove(&key);
        }
    }
}
