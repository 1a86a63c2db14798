//! Bridges of one daemon that speak to each other over links, in virtual time.

use std::time::Duration;

use dataplane::{Clock, Dataplane, DataplaneConfig, VirtualClock};
use flowtable::{
    build::{self, Host as Station},
    port::TreeState,
    types::{BridgeId, MacAddr},
};

use super::*;
use crate::{
    bfd::Timing,
    host::{FailMode, Host, Identity, Lab, Mode, NewLabPort, SettingsError},
    state::StateDir,
};

/// A daemon without interfaces, and its bridges by name.
pub(super) fn daemon(state: StateDir) -> Host {
    daemon_with(state, None)
}

/// The same, with an uplink.
pub(super) fn daemon_with_uplink() -> Host {
    daemon_with(StateDir::none(), Some(("underlay".to_owned(), std::net::Ipv4Addr::new(192, 0, 2, 1).into())))
}

fn daemon_with(state: StateDir, endpoint: Option<(String, std::net::IpAddr)>) -> Host {
    let clock = VirtualClock::new();
    clock.set_stopped(true);
    let config =
        DataplaneConfig { clock: Clock::Virtual(clock.clone()), seed: Some(0), ..DataplaneConfig::default() };
    let identity = Identity {
        chassis: "lab".to_owned(),
        hostname: "lab".to_owned(),
        encap_types: endpoint.iter().map(|_| flowtable::program::TunnelKind::Vxlan).collect(),
        endpoint,
        internal_port: None,
        own_address: None,
        tunnel_peers: Vec::new(),
        controller: None,
        liveness: Timing { interval: Duration::from_secs(1), multiplier: 3 },
    };
    let dataplane = Dataplane::start(config).unwrap();
    Host::start(identity, dataplane, state, Mode::Lab(Lab::new(clock))).unwrap()
}

/// For tests elsewhere.
pub(in crate::host) fn daemon_without_interfaces() -> Host {
    daemon(StateDir::none())
}

pub(super) fn bridge(host: &mut Host, name: &str) -> BridgeId {
    host.add_bridge(name, Some(FailMode::Standalone)).unwrap()
}

pub(super) fn port(host: &mut Host, bridge: BridgeId, name: &str) {
    host.add_lab_port(bridge, &NewLabPort { name: name.to_owned(), ..NewLabPort::default() }).unwrap();
}

/// A link between two bridges, by the names of its ends.
pub(super) fn link(host: &mut Host, (one, a): (BridgeId, &str), (other, b): (BridgeId, &str)) {
    host.add_patch(one, a, b, None).unwrap();
    host.add_patch(other, b, a, None).unwrap();
}

pub(super) fn tell(host: &mut Host, bridge: BridgeId, patch: &str) {
    host.change_bridge_settings(bridge, patch, false).unwrap();
}

pub(super) fn pass(host: &mut Host, secs: u64) {
    host.set_clock(None, Duration::from_secs(secs)).unwrap();
}

/// Where a frame comes out.
pub(super) fn out(host: &mut Host, by: &str, frame: &[u8]) -> Vec<String> {
    let (name, id) = host.lab_port(by, None).unwrap();
    let injected = host.inject((name, id), vec![frame.to_vec()]).unwrap();
    let is_own = |frame: &[u8]| frame[..5] == [1, 0x80, 0xc2, 0, 0];
    let mut ports: Vec<_> =
        injected.sent.into_iter().filter(|sent| !is_own(&sent.frame)).map(|sent| sent.port).collect();
    ports.sort();
    ports
}

pub(super) fn udp(src: u8, dst: u8) -> Vec<u8> {
    build::udp(&Station::v4(src), &Station::v4(dst), b"hello")
}

fn to_all(src: u8) -> Vec<u8> {
    [&[0xff; 6], &udp(src, 0)[6..]].concat()
}

/// Three bridges in a ring, with a port each.
fn ring() -> (Host, [BridgeId; 3]) {
    let mut host = daemon(StateDir::none());
    let ids = ["a", "b", "c"].map(|name| bridge(&mut host, name));
    let [a, b, c] = ids;
    for (id, name) in ids.into_iter().zip(["ha", "hb", "hc"]) {
        tell(&mut host, id, r#"{"spanning-tree":{"protocol":"rstp"}}"#);
        port(&mut host, id, name);
    }
    tell(&mut host, b, r#"{"spanning-tree":{"priority":4096}}"#);
    link(&mut host, (a, "ab"), (b, "ba"));
    link(&mut host, (b, "bc"), (c, "cb"));
    link(&mut host, (c, "ca"), (a, "ac"));
    (host, ids)
}

fn blocked(host: &Host) -> usize {
    let ports = host.bridges().iter().flat_map(|bridge| {
        let ports = bridge.ports();
        ports.iter().filter(|(port, info)| info.up && ports.bridging(*port).tree != TreeState::Forwarding)
    });
    ports.count()
}

#[test]
fn a_ring_of_bridges_carries_each_frame_once_and_mends_itself() {
    let (mut host, ids) = ring();
    pass(&mut host, 5);
    assert_eq!(blocked(&host), 1, "one port of the ring is blocked");
    let [a, b, _] = ids.map(|id| host.bridge_of(id).unwrap());
    let root = b.tree().unwrap().config().id;
    assert_eq!((b.tree().unwrap().root().2, a.tree().unwrap().root().0), (None, root));
    assert_eq!(out(&mut host, "ha", &to_all(1)), ["hb", "hc"]);
    assert_eq!(out(&mut host, "hc", &udp(3, 1)), ["ha"]);
    assert_eq!(out(&mut host, "ha", &udp(1, 3)), ["hc"]);
    // The link between a and the root fails: what was learned over it is forgotten.
    host.remove_port("ab").unwrap();
    host.tend_ports();
    pass(&mut host, 2);
    assert_eq!(blocked(&host), 0);
    assert_eq!(out(&mut host, "hc", &udp(3, 1)), ["ha", "hb"]);
    assert_eq!(out(&mut host, "ha", &to_all(1)), ["hb", "hc"]);
    assert_eq!(out(&mut host, "hc", &udp(3, 1)), ["ha"]);
}

#[test]
fn without_a_tree_the_ring_is_a_circle() {
    let (mut host, ids) = ring();
    for id in ids {
        tell(&mut host, id, r#"{"spanning-tree":null}"#);
    }
    pass(&mut host, 1);
    // The links end what goes round, after many times.
    assert!(out(&mut host, "ha", &to_all(1)).len() > 4);
}

#[test]
fn two_bridges_share_two_links_by_lacp() {
    let mut host = daemon(StateDir::none());
    let [a, b] = ["a", "b"].map(|name| bridge(&mut host, name));
    link(&mut host, (a, "a1"), (b, "b1"));
    link(&mut host, (a, "a2"), (b, "b2"));
    port(&mut host, a, "ha");
    port(&mut host, b, "hb");
    for (id, members, lacp) in [(a, r#"["a1","a2"]"#, "active"), (b, r#"["b1","b2"]"#, "passive")] {
        let name = if id == a { "bond-a" } else { "bond-b" };
        let patch = format!(
            r#"{{"bonds":{{"{name}":{{"members":{members},"mode":"balance-tcp","lacp":"{lacp}","lacp-fast":true}}}}}}"#
        );
        tell(&mut host, id, &patch);
    }
    assert_eq!(out(&mut host, "ha", &to_all(1)), [""; 0], "nobody has agreed yet");
    pass(&mut host, 3);
    let members = |host: &Host, id| {
        let bridge = host.bridge_of(id).unwrap();
        let (_, _, negotiated, members) = bridge.bonds().next().unwrap();
        (negotiated, members.iter().map(|member| (member.enabled, member.n_slots)).collect::<Vec<_>>())
    };
    assert_eq!(members(&host, a), (true, vec![(true, 128), (true, 128)]));
    assert!(members(&host, b).0);
    for src in 1..20 {
        assert_eq!(out(&mut host, "ha", &to_all(src)), ["hb"], "once, by one of them");
        assert_eq!(out(&mut host, "hb", &udp(100 + src, src)), ["ha"]);
    }
    // Both links have carried some.
    let bond = host.bridge_of(a).unwrap().ports().iter().find(|(_, info)| info.name == "bond-a").unwrap().0;
    let statuses = host.dataplane().ports();
    let sent = |name: &str| statuses.iter().find(|status| status.name == name).unwrap().counters.tx_packets;
    assert!(sent("a1") > 10 && sent("a2") > 10, "{} {}", sent("a1"), sent("a2"));
    let stations = host.bridge_of(a).unwrap().tables().fdb().dump();
    assert!(stations.iter().any(|entry| entry.port == bond), "{stations:?}");
    host.remove_port("a1").unwrap();
    pass(&mut host, 4);
    assert_eq!(members(&host, b).1, [(false, 0), (true, 256)]);
    for src in 1..20 {
        assert_eq!(out(&mut host, "ha", &udp(src, 100 + src)), ["hb"]);
    }
}

#[test]
fn a_standby_link_takes_over_and_tells_where_stations_are() {
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["h", "m1", "m2"] {
        port(&mut host, id, name);
    }
    tell(&mut host, id, r#"{"bonds":{"bond":{"members":["m1","m2"],"primary":"m1"}}}"#);
    pass(&mut host, 1);
    assert_eq!(out(&mut host, "h", &udp(1, 9)), ["m1"]);
    host.modify_port("m1", |settings| settings.enabled = false).unwrap();
    let from = host.sent("m2".to_owned(), 0).unwrap().1;
    pass(&mut host, 1);
    let (sent, ..) = host.sent("m2".to_owned(), from).unwrap();
    let told: Vec<_> =
        sent.iter().map(|sent| (sent.frame[6..12].to_vec(), sent.frame[12..14].to_vec())).collect();
    assert_eq!(told, [(Station::v4(1).mac.octets().to_vec(), vec![0x80, 0x35])]);
    assert_eq!(out(&mut host, "h", &udp(1, 9)), ["m2"]);
    host.modify_port("m1", |settings| settings.enabled = true).unwrap();
    pass(&mut host, 1);
    assert_eq!(out(&mut host, "h", &udp(1, 9)), ["m1"], "the primary is back");
}

/// A report of IGMPv2 about 239.1.2.3.
pub(super) fn report(src: u8, kind: u8) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
    };
    let mut header = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, src, 239, 1, 2, 3];
    let of_header = sum(&header);
    header[10..12].copy_from_slice(&of_header);
    let mut message = vec![kind, 0, 0, 0, 239, 1, 2, 3];
    let of_message = sum(&message);
    message[2..4].copy_from_slice(&of_message);
    let mac = MacAddr::new([0x0a, 0, 0, 0, 0, src]).octets();
    [&[1, 0, 0x5e, 1, 2, 3], &mac[..], &[8, 0], &header, &message].concat()
}

#[test]
fn who_reports_hears_until_it_leaves() {
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["source", "one", "two", "router"] {
        port(&mut host, id, name);
    }
    tell(
        &mut host,
        id,
        r#"{"multicast":{"snooping":true,"flood-unregistered":false,"members":[{"port":"router"}]}}"#,
    );
    let mut data = udp(1, 2);
    data[..6].copy_from_slice(&[1, 0, 0x5e, 1, 2, 3]);
    data[30..34].copy_from_slice(&[239, 1, 2, 3]);
    let data = &data;
    assert_eq!(out(&mut host, "source", data), ["router"]);
    assert_eq!(out(&mut host, "one", &report(5, 0x16)), ["router"], "only routers hear reports");
    assert_eq!(out(&mut host, "source", data), ["one", "router"]);
    assert_eq!(host.bridge_of(id).unwrap().groups().unwrap().entries(host.dataplane().now()).len(), 2);
    out(&mut host, "two", &report(6, 0x16));
    assert_eq!(out(&mut host, "source", data), ["one", "router", "two"]);
    out(&mut host, "one", &report(5, 0x17));
    pass(&mut host, 3);
    assert_eq!(out(&mut host, "source", data), ["router", "two"]);
    pass(&mut host, 301);
    assert_eq!(out(&mut host, "source", data), ["router"]);
    tell(&mut host, id, r#"{"multicast":null}"#);
    assert_eq!(out(&mut host, "source", data), ["one", "router", "two"]);
}

#[test]
fn mirrors_copy_what_they_are_told_and_count_it() {
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two", "probe"] {
        port(&mut host, id, name);
    }
    tell(&mut host, id, r#"{"mirrors":{"m":{"select-src":["one"],"output-port":"probe","filter":"udp"}}}"#);
    assert_eq!(out(&mut host, "one", &udp(1, 2)), ["probe", "two"]);
    assert_eq!(out(&mut host, "two", &udp(2, 1)), ["one"]);
    host.dataplane().flush_stats();
    let frame_len = udp(1, 2).len() as u64;
    assert_eq!(host.bridge_of(id).unwrap().mirrored().next(), Some(("m", (1, frame_len))));
    tell(&mut host, id, r#"{"mirrors":{"m":null}}"#);
    assert_eq!(out(&mut host, "one", &udp(1, 9)), ["probe", "two"], "it is a port like others again");
}

#[test]
fn what_bridges_are_told_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = daemon(StateDir::open(dir.path()).unwrap());
    let id = bridge(&mut host, "a");
    for name in ["h", "m1", "m2"] {
        port(&mut host, id, name);
    }
    let patch = r#"{"spanning-tree":{"protocol":"rstp","ports":{"h":{"edge":true}}},"bonds":{"bond":{"members":["m1","m2"]}}}"#;
    tell(&mut host, id, patch);
    let told = host.bridge_settings(id);
    assert!(told.bonds["bond"].number > 0);
    drop(host);
    let mut host = daemon(StateDir::open(dir.path()).unwrap());
    assert_eq!(host.bridge_settings(id), told);
    pass(&mut host, 5);
    assert_eq!(out(&mut host, "h", &udp(1, 2)), ["m1"]);
    assert_eq!(host.bridge_of(id).unwrap().tree().unwrap().ports().count(), 2);
    // Names and numbers are each there once.
    let refused = host.change_bridge_settings(id, r#"{"bonds":{"h":{}}}"#, false).unwrap_err();
    assert!(matches!(refused, ProtocolError::NameInUse(_)), "{refused}");
    let taken = NewLabPort { name: "bond".to_owned(), ..NewLabPort::default() };
    assert!(host.add_lab_port(id, &taken).is_err());
    let refused = host.change_bridge_settings(id, r#"{"bonds":{"x":{"number":1}}}"#, false).unwrap_err();
    assert!(matches!(refused, ProtocolError::Number(_)), "{refused}");
    let refused = host.change_bridge_settings(id, r#"{"bonds":{"x":{"mode":"y"}}}"#, false).unwrap_err();
    assert!(matches!(refused, ProtocolError::Settings(SettingsError::Text(_))), "{refused}");
    assert_eq!(host.bridge_settings(id), told);
}

#[test]
fn a_collector_is_told_of_packets_and_counters() {
    let collector = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let target = collector.local_addr().unwrap();
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two"] {
        port(&mut host, id, name);
    }
    let patch =
        format!(r#"{{"sflow":{{"targets":["{target}"],"agent":"10.9.8.7","sampling":1,"polling":5}}}}"#);
    tell(&mut host, id, &patch);
    let frame = udp(1, 2);
    assert_eq!(out(&mut host, "one", &frame), ["two"]);
    pass(&mut host, 1);
    let mut told = [0; 2048];
    let n = collector.recv(&mut told).unwrap();
    let has = |told: &[u8], part: &[u8]| told.windows(part.len()).any(|window| window == part);
    assert_eq!(told[..12], [0, 0, 0, 5, 0, 0, 0, 1, 10, 9, 8, 7]);
    assert!(has(&told[..n], &frame), "the packet is not in it");
    pass(&mut host, 5);
    let n = collector.recv(&mut told).unwrap();
    // Two counter samples, of which the first is of port 1, with its 88 bytes of counters.
    assert_eq!(told[24..28], [0, 0, 0, 2]);
    assert!(has(&told[..n], &[0, 0, 0, 1, 0, 0, 0, 88, 0, 0, 0, 1]), "no counters of port 1");
    assert!(has(&told[..n], &(frame.len() as u64).to_be_bytes()), "not what it has received");
    tell(&mut host, id, r#"{"sflow":null}"#);
    assert!(!host.speaks_protocols());
}
