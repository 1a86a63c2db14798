//! What hosts answer for the network: DHCP, DNS, router advertisements; and how much of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowtable::types::MacAddr;

use super::IpNetwork;
use crate::{
    dhcp::{OptionV4, OptionV6, Value},
    punt::Service,
};

/// What a switch has answered for its workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchServices {
    /// Ids of DHCP options for workloads that have none of their own: IPv4, IPv6.
    pub dhcp: [Option<String>; 2],
    /// Ids of the name records its workloads see.
    pub names: BTreeSet<String>,
    /// Id of the bounds on what it asks hosts for.
    pub limits: Option<String>,
}

/// What a workload's port has answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortServices {
    /// Ids of its DHCP options: IPv4, IPv6.
    pub dhcp: [Option<String>; 2],
    /// The name it is told by DHCP.
    pub hostname: Option<String>,
}

/// What DHCP clients of a network are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhcpOptions {
    /// By DHCPv4.
    V4(DhcpV4),
    /// By DHCPv6.
    V6(DhcpV6),
}

/// What clients are told by DHCPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpV4 {
    /// Ports with an address in it are served.
    pub network: IpNetwork,
    /// The server's address.
    pub server_ip: Ipv4Addr,
    /// The server's MAC address.
    pub server_mac: MacAddr,
    /// Options, the server's address and the mask among them.
    pub options: BTreeMap<OptionV4, Value>,
}

/// What clients are told by DHCPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpV6 {
    /// Ports with an address in it are served.
    pub network: IpNetwork,
    /// The server's MAC address, also its identifier.
    pub server_mac: MacAddr,
    /// No addresses are given.
    pub is_stateless: bool,
    /// Options and settings.
    pub options: BTreeMap<OptionV6, Value>,
}

/// Names and their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Addresses by name, in small letters, without a dot at the end.
    pub records: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Seconds for which an answer holds.
    pub ttl: u32,
}

/// Packets per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    /// Packets per second.
    pub pps: u32,
    /// How many may come at once.
    pub burst: u32,
}

/// Bounds on what hosts are asked for, by what it is.
pub type Limits = BTreeMap<Service, Rate>;

/// What hosts on a router port's network are told of it (RFC 4861 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Where hosts have their addresses from.
    pub mode: AddressMode,
    /// MTU of the network.
    pub mtu: Option<u32>,
    /// Addresses of resolvers (RFC 8106 §5.1).
    pub rdnss: Vec<Ipv6Addr>,
    /// Domains to search (RFC 8106 §5.2).
    pub dnssl: Vec<String>,
    /// Networks behind the router (RFC 4191 §2.3).
    pub routes: Vec<(IpNetwork, Preference)>,
    /// How good a default router it is (RFC 4191 §2.2).
    pub preference: Preference,
    /// Seconds for which it is one; 0: it is none.
    pub lifetime: u16,
    /// Least and most seconds between two that nobody asked for; `None`: only answers.
    pub interval: Option<(u16, u16)>,
}

/// Where hosts have their addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressMode {
    /// They make them from the prefix.
    Slaac,
    /// DHCPv6 gives addresses and everything else.
    Stateful,
    /// They make them from the prefix; DHCPv6 tells everything else.
    Stateless,
}

impl AddressMode {
    /// All, with their names in texts.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Slaac, "slaac"), (Self::Stateful, "dhcpv6_stateful"), (Self::Stateless, "dhcpv6_stateless")];

    /// Name in texts.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("", |(_, name)| name)
    }
}

/// How good a router is, compared with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preference {
    /// Worse.
    Low,
    /// As others.
    #[default]
    Medium,
    /// Better.
    High,
}

impl Preference {
    /// All, with their names in texts.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Low, "LOW"), (Self::Medium, "MEDIUM"), (Self::High, "HIGH")];

    /// Name in texts.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(preference, _)| *preference == self).map_or("", |(_, name)| name)
    }

    /// Two bits, signed (RFC 4191 §2.1).
    pub fn bits(self) -> u8 {
        match self {
            Self::Low => 0b11,
            Self::Medium => 0b00,
            Self::High => 0b01,
        }
    }
}
