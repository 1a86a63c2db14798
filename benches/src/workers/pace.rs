//! A source with a schedule: frames are due at even intervals, as from a wire, and wait in a ring
//! of limited length. Each carries the time when it was due; the sink tells how long ago that
//! was. While the kernel runs something else on the core, the schedule stands still: what is
//! measured is the worker, not what it shares its core with.

use std::sync::{
    Arc, Mutex,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use dataplane::{FrameSink, FrameSource, cycles, n_preemptions};

use super::Endless;
use crate::workload::Workload;

/// Frames that wait in the ring at most, as in that of a network card.
pub const RING_LEN: u64 = 2048;
/// Where a frame carries its time: in the payload, which nothing looks at.
const STAMP: usize = 44;
/// Bits of a bucket's number within a power of two.
const SUB_BITS: u32 = 5;
/// Buckets of a histogram.
const N_BUCKETS: usize = 64 << SUB_BITS;

/// What a source and its sink tell.
#[derive(Debug)]
pub struct Told {
    /// Cycles between two frames; 0: none come.
    pub interval: AtomicU64,
    /// A gap of so many cycles is asked about.
    pub suspicious: u64,
    /// Count latencies.
    pub is_counting: AtomicBool,
    /// Frames that found the ring full.
    pub n_lost: AtomicU64,
    /// How often the kernel ran something else.
    pub n_pauses: AtomicU64,
    /// Frames handed to the worker.
    pub n_sent: AtomicU64,
    /// The longest that the worker was away by itself, in cycles.
    pub longest_gap: AtomicU64,
    /// Latencies of undisturbed frames, and of the others.
    pub histograms: Mutex<[Histogram; 2]>,
}

impl Told {
    /// Nothing comes yet.
    pub fn new(suspicious: u64) -> Arc<Self> {
        Arc::new(Self {
            interval: AtomicU64::new(0),
            suspicious,
            is_counting: AtomicBool::new(false),
            n_lost: AtomicU64::new(0),
            n_pauses: AtomicU64::new(0),
            n_sent: AtomicU64::new(0),
            longest_gap: AtomicU64::new(0),
            histograms: Mutex::default(),
        })
    }

    /// From now on a frame comes every so many cycles; what was counted is forgotten.
    pub fn set_interval(&self, interval: u64) {
        self.interval.store(interval, Release);
    }

    /// Forgets what was counted, and counts from now on.
    pub fn begin(&self) {
        for counter in [&self.n_lost, &self.n_pauses, &self.n_sent, &self.longest_gap] {
            counter.store(0, Relaxed);
        }
        if let Ok(mut histograms) = self.histograms.lock() {
            *histograms = Default::default();
        }
        self.is_counting.store(true, Release);
    }
}

/// The source.
pub struct Paced {
    frames: Endless,
    told: Arc<Told>,
    interval: u64,
    next_due: u64,
    polled: u64,
    n_preemptions: u64,
}

impl Paced {
    /// Frames of a workload.
    pub fn new(workload: &Workload, number: u32, told: Arc<Told>) -> Self {
        Self {
            frames: Endless::new(workload, number),
            told,
            interval: 0,
            next_due: 0,
            polled: 0,
            n_preemptions: 0,
        }
    }

    /// Looks whether the worker was away, and by whose fault.
    fn look_around(&mut self, now: u64) {
        let gap = now.saturating_sub(self.polled);
        if self.polled != 0 && gap < self.told.suspicious {
            self.polled = now;
            return;
        }
        let n_preemptions = n_preemptions();
        if n_preemptions != std::mem::replace(&mut self.n_preemptions, n_preemptions) {
            self.told.n_pauses.fetch_add(1, Relaxed);
            self.next_due += if self.polled != 0 { gap } else { 0 };
        } else if self.polled != 0 {
            self.told.longest_gap.fetch_max(gap, Relaxed);
        }
        self.polled = now;
    }

    /// Drops what the ring has no room for.
    fn overflow(&mut self, now: u64) {
        let n_waiting = now.saturating_sub(self.next_due) / self.interval;
        if n_waiting <= RING_LEN {
            return;
        }
        let n_lost = n_waiting - RING_LEN;
        self.told.n_lost.store(self.told.n_lost.load(Relaxed) + n_lost, Relaxed);
        self.next_due += n_lost * self.interval;
    }
}

impl FrameSource for Paced {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        let now = cycles();
        let interval = self.told.interval.load(Acquire);
        if interval != self.interval {
            (self.interval, self.next_due, self.polled) = (interval, now, 0);
        }
        if interval == 0 {
            return None;
        }
        self.look_around(now);
        if now < self.next_due {
            return None;
        }
        self.overflow(now);
        let len = self.frames.next(room)?;
        room.get_mut(STAMP..STAMP + 8)?.copy_from_slice(&self.next_due.to_le_bytes());
        self.next_due += interval;
        self.told.n_sent.store(self.told.n_sent.load(Relaxed) + 1, Relaxed);
        Some(len)
    }

    fn is_ready(&self) -> bool {
        self.told.interval.load(Relaxed) > 0
    }
}

/// The sink.
pub struct Timed {
    told: Arc<Told>,
    own: [Histogram; 2],
    n: u64,
    n_preemptions: u64,
    /// When the kernel was asked last.
    asked: u64,
    /// Frames due before this were under way while the kernel ran something else.
    disturbed_until: u64,
}

impl Timed {
    /// Tells what it sees.
    pub fn new(told: Arc<Told>) -> Self {
        Self { told, own: Default::default(), n: 0, n_preemptions: 0, asked: 0, disturbed_until: 0 }
    }
}

impl FrameSink for Timed {
    fn take(&mut self, frame: &[u8]) -> bool {
        let Some(stamp) = frame.get(STAMP..STAMP + 8).and_then(|bytes| bytes.try_into().ok()) else {
            return true;
        };
        let (now, due) = (cycles(), u64::from_le_bytes(stamp));
        let latency = now.saturating_sub(due);
        self.n += 1;
        // Asking takes as long as some packets do: not for each of them.
        let is_due = now.saturating_sub(self.asked) >= self.told.suspicious;
        if is_due && (latency >= self.told.suspicious || self.n.is_multiple_of(256)) {
            self.asked = now;
            let n_preemptions = n_preemptions();
            if std::mem::replace(&mut self.n_preemptions, n_preemptions) != n_preemptions {
                self.disturbed_until = now;
            }
        }
        if !self.told.is_counting.load(Relaxed) {
            return true;
        }
        let is_disturbed = due < self.disturbed_until;
        self.own[usize::from(is_disturbed)].add(latency);
        // Now and then, so that the lock costs nothing.
        if self.n.is_multiple_of(1 << 12)
            && let Ok(mut histograms) = self.told.histograms.try_lock()
        {
            for (sum, own) in histograms.iter_mut().zip(&mut self.own) {
                sum.merge(own);
                *own = Histogram::default();
            }
        }
        true
    }
}

/// Counts of numbers in buckets that are a thirtieth of their value wide.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    n: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; N_BUCKETS], n: 0, max: 0 }
    }
}

impl Histogram {
    /// One more.
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.n += 1;
        self.max = self.max.max(value);
    }

    /// All of another.
    pub fn merge(&mut self, other: &Self) {
        for (sum, n) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += n;
        }
        self.n += other.n;
        self.max = self.max.max(other.max);
    }

    /// How many there are.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The greatest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// What a part of them is not above.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (self.n as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (idx, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= wanted && seen > 0 {
                return upper(idx).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let value = value.max(1 << SUB_BITS);
    let exponent = value.ilog2();
    let sub = value >> (exponent - SUB_BITS) & ((1 << SUB_BITS) - 1);
    (((exponent as usize) << SUB_BITS) | sub as usize).min(N_BUCKETS - 1)
}

/// The greatest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (exponent, sub) = (bucket >> SUB_BITS, bucket & ((1 << SUB_BITS) - 1));
    let step = exponent.saturating_sub(SUB_BITS as usize);
    ((((1 << SUB_BITS) + sub as u128 + 1) << step) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_thirtieth() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|n| histogram.add(n));
        for (part, value) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0), (1.0, 100_000.0)] {
            let found = histogram.quantile(part) as f64;
            assert!((value..value * 1.04).contains(&found), "{part}: {found}");
        }
        assert_eq!((histogram.n(), histogram.max()), (100_000, 100_000));
        assert_eq!(Histogram::default().quantile(0.5), 0);
        let mut huge = Histogram::default();
        huge.add(u64::MAX);
        assert_eq!(huge.quantile(0.5), u64::MAX);
    }
}
