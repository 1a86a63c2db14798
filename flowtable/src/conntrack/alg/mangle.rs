//! Changing bytes of a TCP payload, and the numbers of the segments behind.

use std::ops::Range;

use crate::{
    checksum::{self, Sum},
    conntrack::Shift,
    drop::DropReason,
    headers::{Headers, L3},
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    wire::{Tcp, ip_proto},
};

/// TCP option with blocks of numbers (RFC 2018 §3).
const SACK: u8 = 5;

/// Replaces bytes of a packet's TCP payload. What is in front of them moves, lengths and
/// checksums follow.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::TooBig`]: it cannot grow.
pub(super) fn replace<B: FrameBuf>(
    packet: &mut Packet<B>,
    range: Range<usize>,
    text: &[u8],
) -> Result<(), DropReason> {
    let (old_len, new_len) = (range.len(), text.len());
    if new_len > old_len {
        let by = new_len - old_len;
        if packet.len() + by > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        if !packet.push_front(by) {
            return Err(DropReason::NoHeadroom);
        }
        packet.bytes_mut().copy_within(by..by + range.start, 0);
    } else {
        let by = old_len - new_len;
        packet.bytes_mut().copy_within(0..range.start, by);
        // The frame is longer than the part of it that goes.
        let _ = packet.pull_front(by);
    }
    if let Some(place) = packet.bytes_mut().get_mut(range.start..range.start + new_len) {
        place.copy_from_slice(text);
    }
    mend(packet, new_len as i32 - old_len as i32);
    let mut key = FlowKey::zero();
    parse(packet, &mut key)
}

/// Lengths and checksums of a packet that has grown by so many bytes.
fn mend<B: FrameBuf>(packet: &mut Packet<B>, by: i32) {
    let layout = packet.layout;
    let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
    let end = usize::from(layout.l3_end).saturating_add_signed(by as isize);
    let is_ipv4 = Headers::of(packet.bytes(), &layout).l3 == L3::Ipv4;
    let partial = packet.offload.csum_partial;
    let frame = packet.bytes_mut();
    let total = (end - l3.min(end)) as u16;
    let (at, len) = if is_ipv4 { (2, total) } else { (4, total.saturating_sub(40)) };
    if let Some(field) = frame.get_mut(l3 + at..l3 + at + 2) {
        field.copy_from_slice(&len.to_be_bytes());
    }
    if is_ipv4 && let Some(header) = frame.get_mut(l3..l4) {
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.layout.l3_end = end as u16;
    let headers = Headers::of(packet.bytes(), &packet.layout);
    let Some(pseudo) = headers.pseudo(packet.bytes()) else { return };
    let Some(segment) = packet.bytes_mut().get_mut(l4..end) else { return };
    let Some(field) = segment.get_mut(16..18) else { return };
    field.fill(0);
    // What is left to the sender's device begins with the sum of the pseudo header.
    let sum = if partial { pseudo.fold() } else { pseudo.bytes(segment).checksum() };
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// Shifts the numbers of a segment, also those of its SACK blocks.
pub(in crate::conntrack) fn shift<B: FrameBuf>(packet: &mut Packet<B>, by: Shift) {
    if by == Shift::default() || packet.layout.l4_proto != ip_proto::TCP {
        return;
    }
    let partial = packet.offload.csum_partial;
    let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.l3_end));
    let Some(segment) = packet.bytes_mut().get_mut(l4..end) else { return };
    let header_len = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    let mut change = add(segment, 4, by.seq).sum(add(segment, 8, by.ack));
    let mut at = Tcp::LEN;
    while at < header_len.min(segment.len()) {
        let (kind, len) = (segment[at], segment.get(at + 1).copied().unwrap_or(0));
        match (kind, len) {
            (0, _) => break,
            (1, _) => at += 1,
            (_, 0 | 1) => break,
            (SACK, len) => {
                for block in (at + 2..(at + usize::from(len)).saturating_sub(3)).step_by(4) {
                    change = change.sum(add(segment, block, by.ack));
                }
                at += usize::from(len);
            }
            (_, len) => at += usize::from(len),
        }
    }
    if let Some(&[high, low]) = segment.get(16..18).filter(|_| !partial) {
        let sum = checksum::update(u16::from_be_bytes([high, low]), change);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Adds to a number of the header; what that does to a sum over it. At an odd place the
/// bytes of the sum are the other way around.
fn add(segment: &mut [u8], at: usize, by: i32) -> Sum {
    let Some(place) = segment.get_mut(at..at + 4).and_then(|place| place.first_chunk_mut::<4>()) else {
        return Sum::ZERO;
    };
    let old = u32::from_be_bytes(*place);
    let new = old.wrapping_add(by as u32);
    *place = new.to_be_bytes();
    if by == 0 {
        return Sum::ZERO;
    }
    let swap = |number: u32| if at.is_multiple_of(2) { number } else { number.rotate_left(8) };
    Sum::ZERO.change(swap(old).into(), swap(new).into(), 2)
}
