//! Options that say what is attached to a switch port, and what the port does besides.

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{
    Resource,
    logical_switch_port::{self, ActivationStrategy},
};
use serde::{Deserialize, Serialize};

use crate::{
    error::CtlError,
    host::rate::{self, Rate},
    name::Noun,
    net::{
        gateway::Candidate, object::unknown_value, port_check::PortCheck, router::full_chassis,
        switch_port::PortType,
    },
};

/// What is attached that is neither a router nor has an interface of its own.
#[derive(Debug, Args)]
pub struct Outside {
    /// Connect the switch to this network, by the interface that hosts have to it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["router_port", "addresses", "port_security"])]
    pub network: Option<String>,
    /// Only one of these hosts connects to it: CHASSIS=PRIORITY; may be repeated
    #[arg(long = "gateway", value_name = "CHASSIS=PRIORITY", group = "hosts")]
    pub gateways: Vec<Candidate>,
    /// Only one of the hosts of this group connects to it
    #[arg(long, value_name = "NAME", group = "hosts")]
    pub ha_chassis_group: Option<String>,
    /// The workload is in the network outside that the switch is connected to; one of the hosts
    /// named by --gateway or --ha-chassis-group answers it
    #[arg(long, requires = "hosts", conflicts_with_all = ["router_port", "network", "parent"])]
    pub external: bool,
    /// It is this address, which one of the ports named by --virtual-parent has at a time
    #[arg(long, value_name = "IP", requires = "virtual_parents",
          conflicts_with_all = ["router_port", "network", "parent", "external", "addresses", "port_security"])]
    pub virtual_ip: Option<String>,
    /// A port that may have the address; may be repeated
    #[arg(long = "virtual-parent", value_name = "PORT")]
    pub virtual_parents: Vec<String>,
    /// The workload is behind the interface of this port, as a container in a machine; with --tag or
    /// --tag-request
    #[arg(long, value_name = "PORT", requires = "vlan", conflicts_with_all = ["router_port", "network"])]
    pub parent: Option<String>,
    /// Link the switch to this port of another switch, which names this one in return; by its
    /// full name, switches/ID/ports/ID, while it is not there
    #[arg(long, value_name = "PORT",
          conflicts_with_all = ["router_port", "network", "parent", "external", "virtual_ip", "addresses", "port_security"])]
    pub peer: Option<String>,
    /// VLAN tag of the frames, 1 to 4094
    #[arg(long, value_name = "VLAN", group = "vlan", value_parser = clap::value_parser!(u32).range(1..=4094))]
    pub tag: Option<u32>,
    /// Have the VLAN tag chosen, of a workload with --parent
    #[arg(long, group = "vlan", conflicts_with = "network")]
    pub tag_request: bool,
    /// What marks the tag of frames to the network
    #[arg(long, value_enum, value_name = "TYPE")]
    pub ethtype: Option<TagType>,
}

/// What marks a tag on frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum TagType {
    /// 0x8100
    #[default]
    #[value(name = "802.1q")]
    #[serde(rename = "802.1q")]
    Customer,
    /// 0x88a8, a provider's
    #[value(name = "802.1ad")]
    #[serde(rename = "802.1ad")]
    Service,
}

impl TagType {
    /// Reads what the API says.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know it.
    pub fn read(resource: &Resource, kind: i32) -> Result<Self, CtlError> {
        match logical_switch_port::TagType::try_from(kind) {
            Ok(logical_switch_port::TagType::Unspecified) => Ok(Self::Customer),
            Ok(logical_switch_port::TagType::Service) => Ok(Self::Service),
            Err(_) => Err(unknown_value(resource, "tag_type", kind)),
        }
    }

    /// For the API.
    pub fn write(self) -> i32 {
        match self {
            Self::Customer => logical_switch_port::TagType::Unspecified,
            Self::Service => logical_switch_port::TagType::Service,
        }
        .into()
    }

    /// It need not be said.
    pub fn is_usual(&self) -> bool {
        *self == Self::Customer
    }
}

impl Outside {
    /// The port is neither a workload with an interface nor to a network.
    pub fn is_own_kind(&self) -> bool {
        self.external || self.virtual_ip.is_some() || self.peer.is_some()
    }

    /// Ports that it names.
    pub fn references(&mut self) -> impl Iterator<Item = (Noun, &mut String)> {
        let ports = self.parent.iter_mut().chain(&mut self.virtual_parents).chain(&mut self.peer);
        ports.map(|text| (Noun::SwitchPort, text))
    }

    /// Type of a port to a network, or of one of its own kind.
    pub fn kind(&self) -> PortType {
        if self.external {
            return PortType::External;
        }
        if self.virtual_ip.is_some() {
            return PortType::Virtual;
        }
        if self.peer.is_some() {
            return PortType::Switch;
        }
        let has_hosts = !self.gateways.is_empty() || self.ha_chassis_group.is_some();
        if has_hosts { PortType::L2gateway } else { PortType::Localnet }
    }

    /// The group of hosts, named in full, if something is said of it. A list takes its place.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the name can be none.
    pub fn group(&self) -> Result<Option<String>, CtlError> {
        match &self.ha_chassis_group {
            Some(text) => Noun::HaChassisGroup.full(text).map(Some),
            None => Ok((!self.gateways.is_empty()).then(String::new)),
        }
    }
}

/// From when on a second interface of a workload that moves sends and receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// From the start
    #[default]
    Now,
    /// When the workload has said there, by RARP, that it goes on there
    Rarp,
}

impl Activation {
    /// Reads what the API says.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know it.
    pub fn read(resource: &Resource, strategy: i32) -> Result<Self, CtlError> {
        match ActivationStrategy::try_from(strategy) {
            Ok(ActivationStrategy::Unspecified) => Ok(Self::Now),
            Ok(ActivationStrategy::Rarp) => Ok(Self::Rarp),
            Err(_) => Err(unknown_value(resource, "activation_strategy", strategy)),
        }
    }

    /// For the API.
    pub fn write(self) -> i32 {
        match self {
            Self::Now => ActivationStrategy::Unspecified,
            Self::Rarp => ActivationStrategy::Rarp,
        }
        .into()
    }

    /// It need not be said.
    pub fn is_usual(&self) -> bool {
        *self == Self::Now
    }
}

/// What a port does besides.
#[derive(Debug, Args)]
pub struct PortOptions {
    /// Whether stations behind it are remembered: true or false
    #[arg(long, value_name = "YES")]
    pub learn_fdb: Option<bool>,
    /// Send what is for its MAC addresses where these were seen last; with the address "unknown"
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub force_fdb_lookup: Option<bool>,
    /// Let nobody answer ARP and ND for its addresses but the workload itself
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub disable_arp_nd_rsp: Option<bool>,
    /// Whether it gets frames for everybody and for groups: true or false
    #[arg(long, value_name = "YES")]
    pub receive_multicast: Option<bool>,
    /// Do not tell networks outside where its addresses are
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub disable_garp_rarp: Option<bool>,
    /// An address or network that its router is to be taken to have; before them a MAC address
    /// instead of the router's; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub arp_proxy: Vec<String>,
    /// A chassis that may have its interface, if not any may; may be repeated
    #[arg(long, value_name = "CHASSIS")]
    pub requested_chassis: Vec<String>,
    /// A chassis where its workload may have a second interface while it moves; may be repeated
    #[arg(long = "additional-chassis", value_name = "CHASSIS")]
    pub additional_chassis: Vec<String>,
    /// From when on such an interface sends and receives
    #[arg(long, value_enum, value_name = "WHEN")]
    pub activation: Option<Activation>,
    /// Send what is for its addresses also to the ports that take unknown ones
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub clone_to_unknown: Option<bool>,
    /// Let ACLs with connections apply to what passes it, of a router that is on one host
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub router_port_acl: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 32767; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0x7fff))]
    pub tunnel_key: Option<u32>,
    /// Connections of its workload that its host remembers at most; 0: as many as the switch says
    #[arg(long, value_name = "N")]
    pub ct_zone_limit: Option<u32>,
    /// What its host asks its workload, PROTOCOL:ADDRESS@SOURCE, to see whether it lives:
    /// icmp:10.0.2.11@10.0.2.250, or tcp:10.0.2.11:80@10.0.2.250,5/20/3/3 with the seconds between
    /// questions and for an answer, and how many answers or failures in a row count; may be repeated
    #[arg(long = "check", value_name = "CHECK")]
    pub checks: Vec<PortCheck>,
    /// Let it get what is sent to any group, on a switch that listens
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub mcast_flood: Option<bool>,
    /// Let it get what workloads say about groups, on a switch that listens
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    pub mcast_flood_reports: Option<bool>,
    /// Bits per second that what the workload sends to other hosts and outside gets before others
    /// get more, 10M or none
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    pub qos_min: Option<Rate>,
    /// Bits per second that it gets at most, 100M or, with a burst in bits, 100M/10M, or none
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    pub qos_max: Option<Rate>,
    /// Addresses that networks outside are told to be at its router's port: "MAC IP…"; may be
    /// repeated
    #[arg(long = "nat-address", value_name = "ADDRESSES")]
    pub nat_addresses: Vec<String>,
}

impl PortOptions {
    /// The chassis that may have it, named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when a name can be none.
    pub fn chassis(&self) -> Result<Vec<String>, CtlError> {
        self.requested_chassis.iter().map(|text| full_chassis(text)).collect()
    }

    /// The chassis that may have it too, named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when a name can be none.
    pub fn others(&self) -> Result<Vec<String>, CtlError> {
        self.additional_chassis.iter().map(|text| full_chassis(text)).collect()
    }
}
