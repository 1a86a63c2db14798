//! Routes: the longest prefix has the highest priority; for one prefix a connected network
//! goes before a static route, and a route for destinations before one for sources. A
//! static route that leads nowhere (next hop in no network, port off) drops what is meant
//! for it instead of leaving it to a shorter prefix.
//!
//! Several routes to one prefix share its packets by the hash of a select group: the
//! number of the choice is in `reg8`, and the next stage makes the hop of it.

use std::{collections::BTreeMap, net::IpAddr};

use super::{errors, hop::Hop};
use crate::{
    build::{
        address::of_router_port, balancer::family, sink::FlowSink, stage::RouterIn, topology::RouterInput,
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

pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    errors::no_route(input, sink);
    let why = "The route has one next hop.";
    sink.add(RouterIn::IpRoutingEcmp, 150, "reg8[0..15] == 0", "next;", &input.object, why);
    let why = "The route that was chosen is no more.";
    sink.add(RouterIn::IpRoutingEcmp, 0, "1", "drop;", &input.object, why);
    connected(input, sink);
    let mut routes: BTreeMap<(RouteMatch, IpNetwork), Vec<&StaticRoute>> = BTreeMap::new();
    for route in &input.router.static_routes {
        let base = IpNetwork { addr: route.prefix.base(), ..route.prefix };
        routes.entry((route.by, base)).or_default().push(route);
    }
    for (number, ((by, prefix), routes)) in (1..=u16::MAX).zip(routes) {
        Static { by, prefix, number }.build(input, &routes, sink);
    }
}

fn connected(input: &RouterInput<'_>, sink: &mut FlowSink) {
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        for network in of_router_port(port) {
            let mut matching = matched(RouteMatch::Destination, &network);
            if is_link_local(&network) {
                matching = format!("inport == {} && {matching}", quote(id));
            }
            let hop = Hop { next: None, source: network.addr, port_id: id, port };
            let why = "The destination is in the port's own network.";
            let actions = format!("ip.ttl--; reg8[0..15] = 0; {}", hop.actions());
            sink.add(RouterIn::IpRouting, priority(&network, CONNECTED), matching, actions, &object, why);
        }
    }
}

/// The static routes to one prefix.
struct Static {
    by: RouteMatch,
    prefix: IpNetwork,
    number: u16,
}

impl Static {
    fn build(&self, input: &RouterInput<'_>, routes: &[&StaticRoute], sink: &mut FlowSink) {
        let rank = if self.by == RouteMatch::Source { BY_SOURCE } else { STATIC };
        let (priority, matching) = (priority(&self.prefix, rank), matched(self.by, &self.prefix));
        let mut add = |actions: String, why: &str| {
            sink.add(RouterIn::IpRouting, priority, matching.clone(), actions, &input.object, why);
        };
        if routes.iter().any(|route| route.target == RouteTarget::Discard) {
            return add("drop;".to_owned(), "A static route says that the packet is to be dropped.");
        }
        let hops: Vec<_> = routes.iter().filter_map(|route| self.hop(input, route)).collect();
        match hops.as_slice() {
            [] => {
                let why = "The static route's next hop cannot be reached by a port that is on.";
                add("drop;".to_owned(), why);
            }
            [hop] => {
                let why = "A static route leads to the destination.";
                add(format!("ip.ttl--; reg8[0..15] = 0; {}", hop.actions()), why);
            }
            hops => {
                let choices: Vec<_> = (1..=hops.len()).map(|choice| choice.to_string()).collect();
                let why = "Several static routes share the packets to the destination.";
                let number = self.number;
                let choose = format!("reg8[16..31] = select({});", choices.join(", "));
                add(format!("ip.ttl--; flags.loopback = 1; reg8[0..15] = {number}; {choose}"), why);
                self.members(input, hops, sink);
            }
        }
    }

    fn members(&self, input: &RouterInput<'_>, hops: &[Hop<'_>], sink: &mut FlowSink) {
        for (choice, hop) in (1..).zip(hops) {
            let family = family(self.prefix.addr);
            let matching = format!("{family} && reg8[0..15] == {} && reg8[16..31] == {choice}", self.number);
            let why = "One of several static routes was chosen.";
            sink.add(RouterIn::IpRoutingEcmp, 100, matching, hop.actions(), &input.object, why);
        }
    }

    fn hop<'a>(&self, input: &RouterInput<'a>, route: &StaticRoute) -> Option<Hop<'a>> {
        let RouteTarget::Via(NextHop { ip, output_port }) = &route.target else { return None };
        (self.prefix.addr.is_ipv4() == ip.is_ipv4()).then(|| Hop::to(input, *ip, output_port.as_deref()))?
    }
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
