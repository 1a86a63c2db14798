//! The MPLS label stack (RFC 3032). What is below it is not looked at: nothing in the
//! packet says what it is.

use zerocopy::{FromBytes, network_endian::U32};

use super::Payload;
use crate::key::{FlowKey, N_MPLS};

const BOTTOM: u32 = 1 << 8;

pub(super) fn parse(packet: &[u8], key: &mut FlowKey) -> Option<Payload> {
    let mut rest = packet;
    let mut n_labels = 0;
    for label in &mut key.mpls {
        let Ok((entry, after)) = U32::read_from_prefix(rest) else { break };
        *label = entry;
        rest = after;
        n_labels += 1;
        if entry.get() & BOTTOM != 0 {
            break;
        }
    }
    debug_assert!(n_labels <= N_MPLS);
    key.n_mpls = n_labels as u8;
    (n_labels > 0).then_some(Payload { start: 4 * n_labels, end: packet.len(), proto: None })
}
