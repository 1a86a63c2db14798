//! Work for many seeds on several threads, each seed by itself.

use std::{
    collections::BTreeMap,
    num::NonZero,
    ops::ControlFlow,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

/// How many threads are worth it.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Does some work for each seed; what comes of it is taken on this thread, in the order of the seeds, until it
/// says that it is enough. Nothing comes of work that panics; what it said stands on standard error.
pub fn each<R: Send>(
    seeds: impl Iterator<Item = u64> + Send,
    n_threads: usize,
    work: impl Fn(u64) -> R + Sync,
    mut take: impl FnMut(u64, Option<R>) -> ControlFlow<()>,
) {
    let (seeds, is_enough) = (Mutex::new(seeds.enumerate()), AtomicBool::new(false));
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..n_threads.max(1) {
            let (seeds, is_enough, work, done) = (&seeds, &is_enough, &work, done.clone());
            scope.spawn(move || {
                while !is_enough.load(Ordering::Relaxed) {
                    let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((place, seed)) = next else { return };
                    let result = panic::catch_unwind(AssertUnwindSafe(|| work(seed))).ok();
                    if done.send((place, seed, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        // Those that are done before one that began earlier.
        let (mut early, mut next) = (BTreeMap::new(), 0);
        for (place, seed, result) in results {
            early.insert(place, (seed, result));
            while let Some((seed, result)) = early.remove(&next) {
                next += 1;
                if take(seed, result).is_break() {
                    is_enough.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_a_panic_is_no_result() {
        let mut seen = Vec::new();
        let work = |seed| {
            std::thread::sleep(std::time::Duration::from_millis(10 - seed));
            assert_ne!(seed, 4, "on purpose");
            seed * 2
        };
        each(1..10, 3, work, |seed, result| {
            seen.push((seed, result));
            if seed == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let all = (1..8).map(|seed| (seed, (seed != 4).then_some(seed * 2)));
        assert_eq!(seen, all.collect::<Vec<_>>());
    }
}
