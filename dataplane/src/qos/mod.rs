//! Rates of ports: what they may receive, what they may send, and the queues in which packets
//! wait for their turn to leave.
//!
//! [`bucket`] says when a packet is within a rate; [`shaper`] holds those that are not yet. Both
//! are pure: time is handed in. `pmd/shaping.rs` is where workers use them.

pub(crate) mod bucket;
pub(crate) mod shaper;

use std::{collections::BTreeMap, time::Duration};

/// A rate, of frames as they are on Ethernet without preamble and checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bits in a second. Never zero.
    pub bits_per_second: u64,
    /// Bits that may come at once after a pause.
    pub burst_bits: u64,
}

/// Shortest burst that is given to a rate without one.
const USUAL_BURST: Duration = Duration::from_millis(5);
/// Smallest burst that is given to a rate without one: two packets of 64 KiB, as containers
/// send them.
const LEAST_BURST: u64 = 2 * 8 * (64 << 10);

impl Rate {
    /// A rate with the usual burst: five milliseconds' worth, and at least 128 KiB.
    pub fn usual(bits_per_second: u64) -> Self {
        let burst = u128::from(bits_per_second) * USUAL_BURST.as_nanos() / 1_000_000_000;
        let burst_bits = u64::try_from(burst).unwrap_or(u64::MAX).max(LEAST_BURST);
        Self { bits_per_second: bits_per_second.max(1), burst_bits }
    }
}

/// One queue of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueSpec {
    /// What it gets before others get more than that.
    pub min: Option<Rate>,
    /// What it gets at most.
    pub max: Option<Rate>,
    /// Of what is left, lower numbers come first.
    pub priority: u8,
}

/// Rates of a port; nothing: none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRates {
    /// What is received beyond is dropped.
    pub receive: Option<Rate>,
    /// What is sent beyond waits, and is dropped when too much does.
    pub send: Option<Rate>,
    /// Queues by the number that rules name; what names none of them is in queue 0, which is
    /// always there.
    pub queues: BTreeMap<u16, QueueSpec>,
}

impl PortRates {
    /// Packets wait before they leave.
    pub(crate) fn shapes(&self) -> bool {
        self.send.is_some() || !self.queues.is_empty()
    }
}

/// What has gone through a queue since its port's rates were set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Packets that have left it.
    pub n_packets: u64,
    /// Their bytes.
    pub n_bytes: u64,
    /// Packets that it had no room for.
    pub n_dropped: u64,
    /// Packets that wait.
    pub n_waiting: u64,
}

impl std::ops::AddAssign for QueueCounts {
    fn add_assign(&mut self, other: Self) {
        self.n_packets += other.n_packets;
        self.n_bytes += other.n_bytes;
        self.n_dropped += other.n_dropped;
        self.n_waiting += other.n_waiting;
    }
}
