//! Checksums and large packets, whoever is to make them: senders that leave checksums and cutting to their device and
//! senders that do both themselves, datagrams without a checksum, protocols whose checksum no device makes, fragments;
//! by each kind of port, on one host and through a tunnel. What arrives is right by the receiver's own counters.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::daemon::{Daemon, Life, has_command};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::pods::{By, on_pods};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{checks, say, scenario, stop};
use socket2::{Domain, Protocol, Socket, Type};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(20);
const ECHO: u16 = 7007;
const TCP: u16 = 7008;
const LEN: u64 = 2 << 20;
const UDP: i32 = 17;
const SCTP: i32 = 132;
const IPV4_LEN: usize = 20;

fn probe() -> Probe {
    Probe { program: PROBE.into(), words: Vec::new() }
}

/// Who sends to whom.
struct Pair<'a> {
    from: &'a Netns,
    to: &'a Netns,
    address: Ipv4Addr,
}

/// Lets a pod's kernel leave checksums and cutting to its device, or do both itself.
fn leave_to_device(netns: &Netns, leave: bool) -> Result<()> {
    let state = if leave { "on" } else { "off" };
    let mut ethtool = netns.command("ethtool");
    // Not every device has each of them.
    let words = ["-K", "eth0", "tx", state, "tso", state, "gso", state, "tx-udp-segmentation", state];
    command::run(ethtool.args(words), SHORT).map(drop)?;
    let shown = command::output(netns.command("ethtool").args(["-k", "eth0"]), SHORT)?;
    let wanted = format!("tx-checksumming: {state}");
    ensure!(!leave || shown.contains(&wanted) || shown.contains("tx-checksumming: off"), "{shown}");
    ensure!(leave || shown.contains("tx-checksumming: off"), "{shown}");
    Ok(())
}

/// What a pod's kernel has received with a wrong checksum, of TCP, UDP and ICMP.
fn wrong(netns: &Netns) -> Result<u64> {
    let text = netns.inside(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut n_wrong = 0;
    for name in ["Icmp:", "Tcp:", "Udp:"] {
        let mut lines = text.lines().filter(|line| line.split(' ').next() == Some(name));
        let (names, values) = lines.next().zip(lines.next()).with_context(|| format!("no {name}"))?;
        let found = names.split(' ').zip(values.split(' ')).find(|(field, _)| *field == "InCsumErrors");
        n_wrong += found
            .and_then(|(_, value)| value.parse::<u64>().ok())
            .with_context(|| format!("{name} {names}"))?;
    }
    Ok(n_wrong)
}

/// Sends what a protocol has behind the IPv4 header, and gives what arrives of it.
fn raw(pair: &Pair<'_>, protocol: i32, payload: &[u8]) -> Result<Vec<u8>> {
    let open = |netns: &Netns| -> Result<Socket> {
        netns
            .inside(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(protocol))))?
            .context("a raw socket")
    };
    let (sender, receiver) = (open(pair.from)?, open(pair.to)?);
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    sender.send_to(payload, &SocketAddrV4::new(pair.address, 0).into())?;
    let deadline = Instant::now() + LIMIT;
    let mut room = [0; 2048];
    while Instant::now() < deadline {
        let len = match (&receiver).read(&mut room) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error.into()),
        };
        let behind = room.get(IPV4_LEN..len).unwrap_or_default();
        // Other packets of the protocol come in as well.
        if behind.get(..4) == payload.get(..4) {
            return Ok(behind.to_vec());
        }
    }
    bail!("protocol {protocol}: nothing came")
}

/// Everything from one to the other, with nothing wrong at either.
fn exchange(what: &str, pair: &Pair<'_>) -> Result<()> {
    let before = (wrong(pair.from)?, wrong(pair.to)?);
    let at = SocketAddrV4::new(pair.address, TCP);
    let (sent, received) =
        probe().transfer(pair.from, (pair.to, at), LEN, LIMIT).with_context(|| format!("{what}: TCP"))?;
    ensure!(sent.sha256 == received.sha256 && received.len == LEN, "{what}: TCP {received:?}");
    // Within the MTU, and in fragments.
    for len in [1000, 4000] {
        let n = probe().udp_ask(pair.from, (pair.address, ECHO).into(), 3, len)?;
        ensure!(n == 3, "{what}: UDP of {len}: {n} of 3");
        let ping = probe().ping(pair.from, pair.address, 2, len)?;
        ensure!(ping.n_received == 2, "{what}: ICMP of {len}: {ping:?}");
    }
    let after = (wrong(pair.from)?, wrong(pair.to)?);
    ensure!(before == after, "{what}: wrong checksums were {before:?} and are {after:?}");
    Ok(())
}

fn echo(netns: &Netns, address: Ipv4Addr, dir: &Path) -> Result<Daemon> {
    let at = format!("{address}:{ECHO}");
    let daemon =
        Daemon::start(netns, Path::new(PROBE), &["udp-echo", &at], &dir.join("echo.log"), Life::WithParent)?;
    stop::wait_for("the echo listens", LIMIT, || {
        let bound = netns.inside(|| std::net::UdpSocket::bind(&at).is_err())?;
        Ok(if bound { Ok(()) } else { Err("not yet".to_owned()) })
    })?;
    Ok(daemon)
}

fn has_ethtool(name: &str) -> bool {
    let has = has_command("ethtool");
    if !has {
        say(&format!("SKIPPED {name}: there is no `ethtool`; apt-get install ethtool"));
    }
    has
}

/// What no stack of a pod makes: a datagram without a checksum, and SCTP, whose checksum is of another kind.
fn as_they_are(what: &str, pair: &Pair<'_>) -> Result<()> {
    let before = wrong(pair.to)?;
    let len = 8 + 400_u16;
    let ports = [0x1b, 0x60, 0x1b, 0x61];
    let datagram = [&ports[..], &len.to_be_bytes(), &[0, 0], &[0x5a; 400]].concat();
    let arrived = raw(pair, UDP, &datagram).context("a datagram without a checksum")?;
    // Whoever completes checksums may give it one.
    let same = arrived.iter().zip(&datagram).enumerate().all(|(at, (a, b))| a == b || (6..8).contains(&at));
    ensure!(same && arrived.len() == datagram.len(), "{what}: a datagram without a checksum");
    ensure!(wrong(pair.to)? == before, "{what}: the checksum of a datagram that had none");
    // CRC-32C of this chunk with its checksum zero, as RFC 9260, Appendix A has it: the bytes of the sum come first the
    // lowest.
    let mut chunk = [&ports[..], &[0, 0, 0, 7], &[0; 4], &[0x0e, 0, 0, 4]].concat();
    let sum = crc32c(&chunk).to_le_bytes();
    chunk[8..12].copy_from_slice(&sum);
    let arrived = raw(pair, SCTP, &chunk).context("SCTP")?;
    ensure!(arrived == chunk, "{what}: SCTP {arrived:x?}");
    Ok(())
}

/// Bit by bit (RFC 9260, Appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

#[test]
fn checksums_are_right_by_each_kind_of_port_whoever_makes_them() -> Result<()> {
    let name = "checksums_are_right_by_each_kind_of_port_whoever_makes_them";
    if !has_ethtool(name) {
        return Ok(());
    }
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    on_pods(name, &[By::Packet, By::Tap, By::AfXdp, By::Packet], |pods| {
        let _echoes: Vec<_> =
            pods.pods.iter().map(|pod| echo(&pod.netns, pod.address, &pods.dir)).collect::<Result<_>>()?;
        for leave in [true, false] {
            for pod in &pods.pods {
                leave_to_device(&pod.netns, leave)?;
            }
            // Each kind to each, the most usual one also to itself.
            for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (1, 4)] {
                let pair = Pair {
                    from: &pods.pod(from).netns,
                    to: &pods.pod(to).netns,
                    address: pods.pod(to).address,
                };
                let what = format!("port {from} to {to}, left to the device: {leave}");
                exchange(&what, &pair)?;
                as_they_are(&what, &pair)?;
            }
        }
        Ok(())
    })
}

#[test]
fn checksums_are_right_through_a_tunnel_whoever_makes_them() -> Result<()> {
    let name = "checksums_are_right_through_a_tunnel_whoever_makes_them";
    if !has_ethtool(name) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        let dir = fabric.plan().dir.clone();
        let ends = ["web-1", "web-2"];
        let mut echoes = Vec::new();
        for name in ends {
            let workload = fabric.workload(name)?;
            echoes.push(echo(&workload.netns, workload.plan.address, &dir)?);
        }
        for encap in ["geneve", "vxlan"] {
            for kind in ["afxdp", "packet"] {
                for (idx, name) in ends.into_iter().enumerate() {
                    let control = &fabric.host(idx).control;
                    control.text(&["port", "del", name])?;
                    control.text(&["port", "add", name, "--logical-port", name, "--kind", kind])?;
                }
                through_a_tunnel(fabric, &format!("{kind} by {encap}"), ends)?;
            }
            // Their kernels cut what the underlay does not take whole, behind the tunnel's headers.
            for (whole, what) in [("off", "a plain underlay"), ("on", "an underlay that takes large packets")]
            {
                for idx in 0..ends.len() {
                    let mut ethtool = fabric.host_netns(idx).command("ethtool");
                    let words = ["-K", "underlay", "tx", whole, "tso", whole, "gso", whole];
                    command::run(ethtool.args(words), SHORT)?;
                }
                if whole == "off" {
                    through_a_tunnel(fabric, &format!("{what} by {encap}"), ends)?;
                }
            }
            if encap == "geneve" {
                for idx in 0..ends.len() {
                    fabric.restart_with(idx, "vxlan")?;
                }
            }
        }
        ends.iter().try_for_each(|name| fabric.attach_by_tap(name))?;
        through_a_tunnel(fabric, "tap by vxlan", ends)?;
        for idx in 0..ends.len() {
            fabric.restart_with(idx, "geneve")?;
        }
        ends.iter().try_for_each(|name| fabric.attach_by_tap(name))?;
        through_a_tunnel(fabric, "tap by geneve", ends)?;
        checks::conservation(fabric).map(drop)
    })
}

/// Everything from each to the other, whoever makes checksums.
fn through_a_tunnel(fabric: &Fabric, what: &str, ends: [&str; 2]) -> Result<()> {
    stop::wait_for("the workloads reach each other", LIMIT, || {
        let (from, to) = (fabric.workload(ends[0])?, fabric.workload(ends[1])?);
        let answered = probe().ping(&from.netns, to.plan.address, 1, 56)?.n_received == 1;
        Ok(if answered { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .context(what.to_owned())?;
    for leave in [true, false] {
        for name in ends {
            leave_to_device(&fabric.workload(name)?.netns, leave)?;
        }
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let (from, to) = (fabric.workload(from)?, fabric.workload(to)?);
            let pair = Pair { from: &from.netns, to: &to.netns, address: to.plan.address };
            let what = format!("{} to {}, {what}, left: {leave}", from.plan.name, to.plan.name);
            exchange(&what, &pair)?;
            as_they_are(&what, &pair)?;
        }
    }
    Ok(())
}
