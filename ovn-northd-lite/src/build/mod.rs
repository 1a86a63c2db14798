//! From the northbound model to the southbound one. One file per logical feature, each
//! with `build(input, &mut FlowSink)`; the order of the stages is in [`stage`].
//!
//! A datapath's part depends on itself and on what it is linked to, and on nothing else:
//! a switch on the router ports linked to it and the port groups that have ports of it, a router on the switches linked to it and
//! on the router ports there.

pub(crate) mod address;
mod balancer;
mod router;
pub(crate) mod sets;
mod sink;
mod stage;
mod switch;
pub(crate) mod topology;

use std::collections::BTreeMap;

use crate::{
    key::PortKey,
    model::{Limits, Northbound, SwitchPortKind},
    southbound::{ChassisRecord, Datapath, MulticastGroup, PortBinding, Southbound},
};

use sink::FlowSink;
use topology::{Links, PartId, RouterInput, SwitchInput};

/// Name of the group of all ports of a switch.
const FLOOD: &str = "_MC_flood";
/// Name of the group of ports that take frames to addresses nobody is known to have.
const UNKNOWN: &str = "_MC_unknown";

/// Keys of the groups (OVN's).
const FLOOD_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP);
const UNKNOWN_KEY: Option<PortKey> = key(PortKey::FIRST_GROUP + 1);

const fn key(raw: u16) -> Option<PortKey> {
    match PortKey::new(raw) {
        Ok(key) => Some(key),
        Err(_) => None,
    }
}

/// Compiles a whole network. Pure and deterministic.
pub fn compile(nb: &Northbound, chassis: &BTreeMap<String, ChassisRecord>) -> Southbound {
    let links = Links::of(nb);
    let mut sb = Southbound { chassis: chassis.clone(), ..Southbound::default() };
    for id in parts(nb) {
        merge(&mut sb, compile_part(nb, &links, &id));
    }
    sb
}

/// All parts of a network.
pub(crate) fn parts(nb: &Northbound) -> impl Iterator<Item = PartId> {
    let switches = nb.switches.keys().cloned().map(PartId::Switch);
    let routers = nb.routers.keys().cloned().map(PartId::Router);
    let sets = nb.address_sets.keys().cloned().map(PartId::AddressSet);
    let groups = nb.port_groups.keys().cloned().map(PartId::PortGroup);
    let names = nb.names.keys().cloned().map(PartId::Names);
    switches.chain(routers).chain(sets).chain(groups).chain(names)
}

/// What one part contributes; nothing if it does not exist.
pub(crate) fn compile_part(nb: &Northbound, links: &Links, id: &PartId) -> Southbound {
    match id {
        PartId::Switch(id) => match nb.switches.get(id) {
            Some(switch) => compile_switch(&SwitchInput::new(nb, links, id, switch), nb),
            None => Southbound::default(),
        },
        PartId::Router(id) => match nb.routers.get(id) {
            Some(router) => compile_router(&RouterInput::new(nb, links, id, router), nb),
            None => Southbound::default(),
        },
        PartId::AddressSet(id) => Southbound { sets: sets::of_addresses(nb, id), ..Southbound::default() },
        PartId::PortGroup(id) => Southbound { sets: sets::of_group(nb, id), ..Southbound::default() },
        PartId::Names(id) => Southbound { sets: sets::of_names(nb, id), ..Southbound::default() },
    }
}

/// Adds a part to the whole.
pub(crate) fn merge(sb: &mut Southbound, part: Southbound) {
    sb.datapaths.extend(part.datapaths);
    sb.bindings.extend(part.bindings);
    sb.groups.extend(part.groups);
    sb.flows.extend(part.flows);
    sb.sets.extend(part.sets);
}

fn compile_switch(input: &SwitchInput<'_>, nb: &Northbound) -> Southbound {
    let switch = input.switch;
    let mut sb = Southbound::default();
    let sets = sets::named(input);
    let limits = limits(nb, switch.services.limits.as_ref());
    sb.datapaths.insert(switch.key, Datapath { name: input.object.clone(), is_router: false, sets, limits });
    for (id, port) in &switch.ports {
        let chassis = match &port.kind {
            SwitchPortKind::Workload { chassis, .. } => chassis.clone(),
            SwitchPortKind::Router { .. } => {
                input.links.get(id.as_str()).and_then(|side| side.router.chassis.clone())
            }
        };
        let peer = input.links.get(id.as_str()).map(|side| side.port_id.to_owned());
        let binding = PortBinding { datapath: switch.key, key: port.key, peer, chassis, advertises: None };
        sb.bindings.insert(id.clone(), binding);
    }
    for (key, name, ports) in groups(input) {
        sb.groups.insert((switch.key, key), MulticastGroup { name: name.to_owned(), ports });
    }
    let mut sink = FlowSink::new(switch.key);
    switch::build(input, &mut sink);
    sb.flows = sink.finish();
    sb
}

/// The groups of a switch with their members, ports that are on.
fn groups(input: &SwitchInput<'_>) -> Vec<(PortKey, &'static str, Vec<String>)> {
    let enabled = || input.switch.ports.iter().filter(|(_, port)| port.enabled);
    let all = enabled().map(|(id, _)| id.clone()).collect();
    let unknown: Vec<_> = enabled()
        .filter(|(_, port)| matches!(port.kind, SwitchPortKind::Workload { unknown: true, .. }))
        .map(|(id, _)| id.clone())
        .collect();
    let unknown_key = UNKNOWN_KEY.filter(|_| !unknown.is_empty());
    let flood = FLOOD_KEY.map(|key| (key, FLOOD, all));
    flood.into_iter().chain(unknown_key.map(|key| (key, UNKNOWN, unknown))).collect()
}

/// Bounds on what a datapath asks hosts for.
fn limits(nb: &Northbound, id: Option<&String>) -> Limits {
    id.and_then(|id| nb.limits.get(id)).cloned().unwrap_or_default()
}

fn compile_router(input: &RouterInput<'_>, nb: &Northbound) -> Southbound {
    let router = input.router;
    let mut sb = Southbound::default();
    sb.datapaths.insert(
        router.key,
        Datapath {
            name: input.object.clone(),
            is_router: true,
            sets: Default::default(),
            limits: limits(nb, router.limits.as_ref()),
        },
    );
    for (id, port) in &router.ports {
        let peer = input.links.get(id.as_str()).map(|side| side.port_id.to_owned());
        let chassis = router.chassis.clone();
        let advertises = router::unasked(router.enabled, port);
        let binding = PortBinding { datapath: router.key, key: port.key, peer, chassis, advertises };
        sb.bindings.insert(id.clone(), binding);
    }
    let mut sink = FlowSink::new(router.key);
    router::build(input, &mut sink);
    sb.flows = sink.finish();
    sb
}

#[cfg(test)]
mod tests;
