//! The receive queues of one worker, and whose turn it is.
//!
//! Turns are worth the same *work*, not the same number of packets: a queue whose packets
//! cost more (first packets, which are translated) gets shorter turns, and one that has taken
//! more than a turn's work waits until it has made up for it, as long as others have packets.
//! So a port under attack, or attacking, is slowed down in its own queue, and no other.

use std::os::fd::RawFd;

use flowtable::packet::Packet;

use crate::{
    config::PortId,
    pool::{Frame, Pool},
    port::{AttachedQueue, BATCH, RxQueue},
};

/// What a queue has each round for nothing, in packets whose entries are known: a batch of
/// them.
const ALLOWANCE: u32 = BATCH as u32;
/// Work that a turn is to be worth at most, while others wait.
const MAX_TURN: u32 = 8 * ALLOWANCE;
/// Work that a queue may owe at most.
const MAX_DEBT: u32 = 64 * ALLOWANCE;

/// The queues of one worker.
#[derive(Debug, Default)]
pub(crate) struct Ingress {
    queues: Vec<AttachedQueue>,
    round: u32,
    /// Queues that had packets in the last round.
    n_active: usize,
    n_active_now: usize,
}

impl Ingress {
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AttachedQueue> {
        self.queues.iter()
    }

    pub(crate) fn add(&mut self, queue: AttachedQueue) {
        self.queues.push(queue);
    }

    /// Gives a queue up.
    pub(crate) fn take(&mut self, port: PortId, queue: usize) -> Option<AttachedQueue> {
        let idx = self.queues.iter().position(|own| own.port == port && own.queue == queue)?;
        Some(self.queues.remove(idx))
    }

    /// Gives all queues of a port up.
    pub(crate) fn take_all(&mut self, port: PortId) -> Vec<AttachedQueue> {
        self.queues.extract_if(.., |own| own.port == port).collect()
    }

    /// A round over the queues begins.
    #[inline]
    pub(crate) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.n_active = std::mem::take(&mut self.n_active_now);
    }

    /// Receives what a queue's turn is worth. `None`: nothing, or it is not its turn.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        idx: usize,
        pool: &mut Pool,
        batch: &mut Vec<Packet<Frame>>,
    ) -> Option<PortId> {
        let queue = self.queues.get_mut(idx)?;
        let was_active = queue.active_in == self.round.wrapping_sub(1);
        let max = if self.n_active > usize::from(was_active) { queue.turn()? } else { BATCH };
        queue.receive(max, pool, batch);
        if batch.is_empty() {
            return None;
        }
        queue.active_in = self.round;
        self.n_active_now += 1;
        Some(queue.port)
    }

    /// A turn was worth so much.
    #[inline]
    pub(crate) fn spent(&mut self, idx: usize, n_packets: usize, work: u64) {
        if let Some(queue) = self.queues.get_mut(idx) {
            queue.spent(n_packets, work);
        }
    }

    /// A sampled turn took so many cycles.
    pub(crate) fn took(&mut self, idx: usize, n_packets: usize, cycles: u64) {
        if let Some(queue) = self.queues.get_mut(idx) {
            queue.load.add(n_packets as u64, cycles);
        }
    }

    /// Work has come that no file tells of.
    pub(crate) fn has_pending(&self) -> bool {
        self.queues.iter().any(|queue| queue.device.has_pending())
    }

    /// The files of all queues, with their ports.
    pub(crate) fn wait_fds(&self) -> impl Iterator<Item = (PortId, RawFd)> {
        self.queues.iter().filter_map(|queue| Some((queue.port, queue.device.wait_fd()?)))
    }

    pub(crate) fn set_gone(&self, port: PortId) {
        if let Some(queue) = self.queues.iter().find(|queue| queue.port == port)
            && queue.metrics.set_gone()
        {
            tracing::warn!(%port, "the interface is gone; its port drops everything");
        }
    }
}

impl AttachedQueue {
    /// How many packets its turn is worth while others wait; `None`: it owes this turn to them.
    fn turn(&mut self) -> Option<usize> {
        if self.debt > 0 {
            self.debt = self.debt.saturating_sub(ALLOWANCE);
            return None;
        }
        let n_packets = MAX_TURN / self.work_per_packet.max(1);
        Some((n_packets as usize).clamp(1, BATCH))
    }

    fn spent(&mut self, n_packets: usize, work: u64) {
        let work = u32::try_from(work).unwrap_or(u32::MAX);
        self.debt = work.saturating_sub(ALLOWANCE).min(MAX_DEBT);
        self.work_per_packet = work / n_packets.max(1) as u32;
    }
}

#[cfg(test)]
mod tests;
