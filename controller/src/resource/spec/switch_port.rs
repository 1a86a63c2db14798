//! Ports of switches.

use std::{collections::BTreeSet, net::IpAddr};

use ferroflow_proto::northbound as pb;
use flowtable::types::{MacAddr, VlanId};
use ovn_northd_lite::{
    dhcp::domain,
    model::{Gateway, PortAddresses, PortOptions, PortSecurity, PortServices, Shaping},
};

use super::{
    MAX_PORT_KEY, each, gateway, port_check, reference, requested_key, router_port::router_port_name,
};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

/// Lowest and highest rate of a workload, in bits per second.
const MIN_RATE: u64 = 100;
const MAX_RATE: u64 = 1_000_000_000_000;

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPortSpec {
    /// What is attached.
    pub attachment: Attachment,
    /// Sends and receives.
    pub enabled: bool,
    /// What hosts answer for it.
    pub services: PortServices,
    /// What it does besides.
    pub options: PortOptions,
    /// Ids of the chassis that may have its interface; empty: any.
    pub requested: BTreeSet<String>,
    /// Ids of those that may have another one, while its workload moves.
    pub additional: BTreeSet<String>,
    /// The key that it is to have; 0: any.
    pub key: u32,
}

/// Addresses that the switch is to choose: those that are not given here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// MAC address.
    pub mac: Option<MacAddr>,
    /// IP addresses, one of a family at most.
    pub ips: Vec<IpAddr>,
}

/// What is attached to a switch port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// A workload.
    Workload {
        /// Addresses it has.
        addresses: Vec<PortAddresses>,
        /// It also takes frames to addresses nobody has.
        unknown: bool,
        /// Source addresses it may use; empty: any.
        port_security: Vec<PortSecurity>,
        /// How it is attached.
        access: Access,
        /// What the switch is to choose.
        dynamic: Option<Dynamic>,
    },
    /// The router port of this name.
    Router(Name),
    /// Another switch, by its port of this name.
    Switch(Name),
    /// A network outside.
    Network {
        /// Its name.
        network: String,
        /// VLAN tag of its frames.
        tag: Option<VlanId>,
        /// The tag is one of a provider.
        is_service: bool,
        /// Hosts that may connect to it; empty: all.
        gateway: Gateway,
    },
}

/// How a workload is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By an interface of its own.
    Interface,
    /// Behind the interface of the port of this name, with a VLAN tag; `None`: any.
    Nested(Name, Option<VlanId>),
    /// By an interface on each chassis that has one.
    EachChassis,
    /// By the network outside; one of these hosts answers.
    External(Gateway),
    /// It is an address that one of the workloads at the ports of these names has at a time.
    Virtual(IpAddr, Vec<Name>),
}

pub(super) fn parse(name: &Name, port: &pb::LogicalSwitchPort) -> Result<SwitchPortSpec, FieldError> {
    use pb::logical_switch_port::Type;
    let attachment = match Type::try_from(port.r#type) {
        Ok(kind @ (Type::Unspecified | Type::Localport)) => {
            only(port, &["addresses", "port_security", "parent", "tag", "tag_request"])?;
            workload(port, kind)?
        }
        Ok(Type::External) => {
            only(port, &["addresses", "gateway_chassis", "ha_chassis_group"])?;
            external(port)?
        }
        Ok(Type::Virtual) => {
            only(port, &["virtual_ip", "virtual_parents"])?;
            virtual_port(name, port)?
        }
        Ok(Type::Router) => {
            only(port, &["router_port"])?;
            Attachment::Router(router_port_name("router_port", &port.router_port)?)
        }
        Ok(Type::Switch) => {
            only(port, &["peer"])?;
            Attachment::Switch(peer(name, &port.peer)?)
        }
        Ok(Type::Localnet) => {
            only(port, &["network_name", "tag", "tag_type"])?;
            network(port, Gateway::default())?
        }
        Ok(Type::L2gateway) => {
            only(port, &["network_name", "tag", "tag_type", "gateway_chassis", "ha_chassis_group"])?;
            let gateway = gateway::gateway(&port.gateway_chassis, &port.ha_chassis_group)?;
            if gateway.is_empty() {
                let reason = "an l2gateway is on one of some hosts; name them, or make it a localnet";
                return Err(FieldError::new("gateway_chassis", reason));
            }
            network(port, gateway)?
        }
        Err(_) => {
            return Err(FieldError::new("type", format!("{} is not a type of switch port", port.r#type)));
        }
    };
    let options = options(port, &attachment)?;
    let (enabled, services) = (port.enabled.unwrap_or(true), services(port)?);
    let requested = chassis("requested_chassis", &port.requested_chassis)?;
    let additional = chassis("requested_additional_chassis", &port.requested_additional_chassis)?;
    if let Some(id) = additional.intersection(&requested).next() {
        let reason = format!("chassis/{id} is in requested_chassis as well; name it once");
        return Err(FieldError::new("requested_additional_chassis", reason));
    }
    let key = requested_key(port.requested_tunnel_key, MAX_PORT_KEY)?;
    Ok(SwitchPortSpec { attachment, enabled, services, options, requested, additional, key })
}

/// The port of another switch.
fn peer(name: &Name, text: &str) -> Result<Name, FieldError> {
    match Name::parse(text) {
        Ok(peer) if peer.kind() == Kind::SwitchPort && peer.parent() != name.parent() => Ok(peer),
        _ => {
            let reason =
                format!("{} is not a port of another switch; write {}", Shown(text), Kind::SwitchPort);
            Err(FieldError::new("peer", reason))
        }
    }
}

/// Ids of chassis that may have an interface of the port.
fn chassis(field: &str, names: &[String]) -> Result<BTreeSet<String>, FieldError> {
    let id = |text: &str| match Name::parse(text) {
        Ok(name) if name.kind() == Kind::Chassis => Ok(name.id().to_owned()),
        _ => Err(format!("{} does not name a chassis; write {}", Shown(text), Kind::Chassis)),
    };
    let ids = each(field, names, limits::MAX_CANDIDATES, id)?;
    Ok(ids.into_iter().collect())
}

fn options(port: &pb::LogicalSwitchPort, attachment: &Attachment) -> Result<PortOptions, FieldError> {
    let is_router = matches!(attachment, Attachment::Router(_));
    let has_interface =
        matches!(attachment, Attachment::Workload { access: Access::Interface | Access::Nested(..), .. });
    let has_addresses = is_router || matches!(attachment, Attachment::Workload { .. });
    for (field, is_given, means) in [
        ("learn_fdb", port.learn_fdb == Some(true), !is_router),
        ("arp_proxy", !port.arp_proxy.is_empty(), is_router),
        ("requested_chassis", !port.requested_chassis.is_empty(), has_interface),
        ("requested_additional_chassis", !port.requested_additional_chassis.is_empty(), has_interface),
        ("activation_strategy", port.activation_strategy != 0, has_interface),
        ("clone_to_unknown", port.clone_to_unknown, has_addresses),
        ("ct_zone_limit", port.ct_zone_limit > 0, has_interface),
        ("enable_router_port_acl", port.enable_router_port_acl, is_router),
        ("qos_min_rate", port.qos_min_rate > 0, has_interface),
        ("qos_max_rate", port.qos_max_rate > 0, has_interface),
        ("qos_burst", port.qos_burst > 0, has_interface),
        ("nat_addresses", !port.nat_addresses.is_empty(), is_router),
        ("health_checks", !port.health_checks.is_empty(), has_interface),
    ] {
        if is_given && !means {
            let reason = "it means nothing for a port of this type; clear it, or set another type";
            return Err(FieldError::new(field, reason));
        }
    }
    let hears = port.multicast_flood || port.multicast_flood_reports;
    if hears && port.receive_multicast == Some(false) {
        let reason = "a port that gets no multicast cannot get all of it; clear one of both";
        return Err(FieldError::new("receive_multicast", reason));
    }
    let secured =
        matches!(attachment, Attachment::Workload { port_security, .. } if !port_security.is_empty());
    if secured && port.learn_fdb == Some(true) {
        let reason = "a port with port_security has the addresses it lists; clear one of both";
        return Err(FieldError::new("learn_fdb", reason));
    }
    let has_stations = matches!(attachment, Attachment::Workload { unknown: true, .. })
        && !secured
        && port.learn_fdb != Some(false);
    if port.force_fdb_lookup && !has_stations {
        let reason = "it is for a workload whose stations are remembered: with the address `unknown`, without \
                      port_security; give it that, or leave it out";
        return Err(FieldError::new("force_fdb_lookup", reason));
    }
    let (mac, networks) = match port.arp_proxy.split_first() {
        Some((first, rest)) if address::parse_mac(first).is_ok() => (address::parse_mac(first).ok(), rest),
        _ => (None, port.arp_proxy.as_slice()),
    };
    if mac.is_some() && networks.is_empty() {
        return Err(FieldError::new("arp_proxy", "there is a MAC address alone; write addresses behind it"));
    }
    let usual = PortOptions::default();
    Ok(PortOptions {
        learns: port.learn_fdb,
        silent: port.disable_arp_nd_rsp,
        takes_groups: port.receive_multicast.unwrap_or(usual.takes_groups),
        hears_all: port.multicast_flood,
        hears_reports: port.multicast_flood_reports,
        announces: !port.disable_garp_rarp,
        stands_for: each("arp_proxy", networks, limits::MAX_ADDRESS_ENTRIES, address::parse_prefix_or_ip)?,
        stands_for_mac: mac,
        shaping: shaping(port)?,
        told_addresses: each("nat_addresses", &port.nat_addresses, limits::MAX_ADDRESS_ENTRIES, |entry| {
            let addresses = address::parse_port_addresses(entry)?;
            match addresses.ips.is_empty() {
                true => Err(format!("{} has no IP address; write MAC IP", Shown(entry))),
                false => Ok(addresses),
            }
        })?,
        awaits_rarp: awaits_rarp(port)?,
        clones_to_unknown: port.clone_to_unknown,
        tracks_router: port.enable_router_port_acl,
        max_connections: Some(port.ct_zone_limit).filter(|n| *n > 0),
        checks: port_check::parse(&port.health_checks)?,
        is_looked_up: port.force_fdb_lookup,
    })
}

/// Its interfaces on additional chassis wait for the workload's word.
fn awaits_rarp(port: &pb::LogicalSwitchPort) -> Result<bool, FieldError> {
    use pb::logical_switch_port::ActivationStrategy;
    match ActivationStrategy::try_from(port.activation_strategy) {
        Ok(ActivationStrategy::Unspecified) => Ok(false),
        Ok(ActivationStrategy::Rarp) => Ok(true),
        Err(_) => {
            let reason =
                format!("{} is not an activation strategy; use RARP or none", port.activation_strategy);
            Err(FieldError::new("activation_strategy", reason))
        }
    }
}

/// How fast what the workload sends leaves its host.
fn shaping(port: &pb::LogicalSwitchPort) -> Result<Option<Shaping>, FieldError> {
    let rate = |field: &str, bits: u64| match bits {
        0 => Ok(None),
        MIN_RATE..=MAX_RATE => Ok(Some(bits)),
        _ => {
            let reason = format!("{bits} is out of range; use {MIN_RATE} to {MAX_RATE} bits per second");
            Err(FieldError::new(field, reason))
        }
    };
    let min = rate("qos_min_rate", port.qos_min_rate)?;
    let max = rate("qos_max_rate", port.qos_max_rate)?;
    if max.is_some_and(|max| min.is_some_and(|min| min > max)) {
        return Err(FieldError::new(
            "qos_min_rate",
            "it is above qos_max_rate; lower one, or raise the other",
        ));
    }
    if min.is_none() && max.is_none() && port.qos_burst > 0 {
        let reason =
            "it says how much of a rate may leave at once; set qos_max_rate or qos_min_rate, or clear it";
        return Err(FieldError::new("qos_burst", reason));
    }
    if port.qos_burst > MAX_RATE {
        return Err(FieldError::new(
            "qos_burst",
            format!("{} is too much; use up to {MAX_RATE}", port.qos_burst),
        ));
    }
    let burst = Some(port.qos_burst).filter(|bits| *bits > 0);
    Ok((min.is_some() || max.is_some()).then_some(Shaping { min, max, burst }))
}

/// Refuses fields that say nothing about a port of this type.
fn only(port: &pb::LogicalSwitchPort, fields: &[&str]) -> Result<(), FieldError> {
    let given = [
        ("addresses", !port.addresses.is_empty()),
        ("port_security", !port.port_security.is_empty()),
        ("router_port", !port.router_port.is_empty()),
        ("network_name", !port.network_name.is_empty()),
        ("tag", port.tag != 0),
        ("tag_request", port.tag_request),
        ("tag_type", port.tag_type != 0),
        ("parent", !port.parent.is_empty()),
        ("gateway_chassis", !port.gateway_chassis.is_empty()),
        ("ha_chassis_group", !port.ha_chassis_group.is_empty()),
        ("virtual_ip", !port.virtual_ip.is_empty()),
        ("virtual_parents", !port.virtual_parents.is_empty()),
        ("peer", !port.peer.is_empty()),
    ];
    let odd = given.into_iter().find(|(field, is_given)| *is_given && !fields.contains(field));
    match odd {
        None => Ok(()),
        Some((field, _)) => {
            let reason = "it means nothing for a port of this type; clear it, or set another type";
            Err(FieldError::new(field, reason))
        }
    }
}

fn workload(
    port: &pb::LogicalSwitchPort,
    kind: pb::logical_switch_port::Type,
) -> Result<Attachment, FieldError> {
    let unknown = port.addresses.iter().any(|entry| entry == "unknown");
    let addresses = each("addresses", &port.addresses, limits::MAX_ADDRESS_ENTRIES, |entry| {
        let is_fixed = entry != "unknown" && !is_dynamic(entry);
        is_fixed.then(|| address::parse_port_addresses(entry)).transpose()
    })?;
    let dynamic = each("addresses", &port.addresses, limits::MAX_ADDRESS_ENTRIES, |entry| {
        is_dynamic(entry).then(|| parse_dynamic(entry)).transpose()
    })?;
    let mut dynamic = dynamic.into_iter().flatten();
    let first = dynamic.next();
    if dynamic.next().is_some() {
        return Err(FieldError::new("addresses", "there is more than one `dynamic` entry; keep one"));
    }
    let port_security = each(
        "port_security",
        &port.port_security,
        limits::MAX_ADDRESS_ENTRIES,
        address::parse_port_security,
    )?;
    let access = access(port, kind)?;
    let addresses = addresses.into_iter().flatten().collect();
    Ok(Attachment::Workload { addresses, unknown, port_security, access, dynamic: first })
}

fn access(port: &pb::LogicalSwitchPort, kind: pb::logical_switch_port::Type) -> Result<Access, FieldError> {
    let is_localport = kind == pb::logical_switch_port::Type::Localport;
    let tag = gateway::tag(port.tag)?;
    if tag.is_some() && port.tag_request {
        let reason = "it asks for any tag, and there is one; leave one of them out";
        return Err(FieldError::new("tag_request", reason));
    }
    match (port.parent.as_str(), tag.is_some() || port.tag_request) {
        ("", false) if is_localport => Ok(Access::EachChassis),
        ("", false) => Ok(Access::Interface),
        (parent, true) if !parent.is_empty() && !is_localport => match Name::parse(parent) {
            Ok(name) if name.kind() == Kind::SwitchPort => Ok(Access::Nested(name, tag)),
            _ => {
                let reason =
                    format!("{} does not name a switch port; write {}", Shown(parent), Kind::SwitchPort);
                Err(FieldError::new("parent", reason))
            }
        },
        _ => {
            let reason = "a workload behind another one has a parent and a tag, or a parent and tag_request; others \
                          have neither";
            Err(FieldError::new("tag", reason))
        }
    }
}

/// A workload in the network outside.
fn external(port: &pb::LogicalSwitchPort) -> Result<Attachment, FieldError> {
    let addresses =
        each("addresses", &port.addresses, limits::MAX_ADDRESS_ENTRIES, address::parse_port_addresses)?;
    let gateway = gateway::gateway(&port.gateway_chassis, &port.ha_chassis_group)?;
    if gateway.is_empty() {
        let reason = "one of some hosts answers for an external port; name them";
        return Err(FieldError::new("gateway_chassis", reason));
    }
    let (unknown, port_security, dynamic) = (false, Vec::new(), None);
    let access = Access::External(gateway);
    Ok(Attachment::Workload { addresses, unknown, port_security, access, dynamic })
}

/// An address that moves.
fn virtual_port(name: &Name, port: &pb::LogicalSwitchPort) -> Result<Attachment, FieldError> {
    let ip = address::parse_ip(&port.virtual_ip).map_err(|reason| FieldError::new("virtual_ip", reason))?;
    let parent = |text: &str| match Name::parse(text) {
        Ok(parent) if parent.kind() == Kind::SwitchPort && parent.parent() == name.parent() => Ok(parent),
        _ => Err(format!("{} is not a port of the same switch; name one that is", Shown(text))),
    };
    let parents = each("virtual_parents", &port.virtual_parents, limits::MAX_VIRTUAL_PARENTS, parent)?;
    if parents.is_empty() {
        return Err(FieldError::new("virtual_parents", "one of some ports has the address; name them"));
    }
    let (addresses, unknown, port_security, dynamic) = (Vec::new(), false, Vec::new(), None);
    let access = Access::Virtual(ip, parents);
    Ok(Attachment::Workload { addresses, unknown, port_security, access, dynamic })
}

fn network(port: &pb::LogicalSwitchPort, gateway: Gateway) -> Result<Attachment, FieldError> {
    let network = gateway::network(&port.network_name)?;
    let (tag, is_service) = (gateway::tag(port.tag)?, is_service(port)?);
    if is_service && tag.is_none() {
        return Err(FieldError::new(
            "tag_type",
            "there is no tag of which it is the type; set `tag`, or clear it",
        ));
    }
    Ok(Attachment::Network { network, tag, is_service, gateway })
}

/// Frames have the tag of a provider.
fn is_service(port: &pb::LogicalSwitchPort) -> Result<bool, FieldError> {
    use pb::logical_switch_port::TagType;
    match TagType::try_from(port.tag_type) {
        Ok(TagType::Unspecified) => Ok(false),
        Ok(TagType::Service) => Ok(true),
        Err(_) => {
            let reason = format!("{} is not a type of tag; use SERVICE, or none for 802.1Q", port.tag_type);
            Err(FieldError::new("tag_type", reason))
        }
    }
}

fn is_dynamic(entry: &str) -> bool {
    entry.split_ascii_whitespace().any(|word| word == "dynamic")
}

/// `dynamic`, `MAC dynamic`, `dynamic IP…`, `MAC dynamic IP…`.
fn parse_dynamic(entry: &str) -> Result<Dynamic, String> {
    let words: Vec<&str> = entry.split_ascii_whitespace().collect();
    let (mac, ips) = match words.as_slice() {
        ["dynamic", ips @ ..] => (None, ips),
        [mac, "dynamic", ips @ ..] => (Some(address::parse_mac(mac)?), ips),
        _ => {
            return Err(format!(
                "{} is no entry; write dynamic, with a MAC address before it and IP addresses behind it if they are given",
                Shown(entry)
            ));
        }
    };
    let ips = ips.iter().map(|ip| address::parse_ip(ip)).collect::<Result<Vec<_>, _>>()?;
    let n_of = |is_v4: bool| ips.iter().filter(|ip| ip.is_ipv4() == is_v4).count();
    if n_of(true) > 1 || n_of(false) > 1 {
        return Err(format!("{} has several addresses of a family; write one", Shown(entry)));
    }
    Ok(Dynamic { mac, ips })
}

fn services(port: &pb::LogicalSwitchPort) -> Result<PortServices, FieldError> {
    let hostname = Some(port.hostname.clone()).filter(|name| !name.is_empty());
    if let Some(name) = hostname.as_ref().filter(|name| domain(name).is_none()) {
        return Err(FieldError::new("hostname", format!("{} is not the name of a host", Shown(name))));
    }
    Ok(PortServices {
        dhcp: [
            reference("dhcpv4_options", Kind::DhcpOptions, &port.dhcpv4_options)?,
            reference("dhcpv6_options", Kind::DhcpOptions, &port.dhcpv6_options)?,
        ],
        hostname,
    })
}
