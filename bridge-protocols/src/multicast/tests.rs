//! What hosts and routers say, and what a bridge makes of it.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::wire::checksum;

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
const SOURCE: MacAddr = MacAddr::new([2, 0, 0, 0, 0, 9]);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn port(number: u32) -> PortNo {
    PortNo::new(number).unwrap()
}

fn querier(address: Ipv4Addr) -> Querier {
    Querier::new(SOURCE, address, [VlanId::NONE].into())
}

fn says(group: IpAddr, interest: Interest) -> Message {
    Message::Report(vec![(group, interest)])
}

fn hearers(groups: &Groups, group: Option<IpAddr>) -> Vec<u32> {
    let entries = groups.entries(at(0)).into_iter().filter(|entry| entry.group == group);
    entries.map(|entry| entry.port.get()).collect()
}

/// A packet of IGMP in an Ethernet frame.
fn igmp(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut header = vec![0x46, 0, 0, (24 + message.len()) as u8, 0, 0, 0, 0, 1, 2, 0, 0];
    header.extend([10, 0, 0, 1, 239, 1, 2, 3, 0x94, 4, 0, 0]);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend(header);
    frame.extend(message);
    frame
}

fn igmp_v3(kind: u8, sources: &[[u8; 4]]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, sources.len() as u8, 239, 1, 2, 3];
    message.extend(sources.iter().flatten());
    igmp(&message)
}

#[test]
fn reports_of_all_versions_are_read() {
    for kind in [0x12, 0x16] {
        let read = Message::parse(&igmp(&[kind, 0, 0, 0, 239, 1, 2, 3]));
        assert_eq!(read, Some(says(GROUP, Interest::Joins)));
    }
    assert_eq!(Message::parse(&igmp(&[0x17, 0, 0, 0, 239, 1, 2, 3])), Some(says(GROUP, Interest::Leaves)));
    let source = [[10, 0, 0, 7]];
    for (kind, sources, interest) in [
        (4, &[][..], Interest::Joins),
        (2, &[], Interest::Joins),
        (3, &[], Interest::Leaves),
        (3, &source, Interest::Joins),
        (5, &source, Interest::Joins),
    ] {
        assert_eq!(Message::parse(&igmp_v3(kind, sources)), Some(says(GROUP, interest)), "{kind}");
    }
    assert_eq!(Message::parse(&igmp_v3(6, &source)), Some(Message::Report(vec![])));
    // Nothing but groups is a group.
    assert_eq!(Message::parse(&igmp(&[0x16, 0, 0, 0, 10, 0, 0, 1])), None);
}

#[test]
fn tags_are_passed_over() {
    let mut frame = igmp(&[0x16, 0, 0, 0, 239, 1, 2, 3]);
    for tpid in [0x8100_u16, 0x88a8] {
        let [a, b] = tpid.to_be_bytes();
        frame.splice(12..12, [a, b, 0, 5]);
        assert_eq!(Message::parse(&frame), Some(says(GROUP, Interest::Joins)));
    }
}

#[test]
fn own_queries_are_read_as_what_they_are() {
    let address = Ipv4Addr::new(10, 0, 0, 254);
    let general = message::query_v4(&querier(address), None);
    assert_eq!(Message::parse(&general), Some(Message::Query { source: address.into(), group: None }));
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let specific = message::query_v4(&querier(address), Some(group));
    let read = Message::parse(&specific);
    assert_eq!(read, Some(Message::Query { source: address.into(), group: Some(group.into()) }));
    let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);
    let Some(Message::Query { source, group: asked }) =
        Message::parse(&message::query_v6(&querier(Ipv4Addr::UNSPECIFIED), Some(group)))
    else {
        panic!("it was refused")
    };
    assert_eq!((source.to_string(), asked), ("fe80::ff:fe00:9".to_owned(), Some(group.into())));
}

proptest! {
    #[test]
    fn what_is_damaged_is_refused(which in 0..4_usize, place in any::<usize>(), bit in 0..8_u8) {
        let address = Ipv4Addr::new(10, 0, 0, 254);
        let frames = [
            igmp(&[0x16, 0, 0, 0, 239, 1, 2, 3]),
            igmp_v3(4, &[[10, 0, 0, 1], [10, 0, 0, 2]]),
            message::query_v4(&querier(address), None),
            message::query_v6(&querier(Ipv4Addr::UNSPECIFIED), None),
        ];
        let frame = &frames[which];
        prop_assert!(Message::parse(frame).is_some());
        // Checksums cover what is behind the addresses; padding nobody reads.
        let end = if which == 2 { 50 } else { frame.len() };
        for cut in 0..end {
            prop_assert_eq!(Message::parse(&frame[..cut]), None, "cut at {}", cut);
        }
        let at = 14 + place % (frame.len() - 14);
        let mut damaged = frame.clone();
        damaged[at] ^= 1 << bit;
        let _ = Message::parse(&damaged);
    }

    #[test]
    fn noise_is_read_or_refused(mut noise in proptest::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
        let _ = Message::parse(&noise);
        if noise.len() > 60 {
            noise[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
            noise[14] = if v6 { 0x60 } else { 0x45 };
            noise[if v6 { 20 } else { 23 }] = if v6 { 58 } else { 2 };
            let _ = Message::parse(&noise);
        }
    }
}

#[test]
fn who_joins_hears_until_it_leaves_or_is_silent() {
    let mut groups = Groups::new(Config::default());
    let vlan = VlanId::new(5).unwrap();
    groups.hear(at(0), (vlan, port(1)), &says(GROUP, Interest::Joins));
    groups.hear(at(100), (vlan, port(2)), &says(GROUP, Interest::Joins));
    let ports = Some([port(1), port(2)].into());
    assert_eq!(groups.take_changes(), [Change { vlan, group: Some(GROUP), ports }]);
    // Said again, it is no news.
    groups.hear(at(110), (vlan, port(2)), &says(GROUP, Interest::Joins));
    assert_eq!(groups.take_changes(), []);
    groups.tick(at(299));
    assert_eq!(hearers(&groups, Some(GROUP)), [1, 2]);
    groups.tick(at(300));
    assert_eq!(hearers(&groups, Some(GROUP)), [2]);
    // Others behind the port have two seconds to object.
    groups.hear(at(310), (vlan, port(2)), &says(GROUP, Interest::Leaves));
    groups.tick(at(311));
    assert_eq!(hearers(&groups, Some(GROUP)), [2]);
    groups.hear(at(311), (vlan, port(2)), &says(GROUP, Interest::Joins));
    groups.tick(at(313));
    assert_eq!(hearers(&groups, Some(GROUP)), [2]);
    groups.hear(at(314), (vlan, port(2)), &says(GROUP, Interest::Leaves));
    groups.take_changes();
    groups.tick(at(316));
    assert_eq!(groups.take_changes(), [Change { vlan, group: Some(GROUP), ports: None }]);
}

#[test]
fn fast_leave_is_at_once_and_what_was_said_by_hand_stays() {
    let mut groups = Groups::new(Config { fast_leave: true, ..Config::default() });
    let vlan = VlanId::NONE;
    groups.set_static(vlan, Some(GROUP), port(3), true);
    groups.hear(at(0), (vlan, port(1)), &says(GROUP, Interest::Joins));
    groups.hear(at(1), (vlan, port(1)), &says(GROUP, Interest::Leaves));
    groups.hear(at(1), (vlan, port(3)), &says(GROUP, Interest::Leaves));
    groups.tick(at(10_000));
    assert_eq!(hearers(&groups, Some(GROUP)), [3]);
    groups.clear();
    groups.forget_port(port(3));
    assert_eq!(hearers(&groups, Some(GROUP)), [3]);
    groups.set_static(vlan, Some(GROUP), port(3), false);
    assert!(groups.entries(at(0)).is_empty());
}

#[test]
fn routers_hear_everything_and_links_own_groups_are_for_all() {
    let mut groups = Groups::new(Config::default());
    let query = |address: [u8; 4]| Message::Query { source: Ipv4Addr::from(address).into(), group: None };
    groups.hear(at(0), (VlanId::NONE, port(7)), &query([10, 0, 0, 1]));
    groups.hear(at(0), (VlanId::NONE, port(8)), &query([0, 0, 0, 0]));
    assert_eq!(hearers(&groups, None), [7]);
    for link in ["224.0.0.251", "ff02::fb", "ff02::1:ff00:1"] {
        groups.hear(at(0), (VlanId::NONE, port(1)), &says(link.parse().unwrap(), Interest::Joins));
    }
    assert_eq!(groups.entries(at(0)).len(), 1);
}

#[test]
fn a_querier_asks_and_gives_way_to_a_lower_one() {
    let querier = querier(Ipv4Addr::new(10, 0, 0, 5));
    let mut groups = Groups::new(Config { querier: Some(querier), ..Config::default() });
    let asked = |groups: &mut Groups, secs: u64| {
        groups.tick(at(secs));
        groups.take_queries().len()
    };
    // Both versions of IP.
    assert_eq!((asked(&mut groups, 1), asked(&mut groups, 2), asked(&mut groups, 33)), (2, 0, 2));
    assert_eq!((asked(&mut groups, 157), asked(&mut groups, 158)), (0, 2));
    let query = |last| Message::Query { source: Ipv4Addr::new(10, 0, 0, last).into(), group: None };
    groups.hear(at(200), (VlanId::NONE, port(1)), &query(9));
    assert_eq!(asked(&mut groups, 283), 2);
    groups.hear(at(300), (VlanId::NONE, port(1)), &query(4));
    assert_eq!(asked(&mut groups, 408), 1, "only of IPv6");
    assert_eq!(asked(&mut groups, 556), 2, "the other one is gone");
    // Who leaves makes it ask whether others stay.
    groups.hear(at(557), (VlanId::NONE, port(2)), &says(GROUP, Interest::Joins));
    groups.hear(at(558), (VlanId::NONE, port(2)), &says(GROUP, Interest::Leaves));
    assert_eq!(groups.take_queries().len(), 1);
}

#[test]
fn the_group_of_longest_silence_makes_room() {
    let mut groups = Groups::new(Config { max_groups: 2, ..Config::default() });
    let group = |last| IpAddr::V4(Ipv4Addr::new(239, 0, 0, last));
    for (secs, last) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
        groups.hear(at(secs), (VlanId::NONE, port(1)), &says(group(last), Interest::Joins));
    }
    let known: Vec<_> = groups.entries(at(3)).into_iter().filter_map(|entry| entry.group).collect();
    assert_eq!((known, groups.n_evicted()), (vec![group(1), group(3)], 1));
}
