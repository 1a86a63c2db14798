//! `test`: every test there is, scenarios in namespaces included.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use ferroflow_tests::{privilege, say};

use crate::again;
use crate::cargo::{cargo, show};
use crate::packages::{self, Purpose};
use crate::progress::Progress;
use crate::{sim, soak};

/// Run every test. As root nothing is skipped.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Without root: run what needs none, and skip the rest.
    #[arg(long)]
    unprivileged: bool,
}

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        run(self.unprivileged, None)
    }
}

/// Runs every test, until `deadline`.
pub(crate) fn run(unprivileged: bool, deadline: Option<Instant>) -> Result<()> {
    let skips = !privilege::is_root();
    if skips {
        say("without root these cannot run: the scenarios of tests/tests, and tests of real AF_XDP ports");
        if !unprivileged {
            bail!("run `cargo xtask test` as root, or skip them with --unprivileged");
        }
    }
    let progress = Progress::start();
    packages::ensure(if skips { Purpose::Build } else { Purpose::Test }, true)?;
    // Scenarios start the programs themselves; `cargo test` alone would not build all of them.
    progress.step("building the programs");
    show(&mut cargo(&["build", "--workspace", "--bins"]), deadline)?;
    progress.step("running the tests");
    let mut tests = cargo(&["test", "--workspace", "--no-fail-fast"]);
    if skips {
        tests.env(privilege::UNPRIVILEGED, "1");
    } else {
        tests.env_remove(privilege::UNPRIVILEGED);
    }
    let unsteady = again::test(&mut tests, deadline)?;
    progress.step("comparing the switch with the oracle");
    soak::run(soak::PER_RUN, None, deadline)?;
    progress.step("comparing what is compiled change by change with what is compiled at once");
    soak::changes(soak::CHANGES_PER_RUN, deadline)?;
    progress.step("replaying the fuzzing corpus at full speed, simulating controllers and hosts that fail, calling the API at random");
    // In one command, since together they are built once.
    let mut tests = cargo(&["test", "--quiet", "--profile", "soak", "--package", "ferroflow-fuzz"]);
    show(sim::of_each_test(&mut tests), deadline)?;
    for scenario in &unsteady {
        say(&format!("UNSTEADY, failed once and then passed alone: {scenario}"));
    }
    progress.step(if skips {
        "all tests that need no root pass; the others were SKIPPED"
    } else {
        "all tests pass"
    });
    Ok(())
}
