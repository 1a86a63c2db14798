//! Connections that nothing translates, of routers that are to remember these, too: in the zone for
//! translated sources, each once. A router of one chassis remembers as the packet leaves, behind all
//! translations of its source; whether it begins a connection was seen when it came, since on its
//! way back it looks the same there. At a gateway port, connections from inside are remembered as
//! they leave, those from outside as they enter: on other hosts nobody sees both directions.

use crate::{
    build::{
        gateway::redirect_name,
        sink::FlowSink,
        stage::{RouterIn, RouterOut},
        topology::RouterPorts,
    },
    expr::lexer::quote,
};

/// What is done with them.
pub(super) const REMEMBER: &str = "ct_commit_to_zone(snat); next;";
/// Neighbours are no connections.
const TRAFFIC: &str = "ip && !(nd || nd_rs || nd_ra)";

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    if !input.router.options.commits_all {
        return;
    }
    let object = &input.router.object;
    // Answers of translated destinations are known by these.
    let asks = if input.router.connects { " && (!ct.trk || !ct.rpl)" } else { "" };
    let why = "The connection is remembered, though nothing translates it.";
    if input.router.chassis.is_some() {
        see("", object, sink);
        let matching = format!("{TRAFFIC} && flags.unsnat_new == 1{asks}");
        return sink.add(RouterOut::Snat, 1, matching, REMEMBER, object, why);
    }
    for (id, _) in input.gateway_ports() {
        let from =
            format!("inport == {} && is_chassis_resident({}) && ", quote(id), quote(&redirect_name(id)));
        see(&from, object, sink);
        let matching = format!("{from}flags.unsnat_new == 1 && !ct.dnat && {TRAFFIC}");
        sink.add(RouterIn::LbAffLearn, 1, matching, REMEMBER, object, why);
        let matching = format!("outport == {} && {TRAFFIC}{asks}", quote(id));
        sink.add(RouterOut::Snat, 1, matching, REMEMBER, object, why);
    }
}

/// What is known of the packet's connection.
fn see(from: &str, object: &str, sink: &mut FlowSink) {
    let why = "All connections are remembered: this one may be.";
    sink.add(RouterIn::UnSnat, 1, format!("{from}{TRAFFIC}"), "ct_snat;", object, why);
    let why = "The packet begins a connection.";
    sink.add(RouterIn::Defrag, 50, format!("{from}ct.new && ip"), "flags.unsnat_new = 1; next;", object, why);
}
