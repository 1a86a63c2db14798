//! Routes: the longest prefix has the highest priority; for one prefix a connected network
//! goes before a static route, and a route for destinations before one for sources. A
//! static route that leads nowhere (next hop in no network, port off) drops what is meant
//! for it instead of leaving it to a shorter prefix.
//!
//! Several routes to one prefix share its packets by the hash of a select group: the
//! number of the choice is in `reg8`, and the next stage, which finds the route again by
//! its match and priority, makes the hop of it.

use std::net::IpAddr;

use super::{errors, gateway, hop::Hop};
use crate::{
    build::{
        address::of_router_port,
        balancer::family,
        sink::FlowSink,
        stage::RouterIn,
        topology::{RouteInput, RouterPorts},
    },
    expr::lexer::quote,
    model::{IpNetwork, NextHop, RouteMatch, RouteTarget, StaticRoute},
};

/// Lowest priority of a route; below are the errors.
const FIRST: u16 = 3;
/// Rank among routes to the same prefix.
const BY_SOURCE: u16 = 0;
const STATIC: u16 = 1;
const CONNECTED: u16 = 2;

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    errors::no_route(input, sink);
    let object = &input.router.object;
    let why = "The route has one next hop.";
    sink.add(RouterIn::IpRoutingEcmp, 1000, "reg8[0..15] == 0", "next;", object, why);
    let why = "The route that was chosen is no more.";
    sink.add(RouterIn::IpRoutingEcmp, 0, "1", "drop;", object, why);
    connected(input, sink);
}

fn connected(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        for network in of_router_port(port) {
            let mut matching = matched(RouteMatch::Destination, &network);
            if is_link_local(&network) {
                matching = format!("inport == {} && {matching}", quote(id));
            }
            let hop = Hop { next: None, source: network.addr, port_id: id, port };
            let why = "The destination is in the port's own network.";
            let actions = format!("{} reg8[0..15] = 0; {}", gateway::hop_count(input), hop.actions());
            sink.add(RouterIn::IpRouting, priority(&network, CONNECTED), matching, actions, &object, why);
        }
    }
}

/// The static routes to one prefix.
pub(super) fn route(input: &RouteInput<'_>, sink: &mut FlowSink) {
    let object = &input.ports.router.object;
    let rank = if input.by == RouteMatch::Source { BY_SOURCE } else { STATIC };
    let (priority, matching) = (priority(&input.prefix, rank), matched(input.by, &input.prefix));
    let mut add = |actions: String, why: &str| {
        sink.add(RouterIn::IpRouting, priority, matching.clone(), actions, object, why);
    };
    if input.routes.iter().any(|route| route.target == RouteTarget::Discard) {
        return add("drop;".to_owned(), "A static route says that the packet is to be dropped.");
    }
    let hops = hops(input);
    match hops.as_slice() {
        [] => {
            let why = "The static route's next hop cannot be reached by a port that is on.";
            add("drop;".to_owned(), why);
        }
        [hop] => {
            let why = "A static route leads to the destination.";
            add(format!("{} reg8[0..15] = 0; {}", gateway::hop_count(&input.ports), hop.actions()), why);
        }
        hops => {
            let choices: Vec<_> = (1..=hops.len()).map(|choice| choice.to_string()).collect();
            let why = "Several static routes share the packets to the destination.";
            let choose = format!("reg8[16..31] = select({});", choices.join(", "));
            let count = gateway::hop_count(&input.ports);
            add(format!("{count} flags.loopback = 1; reg8[0..15] = 1; {choose}"), why);
            // The same match at the same priority: the route that has chosen.
            for (choice, hop) in (1..).zip(hops) {
                let matching = format!("{matching} && reg8[0..15] == 1 && reg8[16..31] == {choice}");
                let why = "One of several static routes was chosen.";
                sink.add(RouterIn::IpRoutingEcmp, priority, matching.clone(), hop.actions(), object, why);
                for (arrived, hop) in gateway::kept(&input.ports, hops, choice) {
                    let why = "The host that sent the packet to this gateway has chosen among the routes.";
                    let matching = format!("{arrived} && {matching}");
                    sink.add(RouterIn::IpRoutingEcmp, priority + 500, matching, hop.actions(), object, why);
                }
            }
        }
    }
}

/// Where the routes lead, of those that can be followed.
pub(super) fn hops<'a>(input: &RouteInput<'a>) -> Vec<Hop<'a>> {
    input.routes.iter().filter_map(|route| hop(input, route)).collect()
}

fn hop<'a>(input: &RouteInput<'a>, route: &StaticRoute) -> Option<Hop<'a>> {
    let RouteTarget::Via(NextHop { ip, output_port }) = &route.target else { return None };
    let is_same_family = input.prefix.addr.is_ipv4() == ip.is_ipv4();
    is_same_family.then(|| Hop::to(&input.ports, *ip, output_port.as_deref()))?
}

fn matched(by: RouteMatch, network: &IpNetwork) -> String {
    let direction = match by {
        RouteMatch::Destination => "dst",
        RouteMatch::Source => "src",
    };
    format!("{}.{direction} == {}", family(network.addr), network.text())
}

fn priority(network: &IpNetwork, rank: u16) -> u16 {
    u16::from(network.prefix_len) * 3 + rank + FIRST
}

pub(super) fn is_link_local(network: &IpNetwork) -> bool {
    matches!(network.addr, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}
