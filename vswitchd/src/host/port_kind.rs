//! How a workload's interface is attached, as its owner wants it.

use dataplane::{Device, Steering};
use serde::{Deserialize, Serialize};

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortKind {
    /// The way that suits the interface.
    #[default]
    Auto,
    /// By AF_XDP: for small packets by the million.
    AfXdp,
    /// By a packet socket: large packets cross whole.
    Packet,
    /// As a TAP device, made if it is not there.
    Tap,
}

impl PortKind {
    const ALL: [(&str, Self); 4] =
        [("auto", Self::Auto), ("afxdp", Self::AfXdp), ("packet", Self::Packet), ("tap", Self::Tap)];

    /// By its name; an empty one is the usual.
    pub fn by_name(name: &str) -> Option<Self> {
        let named = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        named.or_else(|| name.is_empty().then_some(Self::Auto))
    }

    /// It is the usual.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    pub(super) fn device(self, interface: &str) -> Device {
        let interface = interface.to_owned();
        match self {
            Self::Auto => Device::Workload { interface },
            Self::AfXdp => Device::AfXdp { interface, steering: Steering::All },
            Self::Packet => Device::Packet { interface, steering: Steering::All },
            Self::Tap => Device::Tap { interface },
        }
    }
}
