//! What switches, their ports and routers do besides, unless told otherwise.

use std::net::IpAddr;

use flowtable::types::MacAddr;

use super::{IpNetwork, PortAddresses, PortCheck, Shaping, Snooping};

/// What a switch does besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchOptions {
    /// Seconds after which a station is forgotten that has not spoken; 0: never.
    pub station_age: u16,
    /// Frames with VLAN tags pass as they are.
    pub vlan_passthru: bool,
    /// Questions for addresses that no router has reach routers, too.
    pub asks_routers: bool,
    /// What is sent to a group goes to those that want to hear it; `None`: to all.
    pub snooping: Option<Snooping>,
    /// Connections that a host remembers at most of each workload.
    pub max_connections: Option<u32>,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        // As long as bridges remember (IEEE 802.1Q §8.8.3).
        Self {
            station_age: 300,
            vlan_passthru: false,
            asks_routers: true,
            snooping: None,
            max_connections: None,
        }
    }
}

/// What a port of a switch does besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOptions {
    /// Stations behind it are remembered; `None`: those behind a workload that takes frames
    /// to unknown addresses.
    pub learns: Option<bool>,
    /// Nobody answers for its addresses but itself.
    pub silent: bool,
    /// It gets frames for groups.
    pub takes_groups: bool,
    /// Of a switch that listens: it gets what is sent to any group.
    pub hears_all: bool,
    /// Of a switch that listens: it gets what workloads say about groups.
    pub hears_reports: bool,
    /// Networks outside are told where its addresses are.
    pub announces: bool,
    /// Networks for whose addresses it answers, and with which MAC address; for a router's
    /// port, whose own it is otherwise.
    pub stands_for: Vec<IpNetwork>,
    /// See `stands_for`.
    pub stands_for_mac: Option<MacAddr>,
    /// How fast what its workload sends leaves the host; `None`: as what others send.
    pub shaping: Option<Shaping>,
    /// Addresses that networks outside are told to be where its router is, besides the router's
    /// own.
    pub told_addresses: Vec<PortAddresses>,
    /// On additional chassis its workload neither sends nor receives before it has said there by
    /// RARP that it goes on there.
    pub awaits_rarp: bool,
    /// What is sent to its addresses also goes to the ports that take unknown ones.
    pub clones_to_unknown: bool,
    /// ACLs with connections apply at it, where it leads to a router that is on one host.
    pub tracks_router: bool,
    /// Connections that its host remembers at most; `None`: as many as the switch says.
    pub max_connections: Option<u32>,
    /// What its workload is asked by its host.
    pub checks: Vec<PortCheck>,
    /// Frames to its addresses go where those were seen last, of a workload that may have any
    /// station behind it.
    pub is_looked_up: bool,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            learns: None,
            silent: false,
            takes_groups: true,
            hears_all: false,
            hears_reports: false,
            announces: true,
            stands_for: Vec::new(),
            stands_for_mac: None,
            shaping: None,
            told_addresses: Vec::new(),
            awaits_rarp: false,
            clones_to_unknown: false,
            tracks_router: false,
            max_connections: None,
            checks: Vec::new(),
            is_looked_up: false,
        }
    }
}

/// What a router does besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterOptions {
    /// What is sent to groups goes on to those of its networks where somebody wants to hear it.
    pub relays: bool,
    /// On one chassis: addresses that the sources of its load balancers' connections become,
    /// one of a family at most.
    pub balancer_sources: Vec<IpAddr>,
    /// The same, of connections whose destination is translated.
    pub dnat_sources: Vec<IpAddr>,
    /// Connections that a host remembers at most in each of its two zones.
    pub max_connections: Option<u32>,
    /// Zone of connections whose source it translates; `None`: one that hosts give it.
    pub snat_zone: Option<u16>,
    /// Connections that it does not translate are remembered, too: of a router that is everywhere
    /// those that pass gateway ports.
    pub commits_all: bool,
    /// Whoever asks for anybody is remembered as a neighbour; else who asks for the router.
    pub learns_all: bool,
    /// Seconds after which a neighbour is forgotten, 0: never; `None`: as usual.
    pub neighbour_age: Option<u16>,
}
