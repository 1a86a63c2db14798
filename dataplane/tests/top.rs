//! Who has most of the traffic, beside exact counting, through a running switch. No root needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use common::*;
use dataplane::{Dataplane, DataplaneConfig, MemoryPort, Order, TopConfig, WorkerConfig};
use flowtable::build::{Host, udp};

/// Two ports on two workers, each of which leads to the other.
fn start() -> (Dataplane, MemoryPort, MemoryPort) {
    let workers = vec![WorkerConfig::default(); 2];
    let dataplane =
        Dataplane::start(DataplaneConfig { workers, seed: Some(7), ..DataplaneConfig::default() });
    let dataplane = dataplane.unwrap();
    let (a, b) = (MemoryPort::new(256), MemoryPort::new(256));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    (dataplane, a, b)
}

/// Flows by both ports, the n-th of which has about a n-th of the first one's packets; answers
/// what each had, by its source.
fn send_skewed(ports: [(&MemoryPort, &MemoryPort); 2], n_rounds: usize) -> HashMap<u8, (u64, u64)> {
    let mut exact = HashMap::<u8, (u64, u64)>::new();
    for round in 1..=n_rounds {
        for src in (1..=200_u8).filter(|src| round % usize::from(*src) == 0) {
            let (from, to) = ports[usize::from(src % 2)];
            let frame = udp(&Host::v4(src), &Host::v4(250), &vec![0; usize::from(src)]);
            from.inject(&frame).unwrap();
            to.receive_within(PATIENCE).unwrap();
            let count = exact.entry(src).or_default();
            *count = (count.0 + 1, count.1 + frame.len() as u64);
        }
    }
    exact
}

fn source(flow: &flowtable::account::FlowId) -> u8 {
    match flow.ips {
        Some((std::net::IpAddr::V4(src), _)) => src.octets()[3],
        _ => panic!("{flow:?} is not IPv4"),
    }
}

#[test]
fn without_sampling_bounds_hold_and_the_greatest_are_exact() {
    let (dataplane, a, b) = start();
    let config = TopConfig { bridge: None, every: 1, capacity: 40, order: Order::Bytes };
    let top = dataplane.watch_top(config);
    let exact = send_skewed([(&a, &b), (&b, &a)], 300);
    let total = exact.values().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let report = top.take(usize::MAX);
    assert_eq!(report.total, total);
    assert!(report.flows.len() <= 80, "two workers with 40 places each");
    let mut told = HashMap::new();
    for talker in &report.flows {
        let (_, n_bytes) = exact[&source(&talker.key.1)];
        let most = talker.n_bytes + talker.missed;
        assert!(talker.n_bytes <= n_bytes && n_bytes <= most, "{talker:?}: it had {n_bytes}");
        assert_eq!(talker.spread, 0, "nothing was left to chance");
        told.insert(source(&talker.key.1), talker.n_bytes);
    }
    for (src, (_, n_bytes)) in &exact {
        assert!(told.contains_key(src) || *n_bytes <= report.most_missed, "{src} is missing");
    }
    let pairs: HashMap<_, _> = report
        .pairs
        .iter()
        .map(|pair| ((pair.key.0.port.get(), pair.key.1.port.get()), pair.n_packets))
        .collect();
    let by = |odd: u8| exact.iter().filter(|(src, _)| *src % 2 == odd).map(|(_, count)| count.0).sum::<u64>();
    assert_eq!(pairs, HashMap::from([((1, 2), by(0)), ((2, 1), by(1))]));
    // What was told is not told again.
    assert_eq!(top.take(9).total, (0, 0));
    drop(top);
}

#[test]
fn with_sampling_the_greatest_are_within_their_bounds() {
    let (dataplane, a, b) = start();
    let config = TopConfig { bridge: None, every: 8, capacity: 1024, order: Order::Packets };
    let top = dataplane.watch_top(config);
    let exact = send_skewed([(&a, &b), (&b, &a)], 1500);
    let report = top.take(10);
    let total: u64 = exact.values().map(|count| count.0).sum();
    assert!(report.total.0.abs_diff(total) < total / 4, "{} of {total}", report.total.0);
    let is_within = |talker: &&dataplane::Talker<(_, flowtable::account::FlowId)>| {
        let truth = exact[&source(&talker.key.1)].0;
        truth.abs_diff(talker.n_packets) <= talker.spread && talker.missed == 0
    };
    // One in twenty may be further away.
    let n_within = report.flows.iter().filter(is_within).count();
    assert!(n_within >= 8, "{n_within} of 10: {:?}", report.flows);
    assert_eq!(source(&report.flows[0].key.1), 1, "the greatest is the greatest");
}
