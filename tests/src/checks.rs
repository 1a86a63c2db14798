//! What must hold between the workloads of a [`Fabric`]: each check is one row of the demo's table, and one
//! assertion of the scenarios.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::daemon::{Daemon, Life};
use crate::fabric::{Fabric, HOSTS, WORKLOAD_MTU, Workload};
use crate::probe::Outcome;
use crate::stop;

/// Size of the transfer.
const TRANSFER_LEN: u64 = 64 << 20;
const TRANSFER_LIMIT: Duration = Duration::from_secs(120);
/// Echo requests of one check.
const N_PINGS: u64 = 5;
/// How long a connection attempt may stay without an answer: three SYNs.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
const TELNET: u16 = 23;
const POSTGRES: u16 = 5432;
const TRANSFER_PORT: u16 = 8080;
/// The ACL of the example that forbids telnet.
const NO_TELNET: &str = "switches/db/acls/no-telnet";
/// IPv4 and ICMP headers.
const PING_HEADERS_LEN: u32 = 28;

/// One thing that must hold.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What holds, for the table.
    pub name: &'static str,
    run: fn(&Fabric) -> Result<String>,
}

/// What came of a check.
#[derive(Debug)]
pub struct Row {
    /// What was checked.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What was seen, or why it does not hold.
    pub result: Result<String>,
}

/// All checks, in the order they are made.
pub const CHECKS: &[Check] = &[
    Check { name: "ping the router itself", run: |fabric| ping_router(fabric, "web-1") },
    Check { name: "ping on one host, through the router", run: |fabric| ping(fabric, "web-1", "db-1", 56) },
    Check { name: "ping across hosts (Geneve)", run: |fabric| ping(fabric, "web-1", "web-2", 56) },
    Check { name: "ping across hosts, through the router", run: |fabric| ping(fabric, "db-2", "web-1", 56) },
    Check { name: "ping across hosts, full-size packets", run: full_size_ping },
    Check {
        name: "64 MiB TCP across hosts, SHA-256 equal",
        run: |fabric| transfer(fabric, "web-1", "web-2"),
    },
    Check {
        name: "64 MiB TCP across hosts through the router",
        run: |fabric| transfer(fabric, "db-1", "web-2"),
    },
    Check { name: "telnet to db-1 is blocked, and the drop names its ACL", run: telnet_is_blocked },
    Check { name: "trace says what those packets met", run: trace_agrees },
    Check { name: "every packet of every port is accounted for", run: conservation },
];

impl Check {
    /// Makes the check.
    pub fn run(&self, fabric: &Fabric) -> Row {
        let start = Instant::now();
        let result = stop::check().and_then(|()| (self.run)(fabric));
        Row { name: self.name, took: start.elapsed(), result }
    }
}

/// Makes all checks; the first that does not hold is the error.
///
/// # Errors
/// When a check does not hold.
pub fn all(fabric: &Fabric) -> Result<()> {
    CHECKS.iter().try_for_each(|check| check.run(fabric).result.map(drop).context(check.name))
}

/// Workload `from` gets answers from `to`.
///
/// # Errors
/// When an answer is missing.
pub fn ping(fabric: &Fabric, from: &str, to: &str, payload_len: usize) -> Result<String> {
    ping_address(fabric, from, fabric.workload(to)?.plan.address, payload_len)
}

fn ping_router(fabric: &Fabric, from: &str) -> Result<String> {
    ping_address(fabric, from, fabric.workload(from)?.plan.gateway, 56)
}

fn full_size_ping(fabric: &Fabric) -> Result<String> {
    ping(fabric, "web-1", "web-2", (WORKLOAD_MTU - PING_HEADERS_LEN) as usize)
}

fn ping_address(fabric: &Fabric, from: &str, to: std::net::Ipv4Addr, payload_len: usize) -> Result<String> {
    let workload = fabric.workload(from)?;
    let result = fabric.plan().programs.probe.ping(&workload.netns, to, N_PINGS, payload_len)?;
    ensure!(
        result.n_sent == N_PINGS && result.n_received == N_PINGS,
        "{from} got {} answers of {N_PINGS} from {to}",
        result.n_received
    );
    Ok(format!("{from} → {to}: {N_PINGS}/{N_PINGS}, fastest {:.0} µs", result.rtt_min.as_secs_f64() * 1e6))
}

/// A stream from `from` to `to` arrives whole.
///
/// # Errors
/// When it does not.
pub fn transfer(fabric: &Fabric, from: &str, to: &str) -> Result<String> {
    let (sender, receiver) = (fabric.workload(from)?, fabric.workload(to)?);
    let probe = &fabric.plan().programs.probe;
    let at = (&receiver.netns, receiver.tcp(TRANSFER_PORT));
    let (sent, received) = probe.transfer(&sender.netns, at, TRANSFER_LEN, TRANSFER_LIMIT)?;
    ensure!(sent.len == TRANSFER_LEN && received.len == TRANSFER_LEN, "{} bytes arrived", received.len);
    ensure!(sent.sha256 == received.sha256, "sent {} but received {}", sent.sha256, received.sha256);
    let gbps = TRANSFER_LEN as f64 * 8.0 / sent.took.as_secs_f64() / 1e9;
    Ok(format!("{from} → {to}: {gbps:.2} Gbit/s, {}…", received.sha256.get(..12).unwrap_or_default()))
}

/// A forbidden connection gets no answer although somebody listens, an allowed one to the same workload is
/// accepted, and the host's drops name the ACL.
///
/// # Errors
/// When one of these does not hold.
pub fn telnet_is_blocked(fabric: &Fabric) -> Result<String> {
    let (from, to) = (fabric.workload("web-1")?, fabric.workload("db-1")?);
    let probe = &fabric.plan().programs.probe;
    let _listeners = [listen(fabric, to, TELNET)?, listen(fabric, to, POSTGRES)?];
    let host = &fabric.host(to.plan.host_idx).control;
    let before = host.dropped_by(NO_TELNET)?;
    let allowed = probe.connect(&from.netns, to.tcp(POSTGRES), CONNECT_LIMIT)?;
    ensure!(allowed == Outcome::Connected, "port {POSTGRES} of db-1 should accept, but is {allowed:?}");
    let forbidden = probe.connect(&from.netns, to.tcp(TELNET), CONNECT_LIMIT)?;
    ensure!(forbidden == Outcome::Silent, "port {TELNET} of db-1 should be silent, but is {forbidden:?}");
    let after = host.dropped_by(NO_TELNET)?;
    ensure!(after > before, "no drop names {NO_TELNET} (before {before}, after {after})");
    Ok(format!("port {POSTGRES} accepts, port {TELNET} does not; {} dropped by {NO_TELNET}", after - before))
}

/// The connection that the ACL forbids is accepted: the ACL is gone.
///
/// # Errors
/// When it is not accepted.
pub fn telnet_is_open(fabric: &Fabric) -> Result<()> {
    let (from, to) = (fabric.workload("web-1")?, fabric.workload("db-1")?);
    let _listener = listen(fabric, to, TELNET)?;
    let outcome = fabric.plan().programs.probe.connect(&from.netns, to.tcp(TELNET), CONNECT_LIMIT)?;
    ensure!(outcome == Outcome::Connected, "port {TELNET} of db-1 should accept, but is {outcome:?}");
    Ok(())
}

/// A listener inside a workload that is known to accept: the workload itself connects to it first.
///
/// # Errors
/// When it does not come up.
pub fn listen(fabric: &Fabric, workload: &Workload, port: u16) -> Result<Daemon> {
    let at = workload.tcp(port);
    let probe = &fabric.plan().programs.probe;
    let words: Vec<&str> = probe.words.iter().map(String::as_str).collect();
    let address = at.to_string();
    let words = [words.as_slice(), &["tcp-listen", &address]].concat();
    let log = fabric.plan().dir.join("listeners.log");
    let mut daemon = Daemon::start(&workload.netns, &probe.program, &words, &log, Life::WithParent)?;
    stop::wait_for(&format!("a listener at {at}"), Duration::from_secs(5), || {
        daemon.check()?;
        Ok(match probe.connect(&workload.netns, at, Duration::from_secs(1))? {
            Outcome::Connected => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    Ok(daemon)
}

/// What `trace` predicts for the packets of the telnet check is what they met.
fn trace_agrees(fabric: &Fabric) -> Result<String> {
    let (from, to) = (&fabric.workload("web-1")?.plan, &fabric.workload("db-1")?.plan);
    let host = &fabric.host(from.host_idx).control;
    let flow = |port: u16| {
        format!(
            "tcp,dl_src={},dl_dst={},nw_src={},nw_dst={},nw_ttl=64,tp_src=40000,tp_dst={port}",
            from.mac, from.gateway_mac, from.address, to.address
        )
    };
    let allowed = host.trace(from.name, &flow(POSTGRES))?;
    ensure!(allowed.verdict == "forwarded", "port {POSTGRES} was accepted, but trace says {allowed:?}");
    let forbidden = host.trace(from.name, &flow(TELNET))?;
    ensure!(
        forbidden.verdict == "dropped" && forbidden.object == NO_TELNET,
        "{NO_TELNET} blocked port {TELNET}, but trace says {forbidden:?}"
    );
    Ok(format!("port {POSTGRES}: forwarded; port {TELNET}: dropped by {}", forbidden.object))
}

/// As [`conservation`], where not every host has had packets: each gets some first.
///
/// # Errors
/// When web-1 and web-2 do not talk, or a packet is unaccounted for.
pub fn account(fabric: &Fabric) -> Result<()> {
    let [from, to] = ["web-1", "web-2"].map(|name| fabric.workload(name));
    let result = fabric.plan().programs.probe.ping(&from?.netns, to?.plan.address, 3, 56)?;
    ensure!(result.n_received == 3, "web-1 got {} answers of 3 from web-2", result.n_received);
    conservation(fabric).map(drop)
}

/// On every host, each port's received packets were forwarded or dropped with a reason, and the reasons add up.
///
/// # Errors
/// When a packet is unaccounted for.
pub fn conservation(fabric: &Fabric) -> Result<String> {
    let mut said = Vec::new();
    for (host, plan) in fabric.hosts().iter().zip(HOSTS) {
        let ports = host.control.check_conservation().context(plan.name)?;
        let sum = |count: fn(&crate::control::PortCounters) -> u64| ports.iter().map(count).sum::<u64>();
        let (received, dropped) = (sum(|port| port.rx_packets), sum(|port| port.rx_dropped));
        if received == 0 {
            bail!("{}: no packet was counted", plan.name);
        }
        said.push(format!(
            "{}: {received} received = {} forwarded + {dropped} dropped",
            plan.name,
            sum(|port| port.rx_forwarded)
        ));
    }
    Ok(said.join("; "))
}
