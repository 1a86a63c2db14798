//! Rates at work: what a worker does not take, and what it keeps until its turn has come.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use flowtable::{drop::DropReason, packet::Packet, types::Timestamp};

use super::{Worker, egress::Egress};
use crate::{
    config::PortId,
    pool::{FRAME_LEN, Frame},
    qos::{
        PortRates, QueueCounts,
        bucket::Bucket,
        shaper::{Buckets, Shaper},
    },
};

/// Part of a worker's ordinary buffers that packets may wait in.
const USUAL_SHARE: usize = 4;
/// Large buffers that packets may wait in: half of those there are.
const MAX_LARGE: usize = 64;

/// How many buffers are in queues: ordinary ones and large ones.
#[derive(Debug, Default)]
pub(super) struct Held([usize; 2]);

impl Held {
    fn kind(packet: &Packet<Frame>) -> usize {
        usize::from(packet.buf().as_ref().len() > FRAME_LEN)
    }
}

/// Bytes that a packet is on the wire, with the headers of all its pieces.
pub(super) fn wire_bytes(packet: &Packet<Frame>) -> usize {
    let len = packet.len();
    let Some(gso) = packet.offload.gso else { return len };
    let each = usize::from(gso.segment_len.get());
    let header_len = packet.wire_len().saturating_sub(each);
    let n_pieces = len.saturating_sub(header_len).div_ceil(each).max(1);
    len + (n_pieces - 1) * header_len
}

/// The rates of a port, as all workers share them.
#[derive(Debug, Clone)]
pub(crate) struct SharedRates {
    pub(crate) rates: PortRates,
    pub(crate) receive: Option<Arc<Bucket>>,
    pub(crate) send: Option<Arc<Buckets>>,
}

impl SharedRates {
    pub(crate) fn new(rates: PortRates) -> Self {
        Self {
            receive: rates.receive.map(|rate| Arc::new(Bucket::new(rate))),
            send: rates.shapes().then(|| Arc::new(Buckets::new(&rates))),
            rates,
        }
    }
}

impl Worker {
    /// A port has these rates from now on. What waits for its turn goes into the new queues.
    pub(crate) fn set_rates(&mut self, port: PortId, rates: &SharedRates) {
        self.ingress.set_rate(port, rates.receive.as_ref());
        self.egress.set_rates(port, rates);
    }

    /// What has gone through the queues of a port here.
    pub(crate) fn queue_counts(&self, port: PortId) -> BTreeMap<u16, QueueCounts> {
        self.egress.queue_counts(port)
    }
}

impl Egress {
    /// Drops what a port has received beyond its rate.
    pub(super) fn police(
        &mut self,
        port: PortId,
        (rate, now): (&Bucket, Timestamp),
        batch: &mut Vec<Packet<Frame>>,
    ) {
        for packet in batch.extract_if(.., |packet| !rate.pass(now, wire_bytes(packet))) {
            self.refuse(port, packet);
        }
    }

    /// Takes a packet into a queue of its way out.
    pub(super) fn enqueue(&mut self, idx: usize, packet: Packet<Frame>) {
        let (len, queue, kind) = (wire_bytes(&packet), packet.queue, Held::kind(&packet));
        let max = [self.pool().n_frames() / USUAL_SHARE, MAX_LARGE][kind];
        let is_full = self.held.0[kind] >= max;
        let Some(shaper) = &mut self.outlets[idx].shaper else { return self.send_now(idx, packet) };
        let refused = if is_full {
            shaper.refuse(queue);
            Some(packet)
        } else {
            shaper.push(queue, packet, len).err()
        };
        match refused {
            None => self.held.0[kind] += 1,
            Some(packet) => {
                self.outlets[idx].lose(DropReason::QueueFull);
                self.lose(DropReason::QueueFull, packet);
            }
        }
    }

    /// Sends what may leave by now.
    pub(super) fn release_shaped(&mut self) {
        if self.n_shapers == 0 {
            return;
        }
        let now = self.now();
        for idx in 0..self.outlets.len() {
            while let Some(packet) = self.outlets[idx].shaper.as_mut().and_then(|shaper| shaper.pop(now)) {
                self.held.0[Held::kind(&packet)] -= 1;
                self.bridge = self.outlets[idx].port.bridge;
                self.send_now(idx, packet);
            }
        }
    }

    /// How long until a packet may leave its queue; `None`: none waits.
    pub(crate) fn shaped_wait(&self) -> Option<Duration> {
        if self.n_shapers == 0 {
            return None;
        }
        let now = self.now();
        self.outlets.iter().filter_map(|outlet| outlet.shaper.as_ref()?.wait(now)).min()
    }

    fn set_rates(&mut self, port: PortId, rates: &SharedRates) {
        for idx in 0..self.outlets.len() {
            if self.outlets[idx].port != port {
                continue;
            }
            let old = self.outlets[idx].shaper.take();
            let shaper = rates.send.as_ref().map(|send| Shaper::new(Arc::clone(send), &rates.rates));
            self.outlets[idx].shaper = shaper.map(Box::new);
            for packet in self.emptied(old) {
                self.bridge = port.bridge;
                match self.outlets[idx].shaper {
                    Some(_) => self.enqueue(idx, packet),
                    None => self.send_now(idx, packet),
                }
            }
        }
        self.n_shapers = self.outlets.iter().filter(|outlet| outlet.shaper.is_some()).count();
    }

    /// What has waited in a shaper.
    fn emptied(&mut self, shaper: Option<Box<Shaper<Packet<Frame>>>>) -> Vec<Packet<Frame>> {
        let Some(mut shaper) = shaper else { return Vec::new() };
        let packets: Vec<_> = std::iter::from_fn(|| shaper.pop_any()).map(|(_, packet, _)| packet).collect();
        packets.iter().for_each(|packet| self.held.0[Held::kind(packet)] -= 1);
        packets
    }

    /// Another process sends from now on, where one can; loses what waits in queues.
    pub(super) fn leave(&mut self) {
        for idx in 0..self.outlets.len() {
            self.outlets[idx].device.leave();
            while let Some((_, packet, _)) =
                self.outlets[idx].shaper.as_mut().and_then(|shaper| shaper.pop_any())
            {
                self.held.0[Held::kind(&packet)] -= 1;
                self.outlets[idx].lose(DropReason::PortDown);
                self.bridge = self.outlets[idx].port.bridge;
                self.lose(DropReason::PortDown, packet);
            }
        }
    }

    /// Loses what waits for a port that goes.
    pub(super) fn abandon(&mut self, port: PortId) {
        for idx in 0..self.outlets.len() {
            if self.outlets[idx].port != port {
                continue;
            }
            let old = self.outlets[idx].shaper.take();
            self.n_shapers -= usize::from(old.is_some());
            for packet in self.emptied(old) {
                self.outlets[idx].lose(DropReason::PortDown);
                self.bridge = port.bridge;
                self.lose(DropReason::PortDown, packet);
            }
        }
    }

    fn queue_counts(&self, port: PortId) -> BTreeMap<u16, QueueCounts> {
        let own = self.outlets.iter().filter(|outlet| outlet.port == port);
        let mut sums: BTreeMap<u16, QueueCounts> = BTreeMap::new();
        for (queue, counts) in
            own.filter_map(|outlet| outlet.shaper.as_ref()).flat_map(|shaper| shaper.counts())
        {
            *sums.entry(queue).or_default() += counts;
        }
        sums
    }
}
