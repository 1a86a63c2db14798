//! A stream of TCP, exchanges of a byte and some pings between the workloads of a lab.

use std::{
    fmt,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use ferroflow_tests::{command, netns::Netns};
use serde_json::Value;

use super::{
    lab::{ADDRESSES, Lab},
    rounds::{self, Rounds},
};

/// What was measured of one way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// One stream of TCP, as received.
    pub(super) gbps: f64,
    /// Median time of a ping.
    pub(super) ping_us: f64,
    /// Exchanges of a byte over TCP.
    pub(super) rounds: Rounds,
    pub(super) n_retransmits: u64,
    /// Segments that the receiver found damaged.
    pub(super) n_wrong_checksums: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gbps, ping_us, rounds, n_retransmits, n_wrong_checksums } = self;
        let Rounds { median_us, p99_us } = rounds;
        write!(
            f,
            "{gbps:.1} Gbit/s, {n_retransmits} retransmitted, {n_wrong_checksums} damaged; \
             ping {ping_us:.0} µs; a byte there and back {median_us:.0} µs, p99 {p99_us:.0} µs"
        )
    }
}

/// Ends a process with its guard.
pub(super) struct Ended(pub(super) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both ends of the stream are on the last core, away from the switch.
const CORE: &str = "1";
/// Time for slow start, left out.
const OMIT: &str = "1";

pub(super) fn measure(lab: &Lab, duration: Duration) -> Result<Figures> {
    let [from, to] = &lab.workloads;
    let ping_us = ping(from)?;
    let rounds = rounds::measure(from, to, ADDRESSES[1])?;
    let before = wrong_checksums(to)? + wrong_checksums(from)?;
    let server = ["-c", CORE, "iperf3", "--server", "--one-off", "--bind", ADDRESSES[1]];
    let mut command = to.command("taskset");
    let server =
        command.args(server).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _server = Ended(server.context("cannot run iperf3")?);
    thread::sleep(Duration::from_millis(500));
    let seconds = duration.as_secs().max(1).to_string();
    let client =
        ["-c", CORE, "iperf3", "--client", ADDRESSES[1], "--time", &seconds, "--omit", OMIT, "--json"];
    let text = command::output(from.command("taskset").args(client), duration + Duration::from_secs(20))?;
    let answer: Value = serde_json::from_str(&text)?;
    if let Some(error) = answer["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received =
        answer["end"]["sum_received"]["bits_per_second"].as_f64().context("no rate from iperf3")?;
    Ok(Figures {
        gbps: received / 1e9,
        ping_us,
        rounds,
        n_retransmits: answer["end"]["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        n_wrong_checksums: wrong_checksums(to)? + wrong_checksums(from)? - before,
    })
}

/// The median of a hundred, after the first, for which neighbours are asked.
fn ping(from: &Netns) -> Result<f64> {
    let words = ["-c", "101", "-i", "0.01", "-W", "2", ADDRESSES[1]];
    let text = command::output(from.command("ping").args(words), Duration::from_secs(20))?;
    let times =
        text.lines().filter_map(|line| line.split_once("time=")?.1.split_once(' ')?.0.parse::<f64>().ok());
    let times: Vec<f64> = times.skip(1).map(|millis| millis * 1000.0).collect();
    anyhow::ensure!(times.len() >= 90, "too many pings are lost:\n{text}");
    Ok(super::median(times))
}

fn wrong_checksums(netns: &Netns) -> Result<u64> {
    let text = command::output(netns.command("cat").arg("/proc/net/snmp"), command::SHORT)?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).context("no counters of TCP")?;
    let found =
        names.split_whitespace().zip(values.split_whitespace()).find(|(name, _)| *name == "InCsumErrors");
    Ok(found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}
