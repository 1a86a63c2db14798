//! The uplink that is shared with the host, and the one that the switch has for itself: the host goes on by either,
//! while a switch comes, goes and is killed.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{IpAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::control::Drop;
use ferroflow_tests::fabric::{Fabric, HOSTS, UNDERLAY_MTU};
use ferroflow_tests::gap::Watch;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{checks, say, scenario, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(20);
/// What the demo's hosts call their uplink, and what an owned one has beside it.
const UPLINK: &str = "underlay";
const INTERNAL: &str = "underlay-host";
const OWNED: &[&str] = &["--uplink-mode", "owned"];
const LEN: u64 = 4 << 20;
/// How often a switch comes, goes and is killed, unless more is wanted (`FERROFLOW_CYCLES`).
const N_CYCLES: usize = 2;
/// For how long a host may be out of reach. Programs without optimisation take their time, and the machine may do
/// other things; `cargo xtask bench --uplink` measures.
const GAP: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 100 });
/// File to write what was measured to.
const SAVE: &str = "FERROFLOW_UPLINKS_JSON";

fn address(idx: usize) -> Result<IpAddr> {
    Ok(HOSTS[idx].encap_ip.parse()?)
}

/// Which way the host's packets to an address go.
fn way(netns: &Netns, to: &str) -> Result<String> {
    let text = netns.ip(&["route", "get", to])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    Ok(words.nth(1).with_context(|| format!("no way: {text}"))?.to_owned())
}

fn goes_by(netns: &Netns, to: &str, wanted: &str) -> Result<()> {
    stop::wait_for(&format!("the way to {to} is by {wanted}"), LIMIT, || {
        let way = way(netns, to)?;
        Ok(if way == wanted { Ok(()) } else { Err(format!("it is by {way}")) })
    })
}

fn sysfs(netns: &Netns, interface: &str, file: &str) -> Result<String> {
    // What is mounted at /sys is another namespace's: asked by a command that mounts its own.
    let mut command = netns.command("cat");
    command.arg(format!("/sys/class/net/{interface}/{file}"));
    Ok(ferroflow_tests::command::output(&mut command, LIMIT)?.trim().to_owned())
}

/// Everything that the hosts themselves say to each other, past the switch or through it.
fn hosts_talk(fabric: &Fabric) -> Result<()> {
    let probe = &fabric.plan().programs.probe;
    for (from, to) in [(0, 1), (1, 0)] {
        let IpAddr::V4(ip) = address(to)? else { continue };
        let ends = (fabric.host_netns(from), fabric.host_netns(to));
        for len in [56, 1400, 4000] {
            let ping = probe.ping(ends.0, ip, 3, len)?;
            ensure!(ping.n_received == 3, "{from} to {to}, {len} bytes: {ping:?}");
        }
        let (sent, received) = probe.transfer(ends.0, (ends.1, SocketAddrV4::new(ip, 7100)), LEN, LIMIT)?;
        ensure!(sent.sha256 == received.sha256 && received.len == LEN, "{from} to {to}: {received:?}");
    }
    Ok(())
}

#[test]
fn a_host_goes_on_by_an_internal_port_when_the_switch_has_its_uplink() -> Result<()> {
    let name = "a_host_goes_on_by_an_internal_port_when_the_switch_has_its_uplink";
    scenario::on_fabric(name, PROBE, |fabric| {
        fabric.host_netns(0).ip(&["route", "add", "198.51.100.0/24", "via", HOSTS[1].encap_ip])?;
        fabric.restart_as(0, OWNED)?;
        fabric.wait_converged()?;
        let host = fabric.host_netns(0);
        for to in [HOSTS[1].encap_ip, "198.51.100.7"] {
            goes_by(host, to, INTERNAL)?;
        }
        for file in ["address", "mtu"] {
            let both = [UPLINK, INTERNAL].map(|interface| sysfs(host, interface, file));
            let [uplink, internal] = both;
            ensure!(uplink? == internal?, "{file} differs");
        }
        // What it said before the wire was there went nowhere.
        let before = lost_of_host(fabric)?;
        hosts_talk(fabric)?;
        checks::all(fabric)?;
        ensure!(
            lost_of_host(fabric)? == before,
            "the host's packets are lost: {:?}",
            fabric.host(0).control.drops()?
        );
        follows(fabric)?;
        let ports = fabric.host(0).control.check_conservation()?;
        let seen = |name: &str| ports.iter().any(|port| port.name == name && port.rx_packets > 0);
        ensure!(seen(INTERNAL) && seen(UPLINK) && seen("tunnels"), "{ports:?}");
        // It is as before.
        fabric.restart_as(0, &[])?;
        fabric.wait_converged()?;
        ensure!(
            fabric.host_netns(0).ip(&["link", "show", "dev", INTERNAL]).is_err(),
            "the internal port stays"
        );
        for to in [HOSTS[1].encap_ip, "198.51.100.7"] {
            goes_by(fabric.host_netns(0), to, UPLINK)?;
        }
        hosts_talk(fabric)?;
        checks::all(fabric)
    })
}

/// Packets of the host that were dropped. A stream may find the ring of the wire full, as that of any card.
fn lost_of_host(fabric: &Fabric) -> Result<u64> {
    let drops = fabric.host(0).control.drops()?;
    let is_lost = |drop: &&Drop| drop.port == INTERNAL && drop.reason != "tx-ring-full";
    Ok(drops.iter().filter(is_lost).map(|drop| drop.n_packets).sum())
}

/// What becomes of the uplink's addresses, routes and MTU, becomes of those of the internal port.
fn follows(fabric: &Fabric) -> Result<()> {
    let host = fabric.host_netns(0);
    host.ip(&["address", "add", "203.0.113.1/24", "dev", UPLINK])?;
    host.ip(&["-6", "address", "add", "2001:db8:1::1/64", "dev", UPLINK, "nodad"])?;
    goes_by(host, "203.0.113.9", INTERNAL)?;
    goes_by(host, "2001:db8:1::9", INTERNAL)?;
    host.ip(&["route", "add", "192.0.2.0/24", "via", "203.0.113.9", "dev", UPLINK])?;
    goes_by(host, "192.0.2.1", INTERNAL)?;
    host.ip(&["link", "set", "dev", UPLINK, "mtu", "1400"])?;
    stop::wait_for("the internal port has the MTU", LIMIT, || {
        let mtu = sysfs(host, INTERNAL, "mtu")?;
        Ok(if mtu == "1400" { Ok(()) } else { Err(mtu) })
    })?;
    host.ip(&["link", "set", "dev", UPLINK, "mtu", &UNDERLAY_MTU.to_string()])?;
    host.ip(&["address", "del", "203.0.113.1/24", "dev", UPLINK])?;
    host.ip(&["-6", "address", "del", "2001:db8:1::1/64", "dev", UPLINK])?;
    stop::wait_for("the internal port has lost the addresses", LIMIT, || {
        let text = host.ip(&["address", "show", "dev", INTERNAL])?;
        let has = text.contains("203.0.113.1") || text.contains("2001:db8:1::1");
        Ok(if has { Err(text) } else { Ok(()) })
    })?;
    // Somebody deletes it: it is made again.
    host.ip(&["link", "del", "dev", INTERNAL])?;
    goes_by(host, HOSTS[1].encap_ip, INTERNAL)?;
    hosts_talk(fabric)
}

/// An address of the switch's own, and the net that it is in.
const OWN: &str = "172.31.1.9";
const NET: &str = "172.31.0.0/16";

#[test]
fn the_switch_answers_for_an_address_that_the_host_does_not_have() -> Result<()> {
    let name = "the_switch_answers_for_an_address_that_the_host_does_not_have";
    scenario::on_fabric(name, PROBE, |fabric| {
        for idx in [0, 1] {
            fabric.host_netns(idx).ip(&["route", "add", NET, "dev", UPLINK])?;
        }
        fabric.restart_at(0, OWN, &[OWNED, &["--encap-prefix", "16"]].concat())?;
        fabric.wait_converged()?;
        let tunnels = fabric.host(1).control.text(&["tunnel", "list"])?;
        ensure!(tunnels.contains(OWN), "{tunnels}");
        let text = fabric.host_netns(0).ip(&["address", "show"])?;
        ensure!(!text.contains(OWN), "the host has the address: {text}");
        let probe = &fabric.plan().programs.probe;
        for idx in [1, 0] {
            for len in [56, 1400] {
                let ping = probe.ping(fabric.host_netns(idx), OWN.parse()?, 3, len)?;
                ensure!(ping.n_received == 3, "asked by {idx}, {len} bytes: {ping:?}");
            }
        }
        hosts_talk(fabric)?;
        checks::all(fabric)
    })
}

/// Everything that can happen to an uplink, each undone again.
#[test]
fn what_becomes_of_the_uplink_is_followed_and_made_up_for() -> Result<()> {
    let name = "what_becomes_of_the_uplink_is_followed_and_made_up_for";
    scenario::on_fabric(name, PROBE, |fabric| {
        for options in [&[][..], OWNED] {
            fabric.restart_as(0, options)?;
            fabric.wait_converged()?;
            reaches(fabric, "at first")?;
            let peer = format!("{}/32", HOSTS[1].encap_ip);
            let own = format!("{}/30", HOSTS[0].encap_ip);
            let ip = |words: &[&str]| fabric.host_netns(0).ip(words).map(drop);
            ip(&["route", "add", "blackhole", &peer])?;
            lost(fabric, "no route leads to the peer")?;
            ip(&["route", "del", "blackhole", &peer])?;
            reaches(fabric, "the route is back")?;
            ip(&["address", "del", &own, "dev", UPLINK])?;
            lost(fabric, "the uplink has no address")?;
            ip(&["address", "add", &own, "dev", UPLINK])?;
            reaches(fabric, "the address is back")?;
            for _ in 0..3 {
                ip(&["link", "set", "dev", UPLINK, "down"])?;
                ip(&["link", "set", "dev", UPLINK, "up"])?;
            }
            reaches(fabric, "the link is back")?;
            // Both hosts lose theirs.
            ip(&["link", "del", "dev", UPLINK])?;
            lost(fabric, "the uplink is gone")?;
            fabric.wire_underlay()?;
            reaches(fabric, "the uplink is back")?;
            hosts_talk(fabric)?;
        }
        checks::all(fabric)
    })
}

fn reaches(fabric: &Fabric, what: &str) -> Result<()> {
    stop::wait_for(&format!("{what}: workloads of two hosts reach each other"), LIMIT, || {
        for (from, to) in [("web-1", "web-2"), ("db-2", "web-1")] {
            if let Err(error) = checks::ping(fabric, from, to, 56) {
                return Ok(Err(format!("{error:#}; {:?}", fabric.host(0).control.status()?.errors)));
            }
        }
        let errors = fabric.host(0).control.status()?.errors;
        Ok(if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) })
    })
}

fn lost(fabric: &Fabric, what: &str) -> Result<()> {
    stop::wait_for(&format!("{what}, and the switch says so"), LIMIT, || {
        let errors = fabric.host(0).control.status()?.errors;
        Ok(if errors.is_empty() { Err("no errors".to_owned()) } else { Ok(()) })
    })?;
    ensure!(checks::ping(fabric, "web-1", "web-2", 56).is_err(), "{what}, and web-2 answers");
    checks::ping(fabric, "web-1", "db-1", 56).map(drop)
}

/// What a host noticed of its switch's coming and going.
#[derive(Debug, Default)]
struct Noticed {
    attached: Vec<Duration>,
    detached: Vec<Duration>,
    killed: Vec<Duration>,
    calm: Duration,
}

#[test]
fn attach_detach_and_crash_do_not_cut_the_host_off() -> Result<()> {
    let name = "attach_detach_and_crash_do_not_cut_the_host_off";
    let n = scenario::cycles(N_CYCLES)?;
    scenario::on_fabric(name, PROBE, |fabric| {
        let mut measured = Vec::new();
        for (mode, options) in [("shared", &[][..]), ("owned", OWNED)] {
            fabric.restart_as(0, options)?;
            fabric.wait_converged()?;
            let noticed = comes_and_goes(fabric, n)?;
            let most = |gaps: &[Duration]| gaps.iter().max().copied().unwrap_or_default();
            let Noticed { attached, detached, killed, calm } = &noticed;
            let [attached, detached, killed] = [attached, detached, killed].map(|gaps| most(gaps));
            say(&format!(
                "{mode} uplink, {n} times each: the host was out of reach for at most {attached:?} when the switch \
                 came, {detached:?} when it went, {killed:?} when it was killed; {calm:?} otherwise"
            ));
            let micros = |gap: Duration| gap.as_micros() as u64;
            measured.push(serde_json::json!({
                "mode": mode,
                "cycles": n,
                "longest_gap_us": {
                    "attach": micros(attached), "detach": micros(detached), "kill": micros(killed), "calm": micros(*calm),
                },
            }));
            let longest = attached.max(detached).max(killed);
            ensure!(longest <= GAP, "{mode}: the host was out of reach for {longest:?}");
        }
        if let Ok(file) = std::env::var(SAVE) {
            fs::write(&file, serde_json::to_string_pretty(&measured)? + "\n")?;
        }
        fabric.wait_converged()?;
        checks::all(fabric)
    })
}

fn comes_and_goes(fabric: &mut Fabric, n: usize) -> Result<Noticed> {
    const REST: Duration = Duration::from_millis(300);
    let watch = Watch::start(fabric.host_netns(1), (fabric.host_netns(0), address(0)?))?;
    let mut noticed = Noticed::default();
    let settled = || {
        std::thread::sleep(REST);
        watch.longest()
    };
    settled()?;
    for _ in 0..n {
        noticed.calm = noticed.calm.max(settled()?);
        fabric.switch(0).context("no switch")?.stop()?;
        noticed.detached.push(settled()?);
        fabric.start_switch(0)?;
        noticed.attached.push(settled()?);
        fabric.switch(0).context("no switch")?.kill()?;
        noticed.killed.push(settled()?);
        fabric.start_switch(0)?;
        noticed.attached.push(settled()?);
    }
    ensure!(watch.n_words() > 0, "nothing was said");
    Ok(noticed)
}
