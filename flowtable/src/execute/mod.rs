//! Does to a packet what an [`Emit`] says: the last step before a port.
//!
//! The order is fixed: header edits with their checksums (`edit`, `place`), VLAN tags (`tags`),
//! MPLS labels and truncation (`labels`), then the tunnel header in front (`encap`). Nothing here decides anything; a field
//! that the frame does not have (ports of a later fragment, say) is left alone, as
//! Open vSwitch does.

mod edit;
mod encap;
mod labels;
mod place;
mod remark;
mod tags;
#[cfg(test)]
mod tests;

pub(crate) use edit::edit_fields;
pub(crate) use encap::{encapsulate, encapsulate_marked};

use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    program::Emit,
};

/// Applies one [`Emit`] to a packet that [`crate::parse::parse`] has seen, so that it is
/// ready to leave by `emit.port`. `flow_hash` is a hash of the inner flow; it becomes the
/// outer UDP source port, which spreads flows over the underlay's paths.
///
/// Checksums change incrementally: one that was wrong stays wrong by the same amount. A
/// partial checksum ([`crate::packet::Offload`]) is kept partial, and is completed before
/// a tunnel header goes in front. A packet that is to be cut stays whole, tunnel header and
/// all: each piece gets one ([`crate::offload::Segments`]).
///
/// # Errors
/// - [`DropReason::NoHeadroom`]: no room for tags or tunnel header.
/// - [`DropReason::Unsupported`]: an edit of a field that is not in frames, or of an
///   SCTP port in a fragment, whose checksum covers bytes of other frames.
/// - [`DropReason::TooBig`]: the encapsulated packet would exceed 65 535 bytes.
///
/// The packet is then partly changed and must be dropped.
pub fn apply<B: FrameBuf>(packet: &mut Packet<B>, emit: &Emit, flow_hash: u32) -> Result<(), DropReason> {
    apply_remarked(packet, emit, flow_hash, 0)
}

/// Like [`apply`], with the drop precedence of the packet raised by `n_levels`.
pub(crate) fn apply_remarked<B: FrameBuf>(
    packet: &mut Packet<B>,
    emit: &Emit,
    flow_hash: u32,
    n_levels: u8,
) -> Result<(), DropReason> {
    if !emit.edits.is_empty() {
        edit_fields(packet, &emit.edits, usize::from(emit.n_vlan_pops))?;
    }
    if n_levels != 0 {
        remark::remark(packet, usize::from(emit.n_vlan_pops), n_levels)?;
    }
    if emit.n_vlan_pops != 0 || !emit.vlan_pushes.is_empty() {
        tags::retag(packet, usize::from(emit.n_vlan_pops), &emit.vlan_pushes)?;
    }
    if let Some(extras) = &emit.extras {
        if let Some(edit) = &extras.labels {
            labels::relabel(packet, edit)?;
        }
        if let Some(max_len) = extras.max_len {
            labels::truncate(packet, max_len)?;
        }
        if let Some(queue) = extras.queue {
            // One that no port can have is the usual one.
            packet.queue = u16::try_from(queue).unwrap_or_default();
        }
    }
    if let Some(header) = &emit.tunnel {
        encap::encapsulate(packet, header, flow_hash)?;
    }
    Ok(())
}
