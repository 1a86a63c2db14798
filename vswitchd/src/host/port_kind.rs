//! How a workload's port is attached, as its owner wants it.

use std::path::PathBuf;

use dataplane::{Device, MAX_QUEUE_PAIRS, Steering, VhostPort};
use serde::{Deserialize, Serialize};

/// Longest path of a socket, as the kernel has it.
const MAX_SOCKET_LEN: usize = 107;
/// What a guest may be sent: no more than an IP packet, no less than IPv4 asks for.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65_535;

/// How.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// As the network device of a virtual machine.
    #[serde(rename = "vhost-user")]
    VhostUser(VhostSettings),
}

/// How a virtual machine is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostSettings {
    /// The socket.
    pub socket: String,
    /// The switch makes it and listens; otherwise the other side does.
    pub listens: bool,
    /// Pairs of queues that the guest may have.
    pub n_queues: u16,
    /// Largest L3 packet to a guest that does not say; `None`: the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// What was asked for cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortKindError {
    /// There is no such kind.
    #[error("no such kind of port: {0}; auto, afxdp, packet, tap and vhost-user are")]
    Unknown(String),
    /// A virtual machine needs a socket, and nothing else has one.
    #[error("a port of kind vhost-user has a socket, and no other has; say --kind vhost-user --socket PATH")]
    Socket,
    /// The path cannot be a socket's.
    #[error("socket {0}: name it by a whole path, /run/vm1.sock, of up to {max} bytes", max = MAX_SOCKET_LEN)]
    Path(String),
    /// So many queues there cannot be.
    #[error("{0} queues; a port has 1 to {max}", max = MAX_QUEUE_PAIRS)]
    Queues(u32),
    /// An impossible MTU.
    #[error("an MTU of {0}; {min} to {max} are possible", min = MTUS.start(), max = MTUS.end())]
    Mtu(u32),
}

impl PortKind {
    const ALL: [(&str, Self); 4] =
        [("auto", Self::Auto), ("afxdp", Self::AfXdp), ("packet", Self::Packet), ("tap", Self::Tap)];
    const VHOST_USER: &str = "vhost-user";

    /// By its name; an empty one is the usual.
    ///
    /// # Errors
    /// There is none of this name, or it needs what was not said.
    pub fn by_name(name: &str, vhost: Option<VhostSettings>) -> Result<Self, PortKindError> {
        let usual = Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind);
        let usual = usual.or_else(|| name.is_empty().then_some(Self::Auto));
        match (usual, vhost) {
            (Some(usual), None) => Ok(usual),
            (None, Some(settings)) if name == Self::VHOST_USER => Ok(Self::VhostUser(settings)),
            (None, None) if name == Self::VHOST_USER => Err(PortKindError::Socket),
            (Some(_), Some(_)) => Err(PortKindError::Socket),
            (None, _) => Err(PortKindError::Unknown(name.to_owned())),
        }
    }

    /// It is the usual.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    /// How its virtual machine is reached, if it has one.
    pub fn vhost(&self) -> Option<&VhostSettings> {
        match self {
            Self::VhostUser(settings) => Some(settings),
            Self::Auto | Self::AfXdp | Self::Packet | Self::Tap => None,
        }
    }

    pub(super) fn device(&self, interface: &str) -> Device {
        let interface = interface.to_owned();
        match self {
            Self::Auto => Device::Workload { interface },
            Self::AfXdp => Device::AfXdp { interface, steering: Steering::All },
            Self::Packet => Device::Packet { interface, steering: Steering::All },
            Self::Tap => Device::Tap { interface },
            Self::VhostUser(settings) => Device::Vhost(VhostPort {
                socket: PathBuf::from(&settings.socket),
                listens: settings.listens,
                n_queues: settings.n_queues,
                mtu: settings.mtu,
            }),
        }
    }
}

impl VhostSettings {
    /// What was asked for; zero stands for the usual.
    ///
    /// # Errors
    /// It cannot be.
    pub fn new(socket: String, listens: bool, n_queues: u32, mtu: u32) -> Result<Self, PortKindError> {
        let is_path = socket.starts_with('/') && !socket.chars().any(char::is_control);
        if !is_path || socket.len() > MAX_SOCKET_LEN {
            return Err(PortKindError::Path(socket));
        }
        let within = u16::try_from(n_queues.max(1)).ok().filter(|n| *n <= MAX_QUEUE_PAIRS);
        let n_queues = within.ok_or(PortKindError::Queues(n_queues))?;
        if mtu != 0 && !MTUS.contains(&mtu) {
            return Err(PortKindError::Mtu(mtu));
        }
        Ok(Self { socket, listens, n_queues, mtu: (mtu != 0).then_some(mtu) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> VhostSettings {
        VhostSettings::new("/run/vm1.sock".to_owned(), true, 2, 9000).unwrap()
    }

    #[test]
    fn a_guest_has_a_socket_and_nothing_else_has() {
        assert_eq!(PortKind::by_name("", None), Ok(PortKind::Auto));
        assert_eq!(PortKind::by_name("tap", None), Ok(PortKind::Tap));
        assert_eq!(PortKind::by_name("vhost-user", Some(guest())), Ok(PortKind::VhostUser(guest())));
        for (name, vhost) in [("vhost-user", None), ("tap", Some(guest())), ("", Some(guest()))] {
            assert_eq!(PortKind::by_name(name, vhost), Err(PortKindError::Socket), "{name}");
        }
        assert!(matches!(PortKind::by_name("vhost", Some(guest())), Err(PortKindError::Unknown(_))));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let new = |socket: &str, n_queues, mtu| VhostSettings::new(socket.to_owned(), false, n_queues, mtu);
        assert_eq!(new("/a", 0, 0).unwrap().n_queues, 1);
        let long = format!("/{}", "a".repeat(MAX_SOCKET_LEN));
        for socket in ["", "vm1.sock", "/a\nb", &long] {
            assert!(matches!(new(socket, 1, 0), Err(PortKindError::Path(_))), "{socket}");
        }
        assert_eq!(new("/a", 65, 0), Err(PortKindError::Queues(65)));
        assert_eq!(new("/a", u32::MAX, 0), Err(PortKindError::Queues(u32::MAX)));
        assert_eq!(new("/a", 1, 67), Err(PortKindError::Mtu(67)));
    }

    #[test]
    fn it_is_saved_and_comes_back() {
        for kind in [PortKind::Auto, PortKind::Tap, PortKind::VhostUser(guest())] {
            let text = serde_json::to_string(&kind).unwrap();
            assert_eq!(serde_json::from_str::<PortKind>(&text).unwrap(), kind, "{text}");
        }
        assert_eq!(serde_json::from_str::<PortKind>("\"afxdp\"").unwrap(), PortKind::AfXdp);
    }
}
