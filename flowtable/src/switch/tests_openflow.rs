//! Tests of groups, meters and the life of rules through the caches.

use super::{
    tests::{Collector, send},
    *,
};
use crate::{
    build::{self, Host},
    drop::DropReason,
    pipeline::random::{self, port},
    port::PortTable,
    table::{Change, GroupChange, MeterChange, TableCounters, Tables},
    text::{parse_flow, parse_group, parse_meter},
    types::{GroupId, MeterId},
};

fn world(lines: &[&str]) -> Arc<Snapshot> {
    let ports = PortTable::default();
    let change = |line: &&str| match line.split_once('=') {
        Some(("group_id", _)) => Change::Group(GroupChange::Add(parse_group(line, &ports).unwrap())),
        Some(("meter", _)) => Change::Meter(MeterChange::Add(parse_meter(line).unwrap())),
        _ => Change::Add(parse_flow(line, &ports).unwrap()),
    };
    let tables = Tables::default().transact(lines.iter().map(change).collect()).unwrap();
    Arc::new(Snapshot { tables: Arc::new(tables), ..(*random::snapshot(1, &[])).clone() })
}

fn switch() -> Switch {
    Switch::with_seed(SwitchConfig::default(), 1)
}

fn udp(src: u16) -> Vec<u8> {
    build::udp(&Host { port: src, ..Host::v4(1) }, &Host::v4(2), b"x")
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn send_at(switch: &mut Switch, snapshot: &Arc<Snapshot>, now: Timestamp, n: usize) -> usize {
    let mut sink = Collector::default();
    let mut batch = (0..n).map(|_| build::packet(&udp(1), port(1))).collect();
    switch.process(now, snapshot, port(1), &mut batch, &mut sink);
    sink.out.len()
}

#[test]
fn a_meter_measures_each_packet_and_is_named() {
    let snapshot = world(&[
        "meter=7 pktps burst bands=type=drop rate=10 burst_size=5",
        "cookie=3,actions=meter:7,output:2",
    ]);
    let (mut one, mut other) = (switch(), switch());
    // Both workers together have one burst, although each has its own cache.
    assert_eq!(send_at(&mut one, &snapshot, at(1), 3), 3);
    assert_eq!(send_at(&mut other, &snapshot, at(1), 40), 2);
    assert_eq!(send_at(&mut one, &snapshot, at(1), 40), 0);
    assert_eq!(send_at(&mut one, &snapshot, at(2), 40), 5);
    assert_eq!((one.counters().n_misses, one.counters().n_renewals), (1, 0), "the cache decides nothing");
    let drops = one.drops();
    assert_eq!(drops.len(), 1);
    assert_eq!((drops[0].reason, drops[0].meter), (DropReason::Metered, MeterId::new(7).ok()));
    assert_eq!(drops[0].rule.as_ref().map(|rule| rule.cookie), Some(3));
    assert_eq!(drops[0].n_packets, 75);
    let meter = snapshot.tables.meter(MeterId::new(7).unwrap()).unwrap();
    assert_eq!((meter.stats().0, meter.band_stats()[0].0), (123, 75 + 38));
    // Rules count what matched them, dropped or not.
    one.flush_stats();
    other.flush_stats();
    assert_eq!(snapshot.tables.rules().next().unwrap().stats.get().0, 123);
}

#[test]
fn a_meter_spares_what_it_does_not_guard() {
    let lines = [
        "meter=1 pktps burst bands=type=drop rate=1 burst_size=1",
        "actions=output:2,clone(meter:1,output:3),output:2",
    ];
    let snapshot = world(&lines);
    let mut switch = switch();
    let sink = send(&mut switch, &snapshot, 1, &[udp(1), udp(1)]);
    assert_eq!(sink.out.iter().map(|(port, _)| port.get()).collect::<Vec<_>>(), [2, 3, 2, 2, 2]);
    let counters = switch.counters();
    assert_eq!((counters.n_forwarded, counters.n_dropped, counters.n_failed_copies), (2, 0, 1));
    assert_eq!((switch.drops()[0].n_packets, switch.drops()[0].n_copies), (0, 1));
}

#[test]
fn a_dropping_meter_hides_the_packet_from_meters_within() {
    let lines = [
        "meter=1 pktps burst bands=type=drop rate=1 burst_size=1",
        "meter=2 pktps burst bands=type=drop rate=1 burst_size=100",
        "actions=clone(meter:1,meter:2,output:3),meter:2,output:2",
    ];
    let snapshot = world(&lines);
    send(&mut switch(), &snapshot, 1, &[udp(1), udp(1)]);
    let n = |raw| snapshot.tables.meter(MeterId::new(raw).unwrap()).unwrap().stats().0;
    assert_eq!((n(1), n(2)), (2, 3));
}

#[test]
fn remarked_packets_have_right_checksums_and_keep_ecn() {
    let lines = [
        "meter=1 pktps burst bands=type=dscp_remark rate=1 burst_size=1 prec_level=1",
        "in_port=1,actions=meter:1,output:2",
        "in_port=3,ip,actions=meter:1,mod_nw_tos:72,output:2",
    ];
    let snapshot = world(&lines);
    let with_tos = |tos: u8| {
        let mut frame = udp(1);
        let old = frame[15];
        frame[15] = tos;
        // RFC 1624: the header's checksum follows.
        let check = u16::from_be_bytes([frame[24], frame[25]]);
        let sum = u32::from(!check) + u32::from(!u16::from(old)) + u32::from(tos);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        frame
    };
    // AF11 with ECN 1 becomes AF12; what is in no class stays.
    let (af11, af12, plain) = (with_tos(10 << 2 | 1), with_tos(12 << 2 | 1), with_tos(0));
    let sink = send(&mut switch(), &snapshot, 1, &[af11.clone(), af11.clone(), plain.clone()]);
    assert_eq!(sink.out.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [af11.clone(), af12, plain]);
    // The DSCP that the copy has counts: 18 (AF21) becomes 20.
    let sink = send(&mut switch(), &snapshot, 3, &[af11]);
    assert_eq!(sink.out[0].1, with_tos(20 << 2 | 1));
}

#[test]
fn idle_rules_go_and_used_ones_stay_although_only_caches_see_packets() {
    let lines =
        ["cookie=1,udp,idle_timeout=20,actions=output:2", "cookie=2,arp,idle_timeout=20,actions=output:2"];
    let mut snapshot = world(&lines);
    let mut switch = switch();
    for secs in (1..100).step_by(5) {
        assert_eq!(send_at(&mut switch, &snapshot, at(secs), 1), 1);
        switch.flush_stats();
        if let Some(commit) = snapshot.tables.expire(at(secs)) {
            let epoch = snapshot.epoch.next();
            snapshot = Arc::new(Snapshot { epoch, tables: Arc::new(commit.tables), ..(*snapshot).clone() });
        }
        assert_eq!(snapshot.tables.len(), if secs < 20 { 2 } else { 1 }, "at {secs}");
    }
    assert_eq!(switch.counters().n_misses, 1);
    let last = snapshot.tables.next_expiry().unwrap();
    assert_eq!(last, at(96 + 20));
    let gone = snapshot.tables.expire(last).unwrap();
    assert!(gone.tables.is_empty());
    let snapshot = Arc::new(Snapshot {
        epoch: snapshot.epoch.next(),
        tables: Arc::new(gone.tables),
        ..(*snapshot).clone()
    });
    assert_eq!(send_at(&mut switch, &snapshot, last, 1), 0, "the cache forgets it with the epoch");
}

#[test]
fn busy_workers_tell_rules_of_their_packets_by_themselves() {
    let snapshot = world(&["udp,idle_timeout=20,actions=output:2"]);
    let mut switch = switch();
    send_at(&mut switch, &snapshot, at(1), 3);
    send_at(&mut switch, &snapshot, at(2), 1);
    let rule = snapshot.tables.rules().next().unwrap();
    assert_eq!((rule.stats.get().0, rule.stats.used()), (3, at(1)));
}

#[test]
fn buckets_and_tables_count_to_the_packet() {
    let lines = [
        "group_id=1,type=select,bucket=weight:1,actions=output:2,bucket=weight:3,actions=output:3",
        "table=0,udp,actions=resubmit(,1),group:1",
        "table=1,arp,actions=drop",
    ];
    let snapshot = world(&lines);
    let mut switch = switch();
    let frames: Vec<_> = (0..4000).map(udp).collect();
    let first = send(&mut switch, &snapshot, 1, &frames).out;
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, first, "a flow keeps its bucket");
    send(&mut switch, &snapshot, 1, &[build::arp(1, &Host::v4(1), &Host::v4(2))]);
    switch.flush_stats();
    let group = snapshot.tables.group(GroupId::new(1).unwrap()).unwrap();
    let counts: Vec<_> = group.buckets.iter().map(|bucket| bucket.stats.get().0).collect();
    for (idx, count) in counts.iter().enumerate() {
        let sent = first.iter().filter(|(port, _)| port.get() == 2 + idx as u32).count();
        assert_eq!(*count, 2 * sent as u64);
    }
    assert_eq!(group.stats.get().0, 8000);
    assert!((1800..2200).contains(&counts[0]), "a quarter: {counts:?}");
    let table = |raw| snapshot.tables.stats().get(random::table(raw));
    assert_eq!(table(0), TableCounters { n_lookups: 8001, n_matches: 8000 });
    assert_eq!(table(1), TableCounters { n_lookups: 8000, n_matches: 0 });
}
