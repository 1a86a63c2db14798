//! Waiting for a word in memory, and waking who does (futex(2)), also across processes.

use std::{ptr, sync::atomic::AtomicU32, time::Duration};

/// Waits as long as the word has this value, and no longer than that; may wake for nothing.
pub(crate) fn wait(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: the word and the time are live. Whatever it answers, the caller looks at the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const timeout) };
}

/// Wakes all who wait for the word, whatever process they are of.
pub(crate) fn wake_all(word: &AtomicU32) {
    let (all, none) = (libc::c_int::MAX, ptr::null::<libc::timespec>());
    // SAFETY: the word is live; nothing is written.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, all, none) };
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::Ordering::{Acquire, Release},
        thread,
        time::Instant,
    };

    use super::*;

    #[test]
    fn who_waits_is_woken_and_who_comes_late_does_not_wait() {
        let word = AtomicU32::new(1);
        let start = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                while word.load(Acquire) == 1 {
                    wait(&word, 1, Duration::from_secs(20));
                }
            });
            thread::sleep(Duration::from_millis(20));
            word.store(2, Release);
            wake_all(&word);
            waiting.join().unwrap();
        });
        wait(&word, 1, Duration::from_secs(20));
        assert!(start.elapsed() < Duration::from_secs(10));
        wait(&word, 2, Duration::from_millis(1));
        assert!(start.elapsed() >= Duration::from_millis(21));
    }
}
