//! What decides about routes, policies and translations besides addresses.

use flowtable::{
    build::{self, Host},
    field::Field,
};

use super::{
    fabric::{Fabric, fields},
    ip,
};
use crate::{
    fixture::*,
    model::{
        AclAction, AclDirection, Condition, HashField, LoadBalancer, NatKind, NatRule, PolicyAction,
        Protocol, RouterPolicy, StaticRoute,
    },
};

fn end(last: u8, ip: &str, port: u16) -> Host {
    Host { mac: mac(last), ip: ip.parse().unwrap(), port }
}

#[test]
fn translations_with_a_condition_go_before_those_without() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".into());
    let with = |rule: NatRule, priority, matching: &str| NatRule {
        condition: Some(Condition {
            priority: flowtable::types::Priority::new(priority).unwrap(),
            matching: matching.to_owned(),
        }),
        ..rule
    };
    let hide = |external: &str| nat(NatKind::Source, external, "10.0.1.0/24");
    r.nats.insert("all".into(), hide("10.0.0.200"));
    r.nats.insert("some".into(), with(hide("10.0.0.201"), 0, "udp.dst == 53 || udp.dst == 54"));
    r.nats.insert("few".into(), with(hide("10.0.0.202"), 9, "udp.dst == 54"));
    r.nats.insert("none".into(), with(hide("10.0.0.203"), 99, "udp.dts == 54"));
    let publish = |to: &str| nat(NatKind::Destination, "10.0.0.210", to);
    r.nats.insert("in".into(), publish("10.0.1.5/32"));
    r.nats.insert("in-some".into(), with(publish("10.0.1.6/32"), 1, "udp.dst == 80"));
    let mut fabric = Fabric::new(&nb);
    for (port, wanted) in [(52, "10.0.0.200"), (53, "10.0.0.201"), (54, "10.0.0.202")] {
        let sent =
            fabric.send("c", &build::udp(&end(0x15, "10.0.1.5", 9), &end(0xf1, "10.0.0.5", port), b""));
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!((to.as_str(), fields(frame, &[Field::NwSrc])), ("a", vec![ip(wanted)]), "{port}");
        // The answer, which the condition does not describe.
        let source = fields(frame, &[Field::UdpSrc])[0] as u16;
        let back = build::udp(&end(0x05, "10.0.0.5", port), &end(0xf0, wanted, source), b"");
        let sent = fabric.send("a", &back);
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!(
            (to.as_str(), fields(frame, &[Field::NwDst, Field::UdpDst])),
            ("c", vec![ip("10.0.1.5"), 9])
        );
    }
    for (port, server, inside, last) in [(80, "d", "10.0.1.6", 0x16), (81, "c", "10.0.1.5", 0x15)] {
        let client = end(0x05, "10.0.0.5", 1000 + port);
        let sent = fabric.send("a", &build::udp(&client, &end(0xf0, "10.0.0.210", port), b""));
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!((to.as_str(), fields(frame, &[Field::NwDst])), (server, vec![ip(inside)]));
        let back = build::udp(&end(last, inside, port), &Host { mac: mac(0xf1), ..client }, b"");
        let sent = fabric.send(server, &back);
        assert_eq!(fields(&sent[0].1, &[Field::NwSrc]), [ip("10.0.0.210")]);
    }
    fabric.check_conservation();
}

#[test]
fn ports_choose_their_static_routes_and_routes_their_hash() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let of =
        |table: &str, hop: &str| StaticRoute { table: table.to_owned(), ..route("192.0.2.0/24", Some(hop)) };
    r.static_routes = vec![
        of("", "10.0.1.6"),
        of("red", "10.0.0.6"),
        of("green", "10.0.0.5"),
        StaticRoute { table: "red".to_owned(), ..route("198.51.100.0/24", None) },
    ];
    r.ports.get_mut("r-web").unwrap().route_table = "red".to_owned();
    let mut fabric = Fabric::new(&nb);
    let send = |fabric: &mut Fabric, from: &str, port, to: &str| {
        let (own, gateway) = if from == "a" {
            (end(0x05, "10.0.0.5", port), 0xf0)
        } else {
            (end(0x15, "10.0.1.5", port), 0xf1)
        };
        fabric
            .send(from, &build::udp(&own, &end(gateway, to, 80), b""))
            .into_iter()
            .map(|(to, _)| to)
            .collect::<Vec<_>>()
    };
    assert_eq!(send(&mut fabric, "a", 1, "192.0.2.7"), ["b"]);
    assert_eq!(send(&mut fabric, "c", 1, "192.0.2.7"), ["d"]);
    assert_eq!(send(&mut fabric, "a", 1, "10.0.1.5"), ["c"], "networks of ports are everybody's");
    assert_eq!(send(&mut fabric, "a", 1, "198.51.100.7"), [""; 0]);
    // Of several routes each client keeps the one that its address leads to.
    let r = nb.routers.get_mut("r").unwrap();
    let by_client = |hop: &str| StaticRoute { hash_fields: vec![HashField::IpSrc], ..of("", hop) };
    r.static_routes = vec![by_client("10.0.1.6"), of("", "10.0.0.6")];
    let mut fabric = Fabric::new(&nb);
    let first = send(&mut fabric, "c", 1, "192.0.2.7");
    for port in 2..30 {
        assert_eq!(send(&mut fabric, "c", port, "192.0.2.7"), first);
    }
    fabric.check_conservation();
}

#[test]
fn policies_jump_mark_and_choose_the_port() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let hops = |ips: &[&str]| PolicyAction::Reroute(ips.iter().map(|ip| ip.parse().unwrap()).collect());
    let of = |chain: &str, priority, matching: &str, action| RouterPolicy {
        chain: chain.to_owned(),
        ..policy(priority, matching, action)
    };
    let jump = |to: &str| PolicyAction::Jump(to.to_owned());
    r.policies.insert("a".into(), of("", 9, "udp.dst == {1, 2, 3, 4, 5}", jump("x")));
    r.policies.insert("low".into(), of("", 1, "udp", PolicyAction::Drop));
    r.policies.insert("b".into(), of("x", 5, "udp.dst == 1", hops(&["10.0.1.6"])));
    r.policies.insert("c".into(), of("x", 4, "udp.dst == 2", jump("y")));
    r.policies.insert("d".into(), of("y", 1, "udp", hops(&["10.0.0.6", "10.0.1.6"])));
    r.policies.insert("e".into(), of("x", 3, "udp.dst == 4", jump("x")));
    let mut by_port = of("x", 3, "udp.dst == 5", hops(&["192.0.2.1"]));
    by_port.output_port = Some("r-db".into());
    r.policies.insert("f".into(), by_port);
    let db = nb.switches.get_mut("db").unwrap();
    db.ports.insert("far".into(), workload(9, 0x77, &["192.0.2.1"], "h1"));
    let mut fabric = Fabric::new(&nb);
    let to = |fabric: &mut Fabric, src, dst| {
        let frame = build::udp(&end(0x05, "10.0.0.5", src), &end(0xf0, "10.0.1.5", dst), b"");
        fabric.send("a", &frame).into_iter().map(|(to, _)| to).collect::<Vec<_>>()
    };
    assert_eq!(to(&mut fabric, 7, 1), ["d"]);
    let chosen: std::collections::BTreeSet<_> = (0..40).flat_map(|n| to(&mut fabric, 100 + n, 2)).collect();
    assert!(chosen.iter().eq(["b", "d"]), "{chosen:?}");
    assert_eq!(to(&mut fabric, 7, 3), ["c"], "no policy of the chain matches: the route is left");
    assert_eq!(to(&mut fabric, 7, 5), ["far"], "the port has no network with the next hop");
    assert_eq!(to(&mut fabric, 7, 6), [""; 0]);
    // Around in a circle.
    let before: u64 = fabric.drops().values().sum();
    assert_eq!(to(&mut fabric, 7, 4), [""; 0]);
    assert_eq!(fabric.drops().values().sum::<u64>(), before + 1);
    fabric.check_conservation();
    // Marks are there for what comes later on the host.
    let r = nb.routers.get_mut("r").unwrap();
    r.policies.clear();
    r.policies
        .insert("m".into(), RouterPolicy { mark: 77, ..policy(3, "udp.dst == 1", PolicyAction::Allow) });
    let deny = acl(AclDirection::ToLport, 5, "pkt.mark == 77", AclAction::Drop);
    nb.switches.get_mut("db").unwrap().acls.insert("marked".into(), deny);
    let mut fabric = Fabric::new(&nb);
    assert_eq!(to(&mut fabric, 7, 1), [""; 0]);
    assert_eq!(to(&mut fabric, 7, 2), ["c"]);
}

#[test]
fn sources_are_hidden_from_who_serves() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".into());
    r.options.balancer_sources = vec!["10.0.1.1".parse().unwrap()];
    r.options.dnat_sources = vec!["10.0.1.3".parse().unwrap()];
    r.nats.insert("in".into(), nat(NatKind::Destination, "10.0.0.210", "10.0.1.6/32"));
    r.nats.insert("hide".into(), nat(NatKind::Source, "10.0.1.99", "10.0.0.0/24"));
    r.load_balancers.extend(["lb".to_owned(), "plain".to_owned()]);
    let lb = |vip: &str| LoadBalancer { protocol: Protocol::Udp, ..balancer(vip, &["10.0.1.6:8080"]) };
    nb.load_balancers.insert("lb".into(), lb("10.0.0.211:80"));
    nb.load_balancers.insert("plain".into(), LoadBalancer { skip_snat: true, ..lb("10.0.0.212:80") });
    let mut fabric = Fabric::new(&nb);
    let who = Host { mac: flowtable::types::MacAddr::BROADCAST, ..end(0, "10.0.1.3", 0) };
    let sent = fabric.send("d", &build::arp(1, &end(0x16, "10.0.1.6", 0), &who));
    let answers = sent.iter().filter(|(to, frame)| to == "d" && fields(frame, &[Field::ArpOp]) == [2]);
    assert_eq!(answers.count(), 1, "{sent:?}");
    for (n, (service, port, seen, at)) in (0..).zip([
        ("10.0.0.211", 80, "10.0.1.1", 8080),
        ("10.0.0.212", 80, "10.0.0.5", 8080),
        ("10.0.0.210", 53, "10.0.1.3", 53),
        ("10.0.1.6", 53, "10.0.1.99", 53),
    ]) {
        let client = end(0x05, "10.0.0.5", 4000 + n);
        // The first packet, and those that follow when answers have come.
        for _ in 0..3 {
            let sent = fabric.send("a", &build::udp(&client, &end(0xf0, service, port), b"?"));
            let [(to, frame)] = &sent[..] else {
                panic!("{service}: {sent:?} {:?} {:?}", fabric.drops(), fabric.requests())
            };
            let got = fields(frame, &[Field::NwSrc, Field::UdpSrc, Field::NwDst]);
            assert_eq!((to.as_str(), got[0], got[2]), ("d", ip(seen), ip("10.0.1.6")), "{service}");
            let back = build::udp(&end(0x16, "10.0.1.6", at), &end(0xf1, seen, got[1] as u16), b"!");
            let sent = fabric.send("d", &back);
            let [(to, frame)] = &sent[..] else { panic!("{service}: {sent:?} {:?}", fabric.drops()) };
            let got = fields(frame, &[Field::NwSrc, Field::NwDst, Field::UdpDst]);
            assert_eq!((to.as_str(), got), ("a", vec![ip(service), ip("10.0.0.5"), client.port.into()]));
        }
    }
    fabric.check_conservation();
}
