//! Ports of routers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ferroflow_proto::northbound as pb;
use flowtable::types::MacAddr;
use ovn_northd_lite::model::{Gateway, IpNetwork, Monitored, RouterAdvertisement, StaticMac};

use super::{
    MAX_PORT_KEY, acl::matching, bfd_session, check_count, each, gateway::gateway, label, requested_key,
    router_advertisement,
};
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
    /// Hosts that may be the gateway.
    pub gateway: Gateway,
    /// What hosts on its networks are told.
    pub advertisement: Option<RouterAdvertisement>,
    /// Who has which address on its networks.
    pub static_macs: BTreeMap<IpAddr, StaticMac>,
    /// Length of the largest packet that leaves by it.
    pub mtu: Option<u16>,
    /// Packets that may be larger; empty: none.
    pub mtu_bypass: String,
    /// Name of the static routes that packets take which come by it.
    pub route_table: String,
    /// What the router sends to any group leaves by it.
    pub hears_all: bool,
    /// Next hops that are asked whether they live; what is known of that is elsewhere.
    pub monitored: BTreeMap<IpAddr, Monitored>,
    /// It is where the gateway of the router's one gateway port is.
    pub resides: bool,
    /// Packets get to its gateway by the network outside, not by tunnels.
    pub bridges: bool,
    /// DHCP server elsewhere that serves clients on its networks.
    pub dhcp_server: Option<Ipv4Addr>,
    /// The key that it is to have; 0: any.
    pub key: u32,
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
    let gateway = gateway(&port.gateway_chassis, &port.ha_chassis_group)?;
    if port.reside_on_redirect_chassis && !gateway.is_empty() {
        let reason = "the port has gateway chassis of its own; clear one of both";
        return Err(FieldError::new("reside_on_redirect_chassis", reason));
    }
    let bridges = bridges(port.redirect_type, &gateway)?;
    let has_v6 = networks.iter().any(|network| network.addr.is_ipv6());
    if port.router_advertisement.is_some() && !has_v6 {
        let reason = "there is no IPv6 network to advertise; add one to `networks`";
        return Err(FieldError::new("router_advertisement", reason));
    }
    let advertisement = port.router_advertisement.as_ref().map(router_advertisement::parse).transpose()?;
    let enabled = port.enabled.unwrap_or(true);
    let static_macs = static_macs(&port.static_mac_bindings)?;
    let mtu = mtu(port.gateway_mtu, has_v6)?;
    let mtu_bypass = mtu_bypass(&port.gateway_mtu_bypass, mtu)?;
    let route_table = label("route_table", &port.route_table)?;
    Ok(RouterPortSpec {
        mac,
        enabled,
        gateway,
        advertisement,
        static_macs,
        mtu,
        mtu_bypass,
        route_table,
        hears_all: port.multicast_flood,
        monitored: bfd_session::parse(&port.bfd_sessions, &networks)?,
        dhcp_server: dhcp_server(&port.dhcp_relay_server, &networks)?,
        networks,
        resides: port.reside_on_redirect_chassis,
        bridges,
        key: requested_key(port.requested_tunnel_key, MAX_PORT_KEY)?,
    })
}

/// Least MTU of IPv4 hosts (RFC 791 §3.1) and of IPv6 (RFC 8200 §5), and the most that
/// leaves room for headers.
const MIN_MTU: u16 = 576;
const MIN_MTU_V6: u16 = 1280;
const MAX_MTU: u16 = 65_000;

/// Packets get to the gateway without tunnels.
fn bridges(raw: i32, gateway: &Gateway) -> Result<bool, FieldError> {
    use pb::logical_router_port::RedirectType;
    let wrong = |reason: String| FieldError::new("redirect_type", reason);
    match RedirectType::try_from(raw) {
        Ok(RedirectType::Unspecified) => Ok(false),
        Ok(RedirectType::Bridged) if gateway.is_empty() => Err(wrong(
            "the port has no gateway to redirect to; set `gateway_chassis`, or clear it".to_owned(),
        )),
        Ok(RedirectType::Bridged) => Ok(true),
        Err(_) => Err(wrong(format!("{raw} is not a type; say bridged, or leave it out"))),
    }
}

/// A server for clients on one of these networks, who is not among them.
fn dhcp_server(text: &str, networks: &[IpNetwork]) -> Result<Option<Ipv4Addr>, FieldError> {
    let wrong = |reason: &str| FieldError::new("dhcp_relay_server", format!("{} {reason}", Shown(text)));
    if text.is_empty() {
        return Ok(None);
    }
    let ip: Ipv4Addr = text.parse().map_err(|_| wrong("is not an IPv4 address; write one like 10.0.2.5"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback() {
        return Err(wrong("is no host's address; write that of the server"));
    }
    if !networks.iter().any(|network| network.addr.is_ipv4()) {
        return Err(wrong("serves IPv4 clients; add an IPv4 address to `networks`"));
    }
    if networks.iter().any(|network| network.addr == IpAddr::V4(ip)) {
        return Err(wrong("is the port's own address; write that of the server"));
    }
    Ok(Some(ip))
}

fn mtu(mtu: u32, has_v6: bool) -> Result<Option<u16>, FieldError> {
    let least = if has_v6 { MIN_MTU_V6 } else { MIN_MTU };
    match u16::try_from(mtu) {
        Ok(0) => Ok(None),
        Ok(mtu) if (least..=MAX_MTU).contains(&mtu) => Ok(Some(mtu)),
        Ok(_) | Err(_) => {
            let reason = format!("{mtu} is out of range; use {least} to {MAX_MTU}, or 0 for none");
            Err(FieldError::new("gateway_mtu", reason))
        }
    }
}

/// Packets that the MTU is not for.
fn mtu_bypass(text: &str, mtu: Option<u16>) -> Result<String, FieldError> {
    let wrong = |reason: String| FieldError::new("gateway_mtu_bypass", reason);
    if text.is_empty() {
        return Ok(String::new());
    }
    if mtu.is_none() {
        return Err(wrong("there is no MTU that packets could be larger than; set gateway_mtu".to_owned()));
    }
    let text = matching(text).map_err(|error| wrong(error.reason))?;
    match ovn_northd_lite::sets_of(&text).first() {
        Some(set) => Err(wrong(format!("`{set}` is a set, of which there are none here; write addresses"))),
        None => Ok(text),
    }
}

fn static_macs(bindings: &[pb::StaticMacBinding]) -> Result<BTreeMap<IpAddr, StaticMac>, FieldError> {
    check_count("static_mac_bindings", bindings.len(), limits::MAX_STATIC_MACS)?;
    let mut found = BTreeMap::new();
    for (i, binding) in bindings.iter().enumerate() {
        let wrong =
            |field: &str, reason| FieldError::new(format!("static_mac_bindings[{i}].{field}"), reason);
        let ip = address::parse_ip(&binding.ip).map_err(|reason| wrong("ip", reason))?;
        let mac = address::parse_mac(&binding.mac).map_err(|reason| wrong("mac", reason))?;
        if found.insert(ip, StaticMac { mac, overrides: binding.override_dynamic }).is_some() {
            return Err(wrong("ip", format!("{ip} is there twice; keep one")));
        }
    }
    Ok(found)
}

/// Id of a port of the router that a resource belongs to; none for the empty text.
pub(super) fn own_port(field: &str, name: &Name, text: &str) -> Result<Option<String>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let port = router_port_name(field, text)?;
    if port.parent() != name.parent() {
        let reason = format!("{port} is not a port of the same router; name one that is");
        return Err(FieldError::new(field, reason));
    }
    Ok(Some(port.id().to_owned()))
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
