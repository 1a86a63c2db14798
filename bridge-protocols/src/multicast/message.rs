//! Membership reports and queries: IGMPv1 to v3 (RFC 1112, 2236, 3376) and MLDv1 and v2
//! (RFC 2710, 3810).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::types::MacAddr;

use super::Querier;
use crate::wire::{array, checksum, ethernet, padded, u16_at, u32_at};

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
/// Tags that may be in front, and how many.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const MAX_TAGS: usize = 2;
const PROTO_IGMP: u8 = 2;
const PROTO_ICMPV6: u8 = 58;
/// Extension headers in front of a message at most.
const MAX_EXTENSIONS: usize = 8;
/// Options of IPv4 and IPv6 that make routers look (RFC 2113, RFC 2711).
const ROUTER_ALERT_V4: [u8; 4] = [0x94, 4, 0, 0];
const ROUTER_ALERT_V6: [u8; 8] = [PROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const ALL_HOSTS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a host says about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// It wants to hear.
    Joins,
    /// It does not any more.
    Leaves,
}

/// What a frame says about groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A router asks: about a group, or about all.
    Query {
        /// Who asks; a querier of no address of its own is 0.
        source: IpAddr,
        /// About which group.
        group: Option<IpAddr>,
    },
    /// A host answers.
    Report(Vec<(IpAddr, Interest)>),
}

impl Message {
    /// Reads a frame. `None`: it says nothing about groups, or is damaged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut at = 12;
        for _ in 0..MAX_TAGS {
            if TAGS.contains(&u16_at(frame, at)?) {
                at += 4;
            }
        }
        let packet = frame.get(at + 2..)?;
        match u16_at(frame, at)? {
            ETH_IPV4 => parse_v4(packet),
            ETH_IPV6 => parse_v6(packet),
            _ => None,
        }
    }
}

fn parse_v4(packet: &[u8]) -> Option<Message> {
    let first = *packet.first()?;
    let (header_len, total_len) = (usize::from(first & 0xf) * 4, usize::from(u16_at(packet, 2)?));
    let is_fragment = u16_at(packet, 6)? & 0x3fff != 0;
    if first >> 4 != 4 || header_len < 20 || *packet.get(9)? != PROTO_IGMP || is_fragment {
        return None;
    }
    let (header, source) = (packet.get(..header_len)?, Ipv4Addr::from_bits(u32_at(packet, 12)?));
    let message = packet.get(..total_len)?.get(header_len..)?;
    if checksum(&[header]) != 0 || checksum(&[message]) != 0 {
        return None;
    }
    let group = Ipv4Addr::from_bits(u32_at(message, 4)?);
    let one = |interest| group.is_multicast().then(|| Message::Report(vec![(group.into(), interest)]));
    match *message.first()? {
        0x11 => {
            let group = (!group.is_unspecified()).then_some(group);
            let is_wrong = group.is_some_and(|group| !group.is_multicast());
            (!is_wrong).then(|| Message::Query { source: source.into(), group: group.map(IpAddr::from) })
        }
        0x12 | 0x16 => one(Interest::Joins),
        0x17 => one(Interest::Leaves),
        0x22 => records(message.get(8..)?, u16_at(message, 6)?, |bytes| {
            array::<4>(bytes, 0).map(|group| (Ipv4Addr::from(group).into(), 4))
        }),
        _ => None,
    }
}

fn parse_v6(packet: &[u8]) -> Option<Message> {
    let (payload_len, mut next) = (usize::from(u16_at(packet, 4)?), *packet.get(6)?);
    let (source, dst) = (array::<16>(packet, 8)?, array::<16>(packet, 24)?);
    let mut rest = packet.get(40..)?.get(..payload_len)?;
    // RFC 2710 §3: the option is there; other headers are not.
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, 0 | 60) {
            break;
        }
        next = *rest.first()?;
        rest = rest.get(8 + usize::from(*rest.get(1)?) * 8..)?;
    }
    // Routers do not forward them (RFC 3810 §5).
    if *packet.first()? >> 4 != 6 || *packet.get(7)? != 1 || next != PROTO_ICMPV6 {
        return None;
    }
    let pseudo_len = (rest.len() as u32).to_be_bytes();
    if checksum(&[&source, &dst, &pseudo_len, &[0, 0, 0, PROTO_ICMPV6], rest]) != 0 {
        return None;
    }
    let group = |at| array::<16>(rest, at).map(Ipv6Addr::from);
    let one = |interest| {
        group(8).filter(Ipv6Addr::is_multicast).map(|group| Message::Report(vec![(group.into(), interest)]))
    };
    match *rest.first()? {
        130 => {
            let group = group(8)?;
            let is_wrong = !group.is_unspecified() && !group.is_multicast();
            let group = (!group.is_unspecified()).then_some(IpAddr::V6(group));
            (!is_wrong).then(|| Message::Query { source: Ipv6Addr::from(source).into(), group })
        }
        131 => one(Interest::Joins),
        132 => one(Interest::Leaves),
        143 => records(rest.get(8..)?, u16_at(rest, 6)?, |bytes| {
            array::<16>(bytes, 0).map(|group| (Ipv6Addr::from(group).into(), 16))
        }),
        _ => None,
    }
}

/// The group records of IGMPv3 and MLDv2, which differ in the lengths of addresses.
fn records(
    mut bytes: &[u8],
    n_records: u16,
    group: impl Fn(&[u8]) -> Option<(IpAddr, usize)>,
) -> Option<Message> {
    let mut said = Vec::new();
    for _ in 0..n_records {
        let ([kind, n_aux], n_sources) = (array(bytes, 0)?, usize::from(u16_at(bytes, 2)?));
        let (group, address_len) = group(bytes.get(4..)?)?;
        bytes = bytes.get(4 + address_len + n_sources * address_len + usize::from(n_aux) * 4..)?;
        if !group.is_multicast() {
            continue;
        }
        // RFC 3376 §4.2.12. To include nobody is to leave; whoever includes some, hears.
        match kind {
            1 | 3 if n_sources == 0 => said.push((group, Interest::Leaves)),
            1..=5 => said.push((group, Interest::Joins)),
            _ => {}
        }
    }
    Some(Message::Report(said))
}

/// Tenths of a second for an answer, and seconds between two queries, as far as a byte has
/// room for them without an exponent (RFC 3376 §4.1.1, §4.1.7).
fn times(querier: &Querier) -> (u8, u8) {
    let tenths = (querier.max_response.as_millis() / 100).clamp(1, 127);
    let secs = querier.interval.as_secs().clamp(1, 127);
    (tenths as u8, secs as u8)
}

/// A query of IGMPv3 about all groups, or one.
pub(super) fn query_v4(querier: &Querier, group: Option<Ipv4Addr>) -> Vec<u8> {
    let dst = group.unwrap_or(ALL_HOSTS_V4);
    let (tenths, interval) = times(querier);
    let mut message = vec![0x11, tenths, 0, 0];
    message.extend(group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    // Robustness 2, about no source.
    message.extend([2, interval, 0, 0]);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total_len = (24 + message.len()) as u16;
    let mut header = vec![0x46, 0xc0];
    header.extend(total_len.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 1, PROTO_IGMP, 0, 0]);
    header.extend(querier.address.octets());
    header.extend(dst.octets());
    header.extend(ROUTER_ALERT_V4);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    let [_, b, c, d] = dst.octets();
    let mut frame = ethernet(MacAddr::new([1, 0, 0x5e, b & 0x7f, c, d]), querier.mac, ETH_IPV4);
    frame.extend(header);
    frame.extend(message);
    padded(frame)
}

/// A query of MLDv2 about all groups, or one.
pub(super) fn query_v6(querier: &Querier, group: Option<Ipv6Addr>) -> Vec<u8> {
    let source = querier.mac;
    let [a, b, c, d, e, f] = source.octets();
    let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    // RFC 4291 appendix A.
    if source == MacAddr::ZERO {
        address = [0; 16];
    }
    if let Some(ip) = querier.address_v6 {
        address = ip.octets();
    }
    let (tenths, interval) = times(querier);
    let dst = group.unwrap_or(ALL_NODES_V6).octets();
    let mut message = vec![130, 0, 0, 0];
    message.extend((u16::from(tenths) * 100).to_be_bytes());
    message.extend([0, 0]);
    message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message.extend([2, interval, 0, 0]);
    let pseudo_len = (message.len() as u32).to_be_bytes();
    let sum = checksum(&[&address, &dst, &pseudo_len, &[0, 0, 0, PROTO_ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., w, x, y, z] = dst;
    let mut frame = ethernet(MacAddr::new([0x33, 0x33, w, x, y, z]), source, ETH_IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(((ROUTER_ALERT_V6.len() + message.len()) as u16).to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(address);
    frame.extend(dst);
    frame.extend(ROUTER_ALERT_V6);
    frame.extend(message);
    frame
}
