//! Health checks of load balancers, at the ports of their backends: what a backend answers
//! goes to the host that asks it, past all that is for workloads. The host asks from an
//! address that nobody has; where a backend asks who that is, it is told.

use std::{collections::BTreeSet, net::IpAddr};

use super::{arp_reply, nd_reply};
use crate::{
    build::{address::solicited_node, sink::FlowSink, stage::SwitchIn, topology::SwitchPortInput},
    expr::lexer::quote,
    punt::MONITOR_MAC,
};

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let sources: BTreeSet<IpAddr> = input.probes.iter().map(|probe| probe.source).collect();
    if sources.is_empty() || !input.port.enabled {
        return;
    }
    let (object, inport) = (&input.object, format!("inport == {}", quote(input.id)));
    let why = "What the backend answers to a health check is for its host.";
    let answer = format!("{inport} && eth.dst == {MONITOR_MAC} && ip");
    sink.add(SwitchIn::PortSecL2, 105, answer, "handle_svc_check(inport);", object, why);
    let why = "A backend may ask who checks its health.";
    for source in sources {
        let (question, reply) = match source {
            IpAddr::V4(ip) => (
                format!("arp.op == 1 && arp.tpa == {ip}"),
                arp_reply(MONITOR_MAC, &format!("arp.tpa = arp.spa; arp.spa = {ip};")),
            ),
            IpAddr::V6(ip) => (
                format!(
                    "nd_ns && nd.target == {ip} && ip6.dst == {{{ip}, {}}} && nd.options_type == 1",
                    solicited_node(ip)
                ),
                nd_reply(MONITOR_MAC, ip, false),
            ),
        };
        sink.add(SwitchIn::ArpRsp, 110, format!("{inport} && {question}"), reply, object, why);
    }
}
