//! Each option of `ct`, and what surrounds it in a rule: meters, groups, controllers, clones.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::ct_tests::World;
use crate::{
    build::{self, Host},
    checksum::{Sum, update},
    conntrack::{Config, Connection, Conntrack, Event, Filter, State, Storage, Watched},
    drop::DropReason,
    key::ct_state,
    types::Timestamp,
};

const SECOND: u64 = 1_000_000_000;

fn ends() -> (Host, Host) {
    (Host::v4(1), Host::v4(2))
}

impl World {
    fn connections(&self) -> Vec<Connection> {
        let now = Timestamp::from_nanos(self.now);
        self.switch.conntrack().map_or_else(Vec::new, |tracker| tracker.dump(now, &Filter::default()))
    }

    fn given(rules: &[&str], tracker: &Arc<Conntrack>) -> Self {
        let World { switch, .. } = Self::new(rules);
        Self { switch: switch.with_conntrack(Arc::clone(tracker)), ..Self::new(rules) }
    }
}

fn tracker() -> Arc<Conntrack> {
    Arc::new(Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(1024)))
}

#[test]
fn a_zone_comes_from_a_field() {
    let mut world = World::new(&[
        "table=0,ip,actions=move:nw_src[0..7]->reg3[4..11],ct(commit,zone=reg3[0..15],table=1)",
        "table=1,priority=2,ct_zone=16,actions=output:2",
        "table=1,priority=1,ct_zone=48,actions=output:3",
    ]);
    let (a, b) = ends();
    assert_eq!(world.send(1, &build::udp(&a, &b, b""))[0].0, 2);
    assert_eq!(world.send(1, &build::udp(&Host::v4(3), &b, b""))[0].0, 3);
    let zones: BTreeSet<u16> = world.connections().iter().map(|found| found.original.zone).collect();
    assert_eq!(zones, BTreeSet::from([16, 48]));
}

#[test]
fn only_commit_remembers_and_force_turns_around() {
    let mut world = World::new(&[
        "table=0,in_port=1,ip,actions=ct(table=1,zone=1)",
        "table=0,in_port=2,ip,actions=ct(commit,force,table=1,zone=1)",
        "table=0,in_port=3,ip,actions=ct(commit,zone=1),output:2",
        "table=1,ct_state=+new,actions=output:3",
        "table=1,ct_state=+est+rpl,actions=output:2",
    ]);
    let (a, b) = ends();
    let (there, back) = (build::udp(&a, &b, b""), build::udp(&b, &a, b""));
    assert_eq!(world.send(1, &there)[0].0, 3);
    assert_eq!(world.n_connections(), 0);
    world.send(3, &there);
    assert_eq!(world.connections()[0].original.src, 0x0a00_0001);
    assert_eq!(world.send_once(2, &back)[0].0, 3, "the answer begins anew");
    assert_eq!(world.connections()[0].original.src, 0x0a00_0002);
    assert_eq!(world.send(1, &there)[0].0, 2, "which makes this one the answer");
}

#[test]
fn marks_and_labels_change_under_their_masks_from_values_and_fields() {
    let mut world = World::new(&[
        "table=0,in_port=1,ip,actions=ct(commit,zone=1,exec(set_field:0xf0/0xff->ct_mark,set_field:0x1/0x1->ct_label)),output:2",
        "table=0,in_port=3,ip,actions=set_field:0xabcd->reg5,ct(commit,zone=1,exec(move:reg5[0..7]->ct_mark[8..15],move:nw_src[]->ct_label[64..95])),output:2",
    ]);
    let (a, b) = ends();
    let frame = build::udp(&a, &b, b"");
    world.send(1, &frame);
    let first = &world.connections()[0];
    assert_eq!((first.mark, first.label), (0xf0, 1));
    world.send(3, &frame);
    let second = &world.connections()[0];
    assert_eq!((second.mark, second.label), (0xcdf0, 0x0a00_0001 << 64 | 1));
}

#[test]
fn a_connection_lives_as_its_policy_says() {
    let tracker = tracker();
    tracker.set_timeout(3, State::UdpFirst, std::time::Duration::from_secs(5));
    tracker.set_timeout(3, State::UdpSingle, std::time::Duration::from_secs(5));
    let rules = [
        "table=0,in_port=1,ip,actions=ct(commit,zone=1,timeout=3),output:2",
        "table=0,in_port=3,ip,actions=ct(commit,zone=1),output:2",
    ];
    let mut world = World::given(&rules, &tracker);
    let (a, b) = ends();
    world.send(1, &build::udp(&a, &b, b""));
    world.send(3, &build::udp(&b, &a, b""));
    world.send(3, &build::udp(&Host::v4(5), &b, b""));
    let policies: Vec<u8> = world.connections().iter().map(|found| found.policy).collect();
    assert_eq!(policies, [3, 0], "the second was an answer");
    world.now += 40 * SECOND;
    assert_eq!(world.connections().len(), 1, "the one of the other policy");
}

/// What a translation makes of the first packet of a host.
fn translated(nat: &str, from: Host) -> (IpAddr, u16, IpAddr, u16) {
    let rules = ["ip", "ipv6"].map(|kind| format!("table=0,{kind},actions=ct(commit,zone=1,{nat},table=1)"));
    let mut world = World::new(&[&rules[0], &rules[1], "table=1,actions=output:2"]);
    let to = if from.ip.is_ipv4() { Host::v4(2) } else { Host::v6(2) };
    let frame = build::udp(&from, &to, b"x");
    let (_, key) = crate::testing::parsed(&world.send(1, &frame)[0].1);
    let found = world.connections();
    let reply = &found[0].reply;
    let seen = (reply.address(reply.dst), reply.dst_port, reply.address(reply.src), reply.src_port);
    assert_eq!((key.tp_src.get(), key.tp_dst.get()), (seen.1, seen.3), "the frame is as the entry says");
    // And back again.
    let [back, there] = [&found[0].reply, &found[0].original].map(|tuple| (tuple.src, tuple.dst_port));
    assert_ne!(back, there);
    seen
}

#[test]
fn translations_of_every_form() {
    let (a, b) = ends();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let at = |text: &str| (ip(text), a.port, b.ip, b.port);
    assert_eq!(translated("nat(src=192.0.2.1)", a), at("192.0.2.1"));
    assert_eq!(translated("nat(src=0.0.0.0)", a), at("10.0.0.1"));
    assert_eq!(translated("nat(src)", a), at("10.0.0.1"));
    assert_eq!(translated("nat", a), at("10.0.0.1"));
    let (seen, port, ..) = translated("nat(src=192.0.2.1-192.0.2.9:50-60)", a);
    assert!((ip("192.0.2.1")..=ip("192.0.2.9")).contains(&seen) && (50..=60).contains(&port));
    let hashed = translated("nat(src=192.0.2.1-192.0.2.200:1-60000,hash)", a);
    assert_eq!(hashed, translated("nat(src=192.0.2.1-192.0.2.200:1-60000,hash)", a));
    let (seen, port, ..) = translated("nat(src=192.0.2.1-192.0.2.200:1000-2000,random)", a);
    assert!((ip("192.0.2.1")..=ip("192.0.2.200")).contains(&seen) && (1000..=2000).contains(&port));
    let other = Host { port: 7, ..a };
    let kept = |host| translated("nat(src=192.0.2.1-192.0.2.200,persistent)", host).0;
    assert_eq!(kept(a), kept(other));
    assert_eq!(translated("nat(dst=192.0.2.1)", a), (a.ip, a.port, ip("192.0.2.1"), b.port));
    assert_eq!(translated("nat(dst=192.0.2.1:53)", a), (a.ip, a.port, ip("192.0.2.1"), 53));
    let (a, b) = (Host::v6(1), Host::v6(2));
    assert_eq!(translated("nat(src=fd00::99)", a), (ip("fd00::99"), a.port, b.ip, b.port));
    assert_eq!(translated("nat(dst=[fd00::99]:53)", a), (a.ip, a.port, ip("fd00::99"), 53));
}

/// In the zone that translated it, a packet belongs to its connection in later passes too.
#[test]
fn a_translated_packet_keeps_its_connection() {
    let mut world = World::new(&[
        "table=0,in_port=1,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9))",
        "table=0,in_port=2,ip,actions=ct(table=1,zone=1,nat)",
        "table=1,ip,actions=ct(commit,zone=1,exec(set_field:7->ct_mark)),ct(table=2,zone=1)",
        "table=2,in_port=1,ct_mark=7,ct_state=-rpl,actions=output:2",
        "table=2,in_port=2,ct_mark=7,ct_state=+rpl,actions=output:1",
    ]);
    let (a, b) = ends();
    let outside = Host { ip: [10, 9, 9, 9].into(), ..a };
    assert_eq!(world.send(1, &build::udp(&a, &b, b"?")), [(2, build::udp(&outside, &b, b"?"))]);
    assert_eq!(world.send(2, &build::udp(&b, &outside, b"!")), [(1, build::udp(&b, &a, b"!"))]);
    assert_eq!(world.n_connections(), 1);
    // In another zone it is another connection.
    let mut world = World::new(&[
        "table=0,in_port=1,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9))",
        "table=1,ip,actions=ct(commit,zone=2),output:2",
    ]);
    world.send(1, &build::udp(&a, &b, b"?"));
    let sources: Vec<_> = world.connections().iter().map(|found| found.original.src).collect();
    assert_eq!(sources, [0x0a00_0001, 0x0a09_0909]);
}

#[test]
fn limits_hold_by_zone_port_and_in_all() {
    let tracker = tracker();
    tracker.set_zone_limit(None, Some(5));
    tracker.set_zone_limit(Some(1), Some(2));
    tracker.set_port_limit(Some(4));
    let rules = [
        "table=0,priority=2,ip,nw_dst=10.0.0.99,actions=ct(commit,zone=1),output:2",
        "table=0,priority=1,ip,actions=ct(commit,zone=2),output:2",
    ];
    let mut world = World::given(&rules, &tracker);
    let mut count = |raw, to: u8| {
        let send =
            |n: u8| world.send_once(raw, &build::udp(&Host::v4(n + 10 * raw as u8), &Host::v4(to), b""));
        let _ = (0..8).map(send).collect::<Vec<_>>();
        (tracker.stats().n_connections, tracker.stats().n_limited)
    };
    assert_eq!(count(1, 99), (2, 6), "two in zone 1");
    assert_eq!(count(1, 2), (4, 12), "four from port 1");
    assert_eq!(count(3, 2), (7, 17), "five in zone 2");
    tracker.set_zone_limit(None, None);
    tracker.set_port_limit(None);
    tracker.set_limit(Some(8));
    assert!(tracker.zones() == [(1, 2), (2, 5)]);
    let limited = world.drops();
    assert_eq!(
        limited.iter().map(|(reason, _)| *reason).collect::<BTreeSet<_>>(),
        [DropReason::CtLimit].into()
    );
}

#[test]
fn flushes_and_events_name_what_goes() {
    let tracker = tracker();
    tracker.set_events(Watched::All);
    let rules = [
        "table=0,in_port=1,ip,actions=ct(commit,zone=1,exec(set_field:5->ct_mark,set_field:0x30->ct_label)),output:2",
        "table=0,in_port=3,ip,actions=ct(commit,zone=2),output:2",
    ];
    let (a, b) = ends();
    let filters = [
        Filter { zone: Some(1), ..Filter::default() },
        Filter { mark: Some((1, 1)), ..Filter::default() },
        Filter { label: Some((0x10, 0x10)), ..Filter::default() },
    ];
    let mut world = World::given(&rules, &tracker);
    for filter in filters {
        world.send(1, &build::udp(&a, &b, b""));
        world.send(3, &build::udp(&a, &b, b""));
        let now = Timestamp::from_nanos(world.now);
        assert_eq!(tracker.flush(now, &filter), 1, "{filter:?}");
        assert_eq!(world.connections()[0].original.zone, 2);
        let events = tracker.fetch_events().0;
        let [.., Event::Removed(gone)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((gone.original.zone, gone.mark, gone.label, gone.in_port), (1, 5, 0x30, 1));
        let tuple = Filter { tuple: Some(world.connections()[0].reply), ..Filter::default() };
        assert_eq!(tracker.flush(now, &tuple), 1);
        assert_eq!(world.n_connections(), 0);
        tracker.fetch_events();
    }
    tracker.set_events(Watched::Nothing);
    world.send(1, &build::udp(&a, &b, b""));
    assert_eq!(tracker.fetch_events(), (Vec::new(), 0));
}

/// A clone that goes on behind a translation does not execute the action set: that there
/// is a way out in it does not count.
#[test]
fn a_clone_without_a_way_out_is_dropped_by_its_rule() {
    let mut world = World::new(&[
        "table=0,ip,actions=write_actions(output:2),goto_table:1",
        "table=1,ip,actions=clone(ct(commit,zone=1,nat(src=10.0.0.9)),set_field:1->reg0),clear_actions",
    ]);
    let (a, b) = ends();
    assert_eq!(world.send(1, &build::udp(&a, &b, b"x")), []);
    assert_eq!(world.drops(), [(DropReason::RuleDrop, 3)]);
    assert!(world.switch.drops().iter().all(|drop| drop.rule.is_some()), "the rule is named");
}

#[test]
fn meters_on_both_sides_of_a_pass_measure_it() {
    // Meter 1 lets three packets pass in a burst.
    for rules in [
        ["table=0,ip,actions=meter:1,ct(commit,table=1,zone=1)", "table=1,actions=output:2"],
        ["table=0,ip,actions=ct(commit,table=1,zone=1)", "table=1,actions=meter:1,output:2"],
    ] {
        let mut world = World::new(&rules);
        let (a, b) = ends();
        let frame = build::udp(&a, &b, b"x");
        let n_out: usize = (0..10).map(|_| world.send_once(1, &frame).len()).sum();
        assert_eq!(n_out, 3);
        assert_eq!(world.drops(), [(DropReason::Metered, 7)]);
        let drop = &world.switch.drops()[0];
        assert!(drop.meter.is_some() && drop.rule.is_some());
    }
}

#[test]
fn groups_choose_in_a_later_pass_and_stay_with_their_choice() {
    let mut world = World::new(&[
        "table=0,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9))",
        "table=1,ct_state=+new,actions=group:2",
        "table=1,ct_state=+est,actions=group:2",
    ]);
    let (_, b) = ends();
    let mut used = BTreeSet::new();
    for n in 0..40 {
        let frame = build::udp(&Host { port: 100 + n, ..Host::v4(9) }, &b, b"x");
        let out = world.send(4, &frame);
        assert_eq!(out.len(), 1);
        used.insert(out[0].0);
        assert_eq!(world.send(4, &frame)[0].0, out[0].0);
    }
    assert!(used.len() >= 2, "{used:?}");
    // A copy for each bucket, of the packet as it is behind the tracker.
    let mut world = World::new(&[
        "table=0,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9))",
        "table=1,ct_state=+trk,actions=group:1,output:3",
        "table=4,actions=output:3",
    ]);
    let frame = build::udp(&Host::v4(9), &b, b"x");
    let out = world.send_once(4, &frame);
    assert!(
        out.len() >= 3 && out.iter().all(|(_, frame)| frame.windows(4).any(|part| part == [10, 9, 9, 9]))
    );
}

#[test]
fn controllers_are_told_what_the_tracker_said() {
    let mut world = World::new(&[
        "table=0,ip,actions=ct(commit,table=1,zone=9)",
        "table=1,ct_state=+new,actions=controller(max_len=64),output:2",
    ]);
    let (a, b) = ends();
    assert_eq!(world.send_once(1, &build::udp(&a, &b, b"x")).len(), 1);
    let told = world.switch.take_packet_ins();
    assert_eq!(told.len(), 1);
    let metadata = &told[0].punt.metadata;
    let state = u128::from(ct_state::TRK | ct_state::NEW);
    assert_eq!(
        metadata.get(crate::field::Field::CtState),
        (state, 0xffff & metadata.get(crate::field::Field::CtState).1)
    );
    assert_eq!(metadata.get(crate::field::Field::CtZone).0, 9);
}

#[test]
fn wrong_checksums_are_invalid_where_they_are_looked_at() {
    let rules = [
        "table=0,ip,actions=ct(commit,table=1,zone=1)",
        "table=0,ipv6,actions=ct(commit,table=1,zone=1)",
        "table=1,priority=2,ct_state=+inv,actions=output:3",
        "table=1,priority=1,ct_state=+new,actions=output:2",
    ];
    for (a, b) in [ends(), (Host::v6(1), Host::v6(2))] {
        let l4 = if a.ip.is_ipv4() { 34 } else { 54 };
        for (frame, at) in [
            (build::udp(&a, &b, b"abc"), l4 + 6),
            (build::tcp(&a, &b, 2, b"abc"), l4 + 16),
            (build::icmp_echo(&a, &b, false, 1, 1, b"abc"), l4 + 2),
        ] {
            let tracker = tracker();
            let mut world = World::given(&rules, &tracker);
            let mut bad = frame.clone();
            *bad.last_mut().unwrap() ^= 0x40;
            let sent = |world: &mut World, frame: &[u8]| {
                let mut sink = super::tests::Collector::default();
                let mut batch = vec![build::packet(frame, crate::pipeline::random::port(1))];
                let now = Timestamp::from_nanos(world.now);
                let snapshot = Arc::clone(&world.snapshot);
                world.switch.process(now, &snapshot, crate::pipeline::random::port(1), &mut batch, &mut sink);
                sink.out.first().map(|(port, _)| port.get())
            };
            assert_eq!(sent(&mut world, &bad), Some(3));
            assert_eq!(world.n_connections(), 0);
            tracker.set_check_checksums(false);
            assert_eq!(sent(&mut world, &bad), Some(2));
            tracker.set_check_checksums(true);
            assert_eq!(sent(&mut world, &frame), Some(2));
            // None at all is for IPv4 alone to do.
            if frame[l4 - 11] == 17 || a.ip.is_ipv6() && frame[20] == 17 {
                let mut none = frame.clone();
                none[at..at + 2].fill(0);
                assert_eq!(sent(&mut world, &none), Some(if a.ip.is_ipv4() { 2 } else { 3 }));
            }
        }
    }
    // The header of IPv4.
    let mut world = World::new(&rules);
    let mut bad = build::udp(&Host::v4(1), &Host::v4(2), b"");
    bad[24] ^= 1;
    let mut sink = super::tests::Collector::default();
    let mut batch = vec![build::packet(&bad, crate::pipeline::random::port(1))];
    let snapshot = Arc::clone(&world.snapshot);
    world.switch.process(
        Timestamp::from_nanos(1),
        &snapshot,
        crate::pipeline::random::port(1),
        &mut batch,
        &mut sink,
    );
    assert_eq!(sink.out[0].0.get(), 3);
}

#[test]
fn registers_metadata_and_what_the_frame_is_survive_a_pass() {
    let mut world = World::new(&[
        "table=0,ip,actions=load:0x11->reg0,load:0x1122334455667788->metadata,load:7->reg15,load:9->pkt_mark,ct(table=1,zone=1)",
        "table=1,reg0=0x11,metadata=0x1122334455667788,reg15=7,pkt_mark=9,udp,nw_src=10.0.0.1,actions=load:1->reg0,ct(table=2,zone=2)",
        "table=2,reg0=1,metadata=0x1122334455667788,reg15=7,reg1=0,ct_zone=2,udp,nw_dst=10.0.0.2,actions=output:2",
    ]);
    let (a, b) = ends();
    let frame = build::udp(&a, &b, b"");
    assert_eq!(world.send(1, &frame), [(2, frame)]);
}

/// Segments far outside of the window, where sequence numbers are looked at and where not.
#[test]
fn numbers_count_where_they_are_looked_at() {
    let tracker = tracker();
    let mut world = World::given(
        &[
            "table=0,tcp,actions=ct(table=1,zone=1)",
            "table=1,priority=3,ct_state=+inv,tcp,actions=output:3",
            "table=1,priority=2,ct_state=+new,tcp,actions=ct(commit,zone=1),output:2",
            "table=1,priority=2,ct_state=+est,tcp,in_port=1,actions=output:2",
            "table=1,priority=2,ct_state=+est,tcp,in_port=2,actions=output:1",
        ],
        &tracker,
    );
    let (a, b) = ends();
    let mut port_of = |side: u32, flags, seq: u32, ack: u32| {
        let (from, to) = if side == 1 { (&a, &b) } else { (&b, &a) };
        let mut frame = build::tcp(from, to, flags, b"");
        let change = Sum::ZERO.change(1, seq.into(), 2).change(0, ack.into(), 2);
        let sum = update(u16::from_be_bytes([frame[50], frame[51]]), change);
        frame[38..42].copy_from_slice(&seq.to_be_bytes());
        frame[42..46].copy_from_slice(&ack.to_be_bytes());
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        world.send_once(side, &frame)[0].0
    };
    assert_eq!(port_of(1, 2, 1000, 0), 2);
    assert_eq!(port_of(2, 0x12, 5000, 1001), 1);
    for _ in 0..3 {
        assert_eq!(port_of(1, 0x10, 1001, 5001), 2);
    }
    assert_eq!(port_of(1, 0x10, 0x4000_0000, 5001), 3, "outside of the window");
    assert_eq!(port_of(1, 0x10, 1001, 0x4000_0000), 3, "acknowledges what was never sent");
    tracker.set_check_sequence(false);
    assert_eq!(port_of(1, 0x10, 0x4000_0000, 5001), 2);
    tracker.set_check_sequence(true);
    assert_eq!(port_of(1, 0x10, 0x4000_0000, 5001), 3);
    assert_eq!(port_of(2, 0x10, 5001, 1001), 1, "nothing of it has changed the connection");
    // The reset with the expected number ends it.
    assert_eq!(port_of(2, 4, 5001, 0), 1);
    let states: Vec<State> = world.connections().iter().map(|found| found.state).collect();
    assert_eq!(states, [State::TcpClosed]);
}
