//! Whole workers under load: scaling, latency, idling, flushes, attacks.
//! `cargo xtask bench --workers` builds and runs it.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use benches::workers::{attack, flush, idle, latency, scaling};
use clap::Parser;
use ferroflow_tests::say;
use serde_json::{Value, json};

/// Whole workers under load. Without a choice, everything.
#[derive(Debug, Parser)]
struct Cli {
    /// How rates grow from one worker to two (P19), and what measuring costs.
    #[arg(long)]
    scaling: bool,
    /// How long packets are under way (P17).
    #[arg(long)]
    latency: bool,
    /// What an idle worker costs and how soon it is back (P18).
    #[arg(long)]
    idle: bool,
    /// What is lost when all rules change under load (P13).
    #[arg(long)]
    flush: bool,
    /// What a port under attack does to another one.
    #[arg(long)]
    attack: bool,
    /// Rounds of what is done in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Write what was measured into this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let duration = Duration::try_from_secs_f64(cli.seconds).context("not a duration")?;
    let all = !(cli.scaling || cli.latency || cli.idle || cli.flush || cli.attack);
    let load_before = load();
    let mut results: Vec<Value> = Vec::new();
    let mut tell = |measured: Vec<(String, Value)>| {
        for (line, value) in measured {
            say(&line);
            results.push(value);
        }
    };
    if all || cli.scaling {
        tell(scaling::run(cli.rounds, duration)?);
        tell(vec![scaling::measuring(cli.rounds, duration / 4)?]);
    }
    if all || cli.latency {
        tell(latency::run(duration * 4)?);
    }
    if all || cli.idle {
        tell(vec![idle::run(40 * cli.rounds, duration * 2)?]);
    }
    if all || cli.flush {
        tell(flush::run()?);
    }
    if all || cli.attack {
        tell(attack::run(duration * 2)?);
    }
    let Some(path) = cli.save else { return Ok(()) };
    let value = json!({
        "load": [load_before, load()],
        "rounds": cli.rounds,
        "seconds": cli.seconds,
        "results": results,
    });
    let text = serde_json::to_string_pretty(&value)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What else the machine has to do.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
