//! Memory ports, end to end through workers. No root needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use common::*;
use dataplane::{
    AttachError, Clock, Dataplane, DataplaneConfig, DetachError, Device, InjectError, MemoryPort, PortSpec,
    StartError, VirtualClock, WorkerConfig,
};
use flowtable::{
    build::{Host, fragments, udp},
    conntrack::FragmentLimits,
    drop::DropReason,
    port::PortTable,
    text::parse_flow,
    types::Epoch,
};

fn start(n_workers: usize) -> Dataplane {
    let config =
        DataplaneConfig { workers: vec![WorkerConfig::default(); n_workers], ..DataplaneConfig::default() };
    Dataplane::start(config).unwrap()
}

fn frame(payload_len: usize) -> Vec<u8> {
    udp(&Host::v4(1), &Host::v4(2), &vec![0xa5; payload_len])
}

/// Frames that differ in their payload, each numbered.
fn numbered(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|idx| udp(&Host::v4(1), &Host::v4(2), &(idx as u64).to_be_bytes())).collect()
}

/// Injects all frames, waiting where the queue is full.
fn inject_all(memory: &MemoryPort, frames: &[Vec<u8>]) {
    for frame in frames {
        eventually("there is room to inject", || memory.inject(frame).is_ok());
    }
}

fn receive_all(memory: &MemoryPort, n: usize) -> Vec<Vec<u8>> {
    (0..n)
        .map(|idx| memory.receive_within(PATIENCE).unwrap_or_else(|| panic!("frame {idx} of {n}")))
        .collect()
}

#[test]
fn frames_cross_unchanged_and_in_order_both_ways() {
    let dataplane = start(1);
    let (a, b) = (MemoryPort::new(2048), MemoryPort::new(2048));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));

    let frames = numbered(2000);
    thread::scope(|scope| {
        scope.spawn(|| inject_all(&a, &frames));
        scope.spawn(|| inject_all(&b, &frames));
        scope.spawn(|| assert_eq!(receive_all(&a, frames.len()), frames));
        assert_eq!(receive_all(&b, frames.len()), frames);
    });

    let ports = check_conservation(&dataplane);
    for number in [1, 2] {
        let counters = status(&ports, number).counters;
        assert_eq!((counters.rx_packets, counters.rx_forwarded), (2000, 2000));
        assert_eq!((counters.tx_packets, counters.tx_dropped_total()), (2000, 0));
        let n_bytes: usize = frames.iter().map(Vec::len).sum();
        assert_eq!((counters.rx_bytes, counters.tx_bytes), (n_bytes as u64, n_bytes as u64));
    }
    assert_eq!(dataplane.megaflows().len(), 2);
}

#[test]
fn fragments_that_wait_in_vain_are_dropped_though_nothing_else_comes() {
    let dataplane = start(2);
    let (a, b) = (MemoryPort::new(16), MemoryPort::new(16));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    let tracked =
        parse_flow("in_port=1,ip,ct_state=-trk,actions=ct(table=1)", &PortTable::default()).unwrap();
    publish(&dataplane, snapshot(1, &[1, 2], vec![tracked]));
    let limits = FragmentLimits { timeout: Duration::from_millis(100), ..FragmentLimits::default() };
    dataplane.conntrack().set_fragment_limits(None, Some(limits));
    let halves = fragments(&frame(1000), 1, 512);
    inject_all(&a, &halves[..1]);
    let n_dropped = || -> u64 {
        let drops = dataplane.drops();
        drops
            .iter()
            .filter(|drop| drop.reason == DropReason::FragmentTimeout)
            .map(|drop| drop.n_packets)
            .sum()
    };
    eventually("it is dropped", || n_dropped() == 1);
    assert_eq!(dataplane.conntrack().fragments_held(), (0, 0));
    check_conservation(&dataplane);
}

#[test]
fn without_threads_all_is_done_within_the_calls() {
    let clock = VirtualClock::new();
    clock.set_stopped(true);
    let config = DataplaneConfig {
        inline: true,
        workers: vec![WorkerConfig::default(); 2],
        clock: Clock::Virtual(clock),
        ..DataplaneConfig::default()
    };
    let dataplane = Dataplane::start(config).unwrap();
    let (a, b) = (MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    let next = snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]);
    let epoch = next.epoch;
    dataplane.publish(next);
    assert!(dataplane.wait_applied(epoch, Duration::ZERO));
    dataplane.inject(port(1), &a, vec![frame(1), frame(2)]).unwrap();
    // What the other worker has to send waits for its turn.
    dataplane.tick();
    assert_eq!([b.receive(), b.receive(), b.receive()], [Some(frame(1)), Some(frame(2)), None]);
    check_conservation(&dataplane);
    let watched = Arc::downgrade(dataplane.conntrack());
    drop(dataplane);
    assert!(watched.upgrade().is_none(), "nothing of it stays behind");
}

#[test]
fn the_hosts_own_port_is_one_like_others() {
    const LOCAL: u32 = 65534;
    const NORMAL: u32 = 0xfffa;
    let dataplane = start(2);
    let (a, local) = (MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, LOCAL, &local);
    publish(&dataplane, snapshot(1, &[1, LOCAL], vec![rule(1, &[NORMAL]), rule(LOCAL, &[NORMAL])]));
    let answer = udp(&Host::v4(2), &Host::v4(1), b"x");
    for _ in 0..3 {
        inject_all(&a, &[frame(1)]);
        assert_eq!(receive_all(&local, 1), [frame(1)]);
        inject_all(&local, std::slice::from_ref(&answer));
        assert_eq!(receive_all(&a, 1), std::slice::from_ref(&answer));
    }
    let ports = check_conservation(&dataplane);
    assert_eq!(status(&ports, LOCAL).counters.rx_forwarded, 3);
}

#[test]
fn copies_go_to_every_output() {
    let dataplane = start(1);
    let ports: Vec<MemoryPort> = (0..4).map(|_| MemoryPort::new(256)).collect();
    for (number, memory) in (1..).zip(&ports) {
        attach_memory(&dataplane, number, memory);
    }
    publish(&dataplane, snapshot(1, &[1, 2, 3, 4], vec![rule(1, &[2, 3, 4])]));
    let frames = numbered(100);
    inject_all(&ports[0], &frames);
    for memory in &ports[1..] {
        assert_eq!(receive_all(memory, frames.len()), frames);
    }
    let status = check_conservation(&dataplane);
    assert_eq!(common::status(&status, 1).counters.rx_forwarded, 100);
}

#[test]
fn every_loss_has_a_name_and_a_port() {
    let dataplane = start(1);
    let (a, b, c) = (MemoryPort::new(256), MemoryPort::new(10), MemoryPort::new(256));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    attach_memory(&dataplane, 3, &c);
    // Port 9 is in the snapshot and not attached.
    publish(&dataplane, snapshot(1, &[1, 2, 3, 9], vec![rule(1, &[2]), rule(3, &[9])]));

    // Port 2 takes ten frames; nobody receives from it.
    inject_all(&a, &vec![frame(100); 25]);
    inject_all(&a, &vec![frame(1500); 3]);
    inject_all(&a, &vec![vec![0xff; 5]; 2]);
    inject_all(&c, &vec![frame(10); 4]);
    let lost = |in_port, reason| {
        let rows = dataplane.drops();
        let row = rows.iter().find(|row| row.in_port == port(in_port) && row.reason == reason);
        row.map_or((0, 0), |row| (row.n_packets, row.n_copies))
    };
    eventually("all frames are accounted for", || {
        lost(1, DropReason::TxRingFull) == (0, 15)
            && lost(1, DropReason::TooBig) == (0, 3)
            && lost(1, DropReason::Malformed) == (2, 0)
            && lost(3, DropReason::NoSuchPort) == (0, 4)
    });

    let ports = check_conservation(&dataplane);
    let counters = status(&ports, 2).counters;
    assert_eq!(counters.tx_packets, 10);
    // In the order of TX_DROP_REASONS: ring full, error, too big, down.
    assert_eq!(counters.tx_dropped, [15, 0, 3, 0, 0]);
    let counters = status(&ports, 1).counters;
    assert_eq!((counters.rx_packets, counters.rx_forwarded, counters.rx_dropped), (30, 28, 2));
}

#[test]
fn packets_reach_ports_of_other_workers() {
    let dataplane = start(2);
    let ports: Vec<MemoryPort> = (0..4).map(|_| MemoryPort::new(512)).collect();
    for (number, memory) in (1..).zip(&ports) {
        attach_memory(&dataplane, number, memory);
    }
    // Ports 1 and 3 are on one worker, 2 and 4 on the other: all of this crosses over.
    publish(&dataplane, snapshot(1, &[1, 2, 3, 4], vec![rule(1, &[2]), rule(2, &[1]), rule(3, &[2, 4])]));
    let frames = numbered(400);
    thread::scope(|scope| {
        scope.spawn(|| inject_all(&ports[0], &frames));
        scope.spawn(|| inject_all(&ports[1], &frames));
        scope.spawn(|| assert_eq!(receive_all(&ports[0], 400), frames));
        assert_eq!(receive_all(&ports[1], 400), frames);
    });
    inject_all(&ports[2], &frames);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(receive_all(&ports[3], 400), frames));
        assert_eq!(receive_all(&ports[1], 400), frames);
    });
    check_conservation(&dataplane);
    for worker in dataplane.workers() {
        assert!(worker.counters.n_packets >= 400, "both workers have worked: {worker:?}");
    }
}

#[test]
fn a_full_queue_between_workers_is_counted_and_loses_no_buffer() {
    let config = DataplaneConfig {
        workers: vec![WorkerConfig::default(); 2],
        n_handover: 1,
        ..DataplaneConfig::default()
    };
    let dataplane = Dataplane::start(config).unwrap();
    let (a, b) = (MemoryPort::new(4096), MemoryPort::new(4096));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    inject_all(&a, &numbered(3000));
    let accounted = || {
        let lost: u64 = dataplane.drops().iter().map(|row| row.n_copies).sum();
        (lost, b.n_received() as u64)
    };
    eventually("each frame has arrived or is counted", || {
        let (lost, arrived) = accounted();
        lost + arrived == 3000
    });
    let (lost, arrived) = accounted();
    assert!(lost > 0 && arrived > 0, "lost {lost}, arrived {arrived}");
    assert!(dataplane.drops().iter().all(|row| row.reason == DropReason::TxRingFull));
    check_conservation(&dataplane);
}

#[test]
fn a_published_version_holds_for_the_next_packet() {
    let dataplane = start(1);
    let ports: Vec<MemoryPort> = (0..3).map(|_| MemoryPort::new(16)).collect();
    for (number, memory) in (1..).zip(&ports) {
        attach_memory(&dataplane, number, memory);
    }
    assert!(!dataplane.wait_applied(Epoch::new(1).unwrap(), Duration::from_millis(20)));
    for epoch in 1..50 {
        let output = 2 + (epoch as u32 % 2);
        publish(&dataplane, snapshot(epoch, &[1, 2, 3], vec![rule(1, &[output])]));
        ports[0].inject(&frame(20)).unwrap();
        assert!(ports[output as usize - 1].receive_within(PATIENCE).is_some(), "epoch {epoch}");
    }
    publish(&dataplane, snapshot(50, &[1, 2, 3], Vec::new()));
    ports[0].inject(&frame(20)).unwrap();
    eventually("the packet is dropped", || {
        dataplane.drops().iter().any(|row| row.reason == DropReason::TableMiss && row.n_packets == 1)
    });
    check_conservation(&dataplane);
}

#[test]
fn ports_come_and_go_under_traffic() {
    let dataplane = start(2);
    let (a, b, c) = (MemoryPort::new(64), MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2, 3], vec![rule(1, &[2, 3]), rule(2, &[1]), rule(3, &[1])]));
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        for memory in [&a, &b, &c] {
            let stop = Arc::clone(&stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = memory.inject(&frame(64));
                    while memory.receive().is_some() {}
                }
            });
        }
        for _ in 0..20 {
            attach_memory(&dataplane, 3, &c);
            assert!(matches!(
                dataplane.attach(PortSpec {
                    port: port(3).into(),
                    name: "again".to_owned(),
                    device: Device::Memory(MemoryPort::new(1))
                }),
                Err(AttachError::InUse(_))
            ));
            thread::sleep(Duration::from_millis(5));
            dataplane.detach(port(3)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(dataplane.detach(port(3)).unwrap_err(), DetachError::NotAttached(port(3).into()));
    eventually("the rest is through", || a.n_injected() == 0 && b.n_injected() == 0);
    // Drops of port 3 stay in the table: they are complete since the start.
    eventually("buffers are home", || {
        dataplane.workers().iter().all(|worker| worker.n_free_frames == worker.n_frames)
    });
    let n_free: Vec<usize> = dataplane.workers().iter().map(|worker| worker.n_free_frames).collect();
    assert_eq!(n_free, [4096, 4096]);
    for number in [1, 2] {
        let counters = status(&dataplane.ports(), number).counters;
        assert_eq!(counters.rx_packets, counters.rx_forwarded + counters.rx_dropped);
    }
}

#[test]
fn counters_start_anew_when_a_port_is_attached_again() {
    let dataplane = start(1);
    let (a, b) = (MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    for _ in 0..3 {
        attach_memory(&dataplane, 1, &a);
        inject_all(&a, &numbered(5));
        receive_all(&b, 5);
        let ports = check_conservation(&dataplane);
        assert_eq!(status(&ports, 1).counters.rx_forwarded, 5);
        dataplane.detach(port(1)).unwrap();
    }
}

#[test]
fn an_idle_worker_sleeps_and_a_frame_wakes_it() {
    let dataplane = start(1);
    let (a, b) = (MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    thread::sleep(Duration::from_millis(100));
    let before = dataplane.workers()[0];
    thread::sleep(Duration::from_millis(300));
    let after = dataplane.workers()[0];
    assert!(after.n_sleeps > before.n_sleeps);
    // Each reading of the status wakes the worker for `idle_spin`.
    assert!(after.n_polls - before.n_polls < 20_000, "{before:?} {after:?}");
    for _ in 0..200 {
        a.inject(&frame(20)).unwrap();
        assert!(b.receive_within(Duration::from_millis(400)).is_some(), "a wake-up was lost");
    }
}

#[test]
fn a_busy_worker_never_sleeps() {
    let dataplane = Dataplane::start(DataplaneConfig { busy: true, ..DataplaneConfig::default() }).unwrap();
    eventually("it has looked in vain for a while", || dataplane.workers()[0].n_idle_polls > 100_000);
    assert_eq!(dataplane.workers()[0].n_sleeps, 0);
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let config = DataplaneConfig { workers: Vec::new(), ..DataplaneConfig::default() };
    assert!(matches!(Dataplane::start(config), Err(StartError::NoWorker)));
    for core in [1023, 1_000_000] {
        let workers = vec![WorkerConfig::default(), WorkerConfig { core: Some(core) }];
        let error =
            Dataplane::start(DataplaneConfig { workers, ..DataplaneConfig::default() }).err().unwrap();
        assert!(error.to_string().contains(&format!("worker 1 cannot run on core {core}")), "{error}");
    }
    let config =
        DataplaneConfig { workers: vec![WorkerConfig { core: Some(0) }], ..DataplaneConfig::default() };
    assert!(Dataplane::start(config).unwrap().workers()[0].running);
}

#[test]
fn a_small_pool_slows_down_and_loses_nothing() {
    let dataplane = Dataplane::start(DataplaneConfig { n_frames: 8, ..DataplaneConfig::default() }).unwrap();
    let (a, b) = (MemoryPort::new(1024), MemoryPort::new(1024));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    let frames = numbered(1000);
    inject_all(&a, &frames);
    assert_eq!(receive_all(&b, 1000), frames);
    check_conservation(&dataplane);
    assert!(dataplane.workers()[0].n_exhausted > 0);
}

/// Injecting in one go: when it returns, everything has left.
#[test]
fn what_is_injected_at_once_has_left_when_that_returns() {
    let dataplane = start(1);
    let (a, b) = (MemoryPort::new(64), MemoryPort::new(1024));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    let frames = numbered(1000);
    dataplane.inject(port(1), &a, frames.clone()).unwrap();
    assert_eq!(b.n_received(), frames.len());
    assert_eq!(receive_all(&b, frames.len()), frames);

    assert_eq!(dataplane.inject(port(3), &a, vec![frame(0)]), Err(InjectError::NotAttached));
    let long = vec![frame(0), vec![0; 9000]];
    assert!(matches!(dataplane.inject(port(1), &a, long), Err(InjectError::TooLong { .. })));
    // None of these was switched.
    assert_eq!((a.n_injected(), b.n_received()), (0, 0));
}

/// With a clock that obeys, caches age when it is advanced, and only then.
#[test]
fn an_advanced_clock_ages_the_caches_at_once() {
    let clock = VirtualClock::new();
    clock.set_stopped(true);
    let config = DataplaneConfig { clock: Clock::Virtual(clock.clone()), ..DataplaneConfig::default() };
    let dataplane = Dataplane::start(config).unwrap();
    let (a, b) = (MemoryPort::new(64), MemoryPort::new(64));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    dataplane.inject(port(1), &a, vec![frame(10)]).unwrap();
    dataplane.tick();
    assert_eq!(dataplane.megaflows().len(), 1);
    clock.advance(Duration::from_secs(3600));
    dataplane.tick();
    assert_eq!(dataplane.megaflows().len(), 0);
    assert_eq!(b.n_received(), 1);
}
