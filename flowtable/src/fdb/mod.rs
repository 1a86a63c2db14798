//! The forwarding database: which station was last seen at which port, for the port
//! `NORMAL`. It is what makes a learning switch (IEEE 802.1Q §8.8).
//!
//! # Who does what
//! A walk that comes to `NORMAL` only *looks* (`Fdb::lookup`), so that translating stays
//! a function and `trace` changes nothing. That the packet's source is to be learned is
//! an effect of the program, which the switch carries out ([`Fdb::learn`]).
//! One database serves all workers of a switch: it is part of the
//! [`Tables`](crate::table::Tables), all versions of which share it. Its owner calls
//! [`Fdb::expire`] now and then; ageing never happens by itself.
//!
//! # How cached decisions become stale
//! A new epoch for each new station would make every cache entry stale whenever a
//! machine starts to talk. Instead, addresses are spread over some thousand *cells*, each
//! with a generation that counts up when a station of the cell comes, moves or goes.
//! A translation notes the cells that it looked into and their generations
//! (`Dependencies`), and its cache entry holds for as long as these stand: two atomic
//! loads for each packet. What concerns other stations does not touch it. Two stations
//! that share a cell cost a translation, never a wrong decision.
//!
//! Being seen again changes no generation. For a packet whose source is where it was
//! known to be, only the entry's age changes, and that is told in bulk together with
//! the counters ([`Fdb::refresh`]), as with the timeouts of rules. The packets of a source
//! that is new, or was known elsewhere, learn one by one.
//!
//! # Bounds
//! The database has a capacity; when it is full, the port with the most entries loses the
//! one that was silent for longest, so that a port which floods addresses loses its own.

mod dependencies;
mod inner;
mod receivers;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

pub(crate) use self::dependencies::Dependencies;
use self::inner::Inner;
use crate::types::{MacAddr, PortNo, Timestamp, VlanId};

/// Cells that addresses are spread over.
const N_CELLS: usize = 4096;
/// For so long after a gratuitous ARP a station is not believed to be elsewhere unless it
/// says so in the same way: frames of its old port may still be on the way.
const ARP_HOLD: Duration = Duration::from_secs(5);

/// How much is remembered and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbConfig {
    /// Stations; 0: none is learned.
    pub max_entries: usize,
    /// A station that is silent for so long is forgotten.
    pub max_age: Duration,
}

impl Default for FdbConfig {
    fn default() -> Self {
        Self { max_entries: 8192, max_age: Duration::from_secs(300) }
    }
}

/// Where a packet's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// In this VLAN; 0: none.
    pub vlan: VlanId,
    /// With this address.
    pub mac: MacAddr,
    /// At this port.
    pub port: PortNo,
    /// It says so by itself, by a gratuitous ARP.
    pub is_announced: bool,
}

/// One entry, for commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbEntry {
    /// VLAN; 0: none.
    pub vlan: VlanId,
    /// Address.
    pub mac: MacAddr,
    /// Port.
    pub port: PortNo,
    /// When it was last seen, as far as the caches have told; `None`: somebody has said
    /// where it is, and it stays there.
    pub seen: Option<Timestamp>,
}

/// What happened to entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FdbCounters {
    /// Stations that were new.
    pub n_learned: u64,
    /// Stations that were seen at another port.
    pub n_moved: u64,
    /// Moves that were not believed: soon after a gratuitous ARP, or of a static entry.
    pub n_refused: u64,
    /// Entries that were silent for too long.
    pub n_expired: u64,
    /// Entries that made room for others.
    pub n_evicted: u64,
    /// Entries that were flushed.
    pub n_flushed: u64,
}

/// Chooses entries; the default chooses all that were learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FdbFilter {
    /// At this port.
    pub port: Option<PortNo>,
    /// In this VLAN.
    pub vlan: Option<VlanId>,
    /// With this address.
    pub mac: Option<MacAddr>,
    /// Static ones too.
    pub with_static: bool,
}

/// The database of a switch.
#[derive(Debug)]
pub struct Fdb {
    cells: Box<[AtomicU32]>,
    inner: Mutex<Inner>,
    receivers: receivers::Receivers,
}

impl Default for Fdb {
    fn default() -> Self {
        Self::new(FdbConfig::default())
    }
}

impl Fdb {
    /// An empty database.
    pub fn new(config: FdbConfig) -> Self {
        let cells = (0..N_CELLS).map(|_| AtomicU32::new(0)).collect();
        Self { cells, inner: Mutex::new(Inner::new(config)), receivers: receivers::Receivers::default() }
    }

    /// Changes the limits. What exceeds a smaller capacity goes.
    pub fn set_config(&self, config: FdbConfig) {
        let mut inner = self.inner();
        inner.config = config;
        while inner.is_over_full() && inner.evict(&mut |key| self.turn(key)) {}
    }

    /// The limits.
    pub fn config(&self) -> FdbConfig {
        self.inner().config
    }

    /// The port of a station, and the generation of its cell that says so.
    pub(crate) fn lookup(&self, vlan: VlanId, mac: MacAddr) -> (Option<PortNo>, Dependency) {
        let inner = self.inner();
        let dependency = self.dependency(&(vlan, mac));
        (inner.port_of(&(vlan, mac)), dependency)
    }

    /// The cell of an address and its generation now; taken under the lock of what is looked
    /// up.
    fn dependency(&self, key: &Key) -> Dependency {
        let cell = cell_of(key);
        Dependency { cell: cell as u32, generation: self.cells[cell].load(Ordering::Acquire) }
    }

    /// What was looked up has not changed since.
    #[inline]
    pub(crate) fn is_unchanged(&self, dependency: Dependency) -> bool {
        let cell = self.cells.get(dependency.cell as usize);
        cell.is_some_and(|cell| cell.load(Ordering::Acquire) == dependency.generation)
    }

    /// Notes where a station is; `true`: that is news.
    pub fn learn(&self, now: Timestamp, station: &Station) -> bool {
        self.inner().learn(now, station, &mut |key| self.turn(key))
    }

    /// A station has been seen where it is known to be. What was known otherwise since
    /// stays.
    pub fn refresh(&self, seen: Timestamp, station: &Station) {
        self.inner().refresh(seen, station);
    }

    /// Says where a station is, whatever packets say.
    pub fn set_static(&self, vlan: VlanId, mac: MacAddr, port: PortNo) {
        self.inner().set_static((vlan, mac), port, &mut |key| self.turn(key));
    }

    /// Forgets stations that were silent for too long; answers how many. The fast path
    /// does not visit entries: call
    /// [`Switch::flush_stats`](crate::switch::Switch::flush_stats) of each switch before.
    pub fn expire(&self, now: Timestamp) -> usize {
        self.inner().expire(now, &mut |key| self.turn(key))
    }

    /// Forgets the entries that pass the filter; answers how many.
    pub fn flush(&self, filter: &FdbFilter) -> usize {
        self.inner().flush(filter, &mut |key| self.turn(key))
    }

    /// All entries in order of VLAN and address.
    pub fn dump(&self) -> Vec<FdbEntry> {
        self.inner().dump()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.inner().len()
    }

    /// There is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What happened to entries so far.
    pub fn counters(&self) -> FdbCounters {
        self.inner().counters
    }

    /// Makes stale what was decided about the stations of a cell. Called under the lock,
    /// behind the change: who sees the old generation sees the old entry or the new one,
    /// and who sees the new generation sees the new entry.
    fn turn(&self, key: &Key) {
        self.cells[cell_of(key)].fetch_add(1, Ordering::Release);
    }

    /// A panic elsewhere cannot have left the entries in a state that matters: each is
    /// whole by itself.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// VLAN and address.
type Key = (VlanId, MacAddr);

/// A cell that was looked into, and its generation then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dependency {
    cell: u32,
    generation: u32,
}

fn cell_of((vlan, mac): &Key) -> usize {
    let bytes = mac.octets().iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let mixed = (bytes ^ u64::from(vlan.get()) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 52) as usize % N_CELLS
}
