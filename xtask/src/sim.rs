//! `sim`: controllers, hosts, store and links in one thread from a seed; and random calls of the API.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, show};

/// Worlds where nobody says how many.
const WORLDS: u64 = 1_000;
/// Worlds of each `cargo xtask test`, as far as these seconds go.
const WORLDS_PER_RUN: u64 = 1_000;
const SECONDS_PER_RUN: u64 = 200;
/// Calls of each `cargo xtask test`.
const CALLS_PER_RUN: u64 = 10_000;

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
    /// Worlds at a time; without it, as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<u64>,
    /// Make so many random calls of the API instead.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "hosts", "trace"])]
    calls: Option<u64>,
    /// Have this fault in each world, until one finds it: `unfenced`, for instance (docs/correctness.md lists them).
    #[arg(long, value_name = "FAULT", conflicts_with = "calls")]
    plant: Option<String>,
    /// One planted fault after the other: each has to be found.
    #[arg(long, conflicts_with_all = ["calls", "plant", "seeds", "hosts", "trace"])]
    plants: bool,
    /// Print all that happens.
    #[arg(long)]
    trace: bool,
}

impl Sim {
    pub(crate) fn run(self) -> Result<()> {
        let mut words = vec![format!("--seed={}", self.seed)];
        match self.calls {
            Some(calls) => words.push(format!("--calls={calls}")),
            None if self.plants => words.push("--plants".to_owned()),
            None => words.push(format!("--seeds={}", self.seeds)),
        }
        words.extend(self.plant.map(|plant| format!("--plant={plant}")));
        words.extend(self.hosts.map(|hosts| format!("--hosts={hosts}")));
        words.extend(self.jobs.map(|jobs| format!("--jobs={jobs}")));
        words.extend(self.trace.then(|| "--trace".to_owned()));
        run(&words)
    }
}

/// Has the tests of `simulation` do what each `cargo xtask test` does of it.
pub(crate) fn of_each_test(tests: &mut Command) -> &mut Command {
    let asked = [
        ("FERROFLOW_WORLDS", WORLDS_PER_RUN),
        ("FERROFLOW_WORLD_SECONDS", SECONDS_PER_RUN),
        ("FERROFLOW_CALLS", CALLS_PER_RUN),
    ];
    tests.args(["--package", "simulation"]).envs(asked.map(|(name, number)| (name, number.to_string())))
}

fn run(words: &[String]) -> Result<()> {
    let mut command =
        cargo(&["run", "--quiet", "--profile", "soak", "--package", "simulation", "--bin", "sim", "--"]);
    show(command.args(words), None)
}
