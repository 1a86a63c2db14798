//! What the owner and the neighbours of a port can do to it: no pause while rules are loaded or
//! entries are told of, no loss while another port attacks. Time is what the worker's thread had
//! of its core, so that other programs do not matter.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use common::*;
use dataplane::{Dataplane, DataplaneConfig, Device, FramePort, FrameSink, FrameSource, PortSpec, cpu_time};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
    flow::Rule,
    port::PortTable,
    quota::Quota,
    text::parse_flow,
    types::Priority,
};

/// Frames that may wait, as in the ring of a network card.
const RING_LEN: u64 = 2048;

fn rules(lines: &[&str]) -> Vec<Rule> {
    lines.iter().map(|line| parse_flow(line, &PortTable::default()).unwrap()).collect()
}

fn attach(dataplane: &Dataplane, number: u32, source: impl FrameSource + 'static) -> Passed {
    let passed = Passed::default();
    let frames = FramePort::new(vec![Box::new(source)], vec![Box::new(passed.clone())]);
    let spec =
        PortSpec { port: port(number).into(), name: format!("p{number}"), device: Device::Frames(frames) };
    dataplane.attach(spec).unwrap();
    passed
}

/// Counts what leaves by a port.
#[derive(Clone, Default)]
struct Passed(Arc<AtomicU64>);

impl FrameSink for Passed {
    fn take(&mut self, _: &[u8]) -> bool {
        self.0.fetch_add(1, Relaxed);
        true
    }
}

/// Nothing comes.
struct Silent;

impl FrameSource for Silent {
    fn next(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn is_ready(&self) -> bool {
        false
    }
}

/// One frame for each turn, of a hundred flows; notes how long it was not asked.
struct Watch {
    n: u64,
    last: Duration,
    longest: Arc<AtomicU64>,
}

impl FrameSource for Watch {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        let now = cpu_time();
        let gap = now.saturating_sub(self.last).as_nanos() as u64;
        if self.last > Duration::ZERO {
            self.longest.fetch_max(gap, Relaxed);
        }
        self.last = now;
        self.n += 1;
        if self.n.is_multiple_of(2) {
            return None;
        }
        let frame = flow(self.n / 2 % 100);
        room[..frame.len()].copy_from_slice(&frame);
        // Making the frame is not the worker's time.
        self.last = cpu_time();
        Some(frame.len())
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// A frame of a flow.
fn flow(n: u64) -> Vec<u8> {
    let host =
        Host { port: n as u16, ip: (0x0a00_0000 | (n >> 16) as u32).to_be_bytes().into(), ..Host::v4(1) };
    udp(&host, &Host::v4(2), &[])
}

#[test]
fn nobody_waits_for_a_hundred_thousand_rules() {
    let dataplane = Dataplane::start(DataplaneConfig::default()).unwrap();
    let longest = Arc::<AtomicU64>::default();
    attach(&dataplane, 2, Silent);
    publish(&dataplane, snapshot(1, &[1, 2], rules(&["in_port=1,actions=output:2"])));
    attach(&dataplane, 1, Watch { n: 0, last: Duration::ZERO, longest: Arc::clone(&longest) });
    eventually("there is traffic", || dataplane.workers()[0].counters.n_packets > 2_000);
    let text = |n: u32| format!("priority=20,udp,nw_src=10.{}.0.0/24,tp_dst=5,actions=drop", n + 1);
    let alike: Vec<Rule> = (0..100).flat_map(|n| rules(&[&text(n)])).collect();
    let numbered = |n: u32| {
        let mut rule = alike[n as usize % 100].clone();
        rule.priority = Priority::new(20 + (n / 100) as u16).unwrap();
        rule
    };
    let many = (0..100_000).map(numbered).chain(rules(&["in_port=1,actions=output:2"])).collect();
    let loaded = snapshot(2, &[1, 2], many);
    longest.store(0, Relaxed);
    publish(&dataplane, loaded);
    // And they go again: all of them at once, on whoever's time that is.
    publish(&dataplane, snapshot(3, &[1, 2], rules(&["in_port=1,actions=output:2"])));
    let n = dataplane.workers()[0].counters.n_packets;
    eventually("there is traffic", || dataplane.workers()[0].counters.n_packets > n + 2_000);
    let longest = Duration::from_nanos(longest.load(Relaxed));
    assert!(longest < Duration::from_millis(1), "a pause of {longest:?}");
}

/// Telling of entries and counting for rules is done some at a time.
#[test]
fn nobody_waits_for_those_who_ask() {
    let dataplane = Dataplane::start(DataplaneConfig::default()).unwrap();
    attach(&dataplane, 2, Silent);
    let lines = [
        "in_port=1,udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG1[0..15],move:NXM_OF_IP_SRC[]->NXM_NX_REG2[],output:2",
    ];
    publish(&dataplane, snapshot(1, &[1, 2], rules(&lines)));
    let scan = Scan::new(false);
    let is_over = Arc::clone(&scan.is_over);
    attach(&dataplane, 1, scan);
    eventually("there are entries", || dataplane.workers()[0].n_megaflows > 10_000);
    is_over.store(true, Relaxed);
    let longest = Arc::<AtomicU64>::default();
    attach(&dataplane, 3, Watch { n: 0, last: Duration::ZERO, longest: Arc::clone(&longest) });
    eventually("there is traffic", || dataplane.ports()[2].counters.rx_packets > 1_000);
    longest.store(0, Relaxed);
    let started = cpu_time();
    let dumped = dataplane.megaflows().len();
    dataplane.flush_stats();
    let _ = dataplane.queues();
    assert!(dumped > 10_000);
    let (longest, all) = (Duration::from_nanos(longest.load(Relaxed)), cpu_time() - started);
    assert!(longest < Duration::from_millis(5), "a pause of {longest:?}; asking took {all:?}");
}

/// Ever other flows, as fast as they are taken; of all bits, or of one address.
struct Scan {
    n: u64,
    random: bool,
    template: Vec<u8>,
    is_over: Arc<AtomicBool>,
}

impl Scan {
    fn new(random: bool) -> Self {
        Self { n: 0, random, template: flow(0), is_over: Arc::default() }
    }
}

impl FrameSource for Scan {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        if self.is_over.load(Relaxed) {
            return None;
        }
        self.n += 1;
        let len = self.template.len();
        room[..len].copy_from_slice(&self.template);
        let mixed = self.n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.random {
            room[26..34].copy_from_slice(&mixed.to_be_bytes());
            room[34..38].copy_from_slice(&((mixed >> 13) as u32).to_be_bytes());
        } else {
            room[26..30].copy_from_slice(&(0x0b00_0000 | (self.n >> 16) as u32 & 0xff).to_be_bytes());
            room[34..36].copy_from_slice(&(self.n as u16).to_be_bytes());
        }
        Some(len)
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// What a victim is told and tells.
#[derive(Default)]
struct Books {
    /// Nanoseconds of the worker's time from frame to frame; 0: as fast as they are taken.
    pace: AtomicU64,
    counts: AtomicBool,
    n_taken: AtomicU64,
    n_lost: AtomicU64,
}

/// Frames of ten flows at a steady rate of the worker's own time.
struct Victim {
    books: Arc<Books>,
    frames: Vec<Vec<u8>>,
    n: usize,
    due: u64,
}

impl FrameSource for Victim {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        if let Some(pace) = NonZeroU64::new(self.books.pace.load(Relaxed)) {
            let now = cpu_time().as_nanos() as u64;
            self.due = if self.due == 0 { now } else { self.due };
            let n_waiting = now.checked_sub(self.due)? / pace;
            if n_waiting > RING_LEN {
                let n_lost = n_waiting - RING_LEN;
                self.due += n_lost * pace.get();
                if self.books.counts.load(Relaxed) {
                    self.books.n_lost.fetch_add(n_lost, Relaxed);
                }
            }
            self.due += pace.get();
        }
        if self.books.counts.load(Relaxed) {
            self.books.n_taken.fetch_add(1, Relaxed);
        }
        self.n = (self.n + 1) % self.frames.len();
        let frame = &self.frames[self.n];
        room[..frame.len()].copy_from_slice(frame);
        Some(frame.len())
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// A victim at an eighth of what it could have alone, and an attacker without end, under rules;
/// answers what the victim lost of how many, and what was dropped for the quota.
fn attack(lines: &[&str], random: bool, quota: Quota) -> (u64, u64, u64) {
    let dataplane = Dataplane::start(DataplaneConfig { quota, ..DataplaneConfig::default() }).unwrap();
    let passed = attach(&dataplane, 3, Silent);
    publish(&dataplane, snapshot(1, &[1, 2, 3], rules(lines)));
    let books = Arc::<Books>::default();
    let frames = (0..10).map(flow).collect();
    attach(&dataplane, 1, Victim { books: Arc::clone(&books), frames, n: 0, due: 0 });
    let rate = |wait| {
        let before = dataplane.perf().remove(0);
        thread::sleep(Duration::from_millis(wait));
        let after = dataplane.perf().remove(0);
        let cpu = (after.cpu_time - before.cpu_time).as_nanos() as u64;
        (after.counters.n_packets - before.counters.n_packets, cpu)
    };
    rate(100);
    let (n_alone, cpu) = rate(300);
    books.pace.store(8 * cpu / n_alone.max(1), Relaxed);
    attach(&dataplane, 2, Scan::new(random));
    // Until the attack has filled what it can.
    thread::sleep(Duration::from_millis(500));
    let before = passed.0.load(Relaxed);
    books.counts.store(true, Relaxed);
    thread::sleep(Duration::from_millis(1500));
    books.counts.store(false, Relaxed);
    let (n_taken, n_lost) = (books.n_taken.load(Relaxed), books.n_lost.load(Relaxed));
    assert!(passed.0.load(Relaxed) - before + 64 >= n_taken, "what was taken was sent");
    let drops = dataplane.drops();
    let refused = drops.iter().filter(|row| row.reason == DropReason::MissQuota);
    assert!(refused.clone().all(|row| row.in_port == port(2)), "{drops:?}");
    let n_refused = refused.map(|row| row.n_packets).sum();
    // The attack goes on meanwhile.
    assert!(n_refused <= dataplane.quota().1.n_misses);
    let victim = dataplane.ports().into_iter().find(|status| status.port == port(1)).unwrap().counters;
    assert_eq!(victim.rx_dropped, 0);
    (n_lost, n_taken, n_refused)
}

const EXACT: [&str; 1] =
    ["udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG1[0..15],move:NXM_OF_IP_SRC[]->NXM_NX_REG2[],output:3"];
const MASKS: [&str; 4] = [
    "priority=30,udp,tp_src=443,actions=output:3",
    "priority=20,ip,nw_src=10.0.0.0/16,actions=output:3",
    "priority=10,ip,nw_dst=10.2.3.4,actions=output:3",
    "priority=1,actions=drop",
];

#[test]
fn a_scan_on_one_port_costs_another_hardly_anything() {
    let (n_lost, n_taken, n_refused) = attack(&EXACT, false, Quota::default());
    assert!(n_taken > 1_000, "the victim sends: {n_taken}");
    assert_eq!(n_refused, 0);
    assert!(n_lost * 10 <= n_taken, "lost {n_lost} beside {n_taken}");
}

#[test]
fn an_explosion_of_masks_on_one_port_costs_another_hardly_anything() {
    let (n_lost, n_taken, _) = attack(&MASKS, true, Quota::default());
    assert!(n_taken > 1_000, "the victim sends: {n_taken}");
    assert!(n_lost * 10 <= n_taken, "lost {n_lost} beside {n_taken}");
}

#[test]
fn what_is_above_the_quota_is_dropped_by_name_and_only_there() {
    let quota = Quota { misses_per_second: 50, max_megaflows: 100, ..Quota::default() };
    let (n_lost, n_taken, n_refused) = attack(&EXACT, false, quota);
    assert!(n_taken > 1_000 && n_refused > 100, "{n_taken} and {n_refused}");
    assert!(n_lost * 10 <= n_taken, "lost {n_lost} beside {n_taken}");
}
