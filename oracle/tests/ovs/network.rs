//! The rules that a logical network becomes: two switches, a router between them, access rules without
//! and with connections, IPv4 and IPv6; all of it on one chassis. Copies for controllers are not
//! compared: Open vSwitch has none connected.

use std::collections::BTreeMap;

use flowtable::{
    build::{self, Host},
    text,
    types::{MacAddr, PortNo, Priority},
};
use oracle::{
    frame,
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    traffic,
};
use ovn_northd_lite::{
    CONTINUATION, LocalPorts, Lowered, compile,
    key::{DatapathKey, PortKey},
    lower,
    model::{
        Acl, AclAction, AclDirection, DefaultPolicy, IpNetwork, LogicalRouter, LogicalSwitch, Northbound,
        PortAddresses, PortSecurity, RouterPort, SwitchPort, SwitchPortKind,
    },
};

use super::{
    PORTS,
    pair::Pair,
    tables::sound,
    talk::{Place, arrival, segment, solicitation, tcp_conversation, unreachable, with_ttl},
};

/// Packets of each network, besides the conversations.
const N_PACKETS: usize = 1500;
/// Number of the workload that has no addresses of its own and takes frames to anybody.
const PROMISCUOUS: u8 = 5;

fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x0a, 0, 0, 0, 0, last])
}

fn prefix(text: &str) -> IpNetwork {
    let (addr, len) = text.split_once('/').unwrap();
    IpNetwork { addr: addr.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

/// The switch that a workload is on.
fn subnet(workload: u8) -> u8 {
    if workload <= 2 { 0 } else { 1 }
}

fn addresses(workload: u8) -> [String; 2] {
    let subnet = subnet(workload);
    [format!("10.0.{subnet}.{workload}"), format!("fd00:{subnet}::{workload}")]
}

fn workload(number: u8) -> SwitchPort {
    let ips = addresses(number).map(|ip| ip.parse().unwrap());
    let known = PortAddresses { mac: mac(number), ips: ips.to_vec() };
    let secured =
        addresses(number).map(|ip| prefix(&format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })));
    let kind = SwitchPortKind::Workload {
        access: Default::default(),
        additional: Default::default(),
        addresses: if number == PROMISCUOUS { Vec::new() } else { vec![known] },
        unknown: number == PROMISCUOUS,
        // Only some are bound to their addresses.
        port_security: if matches!(number, 1 | 4) {
            vec![PortSecurity { mac: mac(number), ips: secured.to_vec() }]
        } else {
            Vec::new()
        },
        chassis: Some("h1".to_owned()),
    };
    SwitchPort {
        key: PortKey::new(number.into()).unwrap(),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

fn acl(direction: AclDirection, priority: u16, matching: &str, action: AclAction) -> Acl {
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
        samples: Default::default(),
    }
}

fn network(acls: Vec<Acl>, default_policy: DefaultPolicy) -> Northbound {
    let mut nb = Northbound::default();
    for (id, key, workloads) in [("web", 1, 1..=2), ("db", 2, 3..=5)] {
        let mut ports: BTreeMap<_, _> =
            workloads.map(|number| (format!("w{number}"), workload(number))).collect();
        let kind = SwitchPortKind::Router { router: "r".to_owned(), port: format!("r-{id}") };
        let port = SwitchPort {
            key: PortKey::new(9).unwrap(),
            kind,
            enabled: true,
            services: Default::default(),
            options: Default::default(),
            hears: Default::default(),
        };
        ports.insert(format!("{id}-r"), port);
        let acls = acls.iter().enumerate().map(|(idx, acl)| (format!("acl-{idx}"), acl.clone()));
        let switch = LogicalSwitch {
            key: DatapathKey::new(key).unwrap(),
            ports,
            acls: acls.collect(),
            default_policy,
            qos_rules: Default::default(),
            load_balancers: Default::default(),
            balancer_groups: Default::default(),
            services: Default::default(),
            options: Default::default(),
        };
        nb.switches.insert(id.to_owned(), switch);
    }
    let port = |key, last, networks: [&str; 2]| RouterPort {
        gateway: Default::default(),
        key: PortKey::new(key).unwrap(),
        mac: mac(last),
        networks: networks.map(prefix).to_vec(),
        enabled: true,
        advertisement: None,
        static_macs: Default::default(),
        mtu: None,
        mtu_bypass: String::new(),
        route_table: String::new(),
        hears_all: false,
        monitored: Default::default(),
        resides: false,
        bridges: false,
        dhcp_server: None,
    };
    let router = LogicalRouter {
        key: DatapathKey::new(3).unwrap(),
        enabled: true,
        ports: [
            ("r-web".to_owned(), port(1, 0xf0, ["10.0.0.254/24", "fd00::fe/64"])),
            ("r-db".to_owned(), port(2, 0xf1, ["10.0.1.254/24", "fd00:1::fe/64"])),
        ]
        .into(),
        static_routes: Vec::new(),
        chassis: None,
        policies: Default::default(),
        nats: Default::default(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        limits: None,
        options: Default::default(),
    };
    nb.routers.insert("r".to_owned(), router);
    nb
}

/// Registers that Open vSwitch does not have, and fields that serve as such where there are no tunnels.
const STAND_INS: &[(&str, &str)] = &[
    ("xxreg5", "tun_ipv6_src"),
    ("xxreg6", "tun_ipv6_dst"),
    ("xreg8", "tun_id"),
    ("reg18", "pkt_mark"),
    ("reg24", "tun_dst"),
];

/// As Open vSwitch has fields. Packets that the responder makes have a table of their own, to which no
/// other packet comes; it stays out.
fn adapted(line: String) -> Option<String> {
    let is_continuation = line.contains(&format!(" table={CONTINUATION},"));
    let adapted = STAND_INS.iter().fold(line, |line, (ours, theirs)| line.replace(ours, theirs));
    // The value of an address is written as one.
    let adapted = adapted.replace("set_field:0x0->tun_ipv6", "set_field:::->tun_ipv6");
    // A clone for a controller has a meter, which Open vSwitch wants to be somewhere else.
    let is_meter = |part: &&str| part.split_once(',').is_some_and(|(id, _)| id.parse::<u32>().is_ok());
    let parts = adapted.split("meter:").map(|part| match part.split_once(',').filter(|_| is_meter(&part)) {
        Some((_, rest)) => rest,
        None => part,
    });
    // Here by one bit of the field, there by name.
    let adapted = parts.collect::<String>();
    let adapted =
        adapted.replace("nw_frag=0x0/0x1", "nw_frag=no").replace("nw_frag=0x2/0x2", "nw_frag=later");
    // It does not let an action make an advertisement of a solicitation: the rules that answer stay out.
    let answers = adapted.contains("->nd_tll");
    (!is_continuation && !answers).then_some(adapted)
}

/// What the chassis does, as text.
fn rules(nb: &Northbound) -> String {
    let sb = compile(nb, &BTreeMap::new());
    let ports = PORTS.iter().map(|port| (format!("w{port}"), PortNo::new(*port).unwrap())).collect();
    let Lowered { rules, sets, groups, meters, errors } =
        lower(&sb, &LocalPorts { chassis: "h1".to_owned(), ports, ..LocalPorts::default() });
    assert_eq!(errors, []);
    // Open vSwitch has no named sets; this network has no address sets or port groups.
    assert_eq!(sets, []);
    let mut lines: Vec<String> = groups.iter().rev().map(text::print_group).collect();
    lines.extend(meters.iter().map(text::print_meter));
    let n_all = rules.len();
    let rules: Vec<String> = rules.iter().map(text::print_flow).filter_map(adapted).collect();
    eprintln!(
        "left out: {} rules: for the responder's packets, answers to solicitations",
        n_all - rules.len()
    );
    lines.extend(rules);
    lines.join("\n")
}

/// A workload with one of its addresses.
fn place(number: u8, is_v6: bool) -> Place {
    let ip = addresses(number)[usize::from(is_v6)].parse().unwrap();
    Place { port: number.into(), host: Host { mac: mac(number), ip, port: 1000 + u16::from(number) } }
}

/// To whom a workload sends what is for another: itself, or the router.
fn towards(from: u8, to: u8, host: Host) -> Host {
    let router = mac(0xf0 + subnet(from));
    Host { mac: if subnet(from) == subnet(to) { host.mac } else { router }, ..host }
}

/// A packet of this network, sometimes one that does not belong there.
fn packet(rng: &mut Rng) -> traffic::Arrival {
    let is_v6 = rng.one_in(3);
    let [from, to] = [(); 2].map(|()| 1 + rng.below(5) as u8);
    let (Place { port, host: mut src }, dst) = (place(from, is_v6), place(to, is_v6).host);
    let mut dst = towards(from, to, dst);
    match rng.below(10) {
        // The router's own address, on this side or the other.
        0 => {
            let side = rng.below(2);
            let ip = if is_v6 { format!("fd00:{side}::fe") } else { format!("10.0.{side}.254") };
            dst = Host { mac: mac(0xf0 + subnet(from)), ip: ip.parse().unwrap(), port: 7 };
        }
        // Nobody's.
        1 => dst.ip = if is_v6 { "fd00:9::1" } else { "10.0.9.1" }.parse().unwrap(),
        2 => dst.mac = MacAddr::BROADCAST,
        // Somebody else's.
        3 => src.mac = mac(1 + rng.below(6) as u8),
        4 => src.ip = place(1 + rng.below(5) as u8, is_v6).host.ip,
        _ => {}
    }
    dst.port = rng.pick(&[22, 53, 80, 443, 1003]);
    let frame = match rng.below(8) {
        0 if is_v6 => solicitation(&src, &dst),
        0 => build::arp(1, &src, &dst),
        1 if !is_v6 => build::arp(2, &src, &dst),
        2 => build::icmp_echo(&src, &dst, rng.one_in(3), 7, 1, b"ping"),
        3 | 4 => build::udp(&src, &dst, b"datagram"),
        _ => segment(&src, &dst, rng.pick(&[2, 0x12, 0x10, 4]), [1, 1], b"data"),
    };
    let is_ip = frame[12..14] != [8, 6];
    let frame = match rng.below(16) {
        0 if is_ip => with_ttl(frame, rng.pick(&[0, 1, 2])),
        1 => build::vlan(&frame, 0x8100, 100),
        _ => frame,
    };
    arrival(port, frame)
}

/// Packets that came through, and those that were compared.
#[derive(Default)]
struct Tally {
    n_packets: usize,
    n_delivered: usize,
    n_told: usize,
}

impl Tally {
    fn send(&mut self, pair: &mut Pair<'_>, arrival: &traffic::Arrival) -> Vec<(u32, Vec<u8>)> {
        let sent = pair.send(arrival);
        self.n_packets += 1;
        self.n_delivered += usize::from(!sent.is_empty());
        self.n_told += pair.ours.n_told();
        sent
    }
}

/// What each workload says to each other, with its answers.
fn conversations(pair: &mut Pair<'_>, tally: &mut Tally) {
    for (from, to) in (1..=5).flat_map(|from| (1..=5).map(move |to| (from, to))).filter(|(a, b)| a != b) {
        for is_v6 in [false, true] {
            let (here, there) = (place(from, is_v6), place(to, is_v6));
            for port in [22, 80] {
                let ends = |is_reply: bool| {
                    let server = Host { port, ..there.host };
                    let way = [
                        (here, towards(from, to, server)),
                        (Place { host: server, ..there }, towards(to, from, here.host)),
                    ];
                    way[usize::from(is_reply)]
                };
                for (is_reply, flags, numbers, payload) in tcp_conversation() {
                    let (Place { port, host }, to) = ends(is_reply);
                    let segment = segment(&host, &to, flags, numbers, payload);
                    // Nobody answers what did not come.
                    if tally.send(pair, &arrival(port, segment)).is_empty() {
                        break;
                    }
                }
                let (Place { port: in_port, host }, to_host) = ends(false);
                let sent = tally.send(pair, &arrival(in_port, build::udp(&host, &to_host, b"question")));
                for (out_port, frame) in sent.iter().filter(|(port, _)| *port == there.port) {
                    let back = towards(to, from, here.host);
                    if let Some(frame) = unreachable(frame, &there.host, &back) {
                        tally.send(pair, &arrival(*out_port, frame));
                    }
                }
                let (Place { port: in_port, host }, to_host) = ends(true);
                tally.send(pair, &arrival(in_port, build::udp(&host, &to_host, b"answer")));
            }
            for (is_reply, from, to, place, other) in
                [(false, from, to, here, there), (true, to, from, there, here)]
            {
                let frame =
                    build::icmp_echo(&place.host, &towards(from, to, other.host), is_reply, 9, 1, b"ping");
                tally.send(pair, &arrival(place.port, frame));
            }
        }
    }
}

/// Single segments of TCP, which belong nowhere, are compared where nobody tracks them.
fn belongs(arrival: &traffic::Arrival) -> bool {
    frame::view(&arrival.frame).is_some_and(|view| {
        let l4 = view.l4.map(|(_, at)| &arrival.frame[at..at + 4]);
        matches!(view.proto, 0 | 1 | 17 | 58)
            && l4.is_none_or(|ports| ports[..2] != [0, 0] && ports[2..] != [0, 0])
    })
}

fn compare(name: &str, nb: &Northbound, is_tracked: bool) {
    let Some(package) = Package::get_or_skip("the comparison of a network with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let lines = rules(nb);
    let mut pair = Pair::new(&mut ovs, Protocol::OpenFlow15, &lines);
    let (mut rng, mut tally) = (Rng::new(11), Tally::default());
    conversations(&mut pair, &mut tally);
    let n_before = tally.n_packets;
    while tally.n_packets < n_before + N_PACKETS {
        let arrival = if rng.one_in(5) { traffic::arrival(&mut rng) } else { packet(&mut rng) };
        if sound(&arrival) && (!is_tracked || belongs(&arrival)) {
            tally.send(&mut pair, &arrival);
        }
    }
    let Tally { n_packets, n_delivered, n_told } = tally;
    eprintln!(
        "{name}: {} rules, {n_packets} packets, {n_delivered} of them delivered; left out: {n_told} copies for controllers",
        lines.lines().count(),
    );
    assert!(n_delivered > n_packets / 10 && n_delivered < n_packets, "{n_delivered} of {n_packets}");
}

#[test]
fn a_network_without_connections_does_the_same_in_open_vswitch() {
    use AclAction::{AllowStateless, Drop};
    let acls = vec![
        acl(AclDirection::FromLport, 1000, "ip4 && tcp.dst == 22", Drop),
        acl(AclDirection::ToLport, 1001, "inport == \"w1\" && ip4.dst == 10.0.1.0/24 && udp", Drop),
        acl(AclDirection::ToLport, 900, "ip6 && (tcp.dst == {80, 443} || udp.dst == 53)", AllowStateless),
        acl(AclDirection::ToLport, 800, "ip6.src == {fd00::1, fd00:1::3} && tcp", Drop),
    ];
    compare("without connections", &network(acls, DefaultPolicy::Allow), false);
}

#[test]
fn a_network_with_connections_does_the_same_in_open_vswitch() {
    use AclAction::{Allow, AllowRelated, Drop};
    let acls = vec![
        acl(AclDirection::FromLport, 1000, "ip && tcp.dst == 22", Drop),
        acl(AclDirection::FromLport, 900, "ip", AllowRelated),
        acl(AclDirection::ToLport, 1000, "tcp.dst == {80, 443}", AllowRelated),
        acl(AclDirection::ToLport, 900, "outport == \"w3\" && udp", AllowRelated),
        acl(AclDirection::ToLport, 800, "icmp4 && ip4.src == 10.0.0.1", Allow),
        acl(AclDirection::ToLport, 800, "icmp6 && outport == \"w4\"", AllowRelated),
    ];
    compare("with connections", &network(acls, DefaultPolicy::Drop), true);
}
