//! Static routes and policies of routers.

use std::net::IpAddr;

use flowtable::types::Priority;

use super::IpNetwork;

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
}
