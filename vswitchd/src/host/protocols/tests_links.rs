//! Those at the other ends, and collectors of flows: bridges of one daemon, in virtual time.

use std::{net::UdpSocket, time::Duration};

use flowtable::types::{BridgeId, PortNo};

use super::tests::*;
use crate::{
    bfd::State,
    host::{Host, MemberError},
    state::StateDir,
};

/// Two bridges, with a link between them.
fn pair() -> (Host, BridgeId, BridgeId) {
    let mut host = daemon(StateDir::none());
    let [a, b] = ["a", "b"].map(|name| bridge(&mut host, name));
    link(&mut host, (a, "ab"), (b, "ba"));
    port(&mut host, a, "ha");
    port(&mut host, b, "hb");
    (host, a, b)
}

/// Names of neighbours, by port.
fn heard(host: &Host, id: BridgeId) -> Vec<(u32, Vec<String>)> {
    let bridge = host.bridge_of(id).unwrap();
    let names = |heard: Vec<&bridge_protocols::lldp::Neighbour>| {
        heard
            .iter()
            .map(|heard| format!("{} {}", heard.unit.system_name, heard.unit.port.port_text()))
            .collect()
    };
    bridge.neighbours().map(|(port, heard, _)| (port.get(), names(heard))).collect()
}

#[test]
fn neighbours_are_told_of_each_other() {
    let (mut host, a, b) = pair();
    tell(&mut host, a, r#"{"lldp":{"enabled":true,"system-name":"alpha","ports":{"ha":"off"}}}"#);
    tell(&mut host, b, r#"{"lldp":{"enabled":true,"system-name":"beta"}}"#);
    pass(&mut host, 2);
    assert_eq!(heard(&host, a), [(1, vec!["beta ba".to_owned()]), (2, vec![])]);
    assert_eq!(heard(&host, b), [(1, vec!["alpha ab".to_owned()]), (2, vec![])]);
    // A port that takes no part tells nothing, and what comes there is no unit for the bridge.
    let (sent, ..) = host.sent("ha".to_owned(), 0).unwrap();
    assert!(sent.is_empty(), "{sent:?}");
    assert!(!host.sent("hb".to_owned(), 0).unwrap().0.is_empty());
    // Who is told to be silent says so first.
    tell(&mut host, a, r#"{"lldp":null}"#);
    pass(&mut host, 1);
    assert_eq!(heard(&host, b)[0], (1, vec![]));
}

#[test]
fn ends_of_a_link_watch_over_it() {
    let (mut host, a, b) = pair();
    tell(&mut host, a, r#"{"cfm":{"ab":{"id":1,"interval":1000,"level":2}}}"#);
    pass(&mut host, 6);
    let faults = |host: &Host, id| -> Vec<&'static str> {
        let bridge = host.bridge_of(id).unwrap();
        bridge.ends().flat_map(|(_, end)| end.faults().iter().map(|fault| fault.name())).collect()
    };
    assert_eq!(faults(&host, a), ["missing"]);
    tell(&mut host, b, r#"{"cfm":{"ba":{"id":2,"interval":1000,"level":2}}}"#);
    pass(&mut host, 6);
    assert_eq!((faults(&host, a), faults(&host, b)), (vec![], vec![]));
    assert_eq!(host.bridge_of(a).unwrap().ends().next().unwrap().1.remotes().next().unwrap().mpid, 2);
    tell(&mut host, b, r#"{"cfm":{"ba":{"association":"other"}}}"#);
    pass(&mut host, 6);
    assert_eq!(faults(&host, a), ["missing", "cross-connect"]);
}

#[test]
fn sessions_say_who_lives_and_bonds_go_by_that() {
    let (mut host, a, b) = pair();
    link(&mut host, (a, "a2"), (b, "b2"));
    let session = r#"{"interval":1000,"multiplier":3}"#;
    tell(
        &mut host,
        a,
        &format!(
            r#"{{"bfd":{{"ab":{session},"a2":{session}}},"bonds":{{"bond":{{"members":["ab","a2"]}}}}}}"#
        ),
    );
    tell(
        &mut host,
        b,
        &format!(
            r#"{{"bfd":{{"ba":{session},"b2":{session}}},"bonds":{{"bond2":{{"members":["ba","b2"]}}}}}}"#
        ),
    );
    pass(&mut host, 8);
    let states = |host: &Host| host.bfd().links().values().map(|link| link.status.state).collect::<Vec<_>>();
    assert_eq!(states(&host), [State::Up; 4]);
    let enabled = |host: &Host| {
        let (_, _, _, members) = host.bridge_of(a).unwrap().bonds().next().unwrap();
        members.into_iter().filter(|member| member.enabled).map(|member| member.name).collect::<Vec<_>>()
    };
    assert_eq!(enabled(&host), ["a2", "ab"]);
    // By command another member is the active one, while it can be.
    let active = |host: &Host| {
        let (_, _, _, members) = host.bridge_of(a).unwrap().bonds().next().unwrap();
        members.into_iter().find(|member| member.active).map(|member| member.name)
    };
    for member in ["ab", "a2", "ab"] {
        host.set_active_member(a, "bond", member).unwrap();
        assert_eq!(active(&host).as_deref(), Some(member));
    }
    assert!(matches!(host.set_active_member(a, "x", "ab"), Err(MemberError::Bond { .. })));
    assert!(matches!(host.set_active_member(a, "bond", "ha"), Err(MemberError::Member { .. })));
    // The other end of one of them falls silent, though its link is up.
    tell(&mut host, b, r#"{"bfd":{"ba":null}}"#);
    pass(&mut host, 6);
    assert_eq!((enabled(&host), active(&host).as_deref()), (vec!["a2".to_owned()], Some("a2")));
    assert!(matches!(host.set_active_member(a, "bond", "ab"), Err(MemberError::Disabled(_))));
    tell(&mut host, a, r#"{"bonds":{"bond":{"primary":"a2"}}}"#);
    assert!(matches!(host.set_active_member(a, "bond", "ab"), Err(MemberError::Primary(_))));
    // What is not for the host goes on as any other packet.
    let diverted = host.bfd().links().len();
    tell(&mut host, a, r#"{"bfd":null,"bonds":null}"#);
    tell(&mut host, b, r#"{"bfd":null,"bonds":null}"#);
    assert_eq!((diverted, host.bfd().links().len()), (3, 0));
}

/// Datagrams that have come.
fn received(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut datagram = [0; 2048];
    while let Ok(n) = socket.recv(&mut datagram) {
        all.push(datagram[..n].to_vec());
    }
    all
}

fn collector() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let target = socket.local_addr().unwrap().to_string();
    (socket, target)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[test]
fn each_packet_of_a_flow_is_told_of_by_netflow() {
    let (socket, target) = collector();
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two"] {
        port(&mut host, id, name);
    }
    tell(
        &mut host,
        id,
        &format!(r#"{{"netflow":{{"targets":["{target}"],"engine-id":7,"active-timeout":30}}}}"#),
    );
    let frame_len = udp(1, 2).len() as u64;
    for round in 0..4_u64 {
        for src in [1, 2, 3] {
            for _ in 0..=round {
                assert_eq!(out(&mut host, "one", &udp(src, 9)), ["two"]);
            }
        }
        pass(&mut host, 2);
    }
    assert!(received(&socket).is_empty(), "it is not time yet");
    pass(&mut host, 20);
    let datagrams = received(&socket);
    let records: Vec<&[u8]> = datagrams.iter().flat_map(|datagram| datagram[24..].chunks(48)).collect();
    assert_eq!((datagrams[0][..4].to_vec(), datagrams[0][21], records.len()), (vec![0, 5, 0, 3], 7, 3));
    for record in records {
        assert_eq!((number(&record[12..14]), number(&record[14..16])), (1, 2), "from port 1 to port 2");
        assert_eq!((number(&record[16..20]), number(&record[20..24])), (10, 10 * (frame_len - 14)));
        assert_eq!(record[38], 17);
        assert!(number(&record[24..28]) <= number(&record[28..32]));
    }
    // One that goes on is told of as well.
    for _ in 0..40 {
        out(&mut host, "one", &udp(1, 9));
        pass(&mut host, 1);
    }
    let told: u64 = received(&socket).iter().map(|datagram| number(&datagram[24 + 16..24 + 20])).sum();
    assert!((28..=32).contains(&told), "{told} packets");
    let left = host.bridge_of(id).unwrap().exports()[0].n_flows;
    tell(&mut host, id, r#"{"netflow":null}"#);
    let rest: u64 = received(&socket).iter().map(|datagram| number(&datagram[24 + 16..24 + 20])).sum();
    assert_eq!((left, told + rest), (1, 40), "what is left is told of at the end");
    assert!(!host.speaks_protocols());
}

#[test]
fn collectors_of_ipfix_are_told_of_all_packets_or_of_what_rules_sample() {
    let (socket, target) = collector();
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two"] {
        port(&mut host, id, name);
    }
    tell(
        &mut host,
        id,
        &format!(r#"{{"ipfix":{{"targets":["{target}"],"sampling":1,"domain":5,"point":6}}}}"#),
    );
    for _ in 0..9 {
        out(&mut host, "one", &udp(1, 2));
    }
    pass(&mut host, 20);
    let messages = received(&socket);
    assert_eq!((&messages[0][..2], number(&messages[0][12..16])), (&[0, 10][..], 5));
    let has =
        |part: &[u8]| messages.iter().any(|message| message.windows(part.len()).any(|window| window == part));
    assert!(has(&9_u64.to_be_bytes()), "no 9 packets");
    assert!(has(&[10, 0, 0, 1, 10, 0, 0, 2]), "no such addresses");
    tell(
        &mut host,
        id,
        &format!(
            r#"{{"ipfix":{{"targets":[],"sets":{{"3":{{"targets":["{target}"],"inactive-timeout":2}}}}}}}}"#
        ),
    );
    let rule = "in_port=one,actions=sample(probability=65535,collector_set_id=3,obs_domain_id=77,obs_point_id=8),NORMAL";
    let rule = crate::host::WrittenChange {
        verb: crate::host::Verb::Flow(flowtable::text::ChangeKind::Add),
        text: rule.to_owned(),
    };
    host.change_rules(id, &[rule], false).unwrap();
    received(&socket);
    for _ in 0..5 {
        assert_eq!(out(&mut host, "one", &udp(1, 2)), ["two"]);
    }
    pass(&mut host, 5);
    let messages = received(&socket);
    let domains: Vec<u64> = messages.iter().map(|message| number(&message[12..16])).collect();
    assert!(!domains.is_empty() && domains.iter().all(|domain| *domain == 77), "{domains:?}");
    let has =
        |part: &[u8]| messages.iter().any(|message| message.windows(part.len()).any(|window| window == part));
    assert!(has(&5_u64.to_be_bytes()), "no 5 packets");
}

#[test]
fn collectors_hear_from_the_address_that_was_told() {
    let (socket, target) = collector();
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two"] {
        port(&mut host, id, name);
    }
    let mut heard = |patch: &str| {
        tell(&mut host, id, patch);
        out(&mut host, "one", &udp(1, 2));
        pass(&mut host, 2);
        tell(&mut host, id, r#"{"sflow":null,"netflow":null,"ipfix":null}"#);
        let (mut datagram, mut all) = ([0; 2048], Vec::new());
        while let Ok((n, from)) = socket.recv_from(&mut datagram) {
            all.push((from.ip().to_string(), datagram[..n].to_vec()));
        }
        assert!(!all.is_empty(), "{patch}: nothing is told");
        all
    };
    let sflow = |settings: &str| format!(r#"{{"sflow":{{"targets":["{target}"],"sampling":1,{settings}}}}}"#);
    // What an agent is known by is one thing, where its datagrams come from another.
    for (from, datagram) in heard(&sflow(r#""source":"127.0.0.9","agent":"192.0.2.7""#)) {
        assert_eq!((from.as_str(), &datagram[4..12]), ("127.0.0.9", &[0, 0, 0, 1, 192, 0, 2, 7][..]));
    }
    for (from, datagram) in heard(&sflow(r#""agent":"2001:db8::7""#)) {
        assert_eq!((from.as_str(), &datagram[4..12]), ("127.0.0.1", &[0, 0, 0, 2, 0x20, 1, 0x0d, 0xb8][..]));
    }
    for kind in ["netflow", "ipfix"] {
        let sampling = if kind == "ipfix" { r#","sampling":1"# } else { "" };
        let patch = format!(r#"{{"{kind}":{{"targets":["{target}"],"source":"127.0.0.8"{sampling}}}}}"#);
        assert!(heard(&patch).iter().all(|(from, _)| from == "127.0.0.8"), "{kind}");
    }
}

#[test]
fn a_port_hears_reports_if_it_is_to() {
    let mut host = daemon(StateDir::none());
    let id = bridge(&mut host, "a");
    for name in ["one", "two", "three"] {
        port(&mut host, id, name);
    }
    tell(&mut host, id, r#"{"multicast":{"snooping":true,"flood-reports":["three"]}}"#);
    assert_eq!(out(&mut host, "one", &report(5, 0x16)), ["three"]);
    assert_eq!(PortNo::new(3).ok(), host.bridge_of(id).unwrap().ports().by_name("three"));
}

#[test]
fn copies_go_through_tunnels_to_whoever_is_there() {
    let mut host = daemon_with_uplink();
    let id = host.bridges()[0].id();
    port(&mut host, id, "one");
    port(&mut host, id, "two");
    let rule = crate::host::WrittenChange {
        verb: crate::host::Verb::Flow(flowtable::text::ChangeKind::Add),
        text: "actions=NORMAL".to_owned(),
    };
    host.change_rules(id, &[rule], false).unwrap();
    let wrong = r#"{"mirrors":{"m":{"select-src":["one"],"output-port":"vxlan"}}}"#;
    assert!(host.change_bridge_settings(id, wrong, false).is_err(), "no remote");
    let patch = r#"{"mirrors":{"m":{"select-src":["one"],"output-port":"vxlan","remote":"192.0.2.9","key":7,"snaplen":40,"filter":"udp"}}}"#;
    tell(&mut host, id, patch);
    let frame = udp(1, 2);
    assert_eq!(out(&mut host, "one", &frame), ["two", "underlay"]);
    let (sent, ..) = host.sent("underlay".to_owned(), 0).unwrap();
    let copy = &sent.last().unwrap().frame;
    // Ethernet, IPv4, UDP, VXLAN, and what is left of the packet.
    assert_eq!((&copy[30..34], number(&copy[36..38]), number(&copy[46..49])), (&[192, 0, 2, 9][..], 4789, 7));
    assert_eq!(copy[50..], frame[..40]);
    assert_eq!(out(&mut host, "two", &udp(2, 1)), ["one"], "that was not chosen");
    tell(&mut host, id, r#"{"mirrors":{"m":{"remote":"192.0.2.10"}}}"#);
    assert_eq!(out(&mut host, "one", &frame), ["two", "underlay"]);
    let (sent, ..) = host.sent("underlay".to_owned(), 0).unwrap();
    assert_eq!(sent.last().unwrap().frame[30..34], [192, 0, 2, 10]);
    host.dataplane().flush_stats();
    assert_eq!(host.bridge_of(id).unwrap().mirrored().next().unwrap().1.0, 2, "copies are counted");
}
