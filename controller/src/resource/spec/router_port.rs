//! Ports of routers.

use ferroflow_proto::northbound as pb;
use flowtable::types::MacAddr;
use ovn_northd_lite::model::{Candidate, IpNetwork, RouterAdvertisement};

use super::{each, gateway::candidates, router_advertisement};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

/// A port of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterPortSpec {
    /// MAC address.
    pub mac: MacAddr,
    /// Addresses, each with its network.
    pub networks: Vec<IpNetwork>,
    /// Sends and receives.
    pub enabled: bool,
    /// Hosts that may be the gateway, the best first.
    pub gateway: Vec<Candidate>,
    /// What hosts on its networks are told.
    pub advertisement: Option<RouterAdvertisement>,
}

pub(super) fn parse(port: &pb::LogicalRouterPort) -> Result<RouterPortSpec, FieldError> {
    let mac = address::parse_mac(&port.mac).map_err(|reason| FieldError::new("mac", reason))?;
    let networks = each("networks", &port.networks, limits::MAX_NETWORKS, address::parse_interface)?;
    if networks.is_empty() {
        return Err(FieldError::new(
            "networks",
            "a router port needs an address; write one like 10.0.0.1/24",
        ));
    }
    let gateway = candidates(&port.gateway_chassis)?;
    let has_v6 = networks.iter().any(|network| network.addr.is_ipv6());
    if port.router_advertisement.is_some() && !has_v6 {
        let reason = "there is no IPv6 network to advertise; add one to `networks`";
        return Err(FieldError::new("router_advertisement", reason));
    }
    let advertisement = port.router_advertisement.as_ref().map(router_advertisement::parse).transpose()?;
    let enabled = port.enabled.unwrap_or(true);
    Ok(RouterPortSpec { mac, networks, enabled, gateway, advertisement })
}

/// The name of a router port.
pub(super) fn router_port_name(field: impl Into<String>, text: &str) -> Result<Name, FieldError> {
    match Name::parse(text) {
        Ok(name) if name.kind() == Kind::RouterPort => Ok(name),
        _ => {
            let reason = format!("{} does not name a router port; write {}", Shown(text), Kind::RouterPort);
            Err(FieldError::new(field, reason))
        }
    }
}
