//! Meters: bounds on the rate of packets or bits, shared by all workers.
//!
//! A meter is part of the [`Tables`](crate::table::Tables) and changes with them; the
//! state of its bands stays when it is changed and the band is not. Each band is a token
//! bucket that starts full, kept as one number: the moment at which the bucket would be
//! full again (the virtual schedule of ITU-T I.371). A packet that fits moves it by the
//! time its size takes at the band's rate. Workers agree by compare-and-swap on that number, so
//! a rate holds for all of them together, without locks.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    flow::RuleStats,
    types::{MeterId, PortNo, Timestamp},
};

/// Steps of a band's clock in a nanosecond: a 64-byte packet at 100 Gbit/s is 327 of
/// them, and 64 bits of them are nine years.
const STEPS_PER_NS: u128 = 64;
/// Input ports with a bucket of their own; beyond, some share one.
const N_PORTS: usize = 1024;

/// What a meter is for, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterConfig {
    /// Its number.
    pub id: MeterId,
    /// What its rates count.
    pub unit: MeterUnit,
    /// Bands have a burst size of their own. Without, a burst is what a second allows.
    pub burst: bool,
    /// Statistics are asked for. They are always kept.
    pub stats: bool,
    /// Its bands; none lets everything pass.
    pub bands: Vec<BandConfig>,
    /// Packets of one input port have at most one part in so many of each band, so that no
    /// port starves the others; 0: as much as there is.
    pub port_share: u32,
}

/// What the rates of a meter count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MeterUnit {
    /// Thousands of bits.
    #[default]
    Kbps,
    /// Packets.
    Pktps,
}

/// A bound, and what happens beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BandConfig {
    /// What happens to packets beyond the rate.
    pub kind: BandKind,
    /// Units per second, at least 1.
    pub rate: u32,
    /// Units that may come at once; 0: as many as a second allows.
    pub burst_size: u32,
}

/// What happens to packets beyond a band's rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BandKind {
    /// They are dropped.
    Drop,
    /// Their drop precedence rises by so many levels (RFC 2597 §6); packets outside of the
    /// assured forwarding classes stay as they are.
    DscpRemark(u8),
}

/// What a meter says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop,
    /// It passes with its drop precedence raised by so many levels.
    Remark(u8),
}

/// A meter in use.
#[derive(Debug, Clone)]
pub struct Meter {
    config: MeterConfig,
    bands: Vec<Arc<BandState>>,
    stats: Arc<RuleStats>,
    born: Timestamp,
}

/// State of a band, shared by all versions of its meter.
#[derive(Debug, Default)]
struct BandState {
    /// When the bucket is full again, in steps.
    full_at: AtomicU64,
    /// The same of each input port, by the end of its number; empty: ports share.
    ports: Box<[AtomicU64]>,
    /// Packets the band was applied to.
    stats: RuleStats,
}

impl Meter {
    /// A meter whose buckets are full. Bands that `old` has just so go on as they are.
    pub(crate) fn new(config: MeterConfig, old: Option<&Self>, now: Timestamp) -> Self {
        let same_unit =
            old.filter(|old| old.config.unit == config.unit && old.config.port_share == config.port_share);
        let n_ports = if config.port_share == 0 { 0 } else { N_PORTS };
        let fresh = || {
            Arc::new(BandState {
                ports: (0..n_ports).map(|_| AtomicU64::default()).collect(),
                ..BandState::default()
            })
        };
        let kept = |idx: usize, band: &BandConfig| {
            let old = same_unit?;
            (old.config.bands.get(idx) == Some(band)).then(|| old.bands.get(idx).cloned())?
        };
        let bands = config
            .bands
            .iter()
            .enumerate()
            .map(|(idx, band)| kept(idx, band).unwrap_or_else(fresh))
            .collect();
        Self {
            bands,
            stats: old.map_or_else(Arc::default, |old| Arc::clone(&old.stats)),
            born: old.map_or(now, |old| old.born),
            config,
        }
    }

    /// As it is configured.
    pub fn config(&self) -> &MeterConfig {
        &self.config
    }

    /// (packets, bytes) that came to it.
    pub fn stats(&self) -> (u64, u64) {
        self.stats.get()
    }

    /// (packets, bytes) that each band was applied to.
    pub fn band_stats(&self) -> Vec<(u64, u64)> {
        self.bands.iter().map(|band| band.stats.get()).collect()
    }

    /// When it was added.
    pub fn born(&self) -> Timestamp {
        self.born
    }

    /// Measures a packet. Of the bands whose rate it exceeds, the one of the highest rate
    /// is applied (OpenFlow 1.5 §5.8.1); the others take it as one that fits.
    pub fn measure(&self, now: Timestamp, in_port: PortNo, n_bytes: u64) -> Verdict {
        self.stats.add(1, n_bytes);
        let mut exceeded: Option<(&BandConfig, &BandState)> = None;
        for (band, state) in self.config.bands.iter().zip(&self.bands) {
            let fits = state.fits(band, &self.config, (now, in_port), n_bytes);
            if !fits && exceeded.is_none_or(|(highest, _)| band.rate > highest.rate) {
                exceeded = Some((band, state));
            }
        }
        let Some((band, state)) = exceeded else { return Verdict::Pass };
        state.stats.add(1, n_bytes);
        match band.kind {
            BandKind::Drop => Verdict::Drop,
            BandKind::DscpRemark(n_levels) => Verdict::Remark(n_levels),
        }
    }
}

impl BandState {
    /// Takes a packet's tokens of its port and of all, if they are there. What a port has
    /// too much of costs the others nothing.
    fn fits(
        &self,
        band: &BandConfig,
        config: &MeterConfig,
        (now, in_port): (Timestamp, PortNo),
        n_bytes: u64,
    ) -> bool {
        let own = self.ports.get(in_port.get() as usize % N_PORTS);
        let part = |whole: u32| if whole == 0 { 0 } else { (whole / config.port_share.max(1)).max(1) };
        let share = BandConfig { rate: part(band.rate), burst_size: part(band.burst_size), ..*band };
        own.is_none_or(|own| take(own, &share, config.unit, now, n_bytes))
            && take(&self.full_at, band, config.unit, now, n_bytes)
    }
}

/// Takes a packet's tokens from a bucket, if they are there.
fn take(full_at: &AtomicU64, band: &BandConfig, unit: MeterUnit, now: Timestamp, n_bytes: u64) -> bool {
    // Both in units that a packet has a whole number of: packets or bits.
    let (size, scale) = match unit {
        MeterUnit::Kbps => (n_bytes.saturating_mul(8), 1000),
        MeterUnit::Pktps => (1, 1),
    };
    let rate = u128::from(band.rate.max(1)) * scale;
    let burst = if band.burst_size == 0 { rate } else { u128::from(band.burst_size) * scale };
    let steps = |units: u128| units * (1_000_000_000 * STEPS_PER_NS) / rate;
    let (size, burst) = (steps(size.into()), steps(burst));
    let now = u128::from(now.nanos()) * STEPS_PER_NS;
    let take = |full_at: u64| {
        let later = u128::from(full_at).max(now) + size;
        (later - now <= burst).then(|| u64::try_from(later).unwrap_or(u64::MAX))
    };
    full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
}

/// DSCP after raising its drop precedence: AFx1 to AFx2 to AFx3.
pub(crate) fn raise_drop_precedence(dscp: u8, n_levels: u8) -> u8 {
    let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
    let is_assured = dscp & 1 == 0 && (1..=4).contains(&class) && precedence != 0;
    if !is_assured {
        return dscp;
    }
    class << 3 | precedence.saturating_add(n_levels).min(3) << 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const PORT: PortNo = PortNo::CONTROLLER;

    #[test]
    fn a_port_has_its_part_and_leaves_the_rest_to_others() {
        let id = MeterId::new(1).unwrap();
        let bands = vec![BandConfig { kind: BandKind::Drop, rate: 100, burst_size: 40 }];
        let config =
            MeterConfig { id, unit: MeterUnit::Pktps, burst: true, stats: true, bands, port_share: 4 };
        let meter = Meter::new(config, None, Timestamp::default());
        let n_passed = |port: u32, from: u64, step: u64, n: u64| {
            let port = PortNo::new(port).unwrap();
            let passes =
                |idx| meter.measure(Timestamp::from_nanos(from + idx * step), port, 64) == Verdict::Pass;
            (0..n).filter(|idx| passes(*idx)).count()
        };
        // A flood gets a quarter; whoever comes later finds the rest.
        assert_eq!(n_passed(1, 0, 0, 1000), 10);
        assert_eq!([2, 3, 4, 5].map(|port| n_passed(port, 0, 0, 11)), [10, 10, 10, 0]);
        // Port 1 goes on for ten seconds at a hundred times its part; port 2 sends 20 a second.
        let flood = n_passed(1, SECOND, SECOND / 2500, 25_000);
        assert!((250..=260).contains(&flood), "{flood}");
        assert_eq!(n_passed(2, 11 * SECOND, SECOND / 20, 100), 100);
    }

    fn meter(unit: MeterUnit, bands: &[(BandKind, u32, u32)]) -> Meter {
        let bands =
            bands.iter().map(|&(kind, rate, burst_size)| BandConfig { kind, rate, burst_size }).collect();
        let id = MeterId::new(1).unwrap();
        Meter::new(
            MeterConfig { id, unit, burst: true, stats: true, bands, port_share: 0 },
            None,
            Timestamp::default(),
        )
    }

    fn n_passed(meter: &Meter, from: u64, step: u64, n: u64, len: u64) -> u64 {
        let passes =
            |idx| meter.measure(Timestamp::from_nanos(from + idx * step), PORT, len) == Verdict::Pass;
        (0..n).map(|idx| u64::from(passes(idx))).sum()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let meter = meter(MeterUnit::Pktps, &[(BandKind::Drop, 100, 10)]);
        assert_eq!(n_passed(&meter, 0, 0, 50, 100), 10);
        // 1000 packets in ten seconds, of which the rate allows all; twice as many: half.
        assert_eq!(n_passed(&meter, SECOND, SECOND / 100, 1000, 100), 1000);
        let passed = n_passed(&meter, 20 * SECOND, SECOND / 200, 2000, 100);
        assert!((1000..=1010).contains(&passed), "{passed}");
        assert_eq!(meter.stats(), (3050, 305_000));
        assert_eq!(meter.band_stats()[0].0, 40 + 2000 - passed);
        // A long pause fills the bucket and no more.
        assert_eq!(n_passed(&meter, 9000 * SECOND, 0, 50, 100), 10);
    }

    #[test]
    fn bits_are_thousands_per_second() {
        // 8000 kbit/s are a million bytes per second.
        let meter = meter(MeterUnit::Kbps, &[(BandKind::Drop, 8000, 80)]);
        assert_eq!(n_passed(&meter, 0, 0, 50, 1000), 10);
        let passed = n_passed(&meter, SECOND, SECOND / 2000, 2000, 1000);
        assert!((1000..=1010).contains(&passed), "{passed}");
        assert_eq!(n_passed(&meter, 90 * SECOND, 0, 1, 20_000), 0, "larger than the bucket");
    }

    #[test]
    fn the_band_of_the_highest_exceeded_rate_is_applied() {
        let bands = [(BandKind::DscpRemark(1), 10, 2), (BandKind::Drop, 10_000, 4)];
        let meter = meter(MeterUnit::Pktps, &bands);
        let verdicts: Vec<_> = (0..6).map(|_| meter.measure(Timestamp::default(), PORT, 1)).collect();
        use Verdict::{Drop, Pass, Remark};
        assert_eq!(verdicts, [Pass, Pass, Remark(1), Remark(1), Drop, Drop]);
        assert_eq!(meter.band_stats(), [(2, 2), (2, 2)]);
    }

    #[test]
    fn workers_share_one_rate() {
        let meter = meter(MeterUnit::Pktps, &[(BandKind::Drop, 1, 1000)]);
        let passed: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| n_passed(&meter, 0, 0, 1000, 1))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
        assert_eq!((meter.stats().0, meter.band_stats()[0].0), (4000, 3000));
    }

    #[test]
    fn an_unchanged_band_goes_on_and_a_changed_one_starts_full() {
        let old = meter(MeterUnit::Pktps, &[(BandKind::Drop, 1, 5), (BandKind::DscpRemark(1), 2, 5)]);
        n_passed(&old, 0, 0, 10, 1);
        let same = Meter::new(old.config().clone(), Some(&old), Timestamp::from_nanos(1));
        assert_eq!(n_passed(&same, 0, 0, 5, 1), 0);
        let mut config = old.config().clone();
        config.bands.truncate(1);
        config.bands[0].burst_size = 3;
        let changed = Meter::new(config, Some(&old), Timestamp::from_nanos(1));
        assert_eq!(n_passed(&changed, 0, 0, 5, 1), 3);
        assert_eq!(changed.stats().0, 20);
    }

    #[test]
    fn no_clock_and_no_size_is_too_large() {
        let meter =
            meter(MeterUnit::Kbps, &[(BandKind::Drop, u32::MAX, u32::MAX), (BandKind::Drop, 1, u32::MAX)]);
        for now in [0, u64::MAX / 64, u64::MAX] {
            meter.measure(Timestamp::from_nanos(now), PORT, u64::MAX);
            meter.measure(Timestamp::from_nanos(now), PORT, 1);
        }
    }

    #[test]
    fn only_assured_forwarding_is_remarked() {
        assert_eq!(raise_drop_precedence(10, 1), 12); // AF11 to AF12
        assert_eq!(raise_drop_precedence(34, 2), 38); // AF41 to AF43
        assert_eq!(raise_drop_precedence(38, 200), 38);
        for other in [0, 8, 46, 56, 11, 40, 42] {
            assert_eq!(raise_drop_precedence(other, 1), other);
        }
    }
}
