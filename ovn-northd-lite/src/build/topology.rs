//! What the features of a unit see: the unit's own object, what it is linked to, and the
//! traits of its datapath.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    balancer::{NamedBalancer, is_of_router},
    gateway::{self, Floating},
    links::{self, Links},
    liveness,
    multicast::Hearers,
    router::unasked,
    traits::{RouterState, SwitchState},
    unit::{AclPlace, Item},
};
use crate::{
    model::{
        Acl, AclDirection, Candidate, DhcpOptions, Gateway, Groups, IpNetwork, LogicalRouter, LogicalSwitch,
        NatRule, Northbound, QosRule, RouteMatch, RouterPolicy, RouterPort, SampleCollector, StaticRoute,
        SwitchPort, SwitchPortKind, Vip,
    },
    southbound::{PortBinding, Probe},
};

pub(crate) use super::traits::{RouterTraits, SwitchTraits};

/// A router port, seen from a switch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RouterSide<'a> {
    pub(crate) router_id: &'a str,
    pub(crate) port_id: &'a str,
    pub(crate) port: &'a RouterPort,
    pub(crate) router: &'a LogicalRouter,
    groups: &'a Groups,
}

impl<'a> RouterSide<'a> {
    pub(super) fn new(
        nb: &'a Northbound,
        (router_id, router): (&'a str, &'a LogicalRouter),
        (port_id, port): (&'a str, &'a RouterPort),
    ) -> Self {
        Self { router_id, port_id, port, router, groups: &nb.ha_groups }
    }

    /// Neither the router nor its port is off.
    pub(crate) fn is_enabled(&self) -> bool {
        self.router.enabled && self.port.enabled
    }

    /// The only chassis that the router is on.
    pub(crate) fn chassis(&self) -> Option<&'a String> {
        self.router.chassis.as_ref()
    }

    /// It is at a gateway: its own, or that of its router.
    pub(crate) fn has_gateway(&self) -> bool {
        self.router.chassis.is_none() && !self.place().is_empty()
    }

    /// Hosts that may have it.
    fn place(&self) -> &'a Gateway {
        gateway::place(self.router, self.port)
    }

    /// It sends on what is sent to groups.
    pub(crate) fn relays(&self) -> bool {
        self.router.options.relays
    }

    /// Hosts that may have the port.
    pub(crate) fn gateway(&self) -> Vec<Candidate> {
        if self.has_gateway() { self.place().hosts(self.groups) } else { Vec::new() }
    }

    /// What the router translates at the port, when that is on one host.
    pub(crate) fn outside(&self) -> Vec<Floating> {
        gateway::outside(self.router).remove(self.port_id).unwrap_or_default()
    }

    /// Name of the router port.
    pub(crate) fn object(&self) -> String {
        format!("routers/{}/ports/{}", self.router_id, self.port_id)
    }
}

/// A port of a switch.
pub(crate) struct SwitchPortInput<'a> {
    pub(crate) switch: &'a SwitchTraits,
    pub(crate) id: &'a str,
    pub(crate) port: &'a SwitchPort,
    /// Northbound name.
    pub(crate) object: String,
    /// The router port it is linked to.
    pub(crate) side: Option<RouterSide<'a>>,
    /// Id of the other switch's port that it is linked to.
    pub(crate) beyond: Option<&'a str>,
    /// What its DHCP clients are told, with the ids of that: its own, or the switch's.
    pub(crate) dhcp: Vec<(&'a str, &'a DhcpOptions)>,
    /// What its chassis asks the workload, to see whether it serves.
    pub(crate) probes: Vec<Probe>,
    /// Hosts that may have it.
    pub(crate) gateway: Vec<Candidate>,
}

impl SwitchPortInput<'_> {
    pub(super) fn binding(&self) -> PortBinding {
        gateway::switch_binding(self)
    }

    /// It leads to a router that is on one host there, and ACLs with connections apply.
    pub(crate) fn tracks_router(&self) -> bool {
        let is_on_one = |side: &RouterSide<'_>| side.chassis().is_some() || side.has_gateway();
        self.port.options.tracks_router && self.side.as_ref().is_some_and(is_on_one)
    }
}

/// The ACLs of a switch and its port groups that apply to the same packets with the same
/// precedence.
pub(crate) struct AclInput<'a> {
    pub(crate) switch: &'a SwitchTraits,
    pub(crate) direction: AclDirection,
    /// Behind load balancers.
    pub(crate) after_lb: bool,
    /// With their northbound names: those of the switch, then those of groups.
    pub(crate) acls: Vec<(String, &'a Acl)>,
    /// Who is told of sampled packets, by id.
    pub(crate) collectors: &'a BTreeMap<String, SampleCollector>,
}

/// A rule of a switch about quality of service.
pub(crate) struct QosInput<'a> {
    /// Northbound name.
    pub(crate) object: String,
    pub(crate) rule: &'a QosRule,
}

/// A load balancer of a switch's workloads: of the switch, or of a linked router that is
/// everywhere.
pub(crate) struct SwitchBalancerInput<'a> {
    pub(crate) balancer: NamedBalancer<'a>,
}

/// A group that somebody on a switch wants to hear.
pub(crate) struct SwitchGroupInput<'a> {
    pub(crate) switch: &'a SwitchTraits,
    pub(crate) ip: IpAddr,
    pub(crate) hearers: &'a Hearers,
}

/// A switch with what its units may see.
pub(crate) struct SwitchScope<'a> {
    pub(super) nb: &'a Northbound,
    pub(super) links: &'a Links,
    pub(super) id: &'a str,
    pub(super) switch: &'a LogicalSwitch,
    pub(super) traits: &'a SwitchTraits,
    state: &'a SwitchState,
}

impl<'a> SwitchScope<'a> {
    pub(crate) fn new(
        nb: &'a Northbound,
        links: &'a Links,
        (id, switch): (&'a str, &'a LogicalSwitch),
        state: &'a SwitchState,
    ) -> Self {
        Self { nb, links, id, switch, traits: &state.traits, state }
    }

    /// All units.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> {
        let ports = self.switch.ports.keys().cloned().map(Item::Port);
        let acls = self.state.acls.keys().cloned().map(Item::Acls);
        let qos = self.switch.qos_rules.keys().cloned().map(Item::Qos);
        let balancers = self.state.balancers.all(self.nb).into_iter().cloned().map(Item::Balancer);
        let groups = self.state.groups.keys().copied().map(Item::Group);
        std::iter::once(Item::Datapath).chain(ports).chain(acls).chain(qos).chain(balancers).chain(groups)
    }

    pub(super) fn port(&self, id: &'a str) -> Option<SwitchPortInput<'a>> {
        let port = self.switch.ports.get(id)?;
        let side = self.links.router_side(self.nb, self.id, id);
        let object = format!("{}/ports/{id}", self.traits.object);
        let families = port.services.dhcp.iter().zip(&self.traits.dhcp);
        let dhcp = families.filter_map(|(own, common)| match own {
            Some(id) => self.nb.dhcp_options.get_key_value(id),
            None => common.as_ref().map(|(id, options)| (id, options)),
        });
        let dhcp = dhcp.map(|(id, options)| (id.as_str(), options)).collect();
        let (probes, beyond) = (self.probes(id, port), self.beyond(id, port));
        let gateway =
            port.kind.gateway().map(|gateway| gateway.hosts(&self.nb.ha_groups)).unwrap_or_default();
        Some(SwitchPortInput { switch: self.traits, id, port, object, side, beyond, dhcp, probes, gateway })
    }

    /// The other switch's port that a port is linked to: both say so.
    fn beyond(&self, id: &str, port: &'a SwitchPort) -> Option<&'a str> {
        let (switch, other) = links::beyond(port)?;
        let (back, end) = links::beyond(self.nb.switches.get(switch)?.ports.get(other)?)?;
        (back == self.id && end == id && other != id).then_some(other)
    }

    /// What the workload of a port is asked by its host: by load balancers, and as such.
    fn probes(&self, id: &str, port: &SwitchPort) -> Vec<Probe> {
        let SwitchPortKind::Workload { addresses, .. } = &port.kind else { return Vec::new() };
        let known = |id| named(self.nb, id);
        let mut probes = Vec::new();
        for NamedBalancer { id: balancer, balancer: content } in
            self.links.probed_by(self.id, id).filter_map(|id| known(id))
        {
            let backends = content
                .vips
                .iter()
                .flat_map(|(vip, service)| service.backends.iter().map(move |backend| (*vip, backend)));
            for (vip, backend) in backends {
                let Some((point, check)) = content.probed(backend) else { continue };
                let owner = addresses.iter().find(|address| address.ips.contains(&backend.ip));
                let mac = owner.or(addresses.first()).map(|address| address.mac);
                if let (Some(mac), Some(number), true) =
                    (mac, backend.port, (&*point.switch, &*point.port) == (self.id, id))
                {
                    probes.push(Probe {
                        balancer: balancer.to_owned(),
                        vip,
                        backend: (backend.ip, number),
                        protocol: Some(content.protocol),
                        mac,
                        source: point.source,
                        check,
                    });
                }
            }
        }
        for check in &port.options.checks {
            let owner = addresses.iter().find(|address| address.ips.contains(&check.ip));
            let mac = owner.or(addresses.first()).map(|address| address.mac);
            probes.extend(mac.map(|mac| Probe {
                balancer: String::new(),
                vip: Vip { ip: check.ip, port: None },
                backend: (check.ip, check.port),
                protocol: check.protocol,
                mac,
                source: check.source,
                check: check.times,
            }));
        }
        probes.sort();
        probes.dedup();
        probes
    }

    pub(super) fn acls(&self, place: &AclPlace) -> Option<AclInput<'a>> {
        let acls = self.state.acls.get(place)?.iter().filter_map(|(group, id)| match group {
            None => Some((format!("{}/acls/{id}", self.traits.object), self.switch.acls.get(id)?)),
            Some(group) => {
                let acl = self.nb.port_groups.get(group)?.acls.get(id)?;
                Some((format!("port-groups/{group}/acls/{id}"), acl))
            }
        });
        let AclPlace { direction, after_lb, .. } = *place;
        let (switch, collectors) = (self.traits, &self.nb.sample_collectors);
        Some(AclInput { switch, direction, after_lb, acls: acls.collect(), collectors })
    }

    pub(super) fn qos(&self, id: &str) -> Option<QosInput<'a>> {
        let object = format!("{}/qos-rules/{id}", self.traits.object);
        Some(QosInput { object, rule: self.switch.qos_rules.get(id)? })
    }

    pub(super) fn group(&self, ip: IpAddr) -> Option<SwitchGroupInput<'a>> {
        Some(SwitchGroupInput { switch: self.traits, ip, hearers: self.state.groups.get(&ip)? })
    }

    pub(super) fn balancer(&self, id: &'a str) -> Option<SwitchBalancerInput<'a>> {
        if !self.state.balancers.has(self.nb, id) {
            return None;
        }
        Some(SwitchBalancerInput { balancer: named(self.nb, id)? })
    }
}

fn named<'a>(nb: &'a Northbound, id: &'a str) -> Option<NamedBalancer<'a>> {
    Some(NamedBalancer { id, balancer: nb.load_balancers.get(id)? })
}

/// A router and its ports: what each of its features sees.
#[derive(Clone, Copy)]
pub(crate) struct RouterPorts<'a> {
    pub(crate) router: &'a RouterTraits,
    pub(crate) ports: &'a BTreeMap<String, RouterPort>,
}

impl<'a> RouterPorts<'a> {
    /// Name of a port.
    pub(crate) fn port_object(&self, port: &str) -> String {
        format!("{}/ports/{port}", self.router.object)
    }

    /// Ports that are on and have gateways, of a router that is everywhere.
    pub(crate) fn gateway_ports(&self) -> impl Iterator<Item = (&'a str, &'a RouterPort)> {
        let is_everywhere = self.router.chassis.is_none();
        self.enabled_ports().filter(move |(_, port)| is_everywhere && !port.gateway.is_empty())
    }

    /// Ports that are on, of a router that is.
    pub(crate) fn enabled_ports(&self) -> impl Iterator<Item = (&'a str, &'a RouterPort)> + use<'a> {
        let is_enabled = self.router.enabled;
        let ports = self.ports.iter().filter(move |(_, port)| is_enabled && port.enabled);
        ports.map(|(id, port)| (id.as_str(), port))
    }
}

/// The static routes to one prefix.
pub(crate) struct RouteInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    pub(crate) by: RouteMatch,
    /// Without host bits.
    pub(crate) prefix: IpNetwork,
    pub(crate) routes: &'a [StaticRoute],
}

/// A policy.
pub(crate) struct PolicyInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    /// Northbound name.
    pub(crate) object: String,
    pub(crate) policy: &'a RouterPolicy,
}

/// An address translation.
pub(crate) struct NatInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    /// Northbound name.
    pub(crate) object: String,
    pub(crate) rule: &'a NatRule,
}

/// A load balancer of a router.
pub(crate) struct RouterBalancerInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    pub(crate) balancer: NamedBalancer<'a>,
}

/// A group that somebody on a network of a router wants to hear.
pub(crate) struct RouterGroupInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    pub(crate) ip: IpAddr,
    pub(crate) hearers: &'a Hearers,
}

/// A port of a switch that a port of the router, which is on, is linked to.
pub(crate) struct NeighbourInput<'a> {
    pub(crate) ports: RouterPorts<'a>,
    pub(crate) router_port_id: &'a str,
    pub(crate) switch_id: &'a str,
    pub(crate) port_id: &'a str,
    pub(crate) port: &'a SwitchPort,
    /// Another router's port that it is linked to.
    pub(crate) side: Option<RouterSide<'a>>,
    /// Load balancers of that router to whose addresses others have routes.
    pub(crate) offered: Vec<NamedBalancer<'a>>,
}

/// A router with what its units may see.
pub(crate) struct RouterScope<'a> {
    nb: &'a Northbound,
    links: &'a Links,
    id: &'a str,
    router: &'a LogicalRouter,
    pub(super) traits: &'a RouterTraits,
    state: &'a RouterState,
}

impl<'a> RouterScope<'a> {
    pub(crate) fn new(
        nb: &'a Northbound,
        links: &'a Links,
        (id, router): (&'a str, &'a LogicalRouter),
        state: &'a RouterState,
    ) -> Self {
        Self { nb, links, id, router, traits: &state.traits, state }
    }

    /// All units but neighbours.
    pub(crate) fn own_items(&self) -> impl Iterator<Item = Item> {
        let ports = self.router.ports.keys().cloned().map(Item::Port);
        let routes = self.state.routes.keys().map(|(by, prefix)| Item::Route(*by, *prefix));
        let policies = self.router.policies.keys().cloned().map(Item::Policy);
        let nats = self.router.nats.keys().cloned().map(Item::Nat);
        let balancers = self.state.balancers.all(self.nb).into_iter().cloned().map(Item::Balancer);
        let all = std::iter::once(Item::Datapath).chain(ports).chain(routes);
        let groups = self.state.groups.keys().copied().map(Item::Group);
        all.chain(policies).chain(nats).chain(balancers).chain(groups)
    }

    /// Everybody on the networks of a port.
    pub(crate) fn neighbours_of(&self, port: &str) -> impl Iterator<Item = Item> {
        let end = self.links.switch_port_of(self.id, port);
        let switch = end.and_then(|(switch, end)| Some((self.nb.switches.get(switch)?, end)));
        let port = port.to_owned();
        switch.into_iter().flat_map(move |(switch, end)| {
            let port = port.clone();
            let others = switch.ports.keys().filter(move |other| *other != end);
            others.map(move |other| Item::Neighbour(port.clone(), other.clone()))
        })
    }

    /// All units.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item> {
        self.own_items().chain(self.neighbours())
    }

    /// Everybody on the networks of all ports.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = Item> {
        self.router.ports.keys().flat_map(|port| self.neighbours_of(port))
    }

    pub(super) fn ports(&self) -> RouterPorts<'a> {
        RouterPorts { router: self.traits, ports: &self.router.ports }
    }

    pub(super) fn binding(&self, id: &str) -> Option<PortBinding> {
        let port = self.router.ports.get(id)?;
        let end = self.links.switch_port_of(self.id, id);
        let is_there =
            |(switch, port): &&(String, String)| Some(self.nb.switches.get(switch)?.ports.contains_key(port));
        let peer = end.filter(|end| is_there(end) == Some(true)).map(|(_, port)| port.clone());
        let advertises = unasked(self.router.enabled, port);
        let is_on = self.router.enabled && port.enabled;
        let sessions = if is_on { liveness::sessions(port) } else { Vec::new() };
        let binding = gateway::router_binding(self.nb, self.router, id, port);
        Some(PortBinding { peer, advertises, sessions, ..binding })
    }

    pub(super) fn route(&self, by: RouteMatch, prefix: IpNetwork) -> Option<RouteInput<'a>> {
        let routes = self.state.routes.get(&(by, prefix))?;
        Some(RouteInput { ports: self.ports(), by, prefix, routes })
    }

    pub(super) fn policy(&self, id: &str) -> Option<PolicyInput<'a>> {
        let policy = self.router.policies.get(id)?;
        let object = format!("{}/policies/{id}", self.traits.object);
        Some(PolicyInput { ports: self.ports(), object, policy })
    }

    pub(super) fn nat(&self, id: &str) -> Option<NatInput<'a>> {
        let rule = self.router.nats.get(id)?;
        Some(NatInput { ports: self.ports(), object: format!("{}/nats/{id}", self.traits.object), rule })
    }

    pub(super) fn group(&self, ip: IpAddr) -> Option<RouterGroupInput<'a>> {
        Some(RouterGroupInput { ports: self.ports(), ip, hearers: self.state.groups.get(&ip)? })
    }

    pub(super) fn balancer(&self, id: &'a str) -> Option<RouterBalancerInput<'a>> {
        if !self.state.balancers.has(self.nb, id) {
            return None;
        }
        Some(RouterBalancerInput { ports: self.ports(), balancer: named(self.nb, id)? })
    }

    pub(super) fn neighbour(&self, port: &'a str, switch_port: &str) -> Option<NeighbourInput<'a>> {
        let router_port = self.router.ports.get(port)?;
        let (switch_id, end) = self.links.switch_port_of(self.id, port)?;
        let (port_id, other) = self.nb.switches.get(switch_id)?.ports.get_key_value(switch_port)?;
        if !self.traits.enabled || !router_port.enabled || port_id == end {
            return None;
        }
        let side = self.links.router_side(self.nb, switch_id, port_id);
        let offered = side.iter().flat_map(|side| {
            let routed = self.links.routed().iter();
            routed.filter(|id| is_of_router(self.nb, side.router, id)).filter_map(|id| named(self.nb, id))
        });
        let offered = offered.collect();
        let ports = self.ports();
        Some(NeighbourInput { ports, router_port_id: port, switch_id, port_id, port: other, side, offered })
    }
}
