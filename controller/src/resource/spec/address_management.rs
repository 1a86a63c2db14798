//! What a switch gives its ports addresses from.

use std::net::{IpAddr, Ipv4Addr};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::IpNetwork;

use crate::resource::{FieldError, Shown, address, limits};

/// First bytes of MAC addresses when nothing is said: locally administered, nobody's.
const MAC_PREFIX: [u8; 3] = [0x0a, 0x5e, 0xf0];
/// Prefix lengths of networks that addresses are given from.
const PREFIX_LENS: std::ops::RangeInclusive<u8> = 8..=30;

/// What a switch gives its ports addresses from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressManagement {
    /// IPv4 network.
    pub subnet: Option<IpNetwork>,
    /// Addresses not to give, from one to another.
    pub excluded: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// IPv6 network of 64 bits.
    pub ipv6_prefix: Option<IpNetwork>,
    /// First bytes of MAC addresses.
    pub mac_prefix: [u8; 3],
}

pub(super) fn parse(wire: &pb::AddressManagement) -> Result<AddressManagement, FieldError> {
    let wrong = |field: &str, reason: String| FieldError::new(format!("address_management.{field}"), reason);
    let network = |text: &str| match text {
        "" => Ok(None),
        text => address::parse_prefix(text).map(Some),
    };
    let subnet = network(&wire.subnet).map_err(|reason| wrong("subnet", reason))?;
    let ipv6_prefix = network(&wire.ipv6_prefix).map_err(|reason| wrong("ipv6_prefix", reason))?;
    if let Some(subnet) = subnet
        && !(subnet.addr.is_ipv4() && PREFIX_LENS.contains(&subnet.prefix_len))
    {
        let reason = format!("{} is not an IPv4 network of 8 to 30 bits", Shown(&wire.subnet));
        return Err(wrong("subnet", reason));
    }
    if let Some(prefix) = ipv6_prefix
        && !(prefix.addr.is_ipv6() && prefix.prefix_len == 64)
    {
        let reason = format!("{} is not an IPv6 network of 64 bits", Shown(&wire.ipv6_prefix));
        return Err(wrong("ipv6_prefix", reason));
    }
    if wire.exclude_ips.len() > limits::MAX_EXCLUDED {
        let reason =
            format!("{} entries are too many; keep to {}", wire.exclude_ips.len(), limits::MAX_EXCLUDED);
        return Err(wrong("exclude_ips", reason));
    }
    let range = |(i, text): (usize, &String)| {
        range(text, subnet).map_err(|reason| wrong(&format!("exclude_ips[{i}]"), reason))
    };
    Ok(AddressManagement {
        subnet,
        excluded: wire.exclude_ips.iter().enumerate().map(range).collect::<Result<_, _>>()?,
        ipv6_prefix,
        mac_prefix: mac_prefix(&wire.mac_prefix).map_err(|reason| wrong("mac_prefix", reason))?,
    })
}

fn range(text: &str, subnet: Option<IpNetwork>) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let parse = |text: &str| text.trim().parse::<Ipv4Addr>().ok();
    let range = parse(first).zip(parse(last)).filter(|(first, last)| first <= last);
    let (first, last) = range
        .ok_or_else(|| format!("{} is no range; write 10.0.0.9 or 10.0.0.10..10.0.0.20", Shown(text)))?;
    let is_inside = |ip| subnet.is_some_and(|subnet| subnet.contains(IpAddr::V4(ip)));
    if is_inside(first) && is_inside(last) {
        return Ok((first, last));
    }
    Err(format!("{} is not in the subnet", Shown(text)))
}

fn mac_prefix(text: &str) -> Result<[u8; 3], String> {
    if text.is_empty() {
        return Ok(MAC_PREFIX);
    }
    let mac = address::parse_mac(&format!("{text}:00:00:01"));
    let octets =
        mac.map_err(|_| format!("{} is not the first half of a MAC address; write 0a:5e:00", Shown(text)))?;
    let [a, b, c, ..] = octets.octets();
    Ok([a, b, c])
}
