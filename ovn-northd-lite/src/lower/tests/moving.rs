//! Workloads that are on two hosts while they move.

use flowtable::build::{self, Host as End};

use super::fabric::Fabric;
use crate::{
    fixture::*,
    model::{Northbound, SwitchPortKind},
};

fn end(last: u8, ip: &str) -> End {
    End { mac: mac(last), ip: ip.parse().unwrap(), port: 7 }
}

/// `small`, where `a` moves from `h1` to `h2`.
fn moving(awaits_rarp: bool) -> Northbound {
    let mut nb = small();
    let a = nb.switches.get_mut("web").unwrap().ports.get_mut("a").unwrap();
    a.options.awaits_rarp = awaits_rarp;
    let SwitchPortKind::Workload { additional, .. } = &mut a.kind else { panic!("no workload") };
    additional.insert("h2".to_owned());
    nb
}

#[test]
fn what_is_sent_to_a_workload_that_moves_is_for_both_its_hosts() {
    let mut fabric = Fabric::new(&moving(false));
    let (a, b) = (end(0x05, "10.0.0.5"), end(0x06, "10.0.0.6"));
    let ports = |sent: &[(String, Vec<u8>)]| sent.iter().map(|(port, _)| port.clone()).collect::<Vec<_>>();
    let sent = fabric.send("b", &build::udp(&b, &a, b"x"));
    assert_eq!(ports(&sent), ["a", "a"], "{:?}", fabric.drops());
    // Through the router, and to everybody, as well.
    let to = End { mac: mac(0xf1), ..a };
    let sent = fabric.send("d", &build::udp(&end(0x16, "10.0.1.6"), &to, b"x"));
    assert_eq!(ports(&sent), ["a", "a"], "{:?}", fabric.drops());
    let everybody = End { mac: flowtable::types::MacAddr::BROADCAST, ..a };
    let mut got = ports(&fabric.send("b", &build::udp(&b, &everybody, b"x")));
    got.retain(|port| port == "a");
    assert_eq!(got.len(), 2);
    fabric.check_conservation();
}

#[test]
fn who_has_not_said_that_it_goes_on_there_hears_nothing_there() {
    let mut fabric = Fabric::new(&moving(true));
    let (a, b) = (end(0x05, "10.0.0.5"), end(0x06, "10.0.0.6"));
    let sent = fabric.send("b", &build::udp(&b, &a, b"x"));
    // That of the host where it still is.
    assert_eq!(sent.len(), 1, "{sent:?}");
    fabric.check_conservation();
}
