//! The features of a router, in the order packets meet them. The next hop is in `reg0` or
//! `xxreg0`, the address of the output port in `reg5` or `xxreg1`, as in OVN.

mod admission;
mod advertisement;
mod arp_resolve;
mod balancer;
mod delivery;
mod errors;
mod hop;
mod ip_input;
mod nat;
mod neighbours;
mod policy;
mod routing;

pub(super) use advertisement::unasked;

use super::{sink::FlowSink, topology::RouterInput};

/// All flows of a router.
pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    admission::build(input, sink);
    neighbours::build(input, sink);
    ip_input::build(input, sink);
    nat::build(input, sink);
    balancer::build(input, sink);
    advertisement::build(input, sink);
    routing::build(input, sink);
    policy::build(input, sink);
    arp_resolve::build(input, sink);
    delivery::build(input, sink);
}
