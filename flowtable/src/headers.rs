//! A second look at a parsed frame, for those who change it: which headers the
//! [`Layout`] points at and where their checksums are.

use zerocopy::FromBytes;

use crate::{
    checksum::{Sum, pseudo_ipv4, pseudo_ipv6},
    packet::Layout,
    parse::ipv6::Chain,
    wire::{Ipv4, Ipv6, ethertype, ip_proto, ipv4_fragment},
};

/// Which L3 header a frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L3 {
    /// None that the switch could read.
    Opaque,
    /// ARP or RARP for Ethernet and IPv4.
    Arp,
    /// A label stack.
    Mpls,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// The headers of a parsed frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers {
    pub(crate) l3: L3,
    pub(crate) l3_at: usize,
    pub(crate) l4_at: usize,
    pub(crate) l3_end: usize,
    /// As in [`Layout::l4_proto`].
    pub(crate) l4_proto: u8,
}

impl Headers {
    pub(crate) fn of(frame: &[u8], layout: &Layout) -> Self {
        let l3_at = usize::from(layout.l3);
        let eth_type = match frame.get(l3_at.wrapping_sub(2)..l3_at) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        };
        let l3 = match eth_type {
            _ if layout.l3_end == 0 => L3::Opaque,
            ethertype::IPV4 => L3::Ipv4,
            ethertype::IPV6 => L3::Ipv6,
            ethertype::ARP | ethertype::RARP => L3::Arp,
            ethertype::MPLS | ethertype::MPLS_UPSTREAM => L3::Mpls,
            _ => L3::Opaque,
        };
        Self {
            l3,
            l3_at,
            l4_at: usize::from(layout.l4),
            l3_end: usize::from(layout.l3_end),
            l4_proto: layout.l4_proto,
        }
    }

    /// The L4 header and what follows, without padding.
    pub(crate) fn segment<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        match self.l4_at {
            0 => &[],
            at => frame.get(at..self.l3_end).unwrap_or_default(),
        }
    }

    /// Offset of the Internet checksum from the L4 header's start.
    pub(crate) fn checksum_offset(&self) -> Option<usize> {
        match self.l4_proto {
            ip_proto::TCP => Some(16),
            ip_proto::UDP => Some(6),
            ip_proto::ICMP | ip_proto::ICMPV6 | ip_proto::IGMP => Some(2),
            _ => None,
        }
    }

    /// The L4 checksum covers the addresses of the IP header.
    pub(crate) fn has_pseudo_header(&self) -> bool {
        matches!(self.l4_proto, ip_proto::TCP | ip_proto::UDP | ip_proto::ICMPV6)
    }

    /// Sum of the pseudo header, where the addresses in the IP header are the ones it is
    /// made of.
    pub(crate) fn pseudo(&self, frame: &[u8]) -> Option<Sum> {
        let packet = frame.get(self.l3_at..)?;
        let len = self.segment(frame).len();
        match self.l3 {
            L3::Ipv4 => {
                let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
                Some(pseudo_ipv4(ip.src.get(), ip.dst.get(), self.l4_proto, len))
            }
            L3::Ipv6 if self.is_routed(frame) => None,
            L3::Ipv6 => {
                let (ip, _) = Ipv6::ref_from_prefix(packet).ok()?;
                Some(pseudo_ipv6(ip.src.get(), ip.dst.get(), self.l4_proto, len))
            }
            L3::Opaque | L3::Arp | L3::Mpls => None,
        }
    }

    /// The packet is one of several fragments: its L4 checksum covers bytes that are not
    /// in this frame.
    pub(crate) fn is_fragment(&self, frame: &[u8]) -> bool {
        let packet = frame.get(self.l3_at..).unwrap_or_default();
        match self.l3 {
            L3::Ipv4 => Ipv4::ref_from_prefix(packet)
                .is_ok_and(|(ip, _)| ip.fragment.get() & (ipv4_fragment::MORE | ipv4_fragment::OFFSET) != 0),
            L3::Ipv6 => self.chain(frame).is_some_and(|chain| chain.frag != 0),
            L3::Opaque | L3::Arp | L3::Mpls => false,
        }
    }

    /// IPv6 with a final destination other than the one in the fixed header.
    pub(crate) fn is_routed(&self, frame: &[u8]) -> bool {
        self.l3 == L3::Ipv6 && self.chain(frame).is_some_and(|chain| chain.routed)
    }

    /// The ECN bits of an IP packet (RFC 3168 §5).
    pub(crate) fn ecn(&self, frame: &[u8]) -> Option<u8> {
        match (self.l3, frame.get(self.l3_at..self.l3_at + 2)) {
            (L3::Ipv4, Some(&[_, tos])) => Some(tos & 3),
            (L3::Ipv6, Some(&[_, flow])) => Some(flow >> 4 & 3),
            _ => None,
        }
    }

    /// The IPv6 extension headers, when there are any before L4.
    fn chain(&self, frame: &[u8]) -> Option<Chain> {
        let start = self.l3_at + Ipv6::LEN;
        if self.l4_at == start {
            return None;
        }
        let (ip, _) = Ipv6::ref_from_prefix(frame.get(self.l3_at..)?).ok()?;
        Some(Chain::walk(ip.next, frame.get(start..self.l3_end)?))
    }
}
