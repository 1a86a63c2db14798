//! The lab: a host whose ports are queues of frames and whose clock obeys. Its rules are
//! written by hand (`handmade.rs`), or made from the network of a controller. Everything else
//! is as on any host. What is between the hosts of a lab is `crate::lab`.
//!
//! It is deterministic: frames are switched one after the other by the one worker, and
//! whoever injects waits for that; hashes have a fixed seed.

mod driving;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use dataplane::{InjectError, MemoryPort, VirtualClock};
use flowtable::{
    types::{MacAddr, Timestamp},
    underlay::NextHop,
};

use super::{BridgeError, PortError, Row, UPLINK, tunnels::GENEVE};

pub use driving::NewLabPort;
pub(crate) use driving::since;

/// MTU of a port that was not given one.
const DEFAULT_MTU: u32 = 1500;
/// The port to the other hosts of a lab.
pub const LAB_UPLINK: &str = "underlay";
/// Its MTU: the largest packets of workloads reach other hosts whole.
const UPLINK_MTU: u32 = DEFAULT_MTU + GENEVE.overhead;
/// Frames that may leave by a port in one burst.
const QUEUE: usize = 4096;
/// Frames that are kept for each port; the oldest are forgotten.
const KEPT: usize = 4096;

/// What makes a host a lab.
#[derive(Debug)]
pub struct Lab {
    clock: VirtualClock,
    /// By name of the port.
    wires: BTreeMap<String, Wire>,
    /// Frames for other hosts, where there are some.
    outgoing: Option<VecDeque<Outgoing>>,
    /// Which run of the host this is, where that does not follow from the time.
    incarnation: Option<u64>,
}

/// The outside of a port.
#[derive(Debug)]
struct Wire {
    memory: MemoryPort,
    /// The MTU, where it was asked for.
    mtu: Option<u32>,
    /// Who else is on the wire; `None`: whoever plays a workload.
    way: Option<Way>,
    sent: VecDeque<Sent>,
    n_sent: u64,
}

/// What is on the wire of a port that other hosts have as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// What carries tunnelled packets.
    Underlay,
    /// The physical network of this name.
    Network(String),
}

/// A frame for other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What it left by.
    pub way: Way,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// A frame that has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Name of the port it left by.
    pub port: String,
    /// How many had left by this port before.
    pub index: u64,
    /// When.
    pub time: Timestamp,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// What became of injected frames.
#[derive(Debug, Clone, Default)]
pub struct Injected {
    /// How many left by a port.
    pub n_forwarded: u64,
    /// How many did not.
    pub n_dropped: u64,
    /// Why, and copies that were lost.
    pub drops: Vec<Row>,
    /// What has left.
    pub sent: Vec<Sent>,
}

/// A lab's command failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The host's ports are interfaces.
    #[error(
        "this vswitchd forwards for real: its ports are interfaces, its time is the machine's; for a lab start another: vswitchd --virtual --socket PATH"
    )]
    NotALab,
    /// There is no such port.
    #[error("port `{0}`: there is none of this name or number; vswitchctl port list shows those there are")]
    NoPort(String),
    /// Ports of several bridges have the number.
    #[error(
        "port {0}: each bridge has its own numbers; use the port's name, or name the bridge with --bridge"
    )]
    WhichBridge(String),
    /// The bridge is not there.
    #[error("{0}")]
    Bridge(#[from] BridgeError),
    /// It is one end of a link.
    #[error(
        "port {0} is one end of a link to another bridge; nothing is on its wire but what that bridge sends"
    )]
    IsPatch(String),
    /// A frame was not taken.
    #[error("{0}")]
    Inject(#[from] InjectError),
    /// The port cannot be added.
    #[error("{0}")]
    Port(#[from] PortError),
}

impl Lab {
    /// A lab without ports, by itself.
    pub fn new(clock: VirtualClock) -> Self {
        Self { clock, wires: BTreeMap::new(), outgoing: None, incarnation: None }
    }

    /// The same, one of several hosts: what leaves for others is to be taken to them.
    pub fn among_others(clock: VirtualClock) -> Self {
        Self { outgoing: Some(VecDeque::new()), ..Self::new(clock) }
    }

    /// The same, as a certain run of its host: each run has a higher number than the one before.
    #[must_use]
    pub fn in_run(self, incarnation: u64) -> Self {
        Self { incarnation: Some(incarnation), ..self }
    }

    pub(super) fn incarnation(&self) -> Option<u64> {
        self.incarnation
    }

    /// Its clock.
    pub fn clock(&self) -> &VirtualClock {
        &self.clock
    }

    pub(super) fn add(&mut self, name: &str, mtu: Option<u32>, network: &str) {
        // Locally administered, the same for all: no frame of the switch's own has it.
        let mac = MacAddr::new([0x02, 0, 0, 0, 0, 0x01]);
        let way = (!network.is_empty()).then(|| Way::Network(network.to_owned()));
        self.insert(name, (mac, mtu.unwrap_or(DEFAULT_MTU)), Wire { mtu, way, ..Wire::unplugged() });
    }

    pub(super) fn add_uplink(&mut self) -> MemoryPort {
        let mac = MacAddr::new([0x02, 0, 0, 0, 0, 0x02]);
        let wire = Wire { way: Some(Way::Underlay), ..Wire::unplugged() };
        self.insert(LAB_UPLINK, (mac, UPLINK_MTU), wire)
    }

    fn insert(&mut self, name: &str, (mac, mtu): (MacAddr, u32), wire: Wire) -> MemoryPort {
        let memory = MemoryPort::with(QUEUE, mac, mtu);
        self.wires.insert(name.to_owned(), Wire { memory: memory.clone(), ..wire });
        memory
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.wires.remove(name);
    }

    pub(super) fn memory(&self, name: &str) -> Option<&MemoryPort> {
        self.wires.get(name).map(|wire| &wire.memory)
    }

    pub(super) fn mtu(&self, name: &str) -> Option<u32> {
        self.wires.get(name)?.mtu
    }

    /// Takes what has left the ports.
    pub(super) fn collect(&mut self) -> Vec<Sent> {
        let time = self.clock.now();
        let mut collected = Vec::new();
        for (port, wire) in &mut self.wires {
            while let Some(frame) = wire.memory.receive() {
                if let (Some(way), Some(outgoing)) = (&wire.way, &mut self.outgoing) {
                    outgoing.push_back(Outgoing { way: way.clone(), frame: frame.clone() });
                }
                let sent = Sent { port: port.clone(), index: wire.n_sent, time, frame };
                wire.n_sent += 1;
                if wire.sent.len() == KEPT {
                    wire.sent.pop_front();
                }
                wire.sent.push_back(sent.clone());
                collected.push(sent);
            }
        }
        collected
    }

    /// Takes what is for other hosts.
    pub(super) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        self.outgoing.as_mut().map(std::mem::take).unwrap_or_default().into()
    }

    fn is_shared(&self, name: &str) -> bool {
        let wire = self.wires.get(name);
        self.outgoing.is_some() && wire.is_some_and(|wire| wire.way == Some(Way::Underlay))
    }

    /// Ports with this on their wire.
    fn by_way(&self, way: &Way) -> Vec<String> {
        let found = self.wires.iter().filter(|(_, wire)| wire.way.as_ref() == Some(way));
        found.map(|(name, _)| name.clone()).collect()
    }
}

impl Wire {
    fn unplugged() -> Self {
        Self { memory: MemoryPort::new(1), mtu: None, way: None, sent: VecDeque::new(), n_sent: 0 }
    }
}

/// The way to another host of a lab.
pub(super) fn next_hop(peer: IpAddr) -> NextHop {
    let [a, b, c, d] = match peer {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    let mac = |kind| MacAddr::new([0x02, kind, a, b, c, d]);
    NextHop { port: UPLINK, src_mac: mac(1), dst_mac: mac(2) }
}
