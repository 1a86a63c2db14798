//! What bridges compare: ids, priority vectors, times (IEEE 802.1D-2004 §17.5, §17.6).

use std::fmt;

use flowtable::types::MacAddr;

/// Units of times on the wire in a second (§9.2.8).
pub(super) const SECOND: u16 = 256;

/// A bridge among all: its priority, then its address. The lowest is the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BridgeId {
    /// A multiple of 4096 by recommendation; the lower, the sooner the root.
    pub priority: u16,
    /// Address of the bridge.
    pub address: MacAddr,
}

impl BridgeId {
    pub(super) fn from_bytes([a, b, rest @ ..]: [u8; 8]) -> Self {
        Self { priority: u16::from_be_bytes([a, b]), address: MacAddr::new(rest) }
    }

    pub(super) fn to_bytes(self) -> [u8; 8] {
        let ([a, b], [c, d, e, f, g, h]) = (self.priority.to_be_bytes(), self.address.octets());
        [a, b, c, d, e, f, g, h]
    }
}

impl fmt::Display for BridgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}.{}", self.priority, self.address)
    }
}

/// A port among those of its bridge: 4 bits of priority, 12 of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PortId(u16);

impl PortId {
    /// Of a port with a priority, of which the upper 4 bits count, and a number of 12 bits.
    pub const fn new(priority: u8, number: u16) -> Self {
        Self((priority as u16 & 0xf0) << 8 | number & 0xfff)
    }

    pub(super) const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// As on the wire.
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// A priority vector without the receiving port: the lower, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Priority {
    /// The root, as the sender knows it.
    pub root: BridgeId,
    /// What the way there costs from the sender.
    pub cost: u32,
    /// The sender.
    pub bridge: BridgeId,
    /// The sender's port.
    pub port: PortId,
}

impl Priority {
    /// From the same port of the same bridge.
    pub(super) fn is_of_same_port(&self, other: &Self) -> bool {
        self.bridge.address == other.bridge.address && self.port.raw() & 0xfff == other.port.raw() & 0xfff
    }

    /// It replaces what is known: it is better, or the same sender has changed its mind.
    pub(super) fn is_superior_to(&self, known: &Self) -> bool {
        self < known || self != known && self.is_of_same_port(known)
    }
}

/// Times of the root, in 256ths of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Times {
    /// How many bridges the root's word has passed, each worth a second.
    pub message_age: u16,
    /// When it is too old.
    pub max_age: u16,
    /// How often it is said.
    pub hello_time: u16,
    /// How long a port listens, and then learns, before it forwards.
    pub forward_delay: u16,
}

impl Times {
    /// Whole seconds of one of them, at least one.
    pub(super) fn secs(time: u16) -> u16 {
        (time / SECOND).max(1)
    }
}
