//! How switches listen to who wants to hear which group.

use std::net::{IpAddr, Ipv6Addr};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{Querier, Snooping};

use crate::resource::{FieldError, Shown, address};

/// Groups that a host can remember: as many as there are keys for.
const MAX_GROUPS: u32 = 32_766;

pub(super) fn parse(snooping: &pb::MulticastSnooping) -> Result<Snooping, FieldError> {
    let usual = Snooping::default();
    let max_groups = match snooping.table_size {
        0 => usual.max_groups,
        size if size <= MAX_GROUPS => size,
        size => {
            let reason =
                format!("{size} is out of range; use up to {MAX_GROUPS}, or 0 for {}", usual.max_groups);
            return Err(FieldError::new("multicast_snooping.table_size", reason));
        }
    };
    let field = "multicast_snooping.idle_timeout";
    let max_age = seconds(field, snooping.idle_timeout, (15, 3600), usual.max_age)?;
    let querier = snooping.querier.as_ref().map(|querier| self::querier(querier, max_age)).transpose()?;
    Ok(Snooping { floods_unknown: snooping.flood_unregistered, max_groups, max_age, querier })
}

fn querier(querier: &pb::MulticastQuerier, max_age: u16) -> Result<Querier, FieldError> {
    let field = |name: &str| format!("multicast_snooping.querier.{name}");
    let interval = seconds(&field("interval"), querier.interval, (1, 3600), max_age / 2)?;
    if interval >= max_age {
        let reason = format!("workloads are forgotten after {max_age} seconds; ask sooner than that");
        return Err(FieldError::new(field("interval"), reason));
    }
    let max_response = seconds(&field("max_response"), querier.max_response, (1, 10), 1)?;
    let mac = address::parse_mac(&querier.mac).map_err(|reason| FieldError::new(field("mac"), reason))?;
    let ip = |name: &str, text: &str| match text {
        "" => Ok(None),
        text => address::parse_ip(text).map(Some).map_err(|reason| FieldError::new(field(name), reason)),
    };
    let is_link_local = |ip: &Ipv6Addr| ip.segments()[0] & 0xffc0 == 0xfe80;
    let v4 = match ip("ip4", &querier.ip4)? {
        None => None,
        Some(IpAddr::V4(ip)) if !ip.is_unspecified() && !ip.is_multicast() => Some(ip),
        Some(ip) => {
            let reason = format!("{} is not the IPv4 address of a host", Shown(&ip.to_string()));
            return Err(FieldError::new(field("ip4"), reason));
        }
    };
    let v6 = match ip("ip6", &querier.ip6)? {
        None => None,
        // RFC 3810 §5.1.14.
        Some(IpAddr::V6(ip)) if is_link_local(&ip) => Some(ip),
        Some(ip) => {
            let reason =
                format!("{} is no link-local IPv6 address; write one like fe80::1", Shown(&ip.to_string()));
            return Err(FieldError::new(field("ip6"), reason));
        }
    };
    let max_response = u8::try_from(max_response).unwrap_or(u8::MAX);
    Ok(Querier { interval, max_response, mac, v4, v6 })
}

/// Seconds in a range; 0: the usual ones.
fn seconds(field: &str, raw: u32, (least, most): (u16, u16), usual: u16) -> Result<u16, FieldError> {
    match u16::try_from(raw) {
        Ok(0) => Ok(usual),
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => {
            let reason = format!("{raw} is out of range; use {least} to {most}, or 0 for {usual}");
            Err(FieldError::new(field, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual_and_what_cannot_be_is_refused() {
        let mac = "0a:00:00:00:00:99".to_owned();
        let querier = pb::MulticastQuerier { mac: mac.clone(), ..Default::default() };
        let on = |querier: pb::MulticastQuerier| pb::MulticastSnooping {
            querier: Some(querier),
            ..Default::default()
        };
        let plain = parse(&on(querier.clone())).unwrap();
        assert_eq!((plain.max_groups, plain.max_age), (2048, 300));
        let asked = plain.querier.unwrap();
        assert_eq!((asked.interval, asked.max_response, asked.v4, asked.v6), (150, 1, None, None));
        let wrong = [
            (pb::MulticastQuerier { interval: 300, ..querier.clone() }, "querier.interval"),
            (pb::MulticastQuerier { max_response: 11, ..querier.clone() }, "querier.max_response"),
            (pb::MulticastQuerier { mac: String::new(), ..querier.clone() }, "querier.mac"),
            (pb::MulticastQuerier { ip4: "fe80::1".to_owned(), ..querier.clone() }, "querier.ip4"),
            (pb::MulticastQuerier { ip4: "224.0.0.1".to_owned(), ..querier.clone() }, "querier.ip4"),
            (pb::MulticastQuerier { ip6: "2001:db8::1".to_owned(), ..querier.clone() }, "querier.ip6"),
        ];
        for (wrong, field) in wrong {
            assert!(parse(&on(wrong)).unwrap_err().to_string().contains(field), "{field}");
        }
        for (size, age) in [(40_000, 0), (0, 14), (0, 70_000)] {
            let wrong = pb::MulticastSnooping { table_size: size, idle_timeout: age, ..Default::default() };
            assert!(parse(&wrong).is_err(), "{size} {age}");
        }
    }
}
