//! MPLS labels: pops and pushes behind the VLAN tags.

use crate::{
    drop::DropReason,
    key::FlowKey,
    offload,
    packet::{FrameBuf, Gso, Layout, Packet},
    parse::parse_frame,
    program::LabelEdit,
};

/// Bytes of a label stack entry (RFC 3032 §2.1).
const ENTRY_LEN: usize = 4;

/// Removes and pushes labels. A partial checksum is completed first: whoever sends the
/// packet would not find it below labels. A packet that is to be cut stays whole, as below a
/// tunnel header.
pub(super) fn relabel<B: FrameBuf>(packet: &mut Packet<B>, edit: &LabelEdit) -> Result<(), DropReason> {
    let (gso, inner) = (packet.offload.gso, packet.cut_layout());
    if gso.is_none() {
        offload::complete(packet);
    }
    let front_len = usize::from(packet.layout.l3);
    let pop_len = usize::from(edit.n_pops) * ENTRY_LEN;
    let push_len = edit.pushes.len() * ENTRY_LEN;
    if front_len < 2 || packet.len() < front_len + pop_len {
        return Err(DropReason::Malformed);
    }
    if pop_len >= push_len {
        let gone = pop_len - push_len;
        packet.bytes_mut().copy_within(..front_len, gone);
        if !packet.pull_front(gone) {
            return Err(DropReason::Malformed);
        }
    } else {
        let more = push_len - pop_len;
        if !packet.push_front(more) {
            return Err(DropReason::NoHeadroom);
        }
        packet.bytes_mut().copy_within(more..more + front_len, 0);
    }
    let (front, rest) = packet.bytes_mut().split_at_mut_checked(front_len).ok_or(DropReason::Malformed)?;
    if let Some(place) = front.last_chunk_mut() {
        *place = edit.eth_type.to_be_bytes();
    }
    let (places, _) = rest.as_chunks_mut::<ENTRY_LEN>();
    for (place, entry) in places.iter_mut().zip(edit.pushes.iter().rev()) {
        *place = entry.to_be_bytes();
    }
    look_again(packet)?;
    if let Some(gso) = gso {
        let moved = |at: u16| (usize::from(at) + push_len).saturating_sub(pop_len) as u16;
        let inner = Layout { l3: moved(inner.l3), l4: moved(inner.l4), l3_end: moved(inner.l3_end), ..inner };
        // Below labels nothing is found by looking.
        let is_hidden = packet.layout.l4 == 0;
        packet.offload.csum_start = inner.l4;
        packet.offload.gso = Some(Gso { inner: if is_hidden { inner } else { Layout::default() }, ..gso });
    }
    Ok(())
}

/// Cuts the frame; a checksum of the whole packet is completed while the packet is whole.
pub(super) fn truncate<B: FrameBuf>(packet: &mut Packet<B>, max_len: u32) -> Result<(), DropReason> {
    if packet.len() <= max_len as usize {
        return Ok(());
    }
    offload::complete(packet);
    packet.truncate(max_len as usize);
    look_again(packet)
}

/// Finds the headers of a frame that has changed its shape.
fn look_again<B: FrameBuf>(packet: &mut Packet<B>) -> Result<(), DropReason> {
    packet.layout = parse_frame(packet.bytes(), &mut FlowKey::zero())?;
    Ok(())
}
