//! The outer headers of a received packet: Ethernet, IPv4 or IPv6, and UDP unless it is GRE's.

use std::net::IpAddr;

use zerocopy::FromBytes;

use crate::{
    checksum::{self, Sum, pseudo_ipv4, pseudo_ipv6},
    drop::DropReason,
    key::nw_frag,
    parse::{ipv4_bounds, ipv4_fragment, ipv6},
    program::TunnelKind,
    underlay::{TunnelPort, Underlay},
    wire::{self, Ethernet, Ipv4, Ipv6, Udp, ethertype, ip_proto},
};

/// What the outer headers say.
pub(super) struct Outer {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    /// First byte of the tunnel header, from the frame's start.
    pub(super) payload_at: usize,
    fragment: bool,
    /// None: GRE.
    udp: Option<Udp>,
    /// Where what the IP header says that follows begins.
    l4_at: usize,
    end: usize,
    pseudo: Sum,
}

impl Outer {
    /// Decodes the headers. Checksums come later, when it is known that the packet is
    /// for us.
    pub(super) fn decode(frame: &[u8]) -> Result<Self, DropReason> {
        let (ethernet, packet) = Ethernet::ref_from_prefix(frame).map_err(|_| DropReason::TunnelMalformed)?;
        match ethernet.eth_type.get() {
            ethertype::IPV4 => Self::decode_ipv4(packet),
            ethertype::IPV6 => Self::decode_ipv6(packet),
            _ => Err(DropReason::TunnelNotForUs),
        }
    }

    fn decode_ipv4(packet: &[u8]) -> Result<Self, DropReason> {
        let (ip, _) = Ipv4::ref_from_prefix(packet).map_err(|_| DropReason::TunnelMalformed)?;
        let (start, end) = ipv4_bounds(ip, packet.len()).ok_or(DropReason::TunnelMalformed)?;
        if packet.get(..start).map(checksum::of) != Some(0) {
            return Err(DropReason::TunnelMalformed);
        }
        let udp = udp(ip.proto, ipv4_fragment(ip), packet.get(start..end))?;
        Ok(Self {
            src: IpAddr::V4(ip.src.get().into()),
            dst: IpAddr::V4(ip.dst.get().into()),
            tos: ip.tos,
            ttl: ip.ttl,
            dont_fragment: ip.fragment.get() & wire::ipv4_fragment::DONT != 0,
            payload_at: Ethernet::LEN + start + udp.map_or(0, |_| Udp::LEN),
            fragment: ipv4_fragment(ip) != 0,
            udp,
            l4_at: Ethernet::LEN + start,
            end: Ethernet::LEN + end,
            pseudo: pseudo_ipv4(ip.src.get(), ip.dst.get(), ip_proto::UDP, end - start),
        })
    }

    fn decode_ipv6(packet: &[u8]) -> Result<Self, DropReason> {
        let (ip, _) = Ipv6::ref_from_prefix(packet).map_err(|_| DropReason::TunnelMalformed)?;
        let end = ipv6::end(ip, packet.len()).ok_or(DropReason::TunnelMalformed)?;
        let chain = ipv6::Chain::walk(ip.next, packet.get(Ipv6::LEN..end).unwrap_or_default());
        if chain.routed {
            return Err(DropReason::TunnelNotForUs);
        }
        let start = Ipv6::LEN + chain.len;
        let udp = udp(chain.proto.unwrap_or(ip_proto::NONE), chain.frag, packet.get(start..end))?;
        Ok(Self {
            src: IpAddr::V6(ip.src.get().into()),
            dst: IpAddr::V6(ip.dst.get().into()),
            tos: (ip.flow.get() >> 20) as u8,
            ttl: ip.hop_limit,
            dont_fragment: false,
            payload_at: Ethernet::LEN + start + udp.map_or(0, |_| Udp::LEN),
            fragment: chain.frag != 0,
            udp,
            l4_at: Ethernet::LEN + start,
            end: Ethernet::LEN + end,
            pseudo: pseudo_ipv6(ip.src.get(), ip.dst.get(), ip_proto::UDP, end - start),
        })
    }

    /// The tunnel that the packet came to.
    pub(super) fn tunnel<'a>(&self, underlay: &'a Underlay) -> Result<&'a TunnelPort, DropReason> {
        let is_its = |tunnel: &TunnelPort| match &self.udp {
            Some(udp) => tunnel.kind.ip_proto() == ip_proto::UDP && udp.dst == tunnel.udp_port,
            None => tunnel.kind == TunnelKind::Gre,
        };
        let to_us = |tunnel: &&TunnelPort| tunnel.local == self.dst && is_its(tunnel);
        underlay.tunnels.iter().find(to_us).ok_or(DropReason::TunnelNotForUs)
    }

    /// The sender protected the packet by a UDP checksum.
    pub(super) fn has_checksum(&self) -> bool {
        self.udp.as_ref().is_some_and(|udp| udp.checksum != 0)
    }

    /// The tunnel header and what follows, when it is whole and intact.
    pub(super) fn payload<'a>(&self, frame: &'a [u8], kind: TunnelKind) -> Result<&'a [u8], DropReason> {
        let datagram = frame.get(self.l4_at..self.end).ok_or(DropReason::TunnelMalformed)?;
        if self.fragment {
            return Err(DropReason::TunnelMalformed);
        }
        let Some(udp) = &self.udp else { return Ok(datagram) };
        if usize::from(udp.len.get()) != datagram.len() || !self.is_intact(udp, datagram, kind) {
            return Err(DropReason::TunnelMalformed);
        }
        datagram.get(Udp::LEN..).ok_or(DropReason::TunnelMalformed)
    }

    /// The UDP checksum is right or rightly absent. One that is only the pseudo header's
    /// sum was left to the device by a sender on this host, with no wire in between.
    ///
    /// Over IPv6 it must be present (RFC 8200 §8.1), but VXLAN always takes zero
    /// (RFC 7348 §5).
    fn is_intact(&self, udp: &Udp, datagram: &[u8], kind: TunnelKind) -> bool {
        match udp.checksum.get() {
            0 => self.dst.is_ipv4() || kind == TunnelKind::Vxlan,
            partial if partial == self.pseudo.fold() => true,
            _ => self.pseudo.bytes(datagram).checksum() == 0,
        }
    }
}

/// The UDP header; none: GRE follows. A later fragment has none either: it could be anybody's, so
/// that it is refused here.
fn udp(proto: u8, frag: u8, segment: Option<&[u8]>) -> Result<Option<Udp>, DropReason> {
    if frag & nw_frag::LATER != 0 {
        return Err(DropReason::TunnelMalformed);
    }
    if proto == ip_proto::GRE {
        return Ok(None);
    }
    if proto != ip_proto::UDP {
        return Err(DropReason::TunnelNotForUs);
    }
    let (udp, _) =
        Udp::read_from_prefix(segment.unwrap_or_default()).map_err(|_| DropReason::TunnelMalformed)?;
    Ok(Some(udp))
}
