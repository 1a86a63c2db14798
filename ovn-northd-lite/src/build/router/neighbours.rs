//! Who is on the networks around: the senders of ARP and ND packets to the router are
//! remembered, each host for itself. Of those who ask for others by ARP, or say by a question for
//! their own address that they have it, just those are remembered anew who are known already
//! (RFC 826, "merge flag"), unless the router is told to remember all of them.

use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
    model::RouterPort,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (lookup, learn) = (RouterIn::LookupNeighbor, RouterIn::LearnNeighbor);
    let object = &input.router.object;
    sink.add(lookup, 0, "1", "reg9[2] = 1; next;", object, "Nobody's address is in it.");
    sink.add(learn, 100, "reg9[2] == 1", "next;", object, "There is nothing to learn.");
    let why = "The sender's address is new, or has moved.";
    let age = input.router.options.neighbour_age.map(|age| format!(", {age}")).unwrap_or_default();
    for (packet, put) in [
        ("arp", "put_arp(inport, arp.spa, arp.sha"),
        ("nd_na", "put_nd(inport, nd.target, nd.tll"),
        ("nd_ns", "put_nd(inport, ip6.src, nd.sll"),
    ] {
        sink.add(learn, 90, packet, format!("{put}{age}); next;"), object, why);
    }
    let learns_all = input.router.options.learns_all;
    sink.add(learn, 0, "1", "next;", object, "There is nothing to learn.");
    for (id, port) in input.enabled_ports() {
        let (object, inport) = (input.port_object(id), format!("inport == {}", quote(id)));
        let why = "Who answers the router, or asks for it, is remembered.";
        for network in of_router_port(port) {
            let (own, text) = (network.addr, network.text());
            let packets = if own.is_ipv4() {
                let lookup = "lookup_arp(inport, arp.spa, arp.sha)";
                let asks = format!("arp.op == 1 && arp.spa == {text}");
                // The second bit: whether it is remembered though it was not known.
                let asks = if learns_all {
                    (asks, lookup)
                } else {
                    (
                        format!("{asks} && arp.tpa == {own}"),
                        "lookup_arp(inport, arp.spa, arp.sha); reg9[3] = 1",
                    )
                };
                vec![(format!("arp.op == 2 && arp.spa == {text}"), lookup), asks]
            } else {
                vec![
                    (format!("nd_na && nd.target == {text}"), "lookup_nd(inport, nd.target, nd.tll)"),
                    (
                        format!("nd_ns && ip6.src == {text} && nd.target == {own}"),
                        "lookup_nd(inport, ip6.src, nd.sll)",
                    ),
                ]
            };
            for (matching, call) in packets {
                let matching = format!("{inport} && {matching}");
                sink.add(lookup, 100, matching, format!("reg9[2] = {call}; next;"), &object, why);
            }
        }
        if !learns_all {
            follow(sink, &object, &inport, port);
        }
    }
}

/// Those who ask for others are remembered anew when they are known.
fn follow(sink: &mut FlowSink, object: &str, inport: &str, port: &RouterPort) {
    let v4: Vec<_> = port.networks.iter().filter(|network| network.addr.is_ipv4()).collect();
    for network in &v4 {
        let matching = format!("{inport} && arp.op == 1 && arp.spa == {}", network.text());
        let actions = "reg9[2] = lookup_arp(inport, arp.spa, arp.sha); \
                       reg9[3] = lookup_arp_ip(inport, arp.spa); next;";
        let why = "Who is known and asks for others is followed where it moves.";
        sink.add(RouterIn::LookupNeighbor, 90, matching, actions, object, why);
    }
    if !v4.is_empty() {
        let matching = format!("{inport} && arp.op == 1 && reg9[3] == 0");
        let why = "Who asks for others is not remembered for it.";
        sink.add(RouterIn::LearnNeighbor, 95, matching, "next;", object, why);
    }
}
