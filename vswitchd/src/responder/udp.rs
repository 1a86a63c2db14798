//! UDP datagrams, taken out of frames and put into frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::checksum;

use super::packet::Context;

/// Length of a UDP header.
const UDP: usize = 8;
const PROTO: u8 = 17;
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
        let (src, dst, udp) = match context.payload(0x0800) {
            Some(packet) => v4(packet)?,
            None => v6(context.payload(0x86dd)?)?,
        };
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
        let pseudo = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                checksum::pseudo_ipv4(src.to_bits(), dst.to_bits(), PROTO, udp.len())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                checksum::pseudo_ipv6(src.to_bits(), dst.to_bits(), PROTO, udp.len())
            }
            _ => return None,
        };
        // Zero stands for no checksum (RFC 768).
        let sum = match pseudo.bytes(&udp).checksum() {
            0 => 0xffff,
            sum => sum,
        };
        udp.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
        let mut frame = context.addresses()?.to_vec();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => frame.extend(v4_header(src, dst, len)?),
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(v6_header(src, dst, (len, PROTO, TTL)));
            }
            _ => return None,
        }
        frame.extend(udp);
        Some(frame)
    }
}

/// Addresses and what is behind the header, of a packet that is whole.
fn v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header_len = usize::from(packet.first()? & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
    let is_whole = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x3fff == 0;
    let address = |at: usize| Some(IpAddr::V4(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into()));
    let is_udp = *packet.get(9)? == PROTO && header_len >= 20;
    (is_udp && is_whole).then_some(())?;
    Some((address(12)?, address(16)?, packet.get(header_len..total_len)?))
}

/// The same; one with extension headers is not for us.
fn v6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let len = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
    let address = |at: usize| Some(IpAddr::V6(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into()));
    (*packet.get(6)? == PROTO).then_some(())?;
    Some((address(8)?, address(24)?, packet.get(40..40 + len)?))
}

fn v4_header(src: Ipv4Addr, dst: Ipv4Addr, len: u16) -> Option<Vec<u8>> {
    let mut header = vec![0x45, 0];
    header.extend(len.checked_add(20)?.to_be_bytes());
    header.extend([0, 0, 0x40, 0, TTL, PROTO, 0, 0]);
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
