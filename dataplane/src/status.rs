//! What can be read of a running dataplane.

use std::time::Duration;

use flowtable::{
    stats::{DropCount, SwitchCounters},
    types::{BridgeId, MacAddr, PortNo},
};

use crate::balance::QueueId;
pub use crate::port::metrics::TX_DROP_REASONS;

/// Counters of a port since it was attached.
///
/// # Invariants
/// When the port is at rest: `rx_packets = rx_forwarded + rx_dropped`, and each copy the
/// switch sent to it is in `tx_packets` or in `tx_dropped`, or was lost in the queue
/// between two workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortCounts {
    /// Packets received.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Received packets of which a copy was sent on.
    pub rx_forwarded: u64,
    /// Received packets of which none was.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Packets that were to be sent and were not, by reason, in the order of
    /// [`TX_DROP_REASONS`].
    pub tx_dropped: [u64; TX_DROP_REASONS.len()],
    /// Packets the kernel dropped before the switch saw them.
    pub rx_kernel_dropped: u64,
}

impl PortCounts {
    /// Packets that were to be sent and were not.
    pub fn tx_dropped_total(&self) -> u64 {
        self.tx_dropped.iter().sum()
    }
}

impl std::ops::AddAssign for PortCounts {
    fn add_assign(&mut self, other: Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.rx_forwarded += other.rx_forwarded;
        self.rx_dropped += other.rx_dropped;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        for (sum, more) in self.tx_dropped.iter_mut().zip(other.tx_dropped) {
            *sum += more;
        }
        self.rx_kernel_dropped += other.rx_kernel_dropped;
    }
}

/// What is left of a port that was detached.
#[derive(Debug, Clone)]
pub struct DetachedPort {
    /// As it was at last.
    pub status: PortStatus,
    /// Why its packets were dropped.
    pub drops: Vec<DropCount>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its number there.
    pub port: PortNo,
    /// Its name.
    pub name: String,
    /// `afxdp`, `tap`, `packet`, `vhost-user`, `memory`, `frames` or `patch`.
    pub kind: &'static str,
    /// `native-copy`, `generic-copy`, `native-zerocopy`, `memory`, `frames` or
    /// `patch`.
    pub mode: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Largest L3 packet it takes.
    pub mtu: u32,
    /// It has a link; of one end of a link to another bridge: it has a peer.
    pub up: bool,
    /// Why it has no link, where that is known.
    pub why_down: Option<String>,
    /// Its interface does not exist any more; one of the same name may. Detach it.
    pub gone: bool,
    /// What went through.
    pub counters: PortCounts,
}

/// A worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerStatus {
    /// Its number, from 0.
    pub id: usize,
    /// Core it is tied to.
    pub core: Option<usize>,
    /// Its thread runs.
    pub running: bool,
    /// Rounds over its ports.
    pub n_polls: u64,
    /// Rounds that found nothing.
    pub n_idle_polls: u64,
    /// Times it slept.
    pub n_sleeps: u64,
    /// What its switch did.
    pub counters: SwitchCounters,
    /// Sessions in its cache.
    pub n_sessions: usize,
    /// Megaflows in its cache.
    pub n_megaflows: usize,
    /// Packet buffers.
    pub n_frames: usize,
    /// Buffers that are free.
    pub n_free_frames: usize,
    /// Times that a buffer was wanted and none was free.
    pub n_exhausted: u64,
}

/// A receive queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueStatus {
    /// Which.
    pub id: QueueId,
    /// Worker that has it.
    pub worker: usize,
    /// It stays there.
    pub pinned: bool,
    /// Packets received since the port was attached.
    pub n_packets: u64,
    /// What a packet took, as sampled; `None`: none was.
    pub cycles_per_packet: Option<f64>,
}

/// Where a worker's time goes, since its start or since that was last forgotten. Times are in
/// cycles of the time stamp counter.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerPerf {
    /// Its number.
    pub id: usize,
    /// Core it is tied to.
    pub core: Option<usize>,
    /// When this was read, in cycles.
    pub at: u64,
    /// Cycles of a second.
    pub hz: u64,
    /// One busy round in so many is measured by stage; 0: none.
    pub every: u32,
    /// Cycles with packets, looking for some, asleep, and doing what commands asked for.
    pub busy: u64,
    /// Looking in vain.
    pub idle: u64,
    /// Asleep.
    pub asleep: u64,
    /// In jobs: what commands asked for.
    pub jobs: u64,
    /// The longest of them.
    pub longest_job: u64,
    /// Time that the thread had of a core since it started.
    pub cpu_time: Duration,
    /// Cycles of the measured rounds, by stage in the order of
    /// [`Stage::ALL`](flowtable::switch::Stage::ALL).
    pub stages: Vec<u64>,
    /// Rounds measured.
    pub n_sampled_rounds: u64,
    /// Their packets.
    pub n_sampled_packets: u64,
    /// Batches by their number of packets, from 0.
    pub batches: Vec<u64>,
    /// Rounds over the queues.
    pub n_polls: u64,
    /// Those that found nothing.
    pub n_idle_polls: u64,
    /// Times it slept.
    pub n_sleeps: u64,
    /// What its switch did since the start.
    pub counters: SwitchCounters,
}
