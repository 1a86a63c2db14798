//! Connections: seen, watched, limited, forgotten, and traced.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::scenario::target_dir;
use serde_json::Value;

use crate::fixture::{LIMIT, Lab, frames, list, number};

#[test]
fn connections_can_be_seen_limited_and_forgotten() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "in_port=p1,udp,actions=ct(commit,zone=7,exec(set_field:0x15->ct_mark)),output:p2",
        "in_port=p2,udp,actions=ct(zone=7,table=1)",
        "table=1,ct_state=+est+rpl,actions=output:p1",
    ])?;
    let flow =
        |src: u8, port: u16| format!("udp,nw_src=10.0.0.{src},nw_dst=10.0.9.1,udp_src={port},udp_dst=53");
    let inject = |flow: &str| lab.json(&["lab", "inject", "p1", "--flow", flow]);
    for port in 1..=3 {
        inject(&flow(1, port))?;
    }
    inject(&flow(2, 1))?;
    let line = "udp,orig=(src=10.0.0.2,dst=10.0.9.1,sport=1,dport=53),\
                reply=(src=10.0.9.1,dst=10.0.0.2,sport=53,dport=1),zone=7,mark=21,timeout=60,unreplied";
    ensure!(lab.text(&["ct", "dump", "src=10.0.0.2"])?.trim() == line, "{}", lab.text(&["ct", "dump"])?);
    ensure!(list(&lab.json(&["ct", "dump"])?).len() == 4);
    let back = lab.json(&[
        "lab",
        "inject",
        "p2",
        "--flow",
        "udp,nw_src=10.0.9.1,nw_dst=10.0.0.2,udp_src=53,udp_dst=1",
    ])?;
    ensure!(frames(&back, "p1").len() == 1, "{back}");
    let found = lab.json(&["ct", "dump", "zone=7,dst=10.0.9.1,sport=1,src=10.0.0.2"])?;
    ensure!(found[0]["state"] == "udp_multiple" && found[0]["replied"] == true, "{found}");
    let ports = lab.json(&["ct", "top"])?;
    ensure!(ports[0]["name"] == "p1" && number(&ports[0]["n_connections"]) >= 3, "{ports}");
    let top = lab.json(&["ct", "top", "--by", "address"])?;
    ensure!(top[0]["address"] == "10.0.0.1" && number(&top[0]["n_connections"]) == 3, "{top}");
    ensure!((number(&top[1]["n_connections"]), number(&top[1]["n_unreplied"])) == (1, 0), "{top}");

    lab.text(&["ct", "limit", "set", "zone=7", "4"])?;
    let refused = inject(&flow(3, 1))?;
    ensure!(refused["drops"][0]["reason"] == "ct-limit", "{refused}");
    ensure!(lab.text(&["ct", "limit", "list"])?.contains("zone=7,limit=4,count=4"));
    lab.text(&["ct", "limit", "del", "zone=7"])?;
    ensure!(number(&inject(&flow(3, 1))?["n_forwarded"]) == 1);

    let flushed = lab.json(&["ct", "flush", "zone=7,unreplied,src=10.0.0.1"])?;
    ensure!(number(&flushed["n_removed"]) == 3, "{flushed}");
    lab.text(&["ct", "timeout", "set", "0", "udp_first", "5"])?;
    inject(&flow(4, 1))?;
    lab.text(&["lab", "clock", "advance", "6"])?;
    ensure!(lab.text(&["ct", "dump", "src=10.0.0.4"])?.is_empty(), "kept for too long");
    ensure!(list(&lab.json(&["ct", "dump", "src=10.0.0.3"])?).len() == 1, "forgotten too soon");
    lab.text(&["ct", "flush", "--all"])?;
    let stats = lab.json(&["ct", "stats"])?;
    ensure!(lab.text(&["ct", "dump"])?.is_empty() && number(&stats["n_limited"]) == 1, "{stats}");
    ensure!(number(&stats["n_slots"]) == 262_144, "{stats}");

    let cases: [(&[&str], &str); 9] = [
        (&["ct", "dump", "zoen=7"], "did you mean `zone`"),
        (&["ct", "dump", "src=10.0.0"], "not an IP address"),
        (&["ct", "flush"], "--all"),
        (&["ct", "flush", "tpc"], "did you mean `tcp`"),
        (&["ct", "limit", "set", "zone=70000", "1"], "zone=N"),
        (&["ct", "timeout", "set", "0", "udp_frist", "1"], "no state `udp_frist`"),
        (&["ct", "timeout", "set", "16", "udp_first", "1"], "0 to 15"),
        (&["ct", "timeout", "set", "0", "udp_first", "0"], "1 to"),
        (&["ct", "timeout", "zone", "70000", "1"], "zones are"),
    ];
    lab.refuses(&cases)?;
    lab.check_conservation()
}

/// Somebody who watches, and the lines that he has read.
struct Watcher {
    monitor: Child,
    lines: mpsc::Receiver<String>,
}

impl Watcher {
    fn start(lab: &Lab, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(find_program(&target_dir()?, "vswitchctl")?);
        command.arg("--host").arg(format!("unix://{}", lab.socket().display())).args(args);
        let mut monitor = command.stdout(Stdio::piped()).spawn()?;
        let out = monitor.stdout.take().context("it has an output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { monitor, lines })
    }

    /// The first line about `what`.
    fn line_about(&self, what: &str) -> Result<String> {
        loop {
            let line = self.lines.recv_timeout(LIMIT).with_context(|| format!("nothing about {what}"))?;
            if line.contains(what) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

#[test]
fn connections_are_watched_as_they_come_and_go() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&[
        "flow",
        "add",
        "in_port=p1,udp,actions=ct(commit,zone=7,exec(set_field:0x15->ct_mark)),output:p2",
        "in_port=p2,udp,actions=ct(zone=7,table=1)",
        "table=1,ct_state=+est+rpl,actions=output:p1",
        "in_port=p1,icmp,actions=ct(commit,zone=8),output:p2",
    ])?;
    let inject = |port: &str, flow: &str| lab.json(&["lab", "inject", port, "--flow", flow]);
    let all = Watcher::start(&lab, &["-o", "json", "ct", "monitor", "zone=7"])?;
    let gone = Watcher::start(&lab, &["ct", "monitor", "--only", "destroyed"])?;
    // They watch as soon as they have seen something.
    let (mut have_seen, start) = ([false, false], Instant::now());
    while have_seen != [true, true] {
        ensure!(start.elapsed() < LIMIT, "they see nothing: {have_seen:?}");
        inject("p1", "udp,nw_src=10.0.0.99,nw_dst=10.0.9.1,udp_src=1,udp_dst=53")?;
        lab.text(&["ct", "flush", "src=10.0.0.99"])?;
        for (seen, watcher) in have_seen.iter_mut().zip([&all, &gone]) {
            *seen |= watcher.lines.recv_timeout(Duration::from_millis(100)).is_ok();
        }
    }
    inject("p1", "icmp,nw_src=10.0.0.8,nw_dst=10.0.9.1,icmp_type=8")?;
    inject("p1", "udp,nw_src=10.0.0.1,nw_dst=10.0.9.1,udp_src=1,udp_dst=53")?;
    for _ in 0..2 {
        inject("p2", "udp,nw_src=10.0.9.1,nw_dst=10.0.0.1,udp_src=53,udp_dst=1")?;
    }
    ensure!(number(&lab.json(&["ct", "flush", "src=10.0.0.1"])?["n_removed"]) == 1);
    for (event, state) in
        [("new", "udp_first"), ("established", "udp_multiple"), ("destroyed", "udp_multiple")]
    {
        let line = all.line_about("\"10.0.0.1\"")?;
        let told: Value = serde_json::from_str(&line)?;
        ensure!(told["event"] == event && told["state"] == state && told["mark"] == 21, "{event}: {told}");
        ensure!(told["original"]["src"] == "10.0.0.1" && told["zone"] == 7, "{told}");
    }
    let line = gone.line_about("10.0.0.1,")?;
    ensure!(line.contains(" destroyed: udp,orig=(src=10.0.0.1,dst=10.0.9.1,sport=1,dport=53)"), "{line}");
    ensure!(lab.refusal(&["ct", "monitor", "zoen=7"])?.contains("did you mean `zone`"));
    ensure!(lab.refusal(&["ct", "monitor", "--only", "newest"])?.contains("established"));
    lab.check_conservation()
}

#[test]
fn a_trace_goes_on_behind_the_tracker_and_tells_why() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&[
        "flow",
        "add",
        "table=0,priority=9,tcp,tp_dst=23,actions=drop",
        "table=0,priority=5,ip,actions=ct(table=1,zone=3)",
        "table=1,ct_state=+trk+new,tcp,actions=ct(commit,zone=3),output:p2",
        "table=1,ct_state=+trk+est,actions=output:p2",
    ])?;
    let packet = "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=9,tp_dst=80,tcp_flags=0x002";
    let text = lab.text(&["trace", "--in-port", "p1", "--why", packet])?;
    let wanted = [
        "    not priority 9: tcp,tp_dst=23: tcp_dst is 80, not 23",
        "  actions: ct(zone=3),recirc(0x1)",
        "recirc(0x1): ct_state new|trk assumed; another with --ct-next",
        "  actions: ct(commit,zone=3),2",
        "verdict: forwarded",
    ];
    let mut lines = text.lines();
    for wanted in wanted {
        ensure!(lines.any(|line| line == wanted), "nothing of {wanted:?} in {text}");
    }
    let trace = lab.json(&["trace", "--in-port", "p1", "--ct-next", "trk,est", packet])?;
    let pass = &trace["passes"][0];
    ensure!(pass["ct_state"] == "est|trk" && pass["asked"] == true, "{trace}");
    ensure!(pass["megaflow"]["actions"] == "2" && trace["verdict"] == "forwarded", "{trace}");
    let trace = lab.json(&["trace", "--in-port", "p1", "--ct-next", "trk|inv", packet])?;
    ensure!(trace["verdict"] == "dropped" && trace["passes"][0]["drop"]["reason"] == "table-miss", "{trace}");
    // What the trace foretells is what happens.
    let answer = lab.json(&["lab", "inject", "p1", "--flow", packet])?;
    ensure!(frames(&answer, "p2").len() == 1, "{answer}");
    let cases: [(&[&str], &str); 3] = [
        (&["trace", "--in-port", "p1", "--ct-next", "trk,etablished", packet], "no state"),
        (&["trace", "--in-port", "p1", "--ct-next", "new", packet], "`trk`"),
        (&["trace", "--in-port", "p1", "--ct-next", "trk,new,est", packet], "both"),
    ];
    lab.refuses(&cases)?;
    lab.check_conservation()
}
