//! Units that are compiled, and what is found out about each by itself: of many, on all processors.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

use crate::{
    build::{
        unit::{Output, UnitId},
        whole::{self, place},
    },
    key::DatapathKey,
    southbound::LogicalFlow,
};

/// Units from which on it is worth it to start threads.
const MANY: usize = 4096;

/// Where flows meet that exclude each other: a datapath, and a hash of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlaceHash {
    pub(super) datapath: DatapathKey,
    hash: u64,
}

impl PlaceHash {
    pub(super) fn of(datapath: DatapathKey, flow: &LogicalFlow) -> Self {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        Self { datapath, hash: hasher.hash_one((datapath, place(flow))) }
    }
}

impl Hash for PlaceHash {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

/// What is a hash already stays as it is.
#[derive(Debug, Default)]
pub(super) struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A unit that is compiled.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) unit: UnitId,
    pub(super) output: Output,
    /// Of each flow, where it is, and its id.
    pub(super) hashes: Vec<(PlaceHash, u64)>,
}

impl Built {
    fn new(unit: UnitId, output: Output) -> Self {
        let hash = |key| {
            let hash =
                move |(_, flow): &(u16, Arc<LogicalFlow>)| (PlaceHash::of(key, flow), whole::id(key, flow));
            output.flows.iter().map(hash).collect()
        };
        let hashes = output.key.map_or_else(Vec::new, hash);
        Self { unit, output, hashes }
    }
}

/// Compiles units, and keeps those that are not as they were.
pub(super) fn build(units: Vec<UnitId>, compile: impl Fn(&UnitId) -> Option<Output> + Sync) -> Vec<Built> {
    let build = |unit: UnitId| compile(&unit).map(|output| Built::new(unit, output));
    let n_threads =
        if units.len() < MANY { 1 } else { thread::available_parallelism().map_or(1, NonZeroUsize::get) };
    if n_threads == 1 {
        return units.into_iter().filter_map(build).collect();
    }
    // Small shares: some units cost much more than others.
    let shares = units.chunks(MANY / 8).collect::<Vec<_>>();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(share) = shares.get(n) else { return done };
            done.push((n, share.iter().cloned().filter_map(build).collect::<Vec<_>>()));
        }
    };
    let mut done: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others.into_iter().flat_map(|thread| match thread.join() {
            Ok(done) => done,
            Err(fault) => std::panic::resume_unwind(fault),
        });
        own.into_iter().chain(others).collect()
    });
    done.sort_unstable_by_key(|(n, _)| *n);
    done.into_iter().flat_map(|(_, built)| built).collect()
}
