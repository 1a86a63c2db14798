//! Switches that are connected to a network outside. What comes from there meets the same
//! switch on every host, so only one may answer, and only one may let it into a router:
//! workloads speak for themselves there, and routers need a gateway.

use std::net::IpAddr;

use crate::{
    build::{
        address::of_router_port,
        gateway::Floating,
        sink::FlowSink,
        stage::SwitchIn,
        switch::{arp_reply, nd_reply},
        topology::{RouterSide, SwitchPortInput},
    },
    expr::lexer::quote,
    model::{Distributed, SwitchPortKind},
};

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let SwitchPortInput { switch, id, port, object, side, .. } = input;
    if !port.enabled {
        return;
    }
    if matches!(port.kind, SwitchPortKind::Network { .. }) {
        let matching = format!("inport == {} && (arp || nd)", quote(id));
        let why = "Questions from outside reach every host; who is asked for answers.";
        sink.add(SwitchIn::ArpRsp, 100, matching, "next;", object, why);
    }
    let Some(side) = side.as_ref().filter(|side| side.is_enabled()) else { return };
    if side.chassis().is_none() && !side.has_gateway() {
        for network in &switch.networks {
            keep_out(sink, object, network, side);
        }
    } else {
        floating(sink, id, side);
    }
}

/// A router that is on every host would be in the network outside as often.
fn keep_out(sink: &mut FlowSink, object: &str, network: &str, side: &RouterSide<'_>) {
    let why = "The router port is on every host; it needs gateway chassis to be reached from outside.";
    let from = format!("inport == {}", quote(network));
    sink.add(SwitchIn::L2Lkup, 95, format!("{from} && eth.dst == {}", side.port.mac), "drop;", object, why);
    for own in of_router_port(side.port) {
        let matching = match own.addr {
            IpAddr::V4(ip) => format!("{from} && arp.op == 1 && arp.tpa == {ip}"),
            IpAddr::V6(ip) => format!("{from} && nd_ns && nd.target == {ip}"),
        };
        sink.add(SwitchIn::L2Lkup, 95, matching, "drop;", object, why);
    }
}

/// Floating addresses that are on their workloads' hosts: those answer for them, and take
/// their packets.
fn floating(sink: &mut FlowSink, id: &str, side: &RouterSide<'_>) {
    for Floating { nat, ip, distributed } in side.outside() {
        let Some(own) = distributed else { continue };
        let object = format!("routers/{}/nats/{nat}", side.router_id);
        answer(sink, &object, ip, &own);
        let here = format!("eth.dst == {} && is_chassis_resident({})", own.mac, quote(&own.port));
        let actions = format!("outport = {}; flags.local = 1; output;", quote(id));
        let why = "The floating address is on this host.";
        sink.add(SwitchIn::L2Lkup, 60, here, actions, &object, why);
    }
}

fn answer(sink: &mut FlowSink, object: &str, ip: IpAddr, own: &Distributed) {
    let here = format!("is_chassis_resident({})", quote(&own.port));
    let why = "The floating address is on this host, which answers for it.";
    match ip {
        IpAddr::V4(ip) => {
            let matching = format!("arp.op == 1 && arp.tpa == {ip} && {here}");
            let actions = arp_reply(own.mac, "arp.tpa <-> arp.spa;");
            sink.add(SwitchIn::ArpRsp, 120, matching, actions, object, why);
        }
        IpAddr::V6(ip) => {
            let matching = format!("nd_ns && nd.target == {ip} && nd.options_type == 1 && {here}");
            sink.add(SwitchIn::ArpRsp, 120, matching, nd_reply(own.mac, ip, true), object, why);
        }
    }
}
