//! The options of `ct` as an operator meets them: rules by hand, `vswitchctl ct`, real packets.

#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::daemon::Daemon;
use ferroflow_tests::gateway::{Family, Gateway, on_gateway};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::stop;
use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;
const OTHER_PORT: u16 = 7001;
/// The only port that clients send from.
const SOURCE: &str = "40000 40000";
const TWIN: u8 = 3;
/// Where the twin is hidden.
const TWIN_PUBLIC: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 101);
const ZONES: [u64; 2] = [11, 12];

/// Two clients with the same address. The input port says the zone; what the connection was marked with says
/// where answers go.
fn twins() -> Vec<String> {
    let out = Gateway::forward(None);
    let mut rules = Vec::new();
    let clients = [(1, Family::V4.public(), ZONES[0]), (TWIN, IpAddr::V4(TWIN_PUBLIC), ZONES[1])];
    for (port, public, zone) in clients {
        let track = format!("load:{zone}->reg0[0..15],ct(table=1,zone=reg0[0..15],nat)");
        // Words of the label that have nothing to do with each other.
        let marks = format!(
            "set_field:{port}->ct_mark,set_field:0x{port}0000000000000000/0xff0000000000000000->ct_label"
        );
        rules.extend([
            format!("table=0,ip,in_port={port},actions={track}"),
            format!("table=0,ip,in_port=2,nw_dst={public},actions={track}"),
            format!("table=1,priority=5,ip,reg0={zone},in_port={port},ct_state=+trk+new,actions=ct(commit,table=2,zone={zone},nat(src={public}),exec({marks}))"),
            format!("table=3,ip,ct_zone={zone},ct_mark={port},ct_label=0x{port}0000000000000000/0xff0000000000000000,actions={}", Gateway::forward(Some(port))),
        ]);
    }
    rules.extend([
        "table=1,priority=4,ip,in_port=2,ct_state=+trk+est+rpl,actions=goto_table:3".to_owned(),
        "table=1,priority=3,ip,in_port=2,actions=drop".to_owned(),
        format!("table=1,priority=1,ip,ct_state=+trk-inv,actions={out}"),
        format!("table=2,ip,ct_state=+trk+new+snat,actions={out}"),
    ]);
    rules
}

/// An answer begins the connection anew, and what is known of it can be forgotten.
fn forced() -> Vec<String> {
    vec![
        "table=0,ip,in_port=1,actions=ct(commit,table=1,zone=21)".to_owned(),
        "table=1,ip,ct_state=+trk,ct_zone=21,actions=ct_clear,goto_table:2".to_owned(),
        format!("table=2,priority=2,ip,ct_state=-trk,ct_zone=0,actions={}", Gateway::forward(None)),
        "table=2,priority=1,ip,actions=drop".to_owned(),
        format!("table=0,ip,in_port=2,actions=ct(commit,force,zone=21),{}", Gateway::forward(Some(1))),
    ]
}

#[test]
fn the_options_of_ct() -> Result<()> {
    on_gateway("the_options_of_ct", PROBE, |gateway| {
        gateway.add_twin(TWIN)?;
        let twin = gateway.twin.as_ref().context("it was added")?;
        gateway.add_public(TWIN_PUBLIC.into())?;
        for netns in [&gateway.client, twin] {
            netns.set_sysctls(&[("net.ipv4.ip_local_port_range", SOURCE)])?;
        }
        let _echoes = [start_echo(gateway, PORT)?, start_echo(gateway, OTHER_PORT)?];
        gateway.set_rules(&twins())?;
        stop::wait_for("the twin is connected", LIMIT, || {
            Ok(if ask(gateway, twin, PORT)? { Ok(()) } else { Err("no answer".to_owned()) })
        })?;
        ensure!(ask(gateway, &gateway.client, PORT)?, "the client has no answer beside its twin");
        zones_are_apart(gateway)?;
        a_limit_refuses_by_name(gateway, twin)?;
        a_policy_shortens_a_life(gateway, twin)?;

        gateway.set_rules(&forced())?;
        ensure!(ask(gateway, &gateway.client, PORT)?, "no answer");
        let found = one(gateway, "zone=21")?;
        ensure!(
            found["original"]["src"] == Family::V4.server().to_string(),
            "the answer did not begin it: {found}"
        );
        Ok(())
    })
}

fn start_echo(gateway: &Gateway, port: u16) -> Result<Daemon> {
    let at = SocketAddr::new(Family::V4.server(), port);
    let mut daemon = gateway.start_daemon(&gateway.server, PROBE, &["udp-echo", &at.to_string()])?;
    stop::wait_for("the echo answers", LIMIT, || {
        daemon.check()?;
        Ok(if gateway.probe.udp_ask(&gateway.server, at, 1, 1)? == 1 { Ok(()) } else { Err("no".to_owned()) })
    })?;
    Ok(daemon)
}

/// A client gets an answer.
fn ask(gateway: &Gateway, client: &Netns, port: u16) -> Result<bool> {
    let to = SocketAddr::new(Family::V4.server(), port);
    Ok(gateway.probe.udp_ask(client, to, 1, 100)? == 1)
}

/// The connections that a filter chooses.
fn connections(gateway: &Gateway, filter: &str) -> Result<Vec<Value>> {
    let found = gateway.control.json(&["ct", "dump", filter])?;
    found.as_array().cloned().with_context(|| format!("no list: {found}"))
}

fn one(gateway: &Gateway, filter: &str) -> Result<Value> {
    let found = connections(gateway, filter)?;
    ensure!(found.len() == 1, "{filter}: {found:?}");
    Ok(found[0].clone())
}

fn zones_are_apart(gateway: &Gateway) -> Result<()> {
    let [ours, twins] = ZONES.map(|zone| one(gateway, &format!("zone={zone}")));
    let (ours, twins) = (ours?, twins?);
    ensure!(ours["original"] == twins["original"], "not of the same addresses: {ours} {twins}");
    ensure!(ours["reply"]["dst"] == "10.0.2.100" && twins["reply"]["dst"] == "10.0.2.101", "{ours} {twins}");
    ensure!(ours["mark"] == 1 && twins["mark"] == 3, "{ours} {twins}");
    ensure!(connections(gateway, "mark=3/0x3")?.len() == 1, "chosen by its mark");
    ensure!(
        connections(gateway, "label=0x10000000000000000/0xff0000000000000000")?.len() == 1,
        "chosen by its label"
    );
    Ok(())
}

fn a_limit_refuses_by_name(gateway: &Gateway, twin: &Netns) -> Result<()> {
    gateway.control.text(&["ct", "limit", "set", "zone=11", "1"])?;
    ensure!(!ask(gateway, &gateway.client, OTHER_PORT)?, "a second connection where there may be one");
    let drops = gateway.control.drops()?;
    let refused = drops.iter().find(|drop| drop.reason == "ct-limit");
    ensure!(refused.is_some_and(|drop| drop.port == "inside" && drop.n_packets == 1), "{drops:?}");
    ensure!(ask(gateway, &gateway.client, PORT)?, "the first one goes on");
    ensure!(ask(gateway, twin, OTHER_PORT)?, "another zone has no limit");
    gateway.control.text(&["ct", "limit", "del", "zone=11"])?;
    ensure!(ask(gateway, &gateway.client, OTHER_PORT)?, "the limit is gone");
    gateway.control.text(&["ct", "flush", "--all"])?;
    ensure!(connections(gateway, "")?.is_empty(), "all are forgotten");
    Ok(())
}

fn a_policy_shortens_a_life(gateway: &Gateway, twin: &Netns) -> Result<()> {
    for state in ["udp_first", "udp_single", "udp_multiple"] {
        gateway.control.text(&["ct", "timeout", "set", "5", state, "1"])?;
    }
    gateway.control.text(&["ct", "timeout", "zone", "12", "5"])?;
    ensure!(ask(gateway, twin, PORT)? && ask(gateway, &gateway.client, PORT)?);
    ensure!(one(gateway, "zone=12")?["policy"] == 5 && one(gateway, "zone=11")?["policy"] == 0);
    stop::wait_for("the twin's connection ends", LIMIT, || {
        let n = connections(gateway, "zone=12")?.len();
        Ok(if n == 0 { Ok(()) } else { Err(format!("{n} connections")) })
    })?;
    one(gateway, "zone=11").map(drop)
}

/// The list of options in docs/correctness.md names tests that there are, where they are.
#[test]
fn every_option_has_the_tests_that_are_listed() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/correctness.md"))?;
    let (_, section) = page.split_once("## Connection tracking, option by option").context("no such list")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| option"))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    ensure!(rows.len() > 20, "{} options", rows.len());
    for row in rows {
        let [option, tests, places] = row[..] else { bail!("three cells: {row:?}") };
        let mut sources = String::new();
        for place in quoted(places) {
            let path = if place.starts_with("tests/") {
                root.join(&place)
            } else {
                root.join("flowtable/src").join(&place)
            };
            sources += &std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        }
        for test in quoted(tests) {
            ensure!(sources.contains(&format!("fn {test}(")), "{option}: no test {test} in {places}");
        }
    }
    Ok(())
}
