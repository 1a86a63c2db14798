//! Partial checksums. A veth hands over frames whose L4 checksum nobody has computed:
//! the field holds the folded sum of the pseudo header, and nothing says so. This module
//! finds such frames and completes them.
//!
//! Finding is a guess that cannot do harm: when a frame's whole checksum happens to
//! equal its pseudo header's sum, completing it yields that same value again.

use crate::{
    crc32c,
    headers::Headers,
    packet::{FrameBuf, Offload, Packet},
    wire::{Sctp, ip_proto},
};

/// Marks a parsed packet whose TCP or UDP checksum is partial. For packets from ports
/// with `partial_checksums` only.
///
/// A missing SCTP checksum (zero) is computed at once instead: it is a CRC of another
/// kind that no sender would complete for us.
pub fn detect_partial<B: FrameBuf>(packet: &mut Packet<B>) {
    let frame = packet.bytes();
    let headers = Headers::of(frame, &packet.layout);
    match headers.l4_proto {
        ip_proto::TCP | ip_proto::UDP => {}
        ip_proto::SCTP => return fill_sctp(packet, &headers),
        _ => return,
    }
    let Some(offset) = headers.checksum_offset() else { return };
    let field = headers.segment(frame).get(offset..offset + 2);
    let (Some(&[high, low]), Some(pseudo)) = (field, headers.pseudo(frame)) else { return };
    if u16::from_be_bytes([high, low]) != pseudo.fold() || headers.is_fragment(frame) {
        return;
    }
    packet.offload = Offload { csum_partial: true, csum_start: packet.layout.l4, csum_offset: offset as u16 };
}

/// Completes a partial checksum in software; does nothing to other packets.
///
/// # Cost
/// Reads the whole L4 segment.
#[inline]
pub fn complete<B: FrameBuf>(packet: &mut Packet<B>) {
    if packet.offload.csum_partial {
        compute(packet);
    }
}

fn compute<B: FrameBuf>(packet: &mut Packet<B>) {
    let offload = std::mem::take(&mut packet.offload);
    let udp = packet.layout.l4_proto == ip_proto::UDP;
    let end = usize::from(packet.layout.l3_end);
    let Some(segment) = packet.bytes_mut().get_mut(usize::from(offload.csum_start)..end) else { return };
    let checksum = match crate::checksum::of(segment) {
        // Zero would mean "none" (RFC 768).
        0 if udp => u16::MAX,
        checksum => checksum,
    };
    let offset = usize::from(offload.csum_offset);
    if let Some(field) = segment.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

fn fill_sctp<B: FrameBuf>(packet: &mut Packet<B>, headers: &Headers) {
    let fragment = headers.is_fragment(packet.bytes());
    let (start, end) = (headers.l4_at, headers.l3_end);
    let Some(segment) = packet.bytes_mut().get_mut(start..end) else { return };
    if fragment || segment.get(8..Sctp::LEN) != Some(&[0; 4]) {
        return;
    }
    let crc = crc32c::of([&*segment]).to_le_bytes();
    if let Some(field) = segment.get_mut(8..Sctp::LEN) {
        field.copy_from_slice(&crc);
    }
}
