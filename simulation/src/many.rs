//! Many worlds, each on one of several threads; and the search for what was planted.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    Plant,
    parallel::{self, processors},
    world::{self, Counts, Settings},
};

/// Failures after which there is no point in more of them.
const ENOUGH: usize = 5;

/// Which worlds.
#[derive(Debug, Clone, Copy)]
pub struct Worlds {
    /// The first seed.
    pub seed: u64,
    /// How many.
    pub n: u64,
    /// After so long no more of them begin.
    pub limit: Option<Duration>,
    /// At a time.
    pub n_threads: usize,
    /// Hosts of each; none: as the seed says.
    pub hosts: Option<usize>,
    /// Print all that happens.
    pub is_shown: bool,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Summary {
    /// What was done.
    pub counts: Counts,
    /// Seeds whose worlds failed; when there are five, no more are looked for.
    pub failed: Vec<u64>,
}

impl Worlds {
    /// These seeds, as many at a time as there are processors.
    pub fn of(seed: u64, n: u64) -> Self {
        Self { seed, n, limit: None, n_threads: processors(), hosts: None, is_shown: false }
    }

    /// Simulates them; says of each that fails why, and how to see it again. `tell` hears how far it is.
    pub fn run(&self, mut tell: impl FnMut(&Summary)) -> Summary {
        let (start, mut summary) = (Instant::now(), Summary::default());
        let in_time = |_: &u64| self.limit.is_none_or(|limit| start.elapsed() < limit);
        let work = |seed| world::run(self.settings(seed, None));
        parallel::each(self.seeds().take_while(in_time), self.n_threads, work, |seed, outcome| {
            let failure = match outcome {
                Some(outcome) => {
                    summary.counts += outcome.counts;
                    if self.is_shown {
                        println!("seed {seed}: trace {:016x}", outcome.trace);
                    }
                    outcome.failure
                }
                None => Some("a panic, told above".to_owned()),
            };
            if let Some(failure) = failure {
                let hosts = self.hosts.map(|n| format!(" --hosts {n}")).unwrap_or_default();
                eprintln!("seed {seed}: {failure}");
                eprintln!("again: cargo xtask sim --seeds 1 --seed {seed}{hosts} --trace");
                summary.failed.push(seed);
            }
            tell(&summary);
            if summary.failed.len() < ENOUGH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        summary
    }

    /// Looks for a planted fault: the first seed whose world finds it, and what does not hold there.
    pub fn find(&self, plant: Plant) -> Option<(u64, String)> {
        let mut found = None;
        let work = |seed| world::run(self.settings(seed, Some(plant))).failure;
        parallel::each(self.seeds(), self.n_threads, work, |seed, failure| {
            let failure = failure.unwrap_or_else(|| Some("a panic, told above".to_owned()));
            found = failure.map(|failure| (seed, failure));
            if found.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found
    }

    fn seeds(&self) -> std::ops::Range<u64> {
        self.seed..self.seed.saturating_add(self.n)
    }

    fn settings(&self, seed: u64, plant: Option<Plant>) -> Settings {
        Settings { seed, hosts: self.hosts, is_shown: self.is_shown, plant }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// Set by `cargo xtask test`: how many worlds there are, and for how many seconds at most.
    const WORLDS: &str = "FERROFLOW_WORLDS";
    const SECONDS: &str = "FERROFLOW_WORLD_SECONDS";

    fn asked(name: &str) -> Option<u64> {
        std::env::var(name).ok().map(|number| number.parse().unwrap())
    }

    #[test]
    fn in_all_worlds_holds_what_must_hold() {
        let worlds = Worlds {
            limit: asked(SECONDS).map(Duration::from_secs),
            ..Worlds::of(1, asked(WORLDS).unwrap_or(2))
        };
        let Summary { counts, failed } = worlds.run(|_| ());
        println!("{counts:?}");
        assert_eq!(failed, [0; 0], "seeds that failed");
        assert!(counts.worlds > 0 && counts.due > 0, "{counts:?}");
    }

    #[test]
    fn planted_faults_are_found() {
        // All of them take a while.
        let n_plants = if asked(WORLDS).is_some() { usize::MAX } else { 2 };
        for plant in Plant::value_variants().iter().take(n_plants) {
            let found = Worlds::of(1, Plant::WORLDS).find(*plant);
            println!("{}: {found:?}", plant.name());
            assert!(found.is_some(), "{} is not found in {} worlds", plant.name(), Plant::WORLDS);
        }
    }
}
