//! Carrying a translation out on a frame: addresses, ports, ICMP identifiers, the packet
//! that an ICMP error quotes, and all checksums that cover them.

use super::{
    Rewrite, alg,
    tuple::Tuple,
    view::{self, View},
};
use crate::{
    checksum::{self, Sum},
    crc32c,
    drop::DropReason,
    execute,
    field::Field,
    packet::{FrameBuf, Packet},
    program::FieldEdit,
    wire::{Icmp, ip_proto},
};

/// Gives a parsed packet the addresses and ports of a translation. `view` is what
/// [`View::read`] says of it.
///
/// Checksums change incrementally, as in [`crate::execute`].
///
/// # Errors
/// As [`crate::execute::apply`]; the packet is then partly changed and must be dropped.
pub fn rewrite<B: FrameBuf>(packet: &mut Packet<B>, view: &View, new: &Rewrite) -> Result<(), DropReason> {
    rewrite_part(packet, view, new, None)
}

/// Does the same to a fragment. `whole` is the length of the L4 header and payload of its
/// whole packet, whose view it is: all fragments get new addresses; ports and all else
/// are in the first one only.
pub(crate) fn rewrite_part<B: FrameBuf>(
    packet: &mut Packet<B>,
    view: &View,
    new: &Rewrite,
    whole: Option<usize>,
) -> Result<(), DropReason> {
    let is_later = whole.is_some() && packet.layout.l4 == 0;
    match &new.inner {
        _ if is_later => {}
        Some(inner) => rewrite_quotation(packet, inner),
        None if view.tuple.is_icmp() && view.tuple.src_port != new.outer.src_port => {
            rewrite_identifier(packet, new.outer.src_port);
        }
        None => {}
    }
    let (mut edits, mut n_edits) = ([NO_EDIT; 4], 0);
    let [src, dst, mut ports @ ..] = edits_between(&view.tuple, &new.outer);
    if is_later {
        ports = [None; 2];
    } else if let (ip_proto::SCTP, Some(len)) = (view.tuple.proto, whole) {
        // The sum covers bytes of other frames.
        rewrite_sctp(packet, &new.outer, len);
        ports = [None; 2];
    }
    for edit in [src, dst, ports[0], ports[1]].into_iter().flatten() {
        edits[n_edits] = edit;
        n_edits += 1;
    }
    alg::shift(packet, new.shift);
    execute::edit_fields(packet, &edits[..n_edits], 0)
}

const NO_EDIT: FieldEdit = FieldEdit { field: Field::NwSrc, value: 0, mask: 0 };

/// What makes a packet of one tuple one of another.
fn edits_between(old: &Tuple, new: &Tuple) -> [Option<FieldEdit>; 4] {
    let [src, dst] = if old.ipv6 { [Field::Ipv6Src, Field::Ipv6Dst] } else { [Field::NwSrc, Field::NwDst] };
    let ports = match old.proto {
        ip_proto::TCP => Some([Field::TcpSrc, Field::TcpDst]),
        ip_proto::UDP => Some([Field::UdpSrc, Field::UdpDst]),
        ip_proto::SCTP => Some([Field::SctpSrc, Field::SctpDst]),
        _ => None,
    };
    let edit = |field: Field, old: u128, new: u128| {
        (old != new).then(|| FieldEdit { field, value: new, mask: field.all_bits() })
    };
    let port =
        |idx: usize, old: u16, new: u16| ports.and_then(|ports| edit(ports[idx], old.into(), new.into()));
    [
        edit(src, old.src, new.src),
        edit(dst, old.dst, new.dst),
        port(0, old.src_port, new.src_port),
        port(1, old.dst_port, new.dst_port),
    ]
}

fn rewrite_identifier<B: FrameBuf>(packet: &mut Packet<B>, id: u16) {
    let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.l3_end));
    let Some(segment) = packet.bytes_mut().get_mut(l4..end) else { return };
    let change = put(segment, 4, &id.to_be_bytes());
    mend(segment, 2, change);
}

/// New ports of a segment of which only the beginning is here; it has `len` bytes in all.
fn rewrite_sctp<B: FrameBuf>(packet: &mut Packet<B>, new: &Tuple, len: usize) {
    let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.l3_end));
    let segment = packet.bytes_mut().get_mut(l4..end).unwrap_or_default();
    let Some((ports, rest)) = segment.split_first_chunk_mut::<4>() else { return };
    let Some(sum) = rest.get_mut(4..8).and_then(|sum| sum.first_chunk_mut::<4>()) else { return };
    let wanted = u32::from(new.src_port) << 16 | u32::from(new.dst_port);
    let difference = (u32::from_be_bytes(*ports) ^ wanted).to_be_bytes();
    *ports = wanted.to_be_bytes();
    let change = crc32c::change(difference, len.saturating_sub(ports.len()));
    *sum = (u32::from_le_bytes(*sum) ^ change).to_le_bytes();
}

/// Gives the quoted packet the addresses and ports that its sender knows it by. Its own
/// checksums follow, as far as they are quoted.
fn rewrite_quotation<B: FrameBuf>(packet: &mut Packet<B>, new: &Tuple) {
    let (l4, end) = (usize::from(packet.layout.l4), usize::from(packet.layout.l3_end));
    let Some(segment) = packet.bytes_mut().get_mut(l4..end) else { return };
    let Some(quoted) = segment.get_mut(Icmp::LEN..) else { return };
    let Some((old, l4_at)) = view::quotation(quoted, new.ipv6) else { return };
    let addresses = if new.ipv6 {
        let src = put(quoted, 8, &new.src.to_be_bytes());
        src.sum(put(quoted, 24, &new.dst.to_be_bytes()))
    } else {
        let src = put(quoted, 12, &(new.src as u32).to_be_bytes());
        src.sum(put(quoted, 16, &(new.dst as u32).to_be_bytes()))
    };
    let mut all = addresses;
    if !new.ipv6 {
        all = all.sum(mend(quoted, 10, addresses));
    }
    let Some(inner) = quoted.get_mut(l4_at..) else { return };
    let (ports, checksum_at) = if old.is_icmp() {
        (put(inner, 4, &new.src_port.to_be_bytes()), Some(2))
    } else {
        let has_ports = matches!(old.proto, ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP);
        let ports = if has_ports {
            put(inner, 0, &new.src_port.to_be_bytes()).sum(put(inner, 2, &new.dst_port.to_be_bytes()))
        } else {
            Sum::ZERO
        };
        let at = match old.proto {
            ip_proto::TCP => Some(16),
            ip_proto::UDP if inner.get(6..8) != Some(&[0, 0]) => Some(6),
            _ => None,
        };
        (ports, at)
    };
    all = all.sum(ports);
    if let Some(at) = checksum_at {
        let has_pseudo_header = !old.is_icmp() || old.ipv6;
        let covered = if has_pseudo_header { ports.sum(addresses) } else { ports };
        all = all.sum(mend(inner, at, covered));
    }
    mend(segment, 2, all);
}

/// Writes bytes at an even offset; what that does to a sum over them.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> Sum {
    let Some(place) = bytes.get_mut(at..at + new.len()) else { return Sum::ZERO };
    let mut change = Sum::ZERO;
    for (old, new) in place.chunks_exact_mut(2).zip(new.chunks_exact(2)) {
        let (before, after) = (u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]));
        if before != after {
            change = change.change(before.into(), after.into(), 1);
        }
        old.copy_from_slice(new);
    }
    change
}

/// Mends the checksum at an offset after a change of what it covers; what that does to a
/// sum over the checksum itself.
fn mend(bytes: &mut [u8], at: usize, change: Sum) -> Sum {
    let Some(&[high, low]) = bytes.get(at..at + 2) else { return Sum::ZERO };
    if change.is_zero() {
        return Sum::ZERO;
    }
    let new = checksum::update(u16::from_be_bytes([high, low]), change);
    put(bytes, at, &new.to_be_bytes())
}
