//! What the compiler yields and a chassis is told: datapaths, bindings, groups and
//! logical flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use flowtable::{
    program::TunnelKind,
    types::{MacAddr, Priority, VlanId},
};

pub use crate::model::{Candidate, HealthCheck, Protocol, Shaping, Vip};
use crate::{
    key::{DatapathKey, PortKey},
    model::{Limits, Snooping},
    text::Text,
};

/// The compiled network, or the part of it that one chassis needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Southbound {
    /// Logical switches and routers.
    pub datapaths: BTreeMap<DatapathKey, Datapath>,
    /// Logical ports by their id.
    pub bindings: BTreeMap<String, PortBinding>,
    /// Multicast groups.
    pub groups: BTreeMap<(DatapathKey, PortKey), MulticastGroup>,
    /// Hosts by their id.
    pub chassis: BTreeMap<String, ChassisRecord>,
    /// Logical flows by their id, which begins with the key of their datapath.
    pub flows: BTreeMap<u64, Arc<LogicalFlow>>,
    /// Sets by the names flows have for them: of addresses and networks (`$web`), of ids of
    /// ports (`@db`); and name records (`#zone`), which no flow but the host's responder reads.
    pub sets: BTreeMap<String, BTreeSet<String>>,
}

/// A logical switch or router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datapath {
    /// Northbound resource name, `switches/web`.
    pub name: String,
    /// A router.
    pub is_router: bool,
    /// Names of the sets that its flows speak of, and of the names its workloads see.
    pub sets: BTreeSet<String>,
    /// Bounds on what it asks hosts for, where they are not the usual ones.
    pub limits: Limits,
    /// Hosts listen to what its workloads say about groups.
    pub snooping: Option<Snooping>,
    /// Connections that a host remembers at most in each of its zones.
    pub max_connections: Option<u32>,
    /// Zone of connections whose source it translates; `None`: one that the host gives it.
    pub snat_zone: Option<u16>,
}

/// A logical port and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Datapath it belongs to.
    pub datapath: DatapathKey,
    /// Key within the datapath.
    pub key: PortKey,
    /// Id of the port at the other side of a patch; of a redirect, the port by whose switch
    /// packets get to the gateway without a tunnel. `None`: a workload's port, or by a tunnel.
    pub peer: Option<String>,
    /// Id of the chassis it is bound to; of a patch, the only one that has it.
    pub chassis: Option<String>,
    /// What a router's port says unasked.
    pub advertises: Option<Advertises>,
    /// Without a chassis: those that may have it, the best first. Which one does, each host
    /// sees for itself.
    pub gateway: Vec<Candidate>,
    /// Ids of ports that have a way through this patch on their own chassis, whoever is the
    /// gateway.
    pub open_for: BTreeSet<String>,
    /// How packets get there.
    pub wire: Wire,
    /// Addresses that networks outside reach by this port, for its chassis to tell them.
    pub announced: Vec<Announced>,
    /// What its chassis asks the workload, to see whether it serves.
    pub probes: Vec<Probe>,
    /// Next hops that its chassis asks whether they live.
    pub sessions: Vec<Session>,
    /// How fast what its workload sends leaves its chassis.
    pub shaping: Option<Shaping>,
    /// Ids of chassis that have an interface of the workload besides, while it moves.
    pub additional: BTreeSet<String>,
    /// There it neither sends nor receives before the workload has said by RARP that it goes on
    /// there.
    pub awaits_rarp: bool,
    /// Connections are tracked at this side of a patch, where that is on one chassis.
    pub tracked: bool,
    /// Connections that a host remembers at most in its zone; `None`: as many as the datapath says.
    pub max_connections: Option<u32>,
}

/// A session of a router's port with a next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    /// The next hop.
    pub peer: IpAddr,
    /// Address of the port.
    pub source: IpAddr,
    /// MAC address of the port.
    pub mac: MacAddr,
    /// Milliseconds between two packets that are sent, and that can be taken, at least.
    pub min_tx: u32,
    /// See `min_tx`.
    pub min_rx: u32,
    /// So many intervals without a packet end it.
    pub multiplier: u8,
}

/// A question to a backend of a load balancer whether it serves, or to a workload as such.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// Id of the load balancer; empty: it is the port's own check.
    pub balancer: String,
    /// The service; of a port's own check, the address that is asked.
    pub vip: Vip,
    /// Address and port of the backend; port 0: there are none.
    pub backend: (IpAddr, u16),
    /// Protocol that it serves by; `None`: it is asked for an echo of ICMP.
    pub protocol: Option<Protocol>,
    /// MAC address of the backend.
    pub mac: MacAddr,
    /// Address that it is asked from.
    pub source: IpAddr,
    /// How often, and what is made of the answers.
    pub check: HealthCheck,
}

impl PortBinding {
    /// A port with an interface, or a patch, that is nowhere yet.
    pub fn new(datapath: DatapathKey, key: PortKey) -> Self {
        let (gateway, open_for, wire, announced) = Default::default();
        let (peer, chassis, advertises) = (None, None, None);
        let (probes, sessions) = (Vec::new(), Vec::new());
        Self {
            datapath,
            key,
            peer,
            chassis,
            advertises,
            gateway,
            open_for,
            wire,
            announced,
            probes,
            sessions,
            shaping: None,
            additional: BTreeSet::new(),
            awaits_rarp: false,
            tracked: false,
            max_connections: None,
        }
    }
}

/// Router advertisements that nobody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertises {
    /// The router port's MAC address.
    pub mac: MacAddr,
    /// The ICMPv6 message, without its checksum.
    pub message: Vec<u8>,
    /// Least and most seconds between two.
    pub interval: (u16, u16),
}

/// How packets get to a port that is here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wire {
    /// By its own interface, or through its patch.
    #[default]
    Own,
    /// By the interface that the chassis has to a network.
    Network {
        /// Name of the network.
        name: String,
        /// VLAN tag of its frames.
        tag: Option<VlanId>,
        /// The tag is one of a provider (IEEE 802.1ad).
        is_service: bool,
    },
    /// To the gateway port of the same router, by a stage of ingress.
    Redirect {
        /// Number of the stage.
        stage: u8,
    },
    /// By the interface of another port, with a VLAN tag.
    Nested {
        /// Id of that port.
        parent: String,
        /// The tag.
        tag: VlanId,
    },
    /// By the interface that each chassis has for it, from that chassis alone.
    EachChassis,
    /// By the network outside that its datapath is connected to.
    External,
}

/// An address that is reached through the chassis that has a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Announced {
    /// MAC address.
    pub mac: MacAddr,
    /// IP address; `None`: told by RARP, without one.
    pub ip: Option<IpAddr>,
    /// Id of the port.
    pub port: String,
}

/// A set of ports of one datapath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MulticastGroup {
    /// Name in the match language, `_MC_flood`.
    pub name: String,
    /// Ids of the ports.
    pub ports: BTreeSet<String>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisRecord {
    /// Address for tunnelled packets.
    pub encap_ip: IpAddr,
    /// How others may send to it, the way it likes best first; none: by Geneve.
    pub encap_types: Vec<TunnelKind>,
}

impl ChassisRecord {
    /// A host with this address, to which others send by Geneve.
    pub fn at(encap_ip: impl Into<IpAddr>) -> Self {
        Self { encap_ip: encap_ip.into(), encap_types: Vec::new() }
    }

    /// How others may send to it, the way it likes best first.
    pub fn encap_types(&self) -> &[TunnelKind] {
        if self.encap_types.is_empty() { &[TunnelKind::Geneve] } else { &self.encap_types }
    }
}

/// Which of a datapath's pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipeline {
    /// At the source.
    Ingress,
    /// At the destination.
    Egress,
}

/// One row of a logical pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalFlow {
    /// Datapath.
    pub datapath: DatapathKey,
    /// Pipeline.
    pub pipeline: Pipeline,
    /// Number of the stage within the pipeline.
    pub stage: u8,
    /// Name of the stage, `ls_in_acl_eval`.
    pub stage_name: Text,
    /// Precedence within the stage.
    pub priority: Priority,
    /// OVN match language.
    pub matching: String,
    /// OVN action language.
    pub actions: String,
    /// Northbound resource it was made for, `switches/web/acls/no-telnet`; empty: none.
    pub object: Text,
    /// One sentence: why there is such a flow.
    pub why: Text,
}
