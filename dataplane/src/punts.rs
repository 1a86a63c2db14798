//! Packets that rules send to a controller, and those that one sends.
//!
//! They wait in the switch of their worker, whose bounds and shares per port hold until
//! somebody fetches them. A worker that has some says so once; [`Punts::wait`] sleeps
//! until then.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

use flowtable::{
    flow::Action,
    switch::{InjectError, PacketIn},
    types::{PortNo, Timestamp},
};

use crate::pmd::Fabric;

/// Why a packet was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketOutError {
    /// The switch refuses it.
    #[error(transparent)]
    Refused(#[from] InjectError),
    /// It does not fit a buffer, or there is none.
    #[error("there is no buffer for {0} bytes")]
    NoBuffer(usize),
    /// The worker has ended.
    #[error("worker {0} has ended")]
    WorkerGone(usize),
}

/// The way to and from the workers' controllers' queues. Cheap to clone.
#[derive(Clone)]
pub struct Punts(Arc<Fabric>);

/// Says that packets wait.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    /// Packets wait now.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_all();
    }

    /// Waits for a ring; false when the time is up.
    fn wait(&self, timeout: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, timeout, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut rung)
    }
}

impl Punts {
    pub(crate) fn new(fabric: Arc<Fabric>) -> Self {
        Self(fabric)
    }

    /// Waits until packets wait; false when the time is up or the dataplane stops.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.bell().wait(timeout)
    }

    /// The dataplane is stopping: nothing will come any more.
    pub fn is_over(&self) -> bool {
        self.0.is_stopping()
    }

    /// The time that packets and caches go by.
    pub fn now(&self) -> Timestamp {
        self.0.now()
    }

    /// Takes what waits, oldest first of each worker, with the worker's number.
    pub fn take(&self) -> Vec<(usize, PacketIn)> {
        let take = |(worker, seat): (usize, &Arc<crate::pmd::Seat>)| {
            let taken = seat.ask(crate::pmd::Worker::take_packet_ins).unwrap_or_default();
            taken.into_iter().map(move |packet_in| (worker, packet_in))
        };
        self.0.seats().iter().enumerate().flat_map(take).collect()
    }

    /// Has a worker carry out actions on a frame, as if it had come in by `in_port`.
    ///
    /// # Errors
    /// Says why nothing was done.
    pub fn packet_out(
        &self,
        worker: usize,
        in_port: PortNo,
        actions: Vec<Action>,
        frame: Vec<u8>,
    ) -> Result<(), PacketOutError> {
        let seat = self.0.seats().get(worker).ok_or(PacketOutError::WorkerGone(worker))?;
        seat.ask(move |worker| worker.packet_out(in_port, actions, &frame))
            .unwrap_or(Err(PacketOutError::WorkerGone(worker)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_heard_once_whenever_it_comes() {
        let bell = Arc::new(Bell::default());
        assert!(!bell.wait(Duration::ZERO));
        bell.ring();
        bell.ring();
        assert!(bell.wait(Duration::ZERO) && !bell.wait(Duration::ZERO));
        let ringing = Arc::clone(&bell);
        let ringer = std::thread::spawn(move || ringing.ring());
        assert!(bell.wait(Duration::from_secs(60)));
        ringer.join().unwrap();
    }
}
