//! Open vSwitch with DPDK beside us, in turn on one core: a table, and files with the same.
//! `cargo xtask bench --vs-ovs` builds and runs it.
#![forbid(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use benches::{
    compare::{
        pairs::Plan,
        report::{self, Circumstances},
    },
    peer::{
        daemon::N_HUGE_PAGES,
        huge_pages::HugePages,
        package::{Install, check_host},
    },
    workload::list,
};
use clap::Parser;
use ferroflow_tests::{print_line, say, stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Open vSwitch with DPDK beside us.
#[derive(Debug, Parser)]
struct Cli {
    /// Only these workloads, such as `P1,P5`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Turns of each side.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 1.2)]
    seconds: f64,
    /// The core; without, the last one.
    #[arg(long)]
    core: Option<usize>,
    /// Write table, JSON and chart into this folder.
    #[arg(long, value_name = "FOLDER")]
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
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop::flag())).context("cannot handle signals")?;
    }
    let workloads = list::chosen(&cli.only);
    ensure!(!workloads.is_empty(), "no workload is called {}", cli.only.join(", "));
    check_host()?;
    let n_cores = thread::available_parallelism()?.get();
    ensure!(n_cores >= 2, "the comparison needs two cores: one for packets, one for everything else");
    say("getting Open vSwitch with DPDK");
    let install = Install::get()?;
    let program = std::env::current_exe()?.with_file_name("workload");
    let duration = Duration::try_from_secs_f64(cli.seconds).context("not a duration")?;
    let plan =
        Plan { install, program, core: cli.core.unwrap_or(n_cores - 1), n_pairs: cli.pairs.max(1), duration };
    let mut circumstances = Circumstances {
        peer: plan.install.version()?,
        processor: processor(),
        load: (load(), String::new()),
        harness: None,
        n_pairs: plan.n_pairs,
        seconds: cli.seconds,
    };
    let huge_pages = HugePages::reserve(N_HUGE_PAGES)?;
    circumstances.harness = Some(plan.harness()?);
    let mut outcomes = Vec::new();
    let mut failed = Vec::new();
    for workload in workloads {
        say(&format!("{:<11} {}", workload.id, workload.title));
        match plan.compare(workload) {
            Ok(outcome) => {
                say(&format!(
                    "            {}",
                    report::table(std::slice::from_ref(&outcome)).lines().last().unwrap_or_default()
                ));
                outcomes.push(outcome);
            }
            Err(error) => {
                stop::check()?;
                say(&format!("            failed: {error:#}"));
                failed.push(workload.id);
            }
        }
    }
    drop(huge_pages);
    circumstances.load.1 = load();
    print_line(&report::markdown(&circumstances, &outcomes))?;
    if let Some(folder) = &cli.save {
        report::save(folder, &circumstances, &outcomes)?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// Processes that wanted a core in the last minute, on average.
fn load() -> String {
    let text = fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}
