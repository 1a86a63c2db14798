//! What is counted about a port, of whatever kind.
//!
//! Written by the worker that has the queue or the way out, read by anybody: relaxed
//! atomics, each right by itself. Whoever takes a queue over has seen what was counted before. Conservation holds when the port is at rest:
//! `requests to send = tx_packets + Σ tx_dropped`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use flowtable::drop::DropReason;

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;

/// Reasons for which a port drops what it was to send.
pub const TX_DROP_REASONS: [DropReason; 5] = [
    DropReason::TxRingFull,
    DropReason::TxError,
    DropReason::TooBig,
    DropReason::PortDown,
    DropReason::QueueFull,
];

/// What is counted of one receive queue, on cache lines of its own: another queue's worker
/// writes next to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct RxCounters {
    n_packets: AtomicU64,
    n_bytes: AtomicU64,
    kernel_dropped: AtomicU64,
}

/// What is counted of one way out.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct TxCounters {
    n_packets: AtomicU64,
    n_bytes: AtomicU64,
    /// Taken by the kernel, counted as sent, and dropped after all.
    n_refused: AtomicU64,
    dropped: [AtomicU64; TX_DROP_REASONS.len()],
}

/// What all that have to do with a port share: what it is, which hardly ever changes, and
/// the counters of each queue and each way out, which only its owner writes.
#[derive(Debug)]
pub(crate) struct PortMetrics {
    mtu: AtomicU32,
    gone: AtomicBool,
    /// Why it has no link, if it is known.
    down: Mutex<Option<String>>,
    rx: Box<[RxCounters]>,
    tx: Box<[TxCounters]>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PortCounts {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_kernel_dropped: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_dropped: [u64; TX_DROP_REASONS.len()],
}

/// Adds to a counter that only the calling thread writes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl PortMetrics {
    /// Of a port with this MTU and so many receive queues and ways out.
    pub(crate) fn new(mtu: u32, n_queues: usize, n_outlets: usize) -> Self {
        Self {
            mtu: AtomicU32::new(mtu),
            gone: AtomicBool::new(false),
            down: Mutex::default(),
            rx: (0..n_queues.max(1)).map(|_| RxCounters::default()).collect(),
            tx: (0..n_outlets.max(1)).map(|_| TxCounters::default()).collect(),
        }
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

    /// Says so; true the first time.
    pub(crate) fn set_gone(&self) -> bool {
        !self.gone.swap(true, AcqRel)
    }

    /// Why it has no link; `None`: it has, or only its interface knows.
    pub(crate) fn down(&self) -> Option<String> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says so.
    pub(crate) fn set_down(&self, why: Option<String>) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The payload of a frame of this length on the wire is within the MTU. One VLAN tag is not payload (as the
    /// kernel's own forwarding has it); a second one is.
    pub(crate) fn fits(&self, frame: &[u8], wire_len: usize) -> bool {
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        let headers = ETHERNET_LEN + if tagged { TAG_LEN } else { 0 };
        wire_len <= self.mtu() as usize + headers
    }

    pub(crate) fn rx(&self, queue: usize) -> &RxCounters {
        &self.rx[queue.min(self.rx.len() - 1)]
    }

    pub(crate) fn tx(&self, outlet: usize) -> &TxCounters {
        &self.tx[outlet.min(self.tx.len() - 1)]
    }

    /// All counters.
    pub(crate) fn read(&self) -> PortCounts {
        let mut counts = PortCounts::default();
        for rx in &self.rx {
            counts.rx_packets += rx.n_packets.load(Relaxed);
            counts.rx_bytes += rx.n_bytes.load(Relaxed);
            counts.rx_kernel_dropped += rx.kernel_dropped.load(Relaxed);
        }
        for tx in &self.tx {
            let refused = tx.n_refused.load(Relaxed);
            counts.tx_packets += tx.n_packets.load(Relaxed).saturating_sub(refused);
            counts.tx_bytes += tx.n_bytes.load(Relaxed);
            counts.tx_dropped[1] += refused;
            for (sum, dropped) in counts.tx_dropped.iter_mut().zip(&tx.dropped) {
                *sum += dropped.load(Relaxed);
            }
        }
        counts
    }
}

impl RxCounters {
    pub(crate) fn received(&self, n_packets: u64, n_bytes: u64) {
        add(&self.n_packets, n_packets);
        add(&self.n_bytes, n_bytes);
    }

    pub(crate) fn n_packets(&self) -> u64 {
        self.n_packets.load(Relaxed)
    }

    /// What the kernel has dropped in front of the queue since it was opened.
    pub(crate) fn set_kernel_dropped(&self, n_packets: u64) {
        self.kernel_dropped.store(n_packets, Relaxed);
    }
}

impl TxCounters {
    pub(crate) fn sent(&self, n_bytes: u64) {
        add(&self.n_packets, 1);
        add(&self.n_bytes, n_bytes);
    }

    /// Frames counted as sent that the kernel has dropped.
    pub(crate) fn refused(&self, n_packets: u64) {
        add(&self.n_refused, n_packets);
    }

    pub(crate) fn dropped(&self, reason: DropReason, n_packets: u64) {
        let idx = TX_DROP_REASONS.iter().position(|known| *known == reason);
        // A reason that is not of this list would be one the list has forgotten: it is
        // counted as an error of the port, never lost.
        add(&self.dropped[idx.unwrap_or(1)], n_packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_counts_payload_and_one_tag_is_not_payload() {
        let metrics = PortMetrics::new(100, 1, 1);
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
            assert_eq!(metrics.fits(&frame(len, tpid), len), fits, "{len} {tpid:x?}");
        }
        assert!(metrics.fits(&[], 0));
    }

    #[test]
    fn a_refused_frame_moves_from_sent_to_dropped() {
        let metrics = PortMetrics::new(1500, 1, 2);
        for outlet in [0, 0, 1] {
            metrics.tx(outlet).sent(60);
        }
        metrics.tx(1).dropped(DropReason::PortDown, 2);
        metrics.tx(0).refused(1);
        let counts = metrics.read();
        assert_eq!(counts.tx_packets, 2);
        assert_eq!(counts.tx_dropped, [0, 1, 0, 2, 0]);
    }
}
