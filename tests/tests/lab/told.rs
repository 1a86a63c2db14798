//! What a switch tells of itself and of packets, and what it is told back.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::scenario::target_dir;
use serde_json::Value;

use crate::fixture::{Lab, UDP, frames, list, number};

/// The lines of a command that prints an object a line.
fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn what_happens_is_told() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "table=0,cookie=0x2a,udp,actions=load:7->NXM_NX_REG0[],controller(reason=no_match,max_len=20,id=5,userdata=0a.0b)",
        "table=0,arp,idle_timeout=3,send_flow_rem,actions=output:p2",
        "table=3,priority=9,send_flow_rem,actions=drop",
    ])?;
    lab.text(&["lab", "inject", "p1", UDP])?;
    lab.text(&["lab", "inject", "p1", "--flow", "arp,arp_op=1"])?;
    lab.text(&["lab", "clock", "advance", "5"])?;
    lab.text(&["flow", "del", "table=3"])?;
    lab.text(&["lab", "port", "del", "p2"])?;
    let told = lines(&lab.text(&["-o", "json", "monitor", "--kept"])?)?;
    let kinds: Vec<_> = told.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    ensure!(kinds == ["port", "port", "packet-in", "flow-removed", "flow-removed", "port"], "{told:?}");
    let found = &told[2];
    ensure!(
        found["reason"] == "no_match" && found["cookie"] == "0x2a" && found["userdata"] == "0a0b",
        "{found}"
    );
    ensure!(found["frame"] == UDP[..40] && number(&found["n_bytes"]) == UDP.len() as u64 / 2, "{found}");
    ensure!(found["metadata"].as_str().is_some_and(|text| text.contains("reg0=0x7")), "{found}");
    let removed: Vec<_> =
        told[3..5].iter().map(|gone| (gone["reason"].as_str(), number(&gone["n_packets"]))).collect();
    ensure!(removed == [(Some("idle"), 1), (Some("delete"), 0)], "{told:?}");
    ensure!(told[5]["what"] == "delete" && told[5]["name"] == "p2", "{}", told[5]);
    let text = lab.text(&["monitor", "--kept", "--only", "packet-in,port", "--follow-from", "2", "-v"])?;
    let said: Vec<_> = text.lines().collect();
    ensure!(
        said.len() == 3 && said[0].contains("packet-in: reason=no_match table=0 cookie=0x2a in_port=1"),
        "{text}"
    );
    ensure!(said[1].trim() == &UDP[..40] && said[2].contains("port: delete 2 (p2)"), "{text}");
    ensure!(lab.refusal(&["monitor", "--only", "packet"])?.contains("packet-in"));

    // One that follows gets what happens meanwhile.
    let mut monitor = Command::new(find_program(&target_dir()?, "vswitchctl")?);
    monitor.arg("--host").arg(format!("unix://{}", lab.socket().display()));
    monitor.args(["-o", "json", "monitor", "--follow-from", "6", "--count", "1"]).stdout(Stdio::piped());
    let monitor = monitor.spawn()?;
    std::thread::sleep(Duration::from_millis(100));
    lab.text(&["lab", "port", "add", "p7", "--number", "7"])?;
    let told = lines(&String::from_utf8(monitor.wait_with_output()?.stdout)?)?;
    ensure!(told.len() == 1 && told[0]["what"] == "add" && number(&told[0]["port_no"]) == 7, "{told:?}");
    lab.check_conservation()
}

#[test]
fn a_controller_answers_by_hand() -> Result<()> {
    let lab = Lab::with_ports(3)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "in_port=p1,actions=controller(pause),resubmit(,1)",
        "table=1,reg3=5,actions=output:p3",
        "table=1,priority=1,actions=output:p2",
    ])?;
    let ids = || -> Result<Vec<String>> {
        let told = lines(&lab.text(&["-o", "json", "monitor", "--kept", "--only", "packet-in"])?)?;
        Ok(told.iter().map(|told| told["id"].as_str().unwrap_or_default().to_owned()).collect())
    };
    for _ in 0..3 {
        lab.text(&["lab", "inject", "p1", UDP])?;
    }
    let ids = ids()?;
    ensure!(ids.len() == 3, "{ids:?}");
    let answer = lab.json(&["resume", &ids[0]])?;
    ensure!(answer["forwarded"] == true && frames(&answer, "p2") == [UDP], "{answer}");
    let said = lab.refusal(&["resume", &ids[0]])?;
    ensure!(said.contains("--frame"), "{said}");
    let said = lab.refusal(&["resume", &ids[0], "--frame", UDP])?;
    ensure!(said.contains("no packet waits"), "{said}");
    let other = UDP.replacen("0a0000000002", "020000000009", 1);
    let answer = lab.json(&["resume", &ids[1], "--frame", &other, "--metadata", "reg3=5"])?;
    ensure!(frames(&answer, "p3") == [other], "{answer}");
    let said = lab.refusal(&["resume", &ids[2], "--metadata", "ip"])?;
    ensure!(said.contains("in the frame"), "{said}");

    let answer = lab.json(&["packet-out", "CONTROLLER", "output:p2,output:p3", UDP])?;
    ensure!(frames(&answer, "p2") == [UDP] && frames(&answer, "p3") == [UDP], "{answer}");
    let answer = lab.json(&["packet-out", "p2", "resubmit(,1)", "--flow", "udp,nw_dst=10.0.0.2"])?;
    ensure!(answer["forwarded"] == false, "it left by where it came in: {answer}");
    let text = lab.text(&["packet-out", "p1", "drop", UDP])?;
    ensure!(text.starts_with("dropped\n  1 rule-drop"), "{text}");
    let answer = lab.json(&["packet-out", "p1", "group:77", UDP])?;
    ensure!(answer["drops"][0]["reason"] == "no-such-group", "{answer}");
    let cases: [(&[&str], &str); 5] = [
        (&["packet-out", "p9", "output:p2", UDP], "p9"),
        (&["packet-out", "p1", "outptu:p2", UDP], "did you mean `output`"),
        (&["packet-out", "p1", "dec_ttl", "0a00"], "parsed"),
        (&["resume", "nothing"], "no id"),
        (&["resume", "9:0x1", "--frame", UDP], "worker 9"),
    ];
    lab.refuses(&cases)?;
    lab.check_conservation()
}

#[test]
fn what_packets_teach_holds_for_the_next() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = ["--virtual", "--socket", "lab.sock", "--state-dir", "state", "--log", "warn"];
    lab.start(&args)?;
    for port in ["p1", "p2", "p3"] {
        lab.text(&["lab", "port", "add", port])?;
    }
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "table=0,udp,actions=learn(table=10,idle_timeout=60,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_OF_IN_PORT[]->NXM_NX_REG0[0..15]),resubmit(,10),resubmit(,1)",
        "table=0,arp,actions=NORMAL",
        "table=1,reg0=0,actions=flood",
        "table=1,reg0=1,actions=output:p1",
        "table=1,reg0=2,actions=output:p2",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(frames(&answer, "p2").len() == 1 && frames(&answer, "p3").len() == 1, "{answer}");
    let back = "udp,dl_src=0a:00:00:00:00:02,dl_dst=0a:00:00:00:00:01";
    let answer = lab.json(&["lab", "inject", "p2", "--flow", back])?;
    ensure!(frames(&answer, "p1").len() == 1 && frames(&answer, "p3").is_empty(), "not learned: {answer}");
    let learned = lab.text(&["flow", "dump", "table=10"])?;
    ensure!(learned.lines().count() == 2, "{learned}");

    let arp = |src: u8, dst: u8| {
        format!("arp,dl_src=0a:00:00:00:01:{src:02x},dl_dst=0a:00:00:00:01:{dst:02x},arp_op=2")
    };
    lab.text(&["lab", "inject", "p3", "--flow", &arp(3, 9)])?;
    let answer = lab.json(&["lab", "inject", "p1", "--flow", &arp(1, 3)])?;
    ensure!(frames(&answer, "p3").len() == 1 && frames(&answer, "p2").is_empty(), "{answer}");
    let fdb = lab.json(&["fdb", "dump"])?;
    let known: Vec<_> = list(&fdb).iter().map(|one| (one["mac"].as_str(), number(&one["port_no"]))).collect();
    ensure!(known == [(Some("0a:00:00:00:01:01"), 1), (Some("0a:00:00:00:01:03"), 3)], "{fdb}");
    ensure!(number(&lab.json(&["fdb", "flush", "--port", "p3"])?["n_removed"]) == 1);
    let answer = lab.json(&["lab", "inject", "p1", "--flow", &arp(1, 3)])?;
    ensure!(frames(&answer, "p2").len() == 1, "it is still known: {answer}");
    ensure!(lab.refusal(&["fdb", "flush", "--mac", "x"])?.contains("MAC address"));
    ensure!(lab.refusal(&["fdb", "flush", "--port", "p9"])?.contains("p9"));
    ensure!(lab.text(&["fdb", "stats"])?.contains("1 stations of"));
    // Learned rules are saved with the others, a moment later.
    std::thread::sleep(Duration::from_millis(1200));
    lab.check_conservation()?;
    lab.stop()?;
    lab.start(&args)?;
    ensure!(lab.text(&["flow", "dump", "table=10"])?.lines().count() == 2);
    Ok(())
}

#[test]
fn a_switch_tells_about_itself_and_its_ports_have_flags() -> Result<()> {
    let lab = Lab::with_ports(3)?;
    ensure!(lab.text(&["log"])? == "warn\n" && lab.text(&["log", "info,dataplane=debug"])?.contains("debug"));
    let said = lab.refusal(&["log", "a=b=c"])?;
    ensure!(said.contains("a=b=c") && lab.text(&["log"])?.contains("debug"), "{said}");
    let parsed = lab.text(&["parse-frame", UDP, "0a00"])?;
    ensure!(parsed.starts_with("udp,") && parsed.contains("tp_dst=4001"), "{parsed}");
    ensure!(parsed.lines().nth(1).is_some_and(|line| line.starts_with("malformed")), "{parsed}");
    let features = lab.json(&["group", "features"])?;
    ensure!(list(&features["types"]).len() == 4 && number(&features["max_buckets"]) > 0, "{features}");
    ensure!(list(&lab.json(&["meter", "features"])?["bands"]).len() == 2);

    lab.text(&["flow", "add", "priority=0,actions=NORMAL"])?;
    let outputs = |answer: &Value| list(&answer["outputs"]).len();
    ensure!(outputs(&lab.json(&["lab", "inject", "p1", UDP])?) == 2);
    lab.text(&["port", "mod", "p1", "--protect", "on"])?;
    lab.text(&["port", "mod", "p2", "--protect", "on"])?;
    ensure!(frames(&lab.json(&["lab", "inject", "p1", UDP])?, "p2").is_empty());
    lab.text(&["fdb", "add", "p2", "0", "0a:00:00:00:00:02"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "port-protected", "{answer}");
    lab.text(&["port", "mod", "p1", "--protect", "off", "--receive", "off"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "port-closed", "{answer}");
    lab.text(&["port", "mod", "p1", "--receive", "on"])?;
    ensure!(frames(&lab.json(&["lab", "inject", "p1", UDP])?, "p2") == [UDP], "a static station is found");
    lab.text(&["port", "mod", "p2", "--enable", "off"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "port-down", "{answer}");

    lab.text(&["flow", "del", "--all"])?;
    lab.text(&["table", "set", "0", "--miss", "controller"])?;
    lab.text(&["lab", "inject", "p3", UDP])?;
    lab.text(&["port", "mod", "p3", "--packet-in", "off"])?;
    let answer = lab.json(&["lab", "inject", "p3", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "table-miss", "{answer}");
    let told = lab.text(&["monitor", "--kept", "--only", "packet-in"])?;
    ensure!(told.lines().count() == 1, "{told}");
    let counts = lab.json(&["coverage"])?;
    let of = |name: &str| {
        list(&counts).iter().find(|count| count["name"] == name).map(|count| number(&count["n"]))
    };
    ensure!(of("packets") == Some(8) && of("misses") > Some(0) && of("stations") > Some(0), "{counts}");
    lab.check_conservation()
}
