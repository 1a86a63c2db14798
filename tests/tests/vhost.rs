//! Virtual machines by vhost-user: DPDK's virtio-user, by one pair of queues and two, with large frames, while either
//! end goes and comes; and Linux in a virtual machine, whose large segments and checksums cross the switch undone.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command;
use ferroflow_tests::daemon::{Daemon, Life, has_command};
use ferroflow_tests::guest::kernel::Kernel;
use ferroflow_tests::guest::machine::{self, Machine};
use ferroflow_tests::guest::testpmd::{self, Device};
use ferroflow_tests::pods::{By, Pods};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{say, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(30);
/// A virtual machine without the processor's help on a busy host.
const BOOT: Duration = Duration::from_secs(120);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 7, 100);
const MAC: &str = "02:00:00:00:07:64";

fn probe() -> Probe {
    Probe { program: PROBE.into(), words: Vec::new() }
}

fn has(name: &str, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !has_command(program));
    if let Some(missing) = missing {
        say(&format!("SKIPPED {name}: there is no `{missing}`; cargo xtask test installs it"));
    }
    missing.is_none()
}

/// Runs a scenario on a switch with pods and a port for a guest, `vm`; every packet is accounted for at its end.
fn with_guest(
    name: &str,
    (ways, options): (&[By], &[&str]),
    port: &[&str],
    work: impl FnOnce(&mut Pods, &str) -> Result<()>,
) -> Result<()> {
    scenario::run(name, |prefix| {
        let mut pods = Pods::start_as(prefix, ways, &[], options)?;
        let socket = pods.dir.join("vm.sock").display().to_string();
        let words = ["port", "add", "vm", "--kind", "vhost-user", "--number", "100", "--socket", &socket];
        pods.control.text(&[&words[..], port].concat())?;
        let worked = work(&mut pods, &socket).and_then(|()| pods.check().map(drop));
        let log = |name: &str| fs::read_to_string(pods.dir.join(name)).unwrap_or_default();
        let tail =
            |text: String| text.lines().rev().take(30).map(str::to_owned).collect::<Vec<_>>().join("\n");
        worked.with_context(|| {
            format!("{}\n{}\n{}", pods.state(), tail(log("testpmd.log")), tail(log("machine.log")))
        })
    })
}

/// Waits until the guest answers a pod.
fn reaches(pods: &Pods, n: usize, len: usize) -> Result<()> {
    stop::wait_for("the guest answers", LIMIT, || {
        let ping = probe().ping(&pods.pod(n).netns, GUEST, 1, len)?;
        Ok(if ping.n_received == 1 { Ok(()) } else { Err(format!("{ping:?} of {len} bytes from pod {n}")) })
    })
}

/// All of some echo requests are answered.
fn all_answered(pods: &Pods, n: usize, len: usize) -> Result<()> {
    let ping = probe().ping(&pods.pod(n).netns, GUEST, 20, len)?;
    ensure!(ping.n_received == 20, "{ping:?} of {len} bytes from pod {n}");
    Ok(())
}

/// Packets of each receive queue of a port.
fn received(pods: &Pods, port: &str) -> Result<Vec<u64>> {
    let answer = pods.control.json(&["worker", "list"])?;
    let rows = answer["queues"].as_array().cloned().unwrap_or_default();
    let own = rows.iter().filter(|row| row["port"] == port);
    Ok(own.filter_map(|row| row["n_packets"].as_u64()).collect())
}

#[test]
fn two_queues_and_large_frames_reach_a_guest_without_a_machine() -> Result<()> {
    let name = "two_queues_and_large_frames_reach_a_guest_without_a_machine";
    if !has(name, &["dpdk-testpmd"]) {
        return Ok(());
    }
    let options = ["--core", "0", "--core", "1", "--pin", "p1=0", "--pin", "p2=1"];
    let ways = [By::Packet, By::Packet];
    with_guest(name, (&ways, &options), &["--queues", "2", "--mtu", "9000"], |pods, socket| {
        for pod in &pods.pods {
            pod.netns.ip(&["link", "set", "dev", "eth0", "mtu", "9000"])?;
            pods.host.ip(&["link", "set", "dev", &pod.port, "mtu", "9000"])?;
        }
        let device = Device { socket, listens: true, n_queues: 2, mac: MAC };
        let _testpmd = testpmd::start(&pods.host, &pods.dir, &device)?;
        for n in [1, 2] {
            reaches(pods, n, 56)?;
            // One buffer, several, as many as such a frame takes.
            for len in [1400, 2100, 8900] {
                reaches(pods, n, len)?;
                all_answered(pods, n, len)?;
            }
        }
        let by_queue = received(pods, "vm")?;
        ensure!(by_queue.len() == 2 && by_queue.iter().all(|n| *n >= 60), "{by_queue:?}");
        Ok(())
    })
}

#[test]
fn either_end_of_a_guests_socket_may_go_and_come_back() -> Result<()> {
    let name = "either_end_of_a_guests_socket_may_go_and_come_back";
    if !has(name, &["dpdk-testpmd"]) {
        return Ok(());
    }
    with_guest(name, (&[By::Packet], &[]), &[], |pods, socket| {
        let device = Device { socket, listens: true, n_queues: 1, mac: MAC };
        let mut testpmd = testpmd::start(&pods.host, &pods.dir, &device)?;
        reaches(pods, 1, 56)?;
        testpmd.kill()?;
        stop::wait_for("the port is down and says why", LIMIT, || {
            let ports = pods.control.json(&["port", "list"])?;
            let row = ports.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == "vm"));
            let row = row.context("there is no port vm")?;
            let says = row["why_down"].as_str().is_some_and(|why| why.contains("nobody listens at"));
            Ok(if says && row["up"] == false { Ok(()) } else { Err(row.to_string()) })
        })?;
        // What a killed process leaves behind.
        fs::remove_file(socket)?;
        let _testpmd = testpmd::start(&pods.host, &pods.dir, &device)?;
        reaches(pods, 1, 56)?;
        pods.check()?;
        // The switch goes, as by a crash, and the guest stays.
        pods.restart(true)?;
        reaches(pods, 1, 56)?;
        all_answered(pods, 1, 1400)?;
        // The other way round: the switch listens.
        pods.control.text(&["port", "del", "vm"])?;
        let own = pods.dir.join("own.sock").display().to_string();
        let words =
            ["port", "add", "vm", "--kind", "vhost-user", "--number", "100", "--server", "--socket", &own];
        pods.control.text(&words)?;
        let device = Device { socket: &own, listens: false, n_queues: 1, mac: MAC };
        for _ in 0..2 {
            let mut guest = testpmd::start(&pods.host, &pods.dir, &device)?;
            reaches(pods, 1, 56)?;
            all_answered(pods, 1, 1400)?;
            guest.kill()?;
        }
        Ok(())
    })
}

/// What the machine does: its address, a server with its file, and fetching the same one from pod 1.
const SCRIPT: &str = "
$b ip link set lo up; $b ip address add 10.0.7.100/24 dev eth0; $b ip link set eth0 up
$b httpd -p 80 -h /www
echo READY
until $b wget -q -O /tmp/file http://10.0.7.1:8080/file 2> /dev/null; do $b sleep 0.2; done
$b cmp /tmp/file /www/file && echo SAME
$b sleep 100000
";
/// Frames of an uncut file are far fewer.
const CONTENT_LEN: u32 = 2_000_000;
const N_FRAMES: u64 = CONTENT_LEN as u64 / 1448;

/// Waits for a line on the machine's console.
fn says(qemu: &mut Daemon, dir: &Path, word: &str) -> Result<()> {
    stop::wait_for("the machine's word", BOOT, || {
        qemu.check()?;
        let log = fs::read(dir.join("machine.log")).unwrap_or_default();
        let found = String::from_utf8_lossy(&log).lines().any(|line| line.trim() == word);
        Ok(if found { Ok(()) } else { Err(format!("no {word} yet")) })
    })
}

#[test]
fn a_virtual_machine_and_a_container_talk_and_leave_work_to_each_other() -> Result<()> {
    let name = "a_virtual_machine_and_a_container_talk_and_leave_work_to_each_other";
    if !has(name, &["qemu-system-x86_64", "busybox", "dpkg-deb"]) {
        return Ok(());
    }
    let kernel = Kernel::get()?;
    with_guest(name, (&[By::Tap], &[]), &["--server"], |pods, socket| {
        let content: Vec<u8> =
            (0..CONTENT_LEN).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let shown = Machine { socket, listens: false, mac: MAC, content: &content, script: SCRIPT };
        let mut qemu = machine::start(&pods.host, &pods.dir, &kernel, &shown)?;
        says(&mut qemu, &pods.dir, "READY")?;
        reaches(pods, 1, 56)?;
        all_answered(pods, 1, 1400)?;
        // From the machine to the container, in segments that the switch does not cut.
        let file = pods.dir.join("file");
        let mut fetch = pods.pod(1).netns.command("curl");
        fetch.args(["-sS", "--max-time", "30", "-o"]).arg(&file).arg(format!("http://{GUEST}/file"));
        command::output(&mut fetch, LIMIT)?;
        ensure!(fs::read(&file)? == content, "the machine's file has changed");
        // And the other way.
        let folder = pods.dir.join("www");
        fs::create_dir(&folder)?;
        fs::write(folder.join("file"), &content)?;
        let (folder, log) = (folder.display().to_string(), pods.dir.join("httpd.log"));
        let at = SocketAddrV4::new(pods.pod(1).address, 8080).to_string();
        let words = ["httpd", "-f", "-p", &at, "-h", &folder];
        let _server =
            Daemon::start(&pods.pod(1).netns, Path::new("/bin/busybox"), &words, &log, Life::WithParent)?;
        says(&mut qemu, &pods.dir, "SAME")?;
        let counters = pods.counters(1)?;
        ensure!(counters.rx_packets < N_FRAMES && counters.tx_packets < N_FRAMES, "{counters:?}");
        // The switch goes, and the machine finds it again.
        pods.restart(true)?;
        reaches(pods, 1, 56)?;
        Ok(())
    })
}
