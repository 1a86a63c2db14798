//! Whose turn it is to take packets, in memory that two processes share.
//!
//! In a planned change the second process is ready before the first one stops. Would the first
//! tell whoever holds their files, and he the second, packets waited until several threads have
//! been woken one after the other. So the worker that is the last to stop says so where the second
//! process's workers wait, and the first of these begins.
//!
//! | word | who writes it | what it says |
//! |---|---|---|
//! | wanted | the successor | its number, once it could take packets |
//! | given | the first process | the number of who takes packets from now on |
//! | stopped at | the first process | when it took its last packets |
//!
//! A process of a version without these words is told in the old way, and tells in the old way:
//! the words are an abbreviation. Nobody begins by them whose own number is not there.

use std::{
    process,
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use crate::sys::{futex, shared_memory::monotonic_nanos};

/// The number that stands for nobody.
const NOBODY: u32 = 0;

/// The words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    wanted: &'static AtomicU32,
    given: &'static AtomicU32,
    stopped_at: &'static AtomicU64,
}

impl Turn {
    pub(crate) fn new([wanted, given]: &'static [AtomicU32; 2], stopped_at: &'static AtomicU64) -> Self {
        Self { wanted, given, stopped_at }
    }

    /// This process could take packets.
    pub(crate) fn want(&self) {
        // What was said to somebody who is gone, and may have had the same number.
        self.given.store(NOBODY, Relaxed);
        self.wanted.store(process::id(), Release);
    }

    /// It is this process's turn.
    pub(crate) fn is_mine(&self) -> bool {
        self.given.load(Acquire) == process::id()
    }

    /// Waits for this process's turn, and no longer than that; true when it has come.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let given = self.given.load(Acquire);
        if given != process::id() && !timeout.is_zero() {
            futex::wait(self.given, given, timeout);
        }
        self.is_mine()
    }

    /// Those who wait look again.
    pub(crate) fn wake(&self) {
        futex::wake_all(self.given);
    }

    /// This process takes no packets from now on.
    pub(crate) fn stop(&self) {
        self.stopped_at.store(monotonic_nanos(), Relaxed);
    }

    /// It has sent what it had taken, and left everything in good order: it is the turn of who wants it.
    pub(crate) fn give(&self) {
        let wanted = self.wanted.load(Acquire);
        if wanted != NOBODY {
            self.given.store(wanted, Release);
            self.wake();
        }
    }

    /// This process takes packets from now on. Answers for how long nobody has, if one has stopped for it.
    pub(crate) fn begin(&self) -> Option<Duration> {
        self.wanted.store(NOBODY, Relaxed);
        self.given.store(NOBODY, Relaxed);
        let stopped_at = self.stopped_at.swap(0, Relaxed);
        (stopped_at != 0).then(|| Duration::from_nanos(monotonic_nanos().saturating_sub(stopped_at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        Turn::new(Box::leak(Box::default()), Box::leak(Box::default()))
    }

    #[test]
    fn nobody_has_the_turn_that_was_not_given_to_him() {
        let turn = turn();
        assert!(!turn.is_mine());
        turn.give();
        assert!(!turn.wait(Duration::ZERO), "nobody wanted it");
        turn.wanted.store(process::id() + 1, Relaxed);
        turn.give();
        assert!(!turn.wait(Duration::ZERO), "it is somebody else's");
        turn.given.store(process::id(), Relaxed);
        turn.want();
        assert!(!turn.is_mine(), "it was another one's with the same number");
        turn.stop();
        turn.give();
        assert!(turn.is_mine() && turn.wait(Duration::from_secs(1)));
        assert!(turn.begin().is_some_and(|stood| stood < Duration::from_secs(60)));
        assert!(!turn.is_mine() && turn.begin().is_none());
    }

    #[test]
    fn who_waits_for_the_turn_is_woken() {
        let turn = turn();
        turn.want();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| (0..3000).any(|_| turn.wait(Duration::from_millis(10))));
            turn.stop();
            turn.give();
            assert!(waiting.join().unwrap());
        });
    }
}
