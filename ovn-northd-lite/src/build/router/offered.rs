//! Addresses that another router on the same switch offers a way to: those of its load
//! balancers and translations that say so. Packets to them go to that router, without a
//! static route.

use std::net::IpAddr;

use super::{gateway, hop::Hop, routing};
use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::NeighbourInput, traits},
    model::{IpNetwork, RouteMatch},
};

pub(super) fn neighbour(input: &NeighbourInput<'_>, sink: &mut FlowSink) {
    let Some(side) = input.side.as_ref().filter(|side| side.is_enabled()) else { return };
    if format!("routers/{}", side.router_id) == input.ports.router.object {
        return;
    }
    let nats = traits::offered(side.router_id, side.router);
    let services = input.offered.iter().flat_map(|balancer| balancer.services());
    let services = services.map(|service| (service.vip.ip, service.object));
    for (ip, object) in nats.into_iter().chain(services) {
        if let Some(hop) = hop(input, ip) {
            route(input, (ip, &object), &hop, sink);
        }
    }
}

/// The way to the other router: by its first address that is in a network of the port.
fn hop<'a>(input: &NeighbourInput<'a>, ip: IpAddr) -> Option<Hop<'a>> {
    let own = input.ports.ports.get(input.router_port_id)?;
    let side = input.side.as_ref()?;
    let is_there = |next: &IpAddr| {
        next.is_ipv4() == ip.is_ipv4() && own.networks.iter().any(|network| network.contains(*next))
    };
    let next = of_router_port(side.port).into_iter().map(|network| network.addr).find(is_there)?;
    Hop::to(&input.ports, next, Some(input.router_port_id))
}

fn route(input: &NeighbourInput<'_>, (ip, object): (IpAddr, &str), hop: &Hop<'_>, sink: &mut FlowSink) {
    let network = IpNetwork { addr: ip, prefix_len: if ip.is_ipv4() { 32 } else { 128 } };
    // As a static route without a name.
    let condition = if input.ports.router.tables.is_empty() { "" } else { "reg7[0..15] == 0 && " };
    let matching = format!("{condition}{}", routing::matched(RouteMatch::Destination, &network));
    let count = gateway::hop_count(&input.ports);
    let actions = format!("{count} reg8[0..15] = 0; {}", hop.actions());
    let why = "Another router on the switch offers a way to the address.";
    sink.add(
        RouterIn::IpRouting,
        routing::priority(&network, routing::STATIC),
        matching,
        actions,
        object,
        why,
    );
}
