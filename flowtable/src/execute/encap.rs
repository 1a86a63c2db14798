//! A tunnel header in front of a frame, with what depends on the frame filled in.

use std::net::IpAddr;

use zerocopy::FromBytes;

use crate::{
    checksum::{Sum, pseudo_ipv4, pseudo_ipv6},
    drop::DropReason,
    headers::Headers,
    offload,
    packet::{FrameBuf, Gso, Layout, Offload, Packet},
    program::TunnelHeader,
    wire::{Ethernet, Ipv4, Ipv6, Udp, ip_proto},
};

/// First source port: the dynamic range's upper half (RFC 7348 §5, RFC 8926 §3.3).
const FIRST_PORT: u16 = 0x8000;

/// Bytes of the outer headers over IPv4 without options.
const SHORT: usize = 50;
/// The same with [`crate::tunnel::OVN_OPTION`].
const LONG: usize = 58;

/// Pushes `header` and fills in lengths, UDP source port, ECN and checksums.
///
/// The UDP checksum is computed where the prebuilt header has anything but zero in its
/// place, see [`crate::tunnel::build_header`].
pub(crate) fn encapsulate<B: FrameBuf>(
    packet: &mut Packet<B>,
    header: &TunnelHeader,
    flow_hash: u32,
) -> Result<(), DropReason> {
    let ecn = Headers::of(packet.bytes(), &packet.layout).ecn(packet.bytes());
    encapsulate_marked(packet, header, (ecn, flow_hash))
}

/// The same of a packet whose congestion bits are known.
#[inline(always)]
pub(crate) fn encapsulate_marked<B: FrameBuf>(
    packet: &mut Packet<B>,
    header: &TunnelHeader,
    (ecn, flow_hash): (Option<u8>, u32),
) -> Result<(), DropReason> {
    let cut = if packet.offload.is_none() { None } else { before_header(packet) };
    if !packet.push_front(header.bytes.len()) {
        return Err(DropReason::NoHeadroom);
    }
    let frame = packet.bytes_mut();
    let l3_end = u16::try_from(frame.len()).map_err(|_| DropReason::TooBig)?;
    put(frame, &header.bytes)?;
    let ip = frame.get_mut(Ethernet::LEN..).ok_or(DropReason::Unsupported)?;
    // Each piece of a packet that is to be cut has a UDP checksum of its own.
    let with_checksum = cut.is_none();
    let l4_proto = header.kind.ip_proto();
    let udp = (l4_proto == ip_proto::UDP).then_some((flow_hash, with_checksum));
    let ip_len = match header.remote {
        IpAddr::V4(_) => fill_ipv4(ip, ecn, udp),
        IpAddr::V6(_) => fill_ipv6(ip, ecn, udp),
    }
    .ok_or(DropReason::Unsupported)?;
    let l3 = Ethernet::LEN as u16;
    packet.layout = Layout { l3, l4: l3 + ip_len as u16, l3_end, l4_proto };
    if let Some((gso, inner)) = cut {
        keep_cut(packet, gso, (inner, header.bytes.len() as u16));
    }
    Ok(())
}

/// Completes a checksum that is not to be found below a tunnel header; of a packet that is to be
/// cut, answers how, and where its headers are.
#[cold]
fn before_header<B: FrameBuf>(packet: &mut Packet<B>) -> Option<(Gso, Layout)> {
    match packet.offload.gso {
        Some(gso) => Some((gso, packet.cut_layout())),
        None => {
            offload::complete(packet);
            packet.offload = Offload::default();
            None
        }
    }
}

/// Remembers where the headers are that were in front until now.
fn keep_cut<B: FrameBuf>(packet: &mut Packet<B>, gso: Gso, (inner, by): (Layout, u16)) {
    let inner = Layout { l3: inner.l3 + by, l4: inner.l4 + by, l3_end: inner.l3_end + by, ..inner };
    packet.offload.csum_start = inner.l4;
    packet.offload.gso = Some(Gso { inner, ..gso });
}

/// Writes the prebuilt header; one of the usual lengths is copied in a few moves.
#[inline]
fn put(frame: &mut [u8], header: &[u8]) -> Result<(), DropReason> {
    if let (Ok(header), Some(front)) = (<&[u8; SHORT]>::try_from(header), frame.first_chunk_mut::<SHORT>()) {
        *front = *header;
    } else if let (Ok(header), Some(front)) =
        (<&[u8; LONG]>::try_from(header), frame.first_chunk_mut::<LONG>())
    {
        *front = *header;
    } else {
        let (front, _) = frame.split_at_mut_checked(header.len()).ok_or(DropReason::NoHeadroom)?;
        front.copy_from_slice(header);
    }
    Ok(())
}

/// Length, ECN and checksum of the IPv4 header, then UDP if it is that; answers the length of the
/// former. The identification stays 0: the packet must not be fragmented, so nobody looks at it
/// (RFC 6864 §4.1).
#[inline]
fn fill_ipv4(packet: &mut [u8], ecn: Option<u8>, udp: Option<(u32, bool)>) -> Option<usize> {
    let len = packet.len();
    let (ip, rest) = Ipv4::mut_from_prefix(packet).ok()?;
    ip.total_len.set(len as u16);
    let tos = outer_tos(ip.tos, ecn);
    // RFC 1624 §3, equation 3: the length was 0.
    let sum = u32::from(!ip.checksum.get()) + u32::from(!u16::from(ip.tos)) + u32::from(tos) + len as u32;
    ip.tos = tos;
    ip.checksum.set(!fold(sum));
    if let Some((flow_hash, with_checksum)) = udp
        && fill_udp(rest, flow_hash)?
        && with_checksum
    {
        let pseudo = pseudo_ipv4(ip.src.get(), ip.dst.get(), ip_proto::UDP, rest.len());
        finish_udp(rest, pseudo)?;
    }
    Some(Ipv4::LEN)
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

fn fill_ipv6(packet: &mut [u8], ecn: Option<u8>, udp: Option<(u32, bool)>) -> Option<usize> {
    let (ip, rest) = Ipv6::mut_from_prefix(packet).ok()?;
    ip.payload_len.set(rest.len() as u16);
    let flow = ip.flow.get();
    let tos = outer_tos((flow >> 20) as u8, ecn);
    ip.flow.set(flow & !0x0ff0_0000 | u32::from(tos) << 20);
    if let Some((flow_hash, with_checksum)) = udp
        && fill_udp(rest, flow_hash)?
        && with_checksum
    {
        finish_udp(rest, pseudo_ipv6(ip.src.get(), ip.dst.get(), ip_proto::UDP, rest.len()))?;
    }
    Some(Ipv6::LEN)
}

/// Port and length; answers whether there shall be a checksum.
#[inline]
fn fill_udp(datagram: &mut [u8], flow_hash: u32) -> Option<bool> {
    let len = datagram.len();
    let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
    udp.src.set(FIRST_PORT | (flow_hash ^ flow_hash >> 16) as u16);
    udp.len.set(len as u16);
    Some(udp.checksum.get() != 0)
}

fn finish_udp(datagram: &mut [u8], pseudo: Sum) -> Option<()> {
    let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
    udp.checksum.set(0);
    let checksum = match pseudo.bytes(datagram).checksum() {
        0 => u16::MAX,
        checksum => checksum,
    };
    let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
    udp.checksum.set(checksum);
    Some(())
}

/// The outer header carries the inner one's congestion bits (RFC 6040 §4.1, normal mode).
fn outer_tos(tos: u8, inner_ecn: Option<u8>) -> u8 {
    match inner_ecn {
        Some(ecn) => tos & !3 | ecn,
        None => tos,
    }
}
