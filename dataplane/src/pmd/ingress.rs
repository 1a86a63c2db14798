//! The receive queues of one worker, and whose turn it is.
//!
//! Turns are worth the same *work*, not the same number of packets: a queue whose packets
//! cost more (first packets, which are translated) gets shorter turns, and one that has taken
//! more than a turn's work waits until it has made up for it, as long as others have packets.
//! So a port under attack, or attacking, is slowed down in its own queue, and no other.
//!
//! Queues that are files are asked in one call which of them have something (`ReadySet`): an
//! idle one costs the others nothing.

use std::{os::fd::RawFd, sync::Arc};

use flowtable::packet::Packet;

use crate::{
    config::PortId,
    pool::{Frame, Pool},
    port::{AttachedQueue, BATCH, RxQueue},
    qos::bucket::Bucket,
    sys::event::{Readiness, ReadySet},
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
    /// The files of queues that are asked first.
    ready_set: Option<ReadySet>,
    /// Which queue has which of these files, by the file's number.
    by_fd: Vec<Option<usize>>,
}

impl Ingress {
    pub(crate) fn len(&self) -> usize {
        self.queues.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AttachedQueue> {
        self.queues.iter()
    }

    pub(crate) fn add(&mut self, mut queue: AttachedQueue) {
        if queue.is_dear && self.ready_set.is_none() {
            self.ready_set = ReadySet::new().ok();
        }
        // What cannot be asked is looked at each time.
        let fd = queue.device.wait_fd().filter(|_| queue.is_dear);
        queue.is_dear = fd.zip(self.ready_set.as_ref()).is_some_and(|(fd, set)| set.add(fd));
        queue.is_ready = true;
        self.queues.push(queue);
        self.index();
    }

    /// Notes which queue has which file.
    fn index(&mut self) {
        self.by_fd.clear();
        for (idx, queue) in self.queues.iter().enumerate().filter(|(_, queue)| queue.is_dear) {
            let Some(fd) = queue.device.wait_fd().and_then(|fd| usize::try_from(fd).ok()) else { continue };
            if fd >= self.by_fd.len() {
                self.by_fd.resize(fd + 1, None);
            }
            self.by_fd[fd] = Some(idx);
        }
    }

    /// Queues leave: their files are not asked for any more.
    fn forget_files(&mut self, queues: &mut [AttachedQueue]) {
        for queue in queues {
            if let Some((fd, set)) =
                queue.device.wait_fd().zip(self.ready_set.as_ref()).filter(|_| queue.is_dear)
            {
                set.remove(fd);
            }
            queue.is_dear = queue.device.is_dear();
        }
        self.index();
    }

    /// Another process receives from now on, where one can.
    pub(crate) fn leave(&mut self) {
        self.queues.iter_mut().for_each(|queue| queue.device.leave());
    }

    /// Gives a queue up.
    pub(crate) fn take(&mut self, port: PortId, queue: usize) -> Option<AttachedQueue> {
        let idx = self.queues.iter().position(|own| own.port == port && own.queue == queue)?;
        let mut queue = self.queues.remove(idx);
        self.forget_files(std::slice::from_mut(&mut queue));
        Some(queue)
    }

    /// Gives all queues of a port up.
    pub(crate) fn take_all(&mut self, port: PortId) -> Vec<AttachedQueue> {
        let mut queues: Vec<_> = self.queues.extract_if(.., |own| own.port == port).collect();
        self.forget_files(&mut queues);
        queues
    }

    /// A round over the queues begins.
    #[inline]
    pub(crate) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.n_active = std::mem::take(&mut self.n_active_now);
        if let Some(set) = &mut self.ready_set {
            for (fd, readiness) in set.ready() {
                let idx = usize::try_from(fd).ok().and_then(|fd| self.by_fd.get(fd).copied().flatten());
                let Some(queue) = idx.and_then(|idx| self.queues.get_mut(idx)) else { continue };
                // One that is broken says how when it is looked at.
                queue.is_ready |= readiness != Readiness::Idle;
            }
        }
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
        if queue.is_dear && !queue.is_ready {
            return None;
        }
        if queue.is_dear && queue.metrics.is_gone() {
            // Its file is "ready" for ever.
            queue.is_ready = false;
            queue.device.wait_fd().zip(self.ready_set.as_ref()).inspect(|(fd, set)| set.remove(*fd));
            return None;
        }
        let was_active = queue.active_in == self.round.wrapping_sub(1);
        let max = if self.n_active > usize::from(was_active) { queue.turn()? } else { BATCH };
        queue.receive(max, pool, batch);
        // The next one is asked for again, unless there are sure to be more.
        queue.is_ready = batch.len() >= max;
        if batch.is_empty() {
            return None;
        }
        queue.active_in = self.round;
        self.n_active_now += 1;
        Some(queue.port)
    }

    /// What a queue's port may receive.
    #[inline]
    pub(crate) fn rate(&self, idx: usize) -> Option<&Bucket> {
        self.queues.get(idx)?.rate.as_deref()
    }

    /// A port may receive so much from now on.
    pub(crate) fn set_rate(&mut self, port: PortId, rate: Option<&Arc<Bucket>>) {
        for queue in self.queues.iter_mut().filter(|queue| queue.port == port) {
            queue.rate = rate.cloned();
        }
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
        self.queues.iter().any(|queue| queue.device.has_pending() || queue.is_dear && queue.is_ready)
    }

    /// The files of all queues but those in the ready set, with their ports.
    pub(crate) fn wait_fds(&self) -> impl Iterator<Item = (PortId, RawFd)> {
        let queues = self.queues.iter().filter(|queue| !queue.is_dear);
        queues.filter_map(|queue| Some((queue.port, queue.device.wait_fd()?)))
    }

    /// A file that is readable when one of the queues in the ready set has something.
    pub(crate) fn ready_fd(&self) -> Option<RawFd> {
        self.ready_set.as_ref().map(ReadySet::fd)
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
