//! Reading fixed places of frames, with bounds.

use flowtable::types::MacAddr;

/// Length of an Ethernet header without tags.
pub(crate) const ETHERNET_LEN: usize = 14;
/// Shortest Ethernet frame without its check sequence.
pub(crate) const MIN_FRAME_LEN: usize = 60;

/// The bytes at a place.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The number at a place, in network order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// The number at a place, in network order.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// The address at a place.
pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    array(bytes, at).map(MacAddr::new)
}

/// Destination, source and type or length.
pub(crate) fn ethernet(dst: MacAddr, src: MacAddr, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MIN_FRAME_LEN);
    frame.extend(dst.octets());
    frame.extend(src.octets());
    frame.extend(kind.to_be_bytes());
    frame
}

/// Makes a frame as long as the shortest one.
pub(crate) fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().max(MIN_FRAME_LEN), 0);
    frame
}

/// The checksum of the Internet protocols (RFC 1071) over some parts, all but the last of
/// which have even lengths.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let mut words = part.chunks_exact(2);
        sum += words.by_ref().map(|word| u64::from(word[0]) << 8 | u64::from(word[1])).sum::<u64>();
        sum += words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
