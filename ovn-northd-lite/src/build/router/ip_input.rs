//! Packets to the router itself, and those it must not forward: questions about its
//! addresses and echo requests are answered, impossible sources and expired packets
//! dropped. Errors are not sent to the source yet.

use std::net::IpAddr;

use crate::{
    build::{
        address::{of_router_port, one_of, solicited_node},
        sink::FlowSink,
        stage::RouterIn,
        switch::{arp_reply, nd_reply},
        topology::RouterInput,
    },
    expr::lexer::quote,
    model::{IpNetwork, RouterPort},
};

pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    for (priority, matching, why) in [
        (
            100,
            "ip4.src_mcast || ip4.src == 255.255.255.255 || ip4.src == 127.0.0.0/8 || ip4.dst == 127.0.0.0/8 || \
             ip4.src == 0.0.0.0/8 || ip4.dst == 0.0.0.0/8",
            "These addresses must not be routed (RFC 1812 §5.3.7).",
        ),
        (
            100,
            "ip6.src == {::1, ff00::/8} || ip6.dst == ::1",
            "These addresses must not be routed (RFC 4291 §2.5.3, §2.7).",
        ),
        (85, "arp", "The router has no use for other ARP packets: it knows all its neighbours."),
        (
            85,
            "nd || nd_rs || nd_ra",
            "The router has no use for other ND packets: it knows all its neighbours.",
        ),
        (82, "ip4.mcast || ip6.mcast", "The router does not forward multicast."),
        (50, "eth.bcast", "The router does not forward broadcasts."),
        (30, "ip.ttl == {0, 1}", "The packet may make no further hop."),
    ] {
        sink.add(RouterIn::IpInput, priority, matching, "drop;", &input.object, why);
    }
    sink.add(RouterIn::IpInput, 0, "1", "next;", &input.object, "The packet is for somebody else.");
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        questions(sink, &object, id, port);
        echo(sink, &object, port);
        own_addresses(sink, &object, port);
    }
}

/// ARP requests and neighbour solicitations for the port's addresses.
fn questions(sink: &mut FlowSink, object: &str, id: &str, port: &RouterPort) {
    let why = "The address is the port's own.";
    let (stage, inport) = (RouterIn::IpInput, format!("inport == {}", quote(id)));
    for network in of_router_port(port) {
        let ip = network.addr;
        match ip {
            IpAddr::V4(_) => {
                let from = network.text();
                let matching = format!("{inport} && arp.op == 1 && arp.tpa == {ip} && arp.spa == {from}");
                sink.add(stage, 90, matching, arp_reply(port.mac, "arp.tpa <-> arp.spa;"), object, why);
            }
            IpAddr::V6(ip) => {
                let group = solicited_node(ip);
                let matching = format!(
                    "{inport} && nd_ns && ip6.dst == {{{ip}, {group}}} && nd.target == {ip} && nd.options_type == 1"
                );
                sink.add(stage, 90, matching, nd_reply(port.mac, ip, true), object, why);
            }
        }
    }
}

/// The port's addresses of one family, as text.
fn addresses(port: &RouterPort, v4: bool) -> Vec<String> {
    let family = of_router_port(port).into_iter().filter(|network| network.addr.is_ipv4() == v4);
    family.map(|network| network.addr.to_string()).collect()
}

/// Echo requests to the port. Of a fragmented one only the first part could be answered,
/// so none is.
fn echo(sink: &mut FlowSink, object: &str, port: &RouterPort) {
    let why = "A router answers echo requests (RFC 1812 §4.3.3.6, RFC 4443 §4.2).";
    for (ip, icmp, v4, request, reply) in [("ip4", "icmp4", true, 8, 0), ("ip6", "icmp6", false, 128, 129)] {
        let own = addresses(port, v4);
        if own.is_empty() {
            continue;
        }
        let own = one_of(&own);
        let matching =
            format!("{ip}.dst == {own} && {icmp}.type == {request} && {icmp}.code == 0 && !ip.is_frag");
        let actions =
            format!("{ip}.dst <-> {ip}.src; ip.ttl = 255; {icmp}.type = {reply}; flags.loopback = 1; next;");
        sink.add(RouterIn::IpInput, 90, matching, actions, object, why);
    }
}

/// Packets from or to the port's own addresses that nothing above answers.
fn own_addresses(sink: &mut FlowSink, object: &str, port: &RouterPort) {
    let (from, to) =
        ("Only the router itself may send from its address.", "The router has no service there.");
    let v4 = addresses(port, true);
    if !v4.is_empty() {
        let broadcasts = port.networks.iter().filter_map(IpNetwork::broadcast).map(|ip| ip.to_string());
        let sources: Vec<_> = v4.iter().cloned().chain(broadcasts).collect();
        let matching = format!("ip4.src == {}", one_of(&sources));
        sink.add(RouterIn::IpInput, 100, matching, "drop;", object, from);
        sink.add(RouterIn::IpInput, 60, format!("ip4.dst == {}", one_of(&v4)), "drop;", object, to);
    }
    let v6 = addresses(port, false);
    if !v6.is_empty() {
        let v6 = one_of(&v6);
        sink.add(RouterIn::IpInput, 100, format!("ip6.src == {v6}"), "drop;", object, from);
        sink.add(RouterIn::IpInput, 60, format!("ip6.dst == {v6}"), "drop;", object, to);
    }
}
