//! What is sent to groups: a router that relays sends it to those of its networks where
//! somebody wants to hear it, and drops what does not come from where its source is, so that
//! two routers between the same networks do not send it round.

use crate::{
    build::{
        HEAR_ALL, HEAR_ALL_KEY,
        address::{of_router_port, one_of},
        balancer::family,
        multicast::name,
        sink::FlowSink,
        stage::{RouterIn, RouterOut},
        topology::{RouterGroupInput, RouterPorts},
    },
    expr::lexer::quote,
};

use super::routing::is_link_local;

/// What is sent to a group.
const GROUPS: &str = "ip4.mcast || ip6.mcast";
/// What does not leave its link: groups of that, and addresses that are just there.
const ON_LINK: [&str; 3] = [
    "ip4.dst == 224.0.0.0/24",
    "ip6.dst == {ff00::/ff0f::, ff01::/ff0f::, ff02::/ff0f::}",
    "ip6.mcast && ip6.src == fe80::/10",
];

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    if !input.router.options.relays {
        let why = "The router does not forward multicast.";
        return sink.add(RouterIn::IpInput, 82, GROUPS, "drop;", object, why);
    }
    for on_link in ON_LINK {
        let why = "It is for its own link, which no router leads it out of (RFC 5771 §4, RFC 4291 §2.7).";
        sink.add(RouterIn::IpInput, 84, on_link, "drop;", object, why);
    }
    let why = "The packet may make no further hop, and nobody is told.";
    sink.add(RouterIn::IpInput, 83, format!("({GROUPS}) && ip.ttl == {{0, 1}}"), "drop;", object, why);
    let why = "The router sends on what somebody wants to hear.";
    sink.add(RouterIn::IpInput, 82, GROUPS, "next;", object, why);
    for (id, port) in input.enabled_ports() {
        let (object, port_id) = (input.port_object(id), quote(id));
        for network in of_router_port(port).iter().filter(|network| !is_link_local(network)) {
            let others = input.enabled_ports().filter(|(other, _)| *other != id);
            let others: Vec<_> = others.map(|(other, _)| quote(other)).collect();
            if others.is_empty() {
                continue;
            }
            let family = family(network.addr);
            let from = format!("{family}.mcast && {family}.src == {}", network.text());
            let matching = format!("inport == {} && {from}", one_of(&others));
            let why = "Its source is in the network of this port, which it did not come by.";
            sink.add(RouterIn::IpRouting, 10_600, matching, "drop;", &object, why);
        }
        let matching = format!("eth.mcast && ip && outport == {port_id}");
        let why = "What is sent to a group leaves by each port as its own.";
        let actions = format!("eth.src = {}; output;", port.mac);
        sink.add(RouterOut::Delivery, 110, matching, actions, &object, why);
    }
    let why = "Nobody on the router's networks wants to hear the group.";
    match HEAR_ALL_KEY.filter(|_| !input.router.hear_all.is_empty()) {
        Some(key) => {
            input.router.hear_all.iter().for_each(|port| sink.join(key, HEAR_ALL, port));
            sink.add(RouterIn::IpRouting, 10_400, GROUPS, to(HEAR_ALL), object, why);
        }
        None => sink.add(RouterIn::IpRouting, 10_400, GROUPS, "drop;", object, why),
    }
    let why = "A group's Ethernet address follows from its own.";
    sink.add(RouterIn::ArpResolve, 500, GROUPS, "next;", object, why);
}

/// A group that somebody on a network of the router wants to hear.
pub(super) fn group(input: &RouterGroupInput<'_>, sink: &mut FlowSink) {
    let RouterGroupInput { ports, ip, hearers } = input;
    let group = name(*ip);
    for port in hearers.ports.union(&ports.router.hear_all) {
        sink.join(hearers.key, group.clone(), port);
    }
    let why = "Somebody on the router's networks wants to hear the group.";
    let matching = format!("{}.dst == {ip}", family(*ip));
    sink.add(RouterIn::IpRouting, 10_500, matching, to(&group), &ports.router.object, why);
}

/// On to the ports of a group.
fn to(group: &str) -> String {
    format!("ip.ttl--; reg8[0..15] = 0; outport = {}; next;", quote(group))
}
