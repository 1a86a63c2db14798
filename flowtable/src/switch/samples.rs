//! Samples for collectors, waiting to be fetched. The queue is bounded, and each port has a
//! share of it. Which packets are sampled follows from the switch's seed and the order of
//! the packets, so that a run can be repeated.

use std::collections::{HashMap, VecDeque};

use super::Switch;
use crate::{
    execute,
    flow::Sample,
    offload,
    packet::{FrameBuf, HEADROOM, Packet},
    program::SampleStep,
    types::PortNo,
};

/// Samples that wait at most.
pub const MAX_SAMPLES: usize = 4096;
/// Samples of one port that wait at most.
pub const MAX_PORT_SAMPLES: usize = 1024;

/// A packet for a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// Port it came in by.
    pub in_port: PortNo,
    /// Who is to get it, and how many packets it stands for.
    pub sample: Sample,
    /// The frame, as it was when it came to the action.
    pub bytes: Vec<u8>,
}

/// What became of packets that came to a sample action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SampleCounters {
    /// Packets that came to one; one that comes to two counts twice.
    pub n_seen: u64,
    /// Samples that were queued.
    pub n_queued: u64,
    /// Samples that found no room in the queue, or could not be made.
    pub n_lost: u64,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Samples {
    queue: VecDeque<Sampled>,
    n_of_port: HashMap<PortNo, usize>,
    counters: SampleCounters,
    random: u64,
}

impl Samples {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn new(seed: u64) -> Self {
        let (queue, n_of_port) = (VecDeque::new(), HashMap::new());
        Self { queue, n_of_port, counters: SampleCounters::default(), random: seed }
    }

    /// Takes samples of a packet, as received. `passes`: meters by their place let it pass.
    pub(super) fn show<B: FrameBuf>(
        &mut self,
        steps: &[SampleStep],
        packet: &Packet<B>,
        passes: impl Fn(usize) -> bool,
    ) {
        for step in steps.iter().filter(|step| step.guards.iter().all(|guard| passes(*guard))) {
            self.counters.n_seen += 1;
            let probability = u32::from(step.sample.probability);
            if self.draw() <= probability << 16 | probability {
                self.take(step, packet);
            }
        }
    }

    fn take<B: FrameBuf>(&mut self, step: &SampleStep, packet: &Packet<B>) {
        let n_of_port = self.n_of_port.entry(packet.in_port).or_default();
        let has_room = self.queue.len() < MAX_SAMPLES && *n_of_port < MAX_PORT_SAMPLES;
        match copy(step, packet).filter(|_| has_room) {
            Some(bytes) => {
                *n_of_port += 1;
                self.counters.n_queued += 1;
                self.queue.push_back(Sampled { in_port: packet.in_port, sample: step.sample, bytes });
            }
            None => self.counters.n_lost += 1,
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn draw(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 32) as u32
    }
}

/// The packet as the step has it.
fn copy<B: FrameBuf>(step: &SampleStep, packet: &Packet<B>) -> Option<Vec<u8>> {
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(packet.bytes());
    let mut copy = Packet::new(buf, HEADROOM, packet.len(), packet.in_port);
    (copy.layout, copy.offload) = (packet.layout, packet.offload);
    execute::apply(&mut copy, &step.emit, 0).ok()?;
    offload::complete(&mut copy);
    Some(copy.bytes().to_vec())
}

impl Switch {
    /// Takes the samples, oldest first.
    pub fn take_samples(&mut self) -> Vec<Sampled> {
        self.samples.n_of_port.clear();
        self.samples.queue.drain(..).collect()
    }

    /// What became of packets that came to a sample action.
    pub fn sample_counters(&self) -> SampleCounters {
        self.samples.counters
    }
}
