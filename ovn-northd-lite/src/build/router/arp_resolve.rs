//! The next hop's MAC address: those of all workloads and router ports on the switch
//! behind the output port are known. There is nobody else to ask yet.

use std::net::IpAddr;

use flowtable::types::MacAddr;

use crate::{
    build::{address::of_router_port, sink::FlowSink, stage::RouterIn, topology::RouterInput},
    expr::lexer::quote,
    model::SwitchPortKind,
};

pub(super) fn build(input: &RouterInput<'_>, sink: &mut FlowSink) {
    let why = "Nobody on the network behind the output port is known to have the next hop's address.";
    sink.add(RouterIn::ArpResolve, 0, "1", "drop;", &input.object, why);
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

fn add(sink: &mut FlowSink, port: &str, ip: IpAddr, mac: MacAddr, object: &str, why: &str) {
    let (family, field) = if ip.is_ipv4() { ("ip4", "reg0") } else { ("ip6", "xxreg0") };
    let matching = format!("outport == {} && {family} && {field} == {ip}", quote(port));
    sink.add(RouterIn::ArpResolve, 100, matching, format!("eth.dst = {mac}; output;"), object, why);
}
