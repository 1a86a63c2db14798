//! New bits for header fields, with the checksums that cover them.
//!
//! Fields are found by [`super::place`]. The differences that all edits make to checksums
//! are gathered in [`Changes`] and settled once at the end.

use super::place::{Cover, Finder, Place};
use crate::{
    checksum::{self, Sum},
    crc32c,
    drop::DropReason,
    field::Field,
    headers::{Headers, L3},
    key::low_bits,
    packet::{FrameBuf, Packet},
    program::FieldEdit,
    wire::ip_proto,
};

/// What the edits did to the words that checksums cover.
#[derive(Default)]
struct Changes {
    header: Sum,
    address: Sum,
    segment: Sum,
    /// Difference of the two SCTP ports.
    sctp_ports: [u8; 4],
}

/// Changes fields of the frame, of which `n_pops` VLAN tags are about to be removed.
pub(crate) fn edit_fields<B: FrameBuf>(
    packet: &mut Packet<B>,
    edits: &[FieldEdit],
    n_pops: usize,
) -> Result<(), DropReason> {
    let headers = Headers::of(packet.bytes(), &packet.layout);
    let partial = packet.offload.csum_partial;
    let frame = packet.bytes_mut();
    let finder = Finder::new(&headers, n_pops);
    let mut changes = Changes::default();
    // The type of an ND option comes first: its address is found by it.
    let retype = edits.iter().find(|edit| edit.field == Field::NdOptionsType);
    for edit in retype.into_iter().chain(edits) {
        if let Some((start, place)) = finder.fixed(edit.field) {
            change(frame, &headers, start, place, edit, &mut changes);
        } else if let Some(place) = finder.search(frame, &headers, edit.field)? {
            change(frame, &headers, 0, &place, edit, &mut changes);
        }
    }
    settle(frame, &headers, &changes, partial)
}

/// Writes the new bits of the field at `place`, counted from `start`.
#[inline]
fn change(
    frame: &mut [u8],
    headers: &Headers,
    start: u16,
    place: &Place,
    edit: &FieldEdit,
    changes: &mut Changes,
) {
    let Some(bytes) = frame.get_mut(usize::from(start) + usize::from(place.offset)..) else { return };
    let n_words = usize::from(place.n_words);
    // All but IPv6 addresses fit into 64 bits, which keeps the common cases short.
    let (old, new) = if n_words == 8 {
        let Some(bytes) = bytes.first_chunk_mut() else { return };
        let old = u128::from_be_bytes(*bytes);
        let new = old & !edit.mask | edit.value & edit.mask;
        *bytes = new.to_be_bytes();
        (old, new)
    } else {
        let bits = (edit.mask as u64 & low_bits(place.n_bits.into()) as u64) << place.shift;
        let value = (edit.value as u64) << place.shift & bits;
        let merge = |old: u64| match edit.field {
            // Operations above 255 are 0 in the key.
            Field::ArpOp if old > 0xff => value,
            _ => old & !bits | value,
        };
        let Some((old, new)) = rewrite(bytes, n_words, merge) else { return };
        (old.into(), new.into())
    };
    if old == new {
        return;
    }
    match place.cover {
        Cover::Nothing => {}
        Cover::Header => changes.header = changes.header.change(old, new, n_words),
        Cover::Address if edit.field == Field::Ipv6Dst && headers.is_routed(frame) => {}
        Cover::Address => changes.address = changes.address.change(old, new, n_words),
        Cover::Segment if headers.l4_proto == ip_proto::SCTP => {
            let idx = usize::from(place.offset);
            let difference = ((old ^ new) as u16).to_be_bytes();
            for (byte, difference) in changes.sctp_ports.iter_mut().skip(idx).zip(difference) {
                *byte ^= difference;
            }
        }
        Cover::Segment => changes.segment = changes.segment.change(old, new, n_words),
    }
}

/// Replaces a big-endian number of 1 to 3 words by what `merge` makes of it; yields both.
#[inline]
fn rewrite(bytes: &mut [u8], n_words: usize, merge: impl Fn(u64) -> u64) -> Option<(u64, u64)> {
    match n_words {
        1 => {
            let word = bytes.first_chunk_mut()?;
            let old = u16::from_be_bytes(*word).into();
            let new = merge(old);
            *word = (new as u16).to_be_bytes();
            Some((old, new))
        }
        2 => {
            let word = bytes.first_chunk_mut()?;
            let old = u32::from_be_bytes(*word).into();
            let new = merge(old);
            *word = (new as u32).to_be_bytes();
            Some((old, new))
        }
        _ => {
            let (high, rest) = bytes.split_first_chunk_mut()?;
            let low = rest.first_chunk_mut()?;
            let old = u64::from(u16::from_be_bytes(*high)) << 32 | u64::from(u32::from_be_bytes(*low));
            let new = merge(old);
            *high = ((new >> 32) as u16).to_be_bytes();
            *low = (new as u32).to_be_bytes();
            Some((old, new))
        }
    }
}

/// Mends the checksums.
fn settle(frame: &mut [u8], headers: &Headers, changes: &Changes, partial: bool) -> Result<(), DropReason> {
    let header = changes.header.sum(changes.address);
    if headers.l3 == L3::Ipv4
        && !header.is_zero()
        && let Some(field) = word_at(frame, headers.l3_at + 10)
    {
        *field = checksum::update(u16::from_be_bytes(*field), header).to_be_bytes();
    }
    if changes.sctp_ports != [0; 4] {
        return settle_sctp(frame, headers, changes.sctp_ports);
    }
    let pseudo = if headers.has_pseudo_header() { changes.address } else { Sum::ZERO };
    let Some(field) = headers.checksum_offset().and_then(|offset| word_at(frame, headers.l4_at + offset))
    else {
        return Ok(());
    };
    let old = u16::from_be_bytes(*field);
    let new = if partial {
        // The field is the sum of the pseudo header, and nothing else.
        Sum::ZERO.word(old).sum(pseudo).fold()
    } else {
        let change = pseudo.sum(changes.segment);
        let udp = headers.l4_proto == ip_proto::UDP;
        if change.is_zero() || udp && old == 0 {
            return Ok(());
        }
        match checksum::update(old, change) {
            // Zero would mean "none" (RFC 768).
            0 if udp => u16::MAX,
            new => new,
        }
    };
    *field = new.to_be_bytes();
    Ok(())
}

fn settle_sctp(frame: &mut [u8], headers: &Headers, ports: [u8; 4]) -> Result<(), DropReason> {
    if headers.is_fragment(frame) {
        return Err(DropReason::Unsupported);
    }
    let n_after = headers.segment(frame).len().saturating_sub(ports.len());
    let change = crc32c::change(ports, n_after);
    if let Some(field) = frame.get_mut(headers.l4_at + 8..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *field = (u32::from_le_bytes(*field) ^ change).to_le_bytes();
    }
    Ok(())
}

fn word_at(frame: &mut [u8], offset: usize) -> Option<&mut [u8; 2]> {
    frame.get_mut(offset..)?.first_chunk_mut()
}
