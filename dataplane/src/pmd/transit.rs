//! A receive queue on its way from one worker to another, without loss and in order.
//!
//! The old worker gives the queue up between two batches and sends what it has. What it had
//! handed to other workers must leave before anything that comes after; so each worker sends
//! what lies in its inbox and what its ports hold, and only when all have, the new worker
//! takes the queue. Frames wait in the queue meanwhile. No thread waits: the last worker that
//! is done sends the queue on.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::Sender;

use super::{Fabric, Worker};
use crate::{config::PortId, port::AttachedQueue};

/// How long a port that does not get rid of its frames may hold a queue up. Beyond that, the
/// order of packets to that port alone may suffer.
const PATIENCE: Duration = Duration::from_millis(20);

/// A queue under way.
pub(crate) struct Transit {
    fabric: Arc<Fabric>,
    /// Taken by the worker that gets it.
    queue: Mutex<Option<AttachedQueue>>,
    to: usize,
    /// Workers that may still hold packets of it.
    n_behind: AtomicUsize,
    deadline: Instant,
    /// Told when the new worker has it.
    done: Sender<()>,
}

impl Worker {
    /// Gives a queue to another worker, some time soon; `done` is told then. False: it is not
    /// here.
    pub(crate) fn send_queue(&mut self, (port, queue): (PortId, usize), to: usize, done: Sender<()>) -> bool {
        let Some(queue) = self.ingress.take(port, queue) else { return false };
        self.egress.flush();
        let seats = self.fabric.seats();
        let transit = Arc::new(Transit {
            fabric: Arc::clone(&self.fabric),
            queue: Mutex::new(Some(queue)),
            to,
            n_behind: AtomicUsize::new(seats.len()),
            deadline: Instant::now() + PATIENCE,
            done,
        });
        for seat in seats {
            let (settling, ended) = (Arc::clone(&transit), Arc::clone(&transit));
            // A worker that has ended holds nothing back.
            if !seat.post(move |worker| worker.settle(settling)) {
                ended.arrived();
            }
        }
        true
    }

    /// Sends all that packets of a queue under way may be among.
    fn settle(&mut self, transit: Arc<Transit>) {
        self.egress.take_handovers();
        self.egress.flush();
        if !self.egress.has_unsent() || Instant::now() >= transit.deadline {
            return transit.arrived();
        }
        // Other work gets its turn before the next attempt.
        let seat = Arc::clone(&self.seat);
        seat.post(move |worker| worker.settle(transit));
    }
}

impl Transit {
    /// A worker is done; the last one sends the queue on.
    fn arrived(self: Arc<Self>) {
        if self.n_behind.fetch_sub(1, AcqRel) > 1 {
            return;
        }
        let Some(seat) = self.fabric.seats().get(self.to).cloned() else { return };
        seat.post(move |worker| {
            let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(queue) = queue {
                worker.take_queue(queue);
            }
            let _ = self.done.send(());
        });
    }
}
