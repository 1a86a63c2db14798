//! A next hop, and how a packet gets there.

use std::net::IpAddr;

use super::routing::is_link_local;
use crate::{
    build::{address::of_router_port, topology::RouterPorts},
    expr::lexer::quote,
    model::{IpNetwork, RouterPort},
};

/// Where a route or policy leads.
pub(super) struct Hop<'a> {
    /// Next hop; `None`: the destination itself.
    pub(super) next: Option<IpAddr>,
    /// Address of the port.
    pub(super) source: IpAddr,
    pub(super) port_id: &'a str,
    pub(super) port: &'a RouterPort,
}

impl<'a> Hop<'a> {
    /// The hop to an address, if it can be reached: by the port that is asked for, or by the
    /// one with the longest prefix that has the address.
    pub(super) fn to(input: &RouterPorts<'a>, next: IpAddr, output_port: Option<&str>) -> Option<Self> {
        let same_family = |network: &IpNetwork| network.addr.is_ipv4() == next.is_ipv4();
        let candidates = input.enabled_ports().flat_map(|(port_id, port)| {
            let networks = of_router_port(port).into_iter().filter(same_family);
            networks.map(move |network| (network, port_id, port))
        });
        let (network, port_id, port) = match output_port {
            Some(wanted) => candidates
                .filter(|(_, id, _)| *id == wanted)
                .max_by_key(|(network, ..)| (network.contains(next), !is_link_local(network)))?,
            None => candidates
                .filter(|(network, ..)| network.contains(next) && !is_link_local(network))
                .max_by_key(|(network, ..)| network.prefix_len)?,
        };
        Some(Hop { next: Some(next), source: network.addr, port_id, port })
    }

    /// Next hop, source and output port, and on to the next stage.
    pub(super) fn actions(&self) -> String {
        let (next_field, source_field, destination) =
            if self.source.is_ipv4() { ("reg0", "reg5", "ip4.dst") } else { ("xxreg0", "xxreg1", "ip6.dst") };
        let next = self.next.map_or_else(|| destination.to_owned(), |ip| ip.to_string());
        format!(
            "{next_field} = {next}; {source_field} = {}; eth.src = {}; outport = {}; flags.loopback = 1; next;",
            self.source,
            self.port.mac,
            quote(self.port_id)
        )
    }
}
