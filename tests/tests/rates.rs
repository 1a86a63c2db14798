//! Rates and queues of ports, held against what iperf3 measures.

#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command;
use ferroflow_tests::daemon::{Daemon, Life, has_command};
use ferroflow_tests::pods::{By, Pods, on_pods};
use ferroflow_tests::{say, stop};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
/// Seconds that a stream is measured.
const SECONDS: &str = "3";
/// Bytes of frames of TCP at an MTU of 1500, and of their payload.
const FRAME: f64 = 1514.0;
const PAYLOAD: f64 = 1448.0;

fn serve(pods: &Pods, n: usize, port: &str) -> Result<Daemon> {
    let netns = &pods.pod(n).netns;
    let log = pods.dir.join(format!("iperf-{n}-{port}.log"));
    let server = Daemon::start(netns, Path::new("iperf3"), &["-s", "-p", port], &log, Life::WithParent)?;
    stop::wait_for("iperf3 listens", LIMIT, || {
        let listening = netns.command("ss").args(["-Hltn", &format!("sport = :{port}")]).output()?;
        Ok(if listening.stdout.is_empty() { Err("not yet".to_owned()) } else { Ok(()) })
    })?;
    Ok(server)
}

/// Megabits of payload that arrive in a second from one pod at another.
fn stream(pods: &Pods, (from, to): (usize, usize), port: &str, more: &[&str]) -> Result<f64> {
    let address = pods.pod(to).address.to_string();
    let mut client = pods.pod(from).netns.command("iperf3");
    // The first second, in which bursts are used up, does not count.
    client.args(["-J", "-c", &address, "-p", port, "-t", SECONDS, "-O", "1"]).args(more);
    let text = command::output(&mut client, LIMIT)?;
    let answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let bits = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.or_else(|| answer["end"]["sum"]["bits_per_second"].as_f64());
    Ok(bits.with_context(|| format!("no rate in {text}"))? / 1e6)
}

fn close(what: &str, found: f64, wanted: f64) -> Result<()> {
    ensure!((found / wanted - 1.0).abs() <= 0.05, "{what}: {found:.2} Mbit/s of payload, not {wanted:.2}");
    Ok(())
}

#[test]
fn ports_keep_to_their_rates_within_five_percent() -> Result<()> {
    let name = "ports_keep_to_their_rates_within_five_percent";
    if !has_command("iperf3") {
        say(&format!("SKIPPED {name}: there is no `iperf3`; apt-get install iperf3"));
        return Ok(());
    }
    on_pods(name, &[By::Packet, By::Tap, By::Packet], |pods| {
        let _servers = [serve(pods, 2, "5201")?, serve(pods, 2, "5202")?, serve(pods, 1, "5201")?];
        let set = |words: &[&str]| pods.control.text(&[&["port", "mod"], words].concat()).map(drop);
        let payload = |megabits: f64| megabits * PAYLOAD / FRAME;
        // What is sent waits: TCP, in packets of 64 KiB, finds the rate.
        set(&["p2", "--send-rate", "50M"])?;
        close("sent by TCP", stream(pods, (1, 2), "5201", &[])?, payload(50.0))?;
        // The other direction is not concerned.
        ensure!(stream(pods, (2, 1), "5201", &[])? > 200.0, "the other direction");
        // What is received beyond is dropped: datagrams that do not care.
        set(&["p2", "--send-rate", "none"])?;
        set(&["p1", "--receive-rate", "20M/200k"])?;
        let datagrams = ["-u", "-b", "60M", "-l", "1000"];
        let received = stream(pods, (1, 2), "5201", &datagrams)?;
        close("received by UDP", received, 20.0 * 1000.0 / 1042.0)?;
        set(&["p1", "--receive-rate", "none"])?;
        queues(pods)?;
        // What was set is told, and outlives the process.
        let told = pods.control.text(&[
            "port",
            "mod",
            "p2",
            "--send-rate",
            "40M",
            "--queue",
            "7:min=30M,priority=1",
        ])?;
        ensure!(
            told.contains("send-rate 40M") && told.contains("queue 7:min=30M,max=none,priority=1"),
            "{told}"
        );
        pods.restart(true)?;
        let ports = pods.control.json(&["port", "list"])?;
        let port = ports["ports"]
            .as_array()
            .or(ports.as_array())
            .into_iter()
            .flatten()
            .find(|port| port["name"] == "p2");
        let port = port.context("p2")?;
        ensure!(
            port["send_rate"]["bits_per_second"] == 40_000_000 && port["queues"][1]["queue"] == 7,
            "{port}"
        );
        let _server = serve(pods, 2, "5203")?;
        close("after a restart", stream(pods, (1, 2), "5203", &[])?, payload(40.0))
    })
}

/// A queue has what it is to have, whoever else wants it.
fn queues(pods: &Pods) -> Result<()> {
    let rules = ["priority=9,in_port=p3,ip,actions=set_queue:7,output:p2"];
    pods.control.text(&[&["flow", "add"], &rules[..]].concat())?;
    pods.control.text(&["port", "mod", "p2", "--send-rate", "50M", "--queue", "7:min=40M"])?;
    let (usual, first) = std::thread::scope(|scope| {
        let usual = scope.spawn(|| stream(pods, (1, 2), "5201", &[]));
        let first = stream(pods, (3, 2), "5202", &[]);
        (usual.join(), first)
    });
    let usual = usual.map_err(|_| anyhow::anyhow!("a client panicked"))??;
    let (first, all) = (first?, 50.0 * PAYLOAD / FRAME);
    ensure!(first >= 0.76 * all, "40 of 50 are its own: {first:.1} and {usual:.1}");
    close("both together", first + usual, all)?;
    let ports = pods.control.text(&["port", "list", "-o", "json"])?;
    ensure!(ports.contains("\"n_packets\""), "{ports}");
    Ok(())
}
