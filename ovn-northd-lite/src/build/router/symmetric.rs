//! Answers that go back the way their connections came: out of the port, and to the
//! station, that sent the last packet of the connection, whichever of several routes
//! packets of the network behind would take. For routes that ask for it, where the router
//! remembers connections: on a router of one chassis, and at gateway ports.
//!
//! The station's MAC address and the port's key are kept with the connection, in the
//! router's zone for translated destinations, as in OVN.

use std::collections::BTreeMap;

use super::{gateway::hop_count, hop::Hop, routing};
use crate::{
    build::{
        balancer::family,
        gateway::redirect_name,
        sink::FlowSink,
        stage::RouterIn,
        topology::{RouteInput, RouterPorts},
    },
    expr::lexer::quote,
    model::RouteMatch,
};

/// Above all routes, below what is never routed.
const ROUTE: u16 = 450;
/// Above all policies.
const POLICY: u16 = 40_000;

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let object = &input.router.object;
    let why = "No answer to the packet has to go back the way that it came.";
    sink.add(RouterIn::EcmpStateful, 0, "1", "next;", object, why);
    sink.add(RouterIn::EcmpStatefulEgr, 0, "1", "next;", object, why);
}

pub(super) fn route(input: &RouteInput<'_>, sink: &mut FlowSink) {
    if !input.routes.iter().any(|route| route.symmetric) {
        return;
    }
    let mut ports = BTreeMap::new();
    for hop in routing::hops(input) {
        ports.entry(hop.port_id).or_insert(hop);
    }
    let (away, home) = match input.by {
        RouteMatch::Destination => ("dst", "src"),
        RouteMatch::Source => ("src", "dst"),
    };
    let network =
        |direction: &str| format!("{}.{direction} == {}", family(input.prefix.addr), input.prefix.text());
    for (port, hop) in ports {
        let is_gateway = input.ports.gateway_ports().any(|(id, _)| id == port);
        if input.ports.router.chassis.is_none() && !is_gateway {
            continue;
        }
        let here = if is_gateway {
            format!(" && is_chassis_resident({})", quote(&redirect_name(port)))
        } else {
            String::new()
        };
        let way = Way { hop, here, away: network(away), home: network(home), input };
        way.remember(sink);
        way.go_back(sink);
    }
}

/// A port that connections come by, and their answers leave by.
struct Way<'a> {
    hop: Hop<'a>,
    /// The router remembers connections here; empty: everywhere that it is.
    here: String,
    /// Packets to the network behind the route.
    away: String,
    /// Packets from there.
    home: String,
    input: &'a RouteInput<'a>,
}

impl Way<'_> {
    /// Connections that come by the port are remembered with who brought them; those that
    /// leave by it, so that their answers are known for such.
    fn remember(&self, sink: &mut FlowSink) {
        let Self { hop, here, away, home, input } = self;
        let (object, port) = (&input.ports.router.object, quote(hop.port_id));
        let comes = format!("inport == {port} && {home}");
        let why = "The answer is to go back the way that the connection came.";
        sink.add(RouterIn::Defrag, 100, format!("{comes}{here}"), "ct_dnat;", object, why);
        sink.add(RouterIn::Defrag, 90, format!("{away}{here}"), "ct_next;", object, why);
        let matching = format!("{comes} && !ct.rpl && (ct.new || ct.est){here}");
        let actions = format!(
            "ct_commit {{ ct_label.ecmp_reply_eth = eth.src; ct_mark.ecmp_reply_port = {}; }}; next;",
            hop.port.key
        );
        sink.add(RouterIn::EcmpStateful, 100, matching, actions, object, why);
        let matching = format!("outport == {port} && {away} && ct.new{here}");
        let actions = "ct_commit { ct_mark.ecmp_reply_port = 0; }; next;";
        let why = "What answers this connection shall not be taken for one that comes from outside.";
        sink.add(RouterIn::EcmpStatefulEgr, 100, matching, actions, object, why);
    }

    /// Answers leave by the port, to whoever sent the connection's last packet.
    fn go_back(&self, sink: &mut FlowSink) {
        let Self { hop, away, input, .. } = self;
        let object = &input.ports.router.object;
        let answers = format!("ct.rpl && ct_mark.ecmp_reply_port == {}", hop.port.key);
        let why = "The answer goes back the way that the connection came.";
        let direct = Hop { next: None, ..*hop };
        let actions = format!("{} reg8[0..15] = 0; {}", hop_count(&input.ports), direct.actions());
        sink.add(RouterIn::IpRouting, ROUTE, format!("{away} && {answers}"), actions, object, why);
        sink.add(RouterIn::Policy, POLICY, answers.clone(), "reg8[0..15] = 0; next;", object, why);
        let matching = format!("outport == {} && {answers}", quote(hop.port_id));
        let actions = "eth.dst = ct_label.ecmp_reply_eth; output;";
        sink.add(RouterIn::ArpResolve, 200, matching, actions, object, why);
    }
}
