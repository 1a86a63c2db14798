//! IPv6 and its extension headers (RFC 8200 §4). Jumbograms are not supported: their
//! payload length is zero, so they end after the fixed header.

use zerocopy::FromBytes;

use super::Payload;
use crate::{
    key::{FlowKey, nw_frag},
    wire::{Ipv6, Ipv6Fragment, ip_proto},
};

pub(super) fn parse(packet: &[u8], key: &mut FlowKey) -> Option<Payload> {
    let (header, _) = Ipv6::ref_from_prefix(packet).ok()?;
    let end = end(header, packet.len())?;
    let flow = header.flow.get();
    key.ipv6_src = header.src;
    key.ipv6_dst = header.dst;
    key.ipv6_label.set(flow & 0xf_ffff);
    key.nw_tos = (flow >> 20) as u8;
    key.nw_ttl = header.hop_limit;
    let chain = Chain::walk(header.next, packet.get(Ipv6::LEN..end).unwrap_or_default());
    key.nw_proto = chain.proto.unwrap_or(0);
    key.nw_frag = chain.frag;
    let proto = if chain.frag & nw_frag::LATER == 0 { chain.proto } else { None };
    Some(Payload { start: Ipv6::LEN + chain.len, end, proto })
}

/// Length of the packet, when it is IPv6 and all of it is there.
pub(crate) fn end(header: &Ipv6, available: usize) -> Option<usize> {
    let end = Ipv6::LEN + usize::from(header.payload_len.get());
    (header.flow.get() >> 28 == 6 && end <= available).then_some(end)
}

/// What a chain of extension headers says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// The protocol after the chain: the upper layer's, or 44 (fragment header) in
    /// later fragments, where it is not known. Nothing when the chain is cut off.
    pub(crate) proto: Option<u8>,
    /// Bytes of extension headers.
    pub(crate) len: usize,
    /// The key's fragment bits.
    pub(crate) frag: u8,
    /// The destination in the fixed header is not the final one (RFC 8200 §4.4).
    pub(crate) routed: bool,
    /// Where the fragment header is.
    pub(crate) fragment_at: Option<usize>,
}

impl Chain {
    /// Walks the extension headers at the start of `payload`, the first of which is
    /// `next`.
    ///
    /// The mobility header ends the chain: nothing may follow it (RFC 6275 §6.1.1).
    /// There is no limit on the number of headers but the packet's length: a limit would
    /// hide ports behind it from the rules that guard them.
    pub(crate) fn walk(next: u8, payload: &[u8]) -> Self {
        let mut chain = Self { proto: None, len: 0, frag: 0, routed: false, fragment_at: None };
        let mut next = next;
        let mut rest = payload;
        loop {
            if !is_extension(next) {
                chain.proto = Some(next);
                return chain;
            }
            // Every extension header has at least 8 bytes.
            let Some(&[following, length, _, left, ..]) = rest.first_chunk::<8>() else { return chain };
            let len = match next {
                ip_proto::AUTHENTICATION => (usize::from(length) + 2) * 4,
                ip_proto::FRAGMENT => Ipv6Fragment::LEN,
                _ => (usize::from(length) + 1) * 8,
            };
            let Some(after) = rest.get(len..) else { return chain };
            if next == ip_proto::FRAGMENT {
                chain.frag = fragment(rest);
                chain.fragment_at = Some(chain.len);
                if chain.frag & nw_frag::LATER != 0 {
                    chain.proto = Some(ip_proto::FRAGMENT);
                    chain.len += len;
                    return chain;
                }
            }
            chain.routed |= next == ip_proto::ROUTING && left != 0;
            chain.len += len;
            rest = after;
            next = following;
        }
    }
}

fn is_extension(next: u8) -> bool {
    matches!(
        next,
        ip_proto::HOP_BY_HOP
            | ip_proto::ROUTING
            | ip_proto::FRAGMENT
            | ip_proto::AUTHENTICATION
            | ip_proto::DESTINATION_OPTIONS
    )
}

/// The key's bits for a fragment header. A packet that is whole although it has one
/// (RFC 6946) is not a fragment.
fn fragment(header: &[u8]) -> u8 {
    match Ipv6Fragment::ref_from_prefix(header) {
        Ok((header, _)) if header.offset.get() >> 3 != 0 => nw_frag::ANY | nw_frag::LATER,
        Ok((header, _)) if header.offset.get() & 1 != 0 => nw_frag::ANY,
        _ => 0,
    }
}
