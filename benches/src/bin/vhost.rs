//! A guest's port, beside Open vSwitch's with DPDK. `cargo xtask bench --vhost` builds and runs it.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use benches::{
    guest::{self, Rings},
    peer::{daemon, huge_pages::HugePages, package::Install},
};
use clap::{Parser, ValueEnum};
use ferroflow_tests::{privilege, say, stop};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Packets there and back through a guest's device, by both switches in turn.
#[derive(Debug, Parser)]
struct Cli {
    /// Turns of each side.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of a turn.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How the guest uses its rings; without it, each way in turn.
    #[arg(long)]
    rings: Option<Rings>,
    /// Write what was measured into this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop::flag())).context("cannot handle signals")?;
    }
    ensure!(privilege::is_root(), "this lends huge pages and needs root");
    let n_cores = thread::available_parallelism()?.get();
    ensure!(n_cores >= 2, "this needs two cores: one for the switch, one for the guest");
    let install = Install::get()?;
    let duration = Duration::try_from_secs_f64(cli.seconds).context("not a duration")?;
    let _huge_pages = HugePages::reserve(daemon::N_HUGE_PAGES + guest::N_HUGE_PAGES)?;
    let ways = cli.rings.map_or(Rings::value_variants().to_vec(), |rings| vec![rings]);
    let measure = |rings| -> Result<_> {
        let row = guest::run(&install, (n_cores - 1, rings), (cli.pairs.max(1), duration))?;
        let middle = |side: &str| row[side]["out_mpps_median"].as_f64().unwrap_or(f64::NAN);
        say(&format!(
            "P21 {rings:?} OVS-DPDK {:.2} Mpps, Ferroflow {:.2} Mpps, {:.2}x (median of {} pairs)",
            middle("ovs_dpdk"),
            middle("ferroflow"),
            row["ratio_median"].as_f64().unwrap_or(f64::NAN),
            cli.pairs.max(1)
        ));
        Ok(row)
    };
    let rows = ways.into_iter().map(measure).collect::<Result<Vec<_>>>()?;
    if let Some(path) = cli.save {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let peer = install.version()?;
        let text = serde_json::to_string_pretty(&json!({ "peer": peer, "load": load.trim(), "rows": rows }))?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
