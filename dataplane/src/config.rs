//! What a dataplane and its ports are made of.

use std::{fmt, net::IpAddr, time::Duration};

use flowtable::{
    quota::Quota,
    switch::SwitchConfig,
    types::{BridgeId, PortNo},
};

use crate::{
    balance::Balancing,
    clock::Clock,
    port::{AttachError, frames::FramePort, memory::MemoryPort, vhost::VhostPort},
    sys::steer::MAX_UDP_PORTS,
};

/// One worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkerConfig {
    /// Core it is tied to; `None` leaves the choice to the kernel.
    pub core: Option<usize>,
}

/// A receive queue belongs to a worker, whatever the load is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Name of its port.
    pub port: String,
    /// Its number in the port; `None`: all of them.
    pub queue: Option<usize>,
    /// The worker.
    pub worker: usize,
}

/// The dataplane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataplaneConfig {
    /// One for each worker; at least one.
    pub workers: Vec<WorkerConfig>,
    /// Never sleep: for cores that have nothing else to do.
    pub busy: bool,
    /// How long a worker looks for packets in vain before it sleeps.
    pub idle_spin: Duration,
    /// Caches of each worker.
    pub switch: SwitchConfig,
    /// Connections that all workers together track, of 128 bytes each; one with a helper, or
    /// of translated TCP over IPv6, takes the place of two.
    pub n_connections: usize,
    /// Frames of each worker, of 4 KiB. Must cover what all its ports hold at once: a
    /// batch, and what is under way to other workers.
    pub n_frames: usize,
    /// Packets that may wait for a port of another worker.
    pub n_handover: usize,
    /// Where time comes from.
    pub clock: Clock,
    /// Queues that are not moved by load.
    pub pins: Vec<Pin>,
    /// What each port may take of what all share.
    pub quota: Quota,
    /// When queues are moved by load.
    pub balancing: Balancing,
    /// What the hashes of the caches follow from; `None`: chance, so that nobody outside
    /// can foresee them.
    pub seed: Option<u64>,
    /// There are no threads: a worker's work is done by whoever calls, within the call. For simulations:
    /// what is injected into memory ports is switched, interfaces are not polled.
    pub inline: bool,
    /// How AF_XDP ports are had.
    pub af_xdp: AfXdpConfig,
}

/// How AF_XDP ports are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AfXdpConfig {
    /// Whose sockets.
    pub backend: AfXdpBackend,
    /// The worker polls devices itself, up to so many frames at a time, and their interrupts
    /// stay off as long as it does (`SO_PREFER_BUSY_POLL`). `None`: interrupts.
    pub busy_poll: Option<u16>,
}

/// Whose AF_XDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfXdpBackend {
    /// Ours, whose memory ports share.
    #[default]
    Own,
    /// Those of xsk-rs, each with a memory of its own.
    XskRs,
}

impl AfXdpBackend {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Own, Self::XskRs];
}

impl fmt::Display for AfXdpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::XskRs => "xsk-rs",
        })
    }
}

impl Default for DataplaneConfig {
    fn default() -> Self {
        Self {
            workers: vec![WorkerConfig::default()],
            busy: false,
            idle_spin: Duration::from_micros(50),
            switch: SwitchConfig::default(),
            n_connections: 1 << 16,
            n_frames: 4096,
            n_handover: 1024,
            clock: Clock::Machine,
            pins: Vec::new(),
            quota: Quota::default(),
            balancing: Balancing::default(),
            seed: None,
            inline: false,
            af_xdp: AfXdpConfig::default(),
        }
    }
}

/// Which received frames a port takes from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steering {
    /// All: the interface is the switch's.
    All,
    /// Only tunnelled packets: the interface stays the host's.
    Tunnel(TunnelSteering),
}

/// Which packets are tunnelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSteering {
    /// The host's address that peers send to.
    pub local: IpAddr,
    /// UDP ports of the tunnels.
    pub udp_ports: Vec<u16>,
    /// GRE as well.
    pub gre: bool,
}

impl TunnelSteering {
    /// How many sockets keep the host from answering for them.
    pub(crate) fn n_reserved(&self) -> usize {
        self.udp_ports.len() + usize::from(self.gre)
    }

    /// None can come.
    pub(crate) fn is_empty(&self) -> bool {
        self.udp_ports.is_empty() && !self.gre
    }
}

impl Steering {
    /// Which packets are tunnelled, when only those are taken.
    pub(crate) fn tunnel(&self, interface: &str) -> Result<Option<&TunnelSteering>, AttachError> {
        match self {
            Self::All => Ok(None),
            Self::Tunnel(TunnelSteering { udp_ports, .. }) if udp_ports.len() > MAX_UDP_PORTS => {
                let interface = interface.to_owned();
                Err(AttachError::TooManyUdpPorts { interface, n: udp_ports.len(), max: MAX_UDP_PORTS })
            }
            Self::Tunnel(tunnel) => Ok(Some(tunnel)),
        }
    }
}

/// A port among those of all bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId {
    /// Its bridge.
    pub bridge: BridgeId,
    /// Its number there.
    pub port: PortNo,
}

impl PortId {
    /// A port of a bridge.
    pub const fn new(bridge: BridgeId, port: PortNo) -> Self {
        Self { bridge, port }
    }
}

/// Of the one bridge that a dataplane begins with.
impl From<PortNo> for PortId {
    fn from(port: PortNo) -> Self {
        Self { bridge: BridgeId::FIRST, port }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bridge {
            BridgeId::FIRST => self.port.fmt(f),
            bridge => write!(f, "{} of bridge {bridge}", self.port),
        }
    }
}

/// What a port stands on.
#[derive(Debug, Clone)]
pub enum Device {
    /// A host interface.
    AfXdp {
        /// Its name.
        interface: String,
        /// What to take from it.
        steering: Steering,
    },
    /// A host interface whose packets come and go uncut, with checksums left to others: for the
    /// host's end of a veth pair. What is not taken from it is the host's.
    Packet {
        /// Its name.
        interface: String,
        /// What to take from it.
        steering: Steering,
    },
    /// The interface to other hosts, which stays the host's: by a packet socket when it is the
    /// end of a veth pair, otherwise by AF_XDP.
    Uplink {
        /// Its name.
        interface: String,
        /// What to take from it.
        steering: Steering,
    },
    /// The interface to other hosts, with all of its frames, by AF_XDP. It is the host's as soon as this process ends,
    /// whatever a keeper holds.
    Wire {
        /// Its name.
        interface: String,
    },
    /// A TAP device, made if it is not there, whose packets come and go uncut as well. It may
    /// be moved to another network namespace.
    Tap {
        /// Its name.
        interface: String,
    },
    /// The host's own way into the switch: a TAP device as well, but one that goes with this process,
    /// whatever a keeper holds.
    Internal {
        /// Its name.
        interface: String,
    },
    /// A workload's host interface, attached the way that suits it: a TAP device as such, the
    /// host's end of a veth pair as [`Device::Packet`] where the kernel can keep it from the host
    /// (Linux 6.6), all others by AF_XDP. The interface is the switch's.
    Workload {
        /// Its name.
        interface: String,
    },
    /// The network device of a virtual machine, by a socket.
    Vhost(VhostPort),
    /// Queues in this process.
    Memory(MemoryPort),
    /// Frames made and taken by code of the caller, in the worker's thread.
    Frames(FramePort),
    /// Nothing: it is one end of a link to another bridge, once it has a peer
    /// ([`Dataplane::link`](crate::Dataplane::link)).
    Patch {
        /// A packet that leaves by it keeps the queue that it was to leave by, for the port behind the
        /// other end; otherwise that is forgotten.
        keeps_queues: bool,
    },
}

/// A port to attach.
#[derive(Debug, Clone)]
pub struct PortSpec {
    /// Its bridge, and its number in rules.
    pub port: PortId,
    /// Its name in commands.
    pub name: String,
    /// What it stands on.
    pub device: Device,
}
