//! A network of ten thousand workloads, compiled by OVN and by us, down to the rules of one host: Debian's databases,
//! ovn-northd, ovn-controller and Open vSwitch on one side, `vswitch-controller` and `vswitchd` on the other. No
//! side has interfaces: theirs has dummy devices, ours memory ports. What is measured are the programs as they are
//! shipped, by the commands that people use.

mod ours;
mod theirs;
mod topology;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub use topology::Topology;

/// How often each change is made.
const N_CHANGES: usize = 10;
/// The host.
const CHASSIS: &str = "ch1";
/// A workload that is on it from the start.
const WORKLOAD: &str = "p0-0";

/// What one turn has measured.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Until the network is compiled, from a stored one.
    central: Cost,
    /// From then on, until the host forwards by it.
    host: Cost,
    n_rules: usize,
    /// Resident memory of all daemons, MiB.
    memory: f64,
    /// Milliseconds until a command returns: one that changes nothing, and those whose change the host has applied
    /// then.
    noop: Vec<f64>,
    port: Vec<f64>,
    acl: Vec<f64>,
    /// A new port and its interface, until it is up.
    workload: Vec<f64>,
}

/// What something takes.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    wall: f64,
    /// Of the daemons, on processors.
    cpu: f64,
}

/// Sides by turns: theirs, ours, theirs…; `tell` gets a line for each turn. `programs` is the folder of our daemons.
///
/// # Errors
/// When a side cannot be measured.
pub fn compare(
    programs: &std::path::Path,
    topology: Topology,
    n_turns: usize,
    tell: &dyn Fn(&str),
) -> Result<Value> {
    let theirs = theirs::Side::get()?;
    let ours = ours::Side { programs: programs.to_owned() };
    let (mut of_theirs, mut of_ours) = (Vec::new(), Vec::new());
    for turn in 1..=n_turns {
        for (name, figures) in [("OVN", &mut of_theirs), ("Ferroflow", &mut of_ours)] {
            let before = load();
            let measured = match name {
                "OVN" => theirs.measure(topology)?,
                _ => ours.measure(topology)?,
            };
            tell(&format!("turn {turn}, load {before}: {}", measured.line(name)));
            figures.push(measured);
        }
    }
    let Topology { n_switches, n_ports, n_acls, n_balancers } = topology;
    Ok(json!({
        "topology": {
            "switches": n_switches, "ports_per_switch": n_ports, "acls": n_acls, "load_balancers": n_balancers,
        },
        "ovn_version": theirs.version,
        "turns": n_turns,
        "load_after": load(),
        "ovn": of_theirs.iter().map(Figures::json).collect::<Vec<_>>(),
        "ferroflow": of_ours.iter().map(Figures::json).collect::<Vec<_>>(),
        "table": table(&of_theirs, &of_ours),
    }))
}

/// Lines of a table in Markdown.
fn table(theirs: &[Figures], ours: &[Figures]) -> Vec<String> {
    type Figure = (&'static str, fn(&Figures) -> f64, usize);
    let rows: [Figure; 9] = [
        ("compiled, from the stored network; s", |of| of.central.wall, 2),
        ("then until the host forwards by it; s", |of| of.host.wall, 2),
        ("both; s", |of| of.central.wall + of.host.wall, 2),
        ("both, on processors; s", |of| of.central.cpu + of.host.cpu, 2),
        ("memory of all daemons; MiB", |of| of.memory, 0),
        ("a command that changes nothing; ms", |of| median(&of.noop), 0),
        ("a port more, applied on the host; ms", |of| median(&of.port), 0),
        ("an ACL more, applied on the host; ms", |of| median(&of.acl), 0),
        ("a port more with its interface, until it is up; ms", |of| median(&of.workload), 0),
    ];
    let of = |figures: &[Figures], figure: fn(&Figures) -> f64| {
        median(&figures.iter().map(figure).collect::<Vec<_>>())
    };
    let mut lines = vec!["| | OVN | Ferroflow | ratio |".to_owned(), "|---|---|---|---|".to_owned()];
    for (name, figure, decimals) in rows {
        let (theirs, ours) = (of(theirs, figure), of(ours, figure));
        lines.push(format!("| {name} | {theirs:.decimals$} | {ours:.decimals$} | {:.1} |", theirs / ours));
    }
    lines
}

impl Figures {
    fn line(&self, name: &str) -> String {
        let Self { central, host, n_rules, memory, .. } = self;
        format!(
            "{name}: compiled in {:.2} s, on the host after {:.2} s more ({:.2} s on processors), {n_rules} rules, {memory:.0} MiB; \
             nothing {:.0} ms, a port {:.0} ms, an ACL {:.0} ms, a workload {:.0} ms",
            central.wall,
            host.wall,
            central.cpu + host.cpu,
            median(&self.noop),
            median(&self.port),
            median(&self.acl),
            median(&self.workload),
        )
    }

    fn json(&self) -> Value {
        json!({
            "compiled_s": self.central.wall, "compiled_cpu_s": self.central.cpu,
            "host_s": self.host.wall, "host_cpu_s": self.host.cpu,
            "rules": self.n_rules, "memory_mib": self.memory,
            "noop_ms": self.noop, "add_port_ms": self.port, "add_acl_ms": self.acl,
            "add_workload_ms": self.workload,
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds that each of some changes takes.
fn timed(n: usize, mut change: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    let one = |n| {
        let start = Instant::now();
        change(n)?;
        Ok(start.elapsed().as_secs_f64() * 1000.0)
    };
    (0..n).map(one).collect()
}

/// Waits until something is so, looking every few milliseconds.
fn wait_until(limit: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        anyhow::ensure!(start.elapsed() < limit, "it takes longer than {} s", limit.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Resident memory of processes, MiB.
fn resident(pids: &[u32]) -> Result<f64> {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
        Ok(kib / 1024.0)
    };
    pids.iter().map(of).sum()
}

/// Seconds that processes have had on processors (proc(5): fields 14 and 15 of stat, in hundredths).
fn cpu(pids: &[u32]) -> Result<f64> {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let rest = text.rsplit_once(')').context("no name")?.1;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
    };
    pids.iter().map(of).sum()
}

/// Processes that wanted a core in the last minute, on average.
fn load() -> String {
    let text = fs::read_to_string(PathBuf::from("/proc/loadavg")).unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
