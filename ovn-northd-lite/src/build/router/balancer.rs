//! Load balancers of a router where it remembers connections: they are translated as they
//! enter it. On a router of one chassis whoever they are from, at a gateway port those from
//! outside, on the host that is the gateway: their answers come by there, and must have
//! the service's address before sources are translated. Elsewhere the load balancers of a
//! router that is everywhere work at the clients' ports, see the switch's `balancer`.

use super::stateless;
use crate::{
    build::{
        balancer::{Affinity, Balanced},
        gateway::redirect_name,
        sink::FlowSink,
        stage::{RouterIn, Stage},
        topology::{RouterBalancerInput, RouterPorts},
    },
    expr::lexer::quote,
    model::LoadBalancer,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (object, why) = (&input.router.object, "Not for a load balancer.");
    sink.add(RouterIn::Defrag, 0, "1", "next;", object, why);
    sink.add(RouterIn::LbAffCheck, 0, "1", "next;", object, "The client has no backend to come back to.");
    sink.add(RouterIn::LbAffLearn, 0, "1", "next;", object, "There is no backend to come back to.");
    sink.add(RouterIn::Dnat, 0, "1", "next;", object, "The destination is not translated.");
}

pub(super) fn balancer(input: &RouterBalancerInput<'_>, sink: &mut FlowSink) {
    if input.balancer.balancer.stateless {
        input.balancer.services().for_each(|service| stateless::answers(&input.ports, &service, sink));
    }
    for place in places(&input.ports) {
        for service in input.balancer.services_at(&place) {
            if service.balancer.stateless && input.ports.router.chassis.is_none() {
                stateless::requests(&service, |family| reject(service.is_tcp(), family), sink);
                continue;
            }
            let source = source(&input.ports, service.vip.ip.is_ipv4(), service.balancer);
            connect(&Balanced { source, ..service }, sink);
        }
        for service in input.balancer.templates_at(&place) {
            let why = "The packet is for an address of a load balancer.";
            sink.add(RouterIn::Defrag, 100, service.to_address(), "ct_dnat;", &service.object, why);
            let source = source(&input.ports, service.service.is_v4, service.balancer);
            service.connect((RouterIn::Dnat.into(), source), reject, sink);
        }
    }
}

/// What becomes of the sources of a service's connections.
fn source(ports: &RouterPorts<'_>, is_v4: bool, balancer: &LoadBalancer) -> &'static str {
    let mut forced = ports.router.options.balancer_sources.iter();
    match balancer.skip_snat {
        true => "; skip_snat",
        false if forced.any(|ip| ip.is_ipv4() == is_v4) => "; force_snat",
        false => "",
    }
}

/// Where the router translates, each ending in ` && ` when there is a condition.
fn places(ports: &RouterPorts<'_>) -> Vec<String> {
    if ports.router.chassis.is_some() {
        return vec![String::new()];
    }
    let at = |id: &str| {
        format!("inport == {} && is_chassis_resident({}) && ", quote(id), quote(&redirect_name(id)))
    };
    ports.gateway_ports().map(|(id, _)| at(id)).collect()
}

fn connect(service: &Balanced<'_>, sink: &mut FlowSink) {
    let object = &service.object;
    let why = "The packet is for an address of a load balancer.";
    sink.add(RouterIn::Defrag, 100, service.to_address(), "ct_dnat;", object, why);
    let (actions, why) = service.actions(|family| reject(service.is_tcp(), family));
    let matching = format!("ct.new && {}", service.to_service());
    sink.add(RouterIn::Dnat, service.priority(), matching, actions, object, why);
    let (check, connect) = (RouterIn::LbAffCheck.into(), RouterIn::Dnat.into());
    service.keep_clients(sink, Affinity { check, connect, learn: RouterIn::LbAffLearn.into() });
}

/// The client is told at once, by a packet that comes from the service.
fn reject(can_be_reset: bool, family: &str) -> String {
    let (answer, kind) = match (can_be_reset, family) {
        (true, _) => ("tcp_reset", String::new()),
        (false, "ip4") => ("icmp4", "icmp4.type = 3; icmp4.code = 3; ".to_owned()),
        (false, _) => ("icmp6", "icmp6.type = 1; icmp6.code = 4; ".to_owned()),
    };
    let stage = Stage::from(RouterIn::IpRoutingPre).number;
    format!(
        "{answer} {{ eth.dst <-> eth.src; {family}.dst <-> {family}.src; {kind}flags.loopback = 1; \
         next(pipeline=ingress, table={stage}); }};"
    )
}
