//! Compares the switch with the interpreter, for as many packets as one wants.

#![forbid(unsafe_code)]

use std::{
    io::Write,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use clap::Parser;
use oracle::{
    compare::{Tally, soak_against},
    rules::Features,
};

/// Time between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// Compare the switch with the oracle.
#[derive(Debug, Parser)]
struct Soak {
    /// How many triples of rule set, packet and state of the caches.
    #[arg(long, default_value_t = 1_000_000)]
    triples: u64,
    /// Where to begin; a random place when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only worlds in which connections are tracked.
    #[arg(long)]
    tracking: bool,
}

fn main() -> Result<()> {
    let Soak { triples, seed, tracking } = Soak::parse();
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    });
    let start = Instant::now();
    say(&format!("soak: {triples} triples from seed {seed}"));
    let mut reported = start;
    let wanted = |features: &Features| features.tracking || !tracking;
    let tally = soak_against(seed, triples, &wanted, &|_| {}, |tally| {
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            say(&line(tally, start));
        }
    })?;
    say(&format!("{}: no difference", line(&tally, start)));
    say(&format!("\n{}", tally.coverage));
    Ok(())
}

fn line(tally: &Tally, start: Instant) -> String {
    let Tally { n_rule_sets, n_triples, n_copies, n_told, n_drops, n_cache_hits, .. } = tally;
    let Tally { n_by_caches: [both, megaflows, none], n_by_batch: [single, batched], .. } = tally;
    let Tally { n_choices, n_lost, .. } = tally;
    format!(
        "soak: {:.0} s, {n_triples} triples ({both} with both caches, {megaflows} with megaflows only, {none} \
         without; {single} alone, {batched} in batches), {n_rule_sets} rule sets, of which {n_lost} were given \
         up, {n_copies} copies, {n_told} to controllers, {n_drops} drops, {n_choices} choices, \
         {n_cache_hits} cache hits",
        start.elapsed().as_secs_f64()
    )
}

fn say(line: &str) {
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}
