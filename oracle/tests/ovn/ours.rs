//! The network as our compiler takes it, all of it on one host, and what the switch's own trace says.

use std::{collections::BTreeMap, sync::Arc};

use flowtable::{
    build::{self, Host},
    key::{FlowKey, ct_state},
    parse::parse,
    pipeline::Translation,
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    trace::{StepEvent, Trace, TraceOptions, trace_with},
    types::{Epoch, MacAddr, PortNo, Priority},
};
use ovn_northd_lite::{
    LocalPorts, check_match, compile,
    key::{DatapathKey, PortKey},
    lower,
    model::{
        Acl, AclAction, AclDirection, IpNetwork, LogicalRouter, LogicalSwitch, NextHop, Northbound,
        PortAddresses, PortGroup, PortSecurity, RouteMatch, RouteTarget, RouterPort, SetMember, StaticRoute,
        SwitchPort, SwitchPortKind,
    },
    punt::{Request, Service},
};

use crate::{
    Verdict,
    packet::{Probe, Speech},
    world::{self, SWITCHES, World, router_mac, router_networks},
};

/// Lookups of connections on a packet's way, at most.
const MAX_LOOKUPS: usize = 12;

/// The switch of the one host.
pub(crate) struct Ours {
    snapshot: Snapshot,
    names: BTreeMap<PortNo, String>,
}

impl Ours {
    pub(crate) fn new(world: &World) -> Self {
        let nb = network(world);
        let number = |port: &world::Port| PortNo::new(port.number.into()).unwrap();
        let ports: BTreeMap<_, _> = world.ports.iter().map(|port| (port.id(), number(port))).collect();
        let local = LocalPorts { chassis: "h".to_owned(), ports: ports.clone(), ..LocalPorts::default() };
        let lowered = lower(&compile(&nb, &BTreeMap::new()), &local);
        assert_eq!(lowered.errors, []);
        let meters = lowered.meters.into_iter().map(|meter| Change::Meter(MeterChange::Add(meter)));
        let sets = lowered.sets.into_iter().map(|set| Change::Set(SetChange::Add(set)));
        let groups = lowered.groups.into_iter().map(|group| Change::Group(GroupChange::Add(group)));
        let rules = lowered.rules.into_iter().map(Change::Add);
        let changes = meters.chain(sets).chain(groups).chain(rules).collect();
        let mut table = PortTable::default();
        for (name, port) in &ports {
            let (name, role) = (name.clone(), PortRole::Workload);
            table.insert(*port, PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false });
        }
        let snapshot = Snapshot {
            epoch: Epoch::ZERO.next(),
            tables: Arc::new(Tables::default().transact(changes).unwrap()),
            ports: Arc::new(table),
            ..Snapshot::default()
        };
        Self { snapshot, names: ports.into_iter().map(|(name, port)| (port, name)).collect() }
    }

    /// What becomes of a packet.
    pub(crate) fn trace(&self, probe: &Probe) -> Verdict {
        let traced = self.walk(probe);
        let later = traced.passes.iter().filter_map(|pass| Some(&pass.outcome.as_ref().ok()?.translation));
        let all: Vec<&Translation> = [&traced.translation].into_iter().chain(later).collect();
        let emits = || all.iter().flat_map(|translation| &translation.program.emits);
        let punts = emits().filter_map(|emit| emit.extras.as_ref()?.punt.as_ref());
        let asked: Vec<_> =
            punts.filter_map(|punt| Request::decode(&punt.to.userdata)).map(|asked| asked.service).collect();
        // Routers here say by ICMP that they have no route, where OVN's say nothing.
        let told = [Service::Reject, Service::TcpReset];
        let questions = [Service::Arp, Service::Solicitation];
        Verdict {
            ports: emits()
                .filter(|emit| emit.ct.is_none())
                .filter_map(|emit| self.names.get(&emit.port).cloned())
                .collect(),
            is_refused: asked.iter().any(|service| told.contains(service)),
            asks: asked.iter().any(|service| questions.contains(service)),
        }
    }

    fn walk(&self, probe: &Probe) -> Trace {
        let state = if probe.is_established { ct_state::EST } else { ct_state::NEW };
        let ct_next = vec![ct_state::TRK | state; MAX_LOOKUPS];
        trace_with(&self.snapshot, &self.key(probe), &TraceOptions { why: false, ct_next })
    }

    fn key(&self, probe: &Probe) -> FlowKey {
        let end = |mac: &str, ip: &str, port| Host { mac: mac_of(mac), ip: ip.parse().unwrap(), port };
        let from = end(&probe.eth_src, &probe.src, 49152);
        let to = |port| end(&probe.eth_dst, &probe.dst, port);
        let frame = match probe.speech {
            Speech::Tcp(port) => build::tcp(&from, &to(port), 2, &[]),
            Speech::Udp(port) => build::udp(&from, &to(port), b"?"),
            Speech::Ping => build::icmp_echo(&from, &to(0), false, 1, 1, b"?"),
        };
        let port = PortNo::new(probe.from as u32 + 1).unwrap();
        let (mut packet, mut key) = (build::packet(&frame, port), FlowKey::zero());
        parse(&mut packet, &mut key).unwrap();
        key
    }

    /// The walk as lines.
    pub(crate) fn steps(&self, probe: &Probe) -> String {
        let traced = self.walk(probe);
        let later = traced.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
        let later = later.flat_map(|passed| &passed.steps);
        let lines = traced.steps.iter().chain(later).filter_map(|step| match &step.event {
            StepEvent::Hit(rule) => Some(format!("{} {} {rule}\n", rule.origin.stage, rule.origin.object)),
            StepEvent::Miss(table) => Some(format!("miss in table {table}\n")),
            StepEvent::Lost(..) | StepEvent::Note(_) => None,
        });
        lines.collect()
    }
}

fn mac_of(text: &str) -> MacAddr {
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    MacAddr::new(octets.try_into().unwrap())
}

fn prefix(text: &str) -> IpNetwork {
    let whole = if text.contains(':') { "128" } else { "32" };
    let (addr, len) = text.split_once('/').unwrap_or((text, whole));
    IpNetwork { addr: addr.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

fn network(world: &World) -> Northbound {
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
        chassis: Some("h".to_owned()),
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
            gateway: Default::default(),
            advertisement: None,
            static_macs: BTreeMap::new(),
            mtu: None,
            mtu_bypass: String::new(),
            route_table: String::new(),
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
        table: String::new(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    });
    LogicalRouter {
        key: DatapathKey::new(20 + router as u32).unwrap(),
        enabled: true,
        ports,
        static_routes: routes.collect(),
        chassis: None,
        policies: BTreeMap::new(),
        nats: BTreeMap::new(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        limits: None,
        options: Default::default(),
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
