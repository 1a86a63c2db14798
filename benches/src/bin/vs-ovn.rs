//! Debian's OVN beside us: a network compiled to the rules of a host, by turns. `cargo xtask bench --compile` builds
//! and runs it.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use benches::network::{Topology, compare};
use clap::Parser;
use ferroflow_tests::{print_line, say};

/// Debian's OVN beside us.
#[derive(Debug, Parser)]
struct Cli {
    /// Switches.
    #[arg(long, default_value_t = 100)]
    switches: usize,
    /// Workloads of a switch.
    #[arg(long, default_value_t = 100)]
    ports: usize,
    /// ACLs.
    #[arg(long, default_value_t = 1000)]
    acls: usize,
    /// Load balancers.
    #[arg(long, default_value_t = 500)]
    load_balancers: usize,
    /// Turns of each side.
    #[arg(long, default_value_t = 2)]
    turns: usize,
    /// Write the figures into this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("a program is in a folder")?;
    let topology = Topology {
        n_switches: cli.switches,
        n_ports: cli.ports,
        n_acls: cli.acls,
        n_balancers: cli.load_balancers,
    };
    let figures = compare(programs, topology, cli.turns.max(1), &say)?;
    for line in figures["table"].as_array().into_iter().flatten() {
        print_line(line.as_str().unwrap_or_default())?;
    }
    if let Some(file) = &cli.save {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
