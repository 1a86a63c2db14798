//! What the network says about packets: errors of routers find the conversation they are about through every
//! translation, and packets in fragments arrive whole.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::gateway::{Family, Gateway, Opening, Translation, on_gateway, rules};
use ferroflow_tests::{command, stop};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(20);
/// MTU behind the router, where the client cannot see it.
const SMALL_MTU: u32 = 1300;
const TRANSFER_LEN: u64 = 300_000;
const PORT: u16 = 7000;

/// Every translation, IPv4 and IPv6.
fn through_all(
    gateway: &Gateway,
    openings: &[Opening],
    check: impl Fn(Family, Translation) -> Result<()>,
) -> Result<()> {
    for translation in Translation::ALL {
        gateway.set_rules(&rules(translation, openings))?;
        for family in Family::ALL {
            check(family, translation).with_context(|| format!("{family:?}, {translation:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn traceroute_sees_the_way() -> Result<()> {
    on_gateway("traceroute_sees_the_way", PROBE, |gateway| {
        through_all(gateway, &[Opening::any("udp"), Opening::any("icmp")], |family, translation| {
            // A router in front of a hidden server is hidden with it.
            let router = if translation.destination { family.service() } else { family.router() };
            let server = translation.server(family);
            for method in ["-U", "-I"] {
                let hops = traceroute(gateway, server, method)?;
                // The switch itself drops what has no hops left, and says nothing.
                ensure!(hops == [router, server], "{method}: the way is {hops:?} and not {router}, {server}");
            }
            Ok(())
        })
    })
}

/// The hops behind the switch.
fn traceroute(gateway: &Gateway, to: IpAddr, method: &str) -> Result<Vec<IpAddr>> {
    let to = to.to_string();
    let words = [method, "-n", "-q", "1", "-w", "2", "-f", "2", "-m", "4", &to];
    let finished = gateway.of_client("traceroute", &words, LIMIT)?;
    ensure!(finished.status.success(), "traceroute: {}", command::complaint(&finished));
    let lines = finished.stdout.lines().skip(1);
    lines
        .map(|line| {
            let hop = line.split_whitespace().nth(1).with_context(|| format!("no hop in {line:?}"))?;
            hop.parse().with_context(|| format!("nobody answered: {}", finished.stdout))
        })
        .collect()
}

#[test]
fn a_sender_learns_the_mtu_of_its_path() -> Result<()> {
    on_gateway("a_sender_learns_the_mtu_of_its_path", PROBE, |gateway| {
        // Only there: the server offers segments that are too large.
        gateway.router.ip(&["link", "set", "dev", "east", "mtu", &SMALL_MTU.to_string()])?;
        through_all(gateway, &[Opening::port("tcp", PORT, None)], |family, translation| {
            forget(gateway, family)?;
            let to = SocketAddr::new(translation.server(family), PORT);
            let at = SocketAddr::new(family.server(), PORT);
            let (sent, received) = gateway.probe.transfer_to(
                (&gateway.client, to),
                (&gateway.server, at),
                TRANSFER_LEN,
                LIMIT,
            )?;
            ensure!(sent.len == TRANSFER_LEN && sent.sha256 == received.sha256, "{sent:?} {received:?}");
            let route = gateway.client.ip(&["route", "get", &to.ip().to_string()])?;
            ensure!(route.contains(&format!("mtu {SMALL_MTU}")), "the client has not learnt it: {route}");
            Ok(())
        })
    })
}

/// What was learnt of paths.
fn forget(gateway: &Gateway, family: Family) -> Result<()> {
    let kind = if family == Family::V4 { "-4" } else { "-6" };
    gateway.client.ip(&[kind, "route", "flush", "cache"]).map(drop)
}

#[test]
fn fragments_arrive_whole_both_ways() -> Result<()> {
    on_gateway("fragments_arrive_whole_both_ways", PROBE, |gateway| {
        let at = format!("[::]:{PORT}");
        let mut server = gateway.start_daemon(&gateway.server, PROBE, &["udp-echo", &at])?;
        stop::wait_for("the echo answers", LIMIT, || {
            server.check()?;
            let local = SocketAddr::new(Family::V4.server(), PORT);
            Ok(if gateway.probe.udp_ask(&gateway.server, local, 1, 1)? == 1 {
                Ok(())
            } else {
                Err("no".to_owned())
            })
        })?;
        through_all(gateway, &[Opening::port("udp", PORT, None)], |family, translation| {
            for payload_len in [1000, 1473, 5000, 20_000] {
                let to = SocketAddr::new(translation.server(family), PORT);
                let n_received = gateway.probe.udp_ask(&gateway.client, to, 3, payload_len)?;
                ensure!(n_received == 3, "{n_received} of 3 datagrams of {payload_len} bytes came back");
            }
            Ok(())
        })
    })
}
