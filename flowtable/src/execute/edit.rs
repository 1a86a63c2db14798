//! New bits for header fields, with the checksums that cover them.
//!
//! Each field has a [`Place`]: some 16-bit words at an even offset from their header,
//! so that what a change does to a checksum is a difference of words. The differences of
//! all edits are gathered in [`Changes`] and settled once at the end.

use zerocopy::FromBytes;

use crate::{
    checksum::{self, Sum},
    crc32c,
    drop::DropReason,
    field::Field,
    headers::{Headers, L3},
    key::low_bits,
    packet::{FrameBuf, Packet},
    parse::{TAG_PRESENT, is_nd, is_tag, nd_options},
    program::FieldEdit,
    wire::{Ethernet, Icmp, Tag, ip_proto, nd},
};

/// Offset of the options in a solicitation or advertisement.
const ND_OPTIONS: usize = Icmp::LEN + 16;

/// Which checksum covers a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Nothing,
    /// The IPv4 header's.
    Header,
    /// The IPv4 header's, and that of L4 through its pseudo header.
    Address,
    /// L4's.
    Segment,
}

/// Where a field is in the frame.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: usize,
    /// Number of 16-bit words that hold it.
    n_words: usize,
    /// Bits to the right of it within the words.
    shift: u32,
    /// Width on the wire.
    n_bits: u32,
    cover: Cover,
}

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
    let routed = edits.iter().any(|edit| edit.field == Field::Ipv6Dst) && headers.is_routed(frame);
    let mut changes = Changes::default();
    for edit in edits {
        let place = match edit.field {
            Field::Ipv6Dst if routed => place(frame, &headers, edit.field, n_pops)?
                .map(|place| Place { cover: Cover::Nothing, ..place }),
            Field::NdSll | Field::NdTll => {
                // The option must have its new type before it can be found by it.
                if let Some(retype) = edits.iter().find(|edit| edit.field == Field::NdOptionsType) {
                    let place = place(frame, &headers, retype.field, n_pops)?;
                    change(frame, &headers, place, retype, &mut changes);
                }
                place(frame, &headers, edit.field, n_pops)?
            }
            field => place(frame, &headers, field, n_pops)?,
        };
        change(frame, &headers, place, edit, &mut changes);
    }
    settle(frame, &headers, &changes, partial)
}

/// Writes the new bits of one field.
fn change(
    frame: &mut [u8],
    headers: &Headers,
    place: Option<Place>,
    edit: &FieldEdit,
    changes: &mut Changes,
) {
    let Some(place) = place else { return };
    let Some(bytes) = frame.get_mut(place.offset..place.offset + 2 * place.n_words) else { return };
    let old = load(bytes);
    let bits = (edit.mask & low_bits(place.n_bits)) << place.shift;
    let mut new = old & !bits | edit.value << place.shift & bits;
    if edit.field == Field::ArpOp && old > 0xff {
        // Operations above 255 are 0 in the key.
        new = edit.value & bits;
    }
    if new == old {
        return;
    }
    store(bytes, new);
    let sum = match place.cover {
        Cover::Nothing => return,
        Cover::Segment if headers.l4_proto == ip_proto::SCTP => {
            let idx = place.offset - headers.l4_at;
            let difference = ((old ^ new) as u16).to_be_bytes();
            for (byte, difference) in changes.sctp_ports.iter_mut().skip(idx).zip(difference) {
                *byte ^= difference;
            }
            return;
        }
        Cover::Header => &mut changes.header,
        Cover::Address => &mut changes.address,
        Cover::Segment => &mut changes.segment,
    };
    *sum = sum.change(old, new, place.n_words);
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

/// Where a field is; nothing when the frame does not have it.
fn place(frame: &[u8], headers: &Headers, field: Field, n_pops: usize) -> Result<Option<Place>, DropReason> {
    let info = field.info();
    let at = |offset, n_words, shift: u32, cover| {
        Some(Place { offset, n_words, shift: shift + info.shift, n_bits: info.n_bits, cover })
    };
    let l3 = |kind, offset, n_words, shift, cover| {
        if headers.l3 == kind { at(headers.l3_at + offset, n_words, shift, cover) } else { None }
    };
    let l4 = |proto, offset, n_words, shift| {
        let found = headers.l4_at != 0 && headers.l4_proto == proto;
        if found { at(headers.l4_at + offset, n_words, shift, Cover::Segment) } else { None }
    };
    let byte = |place: Option<Place>| place.map(|place| Place { n_bits: 8, ..place });
    let ipv6 = headers.l3 == L3::Ipv6;
    Ok(match field {
        Field::EthDst => at(0, 3, 0, Cover::Nothing),
        Field::EthSrc => at(6, 3, 0, Cover::Nothing),
        Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::VlanVidOxm => tag(frame, field, n_pops),
        Field::MplsLabel | Field::MplsTc | Field::MplsTtl => l3(L3::Mpls, 0, 2, 0, Cover::Nothing),

        Field::NwSrc => l3(L3::Ipv4, 12, 2, 0, Cover::Address),
        Field::NwDst => l3(L3::Ipv4, 16, 2, 0, Cover::Address),
        Field::Ipv6Src => l3(L3::Ipv6, 8, 8, 0, Cover::Address),
        Field::Ipv6Dst => l3(L3::Ipv6, 24, 8, 0, Cover::Address),
        Field::Ipv6Label => l3(L3::Ipv6, 0, 2, 0, Cover::Nothing),
        Field::NwTos | Field::IpDscp | Field::NwEcn if ipv6 => l3(L3::Ipv6, 0, 2, 20, Cover::Nothing),
        Field::NwTos | Field::IpDscp | Field::NwEcn => l3(L3::Ipv4, 0, 1, 0, Cover::Header),
        Field::NwTtl if ipv6 => l3(L3::Ipv6, 6, 1, 0, Cover::Nothing),
        Field::NwTtl => l3(L3::Ipv4, 8, 1, 8, Cover::Header),

        Field::ArpOp => l3(L3::Arp, 6, 1, 0, Cover::Nothing),
        Field::ArpSha => l3(L3::Arp, 8, 3, 0, Cover::Nothing),
        Field::ArpSpa => l3(L3::Arp, 14, 2, 0, Cover::Nothing),
        Field::ArpTha => l3(L3::Arp, 18, 3, 0, Cover::Nothing),
        Field::ArpTpa => l3(L3::Arp, 24, 2, 0, Cover::Nothing),

        Field::TcpSrc => l4(ip_proto::TCP, 0, 1, 0),
        Field::TcpDst => l4(ip_proto::TCP, 2, 1, 0),
        Field::UdpSrc => l4(ip_proto::UDP, 0, 1, 0),
        Field::UdpDst => l4(ip_proto::UDP, 2, 1, 0),
        Field::SctpSrc => l4(ip_proto::SCTP, 0, 1, 0),
        Field::SctpDst => l4(ip_proto::SCTP, 2, 1, 0),
        Field::IcmpType => byte(l4(ip_proto::ICMP, 0, 1, 8)),
        Field::IcmpCode => byte(l4(ip_proto::ICMP, 0, 1, 0)),
        Field::Icmpv6Type => byte(l4(ip_proto::ICMPV6, 0, 1, 8)),
        Field::Icmpv6Code => byte(l4(ip_proto::ICMPV6, 0, 1, 0)),
        Field::NdTarget | Field::NdReserved | Field::NdSll | Field::NdTll | Field::NdOptionsType => {
            neighbour(frame, headers, field)
        }
        _ => return Err(DropReason::Unsupported),
    })
}

/// The outermost tag that remains after the pops.
fn tag(frame: &[u8], field: Field, n_pops: usize) -> Option<Place> {
    let at = Ethernet::LEN - 2 + n_pops * Tag::LEN;
    let (tag, _) = Tag::ref_from_prefix(frame.get(at..)?).ok()?;
    let info = field.info();
    // Bit 12 says "present" in the key; the frame's DEI is in its place.
    let n_bits = if field == Field::VlanVidOxm { TAG_PRESENT.trailing_zeros() } else { info.n_bits };
    is_tag(tag.tpid.get()).then_some(Place {
        offset: at + 2,
        n_words: 1,
        shift: info.shift,
        n_bits,
        cover: Cover::Nothing,
    })
}

/// Fields of neighbour discovery. Those of options the message does not have are absent.
fn neighbour(frame: &[u8], headers: &Headers, field: Field) -> Option<Place> {
    let segment = headers.segment(frame);
    let (icmp, _) = Icmp::ref_from_prefix(segment).ok()?;
    if headers.l4_proto != ip_proto::ICMPV6 || !is_nd(icmp) || segment.len() < ND_OPTIONS {
        return None;
    }
    let option = |kind: Option<u8>| {
        let found =
            nd_options(&segment[ND_OPTIONS..]).find(|option| kind.is_none_or(|kind| kind == option.kind));
        found.map(|option| ND_OPTIONS + option.offset)
    };
    let (offset, n_words, shift) = match field {
        Field::NdReserved => (4, 2, 0),
        Field::NdTarget => (Icmp::LEN, 8, 0),
        Field::NdSll => (option(Some(nd::SOURCE_LINK))? + 2, 3, 0),
        Field::NdTll => (option(Some(nd::TARGET_LINK))? + 2, 3, 0),
        _ => (option(None)?, 1, 8),
    };
    let n_bits = field.info().n_bits;
    Some(Place { offset: headers.l4_at + offset, n_words, shift, n_bits, cover: Cover::Segment })
}

fn word_at(frame: &mut [u8], offset: usize) -> Option<&mut [u8; 2]> {
    frame.get_mut(offset..)?.first_chunk_mut()
}

fn load(bytes: &[u8]) -> u128 {
    match *bytes {
        [a, b] => u16::from_be_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_be_bytes([a, b, c, d]).into(),
        _ => bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)),
    }
}

fn store(bytes: &mut [u8], value: u128) {
    let all = value.to_be_bytes();
    bytes.copy_from_slice(&all[all.len().saturating_sub(bytes.len())..]);
}
