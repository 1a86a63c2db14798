//! What a port says is left to do on a frame, held against the frame's headers.

use super::fill_sctp;
use crate::{
    checksum,
    drop::DropReason,
    headers::Headers,
    packet::{FrameBuf, GsoKind, Offload, Packet},
    wire::{Sctp, ip_proto},
};

/// Most frames that a packet may be cut into: with segments of a few bytes, one packet could
/// otherwise keep a worker busy for milliseconds.
const MAX_SEGMENTS: usize = 1024;

/// Checks what a parsed packet came with. Afterwards a partial checksum is that of its TCP or
/// UDP header, and a packet that is to be cut has such a one. Partial checksums elsewhere
/// (SCTP; a header inside a tunnel of the workload's own) are completed at once.
///
/// # Errors
/// [`DropReason::Malformed`]: it is to be cut, but not a way its headers allow.
pub fn check<B: FrameBuf>(packet: &mut Packet<B>) -> Result<(), DropReason> {
    let (frame, offload, layout) = (packet.bytes(), packet.offload, packet.layout);
    let headers = Headers::of(frame, &layout);
    let kind = match layout.l4_proto {
        ip_proto::TCP => Some(GsoKind::Tcp),
        ip_proto::UDP => Some(GsoKind::Udp),
        _ => None,
    };
    let is_l4 = offload.csum_partial
        && kind.is_some()
        && offload.csum_start == layout.l4
        && headers.checksum_offset() == Some(offload.csum_offset.into())
        && !headers.is_fragment(frame);
    if let Some(gso) = offload.gso {
        if gso.inner.l3 != 0 {
            // It has been checked before labels were pushed.
            return Ok(());
        }
        let payload_len = usize::from(layout.l3_end).checked_sub(packet.cut_header_len(&gso));
        let payload_len =
            payload_len.filter(|_| is_l4 && kind == Some(gso.kind)).ok_or(DropReason::Malformed)?;
        let n_segments = payload_len.div_ceil(gso.segment_len.get().into());
        if n_segments > MAX_SEGMENTS {
            return Err(DropReason::Malformed);
        }
        if n_segments <= 1 {
            packet.offload.gso = None;
        }
    } else if offload.csum_partial && !is_l4 {
        complete_elsewhere(packet, &headers);
    }
    Ok(())
}

fn complete_elsewhere<B: FrameBuf>(packet: &mut Packet<B>, headers: &Headers) {
    let Offload { csum_start, csum_offset, .. } = std::mem::take(&mut packet.offload);
    if headers.l4_proto == ip_proto::SCTP
        && usize::from(csum_start) == headers.l4_at
        && usize::from(csum_offset) == Sctp::LEN - 4
    {
        return fill_sctp(packet, headers);
    }
    let end = if headers.l3_end == 0 { packet.len() } else { headers.l3_end };
    let Some(covered) = packet.bytes_mut().get_mut(usize::from(csum_start)..end) else { return };
    // What is none at all must not come out as one that says "none" in UDP (RFC 768).
    let sum = match checksum::of(covered) {
        0 => u16::MAX,
        sum => sum,
    };
    let at = usize::from(csum_offset);
    if let Some(field) = covered.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
