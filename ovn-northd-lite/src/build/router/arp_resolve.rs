//! The next hop's MAC address: those of all workloads and router ports on the switch
//! behind the output port are known, and so is what the port is told. Of others the router
//! asks, while their packets wait.

use std::net::IpAddr;

use flowtable::types::MacAddr;

use crate::{
    build::{
        address::of_router_port,
        sink::FlowSink,
        stage::RouterIn,
        topology::{NeighbourInput, RouterPorts},
    },
    expr::lexer::quote,
    model::{StaticMac, SwitchPortKind},
};

/// A port of the switch behind a router's port.
pub(super) fn neighbour(input: &NeighbourInput<'_>, sink: &mut FlowSink) {
    match &input.port.kind {
        SwitchPortKind::Workload { addresses, .. } => {
            let object = format!("switches/{}/ports/{}", input.switch_id, input.port_id);
            for address in addresses {
                for ip in &address.ips {
                    let why = "The next hop is this workload.";
                    add(sink, input.router_port_id, *ip, address.mac, &object, why);
                }
            }
        }
        SwitchPortKind::Router { .. } => {
            let Some(side) = input.side.as_ref().filter(|side| side.is_enabled()) else { return };
            for network in of_router_port(side.port) {
                let why = "The next hop is this router port.";
                add(sink, input.router_port_id, network.addr, side.port.mac, &side.object(), why);
            }
        }
        SwitchPortKind::Switch { .. } | SwitchPortKind::Network { .. } => {}
    }
}

/// What is known of others, and how to ask for the rest.
pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
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
    for (id, port) in input.enabled_ports() {
        let object = input.port_object(id);
        for (ip, StaticMac { mac, overrides }) in &port.static_macs {
            let (matching, actions) = (to(id, *ip), format!("eth.dst = {mac}; output;"));
            if *overrides {
                let why = "The next hop's MAC address is given, whatever is heard of it.";
                sink.add(resolve, 50, matching, actions, &object, why);
            } else {
                let why = "Nothing is heard of the next hop; its MAC address is given.";
                sink.add(request, 110, format!("{nobody} && {matching}"), actions, &object, why);
            }
        }
    }
}

fn add(sink: &mut FlowSink, port: &str, ip: IpAddr, mac: MacAddr, object: &str, why: &str) {
    let actions = format!("eth.dst = {mac}; output;");
    sink.add(RouterIn::ArpResolve, 100, to(port, ip), actions, object, why);
}

/// Packets to a next hop by a port.
fn to(port: &str, ip: IpAddr) -> String {
    let (family, field) = if ip.is_ipv4() { ("ip4", "reg0") } else { ("ip6", "xxreg0") };
    format!("outport == {} && {family} && {field} == {ip}", quote(port))
}
