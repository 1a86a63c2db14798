//! `attack`: six attacks by a workload, and how its neighbour on the same host fares.

use anyhow::Result;
use clap::Args;

use crate::cargo::{cargo, root, show};
use crate::packages::{self, Purpose};

/// Attack a host by one of its workloads, in six ways, and measure what another workload has of it.
///
/// The goal: the other one loses nothing, and 99 of 100 of its questions take at most twice their time.
#[derive(Debug, Args)]
pub(crate) struct Attack {
    /// How long each attack lasts.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// One of them: masks, conntrack, syn, control, fragments, misses.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Packets that the attacker sends in a second.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    rate: u32,
    /// Write what was measured into docs/performance/attacks.json.
    #[arg(long)]
    save: bool,
}

impl Attack {
    pub(crate) fn run(self) -> Result<()> {
        packages::ensure(Purpose::Test, true)?;
        let daemons = ["--package", "vswitchd", "--package", "vswitchctl", "--package", "controller"];
        let programs = ["--package", "ferroflow-tests", "--bins"];
        show(cargo(&["build", "--release"]).args(daemons).args(programs), None)?;
        let mut command =
            cargo(&["test", "--release", "--package", "ferroflow-tests", "--test", "attacks", "--"]);
        command.args(["--exact", "attacks_stay_with_those_who_make_them", "--nocapture"]);
        command.env("FERROFLOW_ATTACK_SECONDS", self.seconds.to_string());
        command.env("FERROFLOW_ATTACK_RATE", self.rate.to_string());
        if let Some(only) = self.only {
            command.env("FERROFLOW_ATTACK_ONLY", only);
        }
        if self.save {
            command.env("FERROFLOW_ATTACK_JSON", root().join("docs/performance/attacks.json"));
        }
        show(&mut command, None)
    }
}
