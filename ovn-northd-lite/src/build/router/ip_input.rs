//! Packets to the router itself, and those it must not forward: questions about its
//! addresses and echo requests are answered, impossible sources and expired packets
//! dropped, the latter with an error to the source.

use std::{collections::BTreeMap, net::IpAddr};

use flowtable::types::MacAddr;

use super::errors;
use crate::{
    build::{
        address::{of_router_port, one_of, solicited_node},
        balancer::family,
        sink::FlowSink,
        stage::RouterIn,
        switch::{arp_reply, nd_reply},
        topology::{NatInput, RouterBalancerInput, RouterPorts},
    },
    expr::lexer::quote,
    model::{IpNetwork, Responder, RouterPort},
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
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
        (85, "arp", "The router has no other use for ARP packets than to learn from them."),
        (85, "nd || nd_rs || nd_ra", "The router has no other use for ND packets than to learn from them."),
        (50, "eth.bcast", "The router does not forward broadcasts."),
    ] {
        sink.add(RouterIn::IpInput, priority, matching, "drop;", &input.router.object, why);
    }
    sink.add(RouterIn::IpInput, 0, "1", "next;", &input.router.object, "The packet is for somebody else.");
    errors::expired(input, sink);
    let translated = &input.router.translated;
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        questions(sink, &object, id, port);
        echo(sink, &object, port);
        own_addresses(sink, &object, port, translated);
        errors::unreachable(sink, &object, port, translated);
    }
    let why = "Nothing is translated that is sent to this address.";
    // What comes from inside to a gateway port's gets there first, see `nat`.
    for (ip, object) in translated.iter().filter(|(ip, _)| !is_outside(input, **ip)) {
        let matching = format!("{}.dst == {ip}", family(*ip));
        sink.add(RouterIn::IpRouting, 500, matching, "drop;", object, why);
    }
}

/// The address is translated at a gateway port alone.
fn is_outside(input: &RouterPorts<'_>, ip: IpAddr) -> bool {
    let mut outside = input.router.outside.values().flatten();
    input.router.chassis.is_none() && outside.any(|floating| floating.ip == ip)
}

/// Questions for the address that a translation has outside.
pub(super) fn nat(input: &NatInput<'_>, sink: &mut FlowSink) {
    // Who has a distributed one answers for it.
    if input.rule.distributed.is_none() {
        let network = Responder::Reachable;
        stand_in(&input.ports, (input.rule.external_ip, network), &input.object, sink);
    }
}

/// Questions for the addresses of services.
pub(super) fn balancer(input: &RouterBalancerInput<'_>, sink: &mut FlowSink) {
    let responder = input.balancer.balancer.responder;
    for service in input.balancer.services() {
        stand_in(&input.ports, (service.vip.ip, responder), &service.object, sink);
    }
}

/// The router answers for an address that is not its own: where it is in a port's network,
/// or everywhere.
pub(super) fn stand_in(
    input: &RouterPorts<'_>,
    (ip, whose): (IpAddr, Responder),
    object: &str,
    sink: &mut FlowSink,
) {
    for (id, port) in input.enabled_ports() {
        let is_own = port.networks.iter().any(|network| network.addr == ip);
        let network = port.networks.iter().find(|network| network.contains(ip));
        match (whose, network) {
            _ if is_own => {}
            (Responder::Reachable | Responder::All, Some(network)) => {
                question(sink, object, id, port.mac, (ip, Some(network.text())));
            }
            (Responder::All, None) => question(sink, object, id, port.mac, (ip, None)),
            (Responder::None, _) | (Responder::Reachable, None) => {}
        }
    }
}

/// ARP requests and neighbour solicitations for the port's addresses.
fn questions(sink: &mut FlowSink, object: &str, id: &str, port: &RouterPort) {
    for network in of_router_port(port) {
        question(sink, object, id, port.mac, (network.addr, Some(network.text())));
    }
}

/// Questions for an address of the router, from its network.
fn question(sink: &mut FlowSink, object: &str, id: &str, mac: MacAddr, (ip, from): (IpAddr, Option<String>)) {
    let why = "The router has the address.";
    let (stage, inport) = (RouterIn::IpInput, format!("inport == {}", quote(id)));
    match ip {
        IpAddr::V4(_) => {
            let from = from.map(|from| format!(" && arp.spa == {from}")).unwrap_or_default();
            let matching = format!("{inport} && arp.op == 1 && arp.tpa == {ip}{from}");
            sink.add(stage, 90, matching, arp_reply(mac, "arp.tpa <-> arp.spa;"), object, why);
        }
        IpAddr::V6(ip) => {
            let group = solicited_node(ip);
            let matching = format!(
                "{inport} && nd_ns && ip6.dst == {{{ip}, {group}}} && nd.target == {ip} && nd.options_type == 1"
            );
            sink.add(stage, 90, matching, nd_reply(mac, ip, true), object, why);
        }
    }
}

/// The port's addresses of one family, as text.
pub(super) fn addresses(port: &RouterPort, v4: bool) -> Vec<String> {
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

/// Packets from the port's own addresses, or to those that nothing above answers.
fn own_addresses(
    sink: &mut FlowSink,
    object: &str,
    port: &RouterPort,
    translated: &BTreeMap<IpAddr, String>,
) {
    let (from, to) =
        ("Only the router itself may send from its address.", "The router has no service there.");
    for (family, is_v4) in [("ip4", true), ("ip6", false)] {
        let own = addresses(port, is_v4);
        if own.is_empty() {
            continue;
        }
        let broadcasts = port.networks.iter().filter(|_| is_v4).filter_map(IpNetwork::broadcast);
        let sources: Vec<_> = own.iter().cloned().chain(broadcasts.map(|ip| ip.to_string())).collect();
        let matching = format!("{family}.src == {} && reg9[0] == 0", one_of(&sources));
        sink.add(RouterIn::IpInput, 100, matching, "drop;", object, from);
        let own = untranslated(own, translated);
        if !own.is_empty() {
            sink.add(RouterIn::IpInput, 60, format!("{family}.dst == {}", one_of(&own)), "drop;", object, to);
        }
    }
}

/// Those of the addresses that stand for nothing else.
pub(super) fn untranslated(own: Vec<String>, translated: &BTreeMap<IpAddr, String>) -> Vec<String> {
    own.into_iter().filter(|own| !translated.keys().any(|ip| ip.to_string() == *own)).collect()
}
