//! Names that the network knows: questions of workloads, to whatever resolver, are answered
//! by the host they are on. What is not known goes on to the resolver; so does TCP.

use crate::{
    build::{
        sink::FlowSink,
        stage::SwitchIn,
        topology::{SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
    model::SwitchPortKind,
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let (ask, answer) = (SwitchIn::DnsLookup, SwitchIn::DnsResponse);
    sink.add(ask, 0, "1", "next;", &switch.object, "Not a question for a name.");
    sink.add(answer, 0, "1", "next;", &switch.object, "Not an answer about a name.");
    if switch.names.is_empty() {
        return;
    }
    switch.names.iter().for_each(|id| sink.names(id));
    let why = "The question may be for a name that the network knows.";
    let question = "udp.dst == 53 && !ip.is_frag";
    sink.add(ask, 100, question, "reg0[4] = dns_lookup(); next;", &switch.object, why);
    let why = "The host has answered; the answer goes back.";
    for family in ["ip4", "ip6"] {
        let matching = format!("{family} && udp.dst == 53 && reg0[4] == 1");
        // Past the ACLs: they have judged the question.
        let actions = format!(
            "eth.dst <-> eth.src; {family}.dst <-> {family}.src; udp.dst = udp.src; udp.src = 53; \
             outport = inport; flags.loopback = 1; flags.from_ctrl = 1; output;"
        );
        sink.add(answer, 100, matching, actions, &switch.object, why);
    }
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let is_router = matches!(input.port.kind, SwitchPortKind::Router { .. });
    if is_router && !input.switch.names.is_empty() {
        let inport = format!("inport == {}", quote(input.id));
        let why = "Names are for the switch's own workloads.";
        sink.add(SwitchIn::DnsLookup, 110, inport, "next;", &input.object, why);
    }
}
