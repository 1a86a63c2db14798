//! Stand-in until the real one is merged.
use crate::{
    drop::DropReason,
    key::FlowKey,
    packet::{FrameBuf, Packet},
};

/// Parses.
pub fn parse<B: FrameBuf>(packet: &mut Packet<B>, key: &mut FlowKey) -> Result<(), DropReason> {
    *key = FlowKey::zero();
    let bytes = packet.bytes();
    if bytes.len() < 14 {
        return Err(DropReason::Malformed);
    }
    key.in_port.set(packet.in_port.get());
    key.eth_dst.copy_from_slice(&bytes[..6]);
    key.eth_src.copy_from_slice(&bytes[6..12]);
    key.eth_type.set(u16::from_be_bytes([bytes[12], bytes[13]]));
    Ok(())
}
