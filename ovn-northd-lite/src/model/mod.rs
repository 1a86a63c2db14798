//! The northbound model as the compiler takes it: typed, checked values. What is wrong
//! in a user's text is found when one of these is made, at the API's edge; inside there
//! is nothing left to refuse.

mod acl;
mod balancer;
mod gateway;
mod liveness;
mod multicast;
mod options;
mod qos;
mod route;
mod sample;
mod services;
mod translation;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use flowtable::types::{MacAddr, VlanId};

use crate::key::{DatapathKey, PortKey};

pub use self::{
    acl::{Acl, AclAction, AclDirection, AclLog, DefaultPolicy, PortGroup, SetMember, Severity},
    balancer::{
        Backend, HashField, HealthCheck, LoadBalancer, PortCheck, ProbePoint, Protocol, Responder, Service,
        TemplateBackend, TemplatePort, TemplateService, Vip, check_key,
    },
    gateway::{Access, Candidate, Gateway, Groups},
    liveness::Monitored,
    multicast::{Querier, Snooping},
    options::{PortOptions, RouterOptions, SwitchOptions},
    qos::{Bandwidth, QosRule, Shaping},
    route::{NextHop, PolicyAction, RouteMatch, RouteTarget, RouterPolicy, StaticRoute},
    sample::{Sample, SampleCollector, Samples},
    services::{
        AddressMode, DhcpOptions, DhcpV4, DhcpV6, Limits, Names, PortServices, Preference, Rate,
        RouterAdvertisement, SwitchServices,
    },
    translation::{Condition, Distributed, NatKind, NatRule},
};

/// The whole logical network. Maps are keyed by the id, the last segment of the
/// resource's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Northbound {
    /// Logical switches.
    pub switches: BTreeMap<String, LogicalSwitch>,
    /// Logical routers.
    pub routers: BTreeMap<String, LogicalRouter>,
    /// Load balancers. They do nothing until a switch or router names them.
    pub load_balancers: BTreeMap<String, LoadBalancer>,
    /// Ids of load balancers by groups, for switches and routers to name.
    pub balancer_groups: BTreeMap<String, BTreeSet<String>>,
    /// Hosts that may be a gateway by groups, for ports to name.
    pub ha_groups: Groups,
    /// Address sets.
    pub address_sets: BTreeMap<String, BTreeSet<SetMember>>,
    /// Values by chassis, by the name of the variable that stands for them.
    pub template_variables: BTreeMap<String, TemplateVariable>,
    /// Who is told of sampled packets, for ACLs to name.
    pub sample_collectors: BTreeMap<String, SampleCollector>,
    /// Port groups.
    pub port_groups: BTreeMap<String, PortGroup>,
    /// What DHCP clients are told, for ports and switches to name.
    pub dhcp_options: BTreeMap<String, DhcpOptions>,
    /// Names and their addresses, for switches to name.
    pub names: BTreeMap<String, Names>,
    /// Bounds on what hosts are asked for, for switches and routers to name.
    pub limits: BTreeMap<String, Limits>,
    /// Who hosts have heard of on the networks of router ports, by the port.
    pub heard: BTreeMap<String, BTreeMap<IpAddr, MacAddr>>,
}

/// What a variable is on each chassis that has values for it.
pub type TemplateVariable = BTreeMap<String, BTreeSet<String>>;

/// An L2 network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalSwitch {
    /// Its key in tunnels.
    pub key: DatapathKey,
    /// Its ports. Ids are unique over all switches and routers.
    pub ports: BTreeMap<String, SwitchPort>,
    /// Its ACLs.
    pub acls: BTreeMap<String, Acl>,
    /// What becomes of packets that no ACL decides about.
    pub default_policy: DefaultPolicy,
    /// Its rules about quality of service.
    pub qos_rules: BTreeMap<String, QosRule>,
    /// Ids of the load balancers its workloads use.
    pub load_balancers: BTreeSet<String>,
    /// Ids of groups of such.
    pub balancer_groups: BTreeSet<String>,
    /// What hosts answer for it.
    pub services: SwitchServices,
    /// What it does besides.
    pub options: SwitchOptions,
}

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPort {
    /// Key within the switch.
    pub key: PortKey,
    /// What is attached.
    pub kind: SwitchPortKind,
    /// Neither sends nor receives when false.
    pub enabled: bool,
    /// What hosts answer for it.
    pub services: PortServices,
    /// What it does besides.
    pub options: PortOptions,
    /// Groups that somebody behind it wants to hear, as hosts have been told; the unspecified
    /// address: everything, a router is there.
    pub hears: BTreeSet<IpAddr>,
}

/// What is attached to a switch port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchPortKind {
    /// A workload.
    Workload {
        /// Addresses it has.
        addresses: Vec<PortAddresses>,
        /// It also takes frames to addresses nobody has.
        unknown: bool,
        /// Source addresses it may use; empty: any.
        port_security: Vec<PortSecurity>,
        /// Id of the chassis its interface is on.
        chassis: Option<String>,
        /// Ids of those where it has another one, while it moves.
        additional: BTreeSet<String>,
        /// How it is attached.
        access: Access,
    },
    /// A router.
    Router {
        /// Id of the router.
        router: String,
        /// Id of the router's port.
        port: String,
    },
    /// Another switch, where that one's port is for this one: the two are one network, each
    /// with its own rules.
    Switch {
        /// Id of the switch.
        switch: String,
        /// Id of its port.
        port: String,
    },
    /// A network outside. It has the addresses that nobody is known to have.
    Network {
        /// Name by which hosts know their interface to it.
        network: String,
        /// VLAN tag of its frames; `None`: they have none.
        tag: Option<VlanId>,
        /// The tag is one of a provider (IEEE 802.1ad).
        is_service: bool,
        /// Hosts that may connect to it; of these one does. Empty: every host has the
        /// network, and what it carries needs no tunnel.
        gateway: Gateway,
    },
}

impl SwitchPort {
    /// Stations behind it are remembered.
    pub(crate) fn has_stations(&self) -> bool {
        let (is_able, is_usual) = match &self.kind {
            SwitchPortKind::Workload { unknown, port_security, access, .. } => {
                (port_security.is_empty() && access.has_frames(), *unknown)
            }
            SwitchPortKind::Network { .. } => (true, false),
            SwitchPortKind::Switch { .. } => (true, true),
            SwitchPortKind::Router { .. } => (false, false),
        };
        is_able && self.options.learns.unwrap_or(is_usual)
    }

    /// It has a say in what the whole switch does. Of most ports nobody but their neighbours takes notice.
    pub(crate) fn is_notable(&self) -> bool {
        let is_workload = matches!(self.kind, SwitchPortKind::Workload { .. });
        let hears = !self.hears.is_empty() || self.options.hears_all || self.options.hears_reports;
        !is_workload || hears || self.kind.takes_unknown() || self.has_stations()
    }
}

impl SwitchPortKind {
    /// It takes frames to addresses that nobody is known to have.
    pub(crate) fn takes_unknown(&self) -> bool {
        matches!(self, Self::Workload { unknown: true, .. } | Self::Network { .. } | Self::Switch { .. })
    }

    /// Hosts that may have it, where that is said.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        match self {
            Self::Network { gateway, .. } | Self::Workload { access: Access::External(gateway), .. } => {
                Some(gateway)
            }
            Self::Workload { .. } | Self::Router { .. } | Self::Switch { .. } => None,
        }
    }

    /// Frames to its addresses go where those were seen last.
    pub(crate) fn is_looked_up(&self, options: &PortOptions) -> bool {
        options.is_looked_up && matches!(self, Self::Workload { unknown: true, .. })
    }

    /// A network outside that every host has.
    pub(crate) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Network { gateway, .. } if gateway.is_empty())
    }
}

/// A MAC address with its IP addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortAddresses {
    /// MAC address.
    pub mac: MacAddr,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
}

/// A MAC address a workload may send from, and the IP addresses with it; no IP
/// address: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSecurity {
    /// MAC address.
    pub mac: MacAddr,
    /// IP networks.
    pub ips: Vec<IpNetwork>,
}

/// An address with a prefix length: host bits may be set (an interface's address) or
/// not (a destination).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNetwork {
    /// Address.
    pub addr: IpAddr,
    /// Bits of the network.
    pub prefix_len: u8,
}

/// An L3 device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalRouter {
    /// Its key in tunnels.
    pub key: DatapathKey,
    /// Drops everything when false.
    pub enabled: bool,
    /// Its ports.
    pub ports: BTreeMap<String, RouterPort>,
    /// Its static routes.
    pub static_routes: Vec<StaticRoute>,
    /// Id of the chassis that the whole router is on; `None`: it is everywhere.
    pub chassis: Option<String>,
    /// Its policies, by id.
    pub policies: BTreeMap<String, RouterPolicy>,
    /// Its address translations, by id.
    pub nats: BTreeMap<String, NatRule>,
    /// Ids of its load balancers.
    pub load_balancers: BTreeSet<String>,
    /// Ids of groups of such.
    pub balancer_groups: BTreeSet<String>,
    /// Id of the bounds on what it asks hosts for.
    pub limits: Option<String>,
    /// What it does besides.
    pub options: RouterOptions,
}

/// An interface of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPort {
    /// Key within the router.
    pub key: PortKey,
    /// MAC address.
    pub mac: MacAddr,
    /// Addresses, each with its network.
    pub networks: Vec<IpNetwork>,
    /// Neither sends nor receives when false.
    pub enabled: bool,
    /// Hosts that may be the gateway: packets leave and enter by this port on one of them.
    /// Empty: the port is wherever its router is.
    pub gateway: Gateway,
    /// What hosts on its network are told of it.
    pub advertisement: Option<RouterAdvertisement>,
    /// Who has which address on its networks, without being asked.
    pub static_macs: BTreeMap<IpAddr, StaticMac>,
    /// Length of the largest IP packet that leaves by it; `None`: any.
    pub mtu: Option<u16>,
    /// Packets that may be larger, in the match language; empty: none.
    pub mtu_bypass: String,
    /// Name of the static routes that packets take which come by it; empty: those without.
    pub route_table: String,
    /// What the router sends to any group leaves by it, too.
    pub hears_all: bool,
    /// Next hops that are asked whether they live.
    pub monitored: BTreeMap<IpAddr, Monitored>,
    /// It is where the gateway of the router's one gateway port is.
    pub resides: bool,
    /// Packets get to its gateway by the network outside that its switch is in, not by tunnels.
    pub bridges: bool,
    /// DHCP server elsewhere that serves clients on its network.
    pub dhcp_server: Option<Ipv4Addr>,
}

/// Somebody on a network of a router port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticMac {
    /// MAC address.
    pub mac: MacAddr,
    /// Whatever hosts hear of the address.
    pub overrides: bool,
}
