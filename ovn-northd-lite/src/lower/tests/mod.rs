//! Whole packets through the rules of two chassis.

mod balancer;
mod fabric;
mod frame;
mod gateway;
mod host;
mod moving;
mod multicast;
mod policy;
mod qos;
mod routing;
mod station;
mod translation;
mod vxlan;

use std::sync::Arc;

use flowtable::{
    field::Field,
    flow::{Match, Rule},
    key::FlowKey,
    types::{PortNo, Priority},
};

use crate::{
    chassis_view, compile,
    fixture::*,
    lower::*,
    model::{AclAction, AclDirection, StaticMac, SwitchPortKind},
};
use host::{Host, TUNNEL};

fn ip(text: &str) -> u128 {
    u32::from(text.parse::<std::net::Ipv4Addr>().unwrap()).into()
}

fn ip6(text: &str) -> u128 {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

fn hw(last: u8) -> u128 {
    0x0a00_0000_0000 | u128::from(last)
}

const BROADCAST: u128 = 0xffff_ffff_ffff;

fn keyed(fields: &[(Field, u128)]) -> FlowKey {
    let mut key = FlowKey::zero();
    for (field, value) in fields {
        key.set(*field, *value);
    }
    key
}

fn echo(src: (u8, &str), dst: (u8, &str)) -> FlowKey {
    keyed(&[
        (Field::EthSrc, hw(src.0)),
        (Field::EthDst, hw(dst.0)),
        (Field::EthType, 0x800),
        (Field::NwSrc, ip(src.1)),
        (Field::NwDst, ip(dst.1)),
        (Field::NwProto, 1),
        (Field::NwTtl, 64),
        (Field::IcmpType, 8),
    ])
}

fn arp_request(src: (u8, &str), target: &str) -> FlowKey {
    keyed(&[
        (Field::EthSrc, hw(src.0)),
        (Field::EthDst, BROADCAST),
        (Field::EthType, 0x806),
        (Field::ArpOp, 1),
        (Field::ArpSha, hw(src.0)),
        (Field::ArpSpa, ip(src.1)),
        (Field::ArpTpa, ip(target)),
    ])
}

fn solicitation(src: (u8, &str), target: &str, group: &str) -> FlowKey {
    keyed(&[
        (Field::EthSrc, hw(src.0)),
        (Field::EthDst, 0x3333_ff00_0000),
        (Field::EthType, 0x86dd),
        (Field::NwProto, 58),
        (Field::NwTtl, 255),
        (Field::Icmpv6Type, 135),
        (Field::Ipv6Src, ip6(src.1)),
        (Field::Ipv6Dst, ip6(group)),
        (Field::NdTarget, ip6(target)),
        (Field::NdOptionsType, 1),
        (Field::NdSll, hw(src.0)),
    ])
}

#[track_caller]
fn check(key: &FlowKey, fields: &[(Field, u128)]) {
    for (field, value) in fields {
        assert_eq!(key.get(*field), *value, "{field} of {key:?}");
    }
}

#[test]
fn a_ping_crosses_the_router_within_a_chassis() {
    let h1 = Host::new(&small(), "h1");
    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.5")));
    let [(port, key)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h1.port("c"));
    check(&key, &[(Field::EthSrc, hw(0xf1)), (Field::EthDst, hw(0x15)), (Field::NwTtl, 63)]);
    let outcome = h1.send("c", echo((0x15, "10.0.1.5"), (0xf1, "10.0.0.5")));
    let [(port, key)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h1.port("a"));
    check(&key, &[(Field::EthSrc, hw(0xf0)), (Field::EthDst, hw(0x05))]);
}

#[test]
fn a_ping_crosses_to_another_chassis_and_back() {
    let (h1, h2) = (Host::new(&small(), "h1"), Host::new(&small(), "h2"));
    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.6")));
    let [(port, sent)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, TUNNEL);
    // Routed here: the tunnel carries the second switch's key, and its ports.
    check(
        &sent,
        &[
            (Field::TunId, 2),
            (Field::TunDst, ip("192.0.2.2")),
            (Field::TunMetadata0, 3 << 16 | 2),
            (Field::EthSrc, hw(0xf1)),
            (Field::EthDst, hw(0x16)),
            (Field::NwTtl, 63),
        ],
    );
    let outcome = h2.deliver(&outcome.tunnelled[0]);
    let [(port, key)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h2.port("d"));
    check(&key, &[(Field::EthDst, hw(0x16)), (Field::NwTtl, 63)]);
    let outcome = h2.send("d", echo((0x16, "10.0.1.6"), (0xf1, "10.0.0.5")));
    let [(port, _)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, TUNNEL);
    let outcome = h1.deliver(&outcome.tunnelled[0]);
    let [(port, _)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h1.port("a"));
}

#[test]
fn questions_are_answered_where_they_are_asked() {
    let h1 = Host::new(&small(), "h1");
    for (target, last) in [("10.0.0.6", 0x06), ("10.0.0.1", 0xf0)] {
        let outcome = h1.send("a", arp_request((0x05, "10.0.0.5"), target));
        let [(port, key)] = outcome.sent()[..] else { panic!("{target}: {:?}", outcome.drops) };
        assert_eq!(port, h1.port("a"));
        check(
            &key,
            &[
                (Field::EthSrc, hw(last)),
                (Field::EthDst, hw(0x05)),
                (Field::ArpOp, 2),
                (Field::ArpSha, hw(last)),
                (Field::ArpTha, hw(0x05)),
                (Field::ArpSpa, ip(target)),
                (Field::ArpTpa, ip("10.0.0.5")),
            ],
        );
    }
    for (target, group, last, flags) in [
        ("2001:db8::6", "ff02::1:ff00:6", 0x06, 0x6000_0000),
        ("2001:db8::1", "ff02::1:ff00:1", 0xf0, 0xe000_0000),
        ("fe80::800:ff:fe00:f0", "ff02::1:ff00:f0", 0xf0, 0xe000_0000),
    ] {
        let outcome = h1.send("a", solicitation((0x05, "2001:db8::5"), target, group));
        let [(port, key)] = outcome.sent()[..] else { panic!("{target}: {:?}", outcome.drops) };
        assert_eq!(port, h1.port("a"));
        check(
            &key,
            &[
                (Field::EthSrc, hw(last)),
                (Field::EthDst, hw(0x05)),
                (Field::Ipv6Src, ip6(target)),
                (Field::Ipv6Dst, ip6("2001:db8::5")),
                (Field::Icmpv6Type, 136),
                (Field::NdTarget, ip6(target)),
                (Field::NdOptionsType, 2),
                (Field::NdTll, hw(last)),
                (Field::NdReserved, flags),
            ],
        );
    }
}

#[test]
fn a_port_that_checks_its_own_address_is_not_answered() {
    let (h1, h2) = (Host::new(&small(), "h1"), Host::new(&small(), "h2"));
    let outcome = h1.send("a", arp_request((0x05, "0.0.0.0"), "10.0.0.5"));
    let [(TUNNEL, sent)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    check(&sent, &[(Field::TunMetadata0, 1 << 16 | 0x8000), (Field::TunId, 1)]);
    let outcome = h2.deliver(&outcome.tunnelled[0]);
    let ports: Vec<_> = outcome.out.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [h2.port("b")], "and not through the router's patch again");
}

#[test]
fn the_router_answers_an_echo_request() {
    let h1 = Host::new(&small(), "h1");
    for target in ["10.0.0.1", "10.0.1.1"] {
        let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, target)));
        let [(port, key)] = outcome.out[..] else { panic!("{target}: {:?}", outcome.drops) };
        assert_eq!(port, h1.port("a"));
        check(
            &key,
            &[
                (Field::EthSrc, hw(0xf0)),
                (Field::EthDst, hw(0x05)),
                (Field::IcmpType, 0),
                (Field::NwSrc, ip(target)),
                (Field::NwDst, ip("10.0.0.5")),
                (Field::NwTtl, 254),
            ],
        );
    }
}

#[test]
fn a_packet_may_go_back_to_its_port_through_the_router() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    web.ports.insert("a".into(), workload(1, 0x05, &["10.0.0.5", "10.0.0.50"], "h1"));
    let h1 = Host::new(&nb, "h1");
    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.0.50")));
    let [(port, key)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h1.port("a"));
    check(&key, &[(Field::EthSrc, hw(0xf0)), (Field::NwTtl, 63)]);
    // On the switch alone it may not.
    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0x05, "10.0.0.50")));
    assert_eq!(outcome.drops, ["check_loopback switches/web/ports/a"]);
}

#[test]
fn the_router_knows_whom_it_is_told_of() {
    let mut nb = small();
    let db = nb.switches.get_mut("db").unwrap();
    if let SwitchPortKind::Workload { unknown, .. } = &mut db.ports.get_mut("c").unwrap().kind {
        *unknown = true;
    }
    let told = [("10.0.1.77", 0x77, false), ("10.0.1.78", 0x78, true), ("10.0.1.5", 0x79, true)];
    let told =
        told.map(|(ip, last, overrides)| (ip.parse().unwrap(), StaticMac { mac: mac(last), overrides }));
    nb.routers.get_mut("r").unwrap().ports.get_mut("r-db").unwrap().static_macs.extend(told);
    let h1 = Host::new(&nb, "h1");
    // The last one is a workload's, whom the network knows better.
    for (target, last) in [("10.0.1.77", 0x77), ("10.0.1.78", 0x78), ("10.0.1.5", 0x15)] {
        let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, target)));
        let here = outcome.out.iter().find(|(port, _)| *port == h1.port("c"));
        let (_, key) = here.unwrap_or_else(|| panic!("{target}: {:?}", outcome.drops));
        check(key, &[(Field::EthDst, hw(last)), (Field::EthSrc, hw(0xf1)), (Field::NwTtl, 63)]);
    }
    let asked = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.79")));
    assert!(asked.out.iter().all(|(port, _)| *port == PortNo::CONTROLLER.get()), "{:?}", asked.out);
}

#[test]
fn drops_name_the_object() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    let a = web.ports.remove("a").unwrap();
    web.ports.insert("a".into(), secured(a, 0x05, &["10.0.0.5/32"]));
    let to = AclDirection::ToLport;
    web.acls.insert("no-ping".into(), acl(to, 10, "outport == \"b\" && icmp4", AclAction::Drop));
    let from = AclDirection::FromLport;
    let quiet = acl(from, 10, "inport == \"a\" && ip4.dst == 10.0.1.0/24 && ip.ttl < 9", AclAction::Drop);
    web.acls.insert("quiet".into(), quiet);
    let (h1, h2) = (Host::new(&nb, "h1"), Host::new(&nb, "h2"));

    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0x06, "10.0.0.6")));
    let [(TUNNEL, _)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    let outcome = h2.deliver(&outcome.tunnelled[0]);
    assert_eq!(outcome.drops, ["ls_out_acl_eval switches/web/acls/no-ping"]);
    assert!(outcome.out.is_empty());

    let mut short = echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.5"));
    short.set(Field::NwTtl, 8);
    let dropped = |key| h1.send("a", key).drops;
    assert_eq!(dropped(short), ["ls_in_acl_eval switches/web/acls/quiet"]);
    let forged = echo((0x07, "10.0.0.5"), (0x06, "10.0.0.6"));
    assert_eq!(dropped(forged), ["ls_in_port_sec_l2 switches/web/ports/a"]);
    let forged = echo((0x05, "10.0.0.7"), (0x06, "10.0.0.6"));
    assert_eq!(dropped(forged), ["ls_in_port_sec_ip switches/web/ports/a"]);
    let forged = arp_request((0x05, "10.0.0.1"), "10.0.0.6");
    assert_eq!(dropped(forged), ["ls_in_port_sec_nd switches/web/ports/a"]);
    let lost = echo((0x05, "10.0.0.5"), (0x77, "10.0.0.6"));
    assert_eq!(dropped(lost), ["ls_in_l2_unknown switches/web"]);
    // The router tells the source of one, and asks for the other.
    for target in ["10.99.0.6", "10.0.1.99"] {
        let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, target)));
        let [(port, _)] = outcome.out[..] else { panic!("{target}: {:?}", outcome.drops) };
        assert_eq!(port, PortNo::CONTROLLER.get());
    }
    let mut last = echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.5"));
    last.set(Field::NwTtl, 1);
    assert_eq!(dropped(last), ["ls_in_acl_eval switches/web/acls/quiet"]);
    let mut tagged = echo((0x05, "10.0.0.5"), (0x06, "10.0.0.6"));
    tagged.set(Field::VlanTci, 0x1005);
    assert_eq!(dropped(tagged), ["ls_in_port_sec_l2 switches/web"]);
}

#[test]
fn what_came_by_a_tunnel_never_leaves_by_one() {
    let (h1, h2) = (Host::new(&small(), "h1"), Host::new(&small(), "h2"));
    // A host with an old view, or an evil one, names each port and group there may be.
    for (datapath, outport) in (0..5).flat_map(|datapath| (0..6).map(move |port| (datapath, port))) {
        for outport in [outport, 0x8000 + outport] {
            for dst in [0x05, 0x06, 0xf0, 0xf1] {
                let mut key = echo((0x05, "10.0.0.5"), (dst, "10.0.1.6"));
                key.set(Field::InPort, TUNNEL.into());
                key.set(Field::TunId, datapath);
                key.set(Field::TunMetadata0, 1 << 16 | outport);
                for host in [&h1, &h2] {
                    let outcome = host.receive(key);
                    assert!(outcome.out.iter().all(|(port, _)| *port != TUNNEL));
                    assert!(!outcome.out.is_empty() || !outcome.drops.is_empty());
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_realised_is_told() {
    let mut nb = small();
    let b = workload(2, 0x06, &["10.0.0.6"], "h3");
    nb.switches.get_mut("web").unwrap().ports.insert("b".into(), b);
    let sb = compile(&nb, &hosts());
    let ports = [("a".to_owned(), PortNo::new(1).unwrap()), ("c".to_owned(), PortNo::new(1).unwrap())];
    let local = LocalPorts { chassis: "h1".to_owned(), ports: ports.into(), ..LocalPorts::default() };
    let lowered = lower(&chassis_view(&sb, "h1"), &local);
    let errors: Vec<_> = lowered.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "chassis/h2: this chassis has no tunnel port to reach it",
            "chassis/h3: its address is not known",
            "switches/db/ports/c: port 1 of the switch belongs to `a` already",
        ]
    );
    let host = Host::with(lowered, local);
    let outcome = host.send("a", echo((0x05, "10.0.0.5"), (0x06, "10.0.0.6")));
    assert_eq!(outcome.drops, ["remote_output switches/web/ports/b"]);
    let outcome = host.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.5")));
    assert_eq!(outcome.drops, ["local_output switches/db/ports/c"]);
}

#[test]
fn what_is_wrong_in_flows_never_widens() {
    let sb = compile(&small(), &hosts());
    let mut view = chassis_view(&sb, "h1");
    let template = view.flows.values().next().unwrap().clone();
    view.flows.clear();
    let id = |n: u64| u64::from(template.datapath.get()) << 40 | n;
    let flow = |matching: &str, actions: &str| crate::southbound::LogicalFlow {
        matching: matching.to_owned(),
        actions: actions.to_owned(),
        ..(*template).clone()
    };
    view.flows.insert(id(1), Arc::new(flow("inport == \"gone\" && ip4", "next;")));
    view.flows.insert(id(2), Arc::new(flow("arp", "outport = \"gone\"; output;")));
    view.flows.insert(id(3), Arc::new(flow("tcp.dts == 1", "next;")));
    view.flows.insert(id(4), Arc::new(flow("ip6", "nonsense;")));
    let mut far = flow("ip4", "next;");
    far.stage = 60;
    view.flows.insert(id(5), Arc::new(far));
    let mut unreadable = flow("tcp.dts == 1", "drop;");
    unreadable.priority = Priority::new(77).unwrap();
    view.flows.insert(id(6), Arc::new(unreadable));
    view.flows.insert(id(7), Arc::new(flow("udp.dst == 7 && ip4", "arp.op = 2; next;")));
    let lowered = lower(&view, &LocalPorts { chassis: "h1".into(), ..LocalPorts::default() });
    let logical: Vec<_> = lowered.rules.iter().filter(|rule| rule.cookie != 0).collect();
    assert_eq!(logical.iter().map(|rule| rule.cookie).collect::<Vec<_>>(), [6, 7, 2, 4].map(id));
    assert_eq!(logical[0].matching, Match::any().with(Field::Metadata, template.datapath.get().into()));
    assert!(logical.iter().all(|rule| rule.actions.is_empty()));
    assert_eq!(
        lowered.errors.iter().filter(|error| !error.object.starts_with("chassis/")).count(),
        5,
        "two of them say the same"
    );
}

#[test]
fn a_chassis_with_no_port_of_a_network_has_no_rule_of_it() {
    let mut nb = small();
    let mut lone = switch(9);
    lone.ports.insert("x".into(), workload(1, 0x55, &["10.5.0.5"], "h2"));
    nb.switches.insert("lone".into(), lone);
    let (h1, h2) = (Host::new(&nb, "h1"), Host::new(&nb, "h2"));
    let of_lone = |host: &Host| {
        host.lowered.rules.iter().filter(|rule| rule.origin.object.starts_with("switches/lone")).count()
    };
    assert_eq!(of_lone(&h1), 0);
    assert!(of_lone(&h2) > 10);
}

#[test]
fn lowering_is_deterministic_and_has_one_rule_per_match() {
    let (one, two) = (Host::new(&small(), "h1").lowered, Host::new(&small(), "h1").lowered);
    let text =
        |rule: &Rule| format!("{:?} {} {:?} {:?}", rule.table, rule.priority, rule.matching, rule.actions);
    let texts: Vec<_> = one.rules.iter().map(text).collect();
    assert_eq!(texts, two.rules.iter().map(text).collect::<Vec<_>>());
    let mut places: Vec<_> = one
        .rules
        .iter()
        .map(|rule| format!("{:?} {} {:?}", rule.table, rule.priority, rule.matching))
        .collect();
    let n = places.len();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), n);
}
