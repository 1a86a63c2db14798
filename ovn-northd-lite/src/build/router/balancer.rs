//! Load balancers of a router that is on one chassis: connections are translated as they
//! enter it, whoever they are from. The load balancers of a router that is everywhere
//! work at the clients' ports, see the switch's `balancer`.

use crate::build::{
    balancer::Affinity,
    sink::FlowSink,
    stage::{RouterIn, Stage},
    topology::{RouterBalancerInput, RouterPorts},
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (object, why) = (&input.router.object, "Not for a load balancer.");
    sink.add(RouterIn::Defrag, 0, "1", "next;", object, why);
    sink.add(RouterIn::LbAffCheck, 0, "1", "next;", object, "The client has no backend to come back to.");
    sink.add(RouterIn::LbAffLearn, 0, "1", "next;", object, "There is no backend to come back to.");
    sink.add(RouterIn::Dnat, 0, "1", "next;", object, "The destination is not translated.");
}

pub(super) fn balancer(input: &RouterBalancerInput<'_>, sink: &mut FlowSink) {
    if input.ports.router.chassis.is_none() {
        return;
    }
    for service in input.balancer.services() {
        let object = &service.object;
        let why = "The packet is for an address of a load balancer.";
        sink.add(RouterIn::Defrag, 100, service.to_address(), "ct_dnat;", object, why);
        let stage = Stage::from(RouterIn::IpRouting).number;
        let (actions, why) = service.actions(|family| {
            let (answer, kind) = match (service.is_tcp(), family) {
                (true, _) => ("tcp_reset", String::new()),
                (false, "ip4") => ("icmp4", "icmp4.type = 3; icmp4.code = 3; ".to_owned()),
                (false, _) => ("icmp6", "icmp6.type = 1; icmp6.code = 4; ".to_owned()),
            };
            format!(
                "{answer} {{ eth.dst <-> eth.src; {family}.dst <-> {family}.src; {kind}flags.loopback = 1; \
                 next(pipeline=ingress, table={stage}); }};"
            )
        });
        let matching = format!("ct.new && {}", service.to_service());
        sink.add(RouterIn::Dnat, service.priority(), matching, actions, object, why);
        let (check, connect) = (RouterIn::LbAffCheck.into(), RouterIn::Dnat.into());
        service.keep_clients(sink, Affinity { check, connect, learn: RouterIn::LbAffLearn.into() });
    }
}
