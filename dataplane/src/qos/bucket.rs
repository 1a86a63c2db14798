//! A rate that several workers share, without a lock: the time at which what has passed would
//! have passed at just this rate (the generic cell rate algorithm, ITU-T I.371 §6.2.4).
//!
//! A packet passes when that time is no further ahead than the burst; its own length then
//! moves it on. So a packet longer than the burst passes too, and is paid for afterwards.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use flowtable::types::Timestamp;

use super::Rate;

/// A rate, and how far it is used.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds of a bit, times 2^20.
    per_bit: u64,
    /// Nanoseconds.
    burst: u64,
    /// When all that has passed would have passed.
    due: AtomicU64,
}

/// Fractions of a nanosecond that times of a bit have: so 100 Gbit/s are met to a thousandth.
const SHIFT: u32 = 20;

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        let bits_per_second = u128::from(rate.bits_per_second.max(1));
        let per_bit = (1_000_000_000_u128 << SHIFT).div_ceil(bits_per_second);
        let burst = u128::from(rate.burst_bits) * 1_000_000_000 / bits_per_second;
        Self {
            per_bit: u64::try_from(per_bit).unwrap_or(u64::MAX),
            burst: u64::try_from(burst).unwrap_or(u64::MAX),
            due: AtomicU64::new(0),
        }
    }

    fn time_of(&self, n_bytes: usize) -> u64 {
        let nanos = (u128::from(self.per_bit) * 8 * n_bytes as u128) >> SHIFT;
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// How long until a packet may pass; zero: now.
    pub(crate) fn wait(&self, now: Timestamp) -> Duration {
        let due = self.due.load(Relaxed);
        Duration::from_nanos(due.saturating_sub(now.nanos().saturating_add(self.burst)))
    }

    /// A packet passes, whether it may or not.
    pub(crate) fn charge(&self, now: Timestamp, n_bytes: usize) {
        let time = self.time_of(n_bytes);
        let charge = |due: u64| Some(due.max(now.nanos()).saturating_add(time));
        let _ = self.due.fetch_update(Relaxed, Relaxed, charge);
    }

    /// Lets a packet pass, if it may.
    pub(crate) fn pass(&self, now: Timestamp, n_bytes: usize) -> bool {
        let (time, latest) = (self.time_of(n_bytes), now.nanos().saturating_add(self.burst));
        let pass = |due: u64| (due <= latest).then(|| due.max(now.nanos()).saturating_add(time));
        self.due.fetch_update(Relaxed, Relaxed, pass).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over any stretch of time no more than rate and burst, and one packet; when more is
        /// always offered, no less than the rate.
        #[test]
        fn what_passes_is_the_rate(
            bits_per_second in 10_000_u64..40_000_000_000,
            burst_bits in 0_u64..10_000_000,
            packets in prop::collection::vec((1_usize..65_000, 0_u64..100_000), 1..300),
        ) {
            let bucket = Bucket::new(Rate { bits_per_second, burst_bits });
            let (mut now, mut n_bits, mut is_refused) = (5_000_000_000_u64, 0_u64, false);
            let start = now;
            for (n_bytes, pause) in &packets {
                now += pause;
                if bucket.pass(Timestamp::from_nanos(now), *n_bytes) {
                    n_bits += 8 * *n_bytes as u64;
                } else {
                    is_refused = true;
                }
                let allowed = (now - start) as f64 * bits_per_second as f64 / 1e9 + burst_bits as f64;
                prop_assert!(n_bits as f64 <= allowed * 1.001 + 8.0 * 65_000.0);
            }
            let wait = bucket.wait(Timestamp::from_nanos(now));
            let then = Timestamp::from_nanos(now).after(wait);
            prop_assert!(!is_refused || bucket.pass(then, 1), "after {wait:?}");
        }
    }

    #[test]
    fn rates_are_met_to_a_thousandth() {
        for bits_per_second in [8_000, 1_000_000, 999_999_937, 10_000_000_000, 100_000_000_000] {
            let bucket = Bucket::new(Rate { bits_per_second, burst_bits: 0 });
            let (mut now, mut n_bytes) = (Timestamp::from_nanos(1), 0_u64);
            for _ in 0..10_000 {
                now = now.after(bucket.wait(now));
                assert!(bucket.pass(now, 1500));
                n_bytes += 1500;
            }
            let met = n_bytes as f64 * 8e9 / now.nanos() as f64 / bits_per_second as f64;
            assert!((met - 1.0).abs() < 0.001, "{bits_per_second}: {met}");
        }
    }
}
