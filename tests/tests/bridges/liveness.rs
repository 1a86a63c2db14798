//! Whether a link carries: BFD and CFM with Open vSwitch, over a cable that is cut one way and both ways.
//!
//! ```text
//!   PREFIX-switch                   PREFIX-cable          PREFIX-peer
//!   vswitchd | link ----- near | bridge without addresses | far ----- link | Open vSwitch
//! ```

use anyhow::{Context, Result};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::{command, scenario, stop};
use oracle::ovs::package::Package;
use serde_json::Value;

use crate::ovs::OpenVSwitch;
use crate::switch::Switch;
use crate::{LIMIT, MTU};

/// Diagnostics (RFC 5880 §4.1).
const EXPIRED: u64 = 1;
const NEIGHBOUR_DOWN: u64 = 3;

/// Both ends, and the cable between them.
struct Link {
    // Dropped in this order: what runs ends before what it stands on goes.
    ovs: OpenVSwitch,
    switch: Switch,
    cable: Netns,
    peer: Netns,
    _guard: scenario::Dir,
}

impl Link {
    fn start(prefix: &str, package: Package) -> Result<Self> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let [switch, cable, peer] =
            ["switch", "cable", "peer"].map(|part| Netns::create(&format!("{prefix}-{part}")));
        let (switch, cable, peer) = (switch?, cable?, peer?);
        netns::link(End::new(&switch, "link"), End::new(&cable, "near"), MTU)?;
        netns::link(End::new(&cable, "far"), End::new(&peer, "link"), MTU)?;
        cable.ip(&["link", "add", "cable", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"])?;
        for end in ["near", "far"] {
            cable.ip(&["link", "set", end, "master", "cable"])?;
        }
        cable.ip(&["link", "set", "cable", "up"])?;
        let ovs = OpenVSwitch::start(package, &peer, &dir)?;
        let bridge = ["add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev"];
        ovs.vsctl(&peer, &[&bridge[..], &["--", "add-port", "br", "link"]].concat())?;
        let switch = Switch::start(switch, &dir, &["--fail-mode", "standalone"])?;
        switch.add_ports(["link"])?;
        Ok(Self { ovs, switch, cable, peer, _guard: guard })
    }

    /// Whether anything that nobody has asked for by its address gets out at this end of the cable. Those who
    /// watch over links are addressed by addresses that nobody has.
    fn carry(&self, end: &str, carries: bool) -> Result<()> {
        let carries = if carries { "on" } else { "off" };
        let mut bridge = self.cable.command("bridge");
        let kinds = ["flood", "mcast_flood", "bcast_flood"].into_iter().flat_map(|kind| [kind, carries]);
        bridge.args(["link", "set", "dev", end]).args(kinds);
        command::output(&mut bridge, LIMIT).map(drop)
    }

    fn first(&self, list: &str) -> Result<Value> {
        let protocols = self.switch.protocols()?;
        protocols[list].get(0).cloned().with_context(|| format!("no {list} in {protocols}"))
    }

    /// A column of the other end's interface, without quotes.
    fn column(&self, column: &str) -> Result<String> {
        Ok(self.ovs.vsctl(&self.peer, &["get", "interface", "link", column])?.trim().replace('"', ""))
    }
}

fn on_link(name: &str, scenario: impl FnOnce(&Link) -> Result<()>) -> Result<()> {
    let Some(package) = Package::get_or_skip(name)? else { return Ok(()) };
    scenario::run(name, |prefix| {
        let mut link = Link::start(prefix, package)?;
        let result = scenario(&link).and_then(|()| link.switch.check());
        result.with_context(|| link.switch.told())
    })
}

/// Both ends' sessions, until they are so: state and diagnostic of ours, state and diagnostic of theirs.
fn wait_for_sessions(link: &Link, what: &str, ours: (&str, u64), theirs: (&str, &str)) -> Result<()> {
    stop::wait_for(what, LIMIT, || {
        let (session, status) = (link.first("bfd_sessions")?, link.column("bfd_status")?);
        let is_ours = session["state"] == ours.0 && session["diagnostic"] == ours.1;
        let of = |name: &str| {
            let words = status.trim_matches(['{', '}']).split(", ");
            words
                .filter_map(|word| word.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let is_theirs = (of("state"), of("diagnostic")) == (Some(theirs.0), Some(theirs.1));
        Ok(if is_ours && is_theirs { Ok(()) } else { Err(format!("{session}\n{status}")) })
    })
}

#[test]
fn open_vswitchs_bfd_and_ours_know_when_a_link_is_cut_and_which_way() -> Result<()> {
    on_link("open_vswitchs_bfd", |link| {
        let session = ["bfd:enable=true", "bfd:min_tx=100", "bfd:min_rx=100"];
        link.ovs.vsctl(&link.peer, &[&["set", "interface", "link"], &session[..]].concat())?;
        link.switch.set(&["bfd.link.interval=100", "bfd.link.multiplier=3"])?;
        // Theirs remembers why it was down last.
        let both_up = |what: &str, last: &str| wait_for_sessions(link, what, ("up", 0), ("up", last));
        both_up("both are up", "No Diagnostic")?;
        // Each learns by the other's next packet what the other has come to.
        stop::wait_for("both know of each other, at 100 ms", LIMIT, || {
            let session = link.first("bfd_sessions")?;
            // Three are missed of 100 ms each.
            let is_right = session["remote_state"] == "up"
                && session["interval_ms"] == 100
                && session["detection_time_ms"] == 300;
            Ok(if is_right { Ok(()) } else { Err(session.to_string()) })
        })?;
        // What ours says is lost. They notice and say so; who hears that is about to come up again.
        let (expired, signalled) = ("Control Detection Time Expired", "Neighbor Signaled Session Down");
        link.carry("far", false)?;
        wait_for_sessions(link, "theirs notices", ("init", NEIGHBOUR_DOWN), ("down", expired))?;
        link.carry("far", true)?;
        both_up("both are up again", expired)?;
        // The other way.
        link.carry("near", false)?;
        wait_for_sessions(link, "ours notices", ("down", EXPIRED), ("init", signalled))?;
        link.carry("near", true)?;
        both_up("both are up once more", signalled)?;
        // Cut, as with pliers.
        link.cable.ip(&["link", "set", "cable", "down"])?;
        wait_for_sessions(link, "both notice", ("down", EXPIRED), ("down", expired))?;
        link.cable.ip(&["link", "set", "cable", "up"])?;
        both_up("both are up at last", expired)?;
        // One that ends says so; nobody has to wait for silence.
        link.switch.set(&["bfd.link=null"])?;
        stop::wait_for("theirs is down", LIMIT, || {
            let status = link.column("bfd_status")?;
            Ok(if status.contains(" state=down") { Ok(()) } else { Err(status) })
        })
    })
}

/// Faults of our end, and those that the other one tells of.
fn wait_for_faults(link: &Link, what: &str, ours: &[&str], theirs: &str) -> Result<()> {
    stop::wait_for(what, LIMIT, || {
        let (end, status) = (link.first("cfm_ends")?, link.column("cfm_fault_status")?);
        let is_right = end["faults"] == serde_json::json!(ours) && status == theirs;
        Ok(if is_right { Ok(()) } else { Err(format!("{end}\n{status}")) })
    })
}

#[test]
fn open_vswitchs_cfm_and_ours_miss_each_other_and_say_so() -> Result<()> {
    on_link("open_vswitchs_cfm", |link| {
        let end = ["cfm_mpid=2", "other_config:cfm_interval=100"];
        link.ovs.vsctl(&link.peer, &[&["set", "interface", "link"], &end[..]].concat())?;
        link.switch.set(&["cfm.link.id=1", "cfm.link.interval=100"])?;
        wait_for_faults(link, "each hears the other one", &[], "[]")?;
        // Nobody is missed before it was time to hear him.
        stop::wait_for("ours tells of theirs", LIMIT, || {
            let end = link.first("cfm_ends")?;
            let is_heard = end["remotes"][0]["id"] == 2 && end["remotes"][0]["heard"] == true;
            Ok(if is_heard { Ok(()) } else { Err(end.to_string()) })
        })?;
        stop::wait_for("theirs tells of ours", LIMIT, || {
            let heard = link.column("cfm_remote_mpids")?;
            Ok(if heard == "[1]" { Ok(()) } else { Err(heard) })
        })?;
        // Who is not heard is missed, and hears that.
        link.carry("far", false)?;
        wait_for_faults(link, "theirs misses ours", &["remote-defect"], "[recv]")?;
        link.carry("far", true)?;
        wait_for_faults(link, "each hears the other one again", &[], "[]")?;
        link.carry("near", false)?;
        wait_for_faults(link, "ours misses theirs", &["missing"], "[rdi]")?;
        link.carry("near", true)?;
        wait_for_faults(link, "each hears the other one at last", &[], "[]")?;
        // Another association is none that anybody waits for.
        link.switch.set(&["cfm.link.association=other"])?;
        stop::wait_for("that is told", LIMIT, || {
            let (end, status) = (link.first("cfm_ends")?, link.column("cfm_fault_status")?);
            let faults = end["faults"].as_array().cloned().unwrap_or_default();
            let is_right = faults.contains(&"cross-connect".into()) && status.contains("maid");
            Ok(if is_right { Ok(()) } else { Err(format!("{end}\n{status}")) })
        })
    })
}
