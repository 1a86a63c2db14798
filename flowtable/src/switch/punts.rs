//! Packets for controllers, waiting to be fetched. The queue is bounded, and each port has
//! a share of it: one that floods the controller keeps only its own packets from it.

use std::{collections::VecDeque, sync::Arc};

use super::{
    continuations::{ContinuationId, Continuations},
    run::Sender,
};
use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    program::Punt,
    types::PortNo,
};

/// Packets that wait at most.
pub const MAX_PUNTS: usize = 4096;
/// Packets of one port that wait at most.
pub const MAX_PORT_PUNTS: usize = 256;

/// A packet for a controller (`NXT_PACKET_IN2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketIn {
    /// Port it came in by.
    pub in_port: PortNo,
    /// Who is to get it and why, and what it had in the pipeline.
    pub punt: Arc<Punt>,
    /// The frame, as the rule left it, or its start.
    pub bytes: Vec<u8>,
    /// Bytes that the whole frame has.
    pub n_bytes: usize,
    /// The packet waits for an answer under this id.
    pub continuation: Option<ContinuationId>,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Punts {
    queue: VecDeque<PacketIn>,
    /// Waiting packets by port number.
    n_of_port: Vec<u32>,
    pub(super) continuations: Continuations,
}

impl Punts {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn new(seed: u64) -> Self {
        let (queue, n_of_port) = (VecDeque::new(), Vec::new());
        Self { queue, n_of_port, continuations: Continuations::new(seed) }
    }

    /// Takes a copy of the packet.
    pub(super) fn add<B: FrameBuf>(
        &mut self,
        packet: &Packet<B>,
        punt: &Arc<Punt>,
        sender: Sender<'_>,
    ) -> Result<(), DropReason> {
        let idx = packet.in_port.get() as usize;
        if self.n_of_port.len() <= idx {
            self.n_of_port.resize(idx + 1, 0);
        }
        if self.queue.len() >= MAX_PUNTS || self.n_of_port[idx] as usize >= MAX_PORT_PUNTS {
            return Err(DropReason::PuntQueueFull);
        }
        self.n_of_port[idx] += 1;
        let n_bytes = packet.len();
        let max_len = match punt.to.max_len {
            // Who answers sends back what it has got.
            _ if punt.next.is_some() => n_bytes,
            crate::flow::WHOLE_PACKET => n_bytes,
            max_len => n_bytes.min(max_len.into()),
        };
        let bytes = packet.bytes().get(..max_len).unwrap_or_default().to_vec();
        let in_port = packet.in_port;
        let Sender { key, now, .. } = sender;
        let waiting = punt.next.as_ref().zip(key);
        let continuation = waiting.map(|(next, key)| self.continuations.add(now, next, key, in_port));
        self.queue.push_back(PacketIn { in_port, punt: Arc::clone(punt), bytes, n_bytes, continuation });
        Ok(())
    }

    /// All that wait, oldest first.
    pub(super) fn take(&mut self) -> Vec<PacketIn> {
        self.n_of_port.fill(0);
        self.queue.drain(..).collect()
    }
}
