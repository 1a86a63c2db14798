//! Who is on the networks around: the senders of ARP and ND packets to the router are
//! remembered, each host for itself.

use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (lookup, learn) = (RouterIn::LookupNeighbor, RouterIn::LearnNeighbor);
    let object = &input.router.object;
    sink.add(lookup, 0, "1", "reg9[2] = 1; next;", object, "Nobody's address is in it.");
    sink.add(learn, 100, "reg9[2] == 1", "next;", object, "There is nothing to learn.");
    let why = "The sender's address is new, or has moved.";
    for (packet, put) in [
        ("arp", "put_arp(inport, arp.spa, arp.sha);"),
        ("nd_na", "put_nd(inport, nd.target, nd.tll);"),
        ("nd_ns", "put_nd(inport, ip6.src, nd.sll);"),
    ] {
        sink.add(learn, 90, packet, format!("{put} next;"), object, why);
    }
    sink.add(learn, 0, "1", "next;", object, "There is nothing to learn.");
    for (id, port) in input.enabled_ports() {
        let (object, inport) = (input.port_object(id), format!("inport == {}", quote(id)));
        let why = "Who answers the router, or asks for it, is remembered.";
        for network in of_router_port(port) {
            let (own, text) = (network.addr, network.text());
            let packets = if own.is_ipv4() {
                let lookup = "lookup_arp(inport, arp.spa, arp.sha)";
                vec![
                    (format!("arp.op == 2 && arp.spa == {text}"), lookup),
                    (format!("arp.op == 1 && arp.spa == {text} && arp.tpa == {own}"), lookup),
                ]
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
    }
}
