//! `check_pkt_larger`: what depends on the frame's length.
//!
//! The length is a field of the key like any header. Comparing it looks at its leading
//! bits, as many as are needed to tell on which side of the bound it is: lengths far from
//! the bound share an entry, and there are never more kinds of entries than the length
//! has bits.

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::field::{Field, SubField};

/// Bits of the length.
const N_BITS: u32 = 16;

impl<T: Tracer> Walk<'_, T> {
    /// Writes whether the frame is longer than `max_len` bytes, as it would leave now but for
    /// a tunnel header.
    pub(super) fn check_pkt_larger(&mut self, max_len: u16, dst: SubField) -> Result<(), Abort> {
        let more = self.vlan.n_bytes_more() + self.labels.n_bytes_more();
        // How much longer it has become follows from what was read.
        let received = i64::from(max_len) - more;
        let is_larger = match u16::try_from(received) {
            Ok(bound) => self.is_longer(bound),
            Err(_) => received < 0,
        };
        self.note(format_args!("longer than {max_len} bytes: {is_larger}"));
        self.set(dst.field, u128::from(is_larger) << dst.start, dst.bits())
    }

    fn is_longer(&mut self, bound: u16) -> bool {
        let mut is_longer = false;
        self.key.read_prefix(Field::FrameLen, |len| {
            let differing = (len as u16) ^ bound;
            is_longer = len as u16 > bound;
            // Up to the first bit that differs; when none does, all.
            (differing.leading_zeros() + 1).min(N_BITS)
        });
        is_longer
    }
}
