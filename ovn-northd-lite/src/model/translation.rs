//! Address translation by routers.

use std::net::IpAddr;

use flowtable::types::{MacAddr, Priority};

use super::IpNetwork;

/// A translation between addresses inside and outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRule {
    /// Which addresses it changes.
    pub kind: NatKind,
    /// Address outside.
    pub external_ip: IpAddr,
    /// Address or, for `Source`, network inside; of the same family.
    pub logical_ip: IpNetwork,
    /// Ports for translated sources.
    pub external_ports: Option<(u16, u16)>,
    /// Id of the router port towards the outside; `None`: on a router of one chassis all,
    /// else the one whose network has the external address.
    pub gateway_port: Option<String>,
    /// By plain rewriting of addresses, without connections. Only for `Both`.
    pub stateless: bool,
    /// Translate only for peers outside with these addresses; empty: for all.
    pub allowed_external_ips: Vec<IpNetwork>,
    /// Do not translate for peers outside with these addresses.
    pub exempted_external_ips: Vec<IpNetwork>,
    /// Done on the workload's own host instead of the gateway. Only for `Both`, at a gateway
    /// port.
    pub distributed: Option<Distributed>,
    /// Only for packets that match besides. Such rules go before those without.
    pub condition: Option<Condition>,
    /// Other routers have a route to the address outside by this one.
    pub add_route: bool,
}

/// Which packets a translation is for, besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Of several rules the highest that matches decides.
    pub priority: Priority,
    /// In the match language.
    pub matching: String,
}

/// A floating address that is where its workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distributed {
    /// MAC address that it has outside.
    pub mac: MacAddr,
    /// Id of the workload's port.
    pub port: String,
}

/// Which addresses a translation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// Sources inside become the address outside.
    Source,
    /// The destination outside becomes the address inside.
    Destination,
    /// Both: a floating address.
    Both,
}
