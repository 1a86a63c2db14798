//! One workload on our switch. Prints a line of JSON for each measurement: as many as asked
//! for, or one for each line on standard input, which says how many seconds.
#![forbid(unsafe_code)]

use std::{
    io::{self, BufRead, Write},
    time::Duration,
};

use anyhow::{Context, Result};
use benches::workload::{list, rig::Rig};
use clap::Parser;

/// One workload on our switch.
#[derive(Debug, Parser)]
struct Cli {
    /// Its id, as `cargo xtask bench --vs-ovs` prints it.
    id: String,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measurements.
    #[arg(long, default_value_t = 3)]
    windows: u32,
    /// Generator and sink alone.
    #[arg(long)]
    harness: bool,
    /// Neither time nor rate: this many batches to warm up and as many that count, the same in every run, for
    /// valgrind.
    #[arg(long, num_args = 2, value_names = ["WARM", "COUNTED"])]
    rehearse: Option<Vec<u32>>,
    /// Measure for as many seconds as each line of standard input says.
    #[arg(long)]
    serve: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let workload = list::find(&cli.id).with_context(|| format!("there is no workload {}", cli.id))?;
    let mut rig = Rig::new(workload)?;
    if let Some([n_warm, n_counted]) = cli.rehearse.as_deref() {
        println!("{}", rig.rehearse(*n_warm, *n_counted));
        return Ok(());
    }
    if !cli.harness {
        rig.warm_up();
    }
    let mut measure = |seconds: f64| -> Result<()> {
        let duration = Duration::try_from_secs_f64(seconds).context("not a duration")?;
        let window = if cli.harness { rig.measure_harness(duration)? } else { rig.measure(duration)? };
        let mut out = io::stdout().lock();
        writeln!(out, "{}", window.to_json())?;
        Ok(out.flush()?)
    };
    if !cli.serve {
        return (0..cli.windows).try_for_each(|_| measure(cli.seconds));
    }
    println!("ready");
    for line in io::stdin().lock().lines() {
        measure(line?.trim().parse().context("not a number of seconds")?)?;
    }
    Ok(())
}
