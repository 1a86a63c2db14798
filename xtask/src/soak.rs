//! `soak`: the switch against the oracle and the compiler against itself, for as long as one wants.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, show};

/// Triples of each `cargo xtask test`: under a minute where the programs are built already.
pub(crate) const PER_RUN: u64 = 1_000_000;
/// Changes of networks of each `cargo xtask test`: under a minute as well, on two cores.
pub(crate) const CHANGES_PER_RUN: u64 = 100_000;

/// Compare the switch with the oracle: random rules, packets and states of the caches. Then compare what is compiled
/// change by change with what is compiled at once: random networks.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How many triples of rule set, packet and state of the caches.
    #[arg(long, value_name = "N", default_value_t = PER_RUN)]
    triples: u64,
    /// How many changes of networks.
    #[arg(long, value_name = "N", default_value_t = 10 * CHANGES_PER_RUN)]
    changes: u64,
    /// Where to begin; each run without it begins elsewhere. A failure names the seed that brings it back.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        if self.triples > 0 {
            run(self.triples, self.seed, None)?;
        }
        if self.changes > 0 {
            changes(self.changes, None)?;
        }
        Ok(())
    }
}

/// Compiles that many changes both ways, until `deadline`.
pub(crate) fn changes(n: u64, deadline: Option<Instant>) -> Result<()> {
    let mut command =
        cargo(&["test", "--quiet", "--profile", "soak", "--package", "ovn-northd-lite", "--lib"]);
    command.args(["--", "compiler::tests::changes"]).env("FERROFLOW_CHANGES", n.to_string());
    show(&mut command, deadline)
}

/// Compares that many, until `deadline`.
pub(crate) fn run(triples: u64, seed: Option<u64>, deadline: Option<Instant>) -> Result<()> {
    let mut command =
        cargo(&["run", "--quiet", "--profile", "soak", "--package", "oracle", "--bin", "soak", "--"]);
    command.args(["--triples", &triples.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    show(&mut command, deadline)
}
