//! IPv4 (RFC 791). Options are skipped.

use zerocopy::FromBytes;

use super::Payload;
use crate::{
    key::{FlowKey, nw_frag},
    wire::{Ipv4, ipv4_fragment},
};

pub(super) fn parse(packet: &[u8], key: &mut FlowKey) -> Option<Payload> {
    let (header, _) = Ipv4::ref_from_prefix(packet).ok()?;
    let (start, end) = bounds(header, packet.len())?;
    key.nw_src = header.src;
    key.nw_dst = header.dst;
    key.nw_tos = header.tos;
    key.nw_ttl = header.ttl;
    key.nw_proto = header.proto;
    key.nw_frag = fragment(header);
    let later = key.nw_frag & nw_frag::LATER != 0;
    Some(Payload { start, end, proto: (!later).then_some(header.proto) })
}

/// Lengths of header and packet, when they agree with each other and with the number
/// of bytes there are.
pub(crate) fn bounds(header: &Ipv4, available: usize) -> Option<(usize, usize)> {
    let header_len = usize::from(header.version_ihl & 0xf) * 4;
    let total_len = usize::from(header.total_len.get());
    let sane = header.version_ihl >> 4 == 4
        && header_len >= Ipv4::LEN
        && header_len <= total_len
        && total_len <= available;
    sane.then_some((header_len, total_len))
}

/// The key's fragment bits.
pub(crate) fn fragment(header: &Ipv4) -> u8 {
    let bits = header.fragment.get();
    if bits & ipv4_fragment::OFFSET != 0 {
        nw_frag::ANY | nw_frag::LATER
    } else if bits & ipv4_fragment::MORE != 0 {
        nw_frag::ANY
    } else {
        0
    }
}
