//! Daemons that die: the others go on, and whoever comes back finds its way by itself.

#![forbid(unsafe_code)]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::fabric::{Fabric, HOSTS, WORKLOADS};
use ferroflow_tests::{checks, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// A daemon that is asked to end has this long; the harness kills after five seconds.
const STOP_MAX: Duration = Duration::from_secs(4);

#[test]
fn hosts_forward_without_their_controller_and_follow_it_when_it_is_back() -> Result<()> {
    scenario::on_fabric("hosts_forward_without_their_controller", PROBE, |fabric| {
        fabric.controller().context("no controller")?.kill()?;
        checks::transfer(fabric, "web-1", "db-2")?;
        checks::telnet_is_blocked(fabric)?;

        fabric.start_controller()?;
        fabric.wait_converged()?;
        let acls = fabric.control.text(&["acl", "list"])?;
        ensure!(acls.contains("no-telnet"), "the controller has lost its ACL: {acls}");
        checks::all(fabric)?;
        fabric.control.text(&["acl", "del", "db/no-telnet", "--wait"])?;
        checks::telnet_is_open(fabric)
    })
}

#[test]
fn a_killed_switch_comes_back_with_its_ports() -> Result<()> {
    scenario::on_fabric("a_killed_switch_comes_back_with_its_ports", PROBE, |fabric| {
        checks::ping(fabric, "web-1", "web-2", 56)?;
        fabric.switch(0).context("no switch")?.kill()?;
        ensure!(checks::ping(fabric, "web-1", "web-2", 56).is_err(), "somebody forwards for a dead switch");
        nothing_attached(fabric, 0)?;
        back(fabric, 0)
    })
}

#[test]
fn a_switch_ends_when_asked_and_leaves_nothing_attached() -> Result<()> {
    scenario::on_fabric("a_switch_ends_when_asked", PROBE, |fabric| {
        for idx in 0..HOSTS.len() {
            let (status, took) = fabric.switch(idx).context("no switch")?.stop()?;
            ensure!(status.success() && took < STOP_MAX, "vswitchd: {status} after {took:?}");
            nothing_attached(fabric, idx)?;
        }
        let (status, took) = fabric.controller().context("no controller")?.stop()?;
        ensure!(status.success() && took < STOP_MAX, "vswitch-controller: {status} after {took:?}");

        // In the order in which a data centre comes back: any.
        fabric.start_switch(1)?;
        fabric.start_controller()?;
        fabric.start_switch(0)?;
        fabric.wait_converged()?;
        reachable(fabric)?;
        checks::all(fabric)
    })
}

#[test]
fn killed_again_and_again_it_converges() -> Result<()> {
    scenario::on_fabric("killed_again_and_again_it_converges", PROBE, |fabric| {
        for round in 0..3 {
            fabric.switch(round % 2).context("no switch")?.kill()?;
            fabric.controller().context("no controller")?.kill()?;
            fabric.start_controller()?;
            back(fabric, round % 2).with_context(|| format!("round {round}"))?;
        }
        checks::all(fabric)
    })
}

#[test]
fn a_switch_that_comes_back_before_its_controller_forwards_by_what_it_knew() -> Result<()> {
    scenario::on_fabric("a_switch_comes_back_before_its_controller", PROBE, |fabric| {
        fabric.controller().context("no controller")?.kill()?;
        fabric.switch(0).context("no switch")?.kill()?;
        fabric.start_switch(0)?;
        reachable(fabric)?;
        checks::telnet_is_blocked(fabric)?;
        fabric.start_controller()?;
        fabric.wait_converged()?;
        checks::all(fabric)
    })
}

/// Started again, a switch has its ports and its rules without being told.
fn back(fabric: &mut Fabric, idx: usize) -> Result<()> {
    fabric.start_switch(idx)?;
    fabric.wait_converged()?;
    reachable(fabric)?;
    checks::telnet_is_blocked(fabric)?;
    checks::conservation(fabric).map(drop)
}

/// Every workload reaches every other, at the latest when the other host has heard of the restart.
fn reachable(fabric: &Fabric) -> Result<()> {
    for from in WORKLOADS {
        for to in WORKLOADS.iter().filter(|to| to.name != from.name) {
            stop::wait_for("all workloads reach each other", Duration::from_secs(10), || {
                Ok(checks::ping(fabric, from.name, to.name, 56)
                    .map(drop)
                    .map_err(|error| format!("{error:#}")))
            })?;
        }
    }
    Ok(())
}

/// No XDP program outlives its switch. The kernel detaches it after the process has ended.
fn nothing_attached(fabric: &Fabric, idx: usize) -> Result<()> {
    stop::wait_for("XDP programs are gone", Duration::from_secs(5), || {
        let links = fabric.host_netns(idx).ip(&["link", "show"])?;
        Ok(if links.contains("xdp") { Err(links) } else { Ok(()) })
    })
}
