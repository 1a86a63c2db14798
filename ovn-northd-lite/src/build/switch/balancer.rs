//! Load balancers at the client's port: a connection to a service is translated as it
//! enters the switch, and its answers as they leave to the client, in the zone of the
//! client's port. So any host can do it alone, wherever the backend is.
//!
//! A switch has its own load balancers and those of the routers linked to it that are
//! everywhere; a router that is on one chassis translates by itself.
//!
//! A client that is its own backend (hairpin) would answer to itself: such a connection's
//! source becomes the service's address, in the switch's zone for sources. Where the
//! service is a whole address, answers cannot be told from new connections, and a client
//! must not be its own backend.

use crate::{
    build::{
        balancer::{Affinity, Balanced, family},
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
        topology::{SwitchBalancerInput, SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::{Backend, SwitchPortKind},
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    defaults(switch, sink);
    if !switch.has_balancers {
        return;
    }
    let object = &switch.object;
    let why = "A load balancer's answers come from its service's address.";
    sink.add(SwitchOut::PreLb, 100, "ip", "reg0[2] = 1; next;", object, why);
    let why = "Neighbours are found without a load balancer.";
    let neighbours = "nd || nd_rs || nd_ra";
    sink.add(SwitchIn::PreLb, 110, neighbours, "next;", object, why);
    sink.add(SwitchOut::PreLb, 110, neighbours, "next;", object, why);
}

/// What routers send and get has been translated, or is yet to be.
pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let is_patch = matches!(input.port.kind, SwitchPortKind::Router { .. } | SwitchPortKind::Switch { .. });
    if !input.switch.has_balancers || !is_patch {
        return;
    }
    let why = "A load balancer works at the client's port, not at a router's.";
    let id = quote(input.id);
    sink.add(SwitchIn::PreLb, 110, format!("inport == {id}"), "next;", &input.object, why);
    sink.add(SwitchOut::PreLb, 110, format!("outport == {id}"), "next;", &input.object, why);
}

pub(super) fn balancer(input: &SwitchBalancerInput<'_>, sink: &mut FlowSink) {
    for service in input.balancer.services() {
        pick_up(&service, sink);
        connect(&service, sink);
        for backend in service.service.backends.iter().filter(|_| service.vip.port.is_some()) {
            hairpin(&service, backend, sink);
        }
    }
    for service in input.balancer.templates_at("") {
        let why = "The packet is for an address of a load balancer.";
        sink.add(SwitchIn::PreLb, 100, service.to_address(), "reg0[2] = 1; next;", &service.object, why);
        service.connect((SwitchIn::Lb.into(), ""), reject, sink);
    }
}

fn defaults(switch: &SwitchTraits, sink: &mut FlowSink) {
    let object = &switch.object;
    for stage in [Stage::from(SwitchIn::PreLb), SwitchOut::PreLb.into()] {
        sink.add(stage, 0, "1", "next;", object, "Not for a load balancer.");
    }
    for stage in [Stage::from(SwitchIn::PreStateful), SwitchOut::PreStateful.into()] {
        sink.add(stage, 0, "1", "next;", object, "Nobody needs to know the connection.");
        let why = "A connection of a load balancer goes on as it began.";
        sink.add(stage, 110, "reg0[2] && ip", "ct_lb_mark;", object, why);
    }
    for (stage, why) in [
        (SwitchIn::LbAffCheck, "The client has no backend to come back to."),
        (SwitchIn::Lb, "Not a new connection to a service."),
        (SwitchIn::LbAffLearn, "There is no backend to come back to."),
        (SwitchIn::NatHairpin, "The client is not its own backend."),
        (SwitchIn::Hairpin, "The client is not its own backend."),
    ] {
        sink.add(stage, 0, "1", "next;", object, why);
    }
}

/// Packets to the address are looked up among the connections: those that there are keep
/// their backend, whatever becomes of the list.
fn pick_up(service: &Balanced<'_>, sink: &mut FlowSink) {
    let why = "The packet is for an address of a load balancer.";
    sink.add(SwitchIn::PreLb, 100, service.to_address(), "reg0[2] = 1; next;", &service.object, why);
}

fn connect(service: &Balanced<'_>, sink: &mut FlowSink) {
    let (actions, why) = service.actions(|family| reject(service.is_tcp(), family));
    let matching = format!("ct.new && {}", service.to_service());
    sink.add(SwitchIn::Lb, service.priority(), matching, actions, &service.object, why);
    let (check, connect) = (SwitchIn::LbAffCheck.into(), SwitchIn::Lb.into());
    service.keep_clients(sink, Affinity { check, connect, learn: SwitchIn::LbAffLearn.into() });
}

/// The client is told at once, by a packet that comes from the service.
fn reject(can_be_reset: bool, family: &str) -> String {
    let (answer, kind) = match (can_be_reset, family) {
        (true, _) => ("tcp_reset", String::new()),
        (false, "ip4") => ("icmp4", "icmp4.type = 3; icmp4.code = 3; ".to_owned()),
        (false, _) => ("icmp6", "icmp6.type = 1; icmp6.code = 4; ".to_owned()),
    };
    // Behind the ACLs: whoever may ask may be answered.
    let stage = Stage::from(SwitchOut::PortSecIp).number;
    format!(
        "{answer} {{ eth.dst <-> eth.src; {family}.dst <-> {family}.src; {kind}outport = inport; \
         flags.loopback = 1; next(pipeline=egress, table={stage}); }};"
    )
}

/// A client that is its own backend.
fn hairpin(service: &Balanced<'_>, backend: &Backend, sink: &mut FlowSink) {
    let (vip, ip) = (service.hairpin_source(), backend.ip);
    let (family, object) = (family(ip), &service.object);
    let port = |direction: &str| match backend.port {
        Some(port) => format!(" && {}.{direction} == {port}", service.protocol()),
        None => String::new(),
    };
    let back = "eth.dst <-> eth.src; outport = inport; flags.loopback = 1; output;";
    let why = "The client is its own backend: it must not see its own address as the sender.";
    // Several services may have this backend.
    let matching = format!(
        "ct.trk && ct.dnat && {} && {family}.src == {ip} && {family}.dst == {ip}{}",
        service.was_for_service(),
        port("dst")
    );
    sink.add(SwitchIn::NatHairpin, 100, matching, format!("reg0[6] = 1; ct_snat({vip});"), object, why);
    let matching = format!("reg0[6] && {family}.dst == {ip}{}", port("dst"));
    sink.add(SwitchIn::Hairpin, 100, matching, back, object, why);
    let why = "The answer of a client that is its own backend goes back to it.";
    let matching = format!("{family}.src == {ip} && {family}.dst == {vip}{}", port("src"));
    sink.add(SwitchIn::NatHairpin, 90, matching, "reg0[12] = 1; ct_snat;", object, why);
    let matching = format!("reg0[12] && {family}.src == {ip} && {family}.dst == {ip}{}", port("src"));
    sink.add(SwitchIn::Hairpin, 90, matching, back, object, why);
}
