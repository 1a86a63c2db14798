//! Static routes and policies of routers.

use std::net::IpAddr;

use flowtable::types::Priority;

use super::{HashField, IpNetwork};

/// A static route. Several to the same prefix share its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticRoute {
    /// Packets it is for: those to this network, or from it.
    pub prefix: IpNetwork,
    /// Which address of a packet is compared.
    pub by: RouteMatch,
    /// What becomes of them.
    pub target: RouteTarget,
    /// Answers to connections that come by a port of the routes to this prefix leave by that
    /// port, to whoever brought them.
    pub symmetric: bool,
    /// For packets that come by ports with this name; empty: by ports without.
    pub table: String,
    /// What decides about the route of a packet when there are several to the prefix; empty:
    /// addresses, protocol and ports.
    pub hash_fields: Vec<HashField>,
    /// It is there while the session with its next hop is up.
    pub monitored: bool,
    /// Routes to its prefix go before the network of a port that is the same.
    pub overrides: bool,
}

/// Which address a route goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum RouteMatch {
    /// The destination.
    #[default]
    Destination,
    /// The source. Such a route comes after those for destinations of the same length.
    Source,
}

/// What a route does with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// Sends them on.
    Via(NextHop),
    /// Drops them.
    Discard,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Next hop, of the prefix's family.
    pub ip: IpAddr,
    /// Id of the router port to leave by; `None`: the one whose network has the next hop.
    pub output_port: Option<String>,
}

/// A rule that overrules the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPolicy {
    /// The highest matching priority decides.
    pub priority: Priority,
    /// Which packets, in the match language.
    pub matching: String,
    /// What becomes of them.
    pub action: PolicyAction,
    /// The chain that it is in; empty: the one that packets come to first.
    pub chain: String,
    /// Mark that the packets get; 0: none.
    pub mark: u32,
    /// Id of the router port that rerouted packets leave by; `None`: the one whose network has
    /// the next hop.
    pub output_port: Option<String>,
    /// Next hops are there while the sessions with them are up.
    pub monitored: bool,
}

/// What a policy does with packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyAction {
    /// Leaves them to the routes.
    Allow,
    /// Drops them.
    Drop,
    /// Sends them to one of these instead, at least one, all of one family.
    Reroute(Vec<IpAddr>),
    /// Asks the policies of this chain; when none of them matches, leaves it to the routes.
    Jump(String),
}
