//! Two hosts, a router, an ACL: what the demo shows, and what an operator changes while it runs.

#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::{checks, scenario};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");

#[test]
fn everything_the_demo_shows_holds() -> Result<()> {
    scenario::on_fabric("everything_the_demo_shows_holds", PROBE, |fabric| checks::all(fabric))
}

#[test]
fn all_that_holds_over_ipv6_as_well() -> Result<()> {
    scenario::on_fabric("all_that_holds_over_ipv6_as_well", PROBE, |fabric| {
        fabric.restart_over_ipv6()?;
        let tunnels = fabric.host(0).control.text(&["tunnel", "list"])?;
        ensure!(tunnels.contains("fd00:31::2") && !tunnels.contains("172.31.0.2"), "{tunnels}");
        checks::all(fabric)
    })
}

#[test]
fn a_change_is_in_force_when_its_command_returns() -> Result<()> {
    scenario::on_fabric("a_change_is_in_force_when_its_command_returns", PROBE, |fabric| {
        checks::telnet_is_blocked(fabric)?;
        fabric.control.text(&["acl", "del", "db/no-telnet", "--wait"])?;
        checks::telnet_is_open(fabric)?;
        // The file brings back what is missing, and only that.
        fabric.control.apply(&scenario::example())?;
        checks::telnet_is_blocked(fabric)?;
        let before = fabric.host(0).control.status()?;
        fabric.control.apply(&scenario::example())?;
        let after = fabric.host(0).control.status()?;
        ensure!(before == after, "applying the same again changed {before:?} to {after:?}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_port_can_leave_and_come_back() -> Result<()> {
    scenario::on_fabric("a_port_can_leave_and_come_back", PROBE, |fabric| {
        checks::ping(fabric, "web-1", "web-2", 56)?;
        fabric.host(1).control.text(&["port", "del", "web-2"])?;
        ensure!(checks::ping(fabric, "web-1", "web-2", 56).is_err(), "web-2 answers without its port");
        checks::ping(fabric, "web-1", "db-2", 56)?;
        fabric.host(1).control.add_port("web-2", "web-2")?;
        fabric.wait_converged()?;
        reachable(fabric)?;
        // Adding the same again changes nothing.
        fabric.host(1).control.add_port("web-2", "web-2")?;
        reachable(fabric)
    })
}

/// Ports come up on the host before the other host has heard of it.
fn reachable(fabric: &Fabric) -> Result<()> {
    ferroflow_tests::stop::wait_for("web-2 answers", std::time::Duration::from_secs(10), || {
        Ok(checks::ping(fabric, "web-1", "web-2", 56).map(drop).map_err(|error| format!("{error:#}")))
    })
}
