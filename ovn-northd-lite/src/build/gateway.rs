//! Gateway ports: of a router that is on every host, ports by which packets leave and
//! enter on one host alone, the best of those that may and live.
//!
//! Other hosts send what is to leave to `cr:PORT`, which is that host for them. It routes
//! the packet once more, by what it knows of the neighbours there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    stage::{RouterIn, Stage},
    topology::{RouterSide, SwitchPortInput},
};
use crate::{
    key::PortKey,
    model::{
        Access, Distributed, Gateway, LogicalRouter, NatRule, Northbound, PortAddresses, RouterPort,
        SwitchPortKind,
    },
    southbound::{Announced, PortBinding, Wire},
};

/// An address outside that a router translates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Floating {
    /// Id of the translation.
    pub(crate) nat: String,
    pub(crate) ip: IpAddr,
    /// Where it is, when not at the gateway.
    pub(crate) distributed: Option<Distributed>,
}

/// Hosts that may have a port of a router that is everywhere: its own, or those of the router's
/// one gateway port where it is to be there.
pub(crate) fn place<'a>(router: &'a LogicalRouter, port: &'a RouterPort) -> &'a Gateway {
    let is_elsewhere = port.resides && port.gateway.is_empty();
    only(router).filter(|_| is_elsewhere).unwrap_or(&port.gateway)
}

/// The hosts of a router's gateway port, if it has just one.
fn only(router: &LogicalRouter) -> Option<&Gateway> {
    let mut gateways = router.ports.values().map(|port| &port.gateway).filter(|gateway| !gateway.is_empty());
    gateways.next().filter(|_| gateways.next().is_none())
}

/// Hosts that ports of the router may have without saying so themselves; none: there are no such
/// ports.
pub(super) fn residence(router: &LogicalRouter) -> Option<Gateway> {
    let has_some = router.ports.values().any(|port| port.resides);
    only(router).filter(|_| has_some).cloned()
}

/// Name of what stands for the gateway of a router port. No port of a user can have it.
pub(super) fn redirect_name(port: &str) -> String {
    format!("cr:{port}")
}

/// Key of what stands for the gateway of a router port. Routers have no groups, so their
/// keys are free for it.
pub(super) fn redirect_key(port: PortKey) -> Option<PortKey> {
    PortKey::new(port.get() | PortKey::FIRST_GROUP).ok()
}

/// What stands for the gateway of a router port that has one; packets may get there by the port's
/// switch.
pub(super) fn redirect(id: &str, port: &PortBinding, bridges: bool) -> Option<(String, PortBinding)> {
    if port.gateway.is_empty() {
        return None;
    }
    let key = redirect_key(port.key)?;
    let wire = Wire::Redirect { stage: Stage::from(RouterIn::Defrag).number };
    let (gateway, peer) = (port.gateway.clone(), port.peer.clone().filter(|_| bridges));
    Some((redirect_name(id), PortBinding { gateway, peer, wire, ..PortBinding::new(port.datapath, key) }))
}

/// The port of a router that a translation is done at: the one that it names, the one whose
/// network has the address outside, or the only gateway port.
pub(super) fn port_of<'a>(ports: &'a BTreeMap<String, RouterPort>, rule: &'a NatRule) -> Option<&'a str> {
    if let Some(wanted) = &rule.gateway_port {
        return Some(wanted);
    }
    let has_address = |port: &RouterPort| {
        port.enabled && port.networks.iter().any(|network| network.contains(rule.external_ip))
    };
    if let Some((id, _)) = ports.iter().find(|(_, port)| has_address(port)) {
        return Some(id);
    }
    let mut gateways = ports.iter().filter(|(_, port)| !port.gateway.is_empty());
    gateways.next().map(|(id, _)| id.as_str()).filter(|_| gateways.next().is_none())
}

/// The addresses that a router translates at ports that are on one host, by port.
pub(super) fn outside(router: &LogicalRouter) -> BTreeMap<String, Vec<Floating>> {
    let mut outside: BTreeMap<String, Vec<Floating>> = BTreeMap::new();
    for (id, rule) in &router.nats {
        let Some(port) = port_of(&router.ports, rule) else { continue };
        let is_gateway = router.ports.get(port).is_some_and(|port| !port.gateway.is_empty());
        if router.chassis.is_none() && !is_gateway {
            continue;
        }
        let distributed = rule.distributed.clone().filter(|_| router.chassis.is_none());
        let floating = Floating { nat: id.clone(), ip: rule.external_ip, distributed };
        outside.entry(port.to_owned()).or_default().push(floating);
    }
    outside
}

/// Workloads whose own host translates for them at a port.
fn open_for(outside: &[Floating]) -> BTreeSet<String> {
    outside.iter().filter_map(|floating| Some(floating.distributed.as_ref()?.port.clone())).collect()
}

/// The binding of a router's port, but for its peer.
pub(super) fn router_binding(
    nb: &Northbound,
    router: &LogicalRouter,
    id: &str,
    port: &RouterPort,
) -> PortBinding {
    let open_for = outside(router).get(id).map(|outside| open_for(outside)).unwrap_or_default();
    let gateway = if router.chassis.is_some() { Vec::new() } else { port.gateway.hosts(&nb.ha_groups) };
    let chassis = router.chassis.clone();
    PortBinding { chassis, gateway, open_for, ..PortBinding::new(router.key, port.key) }
}

/// The binding of a switch's port.
pub(super) fn switch_binding(input: &SwitchPortInput<'_>) -> PortBinding {
    let SwitchPortInput { switch, id, port, side, .. } = input;
    let binding = PortBinding::new(switch.key, port.key);
    match &port.kind {
        SwitchPortKind::Workload { chassis, additional, access, addresses, .. } => {
            let wire = match access {
                Access::Interface => Wire::Own,
                Access::Nested { parent, tag } => Wire::Nested { parent: parent.clone(), tag: *tag },
                Access::EachChassis => Wire::EachChassis,
                Access::External(_) => Wire::External,
                Access::Virtual { .. } => Wire::Own,
            };
            // Each chassis that has it has it for itself.
            let is_somewhere = !matches!(wire, Wire::EachChassis | Wire::External);
            let chassis = chassis.clone().filter(|_| is_somewhere);
            let others =
                additional.iter().filter(|id| chassis.as_ref().is_some_and(|chassis| chassis != *id));
            let additional: BTreeSet<_> = others.cloned().collect();
            let awaits_rarp = port.options.awaits_rarp && !additional.is_empty();
            let mut announced = Vec::new();
            // Who is in the network outside speaks for itself there.
            let is_told =
                switch.has_network && port.enabled && port.options.announces && wire != Wire::External;
            for address in addresses.iter().filter(|_| is_told) {
                let one = |ip| Announced { mac: address.mac, ip, port: (*id).to_owned() };
                let no_ip = address.ips.is_empty().then_some(None);
                announced.extend(address.ips.iter().copied().map(Some).chain(no_ip).map(one));
            }
            let (probes, gateway) = (input.probes.clone(), input.gateway.clone());
            let shaping = port.options.shaping.filter(|_| is_somewhere);
            let moving = PortBinding { additional, awaits_rarp, ..binding };
            let max_connections = port.options.max_connections;
            PortBinding { chassis, gateway, wire, announced, probes, shaping, max_connections, ..moving }
        }
        SwitchPortKind::Router { .. } => match side {
            Some(side) => {
                let outside = side.outside();
                PortBinding {
                    peer: Some(side.port_id.to_owned()),
                    chassis: side.chassis().cloned(),
                    gateway: side.gateway(),
                    open_for: open_for(&outside),
                    tracked: input.tracks_router(),
                    announced: if port.options.announces {
                        of_router(side, id, (&outside, &port.options.told_addresses))
                    } else {
                        Vec::new()
                    },
                    ..binding
                }
            }
            None => binding,
        },
        SwitchPortKind::Switch { .. } => PortBinding { peer: input.beyond.map(str::to_owned), ..binding },
        SwitchPortKind::Network { network, tag, is_service, gateway: _ } => PortBinding {
            gateway: input.gateway.clone(),
            wire: Wire::Network { name: network.clone(), tag: *tag, is_service: *is_service },
            ..binding
        },
    }
}

/// The addresses that a router has at a port that is on one host: its own, those that it
/// translates, and those that it is said to have besides.
fn of_router(
    side: &RouterSide<'_>,
    switch_port: &str,
    (outside, more): (&[Floating], &[PortAddresses]),
) -> Vec<Announced> {
    if !side.is_enabled() || side.chassis().is_none() && !side.has_gateway() {
        return Vec::new();
    }
    let own = side.port.networks.iter().map(|network| network.addr);
    let central = outside.iter().filter(|floating| floating.distributed.is_none());
    let ips = own.chain(central.map(|floating| floating.ip));
    let mut announced: Vec<_> =
        ips.map(|ip| Announced { mac: side.port.mac, ip: Some(ip), port: switch_port.to_owned() }).collect();
    for Floating { ip, distributed, .. } in outside {
        let at_home = distributed.iter();
        announced.extend(at_home.map(|own| Announced {
            mac: own.mac,
            ip: Some(*ip),
            port: own.port.clone(),
        }));
    }
    for address in more {
        announced.extend(address.ips.iter().map(|ip| Announced {
            mac: address.mac,
            ip: Some(*ip),
            port: switch_port.to_owned(),
        }));
    }
    announced.sort();
    announced.dedup();
    announced
}
