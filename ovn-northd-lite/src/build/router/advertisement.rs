//! Router advertisements: solicitations are answered by the host they come up on. Those
//! that nobody asks for are the hosts' own business; the port's binding tells them.

use std::net::IpAddr;

use crate::{
    advertisement::Advertised,
    build::{address::link_local, sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
    model::{IpNetwork, RouterPort},
    southbound::Advertises,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (ask, answer) = (RouterIn::NdRaOptions, RouterIn::NdRaResponse);
    sink.add(ask, 0, "1", "next;", &input.router.object, "Nobody asks for a router.");
    sink.add(answer, 0, "1", "next;", &input.router.object, "Not an advertisement of the router.");
    for (id, port) in input.enabled_ports() {
        let Some(advertised) = advertised(port) else { continue };
        let (object, inport) = (input.port_object(id), format!("inport == {}", quote(id)));
        let arguments: Vec<_> =
            advertised.arguments().iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let actions = format!("reg0[5] = put_nd_ra_opts({}); next;", arguments.join(", "));
        let why = "Hosts on the network ask for routers (RFC 4861 §6.2.6).";
        let question = format!("{inport} && ip6.dst == ff02::2 && nd_rs");
        sink.add(RouterIn::IpInput, 86, question.clone(), "next;", &object, why);
        sink.add(ask, 50, question, actions, &object, why);
        let (mac, source) = (port.mac, link_local(port.mac));
        let why = "The host has answered; the answer goes back.";
        let matching = format!("{inport} && nd_ra && reg0[5] == 1");
        for (priority, from, to) in [(50, "", "ip6.src"), (60, " && ip6.src == ::", "ff02::1")] {
            let actions = format!(
                "eth.dst = eth.src; eth.src = {mac}; ip6.dst = {to}; ip6.src = {source}; outport = inport; \
                 flags.loopback = 1; output;"
            );
            sink.add(answer, priority, format!("{matching}{from}"), actions, &object, why);
        }
    }
}

/// What a port has to say; nothing if it has no IPv6 network to say it of.
fn advertised(port: &RouterPort) -> Option<Advertised> {
    let ra = port.advertisement.clone()?;
    let is_global = |network: &&IpNetwork| match network.addr {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    let prefixes: Vec<_> = port.networks.iter().filter(is_global).copied().collect();
    (!prefixes.is_empty()).then_some(Advertised { ra, prefixes, mac: port.mac })
}

/// What a port says unasked.
pub(in crate::build) fn unasked(is_enabled: bool, port: &RouterPort) -> Option<Advertises> {
    let advertised = advertised(port).filter(|_| is_enabled && port.enabled)?;
    let interval = advertised.ra.interval?;
    Some(Advertises { mac: port.mac, message: advertised.message(), interval })
}
