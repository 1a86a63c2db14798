//! Captures of a running switch. No root needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::*;
use dataplane::{
    Capture, CaptureFilter, CapturePoint, Captured, Dataplane, DataplaneConfig, MemoryPort, WorkerConfig,
};
use flowtable::{
    build::{Host, tcp, udp},
    drop::DropReason,
    field::Field,
    flow::{Action, Match, Origin},
};

/// Two ports on two workers; UDP crosses with another TTL, the rest is dropped by a rule.
fn start() -> (Dataplane, MemoryPort, MemoryPort) {
    let config = DataplaneConfig { workers: vec![WorkerConfig::default(); 2], ..DataplaneConfig::default() };
    let dataplane = Dataplane::start(config).unwrap();
    let (a, b) = (MemoryPort::new(256), MemoryPort::new(256));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    let mut udp_rule = rule(1, &[2]);
    udp_rule.matching = udp_rule.matching.with(Field::EthType, 0x800).with(Field::NwProto, 17);
    udp_rule.actions.insert(0, Action::DecTtl);
    let mut drop_rule = rule(1, &[]);
    drop_rule.priority = flowtable::types::Priority::new(1).unwrap();
    drop_rule.origin = std::sync::Arc::new(Origin { object: "acls/x".into(), ..Origin::default() });
    publish(&dataplane, snapshot(1, &[1, 2], vec![udp_rule, drop_rule]));
    (dataplane, a, b)
}

fn crosses(a: &MemoryPort, b: &MemoryPort, frame: &[u8]) {
    a.inject(frame).unwrap();
    b.receive_within(PATIENCE).unwrap();
}

/// Waits for so many packets; no more may come.
fn captured(capture: &Capture, n: usize) -> Vec<Captured> {
    let mut all = Vec::new();
    eventually("packets are captured", || {
        all.extend(capture.take(usize::MAX).0);
        all.len() >= n
    });
    assert_eq!(all.len(), n, "{all:?}");
    all
}

#[test]
fn each_packet_is_shown_where_it_comes_in_leaves_and_ends() {
    let (dataplane, a, b) = start();
    let (passes, ends) = (udp(&Host::v4(1), &Host::v4(2), b"x"), tcp(&Host::v4(1), &Host::v4(2), 2, b""));
    crosses(&a, &b, &passes);
    let all = dataplane.capture(CaptureFilter::default());
    let only = |points: &[CapturePoint]| CaptureFilter {
        points: points.iter().copied().collect(),
        ..CaptureFilter::default()
    };
    let drops = dataplane.capture(only(&[CapturePoint::Dropped]));
    let of_tcp = dataplane.capture(CaptureFilter {
        matching: Match::any().with(Field::EthType, 0x800).with(Field::NwProto, 6),
        max_len: 20,
        ..CaptureFilter::default()
    });
    let sent_by_1 = dataplane
        .capture(CaptureFilter { ports: BTreeSet::from([port(1).into()]), ..only(&[CapturePoint::Sent]) });
    a.inject(&ends).unwrap();
    crosses(&a, &b, &passes);

    let all = captured(&all, 4);
    let seen: Vec<_> = all.iter().map(|one| (one.point, one.port)).collect();
    let (one, two) = (port(1).into(), port(2).into());
    assert_eq!(
        seen.iter().filter(|at| at.0 != CapturePoint::Sent).copied().collect::<Vec<_>>(),
        [(CapturePoint::Received, one), (CapturePoint::Dropped, one), (CapturePoint::Received, one)]
    );
    assert!(seen.contains(&(CapturePoint::Sent, two)));
    let of = |point| all.iter().filter(|one| one.point == point).collect::<Vec<_>>();
    assert_eq!(&of(CapturePoint::Received)[1].bytes[..], passes);
    let left = of(CapturePoint::Sent)[0];
    assert_eq!((left.bytes[22], left.reason), (passes[22] - 1, None), "as it leaves");
    assert!(all.windows(2).all(|pair| pair[0].time <= pair[1].time));

    let drops = captured(&drops, 1);
    assert_eq!((&drops[0].bytes[..], drops[0].reason), (&ends[..], Some(DropReason::RuleDrop)));
    assert_eq!(drops[0].rule.as_ref().unwrap().origin.object, "acls/x");
    let of_tcp = captured(&of_tcp, 2);
    assert!(of_tcp.iter().all(|one| one.bytes[..] == ends[..20] && one.len == ends.len()));
    captured(&sent_by_1, 0);
    check_conservation(&dataplane);
}

#[test]
fn what_is_lost_on_the_way_out_is_shown_with_its_name() {
    let (dataplane, a, b) = start();
    let capture = dataplane.capture(CaptureFilter {
        points: BTreeSet::from([CapturePoint::Dropped]),
        ..CaptureFilter::default()
    });
    a.inject(&udp(&Host::v4(1), &Host::v4(2), &[0; 1600])).unwrap();
    let lost = captured(&capture, 1);
    assert_eq!((lost[0].reason, lost[0].port), (Some(DropReason::TooBig), port(1).into()));
    drop((capture, b));
    check_conservation(&dataplane);
}

#[test]
fn a_capture_that_is_dropped_shows_nothing_and_packets_pass_on() {
    let (dataplane, a, b) = start();
    let frame = udp(&Host::v4(1), &Host::v4(2), b"x");
    for _ in 0..20 {
        let capture = dataplane.capture(CaptureFilter::default());
        crosses(&a, &b, &frame);
        captured(&capture, 2);
    }
    crosses(&a, &b, &frame);
    check_conservation(&dataplane);
}
