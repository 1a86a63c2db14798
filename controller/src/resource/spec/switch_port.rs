//! Ports of switches.

use std::net::IpAddr;

use ferroflow_proto::northbound as pb;
use flowtable::types::MacAddr;
use ovn_northd_lite::{
    dhcp::domain,
    model::{PortAddresses, PortSecurity, PortServices},
};

use super::{each, reference, router_port::router_port_name};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

/// A port of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchPortSpec {
    /// What is attached.
    pub attachment: Attachment,
    /// Sends and receives.
    pub enabled: bool,
    /// What hosts answer for it.
    pub services: PortServices,
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
        /// What the switch is to choose.
        dynamic: Option<Dynamic>,
    },
    /// The router port of this name.
    Router(Name),
}

pub(super) fn parse(port: &pb::LogicalSwitchPort) -> Result<SwitchPortSpec, FieldError> {
    use pb::logical_switch_port::Type;
    let attachment = match Type::try_from(port.r#type) {
        Ok(Type::Unspecified) => workload(port)?,
        Ok(Type::Router) => Attachment::Router(router_side(port)?),
        Err(_) => {
            return Err(FieldError::new("type", format!("{} is not a type of switch port", port.r#type)));
        }
    };
    Ok(SwitchPortSpec { attachment, enabled: port.enabled.unwrap_or(true), services: services(port)? })
}

fn workload(port: &pb::LogicalSwitchPort) -> Result<Attachment, FieldError> {
    if !port.router_port.is_empty() {
        let reason = format!(
            "{} makes sense only for type router; set the type or clear this field",
            Shown(&port.router_port)
        );
        return Err(FieldError::new("router_port", reason));
    }
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
    let addresses = addresses.into_iter().flatten().collect();
    Ok(Attachment::Workload { addresses, unknown, port_security, dynamic: first })
}

fn router_side(port: &pb::LogicalSwitchPort) -> Result<Name, FieldError> {
    for (field, list) in [("addresses", &port.addresses), ("port_security", &port.port_security)] {
        if !list.is_empty() {
            let reason = "a port of type router takes the addresses of its router port; leave this empty";
            return Err(FieldError::new(field, reason));
        }
    }
    router_port_name("router_port", &port.router_port)
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
