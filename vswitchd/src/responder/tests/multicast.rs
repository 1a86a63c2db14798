//! What workloads say about groups, and what they are asked.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ovn_northd_lite::{
    key::{DatapathKey, PortKey},
    model::{Querier, Snooping},
};

use super::*;

fn listening() -> Northbound {
    let mut nb = network();
    nb.switches.get_mut("near").unwrap().options.snooping = Some(snooping());
    nb
}

fn snooping() -> Snooping {
    let (v4, v6) = (Some(Ipv4Addr::new(10, 0, 0, 254)), None);
    let querier = Querier { interval: 20, max_response: 1, mac: mac(0xfe), v4, v6 };
    Snooping { max_groups: 2, max_age: 40, querier: Some(querier), ..Snooping::default() }
}

fn near() -> DatapathKey {
    DatapathKey::new(1).unwrap()
}

fn workload() -> PortKey {
    PortKey::new(1).unwrap()
}

fn listeners(known: Vec<(PortKey, std::net::IpAddr)>) -> Listeners {
    [(near(), Listener { snooping: snooping(), ports: [workload()].into(), known })].into()
}

/// IGMPv2: what `a` says about a group.
fn said(kind: u8, group: [u8; 4]) -> Vec<u8> {
    let [_, b, c, d] = group;
    let mut frame = vec![1, 0, 0x5e, b & 0x7f, c, d];
    frame.extend(mac(5).octets());
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5];
    ip.extend(group);
    let sum = flowtable::checksum::of(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut igmp = vec![kind, 0, 0, 0];
    igmp.extend(group);
    let sum = flowtable::checksum::of(&igmp).to_be_bytes();
    igmp[2..4].copy_from_slice(&sum);
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(igmp);
    frame
}

const GROUP: [u8; 4] = [239, 1, 2, 3];

impl Net {
    /// Who is told to hear what since the last call.
    fn told(&mut self) -> Vec<(String, usize)> {
        let told = std::mem::take(&mut self.hearers).into_iter();
        told.map(|hearers| (hearers.group.to_string(), hearers.ports.len())).collect()
    }

    fn tick_for(&mut self, seconds: u64) -> Vec<(u32, Vec<u8>)> {
        let mut sink = Collect::default();
        for _ in 0..seconds {
            self.now = Timestamp::from_nanos(self.now.nanos() + 1_000_000_000);
            let effects = self.responder.tick(self.now);
            self.apply(effects, &mut sink);
        }
        sink.0
    }
}

#[test]
fn what_workloads_say_is_told_and_forgotten_when_they_are_silent() {
    let mut net = Net::of(&listening());
    net.responder.set_listeners(net.now, listeners(Vec::new()));
    assert_eq!(net.send(A, &said(0x16, GROUP)), [], "no router is to be told");
    assert_eq!(net.told(), [("239.1.2.3".to_owned(), 1)]);
    net.send(A, &said(0x16, GROUP));
    assert_eq!(net.told(), [], "that is known");
    // It leaves: nobody objects.
    net.send(A, &said(0x17, GROUP));
    net.tick_for(3);
    assert_eq!(net.told(), [("239.1.2.3".to_owned(), 0)]);
    // There is room for two groups.
    for last in 1..4 {
        net.send(A, &said(0x16, [239, 0, 0, last]));
    }
    let told: BTreeSet<_> = net.told().into_iter().filter(|(_, n)| *n == 0).map(|(group, _)| group).collect();
    assert_eq!(told, ["239.0.0.1".to_owned()].into());
    net.tick_for(41);
    let told: BTreeSet<_> = net.told().into_iter().collect();
    assert_eq!(told, [("239.0.0.2".to_owned(), 0), ("239.0.0.3".to_owned(), 0)].into());
    // Damaged ones say nothing.
    let frame = said(0x16, GROUP);
    for len in 34..frame.len() {
        net.send(A, &frame[..len]);
    }
    assert_eq!(net.told(), []);
}

#[test]
fn hosts_ask_their_workloads_and_routers_ask_all() {
    let mut net = Net::of(&listening());
    net.responder.set_listeners(net.now, listeners(Vec::new()));
    let asked = net.tick_for(60);
    assert!(asked.iter().all(|(port, _)| *port == A), "workloads of this switch alone");
    let of = |kind: u16| asked.iter().filter(|(_, frame)| frame[12..14] == kind.to_be_bytes()).count();
    // At once, a little later, and every 20 seconds; by IGMP and by MLD.
    assert_eq!((of(0x0800), of(0x86dd)), (4, 4));
    let (_, query) = asked.iter().find(|(_, frame)| frame[12] == 8).unwrap();
    assert_eq!((&query[6..12], &query[26..30]), (&mac(0xfe).octets()[..], &[10, 0, 0, 254][..]));
    // A workload that asks is a router: it hears everything.
    let mut question = said(0x11, [0, 0, 0, 0]);
    question[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    question[30..34].copy_from_slice(&[224, 0, 0, 1]);
    question[24..26].fill(0);
    let sum = flowtable::checksum::of(&question[14..34]).to_be_bytes();
    question[24..26].copy_from_slice(&sum);
    net.send(A, &question);
    assert_eq!(net.told(), [("0.0.0.0".to_owned(), 1)]);
}

#[test]
fn what_was_known_before_stays_until_it_is_old_and_goes_with_its_port() {
    let known = vec![(workload(), GROUP.into())];
    let mut net = Net::of(&listening());
    let mut sink = Collect::default();
    let effects = net.responder.set_listeners(net.now, listeners(known.clone()));
    net.apply(effects, &mut sink);
    assert_eq!(net.told(), [("239.1.2.3".to_owned(), 1)]);
    let none = [(near(), Listener { ports: BTreeSet::new(), ..listeners(known).remove(&near()).unwrap() })];
    let effects = net.responder.set_listeners(net.now, none.into());
    net.apply(effects, &mut sink);
    assert_eq!(net.told(), [("239.1.2.3".to_owned(), 0)]);
    net.send(A, &said(0x16, GROUP));
    assert_eq!(net.told(), [], "whoever is not of this host is not listened to");
    let effects = net.responder.set_listeners(net.now, Listeners::new());
    net.apply(effects, &mut sink);
    assert_eq!(sink.0, []);
}
