//! The project's commands. Run `cargo xtask help`.
//!
//! One file per command: [`demo`], [`mod@test`], [`mod@bench`], [`mod@attack`], [`mod@soak`], [`ci`], [`tidy`]; beside them what they share: [`packages`] of the
//! host, [`cargo`], [`progress`]. Light on purpose: on a fresh machine this crate is compiled before anything
//! can be said.

#![forbid(unsafe_code)]

mod again;
mod attack;
mod bench;
mod cargo;
mod ci;
mod demo;
mod deny;
mod instructions;
mod packages;
mod progress;
mod sim;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ferroflow_tests::{probe, stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Test(test::Test),
    Soak(soak::Soak),
    Sim(sim::Sim),
    Attack(attack::Attack),
    Bench(bench::Bench),
    Ci(ci::Ci),
    Tidy(tidy::Tidy),
    /// Traffic from within a namespace, for the demo.
    #[command(hide = true)]
    Probe {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            ferroflow_tests::say(&format!("error: {}", progress::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    if let Command::Probe { words } = &cli.command {
        // No handlers: whoever started a probe ends it as it likes.
        return probe::main(words);
    }
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop::flag())).context("cannot handle signals")?;
    }
    match cli.command {
        Command::Demo(demo) => demo.run(),
        Command::Test(test) => test.run(),
        Command::Soak(soak) => soak.run(),
        Command::Sim(sim) => sim.run(),
        Command::Attack(attack) => attack.run(),
        Command::Bench(bench) => bench.run(),
        Command::Ci(ci) => ci.run(),
        Command::Tidy(tidy) => tidy.run(),
        Command::Probe { words } => probe::main(&words),
    }
}
