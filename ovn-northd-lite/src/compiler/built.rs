//! Units that are compiled, and what is found out about each by itself: of many, on all processors that there are.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use crate::{
    build::{
        unit::{Output, UnitId},
        whole::{self, place},
    },
    key::DatapathKey,
    southbound::LogicalFlow,
};

/// Units from which on it is worth it to share the work out, and those of a share. Some cost much more than others.
const MANY: usize = 4096;
const SHARE: usize = 512;

/// Who does work that can be done in any order, such as by threads: calls what it is given once for each number below
/// the first argument.
#[derive(Debug, Clone, Copy)]
pub struct Workers(pub fn(usize, &(dyn Fn(usize) + Sync)));

impl Default for Workers {
    /// One after the other.
    fn default() -> Self {
        Self(|n, work| (0..n).for_each(work))
    }
}

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
pub(super) fn build(
    units: Vec<UnitId>,
    workers: Workers,
    compile: impl Fn(&UnitId) -> Option<Output> + Sync,
) -> Vec<Built> {
    let build = |unit: UnitId| compile(&unit).map(|output| Built::new(unit, output));
    if units.len() < MANY {
        return units.into_iter().filter_map(build).collect();
    }
    let shares: Vec<(&[UnitId], OnceLock<Vec<Built>>)> =
        units.chunks(SHARE).map(|share| (share, OnceLock::new())).collect();
    workers.0(shares.len(), &|n| {
        if let Some((share, built)) = shares.get(n) {
            built.get_or_init(|| share.iter().cloned().filter_map(build).collect());
        }
    });
    shares.into_iter().flat_map(|(_, built)| built.into_inner().unwrap_or_default()).collect()
}
