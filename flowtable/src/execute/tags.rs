//! VLAN tags: pops and pushes in one move of the MAC addresses.

use zerocopy::IntoBytes;

use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    parse::{TAG_PRESENT, is_tag},
    program::VlanTag,
    wire::Tag,
};

const MACS_LEN: usize = 12;

/// Removes up to `n_pops` tags, then pushes `pushes`, outermost last.
pub(super) fn retag<B: FrameBuf>(
    packet: &mut Packet<B>,
    n_pops: usize,
    pushes: &[VlanTag],
) -> Result<(), DropReason> {
    let n_pops = n_tags(packet.bytes()).min(n_pops);
    let Some(&macs) = packet.bytes().first_chunk::<MACS_LEN>() else { return Err(DropReason::Malformed) };
    if !packet.pull_front(n_pops * Tag::LEN) {
        return Err(DropReason::Malformed);
    }
    if !packet.push_front(pushes.len() * Tag::LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let (to, rest) = packet.bytes_mut().split_at_mut_checked(MACS_LEN).ok_or(DropReason::Malformed)?;
    to.copy_from_slice(&macs);
    let (places, _) = rest.as_chunks_mut::<{ Tag::LEN }>();
    for (place, tag) in places.iter_mut().zip(pushes.iter().rev()) {
        let tag = Tag { tpid: tag.tpid.into(), tci: (tag.tci & !TAG_PRESENT).into() };
        place.copy_from_slice(tag.as_bytes());
    }
    move_layout(packet, pushes.len(), n_pops);
    Ok(())
}

/// Tags in front of the EtherType.
fn n_tags(frame: &[u8]) -> usize {
    let (words, _) = frame.get(MACS_LEN..).unwrap_or_default().as_chunks::<{ Tag::LEN }>();
    words.iter().take_while(|&&[high, low, ..]| is_tag(u16::from_be_bytes([high, low]))).count()
}

fn move_layout<B: FrameBuf>(packet: &mut Packet<B>, n_pushes: usize, n_pops: usize) {
    let (more, less) = ((n_pushes * Tag::LEN) as u16, (n_pops * Tag::LEN) as u16);
    let inner = packet.offload.gso.as_mut().map(|gso| &mut gso.inner);
    for layout in inner.into_iter().chain([&mut packet.layout]) {
        for offset in [&mut layout.l3, &mut layout.l4, &mut layout.l3_end] {
            if *offset != 0 {
                *offset = offset.saturating_add(more).saturating_sub(less);
            }
        }
    }
    if packet.offload.csum_partial {
        let start = &mut packet.offload.csum_start;
        *start = start.saturating_add(more).saturating_sub(less);
    }
}
