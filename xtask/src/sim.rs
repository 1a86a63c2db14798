//! `sim`: controllers, hosts, store and links in one thread from a seed; and random calls of the API.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, show};

/// Worlds of each `cargo xtask test`, as many of them as this time is enough for.
pub(crate) const PER_RUN: u64 = 1_000;
const LIMIT: Duration = Duration::from_secs(60);
/// Calls of each `cargo xtask test`: under half a minute.
pub(crate) const CALLS_PER_RUN: u64 = 100_000;

/// Simulate controllers and hosts that crash, are cut off and come back, a world for each seed; or call the API at random.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// How many worlds.
    #[arg(long, value_name = "N", default_value_t = PER_RUN)]
    seeds: u64,
    /// Seed of the first one; the next ones follow.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Hosts of each world; without it, as the seed says, a few.
    #[arg(long, value_name = "N")]
    hosts: Option<u64>,
    /// Make so many random calls of the API instead.
    #[arg(long, value_name = "N")]
    calls: Option<u64>,
    /// Print all that happens.
    #[arg(long)]
    trace: bool,
}

impl Sim {
    pub(crate) fn run(self) -> Result<()> {
        let mut words = vec![format!("--seed={}", self.seed)];
        match self.calls {
            Some(calls) => words.push(format!("--calls={calls}")),
            None => words.push(format!("--seeds={}", self.seeds)),
        }
        words.extend(self.hosts.map(|hosts| format!("--hosts={hosts}")));
        words.extend(self.trace.then(|| "--trace".to_owned()));
        run(&words, None)
    }
}

/// Simulates what each test run simulates, from a seed that no run before had, until `deadline`.
pub(crate) fn worlds(deadline: Option<Instant>) -> Result<()> {
    let seed = format!("--seed={}", fresh());
    run(&[seed, format!("--seeds={PER_RUN}"), format!("--limit={}", LIMIT.as_secs())], deadline)
}

/// Makes the calls of each test run, until `deadline`.
pub(crate) fn calls(deadline: Option<Instant>) -> Result<()> {
    run(&[format!("--seed={}", fresh()), format!("--calls={CALLS_PER_RUN}")], deadline)
}

/// A seed that follows from the time.
fn fresh() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000
}

fn run(words: &[String], deadline: Option<Instant>) -> Result<()> {
    let mut command =
        cargo(&["run", "--quiet", "--profile", "soak", "--package", "simulation", "--bin", "sim", "--"]);
    show(command.args(words), deadline)
}
