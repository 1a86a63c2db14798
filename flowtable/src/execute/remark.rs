//! Raises the drop precedence of a packet: what a meter's `dscp_remark` band does.

use super::edit_fields;
use crate::{
    drop::DropReason,
    field::Field,
    headers::{Headers, L3},
    meter::raise_drop_precedence,
    packet::{FrameBuf, Packet},
    program::FieldEdit,
};

/// Raises the drop precedence by `n_levels`; packets that are not IP, or of no assured
/// forwarding class, stay as they are. Of the frame `n_pops` tags are about to be removed.
pub(super) fn remark<B: FrameBuf>(
    packet: &mut Packet<B>,
    n_pops: usize,
    n_levels: u8,
) -> Result<(), DropReason> {
    let headers = Headers::of(packet.bytes(), &packet.layout);
    let Some(&[first, second]) = packet.bytes().get(headers.l3_at..).and_then(<[u8]>::first_chunk) else {
        return Ok(());
    };
    let tos = match headers.l3 {
        L3::Ipv4 => second,
        L3::Ipv6 => first << 4 | second >> 4,
        L3::Opaque | L3::Arp | L3::Mpls => return Ok(()),
    };
    let dscp = raise_drop_precedence(tos >> 2, n_levels);
    if dscp == tos >> 2 {
        return Ok(());
    }
    edit_fields(
        packet,
        &[FieldEdit { field: Field::NwTos, value: u128::from(dscp) << 2, mask: 0xfc }],
        n_pops,
    )
}
