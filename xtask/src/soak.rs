//! `soak`: what has to hold for long: the switch against the oracle, the compiler against itself, a network under load while it
//! changes, and what comes and goes again and again.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, root, show};
use crate::packages::{self, Purpose};

/// Triples of each `cargo xtask test`: under a minute where the programs are built already.
pub(crate) const PER_RUN: u64 = 1_000_000;
/// Changes of networks of each `cargo xtask test`: under a minute as well, on two cores.
pub(crate) const CHANGES_PER_RUN: u64 = 100_000;

/// Compare the switch with the oracle: random rules, packets and states of the caches. Then compare what is compiled
/// change by change with what is compiled at once: random networks. With --minutes or --cycles that is done instead.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How many triples of rule set, packet and state of the caches [default: a million, or none with --minutes or --cycles].
    #[arg(long, value_name = "N")]
    triples: Option<u64>,
    /// How many changes of networks [default: a million, or none with --minutes or --cycles].
    #[arg(long, value_name = "N")]
    changes: Option<u64>,
    /// Two hosts at 70 % of what they carry, for so long, while ports, rules, sets and connections come and go and the controller
    /// is killed. At the end every packet is accounted for, and memory has not grown (± 1 %).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    minutes: Option<u32>,
    /// So many ports, ACLs and members of sets come and go, in a controller and two hosts of one process. From 60 000 on memory is
    /// the same at the end (± 2 %).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    cycles: Option<u64>,
    /// Write what --minutes or --cycles measured into docs/performance.
    #[arg(long)]
    save: bool,
    /// Where to begin; each run without it begins elsewhere. A failure names the seed that brings it back.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

impl Soak {
    pub(crate) fn run(self) -> Result<()> {
        let is_other = self.minutes.is_some() || self.cycles.is_some();
        let usual = |n: u64| if is_other { 0 } else { n };
        let (triples, n_changes) =
            (self.triples.unwrap_or(usual(PER_RUN)), self.changes.unwrap_or(usual(10 * CHANGES_PER_RUN)));
        if triples > 0 {
            run(triples, self.seed, None)?;
        }
        if n_changes > 0 {
            changes(n_changes, None)?;
        }
        if let Some(cycles) = self.cycles {
            self.come_and_go(cycles)?;
        }
        self.minutes.map_or(Ok(()), |minutes| self.traffic(minutes))
    }

    fn come_and_go(&self, cycles: u64) -> Result<()> {
        show(&mut cargo(&["build", "--release", "--package", "vswitch-lab"]), None)?;
        let mut command =
            cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "cycles", "--"]);
        command.arg("--nocapture").env("FERROFLOW_CYCLES", cycles.to_string());
        if self.save {
            command.env("FERROFLOW_CYCLES_JSON", root().join("docs/performance/cycles.json"));
        }
        show(&mut command, None)
    }

    fn traffic(&self, minutes: u32) -> Result<()> {
        packages::ensure(Purpose::Test, true)?;
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "controller"];
        let programs = ["--package", "ferroflow-tests", "--bins"];
        show(cargo(&["build", "--release"]).args(daemons).args(programs), None)?;
        let mut command =
            cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "soak", "--"]);
        command.arg("--nocapture").env("FERROFLOW_SOAK_MINUTES", minutes.to_string());
        if self.save {
            command.env("FERROFLOW_SOAK_JSON", root().join("docs/performance/soak.json"));
        }
        show(&mut command, None)
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
