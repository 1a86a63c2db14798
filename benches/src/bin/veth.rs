//! Real interfaces, beside the kernel's own bridge and tunnel. `cargo xtask bench --veth` builds
//! and runs it.
#![forbid(unsafe_code)]

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use benches::veth;
use clap::Parser;
use ferroflow_tests::{privilege, say};
use serde_json::json;

/// Streams and pings between containers, by our daemons and by the kernel in turn.
#[derive(Debug, Parser)]
struct Cli {
    /// Only these, such as `P16,P20`.
    #[arg(long)]
    only: Option<String>,
    /// Turns of each way.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a stream.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Write what was measured into this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    anyhow::ensure!(privilege::is_root(), "this makes network namespaces and needs root");
    let duration = Duration::try_from_secs_f64(cli.seconds).context("not a duration")?;
    let own = env::current_exe().context("where is this program?")?;
    let programs = own.parent().context("where is this program?")?;
    let rows = veth::run(programs, cli.only.as_deref(), (cli.rounds, duration), &say)?;
    say(&veth::table(&rows));
    if let Some(path) = cli.save {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let text = serde_json::to_string_pretty(&json!({ "load": load.trim(), "rows": rows }))?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
