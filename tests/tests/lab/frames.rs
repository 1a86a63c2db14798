//! Frames in, frames out, and time that stands still until it is told to pass.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::fixture::{Lab, UDP, frames, list, number};

#[test]
fn frames_leave_as_the_rules_say_and_everything_is_counted() -> Result<()> {
    let lab = Lab::with_ports(3)?;
    lab.text(&[
        "flow",
        "add",
        "priority=9,in_port=p1,udp,actions=mod_dl_dst:02:00:00:00:00:09,dec_ttl,output:p2,output:p3",
        "priority=5,in_port=p2,actions=drop",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP, UDP])?;
    // Another MAC, a TTL of 63, and its checksum by RFC 1624: one more in the high byte.
    let wanted = UDP.replacen("0a0000000002", "020000000009", 1).replacen("401166ca", "3f1167ca", 1);
    for port in ["p2", "p3"] {
        ensure!(frames(&answer, port) == [wanted.as_str(), wanted.as_str()], "{answer}");
    }
    ensure!((number(&answer["n_forwarded"]), number(&answer["n_dropped"])) == (2, 0), "{answer}");

    let answer = lab.json(&["lab", "inject", "2", UDP])?;
    ensure!(number(&answer["n_dropped"]) == 1 && answer["drops"][0]["reason"] == "rule-drop", "{answer}");
    let answer = lab.json(&["lab", "inject", "p3", UDP, "0a00"])?;
    let reasons: BTreeMap<_, _> = list(&answer["drops"])
        .iter()
        .map(|drop| (drop["reason"].as_str(), number(&drop["n_packets"])))
        .collect();
    ensure!(reasons == BTreeMap::from([(Some("table-miss"), 1), (Some("malformed"), 1)]), "{answer}");

    ensure!(lab.n_packets("drop")? == 1);
    ensure!(lab.n_packets("set_field:02:00:00:00:00:09->dl_dst,dec_ttl,output:2,output:3")? == 2);
    // A rule that stays keeps its statistics, one that is gone has dropped what it has dropped.
    lab.text(&["flow", "replace", "priority=5,in_port=p2,actions=drop"])?;
    ensure!(lab.n_packets("drop")? == 1 && lab.text(&["flow", "dump"])?.lines().count() == 1);
    lab.check_conservation()
}

#[test]
fn a_capture_goes_in_and_what_comes_out_is_a_capture() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["flow", "add", "in_port=p1,actions=output:p2", "in_port=p2,actions=output:p1"])?;
    // More frames than a batch or a queue of the switch holds.
    let n_frames = 5000;
    let one: Vec<u8> = (0..UDP.len() / 2)
        .map(|idx| u8::from_str_radix(&UDP[2 * idx..2 * idx + 2], 16))
        .collect::<Result<_, _>>()?;
    let mut file = Vec::new();
    [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1].iter().for_each(|word| file.extend(word.to_le_bytes()));
    for idx in 0..n_frames {
        let mut frame = one.clone();
        let at = frame.len() - 4;
        frame[at..].copy_from_slice(&u32::to_be_bytes(idx));
        let len = frame.len() as u32;
        [0, idx, len, len].iter().for_each(|word| file.extend(word.to_le_bytes()));
        file.extend(frame);
    }
    fs::write(lab.dir.join("in.pcap"), &file)?;
    let answer = lab.json(&["lab", "inject", "p1", "--pcap", "in.pcap"])?;
    ensure!(number(&answer["n_forwarded"]) == u64::from(n_frames), "{}", answer["n_forwarded"]);
    ensure!(list(&answer["outputs"]).len() == n_frames as usize);
    for (idx, sent) in list(&answer["outputs"]).iter().enumerate() {
        let frame = sent["frame"].as_str().unwrap_or_default();
        ensure!(number(&sent["index"]) == idx as u64 && frame.ends_with(&format!("{idx:08x}")), "{sent}");
    }
    // Only the last ones are kept, and it says how many are not.
    let kept = lab.json(&["lab", "output", "p2", "--follow-from", "10"])?;
    let n_kept = number(&kept["n_frames"]);
    ensure!(n_kept > 1000 && n_kept + number(&kept["n_forgotten"]) + 10 == u64::from(n_frames), "{n_kept}");
    // What was written is read again, and leaves on the other side.
    lab.text(&["lab", "output", "p2", "--follow-from", "4990", "--pcap", "out.pcap"])?;
    let answer = lab.json(&["lab", "inject", "p2", "--pcap", "out.pcap"])?;
    let back = frames(&answer, "p1");
    ensure!(back.len() == 10 && back[0].ends_with(&format!("{:08x}", 4990)), "{answer}");
    let traces = lab.json(&["trace", "--in-port", "p2", "--pcap", "out.pcap"])?;
    ensure!(list(&traces).len() == 10 && list(&traces).iter().all(|trace| trace["verdict"] == "forwarded"));
    lab.check_conservation()
}

#[test]
fn time_passes_only_when_told_to() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&["flow", "add", "udp,actions=output:p2"])?;
    lab.text(&["lab", "inject", "p1", UDP])?;
    let before = number(&lab.json(&["lab", "clock", "show"])?["now"]);
    std::thread::sleep(Duration::from_millis(30));
    ensure!(number(&lab.json(&["lab", "clock", "show"])?["now"]) == before, "it runs");
    ensure!(list(&lab.json(&["megaflow", "dump"])?).len() == 1);
    lab.text(&["lab", "clock", "advance", "0.5"])?;
    ensure!(list(&lab.json(&["megaflow", "dump"])?).len() == 1, "forgotten too soon");
    let after = lab.json(&["lab", "clock", "advance", "3600"])?;
    ensure!(number(&after["now"]) - before == 3_600_500_000_000 && after["stopped"] == true, "{after}");
    ensure!(list(&lab.json(&["megaflow", "dump"])?).is_empty(), "not forgotten");
    ensure!(lab.n_packets("output:2")? == 1, "its packets are not counted");
    lab.text(&["lab", "clock", "start"])?;
    std::thread::sleep(Duration::from_millis(5));
    ensure!(number(&lab.json(&["lab", "clock", "show"])?["now"]) > number(&after["now"]), "it does not run");
    lab.check_conservation()
}

#[test]
fn rules_end_when_their_time_has_come() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    let rules =
        ["priority=2,udp,idle_timeout=10,actions=output:p2", "priority=1,hard_timeout=60,actions=drop"];
    lab.text(&["flow", "add", rules[0], rules[1]])?;
    let n_rules = || -> Result<usize> { Ok(lab.text(&["flow", "dump"])?.lines().count()) };
    // A rule that is used stays, although the packets never reach it.
    for _ in 0..3 {
        lab.text(&["lab", "clock", "advance", "8"])?;
        ensure!(frames(&lab.json(&["lab", "inject", "p1", UDP])?, "p2") == [UDP]);
    }
    lab.text(&["lab", "clock", "advance", "9"])?;
    ensure!(n_rules()? == 2, "ended before its time");
    lab.text(&["lab", "clock", "advance", "2"])?;
    ensure!(n_rules()? == 1, "idle for too long, and still there");
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(answer["drops"][0]["reason"] == "rule-drop", "{answer}");
    lab.text(&["lab", "clock", "advance", "30"])?;
    ensure!(n_rules()? == 0, "there after its last second");
    lab.check_conservation()
}

#[test]
fn a_bundle_is_all_or_nothing() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["flow", "add", "priority=1,actions=output:p1"])?;
    let before = lab.text(&["flow", "dump"])?;
    let cases = [
        ("priority=2,ip,actions=drop\n# no port\npriority=3,ip,actions=output:p9\n", "rules:3: character 30"),
        ("delete\npriority=3,ip,actions=nosuch\n", "rules:2: character 23"),
        ("delete\nip,nw_src=10.0.0.999,actions=drop\n", "rules:2:"),
        ("delete\npriority=3,nw_src=10.0.0.1,actions=drop\n", "rules:2"),
        ("modify actions=drop\nresubmit\n", "rules:2"),
    ];
    for (text, wanted) in cases {
        fs::write(lab.dir.join("rules"), text)?;
        for command in ["add", "replace"] {
            let said = lab.refusal(&["flow", command, "@rules"])?;
            ensure!(said.contains(wanted), "nothing of {wanted:?} in {said:?}");
            ensure!(lab.text(&["flow", "dump"])? == before, "half done: {text}");
        }
    }
    fs::write(
        lab.dir.join("rules"),
        "modify actions=drop\nadd table=7,arp,actions=flood\ndelete_strict table=0,priority=1\n",
    )?;
    lab.text(&["flow", "add", "@rules"])?;
    let after = lab.text(&["flow", "dump"])?;
    ensure!(after.lines().count() == 1 && after.contains("table=7"), "{after}");
    ensure!(lab.refusal(&["flow", "del"])?.contains("--all"));
    lab.text(&["flow", "del", "--all"])?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty());
    Ok(())
}

#[test]
fn the_same_commands_have_the_same_answers() -> Result<()> {
    let play = || -> Result<Vec<String>> {
        let lab = Lab::with_ports(4)?;
        lab.text(&["lab", "clock", "stop"])?;
        let now = number(&lab.json(&["lab", "clock", "show"])?["now"]);
        // To the same moment of every run.
        let rest = Duration::from_secs(3600).as_nanos() as u64 - now;
        lab.text(&[
            "lab",
            "clock",
            "advance",
            &format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000),
        ])?;
        lab.text(&[
            "flow",
            "add",
            "ip,nw_src=10.0.0.0/25,actions=flood",
            "priority=9,tcp,actions=drop",
            "arp,actions=output:p4",
        ])?;
        let mut said = Vec::new();
        for n in 1..=40 {
            let proto = ["udp", "tcp", "icmp"][n % 3];
            let flow =
                format!("{proto},nw_src=10.0.0.{},nw_dst=10.0.{n}.2,dl_src=0a:00:00:00:00:{n:02}", n * 6);
            said.push(lab.text(&[
                "-o",
                "json",
                "lab",
                "inject",
                &format!("p{}", n % 4 + 1),
                "--flow",
                &flow,
            ])?);
        }
        for words in [
            ["flow", "dump"].as_slice(),
            &["megaflow", "dump"],
            &["drops"],
            &["port", "list"],
            &["lab", "output", "p4"],
        ] {
            said.push(lab.text(&[&["-o", "json"], words].concat())?);
        }
        lab.check_conservation()?;
        Ok(said)
    };
    let (first, second) = (play()?, play()?);
    ensure!(first.len() == 45 && first.iter().any(|said| said.contains("table-miss")));
    ensure!(first == second, "two runs differ");
    Ok(())
}
