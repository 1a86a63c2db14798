//! Gateway ports: a packet that is to leave by a port whose gateway is another host goes
//! there as it was before it was routed, and is routed there, by what that host knows of
//! its neighbours. It must not be sent on once more: two hosts that disagree about who is
//! the gateway drop it instead of sending it to and fro. Where the port's switch is in a
//! network outside that all hosts have, it may get there by that, as a frame for the gateway.

use super::hop::Hop;
use crate::{
    build::{
        gateway::{redirect_key, redirect_name},
        sink::FlowSink,
        stage::RouterIn,
        topology::RouterPorts,
    },
    expr::lexer::quote,
};

/// Where the TTL is kept while a packet is routed, in case that is done again elsewhere.
const KEPT_TTL: &str = "reg9[8..15]";
/// Key of the gateway that a packet was sent to, by the lowering.
const ARRIVED_FOR: &str = "reg9[16..31]";

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let stage = RouterIn::GwRedirect;
    sink.add(
        stage,
        0,
        "1",
        "next;",
        &input.router.object,
        "The packet leaves by a port that is on this host.",
    );
    for (id, port) in input.gateway_ports() {
        let (object, gateway) = (input.port_object(id), quote(&redirect_name(id)));
        let elsewhere = format!("outport == {} && !is_chassis_resident({gateway})", quote(id));
        let why = "The host that sent the packet here takes another one for the gateway than this one does.";
        sink.add(stage, 200, format!("{elsewhere} && flags.redirected"), "drop;", &object, why);
        let why = "The packet leaves by a port whose gateway is another host.";
        // By a network outside it gets there as what it is to that: a frame for the gateway.
        let address = if port.bridges { format!("eth.dst = {}; ", port.mac) } else { String::new() };
        let actions = format!("ip.ttl = {KEPT_TTL}; {address}outport = {gateway}; output;");
        sink.add(stage, 100, format!("{elsewhere} && ip"), actions, &object, why);
    }
}

/// Next hops instead of the chosen one, for packets that another host has sent to a gateway
/// port of theirs: hashes differ between hosts, and a packet must not go on to a second
/// gateway. With the condition that it came there.
pub(super) fn kept<'h, 'a>(
    input: &RouterPorts<'_>,
    hops: &'h [Hop<'a>],
    choice: usize,
) -> Vec<(String, &'h Hop<'a>)> {
    let chosen = hops.get(choice.wrapping_sub(1)).map(|hop| hop.port_id);
    let others = input.gateway_ports().filter(|(id, _)| Some(*id) != chosen);
    let instead = others.filter_map(|(id, port)| {
        let by_port: Vec<_> = hops.iter().filter(|hop| hop.port_id == id).collect();
        let hop = *by_port.get(choice.checked_rem(by_port.len())?)?;
        let key = redirect_key(port.key)?.get();
        Some((format!("{ARRIVED_FOR} == {key}"), hop))
    });
    instead.collect()
}

/// What a route does to the TTL.
pub(super) fn hop_count(input: &RouterPorts<'_>) -> String {
    if input.gateway_ports().next().is_some() {
        format!("{KEPT_TTL} = ip.ttl; ip.ttl--;")
    } else {
        "ip.ttl--;".to_owned()
    }
}
