//! Work on a frame that its sender left to a device: checksums, and cutting into frames of the
//! wire's size. It travels with the packet as [`Offload`] and is done here, in software, where
//! a port cannot.
//!
//! Ports with a record for each frame (TAP, packet sockets) say what is left to do; [`check()`]
//! holds that against the headers. Others hand over frames whose L4 checksum nobody has
//! computed, and nothing says so: the field holds the folded sum of the pseudo header.
//! [`detect_partial`] finds those. That is a guess that cannot do harm: when a frame's whole
//! checksum happens to equal its pseudo header's sum, completing it yields that same value
//! again.
//!
//! [`Segments`] cuts. [`Datagrams`] and [`Train`] are for tunnels, whose packets can come and
//! go many at a time; [`Whole`] for those that a device cuts behind a tunnel's headers.

mod check;
mod datagrams;
mod segments;
#[cfg(test)]
mod tests;
mod whole;

pub use self::{
    check::check,
    datagrams::{Datagrams, Taken, Train, Written, settle_received, train_offload},
    segments::Segments,
    whole::{MAX_HEADERS_LEN, Whole},
};

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
    packet.offload =
        Offload { csum_partial: true, csum_start: packet.layout.l4, csum_offset: offset as u16, gso: None };
}

/// Completes a partial checksum in software; does nothing to other packets. One that was to be
/// cut is a whole packet then, if a large one.
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
    let layout = packet.cut_layout();
    let offload = std::mem::take(&mut packet.offload);
    let udp = layout.l4_proto == ip_proto::UDP;
    let end = usize::from(layout.l3_end);
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
