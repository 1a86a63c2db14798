//! Answers to ARP requests and neighbour solicitations for the addresses of known
//! workloads, so that they need not be flooded. Only what is sent to everybody is
//! answered; a probe of a neighbour's reachability goes to the neighbour. Solicitations
//! without the option that carries the sender's link-layer address (RFC 4861 §4.3: those
//! that check for duplicates) are not answered either, the owner does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use super::{arp_reply, nd_reply};
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
    let SwitchPortKind::Workload { addresses, unknown: false, access, .. } = &input.port.kind else { return };
    for address in addresses.iter().filter(|_| input.port.enabled && access.has_frames()) {
        for ip in &address.ips {
            match ip {
                IpAddr::V4(ip) => arp(sink, &input.object, input.id, address.mac, *ip),
                IpAddr::V6(ip) => nd(sink, &input.object, input.id, address.mac, *ip),
            }
        }
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
