//! Quality of service: how packets are marked, and how much there may be of them.

use flowtable::types::Priority;

use super::AclDirection;

/// What becomes of packets that pass, besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosRule {
    /// Where it applies.
    pub direction: AclDirection,
    /// 0 to 32767; the highest that matches decides.
    pub priority: Priority,
    /// Which packets, in the match language; see `crate::expr`.
    pub matching: String,
    /// The differentiated services code point (RFC 2474) they leave with.
    pub dscp: Option<u8>,
    /// How much there may be of them on a host; what is beyond is dropped.
    pub bandwidth: Option<Bandwidth>,
}

/// How fast what a port's workload sends leaves its host for others and for networks outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shaping {
    /// Bits per second that it gets before others get more than theirs.
    pub min: Option<u64>,
    /// Bits per second that it gets at most; what is beyond waits.
    pub max: Option<u64>,
    /// Bits that may leave at once after a pause; `None`: the usual.
    pub burst: Option<u64>,
}

/// Bits per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bandwidth {
    /// Thousands of bits per second.
    pub kbps: u32,
    /// Thousands of bits that may come at once.
    pub burst_kbit: u32,
}
