//! Marks and rates of what switches forward, as the kernel of the receiver sees them; and how many lines an ACL
//! writes.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{checks, daemon, say, scenario};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// Where datagrams are sent; nobody needs to listen.
const PORT: u16 = 5001;
const PAYLOAD_LEN: usize = 1000;
/// With the headers of UDP, IPv4 and Ethernet.
const FRAME_LEN: usize = PAYLOAD_LEN + 8 + 20 + 14;

fn has_nft(name: &str) -> bool {
    let has = daemon::has_command("nft");
    if !has {
        say(&format!("SKIPPED {name}: there is no `nft`; apt-get install nftables"));
    }
    has
}

/// Counts what a workload's kernel receives and matches `rule`; nothing more happens to it.
fn count(netns: &Netns, rule: &str) -> Result<()> {
    let rules = format!(
        "table ip tally {{ chain seen {{ type filter hook prerouting priority -300; {rule} counter drop; }}; }}"
    );
    command::output(netns.command("nft").arg(rules), SHORT).map(drop)
}

/// How many it has counted since it was asked last.
fn counted(netns: &Netns) -> Result<u64> {
    let text = command::output(netns.command("nft").args(["list", "table", "ip", "tally"]), SHORT)?;
    let n = text.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    command::output(netns.command("nft").args(["delete", "table", "ip", "tally"]), SHORT)?;
    n.and_then(|n| n.parse().ok()).with_context(|| format!("no counter in {text}"))
}

/// Sends `n` datagrams, ten each so many milliseconds; gives how long it took.
fn send(from: &Netns, to: Ipv4Addr, n: usize, pause: Duration) -> Result<Duration> {
    let (start, to) = (Instant::now(), SocketAddrV4::new(to, PORT));
    from.inside(|| -> Result<()> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        for idx in 0..n {
            socket.send_to(&[0; PAYLOAD_LEN], to)?;
            if idx % 10 == 9 {
                thread::sleep(pause);
            }
        }
        Ok(())
    })??;
    Ok(start.elapsed())
}

#[test]
fn packets_leave_with_the_mark_they_are_given() -> Result<()> {
    let name = "packets_leave_with_the_mark_they_are_given";
    if !has_nft(name) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        fabric.control.configure(
            "
            qos-rule add web voice --direction from-lport --priority 10 --dscp 46 \
                --match 'inport == \"web-1\" && udp.dst == 5001'
            qos-rule add db bulk --direction to-lport --priority 10 --dscp 10 --match 'outport == \"db-1\" && udp'
            ",
        )?;
        // On one host and across hosts; the last word has the destination's switch.
        for (from, to, mark) in [
            ("web-1", "web-2", "ef"),
            ("web-1", "db-2", "ef"),
            ("web-1", "db-1", "af11"),
            ("web-2", "db-1", "af11"),
            ("web-2", "web-1", "cs0"),
            ("db-1", "web-1", "cs0"),
        ] {
            let (netns, to_plan) = (&fabric.workload(to)?.netns, fabric.workload(to)?.plan);
            count(netns, &format!("ip dscp {mark} udp dport {PORT}"))?;
            send(&fabric.workload(from)?.netns, to_plan.address, 20, Duration::from_millis(1))?;
            thread::sleep(Duration::from_millis(300));
            let n = counted(netns)?;
            ensure!(n == 20, "{from} to {to}: {n} of 20 with {mark}");
        }
        // TCP goes on without a mark, with right checksums either way.
        checks::transfer(fabric, "web-1", "db-2")?;
        checks::transfer(fabric, "db-2", "web-1")?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn what_is_beyond_the_rate_is_dropped_by_name() -> Result<()> {
    let name = "what_is_beyond_the_rate_is_dropped_by_name";
    if !has_nft(name) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        fabric.control.configure(
            "qos-rule add web slow --direction from-lport --priority 5 --rate 800/80 \
             --match 'inport == \"web-1\" && udp.dst == 5001'",
        )?;
        let object = "switches/web/qos-rules/slow";
        let (all, took) = flood(fabric, "web-1", "db-2")?;
        let (n_sent, n) = all;
        // What the rate and the burst allow in that time, in frames.
        let allowed = (100_000.0 * took.as_secs_f64() + 10_000.0) / FRAME_LEN as f64;
        ensure!((n as f64) <= allowed * 1.05 + 1.0, "{n} of {n_sent} in {took:?}: more than {allowed:.0}");
        ensure!((n as f64) >= allowed * 0.5, "{n} of {n_sent} in {took:?}: far less than {allowed:.0}");
        let dropped = fabric.host(0).control.dropped_by(object)?;
        ensure!(dropped + n == n_sent as u64, "{dropped} dropped and {n} received of {n_sent}");
        // Another rate, and none: nobody else is slower for it.
        fabric.control.configure("qos-rule set slow --rate 8000/8000")?;
        let ((n_sent, n), took) = flood(fabric, "web-1", "db-2")?;
        ensure!(n == n_sent as u64, "{n} of {n_sent} in {took:?}");
        fabric.control.configure("qos-rule del slow")?;
        let ((n_sent, n), took) = flood(fabric, "web-1", "web-2")?;
        ensure!(n == n_sent as u64, "{n} of {n_sent} in {took:?}");
        checks::conservation(fabric).map(drop)
    })
}

/// Seconds that a stream of 4 MiB takes.
fn stream(fabric: &Fabric, from: &str, to: &str) -> Result<f64> {
    const LEN: u64 = 4 << 20;
    let (sender, receiver) = (fabric.workload(from)?, fabric.workload(to)?);
    let at = (&receiver.netns, receiver.tcp(8080));
    let (sent, received) =
        fabric.plan().programs.probe.transfer(&sender.netns, at, LEN, Duration::from_secs(60))?;
    ensure!(received.len == LEN && sent.sha256 == received.sha256, "{} bytes arrived", received.len);
    Ok(received.took.as_secs_f64())
}

#[test]
fn a_workload_keeps_to_its_rate_on_its_way_to_other_hosts() -> Result<()> {
    scenario::on_fabric("a_workload_keeps_to_its_rate_on_its_way_to_other_hosts", PROBE, |fabric| {
        const RATE: f64 = 8e6;
        fabric.control.configure("switch-port set web-1 --qos-max 8M/400k")?;
        // Through the tunnel, to its own switch and through the router: 4 MiB in frames with their headers.
        let wanted = (4 << 20) as f64 * 8.0 / RATE;
        for to in ["web-2", "db-2"] {
            let took = stream(fabric, "web-1", to)?;
            ensure!(took > wanted * 0.93 && took < wanted * 1.4, "to {to}: {took:.2} s, not {wanted:.2} s");
        }
        // Nobody else is slower for it, and what stays on the host does not wait.
        for (from, to) in [("web-1", "db-1"), ("db-1", "web-2"), ("web-2", "web-1")] {
            let took = stream(fabric, from, to)?;
            ensure!(took < wanted / 2.0, "{from} to {to}: {took:.2} s");
        }
        // A restart of the host forgets nothing; without a rate it is as fast as others.
        fabric.restart_with(0, "geneve")?;
        fabric.wait_converged()?;
        let took = stream(fabric, "web-1", "web-2")?;
        ensure!(took > wanted * 0.93, "after a restart: {took:.2} s");
        fabric.control.configure("switch-port set web-1 --qos-max none")?;
        let took = stream(fabric, "web-1", "web-2")?;
        ensure!(took < wanted / 2.0, "without a rate: {took:.2} s");
        checks::conservation(fabric).map(drop)
    })
}

/// Sends a megabyte in two seconds: how many datagrams, how many came, and how long it took.
fn flood(fabric: &Fabric, from: &str, to: &str) -> Result<((usize, u64), Duration)> {
    const N: usize = 1000;
    let (netns, to) = (&fabric.workload(to)?.netns, fabric.workload(to)?.plan.address);
    count(netns, &format!("udp dport {PORT}"))?;
    let took = send(&fabric.workload(from)?.netns, to, N, Duration::from_millis(20))?;
    thread::sleep(Duration::from_millis(300));
    Ok(((N, counted(netns)?), took))
}

#[test]
fn an_acl_writes_as_many_lines_as_it_may() -> Result<()> {
    scenario::on_fabric("an_acl_writes_as_many_lines_as_it_may", PROBE, |fabric| {
        fabric.control.configure(
            "acl add web quiet --direction from-lport --priority 7 --action allow --log --log-name quiet \
             --log-rate 2/3 --match 'inport == \"web-1\" && udp.dst == 5001'",
        )?;
        let netns = &fabric.workload("web-1")?.netns;
        let took = send(netns, fabric.workload("web-2")?.plan.address, 200, Duration::from_millis(50))?;
        thread::sleep(Duration::from_millis(500));
        let log = fs::read_to_string(fabric.plan().dir.join("h1.log")).context("the host's log")?;
        let n = log.lines().filter(|line| line.contains("acl=\"quiet\"")).count();
        let most = 3.0 + 2.0 * took.as_secs_f64() + 1.0;
        ensure!(n >= 3 && (n as f64) <= most, "{n} lines in {took:?}: {log}");
        checks::conservation(fabric).map(drop)
    })
}
