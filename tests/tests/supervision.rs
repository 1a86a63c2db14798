//! What those see who watch over a host: captures, metrics, readiness, logs, and the units that systemd runs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::daemon::{Daemon, has_command};
use ferroflow_tests::pods::{By, Pods, on_pods};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{say, scenario, stop};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const METRICS: &str = "127.0.0.1:9475";

fn probe() -> Probe {
    Probe { program: env!("CARGO_BIN_EXE_ff-probe").into(), words: Vec::new() }
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd")
}

/// A question over HTTP to a daemon in the host's namespace.
fn ask(pods: &Pods, path: &str) -> Result<String> {
    let address: SocketAddr = METRICS.parse()?;
    pods.host.inside(|| {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?
}

/// The samples of a page, by name and labels.
fn samples(page: &str) -> Result<BTreeMap<String, f64>> {
    let (_, body) = page.split_once("\r\n\r\n").context("no body")?;
    let lines = body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no sample: {line}"))?;
            Ok((name.to_owned(), value.parse().with_context(|| line.to_owned())?))
        })
        .collect()
}

fn ping(pods: &Pods, from: usize, to: usize) -> Result<()> {
    let result = probe().ping(&pods.pod(from).netns, pods.pod(to).address, 3, 56)?;
    ensure!(result.n_received == 3, "from {from} to {to}: {result:?}");
    Ok(())
}

/// The capabilities that a unit leaves its daemon, as setpriv(1) has them.
fn capabilities(unit: &Path) -> Result<String> {
    let text = fs::read_to_string(unit)?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("the unit limits no capabilities")?.split_whitespace();
    let names = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    Ok(format!("-all{}", names.collect::<String>()))
}

#[test]
fn a_host_does_its_work_with_the_capabilities_of_its_unit_and_says_how_it_fares() -> Result<()> {
    scenario::run("a_host_does_its_work_with_the_capabilities_of_its_unit_and_says_how_it_fares", |prefix| {
        let set = format!("--bounding-set={}", capabilities(&units().join("vswitchd.service"))?);
        let notify = PathBuf::from(format!("/run/{prefix}.notify"));
        let socket = UnixDatagram::bind(&notify)?;
        socket.set_read_timeout(Some(LIMIT))?;
        let notify_socket = format!("NOTIFY_SOCKET={}", notify.display());
        let wrapper = ["env", &notify_socket, "setpriv", &set, "--no-new-privs", "--"].map(str::to_owned);
        let options = ["--metrics", METRICS, "--log-format", "json"];
        let started = Pods::start_as(prefix, &[By::Packet, By::Tap, By::AfXdp], &wrapper, &options);
        let result = started.and_then(|mut pods| {
            let result = faring(&mut pods, &socket);
            result.with_context(|| pods.state())
        });
        fs::remove_file(&notify)?;
        result
    })
}

fn faring(pods: &mut Pods, socket: &UnixDatagram) -> Result<()> {
    let mut room = [0; 64];
    let told = socket.recv(&mut room).context("systemd was told nothing")?;
    ensure!(&room[..told] == b"READY=1", "{:?}", &room[..told]);
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        ping(pods, from, to)?;
    }
    ensure!(ask(pods, "/healthz")?.starts_with("HTTP/1.1 200"), "it lives");
    ensure!(ask(pods, "/readyz")?.starts_with("HTTP/1.1 200"), "it is ready");
    ensure!(ask(pods, "/elsewhere")?.starts_with("HTTP/1.1 404"), "nothing else is there");
    let ports = pods.check()?;
    let samples = samples(&ask(pods, "/metrics")?)?;
    for port in &ports {
        for (name, counted) in [
            ("rx_packets", port.rx_packets),
            ("rx_forwarded", port.rx_forwarded),
            ("rx_dropped", port.rx_dropped),
            ("tx_packets", port.tx_packets),
        ] {
            let key = format!(
                "ferroflow_vswitchd_interface_{name}_total{{bridge=\"br0\",interface=\"{}\"}}",
                port.name
            );
            let shown = samples.get(&key).with_context(|| format!("no {key} in {samples:?}"))?;
            ensure!(*shown == counted as f64, "{key} {shown}, and {counted} by vswitchctl");
        }
    }
    let dropped: f64 =
        samples.iter().filter(|(name, _)| name.contains("_drop_packets_total{")).map(|(_, n)| n).sum();
    ensure!(dropped == ports.iter().map(|port| port.rx_dropped).sum::<u64>() as f64, "{dropped} by reason");
    for name in ["process_open_fds", "process_resident_memory_bytes", "ferroflow_vswitchd_conntrack_slots"] {
        ensure!(samples.get(name).is_some_and(|value| *value > 0.0), "{name}");
    }
    let log = fs::read_to_string(pods.dir.join("vswitchd.log"))?;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("a line of the log: {line}"))?;
        ensure!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
    ensure!(log.contains("port attached"), "{log}");
    pods.daemon.stop()?;
    let told = socket.recv(&mut room)?;
    ensure!(&room[..told] == b"STOPPING=1", "{:?}", &room[..told]);
    Ok(())
}

/// Starts a capture that has begun when this returns.
fn capture(pods: &Pods, name: &str, words: &[&str]) -> Result<(Daemon, PathBuf)> {
    let log = pods.dir.join(name);
    let typed = pods.control.typed("capture");
    let mut typed = typed.split(' ');
    let mut command = Command::new(typed.next().unwrap_or_default());
    command.args(typed).args(words);
    let daemon = Daemon::spawn(command, "vswitchctl".to_owned(), &log)?;
    Ok((daemon, log))
}

/// Waits until a capture has come to its end by itself.
fn ended(mut capture: Daemon) -> Result<()> {
    stop::wait_for("the capture ends", LIMIT, || {
        Ok(capture.ended()?.map(drop).ok_or("it goes on".to_owned()))
    })
}

#[test]
fn a_capture_shows_what_passes_and_what_is_dropped_and_why() -> Result<()> {
    if !has_command("tcpdump") {
        say(
            "SKIPPED a_capture_shows_what_passes_and_what_is_dropped_and_why: there is no `tcpdump`; apt-get install tcpdump",
        );
        return Ok(());
    }
    on_pods("a_capture_shows_what_passes_and_what_is_dropped_and_why", &[By::Packet, By::Tap], |pods| {
        ping(pods, 1, 2)?;
        pods.control.text(&["flow", "add", "priority=10,udp,tp_dst=5001,actions=drop"])?;
        let file = pods.dir.join("all.pcapng").display().to_string();
        let pcap = pods.dir.join("sent.pcap").display().to_string();
        // Three questions and answers, each where it comes in and where it leaves.
        let (all, _) = capture(pods, "all", &["icmp", "-w", &file, "--count", "12"])?;
        let (sent, _) =
            capture(pods, "sent", &["icmp", "--at", "sent", "--port", "p2", "-w", &pcap, "--count", "3"])?;
        let (lines, shown) = capture(pods, "lines", &["--drops", "--count", "4", "-o", "json"])?;
        let (text, told) =
            capture(pods, "text", &["udp", "--at", "received", "--port", "p1", "--count", "2"])?;
        // A file's first bytes come when the switch has begun; a line of text has none.
        stop::wait_for("the captures have begun", LIMIT, || {
            let has_begun = |path: &str| fs::metadata(path).is_ok_and(|found| found.len() > 0);
            Ok(if has_begun(&file) && has_begun(&pcap) { Ok(()) } else { Err("no file".to_owned()) })
        })?;
        std::thread::sleep(Duration::from_millis(300));
        ping(pods, 1, 2)?;
        for _ in 0..4 {
            let to = (pods.pod(2).address, 5001);
            pods.pod(1).netns.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", to))??;
        }
        for capture in [all, sent, lines, text] {
            ended(capture)?;
        }
        let read = |file: &str| command::output(Command::new("tcpdump").args(["-nqr", file]), SHORT);
        let all = read(&file)?;
        let count = |text: &str, what: &str| text.lines().filter(|line| line.contains(what)).count();
        ensure!((count(&all, "echo request"), count(&all, "echo reply")) == (6, 6), "{all}");
        let sent = read(&pcap)?;
        ensure!((count(&sent, "echo request"), sent.lines().count()) == (3, 3), "{sent}");
        let shown = fs::read_to_string(shown)?;
        for line in shown.lines() {
            let packet: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let facts = ["at", "port", "reason"].map(|field| packet[field].as_str().unwrap_or_default());
            ensure!(facts == ["dropped", "p1", "rule-drop"], "{packet}");
            ensure!(packet["flow"].as_str().is_some_and(|flow| flow.contains("tp_dst=5001")), "{packet}");
        }
        ensure!(shown.lines().count() == 4, "{shown}");
        let told = fs::read_to_string(told)?;
        ensure!(count(&told, "received p1 len=43 udp,") == 2, "{told}");
        // Who captures is gone, and nobody is shown anything.
        ping(pods, 2, 1)
    })
}

#[test]
fn units_are_as_systemd_wants_them() -> Result<()> {
    if !has_command("systemd-analyze") {
        say(
            "SKIPPED units_are_as_systemd_wants_them: there is no `systemd-analyze`; apt-get install systemd",
        );
        return Ok(());
    }
    let dir = std::env::temp_dir().join(format!("ff-units-{}", std::process::id()));
    let _guard = scenario::Dir::create(&dir)?;
    let target = scenario::target_dir()?;
    for entry in fs::read_dir(units())? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?;
        // Programs are looked for where they will be installed.
        let text = fs::read_to_string(&path)?.replace("/usr/bin/", &format!("{}/", target.display()));
        let unit = dir.join(name);
        fs::write(&unit, text)?;
        let mut analyze = Command::new("systemd-analyze");
        let finished =
            command::run(analyze.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit), LIMIT)?;
        let name = name.to_string_lossy();
        let about: Vec<_> = finished.stderr.lines().filter(|line| line.contains(&*name)).collect();
        ensure!(finished.status.success() && about.is_empty(), "{name}: {}{about:?}", finished.stderr);
    }
    // What units leave their daemons, in systemd's own words: 0.0 would be nothing, 10.0 everything.
    for (name, limit) in [("vswitchd.service", 4.5), ("vswitch-controller.service", 1.8)] {
        let mut analyze = Command::new("systemd-analyze");
        let finished = command::run(
            analyze.args(["security", "--offline=true", "--no-pager"]).arg(dir.join(name)),
            LIMIT,
        )?;
        let verdict = finished.stdout.lines().find_map(|line| line.split_once("exposure level for "));
        let (_, verdict) = verdict.with_context(|| format!("{name}: {}", command::complaint(&finished)))?;
        let exposure = verdict.split(' ').find_map(|word| word.parse::<f64>().ok());
        let exposure = exposure.with_context(|| format!("no exposure in {verdict}"))?;
        ensure!(exposure > 0.0 && exposure <= limit, "{name} is exposed by {exposure}, {limit} is the most");
    }
    // What a unit may be wrong about is seen: one with an option that there is none of.
    let wrong = dir.join("wrong.service");
    fs::write(&wrong, "[Service]\nExecStart=/no/such/program\nNoSuchOption=yes\n")?;
    let finished =
        command::run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&wrong), LIMIT)?;
    ensure!(!finished.status.success() || finished.stderr.contains("NoSuchOption"), "a wrong unit is told");
    Ok(())
}
