//! A host's switch and its responder together: what workloads see.

mod checks;
mod multicast;
mod relay;
mod services;

use std::{collections::BTreeMap, sync::Arc};

use flowtable::{
    build::{self, Host as End, packet},
    field::Field,
    key::FlowKey,
    packet::Packet,
    parse::parse,
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, GroupChange, MeterChange, Tables},
    types::{Epoch, MacAddr, PortNo, Priority},
};
use ovn_northd_lite::{
    LocalPorts, compile,
    key::{DatapathKey, PortKey},
    lower,
    model::{
        Acl, AclAction, AclDirection, AclLog, IpNetwork, LogicalRouter, LogicalSwitch, NextHop, Northbound,
        PortAddresses, RouteMatch, RouteTarget, RouterPort, Severity, StaticRoute, SwitchPort,
        SwitchPortKind,
    },
    neighbour_rules,
};

use super::*;

/// Workloads `a` (10.0.0.5) and `c` (10.0.9.5), each on a switch of its own; routers `r1`
/// and `r2` between them, joined by a switch. `c`'s port takes frames to anybody.
fn network() -> Northbound {
    let mut nb = Northbound::default();
    let port = |key, kind| SwitchPort {
        key: PortKey::new(key).unwrap(),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    };
    let workload = |last: u8, ips: &[&str], unknown| SwitchPortKind::Workload {
        addresses: vec![PortAddresses {
            mac: mac(last),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        }],
        unknown,
        port_security: Vec::new(),
        chassis: Some("h1".to_owned()),
        additional: Default::default(),
        access: Default::default(),
    };
    let to_router = |router: &str, port: &str| SwitchPortKind::Router {
        router: router.to_owned(),
        port: port.to_owned(),
    };
    let mut switch = |id: &str, key, ports: Vec<(&str, SwitchPortKind)>| {
        let ports = (1..).zip(ports).map(|(key, (id, kind))| (id.to_owned(), port(key, kind)));
        let switch = LogicalSwitch {
            key: DatapathKey::new(key).unwrap(),
            ports: ports.collect(),
            acls: Default::default(),
            default_policy: Default::default(),
            qos_rules: Default::default(),
            load_balancers: Default::default(),
            balancer_groups: Default::default(),
            services: Default::default(),
            options: Default::default(),
        };
        nb.switches.insert(id.to_owned(), switch);
    };
    let near =
        [("a", workload(5, &["10.0.0.5", "2001:db8::5"], false)), ("near-r", to_router("r1", "r1-near"))];
    switch("near", 1, near.into());
    switch("join", 2, vec![("join-1", to_router("r1", "r1-join")), ("join-2", to_router("r2", "r2-join"))]);
    let far = [("c", workload(9, &[], true)), ("far-r", to_router("r2", "r2-far"))];
    switch("far", 3, far.into());
    let mut router = |id: &str, key, ports: Vec<(&str, u8, Vec<&str>)>, routes: &[(&str, &str)]| {
        let port = |(key, (id, last, networks)): (u16, (&str, u8, Vec<&str>))| {
            let networks = networks.into_iter().map(prefix).collect();
            let key = PortKey::new(key).unwrap();
            let (gateway, advertisement, static_macs, mtu, route_table) = Default::default();
            let port = RouterPort {
                key,
                mac: mac(last),
                networks,
                enabled: true,
                gateway,
                advertisement,
                static_macs,
                mtu,
                mtu_bypass: String::new(),
                route_table,
                hears_all: false,
                monitored: Default::default(),
                resides: false,
                bridges: false,
                dhcp_server: None,
            };
            (id.to_owned(), port)
        };
        let route = |(to, via): &(&str, &str)| StaticRoute {
            prefix: prefix(to),
            by: RouteMatch::Destination,
            target: RouteTarget::Via(NextHop { ip: via.parse().unwrap(), output_port: None }),
            symmetric: false,
            table: String::new(),
            hash_fields: Vec::new(),
            monitored: false,
            overrides: false,
        };
        let router = LogicalRouter {
            key: DatapathKey::new(key).unwrap(),
            enabled: true,
            ports: (1..).zip(ports).map(port).collect(),
            static_routes: routes.iter().map(route).collect(),
            chassis: None,
            policies: Default::default(),
            nats: Default::default(),
            load_balancers: Default::default(),
            balancer_groups: Default::default(),
            limits: None,
            options: Default::default(),
        };
        nb.routers.insert(id.to_owned(), router);
    };
    let near = ("r1-near", 0xf1, vec!["10.0.0.1/24", "2001:db8::1/64"]);
    let join = ("r1-join", 0xf2, vec!["10.0.5.1/24", "2001:db8:5::1/64"]);
    router("r1", 11, vec![near, join], &[("10.0.9.0/24", "10.0.5.2"), ("2001:db8:9::/64", "2001:db8:5::2")]);
    let far = ("r2-far", 0xf4, vec!["10.0.9.1/24", "2001:db8:9::1/64"]);
    let join = ("r2-join", 0xf3, vec!["10.0.5.2/24", "2001:db8:5::2/64"]);
    router("r2", 12, vec![join, far], &[("10.0.0.0/24", "10.0.5.1"), ("2001:db8::/64", "2001:db8:5::1")]);
    nb
}

fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x0a, 0, 0, 0, 0, last])
}

fn prefix(text: &str) -> IpNetwork {
    let (addr, len) = text.split_once('/').unwrap();
    IpNetwork { addr: addr.parse().unwrap(), prefix_len: len.parse().unwrap() }
}

const A: u32 = 1;
const C: u32 = 2;

/// A host: its switch and its responder.
struct Net {
    switch: Switch,
    snapshot: Arc<Snapshot>,
    responder: Responder,
    lines: Vec<Line>,
    /// What is known of backends.
    health: Vec<Health>,
    /// Who hears groups, as it changed.
    hearers: Vec<Hearers>,
    /// Packets that were given up, and their bytes.
    given_up: (usize, usize),
    now: Timestamp,
    n_sent: u64,
}

#[derive(Default)]
struct Collect(Vec<(u32, Vec<u8>)>);

impl Sink<Vec<u8>> for Collect {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.0.push((port.get(), packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        let mut copy = build::packet(packet.bytes(), packet.in_port);
        (copy.layout, copy.offload) = (packet.layout, packet.offload);
        Some(copy)
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {}
}

impl Net {
    fn new() -> Self {
        Self::of(&network())
    }

    fn of(nb: &Northbound) -> Self {
        let number = |raw| PortNo::new(raw).unwrap();
        let sb = compile(nb, &BTreeMap::new());
        let ports = [("a".to_owned(), number(A)), ("c".to_owned(), number(C))].into();
        let lowered = lower(&sb, &LocalPorts { chassis: "h1".to_owned(), ports, ..LocalPorts::default() });
        assert_eq!(lowered.errors, []);
        let meters = lowered.meters.into_iter().map(|meter| Change::Meter(MeterChange::Add(meter)));
        let groups = lowered.groups.into_iter().map(|group| Change::Group(GroupChange::Add(group)));
        let rules = lowered.rules.into_iter().map(Change::Add);
        let tables = Tables::default().transact(meters.chain(groups).chain(rules).collect()).unwrap();
        let mut table = PortTable::default();
        for (raw, name) in [(A, "a"), (C, "c")] {
            let info = PortInfo {
                name: name.to_owned(),
                role: PortRole::Workload,
                up: true,
                mtu: 1500,
                partial_checksums: false,
            };
            table.insert(number(raw), info);
        }
        let snapshot = Snapshot {
            epoch: Epoch::ZERO.next(),
            tables: Arc::new(tables),
            ports: Arc::new(table),
            ..Snapshot::default()
        };
        let mut responder = Responder::default();
        responder.set_names(&sb);
        Self {
            switch: Switch::with_seed(SwitchConfig::default(), 1),
            snapshot: Arc::new(snapshot),
            responder,
            lines: Vec::new(),
            health: Vec::new(),
            hearers: Vec::new(),
            given_up: (0, 0),
            now: Timestamp::from_nanos(1_000_000_000),
            n_sent: 0,
        }
    }

    /// A workload sends; what leaves until nothing more happens.
    fn send(&mut self, port: u32, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.now = Timestamp::from_nanos(self.now.nanos() + 50_000_000);
        let mut sink = Collect::default();
        let port = PortNo::new(port).unwrap();
        self.n_sent += 1;
        self.switch.process(self.now, &self.snapshot, port, &mut vec![packet(frame, port)], &mut sink);
        self.settle(&mut sink);
        let counters = self.switch.counters();
        let dropped: u64 = self
            .switch
            .drops()
            .iter()
            .filter(|drop| drop.in_port != PortNo::CONTROLLER)
            .map(|drop| drop.n_packets)
            .sum();
        assert_eq!(counters.n_packets, self.n_sent);
        assert_eq!(counters.n_packets, counters.n_forwarded + dropped, "{:?}", self.switch.drops());
        sink.0
    }

    fn settle(&mut self, sink: &mut Collect) {
        for _ in 0..10 {
            for packet_in in self.switch.take_packet_ins() {
                let effects = self.responder.answer(self.now, &packet_in);
                self.apply(effects, sink);
            }
        }
        assert!(self.switch.take_packet_ins().is_empty(), "it never ends");
    }

    fn apply(&mut self, effects: Vec<Effect>, sink: &mut Collect) {
        for effect in effects {
            match effect {
                Effect::Health(known) => self.health = known,
                Effect::Hears(hearers) => self.hearers.push(hearers),
                Effect::Hold(hold) => panic!("there are no virtual ports: {hold:?}"),
                Effect::Activate(port) => panic!("nobody moves: {port:?}"),
                Effect::Learn(learned) => self.change(neighbour_rules(&learned).map(Change::Add)),
                Effect::Forget(learned) => {
                    self.change(neighbour_rules(&learned).map(|rule| Change::DeleteStrict {
                        table: rule.table,
                        priority: rule.priority,
                        matching: rule.matching,
                    }));
                }
                Effect::Log(line) => self.lines.push(line),
                Effect::GiveUp { n_bytes, .. } => {
                    self.given_up = (self.given_up.0 + 1, self.given_up.1 + n_bytes);
                }
                Effect::Send(PacketOut { in_port, actions, frame }) => {
                    let packet = packet(&frame, in_port);
                    let sent = (in_port, actions);
                    self.switch.packet_out(self.now, &self.snapshot, sent, packet, sink).unwrap();
                }
            }
        }
    }

    fn change(&mut self, changes: [Change; 3]) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.tables = Arc::new(snapshot.tables.transact(changes.into()).unwrap());
        snapshot.epoch = snapshot.epoch.next();
    }
}

fn end(last: u8, ip: &str, port: u16) -> End {
    End { mac: mac(last), ip: ip.parse().unwrap(), port }
}

fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] = ttl;
        return frame;
    }
    frame[22] = ttl;
    frame[24..26].fill(0);
    let sum = flowtable::checksum::of(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
}

fn key(frame: &[u8]) -> FlowKey {
    let mut key = FlowKey::zero();
    parse(&mut packet(frame, PortNo::new(1).unwrap()), &mut key).unwrap();
    key
}

fn v4(text: &str) -> u128 {
    u32::from(text.parse::<std::net::Ipv4Addr>().unwrap()).into()
}

fn v6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

/// Checksums of IP header and payload are right.
fn check_sums(frame: &[u8]) {
    let key = key(frame);
    if key.eth_type.get() == 0x0800 {
        assert_eq!(flowtable::checksum::of(&frame[14..34]), 0, "IP header");
        if key.nw_proto == 1 {
            assert_eq!(flowtable::checksum::of(&frame[34..]), 0, "ICMP");
        }
        return;
    }
    let payload = &frame[54..];
    let pseudo = flowtable::checksum::pseudo_ipv6(
        key.get(Field::Ipv6Src),
        key.get(Field::Ipv6Dst),
        key.nw_proto,
        payload.len(),
    );
    assert_eq!(pseudo.bytes(payload).checksum(), 0, "ICMPv6");
}

#[test]
fn a_traceroute_sees_both_routers_and_the_end() {
    let mut net = Net::new();
    for (ttl, router) in [(1, "10.0.0.1"), (2, "10.0.5.2")] {
        let probe = build::udp(&end(5, "10.0.0.5", 40000), &end(0xf1, "10.0.9.77", 33434), b"probe");
        let sent = net.send(A, &with_ttl(probe.clone(), ttl));
        let [(A, error)] = &sent[..] else { panic!("ttl {ttl}: {sent:?} {:?}", net.switch.drops()) };
        let key = key(error);
        assert_eq!((key.get(Field::NwSrc), key.get(Field::NwDst)), (v4(router), v4("10.0.0.5")));
        assert_eq!((key.get(Field::IcmpType), key.get(Field::IcmpCode)), (11, 0));
        check_sums(error);
        assert_eq!(
            error[42..][..12],
            with_ttl(probe, 1)[14..][..12].to_vec()[..],
            "quotes the packet as it came to the router"
        );
    }
    // The end is an address of the second router: nobody listens there.
    let probe = build::udp(&end(5, "10.0.0.5", 40000), &end(0xf1, "10.0.9.1", 33434), b"probe");
    let sent = net.send(A, &with_ttl(probe, 9));
    let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
    let key = key(error);
    assert_eq!(key.get(Field::NwSrc), v4("10.0.9.1"));
    assert_eq!((key.get(Field::IcmpType), key.get(Field::IcmpCode)), (3, 3));
    check_sums(error);
}

#[test]
fn a_traceroute_of_ipv6_too() {
    let mut net = Net::new();
    for (ttl, router, to, kind) in [
        (1, "2001:db8::1", "2001:db8:9::77", (3, 0)),
        (2, "2001:db8:5::2", "2001:db8:9::77", (3, 0)),
        (9, "2001:db8:9::1", "2001:db8:9::1", (1, 4)),
    ] {
        let probe = build::udp(&end(5, "2001:db8::5", 40000), &end(0xf1, to, 33434), b"probe");
        let sent = net.send(A, &with_ttl(probe, ttl));
        let [(A, error)] = &sent[..] else { panic!("ttl {ttl}: {sent:?} {:?}", net.switch.drops()) };
        let key = key(error);
        assert_eq!((key.get(Field::Ipv6Src), key.get(Field::Ipv6Dst)), (v6(router), v6("2001:db8::5")));
        assert_eq!((key.get(Field::Icmpv6Type), key.get(Field::Icmpv6Code)), kind);
        check_sums(error);
    }
}

#[test]
fn no_route_is_told_and_errors_are_never_answered() {
    let mut net = Net::new();
    let sent = net.send(A, &build::udp(&end(5, "10.0.0.5", 1), &end(0xf1, "8.8.8.8", 53), b""));
    let [(A, error)] = &sent[..] else { panic!("{sent:?}") };
    let told = key(error);
    assert_eq!((told.get(Field::IcmpType), told.get(Field::IcmpCode)), (3, 0));
    // The same error, sent to nowhere and to the router: silence.
    for target in ["8.8.8.8", "10.0.0.1"] {
        let mut about = error.clone();
        about[..6].copy_from_slice(&mac(0xf1).octets());
        about[6..12].copy_from_slice(&mac(5).octets());
        about[26..30].copy_from_slice(&[10, 0, 0, 5]);
        about[30..34].copy_from_slice(&target.parse::<std::net::Ipv4Addr>().unwrap().octets());
        assert_eq!(net.send(A, &with_ttl(about, 64)), [], "{target}");
    }
}

#[test]
fn a_connection_to_the_router_is_reset() {
    let mut net = Net::new();
    for (from, to, header) in [("10.0.0.5", "10.0.0.1", 34), ("2001:db8::5", "2001:db8::1", 54)] {
        let mut syn = build::tcp(&end(5, from, 4000), &end(0xf1, to, 22), 2, b"");
        syn[header + 4..header + 8].copy_from_slice(&77_u32.to_be_bytes());
        let sent = net.send(A, &syn);
        let [(A, reset)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
        assert_eq!(
            reset[header..header + 12],
            [0, 22, 4000_u16.to_be_bytes()[0], 4000_u16.to_be_bytes()[1], 0, 0, 0, 0, 0, 0, 0, 78]
        );
        assert_eq!(reset[header + 13], 0x14, "RST and ACK");
        if header == 54 {
            check_sums(reset);
        }
        // A reset is not answered.
        syn[header + 13] = 4;
        assert_eq!(net.send(A, &syn), []);
    }
}

#[test]
fn packets_wait_for_a_neighbour_and_leave_in_order() {
    let mut net = Net::new();
    let data = |n: u8| build::udp(&end(5, "10.0.0.5", 4000), &end(0xf1, "10.0.9.77", 53), &[n]);
    let sent = net.send(A, &data(0));
    let [(C, question)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    let asked = key(question);
    for (field, value) in [
        (Field::EthDst, 0xffff_ffff_ffff),
        (Field::EthSrc, 0x0a00_0000_00f4),
        (Field::ArpOp, 1),
        (Field::ArpSha, 0x0a00_0000_00f4),
        (Field::ArpSpa, v4("10.0.9.1")),
        (Field::ArpTpa, v4("10.0.9.77")),
    ] {
        assert_eq!(asked.get(field), value, "{field}");
    }
    // Within a second nobody asks again; more than the queue holds pushes the oldest out.
    for n in 1..18 {
        assert_eq!(net.send(A, &data(n)), [], "{n}");
    }
    assert_eq!(net.given_up, (2, 2 * data(0).len()));
    let answer = build::arp(2, &end(0x77, "10.0.9.77", 0), &end(0xf4, "10.0.9.1", 0));
    let sent = net.send(C, &answer);
    let released: Vec<_> =
        sent.iter().map(|(port, frame)| (*port, key(frame).get(Field::EthDst), frame[42])).collect();
    assert_eq!(released, (2..18).map(|n| (C, 0x0a00_0000_0077, n)).collect::<Vec<_>>());
    // From now on the switch knows.
    let sent = net.send(A, &data(99));
    assert_eq!((sent[0].0, key(&sent[0].1).get(Field::EthDst)), (C, 0x0a00_0000_0077));
    assert_eq!(key(&sent[0].1).get(Field::NwTtl), 62);
    // It moves to another address: so do packets.
    net.send(C, &build::arp(2, &end(0x78, "10.0.9.77", 0), &end(0xf4, "10.0.9.1", 0)));
    assert_eq!(key(&net.send(A, &data(1))[0].1).get(Field::EthDst), 0x0a00_0000_0078);
    // Who is known is followed when it asks for somebody else, or for itself; others are not remembered.
    let asks = |last: u8, own: &str, other: &str| build::arp(1, &end(last, own, 0), &end(0, other, 0));
    for (last, other) in [(0x79, "10.0.9.9"), (0x7a, "10.0.9.77")] {
        net.send(C, &asks(last, "10.0.9.77", other));
        let found = key(&net.send(A, &data(1))[0].1).get(Field::EthDst);
        assert_eq!(found, 0x0a00_0000_0000 | u128::from(last));
    }
    assert_eq!(net.responder.take_heard().len(), 4);
    net.send(C, &asks(0x7b, "10.0.9.88", "10.0.9.9"));
    assert_eq!(net.responder.take_heard(), []);
    // After five minutes the router asks again.
    net.now = Timestamp::from_nanos(net.now.nanos() + 301_000_000_000);
    let effects = net.responder.tick(net.now);
    net.apply(effects, &mut Collect::default());
    let sent = net.send(A, &data(1));
    assert_eq!(key(&sent[0].1).get(Field::ArpOp), 1);
    // Nobody answers; what waits is given up, and counted once.
    for (seconds, n_given_up) in [(2, 2), (3, 3), (9, 3)] {
        let effects = net.responder.tick(Timestamp::from_nanos(net.now.nanos() + seconds * 1_000_000_000));
        net.apply(effects, &mut Collect::default());
        assert_eq!(net.given_up.0, n_given_up, "after {seconds} s");
    }
}

#[test]
fn neighbours_of_ipv6_are_solicited() {
    let mut net = Net::new();
    let data = build::udp(&end(5, "2001:db8::5", 4000), &end(0xf1, "2001:db8:9::77", 53), b"x");
    let sent = net.send(A, &data);
    let [(C, question)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    check_sums(question);
    let asked = key(question);
    for (field, value) in [
        (Field::EthDst, 0x3333_ff00_0077),
        (Field::EthSrc, 0x0a00_0000_00f4),
        (Field::Ipv6Src, v6("2001:db8:9::1")),
        (Field::Ipv6Dst, v6("ff02::1:ff00:77")),
        (Field::NwTtl, 255),
        (Field::Icmpv6Type, 135),
        (Field::NdTarget, v6("2001:db8:9::77")),
        (Field::NdSll, 0x0a00_0000_00f4),
    ] {
        assert_eq!(asked.get(field), value, "{field}");
    }
    let mut answer = FlowKey::zero();
    for (field, value) in [
        (Field::EthDst, 0x0a00_0000_00f4),
        (Field::EthSrc, 0x0a00_0000_0077),
        (Field::EthType, 0x86dd),
        (Field::Ipv6Src, v6("2001:db8:9::77")),
        (Field::Ipv6Dst, v6("2001:db8:9::1")),
        (Field::NwProto, 58),
        (Field::NwTtl, 255),
        (Field::Icmpv6Type, 136),
        (Field::NdTarget, v6("2001:db8:9::77")),
        (Field::NdOptionsType, 2),
        (Field::NdTll, 0x0a00_0000_0077),
    ] {
        answer.set(field, value);
    }
    let sent = net.send(C, &build::frame_from_key(&answer, 0));
    let [(C, released)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    assert_eq!(key(released).get(Field::EthDst), 0x0a00_0000_0077);
    assert_eq!(key(released).get(Field::Ipv6Dst), v6("2001:db8:9::77"));
}

#[test]
fn errors_are_bounded_in_rate() {
    let mut net = Net::new();
    let probe = build::udp(&end(5, "10.0.0.5", 1), &end(0xf1, "8.8.8.8", 53), b"");
    let port = PortNo::new(A).unwrap();
    let mut batch: Vec<_> = (0..500).map(|_| packet(&probe, port)).collect();
    let mut sink = Collect::default();
    net.switch.process(net.now, &net.snapshot, port, &mut batch, &mut sink);
    net.settle(&mut sink);
    assert_eq!(sink.0.len(), 25, "a port's part of the burst, and no more");
}

#[test]
fn whatever_comes_does_not_panic() {
    let mut net = Net::new();
    let mut found = Vec::new();
    for frame in [
        build::udp(&end(5, "10.0.0.5", 1), &end(0xf1, "8.8.8.8", 53), b"xyz"),
        build::tcp(&end(5, "10.0.0.5", 1), &end(0xf1, "10.0.0.1", 53), 2, b"xyz"),
        build::tcp(&end(5, "2001:db8::5", 1), &end(0xf1, "2001:db8::1", 53), 2, b"xyz"),
        build::udp(&end(5, "2001:db8::5", 1), &end(0xf1, "2001:db8::1", 53), b"xyz"),
        build::udp(&end(5, "10.0.0.5", 1), &end(0xf1, "10.0.9.77", 53), b"xyz"),
    ] {
        let port = PortNo::new(A).unwrap();
        net.switch.process(
            net.now,
            &net.snapshot,
            port,
            &mut vec![packet(&frame, port)],
            &mut Collect::default(),
        );
        found.extend(net.switch.take_packet_ins());
    }
    assert_eq!(found.len(), 5);
    let mut responder = Responder::default();
    for packet_in in found {
        for len in 0..packet_in.bytes.len() {
            let mut cut = packet_in.clone();
            cut.bytes.truncate(len);
            responder.answer(net.now, &cut);
        }
        for at in 0..packet_in.bytes.len() {
            for bit in 0..8 {
                let mut flipped = packet_in.clone();
                flipped.bytes[at] ^= 1 << bit;
                for effect in responder.answer(net.now, &flipped) {
                    let Effect::Send(PacketOut { in_port, actions, frame }) = effect else { continue };
                    let sent = (in_port, actions);
                    let mut sink = Collect::default();
                    // It may be refused.
                    let _ = net.switch.packet_out(
                        net.now,
                        &net.snapshot,
                        sent,
                        packet(&frame, in_port),
                        &mut sink,
                    );
                }
            }
        }
    }
}

/// The network with these ACLs on the switch of `c`.
fn guarded(acls: &[(&str, AclDirection, &str, AclAction)]) -> Northbound {
    let mut nb = network();
    let far = nb.switches.get_mut("far").unwrap();
    for (priority, (id, direction, matching, action)) in (10..).zip(acls) {
        let log =
            Some(AclLog { name: String::new(), severity: Severity::Notice, rate: None, related: false });
        let acl = Acl {
            direction: *direction,
            tier: 0,
            priority: Priority::new(priority).unwrap(),
            matching: (*matching).to_owned(),
            action: *action,
            label: 0,
            log,
            after_lb: false,
            persists: false,
            samples: Default::default(),
        };
        far.acls.insert((*id).to_owned(), acl);
    }
    nb
}

#[test]
fn a_rejected_packet_has_an_answer_and_a_line_in_the_log() {
    let reject = AclAction::Reject;
    let mut net = Net::of(&guarded(&[
        ("no-web", AclDirection::ToLport, "outport == \"c\" && tcp.dst == 80", reject),
        ("no-dns", AclDirection::FromLport, "inport == \"c\" && udp.dst == 53", reject),
        ("related", AclDirection::ToLport, "outport == \"c\" && tcp.dst == 22", AclAction::AllowRelated),
    ]));
    // `c` is known to the router when it has said something.
    let c = |port| end(9, "10.0.9.5", port);
    net.send(C, &build::arp(1, &c(0), &end(0xf4, "10.0.9.1", 0)));
    // To a port of `c`: the answer comes back through both routers, from `c` itself.
    let (near, far) = (end(5, "10.0.0.5", 4000), End { mac: mac(0xf1), ..c(80) });
    let sent = net.send(A, &build::tcp(&near, &far, 2, b""));
    let [(A, reset)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    check_sums(reset);
    let seen = [Field::NwSrc, Field::NwDst, Field::TcpSrc, Field::TcpDst, Field::TcpFlags];
    let seen: Vec<_> = seen.iter().map(|field| key(reset).get(*field)).collect();
    assert_eq!(seen, [v4("10.0.9.5"), v4("10.0.0.5"), 80, 4000, 0x14]);
    // From `c`: it is told at once, and by whom it meant.
    let sent = net.send(C, &build::udp(&c(4000), &End { mac: mac(0xf4), ..end(5, "10.0.0.5", 53) }, b"?"));
    let [(C, error)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    check_sums(error);
    let seen = [Field::NwSrc, Field::NwDst, Field::NwProto, Field::IcmpType, Field::IcmpCode];
    let seen: Vec<_> = seen.iter().map(|field| key(error).get(*field)).collect();
    assert_eq!(seen, [v4("10.0.0.5"), v4("10.0.9.5"), 1, 3, 3]);

    let [first, second] = &net.lines[..] else { panic!("{:?}", net.lines) };
    assert_eq!((first.acl.as_str(), first.verdict.name()), ("switches/far/acls/no-web", "reject"));
    assert_eq!((second.acl.as_str(), second.severity), ("switches/far/acls/no-dns", Severity::Notice));
    assert!(second.packet.contains("nw_dst=10.0.0.5") && second.packet.contains("53"), "{}", second.packet);
}

#[test]
fn who_sends_too_much_at_once_is_told_how_much_may_be_sent() {
    let mut nb = network();
    nb.routers.get_mut("r1").unwrap().ports.get_mut("r1-join").unwrap().mtu = Some(1300);
    let mut net = Net::of(&nb);
    let datagram = |from: &str, to: &str, len: usize| {
        let headers = if from.contains(':') { 48 } else { 28 };
        build::udp(&end(5, from, 4000), &end(0xf1, to, 53), &vec![0; len - headers])
    };
    for (from, to) in [("10.0.0.5", "10.0.9.5"), ("2001:db8::5", "2001:db8:9::5")] {
        // As large as may be it goes on: its next hop is asked for.
        let sent = net.send(A, &datagram(from, to, 1300));
        assert!(!sent.is_empty() && sent.iter().all(|(port, _)| *port == C), "{sent:?}");
        let sent = net.send(A, &datagram(from, to, 1301));
        let [(A, error)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
        check_sums(error);
        let seen = key(error);
        let (fields, wanted, mtu) = if from.contains(':') {
            let fields = [Field::Ipv6Src, Field::Ipv6Dst, Field::Icmpv6Type, Field::Icmpv6Code];
            (fields, [v6("2001:db8::1"), v6(from), 2, 0], 58)
        } else {
            let fields = [Field::NwSrc, Field::NwDst, Field::IcmpType, Field::IcmpCode];
            (fields, [v4("10.0.0.1"), v4(from), 3, 4], 38)
        };
        assert_eq!(fields.map(|field| seen.get(field)), wanted);
        assert_eq!(error[mtu..mtu + 4], [0, 0, 0x05, 0x14], "RFC 1191 §4, RFC 4443 §3.2");
    }
    // Nobody is told about a later fragment.
    let mut silent = datagram("10.0.0.5", "10.0.9.5", 1301);
    silent[21] = 1;
    silent[24..26].fill(0);
    let sum = flowtable::checksum::of(&silent[14..34]).to_be_bytes();
    silent[24..26].copy_from_slice(&sum);
    assert_eq!(net.send(A, &silent), []);
    let dropped = net.switch.drops().into_iter().filter_map(|drop| drop.rule);
    assert!(dropped.into_iter().any(|rule| rule.origin.object == "routers/r1/ports/r1-join"));
}
