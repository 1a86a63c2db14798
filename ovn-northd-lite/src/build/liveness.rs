//! Next hops that are asked whether they live: what leads to one that does not is as if it
//! were not there, until it does again.

use std::net::IpAddr;

use super::{address::of_router_port, topology::RouterPorts};
use crate::{
    model::{LogicalRouter, Monitored, RouteTarget, RouterPort, StaticRoute},
    southbound::Session,
};

/// A static route may be taken: it does not depend on a session, or that is up.
pub(super) fn is_there(router: &LogicalRouter, route: &StaticRoute) -> bool {
    match &route.target {
        RouteTarget::Via(hop) if route.monitored => {
            let port = hop.output_port.as_ref();
            let ports = router.ports.iter().filter(|(id, _)| port.is_none_or(|port| port == *id));
            any_up(ports.map(|(_, port)| port), hop.ip)
        }
        RouteTarget::Via(_) | RouteTarget::Discard => true,
    }
}

/// The session with a next hop of a policy is up.
pub(super) fn lives(input: &RouterPorts<'_>, ip: IpAddr, output_port: Option<&str>) -> bool {
    let ports = input.enabled_ports().filter(|(id, _)| output_port.is_none_or(|port| port == *id));
    any_up(ports.map(|(_, port)| port), ip)
}

fn any_up<'a>(mut ports: impl Iterator<Item = &'a RouterPort>, ip: IpAddr) -> bool {
    ports.any(|port| port.enabled && port.monitored.get(&ip).is_some_and(|session| session.is_up))
}

/// The sessions of a router's port: those with next hops on its networks.
pub(super) fn sessions(port: &RouterPort) -> Vec<Session> {
    let networks = of_router_port(port);
    let sessions = port.monitored.iter().filter_map(|(peer, monitored)| {
        let own = networks.iter().find(|network| network.contains(*peer))?;
        let Monitored { min_tx, min_rx, multiplier, is_up: _ } = *monitored;
        Some(Session { peer: *peer, source: own.addr, mac: port.mac, min_tx, min_rx, multiplier })
    });
    sessions.collect()
}
