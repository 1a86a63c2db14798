//! Which worker has which receive queue: read, told, and decided by load.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use crossbeam::channel::bounded;
use flowtable::types::Timestamp;

use super::{Dataplane, lock};
use crate::{
    balance::{Balancing, Load, Move, Proposal, QueueId, propose},
    config::PortId,
    pmd::Seat,
    status::QueueStatus,
};

/// How long a queue may be under way. Workers that are there take microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Least time between two readings that loads are made from.
const MIN_WINDOW: Duration = Duration::from_millis(900);

/// A queue was not assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// There is no such queue.
    #[error("port {} has no receive queue {}; see `vswitchctl worker list`", .0.port, .0.queue)]
    NoQueue(QueueId),
    /// There is no such worker.
    #[error("there is no worker {worker}; there are {n_workers}, from 0")]
    NoWorker {
        /// The worker.
        worker: usize,
        /// How many there are.
        n_workers: usize,
    },
    /// A worker does not answer.
    #[error("worker {0} did not take the queue in time; restart the switch")]
    Stuck(usize),
}

/// What had been received and done at a moment.
#[derive(Debug, Clone)]
pub struct Reading {
    at: Timestamp,
    /// Packets of each queue.
    queues: BTreeMap<QueueId, u64>,
    /// Busy cycles of each worker.
    busy: Vec<u64>,
}

impl Dataplane {
    /// All receive queues, in the order of ports and numbers.
    pub fn queues(&self) -> Vec<QueueStatus> {
        let _admin = lock(&self.admin);
        self.queues_now()
    }

    fn queues_now(&self) -> Vec<QueueStatus> {
        let held = |seat: &Arc<Seat>| seat.ask(|worker| worker.queues()).unwrap_or_default();
        let held = self.fabric.seats().iter().flat_map(held);
        let held: BTreeMap<QueueId, _> =
            held.map(|held| (QueueId { port: held.port, queue: held.queue }, held)).collect();
        let ports = lock(&self.ports);
        let mut queues = Vec::new();
        for (port, registered) in &*ports {
            for (queue, place) in registered.queues.iter().enumerate() {
                let id = QueueId { port: *port, queue };
                let held = held.get(&id);
                queues.push(QueueStatus {
                    id,
                    worker: place.worker,
                    pinned: place.pinned,
                    n_packets: held.map_or(0, |held| held.n_packets),
                    cycles_per_packet: held.and_then(|held| held.cycles_per_packet),
                });
            }
        }
        queues
    }

    /// Gives a queue to a worker and ties it there. When this returns, it is there; its packets
    /// have kept their order, and none was lost for it.
    ///
    /// # Errors
    /// There is no such queue or worker.
    pub fn assign(&self, id: QueueId, worker: usize) -> Result<(), AssignError> {
        let _admin = lock(&self.admin);
        self.move_queue(id, worker)?;
        self.set_pinned(id, true);
        Ok(())
    }

    /// Lets a queue be moved by load again.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn unassign(&self, id: QueueId) -> Result<(), AssignError> {
        let _admin = lock(&self.admin);
        if self.set_pinned(id, false) { Ok(()) } else { Err(AssignError::NoQueue(id)) }
    }

    /// When queues are moved by load.
    pub fn balancing(&self) -> Balancing {
        lock(&self.balancer).settings
    }

    /// Says when.
    pub fn set_balancing(&self, settings: Balancing) {
        lock(&self.balancer).settings = settings;
    }

    /// What has been received and done so far, to measure loads from.
    pub fn reading(&self) -> Reading {
        let _admin = lock(&self.admin);
        self.reading_of(&self.queues_now())
    }

    fn reading_of(&self, queues: &[QueueStatus]) -> Reading {
        let busy = |seat: &Arc<Seat>| seat.ask(|worker| worker.measured().0.busy).unwrap_or_default();
        Reading {
            at: self.fabric.uptime(),
            queues: queues.iter().map(|queue| (queue.id, queue.n_packets)).collect(),
            busy: self.fabric.seats().iter().map(busy).collect(),
        }
    }

    /// Spreads the load that there was since a reading as well as it can, or says how it would.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn rebalance(&self, since: &Reading, dry_run: bool) -> Result<Proposal, AssignError> {
        let _admin = lock(&self.admin);
        let queues = self.queues_now();
        let proposal = propose(self.fabric.seats().len(), &self.loads(since, &queues));
        if !dry_run {
            self.carry_out(&proposal)?;
        }
        Ok(proposal)
    }

    /// Moves queues if workers have been overloaded for long and it helps. To be called now and
    /// then, every second or so.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn tend_queues(&self) -> Result<Option<Proposal>, AssignError> {
        if self.fabric.seats().len() < 2 || !self.balancing().auto {
            return Ok(None);
        }
        let _admin = lock(&self.admin);
        let mut last = self.last_reading.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.fabric.uptime();
        if last.as_ref().is_some_and(|last| now.since(last.at) < MIN_WINDOW) {
            return Ok(None);
        }
        let queues = self.queues_now();
        let Some(since) = last.replace(self.reading_of(&queues)) else { return Ok(None) };
        let loads = self.loads(&since, &queues);
        let proposal = lock(&self.balancer).look(now, self.fabric.seats().len(), &loads);
        if let Some(proposal) = &proposal {
            tracing::info!(n_moves = proposal.moves.len(), "queues are moved to other workers");
            self.carry_out(proposal)?;
        }
        Ok(proposal)
    }

    /// What each queue cost since a reading, as part of a core: its packets at what sampled
    /// ones took, scaled to what its worker was busy.
    fn loads(&self, since: &Reading, queues: &[QueueStatus]) -> Vec<Load> {
        let now = self.reading_of(queues);
        let window = now.at.since(since.at).as_secs_f64() * self.fabric.tsc_hz() as f64;
        let n_packets = |queue: &QueueStatus| {
            let before = since.queues.get(&queue.id).copied().unwrap_or(queue.n_packets);
            queue.n_packets.saturating_sub(before) as f64
        };
        let raw = |queue: &QueueStatus| n_packets(queue) * queue.cycles_per_packet.unwrap_or(1.0);
        let mut sums = vec![0.0; now.busy.len()];
        for queue in queues {
            if let Some(sum) = sums.get_mut(queue.worker) {
                *sum += raw(queue);
            }
        }
        let share = |queue: &QueueStatus| {
            let before = since.busy.get(queue.worker).copied().unwrap_or_default();
            let busy = now.busy.get(queue.worker).copied().unwrap_or_default().saturating_sub(before);
            let sum = sums.get(queue.worker).copied().unwrap_or_default();
            let share = raw(queue) / f64::max(sum, 1.0) * busy as f64 / window.max(1.0);
            Load { id: queue.id, worker: queue.worker, pinned: queue.pinned, share }
        };
        queues.iter().map(share).collect()
    }

    fn carry_out(&self, proposal: &Proposal) -> Result<(), AssignError> {
        proposal.moves.iter().try_for_each(|Move { id, to, .. }| self.move_queue(*id, *to))
    }

    /// Has a queue moved and waits until it has been.
    fn move_queue(&self, id: QueueId, to: usize) -> Result<(), AssignError> {
        let seats = self.fabric.seats();
        if to >= seats.len() {
            return Err(AssignError::NoWorker { worker: to, n_workers: seats.len() });
        }
        let place = |port: PortId| lock(&self.ports).get(&port)?.queues.get(id.queue).copied();
        let place = place(id.port).ok_or(AssignError::NoQueue(id))?;
        let seat = seats.get(place.worker).ok_or(AssignError::NoQueue(id))?;
        if place.worker == to {
            return Ok(());
        }
        let (done, moved) = bounded(1);
        let sent = seat.ask(move |worker| worker.send_queue((id.port, id.queue), to, done));
        if sent != Some(true) {
            return Err(AssignError::Stuck(place.worker));
        }
        moved.recv_timeout(PATIENCE).map_err(|_| AssignError::Stuck(to))?;
        if let Some(place) =
            lock(&self.ports).get_mut(&id.port).and_then(|registered| registered.queues.get_mut(id.queue))
        {
            place.worker = to;
        }
        Ok(())
    }

    /// False: there is no such queue.
    fn set_pinned(&self, id: QueueId, pinned: bool) -> bool {
        let mut ports = lock(&self.ports);
        let place = ports.get_mut(&id.port).and_then(|registered| registered.queues.get_mut(id.queue));
        place.map(|place| place.pinned = pinned).is_some()
    }
}
