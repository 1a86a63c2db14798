//! Rates and queues of ports, in virtual time. No root needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::*;
use dataplane::{
    Clock, Dataplane, DataplaneConfig, MemoryPort, PortRates, QueueSpec, Rate, VirtualClock, WorkerConfig,
};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
    flow::Action,
};

const FRAME_LEN: usize = 1000;

/// Bytes behind the headers of Ethernet, IPv4 and UDP.
fn frame(queue: u8) -> Vec<u8> {
    udp(&Host::v4(queue), &Host::v4(9), &[0; FRAME_LEN - 42])
}

fn rate(bits_per_second: u64) -> Option<Rate> {
    Some(Rate { bits_per_second, burst_bits: 8 * FRAME_LEN as u64 })
}

/// Packets from port 1 leave by port 2, those from port 3 by its queue 7.
fn start(n_workers: usize) -> (Dataplane, VirtualClock, [MemoryPort; 3]) {
    let clock = VirtualClock::new();
    clock.set_stopped(true);
    let config = DataplaneConfig {
        workers: vec![WorkerConfig::default(); n_workers],
        clock: Clock::Virtual(clock.clone()),
        ..DataplaneConfig::default()
    };
    let dataplane = Dataplane::start(config).unwrap();
    clock.advance(Duration::from_secs(1));
    let memory: [_; 3] = std::array::from_fn(|_| MemoryPort::new(2048));
    for (number, memory) in (1..).zip(&memory) {
        attach_memory(&dataplane, number, memory);
    }
    let mut by_queue = rule(3, &[2]);
    by_queue.actions.insert(0, Action::SetQueue(7));
    publish(&dataplane, snapshot(1, &[1, 2, 3], vec![rule(1, &[2]), by_queue]));
    (dataplane, clock, memory)
}

fn count(memory: &MemoryPort) -> usize {
    std::iter::from_fn(|| memory.receive()).count()
}

/// Waits until no packet is on its way to the workers.
fn settle(dataplane: &Dataplane, memory: &[MemoryPort]) {
    eventually("all is taken", || memory.iter().all(|memory| memory.n_injected() == 0));
    dataplane.tick();
    dataplane.tick();
}

#[test]
fn a_port_is_heard_at_its_rate_and_the_rest_has_a_name() {
    let (dataplane, clock, memory) = start(1);
    let rates = PortRates { receive: rate(8_000_000), ..PortRates::default() };
    dataplane.set_rates(port(1), rates).unwrap();
    let mut n_passed = 0;
    for _ in 0..100 {
        // Twice what is allowed.
        clock.advance(Duration::from_millis(1));
        dataplane.inject(port(1), &memory[0], vec![frame(1), frame(1)]).unwrap();
        n_passed += count(&memory[1]);
    }
    assert!((100..=102).contains(&n_passed), "{n_passed} of 200 at 1000 in a second");
    let ports = check_conservation(&dataplane);
    let counters = status(&ports, 1).counters;
    assert_eq!((counters.rx_packets, counters.rx_forwarded), (200, n_passed as u64));
    let drops = dataplane.drops();
    let row = drops.iter().find(|row| row.reason == DropReason::RateLimit).unwrap();
    assert_eq!((row.in_port, row.n_packets), (port(1), 200 - n_passed as u64));
    assert_eq!(row.n_bytes, row.n_packets * FRAME_LEN as u64);
    // Another port is not concerned; without a rate nothing is refused, and what was stays counted.
    dataplane.inject(port(3), &memory[2], vec![frame(1); 20]).unwrap();
    dataplane.set_rates(port(1), PortRates::default()).unwrap();
    dataplane.inject(port(1), &memory[0], vec![frame(1); 20]).unwrap();
    assert_eq!(count(&memory[1]), 40);
    check_conservation(&dataplane);
    dataplane.detach(port(1)).unwrap();
    assert!(dataplane.set_rates(port(1), PortRates::default()).is_err());
}

#[test]
fn a_port_sends_at_its_rate_and_what_waits_too_long_has_a_name() {
    let (dataplane, clock, memory) = start(1);
    let rates = PortRates { send: rate(8_000_000), ..PortRates::default() };
    dataplane.set_rates(port(2), rates).unwrap();
    dataplane.inject(port(1), &memory[0], vec![frame(1); 1000]).unwrap();
    assert!((1..=3).contains(&count(&memory[1])));
    let mut n_sent = 0;
    for _ in 0..100 {
        clock.advance(Duration::from_millis(1));
        dataplane.tick();
        n_sent += count(&memory[1]);
    }
    assert!((99..=101).contains(&n_sent), "{n_sent} in 100 ms at 1000 in a second");
    clock.advance(Duration::from_secs(10));
    for _ in 0..300 {
        clock.advance(Duration::from_millis(1));
        dataplane.tick();
    }
    let ports = check_conservation(&dataplane);
    let counters = status(&ports, 2).counters;
    let [.., queue_full] = counters.tx_dropped;
    assert_eq!(counters.tx_packets + queue_full, 1000);
    assert!(queue_full > 500, "256 KiB wait at most: {counters:?}");
    let drops = dataplane.drops();
    let row = drops.iter().find(|row| row.reason == DropReason::QueueFull).unwrap();
    assert_eq!((row.in_port, row.n_copies), (port(1), queue_full));
    let counts = dataplane.queue_counts(port(2))[&0];
    assert_eq!((counts.n_packets, counts.n_dropped, counts.n_waiting), (1000 - queue_full, queue_full, 0));
}

#[test]
fn rules_choose_the_queue_on_whichever_worker_they_are() {
    let (dataplane, clock, memory) = start(2);
    let queue = QueueSpec { min: rate(6_000_000), ..QueueSpec::default() };
    let usual = QueueSpec { priority: 1, ..QueueSpec::default() };
    let queues = BTreeMap::from([(0, usual), (7, queue)]);
    let rates = PortRates { send: rate(8_000_000), queues, ..PortRates::default() };
    dataplane.set_rates(port(2), rates).unwrap();
    let mut n_sent = BTreeMap::new();
    for step in 0..400 {
        if step % 4 == 0 {
            for (number, idx) in [(1, 0), (3, 2)] {
                for _ in 0..8 {
                    memory[idx].inject(&frame(number)).unwrap();
                }
            }
        }
        settle(&dataplane, &memory);
        clock.advance(Duration::from_millis(1));
        settle(&dataplane, &memory);
        for sent in std::iter::from_fn(|| memory[1].receive()) {
            // The sender's address tells which.
            *n_sent.entry(sent[29]).or_insert(0) += 1;
        }
    }
    let sent_from = |number: u8| n_sent.get(&frame(number)[29]).copied().unwrap_or(0);
    let (usual, first): (u64, u64) = (sent_from(1), sent_from(3));
    assert!((395..=405).contains(&(usual + first)), "{n_sent:?}");
    assert!(first >= 395, "the higher priority has all: {n_sent:?}");
    let counts = dataplane.queue_counts(port(2));
    assert_eq!(counts[&7].n_packets, first);
    // A change takes what waits along; none at all sends it.
    let waiting: u64 = counts.values().map(|counts| counts.n_waiting).sum();
    assert!(waiting > 100, "{counts:?}");
    dataplane.set_rates(port(2), PortRates { send: rate(1_000), ..PortRates::default() }).unwrap();
    let counts = dataplane.queue_counts(port(2));
    let kept = counts[&0].n_waiting + counts[&0].n_packets + counts[&0].n_dropped;
    assert_eq!(kept, waiting, "{counts:?}");
    dataplane.set_rates(port(2), PortRates::default()).unwrap();
    settle(&dataplane, &memory);
    assert!(dataplane.queue_counts(port(2)).is_empty());
    assert!(count(&memory[1]) as u64 >= waiting / 2);
    check_conservation(&dataplane);
}

#[test]
fn what_waits_for_a_port_that_goes_is_lost_by_name_and_no_buffer_is() {
    let (dataplane, _clock, memory) = start(1);
    let rates = PortRates { send: rate(1_000_000), ..PortRates::default() };
    dataplane.set_rates(port(2), rates).unwrap();
    dataplane.inject(port(1), &memory[0], vec![frame(1); 100]).unwrap();
    let n_sent = count(&memory[1]) as u64;
    let detached = dataplane.detach(port(2)).unwrap();
    assert_eq!(detached.status.counters.tx_dropped, [0, 0, 0, 100 - n_sent, 0]);
    let drops = dataplane.drops();
    let row = drops.iter().find(|row| row.reason == DropReason::PortDown).unwrap();
    assert_eq!((row.in_port, row.n_copies), (port(1), 100 - n_sent));
    check_conservation(&dataplane);
}

#[test]
fn queues_hold_a_part_of_the_buffers_and_others_go_on() {
    let config = DataplaneConfig { n_frames: 256, ..DataplaneConfig::default() };
    let dataplane = Dataplane::start(config).unwrap();
    let memory: [_; 3] = std::array::from_fn(|_| MemoryPort::new(2048));
    for (number, memory) in (1..).zip(&memory) {
        attach_memory(&dataplane, number, memory);
    }
    publish(&dataplane, snapshot(1, &[1, 2, 3], vec![rule(1, &[2]), rule(2, &[3])]));
    dataplane.set_rates(port(2), PortRates { send: rate(1_000), ..PortRates::default() }).unwrap();
    let small = udp(&Host::v4(1), &Host::v4(2), b"x");
    dataplane.inject(port(1), &memory[0], vec![small.clone(); 500]).unwrap();
    assert_eq!(dataplane.queue_counts(port(2))[&0].n_waiting, 64);
    dataplane.inject(port(2), &memory[1], vec![small; 500]).unwrap();
    assert_eq!(count(&memory[2]), 500);
    dataplane.detach(port(2)).unwrap();
    check_conservation(&dataplane);
}
