//! What the tracker looks at in a packet: its tuple and the headers behind.

use zerocopy::FromBytes;

use super::{
    tcp::Segment,
    tuple::{Tuple, answer_to},
};
use crate::{
    checksum::{self, Sum, pseudo_ipv4, pseudo_ipv6},
    crc32c,
    headers::Headers,
    key::nw_frag,
    packet::{FrameBuf, Packet},
    parse::{Signature, ipv4_fragment, ipv6::Chain},
    wire::{Icmp, Ipv4, Ipv6, Sctp, Tcp, Udp, ethertype, ip_proto},
};

/// TCP options (RFC 9293 §3.1, RFC 7323 §2.2).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;
/// Bytes of an SCTP chunk's header and the first field of INIT and INIT ACK.
const SCTP_INIT_LEN: usize = 8;

/// A packet as the tracker sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Addresses, protocol, ports; the zone is zero.
    pub tuple: Tuple,
    /// What is behind them.
    pub l4: L4,
}

/// What the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp(Segment),
    /// UDP.
    Udp,
    /// A request or an answer.
    Icmp,
    /// SCTP.
    Sctp {
        /// Type of the first chunk.
        chunk: u8,
        /// Verification tag.
        tag: u32,
        /// The tag that INIT and INIT ACK ask for; zero in others.
        initiate: u32,
    },
    /// Another protocol, by its addresses.
    Other,
    /// An ICMP error about a packet with this tuple.
    Error {
        /// That of the packet quoted; the zone is zero.
        about: Tuple,
    },
    /// Cut off, a fragment, or a kind of ICMP that belongs to no connection.
    Invalid,
}

impl View {
    /// A packet that no connection can have.
    pub const NONE: Self = Self {
        tuple: Tuple { zone: 0, ipv6: false, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0 },
        l4: L4::Invalid,
    };

    /// Reads a packet that the parser has seen; nothing unless it is IP.
    pub fn read<B: FrameBuf>(packet: &Packet<B>) -> Option<Self> {
        let (frame, layout) = (packet.bytes(), &packet.layout);
        let l3 = usize::from(layout.l3);
        let eth_type = u16::from_be_bytes(*frame.get(l3.checked_sub(2)?..)?.first_chunk()?);
        let ip = frame.get(l3..).unwrap_or_default();
        let mut tuple = Tuple {
            zone: 0,
            ipv6: eth_type == ethertype::IPV6,
            proto: 0,
            src: 0,
            dst: 0,
            src_port: 0,
            dst_port: 0,
        };
        let whole = match eth_type {
            ethertype::IPV4 => ipv4(ip, &mut tuple),
            ethertype::IPV6 => ipv6(ip, &mut tuple),
            _ => return None,
        };
        let l4 = match (whole, layout.l3_end, layout.l4) {
            (Some(_), 1.., 1..) => {
                let segment = frame.get(usize::from(layout.l4)..usize::from(layout.l3_end));
                transport(segment.unwrap_or_default(), &mut tuple)
            }
            _ => L4::Invalid,
        };
        Some(Self { tuple, l4 })
    }

    /// Reads a packet with this signature: the same as the long way, without looking for
    /// what is known of such packets. With `check`, wrong checksums are invalid.
    #[inline]
    pub(crate) fn of_plain<B: FrameBuf>(packet: &Packet<B>, signature: &Signature, check: bool) -> Self {
        let (frame, layout) = (packet.bytes(), &packet.layout);
        let (eth_type, proto) = signature.kind();
        let ipv6 = eth_type == ethertype::IPV6;
        let (src, dst) = if ipv6 {
            signature.ipv6_addresses()
        } else {
            let (src, dst) = signature.ipv4_addresses();
            (src.into(), dst.into())
        };
        let mut tuple = Tuple { zone: 0, ipv6, proto, src, dst, src_port: 0, dst_port: 0 };
        let segment = frame.get(usize::from(layout.l4)..usize::from(layout.l3_end)).unwrap_or_default();
        let l4 = transport(segment, &mut tuple);
        let is_right = || {
            let header = frame.get(usize::from(layout.l3)..).and_then(|ip| ip.first_chunk::<{ Ipv4::LEN }>());
            (ipv6 || header.is_some_and(checksum::is_right_ipv4))
                && (packet.offload.csum_partial || has_right_checksum(&tuple, segment))
        };
        let l4 = if check && !is_right() { L4::Invalid } else { l4 };
        Self { tuple, l4 }
    }

    /// What the protocol says in a TCP or UDP packet over IPv4 with this signature: as
    /// [`View::of_plain`] has it.
    #[inline]
    pub(crate) fn l4_of_plain<B: FrameBuf>(packet: &Packet<B>, signature: &Signature, check: bool) -> L4 {
        let (frame, layout) = (packet.bytes(), &packet.layout);
        let segment = frame.get(usize::from(layout.l4)..usize::from(layout.l3_end)).unwrap_or_default();
        if check {
            let header = frame.get(usize::from(layout.l3)..).and_then(|ip| ip.first_chunk::<{ Ipv4::LEN }>());
            let has_none = layout.l4_proto == ip_proto::UDP && segment.get(6..8) == Some(&[0, 0]);
            let is_right = header.is_some_and(checksum::is_right_ipv4)
                && (has_none || packet.offload.csum_partial || has_right_sum(signature, segment));
            if !is_right {
                return L4::Invalid;
            }
        }
        match layout.l4_proto {
            ip_proto::UDP => match Udp::ref_from_prefix(segment) {
                Ok((udp, _)) if (Udp::LEN..=segment.len()).contains(&udp.len.get().into()) => L4::Udp,
                _ => L4::Invalid,
            },
            ip_proto::TCP => tcp(segment).map_or(L4::Invalid, |(_, segment)| L4::Tcp(segment)),
            _ => L4::Invalid,
        }
    }

    /// Reads a packet that came in fragments: `first` is the frame with its beginning,
    /// `payload` all that was cut into pieces. With `check`, wrong checksums are invalid.
    pub(crate) fn of_whole<B: FrameBuf>(
        first: &Packet<B>,
        (proto, payload): (u8, &[u8]),
        check: bool,
    ) -> Option<Self> {
        let Self { mut tuple, .. } = Self::read(first)?;
        let mut segment = payload;
        tuple.proto = proto;
        let mut is_whole = true;
        if tuple.ipv6 {
            let chain = Chain::walk(proto, payload);
            tuple.proto = chain.proto.unwrap_or(ip_proto::NONE);
            segment = payload.get(chain.len..).unwrap_or_default();
            is_whole = chain.proto.is_some() && chain.frag & nw_frag::ANY == 0;
            is_whole &= !chain.routed && !Headers::of(first.bytes(), &first.layout).is_routed(first.bytes());
        }
        let l4 = if is_whole { transport(segment, &mut tuple) } else { L4::Invalid };
        let l4 = if check && !has_right_checksum(&tuple, segment) { L4::Invalid } else { l4 };
        Some(Self { tuple, l4 })
    }

    /// The same view, but invalid when a checksum of the packet it was read from is wrong:
    /// that of the IPv4 header, or a whole one of L4 (one that is left to the sender's
    /// device is no more than begun).
    pub(super) fn checked<B: FrameBuf>(self, packet: &Packet<B>) -> Self {
        let (frame, layout) = (packet.bytes(), &packet.layout);
        let range = |start: u16, end: usize| frame.get(usize::from(start)..end).unwrap_or_default();
        let header_is_right = self.tuple.ipv6 || {
            let header_len = range(layout.l3, frame.len()).first().map_or(0, |first| first & 0xf) * 4;
            checksum::of(range(layout.l3, usize::from(layout.l3) + usize::from(header_len))) == 0
        };
        let segment = range(layout.l4, usize::from(layout.l3_end));
        let is_right = matches!(self.l4, L4::Invalid)
            || header_is_right && (packet.offload.csum_partial || has_right_checksum(&self.tuple, segment));
        if is_right { self } else { Self { l4: L4::Invalid, ..self } }
    }
}

/// The sum over a TCP or UDP segment over IPv4 is right.
#[inline(never)]
fn has_right_sum(signature: &Signature, segment: &[u8]) -> bool {
    let ((src, dst), (_, proto)) = (signature.ipv4_addresses(), signature.kind());
    pseudo_ipv4(src, dst, proto, segment.len()).bytes(segment).fold() == 0xffff
}

/// The checksum over the segment is right, or there is none to be.
fn has_right_checksum(tuple: &Tuple, segment: &[u8]) -> bool {
    let pseudo = || match tuple.ipv6 {
        true => pseudo_ipv6(tuple.src, tuple.dst, tuple.proto, segment.len()),
        false => pseudo_ipv4(tuple.src as u32, tuple.dst as u32, tuple.proto, segment.len()),
    };
    let is_whole = |sum: Sum| sum.bytes(segment).fold() == 0xffff;
    match tuple.proto {
        // IPv6 has no datagrams without (RFC 8200 §8.1).
        ip_proto::UDP if segment.get(6..8) == Some(&[0, 0]) => !tuple.ipv6,
        ip_proto::TCP | ip_proto::UDP => is_whole(pseudo()),
        ip_proto::ICMP if !tuple.ipv6 => is_whole(Sum::ZERO),
        ip_proto::ICMPV6 if tuple.ipv6 => is_whole(pseudo()),
        ip_proto::SCTP => match segment.split_at_checked(Sctp::LEN) {
            Some((header, chunks)) => {
                let (ports, sum) = header.split_at(8);
                sum == crc32c::of([ports, &[0; 4], chunks]).to_le_bytes()
            }
            None => true,
        },
        _ => true,
    }
}

/// Fills in addresses and protocol; answers where the payload is, unless the packet is
/// a fragment or contradicts itself.
fn ipv4(packet: &[u8], tuple: &mut Tuple) -> Option<usize> {
    let (ip, _) = Ipv4::ref_from_prefix(packet).ok()?;
    (tuple.src, tuple.dst, tuple.proto) = (ip.src.get().into(), ip.dst.get().into(), ip.proto);
    let header_len = usize::from(ip.version_ihl & 0xf) * 4;
    let sane = ip.version_ihl >> 4 == 4 && header_len >= Ipv4::LEN;
    (sane && ipv4_fragment(ip) == 0).then_some(header_len)
}

fn ipv6(packet: &[u8], tuple: &mut Tuple) -> Option<usize> {
    let (ip, rest) = Ipv6::ref_from_prefix(packet).ok()?;
    (tuple.src, tuple.dst) = (ip.src.get(), ip.dst.get());
    let chain = Chain::walk(ip.next, rest);
    tuple.proto = chain.proto?;
    (chain.frag & nw_frag::ANY == 0 && !chain.routed).then_some(Ipv6::LEN + chain.len)
}

#[inline]
fn transport(segment: &[u8], tuple: &mut Tuple) -> L4 {
    match tuple.proto {
        ip_proto::TCP => {
            let Some((ports, segment)) = tcp(segment) else { return L4::Invalid };
            (tuple.src_port, tuple.dst_port) = ports;
            L4::Tcp(segment)
        }
        ip_proto::UDP => match Udp::ref_from_prefix(segment) {
            Ok((udp, _)) if (Udp::LEN..=segment.len()).contains(&udp.len.get().into()) => {
                (tuple.src_port, tuple.dst_port) = (udp.src.get(), udp.dst.get());
                L4::Udp
            }
            _ => L4::Invalid,
        },
        ip_proto::SCTP => sctp(segment, tuple),
        ip_proto::ICMP | ip_proto::ICMPV6 if tuple.is_icmp() => icmp(segment, tuple),
        ip_proto::FRAGMENT | ip_proto::ICMP | ip_proto::ICMPV6 => L4::Invalid,
        _ => L4::Other,
    }
}

/// Source and destination port, and the rest of the header.
#[inline]
fn tcp(segment: &[u8]) -> Option<((u16, u16), Segment)> {
    let (tcp, _) = Tcp::ref_from_prefix(segment).ok()?;
    let control = tcp.control.get();
    let header_len = usize::from(control >> 12) * 4;
    let options = segment.get(Tcp::LEN..header_len)?;
    let flags = control as u8;
    let scale = if flags & super::tcp::flag::SYN != 0 { window_scale(options) } else { None };
    let rest = Segment {
        flags,
        seq: tcp.seq.get(),
        ack: tcp.ack.get(),
        window: tcp.window.get(),
        scale,
        len: (segment.len() - header_len) as u32,
    };
    Some(((tcp.src.get(), tcp.dst.get()), rest))
}

fn window_scale(mut options: &[u8]) -> Option<u8> {
    loop {
        options = match options {
            [] | [END_OF_OPTIONS, ..] => return None,
            [NO_OPERATION, rest @ ..] => rest,
            [WINDOW_SCALE, 3, scale, ..] => return Some(*scale),
            [_, len, ..] if *len >= 2 => options.get(usize::from(*len)..)?,
            _ => return None,
        };
    }
}

fn sctp(segment: &[u8], tuple: &mut Tuple) -> L4 {
    let Ok((sctp, chunks)) = Sctp::ref_from_prefix(segment) else { return L4::Invalid };
    (tuple.src_port, tuple.dst_port) = (sctp.src.get(), sctp.dst.get());
    let Some(chunk) = chunks.first() else { return L4::Invalid };
    let initiate = match (*chunk, chunks.get(4..SCTP_INIT_LEN)) {
        (1 | 2, Some(&[a, b, c, d])) => u32::from_be_bytes([a, b, c, d]),
        (1 | 2, _) => return L4::Invalid,
        _ => 0,
    };
    L4::Sctp { chunk: *chunk, tag: sctp.tag.get(), initiate }
}

fn icmp(segment: &[u8], tuple: &mut Tuple) -> L4 {
    let Ok((icmp, quoted)) = Icmp::ref_from_prefix(segment) else { return L4::Invalid };
    tuple.dst_port = u16::from(icmp.kind) << 8 | u16::from(icmp.code);
    if answer_to(tuple.ipv6, icmp.kind).is_some() {
        tuple.src_port = (icmp.body.get() >> 16) as u16;
        return L4::Icmp;
    }
    let is_error = match tuple.ipv6 {
        false => matches!(icmp.kind, 3 | 4 | 5 | 11 | 12),
        true => (1..=4).contains(&icmp.kind),
    };
    match quotation(quoted, tuple.ipv6).filter(|_| is_error) {
        Some((about, _)) => L4::Error { about },
        None => L4::Invalid,
    }
}

/// The tuple of the packet that an ICMP error quotes, and where its L4 header starts.
/// Eight bytes of that are there at least (RFC 792): ports, or type and identifier.
pub(super) fn quotation(quoted: &[u8], is_ipv6: bool) -> Option<(Tuple, usize)> {
    let mut about = Tuple { zone: 0, ipv6: is_ipv6, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0 };
    let start = if is_ipv6 { ipv6(quoted, &mut about) } else { ipv4(quoted, &mut about) }?;
    let l4: &[u8; 8] = quoted.get(start..)?.first_chunk()?;
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    match about.proto {
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            (about.src_port, about.dst_port) = (word(0), word(2))
        }
        _ if about.is_icmp() => {
            answer_to(is_ipv6, l4[0])?;
            (about.src_port, about.dst_port) = (word(4), word(0));
        }
        _ => {}
    }
    Some((about, start))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{build, testing, types::PortNo};

    proptest! {
        /// What is read with the help of a signature is what is read without, also of frames that
        /// are damaged or cut off.
        #[test]
        fn a_signature_spares_reading(
            key in testing::frame_key(),
            len in 0_usize..60,
            cut in 14_usize..120,
            damage in prop::option::of((0_usize..80, any::<u8>())),
            check in any::<bool>(),
        ) {
            let mut frame = build::frame_from_key(&key, len);
            if let Some((at, byte)) = damage && let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
            for frame in [&frame[..], &frame[..cut.min(frame.len())]] {
                let mut packet = build::packet(frame, PortNo::ZERO);
                let Some((signature, layout)) = Signature::of(frame, PortNo::ZERO) else { continue };
                packet.layout = layout;
                let long = View::read(&packet).unwrap();
                let long = if check { long.checked(&packet) } else { long };
                prop_assert_eq!(View::of_plain(&packet, &signature, check), long);
                let is_usual = matches!(long.tuple.proto, ip_proto::TCP | ip_proto::UDP);
                if is_usual && !long.tuple.ipv6 {
                    prop_assert_eq!(View::l4_of_plain(&packet, &signature, check), long.l4);
                }
            }
        }
    }
}
