//! The features of a router, in the order packets meet them. The next hop is in `reg0` or
//! `xxreg0`, the address of the output port in `reg5` or `xxreg1`, as in OVN.

mod admission;
mod advertisement;
mod arp_resolve;
mod balancer;
mod commit;
mod delivery;
mod dhcp_relay;
mod errors;
mod forced;
mod gateway;
mod hop;
mod ip_input;
mod liveness;
mod multicast;
mod nat;
mod neighbours;
mod offered;
mod policy;
mod routing;
mod stateless;
mod symmetric;

pub(super) use advertisement::unasked;

use super::feature::RouterFeature::{self, Balancer, Group, Nat, Neighbour, Policy, Route, Router};

/// What makes the flows of a router. Of two flows for the same packets in the same place
/// the one of the earlier feature stays.
pub(super) const FEATURES: &[RouterFeature] = &[
    Router(admission::router),
    Router(neighbours::router),
    Router(dhcp_relay::router),
    Router(ip_input::router),
    Router(liveness::router),
    Nat(ip_input::nat),
    Balancer(ip_input::balancer),
    Router(nat::router),
    Nat(nat::nat),
    Router(balancer::router),
    Balancer(balancer::balancer),
    Router(forced::router),
    Router(commit::router),
    Router(advertisement::router),
    Router(multicast::router),
    Group(multicast::group),
    Router(routing::router),
    Route(routing::route),
    Neighbour(offered::neighbour),
    Router(symmetric::router),
    Route(symmetric::route),
    Router(policy::router),
    Policy(policy::policy),
    Router(errors::too_large),
    Router(gateway::router),
    Router(arp_resolve::router),
    Neighbour(arp_resolve::neighbour),
    Router(delivery::router),
];
