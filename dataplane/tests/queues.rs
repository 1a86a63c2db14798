//! Receive queues and workers: queues wander under load without loss and in order; what
//! workers measure adds up.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use common::*;
use dataplane::{
    AssignError, Balancing, Dataplane, DataplaneConfig, Device, FramePort, FrameSink, FrameSource,
    MemoryPort, Pin, PortSpec, Proposal, QueueId, Wake, WorkerConfig,
};
use flowtable::{
    build::{Host, udp},
    switch::Stage,
};

/// Where the payload of a frame is.
const PAYLOAD: usize = 14 + 20 + 8;

fn start(n_workers: usize) -> Dataplane {
    start_with(n_workers, |config| config)
}

fn start_with(n_workers: usize, change: impl FnOnce(DataplaneConfig) -> DataplaneConfig) -> Dataplane {
    let workers = vec![WorkerConfig::default(); n_workers];
    Dataplane::start(change(DataplaneConfig { workers, ..DataplaneConfig::default() })).unwrap()
}

fn id(number: u32, queue: usize) -> QueueId {
    QueueId { port: port(number).into(), queue }
}

/// A frame of a flow, with its number in the flow.
fn frame(flow: u8, number: u64) -> Vec<u8> {
    let payload = [&[flow; 8][..], &number.to_be_bytes()].concat();
    udp(&Host::v4(flow), &Host::v4(200), &payload)
}

fn flow_and_number(frame: &[u8]) -> (u8, u64) {
    (frame[PAYLOAD], u64::from_be_bytes(frame[PAYLOAD + 8..][..8].try_into().unwrap()))
}

/// Feeds queues, a flow for each, until told to stop; answers how many frames each got.
fn feed(memory: &MemoryPort, n_queues: usize, stop: &AtomicBool, n_taken: &AtomicU64) -> Vec<u64> {
    let mut numbers = vec![0; n_queues];
    while !stop.load(Ordering::Relaxed) {
        for (queue, number) in numbers.iter_mut().enumerate() {
            for _ in 0..8 {
                if memory.inject_into(queue, &frame(queue as u8 + 1, *number)).is_err() {
                    break;
                }
                *number += 1;
            }
        }
        // No more under way than the queues behind the switch can hold, whoever is slow.
        while numbers.iter().sum::<u64>() > n_taken.load(Ordering::Relaxed) + 4000 {
            thread::yield_now();
        }
    }
    numbers
}

/// Takes frames until each flow has had so many, and holds that each is the next of its flow.
fn take_in_order(memory: &MemoryPort, next: &mut [u64], frame: &[u8]) {
    let (flow, number) = flow_and_number(frame);
    let expected = &mut next[usize::from(flow) - 1];
    assert_eq!(number, *expected, "flow {flow} at port {:?}", memory.mac());
    *expected += 1;
}

/// A thousand moves of queues between three workers, while frames come as fast as they can; the
/// port they leave by has one way out, so that most are handed over.
#[test]
fn queues_wander_under_load_without_loss_and_in_order() {
    const N_QUEUES: usize = 4;
    const N_MOVES: usize = 1000;
    let dataplane = start_with(3, |config| DataplaneConfig { n_handover: 8192, ..config });
    let (a, b) = (MemoryPort::with_queues(N_QUEUES, 512), MemoryPort::new(1 << 14));
    attach_memory(&dataplane, 1, &a);
    attach_memory(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    let (stop, done, n_taken) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let (sent, got) = thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(&a, N_QUEUES, &stop, &n_taken));
        let taker = scope.spawn(|| {
            let mut next = vec![0; N_QUEUES];
            // Once it is known that nothing more comes, the rest is taken.
            loop {
                match b.receive_within(Duration::from_millis(100)) {
                    Some(frame) => {
                        take_in_order(&b, &mut next, &frame);
                        n_taken.fetch_add(1, Ordering::Relaxed);
                        b.recycle(frame);
                    }
                    None if done.load(Ordering::Relaxed) => return next,
                    None => {}
                }
            }
        });
        for n in 0..N_MOVES {
            let queue = id(1, n % N_QUEUES);
            let from = dataplane.queues().into_iter().find(|status| status.id == queue).unwrap().worker;
            let to = (from + 1 + n / N_QUEUES % 2) % 3;
            dataplane.assign(queue, to).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let sent = feeder.join().unwrap();
        eventually("the switch has taken everything", || a.n_injected() == 0);
        done.store(true, Ordering::Relaxed);
        (sent, taker.join().unwrap())
    });
    let lost: u64 = dataplane.drops().iter().map(|row| row.n_copies + row.n_packets).sum();
    assert_eq!(lost, 0, "{:?}", dataplane.drops());
    assert_eq!(sent, got);
    assert!(sent.iter().all(|n| *n > 100), "there was load: {sent:?}");
    let ports = check_conservation(&dataplane);
    assert_eq!(status(&ports, 1).counters.rx_packets, sent.iter().sum::<u64>());
    for worker in dataplane.workers() {
        assert!(worker.counters.n_packets > 0, "each worker had a queue: {worker:?}");
    }
}

#[test]
fn queues_are_spread_and_pins_are_kept() {
    let pin = |queue, worker| Pin { port: "p1".to_owned(), queue, worker };
    let dataplane = start_with(3, |config| DataplaneConfig {
        pins: vec![pin(Some(1), 2), pin(Some(0), 7), Pin { port: "p2".to_owned(), queue: None, worker: 1 }],
        ..config
    });
    attach_memory(&dataplane, 1, &MemoryPort::with_queues(4, 16));
    attach_memory(&dataplane, 2, &MemoryPort::with_queues(2, 16));
    let places: Vec<_> =
        dataplane.queues().iter().map(|queue| (queue.id, queue.worker, queue.pinned)).collect();
    // A worker that is not there is nowhere to be tied to.
    assert_eq!(
        places,
        [
            (id(1, 0), 0, false),
            (id(1, 1), 2, true),
            (id(1, 2), 1, false),
            (id(1, 3), 0, false),
            (id(2, 0), 1, true),
            (id(2, 1), 1, true),
        ]
    );
    assert_eq!(dataplane.assign(id(1, 9), 0), Err(AssignError::NoQueue(id(1, 9))));
    assert_eq!(dataplane.assign(id(9, 0), 0), Err(AssignError::NoQueue(id(9, 0))));
    assert_eq!(dataplane.assign(id(1, 0), 3), Err(AssignError::NoWorker { worker: 3, n_workers: 3 }));
    assert_eq!(dataplane.unassign(id(9, 0)), Err(AssignError::NoQueue(id(9, 0))));
    dataplane.assign(id(1, 0), 1).unwrap();
    dataplane.unassign(id(2, 1)).unwrap();
    let queues = dataplane.queues();
    assert_eq!((queues[0].worker, queues[0].pinned), (1, true));
    assert!(!queues[5].pinned);
    // A port goes with its queues, wherever they are.
    dataplane.detach(port(1)).unwrap();
    assert_eq!(dataplane.queues().len(), 2);
}

/// A source with more frames than any worker can take; off at first.
struct Flood {
    on: Arc<AtomicBool>,
    frame: Vec<u8>,
    /// Every so many calls there is none: not all of a core.
    n_calls: u64,
}

impl FrameSource for Flood {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        self.n_calls += 1;
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        room[..self.frame.len()].copy_from_slice(&self.frame);
        Some(self.frame.len())
    }

    fn is_ready(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn attached(&mut self, wake: Wake) {
        wake.wake();
    }
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl FrameSink for Count {
    fn take(&mut self, _: &[u8]) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// A port that floods from so many queues.
fn flood(dataplane: &Dataplane, number: u32, n_queues: usize, on: &Arc<AtomicBool>) -> Count {
    let source = |queue| {
        let frame = frame(queue as u8 + 1, 0);
        Box::new(Flood { on: Arc::clone(on), frame, n_calls: 0 }) as Box<dyn FrameSource>
    };
    let taken = Count::default();
    let sinks = (0..n_queues).map(|_| Box::new(taken.clone()) as Box<dyn FrameSink>).collect();
    let frames = FramePort::new((0..n_queues).map(source).collect(), sinks);
    let spec =
        PortSpec { port: port(number).into(), name: format!("f{number}"), device: Device::Frames(frames) };
    assert_eq!(dataplane.attach(spec).unwrap().mode, "frames");
    taken
}

#[test]
fn an_overloaded_worker_gives_a_queue_away() {
    let dataplane = start(2);
    let on = Arc::new(AtomicBool::new(true));
    flood(&dataplane, 1, 2, &on);
    publish(&dataplane, snapshot(1, &[1, 2], Vec::new()));
    dataplane.assign(id(1, 1), 0).unwrap();
    // Tied to worker 0, it stays there.
    dataplane.set_measuring(Some(4), true);
    let mut proposal = Proposal::default();
    eventually("both queues had their turns", || {
        let reading = dataplane.reading();
        thread::sleep(Duration::from_millis(100));
        proposal = dataplane.rebalance(&reading, true).unwrap();
        !proposal.moves.is_empty()
    });
    assert!(proposal.before[0] > 0.5 && proposal.before[1] < 0.2, "{proposal:?}");
    assert_eq!(proposal.moves.len(), 1, "the other one can go: {proposal:?}");
    assert_eq!((proposal.moves[0].id, proposal.moves[0].to), (id(1, 0), 1));
    assert_eq!(dataplane.queues()[0].worker, 0, "a dry run moves nothing");

    dataplane.unassign(id(1, 1)).unwrap();
    let settings = Balancing {
        auto: true,
        load_percent: 50,
        interval: Duration::from_millis(1500),
        improvement_percent: 25,
    };
    dataplane.set_balancing(settings);
    let mut moved = None;
    eventually("a queue is moved", || {
        moved = dataplane.tend_queues().unwrap();
        moved.is_some()
    });
    assert_eq!(moved.unwrap().moves.len(), 1);
    let queues = dataplane.queues();
    assert_ne!(queues[0].worker, queues[1].worker);
    on.store(false, Ordering::Relaxed);
}

#[test]
fn what_workers_measure_adds_up() {
    let dataplane = start(1);
    let on = Arc::new(AtomicBool::new(true));
    let taken = flood(&dataplane, 1, 1, &on);
    flood(&dataplane, 2, 1, &Arc::new(AtomicBool::new(false)));
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    dataplane.set_measuring(Some(4), true);
    let before = dataplane.perf().remove(0);
    eventually("there was traffic", || dataplane.perf()[0].n_sampled_packets > 50_000);
    on.store(false, Ordering::Relaxed);
    eventually("it sleeps", || dataplane.perf()[0].asleep > 0);
    let after = dataplane.perf().remove(0);
    assert_eq!(taken.0.load(Ordering::Relaxed), 0, "nothing goes back to where it came from");
    let n_packets = after.counters.n_packets - before.counters.n_packets;
    let in_batches = |batches: &[u64]| (0..).zip(batches).map(|(size, n)| size * n).sum::<u64>();
    let counted = in_batches(&after.batches) - in_batches(&before.batches);
    assert_eq!(counted, n_packets, "each packet was in a batch");
    assert!(after.n_sampled_packets < n_packets / 2, "few rounds are measured: {after:?}");
    assert!(after.cpu_time > before.cpu_time && after.hz > 100_000_000);
    let stage = |stage: Stage| after.stages[stage as usize];
    for busy in [Stage::Receive, Stage::Parse, Stage::Session, Stage::Execute, Stage::Transmit] {
        assert!(stage(busy) > 0, "{}: {after:?}", busy.name());
    }
    assert!(stage(Stage::Translate) < stage(Stage::Session) * 10, "{after:?}");
    // All time since it was forgotten is accounted for, give or take what passes between two
    // readings.
    let sum = |perf: &dataplane::WorkerPerf| perf.busy + perf.idle + perf.asleep + perf.jobs;
    let (measured, passed) = (sum(&after) - sum(&before), after.at - before.at);
    assert!(measured.abs_diff(passed) < passed / 10, "{measured} of {passed}");
    assert!(after.asleep > 0 && after.n_sleeps > 0, "it slept in the end: {after:?}");

    dataplane.set_measuring(Some(0), true);
    on.store(true, Ordering::Relaxed);
    thread::sleep(Duration::from_millis(30));
    let off = dataplane.perf().remove(0);
    assert_eq!((off.every, off.n_sampled_packets), (0, 0));
}
