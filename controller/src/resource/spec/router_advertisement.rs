//! What a router port says of itself.

use std::net::{IpAddr, Ipv6Addr};

use ferroflow_proto::northbound::{self as pb, router_advertisement as wire};
use ovn_northd_lite::{
    dhcp::domain,
    model::{AddressMode, IpNetwork, Preference, RouterAdvertisement},
};

use super::{check_count, each};
use crate::resource::{FieldError, Shown, address, limits};

/// Seconds for which it is a default router, if nothing is said, and at most (RFC 4861
/// §6.2.1).
const LIFETIME: u16 = 1800;
const MAX_LIFETIME: u32 = 9000;
/// Least MTU of IPv6 (RFC 8200 §5), and most of an interface.
const MTUS: std::ops::RangeInclusive<u32> = 1280..=65_535;
/// Seconds between advertisements if nothing is said (RFC 4861 §6.2.1).
const INTERVAL: (u16, u16) = (200, 600);

pub(super) fn parse(ra: &pb::RouterAdvertisement) -> Result<RouterAdvertisement, FieldError> {
    use wire::AddressMode as Mode;
    let wrong =
        |field: &str, reason: String| FieldError::new(format!("router_advertisement.{field}"), reason);
    let mode = match Mode::try_from(ra.address_mode) {
        Ok(Mode::Unspecified) => AddressMode::Slaac,
        Ok(Mode::Dhcpv6Stateful) => AddressMode::Stateful,
        Ok(Mode::Dhcpv6Stateless) => AddressMode::Stateless,
        Err(_) => return Err(wrong("address_mode", format!("{} is not a mode", ra.address_mode))),
    };
    let mtu = match ra.mtu {
        0 => None,
        mtu if MTUS.contains(&mtu) => Some(mtu),
        mtu => return Err(wrong("mtu", format!("{mtu} is out of range; use 1280 to 65535"))),
    };
    let (rdnss, dnssl) = ("router_advertisement.rdnss", "router_advertisement.dnssl");
    check_count("router_advertisement.routes", ra.routes.len(), limits::MAX_RA_ENTRIES)?;
    let route = |(i, route): (usize, &wire::Route)| {
        let field = format!("routes[{i}]");
        let prefix = v6_prefix(&route.prefix).map_err(|reason| wrong(&format!("{field}.prefix"), reason))?;
        let preference = preference(route.preference);
        let preference = preference.map_err(|reason| wrong(&format!("{field}.preference"), reason))?;
        Ok((prefix, preference))
    };
    let lifetime = match ra.lifetime {
        None => LIFETIME,
        Some(lifetime) => match u16::try_from(lifetime) {
            Ok(short) if lifetime <= MAX_LIFETIME => short,
            _ => {
                return Err(wrong(
                    "lifetime",
                    format!("{lifetime} is out of range; use 0 to {MAX_LIFETIME}"),
                ));
            }
        },
    };
    Ok(RouterAdvertisement {
        mode,
        mtu,
        rdnss: each(rdnss, &ra.rdnss, limits::MAX_RA_ENTRIES, resolver)?,
        dnssl: each(dnssl, &ra.dnssl, limits::MAX_RA_ENTRIES, search)?,
        routes: ra.routes.iter().enumerate().map(route).collect::<Result<_, _>>()?,
        preference: preference(ra.preference).map_err(|reason| wrong("preference", reason))?,
        lifetime,
        interval: interval(ra).map_err(|reason| wrong("max_interval", reason))?,
    })
}

fn preference(raw: i32) -> Result<Preference, String> {
    match wire::Preference::try_from(raw) {
        Ok(wire::Preference::Unspecified) => Ok(Preference::Medium),
        Ok(wire::Preference::Low) => Ok(Preference::Low),
        Ok(wire::Preference::High) => Ok(Preference::High),
        Err(_) => Err(format!("{raw} is not a preference")),
    }
}

fn v6_prefix(text: &str) -> Result<IpNetwork, String> {
    let network = address::parse_prefix(text)?;
    if network.addr.is_ipv6() { Ok(network) } else { Err(format!("{} is not an IPv6 network", Shown(text))) }
}

fn resolver(text: &str) -> Result<Ipv6Addr, String> {
    match address::parse_ip(text)? {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(_) => Err(format!("{} is not an IPv6 address", Shown(text))),
    }
}

fn search(text: &str) -> Result<String, String> {
    match domain(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{} is not the name of a domain", Shown(text))),
    }
}

fn interval(ra: &pb::RouterAdvertisement) -> Result<Option<(u16, u16)>, String> {
    if !ra.periodic {
        return match (ra.min_interval, ra.max_interval) {
            (0, 0) => Ok(None),
            _ => Err("an interval makes sense only with `periodic`; set that or leave this out".to_owned()),
        };
    }
    let of = |raw: u32, default: u16| if raw == 0 { Some(default) } else { u16::try_from(raw).ok() };
    let max = of(ra.max_interval, INTERVAL.1).filter(|max| (4..=1800).contains(max));
    let max = max.ok_or_else(|| format!("{} is out of range; use 4 to 1800 seconds", ra.max_interval))?;
    // RFC 4861 §6.2.1: a third of the longest, by default, and never more than three quarters.
    let min = of(ra.min_interval, (max / 3).max(3)).filter(|min| *min >= 3 && *min <= (max / 4 * 3).max(3));
    let min = min.ok_or_else(|| {
        format!(
            "{} to {max} seconds is no interval; the least is 3 to three quarters of the most",
            ra.min_interval
        )
    })?;
    Ok(Some((min, max)))
}
