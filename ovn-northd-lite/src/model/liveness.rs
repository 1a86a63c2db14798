//! Next hops that are asked whether they live.

/// A session of bidirectional forwarding detection (RFC 5880) with a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitored {
    /// Milliseconds between two packets that are sent, at least.
    pub min_tx: u32,
    /// Milliseconds between two packets that can be taken, at least.
    pub min_rx: u32,
    /// So many intervals without a packet end the session.
    pub multiplier: u8,
    /// The host that has the port says that both sides hear each other.
    pub is_up: bool,
}
