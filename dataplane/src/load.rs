//! What a receive queue costs its worker.

/// Sampled packets after which older samples count half.
const MEMORY: u64 = 1 << 14;

/// Cycles that sampled packets of a queue took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueueLoad {
    n_packets: u64,
    cycles: u64,
}

impl QueueLoad {
    /// A batch took so many cycles.
    pub(crate) fn add(&mut self, n_packets: u64, cycles: u64) {
        if self.n_packets >= MEMORY {
            self.n_packets /= 2;
            self.cycles /= 2;
        }
        self.n_packets += n_packets;
        self.cycles += cycles;
    }

    /// Cycles a packet, if one was measured.
    pub(crate) fn cycles_per_packet(&self) -> Option<f64> {
        (self.n_packets > 0).then(|| self.cycles as f64 / self.n_packets as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_packets_count_more() {
        let mut load = QueueLoad::default();
        assert_eq!(load.cycles_per_packet(), None);
        (0..1000).for_each(|_| load.add(32, 3200));
        assert_eq!(load.cycles_per_packet(), Some(100.0));
        (0..10_000).for_each(|_| load.add(32, 6400));
        assert!((load.cycles_per_packet().unwrap() - 200.0).abs() < 1.0);
    }
}
