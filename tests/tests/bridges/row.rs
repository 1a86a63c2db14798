//! A switch and a peer that becomes a bridge, between two hosts.
//!
//! ```text
//!   PREFIX-left         PREFIX-switch                  PREFIX-peer          PREFIX-right
//!   eth0 10.0.0.1 ----- left | l1 ======== p1 | right ----- eth0 10.0.0.2
//!                     vswitchd l2 ======== p2 | bridge
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::{command, scenario, stop};

use crate::switch::Switch;
use crate::{LIMIT, MTU};

/// Two hosts, and a switch and another bridge between them. Dropping it removes everything.
pub(crate) struct Row {
    // Dropped in this order: what runs ends before what it stands on goes.
    pub(crate) switch: Switch,
    left: Netns,
    #[expect(dead_code, reason = "it answers")]
    right: Netns,
    pub(crate) dir: PathBuf,
    _guard: scenario::Dir,
}

impl Row {
    /// All but what makes the peer a bridge, whose name space is handed out for that.
    fn start(prefix: &str) -> Result<(Self, Netns)> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let [left, switch, peer, right] =
            ["left", "switch", "peer", "right"].map(|part| Netns::create(&format!("{prefix}-{part}")));
        let (left, switch, peer, right) = (left?, switch?, peer?, right?);
        for netns in [&left, &switch, &peer, &right] {
            netns.set_sysctls(&[
                ("net.ipv6.conf.all.disable_ipv6", "1"),
                ("net.ipv6.conf.default.disable_ipv6", "1"),
            ])?;
        }
        netns::link(End::new(&left, "eth0"), End::new(&switch, "left"), MTU)?;
        netns::link(End::new(&switch, "l1"), End::new(&peer, "p1"), MTU)?;
        netns::link(End::new(&switch, "l2"), End::new(&peer, "p2"), MTU)?;
        netns::link(End::new(&right, "eth0"), End::new(&peer, "right"), MTU)?;
        for (netns, address) in [(&left, "10.0.0.1/24"), (&right, "10.0.0.2/24")] {
            netns.ip(&["address", "add", address, "dev", "eth0"])?;
        }
        let switch = Switch::start(switch, &dir, &["--fail-mode", "standalone"])?;
        Ok((Self { switch, left, right, dir, _guard: guard }, peer))
    }

    /// What is to be there when frames may go in circles only by mistake.
    pub(crate) fn add_ports(&self) -> Result<()> {
        self.switch.add_ports(["left", "l1", "l2"])
    }

    /// The left host reaches the right one, sooner or later.
    pub(crate) fn wait_for_ping(&self, limit: Duration) -> Result<()> {
        stop::wait_for("the right host answers", limit, || {
            let mut ping = self.left.command("ping");
            let finished = command::run(ping.args(["-c", "1", "-W", "1", "10.0.0.2"]), LIMIT)?;
            Ok(if finished.status.success() { Ok(()) } else { Err("no answer".to_owned()) })
        })
    }
}

pub(crate) fn on_row(name: &str, scenario: impl FnOnce(&Row, &Netns) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let (mut row, peer) = Row::start(prefix)?;
        let result = scenario(&row, &peer).and_then(|()| row.switch.check());
        result.with_context(|| row.switch.told())
    })
}
