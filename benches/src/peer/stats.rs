//! What Open vSwitch says of its polling thread: `dpif-netdev/pmd-stats-show`.

use anyhow::{Context, Result};

use crate::workload::window::shares;

/// Counters of caches, and what we call them.
const CACHES: &[(&str, &str)] = &[
    ("simple match hits", "simple match"),
    ("emc hits", "EMC"),
    ("smc hits", "SMC"),
    ("megaflow hits", "megaflow"),
    ("miss with success upcall", "miss"),
    ("miss with failed upcall", "lost miss"),
    ("packet recirculations", "again"),
];

/// Counters since the last `pmd-stats-clear`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PmdStats {
    /// Packets received.
    pub n_packets: u64,
    /// Cycles of the time stamp counter without a packet.
    pub idle_cycles: u64,
    /// Cycles with packets.
    pub busy_cycles: u64,
    /// Masks that were looked at, per packet that found a megaflow.
    pub lookups_per_hit: f64,
    /// Packets by what answered them.
    pub caches: Vec<(&'static str, u64)>,
}

impl PmdStats {
    /// Reads the thread's part of the answer.
    ///
    /// # Errors
    /// When it is not there.
    pub fn parse(text: &str) -> Result<Self> {
        let start = text.find("pmd thread").context("Open vSwitch has no polling thread")?;
        let part = &text[start..];
        let part = part.find("\nmain thread").map_or(part, |end| &part[..end]);
        let count = |name: &str| value(part, name).and_then(|text| text.parse::<u64>().ok());
        let needed = |name: &str| count(name).with_context(|| format!("no `{name}` in {part}"));
        let lookups = value(part, "avg. subtable lookups per megaflow hit");
        Ok(Self {
            n_packets: needed("packets received")?,
            idle_cycles: count("idle cycles").unwrap_or(0),
            busy_cycles: count("processing cycles").unwrap_or(0),
            lookups_per_hit: lookups.and_then(|text| text.parse().ok()).unwrap_or(0.0),
            caches: CACHES.iter().map(|(name, ours)| (*ours, count(name).unwrap_or(0))).collect(),
        })
    }

    /// All cycles.
    pub fn cycles(&self) -> u64 {
        self.idle_cycles + self.busy_cycles
    }

    /// Misses that were not answered.
    pub fn n_lost(&self) -> u64 {
        self.caches.iter().find(|(name, _)| *name == "lost miss").map_or(0, |(_, n)| *n)
    }

    /// Shares of packets by what answered them.
    pub fn mix(&self) -> Vec<(String, f64)> {
        let mut mix = shares(self.n_packets, self.caches.iter().copied());
        if self.lookups_per_hit > 1.05 {
            mix.push(("masks/hit".to_owned(), self.lookups_per_hit));
        }
        mix
    }
}

/// The first word after `name:`.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    line.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "main thread:\n  packets received: 3\npmd thread numa_id 0 core_id 1:\n  \
        packets received: 1000\n  packet recirculations: 500\n  emc hits: 250\n  megaflow hits: 749\n  \
        avg. subtable lookups per megaflow hit: 10.50\n  miss with success upcall: 1\n  \
        idle cycles: 10 (1.00%)\n  processing cycles: 990 (99.00%)\n";

    #[test]
    fn the_polling_threads_part_is_read() {
        let stats = PmdStats::parse(ANSWER).unwrap();
        assert_eq!((stats.n_packets, stats.cycles(), stats.n_lost()), (1000, 1000, 0));
        let mix = stats.mix();
        assert_eq!(mix[0], ("EMC".to_owned(), 0.25));
        assert_eq!(mix.last(), Some(&("masks/hit".to_owned(), 10.5)));
        assert!(PmdStats::parse("main thread:\n  packets received: 3\n").is_err());
        assert!(PmdStats::parse("pmd thread numa_id 0 core_id 1:\n").is_err());
    }
}
