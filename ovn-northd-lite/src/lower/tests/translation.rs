//! Translation by routers, with whole conversations.

use flowtable::{
    build::{self, Host},
    field::Field,
};

use super::{
    fabric::{Fabric, fields, tcp},
    hw, ip,
};
use crate::{
    fixture::*,
    model::{NatKind, Northbound, PolicyAction, RouteMatch, StaticRoute},
    punt::Service,
};

const SEEN: [Field; 4] = [Field::NwSrc, Field::NwDst, Field::UdpSrc, Field::UdpDst];

fn end(last: u8, ip: &str, port: u16) -> Host {
    Host { mac: mac(last), ip: ip.parse().unwrap(), port }
}

/// `small`, with the router on `h1` alone and a network `ext` of the workload `o`.
fn with_outside(chassis: Option<&str>) -> Northbound {
    let mut nb = small();
    let mut ext = switch(4);
    ext.ports.insert("o".into(), workload(1, 0x25, &["203.0.113.9"], "h1"));
    ext.ports.insert("ext-r".into(), to_router(2, "r", "r-ext"));
    nb.switches.insert("ext".into(), ext);
    let r = nb.routers.get_mut("r").unwrap();
    r.ports.insert("r-ext".into(), router_port(3, 0xf2, &["203.0.113.1/24"]));
    r.chassis = chassis.map(str::to_owned);
    nb
}

/// A datagram; who gets it, with addresses and ports.
fn udp(fabric: &mut Fabric, from: &str, (src, dst): (Host, Host)) -> (String, Vec<u128>) {
    let sent = fabric.send(from, &build::udp(&src, &dst, b"hello"));
    let [(to, frame)] = &sent[..] else { panic!("{from}: {sent:?} {:?}", fabric.drops()) };
    (to.clone(), fields(frame, &SEEN))
}

#[test]
fn a_router_of_one_chassis_hides_sources_behind_its_address() {
    let mut nb = with_outside(Some("h1"));
    let r = nb.routers.get_mut("r").unwrap();
    let mut rule = nat(NatKind::Source, "203.0.113.1", "10.0.0.0/16");
    rule.external_ports = Some((5000, 5001));
    r.nats.insert("out".into(), rule);
    let mut fabric = Fabric::new(&nb);
    // From the other host, by the tunnel to the router and from there outside.
    let out = |fabric: &mut Fabric, port| {
        udp(fabric, "d", (end(0x16, "10.0.1.6", port), end(0xf1, "203.0.113.9", 53)))
    };
    let (to, seen) = out(&mut fabric, 2000);
    assert_eq!((to.as_str(), &seen[..2]), ("o", &[ip("203.0.113.1"), ip("203.0.113.9")][..]));
    assert!((5000..=5001).contains(&seen[2]), "{seen:?}");
    let back = (end(0x25, "203.0.113.9", 53), end(0xf2, "203.0.113.1", seen[2] as u16));
    let answer = udp(&mut fabric, "o", back);
    assert_eq!(answer, ("d".to_owned(), vec![ip("203.0.113.9"), ip("10.0.1.6"), 53, 2000]));
    // The second port is there for one more, a third connection finds none.
    assert_ne!(out(&mut fabric, 2001).1[2], seen[2]);
    let third = build::udp(&end(0x16, "10.0.1.6", 2002), &end(0xf1, "203.0.113.9", 53), b"");
    assert_eq!(fabric.send("d", &third), []);
    assert_eq!(fabric.drops().into_iter().collect::<Vec<_>>(), [("ct-nat-exhausted".to_owned(), 1)]);
    // Who was not asked for is not let in.
    let stranger = build::udp(&end(0x25, "203.0.113.9", 53), &end(0xf2, "203.0.113.1", 6000), b"");
    assert_eq!(fabric.send("o", &stranger), []);
    assert_eq!(fabric.drops().get("lr_in_ip_routing routers/r/nats/out"), Some(&1));
    fabric.check_conservation();
}

#[test]
fn destinations_outside_stand_for_workloads_inside() {
    let mut nb = with_outside(Some("h1"));
    let r = nb.routers.get_mut("r").unwrap();
    r.nats.insert("in".into(), nat(NatKind::Destination, "203.0.113.80", "10.0.1.6/32"));
    let mut fabric = Fabric::new(&nb);
    let client = end(0x25, "203.0.113.9", 4000);
    let sent = fabric.send("o", &tcp(&client, &end(0xf2, "203.0.113.80", 80), 2, (100, 0), b""));
    assert_eq!(
        (sent[0].0.as_str(), &fields(&sent[0].1, &SEEN)[..2]),
        ("d", &[ip("203.0.113.9"), ip("10.0.1.6")][..])
    );
    let back = Host { mac: mac(0xf1), ..client };
    let sent = fabric.send("d", &tcp(&end(0x16, "10.0.1.6", 80), &back, 0x12, (900, 101), b""));
    let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!(to, "o");
    assert_eq!(fields(frame, &SEEN), [ip("203.0.113.80"), ip("203.0.113.9"), 80, 4000]);
    fabric.check_conservation();
}

/// Both ways, for a floating address of `d`.
fn floats(fabric: &mut Fabric, floating: &str) {
    let outside = (end(0x25, "203.0.113.9", 4000), end(0xf2, floating, 80));
    let seen = udp(fabric, "o", outside);
    assert_eq!(seen, ("d".to_owned(), vec![ip("203.0.113.9"), ip("10.0.1.6"), 4000, 80]));
    let back = (end(0x16, "10.0.1.6", 80), end(0xf1, "203.0.113.9", 4000));
    let seen = udp(fabric, "d", back);
    assert_eq!(seen, ("o".to_owned(), vec![ip(floating), ip("203.0.113.9"), 80, 4000]));
    let own = (end(0x16, "10.0.1.6", 3000), end(0xf1, "203.0.113.9", 53));
    let seen = udp(fabric, "d", own);
    assert_eq!(seen, ("o".to_owned(), vec![ip(floating), ip("203.0.113.9"), 3000, 53]));
}

#[test]
fn a_floating_address_is_a_workload_both_ways() {
    for (chassis, stateless) in [(Some("h1"), false), (Some("h1"), true), (None, true)] {
        let mut nb = with_outside(chassis);
        let r = nb.routers.get_mut("r").unwrap();
        let rule = |external, logical| {
            let mut rule = nat(NatKind::Both, external, logical);
            rule.stateless = stateless;
            rule
        };
        r.nats.insert("d".into(), rule("203.0.113.80", "10.0.1.6/32"));
        r.nats.insert("a".into(), rule("203.0.113.81", "10.0.0.5/32"));
        let mut fabric = Fabric::new(&nb);
        floats(&mut fabric, "203.0.113.80");
        // Who asks for the address is answered by the router.
        let asker = end(0x25, "203.0.113.9", 0);
        let sent = fabric.send("o", &build::arp(1, &asker, &end(0, "203.0.113.80", 0)));
        let answers: Vec<_> =
            sent.iter().map(|(to, frame)| (to.as_str(), fields(frame, &[Field::ArpSha])[0])).collect();
        assert_eq!(answers, [("o", hw(0xf2))]);
        // From inside the floating address is the same workload, and sees one too.
        let inside = (end(0x05, "10.0.0.5", 5000), end(0xf0, "203.0.113.80", 80));
        let seen = udp(&mut fabric, "a", inside);
        assert_eq!(seen, ("d".to_owned(), vec![ip("203.0.113.81"), ip("10.0.1.6"), 5000, 80]), "{chassis:?}");
        let back = (end(0x16, "10.0.1.6", 80), end(0xf1, "203.0.113.81", 5000));
        let seen = udp(&mut fabric, "d", back);
        assert_eq!(seen, ("a".to_owned(), vec![ip("203.0.113.80"), ip("10.0.0.5"), 80, 5000]), "{chassis:?}");
        fabric.check_conservation();
    }
}

#[test]
fn what_needs_connections_is_not_done_everywhere() {
    let mut nb = with_outside(None);
    let r = nb.routers.get_mut("r").unwrap();
    r.nats.insert("out".into(), nat(NatKind::Source, "203.0.113.1", "10.0.0.0/16"));
    let mut fabric = Fabric::new(&nb);
    let (_, seen) = udp(&mut fabric, "d", (end(0x16, "10.0.1.6", 1), end(0xf1, "203.0.113.9", 53)));
    assert_eq!(seen[0], ip("10.0.1.6"), "replies would come to another host");
}

#[test]
fn some_peers_may_be_left_out() {
    let mut nb = with_outside(Some("h1"));
    let r = nb.routers.get_mut("r").unwrap();
    let mut rule = nat(NatKind::Source, "203.0.113.1", "10.0.0.0/16");
    rule.exempted_external_ips = vec![network("203.0.113.9/32")];
    r.nats.insert("out".into(), rule.clone());
    let mut fabric = Fabric::new(&nb);
    let packet = || (end(0x16, "10.0.1.6", 2000), end(0xf1, "203.0.113.9", 53));
    assert_eq!(udp(&mut fabric, "d", packet()).1[0], ip("10.0.1.6"));
    rule.allowed_external_ips = std::mem::take(&mut rule.exempted_external_ips);
    nb.routers.get_mut("r").unwrap().nats.insert("out".into(), rule);
    fabric.change(&nb);
    assert_eq!(udp(&mut fabric, "d", packet()).1[0], ip("203.0.113.1"));
}

#[test]
fn a_router_of_one_chassis_balances_for_the_outside() {
    let mut nb = with_outside(Some("h2"));
    nb.routers.get_mut("r").unwrap().load_balancers.insert("lb".into());
    let both = ["10.0.0.5:8080", "10.0.1.6:8080"];
    nb.load_balancers.insert("lb".into(), balancer("203.0.113.80:80", &both));
    let mut fabric = Fabric::new(&nb);
    let mut chosen = [0, 0];
    for n in 0..20_u16 {
        let client = end(0x25, "203.0.113.9", 4000 + n);
        let service = end(0xf2, "203.0.113.80", 80);
        let sent = fabric.send("o", &tcp(&client, &service, 2, (100, 0), b""));
        let [(backend, _)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        let (server, router) = match backend.as_str() {
            "a" => (end(0x05, "10.0.0.5", 8080), 0xf0),
            _ => (end(0x16, "10.0.1.6", 8080), 0xf1),
        };
        chosen[usize::from(backend == "d")] += 1;
        let back = Host { mac: mac(router), ..client };
        let backend = backend.clone();
        let sent = fabric.send(&backend, &tcp(&server, &back, 0x12, (900, 101), b""));
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!(to, "o");
        assert_eq!(fields(frame, &SEEN), [ip("203.0.113.80"), ip("203.0.113.9"), 80, u128::from(4000 + n)]);
    }
    assert!(chosen[0] > 2 && chosen[1] > 2, "{chosen:?}");
    fabric.check_conservation();
}

#[test]
fn routes_share_discard_and_go_by_source() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    r.static_routes = vec![
        route("192.0.2.0/24", Some("10.0.1.5")),
        route("192.0.2.0/24", Some("10.0.0.6")),
        route("198.51.100.0/24", None),
        StaticRoute { by: RouteMatch::Source, ..route("10.0.0.0/16", Some("10.0.1.6")) },
    ];
    let mut fabric = Fabric::new(&nb);
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..40 {
        let (to, _) = udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 2000 + n), end(0xf0, "192.0.2.7", 53)));
        *seen.entry(to).or_insert(0) += 1;
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert!(seen.values().all(|n| *n > 8), "{seen:?}");
    let lost = build::udp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "198.51.100.7", 53), b"");
    assert_eq!(fabric.send("a", &lost), []);
    assert_eq!(fabric.drops(), [("lr_in_ip_routing routers/r".to_owned(), 1)].into());
    // The network of a port goes before a route that is not told to go before it.
    for (overrides, wanted) in [(false, "c"), (true, "b")] {
        let mut nb = small();
        let instead = StaticRoute { overrides, ..route("10.0.1.0/24", Some("10.0.0.6")) };
        nb.routers.get_mut("r").unwrap().static_routes.push(instead);
        let mut fabric = Fabric::new(&nb);
        let (to, _) = udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 1), end(0xf0, "10.0.1.5", 53)));
        assert_eq!(to, wanted, "{overrides}");
    }
    // No route for the destination, one for the source.
    let (to, _) = udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 1), end(0xf0, "8.8.8.8", 53)));
    assert_eq!(to, "d");
    fabric.check_conservation();
}

/// A connection that comes from a network behind two stations of the router's.
#[test]
fn answers_go_back_to_whoever_brought_their_connections() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".into());
    r.static_routes = ["10.0.0.5", "10.0.0.6"]
        .map(|hop| StaticRoute { symmetric: true, ..route("192.0.2.0/24", Some(hop)) })
        .into();
    r.nats.insert("float".into(), nat(NatKind::Both, "10.0.0.200", "10.0.1.5/32"));
    r.policies.insert(
        "elsewhere".into(),
        policy(9, "udp.src == 54", PolicyAction::Reroute(vec!["10.0.1.6".parse().unwrap()])),
    );
    let mut fabric = Fabric::new(&nb);
    let client = |last, port| end(last, "192.0.2.7", port);
    let servers = [("d", 0x16, "10.0.1.6", "10.0.1.6"), ("c", 0x15, "10.0.1.5", "10.0.0.200")];
    for (n, (server, mac_of, inside, address)) in (0..32).flat_map(|n| servers.map(|one| (n, one))) {
        let port = if n < 16 { 53 } else { 54 };
        // Now by one station, now by the other: whichever brought the last packet.
        for (station, last) in [("a", 0x05), ("b", 0x06), ("b", 0x06), ("a", 0x05)] {
            let from = client(last, 1000 + n);
            let sent = fabric.send(station, &build::udp(&from, &end(0xf0, address, port), b"x"));
            let [(to, _)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
            assert_eq!(to, server);
            let back = build::udp(&end(mac_of, inside, port), &Host { mac: mac(0xf1), ..from }, b"y");
            let sent = fabric.send(server, &back);
            let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
            assert_eq!(to, station, "{n} {address}");
            let seen = fields(frame, &[Field::EthDst, Field::NwSrc, Field::NwTtl]);
            assert_eq!(seen, [hw(last), ip(address), 63]);
        }
    }
    // What goes out is spread, and stays where it was sent, whoever answers.
    let mut chosen = std::collections::BTreeMap::new();
    for n in 0..32 {
        let (inside, outside) = (end(0x15, "10.0.1.5", 3000 + n), end(0xf1, "192.0.2.7", 80));
        let to = |fabric: &mut Fabric| fabric.send("c", &build::udp(&inside, &outside, b"x"))[0].0.clone();
        let first = to(&mut fabric);
        let (other, last) = if first == "a" { ("b", 0x06) } else { ("a", 0x05) };
        let answer = build::udp(&client(last, 80), &end(0xf0, "10.0.0.200", 3000 + n), b"y");
        let sent = fabric.send(other, &answer);
        assert_eq!(sent[0].0, "c", "{:?}", fabric.drops());
        assert_eq!(to(&mut fabric), first);
        *chosen.entry(first).or_insert(0) += 1;
    }
    assert!(chosen.len() == 2 && chosen.values().all(|n| *n > 4), "{chosen:?}");
    fabric.check_conservation();
}

#[test]
fn policies_overrule_routes() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let hops = |ips: &[&str]| PolicyAction::Reroute(ips.iter().map(|ip| ip.parse().unwrap()).collect());
    r.policies.insert("deny".into(), policy(10, "udp.dst == 1", PolicyAction::Drop));
    r.policies.insert("allow".into(), policy(20, "udp.dst == 1 && udp.src == 7", PolicyAction::Allow));
    r.policies.insert("one".into(), policy(10, "udp.dst == 2", hops(&["10.0.1.6"])));
    r.policies.insert("two".into(), policy(10, "udp.dst == 3", hops(&["10.0.1.6", "10.0.0.6"])));
    r.policies.insert("none".into(), policy(10, "udp.dst == 4", hops(&["192.0.2.1"])));
    let mut fabric = Fabric::new(&nb);
    let to = |fabric: &mut Fabric, src, dst| {
        let frame = build::udp(&end(0x05, "10.0.0.5", src), &end(0xf0, "10.0.1.5", dst), b"");
        fabric.send("a", &frame).into_iter().map(|(to, _)| to).collect::<Vec<_>>()
    };
    assert_eq!(to(&mut fabric, 9, 9), ["c"]);
    assert_eq!(to(&mut fabric, 9, 1), [""; 0]);
    assert_eq!(to(&mut fabric, 7, 1), ["c"]);
    assert_eq!(to(&mut fabric, 7, 2), ["d"]);
    assert_eq!(to(&mut fabric, 7, 4), [""; 0]);
    let shared: std::collections::BTreeSet<_> = (0..30).flat_map(|n| to(&mut fabric, n, 3)).collect();
    assert_eq!(shared, ["b".to_owned(), "d".to_owned()].into());
    let drops = fabric.drops();
    assert_eq!(drops.get("lr_in_policy routers/r/policies/deny"), Some(&1));
    assert_eq!(drops.get("lr_in_policy routers/r/policies/none"), Some(&1));
    fabric.check_conservation();
}

#[test]
fn the_responder_is_asked_for_errors_and_neighbours() {
    let mut fabric = Fabric::new(&small());
    let mut last = build::udp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "10.0.1.5", 9), b"");
    last[22] = 1;
    last[24..26].fill(0);
    let sum = flowtable::checksum::of(&last[14..34]).to_be_bytes();
    last[24..26].copy_from_slice(&sum);
    for (frame, service) in [
        (last, Service::Icmp4),
        (build::udp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "8.8.8.8", 9), b""), Service::Icmp4),
        (build::udp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "10.0.0.1", 9), b""), Service::Icmp4),
        (build::tcp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "10.0.0.1", 9), 2, b""), Service::TcpReset),
        (build::udp(&end(0x05, "10.0.0.5", 1), &end(0xf0, "10.0.1.77", 9), b""), Service::Arp),
        (build::arp(2, &end(0x07, "10.0.0.7", 0), &end(0xf0, "10.0.0.1", 0)), Service::LearnArp),
    ] {
        assert_eq!(fabric.send("a", &frame), [], "{service:?}");
        let requests = fabric.requests();
        let [(request, _)] = &requests[..] else { panic!("{service:?}: {requests:?}") };
        assert_eq!(request.service, service);
    }
    fabric.check_conservation();
}

#[test]
fn a_router_of_one_chassis_remembers_each_connection_once() {
    let mut nb = with_outside(Some("h1"));
    let r = nb.routers.get_mut("r").unwrap();
    r.options.commits_all = true;
    r.options.snat_zone = Some(5);
    r.nats.insert("out".into(), nat(NatKind::Source, "203.0.113.1", "10.0.1.0/24"));
    r.nats.insert("in".into(), nat(NatKind::Destination, "203.0.113.60", "10.0.0.6/32"));
    let mut fabric = Fabric::new(&nb);
    let outside = |port| end(0x25, "203.0.113.9", port);
    let to = |last, host: Host| Host { mac: mac(last), ..host };
    for _ in 0..3 {
        // Plain, from inside and from outside.
        udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 7), to(0xf0, outside(53))));
        udp(&mut fabric, "o", (outside(53), end(0xf2, "10.0.0.5", 7)));
        udp(&mut fabric, "o", (outside(9), end(0xf2, "10.0.0.5", 8)));
        udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 8), to(0xf0, outside(9))));
        // With a hidden source; with a translated destination.
        let (_, seen) = udp(&mut fabric, "d", (end(0x16, "10.0.1.6", 7), to(0xf1, outside(53))));
        let (back, _) = udp(&mut fabric, "o", (outside(53), end(0xf2, "203.0.113.1", seen[2] as u16)));
        assert_eq!(back, "d");
        udp(&mut fabric, "o", (outside(9), end(0xf2, "203.0.113.60", 8)));
        let (_, seen) = udp(&mut fabric, "b", (end(0x06, "10.0.0.6", 8), to(0xf0, outside(9))));
        assert_eq!(seen[0], ip("203.0.113.60"));
    }
    let mut known = fabric.connections("h1");
    let mut sources = known.remove(&5).unwrap();
    sources.sort();
    let pair = |from: &str, to: &str| (from.parse().unwrap(), to.parse().unwrap());
    let plain = [
        pair("10.0.0.5", "203.0.113.9"),
        pair("10.0.1.6", "203.0.113.9"),
        pair("203.0.113.9", "10.0.0.5"),
        // As it goes on when its destination has been translated.
        pair("203.0.113.9", "10.0.0.6"),
    ];
    assert_eq!(sources, plain);
    assert_eq!(known.into_values().collect::<Vec<_>>(), [vec![pair("203.0.113.9", "203.0.113.60")]]);
    fabric.check_conservation();
}

#[test]
fn routers_that_share_a_zone_do_not_give_one_port_to_two_connections() {
    for shared in [true, false] {
        let mut nb = with_outside(Some("h1"));
        let mut other = nb.routers["r"].clone();
        other.key = crate::key::DatapathKey::new(77).unwrap();
        other.ports.clear();
        other.ports.insert("s-ext".into(), router_port(1, 0xe2, &["203.0.113.1/24"]));
        other.ports.insert("s-in".into(), router_port(2, 0xe3, &["10.0.7.1/24"]));
        let mut inside = switch(7);
        inside.ports.insert("e".into(), workload(1, 0x71, &["10.0.7.5"], "h1"));
        inside.ports.insert("in-s".into(), to_router(2, "s", "s-in"));
        nb.switches.insert("inside".into(), inside);
        nb.switches.get_mut("ext").unwrap().ports.insert("ext-s".into(), to_router(3, "s", "s-ext"));
        nb.routers.insert("s".into(), other);
        for router in nb.routers.values_mut() {
            router.options.snat_zone = shared.then_some(1);
            router.nats.insert("out".into(), nat(NatKind::Source, "203.0.113.1", "10.0.0.0/16"));
        }
        let mut fabric = Fabric::new(&nb);
        let (to, seen) = udp(&mut fabric, "a", (end(0x05, "10.0.0.5", 2000), end(0xf0, "203.0.113.9", 53)));
        assert_eq!((to.as_str(), seen[0]), ("o", ip("203.0.113.1")));
        let (to, other) = udp(&mut fabric, "e", (end(0x71, "10.0.7.5", 2000), end(0xe3, "203.0.113.9", 53)));
        assert_eq!((to.as_str(), other[0]), ("o", ip("203.0.113.1")));
        assert_eq!(seen[2] != other[2], shared, "outside they are told apart: {seen:?} {other:?}");
        let zones: Vec<_> = fabric.connections("h1").into_keys().collect();
        match shared {
            true => assert_eq!(zones, [1]),
            false => assert!(zones.len() == 2 && zones.iter().all(|zone| (1024..64_000).contains(zone))),
        }
        fabric.check_conservation();
    }
}
