//! `sim`: controllers, hosts, store and links in one thread from a seed; and random calls of the API.

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, show};

/// Worlds where nobody says how many.
const WORLDS: u64 = 1_000;

/// Simulate controllers and hosts that crash, are cut off and come back, a world for each seed; or call the API at random.
#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// How many worlds.
    #[arg(long, value_name = "N", default_value_t = WORLDS)]
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
        run(&words)
    }
}

fn run(words: &[String]) -> Result<()> {
    let mut command =
        cargo(&["run", "--quiet", "--profile", "soak", "--package", "simulation", "--bin", "sim", "--"]);
    show(command.args(words), None)
}
