//! A network under load while it changes. `cargo xtask soak --minutes N` runs this for longer, with daemons built for speed, holds it
//! against the goal, and saves what it saw.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::soak::soak;
use ferroflow_tests::{checks, say, scenario};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long, for who wants more; then the goal is to be reached.
const MINUTES: &str = "FERROFLOW_SOAK_MINUTES";
/// A file for what was measured.
const SAVE: &str = "FERROFLOW_SOAK_JSON";
/// The usual run, and how often the controller is killed in it.
const USUAL: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(5));
/// How often it is in a long one.
const RESTART: Duration = Duration::from_secs(30);
/// What memory may grow by in the second half, in percent.
const GOAL: f64 = 1.0;
/// Of the stream so much has to arrive, on a machine that does something else as well.
const MIN_ARRIVED: f64 = 0.5;

#[test]
fn a_network_under_load_changes_and_accounts_for_every_packet() -> Result<()> {
    let name = "a_network_under_load_changes_and_accounts_for_every_packet";
    let minutes = env::var(MINUTES).ok().map(|text| text.parse::<u64>()).transpose().context(MINUTES)?;
    let (duration, restart) = minutes.map_or(USUAL, |minutes| (Duration::from_secs(60 * minutes), RESTART));
    scenario::on_fabric(name, PROBE, |fabric| {
        let account = soak(fabric, duration, restart)?;
        say(&account.text());
        if let Ok(file) = env::var(SAVE) {
            let mut measured = account.json();
            measured["minutes"] = minutes.into();
            measured["load"] = fs::read_to_string("/proc/loadavg")?.split(' ').next().into();
            fs::write(&file, serde_json::to_string_pretty(&measured)? + "\n")?;
        }
        ensure!(account.n_changes > 8 && account.n_restarts > 0, "too little has changed: {account:?}");
        let (n_sent, n_arrived) = account.stream;
        ensure!(n_arrived <= n_sent, "{n_arrived} datagrams of {n_sent}");
        ensure!(n_arrived as f64 >= MIN_ARRIVED * n_sent as f64, "{n_arrived} of {n_sent} arrived");
        for holdings in &account.holdings {
            let (middle, end) = holdings.files;
            ensure!(end <= middle + 8, "{}: {middle} files became {end}", holdings.name);
            if minutes.is_some() {
                let growth = holdings.growth();
                ensure!(growth.abs() <= GOAL, "{}: memory grew by {growth:.2} %", holdings.name);
            }
        }
        checks::telnet_is_blocked(fabric)?;
        checks::ping(fabric, "web-1", "db-2", 56).map(drop)
    })
}
