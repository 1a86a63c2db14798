//! Faults of the host, each undone again: the switch goes on by itself, and says what it lost.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Where a pod's switch keeps what outlives it, on a disk of its own that is soon full.
const DISK: &str = "64k";

#[test]
fn a_full_disk_refuses_changes_and_nothing_else() -> Result<()> {
    let name = "a_full_disk_refuses_changes_and_nothing_else";
    scenario::run(name, |prefix| {
        let state = scenario::dir(prefix).join("state");
        // Each daemon has mounts of its own (`ip netns exec`), and this one goes with it.
        let mount = format!(
            "mkdir -p {0} && mount -t tmpfs -o size={DISK},mode=700 none {0} && exec \"$@\"",
            state.display()
        );
        let wrapper = ["sh", "-c", &mount, "sh"].map(str::to_owned);
        let mut pods = Pods::start_as(prefix, &[By::Packet, By::AfXdp], &wrapper, &[])?;
        let result = full_disk(&mut pods, &state).and_then(|()| pods.check().map(drop));
        result.with_context(|| pods.state())
    })
}

fn full_disk(pods: &mut Pods, state: &Path) -> Result<()> {
    recovered(pods, "at first", 1, 2)?;
    // As the daemon sees it.
    let seen = PathBuf::from(format!("/proc/{}/root", pods.daemon.pid())).join(state.strip_prefix("/")?);
    let ballast = seen.join("ballast");
    let mut file = fs::File::create(&ballast)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    pods.host.ip(&["link", "add", "x0", "type", "veth", "peer", "name", "y0"])?;
    pods.host.ip(&["link", "set", "dev", "x0", "up"])?;
    // Both are more than the last block has room for.
    let rules: Vec<String> =
        (1..=200).map(|n| format!("table=9,priority={n},udp,tp_src={n},actions=drop")).collect();
    let add_rules: Vec<&str> = ["flow", "add"].into_iter().chain(rules.iter().map(String::as_str)).collect();
    let refused = |words: &[&str]| -> Result<()> {
        let finished = pods.control.attempt(words)?;
        let complaint = command::complaint(&finished);
        ensure!(!finished.status.success(), "{words:?} is not refused");
        ensure!(complaint.contains("No space left") && complaint.contains("--state-dir"), "{complaint}");
        Ok(())
    };
    refused(&["port", "add", "x0", "--kind", "packet"])?;
    refused(&add_rules)?;
    let n_rules = || -> Result<usize> {
        Ok(pods.control.text(&["flow", "dump"])?.lines().filter(|line| line.contains("table=9")).count())
    };
    ensure!(n_rules()? == 0, "a part of what was refused is there");
    ensure!(pods.control.ports()?.iter().all(|port| port.name != "x0"), "the port is there");
    recovered(pods, "while the disk is full", 1, 2)?;
    drop(file);
    fs::remove_file(&ballast)?;
    pods.control.text(&["port", "add", "x0", "--kind", "packet"])?;
    pods.control.text(&add_rules)?;
    ensure!(n_rules()? == 200, "not all rules are there");
    recovered(pods, "when there is room again", 1, 2)?;
    ensure!(trouble(pods)?.is_empty(), "{}", trouble(pods)?);
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_is_waited_for_under_its_name() -> Result<()> {
    let name = "an_interface_that_is_renamed_is_waited_for_under_its_name";
    on_pods(name, &[By::Packet, By::AfXdp, By::Packet], |pods| {
        for n in [1, 2] {
            recovered(pods, "before", n, 3)?;
            let port = pods.pod(n).port.clone();
            let rename = |from: &str, to: &str| -> Result<()> {
                pods.host.ip(&["link", "set", "dev", from, "down"])?;
                pods.host.ip(&["link", "set", "dev", from, "name", to])?;
                pods.host.ip(&["link", "set", "dev", to, "up"]).map(drop)
            };
            rename(&port, "renamed")?;
            stop::wait_for("the switch waits for the name", LIMIT, || {
                let trouble = trouble(pods)?;
                Ok(if trouble.contains(&port) { Ok(()) } else { Err(format!("errors: {trouble}")) })
            })?;
            rename("renamed", &port)?;
            recovered(pods, "the name is back", n, 3)?;
            ensure!(trouble(pods)?.is_empty(), "{}", trouble(pods)?);
        }
        Ok(())
    })
}

#[test]
fn messages_of_links_that_are_lost_are_made_up_for() -> Result<()> {
    on_pods("messages_of_links_that_are_lost_are_made_up_for", &[By::Packet, By::AfXdp], |pods| {
        recovered(pods, "before", 1, 2)?;
        pods.host.ip(&["link", "add", "x0", "type", "veth", "peer", "name", "y0"])?;
        // More than the kernel keeps for who does not read: then it says that some are lost.
        let (port, batch) = (pods.pod(1).port.clone(), pods.dir.join("batch"));
        let mut lines = String::from("link set dev x0 mtu 1400\nlink set dev x0 mtu 1500\n").repeat(500);
        lines.push_str(&format!("link set dev {port} mtu 1300\n"));
        fs::write(&batch, lines)?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pods.daemon.pid())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
        let done = pods.host.ip(&["-batch", &batch.display().to_string()]);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT)?;
        done?;
        stop::wait_for("the switch knows of the MTU", LIMIT, || {
            let ports = pods.control.text(&["port", "list"])?;
            Ok(if ports.contains(" 1300 ") { Ok(()) } else { Err(ports) })
        })?;
        recovered(pods, "afterwards", 1, 2)
    })
}

#[test]
fn without_memory_a_port_is_refused_and_all_else_goes_on() -> Result<()> {
    on_pods("without_memory_a_port_is_refused_and_all_else_goes_on", &[By::Packet, By::Packet], |pods| {
        recovered(pods, "before", 1, 2)?;
        pods.host.ip(&["link", "add", "x0", "type", "veth", "peer", "name", "y0"])?;
        pods.host.ip(&["link", "set", "dev", "x0", "mtu", "3000", "up"])?;
        let pid = pods.daemon.pid().to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
        let size: u64 = size.context("no VmSize")?.parse()?;
        let limit = |limit: &str| {
            let mut command = std::process::Command::new("prlimit");
            command::output(command.args(["--pid", &pid, &format!("--as={limit}:")]), SHORT).map(drop)
        };
        // Less than the 64 MiB of a memory of long frames, which are more than the allocator has set aside; enough
        // for a few threads.
        limit(&((size + (16 << 10)) << 10).to_string())?;
        let finished = pods.control.attempt(&["port", "add", "x0", "--kind", "afxdp"])?;
        let complaint = command::complaint(&finished);
        ensure!(!finished.status.success(), "the port is attached without memory");
        ensure!(
            complaint.contains("Cannot allocate memory") && complaint.contains("more memory"),
            "{complaint}"
        );
        recovered(pods, "without memory", 1, 2)?;
        limit("unlimited")?;
        pods.control.text(&["port", "add", "x0", "--kind", "afxdp"])?;
        recovered(pods, "with memory again", 1, 2)
    })
}

/// Years ahead, years behind, and back: in seconds.
const STEPS: [i64; 4] = [300_000_000, -300_000_000, 86_400, 0];
const YEAR: i64 = 31_556_952;

#[test]
fn the_clock_is_set_and_nothing_comes_of_it() -> Result<()> {
    let name = "the_clock_is_set_and_nothing_comes_of_it";
    let Some(library) = faketime() else {
        ferroflow_tests::say(&format!(
            "SKIPPED {name}: there is no libfaketime; apt-get install libfaketime"
        ));
        return Ok(());
    };
    scenario::run(name, |prefix| {
        let file = scenario::dir(&format!("{prefix}-clock"));
        let _dir = scenario::Dir::create(&file)?;
        let step = file.join("step");
        fs::write(&step, "+0")?;
        // The clock of the calendar comes from the file; the monotonic one stays the machine's.
        let set = [
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", step.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        let wrapper: Vec<String> = ["env".to_owned()].into_iter().chain(set).collect();
        let mut pods = Pods::start_as(prefix, &[By::Packet, By::AfXdp, By::Packet], &wrapper, &[])?;
        let result = step_the_clock(&pods, &step).and_then(|()| pods.check().map(drop));
        result.with_context(|| pods.state())
    })
}

/// The library that answers for the clock of the calendar.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

fn step_the_clock(pods: &Pods, step: &Path) -> Result<()> {
    for rule in [
        "table=0,priority=9,tcp,actions=ct(table=1)",
        "table=1,priority=2,ct_state=+trk+est,actions=NORMAL",
        "table=1,priority=1,ct_state=+trk+new,tcp,tcp_flags=+syn,actions=ct(commit),NORMAL",
    ] {
        pods.control.text(&["flow", "add", rule])?;
    }
    // A connection that is there all the time; without its entry, its packets are dropped.
    let (client, server) = (&pods.pod(1), &pods.pod(2));
    let listener = server.netns.inside(|| TcpListener::bind((server.address, 0)))??;
    let at = listener.local_addr()?;
    let mut near = client.netns.inside(|| TcpStream::connect_timeout(&at, LIMIT))??;
    let (mut far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(LIMIT))?;
    }
    for (round, seconds) in (1..).zip(STEPS) {
        fs::write(step, format!("{seconds:+}"))?;
        // Another port comes and goes, so that something is written down: with the new date.
        pods.control.text(&["port", "del", "p3"])?;
        pods.control.text(&["port", "add", "p3", "--kind", "packet", "--number", "3"])?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
        let (year, wanted) = (year_of_log(pods)?, 1970 + (now + seconds) / YEAR);
        ensure!((wanted - 1..=wanted + 1).contains(&year), "it writes {year} and not {wanted}");
        let mut byte = [0];
        for _ in 0..20 {
            near.write_all(&[round])?;
            far.read_exact(&mut byte)?;
            far.write_all(&byte)?;
            near.read_exact(&mut byte)?;
            ensure!(byte == [round], "the connection answers {byte:?}");
        }
        recovered(pods, "after a step", 1, 2)?;
        ensure!(trouble(pods)?.is_empty(), "{seconds}: {}", trouble(pods)?);
    }
    let drops = pods.control.drops()?;
    ensure!(drops.is_empty(), "{drops:?}");
    Ok(())
}

/// The year in front of the last line that the switch has logged.
fn year_of_log(pods: &Pods) -> Result<i64> {
    let log = pods.daemon.log_tail(1);
    let year = log.trim().split('-').next().unwrap_or_default();
    year.parse().with_context(|| format!("no date in front of: {log}"))
}
