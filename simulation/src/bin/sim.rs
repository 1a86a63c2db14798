//! The command behind `cargo xtask sim`.
#![forbid(unsafe_code)]

use std::{
    num::NonZero,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum as _};
use simulation::{
    Plant, calls,
    many::{Summary, Worlds},
    parallel::processors,
    world::Counts,
};

/// How often it is said how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

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
    /// Worlds at a time; without it, as many as there are processors.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Make so many random calls of the API instead.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "hosts", "trace"])]
    calls: Option<u64>,
    /// With this fault in each world: one has to find it.
    #[arg(long, value_name = "FAULT", conflicts_with = "calls")]
    plant: Option<Plant>,
    /// One planted fault after the other: each has to be found.
    #[arg(long, conflicts_with_all = ["calls", "plant", "seeds", "hosts", "trace"])]
    plants: bool,
    /// Print all that happens, a world at a time.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match (options.calls, options.plant) {
        (Some(n_calls), _) => options.call(n_calls),
        (None, Some(plant)) => options.find(plant, options.seeds),
        (None, None) if options.plants => options.find_all(),
        (None, None) => options.simulate(),
    };
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Options {
    fn worlds(&self, n: u64) -> Worlds {
        let n_threads = match self.jobs {
            // Of several at a time nobody could read what happens.
            _ if self.trace => 1,
            Some(jobs) => jobs.get(),
            None => processors(),
        };
        let limit = self.limit.map(Duration::from_secs);
        Worlds { seed: self.seed, n, limit, n_threads, hosts: self.hosts, is_shown: self.trace }
    }

    fn simulate(&self) -> bool {
        let (start, mut progress) = (Instant::now(), Progress::new());
        let Summary { counts, failed } = self.worlds(self.seeds).run(|so_far| {
            progress.tell(format_args!("{} worlds, {} failed", so_far.counts.worlds, so_far.failed.len()));
        });
        let Counts { worlds, events, revisions, faults, sent, received, .. } = counts;
        println!(
            "{worlds} worlds, {} s of their time in {:.1} s: {events} events, {revisions} revisions, {faults} faults; \
             packets: {sent} sent, {received} received, {} of {} had to arrive in the end ({} by IPv6, {} by \
             gateways); all was well after {:.2} s at most",
            counts.passed / 1_000_000_000,
            start.elapsed().as_secs_f64(),
            counts.due,
            counts.judged,
            counts.due_ipv6,
            counts.due_by_gateway,
            counts.convergence as f64 / 1e9,
        );
        if !failed.is_empty() {
            eprintln!("seeds that failed: {failed:?}");
        }
        failed.is_empty()
    }

    /// Looks for a planted fault; whether it is found.
    fn find(&self, plant: Plant, n_seeds: u64) -> bool {
        let (name, found) = (plant.name(), self.worlds(n_seeds).find(plant));
        match &found {
            Some((seed, failure)) => {
                println!(
                    "{name}: found in world {}, seed {seed}: {}",
                    seed - self.seed + 1,
                    first_words(failure)
                );
            }
            None => eprintln!("{name}: NOT FOUND in {n_seeds} worlds from seed {} on", self.seed),
        }
        found.is_some()
    }

    fn find_all(&self) -> bool {
        let n_missed =
            Plant::value_variants().iter().filter(|plant| !self.find(**plant, Plant::WORLDS)).count();
        n_missed == 0
    }

    fn call(&self, n_calls: u64) -> bool {
        let (start, mut progress) = (Instant::now(), Progress::new());
        let tell = |counts: &calls::Counts| {
            let rate = counts.calls as f64 / start.elapsed().as_secs_f64();
            progress.tell(format_args!("{} of {n_calls} calls, {rate:.0} a second", counts.calls));
        };
        match calls::run(self.seed, n_calls, self.worlds(0).n_threads, tell) {
            Ok(calls::Counts { calls, written, refused, repeated, strangers, compared }) => {
                let seconds = start.elapsed().as_secs_f64();
                println!(
                    "{calls} calls in {seconds:.1} s, {:.0} a second: {written} changed something, {refused} were refused, \
                     {repeated} were said twice, {strangers} were a stranger's; all was compared {compared} times",
                    calls as f64 / seconds
                );
                true
            }
            Err(failure) => {
                eprintln!("{failure}");
                eprintln!("again: cargo xtask sim --calls 5000 --seed SEED, with the seed named above");
                false
            }
        }
    }
}

/// How far it is, now and then.
struct Progress {
    start: Instant,
    last: Instant,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self { start: now, last: now }
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        if self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            eprintln!("[{:7.1} s] {what}", self.start.elapsed().as_secs_f64());
        }
    }
}

/// The beginning of what is too long for a line.
fn first_words(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
