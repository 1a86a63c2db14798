//! What outlives the process.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::fixture::{Lab, UDP, frames, list, number};
use crate::refusals::only_a_lab_does_these;

#[test]
fn ports_and_rules_outlive_the_process_when_asked_to() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = ["--virtual", "--socket", "lab.sock", "--state-dir", "state", "--log", "warn"];
    lab.start(&args)?;
    lab.text(&["lab", "port", "add", "in", "--number", "5"])?;
    lab.text(&["lab", "port", "add", "out", "--mtu", "100"])?;
    lab.text(&["flow", "add", "cookie=0x7,priority=9,in_port=in,actions=output:out"])?;
    let before = (lab.text(&["flow", "dump"])?, lab.text(&["port", "list"])?);
    ensure!(before.1.contains("100"), "{}", before.1);
    lab.stop()?;
    lab.start(&args)?;
    ensure!((lab.text(&["flow", "dump"])?, lab.text(&["port", "list"])?) == before, "not as it was");
    let answer = lab.json(&["lab", "inject", "in", UDP])?;
    ensure!(frames(&answer, "out") == [UDP], "{answer}");
    // Longer than its MTU: lost on the way out, under a name.
    let long = format!("{UDP}{}", "00".repeat(200));
    let answer = lab.json(&["lab", "inject", "in", &long])?;
    ensure!(answer["drops"][0]["reason"] == "too-big" && frames(&answer, "out").is_empty(), "{answer}");
    lab.text(&["lab", "port", "del", "in"])?;
    ensure!(lab.refusal(&["lab", "inject", "in", UDP])?.contains("`in`"));
    Ok(())
}

#[test]
fn what_a_port_counted_stays_when_it_goes() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["flow", "add", "priority=9,udp,actions=output:p2"])?;
    lab.text(&["lab", "inject", "p1", "--flow", "udp", "--flow", "tcp", "--flow", "tcp"])?;
    lab.text(&["port", "del", "p1"])?;
    ensure!(list(&lab.json(&["port", "list"])?).len() == 1);
    // Its number becomes another's, its drops do not.
    lab.text(&["lab", "port", "add", "p3", "--number", "1"])?;
    lab.text(&["lab", "inject", "p3", "--flow", "tcp"])?;
    let (ports, drops) = (lab.json(&["port", "list", "--removed"])?, lab.json(&["drops"])?);
    for (name, role, rx) in [("p1", "removed", 3), ("p2", "workload", 0), ("p3", "workload", 1)] {
        let port = list(&ports).iter().find(|port| port["name"] == name).context("a port is missing")?;
        let count = |field: &str| number(&port["counters"][field]);
        let of_port = list(&drops).iter().filter(|drop| drop["port"] == name);
        let named: u64 = of_port.map(|drop| number(&drop["n_packets"])).sum();
        ensure!(port["role"] == role && count("rx_packets") == rx, "{port}");
        ensure!(count("rx_packets") == count("rx_forwarded") + count("rx_dropped"), "{port}");
        ensure!(count("rx_dropped") == named, "{port} {drops}");
    }
    // The name goes on where it was.
    lab.text(&["lab", "port", "add", "p1"])?;
    lab.text(&["lab", "inject", "p1", "--flow", "tcp"])?;
    let ports = lab.json(&["port", "list", "--removed"])?;
    let of_p1: Vec<_> = list(&ports).iter().filter(|port| port["name"] == "p1").collect();
    let [p1] = of_p1[..] else { bail!("{ports}") };
    ensure!(number(&p1["counters"]["rx_packets"]) == 4 && p1["role"] == "workload", "{p1}");
    lab.check_conservation()
}

#[test]
fn without_a_controller_rules_are_written_by_hand_and_outlive_a_crash() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = ["--standalone", "--socket", "lab.sock", "--state-dir", "state", "--log", "warn"];
    lab.start(&args)?;
    only_a_lab_does_these(&lab)?;
    lab.text(&[
        "bundle",
        "flow add table=0,priority=7,ip,actions=meter:2,group:1",
        "flow delete",
        "meter add meter=2,kbps,bands=type=drop,rate=10",
        "group add group_id=5,type=indirect,bucket=output:3",
        "group add group_id=1,type=all,bucket=group:5,bucket=output:4",
        "priority=7,ip,idle_timeout=600,actions=meter:2,group:1",
    ])
    .map_or_else(
        |error| {
            // The first rule comes before what it needs.
            let said = error.to_string();
            ensure!(said.contains("change 1") && said.contains("meter 2"), "{said}");
            Ok(())
        },
        |said| bail!("it was done: {said}"),
    )?;
    ensure!(lab.text(&["group", "dump"])?.is_empty() && lab.text(&["meter", "dump"])?.is_empty());
    fs::write(
        lab.dir.join("all"),
        "meter add meter=2,kbps,bands=type=drop,rate=10\n# a group\ngroup add group_id=5,type=indirect,bucket=output:3\n\
         group add group_id=1,type=all,bucket=group:5,bucket=output:4\n\
         flow add priority=7,ip,idle_timeout=600,actions=meter:2,group:1\n",
    )?;
    lab.text(&["bundle", "@all"])?;
    let state = || -> Result<[String; 3]> {
        Ok([lab.text(&["flow", "dump"])?, lab.text(&["group", "dump"])?, lab.text(&["meter", "dump"])?])
    };
    let before = state()?;
    ensure!(before[0].contains("meter:2,group:1") && before[1].lines().count() == 2, "{before:?}");
    let said = lab.refusal(&["group", "add", "group_id=1,type=all"])?;
    ensure!(said.contains("exists already"), "{said}");
    let said = lab.refusal(&["port", "add", "lo", "--logical-port", "web"])?;
    ensure!(said.contains("no network"), "{said}");
    // Killed, without any chance to tidy up.
    if let Some(mut daemon) = lab.daemon.take() {
        daemon.kill()?;
        daemon.wait()?;
    }
    let said = lab.refusal(&["flow", "dump"])?;
    ensure!(said.contains("is vswitchd running?"), "{said}");
    lab.start(&args)?;
    let after = [lab.text(&["flow", "dump"])?, lab.text(&["group", "dump"])?, lab.text(&["meter", "dump"])?];
    ensure!(after == before, "{after:?} instead of {before:?}");
    lab.text(&["meter", "del", "2"])?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty(), "a rule without its meter");
    Ok(())
}

#[test]
fn how_connections_are_tracked_outlives_the_process() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = [
        "--virtual",
        "--socket",
        "lab.sock",
        "--state-dir",
        "state",
        "--conntrack-max",
        "1000",
        "--log",
        "warn",
    ];
    lab.start(&args)?;
    lab.text(&["ct", "limit", "set", "zone=7", "4"])?;
    lab.text(&["ct", "limit", "set", "port", "9"])?;
    lab.text(&["ct", "timeout", "set", "3", "tcp_established", "100"])?;
    lab.text(&["ct", "timeout", "zone", "7", "3"])?;
    lab.text(&["ct", "check", "sequence", "off"])?;
    let state = |lab: &Lab| -> Result<[Value; 4]> {
        Ok([
            lab.json(&["ct", "limit", "list"])?,
            lab.json(&["ct", "timeout", "list"])?,
            lab.json(&["ct", "check"])?,
            lab.json(&["ct", "stats"])?,
        ])
    };
    let before = state(&lab)?;
    ensure!(before[2]["sequence"] == false && number(&before[3]["n_slots"]) == 1000, "{before:?}");
    lab.stop()?;
    lab.start(&args)?;
    ensure!(state(&lab)? == before, "{:?} instead of {before:?}", state(&lab)?);
    Ok(())
}

#[test]
fn bridges_and_their_rules_outlive_a_crash_at_any_moment() -> Result<()> {
    let start = ["--virtual", "--socket", "lab.sock", "--log", "warn", "--state-dir", "state"];
    let mut lab = Lab::new()?;
    lab.start(&start)?;
    lab.text(&["bridge", "add", "br1", "--fail-mode", "standalone"])?;
    lab.text(&["lab", "port", "add", "br1", "q1", "--number", "4"])?;
    lab.text(&["port", "add", "br0", "up", "--peer", "down"])?;
    lab.text(&["port", "add", "br1", "down", "--peer", "up"])?;
    lab.text(&["fdb", "add", "q1", "0", "0a:00:00:00:00:07"])?;
    lab.text(&["flow", "add", "br0", "priority=1,actions=up"])?;
    lab.text(&["flow", "add", "br1", "priority=7,ip,actions=output:4"])?;
    lab.text(&["flow", "del", "br1", "ip"])?;
    lab.text(&["flow", "add", "br1", "priority=8,arp,actions=output:4"])?;
    let rules = |lab: &Lab, bridge: &str| lab.text(&["flow", "dump", bridge]);
    let (first, second) = (rules(&lab, "br0")?, rules(&lab, "br1")?);
    ensure!(
        second.contains("NORMAL") && second.contains("arp") && !second.contains("priority=7"),
        "{second}"
    );

    // The last change was being written when the process was killed.
    let journal = lab.dir.join("state/rules-br1.journal");
    let crash = |lab: &mut Lab| -> Result<()> {
        if let Some(mut daemon) = lab.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    };
    crash(&mut lab)?;
    let whole = fs::read(&journal)?;
    for n_lost in [0, 1, 30] {
        fs::write(&journal, &whole[..whole.len() - n_lost])?;
        lab.start(&start)?;
        ensure!(rules(&lab, "br0")? == first);
        let seen = rules(&lab, "br1")?;
        ensure!(seen.contains("arp") == (n_lost == 0) && seen.contains("NORMAL"), "{n_lost}: {seen}");
        let stations = lab.json(&["fdb", "dump", "br1"])?;
        ensure!(list(&stations)[0]["mac"] == "0a:00:00:00:00:07", "{stations}");
        let bridges = lab.json(&["bridge", "list"])?;
        ensure!(list(&bridges)[1]["fail_mode"] == "standalone", "{bridges}");
        // What is written after that stays, too.
        lab.text(&["flow", "add", "br1", "priority=9,ipv6,actions=drop"])?;
        crash(&mut lab)?;
        lab.start(&start)?;
        ensure!(rules(&lab, "br1")?.contains("ipv6"), "{n_lost}");
        let answer = lab.json(&["lab", "inject", "q1", UDP])?;
        ensure!(number(&answer["n_forwarded"]) == 1, "the link is there again: {answer}");
        crash(&mut lab)?;
    }
    Ok(())
}
