//! The network as our compiler takes it, all of it on one host.

use std::collections::BTreeMap;

use flowtable::types::{MacAddr, Priority};
use ovn_northd_lite::{
    check_match,
    key::{DatapathKey, PortKey},
    model::{
        Acl, AclAction, AclDirection, Backend, Candidate, Distributed, Gateway, IpNetwork, LoadBalancer,
        LogicalRouter, LogicalSwitch, NatKind, NatRule, NextHop, Northbound, PolicyAction, PortAddresses,
        PortGroup, PortSecurity, Protocol, RouteMatch, RouteTarget, RouterPolicy, RouterPort, Service,
        SetMember, StaticRoute, SwitchPort, SwitchPortKind, Vip,
    },
};

use crate::{
    translations::{Balancer, Kind, Nat, Place},
    world::{self, SWITCHES, World, router_mac, router_networks},
};

/// The one host.
pub(crate) const HOST: &str = "h";

pub(crate) fn mac_of(text: &str) -> MacAddr {
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    MacAddr::new(octets.try_into().unwrap())
}

fn prefix(text: &str) -> IpNetwork {
    let whole = if text.contains(':') { "128" } else { "32" };
    let (addr, len) = text.split_once('/').unwrap_or((text, whole));
    IpNetwork { addr: addr.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

/// The network, all of it on one host.
pub(crate) fn network(world: &World) -> Northbound {
    let mut nb = Northbound::default();
    for (switch, id) in SWITCHES.iter().enumerate().take(world.n_switches) {
        let mut new = empty_switch(switch as u32 + 1);
        for port in world.ports.iter().filter(|port| port.switch == switch) {
            new.ports.insert(port.id(), workload(port));
        }
        nb.switches.insert((*id).to_owned(), new);
    }
    if world.routers.len() > 1 {
        nb.switches.insert("j".to_owned(), empty_switch(9));
    }
    for (router, switches) in world.routers.iter().enumerate() {
        nb.routers.insert(format!("r{router}"), a_router(world, router, switches, &mut nb.switches));
    }
    for (set, members) in world.sets.iter().enumerate() {
        let members = members.iter().map(|member| SetMember::Ip(prefix(member)));
        nb.address_sets.insert(format!("as{set}"), members.collect());
    }
    for (group, members) in world.groups.iter().enumerate() {
        let ports = members.iter().map(|port| &world.ports[*port]);
        let ports = ports.map(|port| (port.id(), SWITCHES[port.switch].to_owned())).collect();
        nb.port_groups.insert(format!("g{group}"), PortGroup { ports, ..PortGroup::default() });
    }
    for (n, balancer) in world.balancers.iter().enumerate() {
        for switch in &balancer.switches {
            nb.switches.get_mut(SWITCHES[*switch]).unwrap().load_balancers.insert(format!("lb{n}"));
        }
        nb.load_balancers.insert(format!("lb{n}"), a_balancer(world, balancer));
    }
    for (n, acl) in world.acls.iter().enumerate() {
        let acls = match acl.group {
            Some(group) => &mut nb.port_groups.get_mut(&format!("g{group}")).unwrap().acls,
            None => &mut nb.switches.get_mut(SWITCHES[acl.switch]).unwrap().acls,
        };
        acls.insert(format!("a{n}"), an_acl(acl));
    }
    nb
}

fn empty_switch(key: u32) -> LogicalSwitch {
    LogicalSwitch {
        key: DatapathKey::new(key).unwrap(),
        ports: BTreeMap::new(),
        acls: BTreeMap::new(),
        default_policy: Default::default(),
        qos_rules: BTreeMap::new(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        services: Default::default(),
        options: Default::default(),
    }
}

fn workload(port: &world::Port) -> SwitchPort {
    let ips = [port.ip(true), port.ip(false)];
    let known = PortAddresses {
        mac: mac_of(&port.mac()),
        ips: ips.each_ref().map(|ip| ip.parse().unwrap()).to_vec(),
    };
    let secured = PortSecurity { mac: known.mac, ips: ips.each_ref().map(|ip| prefix(ip)).to_vec() };
    let kind = SwitchPortKind::Workload {
        addresses: vec![known],
        unknown: port.takes_unknown,
        port_security: if port.is_secured { vec![secured] } else { Vec::new() },
        chassis: Some(HOST.to_owned()),
        additional: Default::default(),
        access: Default::default(),
    };
    switch_port(port.number.into(), kind)
}

fn switch_port(key: u16, kind: SwitchPortKind) -> SwitchPort {
    SwitchPort {
        key: PortKey::new(key).unwrap(),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

fn a_router(
    world: &World,
    router: usize,
    switches: &[usize],
    all: &mut BTreeMap<String, LogicalSwitch>,
) -> LogicalRouter {
    let mut ports = BTreeMap::new();
    let between = (world.routers.len() > 1).then_some(None);
    for (n, switch) in switches.iter().copied().map(Some).chain(between).enumerate() {
        let on = switch.map_or("j", |switch| SWITCHES[switch]);
        let port = RouterPort {
            key: PortKey::new(n as u16 + 1).unwrap(),
            mac: mac_of(&router_mac(router, switch)),
            networks: router_networks(router, switch).map(|text| prefix(&text)).to_vec(),
            enabled: true,
            gateway: if world.places[router] == Place::Gateway(switch) {
                on_host()
            } else {
                Gateway::default()
            },
            advertisement: None,
            static_macs: BTreeMap::new(),
            mtu: None,
            mtu_bypass: String::new(),
            route_table: switch
                .and_then(|switch| world.tables.get(&(router, switch)))
                .map_or_else(String::new, |table| (*table).to_owned()),
            hears_all: false,
            monitored: Default::default(),
            resides: false,
            bridges: false,
            dhcp_server: None,
        };
        let id = format!("r{router}-{on}");
        let kind = SwitchPortKind::Router { router: format!("r{router}"), port: id.clone() };
        let end = switch_port(100 + router as u16, kind);
        all.get_mut(on).unwrap().ports.insert(format!("{on}-r{router}"), end);
        ports.insert(id, port);
    }
    let own = world.routes.iter().filter(|route| route.router == router);
    let routes = own.map(|route| StaticRoute {
        prefix: prefix(&route.prefix),
        by: if route.is_by_source { RouteMatch::Source } else { RouteMatch::Destination },
        target: match &route.hop {
            Some(hop) => RouteTarget::Via(NextHop { ip: hop.parse().unwrap(), output_port: None }),
            None => RouteTarget::Discard,
        },
        symmetric: false,
        table: route.table.to_owned(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    });
    let balancers = world.balancers.iter().enumerate();
    let balancers = balancers.filter(|(_, balancer)| balancer.routers.contains(&router));
    LogicalRouter {
        key: DatapathKey::new(20 + router as u32).unwrap(),
        enabled: true,
        ports,
        static_routes: routes.collect(),
        chassis: (world.places[router] == Place::OneHost).then(|| HOST.to_owned()),
        policies: policies(world, router),
        nats: nats(world, router),
        load_balancers: balancers.map(|(n, _)| format!("lb{n}")).collect(),
        balancer_groups: Default::default(),
        limits: None,
        options: Default::default(),
    }
}

fn policies(world: &World, router: usize) -> BTreeMap<String, RouterPolicy> {
    let own = world.policies.iter().filter(|policy| policy.router == router).enumerate();
    own.map(|(n, policy)| {
        check_match(&policy.matching).unwrap_or_else(|error| panic!("`{}`: {error}", policy.matching));
        let made = RouterPolicy {
            priority: Priority::new(policy.priority).unwrap(),
            matching: policy.matching.clone(),
            action: match (policy.action, &policy.hop) {
                ("drop", _) => PolicyAction::Drop,
                ("allow", _) => PolicyAction::Allow,
                (_, hop) => PolicyAction::Reroute(hop.iter().map(|hop| hop.parse().unwrap()).collect()),
            },
            chain: String::new(),
            mark: 0,
            output_port: None,
            monitored: false,
        };
        (format!("p{n}"), made)
    })
    .collect()
}

fn on_host() -> Gateway {
    vec![Candidate { priority: 1, chassis: HOST.to_owned() }].into()
}

fn nats(world: &World, router: usize) -> BTreeMap<String, NatRule> {
    let own = world.nats.iter().filter(|nat| nat.router == router).enumerate();
    own.map(|(n, nat)| (format!("n{n}"), a_nat(world, nat))).collect()
}

fn a_nat(world: &World, nat: &Nat) -> NatRule {
    let peers = |exempted: bool| {
        let set = nat.peers.filter(|(_, is_exempted)| *is_exempted == exempted);
        set.map(|(set, _)| world.sets[set].iter().map(|member| prefix(member)).collect()).unwrap_or_default()
    };
    let home = nat.distributed.as_ref();
    NatRule {
        kind: match nat.kind {
            Kind::Source => NatKind::Source,
            Kind::Destination => NatKind::Destination,
            Kind::Both => NatKind::Both,
        },
        external_ip: nat.external.parse().unwrap(),
        logical_ip: prefix(&nat.logical),
        external_ports: None,
        gateway_port: None,
        stateless: nat.is_stateless,
        allowed_external_ips: peers(false),
        exempted_external_ips: peers(true),
        distributed: home.map(|(idx, mac)| Distributed { mac: mac_of(mac), port: world.ports[*idx].id() }),
        condition: None,
        add_route: false,
    }
}

fn a_balancer(world: &World, balancer: &Balancer) -> LoadBalancer {
    let backend = |(idx, port): (usize, u16)| Backend {
        ip: world.ports[idx].ip(balancer.is_v4).parse().unwrap(),
        port: Some(port),
        online: true,
    };
    let vip = Vip { ip: balancer.vip.parse().unwrap(), port: Some(balancer.port) };
    let service = Service { backends: balancer.backend.into_iter().map(backend).collect() };
    LoadBalancer {
        vips: [(vip, service)].into(),
        protocol: if balancer.protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp },
        reject: balancer.is_refusing,
        ..LoadBalancer::default()
    }
}

fn an_acl(acl: &world::Acl) -> Acl {
    check_match(&acl.matching).unwrap_or_else(|error| panic!("`{}`: {error}", acl.matching));
    Acl {
        direction: if acl.is_inbound { AclDirection::ToLport } else { AclDirection::FromLport },
        tier: 0,
        priority: Priority::new(acl.priority).unwrap(),
        matching: acl.matching.clone(),
        action: match acl.action {
            "allow" => AclAction::Allow,
            "allow-related" => AclAction::AllowRelated,
            "allow-stateless" => AclAction::AllowStateless,
            "drop" => AclAction::Drop,
            _ => AclAction::Reject,
        },
        label: 0,
        log: None,
        after_lb: false,
        persists: false,
        samples: Default::default(),
    }
}
