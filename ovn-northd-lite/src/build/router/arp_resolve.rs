//! The next hop's MAC address: those of all workloads and router ports on the switch
//! behind the output port are known. Of others the router asks, while their packets wait.

use std::net::IpAddr;

use flowtable::types::MacAddr;

use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::RouterInput},
    expr::lexer::quote,
    model::SwitchPortKind,
};

pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    ask(input, sink);
    for (id, _) in input.enabled_ports() {
        let Some(side) = input.links.get(id) else { continue };
        for (port_id, port) in &side.switch.ports {
            let SwitchPortKind::Workload { addresses, .. } = &port.kind else { continue };
            let object = format!("switches/{}/ports/{port_id}", side.switch_id);
            for address in addresses {
                for ip in &address.ips {
                    add(sink, id, *ip, address.mac, &object, "The next hop is this workload.");
                }
            }
        }
        for neighbour in side.neighbours.iter().filter(|neighbour| neighbour.is_enabled()) {
            for network in of_router_port(neighbour.port) {
                let why = "The next hop is this router port.";
                add(sink, id, network.addr, neighbour.port.mac, &neighbour.object(), why);
            }
        }
    }
}

/// What is known of others, and how to ask for the rest.
fn ask(input: &RouterInput<'_>, sink: &mut FlowSink) {
    let object = &input.object;
    let (resolve, request) = (RouterIn::ArpResolve, RouterIn::ArpRequest);
    sink.add(resolve, 0, "1", "drop;", object, "Only IP packets have a next hop.");
    let why = "The next hop is no workload and no router; it may have been heard of.";
    sink.add(resolve, 1, "ip4", "get_arp(outport, reg0); next;", object, why);
    sink.add(resolve, 1, "ip6", "get_nd(outport, xxreg0); next;", object, why);
    sink.add(request, 0, "1", "output;", object, "The next hop's MAC address is known.");
    let why = "Nobody is known to have the next hop's address: the router asks.";
    let nobody = "eth.dst == 00:00:00:00:00:00";
    let arp = "arp { eth.dst = ff:ff:ff:ff:ff:ff; arp.op = 1; arp.spa = reg5; arp.tpa = reg0; output; };";
    sink.add(request, 100, format!("{nobody} && ip4"), arp, object, why);
    sink.add(request, 100, format!("{nobody} && ip6"), "nd_ns { output; };", object, why);
}

fn add(sink: &mut FlowSink, port: &str, ip: IpAddr, mac: MacAddr, object: &str, why: &str) {
    let (family, field) = if ip.is_ipv4() { ("ip4", "reg0") } else { ("ip6", "xxreg0") };
    let matching = format!("outport == {} && {family} && {field} == {ip}", quote(port));
    sink.add(RouterIn::ArpResolve, 100, matching, format!("eth.dst = {mac}; output;"), object, why);
}
