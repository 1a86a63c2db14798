//! Incremental compilation: only what a change reaches is compiled again.
//!
//! [`reach`] says which units of the network can see a change, [`assembly`] keeps the
//! whole together as units come and go, [`sets`] follows the members of sets.

mod assembly;
mod built;
mod dirty;
mod reach;
mod references;
mod sets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use self::{assembly::Assembly, built::Built, reach::Reach, references::References, sets::SetTracker};
pub use self::{built::Workers, dirty::Dirty};
use crate::{
    build::{
        feature::{build_router, build_switch},
        links::Links,
        topology::{RouterScope, SwitchScope},
        traits::{RouterState, SwitchState},
        unit::{Item, Output, Owner, UnitId},
    },
    delta::SouthboundDelta,
    model::Northbound,
    southbound::{ChassisRecord, Southbound},
};

/// What a unit contributes that there is not.
static NONE: Output = Output::NONE;

/// What units contribute, by their owners: a change looks through those of its owner, however
/// many others there are.
type Units = HashMap<Owner, BTreeMap<Arc<Item>, Output>>;

/// Keeps the compiled network up to date.
///
/// # Invariants
/// - After each [`Compiler::update`] with all that changed marked dirty,
///   [`Compiler::southbound`] equals [`crate::compile`] of the same input.
#[derive(Debug, Clone, Default)]
pub struct Compiler {
    links: Links,
    references: Users,
    switches: BTreeMap<String, SwitchState>,
    routers: BTreeMap<String, RouterState>,
    units: Units,
    assembly: Assembly,
    sets: SetTracker,
    sb: Southbound,
    workers: Workers,
}

/// Switches and routers that name load balancers or groups of these, and which load
/// balancers the groups name.
#[derive(Debug, Clone, Default)]
struct Users {
    switches: References,
    routers: References,
    switches_of_groups: References,
    routers_of_groups: References,
    groups: References,
}

impl Compiler {
    /// A compiler of the empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// A compiler that has workers share in what is much.
    pub fn with(workers: Workers) -> Self {
        Self { workers, ..Self::default() }
    }

    /// The network as compiled last.
    pub fn southbound(&self) -> &Southbound {
        &self.sb
    }

    /// Compiles what changed and tells what is different now.
    ///
    /// # Cost
    /// That of compiling the units that can see what is dirty, and of looking once at the ACLs
    /// of a switch that has a dirty one, and at those of its ports that have a say in what the
    /// whole switch does.
    pub fn update(
        &mut self,
        nb: &Northbound,
        chassis: &BTreeMap<String, ChassisRecord>,
        dirty: &Dirty,
    ) -> SouthboundDelta {
        let reach = Reach::of(self, nb, dirty);
        let units = self.units_in(nb, &reach);
        let fresh = built::build(units, self.workers, |unit| {
            let output = self.build(nb, unit);
            (self.present(unit).unwrap_or(&NONE) != &output).then_some(output)
        });
        // What goes, goes first: an id may have moved from one unit to another.
        let old: Vec<_> = fresh.iter().map(|built| self.take(&built.unit).unwrap_or_default()).collect();
        for (old, built) in old.iter().zip(&fresh) {
            self.assembly.remove(&built.unit.1, old);
        }
        self.assembly.reserve(fresh.iter().map(|built| built.hashes.len()).sum());
        for (old, mut built) in old.iter().zip(fresh) {
            if built.output.is_empty() {
                continue;
            }
            built.output.share_flows(old);
            self.assembly.insert(&built);
            let Built { unit: (owner, item), output, .. } = built;
            self.units.entry(owner).or_default().insert(item, output);
        }
        let mut delta = self.assembly.settle(&mut self.sb);
        self.sets.update(nb, dirty, &self.links, &mut self.sb, &mut delta);
        self.follow_hosts(chassis, dirty, &mut delta);
        delta
    }

    /// What a unit has contributed.
    fn present(&self, (owner, item): &UnitId) -> Option<&Output> {
        self.units.get(owner)?.get(item)
    }

    fn take(&mut self, (owner, item): &UnitId) -> Option<Output> {
        let items = self.units.get_mut(owner)?;
        let output = items.remove(item);
        if items.is_empty() {
            self.units.remove(owner);
        }
        output
    }

    fn follow_hosts(
        &mut self,
        chassis: &BTreeMap<String, ChassisRecord>,
        dirty: &Dirty,
        delta: &mut SouthboundDelta,
    ) {
        for id in &dirty.chassis {
            match chassis.get(id) {
                Some(new) if self.sb.chassis.get(id) != Some(new) => {
                    self.sb.chassis.insert(id.clone(), new.clone());
                    delta.chassis.insert(id.clone(), new.clone());
                }
                Some(_) => {}
                None => {
                    if self.sb.chassis.remove(id).is_some() {
                        delta.removed.chassis.insert(id.clone());
                    }
                }
            }
        }
    }

    /// The units that are reached, each once, those that there are no longer included.
    fn units_in(&self, nb: &Northbound, reach: &Reach) -> Vec<UnitId> {
        let mut units = Vec::new();
        for (id, what) in &reach.switches {
            let owner = Owner::Switch(id.as_str().into());
            let mut add = |item: Item| units.push((owner.clone(), Arc::new(item)));
            what.items.iter().cloned().for_each(&mut add);
            if what.all {
                self.switch_scope(nb, id).iter().flat_map(SwitchScope::items).for_each(add);
                units.extend(self.known(&owner, Item::Datapath));
            }
        }
        for (id, what) in &reach.routers {
            let owner = Owner::Router(id.as_str().into());
            let scope = self.router_scope(nb, id);
            let mut add = |item: Item| units.push((owner.clone(), Arc::new(item)));
            what.items.iter().cloned().for_each(&mut add);
            if what.all || what.own {
                scope.iter().flat_map(RouterScope::own_items).for_each(&mut add);
            }
            if what.all {
                scope.iter().flat_map(RouterScope::neighbours).for_each(&mut add);
            }
            for port in &what.links {
                scope.iter().flat_map(|scope| scope.neighbours_of(port)).for_each(&mut add);
            }
            let is_reached = |item: &Item| match item {
                Item::Neighbour(port, _) => what.all || what.links.contains(port),
                _ => what.all || what.own,
            };
            if what.all || what.own {
                let known = self.known(&owner, Item::Datapath);
                units.extend(known.filter(|(_, item)| is_reached(item)));
            } else {
                for port in &what.links {
                    let known = self.known(&owner, Item::Neighbour(port.clone(), String::new()));
                    units.extend(known.take_while(|(_, item)| is_reached(item)));
                }
            }
        }
        units.sort_unstable();
        units.dedup();
        units
    }

    /// The units of an owner that there are, from an item on.
    fn known<'a>(&'a self, owner: &'a Owner, first: Item) -> impl Iterator<Item = UnitId> + 'a {
        let items = self.units.get(owner).into_iter();
        let items = items.flat_map(move |items| items.range(Arc::new(first.clone())..));
        items.map(move |(item, _)| (owner.clone(), Arc::clone(item)))
    }

    fn build(&self, nb: &Northbound, (owner, item): &UnitId) -> Output {
        match owner {
            Owner::Switch(id) => self.switch_scope(nb, id).map(|scope| build_switch(&scope, item)),
            Owner::Router(id) => self.router_scope(nb, id).map(|scope| build_router(&scope, item)),
        }
        .unwrap_or_default()
    }

    fn switch_scope<'a>(&'a self, nb: &'a Northbound, id: &str) -> Option<SwitchScope<'a>> {
        let (id, switch) = nb.switches.get_key_value(id)?;
        Some(SwitchScope::new(nb, &self.links, (id, switch), self.switches.get(id)?))
    }

    fn router_scope<'a>(&'a self, nb: &'a Northbound, id: &str) -> Option<RouterScope<'a>> {
        let (id, router) = nb.routers.get_key_value(id)?;
        Some(RouterScope::new(nb, &self.links, (id, router), self.routers.get(id)?))
    }
}
