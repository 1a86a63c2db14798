//! The rules that scenarios with real packets use, and those of docs/lab.md.

use ferroflow_tests::gateway::{Family, Opening, Translation, rules};
use flowtable::{
    build::{self, Host},
    types::MacAddr,
};
use oracle::{
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    traffic::{self, Arrival},
};

use super::{
    PORTS,
    pair::Pair,
    tables::sound,
    talk::{arrival, segment, tcp_conversation, unreachable},
};

const CLIENT: u32 = 1;
const OUTSIDE: u32 = 2;

fn host(ip: std::net::IpAddr, port: u16) -> Host {
    Host { mac: MacAddr::new([0x0a, 0, 0, 0, 1, 2]), ip, port }
}

/// What goes there, and what comes back as an answer to what came out.
fn conversations(pair: &mut Pair<'_>, translation: Translation) -> [usize; 2] {
    let (mut n_packets, mut n_delivered) = (0, 0);
    let mut send = |pair: &mut Pair<'_>, arrival: Arrival| {
        n_packets += 1;
        let sent = pair.send(&arrival);
        n_delivered += usize::from(!sent.is_empty());
        sent
    };
    for family in Family::ALL {
        for (idx, port) in [(0_u16, 80), (1, 21), (2, 443), (3, 53)] {
            let client = host(family.client(), 40_000 + idx);
            let service = host(translation.server(family), port);
            let server = host(family.server(), port);
            // Where the server sees it come from.
            let seen = host(translation.client(family), 40_000 + idx);
            for (is_reply, flags, numbers, payload) in tcp_conversation() {
                let ends = if is_reply { (OUTSIDE, server, seen) } else { (CLIENT, client, service) };
                send(pair, arrival(ends.0, segment(&ends.1, &ends.2, flags, numbers, payload)));
            }
            let out = send(pair, arrival(CLIENT, build::udp(&client, &service, b"question")));
            send(pair, arrival(OUTSIDE, build::udp(&server, &seen, b"answer")));
            send(pair, arrival(CLIENT, build::udp(&client, &service, b"and more")));
            if let Some((_, frame)) = out.first() {
                let router = host(family.router(), 0);
                if let Some(error) = unreachable(frame, &router, &seen) {
                    send(pair, arrival(OUTSIDE, error));
                }
            }
            let id = 70 + idx;
            send(pair, arrival(CLIENT, build::icmp_echo(&client, &service, false, id, 1, b"ping")));
            send(pair, arrival(OUTSIDE, build::icmp_echo(&server, &seen, true, id, 1, b"ping")));
            // What nobody asked for.
            send(pair, arrival(OUTSIDE, build::udp(&host(family.server(), 9), &seen, b"hello")));
            send(pair, arrival(OUTSIDE, build::icmp_echo(&server, &seen, false, 99, 1, b"ping")));
        }
    }
    [n_packets, n_delivered]
}

#[test]
fn the_gateway_does_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of a gateway with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let openings = [Opening::any("icmp"), Opening::port("tcp", 80, None), Opening::any("udp")];
    for translation in Translation::ALL {
        let lines = rules(translation, &openings).join("\n");
        let mut pair = Pair::new(&mut ovs, Protocol::OpenFlow15, &lines);
        let [n_packets, n_delivered] = conversations(&mut pair, translation);
        eprintln!("{translation:?}: {n_packets} packets, {n_delivered} of them delivered");
        assert!(n_delivered > n_packets / 3 && n_delivered < n_packets);
    }
}

/// The commands of docs/lab.md that hand over rules: each makes what was there before more, or other.
const LAB: &[&str] = &[
    "table=0,priority=20,tcp,tp_dst=23,actions=drop\n\
     table=0,priority=10,ip,actions=dec_ttl,resubmit(,1)\n\
     table=1,priority=10,ip,nw_dst=10.0.0.2,actions=output:2\n\
     table=1,priority=10,ip,nw_dst=10.0.0.1,actions=output:1",
    "priority=10,ip,actions=dec_ttl,resubmit(,1)\ntable=1,ip,nw_dst=10.0.0.0/24,actions=output:2",
    "group_id=1,type=all,bucket=output:2,bucket=output:3\n\
     priority=20,icmp,actions=group:1\n\
     priority=10,ip,actions=dec_ttl,resubmit(,1)\ntable=1,ip,nw_dst=10.0.0.0/24,actions=output:2",
    "priority=30,in_port=1,udp,actions=ct(commit,zone=1),output:2\n\
     priority=30,in_port=2,udp,actions=ct(zone=1,table=5)\n\
     table=5,ct_state=+trk+est,udp,actions=output:1\n\
     priority=10,ip,actions=dec_ttl,resubmit(,1)\ntable=1,ip,nw_dst=10.0.0.0/24,actions=output:2",
    "priority=40,arp,actions=controller(userdata=01.02,pause),resubmit(,6)\n\
     table=6,idle_timeout=10,send_flow_rem,actions=output:3",
];

#[test]
fn the_lab_does_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of the lab with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let doc = include_str!("../../../docs/lab.md");
    for rules in LAB {
        let mut pair = Pair::new(&mut ovs, Protocol::OpenFlow15, rules);
        let (mut rng, mut n_packets, mut n_told) = (Rng::new(5), 0, 0);
        while n_packets < 300 {
            let arrival = traffic::arrival(&mut rng);
            let is_tracked_whole =
                oracle::frame::view(&arrival.frame).and_then(|view| view.l4).is_none_or(|(_, at)| {
                    arrival.frame[at..at + 2] != [0, 0] && arrival.frame[at + 2..at + 4] != [0, 0]
                });
            if sound(&arrival) && is_tracked_whole {
                pair.send(&arrival);
                n_told += pair.ours.n_told();
                n_packets += 1;
            }
        }
        eprintln!("{n_packets} packets; left out: {n_told} copies for controllers");
        // They are the document's: names of ports and the order within a rule aside.
        let line = rules.lines().find(|line| line.starts_with("priority=")).unwrap_or(rules);
        let actions = line.split("actions=").nth(1).unwrap().split(['\n', '(']).next().unwrap();
        assert!(doc.contains(actions), "docs/lab.md has no {actions}");
    }
}
