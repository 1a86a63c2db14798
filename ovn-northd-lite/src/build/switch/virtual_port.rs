//! Virtual ports: an address that one of some workloads has at a time. Whoever has come to
//! have it says so to everybody, unasked or as an answer, and the host that it is on notes
//! it: from then on routers send what is for the address there.

use std::net::IpAddr;

use crate::{
    build::{sink::FlowSink, stage::SwitchIn, topology::SwitchPortInput},
    expr::lexer::quote,
    model::{Access, SwitchPortKind},
};

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let SwitchPortInput { id, port, object, .. } = input;
    let SwitchPortKind::Workload { access: Access::Virtual { ip, parents }, .. } = &port.kind else { return };
    let claims = match ip {
        // RFC 5227 §3: a request or an answer about the sender itself.
        IpAddr::V4(ip) => vec![
            format!("arp.op == 1 && arp.spa == {ip} && arp.tpa == {ip}"),
            format!("arp.op == 2 && arp.spa == {ip}"),
        ],
        IpAddr::V6(ip) => vec![format!("nd_na && nd.target == {ip}")],
    };
    let why = "Who says that it has the address has it from now on.";
    for parent in parents.iter().filter(|_| port.enabled) {
        for claim in &claims {
            let matching = format!("inport == {} && {claim}", quote(parent));
            let actions = format!("bind_vport({}, inport); next;", quote(id));
            sink.add(SwitchIn::ArpRsp, 110, matching, actions, object, why);
        }
    }
}
