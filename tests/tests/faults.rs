//! Faults of the host, each undone again: the switch goes on by itself, and says what it lost.

#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::pods::{By, Pods, on_pods};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{scenario, stop};
use nix::sys::prctl;

/// How long the switch may take to be as before.
const LIMIT: Duration = Duration::from_secs(10);

fn probe() -> Probe {
    Probe { program: env!("CARGO_BIN_EXE_ff-probe").into(), words: Vec::new() }
}

fn answers(pods: &Pods, from: usize, to: usize, len: usize) -> Result<bool> {
    let result = probe().ping(&pods.pod(from).netns, pods.pod(to).address, 1, len)?;
    Ok(result.n_received == 1)
}

/// Waits until two pods reach each other again, both ways.
fn recovered(pods: &Pods, what: &str, a: usize, b: usize) -> Result<()> {
    stop::wait_for(what, LIMIT, || {
        let both = answers(pods, a, b, 56)? && answers(pods, b, a, 56)?;
        Ok(if both { Ok(()) } else { Err(format!("{a} and {b} do not reach each other")) })
    })
}

fn trouble(pods: &Pods) -> Result<String> {
    Ok(pods.control.status()?.errors.join("; "))
}

#[test]
fn links_and_mtus_change_and_all_goes_on() -> Result<()> {
    let name = "links_and_mtus_change_and_all_goes_on";
    on_pods(name, &[By::Packet, By::Tap, By::AfXdp], |pods| {
        recovered(pods, "at first", 1, 2)?;
        recovered(pods, "at first", 1, 3)?;
        for (n, other) in [(1, 2), (2, 1), (3, 1)] {
            // The pod's end three times in a row, then, where there is one, the host's.
            for flap in 0..3 {
                pods.pod(n).netns.ip(&["link", "set", "dev", "eth0", "down"])?;
                ensure!(flap > 0 || !answers(pods, other, n, 56)?, "{n} is down");
                pods.pod(n).netns.ip(&["link", "set", "dev", "eth0", "up"])?;
            }
            recovered(pods, "the pod's link is back", n, other)?;
            if n != 2 {
                let port = pods.pod(n).port.clone();
                pods.host.ip(&["link", "set", "dev", &port, "down"])?;
                ensure!(!answers(pods, other, n, 56)?, "{port} is down");
                pods.host.ip(&["link", "set", "dev", &port, "up"])?;
                recovered(pods, "the port's link is back", n, other)?;
            }
        }
        // What no longer fits is dropped by name, and what fits again passes.
        let mtu = |mtu: &str| -> Result<()> {
            pods.pod(1).netns.ip(&["link", "set", "dev", "eth0", "mtu", mtu])?;
            pods.host.ip(&["link", "set", "dev", "p1", "mtu", mtu]).map(drop)
        };
        mtu("1300")?;
        stop::wait_for("the switch knows of the MTU", LIMIT, || {
            let ports = pods.control.text(&["port", "list"])?;
            Ok(if ports.contains(" 1300 ") { Ok(()) } else { Err(ports) })
        })?;
        ensure!(answers(pods, 2, 1, 1272)? && !answers(pods, 2, 1, 1273)?, "1300 is the limit");
        let drops = pods.control.text(&["drops", "--reason", "too-big"])?;
        ensure!(drops.contains("too-big"), "{drops}");
        mtu("1500")?;
        stop::wait_for("large packets pass", LIMIT, || {
            let passes = answers(pods, 2, 1, 1472)?;
            Ok(if passes { Ok(()) } else { Err("they do not".to_owned()) })
        })
    })
}

#[test]
fn a_namespace_that_is_deleted_takes_its_port_and_brings_it_back() -> Result<()> {
    let name = "a_namespace_that_is_deleted_takes_its_port_and_brings_it_back";
    scenario::run(name, |prefix| {
        let mut pods = Pods::start(prefix, &[By::Packet, By::AfXdp, By::Packet])?;
        let result = come_and_go(&mut pods).and_then(|()| pods.check().map(drop));
        result.with_context(|| pods.state())
    })
}

fn come_and_go(pods: &mut Pods) -> Result<()> {
    for n in [1, 2] {
        recovered(pods, "before", n, 3)?;
        let name = pods.pod(n).netns.name().to_owned();
        let port = pods.pod(n).port.clone();
        netns::remove(&name)?;
        stop::wait_for("the switch waits for the interface", LIMIT, || {
            let trouble = trouble(pods)?;
            Ok(if trouble.contains(&port) { Ok(()) } else { Err(format!("errors: {trouble}")) })
        })?;
        // A namespace and an interface of the same names, and nobody tells the switch.
        let again = Netns::create(&name)?;
        netns::link(End::new(&again, "eth0"), End::new(&pods.host, &port), 1500)?;
        again.ip(&["address", "add", &format!("{}/24", pods.pod(n).address), "dev", "eth0"])?;
        std::mem::replace(&mut pods.pods[n - 1].netns, again).keep();
        pods.pod(3).netns.ip(&["neigh", "flush", "all"])?;
        recovered(pods, "the interface is back", n, 3)?;
        ensure!(trouble(pods)?.is_empty(), "{}", trouble(pods)?);
    }
    Ok(())
}

#[test]
fn a_full_queue_of_the_device_loses_by_name_and_drains() -> Result<()> {
    on_pods("a_full_queue_of_the_device_loses_by_name_and_drains", &[By::Packet, By::Packet], |pods| {
        recovered(pods, "before", 1, 2)?;
        let tc = |words: &[&str]| command::output(pods.host.command("tc").args(words), SHORT).map(drop);
        // So slow a device refuses frames (ENOBUFS).
        tc(&["qdisc", "add", "dev", "p2", "root", "tbf", "rate", "64kbit", "burst", "2kb", "limit", "3000"])?;
        let to = (pods.pod(2).address, 5001);
        pods.pod(1).netns.inside(|| -> Result<()> {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            for _ in 0..300 {
                // The sender's own queue may be full, too.
                let _ = socket.send_to(&[0; 1000], to);
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(())
        })??;
        let drops = pods.control.drops()?;
        let lost = pods.counters(2)?.tx_dropped;
        ensure!(lost > 100, "{lost} were lost: {drops:?}");
        ensure!(drops.iter().any(|drop| drop.reason == "tx-ring-full"), "{drops:?}");
        tc(&["qdisc", "del", "dev", "p2", "root"])?;
        recovered(pods, "the device is fast again", 1, 2)
    })
}

#[test]
fn without_files_or_huge_pages_it_goes_on_with_what_it_has() -> Result<()> {
    let name = "without_files_or_huge_pages_it_goes_on_with_what_it_has";
    scenario::run(name, |prefix| {
        // Few files: some ports more than there are. No huge pages, which is inherited.
        let wrapper = ["prlimit", "--nofile=48:48", "--"].map(str::to_owned);
        prctl::set_thp_disable(true)?;
        let started = Pods::start_as(prefix, &[By::Packet, By::Packet], &wrapper, &[]);
        prctl::set_thp_disable(false)?;
        let mut pods = started?;
        let result = few_files(&mut pods).and_then(|()| pods.check().map(drop));
        result.with_context(|| pods.state())
    })
}

fn few_files(pods: &mut Pods) -> Result<()> {
    recovered(pods, "at first", 1, 2)?;
    let mut names = Vec::new();
    let refusal = loop {
        let name = format!("x{}", names.len());
        pods.host.ip(&[
            "link",
            "add",
            &name,
            "type",
            "veth",
            "peer",
            "name",
            &format!("y{}", names.len()),
        ])?;
        pods.host.ip(&["link", "set", "dev", &name, "up"])?;
        let finished = pods.control.attempt(&["port", "add", &name, "--kind", "packet"])?;
        if !finished.status.success() {
            break command::complaint(&finished);
        }
        names.push(name);
        ensure!(names.len() < 64, "files never ran out");
    };
    ensure!(refusal.contains("Too many open files"), "{refusal}");
    // Those that are there go on, also while there is no file left.
    recovered(pods, "without a file left", 1, 2)?;
    // What is given back can be had again.
    let first = names.first().context("not one port more could be attached")?;
    pods.control.text(&["port", "del", first])?;
    stop::wait_for("a port can be attached again", LIMIT, || {
        let finished = pods.control.attempt(&["port", "add", first, "--kind", "packet"])?;
        Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
    })?;
    recovered(pods, "with files again", 1, 2)?;
    let status = fs::read_to_string(format!("/proc/{}/status", pods.daemon.pid()))?;
    ensure!(status.contains("THP_enabled:\t0"), "it may have huge pages: {status}");
    Ok(())
}
