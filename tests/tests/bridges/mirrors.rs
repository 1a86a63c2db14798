//! Copies for whoever looks: at a port, in a VLAN, and at the other end of a tunnel by the kernel's own device.

use anyhow::{Context, Result, ensure};
use ferroflow_tests::stop;

use crate::LIMIT;
use crate::star::{Kind, Star, on_star};
use crate::tcpdump::Tcpdump;

/// Echo requests of a scenario; each has an answer.
const N_PINGS: u64 = 10;
/// Of an echo request and its answer: Ethernet, IP, ICMP, payload.
const PING_LEN: usize = 14 + 20 + 8 + 56;
const ECHO: &str = "icmp";

/// What a mirror has counted: packets and bytes.
fn counted(star: &Star, mirror: &str) -> Result<(u64, u64)> {
    let protocols = star.switch.protocols()?;
    let mirrors = protocols["mirrors"].as_array().cloned().unwrap_or_default();
    let found = mirrors.iter().find(|one| one["name"] == mirror).with_context(|| protocols.to_string())?;
    let number = |name: &str| found[name].as_u64().with_context(|| found.to_string());
    Ok((number("n_packets")?, number("n_bytes")?))
}

/// Pings: what the receiver of the requests has seen of them, and what the sender has seen of the answers, as
/// they are on the wire.
fn exchange(star: &Star) -> Result<Vec<Vec<u8>>> {
    let ends = [(1, "eth0"), (2, "eth0")];
    let mut at_ends = Vec::new();
    for (host, interface) in ends {
        at_ends.push(Tcpdump::start(star.host(host), interface, &star.dir, ECHO)?);
    }
    ensure!(star.ping(1, 2, N_PINGS)? == N_PINGS, "pings were lost");
    let mut seen = Vec::new();
    for end in &at_ends {
        seen.extend(end.wait_for(N_PINGS as usize)?.into_iter().map(|(frame, _)| frame));
    }
    seen.sort();
    Ok(seen)
}

/// What somebody has seen of copies, once there are as many as there should be.
fn copies(by: &Tcpdump, n: usize) -> Result<Vec<Vec<u8>>> {
    let mut seen: Vec<_> = by.wait_for(n)?.into_iter().map(|(frame, _)| frame).collect();
    seen.sort();
    Ok(seen)
}

#[test]
fn whoever_is_at_the_mirrors_port_sees_what_the_others_see() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("whoever_is_at_the_mirrors_port", kind, |star| {
        star.add_ports()?;
        star.wait_for_ping(1, 2)?;
        star.switch.set(&[r#"mirrors.m={"select-src":["p1","p2"],"output-port":"p3","filter":"icmp"}"#])?;
        let at = Tcpdump::start(star.host(3), "eth0", &star.dir, "")?;
        let sent = exchange(star)?;
        ensure!(copies(&at, sent.len())? == sent, "copies are not what was sent");
        ensure!(
            counted(star, "m")? == (2 * N_PINGS, 2 * N_PINGS * PING_LEN as u64),
            "{:?}",
            counted(star, "m")?
        );
        // It has nothing but copies, and what it says itself goes nowhere.
        ensure!(star.ping(3, 1, 2)? == 0, "what is only looked at has answered");
        Ok(())
    })
}

#[test]
fn copies_in_a_vlan_have_its_tag_and_the_length_that_was_asked_for() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("copies_in_a_vlan", kind, |star| {
        star.add_ports()?;
        // Whoever looks is behind a trunk of that VLAN alone, and the hosts are in another one.
        star.switch.control.text(&["port", "mod", "p3", "--vlan-mode", "trunk", "--trunks", "77"])?;
        for port in ["p1", "p2"] {
            star.switch.control.text(&["port", "mod", port, "--vlan-mode", "access", "--tag", "10"])?;
        }
        star.wait_for_ping(1, 2)?;
        star.switch
            .set(&[r#"mirrors.m={"select-src":["p1"],"select-dst":["p1"],"output-vlan":77,"snaplen":60}"#])?;
        let at = Tcpdump::start(star.host(3), "eth0", &star.dir, "")?;
        let sent = exchange(star)?;
        let tagged = |frame: &Vec<u8>| [&frame[..12], &[0x81, 0, 0, 77], &frame[12..56]].concat();
        let wanted: Vec<_> = sent.iter().map(tagged).collect();
        let is_echo = |frame: &Vec<u8>| frame.get(16..18) == Some(&[0x08, 0x00]);
        let seen = stop::wait_for("copies come", LIMIT, || {
            let frames = at.frames()?.into_iter().map(|(frame, _)| frame);
            let mut frames: Vec<_> = frames.filter(is_echo).collect();
            frames.sort();
            Ok(if frames.len() >= wanted.len() { Ok(frames) } else { Err(format!("{}", frames.len())) })
        })?;
        ensure!(seen == wanted, "copies are not what was sent:\n{seen:02x?}\n{wanted:02x?}");
        Ok(())
    })
}

#[test]
fn the_kernels_vxlan_device_takes_copies_out_of_their_tunnel() -> Result<()> {
    let beyond = Kind { n_hosts: 2, has_uplink: true, ..Kind::default() };
    on_star("copies_by_vxlan", beyond, |star| {
        star.add_ports()?;
        star.wait_for_ping(1, 2)?;
        let other = star.beyond.as_ref().context("nobody is at the other end")?;
        #[rustfmt::skip]
        other.ip(&[
            "link", "add", "copies", "type", "vxlan", "id", "99", "local", "172.31.0.2", "remote", "172.31.0.1",
            "dstport", "4789",
        ])?;
        other.ip(&["link", "set", "copies", "up"])?;
        let to = r#""output-port":"vxlan","remote":"172.31.0.2","key":99"#;
        let mirror = format!(r#"mirrors.m={{"select-src":["p1","p2"],"filter":"icmp",{to}}}"#);
        star.switch.set(&[mirror.as_str()])?;
        // The kernel takes the tunnel's headers off.
        let at = Tcpdump::start(other, "copies", &star.dir, ECHO)?;
        let sent = exchange(star)?;
        ensure!(copies(&at, sent.len())? == sent, "copies are not what was sent");
        // Cut before they get those headers.
        star.switch.set(&["mirrors.m.snaplen=70"])?;
        exchange(star)?;
        let seen = at.wait_for(2 * sent.len())?;
        ensure!(seen.len() == 2 * sent.len(), "{} copies", seen.len());
        ensure!(
            seen[sent.len()..].iter().all(|(frame, len)| (frame.len(), *len) == (70, 70)),
            "they are not cut"
        );
        Ok(())
    })
}

#[test]
fn a_packet_that_is_dropped_is_named_although_somebody_looks_at_it() -> Result<()> {
    let kind = Kind { n_hosts: 3, is_secure: true, ..Kind::default() };
    on_star("a_packet_that_is_dropped", kind, |star| {
        star.add_ports()?;
        star.switch.control.text(&["flow", "add", "arp,actions=NORMAL"])?;
        star.switch.control.text(&["flow", "add", "icmp,actions=drop"])?;
        star.switch.set(&[r#"mirrors.m={"select-src":["p1"],"output-port":"p3","filter":"icmp"}"#])?;
        let at = Tcpdump::start(star.host(3), "eth0", &star.dir, "icmp")?;
        ensure!(star.ping(1, 2, 5)? == 0, "a rule drops it");
        at.wait_for(5)?;
        stop::wait_for("the drops have their name", LIMIT, || {
            let drops = star.switch.control.drops()?;
            let named: u64 = drops
                .iter()
                .filter(|drop| drop.port == "p1" && drop.reason == "rule-drop")
                .map(|drop| drop.n_packets)
                .sum();
            Ok(if named == 5 { Ok(()) } else { Err(format!("{drops:?}")) })
        })?;
        let ports = star.switch.control.ports()?;
        let port = ports.iter().find(|port| port.name == "p1").context("no port p1")?;
        ensure!(port.rx_dropped == 5, "{port:?}");
        Ok(())
    })
}
