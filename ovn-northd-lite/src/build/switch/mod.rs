//! The features of a switch, in the order packets meet them.

mod acl;
mod admission;
mod arp_responder;
mod balancer;
mod dhcp;
mod dns;
mod fdb;
mod health;
mod l2_lookup;
mod multicast;
mod network;
mod port_security;
mod qos;
mod virtual_port;

use std::net::Ipv6Addr;

use flowtable::types::MacAddr;

use super::feature::SwitchFeature::{self, Acl, Balancer, Group, Port, Qos, Switch};

/// What makes the flows of a switch. Of two flows for the same packets in the same place
/// the one of the earlier feature stays.
pub(super) const FEATURES: &[SwitchFeature] = &[
    Switch(admission::switch),
    Port(admission::port),
    Port(health::port),
    Switch(port_security::switch),
    Port(port_security::port),
    Switch(acl::switch),
    Port(acl::port),
    Acl(acl::acl),
    Switch(qos::switch),
    Qos(qos::rule),
    Switch(balancer::switch),
    Port(balancer::port),
    Balancer(balancer::balancer),
    Switch(arp_responder::switch),
    Port(virtual_port::port),
    Port(arp_responder::port),
    Switch(dhcp::switch),
    Port(dhcp::port),
    Switch(dns::switch),
    Port(dns::port),
    Port(network::port),
    Switch(fdb::switch),
    Port(fdb::port),
    Switch(multicast::switch),
    Group(multicast::group),
    Switch(l2_lookup::switch),
    Port(l2_lookup::port),
];

/// The actions that turn an ARP request into its answer and send it back.
pub(super) fn arp_reply(mac: MacAddr, sender: &str) -> String {
    format!(
        "eth.dst = eth.src; eth.src = {mac}; arp.op = 2; arp.tha = arp.sha; arp.sha = {mac}; {sender} \
         outport = inport; flags.loopback = 1; output;"
    )
}

/// The actions that turn a neighbour solicitation into the advertisement and send it
/// back. The option with the sender's link-layer address becomes the one with the
/// target's: the packet keeps its length.
pub(super) fn nd_reply(mac: MacAddr, ip: Ipv6Addr, is_router: bool) -> String {
    nd_reply_for(mac, &ip.to_string(), is_router)
}

/// The same, where the address may be a field.
fn nd_reply_for(mac: MacAddr, ip: &str, is_router: bool) -> String {
    // RFC 4861 §4.4: router, solicited, override.
    let flags = if is_router { "0xe0000000" } else { "0x60000000" };
    format!(
        "eth.dst = eth.src; eth.src = {mac}; ip6.dst = ip6.src; ip6.src = {ip}; icmp6.type = 136; \
         nd.options_type = 2; nd.tll = {mac}; nd.flags = {flags}; outport = inport; flags.loopback = 1; output;"
    )
}
