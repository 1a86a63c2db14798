//! What units know of the whole switch or router: small, owned, and compared by value, so
//! that a change which does not show here reaches no other unit.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    address,
    balancer::Used,
    gateway::{self, Floating},
    links::Links,
    liveness,
    multicast::{self, Hearers, Listening},
    topology::RouterSide,
    unit::AclPlace,
};
use crate::{
    key::DatapathKey,
    model::{
        Acl, AclAction, AclDirection, DefaultPolicy, DhcpOptions, Gateway, IpNetwork, Limits, LogicalRouter,
        LogicalSwitch, NatKind, Northbound, PolicyAction, RouteMatch, RouterOptions, StaticRoute,
        SwitchOptions, SwitchPort, SwitchPortKind,
    },
};

/// What all units of a switch may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SwitchTraits {
    /// Northbound name.
    pub(crate) object: String,
    /// Key of the datapath.
    pub(crate) key: DatapathKey,
    /// The switch's own default.
    pub(crate) default_policy: DefaultPolicy,
    /// Port groups that have ports of it, with their defaults.
    pub(crate) groups: Vec<(String, DefaultPolicy)>,
    /// ACLs have connections tracked.
    pub(crate) is_stateful: bool,
    /// Highest tier of each direction that has ACLs, before load balancers and behind them.
    last_tiers: BTreeMap<(AclDirection, bool), u8>,
    /// Its workloads use load balancers.
    pub(crate) has_balancers: bool,
    /// A port takes frames to addresses nobody has.
    pub(crate) takes_unknown: bool,
    /// Stations behind some port are remembered.
    pub(crate) has_stations: bool,
    /// What it does besides.
    pub(crate) options: SwitchOptions,
    /// Ids of its ports to networks outside that every host has.
    pub(crate) networks: Vec<String>,
    /// It has a port to a network outside.
    pub(crate) has_network: bool,
    /// What DHCP clients are told, where their ports say nothing else: IPv4, IPv6.
    pub(crate) dhcp: [Option<(String, DhcpOptions)>; 2],
    /// Ids of the names that its workloads see.
    pub(crate) names: BTreeSet<String>,
    /// Bounds on what it asks hosts for.
    pub(crate) limits: Limits,
    /// Who hears more than it has asked for; `None`: everybody hears everything.
    pub(crate) listening: Option<Listening>,
}

impl SwitchTraits {
    /// Highest tier of a direction, before load balancers or behind them; `None`: no ACLs.
    pub(crate) fn last_tier(&self, direction: AclDirection, after_lb: bool) -> Option<u8> {
        self.last_tiers.get(&(direction, after_lb)).copied()
    }

    /// Somebody's packets are dropped unless an ACL allows them.
    pub(crate) fn drops_by_default(&self) -> bool {
        let groups = self.groups.iter().map(|(_, policy)| *policy);
        groups.chain([self.default_policy]).any(|policy| policy == DefaultPolicy::Drop)
    }
}

/// An ACL by its owner (`None`: the switch itself) and id.
pub(crate) type AclName = (Option<String>, String);

/// A switch's traits, and which units it has besides its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SwitchState {
    pub(crate) traits: SwitchTraits,
    /// ACLs by where they apply.
    pub(crate) acls: BTreeMap<AclPlace, BTreeSet<AclName>>,
    /// Some of them allow the replies to what they allow.
    is_related: bool,
    /// Load balancers of its workloads.
    pub(crate) balancers: Used,
    /// Groups that somebody wants to hear.
    pub(crate) groups: BTreeMap<IpAddr, Hearers>,
    /// Ids of the ports that have a say in all this.
    notable: BTreeSet<String>,
}

/// Ports that have a say in what the whole switch does, with their ids.
pub(super) type Notable<'a> = [(&'a String, &'a SwitchPort)];

impl SwitchState {
    pub(crate) fn of(nb: &Northbound, links: &Links, id: &str, switch: &LogicalSwitch) -> Self {
        let notable = switch.ports.iter().filter(|(_, port)| port.is_notable());
        Self::with(nb, links, (id, switch), notable.map(|(id, _)| id.clone()).collect())
    }

    /// The state, where of all ports only some have changed.
    ///
    /// # Cost
    /// That of looking once at the ACLs and at the ports that have a say.
    pub(crate) fn after(
        &self,
        nb: &Northbound,
        links: &Links,
        (id, switch): (&str, &LogicalSwitch),
        ports: &BTreeSet<String>,
    ) -> Self {
        let mut notable = self.notable.clone();
        note(&mut notable, switch, ports);
        Self::with(nb, links, (id, switch), notable)
    }

    fn with(
        nb: &Northbound,
        links: &Links,
        (id, switch): (&str, &LogicalSwitch),
        notable: BTreeSet<String>,
    ) -> Self {
        let ports = of_notable(switch, &notable);
        let sides = links.of_switch(id).filter_map(|(port, ..)| links.router_side(nb, id, port));
        // A router that is on one chassis translates by itself, and so does a gateway.
        let lends = |side: &RouterSide<'_>| {
            side.is_enabled() && side.chassis().is_none() && side.port.gateway.is_empty()
        };
        let mut balancers = Used::default();
        balancers.by_switch(switch);
        sides.filter(lends).for_each(|side| balancers.by_router(side.router));
        let has_balancers = !balancers.is_empty(nb);
        let groups = links.groups_of_switch(id).filter_map(|id| Some((id, nb.port_groups.get(id)?)));
        let groups: Vec<_> = groups.collect();
        let own = switch.acls.iter().map(|(id, acl)| ((None, id.clone()), acl));
        let of_groups = groups.iter().flat_map(|(group, content)| {
            content.acls.iter().map(|(id, acl)| ((Some((*group).clone()), id.clone()), acl))
        });
        let mut acls: BTreeMap<AclPlace, BTreeSet<AclName>> = BTreeMap::new();
        let mut last_tiers = BTreeMap::new();
        let mut is_related = false;
        for (name, acl) in own.chain(of_groups) {
            is_related |= acl.action == AclAction::AllowRelated;
            let tier = last_tiers.entry((acl.direction, acl.after_lb)).or_default();
            *tier = acl.tier.max(*tier);
            acls.entry(place(acl)).or_default().insert(name);
        }
        let traits = SwitchTraits {
            object: format!("switches/{id}"),
            key: switch.key,
            default_policy: switch.default_policy,
            groups: groups.iter().map(|(id, group)| ((*id).clone(), group.default_policy)).collect(),
            is_stateful: is_stateful(is_related, &acls, has_balancers),
            last_tiers,
            has_balancers,
            takes_unknown: takes_unknown(&ports),
            has_stations: has_stations(&ports),
            options: switch.options.clone(),
            networks: networks(&ports),
            has_network: has_network(&ports),
            dhcp: switch.services.dhcp.clone().map(|id| dhcp(nb, id.as_ref())),
            names: switch.services.names.clone(),
            limits: limits(nb, switch.services.limits.as_ref()),
            listening: multicast::listening(nb, links, (id, switch), &ports),
        };
        let groups = multicast::of_switch(switch, &ports);
        Self { traits, acls, is_related, balancers, groups, notable }
    }

    /// Follows a change of nothing but some ports of workloads. True: the traits are other ones.
    pub(crate) fn follow_ports(
        &mut self,
        nb: &Northbound,
        links: &Links,
        (id, switch): (&str, &LogicalSwitch),
        ports: &BTreeSet<String>,
    ) -> bool {
        note(&mut self.notable, switch, ports);
        let ports = of_notable(switch, &self.notable);
        self.groups = multicast::of_switch(switch, &ports);
        let traits = &mut self.traits;
        replace(&mut traits.takes_unknown, takes_unknown(&ports))
            | replace(&mut traits.has_stations, has_stations(&ports))
            | replace(&mut traits.networks, networks(&ports))
            | replace(&mut traits.has_network, has_network(&ports))
            | replace(&mut traits.listening, multicast::listening(nb, links, (id, switch), &ports))
    }

    /// Follows a change of nothing but load balancers, and which of them are in groups.
    pub(crate) fn follow_balancers(&mut self, nb: &Northbound) -> bool {
        let has_balancers = !self.balancers.is_empty(nb);
        let is_stateful = is_stateful(self.is_related, &self.acls, has_balancers);
        replace(&mut self.traits.has_balancers, has_balancers)
            | replace(&mut self.traits.is_stateful, is_stateful)
    }
}

fn replace<V: PartialEq>(slot: &mut V, value: V) -> bool {
    let is_changed = *slot != value;
    *slot = value;
    is_changed
}

/// Connections are tracked for ACLs.
fn is_stateful(is_related: bool, acls: &BTreeMap<AclPlace, BTreeSet<AclName>>, has_balancers: bool) -> bool {
    is_related || !acls.is_empty() && has_balancers
}

/// The options of an id with it, if there are such.
pub(super) fn dhcp(nb: &Northbound, id: Option<&String>) -> Option<(String, DhcpOptions)> {
    let (id, options) = nb.dhcp_options.get_key_value(id?)?;
    Some((id.clone(), options.clone()))
}

fn limits(nb: &Northbound, id: Option<&String>) -> Limits {
    id.and_then(|id| nb.limits.get(id)).cloned().unwrap_or_default()
}

/// Brings the ids of ports that have a say up to date, where some ports have changed.
fn note(notable: &mut BTreeSet<String>, switch: &LogicalSwitch, ports: &BTreeSet<String>) {
    for id in ports {
        if switch.ports.get(id).is_some_and(SwitchPort::is_notable) {
            notable.insert(id.clone());
        } else {
            notable.remove(id);
        }
    }
}

fn of_notable<'a>(
    switch: &'a LogicalSwitch,
    notable: &BTreeSet<String>,
) -> Vec<(&'a String, &'a SwitchPort)> {
    notable.iter().filter_map(|id| switch.ports.get_key_value(id)).collect()
}

fn takes_unknown(ports: &Notable<'_>) -> bool {
    ports.iter().any(|(_, port)| port.enabled && port.kind.takes_unknown())
}

fn has_stations(ports: &Notable<'_>) -> bool {
    ports.iter().any(|(_, port)| port.enabled && port.has_stations())
}

fn networks(ports: &Notable<'_>) -> Vec<String> {
    let ports = ports.iter().filter(|(_, port)| port.enabled && port.kind.is_everywhere());
    ports.map(|(id, _)| (*id).clone()).collect()
}

fn has_network(ports: &Notable<'_>) -> bool {
    let leads_out = |kind: &SwitchPortKind| matches!(kind, SwitchPortKind::Network { .. });
    ports.iter().any(|(_, port)| port.enabled && leads_out(&port.kind))
}

fn place(acl: &Acl) -> AclPlace {
    AclPlace {
        direction: acl.direction,
        after_lb: acl.after_lb,
        tier: acl.tier,
        priority: acl.priority,
        matching: acl.matching.clone(),
    }
}

/// What all units of a router may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouterTraits {
    /// Northbound name.
    pub(crate) object: String,
    /// Key of the datapath.
    pub(crate) key: DatapathKey,
    /// Drops everything when false.
    pub(crate) enabled: bool,
    /// Id of the only chassis it is on.
    pub(crate) chassis: Option<String>,
    /// It translates destinations by connections.
    pub(crate) connects: bool,
    /// Addresses of its own that stand for something else, with what for.
    pub(crate) translated: BTreeMap<IpAddr, String>,
    /// What it translates at ports that are on one host, by port.
    pub(crate) outside: BTreeMap<String, Vec<Floating>>,
    /// Bounds on what it asks hosts for.
    pub(crate) limits: Limits,
    /// Numbers of the names that ports give to static routes.
    pub(crate) tables: BTreeMap<String, u16>,
    /// Numbers of the chains of its policies.
    pub(crate) chains: BTreeMap<String, u16>,
    /// What it does besides; some of it just when it is on one chassis.
    pub(crate) options: RouterOptions,
    /// Addresses of translations to which other routers have routes, with their names.
    pub(crate) offered: BTreeMap<IpAddr, String>,
    /// Ids of its ports that what is sent to any group leaves by.
    pub(crate) hear_all: BTreeSet<String>,
    /// Hosts that ports of it may have without saying so themselves.
    residence: Option<Gateway>,
}

/// A router's traits, and which units it has besides its ports, policies, translations and
/// neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouterState {
    pub(crate) traits: RouterTraits,
    /// Static routes by what they match.
    pub(crate) routes: BTreeMap<(RouteMatch, IpNetwork), Vec<StaticRoute>>,
    /// Its load balancers.
    pub(crate) balancers: Used,
    /// Groups that somebody on its networks wants to hear.
    pub(crate) groups: BTreeMap<IpAddr, Hearers>,
}

impl RouterState {
    pub(crate) fn of(nb: &Northbound, links: &Links, id: &str, router: &LogicalRouter) -> Self {
        let object = format!("routers/{id}");
        let mut balancers = Used::default();
        balancers.by_router(router);
        let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for route in router.static_routes.iter().filter(|route| liveness::is_there(router, route)) {
            let base = IpNetwork { addr: route.prefix.base(), ..route.prefix };
            routes.entry((route.by, base)).or_default().push(route.clone());
        }
        let connects = |kind, stateless: bool| kind != NatKind::Source && !stateless;
        let traits = RouterTraits {
            key: router.key,
            enabled: router.enabled,
            chassis: router.chassis.clone(),
            connects: !balancers.is_empty(nb)
                || router.nats.values().any(|rule| connects(rule.kind, rule.stateless)),
            translated: translated(router, &object, |ip| {
                links.services_at(ip).rev().find(|id| balancers.has(nb, id))
            }),
            outside: gateway::outside(router),
            limits: limits(nb, router.limits.as_ref()),
            tables: numbers(router.ports.values().map(|port| &port.route_table)),
            chains: numbers(router.policies.values().flat_map(|policy| {
                let to = match &policy.action {
                    PolicyAction::Jump(chain) => Some(chain),
                    PolicyAction::Allow | PolicyAction::Drop | PolicyAction::Reroute(_) => None,
                };
                to.into_iter().chain([&policy.chain])
            })),
            offered: offered(id, router),
            options: match router.chassis {
                Some(_) => router.options.clone(),
                // What a router on every host cannot do.
                None => RouterOptions {
                    balancer_sources: Vec::new(),
                    dnat_sources: Vec::new(),
                    ..router.options.clone()
                },
            },
            hear_all: multicast::hear_all(router),
            residence: gateway::residence(router),
            object,
        };
        Self { traits, routes, balancers, groups: multicast::of_router(nb, links, id, router) }
    }
}

/// Addresses of its translations to which other routers have routes.
pub(super) fn offered(id: &str, router: &LogicalRouter) -> BTreeMap<IpAddr, String> {
    let nats = router.nats.iter().filter(|(_, rule)| rule.add_route && rule.kind != NatKind::Source);
    nats.map(|(nat, rule)| (rule.external_ip, format!("routers/{id}/nats/{nat}"))).collect()
}

/// Numbers for names, from 1 on; what has no name has none.
fn numbers<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, u16> {
    let names: BTreeSet<_> = names.filter(|name| !name.is_empty()).collect();
    names.into_iter().cloned().zip(1..).collect()
}

/// Addresses of the router's own that it translates, with what for.
fn translated<'a>(
    router: &LogicalRouter,
    object: &str,
    balancer_at: impl Fn(IpAddr) -> Option<&'a String>,
) -> BTreeMap<IpAddr, String> {
    let enabled = router.ports.values().filter(|port| router.enabled && port.enabled);
    let own: BTreeSet<_> = enabled.flat_map(address::of_router_port).map(|network| network.addr).collect();
    let nats = router.nats.iter().map(|(id, rule)| (rule.external_ip, format!("{object}/nats/{id}")));
    let services = own.iter().filter_map(|ip| Some((*ip, format!("load-balancers/{}", balancer_at(*ip)?))));
    let options = router.chassis.iter().map(|_| &router.options);
    let sources = options.flat_map(|options| options.balancer_sources.iter().chain(&options.dnat_sources));
    let sources = sources.map(|ip| (*ip, object.to_owned()));
    sources.chain(services).chain(nats).filter(|(ip, _)| own.contains(ip)).collect()
}
