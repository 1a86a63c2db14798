//! DHCP relays: what clients on a port's network say to everybody goes to a server elsewhere, and
//! its answers back. The host that has the packet writes the messages; routing and delivery are
//! as of any other packet.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    build::{sink::FlowSink, stage::RouterIn, topology::RouterPorts},
    expr::lexer::quote,
    model::RouterPort,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    for (id, port) in input.enabled_ports() {
        let (Some(server), Some(relay)) = (port.dhcp_server, address(port)) else { continue };
        let (object, id) = (input.port_object(id), quote(id));
        let arguments = format!("relay = {relay}, server = {server}");
        let why = "A client looks for a server, which is in another network.";
        let matching = format!(
            "inport == {id} && ip4.dst == 255.255.255.255 && udp.src == 68 && udp.dst == 67 && !ip.is_frag"
        );
        let actions = format!("reg9[7] = dhcp_relay_req_chk({arguments}); next;");
        sink.add(RouterIn::IpInput, 110, matching, actions, &object, why);
        let why = "The server answers a client by its relay.";
        let matching = format!(
            "ip4.src == {server} && ip4.dst == {relay} && udp.src == 67 && udp.dst == 67 && !ip.is_frag"
        );
        let actions = format!(
            "reg9[7] = dhcp_relay_resp_chk({arguments}); eth.src = {}; outport = {id}; flags.loopback = 1; output;",
            port.mac
        );
        sink.add(RouterIn::IpInput, 110, matching, actions, &object, why);
    }
}

/// The address that the server knows the relay by.
fn address(port: &RouterPort) -> Option<Ipv4Addr> {
    port.networks.iter().find_map(|network| match network.addr {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
}
