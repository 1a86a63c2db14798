//! What guest and switch agree on: bits of virtio (virtio 1.2 §5.1.3, §6) and of vhost-user.

use flowtable::packet::{GsoKind, Offload};

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MTU: u64 = 1 << 3;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const MERGEABLE: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CONTROL_QUEUE: u64 = 1 << 17;
const GUEST_ANNOUNCE: u64 = 1 << 21;
const MULTIQUEUE: u64 = 1 << 22;
const ANY_LAYOUT: u64 = 1 << 27;
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
const PROTOCOL: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const IN_ORDER: u64 = 1 << 35;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// What the switch offers. Chains are always used in the order in which they came, which some guests' drivers have
/// shorter ways for (virtio 1.2 §2.7.9). Not among it: datagrams that are cut into fragments (UFO), which
/// kernels have given up; packed rings; and the log that moving a running guest needs.
const OFFERED: u64 = CSUM
    | GUEST_CSUM
    | MTU
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | MERGEABLE
    | STATUS
    | CONTROL_QUEUE
    | GUEST_ANNOUNCE
    | ANY_LAYOUT
    | INDIRECT
    | EVENT_INDEX
    | PROTOCOL
    | VERSION_1
    | IN_ORDER
    | GUEST_USO4
    | GUEST_USO6
    | HOST_USO;

const PROTOCOL_MULTIQUEUE: u64 = 1 << 0;
const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
const PROTOCOL_NET_MTU: u64 = 1 << 4;
const PROTOCOL_RESET_DEVICE: u64 = 1 << 13;

/// What the switch offers of vhost-user.
pub(super) const PROTOCOL_OFFERED: u64 =
    PROTOCOL_MULTIQUEUE | PROTOCOL_REPLY_ACK | PROTOCOL_NET_MTU | PROTOCOL_RESET_DEVICE;

/// Bytes in front of each frame when the number of buffers is among them, and when not.
const LONG_HEADER: usize = 12;
const SHORT_HEADER: usize = 10;

/// What has been agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features(u64);

impl Features {
    /// What a port with so many pairs of queues offers.
    pub(super) fn offered(n_pairs: usize) -> u64 {
        OFFERED | if n_pairs > 1 { MULTIQUEUE } else { 0 }
    }

    /// What a guest has taken. `Err`: some of it was not offered.
    pub(super) fn taken(raw: u64, n_pairs: usize) -> Result<Self, u64> {
        match raw & !Self::offered(n_pairs) {
            0 => Ok(Self(raw)),
            unknown => Err(unknown),
        }
    }

    fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Rings are enabled one by one, by messages of vhost-user.
    pub(super) fn has_protocol(self) -> bool {
        self.has(PROTOCOL)
    }

    /// Wishes to be woken are numbers of chains.
    pub(super) fn has_event_index(self) -> bool {
        self.has(EVENT_INDEX)
    }

    /// A frame may lie in several chains.
    pub(super) fn is_mergeable(self) -> bool {
        self.has(MERGEABLE)
    }

    /// Bytes in front of each frame.
    pub(super) fn header_len(self) -> usize {
        if self.has(MERGEABLE | VERSION_1) { LONG_HEADER } else { SHORT_HEADER }
    }

    /// The guest may leave something to do with its frames; else what is in front of them says nothing
    /// (virtio 1.2 §5.1.6.2).
    pub(super) fn leaves_undone(self) -> bool {
        self.has(CSUM | HOST_TSO4 | HOST_TSO6 | HOST_USO)
    }

    /// The guest takes frames with this left to do; `is_ipv6` tells which IP they are of.
    pub(super) fn takes(self, offload: &Offload, is_ipv6: bool) -> bool {
        let cuts = match (offload.gso.map(|gso| gso.kind), is_ipv6) {
            (None, _) => true,
            (Some(GsoKind::Tcp), false) => self.has(GUEST_TSO4),
            (Some(GsoKind::Tcp), true) => self.has(GUEST_TSO6),
            (Some(GsoKind::Udp), false) => self.has(GUEST_USO4),
            (Some(GsoKind::Udp), true) => self.has(GUEST_USO6),
        };
        cuts && self.has(GUEST_CSUM)
    }

    /// The guest takes segments whose sender has reduced its window.
    pub(super) fn takes_reduced(self) -> bool {
        self.has(GUEST_ECN)
    }
}

/// The other side wants answers where it says so.
pub(super) fn has_reply_ack(protocol: u64) -> bool {
    protocol & PROTOCOL_REPLY_ACK != 0
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use flowtable::packet::{Gso, Layout};

    use super::*;

    #[test]
    fn nothing_is_taken_that_was_not_offered() {
        assert_eq!(Features::taken(MULTIQUEUE | CSUM, 1), Err(MULTIQUEUE));
        assert_eq!(Features::taken(MULTIQUEUE | CSUM, 2), Ok(Features(MULTIQUEUE | CSUM)));
        for not_offered in [10, 14, 26, 34] {
            assert_eq!(Features::taken(1 << not_offered, 8), Err(1 << not_offered));
        }
    }

    #[test]
    fn a_guest_gets_what_it_takes() {
        let gso = |kind| Gso { kind, segment_len: NonZeroU16::MIN, inner: Layout::default() };
        let offload = |kind: Option<GsoKind>| Offload {
            csum_partial: true,
            csum_start: 34,
            csum_offset: 16,
            gso: kind.map(gso),
        };
        let all = Features(Features::offered(1));
        let plain = Features(VERSION_1 | GUEST_CSUM | GUEST_TSO6);
        for (kind, is_ipv6, taken) in [
            (None, false, true),
            (Some(GsoKind::Tcp), false, false),
            (Some(GsoKind::Tcp), true, true),
            (Some(GsoKind::Udp), true, false),
        ] {
            assert!(all.takes(&offload(kind), is_ipv6));
            assert_eq!(plain.takes(&offload(kind), is_ipv6), taken);
            assert!(!Features(GUEST_TSO4).takes(&offload(kind), is_ipv6));
        }
        assert_eq!(
            (plain.header_len(), Features(CSUM).header_len(), Features(MERGEABLE).header_len()),
            (12, 10, 12)
        );
    }
}
