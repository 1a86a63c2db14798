//! Incremental compilation: only what a change reaches is compiled again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    build::{
        compile_datapath, datapaths, merge,
        topology::{DatapathId, Links},
    },
    delta::{SouthboundDelta, diff},
    model::Northbound,
    southbound::{ChassisRecord, Southbound},
};

/// Which objects of the northbound model changed: they, one of their ports, ACLs or
/// routes, or whether they exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Ids of switches.
    pub switches: BTreeSet<String>,
    /// Ids of routers.
    pub routers: BTreeSet<String>,
}

/// Keeps the compiled network up to date.
///
/// # Invariants
/// - After each [`Compiler::update`] with all that changed marked dirty,
///   [`Compiler::southbound`] equals [`crate::compile`] of the same input.
#[derive(Debug, Clone, Default)]
pub struct Compiler {
    links: Links,
    parts: BTreeMap<DatapathId, Southbound>,
    sb: Southbound,
}

impl Compiler {
    /// A compiler of the empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// The network as compiled last.
    pub fn southbound(&self) -> &Southbound {
        &self.sb
    }

    /// Compiles what changed and tells what is different now.
    ///
    /// # Cost
    /// That of compiling the dirty datapaths and those linked to them.
    pub fn update(
        &mut self,
        nb: &Northbound,
        chassis: &BTreeMap<String, ChassisRecord>,
        dirty: &Dirty,
    ) -> SouthboundDelta {
        let mut affected = self.reached(dirty);
        let was_contested = self.links.are_contested();
        for id in &dirty.switches {
            self.links.set_switch(id, nb.switches.get(id));
        }
        affected.extend(self.reached(dirty));
        if was_contested || self.links.are_contested() {
            // Who gets a contested router port depends on switches far away.
            affected.extend(self.parts.keys().cloned());
            affected.extend(datapaths(nb));
        }
        let delta = self.replace(nb, chassis, &affected);
        delta.clone().apply(&mut self.sb);
        delta
    }

    /// The dirty datapaths and those that depend on them by the present links.
    fn reached(&self, dirty: &Dirty) -> BTreeSet<DatapathId> {
        let mut reached = BTreeSet::new();
        for switch in &dirty.switches {
            reached.insert(DatapathId::Switch(switch.clone()));
            reached.extend(self.links.routers_of(switch).map(|id| DatapathId::Router(id.to_owned())));
        }
        for router in &dirty.routers {
            reached.insert(DatapathId::Router(router.clone()));
            for switch in self.links.switches_of(router) {
                reached.insert(DatapathId::Switch(switch.to_owned()));
                reached.extend(self.links.routers_of(switch).map(|id| DatapathId::Router(id.to_owned())));
            }
        }
        reached
    }

    /// Compiles the affected datapaths and compares with what they were.
    fn replace(
        &mut self,
        nb: &Northbound,
        chassis: &BTreeMap<String, ChassisRecord>,
        affected: &BTreeSet<DatapathId>,
    ) -> SouthboundDelta {
        let mut old = Southbound { chassis: self.sb.chassis.clone(), ..Southbound::default() };
        let mut new = Southbound { chassis: chassis.clone(), ..Southbound::default() };
        for id in affected {
            if let Some(part) = self.parts.remove(id) {
                merge(&mut old, part);
            }
            let part = compile_datapath(nb, &self.links, id);
            if !part.datapaths.is_empty() {
                merge(&mut new, part.clone());
                self.parts.insert(id.clone(), part);
            }
        }
        diff(&old, &new)
    }
}
