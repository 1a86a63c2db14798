//! The outer headers that nearly all packets from tunnels have, read in one go: IPv4 without
//! options, a whole UDP datagram without a checksum, from a peer that was seen before.
//! Whatever is otherwise, if only a little, is left to [`super::outer`], which knows all forms
//! and the names of what is wrong with them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use crate::{
    program::TunnelKind,
    types::PortNo,
    underlay::Underlay,
    wire::{Ethernet, Ipv4, Udp, ip_proto, ipv4_fragment},
};

/// Bytes in front of the tunnel header.
const LEN: usize = Ethernet::LEN + Ipv4::LEN + Udp::LEN;
/// Pairs of peer and tunnel that are remembered.
const N_KNOWN: usize = 256;

/// Outer headers that are as they should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain {
    pub(super) src: Ipv4Addr,
    pub(super) dst: Ipv4Addr,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    udp_port: u16,
    /// End of the datagram; the tunnel header is at [`Plain::PAYLOAD`].
    pub(super) end: usize,
}

impl Plain {
    /// First byte of the tunnel header.
    pub(super) const PAYLOAD: usize = LEN;

    #[inline]
    pub(super) fn decode(frame: &[u8]) -> Option<Self> {
        let (headers, _) = frame.split_first_chunk::<LEN>()?;
        let (ip, _) = headers[Ethernet::LEN..].split_first_chunk::<{ Ipv4::LEN }>()?;
        let half = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
        let (ip_at, udp_at) = (Ethernet::LEN, Ethernet::LEN + Ipv4::LEN);
        let (total_len, fragment) = (usize::from(half(ip_at + 2)), half(ip_at + 6));
        // EtherType, version and header length; protocol; no UDP checksum.
        let is_plain = half(12) == 0x0800
            && ip[0] == 0x45
            && ip[9] == ip_proto::UDP
            && half(udp_at + 6) == 0
            && fragment & (ipv4_fragment::MORE | ipv4_fragment::OFFSET) == 0
            && total_len >= LEN - ip_at
            && total_len <= frame.len() - ip_at
            && usize::from(half(udp_at + 4)) == total_len - Ipv4::LEN
            && is_intact(ip);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        is_plain.then(|| Self {
            src: address(12),
            dst: address(16),
            tos: ip[1],
            ttl: ip[8],
            dont_fragment: fragment & ipv4_fragment::DONT != 0,
            udp_port: half(udp_at + 2),
            end: ip_at + total_len,
        })
    }

    fn ends(&self) -> Ends {
        Ends { src: self.src, dst: self.dst, udp_port: self.udp_port }
    }
}

/// The header's checksum is right.
#[inline]
fn is_intact(ip: &[u8; Ipv4::LEN]) -> bool {
    let (words, _) = ip.as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// Who sent it to which tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    udp_port: u16,
}

/// Peers whose packets were found to be for one of our tunnels, so that the next one need not
/// be looked for. Belongs to one version of the underlay.
#[derive(Debug, Default)]
pub(crate) struct KnownPeers {
    underlay: Option<Arc<Underlay>>,
    /// By the last byte of the peer's address.
    known: Vec<Option<(Ends, PortNo, TunnelKind)>>,
}

impl KnownPeers {
    /// The tunnel that a packet came to, when it is from a peer.
    #[inline]
    pub(super) fn tunnel(&mut self, plain: &Plain, underlay: &Arc<Underlay>) -> Option<(PortNo, TunnelKind)> {
        if !self.underlay.as_ref().is_some_and(|known| Arc::ptr_eq(known, underlay)) {
            self.underlay = Some(Arc::clone(underlay));
            self.known = vec![None; N_KNOWN];
        }
        let ends = plain.ends();
        let place = self.known.get_mut(usize::from(plain.src.octets()[3]))?;
        if let Some((known, port, kind)) = place
            && *known == ends
        {
            return Some((*port, *kind));
        }
        let (src, dst) = (IpAddr::V4(ends.src), IpAddr::V4(ends.dst));
        let to_us = |tunnel: &&crate::underlay::TunnelPort| {
            tunnel.kind.ip_proto() == ip_proto::UDP && tunnel.local == dst && tunnel.udp_port == ends.udp_port
        };
        let tunnel = underlay.tunnels.iter().find(to_us).filter(|_| underlay.peers.contains(&src))?;
        *place = Some((ends, tunnel.port, tunnel.kind));
        Some((tunnel.port, tunnel.kind))
    }
}
