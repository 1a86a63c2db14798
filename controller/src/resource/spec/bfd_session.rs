//! Next hops of router ports that are asked whether they live.

use std::{collections::BTreeMap, net::IpAddr};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{IpNetwork, Monitored};

use super::check_count;
use crate::resource::{FieldError, address, limits};

/// Milliseconds between two packets, and how many may be missed (OVN's).
const INTERVALS: (u32, u32) = (10, 60_000);
const USUAL_INTERVAL: u32 = 1000;
const USUAL_MULTIPLIER: u8 = 5;

/// The sessions of a port with these networks.
pub(super) fn parse(
    sessions: &[pb::BfdSession],
    networks: &[IpNetwork],
) -> Result<BTreeMap<IpAddr, Monitored>, FieldError> {
    check_count("bfd_sessions", sessions.len(), limits::MAX_BFD_SESSIONS)?;
    let mut found = BTreeMap::new();
    for (i, session) in sessions.iter().enumerate() {
        let wrong = |field: &str, reason| FieldError::new(format!("bfd_sessions[{i}].{field}"), reason);
        let peer = address::parse_ip(&session.peer).map_err(|reason| wrong("peer", reason))?;
        let is_next = networks.iter().any(|network| network.contains(peer) && network.addr != peer);
        if !is_next {
            let reason = format!("{peer} is no neighbour in the port's `networks`; name one that is");
            return Err(wrong("peer", reason));
        }
        let (least, most) = INTERVALS;
        let millis = |field: &str, raw: u32| match raw {
            0 => Ok(USUAL_INTERVAL),
            raw if (least..=most).contains(&raw) => Ok(raw),
            raw => {
                let reason =
                    format!("{raw} is out of range; use {least} to {most}, or 0 for {USUAL_INTERVAL}");
                Err(wrong(field, reason))
            }
        };
        let multiplier = match u8::try_from(session.detect_multiplier) {
            Ok(0) => USUAL_MULTIPLIER,
            Ok(multiplier) => multiplier,
            Err(_) => {
                let reason = format!("{} is out of range; use up to {}", session.detect_multiplier, u8::MAX);
                return Err(wrong("detect_multiplier", reason));
            }
        };
        let min_tx = millis("min_tx", session.min_tx)?;
        let monitored =
            Monitored { min_tx, min_rx: millis("min_rx", session.min_rx)?, multiplier, is_up: false };
        if found.insert(peer, monitored).is_some() {
            return Err(wrong("peer", format!("{peer} is there twice; keep one")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_with_neighbours_each_once() {
        let networks = [IpNetwork { addr: [192, 0, 2, 1].into(), prefix_len: 24 }];
        let to = |peer: &str| pb::BfdSession { peer: peer.to_owned(), ..Default::default() };
        let usual = parse(&[to("192.0.2.7")], &networks).unwrap();
        let wanted = Monitored { min_tx: 1000, min_rx: 1000, multiplier: 5, is_up: false };
        assert_eq!(usual, [([192, 0, 2, 7].into(), wanted)].into());
        for wrong in [
            vec![to("192.0.2.1")],
            vec![to("198.51.100.7")],
            vec![to("x")],
            vec![to("192.0.2.7"), to("192.0.2.7")],
            vec![pb::BfdSession { min_tx: 9, ..to("192.0.2.7") }],
            vec![pb::BfdSession { min_rx: 60_001, ..to("192.0.2.7") }],
            vec![pb::BfdSession { detect_multiplier: 256, ..to("192.0.2.7") }],
        ] {
            assert!(parse(&wrong, &networks).is_err(), "{wrong:?}");
        }
    }
}
