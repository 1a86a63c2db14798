//! Several bridges on the same workers, and links between them. No root needed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::*;
use dataplane::{
    AttachError, Dataplane, DataplaneConfig, Device, MemoryPort, PortId, PortSpec, PortStatus, WorkerConfig,
};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
    flow::Rule,
    snapshot::Snapshot,
    types::{BridgeId, Epoch},
};

fn bridge(raw: u16) -> BridgeId {
    BridgeId::new(raw).unwrap()
}

fn of(raw: u16, number: u32) -> PortId {
    PortId::new(bridge(raw), port(number))
}

fn frames(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|idx| udp(&Host::v4(1), &Host::v4(2), &(idx as u64).to_be_bytes())).collect()
}

/// Bridges in a row, or what else links make of them.
struct Bridges {
    dataplane: Dataplane,
    epoch: u64,
}

impl Bridges {
    fn start(n_bridges: u16, n_workers: usize) -> Self {
        let workers = vec![WorkerConfig::default(); n_workers];
        let dataplane = Dataplane::start(DataplaneConfig { workers, ..DataplaneConfig::default() }).unwrap();
        (1..n_bridges).for_each(|raw| dataplane.add_bridge(bridge(raw)));
        Self { dataplane, epoch: 0 }
    }

    fn memory(&self, id: PortId) -> MemoryPort {
        let memory = MemoryPort::new(4096);
        let spec = PortSpec { port: id, name: format!("m{id}"), device: Device::Memory(memory.clone()) };
        self.dataplane.attach(spec).unwrap();
        memory
    }

    fn patch(&self, a: PortId, b: PortId) {
        for id in [a, b] {
            self.dataplane
                .attach(PortSpec {
                    port: id,
                    name: format!("l{id}"),
                    device: Device::Patch { keeps_queues: false },
                })
                .unwrap();
        }
        self.dataplane.link(a, Some(b)).unwrap();
        self.dataplane.link(b, Some(a)).unwrap();
    }

    fn publish(&mut self, raw: u16, ports: &[u32], rules: Vec<Rule>) {
        self.epoch += 1;
        let snapshot = snapshot(self.epoch, ports, rules);
        let snapshot = Snapshot { bridge: bridge(raw), ..(*snapshot).clone() };
        publish(&self.dataplane, Arc::new(snapshot));
    }

    fn status(&self, id: PortId) -> PortStatus {
        let is = |status: &PortStatus| (status.bridge, status.port) == (id.bridge, id.port);
        self.dataplane.ports().into_iter().find(is).unwrap()
    }

    /// What every port has received is forwarded or dropped under a name, in each bridge, and
    /// both ends of each link agree.
    fn check(&self, links: &[(PortId, PortId)]) {
        for status in self.dataplane.ports() {
            let counters = status.counters;
            assert_eq!(counters.rx_packets, counters.rx_forwarded + counters.rx_dropped, "{status:?}");
            let drops = self.dataplane.drops_of(status.bridge);
            let named: u64 =
                drops.iter().filter(|row| row.in_port == status.port).map(|row| row.n_packets).sum();
            assert_eq!(counters.rx_dropped, named, "{status:?} {drops:?}");
        }
        for (a, b) in links {
            let (a, b) = (self.status(*a).counters, self.status(*b).counters);
            assert_eq!((a.tx_packets, a.tx_bytes), (b.rx_packets, b.rx_bytes));
            assert_eq!((b.tx_packets, b.tx_bytes), (a.rx_packets, a.rx_bytes));
        }
        for worker in self.dataplane.workers() {
            assert_eq!(worker.n_free_frames, worker.n_frames, "no buffer is lost");
            assert_eq!(worker.counters.n_packets, worker.counters.n_forwarded + worker.counters.n_dropped);
        }
    }
}

#[test]
fn frames_cross_three_bridges_in_order_and_both_ends_count_them() {
    for n_workers in [1, 2] {
        let mut bridges = Bridges::start(3, n_workers);
        // The same numbers everywhere: they are each bridge's own.
        let (a, b) = (bridges.memory(of(0, 1)), bridges.memory(of(2, 1)));
        let links = [(of(0, 2), of(1, 1)), (of(1, 2), of(2, 2))];
        links.iter().for_each(|(one, other)| bridges.patch(*one, *other));
        bridges.publish(0, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]);
        bridges.publish(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]);
        bridges.publish(2, &[1, 2], vec![rule(2, &[1]), rule(1, &[2])]);
        let sent = frames(300);
        sent.iter().for_each(|frame| a.inject(frame).unwrap());
        for frame in &sent {
            assert_eq!(b.receive_within(PATIENCE).as_ref(), Some(frame));
        }
        sent.iter().take(20).for_each(|frame| b.inject(frame).unwrap());
        for frame in &sent[..20] {
            assert_eq!(a.receive_within(PATIENCE).as_ref(), Some(frame));
        }
        eventually("the counters are there", || bridges.status(of(0, 1)).counters.tx_packets == 20);
        bridges.check(&links);
        assert_eq!(bridges.status(of(1, 2)).counters.tx_packets, 300);
        assert_eq!(bridges.dataplane.megaflows_of(bridge(1)).len(), 2);
        assert_eq!(bridges.dataplane.megaflows().iter().filter(|(_, flow)| flow.n_packets == 300).count(), 3);
    }
}

#[test]
fn a_change_of_one_bridge_leaves_the_caches_of_others_as_they_are() {
    let mut bridges = Bridges::start(2, 1);
    let (a, _b) = (bridges.memory(of(0, 1)), bridges.memory(of(1, 1)));
    bridges.patch(of(0, 2), of(1, 2));
    bridges.publish(0, &[1, 2], vec![rule(1, &[2])]);
    bridges.publish(1, &[1, 2], vec![rule(2, &[1])]);
    let send = || bridges.dataplane.inject(of(0, 1), &a, frames(1)).unwrap();
    send();
    let misses = |bridges: &Bridges| {
        let counters = bridges.dataplane.workers()[0].counters;
        (counters.n_misses, counters.n_renewals)
    };
    assert_eq!(misses(&bridges), (2, 0));
    bridges.publish(1, &[1, 2], vec![rule(2, &[1]), rule(1, &[2])]);
    bridges.dataplane.inject(of(0, 1), &a, frames(1)).unwrap();
    assert_eq!(misses(&bridges), (2, 1), "only the second bridge translates anew");
    bridges.check(&[(of(0, 2), of(1, 2))]);
}

#[test]
fn a_circle_of_links_ends_under_a_name() {
    let mut bridges = Bridges::start(2, 1);
    let (a, b) = (bridges.memory(of(0, 1)), bridges.memory(of(1, 1)));
    let links = [(of(0, 2), of(1, 2)), (of(0, 3), of(1, 3)), (of(0, 4), of(1, 4))];
    links.iter().for_each(|(one, other)| bridges.patch(*one, *other));
    // Each bridge floods into all links but the one that a frame came by.
    let flood = |own: &[u32]| {
        [2_u32, 3, 4].map(|from| {
            let others: Vec<u32> = [2, 3, 4].into_iter().filter(|port| *port != from).collect();
            rule(from, &[&others, own].concat())
        })
    };
    bridges.publish(0, &[1, 2, 3, 4], [vec![rule(1, &[2, 3, 4])], flood(&[]).to_vec()].concat());
    bridges.publish(1, &[1, 2, 3, 4], flood(&[1]).to_vec());
    bridges.dataplane.inject(of(0, 1), &a, frames(1)).unwrap();
    assert!(b.receive().is_some(), "what can be sent is sent");
    bridges.check(&links);
    let lost: Vec<_> = bridges.dataplane.drops().into_iter().filter(|row| row.n_copies > 0).collect();
    let has = |reason| lost.iter().any(|row| row.reason == reason);
    assert!(has(DropReason::TooManyOutputs) || has(DropReason::DepthExceeded), "{lost:?}");
    // Every copy that was handed to a link has crossed it or is named.
    let n_lost: u64 =
        lost.iter().filter(|row| row.reason != DropReason::TxRingFull).map(|row| row.n_copies).sum();
    let tx_dropped: u64 = links
        .iter()
        .flat_map(|(one, other)| [*one, *other])
        .map(|id| bridges.status(id).counters.tx_dropped_total())
        .sum();
    assert_eq!(n_lost, tx_dropped);
}

#[test]
fn a_straight_circle_ends_by_its_depth() {
    let mut bridges = Bridges::start(2, 1);
    let a = bridges.memory(of(0, 1));
    let links = [(of(0, 2), of(1, 2)), (of(0, 3), of(1, 3))];
    links.iter().for_each(|(one, other)| bridges.patch(*one, *other));
    bridges.publish(0, &[1, 2, 3], vec![rule(1, &[2]), rule(3, &[2])]);
    bridges.publish(1, &[2, 3], vec![rule(2, &[3])]);
    bridges.dataplane.inject(of(0, 1), &a, frames(3)).unwrap();
    bridges.check(&links);
    let lost = bridges.dataplane.drops();
    assert!(lost.iter().all(|row| row.reason == DropReason::DepthExceeded && row.n_packets == 0), "{lost:?}");
    assert_eq!(lost.iter().map(|row| row.n_copies).sum::<u64>(), 3);
    assert_eq!(bridges.status(of(1, 2)).counters.rx_packets, 3 * 8, "sixteen links, half of them this way");
}

#[test]
fn a_link_without_another_end_is_down_and_says_so() {
    let mut bridges = Bridges::start(2, 2);
    let a = bridges.memory(of(0, 1));
    let spec =
        |id| PortSpec { port: id, name: "half".to_owned(), device: Device::Patch { keeps_queues: false } };
    bridges.dataplane.attach(spec(of(0, 2))).unwrap();
    assert!(!bridges.status(of(0, 2)).up);
    bridges.publish(0, &[1, 2], vec![rule(1, &[2])]);
    bridges.dataplane.inject(of(0, 1), &a, frames(2)).unwrap();
    let lost = bridges.dataplane.drops_of(bridge(0));
    assert_eq!(
        lost.iter().map(|row| (row.reason, row.n_copies)).collect::<Vec<_>>(),
        [(DropReason::PortDown, 2)]
    );
    assert_eq!(bridges.status(of(0, 2)).counters.tx_dropped_total(), 2);
    // The other end comes, and goes again.
    bridges.dataplane.attach(spec(of(1, 7))).unwrap();
    bridges.dataplane.link(of(0, 2), Some(of(1, 7))).unwrap();
    assert!(bridges.status(of(0, 2)).up && !bridges.status(of(1, 7)).up);
    bridges.publish(1, &[7], vec![]);
    bridges.dataplane.inject(of(0, 1), &a, frames(4)).unwrap();
    bridges.check(&[]);
    let gone = bridges.dataplane.detach(of(1, 7)).unwrap();
    assert_eq!((gone.status.counters.rx_packets, gone.status.counters.rx_dropped), (4, 4));
    assert_eq!(gone.drops.iter().map(|row| row.n_packets).sum::<u64>(), 4);
    assert!(bridges.dataplane.link(of(0, 1), None).is_err(), "a queue is no end of a link");
}

#[test]
fn a_bridge_goes_with_its_ports_and_its_id_can_be_another() {
    let mut bridges = Bridges::start(2, 1);
    let b = bridges.memory(of(1, 1));
    bridges.publish(1, &[1], vec![]);
    bridges.dataplane.inject(of(1, 1), &b, frames(5)).unwrap();
    bridges.dataplane.remove_bridge(bridge(1));
    assert!(bridges.dataplane.ports().is_empty());
    assert!(bridges.dataplane.drops_of(bridge(1)).is_empty());
    let spec = PortSpec { port: of(1, 1), name: "m".to_owned(), device: Device::Memory(MemoryPort::new(8)) };
    assert!(matches!(bridges.dataplane.attach(spec.clone()), Err(AttachError::NoBridge(_))));
    bridges.dataplane.add_bridge(bridge(1));
    bridges.dataplane.attach(spec).unwrap();
    assert_eq!(bridges.status(of(1, 1)).counters.rx_packets, 0);
    assert!(bridges.dataplane.wait_applied(Epoch::new(bridges.epoch).unwrap(), PATIENCE));
}

/// Numbers that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % n
    }
}

/// Whatever links there are between bridges and whatever rules send into them, every packet
/// and every copy is accounted for, by one worker and by two.
#[test]
fn whatever_is_linked_nothing_is_lost_without_a_name() {
    for seed in 1..=24 {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let n_workers = 1 + chance.below(2) as usize;
        let mut bridges = Bridges::start(3, n_workers);
        // Ports 1 and 2 of each bridge are queues.
        let memory: Vec<_> =
            (0..3).flat_map(|raw| [of(raw, 1), of(raw, 2)]).map(|id| (id, bridges.memory(id))).collect();
        let mut ports = [vec![1, 2], vec![1, 2], vec![1, 2]];
        let mut links = Vec::new();
        for number in 3..3 + 1 + chance.below(4) {
            let (a, b) = (chance.below(3) as u16, chance.below(3) as u16);
            let (a, b) = (of(a, number), of(b, number + 100));
            bridges.patch(a, b);
            for id in [a, b] {
                ports[usize::from(id.bridge.get())].push(id.port.get());
            }
            links.push((a, b));
        }
        for (raw, ports) in ports.iter().enumerate() {
            let mut rules = Vec::new();
            for from in ports {
                let outputs: Vec<u32> =
                    ports.iter().copied().filter(|to| to != from && chance.below(3) == 0).collect();
                if chance.below(6) != 0 {
                    rules.push(rule(*from, &outputs));
                }
            }
            bridges.publish(raw as u16, ports, rules);
        }
        for _ in 0..12 {
            let (id, memory) = &memory[chance.below(6) as usize];
            bridges.dataplane.inject(*id, memory, frames(1 + chance.below(3) as usize)).unwrap();
            while memory.receive().is_some() {}
        }
        eventually("all buffers are back", || {
            bridges.dataplane.workers().iter().all(|worker| worker.n_free_frames == worker.n_frames)
        });
        bridges.check(&links);
    }
}
