//! What the tracker looks at in a packet, read from its bytes; and SCTP's associations (RFC 9260).

use super::tcp::{Fit, Segment};
use crate::frame::{self, Net};

/// Addresses, protocol, ports of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tuple {
    pub ipv6: bool,
    pub proto: u8,
    pub src: u128,
    pub dst: u128,
    /// Or the identifier of an echo.
    pub src_port: u16,
    /// Or nothing.
    pub dst_port: u16,
    /// Type of an ICMP message.
    pub kind: u8,
    /// Code of an ICMP message.
    pub code: u8,
}

/// A packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Its tuple.
    pub tuple: Tuple,
    /// What else matters.
    pub proto: Proto,
    /// The packet that it quotes, when it is an ICMP error.
    pub about: Option<About>,
}

/// A quoted packet.
#[derive(Debug, Clone)]
pub struct About {
    /// Its tuple.
    pub tuple: Tuple,
    /// Where in the frame its IP header is.
    pub l3: usize,
    /// Where in the frame its transport header is.
    pub l4: usize,
}

/// What else matters of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proto {
    /// A fragment, cut off, or of a kind that belongs to no connection.
    Invalid,
    /// TCP.
    Tcp(Segment),
    /// SCTP.
    Sctp(Chunk),
    /// An answer to an ICMP request.
    IcmpAnswer,
    /// UDP, ICMP requests, others.
    Plain,
}

/// Of an SCTP packet: the first chunk's type, the tag, the tag asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Chunk {
    pub kind: u8,
    pub tag: u32,
    pub asked: u32,
}

impl Tuple {
    /// That of the other direction.
    pub fn reversed(&self) -> Self {
        let mut other = Self { src: self.dst, dst: self.src, ..self.clone() };
        if self.is_icmp() {
            other.kind = partner(self.ipv6, self.kind).unwrap_or(self.kind);
        } else {
            (other.src_port, other.dst_port) = (self.dst_port, self.src_port);
        }
        other
    }

    /// ICMP or ICMPv6.
    pub fn is_icmp(&self) -> bool {
        self.proto == if self.ipv6 { 58 } else { 1 }
    }

    /// TCP, UDP or SCTP.
    pub fn has_ports(&self) -> bool {
        matches!(self.proto, 6 | 17 | 132)
    }
}

/// The type of the answer to a request, and of the request that it answers.
fn partner(ipv6: bool, kind: u8) -> Option<u8> {
    let pairs: &[(u8, u8)] = if ipv6 { &[(128, 129)] } else { &[(8, 0), (13, 14), (15, 16), (17, 18)] };
    pairs.iter().find_map(|(request, answer)| match kind {
        _ if kind == *request => Some(*answer),
        _ if kind == *answer => Some(*request),
        _ => None,
    })
}

fn is_answer(ipv6: bool, kind: u8) -> bool {
    if ipv6 { kind == 129 } else { matches!(kind, 0 | 14 | 16 | 18) }
}

impl Packet {
    /// Reads a frame; only IP has a tuple worth the name.
    pub fn read(frame: &[u8]) -> Self {
        let view = frame::view(frame);
        let tuple =
            Tuple { ipv6: false, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0, kind: 0, code: 0 };
        let mut packet = Self { tuple, proto: Proto::Invalid, about: None };
        let Some(view) = view.filter(|view| matches!(view.net, Net::Ipv4 | Net::Ipv6)) else { return packet };
        addresses(&frame[view.l3..], view.net, &mut packet.tuple);
        packet.tuple.proto = view.proto;
        if view.frag != 0 || view.routed || view.l4_at == 0 {
            return packet;
        }
        let segment = &frame[view.l4_at..view.end];
        packet.proto = transport(segment, &mut packet.tuple);
        let ipv6 = packet.tuple.ipv6;
        let is_error =
            |kind: u8| if ipv6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
        if packet.tuple.is_icmp() && segment.len() >= 8 && is_error(packet.tuple.kind) {
            packet.about = quoted(frame, view.l4_at + 8, view.end, ipv6);
        }
        packet
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

fn addresses(ip: &[u8], net: Net, tuple: &mut Tuple) {
    tuple.ipv6 = net == Net::Ipv6;
    (tuple.src, tuple.dst) = match net {
        Net::Ipv6 => (number(&ip[8..24]), number(&ip[24..40])),
        _ => (number(&ip[12..16]), number(&ip[16..20])),
    };
}

fn transport(segment: &[u8], tuple: &mut Tuple) -> Proto {
    let word = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let long = |at: usize| number(&segment[at..at + 4]) as u32;
    let least = match tuple.proto {
        6 => 20,
        17 | 1 | 58 => 8,
        132 => 12,
        44 => return Proto::Invalid,
        _ => return Proto::Plain,
    };
    if segment.len() < least {
        return Proto::Invalid;
    }
    if tuple.has_ports() {
        (tuple.src_port, tuple.dst_port) = (word(0), word(2));
    }
    match tuple.proto {
        6 => {
            let header_len = usize::from(segment[12] >> 4) * 4;
            if header_len < 20 || header_len > segment.len() {
                return Proto::Invalid;
            }
            let flag = |bit: u8| segment[13] >> bit & 1 == 1;
            Proto::Tcp(Segment {
                fin: flag(0),
                syn: flag(1),
                rst: flag(2),
                ack: flag(4),
                seq: long(4),
                acked: long(8),
                window: word(14),
                len: (segment.len() - header_len) as u32,
            })
        }
        // Without a checksum there is no datagram in IPv6 (RFC 8200 §8.1), and none is longer than its packet.
        17 if tuple.ipv6 && word(6) == 0 => Proto::Invalid,
        17 if !(8..=segment.len()).contains(&word(4).into()) => Proto::Invalid,
        17 => Proto::Plain,
        132 => match segment.get(12) {
            Some(kind @ (1 | 2)) if segment.len() >= 20 => {
                Proto::Sctp(Chunk { kind: *kind, tag: long(4), asked: long(16) })
            }
            None | Some(1 | 2) => Proto::Invalid,
            Some(kind) => Proto::Sctp(Chunk { kind: *kind, tag: long(4), asked: 0 }),
        },
        _ if tuple.is_icmp() => {
            (tuple.kind, tuple.code) = (segment[0], segment[1]);
            if partner(tuple.ipv6, tuple.kind).is_none() {
                return Proto::Invalid;
            }
            tuple.src_port = word(4);
            if is_answer(tuple.ipv6, tuple.kind) { Proto::IcmpAnswer } else { Proto::Plain }
        }
        // ICMP over IPv6 and the other way round.
        _ => Proto::Invalid,
    }
}

/// The packet that is quoted from `at` on: its header and eight bytes behind (RFC 792).
fn quoted(frame: &[u8], at: usize, end: usize, ipv6: bool) -> Option<About> {
    let quote = &frame[at..end];
    let none = Tuple { ipv6, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0, kind: 0, code: 0 };
    let mut tuple = none;
    let header_len = if ipv6 {
        let next = *quote.get(6).filter(|_| quote.len() >= 40)?;
        let (proto, len) = behind_extensions(quote, next)?;
        tuple.proto = proto;
        len
    } else {
        let first = *quote.first().filter(|_| quote.len() >= 20)?;
        let fragment = number(&quote[6..8]) & 0x3fff;
        tuple.proto = quote[9];
        let len = usize::from(first & 15) * 4;
        (first >> 4 == 4 && len >= 20 && fragment == 0).then_some(len)?
    };
    addresses(quote, if ipv6 { Net::Ipv6 } else { Net::Ipv4 }, &mut tuple);
    let l4 = quote.get(header_len..header_len + 8)?;
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    if tuple.has_ports() {
        (tuple.src_port, tuple.dst_port) = (word(0), word(2));
    } else if tuple.is_icmp() {
        partner(ipv6, l4[0])?;
        (tuple.kind, tuple.code, tuple.src_port) = (l4[0], l4[1], word(4));
    }
    Some(About { tuple, l3: at, l4: at + header_len })
}

/// The protocol behind IPv6's extension headers, and where it begins; nothing for fragments and for
/// packets on a route of their own.
fn behind_extensions(packet: &[u8], mut next: u8) -> Option<(u8, usize)> {
    let mut at = 40;
    loop {
        let header = |n: usize| packet.get(at..at + n);
        let len = match next {
            0 | 60 => (usize::from(header(8)?[1]) + 1) * 8,
            51 => (usize::from(header(8)?[1]) + 2) * 4,
            44 if number(&header(8)?[2..4]) & 0xfff9 != 0 => return None,
            44 => 8,
            43 => return None,
            proto => return Some((proto, at)),
        };
        next = header(1)?[0];
        at += len;
    }
}

/// An SCTP association: the tags that each side must send, 0 when not known.
#[derive(Debug, Clone)]
pub(super) struct Association {
    tags: [u32; 2],
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Init,
    Established,
    Closing,
}

impl Association {
    pub(super) fn begin(chunk: Chunk) -> Option<Self> {
        let is_first = chunk.kind == 1 && chunk.tag == 0 && chunk.asked != 0;
        is_first.then_some(Self { tags: [0, chunk.asked], phase: Phase::Init })
    }

    pub(super) fn timeout(&self) -> u64 {
        match self.phase {
            Phase::Init => 30_000,
            Phase::Established => 86_400_000,
            Phase::Closing => 45_000,
        }
    }

    pub(super) fn step(&mut self, reply: bool, Chunk { kind, tag, asked }: Chunk) -> Fit {
        let from = usize::from(reply);
        match (kind, self.phase) {
            (1, _) if tag != 0 || asked == 0 => return Fit::Invalid,
            (1, Phase::Closing) => return Fit::Restart,
            (1, Phase::Init) => self.tags[1 - from] = asked,
            (1, _) => {}
            (2, Phase::Init) if reply && tag == self.tags[1] && asked != 0 => self.tags[0] = asked,
            (2, Phase::Init) => return Fit::Invalid,
            (6 | 14, _) if tag != 0 && self.tags.contains(&tag) => self.phase = Phase::Closing,
            _ if tag == 0 || tag != self.tags[from] => return Fit::Invalid,
            (11, Phase::Init) if reply => self.phase = Phase::Established,
            (7 | 8, _) => self.phase = Phase::Closing,
            _ => {}
        }
        Fit::Valid
    }
}
