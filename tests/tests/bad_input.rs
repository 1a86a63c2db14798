//! Input that is wrong or hostile: refused with a reason, nothing half done, nobody dies of it.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferroflow_tests::control::Control;
use ferroflow_tests::fabric::{Fabric, HOSTS};
use ferroflow_tests::{checks, command, scenario};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const GENEVE_PORT: u16 = 6081;
const N_NOISE: u64 = 3000;

#[test]
fn the_controller_refuses_with_a_reason_and_changes_nothing() -> Result<()> {
    scenario::on_fabric("the_controller_refuses_with_a_reason", PROBE, |fabric| {
        let before = fabric.control.text(&["export"])?;
        let acl = |rule: &str| format!("switches:\n  db:\n    acls:\n      bad:\n        {rule}\n");
        let good = "direction: to-lport\n        priority: 1\n        action: drop\n        match: ";
        // Each with a word that its refusal has to contain.
        let bad = [
            (acl(&format!("{good}'tcp.dst == no-number'")), "column 14"),
            (acl(&format!("{good}'ip4.src == 10.0.0.0/99'")), "not 99"),
            (acl(&format!("{good}'no.such.field == 1'")), "no.such.field"),
            (acl(&format!("{good}'(((('")), "incomplete"),
            (acl("direction: sideways\n        priority: 1\n        action: drop\n        match: ip4"), "sideways"),
            (acl("colour: green"), "colour"),
            ("switches:\n  new:\n    ports:\n      lost:\n        type: router\n        router_port: nowhere\n".to_owned(), "nowhere"),
            ("switches:\n  new:\n    ports:\n      p1:\n        addresses: ['not-a-mac 10.0.0.1']\n".to_owned(), "not-a-mac"),
            ("routers:\n  new:\n    ports:\n      r1-web:\n        mac: '0a:00:00:00:09:01'\n        networks: [10.9.0.1/24]\n".to_owned(), "r1-web"),
            ("switches: [".to_owned(), "bad.yaml"),
            ("\u{0}\u{1}".to_owned(), "bad.yaml"),
        ];
        let file = fabric.plan().dir.join("bad.yaml");
        for (text, word) in bad {
            // A good object before the bad one: it must not come to be.
            let text = if text.starts_with("switches:\n") {
                text.replacen("switches:\n", "switches:\n  half:\n    ports: {}\n", 1)
            } else {
                text
            };
            fs::write(&file, &text)?;
            let finished = fabric.control.attempt(&["apply", "-f", &file.display().to_string()])?;
            ensure!(!finished.status.success(), "this was taken:\n{text}");
            let said = command::complaint(&finished).to_lowercase();
            ensure!(said.contains(word), "nothing of {word:?} in {said:?}, which is about\n{text}");
            let after = fabric.control.text(&["export"])?;
            ensure!(before == after, "a refused file has changed the network:\n{text}\n{after}");
        }
        checks::all(fabric)
    })
}

#[test]
fn a_host_refuses_with_a_reason() -> Result<()> {
    scenario::on_fabric("a_host_refuses_with_a_reason", PROBE, |fabric| {
        let host = &fabric.host(0).control;
        refuses(host, &["port", "add", "no-such-if", "--logical-port", "spare"], "no-such-if")?;
        refuses(host, &["port", "add", "underlay", "--logical-port", "spare"], "--uplink")?;
        refuses(host, &["port", "add", "lo", "--logical-port", "web-1"], "port del web-1")?;
        refuses(host, &["port", "del", "no-such-if"], "no-such-if")?;
        refuses(host, &["trace", "--in-port", "web-1", "tcp,tp_dst=99999"], "99999")?;
        refuses(host, &["trace", "--in-port", "web-1", "no_such_field=1"], "no_such_field")?;
        refuses(host, &["trace", "--in-port", "no-such-port", "icmp"], "no-such-port")?;
        checks::all(fabric)
    })
}

#[test]
fn noise_on_the_sockets_kills_nobody() -> Result<()> {
    scenario::on_fabric("noise_on_the_sockets_kills_nobody", PROBE, |fabric| {
        let names = HOSTS.iter().map(|host| host.name).chain(["controller"]);
        for path in names.map(|name| fabric.plan().dir.join(format!("{name}.sock"))) {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
            let noise: Vec<u8> =
                (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for bytes in [
                noise.as_slice(),
                &[0; 10_000],
                preface,
                &[preface, &noise].concat(),
                b"GET / HTTP/1.1\r\n\r\n",
            ] {
                let mut stream = UnixStream::connect(&path)?;
                stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                stream.set_write_timeout(Some(Duration::from_millis(200)))?;
                // Whatever it answers, or that it hangs up, is its business.
                let _ = stream.write_all(bytes);
                let _ = stream.read(&mut [0; 4096]);
            }
        }
        checks::all(fabric)
    })
}

#[test]
fn noise_from_a_workload_is_accounted_for() -> Result<()> {
    scenario::on_fabric("noise_from_a_workload_is_accounted_for", PROBE, |fabric| {
        let from = &fabric.workload("web-1")?.netns;
        let probe = &fabric.plan().programs.probe;
        for (seed, to) in ["web-2", "db-1", "db-2"].into_iter().enumerate() {
            let to = fabric.workload(to)?.plan.address;
            let n_sent = probe.ip_noise(from, to, N_NOISE, seed as u64 + 1)?;
            ensure!(n_sent > N_NOISE / 2, "only {n_sent} packets were sent");
        }
        let gateway = fabric.workload("web-1")?.plan.gateway;
        probe.ip_noise(from, gateway, N_NOISE, 9)?;
        checks::all(fabric)
    })
}

#[test]
fn noise_from_the_underlay_is_dropped_by_name() -> Result<()> {
    scenario::on_fabric("noise_from_the_underlay_is_dropped_by_name", PROBE, |fabric| {
        let to = SocketAddrV4::new(HOSTS[0].encap_ip.parse()?, GENEVE_PORT);
        let peer: Ipv4Addr = HOSTS[1].encap_ip.parse()?;
        let stranger = Ipv4Addr::new(172, 31, 0, 9);
        let sender = fabric.host_netns(1);
        sender.ip(&["address", "add", &format!("{stranger}/32"), "dev", "underlay"])?;
        let probe = &fabric.plan().programs.probe;

        let n_malformed = probe.udp_noise((sender, peer), to, N_NOISE, 1)?;
        let n_strange = probe.udp_noise((sender, stranger), to, N_NOISE, 2)?;
        ensure!(n_malformed > 0 && n_strange > 0, "nothing was sent");
        let count = |reason: &str| -> Result<u64> {
            let drops = fabric.host(0).control.drops()?;
            Ok(drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.n_packets).sum())
        };
        ferroflow_tests::stop::wait_for("the noise is counted", Duration::from_secs(5), || {
            let (malformed, strange) = (count("tunnel-malformed")?, count("tunnel-unknown-peer")?);
            let all = malformed > 0 && strange >= n_strange * 9 / 10;
            Ok(if all {
                Ok(())
            } else {
                Err(format!("malformed {malformed}, unknown peer {strange} of {n_strange}"))
            })
        })?;
        workloads_saw_nothing(fabric)?;
        checks::all(fabric)
    })
}

/// No packet of the noise became a workload's.
fn workloads_saw_nothing(fabric: &Fabric) -> Result<()> {
    for port in fabric.host(0).control.ports()?.iter().filter(|port| !port.logical_port.is_empty()) {
        // ARP, neighbour discovery and the checks before make some packets, the noise thousands.
        ensure!(port.tx_packets < N_NOISE / 10, "{} got {} packets", port.name, port.tx_packets);
    }
    Ok(())
}

fn refuses(control: &Control, words: &[&str], word: &str) -> Result<()> {
    let finished = control.attempt(words)?;
    ensure!(!finished.status.success(), "{words:?} was taken: {}", finished.stdout);
    let said = command::complaint(&finished);
    ensure!(said.contains(word), "nothing of {word:?} in {said:?}, the answer to {words:?}");
    Ok(())
}
