//! ICMP errors: what a router tells the source of a packet it cannot forward or has no
//! use for. Never about an ICMP error, a group address or a later fragment (RFC 1812
//! §4.3.2.7, RFC 4443 §2.4).

use std::{collections::BTreeMap, net::IpAddr};

use super::ip_input::{addresses, untranslated};
use crate::{
    build::{
        address::one_of,
        sink::FlowSink,
        stage::{RouterIn, Stage},
        topology::RouterPorts,
    },
    expr::{check_match, lexer::quote},
    model::{IpNetwork, RouterPort},
};

/// Packets that no error is sent about, among those to one address.
const SILENT: [&str; 2] = [
    "ip4 && (ip4.src == 0.0.0.0 || ip.later_frag || icmp4.type == {3, 4, 5, 11, 12})",
    "ip6 && (ip6.src == :: || ip.later_frag || icmp6.type == {1, 2, 3, 4, 137})",
];
/// Packets to groups.
const GROUPS: [&str; 2] = ["ip4 && (ip4.mcast || ip4.dst == 255.255.255.255)", "ip6.mcast"];

/// The error's packet, from `source`, back to where the packet came from. It is routed
/// like any other.
fn back(family: &str, icmp: &str, kind: (u8, u8), source: Option<IpAddr>) -> String {
    telling(family, icmp, "", kind, source)
}

/// The same, with something that the error tells besides.
fn telling(family: &str, icmp: &str, what: &str, (kind, code): (u8, u8), source: Option<IpAddr>) -> String {
    let addresses = match source {
        Some(source) => format!("{family}.dst = {family}.src; {family}.src = {source};"),
        None => format!("{family}.dst <-> {family}.src;"),
    };
    let stage = Stage::from(RouterIn::IpRoutingPre).number;
    format!(
        "{icmp}{what} {{ eth.dst <-> eth.src; {icmp}.type = {kind}; {icmp}.code = {code}; {addresses} ip.ttl = 255; \
         flags.loopback = 1; next(pipeline=ingress, table={stage}); }};"
    )
}

/// Packets that may make no further hop.
pub(super) fn expired(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let last = "ip.ttl == {0, 1}";
    let why = "The packet may make no further hop, and nobody is told.";
    sink.add(RouterIn::IpInput, 30, last, "drop;", &input.router.object, why);
    for packets in SILENT.iter().chain(&GROUPS) {
        let matching = format!("({packets}) && {last}");
        sink.add(RouterIn::IpInput, 33, matching, "drop;", &input.router.object, why);
    }
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        let why = "The packet may make no further hop; its source is told (RFC 1812 §5.3.1, RFC 4443 §3.3).";
        for Family { family, icmp, kinds, source } in families(port) {
            let matching = format!("inport == {} && {family} && {last}", quote(id));
            let actions = back(family, icmp, kinds.expired, Some(source));
            sink.add(RouterIn::IpInput, 31, matching, actions, &object, why);
        }
    }
}

/// Packets to the router's own addresses that nothing answers.
pub(super) fn unreachable(
    sink: &mut FlowSink,
    object: &str,
    port: &RouterPort,
    translated: &BTreeMap<IpAddr, String>,
) {
    for (Family { family, icmp, kinds, .. }, silent) in families(port).into_iter().zip(silent(port)) {
        let own = untranslated(addresses(port, family == "ip4"), translated);
        if own.is_empty() {
            continue;
        }
        let to = format!("{family}.dst == {}", one_of(&own));
        let why = "The router has no service there, and nobody is told.";
        sink.add(RouterIn::IpInput, 69, format!("({silent}) && {to}"), "drop;", object, why);
        let why = "The router has no service there; the source is told (RFC 1812 §5.2.7.1, RFC 4443 §3.1).";
        let reset = format!(
            "tcp_reset {{ eth.dst <-> eth.src; {family}.dst <-> {family}.src; flags.loopback = 1; \
             next(pipeline=ingress, table={}); }};",
            Stage::from(RouterIn::IpRoutingPre).number
        );
        sink.add(RouterIn::IpInput, 65, format!("{to} && tcp"), reset, object, why);
        let actions = back(family, icmp, kinds.port, None);
        sink.add(RouterIn::IpInput, 65, format!("{to} && udp"), actions, object, why);
    }
}

/// Packets that no route leads on. The port they came by tells the source; those of the
/// router itself came by none that could.
pub(super) fn no_route(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let why = "There is no route to the destination, and nobody is told.";
    sink.add(RouterIn::IpRouting, 0, "1", "drop;", &input.router.object, why);
    for packets in SILENT {
        sink.add(RouterIn::IpRouting, 2, packets, "drop;", &input.router.object, why);
    }
    let why = "There is no route to the destination; the source is told (RFC 1812 §5.2.7.1, RFC 4443 §3.1).";
    for (id, port) in input.enabled_ports() {
        for Family { family, icmp, kinds, source } in families(port) {
            let matching = format!("inport == {} && {family}", quote(id));
            let actions = back(family, icmp, kinds.no_route, Some(source));
            sink.add(RouterIn::IpRouting, 1, matching, actions, &input.router.object, why);
        }
    }
}

/// Length of an Ethernet header: logical networks have no tags.
const ETH: u16 = 14;

/// Packets that are too large for the network behind the port that they leave by. Whoever
/// sent them is told how large they may be (RFC 1191, RFC 4443 §3.2).
pub(super) fn too_large(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    let why = "The port that the packet leaves by has no MTU of its own.";
    sink.add(RouterIn::ChkPktLen, 0, "1", "next;", object, why);
    sink.add(RouterIn::LargerPkts, 0, "1", "next;", object, "The packet is not too large.");
    for (id, port) in input.enabled_ports() {
        let Some(mtu) = port.mtu else { continue };
        let (object, outport) = (input.port_object(id), format!("outport == {}", quote(id)));
        let why = "What leaves by the port must not be larger than its MTU.";
        let check = format!("reg9[1] = check_pkt_larger({}); next;", mtu.saturating_add(ETH));
        sink.add(RouterIn::ChkPktLen, 50, format!("{outport} && ip"), check, &object, why);
        if !port.mtu_bypass.is_empty() && check_match(&port.mtu_bypass).is_ok() {
            let matching = format!("{outport} && ip && ({})", port.mtu_bypass);
            let why = "The packet may be larger than the port's MTU.";
            sink.add(RouterIn::ChkPktLen, 55, matching, "next;", &object, why);
        }
        let larger = format!("{outport} && reg9[1] == 1");
        let why = "The packet is larger than the port's MTU, and nobody is told.";
        sink.add(RouterIn::LargerPkts, 50, format!("{larger} && ip"), "drop;", &object, why);
        for packets in SILENT {
            let matching = format!("({packets}) && {larger}");
            sink.add(RouterIn::LargerPkts, 110, matching, "drop;", &object, why);
        }
        let why = "The packet is larger than the port's MTU; its source is told (RFC 1191, RFC 4443 §3.2).";
        for (from, other) in input.enabled_ports() {
            for Family { family, icmp, kinds, source } in families(other) {
                let matching = format!("inport == {} && {family} && {larger}", quote(from));
                let actions = telling(family, icmp, &format!("(mtu={mtu})"), kinds.too_large, Some(source));
                sink.add(RouterIn::LargerPkts, 100, matching, actions, &object, why);
            }
        }
    }
}

/// Types and codes of one family.
struct Kinds {
    expired: (u8, u8),
    no_route: (u8, u8),
    port: (u8, u8),
    too_large: (u8, u8),
}

/// RFC 792; RFC 4443 §3.
const V4: Kinds = Kinds { expired: (11, 0), no_route: (3, 0), port: (3, 3), too_large: (3, 4) };
const V6: Kinds = Kinds { expired: (3, 0), no_route: (1, 0), port: (1, 4), too_large: (2, 0) };

/// A family that a port has an address of.
struct Family {
    family: &'static str,
    icmp: &'static str,
    kinds: &'static Kinds,
    /// The port's first address.
    source: IpAddr,
}

fn families(port: &RouterPort) -> Vec<Family> {
    let first = |is_v4: bool| port.networks.iter().find(|network| network.addr.is_ipv4() == is_v4);
    let of = |network: &IpNetwork, family, icmp, kinds| Family { family, icmp, kinds, source: network.addr };
    let v4 = first(true).map(|network| of(network, "ip4", "icmp4", &V4));
    v4.into_iter().chain(first(false).map(|network| of(network, "ip6", "icmp6", &V6))).collect()
}

/// Packets that no error is sent about, of each family in [`families`].
fn silent(port: &RouterPort) -> Vec<&'static str> {
    let of = |family: Family| SILENT[usize::from(family.family == "ip6")];
    families(port).into_iter().map(of).collect()
}
