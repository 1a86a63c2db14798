//! The command behind `cargo xtask sim`.
#![forbid(unsafe_code)]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use simulation::{
    calls,
    world::{self, Counts, Settings},
};

/// Simulate worlds of controllers and hosts, one for each seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Options {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Hosts of each world; without it, as the seed says, a few.
    #[arg(long, value_name = "N")]
    hosts: Option<usize>,
    /// Begin no more worlds after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Make so many random calls of the API instead.
    #[arg(long, value_name = "N")]
    calls: Option<u64>,
    /// Print all that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let Options { seeds, seed, hosts, limit, calls, trace } = Options::parse();
    let start = Instant::now();
    if let Some(n_calls) = calls {
        return call(seed, n_calls, start);
    }
    let mut sum = Counts::default();
    let mut n_failed = 0;
    for seed in seed..seed.saturating_add(seeds) {
        if limit.is_some_and(|limit| start.elapsed() >= Duration::from_secs(limit)) {
            break;
        }
        let outcome = world::run(Settings { seed, hosts, is_shown: trace });
        sum += outcome.counts;
        if trace {
            println!("seed {seed}: trace {:016x}", outcome.trace);
        }
        if let Some(failure) = outcome.failure {
            n_failed += 1;
            let hosts = hosts.map(|n| format!(" --hosts {n}")).unwrap_or_default();
            eprintln!("seed {seed}: {failure}");
            eprintln!("again: cargo xtask sim --seeds 1 --seed {seed}{hosts} --trace");
            if n_failed == 5 {
                break;
            }
        }
    }
    let Counts { worlds, events, revisions, sent, received, judged, due, faults, passed, convergence } = sum;
    println!(
        "{worlds} worlds, {} s of their time in {:.1} s: {events} events, {revisions} revisions, {faults} faults; packets: \
         {sent} sent, {received} received, {due} of {judged} had to arrive in the end; all was well after {:.2} s at most",
        passed / 1_000_000_000,
        start.elapsed().as_secs_f64(),
        convergence as f64 / 1e9,
    );
    if n_failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn call(seed: u64, n_calls: u64, start: Instant) -> ExitCode {
    match calls::run(seed, n_calls) {
        Ok(calls::Counts { calls, written, refused, repeated, compared }) => {
            println!(
                "{calls} calls in {:.1} s: {written} changed something, {refused} were refused, {repeated} were said \
                 twice; all was compared {compared} times",
                start.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            eprintln!("again: cargo xtask sim --calls 5000 --seed SEED, with the seed named above");
            ExitCode::FAILURE
        }
    }
}
