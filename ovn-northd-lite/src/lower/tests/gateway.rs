//! Networks outside, and gateways that several hosts may be.

use flowtable::{
    build::{self, Host as End},
    field::Field,
    types::{MacAddr, VlanId},
};

use super::{
    fabric::{Fabric, Sent, fields, key, tcp},
    hw, ip,
};
use crate::{
    chassis_view, compile,
    fixture::*,
    lower::{LocalPorts, chassis_of, is_resident, lower},
    model::{Access, Candidate, Distributed, NatKind, Northbound, SwitchPort, SwitchPortKind},
};

fn end(last: u8, ip: &str, port: u16) -> End {
    End { mac: mac(last), ip: ip.parse().unwrap(), port }
}

/// Who has the address?
fn question(from: &End, address: &str) -> Vec<u8> {
    build::arp(1, from, &End { mac: MacAddr::BROADCAST, ip: address.parse().unwrap(), port: 0 })
}

fn candidates(list: &[(&str, u16)]) -> Vec<Candidate> {
    let one =
        |(chassis, priority): &(&str, u16)| Candidate { priority: *priority, chassis: (*chassis).to_owned() };
    Candidate::ranked(list.iter().map(one).collect())
}

fn network(key: u16, tag: Option<u16>) -> SwitchPort {
    let tag = tag.map(|tag| VlanId::new(tag).unwrap());
    let kind = SwitchPortKind::Network {
        network: "net".to_owned(),
        tag,
        is_service: false,
        gateway: Default::default(),
    };
    SwitchPort {
        key: port_key(key),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

/// `small`, with the router's port `r-ext` on a switch with a network outside.
fn with_gateway(tag: Option<u16>, gateway: &[(&str, u16)]) -> Northbound {
    let mut nb = small();
    let mut ext = switch(4);
    ext.ports.insert("ext-net".into(), network(1, tag));
    ext.ports.insert("ext-r".into(), to_router(2, "r", "r-ext"));
    nb.switches.insert("ext".into(), ext);
    let r = nb.routers.get_mut("r").unwrap();
    let mut port = router_port(3, 0xf2, &["203.0.113.1/24"]);
    port.gateway = candidates(gateway).into();
    r.ports.insert("r-ext".into(), port);
    r.nats.insert("out".into(), nat(NatKind::Source, "203.0.113.1", "10.0.0.0/16"));
    nb
}

/// Outside somebody is known to each host's router: a port of a host that is not here.
fn with_neighbour(mut nb: Northbound) -> Northbound {
    let far = workload(9, 0x25, &["203.0.113.9"], "far-away");
    nb.switches.get_mut("ext").unwrap().ports.insert("far".into(), far);
    nb
}

/// One frame left, by this port.
fn one(sent: &[Sent], by: &str, fabric: &Fabric) -> Vec<u8> {
    let [(port, frame)] = sent else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!(port, by);
    frame.clone()
}

#[test]
fn ports_of_a_network_outside_reach_each_other_by_it_and_it_gets_no_frame_twice() {
    for tag in [None, Some(100)] {
        let mut nb = small();
        nb.switches.get_mut("web").unwrap().ports.insert("web-net".into(), network(9, tag));
        nb.routers.clear();
        let mut fabric = Fabric::new(&nb);
        let (a, b) = (end(0x05, "10.0.0.5", 1), end(0x06, "10.0.0.6", 2));
        let frame = one(&fabric.send("a", &build::udp(&a, &b, b"x")), "net", &fabric);
        let tci = tag.map_or(0, |tag| 0x1000 | u128::from(tag));
        assert_eq!(key(&frame).get(Field::VlanTci), tci, "it goes by the network, not by a tunnel");
        let got = one(&fabric.deliver("h2", &frame), "b", &fabric);
        assert_eq!(key(&got).get(Field::VlanTci), 0);
        // The same frame, flooded by the network, reaches the other host as well: it stays there.
        assert_eq!(fabric.deliver("h1", &frame), [], "it is for a port that the network leads to");
        // To everybody: once to the network, from where it reaches the other host.
        let everybody = End { mac: MacAddr::BROADCAST, ..b };
        let frame = one(&fabric.send("a", &build::udp(&a, &everybody, b"x")), "net", &fabric);
        one(&fabric.deliver("h2", &frame), "b", &fabric);
        // Of another VLAN, or of none.
        let other = key(&frame).get(Field::VlanTci) == 0;
        let strange = if other {
            [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
        } else {
            build::udp(&a, &b, b"x")
        };
        assert_eq!(fabric.deliver("h2", &strange), []);
        // Whom nobody knows is outside.
        one(&fabric.send("a", &build::udp(&a, &end(0x77, "10.0.0.77", 2), b"x")), "net", &fabric);
        fabric.check_conservation();
    }
}

#[test]
fn packets_leave_by_the_best_gateway_that_lives() {
    let ranked = [("h1", 20), ("h2", 10)];
    let nb = with_neighbour(with_gateway(Some(7), &ranked));
    for (dead, gateway) in [(&[][..], "h1"), (&["h2"], "h1")] {
        let mut fabric = Fabric::with_dead(&nb, dead);
        // From both hosts; the answer is for who has asked.
        for (from, last, address) in [("a", 0x05, "10.0.0.5"), ("d", 0x16, "10.0.1.6")] {
            let inner_gateway = if from == "a" { 0xf0 } else { 0xf1 };
            let to = End { mac: mac(inner_gateway), ..end(0, "203.0.113.9", 53) };
            let sent = fabric.send(from, &build::udp(&end(last, address, 1000), &to, b"x"));
            let frame = one(&sent, "net", &fabric);
            let seen =
                fields(&frame, &[Field::EthSrc, Field::EthDst, Field::NwSrc, Field::NwTtl, Field::UdpSrc]);
            assert_eq!(seen[..3], [hw(0xf2), hw(0x25), ip("203.0.113.1")], "{from}");
            assert_eq!(seen[3], 63, "{from}: one hop, however many hosts it passed");
            let back =
                build::udp(&end(0x25, "203.0.113.9", 53), &end(0xf2, "203.0.113.1", seen[4] as u16), b"y");
            let back = [&back[..12], &[0x81, 0, 0, 7], &back[12..]].concat();
            let other = if gateway == "h1" { "h2" } else { "h1" };
            assert_eq!(fabric.deliver(other, &back), [], "the other one is no gateway");
            let got = one(&fabric.deliver(gateway, &back), from, &fabric);
            assert_eq!(fields(&got, &[Field::NwDst, Field::UdpDst]), [ip(address), 1000]);
        }
        fabric.check_conservation();
    }
}

#[test]
fn hosts_agree_on_the_gateway_and_who_is_asked_last_is_tried_first() {
    let nb = with_gateway(None, &[("h1", 10), ("h2", 20), ("h9", 99)]);
    let view = chassis_view(&compile(&nb, &hosts()), "h1");
    let active = |chassis: &str, down: &[&str]| {
        let down = down.iter().map(|id| (*id).to_owned()).collect();
        let local = LocalPorts { chassis: chassis.to_owned(), down, ..LocalPorts::default() };
        let binding = &view.bindings["cr:r-ext"];
        let found = chassis_of(&view, &local, binding).map(str::to_owned);
        assert_eq!(is_resident(&view, &local, "cr:r-ext"), found.as_deref() == Some(chassis));
        found.unwrap()
    };
    for chassis in ["h1", "h3"] {
        assert_eq!(active(chassis, &[]), "h2", "h9 is registered nowhere");
        assert_eq!(active(chassis, &["h2"]), "h1");
    }
    assert_eq!(active("h3", &["h1", "h2"]), "h2", "nobody seems to live: the best one is tried");
    assert_eq!(active("h1", &["h1", "h2"]), "h1", "oneself lives");
}

#[test]
fn a_host_that_could_be_the_gateway_is_its_own_when_it_sees_no_other() {
    let nb = with_neighbour(with_gateway(None, &[("h1", 20), ("h2", 10)]));
    let mut fabric = Fabric::with_dead(&nb, &["h1"]);
    let to = End { mac: mac(0xf1), ..end(0, "203.0.113.9", 53) };
    for (from, last, address) in [("c", 0x15, "10.0.1.5"), ("d", 0x16, "10.0.1.6")] {
        one(&fabric.send(from, &build::udp(&end(last, address, 1000), &to, b"x")), "net", &fabric);
    }
    assert_eq!(fabric.n_received("h1"), 1, "nothing went through a tunnel");
    fabric.check_conservation();
}

#[test]
fn a_floating_address_of_its_own_host_needs_no_gateway() {
    let mut nb = with_neighbour(with_gateway(None, &[("h1", 20)]));
    let mut rule = nat(NatKind::Both, "203.0.113.50", "10.0.1.6/32");
    rule.distributed = Some(Distributed { mac: mac(0x50), port: "d".into() });
    nb.routers.get_mut("r").unwrap().nats.insert("fip".into(), rule);
    let mut fabric = Fabric::new(&nb);
    // Its host answers for it, the gateway does not.
    let who = question(&end(0x25, "203.0.113.9", 0), "203.0.113.50");
    let answer = one(&fabric.deliver("h2", &who), "net", &fabric);
    assert_eq!(fields(&answer, &[Field::ArpOp, Field::ArpSha]), [2, hw(0x50)]);
    assert_eq!(fabric.deliver("h1", &who), []);
    // In, out again, and out on its own.
    let ask = build::udp(&end(0x25, "203.0.113.9", 53), &end(0x50, "203.0.113.50", 80), b"x");
    let got = one(&fabric.deliver("h2", &ask), "d", &fabric);
    assert_eq!(fields(&got, &[Field::NwDst]), [ip("10.0.1.6")]);
    let answer =
        build::udp(&end(0x16, "10.0.1.6", 80), &End { mac: mac(0xf1), ..end(0, "203.0.113.9", 53) }, b"y");
    let frame = one(&fabric.send("d", &answer), "net", &fabric);
    let seen = fields(&frame, &[Field::EthSrc, Field::NwSrc, Field::UdpSrc]);
    assert_eq!(seen, [hw(0x50), ip("203.0.113.50"), 80]);
    // Everybody else hides behind the gateway.
    let other =
        build::udp(&end(0x06, "10.0.0.6", 5), &End { mac: mac(0xf0), ..end(0, "203.0.113.9", 53) }, b"z");
    let frame = one(&fabric.send("b", &other), "net", &fabric);
    assert_eq!(fields(&frame, &[Field::EthSrc, Field::NwSrc]), [hw(0xf2), ip("203.0.113.1")]);
    fabric.check_conservation();
}

/// Somebody inside asks a floating address of `d`, and is answered by that.
fn reached_from_inside(nb: &Northbound, (from, last, address, inner): (&str, u8, &str, u8), hidden: &str) {
    let mut fabric = Fabric::new(nb);
    let to = End { mac: mac(inner), ..end(0, "203.0.113.50", 80) };
    let got = one(&fabric.send(from, &build::udp(&end(last, address, 1000), &to, b"x")), "d", &fabric);
    let seen = fields(&got, &[Field::NwSrc, Field::NwDst, Field::UdpSrc]);
    assert_eq!(seen[..2], [ip(hidden), ip("10.0.1.6")], "{from}");
    let back = End { mac: mac(0xf1), ..end(0, hidden, seen[2] as u16) };
    let got = one(&fabric.send("d", &build::udp(&end(0x16, "10.0.1.6", 80), &back, b"y")), from, &fabric);
    let seen = fields(&got, &[Field::NwSrc, Field::NwDst, Field::UdpSrc, Field::UdpDst]);
    assert_eq!(seen, [ip("203.0.113.50"), ip(address), 80, 1000], "{from}");
    fabric.check_conservation();
    assert_eq!(fabric.drops().len(), 0, "{:?}", fabric.drops());
}

#[test]
fn floating_addresses_are_reached_from_inside_and_answers_find_who_was_hidden() {
    let clients =
        [("a", 0x05, "10.0.0.5", 0xf0), ("c", 0x15, "10.0.1.5", 0xf1), ("b", 0x06, "10.0.0.6", 0xf0)];
    // The address that hides is the router's own, or another one.
    for hidden in ["203.0.113.1", "203.0.113.77"] {
        let mut nb = with_gateway(None, &[("h1", 20)]);
        let r = nb.routers.get_mut("r").unwrap();
        r.nats.insert("out".into(), nat(NatKind::Source, hidden, "10.0.0.0/16"));
        r.nats.insert("fip".into(), nat(NatKind::Both, "203.0.113.50", "10.0.1.6/32"));
        for client in clients {
            reached_from_inside(&nb, client, hidden);
        }
    }
}

#[test]
fn a_distributed_floating_address_is_reached_on_its_workloads_host() {
    let mut nb = with_gateway(None, &[("h2", 20)]);
    let mut rule = nat(NatKind::Both, "203.0.113.50", "10.0.1.6/32");
    rule.distributed = Some(Distributed { mac: mac(0x50), port: "d".into() });
    nb.routers.get_mut("r").unwrap().nats.insert("fip".into(), rule);
    for client in [("b", 0x06, "10.0.0.6", 0xf0), ("a", 0x05, "10.0.0.5", 0xf0)] {
        reached_from_inside(&nb, client, "203.0.113.1");
    }
}

#[test]
fn who_begins_a_connection_to_an_address_that_hides_others_is_dropped() {
    for hidden in ["203.0.113.1", "203.0.113.77"] {
        let mut nb = with_neighbour(with_gateway(None, &[("h1", 20)]));
        let r = nb.routers.get_mut("r").unwrap();
        r.nats.insert("out".into(), nat(NatKind::Source, hidden, "10.0.0.0/16"));
        let mut fabric = Fabric::new(&nb);
        let (outside, inside) = (end(0x25, "203.0.113.9", 53), end(0x05, "10.0.0.5", 1000));
        let to = |last| End { mac: mac(last), ..end(0, hidden, 80) };
        assert_eq!(fabric.deliver("h1", &build::udp(&outside, &to(0xf2), b"x")), []);
        assert_eq!(fabric.send("a", &build::udp(&inside, &to(0xf0), b"x")), []);
        let drops = fabric.drops();
        assert_eq!(drops.values().sum::<u64>(), 2, "and nobody asks who has the address: {drops:?}");
    }
}

#[test]
fn a_router_that_is_everywhere_is_not_seen_from_outside() {
    let mut nb = small();
    nb.switches.get_mut("web").unwrap().ports.insert("web-net".into(), network(9, None));
    let mut fabric = Fabric::new(&nb);
    let stranger = end(0x99, "10.0.0.99", 5);
    let who = question(&stranger, "10.0.0.1");
    assert_eq!(fabric.deliver("h1", &who), []);
    let through = build::udp(&stranger, &End { mac: mac(0xf0), ..end(0, "10.0.1.5", 7) }, b"x");
    assert_eq!(fabric.deliver("h2", &through), []);
    let drops = fabric.drops();
    assert_eq!(drops.get("ls_in_l2_lkup switches/web/ports/web-r"), Some(&2), "{drops:?}");
}

#[test]
fn containers_are_told_apart_by_their_tags() {
    let mut nb = small();
    let nested = |key, last: u8, address: &str, tag| {
        let mut port = workload(key, last, &[address], "h1");
        if let SwitchPortKind::Workload { access, .. } = &mut port.kind {
            let tag = VlanId::new(tag).unwrap();
            *access = Access::Nested { parent: "a".into(), tag };
        }
        port
    };
    let db = nb.switches.get_mut("db").unwrap();
    db.ports.insert("k1".into(), nested(11, 0x31, "10.0.1.31", 31));
    db.ports.insert("k2".into(), nested(12, 0x32, "10.0.1.32", 32));
    let mut fabric = Fabric::new(&nb);
    let tagged = |frame: Vec<u8>, tag: u8| [&frame[..12], &[0x81, 0, 0, tag], &frame[12..]].concat();
    let (k1, k2, d) = (end(0x31, "10.0.1.31", 1), end(0x32, "10.0.1.32", 2), end(0x16, "10.0.1.6", 3));
    // Both are behind one interface: the frame leaves by the one it came by, with another tag.
    let frame = one(&fabric.send("a", &tagged(build::udp(&k1, &k2, b"x"), 31)), "a", &fabric);
    assert_eq!(key(&frame).get(Field::VlanTci), 0x1020);
    let frame = one(&fabric.send("a", &tagged(build::udp(&k2, &d, b"x"), 32)), "d", &fabric);
    assert_eq!(key(&frame).get(Field::VlanTci), 0);
    let frame = one(&fabric.send("d", &build::udp(&d, &k1, b"x")), "a", &fabric);
    assert_eq!(key(&frame).get(Field::VlanTci), 0x101f);
    assert_eq!(fabric.send("a", &tagged(build::udp(&k1, &k2, b"x"), 33)), [], "nobody has the tag");
    fabric.check_conservation();
}

#[test]
fn a_missing_interface_to_a_network_is_told_where_it_is_needed() {
    let mut nb = small();
    nb.switches.get_mut("web").unwrap().ports.insert("web-net".into(), network(9, None));
    let sb = compile(&nb, &hosts());
    let local = LocalPorts { chassis: "h1".to_owned(), ..LocalPorts::default() };
    let errors = lower(&chassis_view(&sb, "h1"), &local).errors;
    let told: Vec<_> = errors.iter().filter(|error| error.object == "switches/web/ports/web-net").collect();
    assert_eq!(told.len(), 1, "{errors:?}");
    assert!(told[0].reason.contains("vswitchctl port add INTERFACE --network net"), "{}", told[0]);
}

/// A connection from outside to a service of the router; the client's next segment goes on.
fn served_from_outside(fabric: &mut Fabric, backend: &str, (last, address, inner): (u8, &str, u8)) {
    const SYN: u16 = 2;
    const ACK: u16 = 16;
    let client = end(0x25, "203.0.113.9", 4000 + u16::from(last));
    let service = end(0xf2, "203.0.113.80", 80);
    let got = one(&fabric.deliver("h1", &tcp(&client, &service, SYN, (100, 0), b"")), backend, fabric);
    assert_eq!(
        fields(&got, &[Field::NwSrc, Field::NwDst, Field::TcpDst]),
        [ip("203.0.113.9"), ip(address), 8080]
    );
    let (server, back) = (end(last, address, 8080), End { mac: mac(inner), ..client });
    let answer = tcp(&server, &back, SYN | ACK, (900, 101), b"");
    let frame = one(&fabric.send(backend, &answer), "net", fabric);
    let seen = [Field::EthSrc, Field::NwSrc, Field::TcpSrc, Field::TcpDst];
    assert_eq!(fields(&frame, &seen), [hw(0xf2), ip("203.0.113.80"), 80, client.port.into()]);
    let got = one(&fabric.deliver("h1", &tcp(&client, &service, ACK, (101, 901), b"x")), backend, fabric);
    assert_eq!(fields(&got, &[Field::NwDst]), [ip(address)]);
    // What is said later is not taken for a connection that begins inside.
    let later = tcp(&server, &back, ACK, (901, 102), b"hello");
    let frame = one(&fabric.send(backend, &later), "net", fabric);
    assert_eq!(fields(&frame, &[Field::NwSrc, Field::TcpSrc]), [ip("203.0.113.80"), 80]);
}

#[test]
fn services_of_a_gateways_router_are_reached_from_outside_wherever_they_are() {
    // The gateway hides sources inside, or does not.
    for hides in [true, false] {
        for (backend, last, address, inner) in [("c", 0x15, "10.0.1.5", 0xf1), ("b", 0x06, "10.0.0.6", 0xf0)]
        {
            let mut nb = with_neighbour(with_gateway(None, &[("h1", 20)]));
            nb.load_balancers.insert("lb".into(), balancer("203.0.113.80:80", &[&format!("{address}:8080")]));
            let r = nb.routers.get_mut("r").unwrap();
            r.load_balancers.insert("lb".into());
            if !hides {
                r.nats.clear();
            }
            let mut fabric = Fabric::new(&nb);
            let who = question(&end(0x25, "203.0.113.9", 0), "203.0.113.80");
            let answer = one(&fabric.deliver("h1", &who), "net", &fabric);
            assert_eq!(fields(&answer, &[Field::ArpOp, Field::ArpSha]), [2, hw(0xf2)]);
            served_from_outside(&mut fabric, backend, (last, address, inner));
            fabric.check_conservation();
            assert_eq!(fabric.drops().len(), 0, "{:?}", fabric.drops());
        }
    }
}

#[test]
fn packets_get_to_a_gateway_by_the_network_outside_where_that_is_asked_for() {
    let mut nb = with_neighbour(with_gateway(Some(7), &[("h1", 20)]));
    nb.routers.get_mut("r").unwrap().ports.get_mut("r-ext").unwrap().bridges = true;
    let mut fabric = Fabric::new(&nb);
    let to = |last| End { mac: mac(last), ..end(0, "203.0.113.9", 53) };
    let sent = fabric.send("d", &build::udp(&end(0x16, "10.0.1.6", 1000), &to(0xf1), b"x"));
    let frame = one(&sent, "net", &fabric);
    let seen = fields(&frame, &[Field::EthDst, Field::NwSrc, Field::NwTtl, Field::VlanTci]);
    assert_eq!(seen, [hw(0xf2), ip("10.0.1.6"), 64, 0x1007], "it is not routed yet");
    let by = key(&frame).get(Field::EthSrc);
    assert!(by != hw(0xf2) && by >> 40 == 0x0a, "a network must not see the gateway here: {by:012x}");
    assert_eq!(fabric.n_received("h1"), 0, "nothing went through a tunnel");
    // The network brings it to all hosts; the gateway routes it.
    assert_eq!(fabric.deliver("h2", &frame), []);
    let out = one(&fabric.deliver("h1", &frame), "net", &fabric);
    let seen = fields(&out, &[Field::EthSrc, Field::EthDst, Field::NwSrc, Field::NwTtl, Field::UdpSrc]);
    assert_eq!(seen[..4], [hw(0xf2), hw(0x25), ip("203.0.113.1"), 63]);
    let back = build::udp(&end(0x25, "203.0.113.9", 53), &end(0xf2, "203.0.113.1", seen[4] as u16), b"y");
    let back = [&back[..12], &[0x81, 0, 0, 7], &back[12..]].concat();
    let got = one(&fabric.deliver("h1", &back), "d", &fabric);
    assert_eq!(fields(&got, &[Field::NwDst, Field::UdpDst]), [ip("10.0.1.6"), 1000]);
    // Who is on the gateway's host needs no network for it.
    let sent = fabric.send("a", &build::udp(&end(0x05, "10.0.0.5", 1000), &to(0xf0), b"x"));
    assert_eq!(fields(&one(&sent, "net", &fabric), &[Field::EthSrc, Field::NwTtl]), [hw(0xf2), 63]);
    fabric.check_conservation();
}

#[test]
fn answers_without_a_memory_may_leave_by_another_gateway() {
    let mut nb = with_neighbour(with_gateway(None, &[("h1", 20)]));
    let mut ext = switch(5);
    ext.ports.insert("ext2-net".into(), network(1, Some(9)));
    ext.ports.insert("ext2-r".into(), to_router(2, "r", "r-ext2"));
    ext.ports.insert("far2".into(), workload(9, 0x26, &["203.0.114.9"], "far-away"));
    nb.switches.insert("ext2".into(), ext);
    let both = balancer("203.0.113.80:80", &["10.0.0.6:8080", "10.0.1.6:8081"]);
    nb.load_balancers.insert("lb".into(), both);
    let r = nb.routers.get_mut("r").unwrap();
    let mut port = router_port(4, 0xf3, &["203.0.114.1/24"]);
    port.gateway = candidates(&[("h2", 20)]).into();
    r.ports.insert("r-ext2".into(), port);
    r.nats.clear();
    r.load_balancers.insert("lb".into());
    r.static_routes.push(route("198.51.100.0/24", Some("203.0.114.9")));
    for stateless in [true, false] {
        nb.load_balancers.get_mut("lb").unwrap().stateless = stateless;
        let mut fabric = Fabric::new(&nb);
        let mut backends = std::collections::BTreeSet::new();
        for port in 4000..4020 {
            let client = end(0x25, "198.51.100.7", port);
            let service = end(0xf2, "203.0.113.80", 80);
            let mut first = None;
            for _ in 0..3 {
                let sent = fabric.deliver("h1", &build::tcp(&client, &service, 2, b""));
                let [(backend, got)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
                let seen = fields(got, &[Field::NwSrc, Field::NwDst, Field::TcpDst]);
                let (last, address, inner, at) = match backend.as_str() {
                    "b" => (0x06, "10.0.0.6", 0xf0, 8080),
                    _ => (0x16, "10.0.1.6", 0xf1, 8081),
                };
                assert_eq!(seen, [ip("198.51.100.7"), ip(address), at.into()]);
                assert_eq!(first.get_or_insert(backend.clone()), backend, "a connection has one backend");
                let back = End { mac: mac(inner), ..client };
                let sent = fabric.send(backend, &build::tcp(&end(last, address, at), &back, 18, b""));
                let frame = one(&sent, "net", &fabric);
                let seen = fields(&frame, &[Field::EthSrc, Field::NwSrc, Field::TcpSrc, Field::VlanTci]);
                let own = if stateless { (ip("203.0.113.80"), 80) } else { (ip(address), at.into()) };
                assert_eq!(seen, [hw(0xf3), own.0, own.1, 0x1009], "by the other gateway");
            }
            backends.extend(first);
        }
        assert_eq!(backends.len(), 2, "both backends serve");
        let n_known: usize = ["h1", "h2"].map(|id| fabric.connections(id).len()).iter().sum();
        assert_eq!(n_known > 0, !stateless, "somebody remembers");
        fabric.check_conservation();
    }
}

#[test]
fn a_gateway_remembers_what_it_does_not_translate_where_that_is_asked_for() {
    for commits_all in [false, true] {
        let mut nb = with_neighbour(with_gateway(None, &[("h1", 20)]));
        let r = nb.routers.get_mut("r").unwrap();
        r.options.commits_all = commits_all;
        r.options.snat_zone = Some(64_007);
        r.nats.clear();
        r.nats.insert("in".into(), nat(NatKind::Destination, "203.0.113.60", "10.0.0.6/32"));
        let mut fabric = Fabric::new(&nb);
        let far = |port| end(0x25, "203.0.113.9", port);
        for _ in 0..2 {
            // Begun inside, on both hosts; begun outside; and one that is translated.
            for (from, last, address, inner) in [("a", 0x05, "10.0.0.5", 0xf0), ("d", 0x16, "10.0.1.6", 0xf1)]
            {
                let to = End { mac: mac(inner), ..far(53) };
                one(&fabric.send(from, &build::udp(&end(last, address, 7), &to, b"x")), "net", &fabric);
                one(
                    &fabric.deliver("h1", &build::udp(&far(53), &end(0xf2, address, 7), b"y")),
                    from,
                    &fabric,
                );
            }
            one(&fabric.deliver("h1", &build::udp(&far(9), &end(0xf2, "10.0.1.5", 8), b"x")), "c", &fabric);
            let to = End { mac: mac(0xf1), ..far(9) };
            one(&fabric.send("c", &build::udp(&end(0x15, "10.0.1.5", 8), &to, b"y")), "net", &fabric);
            one(
                &fabric.deliver("h1", &build::udp(&far(9), &end(0xf2, "203.0.113.60", 8), b"x")),
                "b",
                &fabric,
            );
            let to = End { mac: mac(0xf0), ..far(9) };
            let sent = fabric.send("b", &build::udp(&end(0x06, "10.0.0.6", 8), &to, b"y"));
            assert_eq!(fields(&one(&sent, "net", &fabric), &[Field::NwSrc]), [ip("203.0.113.60")]);
        }
        let mut known = fabric.connections("h1");
        let mut plain = known.remove(&64_007).unwrap_or_default();
        plain.sort();
        let pair = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
        let all = [
            pair("10.0.0.5", "203.0.113.9"),
            pair("10.0.1.6", "203.0.113.9"),
            pair("203.0.113.9", "10.0.1.5"),
        ];
        assert_eq!(plain, if commits_all { all.to_vec() } else { Vec::new() });
        // What is translated is known by its destination, as ever.
        let rest: Vec<_> = known.into_values().collect();
        assert_eq!(rest, [vec![pair("203.0.113.9", "203.0.113.60")]]);
        assert_eq!(fabric.connections("h2").len(), 0);
        fabric.check_conservation();
    }
}
