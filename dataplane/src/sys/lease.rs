//! A value that is in the hands of one thread at a time, for longer than a call: a worker has
//! a ring of a guest from the first packet it sends there until it has sent all of a round.
//!
//! Workers ask and go on when the answer is no; whoever changes what they work on waits, and
//! comes first: as long as somebody waits, workers are refused.

use std::{
    cell::UnsafeCell,
    fmt,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::Duration,
};

/// Attempts in a row before somebody who waits gives the core away.
const SPINS: u32 = 64;
/// How long he sleeps when the value is still not free: as long as a busy worker's round.
const NAP: Duration = Duration::from_micros(20);

/// A value to be leased.
pub(crate) struct Leased<T> {
    is_taken: AtomicBool,
    n_waiting: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is only reached through its lease, of which there is one at a time.
unsafe impl<T: Send> Sync for Leased<T> {}

/// The value, until this is dropped.
pub(crate) struct Lease<T> {
    leased: Arc<Leased<T>>,
}

impl<T> Leased<T> {
    /// A value in nobody's hands.
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self {
            is_taken: AtomicBool::new(false),
            n_waiting: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        })
    }

    /// The value, unless somebody has it or waits for it.
    #[inline]
    pub(crate) fn ask(self: &Arc<Self>) -> Option<Lease<T>> {
        if self.n_waiting.load(Relaxed) != 0 { None } else { self.take() }
    }

    /// The value as soon as it can be had; not for workers.
    pub(crate) fn wait(self: &Arc<Self>) -> Lease<T> {
        self.n_waiting.fetch_add(1, Relaxed);
        let mut n_attempts = 0_u32;
        let lease = loop {
            if let Some(lease) = self.take() {
                break lease;
            }
            n_attempts = n_attempts.saturating_add(1);
            if n_attempts < SPINS { std::hint::spin_loop() } else { thread::sleep(NAP) }
        };
        self.n_waiting.fetch_sub(1, Relaxed);
        lease
    }

    #[inline]
    fn take(self: &Arc<Self>) -> Option<Lease<T>> {
        let taken = self.is_taken.compare_exchange(false, true, Acquire, Relaxed).is_ok();
        taken.then(|| Lease { leased: Arc::clone(self) })
    }
}

impl<T> Deref for Lease<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the only lease, so nobody writes.
        unsafe { &*self.leased.value.get() }
    }
}

impl<T> DerefMut for Lease<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only lease, and it is held exclusively.
        unsafe { &mut *self.leased.value.get() }
    }
}

impl<T> Drop for Lease<T> {
    #[inline]
    fn drop(&mut self) {
        self.leased.is_taken.store(false, Release);
    }
}

impl<T> fmt::Debug for Leased<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leased").field("is_taken", &self.is_taken).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time_and_who_waits_comes_first() {
        let leased = Leased::new(0_u64);
        let lease = leased.ask().unwrap();
        assert!(leased.ask().is_none());
        let waiting = {
            let leased = Arc::clone(&leased);
            thread::spawn(move || *leased.wait() += 1)
        };
        while leased.n_waiting.load(Relaxed) == 0 {
            thread::yield_now();
        }
        drop(lease);
        waiting.join().unwrap();
        assert_eq!(*leased.ask().unwrap(), 1);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let leased = Leased::new(0_u64);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let leased = Arc::clone(&leased);
                thread::spawn(move || (0..500).for_each(|_| *leased.wait() += 1))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*leased.wait(), 2000);
    }
}
