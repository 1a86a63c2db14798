//! What is sent to groups, through the switches of two hosts.

use flowtable::{
    build::{self, Host as End},
    field::Field,
    types::MacAddr,
};

use super::{
    fabric::{Fabric, fields},
    hw,
};
use crate::{
    fixture::*,
    model::{Candidate, Northbound, Snooping, SwitchPort, SwitchPortKind},
    punt::Service,
};

/// `small`, with switches that listen and a router that relays; `a`, `c` and `d` hear 239.1.2.3.
fn listening() -> Northbound {
    let mut nb = small();
    for switch in nb.switches.values_mut() {
        switch.options.snooping = Some(Snooping::default());
    }
    for (switch, port) in [("web", "a"), ("db", "c"), ("db", "d")] {
        let port = nb.switches.get_mut(switch).unwrap().ports.get_mut(port).unwrap();
        port.hears = [[239, 1, 2, 3].into()].into();
    }
    nb.routers.get_mut("r").unwrap().options.relays = true;
    nb
}

fn to_group(last: u8, source: &str, group: [u8; 4]) -> Vec<u8> {
    let [_, b, c, d] = group;
    let from = End { mac: mac(last), ip: source.parse().unwrap(), port: 7 };
    let to = End { mac: MacAddr::new([1, 0, 0x5e, b & 0x7f, c, d]), ip: group.into(), port: 5000 };
    build::udp(&from, &to, &[1; 4])
}

/// Who gets a frame of `b`'s to a group.
fn who(fabric: &mut Fabric, group: [u8; 4]) -> Vec<String> {
    let mut names: Vec<_> =
        fabric.send("b", &to_group(6, "10.0.0.6", group)).into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

const GROUP: [u8; 4] = [239, 1, 2, 3];

#[test]
fn a_group_reaches_its_hearers_on_all_hosts_and_behind_the_router_once() {
    let nb = listening();
    let mut fabric = Fabric::new(&nb);
    assert_eq!(who(&mut fabric, GROUP), ["a", "c", "d"]);
    assert_eq!(who(&mut fabric, [239, 9, 9, 9]), [""; 0], "nobody wants to hear it");
    assert_eq!(who(&mut fabric, [224, 0, 0, 251]), ["a"], "it is for the link, and not for the one behind");
    let sent = fabric.send("b", &to_group(6, "10.0.0.6", GROUP));
    for (name, frame) in sent {
        let (source, ttl) = if name == "a" { (hw(6), 64) } else { (hw(0xf1), 63) };
        assert_eq!(fields(&frame, &[Field::EthSrc, Field::NwTtl]), [source, ttl], "{name}");
    }
    // What comes by another port than its source's is somebody's who sends it round.
    let round = fabric.send("b", &to_group(6, "10.0.1.6", GROUP));
    assert_eq!(round.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a"]);
    fabric.check_conservation();
}

#[test]
fn what_nobody_wants_to_hear_goes_to_all_or_to_those_that_hear_everything() {
    let mut nb = listening();
    let unknown = [239, 9, 9, 9];
    nb.switches.get_mut("web").unwrap().ports.get_mut("a").unwrap().options.hears_all = true;
    assert_eq!(who(&mut Fabric::new(&nb), unknown), ["a"]);
    let r = nb.routers.get_mut("r").unwrap();
    r.ports.get_mut("r-db").unwrap().hears_all = true;
    nb.switches.get_mut("db").unwrap().options.snooping.as_mut().unwrap().floods_unknown = true;
    assert_eq!(who(&mut Fabric::new(&nb), unknown), ["a", "c", "d"]);
    nb.routers.get_mut("r").unwrap().options.relays = false;
    nb.switches.get_mut("web").unwrap().options.snooping = None;
    assert_eq!(
        who(&mut Fabric::new(&nb), unknown),
        ["a"],
        "a switch that does not listen, a router that drops"
    );
}

#[test]
fn reports_are_read_by_their_host_and_told_to_nobody_but_routers() {
    let mut nb = listening();
    let mut fabric = Fabric::new(&nb);
    // IGMPv2: 239.1.2.3 is wanted.
    let mut report = vec![1, 0, 0x5e, 1, 2, 3];
    report.extend(mac(6).octets());
    report.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 6, 239, 1, 2, 3]);
    report.extend([0x16, 0, 0xfa, 0xfb, 239, 1, 2, 3]);
    assert_eq!(fabric.send("b", &report), []);
    let asked = fabric.requests();
    assert_eq!(asked.iter().map(|(request, _)| request.service).collect::<Vec<_>>(), [Service::Igmp]);
    // A group that is joined is the same group for all.
    nb.switches.get_mut("web").unwrap().ports.get_mut("b").unwrap().hears = [GROUP.into()].into();
    let mut fabric = Fabric::new(&nb);
    let mut names: Vec<_> =
        fabric.send("c", &to_group(0x15, "10.0.1.5", GROUP)).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "d"]);
    fabric.check_conservation();
}

#[test]
fn groups_leave_by_the_host_that_is_the_gateway() {
    let mut nb = listening();
    let mut out = switch(4);
    let kind = SwitchPortKind::Network {
        network: "net".to_owned(),
        tag: None,
        is_service: false,
        gateway: Default::default(),
    };
    out.ports.insert("ln".into(), SwitchPort { kind, ..workload(1, 0, &[], "") });
    out.ports.insert("out-r".into(), to_router(2, "r", "r-out"));
    nb.switches.insert("out".into(), out);
    let mut port = router_port(3, 0xf2, &["192.0.2.1/24"]);
    port.gateway = vec![Candidate { chassis: "h1".to_owned(), priority: 1 }].into();
    port.hears_all = true;
    nb.routers.get_mut("r").unwrap().ports.insert("r-out".into(), port);
    let mut fabric = Fabric::new(&nb);
    // `b` is on the other host.
    let sent = fabric.send("b", &to_group(6, "10.0.0.6", GROUP));
    let mut names: Vec<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 4, "{names:?}");
    let outside: Vec<_> = sent.iter().filter(|(name, _)| !["a", "c", "d"].contains(&name.as_str())).collect();
    assert_eq!(fields(&outside[0].1, &[Field::EthSrc, Field::NwTtl]), [hw(0xf2), 63]);
    // And from there to who wants to hear it.
    let mut names: Vec<_> = fabric
        .deliver("h1", &to_group(0x77, "192.0.2.77", GROUP))
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    assert_eq!(names, ["a", "c", "d"]);
    fabric.check_conservation();
}
