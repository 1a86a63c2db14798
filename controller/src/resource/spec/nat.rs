//! Address translation.

use ferroflow_proto::northbound as pb;
use flowtable::types::Priority;
use ovn_northd_lite::model::{Condition, Distributed, IpNetwork, NatKind, NatRule};

use super::{acl::matching, each, router_port::own_port};
use crate::resource::{FieldError, Kind, Name, Shown, address, limits};

pub(super) fn parse(name: &Name, nat: &pb::Nat) -> Result<NatRule, FieldError> {
    let kind = kind(nat.r#type)?;
    let external_ip =
        address::parse_ip(&nat.external_ip).map_err(|reason| FieldError::new("external_ip", reason))?;
    let logical_ip = logical_ip(kind, &nat.logical_ip)?;
    if logical_ip.addr.is_ipv4() != external_ip.is_ipv4() {
        let reason =
            format!("{} is not of the family of {external_ip}; use one family", Shown(&nat.logical_ip));
        return Err(FieldError::new("logical_ip", reason));
    }
    if nat.stateless && kind != NatKind::Both {
        let reason = "only dnat_and_snat can do without connections; leave it out";
        return Err(FieldError::new("stateless", reason));
    }
    let networks = |field, list: &[String]| {
        each(field, list, limits::MAX_NAT_NETWORKS, |text| {
            let network = address::parse_prefix_or_ip(text)?;
            if network.addr.is_ipv4() == external_ip.is_ipv4() {
                Ok(network)
            } else {
                Err(format!("{text} is not of the family of {external_ip}; use one family"))
            }
        })
    };
    Ok(NatRule {
        kind,
        external_ip,
        logical_ip,
        external_ports: external_ports(kind, nat)?,
        gateway_port: own_port("gateway_port", name, &nat.gateway_port)?,
        stateless: nat.stateless,
        allowed_external_ips: networks("allowed_external_ips", &nat.allowed_external_ips)?,
        exempted_external_ips: networks("exempted_external_ips", &nat.exempted_external_ips)?,
        distributed: distributed(kind, nat)?,
        condition: condition(nat)?,
        add_route: add_route(kind, nat)?,
    })
}

fn add_route(kind: NatKind, nat: &pb::Nat) -> Result<bool, FieldError> {
    if nat.add_route && kind == NatKind::Source {
        let reason = "nobody is sent to the address of an snat but who answers it; leave it out";
        return Err(FieldError::new("add_route", reason));
    }
    Ok(nat.add_route)
}

/// Highest priority of a rule with a match, so that its flows fit above all others.
const MAX_PRIORITY: u32 = 8191;

/// Which packets the rule is for besides.
fn condition(nat: &pb::Nat) -> Result<Option<Condition>, FieldError> {
    let wrong = |reason: String| FieldError::new("priority", reason);
    if nat.r#match.is_empty() {
        return match nat.priority {
            0 => Ok(None),
            _ => Err(wrong("only a rule with a match has one; leave it out, or write a match".to_owned())),
        };
    }
    let in_range = u16::try_from(nat.priority).ok().filter(|_| nat.priority <= MAX_PRIORITY);
    let priority = in_range.and_then(|raw| Priority::new(raw).ok());
    let priority = priority
        .ok_or_else(|| wrong(format!("{} is out of range; use 0 to {MAX_PRIORITY}", nat.priority)))?;
    Ok(Some(Condition { priority, matching: matching(&nat.r#match)? }))
}

/// A floating address on its workload's host.
fn distributed(kind: NatKind, nat: &pb::Nat) -> Result<Option<Distributed>, FieldError> {
    let wrong = |field, reason: String| Err(FieldError::new(field, reason));
    match (nat.external_mac.as_str(), nat.logical_port.as_str()) {
        ("", "") => return Ok(None),
        ("", _) | (_, "") => {
            return wrong("external_mac", "it goes with logical_port; set both or none".to_owned());
        }
        _ => {}
    }
    if kind != NatKind::Both || nat.stateless {
        return wrong("external_mac", "only a dnat_and_snat of connections has one; leave it out".to_owned());
    }
    let mac =
        address::parse_mac(&nat.external_mac).map_err(|reason| FieldError::new("external_mac", reason))?;
    match Name::parse(&nat.logical_port) {
        Ok(port) if port.kind() == Kind::SwitchPort => {
            Ok(Some(Distributed { mac, port: port.id().to_owned() }))
        }
        _ => {
            let port = Shown(&nat.logical_port);
            wrong("logical_port", format!("{port} does not name a switch port; write {}", Kind::SwitchPort))
        }
    }
}

fn kind(raw: i32) -> Result<NatKind, FieldError> {
    use pb::nat::Type;
    match Type::try_from(raw) {
        Ok(Type::Snat) => Ok(NatKind::Source),
        Ok(Type::Dnat) => Ok(NatKind::Destination),
        Ok(Type::DnatAndSnat) => Ok(NatKind::Both),
        Ok(Type::Unspecified) | Err(_) => {
            let reason = format!("{raw} is not a type; say snat, dnat or dnat_and_snat");
            Err(FieldError::new("type", reason))
        }
    }
}

fn logical_ip(kind: NatKind, text: &str) -> Result<IpNetwork, FieldError> {
    let wrong = |reason| FieldError::new("logical_ip", reason);
    if text.contains('/') && kind != NatKind::Source {
        return Err(wrong(format!("{} is a network; only snat can be for one", Shown(text))));
    }
    address::parse_prefix_or_ip(text).map_err(wrong)
}

fn external_ports(kind: NatKind, nat: &pb::Nat) -> Result<Option<(u16, u16)>, FieldError> {
    let text = nat.external_port_range.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |reason: String| FieldError::new("external_port_range", reason);
    if kind != NatKind::Source {
        return Err(wrong("only the ports of translated sources can be bound; leave it out".to_owned()));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Some((first, last))),
        _ => Err(wrong(format!("{} is not a range of ports; write 5000-6000", Shown(text)))),
    }
}
