//! What forwards small frames from veth to veth: ours, DPDK's, Open vSwitch and the kernel's bridge, in turn.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use ferroflow_tests::{
    command,
    scenario::{self, Dir},
    stop,
};
use serde_json::{Value, json};

use super::{
    flood::{self, Flood, NOBODY},
    lab::{ADDRESSES, HOST_ENDS, Lab},
    median,
    paths::{self, Programs},
    stream::Ended,
};
use crate::peer::{
    daemon::{Daemon, Place},
    huge_pages::HugePages,
    package::Install,
};

const MTU: u32 = 1500;
const START_LIMIT: Duration = Duration::from_secs(30);
/// Memory of DPDK's forwarder, in MiB, and huge pages for it.
const MEMORY: &str = "512";
const N_HUGE_PAGES: u64 = 270;
/// Its main thread waits on the workloads' core.
const CORES: [&str; 4] = ["-l", "0,1", "--main-lcore", "1"];
const OVS_CORE: usize = 0;

/// One that forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarder {
    /// DPDK's testpmd, which looks at nothing.
    Testpmd,
    /// Open vSwitch by AF_XDP.
    Ovs,
    /// The kernel's bridge.
    Bridge,
    /// Ours, by its own AF_XDP sockets.
    Own,
    /// Ours, by those of xsk-rs.
    XskRs,
}

const ALL: [Forwarder; 5] =
    [Forwarder::Testpmd, Forwarder::Ovs, Forwarder::Bridge, Forwarder::Own, Forwarder::XskRs];

impl Forwarder {
    fn name(self) -> &'static str {
        match self {
            Self::Testpmd => "testpmd io, net_af_xdp",
            Self::Ovs => "Open vSwitch, afxdp",
            Self::Bridge => "Linux bridge",
            Self::Own => "AF_XDP",
            Self::XskRs => "AF_XDP by xsk-rs",
        }
    }
}

/// What they need.
struct Means<'a> {
    programs: &'a Programs,
    install: Install,
    frames: PathBuf,
}

/// Measures all in turn, `n_rounds` times; a row for each.
pub(super) fn run(
    programs: &Programs,
    (n_rounds, duration): (usize, Duration),
    tell: &dyn Fn(&str),
) -> Result<Vec<Value>> {
    let install = Install::get()?;
    let frames = install.frames()?;
    let means = Means { programs, install, frames };
    let mut floods = vec![Vec::new(); ALL.len()];
    for round in 0..n_rounds {
        for (forwarder, floods) in ALL.iter().zip(&mut floods) {
            let flood = measure(*forwarder, &means, duration)?;
            tell(&format!("P14 round {}: {}: {flood}", round + 1, forwarder.name()));
            floods.push(flood);
        }
    }
    let reference = floods[0].clone();
    Ok(ALL.iter().zip(&floods).map(|(forwarder, own)| row(*forwarder, own, &reference)).collect())
}

fn measure(forwarder: Forwarder, means: &Means<'_>, duration: Duration) -> Result<Flood> {
    let lab = Lab::linked(1, MTU)?;
    let flood = || {
        stop::wait_for("packets pass", START_LIMIT, || {
            let mut ping = lab.workloads[0].command("ping");
            let answered = command::output(ping.args(["-c", "1", "-W", "1", ADDRESSES[1]]), START_LIMIT);
            Ok(answered.map(drop).map_err(|error| format!("{error:#}")))
        })?;
        flood::measure(&lab, &means.frames, duration)
    };
    match forwarder {
        Forwarder::Bridge => {
            paths::bridge(&lab, 0, &HOST_ENDS)?;
            let host = &lab.hosts[0];
            // So that it takes frames from XDP, and knows where they go.
            command::output(host.command("ethtool").args(["-K", HOST_ENDS[0], "gro", "on"]), START_LIMIT)?;
            let words = ["fdb", "replace", NOBODY, "dev", HOST_ENDS[1], "master", "static"];
            command::output(host.command("bridge").args(words), START_LIMIT)?;
            flood()
        }
        Forwarder::Testpmd => {
            let _pages = HugePages::reserve(N_HUGE_PAGES)?;
            let _testpmd = testpmd(&lab, &means.install)?;
            flood()
        }
        Forwarder::Ovs => {
            let _ovs = open_vswitch(&lab, &means.install)?;
            flood()
        }
        Forwarder::Own | Forwarder::XskRs => {
            let backend = if forwarder == Forwarder::Own { "own" } else { "xsk-rs" };
            let dir = scenario::dir(&format!("ffv{}", std::process::id()));
            let _dir = Dir::create(&dir)?;
            let options = ["--standalone", "--busy", "--af-xdp", backend];
            let (mut daemon, control) = paths::switch(&lab, 0, &dir, means.programs, &options)?;
            for (number, name) in (1..).zip(HOST_ENDS) {
                let number = u32::to_string(&number);
                control.text(&["port", "add", name, "--kind", "afxdp", "--number", &number])?;
            }
            let rules = rules();
            let words: Vec<&str> =
                ["flow", "add"].into_iter().chain(rules.iter().map(String::as_str)).collect();
            control.text(&words)?;
            let flood = flood()?;
            daemon.check()?;
            Ok(flood)
        }
    }
}

/// Starts Open vSwitch with the ends of the host by AF_XDP.
pub(super) fn open_vswitch(lab: &Lab, install: &Install) -> Result<Daemon> {
    let ovs = Daemon::start_at(install, OVS_CORE, Place::Inside(lab.hosts[0].name()))?;
    ovs.add_bridge("br0", &[])?;
    for (number, name) in (1..).zip(HOST_ENDS) {
        ovs.add_port("br0", name, number, &["type=afxdp", "options:xdp-mode=native"])?;
    }
    ovs.replace_rules("br0", &rules())?;
    Ok(ovs)
}

fn rules() -> [String; 2] {
    ["in_port=1,actions=output:2", "in_port=2,actions=output:1"].map(str::to_owned)
}

/// Starts DPDK's forwarder between the ends of the host.
fn testpmd(lab: &Lab, install: &Install) -> Result<Ended> {
    let found = install.forwarder()?;
    let mut command: Command = lab.hosts[0].command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&found.program).args(CORES);
    command.args(["-n", "1", "--no-pci", "--in-memory", "-m", MEMORY]);
    for driver in &found.drivers {
        command.arg("-d").arg(driver);
    }
    for (idx, name) in HOST_ENDS.iter().enumerate() {
        command.args(["--vdev", &format!("net_af_xdp{idx},iface={name},busy_budget=0")]);
    }
    command.args(["--", "--nb-cores=1", "--forward-mode=io", "--no-mlockall", "--auto-start"]);
    command.arg("--total-num-mbufs=32768").env("LD_LIBRARY_PATH", &found.libraries);
    // It ends when its input does.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut testpmd = Ended(command.spawn().context("cannot run testpmd")?);
    stop::wait_for("testpmd has its ports", START_LIMIT, || {
        anyhow::ensure!(testpmd.0.try_wait()?.is_none(), "testpmd ended by itself");
        let link = lab.hosts[0].ip(&["link", "show", "dev", HOST_ENDS[1]])?;
        Ok(if link.contains("xdp") { Ok(()) } else { Err("no program on the second".to_owned()) })
    })?;
    Ok(testpmd)
}

/// What was measured of one, and its share of the reference, round by round.
fn row(forwarder: Forwarder, own: &[Flood], reference: &[Flood]) -> Value {
    let rates = || own.iter().map(|flood| flood.mpps);
    let shares: Vec<f64> = own.iter().zip(reference).map(|(own, other)| own.mpps / other.mpps).collect();
    let spread = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        json!({ "median": median(values.to_vec()), "min": least, "max": most })
    };
    json!({
        "id": "P14",
        "what": "60-byte frames from veth to veth",
        "way": forwarder.name(),
        "reference": Forwarder::Testpmd.name(),
        "mpps": spread(&rates().collect::<Vec<_>>()),
        "ratio": spread(&shares),
        "offered_mpps": median(own.iter().map(|flood| flood.offered_mpps).collect()),
        "n_sent_at_80": own.iter().map(|flood| flood.n_sent).sum::<u64>(),
        "n_lost_at_80": own.iter().map(|flood| flood.n_lost).sum::<u64>(),
    })
}

/// The rows as a table for people.
pub(super) fn table(rows: &[Value]) -> String {
    let mut text = String::from(
        "| id | way | Mpps (least to most) | of the reference (least to most) | offered | lost at 80 % of its rate |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let number = |name: &str, part: &str| row[name][part].as_f64().unwrap_or(f64::NAN);
        text.push_str(&format!(
            "| {} | {} | {:.2} ({:.2} to {:.2}) | {:.0} % ({:.0} to {:.0}) | {:.1} | {} of {} |\n",
            row["id"].as_str().unwrap_or_default(),
            row["way"].as_str().unwrap_or_default(),
            number("mpps", "median"),
            number("mpps", "min"),
            number("mpps", "max"),
            100.0 * number("ratio", "median"),
            100.0 * number("ratio", "min"),
            100.0 * number("ratio", "max"),
            row["offered_mpps"].as_f64().unwrap_or(f64::NAN),
            row["n_lost_at_80"],
            row["n_sent_at_80"],
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_same_round_and_losses_are_summed() {
        let flood = |mpps, n_lost| Flood { mpps, offered_mpps: 6.0, n_sent: 100, n_lost };
        let row = row(Forwarder::Own, &[flood(0.9, 1), flood(1.2, 0)], &[flood(1.0, 0), flood(1.0, 0)]);
        let text = table(&[row]);
        let line = "| P14 | AF_XDP | 1.05 (0.90 to 1.20) | 105 % (90 to 120) | 6.0 | 1 of 200 |";
        assert!(text.contains(line), "{text}");
    }
}
