//! What is counted about a port, of whatever kind.
//!
//! Written by the worker that owns the port, read by anybody: relaxed atomics, each
//! right by itself. Conservation holds when the port is at rest:
//! `requests to send = tx_packets + Σ tx_dropped`.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use flowtable::drop::DropReason;

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;

/// Reasons for which a port drops what it was to send.
pub const TX_DROP_REASONS: [DropReason; 4] =
    [DropReason::TxRingFull, DropReason::TxError, DropReason::TooBig, DropReason::PortDown];

/// Counters of one port since it was attached.
#[derive(Debug, Default)]
pub(crate) struct PortMetrics {
    mtu: AtomicU32,
    gone: AtomicBool,
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    /// Taken by the kernel, counted as sent, and dropped after all.
    tx_refused: AtomicU64,
    tx_dropped: [AtomicU64; TX_DROP_REASONS.len()],
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PortCounts {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_dropped: [u64; TX_DROP_REASONS.len()],
}

/// Adds to a counter that only the calling thread writes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl PortMetrics {
    /// Counters of a port with this MTU.
    pub(crate) fn new(mtu: u32) -> Self {
        Self { mtu: AtomicU32::new(mtu), ..Self::default() }
    }

    /// Largest L3 packet.
    pub(crate) fn mtu(&self) -> u32 {
        self.mtu.load(Relaxed)
    }

    /// The interface's MTU has changed.
    pub(crate) fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Relaxed);
    }

    /// The interface has been deleted.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Acquire)
    }

    pub(crate) fn set_gone(&self) {
        self.gone.store(true, Release);
    }

    /// The frame's payload is within the MTU. One VLAN tag is not payload (as the
    /// kernel's own forwarding has it); a second one is.
    pub(crate) fn fits(&self, frame: &[u8]) -> bool {
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        let headers = ETHERNET_LEN + if tagged { TAG_LEN } else { 0 };
        frame.len() <= self.mtu() as usize + headers
    }

    pub(crate) fn received(&self, n_packets: u64, n_bytes: u64) {
        add(&self.rx_packets, n_packets);
        add(&self.rx_bytes, n_bytes);
    }

    pub(crate) fn sent(&self, n_bytes: u64) {
        add(&self.tx_packets, 1);
        add(&self.tx_bytes, n_bytes);
    }

    /// Frames counted as sent that the kernel has dropped.
    pub(crate) fn refused(&self, n_packets: u64) {
        add(&self.tx_refused, n_packets);
    }

    pub(crate) fn dropped(&self, reason: DropReason, n_packets: u64) {
        let idx = TX_DROP_REASONS.iter().position(|known| *known == reason);
        // A reason that is not of this list would be one the list has forgotten: it is
        // counted as an error of the port, never lost.
        let counter = &self.tx_dropped[idx.unwrap_or(1)];
        // Other workers count frames here that their queue to us had no room for.
        counter.fetch_add(n_packets, Relaxed);
    }

    /// All counters.
    pub(crate) fn read(&self) -> PortCounts {
        let refused = self.tx_refused.load(Relaxed);
        let mut tx_dropped = std::array::from_fn(|idx| self.tx_dropped[idx].load(Relaxed));
        tx_dropped[1] += refused;
        PortCounts {
            rx_packets: self.rx_packets.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            tx_packets: self.tx_packets.load(Relaxed).saturating_sub(refused),
            tx_bytes: self.tx_bytes.load(Relaxed),
            tx_dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_counts_payload_and_one_tag_is_not_payload() {
        let metrics = PortMetrics::new(100);
        let frame = |len: usize, tpid: [u8; 2]| {
            let mut frame = vec![0; len];
            frame[12..14].copy_from_slice(&tpid);
            frame
        };
        for (len, tpid, fits) in [
            (114, [0x08, 0x00], true),
            (115, [0x08, 0x00], false),
            (118, [0x81, 0x00], true),
            (119, [0x81, 0x00], false),
            (118, [0x88, 0xa8], true),
        ] {
            assert_eq!(metrics.fits(&frame(len, tpid)), fits, "{len} {tpid:x?}");
        }
        assert!(metrics.fits(&[]));
    }

    #[test]
    fn a_refused_frame_moves_from_sent_to_dropped() {
        let metrics = PortMetrics::new(1500);
        for _ in 0..3 {
            metrics.sent(60);
        }
        metrics.dropped(DropReason::PortDown, 2);
        metrics.refused(1);
        let counts = metrics.read();
        assert_eq!(counts.tx_packets, 2);
        assert_eq!(counts.tx_dropped, [0, 1, 0, 2]);
    }
}
