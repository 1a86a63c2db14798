//! The harness itself, on plain Linux: a bridge in the place of the switch. What it calls reachable is
//! reachable, what it calls broken is broken, and nothing stays behind.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::probe::{Outcome, Probe};
use ferroflow_tests::{command, fabric, scenario, stop};

const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

fn probe() -> Probe {
    Probe { program: PathBuf::from(env!("CARGO_BIN_EXE_ff-probe")), words: Vec::new() }
}

/// Two workloads at a Linux bridge.
fn bridged(prefix: &str) -> Result<[Netns; 3]> {
    let switch = Netns::create(&format!("{prefix}-switch"))?;
    switch.ip(&["link", "add", "br0", "type", "bridge"])?;
    switch.ip(&["link", "set", "dev", "br0", "up"])?;
    let mut workloads = Vec::new();
    for (name, address) in [("a", A), ("b", B)] {
        let netns = Netns::create(&format!("{prefix}-{name}"))?;
        let address = format!("{address}/24");
        let end = End { address: Some(&address), ..End::new(&netns, "eth0") };
        netns::link(end, End::new(&switch, name), 1442)?;
        switch.ip(&["link", "set", "dev", name, "master", "br0"])?;
        workloads.push(netns);
    }
    let [a, b] = <[Netns; 2]>::try_from(workloads).map_err(|_| anyhow::anyhow!("two workloads were made"))?;
    Ok([switch, a, b])
}

#[test]
fn traffic_is_seen_and_its_absence_too() -> Result<()> {
    scenario::run("traffic_is_seen_and_its_absence_too", |prefix| {
        let [switch, a, b] = bridged(prefix)?;
        let probe = probe();
        let limit = Duration::from_secs(20);

        let result = probe.ping(&a, B, 3, 56)?;
        ensure!((result.n_sent, result.n_received) == (3, 3), "{result:?}");
        ensure!(result.rtt_min > Duration::ZERO && result.rtt_min < Duration::from_secs(1), "{result:?}");
        ensure!(probe.ping(&a, B, 2, 1414)?.n_received == 2, "full size");
        ensure!(probe.ping(&a, NOBODY, 1, 56)?.n_received == 0, "nobody answers");

        let (sent, received) = probe.transfer(&a, (&b, SocketAddrV4::new(B, 8080)), 8 << 20, limit)?;
        ensure!(
            sent.len == 8 << 20 && received.len == sent.len && sent.sha256 == received.sha256,
            "{sent:?}"
        );

        let at = SocketAddrV4::new(B, 23);
        let second = Duration::from_secs(1);
        ensure!(probe.connect(&a, at, second)? == Outcome::Refused, "nobody listens");
        let dir = scenario::dir(prefix);
        std::fs::create_dir(&dir)?;
        let words = ["tcp-listen", &at.to_string()];
        let listener = Daemon::start(&b, &probe.program, &words, &dir.join("log"), Life::WithParent)?;
        stop::wait_for("the listener", limit, || {
            let outcome = probe.connect(&a, at, second)?;
            Ok(if outcome == Outcome::Connected { Ok(()) } else { Err(format!("{outcome:?}")) })
        })?;
        drop(listener);
        ensure!(probe.connect(&a, at, second)? == Outcome::Refused, "the listener is gone");

        switch.ip(&["link", "set", "dev", "b", "down"])?;
        ensure!(probe.ping(&a, B, 1, 56)?.n_received == 0, "the link is down");
        ensure!(probe.connect(&a, at, second)? == Outcome::Silent, "the link is down");
        let error = probe.transfer(&a, (&b, SocketAddrV4::new(B, 8080)), 1 << 20, second).map(drop);
        ensure!(error.is_err(), "nothing can cross");
        std::fs::remove_dir_all(dir)?;
        Ok(())
    })
}

#[test]
fn nothing_stays_behind() -> Result<()> {
    scenario::run("nothing_stays_behind", |prefix| {
        let log = scenario::dir(prefix).with_extension("log");
        let start = |netns: &Netns| {
            // What an earlier one has said is not this one's.
            std::fs::write(&log, "")?;
            let words = ["-c", "trap '' TERM; echo up; exec sleep 1000"];
            let daemon = Daemon::start(netns, Path::new("/bin/sh"), &words, &log, Life::WithParent)?;
            stop::wait_for("the daemon is deaf", Duration::from_secs(5), || {
                Ok(if daemon.log_tail(1) == "up" { Ok(()) } else { Err(daemon.log_tail(1)) })
            })?;
            Ok::<_, anyhow::Error>(daemon)
        };
        // A panic drops the guards.
        let unwound = std::panic::catch_unwind(|| {
            let netns = Netns::create(&format!("{prefix}-panic")).expect("root may make namespaces");
            let _daemon = start(&netns).expect("a shell starts");
            std::panic::resume_unwind(Box::new("a failed scenario"));
        });
        ensure!(unwound.is_err(), "it panicked");
        ensure!(
            netns::with_prefix(prefix).is_empty(),
            "namespaces are left: {:?}",
            netns::with_prefix(prefix)
        );

        // What a killed process leaves is found by its prefix.
        let mut netns = Netns::create(&format!("{prefix}-kept"))?;
        netns.keep();
        let mut daemon = start(&netns)?;
        drop(netns);
        ensure!(netns::with_prefix(prefix).len() == 1, "it was to be kept");
        let dir = scenario::dir(prefix);
        std::fs::create_dir_all(dir.join("deep"))?;
        ensure!(fabric::remove(prefix, &dir)? == 1, "one namespace was left");
        ensure!(netns::with_prefix(prefix).is_empty() && !dir.exists(), "all is removed");
        stop::wait_for("the daemon is gone", Duration::from_secs(5), || {
            Ok(daemon.ended()?.map(drop).ok_or("it still runs".to_owned()))
        })?;
        ensure!(daemon.check().unwrap_err().to_string().contains("up"), "the error shows the log");
        std::fs::remove_file(log)?;
        Ok(())
    })
}

#[test]
fn containers_of_a_killed_run_end_before_the_next() -> Result<()> {
    let name = "containers_of_a_killed_run_end_before_the_next";
    let mut left = None;
    scenario::run(name, |prefix| {
        let mut gone = std::process::Command::new("true").spawn()?;
        gone.wait()?;
        let dead = prefix.replace(&std::process::id().to_string(), &gone.id().to_string());
        let dir = scenario::dir(&dead);
        std::fs::create_dir_all(dir.join("rootfs"))?;
        let folder = netns::Folder::create(&format!("{dead}-h1-pods"))?;
        // One that has something mounted, and one that has only its network, which is a pod's.
        let script = "mount --bind \"$0/rootfs\" /mnt && touch \"$0/ready\" && exec sleep 1000";
        let mut container = std::process::Command::new("unshare");
        let container = container.args(["--mount", "sh", "-c", script]).arg(&dir).spawn()?;
        let pod = folder.path().join("cni-1");
        std::fs::write(&pod, "")?;
        let script = "mount --bind /proc/self/ns/net \"$0\" && exec sleep 1000";
        let mut inside = std::process::Command::new("unshare");
        let inside = inside.args(["--net", "sh", "-c", script]).arg(&pod).spawn()?;
        stop::wait_for("they run", Duration::from_secs(5), || {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
            let is_mounted = mounts.contains(&pod.display().to_string());
            Ok(if is_mounted && dir.join("ready").exists() { Ok(()) } else { Err("not yet".to_owned()) })
        })?;
        left = Some((dead, dir, pod, [container, inside]));
        // As a killed process would.
        std::mem::forget(folder);
        Ok(())
    })?;
    let Some((dead, dir, pod, processes)) = left else { return Ok(()) };
    scenario::run(name, |_| {
        for mut process in processes {
            stop::wait_for("it ends", Duration::from_secs(5), || {
                Ok(process.try_wait()?.map(drop).ok_or_else(|| "it still runs".to_owned()))
            })?;
        }
        ensure!(!pod.exists() && !dir.exists(), "{} or {} is left", pod.display(), dir.display());
        ensure!(netns::folders_with_prefix(&dead).is_empty(), "a folder of namespaces is left");
        Ok(())
    })
}

#[test]
fn a_daemon_dies_with_a_killed_parent() -> Result<()> {
    scenario::run("a_daemon_dies_with_a_killed_parent", |prefix| {
        let netns = Netns::create(&format!("{prefix}-orphan"))?;
        // A process between us and the daemon, killed as `kill -9` kills the demo.
        let mut parent = std::process::Command::new("sh")
            .args(["-c", "ip netns exec \"$0\" setpriv --pdeathsig KILL -- sleep 1000 & wait", netns.name()])
            .spawn()?;
        let pids = || command::ip(&["netns", "pids", netns.name()]);
        stop::wait_for("the daemon runs", Duration::from_secs(5), || {
            let comm = pids()?.trim().parse::<u32>().ok();
            let comm = comm.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
            Ok(if comm.as_deref() == Some("sleep\n") { Ok(()) } else { Err(format!("{comm:?}")) })
        })?;
        parent.kill()?;
        parent.wait()?;
        stop::wait_for("the daemon is gone", Duration::from_secs(5), || {
            let pids = pids()?;
            Ok(if pids.trim().is_empty() { Ok(()) } else { Err(format!("{pids} still runs")) })
        })
    })
}
