//! Routes: the longest prefix has the highest priority; for one prefix a connected network
//! goes before a static route that is not told to go before it, and a route for destinations before one for sources. A
//! static route that leads nowhere (next hop in no network, port off) drops what is meant
//! for it instead of leaving it to a shorter prefix.
//!
//! Ports may name the static routes of the packets that come by them: such packets take
//! those, and no others. The number of the name is in `reg7`, 0 for routes without one.
//!
//! Several routes to one prefix share its packets by the hash of a select group: the
//! number of the choice is in `reg8`, and the next stage, which finds the route again by
//! its match and priority, makes the hop of it.

use std::{collections::BTreeMap, net::IpAddr};

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
    model::{HashField, IpNetwork, NextHop, RouteMatch, RouteTarget, StaticRoute},
};

/// Lowest priority of a route; below are the errors.
const FIRST: u16 = 3;
/// Rank among routes to the same prefix.
const BY_SOURCE: u16 = 0;
pub(super) const STATIC: u16 = 1;
const CONNECTED: u16 = 2;
const OVERRIDING: u16 = 3;
/// Ranks that there are.
const N_RANKS: u16 = 4;

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    errors::no_route(input, sink);
    let object = &input.router.object;
    let why = "The route has one next hop.";
    sink.add(RouterIn::IpRoutingEcmp, 1000, "reg8[0..15] == 0", "next;", object, why);
    let why = "The route that was chosen is no more.";
    sink.add(RouterIn::IpRoutingEcmp, 0, "1", "drop;", object, why);
    connected(input, sink);
    tables(input, sink);
}

/// Which static routes there are for packets of a port.
fn tables(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (stage, object) = (RouterIn::IpRoutingPre, &input.router.object);
    let why = "The packet takes routes without a name.";
    sink.add(stage, 0, "1", "reg7[0..15] = 0; next;", object, why);
    for (id, port) in input.enabled_ports() {
        if let Some(number) = input.router.tables.get(&port.route_table) {
            let (object, matching) = (input.port_object(id), format!("inport == {}", quote(id)));
            let why = "The port says which static routes its packets take.";
            sink.add(stage, 100, matching, format!("reg7[0..15] = {number}; next;"), &object, why);
        }
    }
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
    let mut named: BTreeMap<&str, Vec<&StaticRoute>> = BTreeMap::new();
    input.routes.iter().for_each(|route| named.entry(&route.table).or_default().push(route));
    let tables = &input.ports.router.tables;
    for (name, routes) in named {
        let number = if name.is_empty() { Some(0) } else { tables.get(name).copied() };
        // No port's packets take the others.
        let Some(number) = number else { continue };
        let condition =
            if tables.is_empty() { String::new() } else { format!("reg7[0..15] == {number} && ") };
        Same { input, routes, condition }.build(sink);
    }
}

/// Static routes to one prefix, and of one name.
struct Same<'a> {
    input: &'a RouteInput<'a>,
    routes: Vec<&'a StaticRoute>,
    /// Packets that take them, ending in ` && ` when there is a condition.
    condition: String,
}

impl Same<'_> {
    fn build(&self, sink: &mut FlowSink) {
        let Self { input, routes, condition } = self;
        let object = &input.ports.router.object;
        let rank = match input.by {
            RouteMatch::Source => BY_SOURCE,
            RouteMatch::Destination if routes.iter().any(|route| route.overrides) => OVERRIDING,
            RouteMatch::Destination => STATIC,
        };
        let priority = priority(&input.prefix, rank);
        let matching = format!("{condition}{}", matched(input.by, &input.prefix));
        let mut add = |actions: String, why: &str| {
            sink.add(RouterIn::IpRouting, priority, matching.clone(), actions, object, why);
        };
        if routes.iter().any(|route| route.target == RouteTarget::Discard) {
            return add("drop;".to_owned(), "A static route says that the packet is to be dropped.");
        }
        let hops: Vec<_> = routes.iter().filter_map(|route| hop(input, route)).collect();
        let count = gateway::hop_count(&input.ports);
        match hops.as_slice() {
            [] => {
                let why = "The static route's next hop cannot be reached by a port that is on.";
                add("drop;".to_owned(), why);
            }
            [hop] => {
                let why = "A static route leads to the destination.";
                add(format!("{count} reg8[0..15] = 0; {}", hop.actions()), why);
            }
            hops => {
                let why = "Several static routes share the packets to the destination.";
                let choose = select(hops.len(), routes);
                add(format!("{count} flags.loopback = 1; reg8[0..15] = 1; {choose}"), why);
                self.choices((priority, &matching), hops, sink);
            }
        }
    }

    /// What becomes of a packet whose route was chosen: the same match at the same priority is
    /// the route that has chosen.
    fn choices(&self, (priority, matching): (u16, &str), hops: &[Hop<'_>], sink: &mut FlowSink) {
        let object = &self.input.ports.router.object;
        for (choice, hop) in (1..).zip(hops) {
            let matching = format!("{matching} && reg8[0..15] == 1 && reg8[16..31] == {choice}");
            let why = "One of several static routes was chosen.";
            sink.add(RouterIn::IpRoutingEcmp, priority, matching.clone(), hop.actions(), object, why);
            for (arrived, hop) in gateway::kept(&self.input.ports, hops, choice) {
                let why = "The host that sent the packet to this gateway has chosen among the routes.";
                let matching = format!("{arrived} && {matching}");
                sink.add(RouterIn::IpRoutingEcmp, priority + 500, matching, hop.actions(), object, why);
            }
        }
    }
}

/// One of so many, by what some of the routes say that it depends on.
fn select(n_hops: usize, routes: &[&StaticRoute]) -> String {
    let choices: Vec<_> = (1..=n_hops).map(|choice| choice.to_string()).collect();
    let choices = choices.join(", ");
    let wanted = |field: &&HashField| routes.iter().any(|route| route.hash_fields.contains(field));
    let fields: Vec<_> = HashField::ALL.iter().filter(wanted).map(|field| field.name()).collect();
    if fields.is_empty() {
        return format!("reg8[16..31] = select({choices});");
    }
    format!("reg8[16..31] = select(values=({choices}); hash_fields=\"{}\");", fields.join(","))
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

pub(super) fn matched(by: RouteMatch, network: &IpNetwork) -> String {
    let direction = match by {
        RouteMatch::Destination => "dst",
        RouteMatch::Source => "src",
    };
    format!("{}.{direction} == {}", family(network.addr), network.text())
}

pub(super) fn priority(network: &IpNetwork, rank: u16) -> u16 {
    u16::from(network.prefix_len) * N_RANKS + rank + FIRST
}

pub(super) fn is_link_local(network: &IpNetwork) -> bool {
    matches!(network.addr, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}
