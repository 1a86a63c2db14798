//! Load balancers, with whole conversations.

use flowtable::{
    build::{self, Host},
    field::Field,
};

use super::{
    fabric::{Fabric, fields, key, tcp},
    hw, ip, ip6,
};
use crate::{
    fixture::*,
    model::{
        Acl, AclAction, AclDirection, DefaultPolicy, HashField, LoadBalancer, Northbound, Protocol,
        TemplateBackend, TemplatePort, TemplateService,
    },
    punt::Service,
};

const SYN: u16 = 2;
const ACK: u16 = 16;
const SYN_ACK: u16 = SYN | ACK;

/// One end of a conversation, as the other sees it: with the MAC address of the router.
fn end(last: u8, ip: &str, port: u16) -> Host {
    Host { mac: mac(last), ip: ip.parse().unwrap(), port }
}

fn with(nb: &mut Northbound, balancer: LoadBalancer) {
    nb.load_balancers.insert("lb".into(), balancer);
}

/// `small` with a service on the switch of the client `c`.
fn served(balancer: LoadBalancer) -> Northbound {
    let mut nb = small();
    nb.switches.get_mut("db").unwrap().load_balancers.insert("lb".into());
    with(&mut nb, balancer);
    nb
}

/// The client `c` and the server `last` shake hands; which backend it was.
fn connect(fabric: &mut Fabric, port: u16, vip: &str) -> String {
    let (client, service) = (end(0x15, "10.0.1.5", port), end(0xf1, vip, 80));
    let sent = fabric.send("c", &tcp(&client, &service, SYN, (100, 0), b""));
    let [(backend, syn)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    let last = if backend == "a" { 0x05 } else { 0x06 };
    let wanted = [ip("10.0.1.5"), ip(&format!("10.0.0.{last}")), port.into(), 8080, hw(last)];
    let seen = [Field::NwSrc, Field::NwDst, Field::TcpSrc, Field::TcpDst, Field::EthDst];
    assert_eq!(fields(syn, &seen), wanted);
    let server = end(last, &format!("10.0.0.{last}"), 8080);
    let back = Host { mac: mac(0xf0), ..client };
    let sent = fabric.send(backend, &tcp(&server, &back, SYN_ACK, (900, 101), b""));
    let [(to, answer)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!(to, "c");
    let wanted = [ip(vip), ip("10.0.1.5"), 80, port.into()];
    assert_eq!(fields(answer, &[Field::NwSrc, Field::NwDst, Field::TcpSrc, Field::TcpDst]), wanted);
    backend.clone()
}

/// Another segment of the client; who gets it.
fn go_on(fabric: &mut Fabric, port: u16, vip: &str) -> Vec<String> {
    let (client, service) = (end(0x15, "10.0.1.5", port), end(0xf1, vip, 80));
    let sent = fabric.send("c", &tcp(&client, &service, ACK, (101, 901), b"hello"));
    sent.into_iter().map(|(to, _)| to).collect()
}

#[test]
fn connections_are_spread_and_stay_when_the_list_changes() {
    let both = ["10.0.0.5:8080", "10.0.0.6:8080"];
    let mut nb = served(balancer("192.0.2.10:80", &both));
    let mut fabric = Fabric::new(&nb);
    let backends: Vec<_> = (0..40).map(|n| connect(&mut fabric, 2000 + n, "192.0.2.10")).collect();
    let n_a = backends.iter().filter(|backend| *backend == "a").count();
    assert!((8..=32).contains(&n_a), "{n_a} of 40");
    // One backend goes: whoever is connected stays, whoever comes gets the other one.
    with(&mut nb, balancer("192.0.2.10:80", &both[1..]));
    fabric.change(&nb);
    for (n, backend) in (0..).zip(&backends) {
        assert_eq!(
            go_on(&mut fabric, 2000 + n, "192.0.2.10"),
            std::slice::from_ref(backend),
            "connection {n}"
        );
    }
    for n in 0..10 {
        assert_eq!(connect(&mut fabric, 3000 + n, "192.0.2.10"), "b");
    }
    // It is back: those that are connected to `b` stay there.
    with(&mut nb, balancer("192.0.2.10:80", &both));
    fabric.change(&nb);
    for n in 0..10 {
        assert_eq!(go_on(&mut fabric, 3000 + n, "192.0.2.10"), ["b"]);
    }
    fabric.check_conservation();
    assert_eq!(fabric.drops().len(), 0, "{:?}", fabric.drops());
}

#[test]
fn a_router_lends_its_load_balancers_to_its_switches() {
    let mut nb = small();
    nb.routers.get_mut("r").unwrap().load_balancers.insert("lb".into());
    with(&mut nb, balancer("192.0.2.10:80", &["10.0.0.6:8080"]));
    let mut fabric = Fabric::new(&nb);
    assert_eq!(connect(&mut fabric, 2000, "192.0.2.10"), "b");
    fabric.check_conservation();
}

#[test]
fn affinity_keeps_a_client_at_one_backend() {
    let mut lb = balancer("192.0.2.10:80", &["10.0.0.5:8080", "10.0.0.6:8080"]);
    lb.hash_fields = vec![HashField::IpSrc];
    let mut fabric = Fabric::new(&served(lb));
    let first = connect(&mut fabric, 2000, "192.0.2.10");
    for n in 1..20 {
        assert_eq!(connect(&mut fabric, 2000 + n, "192.0.2.10"), first);
    }
}

#[test]
fn a_client_that_comes_back_in_time_gets_the_backend_it_had() {
    let mut lb = balancer("192.0.2.10:80", &["10.0.0.5:8080", "10.0.0.6:8080"]);
    lb.affinity = Some(60);
    let mut fabric = Fabric::new(&served(lb));
    let mut seen = std::collections::BTreeSet::new();
    let mut port = 2000;
    for _ in 0..20 {
        let first = connect(&mut fabric, port, "192.0.2.10");
        for _ in 0..5 {
            port += 1;
            // Each time it comes back the time begins anew.
            fabric.pass(40);
            assert_eq!(connect(&mut fabric, port, "192.0.2.10"), first);
        }
        seen.insert(first);
        port += 1;
        fabric.pass(61);
    }
    assert_eq!(seen.len(), 2, "who comes later is spread like anybody");
    fabric.check_conservation();
    assert_eq!(fabric.drops().len(), 0, "{:?}", fabric.drops());
}

#[test]
fn affinity_of_every_kind_of_service_is_taken_by_the_tables() {
    let kinds = [
        ("192.0.2.10", "10.0.0.5"),
        ("192.0.2.10:80", "10.0.0.5:80"),
        ("2001:db8:ffff::1", "2001:db8::6"),
        ("[2001:db8:ffff::1]:80", "[2001:db8::6]:80"),
    ];
    for ((vip, backend), protocol) in kinds.iter().flat_map(|kind| Protocol::ALL.map(|p| (*kind, p))) {
        let lb = LoadBalancer { affinity: Some(1), protocol, ..balancer(vip, &[backend]) };
        let mut nb = served(lb);
        nb.routers.get_mut("r").unwrap().chassis = Some("h1".into());
        nb.routers.get_mut("r").unwrap().load_balancers.insert("lb".into());
        let host = super::host::Host::new(&nb, "h1");
        assert_eq!(host.lowered.errors, [], "{vip} {protocol:?}");
        let checks = host.lowered.rules.iter().filter(|rule| rule.origin.stage.ends_with("lb_aff_check"));
        assert!(checks.filter(|rule| rule.origin.object == "load-balancers/lb").count() >= 2);
    }
}

#[test]
fn a_whole_address_is_balanced_whatever_the_protocol() {
    let mut fabric = Fabric::new(&served(balancer("192.0.2.10", &["10.0.0.5"])));
    let (client, service) = (end(0x15, "10.0.1.5", 2000), end(0xf1, "192.0.2.10", 53));
    let server = end(0x05, "10.0.0.5", 53);
    let back = Host { mac: mac(0xf0), ..client };
    for (there, answer) in [
        (build::udp(&client, &service, b"?"), build::udp(&server, &back, b"!")),
        (
            build::icmp_echo(&client, &service, false, 7, 1, b"x"),
            build::icmp_echo(&server, &back, true, 7, 1, b"x"),
        ),
    ] {
        let sent = fabric.send("c", &there);
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!((to.as_str(), key(frame).get(Field::NwDst)), ("a", ip("10.0.0.5")));
        let sent = fabric.send("a", &answer);
        let [(to, frame)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
        assert_eq!((to.as_str(), key(frame).get(Field::NwSrc)), ("c", ip("192.0.2.10")));
    }
    fabric.check_conservation();
}

#[test]
fn ipv6_and_udp_and_sctp_are_balanced_too() {
    for (protocol, proto) in [(Protocol::Udp, 17), (Protocol::Tcp, 6), (Protocol::Sctp, 132)] {
        let mut nb = small();
        let mut lb = balancer("[2001:db8:ffff::1]:80", &["[2001:db8::6]:8080"]);
        lb.protocol = protocol;
        with(&mut nb, lb);
        nb.switches.get_mut("web").unwrap().load_balancers.insert("lb".into());
        let mut fabric = Fabric::new(&nb);
        let mut key_of = super::keyed(&[
            (Field::EthSrc, hw(0x05)),
            (Field::EthDst, hw(0xf0)),
            (Field::EthType, 0x86dd),
            (Field::Ipv6Src, ip6("2001:db8::5")),
            (Field::Ipv6Dst, ip6("2001:db8:ffff::1")),
            (Field::NwProto, proto),
            (Field::NwTtl, 64),
            (Field::TcpSrc, 4000),
            (Field::TcpDst, 80),
        ]);
        if proto == 6 {
            key_of.set(Field::TcpFlags, SYN.into());
        }
        let mut frame = build::frame_from_key(&key_of, 20);
        if proto == 132 {
            // INIT (RFC 9260 §3.3.2): the tag is zero.
            frame[58..62].fill(0);
            frame[66..].copy_from_slice(&[1, 0, 0, 20, 0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            let sum = flowtable::crc32c::of([&frame[54..62], &[0; 4], &frame[66..]]);
            frame[62..66].copy_from_slice(&sum.to_le_bytes());
        }
        let sent = fabric.send("a", &frame);
        let [(to, frame)] = &sent[..] else { panic!("{protocol:?}: {sent:?} {:?}", fabric.drops()) };
        assert_eq!(to, "b");
        assert_eq!(
            fields(frame, &[Field::Ipv6Dst, Field::TcpDst]),
            [ip6("2001:db8::6"), 8080],
            "{protocol:?}"
        );
        fabric.check_conservation();
    }
}

#[test]
fn a_client_may_be_its_own_backend() {
    let nb = served(balancer("192.0.2.10:80", &["10.0.1.5:8080"]));
    let mut fabric = Fabric::new(&nb);
    let (client, service) = (end(0x15, "10.0.1.5", 2000), end(0xf1, "192.0.2.10", 80));
    let sent = fabric.send("c", &tcp(&client, &service, SYN, (100, 0), b""));
    let [(to, syn)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    let seen = [Field::NwSrc, Field::NwDst, Field::TcpSrc, Field::TcpDst, Field::EthDst];
    assert_eq!(to, "c");
    assert_eq!(fields(syn, &seen), [ip("192.0.2.10"), ip("10.0.1.5"), 2000, 8080, hw(0x15)]);
    let (server, peer) = (end(0x15, "10.0.1.5", 8080), end(0xf1, "192.0.2.10", 2000));
    let sent = fabric.send("c", &tcp(&server, &peer, SYN_ACK, (900, 101), b""));
    let [(to, answer)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!(to, "c");
    assert_eq!(fields(answer, &seen), [ip("192.0.2.10"), ip("10.0.1.5"), 80, 2000, hw(0x15)]);
    let sent = fabric.send("c", &tcp(&client, &service, ACK, (101, 901), b"hello"));
    assert_eq!(fields(&sent[0].1, &seen[..2]), [ip("192.0.2.10"), ip("10.0.1.5")]);
    fabric.check_conservation();
}

#[test]
fn a_client_that_is_its_own_backend_hears_from_the_service_it_has_asked() {
    let vips = ["192.0.2.10", "192.0.2.11", "192.0.2.12"];
    let mut lb = balancer("192.0.2.10:80", &["10.0.1.5:8080"]);
    for vip in &vips[1..] {
        lb.vips.extend(balancer(&format!("{vip}:80"), &["10.0.1.5:8080"]).vips);
    }
    let mut fabric = Fabric::new(&served(lb));
    for (n, vip) in (0..).zip(vips) {
        let (client, service) = (end(0x15, "10.0.1.5", 2000 + n), end(0xf1, vip, 80));
        for (flags, numbers) in [(SYN, (100, 0)), (ACK, (101, 901))] {
            let sent = fabric.send("c", &tcp(&client, &service, flags, numbers, b""));
            let [(to, seen)] = &sent[..] else { panic!("{vip}: {sent:?} {:?}", fabric.drops()) };
            assert_eq!((to.as_str(), fields(seen, &[Field::NwSrc])), ("c", vec![ip(vip)]));
            let (server, peer) = (end(0x15, "10.0.1.5", 8080), end(0xf1, vip, 2000 + n));
            let sent = fabric.send("c", &tcp(&server, &peer, flags | ACK, (900, 101), b""));
            assert_eq!(fields(&sent[0].1, &[Field::NwSrc, Field::TcpSrc]), [ip(vip), 80]);
        }
    }
    fabric.check_conservation();
}

#[test]
fn a_service_without_backends_drops_by_name_or_rejects() {
    let mut nb = served(balancer("192.0.2.10:80", &["10.0.0.5:8080"]));
    let service = nb.load_balancers.get_mut("lb").unwrap().vips.values_mut().next().unwrap();
    service.backends[0].online = false;
    let mut fabric = Fabric::new(&nb);
    let (client, vip) = (end(0x15, "10.0.1.5", 2000), end(0xf1, "192.0.2.10", 80));
    let syn = tcp(&client, &vip, SYN, (100, 0), b"");
    assert_eq!(fabric.send("c", &syn), []);
    assert_eq!(fabric.drops(), [("ls_in_lb load-balancers/lb".to_owned(), 1)].into());
    nb.load_balancers.get_mut("lb").unwrap().reject = true;
    fabric.change(&nb);
    assert_eq!(fabric.send("c", &syn), []);
    let requests = fabric.requests();
    let [(request, found)] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.service, Service::TcpReset);
    assert_eq!(key(&found.bytes).get(Field::NwDst), ip("192.0.2.10"));
    fabric.check_conservation();
}

#[test]
fn acls_beside_a_load_balancer_leave_it_its_connections() {
    let mut nb = served(balancer("192.0.2.10:80", &["10.0.0.5:8080", "10.0.0.6:8080"]));
    let to = crate::model::AclDirection::ToLport;
    for id in ["db", "web"] {
        let acls = &mut nb.switches.get_mut(id).unwrap().acls;
        let deny = acl(to, 1000, "tcp.dst == 23", crate::model::AclAction::Drop);
        acls.insert(format!("{id}-telnet"), deny);
        let related = acl(to, 900, "tcp.dst == 8080", crate::model::AclAction::AllowRelated);
        acls.insert(format!("{id}-related"), related);
    }
    let mut fabric = Fabric::new(&nb);
    for n in 0..10 {
        connect(&mut fabric, 2000 + n, "192.0.2.10");
        assert_eq!(go_on(&mut fabric, 2000 + n, "192.0.2.10").len(), 1);
    }
    fabric.check_conservation();
    assert_eq!(fabric.drops().len(), 0, "{:?}", fabric.drops());
}

#[test]
fn acls_behind_load_balancers_see_the_backend() {
    let late =
        |matching: &str| Acl { after_lb: true, ..acl(AclDirection::FromLport, 7, matching, AclAction::Drop) };
    let mut nb = served(balancer("192.0.2.10:80", &["10.0.0.5:8080"]));
    let db = nb.switches.get_mut("db").unwrap();
    db.acls.insert("all".into(), acl(AclDirection::FromLport, 1, "ip4", AclAction::AllowRelated));
    let mut fabric = Fabric::new(&nb);
    assert_eq!(connect(&mut fabric, 2000, "192.0.2.10"), "a");
    assert_eq!(go_on(&mut fabric, 2000, "192.0.2.10"), ["a"]);
    nb.switches
        .get_mut("db")
        .unwrap()
        .acls
        .insert("late".into(), late("ip4.dst == 10.0.0.5 && tcp.dst == 8080"));
    fabric.change(&nb);
    assert_eq!(go_on(&mut fabric, 2000, "192.0.2.10"), [""; 0], "a connection that was allowed ends");
    let (client, service) = (end(0x15, "10.0.1.5", 2001), end(0xf1, "192.0.2.10", 80));
    assert_eq!(fabric.send("c", &tcp(&client, &service, SYN, (100, 0), b"")), []);
    let drops = fabric.drops();
    assert_eq!(drops.get("ls_in_acl_after_lb_eval switches/db/acls/late"), Some(&2), "{drops:?}");
    // What they allow is still denied by the others, and by the default.
    nb.switches
        .get_mut("db")
        .unwrap()
        .acls
        .insert("late".into(), Acl { action: AclAction::Allow, ..late("ip4") });
    nb.switches.get_mut("db").unwrap().acls.remove("all");
    nb.switches.get_mut("db").unwrap().default_policy = DefaultPolicy::Drop;
    let mut fabric = Fabric::new(&nb);
    assert_eq!(fabric.send("c", &tcp(&client, &service, SYN, (100, 0), b"")), []);
    fabric.check_conservation();
}

#[test]
fn connections_stay_allowed_where_an_acl_has_said_so() {
    for persists in [false, true] {
        let mut nb = served(balancer("192.0.2.10:80", &["10.0.0.5:8080"]));
        let db = nb.switches.get_mut("db").unwrap();
        db.default_policy = DefaultPolicy::Drop;
        let allow =
            Acl { persists, ..acl(AclDirection::FromLport, 1, "inport == \"c\"", AclAction::AllowRelated) };
        db.acls.insert("allow".into(), allow);
        let back = acl(AclDirection::ToLport, 1, "outport == \"d\"", AclAction::AllowRelated);
        db.acls.insert("other".into(), back);
        let mut fabric = Fabric::new(&nb);
        assert_eq!(connect(&mut fabric, 2000, "192.0.2.10"), "a");
        assert_eq!(go_on(&mut fabric, 2000, "192.0.2.10"), ["a"]);
        nb.switches.get_mut("db").unwrap().acls.remove("allow");
        fabric.change(&nb);
        let wanted: &[&str] = if persists { &["a"] } else { &[] };
        assert_eq!(go_on(&mut fabric, 2000, "192.0.2.10"), wanted, "persists: {persists}");
        // New ones are judged as all.
        let (client, service) = (end(0x15, "10.0.1.5", 2001), end(0xf1, "192.0.2.10", 80));
        assert_eq!(fabric.send("c", &tcp(&client, &service, SYN, (100, 0), b"")), []);
        fabric.check_conservation();
    }
}

#[test]
fn a_service_is_another_one_on_each_chassis() {
    let values = |h1: &[&str], h2: &[&str]| {
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let all = [("h1".to_owned(), h1), ("h2".to_owned(), h2)].into_iter();
        all.filter(|(_, values)| !values.is_empty()).map(|(id, values)| (id, set(values))).collect()
    };
    let service = TemplateService {
        is_v4: true,
        address: "node".into(),
        port: Some(TemplatePort::Number(80)),
        backends: vec![TemplateBackend::Variable("near".into())],
    };
    let lb = LoadBalancer { templates: vec![service], reject: true, ..LoadBalancer::default() };
    let mut nb = served(lb);
    nb.template_variables.insert("node".into(), values(&["192.0.2.11"], &["192.0.2.12"]));
    nb.template_variables
        .insert("near".into(), values(&["10.0.0.5:8080"], &["10.0.0.6:8080", "[fe80::1]:1"]));
    let mut fabric = Fabric::new(&nb);
    assert_eq!(connect(&mut fabric, 2000, "192.0.2.11"), "a");
    // The other one's address is a service of `h2` alone: from here it is nobody's.
    let (client, other) = (end(0x15, "10.0.1.5", 2001), end(0xf1, "192.0.2.12", 80));
    assert_eq!(fabric.send("c", &tcp(&client, &other, SYN, (100, 0), b"")), []);
    let (client, service) = (end(0x16, "10.0.1.6", 2002), end(0xf1, "192.0.2.12", 80));
    let sent = fabric.send("d", &tcp(&client, &service, SYN, (100, 0), b""));
    assert_eq!(sent.iter().map(|(to, _)| to.as_str()).collect::<Vec<_>>(), ["b"], "{:?}", fabric.drops());
    // Other values are other services, and those that are connected stay.
    nb.template_variables.insert("near".into(), values(&["10.0.0.6:8080"], &[]));
    fabric.change(&nb);
    assert_eq!(go_on(&mut fabric, 2000, "192.0.2.11"), ["a"]);
    assert_eq!(connect(&mut fabric, 2003, "192.0.2.11"), "b");
    // Where no backend is left, clients are told.
    drop(fabric.requests());
    let client = end(0x16, "10.0.1.6", 2004);
    assert_eq!(fabric.send("d", &tcp(&client, &service, SYN, (100, 0), b"")), []);
    let asked: Vec<_> = fabric.requests().into_iter().map(|(request, _)| request.service).collect();
    assert_eq!(asked, [Service::TcpReset]);
    fabric.check_conservation();
}

#[test]
fn a_match_means_what_a_variable_is_on_the_packets_chassis() {
    let drop_to = |matching: &str| acl(AclDirection::FromLport, 7, matching, AclAction::Drop);
    let mut nb = small();
    let values = [("h1".to_owned(), ["10.0.1.6".to_owned(), "80".to_owned()].into())].into();
    nb.template_variables.insert("far".into(), values);
    nb.switches.get_mut("db").unwrap().acls.insert("x".into(), drop_to("ip4.dst == ^far"));
    let mut fabric = Fabric::new(&nb);
    let host =
        |last: u8| Host { mac: mac(last), ip: format!("10.0.1.{}", last & 0xf).parse().unwrap(), port: 9 };
    let frame = |from: u8, to: u8| build::udp(&host(from), &host(to), b"hello");
    assert_eq!(fabric.send("c", &frame(0x15, 0x16)), []);
    // `h2` has no value: the set is empty there.
    assert_eq!(fabric.send("d", &frame(0x16, 0x15)).len(), 1);
    nb.switches.get_mut("db").unwrap().acls.insert("x".into(), drop_to("ip4.dst != ^far"));
    fabric.change(&nb);
    assert_eq!(fabric.send("c", &frame(0x15, 0x16)).len(), 1);
    assert_eq!(fabric.send("d", &frame(0x16, 0x15)), []);
    fabric.check_conservation();
}
