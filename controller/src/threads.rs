//! Work that is shared out to all processors.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Calls `work` once for each number below `n`, on as many threads as there are processors, and returns when all is
/// done. A panic of one is the caller's.
pub(crate) fn share_out(n: usize, work: &(dyn Fn(usize) + Sync)) {
    let n_threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(n);
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                number if number < n => work(number),
                _ => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(take);
        }
        take();
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_number_is_worked_on_once() {
        for n in [0, 1, 1000] {
            let seen = Mutex::new(Vec::new());
            share_out(n, &|number| seen.lock().unwrap().push(number));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }
}
