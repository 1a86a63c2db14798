//! What each port may take of what all ports share: translations of first packets, megaflows,
//! new sessions. A port that takes more is refused it, by name, and so can neither starve the
//! others nor push their entries out.
//!
//! Beyond these, turns of ports are worth the same work (the workers see to that), and a full
//! table takes entries from the port that has most.

use crate::types::{PortNo, Timestamp};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// What a port may take. 0: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// First packets in a second that are translated; more are dropped as `miss-quota`. A
    /// second's worth may come at once.
    pub misses_per_second: u32,
    /// Megaflows; one more takes the place of another of the same port.
    pub max_megaflows: u32,
    /// New sessions in a second while the sessions are nearly full; more packets are found by
    /// their megaflows.
    pub sessions_per_second: u32,
}

/// What was refused to ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaCounters {
    /// First packets.
    pub n_misses: u64,
    /// Sessions.
    pub n_sessions: u64,
}

/// How much each port has left.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    quota: Quota,
    misses: Buckets,
    sessions: Buckets,
    refused: QuotaCounters,
}

/// What is left of a rate, by port number.
#[derive(Debug, Default)]
struct Buckets(Vec<Bucket>);

/// Nanoseconds of allowance, and when they were counted.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    nanos: u64,
    at: Timestamp,
}

impl Buckets {
    /// Takes one of `rate` in a second.
    fn take(&mut self, port: PortNo, rate: u32, now: Timestamp) -> bool {
        let idx = port.get() as usize;
        if idx >= self.0.len() {
            self.0.resize(idx + 1, Bucket { nanos: SECOND, at: now });
        }
        let bucket = &mut self.0[idx];
        let passed = now.since(bucket.at).as_nanos().min(SECOND.into()) as u64;
        let (cost, left) = (SECOND / u64::from(rate.max(1)), (bucket.nanos + passed).min(SECOND));
        let is_enough = left >= cost;
        *bucket = Bucket { nanos: if is_enough { left - cost } else { left }, at: now };
        is_enough
    }
}

impl Quotas {
    /// Other quotas from now on.
    pub(crate) fn set(&mut self, quota: Quota) {
        *self = Self { quota, refused: self.refused, ..Self::default() };
    }

    pub(crate) fn quota(&self) -> Quota {
        self.quota
    }

    pub(crate) fn refused(&self) -> QuotaCounters {
        self.refused
    }

    /// First packets are limited at all.
    #[inline]
    pub(crate) fn limits_misses(&self) -> bool {
        self.quota.misses_per_second > 0
    }

    /// A first packet of a port may be translated.
    pub(crate) fn admit_miss(&mut self, port: PortNo, now: Timestamp) -> bool {
        let rate = self.quota.misses_per_second;
        let is_admitted = rate == 0 || self.misses.take(port, rate, now);
        self.refused.n_misses += u64::from(!is_admitted);
        is_admitted
    }

    /// A port may make a session, of so many that there are room for.
    #[inline]
    pub(crate) fn admit_session(&mut self, port: PortNo, (n, max): (usize, usize), now: Timestamp) -> bool {
        let rate = self.quota.sessions_per_second;
        if rate == 0 || n < max - max / 8 {
            return true;
        }
        let is_admitted = self.sessions.take(port, rate, now);
        self.refused.n_sessions += u64::from(!is_admitted);
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(n: u32) -> PortNo {
        PortNo::new(n).unwrap()
    }

    #[test]
    fn ports_are_limited_each_by_itself() {
        let mut quotas = Quotas::default();
        let at = |nanos| Timestamp::from_nanos(nanos);
        assert!((0..100_000).all(|n| quotas.admit_miss(port(1), at(n))), "no quota, no limit");
        quotas.set(Quota { misses_per_second: 1000, ..Quota::default() });
        let admitted = |quotas: &mut Quotas, number, from: u64, n: u64| {
            (0..n).filter(|n| quotas.admit_miss(port(number), at(from + n))).count()
        };
        assert_eq!(admitted(&mut quotas, 1, 0, 5000), 1000, "a second's worth at once");
        assert_eq!(admitted(&mut quotas, 2, 5000, 500), 500, "another port has its own");
        assert_eq!(admitted(&mut quotas, 1, 500 * 1_000_000, 5000), 500);
        assert_eq!(quotas.refused().n_misses, 4000 + 4500);
    }

    #[test]
    fn sessions_are_limited_only_where_they_are_scarce() {
        let mut quotas = Quotas::default();
        quotas.set(Quota { sessions_per_second: 10, ..Quota::default() });
        let mut admitted = |n_used| {
            (0..100).filter(|_| quotas.admit_session(port(1), (n_used, 800), Timestamp::default())).count()
        };
        assert_eq!((admitted(699), admitted(700), admitted(800)), (100, 10, 0));
    }

    proptest! {
        /// Never more than a second's worth and what the time is worth; never less than what the
        /// time is worth when it is asked for.
        #[test]
        fn a_rate_is_kept(rate in 1_u32..5000, gaps in prop::collection::vec(0_u64..3_000_000, 1..400)) {
            let mut quotas = Quotas::default();
            quotas.set(Quota { misses_per_second: rate, ..Quota::default() });
            let (mut now, mut n) = (0, 0_u64);
            for gap in &gaps {
                now += gap;
                n += u64::from(quotas.admit_miss(port(7), Timestamp::from_nanos(now)));
            }
            let worth = now as f64 / 1e9 * f64::from(rate);
            prop_assert!(n as f64 <= worth * 1.001 + f64::from(rate) + 1.0);
            let wanted = gaps.len() as f64;
            prop_assert!(n as f64 >= wanted.min(f64::from(rate)) - 1.0);
        }
    }
}
