//! Which part of which packet a fragment is (RFC 791 §3.2, RFC 8200 §4.5).

use std::ops::Range;

use zerocopy::FromBytes;

use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    parse::{self, ipv6::Chain},
    types::BridgeId,
    wire::{Ipv4, Ipv6, Ipv6Fragment, ethertype, ip_proto, ipv4_fragment},
};

/// Bytes of the largest packet's payload.
const MAX_PAYLOAD: u32 = 65_535;
/// Offsets are in units of so many bytes.
const UNIT: u32 = 8;

/// What the fragments of a packet have in common, within a bridge and a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PacketId {
    /// Its ports are those of this bridge.
    pub(crate) bridge: BridgeId,
    pub(crate) zone: u16,
    ipv6: bool,
    /// For IPv4; later fragments of IPv6 do not know it.
    proto: u8,
    src: u128,
    dst: u128,
    id: u32,
}

/// A fragment, by its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) of: PacketId,
    /// Where its payload belongs.
    pub(crate) offset: u32,
    /// Others follow.
    pub(crate) more: bool,
    /// Where its payload is in the frame.
    pub(crate) payload: Range<usize>,
    /// What the payload of the whole packet begins with.
    pub(crate) proto: u8,
}

impl Piece {
    /// Reads a fragment that the parser has seen.
    ///
    /// # Errors
    /// [`DropReason::FragmentInvalid`]: it can be part of no packet.
    pub(crate) fn read<B: FrameBuf>(packet: &Packet<B>, zone: u16) -> Result<Self, DropReason> {
        let (l3, end) = (usize::from(packet.layout.l3), usize::from(packet.layout.l3_end));
        let frame = packet.bytes();
        let eth_type = l3.checked_sub(2).and_then(|at| frame.get(at..l3)).map(|bytes| [bytes[0], bytes[1]]);
        let ip = frame.get(l3..end).unwrap_or_default();
        let piece = match eth_type.map(u16::from_be_bytes) {
            Some(ethertype::IPV4) => ipv4(ip, zone),
            Some(ethertype::IPV6) => ipv6(ip, zone),
            _ => None,
        };
        let mut piece = piece.ok_or(DropReason::FragmentInvalid)?;
        piece.payload = piece.payload.start + l3..piece.payload.end + l3;
        let len = piece.len();
        let is_cut_right = !piece.more || len.is_multiple_of(UNIT);
        if len == 0 || !is_cut_right || piece.offset + len > MAX_PAYLOAD || !piece.begins_well(packet) {
            return Err(DropReason::FragmentInvalid);
        }
        Ok(piece)
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> u32 {
        self.payload.len() as u32
    }

    /// The packet's first fragment has all of the headers that rules can ask for (RFC 1858,
    /// RFC 7112): nobody hides a port in the second one.
    fn begins_well<B: FrameBuf>(&self, packet: &Packet<B>) -> bool {
        let read = packet.layout.l4_proto;
        let proto = if self.of.ipv6 { self.upper(packet) } else { Some(self.proto) };
        let is_known = matches!(
            proto,
            Some(ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP | ip_proto::ICMP | ip_proto::ICMPV6)
        );
        self.offset != 0 || proto.is_some() && (!is_known || proto == Some(read) || self.is_foreign(proto))
    }

    /// ICMP of the other kind of IP has no header here.
    fn is_foreign(&self, proto: Option<u8>) -> bool {
        proto == Some(if self.of.ipv6 { ip_proto::ICMP } else { ip_proto::ICMPV6 })
    }

    fn upper<B: FrameBuf>(&self, packet: &Packet<B>) -> Option<u8> {
        Chain::walk(self.proto, packet.bytes().get(self.payload.clone())?).proto
    }
}

fn ipv4(packet: &[u8], zone: u16) -> Option<Piece> {
    let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
    let (start, end) = parse::ipv4_bounds(ip, packet.len())?;
    let bits = ip.fragment.get();
    let of = PacketId {
        bridge: BridgeId::FIRST,
        zone,
        ipv6: false,
        proto: ip.proto,
        src: ip.src.get().into(),
        dst: ip.dst.get().into(),
        id: ip.id.get().into(),
    };
    Some(Piece {
        of,
        offset: u32::from(bits & ipv4_fragment::OFFSET) * UNIT,
        more: bits & ipv4_fragment::MORE != 0,
        payload: start..end,
        proto: ip.proto,
    })
}

fn ipv6(packet: &[u8], zone: u16) -> Option<Piece> {
    let (ip, rest) = Ipv6::ref_from_prefix(packet).ok()?;
    let at = Chain::walk(ip.next, rest).fragment_at?;
    let (header, payload) = Ipv6Fragment::ref_from_prefix(rest.get(at..)?).ok()?;
    let of = PacketId {
        bridge: BridgeId::FIRST,
        zone,
        ipv6: true,
        proto: 0,
        src: ip.src.get(),
        dst: ip.dst.get(),
        id: header.id.get(),
    };
    let bits = header.offset.get();
    Some(Piece {
        of,
        offset: u32::from(bits & !7),
        more: bits & 1 != 0,
        payload: packet.len() - payload.len()..packet.len(),
        proto: header.next,
    })
}
