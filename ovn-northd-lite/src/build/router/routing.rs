//! Routes: the longest prefix has the highest priority, and a connected network goes
//! before a static route to the same prefix. A static route that leads nowhere (next hop
//! in no network, port off) drops what is meant for it instead of leaving it to a
//! shorter prefix.

use std::net::IpAddr;

use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::RouterInput},
    expr::lexer::quote,
    model::{IpNetwork, RouterPort, StaticRoute},
};

/// Rank among routes to the same prefix.
const STATIC: u16 = 1;
const CONNECTED: u16 = 2;

pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    sink.add(RouterIn::IpRouting, 0, "1", "drop;", &input.object, "There is no route to the destination.");
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        for network in of_router_port(port) {
            let mut matching = destination(&network);
            if is_link_local(&network) {
                matching = format!("inport == {} && {matching}", quote(id));
            }
            let hop = Hop { next: None, source: network.addr, port_id: id, port };
            let why = "The destination is in the port's own network.";
            let priority = priority(&network, CONNECTED);
            sink.add(RouterIn::IpRouting, priority, matching, hop.actions(), &object, why);
        }
    }
    for route in &input.router.static_routes {
        let (priority, matching) = (priority(&route.prefix, STATIC), destination(&route.prefix));
        match hop(input, route) {
            Some(hop) => {
                let why = "A static route leads to the destination.";
                sink.add(RouterIn::IpRouting, priority, matching, hop.actions(), &input.object, why);
            }
            None => {
                let why = "The static route's next hop cannot be reached by a port that is on.";
                sink.add(RouterIn::IpRouting, priority, matching, "drop;", &input.object, why);
            }
        }
    }
}

/// Where a route leads.
struct Hop<'a> {
    /// Next hop; `None`: the destination itself.
    next: Option<IpAddr>,
    /// Address of the port.
    source: IpAddr,
    port_id: &'a str,
    port: &'a RouterPort,
}

impl Hop<'_> {
    fn actions(&self) -> String {
        let (next_field, source_field, destination) =
            if self.source.is_ipv4() { ("reg0", "reg5", "ip4.dst") } else { ("xxreg0", "xxreg1", "ip6.dst") };
        let next = self.next.map_or_else(|| destination.to_owned(), |ip| ip.to_string());
        format!(
            "ip.ttl--; {next_field} = {next}; {source_field} = {}; eth.src = {}; outport = {}; \
             flags.loopback = 1; next;",
            self.source,
            self.port.mac,
            quote(self.port_id)
        )
    }
}

/// The hop of a static route, if it leads anywhere: by the port it names, or by the one
/// with the longest prefix that has the next hop.
fn hop<'a>(input: &RouterInput<'a>, route: &StaticRoute) -> Option<Hop<'a>> {
    let same_family = |network: &IpNetwork| network.addr.is_ipv4() == route.next_hop.is_ipv4();
    if !same_family(&route.prefix) {
        return None;
    }
    let candidates = input.enabled_ports().flat_map(|(port_id, port)| {
        let networks = of_router_port(port).into_iter().filter(same_family);
        networks.map(move |network| (network, port_id, port))
    });
    let (network, port_id, port) = match &route.output_port {
        Some(wanted) => candidates
            .filter(|(_, id, _)| id == wanted)
            .max_by_key(|(network, ..)| (network.contains(route.next_hop), !is_link_local(network)))?,
        None => candidates
            .filter(|(network, ..)| network.contains(route.next_hop) && !is_link_local(network))
            .max_by_key(|(network, ..)| network.prefix_len)?,
    };
    Some(Hop { next: Some(route.next_hop), source: network.addr, port_id, port })
}

fn destination(network: &IpNetwork) -> String {
    let field = if network.addr.is_ipv4() { "ip4.dst" } else { "ip6.dst" };
    format!("{field} == {}", network.text())
}

fn priority(network: &IpNetwork, rank: u16) -> u16 {
    u16::from(network.prefix_len) * 3 + rank
}

fn is_link_local(network: &IpNetwork) -> bool {
    matches!(network.addr, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}
