//! IP packets, made from scratch and read back: neither tracker is asked what a packet is.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

const TTL: u8 = 64;
const IPV6_HEADER_LEN: usize = 40;

/// An address with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
}

/// The header of a TCP segment, as far as trackers look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) len: usize,
}

/// A packet with its checksums; the mark is 16 bits that no forwarder changes.
fn ip(src: IpAddr, dst: IpAddr, proto: u8, mark: u16, l4: Vec<u8>, checksum_at: Option<usize>) -> Vec<u8> {
    let l4 = match checksum_at {
        Some(at) => with_checksum(src, dst, proto, &l4, at),
        None => l4,
    };
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + l4.len() as u16).to_be_bytes());
            header.extend(mark.to_be_bytes());
            header.extend([0x40, 0, TTL, proto, 0, 0]);
            header.extend([src.octets(), dst.octets()].concat());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60, 0];
            header.extend(mark.to_be_bytes());
            header.extend((l4.len() as u16).to_be_bytes());
            header.extend([proto, TTL]);
            header.extend([src.octets(), dst.octets()].concat());
            header
        }
        _ => panic!("{src} and {dst} are of different kinds"),
    };
    packet.extend(l4);
    packet
}

/// A transport header and payload whose checksum, at an offset, was zero.
fn with_checksum(src: IpAddr, dst: IpAddr, proto: u8, l4: &[u8], at: usize) -> Vec<u8> {
    let sum = match (checksum(&[&pseudo_header(src, dst, proto, l4.len()), l4]), proto) {
        // Of UDP, zero means none (RFC 768).
        (0, UDP) => 0xffff,
        (sum, _) => sum,
    };
    let mut l4 = l4.to_vec();
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// ICMP has a pseudo header in IPv6 only (RFC 4443 §2.3), SCTP never.
fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> Vec<u8> {
    let tail = [0, 0, (len >> 8) as u8, len as u8, 0, 0, 0, proto];
    match (src, dst) {
        _ if proto == ICMP => Vec::new(),
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            [src.octets().as_slice(), &dst.octets(), &[0, proto], &tail[2..4]].concat()
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => [src.octets().as_slice(), &dst.octets(), &tail].concat(),
        _ => Vec::new(),
    }
}

/// Internet checksum (RFC 1071) over parts of even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn tcp(from: End, to: End, mark: u16, segment: &Segment) -> Vec<u8> {
    let options: &[u8] = match segment.scale {
        Some(scale) => &[1, 3, 3, scale],
        None => &[],
    };
    let mut l4 = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    l4.extend([segment.seq.to_be_bytes(), segment.ack.to_be_bytes()].concat());
    l4.extend([(5 + options.len() as u8 / 4) << 4, segment.flags]);
    l4.extend(segment.window.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(options);
    l4.extend(std::iter::repeat_n(0x55, segment.len));
    ip(from.ip, to.ip, TCP, mark, l4, Some(16))
}

pub(crate) fn udp(from: End, to: End, mark: u16, payload: &[u8]) -> Vec<u8> {
    let mut l4 = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    l4.extend((8 + payload.len() as u16).to_be_bytes());
    l4.extend([0; 2]);
    l4.extend(payload);
    ip(from.ip, to.ip, UDP, mark, l4, Some(6))
}

/// An ICMP or ICMPv6 message with its second word, by the kind of the addresses.
pub(crate) fn icmp(
    from: IpAddr,
    to: IpAddr,
    mark: u16,
    (kind, code): (u8, u8),
    word: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut l4 = vec![kind, code, 0, 0];
    l4.extend(word.to_be_bytes());
    l4.extend(body);
    ip(from, to, if from.is_ipv4() { ICMP } else { ICMPV6 }, mark, l4, Some(2))
}

/// An SCTP packet with one chunk.
pub(crate) fn sctp(from: End, to: End, mark: u16, tag: u32, chunk: u8, body: &[u8]) -> Vec<u8> {
    let mut l4 = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    l4.extend(tag.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend([chunk, 0]);
    l4.extend((4 + body.len() as u16).to_be_bytes());
    l4.extend(body);
    let sum = crc32c(&l4);
    l4[8..12].copy_from_slice(&sum.to_le_bytes());
    ip(from.ip, to.ip, SCTP, mark, l4, None)
}

/// A packet of a protocol without ports.
pub(crate) fn other(from: IpAddr, to: IpAddr, mark: u16, proto: u8, payload: &[u8]) -> Vec<u8> {
    ip(from, to, proto, mark, payload.to_vec(), None)
}

/// CRC32c (RFC 9260 appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// What a packet says, and that it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) src: End,
    pub(crate) dst: End,
    pub(crate) proto: u8,
    pub(crate) mark: u16,
    /// Traffic class without its two bits of congestion.
    pub(crate) dscp: u8,
    pub(crate) l4: Vec<u8>,
    /// All checksums are right.
    pub(crate) is_sound: bool,
}

/// The packet from its IP header on; ports are zero where the protocol has none.
pub(crate) fn read(packet: &[u8]) -> Result<Read> {
    let version = packet.first().context("empty")? >> 4;
    let word = |at: usize| packet.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (header_len, total_len, proto, mark, dscp, mut is_sound, src, dst) = if version == 4 {
        let header_len = usize::from(packet[0] & 15) * 4;
        let header = packet.get(..header_len).context("short")?;
        let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).map(IpAddr::from);
        let len = word(2).context("short")?;
        let mark = word(4).context("short")?;
        (
            header_len,
            len.into(),
            packet[9],
            mark,
            packet[1] >> 2,
            checksum(&[header]) == 0,
            address(12)?,
            address(16)?,
        )
    } else {
        ensure!(packet.len() >= IPV6_HEADER_LEN, "short");
        let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).map(IpAddr::from);
        let len = IPV6_HEADER_LEN + usize::from(word(4).context("short")?);
        let dscp = (packet[0] << 4 | packet[1] >> 4) >> 2;
        (IPV6_HEADER_LEN, len, packet[6], word(2).context("short")?, dscp, true, address(8)?, address(24)?)
    };
    let l4 = packet.get(header_len..total_len).context("cut off")?.to_vec();
    let has_ports = matches!(proto, TCP | UDP | SCTP);
    let port = |at: usize| {
        l4.get(at..at + 2).filter(|_| has_ports).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
    };
    if matches!(proto, ICMP | ICMPV6 | TCP | UDP) {
        is_sound &= checksum(&[&pseudo_header(src, dst, proto, l4.len()), &l4]) == 0;
    }
    if proto == SCTP && l4.len() >= 12 {
        let zeroed = [&l4[..8], &[0; 4], &l4[12..]].concat();
        is_sound &= crc32c(&zeroed).to_le_bytes() == l4[8..12];
    }
    Ok(Read {
        src: End { ip: src, port: port(0) },
        dst: End { ip: dst, port: port(2) },
        proto,
        mark,
        dscp,
        l4,
        is_sound,
    })
}

const FRAGMENT: u8 = 44;

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { IPV6_HEADER_LEN }
}

/// Bytes behind the IP header.
pub(crate) fn payload_len(packet: &[u8]) -> usize {
    packet.len() - header_len(packet)
}

/// The fragment of a packet with these bytes of what is behind the IP header (RFC 791, RFC 8200 §4.5).
pub(crate) fn piece(packet: &[u8], start: usize, end: usize) -> Vec<u8> {
    let (header, payload) = packet.split_at(header_len(packet));
    let (mut header, more) = (header.to_vec(), u16::from(end < payload.len()));
    let payload = &payload[start..end.min(payload.len())];
    if header[0] >> 4 == 4 {
        header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(more << 13 | (start / 8) as u16).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let proto = std::mem::replace(&mut header[6], FRAGMENT);
        header[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        let mark = [header[2], header[3]];
        header.extend([proto, 0]);
        header.extend((start as u16 | more).to_be_bytes());
        header.extend([0, 0, mark[0], mark[1]]);
    }
    [&header, payload].concat()
}

/// What is behind the IP header of the packet that these are fragments of.
pub(crate) fn join(pieces: &[&[u8]]) -> Result<Vec<u8>> {
    let mut parts = Vec::new();
    for piece in pieces {
        let (word, skip) =
            if piece[0] >> 4 == 4 { ([piece[6], piece[7]], 20) } else { ([piece[42], piece[43]], 48) };
        let word = u16::from_be_bytes(word);
        let start = if piece[0] >> 4 == 4 { usize::from(word & 0x1fff) * 8 } else { usize::from(word & !7) };
        parts.push((start, piece.get(skip..).context("short")?));
    }
    parts.sort_by_key(|(start, _)| *start);
    let mut whole = Vec::new();
    for (start, part) in parts {
        ensure!(start == whole.len(), "a gap or an overlap at {start}");
        whole.extend(part);
    }
    Ok(whole)
}
