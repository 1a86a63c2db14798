//! A small network for tests: switches `web` and `db` with a router between them, each
//! switch with a workload on chassis `h1` and one on `h2`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use flowtable::types::{MacAddr, Priority};

use crate::{
    dhcp::OptionV4,
    key::{DatapathKey, PortKey},
    model::{
        Acl, AclAction, AclDirection, AddressMode, Backend, DhcpOptions, DhcpV4, IpNetwork, LoadBalancer,
        LogicalRouter, LogicalSwitch, NatKind, NatRule, NextHop, Northbound, PolicyAction, PortAddresses,
        PortSecurity, Preference, RouteMatch, RouteTarget, RouterAdvertisement, RouterPolicy, RouterPort,
        Samples, Service, StaticRoute, SwitchPort, SwitchPortKind, Vip,
    },
    southbound::{ChassisRecord, LogicalFlow, Pipeline, Southbound},
};

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x0a, 0, 0, 0, 0, last])
}

pub(crate) fn network(text: &str) -> IpNetwork {
    let (addr, len) = text.split_once('/').unwrap();
    IpNetwork { addr: addr.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

pub(crate) fn port_key(key: u16) -> PortKey {
    PortKey::new(key).unwrap()
}

pub(crate) fn switch(key: u32) -> LogicalSwitch {
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

pub(crate) fn router(key: u32) -> LogicalRouter {
    LogicalRouter {
        key: DatapathKey::new(key).unwrap(),
        enabled: true,
        ports: BTreeMap::new(),
        static_routes: Vec::new(),
        chassis: None,
        policies: BTreeMap::new(),
        nats: BTreeMap::new(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        limits: None,
        options: Default::default(),
    }
}

pub(crate) fn workload(key: u16, last: u8, ips: &[&str], chassis: &str) -> SwitchPort {
    let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    SwitchPort {
        key: port_key(key),
        kind: SwitchPortKind::Workload {
            addresses: vec![PortAddresses { mac: mac(last), ips }],
            unknown: false,
            port_security: Vec::new(),
            chassis: Some(chassis.to_owned()),
            additional: Default::default(),
            access: Default::default(),
        },
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

pub(crate) fn secured(mut port: SwitchPort, last: u8, ips: &[&str]) -> SwitchPort {
    if let SwitchPortKind::Workload { port_security, .. } = &mut port.kind {
        port_security.push(PortSecurity { mac: mac(last), ips: ips.iter().map(|ip| network(ip)).collect() });
    }
    port
}

pub(crate) fn to_router(key: u16, router: &str, port: &str) -> SwitchPort {
    let kind = SwitchPortKind::Router { router: router.to_owned(), port: port.to_owned() };
    SwitchPort {
        key: port_key(key),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

pub(crate) fn router_port(key: u16, last: u8, networks: &[&str]) -> RouterPort {
    let networks = networks.iter().map(|text| network(text)).collect();
    let (gateway, advertisement, static_macs, mtu) = Default::default();
    let (key, mac) = (port_key(key), mac(last));
    RouterPort {
        key,
        mac,
        networks,
        enabled: true,
        gateway,
        advertisement,
        static_macs,
        mtu,
        mtu_bypass: String::new(),
        route_table: String::new(),
        hears_all: false,
        monitored: BTreeMap::new(),
        resides: false,
        bridges: false,
        dhcp_server: None,
    }
}

pub(crate) fn acl(direction: AclDirection, priority: u16, matching: &str, action: AclAction) -> Acl {
    let priority = Priority::new(priority).unwrap();
    Acl {
        direction,
        tier: 0,
        priority,
        matching: matching.to_owned(),
        action,
        label: 0,
        log: None,
        after_lb: false,
        persists: false,
        samples: Samples::default(),
    }
}

/// A TCP load balancer: `vip` to backends, each `address:port` or `address`.
pub(crate) fn balancer(vip: &str, backends: &[&str]) -> LoadBalancer {
    let (ip, port) = endpoint(vip);
    let backends = backends.iter().map(|text| endpoint(text));
    let backends = backends.map(|(ip, port)| Backend { ip, port, online: true }).collect();
    LoadBalancer { vips: [(Vip { ip, port }, Service { backends })].into(), ..LoadBalancer::default() }
}

fn endpoint(text: &str) -> (IpAddr, Option<u16>) {
    let socket = text.parse::<SocketAddr>();
    socket.map_or_else(|_| (text.parse().unwrap(), None), |socket| (socket.ip(), Some(socket.port())))
}

/// A translation of a router, by connections.
pub(crate) fn nat(kind: NatKind, external: &str, logical: &str) -> NatRule {
    NatRule {
        kind,
        external_ip: external.parse().unwrap(),
        logical_ip: network(logical),
        external_ports: None,
        gateway_port: None,
        stateless: false,
        allowed_external_ips: Vec::new(),
        exempted_external_ips: Vec::new(),
        distributed: None,
        condition: None,
        add_route: false,
    }
}

/// A static route, to a next hop or to nowhere.
pub(crate) fn route(prefix: &str, next: Option<&str>) -> StaticRoute {
    let target = next.map_or(RouteTarget::Discard, |ip| {
        RouteTarget::Via(NextHop { ip: ip.parse().unwrap(), output_port: None })
    });
    StaticRoute {
        prefix: network(prefix),
        by: RouteMatch::Destination,
        target,
        symmetric: false,
        table: String::new(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    }
}

/// A policy of a router.
pub(crate) fn policy(priority: u16, matching: &str, action: PolicyAction) -> RouterPolicy {
    RouterPolicy {
        priority: Priority::new(priority).unwrap(),
        matching: matching.to_owned(),
        action,
        chain: String::new(),
        mark: 0,
        output_port: None,
        monitored: false,
    }
}

/// DHCP for a network, by 10.0.0.1.
pub(crate) fn dhcp_v4(text: &str) -> DhcpOptions {
    let options = [("server_id", "10.0.0.1"), ("router", "10.0.0.1"), ("lease_time", "3600")];
    let options = options.map(|(name, text)| {
        let option = OptionV4::named(name).unwrap();
        (option, option.parse(text).unwrap())
    });
    DhcpOptions::V4(DhcpV4 {
        network: network(text),
        server_ip: [10, 0, 0, 1].into(),
        server_mac: mac(0xdd),
        options: options.into(),
    })
}

/// An advertisement with something of everything.
pub(crate) fn advertisement() -> RouterAdvertisement {
    RouterAdvertisement {
        mode: AddressMode::Stateful,
        mtu: Some(1442),
        rdnss: vec!["2001:db8::53".parse().unwrap(), "2001:db8::54".parse().unwrap()],
        dnssl: vec!["a.example".to_owned(), "b.example".to_owned()],
        routes: vec![(network("2001:db8:7::/48"), Preference::Low)],
        preference: Preference::High,
        lifetime: 600,
        interval: Some((200, 600)),
    }
}

/// The network of the module's text.
pub(crate) fn small() -> Northbound {
    let mut nb = Northbound::default();
    let mut web = switch(1);
    web.ports.insert("a".into(), workload(1, 0x05, &["10.0.0.5", "2001:db8::5"], "h1"));
    web.ports.insert("b".into(), workload(2, 0x06, &["10.0.0.6", "2001:db8::6"], "h2"));
    web.ports.insert("web-r".into(), to_router(3, "r", "r-web"));
    let mut db = switch(2);
    db.ports.insert("c".into(), workload(1, 0x15, &["10.0.1.5"], "h1"));
    db.ports.insert("d".into(), workload(2, 0x16, &["10.0.1.6"], "h2"));
    db.ports.insert("db-r".into(), to_router(3, "r", "r-db"));
    let mut r = router(3);
    r.ports.insert("r-web".into(), router_port(1, 0xf0, &["10.0.0.1/24", "2001:db8::1/64"]));
    r.ports.insert("r-db".into(), router_port(2, 0xf1, &["10.0.1.1/24"]));
    nb.switches.extend([("web".to_owned(), web), ("db".to_owned(), db)]);
    nb.routers.insert("r".into(), r);
    nb
}

pub(crate) fn hosts() -> BTreeMap<String, ChassisRecord> {
    let host = |id: &str, ip: &str| (id.to_owned(), ChassisRecord::at(ip.parse::<IpAddr>().unwrap()));
    [host("h1", "192.0.2.1"), host("h2", "192.0.2.2")].into()
}

/// The flows of a datapath in the order of the pipeline, as text.
pub(crate) fn flows(sb: &Southbound, datapath: &str) -> String {
    stages(sb, datapath, "")
}

/// As [`flows`], of the stages whose name contains a word.
pub(crate) fn stages(sb: &Southbound, datapath: &str, word: &str) -> String {
    let of_datapath = |flow: &&std::sync::Arc<LogicalFlow>| sb.datapaths[&flow.datapath].name == datapath;
    let mut flows: Vec<_> =
        sb.flows.values().filter(of_datapath).filter(|flow| flow.stage_name.contains(word)).collect();
    let order = |flow: &LogicalFlow| {
        let place = (flow.pipeline == Pipeline::Egress, flow.stage, std::cmp::Reverse(flow.priority));
        (place, flow.matching.clone())
    };
    flows.sort_by_key(|flow| order(flow));
    let mut text = String::new();
    let mut stage = "";
    for flow in flows {
        if *flow.stage_name != *stage {
            stage = &flow.stage_name;
            text.push_str(&format!("{stage}\n"));
        }
        text.push_str(&format!(
            "  {:5} {}\n        {}\n        {}: {}\n",
            flow.priority.get(),
            flow.matching,
            flow.actions,
            flow.object,
            flow.why
        ));
    }
    text
}
