//! Checksums from scratch: no differences, no tables.

use crate::frame::{L4, Net, View};

/// Makes all checksums of the frame right that can be: those of whole packets. A UDP checksum of zero
/// stays ("none", RFC 768), unless `all`.
pub fn complete(frame: &mut [u8], view: &View, all: bool) {
    header(frame, view);
    let Some((l4, at)) = view.l4 else { return };
    if view.frag != 0 {
        return;
    }
    let Some(place) = place(l4) else {
        let crc = crc32c(&frame[at..view.end]).to_le_bytes();
        frame[at + 8..at + 12].copy_from_slice(&crc);
        return;
    };
    let old = u16::from_be_bytes([frame[at + place], frame[at + place + 1]]);
    if l4 == L4::Udp && old == 0 && !all {
        return;
    }
    let sum = !fold(segment_sum(frame, view, l4, at));
    let sum = if l4 == L4::Udp && sum == 0 { 0xffff } else { sum };
    frame[at + place..at + place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum of the IPv4 header.
pub fn header(frame: &mut [u8], view: &View) {
    if view.net == Net::Ipv4 {
        let l3 = view.l3;
        let end = l3 + usize::from(frame[l3] & 0xf) * 4;
        frame[l3 + 10..l3 + 12].fill(0);
        let sum = !fold(sum(&frame[l3..end]));
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Makes a checksum follow a change of what it covers (RFC 1624, equation 3).
pub fn exchange(checksum: &mut [u8], old: &[u8], new: &[u8]) {
    let (old, new) = (fold(sum(old)), fold(sum(new)));
    if old != new {
        let sum = !fold(u64::from(!(sum(checksum) as u16)) + u64::from(!old) + u64::from(new));
        checksum.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The checksum of an IPv4 header of which bytes 10 and 11 do not count.
pub fn renew(checksum: &mut [u8], header: &[u8]) {
    let sum = !fold(sum(&header[..10]) + sum(&header[12..]));
    checksum.copy_from_slice(&sum.to_be_bytes());
}

/// Mends the checksum of a first fragment, of whose segment only a part is there: by how much that
/// part's sum differs from `before` (RFC 1624).
pub fn amend(frame: &mut [u8], view: &View, before: u64) {
    let Some((l4, at)) = view.l4 else { return };
    let Some(place) = place(l4) else { return };
    let old = u16::from_be_bytes([frame[at + place], frame[at + place + 1]]);
    let after = segment_sum(frame, view, l4, at);
    let (before, after) = (fold(before), fold(after));
    if l4 == L4::Udp && old == 0 || before == after {
        return;
    }
    let new = !fold(u64::from(!old) + u64::from(!before) + u64::from(after));
    let new = if l4 == L4::Udp && new == 0 { 0xffff } else { new };
    frame[at + place..at + place + 2].copy_from_slice(&new.to_be_bytes());
}

/// What the transport checksum covers, without the checksum itself.
pub fn segment_sum(frame: &[u8], view: &View, l4: L4, at: usize) -> u64 {
    let segment = &frame[at..view.end];
    let mut total = match (l4, view.net) {
        (L4::Icmp, _) => 0,
        (_, Net::Ipv6) => {
            sum(&frame[view.l3 + 8..view.l3 + 40]) + segment.len() as u64 + u64::from(view.proto)
        }
        _ => sum(&frame[view.l3 + 12..view.l3 + 20]) + segment.len() as u64 + u64::from(view.proto),
    };
    if let Some(place) = place(l4) {
        total += sum(&segment[..place]) + sum(&segment[place + 2..]);
    }
    total
}

/// Where the Internet checksum is in a segment; SCTP has none.
fn place(l4: L4) -> Option<usize> {
    match l4 {
        L4::Tcp => Some(16),
        L4::Udp => Some(6),
        L4::Icmp | L4::Icmpv6 => Some(2),
        L4::Sctp => None,
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// CRC32c of an SCTP packet with its checksum taken as zero (RFC 9260 appendix A), bit by bit.
fn crc32c(packet: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (idx, byte) in packet.iter().enumerate() {
        crc ^= u32::from(if (8..12).contains(&idx) { 0 } else { *byte });
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}
