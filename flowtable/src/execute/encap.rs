//! A tunnel header in front of a frame, with what depends on the frame filled in.

use std::net::IpAddr;

use zerocopy::FromBytes;

use crate::{
    checksum::{Sum, pseudo_ipv4, pseudo_ipv6},
    drop::DropReason,
    headers::Headers,
    packet::{FrameBuf, Layout, Offload, Packet},
    program::TunnelHeader,
    wire::{Ethernet, Ipv4, Ipv6, Udp, ip_proto},
};

/// First source port: the dynamic range's upper half (RFC 7348 §5, RFC 8926 §3.3).
const FIRST_PORT: u16 = 0x8000;

/// Pushes `header` and fills in lengths, UDP source port, ECN and checksums.
///
/// The UDP checksum is computed where the prebuilt header has anything but zero in its
/// place, see [`crate::tunnel::build_header`].
pub(super) fn encapsulate<B: FrameBuf>(
    packet: &mut Packet<B>,
    header: &TunnelHeader,
    flow_hash: u32,
) -> Result<(), DropReason> {
    let ecn = Headers::of(packet.bytes(), &packet.layout).ecn(packet.bytes());
    if !packet.push_front(header.bytes.len()) {
        return Err(DropReason::NoHeadroom);
    }
    let frame = packet.bytes_mut();
    let (front, _) = frame.split_at_mut_checked(header.bytes.len()).ok_or(DropReason::NoHeadroom)?;
    front.copy_from_slice(&header.bytes);
    let l3_end = u16::try_from(frame.len()).map_err(|_| DropReason::TooBig)?;
    let ip = frame.get_mut(Ethernet::LEN..).ok_or(DropReason::Unsupported)?;
    let (ip_len, pseudo) = match header.remote {
        IpAddr::V4(_) => (Ipv4::LEN, fill_ipv4(ip, ecn)),
        IpAddr::V6(_) => (Ipv6::LEN, fill_ipv6(ip, ecn)),
    };
    let udp = ip.get_mut(ip_len..).ok_or(DropReason::Unsupported)?;
    fill_udp(udp, pseudo.ok_or(DropReason::Unsupported)?, flow_hash).ok_or(DropReason::Unsupported)?;
    let l3 = Ethernet::LEN as u16;
    packet.layout = Layout { l3, l4: l3 + ip_len as u16, l3_end, l4_proto: ip_proto::UDP };
    packet.offload = Offload::default();
    Ok(())
}

/// Length, ECN and checksum of the IPv4 header. The identification stays 0: the packet
/// must not be fragmented, so nobody looks at it (RFC 6864 §4.1).
fn fill_ipv4(packet: &mut [u8], ecn: Option<u8>) -> Option<Sum> {
    let len = packet.len();
    let (ip, rest) = Ipv4::mut_from_prefix(packet).ok()?;
    ip.total_len.set(len as u16);
    ip.tos = outer_tos(ip.tos, ecn);
    ip.checksum.set(0);
    let pseudo = pseudo_ipv4(ip.src.get(), ip.dst.get(), ip_proto::UDP, rest.len());
    let checksum = crate::checksum::of(packet.get(..Ipv4::LEN)?);
    let (ip, _) = Ipv4::mut_from_prefix(packet).ok()?;
    ip.checksum.set(checksum);
    Some(pseudo)
}

fn fill_ipv6(packet: &mut [u8], ecn: Option<u8>) -> Option<Sum> {
    let (ip, rest) = Ipv6::mut_from_prefix(packet).ok()?;
    ip.payload_len.set(rest.len() as u16);
    let flow = ip.flow.get();
    let tos = outer_tos((flow >> 20) as u8, ecn);
    ip.flow.set(flow & !0x0ff0_0000 | u32::from(tos) << 20);
    Some(pseudo_ipv6(ip.src.get(), ip.dst.get(), ip_proto::UDP, rest.len()))
}

fn fill_udp(datagram: &mut [u8], pseudo: Sum, flow_hash: u32) -> Option<()> {
    let len = datagram.len();
    let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
    udp.src.set(FIRST_PORT | (flow_hash ^ flow_hash >> 16) as u16);
    udp.len.set(len as u16);
    if udp.checksum.get() != 0 {
        udp.checksum.set(0);
        let checksum = match pseudo.bytes(datagram).checksum() {
            0 => u16::MAX,
            checksum => checksum,
        };
        let (udp, _) = Udp::mut_from_prefix(datagram).ok()?;
        udp.checksum.set(checksum);
    }
    Some(())
}

/// The outer header carries the inner one's congestion bits (RFC 6040 §4.1, normal mode).
fn outer_tos(tos: u8, inner_ecn: Option<u8>) -> u8 {
    match inner_ecn {
        Some(ecn) => tos & !3 | ecn,
        None => tos,
    }
}
