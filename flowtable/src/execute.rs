//! Stand-in until the real one is merged.
use crate::{
    drop::DropReason,
    packet::{FrameBuf, Packet},
    program::Emit,
};

/// Applies.
pub fn apply<B: FrameBuf>(_: &mut Packet<B>, _: &Emit, _: u32) -> Result<(), DropReason> {
    Ok(())
}
