//! What the workers of a port and the thread that speaks with the guest's side share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::{fault::Fault, ring::Vring};
use crate::{
    port::metrics::PortMetrics,
    sys::{event::Waker, event_file::EventFile, lease::Leased},
};

/// A ring, while the guest has it running.
#[derive(Debug)]
pub(super) struct Seat {
    /// There is a ring: looked at before it is asked for.
    is_live: AtomicBool,
    pub(super) ring: Arc<Leased<Option<Vring>>>,
    /// By this the guest wakes the worker that receives.
    kick: Mutex<Option<Arc<EventFile>>>,
    /// That worker.
    waker: Mutex<Option<Arc<Waker>>>,
    /// What was taken from the guest and was no frame.
    pub(super) n_refused: AtomicU64,
}

/// What belongs to a port.
#[derive(Debug)]
pub(super) struct Shared {
    /// Of each pair of queues: the ring to the guest, then the one from it.
    pub(super) seats: Box<[Seat]>,
    /// Rings to the guest that it has running, from the first on.
    n_outward: AtomicUsize,
    pub(super) n_outlets: usize,
    pub(super) metrics: Arc<PortMetrics>,
    /// Wakes the thread.
    pub(super) bell: Waker,
    pub(super) is_ending: AtomicBool,
    /// What a worker has found wrong, for the thread to act upon.
    fault: Mutex<Option<(usize, Fault)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    fn new() -> Self {
        Self {
            is_live: AtomicBool::new(false),
            ring: Leased::new(None),
            kick: Mutex::default(),
            waker: Mutex::default(),
            n_refused: AtomicU64::new(0),
        }
    }

    /// There is a ring.
    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.is_live.load(Acquire)
    }

    /// By this the guest wakes us now.
    pub(super) fn kick(&self) -> Option<Arc<EventFile>> {
        lock(&self.kick).clone()
    }

    /// Says by what the guest wakes us.
    pub(super) fn set_kick(&self, kick: Option<Arc<EventFile>>) {
        *lock(&self.kick) = kick;
    }

    pub(super) fn set_waker(&self, waker: &Arc<Waker>) {
        *lock(&self.waker) = Some(Arc::clone(waker));
    }

    /// Has the worker look anew.
    pub(super) fn wake(&self) {
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake();
        }
    }

    /// Puts a ring in, or nothing; answers what was there. Afterwards no worker touches that.
    pub(super) fn replace(&self, ring: Option<Vring>) -> Option<Vring> {
        let mut lease = self.ring.wait();
        self.is_live.store(ring.is_some(), Release);
        std::mem::replace(&mut *lease, ring)
    }
}

impl Shared {
    pub(super) fn new(n_pairs: usize, metrics: Arc<PortMetrics>, bell: Waker) -> Self {
        Self {
            seats: (0..2 * n_pairs).map(|_| Seat::new()).collect(),
            n_outward: AtomicUsize::new(0),
            n_outlets: n_pairs,
            metrics,
            bell,
            is_ending: AtomicBool::new(false),
            fault: Mutex::default(),
        }
    }

    /// How many rings frames can go to.
    #[inline]
    pub(super) fn n_outward(&self) -> usize {
        self.n_outward.load(Relaxed)
    }

    /// Counts the rings anew; answers whether the guest has any running.
    pub(super) fn count_rings(&self) -> bool {
        let n = self.seats.iter().step_by(2).take_while(|seat| seat.is_live()).count();
        self.n_outward.store(n, Relaxed);
        self.seats.iter().any(Seat::is_live)
    }

    /// A worker has found something wrong with a ring, which is not touched any more.
    #[cold]
    pub(super) fn report(&self, ring: usize, fault: Fault) {
        lock(&self.fault).get_or_insert((ring, fault));
        self.bell.wake();
    }

    pub(super) fn take_fault(&self) -> Option<(usize, Fault)> {
        lock(&self.fault).take()
    }

    pub(super) fn has_fault(&self) -> bool {
        lock(&self.fault).is_some()
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Acquire)
    }

    pub(super) fn end(&self) {
        self.is_ending.store(true, Release);
        self.bell.wake();
    }
}
