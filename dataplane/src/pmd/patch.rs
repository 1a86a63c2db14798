//! Links between bridges. A packet that leaves by one end of a link comes in by the other:
//! in the same worker, by no queue that others see, and behind the batch that it left with.
//!
//! [`Patches`] keeps the ends and what is between them; the worker carries it over
//! (`Worker::cross`). How many links a packet can cross is bounded, and so is how many
//! packets can be between bridges at a time: links can form a circle.

use std::sync::Arc;

use flowtable::{drop::DropReason, packet::Packet};

use crate::{config::PortId, pool::Frame, port::metrics::PortMetrics};

/// Links that a packet can cross.
pub(super) const MAX_CROSSINGS: usize = 16;
/// Packets that can be between two bridges at a time: a batch, flooded by many links.
const MAX_WAITING: usize = 1024;

/// One end of a link, in the hands of a worker.
#[derive(Debug)]
pub(crate) struct PatchEnd {
    pub(crate) port: PortId,
    /// The other end, once there is one.
    pub(crate) peer: Option<PortId>,
    pub(crate) metrics: Arc<PortMetrics>,
    /// Packets keep the queue that they were to leave by.
    pub(crate) keeps_queues: bool,
    /// The worker's number: what it counts here is apart from what others count.
    pub(crate) lane: usize,
}

/// A packet between two bridges.
#[derive(Debug)]
pub(crate) struct Crossing {
    pub(crate) from: PortId,
    pub(crate) to: PortId,
    pub(crate) packet: Packet<Frame>,
}

/// The ends of links.
#[derive(Debug, Default)]
pub(crate) struct Patches {
    ends: Vec<Option<PatchEnd>>,
    crossings: Vec<Crossing>,
}

impl Patches {
    pub(crate) fn end_mut(&mut self, idx: usize) -> Option<&mut PatchEnd> {
        self.ends.get_mut(idx)?.as_mut()
    }

    /// Adds an end; answers where it is.
    pub(crate) fn add(&mut self, end: PatchEnd) -> usize {
        let idx = self.ends.iter().position(Option::is_none).unwrap_or(self.ends.len());
        if idx == self.ends.len() {
            self.ends.push(None);
        }
        self.ends[idx] = Some(end);
        idx
    }

    pub(crate) fn remove(&mut self, idx: usize) -> Option<PatchEnd> {
        self.ends.get_mut(idx)?.take()
    }

    /// Takes a packet that leaves by an end; one that goes nowhere comes back with the reason,
    /// and is counted at the end.
    pub(crate) fn take(
        &mut self,
        idx: usize,
        mut packet: Packet<Frame>,
    ) -> Result<(), (DropReason, Packet<Frame>)> {
        let Some(end) = self.ends.get(idx).and_then(Option::as_ref) else {
            return Err((DropReason::NoSuchPort, packet));
        };
        let refusal = match end.peer {
            None => DropReason::PortDown,
            Some(_) if self.crossings.len() >= MAX_WAITING => DropReason::TooManyOutputs,
            Some(to) => {
                if !end.keeps_queues {
                    packet.queue = 0;
                }
                self.crossings.push(Crossing { from: end.port, to, packet });
                return Ok(());
            }
        };
        end.metrics.tx(end.lane).dropped(DropReason::PortDown, 1);
        Err((refusal, packet))
    }

    pub(crate) fn has_crossings(&self) -> bool {
        !self.crossings.is_empty()
    }

    /// Hands over what is between two bridges, for an empty list.
    pub(crate) fn swap(&mut self, list: &mut Vec<Crossing>) {
        std::mem::swap(&mut self.crossings, list);
    }
}
