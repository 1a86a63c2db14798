//! How long a worker looks for packets in vain before it sleeps: for as long as it was told to, where it
//! has its core to itself. Where others wait for the core, each moment of looking is taken from them,
//! and they may be who would bring the packets.

use std::{fs::File, os::unix::fs::FileExt as _, time::Duration};

use flowtable::types::Timestamp;

/// What the kernel has counted of the thread that opens it (proc(5)): nanoseconds that it has run, nanoseconds that
/// it was ready and waited for a core, and how often it ran.
const SCHEDSTAT: &str = "/proc/thread-self/schedstat";
/// From one look at it to the next.
const INTERVAL: Duration = Duration::from_millis(5);
/// Part of the time that a worker which has its core to itself may wait for it: interrupts and kernel threads.
const TOLERATED: u64 = 20;

/// Decides how long to look.
#[derive(Debug)]
pub(crate) struct Patience {
    file: Option<File>,
    seen_at: Timestamp,
    waited: u64,
    is_shared: bool,
}

impl Patience {
    /// Of the thread that calls this. Where the kernel does not count, the core is its own.
    pub(crate) fn new(now: Timestamp) -> Self {
        let file = File::open(SCHEDSTAT).ok();
        let waited = file.as_ref().and_then(waited).unwrap_or(0);
        Self { file, seen_at: now, waited, is_shared: false }
    }

    /// Somebody else wants the core: there is no time to look in vain.
    #[inline]
    pub(crate) fn is_core_shared(&mut self, now: Timestamp) -> bool {
        let elapsed = now.since(self.seen_at);
        if elapsed >= INTERVAL
            && let Some(waited) = self.file.as_ref().and_then(waited)
        {
            self.is_shared = is_much(waited.saturating_sub(self.waited), elapsed);
            (self.seen_at, self.waited) = (now, waited);
        }
        self.is_shared
    }
}

/// So much waiting shows that others had the core.
fn is_much(waited: u64, elapsed: Duration) -> bool {
    u128::from(waited) * u128::from(TOLERATED) > elapsed.as_nanos()
}

/// Nanoseconds that the thread has waited for a core.
fn waited(file: &File) -> Option<u64> {
    let mut room = [0; 80];
    let len = file.read_at(&mut room, 0).ok()?;
    std::str::from_utf8(&room[..len]).ok()?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
        time::Instant,
    };

    use super::*;
    use crate::sys::thread::pin;

    #[test]
    fn a_twentieth_is_much() {
        assert!(!is_much(0, INTERVAL));
        assert!(!is_much(250_000, INTERVAL));
        assert!(is_much(250_001, INTERVAL));
    }

    #[test]
    fn a_core_with_another_busy_thread_is_shared() {
        let is_over = AtomicBool::new(false);
        let started = Instant::now();
        let now = || Timestamp::from_nanos(started.elapsed().as_nanos() as u64);
        thread::scope(|scope| {
            scope.spawn(|| {
                pin(0).unwrap();
                while !is_over.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let seen = scope.spawn(|| {
                pin(0).unwrap();
                let mut patience = Patience::new(now());
                let mut is_shared = false;
                while !is_shared && started.elapsed().as_secs() < 20 {
                    is_shared = patience.is_core_shared(now());
                }
                is_shared
            });
            let seen = seen.join();
            is_over.store(true, Relaxed);
            assert!(seen.unwrap(), "nobody noticed the other thread");
        });
    }
}
