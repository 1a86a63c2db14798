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
/// Rules of a switch that has many, how often it is upgraded and killed, and what that may cost.
const N_RULES: usize = if IS_OPTIMISED { 20_000 } else { 1_000 };
const N_OWN_RULES: usize = 7;
const N_STARTS: usize = 2;
const EVERY_START: Duration = Duration::from_millis(if IS_OPTIMISED { 1500 } else { 3000 });
const START_LIMIT: Duration = Duration::from_millis(if IS_OPTIMISED { 1000 } else { 5000 });
/// File to write what was measured to.
const SAVE: &str = "FERROFLOW_OUTAGES_JSON";

#[test]
fn a_switch_that_is_killed_again_and_again_forgets_no_connection_and_lets_nobody_in() -> Result<()> {
    held("killed_again_and_again", Ports::Veth, killed_again_and_again)
}

#[test]
fn af_xdp_ports_live_on_when_the_switch_is_killed_again_and_again() -> Result<()> {
    held("af_xdp_ports_live_on", Ports::AfXdp, |held| {
        killed_again_and_again(held)?;
        gone_on_with(held)
    })
}

fn killed_again_and_again(held: &mut Held) -> Result<()> {
    let n = scenario::cycles(N_KILLS)?;
    let account = held.endure(Blow::Kill, n, EVERY)?;
    undisturbed(&account)?;
    // Packets that a killed switch has taken are gone with it: batches, not what waits in the kernel.
    ensure!(account.n_lost <= 32 * n as u64, "{} datagrams are lost: {account:#?}", account.n_lost);
    ensure!(account.gaps.len() >= n / 2, "there was time for {} kills only", account.gaps.len());
    within(held, &account, KILL_LIMIT)?;
    held.control.check_conservation().map(drop)
}

/// Each daemon but the first has gone on with the sockets of both ports, and knew of each of their frames.
fn gone_on_with(held: &Held) -> Result<()> {
    let n_begun = held.n_said("us after that")? + held.n_said("upgraded in ")?;
    let n_resumed = held.n_said("AF_XDP sockets of the process before are gone on with")?;
    ensure!(n_resumed >= 2 * n_begun, "{n_resumed} ports are gone on with, by {n_begun} daemons");
    for what in ["cannot be gone on with", "AF_XDP ports will not outlive", "will not outlive this process"] {
        ensure!(held.n_said(what)? == 0, "{what}: {}", held.log_tail(40));
    }
    Ok(())
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
    held("an_upgrade_loses_nothing", Ports::Veth, |held| upgraded_again_and_again(held, N_UPGRADES))
}

#[test]
fn an_upgrade_loses_nothing_of_af_xdp_ports() -> Result<()> {
    held("an_upgrade_of_af_xdp_ports", Ports::AfXdp, |held| {
        upgraded_again_and_again(held, 2 * N_UPGRADES)?;
        gone_on_with(held)
    })
}

fn upgraded_again_and_again(held: &mut Held, n: usize) -> Result<()> {
    let n = scenario::cycles(n)?;
    let account = held.endure(Blow::Upgrade, n, EVERY)?;
    undisturbed(&account)?;
    ensure!(account.n_lost == 0, "{} datagrams are lost", account.n_lost);
    within(held, &account, UPGRADE_LIMIT)?;
    let n_upgrades = account.gaps.len();
    ensure!(n_upgrades >= n / 2, "there was time for {n_upgrades} upgrades only");
    ensure!(held.n_said("upgraded in ")? == n_upgrades, "not every upgrade was one: {}", held.log_tail(30));
    held.control.check_conservation().map(drop)
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

#[test]
fn a_switch_with_thousands_of_rules_is_back_within_a_second() -> Result<()> {
    held("thousands_of_rules", Ports::Veth, |held| {
        held.add_rules(N_RULES)?;
        let n = scenario::cycles(N_STARTS)?;
        let account = held.endure(Blow::Upgrade, n, EVERY_START)?;
        undisturbed(&account)?;
        ensure!(account.n_lost == 0, "{} datagrams are lost", account.n_lost);
        ensure!(held.n_said("upgraded in ")? == account.gaps.len(), "{}", held.log_tail(30));
        let account = held.endure(Blow::Kill, n, EVERY_START)?;
        undisturbed(&account)?;
        let sum = held.control.text(&["flow", "sum"])?;
        ensure!(sum.contains(&format!("flow_count={}", N_RULES + N_OWN_RULES)), "rules are missing: {sum}");
        within(held, &account, START_LIMIT)?;
        held.control.check_conservation().map(drop)
    })
}

#[test]
fn an_upgrade_that_would_lose_connections_is_refused_and_nobody_notices() -> Result<()> {
    held("an_upgrade_that_would_lose", Ports::Veth, |held| {
        let daemon = held.daemon()?;
        held.change_options("--conntrack-max 1000")?;
        held.ask_for_upgrade()?;
        stop::wait_for("the upgrade is refused", Duration::from_secs(60), || {
            let is_refused = held.n_said("another --conntrack-max has another size; it goes on")? > 0
                && held.n_said("the successor has ")? > 0;
            Ok(if is_refused { Ok(()) } else { Err(held.log_tail(5)) })
        })?;
        let account = held.endure(Blow::Nothing, 1, EVERY)?;
        undisturbed(&account)?;
        ensure!(account.n_lost == 0, "{} datagrams are lost", account.n_lost);
        ensure!(held.daemon()? == daemon, "it would lose connections, and took place");
        // With options that fit it takes place.
        held.change_options("")?;
        let account = held.endure(Blow::Upgrade, 1, EVERY)?;
        undisturbed(&account)?;
        ensure!(held.daemon()? != daemon && account.n_lost == 0, "{account:#?}");
        held.control.check_conservation().map(drop)
    })
}

/// Gaps are short. Says how long they were, and writes it down for who wants that.
fn within(held: &Held, account: &Account, limit: Duration) -> Result<()> {
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
    let timeline = held.timeline()?;
    timeline.iter().for_each(|(stage, median)| say(&format!("{:>9} us  {stage} (median)", micros(*median))));
    if let Ok(file) = std::env::var(SAVE) {
        let measured = serde_json::json!({
            "blows": account.gaps.len(),
            "gap_us": { "p50": micros(median), "p99": micros(most), "longest": micros(all) },
            "longest_without_a_blow_us": micros(account.calm),
            "datagrams": { "sent": account.n_sent, "lost": account.n_lost, "forbidden": account.n_forbidden },
            "words": { "said": account.n_words.0, "answered": account.n_words.1 },
            "stream_bytes": account.bulk_len,
            "medians_us": timeline.iter().map(|(stage, median)| (stage.clone(), micros(*median).into())).collect::<serde_json::Map<_, _>>(),
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
