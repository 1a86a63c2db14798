//! Answers to ARP requests and neighbour solicitations for the addresses of known
//! workloads, so that they need not be flooded. Only what is sent to everybody is
//! answered; a probe of a neighbour's reachability goes to the neighbour. Solicitations
//! without the option that carries the sender's link-layer address (RFC 4861 §4.3: those
//! that check for duplicates) are not answered either, the owner does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use super::{arp_reply, nd_reply, nd_reply_for};
use crate::{
    build::{
        address::solicited_node,
        sink::FlowSink,
        stage::SwitchIn,
        topology::{SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::SwitchPortKind,
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    sink.add(SwitchIn::ArpRsp, 0, "1", "next;", &switch.object, "Not a question about a known address.");
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    stand_for(input, sink);
    let SwitchPortKind::Workload { addresses, unknown: false, access, .. } = &input.port.kind else { return };
    let is_answered = input.port.enabled && access.has_frames() && !input.port.options.silent;
    for address in addresses.iter().filter(|_| is_answered) {
        for ip in &address.ips {
            match ip {
                IpAddr::V4(ip) => arp(sink, &input.object, input.id, address.mac, *ip),
                IpAddr::V6(ip) => nd(sink, &input.object, input.id, address.mac, *ip),
            }
        }
    }
}

/// Networks that a router answers for.
fn stand_for(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let side = input.side.as_ref().filter(|side| input.port.enabled && side.is_enabled());
    let Some(side) = side else { return };
    let options = &input.port.options;
    let mac = options.stands_for_mac.unwrap_or(side.port.mac);
    let why = "The router answers for whoever has an address of this network.";
    for network in &options.stands_for {
        let (question, reply) = match network.addr {
            IpAddr::V4(_) => (
                format!("arp.op == 1 && arp.tpa == {}", network.text()),
                arp_reply(mac, "arp.tpa <-> arp.spa;"),
            ),
            IpAddr::V6(_) => (
                format!(
                    "nd_ns && ip6.dst == ff02::1:ff00:0/104 && nd.target == {} && nd.options_type == 1",
                    network.text()
                ),
                nd_reply_for(mac, "nd.target", true),
            ),
        };
        let own = format!("inport == {} && {question}", quote(input.id));
        let itself = "What the router asks for it does not have.";
        sink.add(SwitchIn::ArpRsp, 35, own, "next;", &input.object, itself);
        sink.add(SwitchIn::ArpRsp, 30, question, reply, &input.object, why);
    }
}

const PROBE: &str = "A port that asks for its own address wants to know whether somebody else has it.";
const KNOWN: &str = "The address belongs to a known port.";

fn arp(sink: &mut FlowSink, object: &str, id: &str, mac: MacAddr, ip: Ipv4Addr) {
    let question = format!("arp.op == 1 && arp.tpa == {ip}");
    let own = format!("inport == {} && {question}", quote(id));
    sink.add(SwitchIn::ArpRsp, 100, own, "next;", object, PROBE);
    let matching = format!("{question} && eth.bcast");
    let reply = arp_reply(mac, &format!("arp.tpa = arp.spa; arp.spa = {ip};"));
    sink.add(SwitchIn::ArpRsp, 50, matching, reply, object, KNOWN);
}

fn nd(sink: &mut FlowSink, object: &str, id: &str, mac: MacAddr, ip: Ipv6Addr) {
    let question = format!("nd_ns && nd.target == {ip}");
    let own = format!("inport == {} && {question}", quote(id));
    sink.add(SwitchIn::ArpRsp, 100, own, "next;", object, PROBE);
    let group = solicited_node(ip);
    let matching = format!("{question} && ip6.dst == {group} && nd.options_type == 1");
    sink.add(SwitchIn::ArpRsp, 50, matching, nd_reply(mac, ip, false), object, KNOWN);
}
