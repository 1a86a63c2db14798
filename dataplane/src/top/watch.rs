//! A watch as workers see it: which packets are looked at, and each worker's sketches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowtable::{
    account::FlowId,
    field::Field,
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    types::BridgeId,
};

use super::{Order, TopConfig, space_saving::SpaceSaving};
use crate::{capture::CapturePoint, config::PortId};

/// Sketches of one worker.
#[derive(Debug)]
pub(super) struct Sketches {
    /// By bridge, since numbers of ports are of one.
    pub(super) flows: SpaceSaving<(BridgeId, FlowId)>,
    /// Ports that packets come and leave by.
    pub(super) pairs: SpaceSaving<(PortId, PortId)>,
    /// Packets and bytes that were looked at, on their way in.
    pub(super) seen: (u64, u64),
}

/// A watch, shared with all workers.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(super) config: TopConfig,
    /// By worker.
    sketches: Vec<Mutex<Sketches>>,
}

impl Watch {
    pub(super) fn new(config: TopConfig, n_workers: usize) -> Self {
        let sketches = || {
            let (flows, pairs) = (SpaceSaving::new(config.capacity), SpaceSaving::new(config.capacity));
            Mutex::new(Sketches { flows, pairs, seen: (0, 0) })
        };
        Self { config, sketches: (0..n_workers).map(|_| sketches()).collect() }
    }

    /// Those of each worker.
    pub(super) fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Sketches>> {
        self.sketches.iter().map(|one| one.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn of(&self, worker: usize) -> Option<MutexGuard<'_, Sketches>> {
        self.sketches.get(worker).map(|one| one.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn weight(&self, len: u64) -> u64 {
        match self.config.order {
            Order::Bytes => len,
            Order::Packets => 1,
        }
    }
}

/// A watch as one worker has it.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) watch: Arc<Watch>,
    worker: usize,
    /// Packets that come or leave until the next one is looked at.
    skips: [u64; 2],
    random: u64,
}

impl Watcher {
    pub(crate) fn new(watch: Arc<Watch>, worker: usize, seed: u64) -> Self {
        let mut watcher = Self { watch, worker, skips: [0; 2], random: seed ^ worker as u64 };
        watcher.skips = [watcher.skip(), watcher.skip()];
        watcher
    }

    /// A packet comes or leaves.
    pub(crate) fn see<B: FrameBuf>(&mut self, point: CapturePoint, port: PortId, packet: &mut Packet<B>) {
        let way = match point {
            CapturePoint::Received => 0,
            CapturePoint::Sent => 1,
            CapturePoint::Dropped => return,
        };
        if self.skips[way] > 0 {
            self.skips[way] -= 1;
            return;
        }
        self.skips[way] = self.skip();
        if self.watch.config.bridge.is_some_and(|bridge| bridge != port.bridge) {
            return;
        }
        let Some(mut sketches) = self.watch.of(self.worker) else { return };
        let len = packet.len() as u64;
        let weight = self.watch.weight(len);
        if way == 1 {
            let came = PortId::new(port.bridge, packet.in_port);
            return sketches.pairs.add((came, port), len, weight);
        }
        sketches.seen.0 += 1;
        sketches.seen.1 += len;
        if let Some(flow) = flow_of(port, packet) {
            sketches.flows.add((port.bridge, flow), len, weight);
        }
    }

    /// Packets until the next one, so that each of them is as likely as any other (geometric).
    fn skip(&mut self) -> u64 {
        let every = self.watch.config.every.max(1);
        if every == 1 {
            return 0;
        }
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        // From 0, exclusive, to 1.
        let uniform = ((mixed >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        (uniform.ln() / (1.0 - 1.0 / f64::from(every)).ln()) as u64
    }
}

/// The flow of a packet as it comes in; one that cannot be read has none.
fn flow_of<B: FrameBuf>(port: PortId, packet: &mut Packet<B>) -> Option<FlowId> {
    let mut key = FlowKey::zero();
    let len = packet.len();
    let mut seen = Packet::new(packet.bytes_mut(), 0, len, port.port);
    parse(&mut seen, &mut key).ok()?;
    key.set(Field::InPort, port.port.get().into());
    Some(FlowId::of(&key))
}
