//! What becomes of the packets of one conversation over IPv4: their last addresses and ports, and
//! what that does to checksums, known beforehand.

use super::MacAddrs;
use crate::{
    checksum::{self, Sum},
    field::Field,
    packet::{FrameBuf, Packet},
    parse::Signature,
    program::FieldEdit,
    wire::{Ethernet, Ipv4, ethertype, ip_proto},
};

/// Places in an IPv4 header (RFC 791 §3.1).
const TOS: usize = 1;
const TTL: usize = 8;
const CHECKSUM: usize = 10;
const ADDRESSES: usize = 12;
/// Places of the checksum in L4 headers (RFC 9293 §3.1, RFC 768).
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Addresses and ports of a packet over IPv4, as numbers: the source's in the upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Ends {
    pub(crate) addresses: u64,
    pub(crate) ports: u32,
}

impl Ends {
    pub(super) fn of(signature: &Signature) -> Self {
        let ((src, dst), (src_port, dst_port)) = (signature.ipv4_addresses(), signature.ports());
        Self {
            addresses: u64::from(src) << 32 | u64::from(dst),
            ports: u32::from(src_port) << 16 | u32::from(dst_port),
        }
    }

    /// Those of the answers.
    #[inline]
    pub(super) fn reversed(self) -> Self {
        Self { addresses: self.addresses.rotate_left(32), ports: self.ports.rotate_left(16) }
    }

    fn set(&mut self, field: Field, value: u128) -> bool {
        let (address, port) = (value as u32, u32::from(value as u16));
        match field {
            Field::NwSrc => self.addresses = self.addresses & 0xffff_ffff | u64::from(address) << 32,
            Field::NwDst => self.addresses = self.addresses & !0xffff_ffff | u64::from(address),
            Field::TcpSrc | Field::UdpSrc => self.ports = self.ports & 0xffff | port << 16,
            Field::TcpDst | Field::UdpDst => self.ports = self.ports & !0xffff | port,
            _ => return false,
        }
        true
    }
}

/// What the headers of a conversation's packets say in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rewrite {
    /// Last addresses and ports.
    pub(super) ends: Ends,
    /// What that does to the sums of 16-bit words: of the IP header but for the addresses, of
    /// these, and of the L4 header. Zero: nothing.
    sums: [u16; 3],
    pub(super) tos: u8,
    ttl: u8,
}

impl Rewrite {
    /// What these edits, of whole fields, make of packets with this signature, and the MAC
    /// addresses that they have then, if they are other ones. `None`: it cannot be said so.
    pub(super) fn new(signature: &Signature, edits: &[FieldEdit]) -> Option<(Self, Option<MacAddrs>)> {
        if signature.kind().0 != ethertype::IPV4 {
            return None;
        }
        let (came, (tos, ttl)) = (Ends::of(signature), signature.tos_and_ttl());
        let mut rewrite = Self { ends: came, sums: [0; 3], tos, ttl };
        let mut macs = signature.mac_addrs();
        for FieldEdit { field, value, .. } in edits {
            let mac = |value: u128| u64::to_be_bytes((value as u64) << 16);
            match field {
                Field::EthDst => macs[..6].copy_from_slice(&mac(*value)[..6]),
                Field::EthSrc => macs[6..].copy_from_slice(&mac(*value)[..6]),
                Field::NwTos => rewrite.tos = *value as u8,
                Field::NwTtl => rewrite.ttl = *value as u8,
                _ if rewrite.ends.set(*field, *value) => {}
                _ => return None,
            }
        }
        let change = |sum: Sum, old: u64, new: u64, n_words| match old == new {
            true => sum,
            false => sum.change(old.into(), new.into(), n_words),
        };
        let fields = change(Sum::ZERO, tos.into(), rewrite.tos.into(), 1);
        let fields = change(fields, u64::from(ttl) << 8, u64::from(rewrite.ttl) << 8, 1);
        let addresses = change(Sum::ZERO, came.addresses, rewrite.ends.addresses, 4);
        let ports = change(Sum::ZERO, came.ports.into(), rewrite.ends.ports.into(), 2);
        rewrite.sums = [fields, addresses, ports].map(Sum::fold);
        Some((rewrite, (macs != signature.mac_addrs()).then_some(macs)))
    }

    /// The IP and L4 headers stay as they are.
    pub(super) fn is_none(&self) -> bool {
        self.sums == [0; 3]
    }

    /// Writes the headers of a packet with the signature that this is for.
    #[inline]
    pub(super) fn apply<B: FrameBuf>(&self, packet: &mut Packet<B>) {
        let (layout, is_partial) = (packet.layout, packet.offload.csum_partial);
        let [fields, addresses, ports] = self.sums.map(|sum| Sum::ZERO.word(sum));
        let frame = packet.bytes_mut();
        let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
        let Some(ip) = frame.get_mut(l3..).and_then(|ip| ip.first_chunk_mut::<{ Ipv4::LEN }>()) else {
            return;
        };
        (ip[TOS], ip[TTL]) = (self.tos, self.ttl);
        ip[ADDRESSES..].copy_from_slice(&self.ends.addresses.to_be_bytes());
        let header = fields.sum(addresses);
        if !header.is_zero() {
            let checksum = checksum::update(u16::from_be_bytes([ip[CHECKSUM], ip[CHECKSUM + 1]]), header);
            ip[CHECKSUM..ADDRESSES].copy_from_slice(&checksum.to_be_bytes());
        }
        let Some(segment) = frame.get_mut(l4..) else { return };
        if let Some(place) = segment.first_chunk_mut() {
            *place = self.ends.ports.to_be_bytes();
        }
        let is_udp = layout.l4_proto == ip_proto::UDP;
        let at = if is_udp { UDP_CHECKSUM } else { TCP_CHECKSUM };
        let Some(place) = segment.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) else { return };
        let old = u16::from_be_bytes(*place);
        let new = if is_partial {
            // The field is the sum of the pseudo header, and nothing else.
            Sum::ZERO.word(old).sum(addresses).fold()
        } else {
            let change = addresses.sum(ports);
            if change.is_zero() || is_udp && old == 0 {
                return;
            }
            match checksum::update(old, change) {
                // Zero would mean "none" (RFC 768).
                0 if is_udp => u16::MAX,
                new => new,
            }
        };
        *place = new.to_be_bytes();
    }
}

/// Writes the MAC addresses of a frame.
#[inline]
pub(super) fn readdress<B: FrameBuf>(packet: &mut Packet<B>, macs: &MacAddrs) {
    if let Some(place) = packet.bytes_mut().first_chunk_mut() {
        *place = *macs;
    }
}

const _: () = assert!(size_of::<MacAddrs>() == Ethernet::LEN - 2);
