//! UDP datagrams, and what else is behind IP headers, taken out of frames and put into
//! frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::checksum;

use super::packet::Context;

/// Length of a UDP header.
const UDP: usize = 8;
const PROTO: u8 = 17;
const ICMP: u8 = 1;
/// Where its checksum is.
const SUM_AT: usize = 6;
const TTL: u8 = 64;

/// A datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The datagram in a packet; `None` when it is none, or not whole.
    pub(super) fn parse(context: &Context<'a>) -> Option<Self> {
        let Segment { src, dst, proto, bytes: udp } = Segment::parse(context)?;
        (proto == PROTO).then_some(())?;
        let (header, _) = udp.split_first_chunk::<UDP>()?;
        let [a, b, c, d, e, f, ..] = *header;
        let len = usize::from(u16::from_be_bytes([e, f]));
        let payload = udp.get(UDP..len)?;
        Some(Self {
            src,
            dst,
            src_port: u16::from_be_bytes([a, b]),
            dst_port: u16::from_be_bytes([c, d]),
            payload,
        })
    }

    /// The frame, between the stations of a packet.
    pub(super) fn frame(&self, context: &Context<'_>) -> Option<Vec<u8>> {
        let len = u16::try_from(UDP + self.payload.len()).ok()?;
        let mut udp = Vec::with_capacity(usize::from(len));
        udp.extend(self.src_port.to_be_bytes());
        udp.extend(self.dst_port.to_be_bytes());
        udp.extend(len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(self.payload);
        frame(context.addresses()?, (self.src, self.dst), PROTO, udp, SUM_AT)
    }
}

/// What is behind the IP header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: u8,
    pub(super) bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// That of a packet that is whole.
    pub(super) fn parse(context: &Context<'a>) -> Option<Self> {
        match context.payload(0x0800) {
            Some(packet) => Self::v4(packet),
            None => Self::v6(context.payload(0x86dd)?),
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(packet.first()? & 15) * 4;
        let total_len = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
        let is_whole = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x3fff == 0;
        let address = |at: usize| Some(IpAddr::V4(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into()));
        (header_len >= 20 && is_whole).then_some(())?;
        let bytes = packet.get(header_len..total_len)?;
        Some(Self { src: address(12)?, dst: address(16)?, proto: *packet.get(9)?, bytes })
    }

    /// The same; one with extension headers is not for us.
    fn v6(packet: &'a [u8]) -> Option<Self> {
        let len = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
        let address =
            |at: usize| Some(IpAddr::V6(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into()));
        let bytes = packet.get(40..40 + len)?;
        Some(Self { src: address(8)?, dst: address(24)?, proto: *packet.get(6)?, bytes })
    }
}

/// The frame of a segment whose checksum is at `sum_at`, between two stations, destination
/// first, and two addresses of one family, source first.
pub(super) fn frame(
    stations: [u8; 12],
    ends: (IpAddr, IpAddr),
    proto: u8,
    mut segment: Vec<u8>,
    sum_at: usize,
) -> Option<Vec<u8>> {
    let len = u16::try_from(segment.len()).ok()?;
    let pseudo = match ends {
        // It has none (RFC 792).
        (IpAddr::V4(_), IpAddr::V4(_)) if proto == ICMP => checksum::Sum::default(),
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            checksum::pseudo_ipv4(src.to_bits(), dst.to_bits(), proto, segment.len())
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            checksum::pseudo_ipv6(src.to_bits(), dst.to_bits(), proto, segment.len())
        }
        _ => return None,
    };
    let sum = match pseudo.bytes(&segment).checksum() {
        // Zero stands for no checksum (RFC 768).
        0 if proto == PROTO => 0xffff,
        sum => sum,
    };
    segment.get_mut(sum_at..sum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
    let mut frame = stations.to_vec();
    match ends {
        (IpAddr::V4(src), IpAddr::V4(dst)) => frame.extend(v4_header(src, dst, (len, proto))?),
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd]);
            frame.extend(v6_header(src, dst, (len, proto, TTL)));
        }
        _ => return None,
    }
    frame.extend(segment);
    Some(frame)
}

fn v4_header(src: Ipv4Addr, dst: Ipv4Addr, (len, proto): (u16, u8)) -> Option<Vec<u8>> {
    let mut header = vec![0x45, 0];
    header.extend(len.checked_add(20)?.to_be_bytes());
    header.extend([0, 0, 0x40, 0, TTL, proto, 0, 0]);
    header.extend(src.octets());
    header.extend(dst.octets());
    let sum = checksum::of(&header).to_be_bytes();
    header.get_mut(10..12)?.copy_from_slice(&sum);
    Some([vec![0x08, 0x00], header].concat())
}

/// An IPv6 header: length behind it, protocol, hop limit.
pub(super) fn v6_header(src: Ipv6Addr, dst: Ipv6Addr, (len, proto, hops): (u16, u8, u8)) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(len.to_be_bytes());
    header.extend([proto, hops]);
    header.extend(src.octets());
    header.extend(dst.octets());
    header
}
