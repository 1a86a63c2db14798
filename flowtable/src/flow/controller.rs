//! What a rule says about packets for the controller.

use std::fmt;

use crate::types::MeterId;

/// Bytes of a packet that stand for "all of it" (OpenFlow 1.5 `OFPCML_NO_BUFFER`).
pub const WHOLE_PACKET: u16 = 0xffff;

/// Why a packet is sent to a controller (OpenFlow 1.5 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum PuntReason {
    /// The rule for what no other rule matches.
    NoMatch,
    /// A rule says so.
    #[default]
    Action,
    /// The TTL ran out.
    InvalidTtl,
    /// An action of the action set.
    ActionSet,
    /// An action of a group.
    Group,
    /// An action of a packet-out.
    PacketOut,
    /// It is looked at, and goes on: what becomes of the packet does not depend on it. Not of
    /// OpenFlow.
    Log,
    /// A protocol of bridges, which the host speaks itself; no rule says so.
    Protocol,
}

impl PuntReason {
    /// All reasons that rules may give.
    pub const ALL: &[Self] = &[
        Self::NoMatch,
        Self::Action,
        Self::InvalidTtl,
        Self::ActionSet,
        Self::Group,
        Self::PacketOut,
        Self::Log,
    ];

    /// Name in flow text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoMatch => "no_match",
            Self::Action => "action",
            Self::InvalidTtl => "invalid_ttl",
            Self::ActionSet => "action_set",
            Self::Group => "group",
            Self::PacketOut => "packet_out",
            Self::Log => "log",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for PuntReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a packet goes to a controller: the arguments of `controller(...)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ToController {
    /// Bytes of the packet to send; [`WHOLE_PACKET`]: all, as of a packet that waits.
    pub max_len: u16,
    /// The reason to give.
    pub reason: PuntReason,
    /// Which controller.
    pub controller: u16,
    /// For the controller, not looked at.
    pub userdata: Vec<u8>,
    /// The packet waits here for the controller's answer, and goes on from there.
    pub pause: bool,
    /// Only what this meter lets pass is sent.
    pub meter: Option<MeterId>,
}

impl Default for ToController {
    fn default() -> Self {
        Self {
            max_len: WHOLE_PACKET,
            reason: PuntReason::Action,
            controller: 0,
            userdata: Vec::new(),
            pause: false,
            meter: None,
        }
    }
}
