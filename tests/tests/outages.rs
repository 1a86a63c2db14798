//! A switch that is killed, or replaced by its next version, while its workloads talk: what they notice of it.
//! The rules know who may talk by connection tracking alone (`ferroflow_tests::outage`).

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::outage::{Account, Blow, Held, Ports, Programs};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{say, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// Blows of a scenario, unless more are wanted (`FERROFLOW_CYCLES`).
const N_KILLS: usize = 20;
const N_UPGRADES: usize = 5;
/// Programs without optimisation take their time to start, and the machine may do other things. What blows cost
/// otherwise is measured by `cargo xtask bench --restart`.
const IS_OPTIMISED: bool = !cfg!(debug_assertions);
/// Between two blows.
const EVERY: Duration = Duration::from_millis(if IS_OPTIMISED { 500 } else { 1500 });
/// What 99 of 100 blows may cost at most.
const KILL_LIMIT: Duration = Duration::from_millis(if IS_OPTIMISED { 50 } else { 1500 });
const UPGRADE_LIMIT: Duration = Duration::from_millis(if IS_OPTIMISED { 5 } else { 250 });
/// File to write what was measured to.
const SAVE: &str = "FERROFLOW_OUTAGES_JSON";

#[test]
fn a_switch_that_is_killed_again_and_again_forgets_no_connection_and_lets_nobody_in() -> Result<()> {
    held("killed_again_and_again", Ports::Veth, |held| {
        let n = scenario::cycles(N_KILLS)?;
        let account = held.endure(Blow::Kill, n, EVERY)?;
        undisturbed(&account)?;
        // Packets that a killed switch has taken are gone with it: batches, not what waits in the kernel.
        ensure!(account.n_lost <= 32 * n as u64, "{} datagrams are lost: {account:#?}", account.n_lost);
        ensure!(account.gaps.len() >= n / 2, "there was time for {} kills only", account.gaps.len());
        within(&account, KILL_LIMIT)?;
        held.control.check_conservation().map(drop)
    })
}

#[test]
fn taps_stay_in_their_containers_when_the_switch_is_killed() -> Result<()> {
    held("taps_stay", Ports::Tap, |held| {
        let account = held.endure(Blow::Kill, scenario::cycles(N_KILLS)? / 4, EVERY)?;
        undisturbed(&account)?;
        held.control.check_conservation().map(drop)
    })
}

#[test]
fn an_upgrade_loses_nothing() -> Result<()> {
    held("an_upgrade_loses_nothing", Ports::Veth, |held| {
        let n = scenario::cycles(N_UPGRADES)?;
        let account = held.endure(Blow::Upgrade, n, EVERY)?;
        undisturbed(&account)?;
        ensure!(account.n_lost == 0, "{} datagrams are lost", account.n_lost);
        within(&account, UPGRADE_LIMIT)?;
        let n_upgrades = account.gaps.len();
        ensure!(n_upgrades >= n / 2, "there was time for {n_upgrades} upgrades only");
        ensure!(
            held.n_said("upgraded in ")? == n_upgrades,
            "not every upgrade was one: {}",
            held.log_tail(30)
        );
        held.control.check_conservation().map(drop)
    })
}

#[test]
fn a_holder_ends_with_its_daemon_when_asked() -> Result<()> {
    held("a_holder_ends", Ports::Veth, |held| {
        let daemon = held.daemon()?;
        let (status, took) = held.holder().stop()?;
        ensure!(status.success() && took < Duration::from_secs(4), "{status} after {took:?}");
        ensure!(!PathBuf::from(format!("/proc/{daemon}")).exists(), "the daemon goes on");
        Ok(())
    })
}

/// Gaps are short. Says how long they were, and writes it down for who wants that.
fn within(account: &Account, limit: Duration) -> Result<()> {
    let micros = |gap: Duration| gap.as_micros() as u64;
    let [median, most, all] = [50, 99, 100].map(|percent| account.percentile(percent));
    say(&format!(
        "{} blows: gap p50 {median:?}, p99 {most:?}, longest {all:?}; longest without a blow {:?}; \
         {} of {} datagrams lost, {} forbidden passed, {:?} words answered, {} MiB of streams",
        account.gaps.len(),
        account.calm,
        account.n_lost,
        account.n_sent,
        account.n_forbidden,
        account.n_words,
        account.bulk_len >> 20,
    ));
    if let Ok(file) = std::env::var(SAVE) {
        let measured = serde_json::json!({
            "blows": account.gaps.len(),
            "gap_us": { "p50": micros(median), "p99": micros(most), "longest": micros(all) },
            "longest_without_a_blow_us": micros(account.calm),
            "datagrams": { "sent": account.n_sent, "lost": account.n_lost, "forbidden": account.n_forbidden },
            "words": { "said": account.n_words.0, "answered": account.n_words.1 },
            "stream_bytes": account.bulk_len,
        });
        std::fs::write(&file, serde_json::to_string_pretty(&measured)? + "\n")?;
    }
    ensure!(most <= limit, "p99 of the gaps is {most:?}, more than {limit:?}");
    Ok(())
}

/// Connections go on, and rules hold.
fn undisturbed(account: &Account) -> Result<()> {
    let (n_words, n_answered) = account.n_words;
    ensure!(
        n_answered == n_words,
        "the TCP connection ended after {n_answered} of {n_words} words: {account:#?}"
    );
    ensure!(account.n_forbidden == 0, "{} forbidden datagrams passed: {account:#?}", account.n_forbidden);
    ensure!(account.bulk_len > 0, "no stream arrived: {account:#?}");
    Ok(())
}

fn held(name: &str, ports: Ports, scenario: impl FnOnce(&mut Held) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let dir = scenario::target_dir()?;
        let probe = Probe { program: PathBuf::from(PROBE), words: Vec::new() };
        let programs = Programs {
            holder: find_program(&dir, "vswitch-holder")?,
            switch: find_program(&dir, "vswitchd")?,
            control: find_program(&dir, "vswitchctl")?,
            probe,
        };
        let mut held = Held::start(prefix, scenario::dir(prefix), programs, ports)?;
        let result = scenario(&mut held).and_then(|()| held.holder().check().or_else(ended));
        result.with_context(|| held.log_tail(40))
    })
}

/// A holder that was asked to end has ended.
fn ended(error: anyhow::Error) -> Result<()> {
    stop::check()?;
    if error.to_string().contains("exit status: 0") { Ok(()) } else { Err(error) }
}
