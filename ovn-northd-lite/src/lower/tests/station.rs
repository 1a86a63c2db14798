//! Stations behind ports that take unknown addresses, and what switches do besides.

use flowtable::{
    build::{self, Host as End},
    field::Field,
    types::MacAddr,
};

use super::{
    fabric::{Fabric, fields, key},
    hw, ip,
};
use crate::{
    fixture::*,
    model::{AclAction, AclDirection, Northbound, SwitchPort, SwitchPortKind},
};

fn end(last: u8, ip: &str) -> End {
    End { mac: mac(last), ip: ip.parse().unwrap(), port: 7 }
}

/// A switch with three ports that take unknown addresses, of which the first two are on
/// `h1`, and one with a known one.
fn open() -> Northbound {
    let mut nb = Northbound::default();
    let mut web = switch(1);
    for (key, id, chassis) in [(1, "x", "h1"), (2, "y", "h1"), (3, "z", "h2")] {
        let mut port = workload(key, 0, &[], chassis);
        let SwitchPortKind::Workload { addresses, unknown, .. } = &mut port.kind else { unreachable!() };
        (*addresses, *unknown) = (Vec::new(), true);
        web.ports.insert(id.into(), port);
    }
    web.ports.insert("k".into(), workload(4, 0x0d, &["10.0.0.13"], "h2"));
    nb.switches.insert("web".into(), web);
    nb
}

/// Who gets a frame.
fn who(fabric: &mut Fabric, from: &str, ends: (&End, &End)) -> Vec<String> {
    let mut names: Vec<_> =
        fabric.send(from, &build::udp(ends.0, ends.1, b"x")).into_iter().map(|(to, _)| to).collect();
    names.sort();
    names
}

#[test]
fn frames_go_where_a_station_was_seen_last() {
    let (one, two, three) = (end(0x31, "10.0.0.1"), end(0x32, "10.0.0.2"), end(0x0d, "10.0.0.13"));
    let mut fabric = Fabric::new(&open());
    // Nobody has seen the second station yet.
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["y", "z"]);
    // It answers, on another host, and both are known to both.
    assert_eq!(who(&mut fabric, "z", (&two, &one)), ["x"]);
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["z"]);
    // It moves, and says so.
    assert_eq!(who(&mut fabric, "y", (&two, &one)), ["x"]);
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["y"]);
    // The other host has not heard of it: its frames go where the station was.
    assert_eq!(who(&mut fabric, "k", (&three, &two)), ["z"]);
    let everybody = End { mac: MacAddr::BROADCAST, ..three };
    assert_eq!(who(&mut fabric, "y", (&two, &everybody)), ["k", "x", "z"]);
    assert_eq!(who(&mut fabric, "k", (&three, &two)), ["y"]);
    // The address of a port is its own, whoever speaks with it.
    assert_eq!(who(&mut fabric, "x", (&three, &one)), [""; 0]);
    assert_eq!(who(&mut fabric, "y", (&two, &three)), ["k"]);
    fabric.check_conservation();
}

#[test]
fn stations_are_forgotten_that_say_nothing() {
    let (one, two) = (end(0x31, "10.0.0.1"), end(0x32, "10.0.0.2"));
    for (age, asked, wanted) in
        [(60, 50, &["z"][..]), (60, 70, &["y", "z"]), (0, 5000, &["z"]), (60, 50, &["z"])]
    {
        let mut nb = open();
        nb.switches.get_mut("web").unwrap().options.station_age = age;
        let mut fabric = Fabric::new(&nb);
        who(&mut fabric, "z", (&two, &one));
        fabric.pass(asked);
        assert_eq!(who(&mut fabric, "x", (&one, &two)), wanted, "{age} {asked}");
    }
    // Each frame begins the time anew.
    let mut nb = open();
    nb.switches.get_mut("web").unwrap().options.station_age = 60;
    let mut fabric = Fabric::new(&nb);
    for _ in 0..4 {
        who(&mut fabric, "z", (&two, &one));
        fabric.pass(40);
    }
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["z"]);
    fabric.check_conservation();
}

#[test]
fn ports_learn_as_they_are_told() {
    let (one, two) = (end(0x31, "10.0.0.1"), end(0x32, "10.0.0.2"));
    let mut nb = open();
    nb.switches.get_mut("web").unwrap().ports.get_mut("z").unwrap().options.learns = Some(false);
    let mut fabric = Fabric::new(&nb);
    who(&mut fabric, "z", (&two, &one));
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["y", "z"]);
    // Who is known by port security is not looked for.
    let mut nb = open();
    let web = nb.switches.get_mut("web").unwrap();
    let z = web.ports.remove("z").unwrap();
    web.ports.insert("z".into(), secured(z, 0x32, &[]));
    let mut fabric = Fabric::new(&nb);
    who(&mut fabric, "z", (&two, &one));
    assert_eq!(who(&mut fabric, "x", (&one, &two)), ["y", "z"]);
}

#[test]
fn ports_get_no_group_frames_and_no_stand_in_where_they_want_none() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    web.ports.get_mut("b").unwrap().options.silent = true;
    let mut fabric = Fabric::new(&nb);
    let a = end(0x05, "10.0.0.5");
    let ask = |ip: &str| build::arp(1, &a, &End { mac: MacAddr::BROADCAST, ..end(0, ip) });
    let to = |sent: Vec<(String, Vec<u8>)>| sent.into_iter().map(|(to, _)| to).collect::<Vec<_>>();
    // It is asked itself.
    assert_eq!(to(fabric.send("a", &ask("10.0.0.6"))), ["b"]);
    nb.switches.get_mut("web").unwrap().ports.get_mut("b").unwrap().options.takes_groups = false;
    fabric.change(&nb);
    assert_eq!(fabric.send("a", &ask("10.0.0.6")), []);
    fabric.check_conservation();
}

#[test]
fn a_router_stands_for_networks_that_are_not_there() {
    let mut nb = small();
    let port = nb.switches.get_mut("web").unwrap().ports.get_mut("web-r").unwrap();
    port.options.stands_for = vec![network("10.9.0.0/16")];
    let ask =
        |ip: &str| build::arp(1, &end(0x05, "10.0.0.5"), &End { mac: MacAddr::BROADCAST, ..end(0, ip) });
    let mut fabric = Fabric::new(&nb);
    let sent = fabric.send("a", &ask("10.9.1.2"));
    let [(to, answer)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!(to, "a");
    let seen = [Field::ArpOp, Field::ArpSha, Field::ArpSpa, Field::ArpTpa];
    assert_eq!(fields(answer, &seen), [2, hw(0xf0), ip("10.9.1.2"), ip("10.0.0.5")]);
    // Whom the switch knows it answers for all the same.
    let sent = fabric.send("a", &ask("10.0.0.6"));
    assert_eq!(fields(&sent[0].1, &[Field::ArpSha]), [hw(0x06)]);
    nb.switches.get_mut("web").unwrap().ports.get_mut("web-r").unwrap().options.stands_for_mac =
        Some(mac(0x99));
    let mut fabric = Fabric::new(&nb);
    let sent = fabric.send("a", &ask("10.9.1.2"));
    assert_eq!(fields(&sent[0].1, &[Field::ArpSha]), [hw(0x99)]);
    fabric.check_conservation();
}

#[test]
fn tags_pass_where_they_may() {
    let mut nb = small();
    let frame = build::udp(&end(0x05, "10.0.0.5"), &end(0x06, "10.0.0.6"), b"x");
    let tagged = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    assert_eq!(Fabric::new(&nb).send("a", &tagged), []);
    nb.switches.get_mut("web").unwrap().options.vlan_passthru = true;
    let mut fabric = Fabric::new(&nb);
    let sent = fabric.send("a", &tagged);
    let [(to, got)] = &sent[..] else { panic!("{sent:?} {:?}", fabric.drops()) };
    assert_eq!((to.as_str(), key(got).get(Field::VlanTci)), ("b", 0x1007));
    fabric.check_conservation();
}

#[test]
fn two_switches_are_one_network() {
    let mut nb = small();
    nb.routers.clear();
    let beyond = |switch: &str, port: &str| {
        let kind = SwitchPortKind::Switch { switch: switch.to_owned(), port: port.to_owned() };
        SwitchPort {
            key: port_key(9),
            kind,
            enabled: true,
            services: Default::default(),
            options: Default::default(),
            hears: Default::default(),
        }
    };
    nb.switches.get_mut("web").unwrap().ports.insert("web-db".into(), beyond("db", "db-web"));
    nb.switches.get_mut("db").unwrap().ports.insert("db-web".into(), beyond("web", "web-db"));
    let (a, d) = (end(0x05, "10.0.0.5"), end(0x16, "10.0.1.6"));
    let mut fabric = Fabric::new(&nb);
    // A question reaches the other switch, which knows the answer; or everybody.
    let sent = fabric.send("a", &build::arp(1, &a, &End { mac: MacAddr::BROADCAST, ..d }));
    let answers: Vec<_> = sent.iter().filter(|(_, frame)| fields(frame, &[Field::ArpOp]) == [2]).collect();
    assert!(matches!(&answers[..], [(to, _)] if to == "a"), "{sent:?} {:?}", fabric.drops());
    // Across hosts, and back.
    assert_eq!(who(&mut fabric, "a", (&a, &d)), ["d"]);
    assert_eq!(who(&mut fabric, "d", (&d, &a)), ["a"]);
    let everybody = End { mac: MacAddr::BROADCAST, ..d };
    assert_eq!(who(&mut fabric, "a", (&a, &everybody)), ["b", "c", "d"], "each once");
    // The ACLs of a switch are for its own ports.
    let deny = acl(AclDirection::ToLport, 1, "outport == \"d\" && udp", AclAction::Drop);
    nb.switches.get_mut("db").unwrap().acls.insert("no".into(), deny);
    fabric.change(&nb);
    assert_eq!(who(&mut fabric, "a", (&a, &d)), [""; 0]);
    fabric.check_conservation();
    // Who is not asked for in return is linked to nobody.
    nb.switches.get_mut("db").unwrap().ports.get_mut("db-web").unwrap().kind = beyond("web", "b").kind;
    let mut fabric = Fabric::new(&nb);
    assert_eq!(who(&mut fabric, "a", (&a, &everybody)), ["b"]);
}

#[test]
fn a_workloads_own_address_is_where_it_was_seen_last() {
    let (own, other) = (end(0x0d, "10.0.0.13"), end(0x31, "10.0.0.1"));
    for (is_looked_up, wanted) in [(false, ["k", "k"]), (true, ["y", "k"])] {
        let mut nb = open();
        let port = nb.switches.get_mut("web").unwrap().ports.get_mut("k").unwrap();
        let SwitchPortKind::Workload { unknown, .. } = &mut port.kind else { unreachable!() };
        *unknown = true;
        port.options.is_looked_up = is_looked_up;
        let mut fabric = Fabric::new(&nb);
        who(&mut fabric, "x", (&other, &own));
        // Another port has the address for a while.
        for (from, wanted) in ["y", "k"].into_iter().zip(wanted) {
            who(&mut fabric, from, (&own, &other));
            assert_eq!(who(&mut fabric, "x", (&other, &own)), [wanted], "{is_looked_up}");
        }
        fabric.check_conservation();
    }
}
