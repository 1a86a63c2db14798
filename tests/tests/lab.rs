//! The lab, by the programs that users have and without any privilege: frames in, frames out, and whatever
//! a switch says of itself in between.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::command::{self, Finished};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::privilege;
use ferroflow_tests::scenario::target_dir;
use serde_json::Value;

/// A request that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(20);
/// From a UDP datagram of 10.0.0.1 to one of 10.0.0.2, the first byte of its destination's MAC on.
const UDP: &str = "0a00000000020a00000000010800450000200001000040116\
                   6ca0a0000010a0000020fa00fa1000c000001020304";

/// A folder with a daemon in it; dropping it removes both.
struct Lab {
    dir: PathBuf,
    daemon: Option<Child>,
    /// A controller with hosts, where there is one as well.
    network: Option<Child>,
}

impl Lab {
    fn new() -> Result<Self> {
        static N_LABS: AtomicU32 = AtomicU32::new(0);
        let n = N_LABS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fflab-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, daemon: None, network: None })
    }

    /// A lab whose daemon runs, with ports `p1` to `pN`.
    fn with_ports(n_ports: u32) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.start(&["--virtual", "--socket", "lab.sock", "--log", "warn"])?;
        for port in 1..=n_ports {
            lab.text(&["lab", "port", "add", &format!("p{port}"), "--number", &port.to_string()])?;
        }
        Ok(lab)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("lab.sock")
    }

    /// Starts a program as nobody special: as root, without root's capabilities.
    fn spawn(&self, name: &str, args: &[&str]) -> Result<Child> {
        let program = find_program(&target_dir()?, name)?;
        let mut command = Command::new(&program);
        if privilege::is_root() {
            command = Command::new("setpriv");
            command.args(["--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"]).arg(&program);
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"))?;
        command.args(args).current_dir(&self.dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot run {name}"))
    }

    fn start(&mut self, args: &[&str]) -> Result<()> {
        self.daemon = Some(self.spawn("vswitchd", args)?);
        let start = Instant::now();
        while !self.run(&["status"])?.status.success() {
            let ended = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten();
            ensure!(ended.is_none() && start.elapsed() < LIMIT, "no daemon ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts a controller with hosts in the folder `net`, and waits until they are connected.
    fn start_network(&mut self, args: &[&str]) -> Result<()> {
        let n_hosts: usize =
            args.iter().skip_while(|arg| **arg != "--hosts").nth(1).context("--hosts")?.parse()?;
        self.network = Some(self.spawn("vswitchctl", args)?);
        let start = Instant::now();
        loop {
            let known = self.run(&["--lab", "net", "-o", "json", "chassis", "list"])?;
            let known = serde_json::from_str::<Value>(&known.stdout).unwrap_or_default();
            if list(&known).iter().filter(|host| host["connected"] == true).count() == n_hosts {
                return Ok(());
            }
            let ended = self.network.as_mut().map(Child::try_wait).transpose()?.flatten();
            ensure!(ended.is_none() && start.elapsed() < LIMIT, "no network ({ended:?}): {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        command::output(Command::new("kill").arg(daemon.id().to_string()), LIMIT)?;
        ensure!(daemon.wait()?.success(), "it did not end well: {}", self.log());
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn run(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new(find_program(&target_dir()?, "vswitchctl")?);
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(words);
        command::run(command.current_dir(&self.dir), LIMIT)
    }

    fn text(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(finished.status.success(), "{words:?}: {}", command::complaint(&finished));
        Ok(finished.stdout)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(&[&["-o", "json"], words].concat())?)?)
    }

    /// Runs what has to fail, and gives what it says.
    fn refusal(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(!finished.status.success(), "{words:?} was done: {}", finished.stdout);
        Ok(finished.stderr)
    }

    /// Runs what has to fail, and say this.
    fn refuses(&self, cases: &[(&[&str], &str)]) -> Result<()> {
        cases.iter().try_for_each(|(words, wanted)| {
            let said = self.refusal(words)?;
            ensure!(said.contains(wanted), "{words:?}: nothing of {wanted:?} in {said:?}");
            Ok(())
        })
    }

    /// Packets of the rule with these actions.
    fn n_packets(&self, actions: &str) -> Result<u64> {
        let flows = self.json(&["flow", "dump"])?;
        let rule = list(&flows).iter().find(|rule| rule["actions"] == actions);
        Ok(number(&rule.with_context(|| format!("no rule does {actions}: {flows}"))?["n_packets"]))
    }

    /// What every port received was forwarded or dropped under a name, and what left was counted.
    fn check_conservation(&self) -> Result<()> {
        let (ports, drops) = (self.json(&["port", "list"])?, self.json(&["drops"])?);
        for port in list(&ports) {
            let name = port["name"].as_str().unwrap_or_default();
            let count = |field: &str| number(&port["counters"][field]);
            let named: u64 = list(&drops)
                .iter()
                .filter(|drop| drop["port"] == name)
                .map(|drop| number(&drop["n_packets"]))
                .sum();
            ensure!(count("rx_packets") == count("rx_forwarded") + count("rx_dropped"), "{port}");
            ensure!(count("rx_dropped") == named, "{port} {drops}");
            if let Some(peer) = port["peer"].as_str() {
                // Both ends of a link count the same, once it has both.
                let other = list(&ports).iter().find(|other| other["name"] == peer && other["peer"] == name);
                if let Some(other) = other {
                    ensure!(
                        count("tx_packets") == number(&other["counters"]["rx_packets"]),
                        "{port} {other}"
                    );
                }
                continue;
            }
            let sent = self.json(&["lab", "output", name])?;
            ensure!(count("tx_packets") == number(&sent["next"]), "{port} {}", sent["next"]);
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for mut child in [self.daemon.take(), self.network.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

fn frames(answer: &Value, port: &str) -> Vec<String> {
    let sent = list(&answer["outputs"]).iter().filter(|sent| sent["port"] == port);
    sent.map(|sent| sent["frame"].as_str().unwrap_or_default().to_owned()).collect()
}

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
fn what_makes_no_sense_is_refused_with_a_reason() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    let long = "00".repeat(9000);
    let cases: [(&[&str], &str); 10] = [
        (&["lab", "port", "add", "p1", "--number", "9"], "p1"),
        (&["lab", "port", "add", "p9", "--number", "2"], "p2"),
        (&["lab", "port", "add", "p9", "--number", "4294967295"], "numbers are"),
        (&["lab", "port", "add", "a/b"], "a/b"),
        (&["port", "add", "eth0"], "lab port add"),
        (&["lab", "inject", "p9", UDP], "p9"),
        (&["lab", "inject", "p1", &long], "too long"),
        (&["lab", "inject", "p1", "--flow", "in_port=p2,arp"], "in_port"),
        (&["lab", "inject", "p1", "--flow", "tcp,tp_dst=99999"], "99999"),
        (&["lab", "output", "p9"], "p9"),
    ];
    lab.refuses(&cases)?;
    lab.check_conservation()
}

#[test]
fn a_switch_of_interfaces_is_no_lab() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.start(&["--socket", "lab.sock", "--state-dir", "state", "--log", "warn"])?;
    let before = lab.text(&["flow", "dump"])?;
    let by_hand: [&[&str]; 4] = [
        &["flow", "add", "actions=drop"],
        &["group", "add", "group_id=1,type=all"],
        &["meter", "add", "meter=1,kbps,bands=type=drop,rate=1"],
        &["bundle", "flow del"],
    ];
    for words in by_hand {
        let said = lab.refusal(words)?;
        ensure!(said.contains("vswitchd --virtual") && said.contains("--standalone"), "{words:?}: {said}");
    }
    ensure!(lab.text(&["flow", "dump"])? == before, "it was done all the same");
    only_a_lab_does_these(&lab)
}

/// Commands about wires and clocks.
fn only_a_lab_does_these(lab: &Lab) -> Result<()> {
    let cases: [&[&str]; 4] = [
        &["lab", "port", "add", "p1"],
        &["lab", "inject", "p1", UDP],
        &["lab", "clock", "stop"],
        &["lab", "output", "p1"],
    ];
    for words in cases {
        let said = lab.refusal(words)?;
        ensure!(said.contains("vswitchd --virtual"), "{words:?}: {said}");
    }
    Ok(())
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
fn a_standalone_switch_can_begin_as_a_learning_one() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = [
        "--standalone",
        "--fail-mode",
        "standalone",
        "--socket",
        "lab.sock",
        "--state-dir",
        "state",
        "--log",
        "warn",
    ];
    lab.start(&args)?;
    let flows = lab.text(&["flow", "dump"])?;
    ensure!(flows.trim().ends_with("priority=0 actions=NORMAL"), "{flows}");
    // Whoever takes the rule away does not get it back.
    lab.text(&["flow", "del", "--all"])?;
    lab.stop()?;
    lab.start(&args)?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty());
    Ok(())
}

#[test]
fn groups_and_meters_do_what_they_say_and_count_it() -> Result<()> {
    let lab = Lab::with_ports(3)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "bundle",
        "meter add meter=1,pktps,burst,bands=type=drop,rate=1,burst_size=2",
        "group add group_id=7,type=all,bucket=bucket_id:3,actions=output:p2,bucket=bucket_id:4,actions=output:p3",
        "flow add in_port=p1,actions=meter:1,group:7",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP, UDP, UDP])?;
    ensure!(frames(&answer, "p2").len() == 2 && frames(&answer, "p3").len() == 2, "{answer}");
    ensure!(answer["drops"][0]["reason"] == "metered", "{answer}");
    let groups = lab.json(&["group", "stats"])?;
    ensure!(number(&groups[0]["n_references"]) == 1, "{groups}");
    let buckets: Vec<_> = list(&groups[0]["buckets"])
        .iter()
        .map(|bucket| (number(&bucket["bucket_id"]), number(&bucket["n_packets"])))
        .collect();
    // Those that the meter drops had come to the group.
    ensure!(buckets == [(3, 3), (4, 3)], "{groups}");
    let meters = lab.json(&["meter", "stats", "1"])?;
    ensure!(
        number(&meters[0]["n_packets"]) == 3 && number(&meters[0]["bands"][0]["n_packets"]) == 1,
        "{meters}"
    );
    ensure!(number(&meters[0]["n_rules"]) == 1, "{meters}");
    let text = lab.text(&["group", "stats", "7"])?;
    ensure!(text.contains("ref_count=1") && text.contains("bucket4:packet_count=3"), "{text}");
    ensure!(lab.text(&["meter", "stats"])?.contains("0: packet_count:1"));

    lab.text(&["group", "insert-buckets", "group_id=7,command_bucket_id=first,bucket=output:in_port"])?;
    lab.text(&["group", "remove-buckets", "group_id=7,command_bucket_id=4"])?;
    lab.text(&["lab", "clock", "advance", "10"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!((frames(&answer, "p1").len(), frames(&answer, "p3").len()) == (1, 0), "{answer}");
    lab.text(&["group", "mod", "group_id=7,type=all,bucket=bucket_id:3,actions=output:p3"])?;
    let groups = lab.json(&["group", "stats"])?;
    ensure!(number(&groups[0]["buckets"][0]["n_packets"]) == 4, "its counters are gone: {groups}");

    let cases: [(&[&str], &str); 8] = [
        (&["group", "add", "group_id=7,type=all"], "exists"),
        (&["group", "mod", "group_id=8,type=all"], "no group 8"),
        (&["group", "add", "group_id=9,tpye=all"], "did you mean `type`"),
        (&["group", "add", "group_id=9,type=all,bucket=group:9"], "leads to itself"),
        (&["meter", "add", "meter=9,kpbs,bands=type=drop,rate=1"], "did you mean `kbps`"),
        (&["group", "dump", "99"], "no group 99"),
        (&["meter", "stats", "99"], "no meter 99"),
        (&["group", "del"], "--all"),
    ];
    lab.refuses(&cases)?;
    lab.text(&["group", "mod", "--may-create", "group_id=8,type=all"])?;
    lab.text(&["group", "del", "7"])?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty(), "a rule without its group");
    lab.text(&["group", "del", "--all"])?;
    ensure!(lab.json(&["group", "dump"])?.as_array().is_some_and(Vec::is_empty));
    lab.check_conservation()
}

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

#[test]
fn rules_are_chosen_summed_and_compared() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "table=0,cookie=0x11,priority=9,udp,idle_timeout=60,send_flow_rem,actions=output:p2",
        "table=0,cookie=0x12,priority=9,tcp,actions=drop",
        "table=3,cookie=0x21,ip,nw_dst=10.0.0.1,actions=output:p1",
    ])?;
    lab.text(&["lab", "inject", "p1", UDP, UDP])?;
    let chosen = |words: &[&str]| -> Result<Vec<u64>> {
        let flows = lab.json(&[&["flow", "dump"], words].concat())?;
        let cookie = |flow: &Value| {
            u64::from_str_radix(flow["cookie"].as_str().unwrap_or_default().trim_start_matches("0x"), 16)
        };
        let mut cookies = list(&flows).iter().map(cookie).collect::<Result<Vec<_>, _>>()?;
        cookies.sort_unstable();
        Ok(cookies)
    };
    ensure!(chosen(&["ip"])?.len() == 3 && chosen(&["table=0,ip"])? == [0x11, 0x12]);
    ensure!(chosen(&["cookie=0x10/0xf0"])? == [0x11, 0x12] && chosen(&["out_port=p1"])? == [0x21]);
    ensure!(chosen(&["--strict", "table=0,priority=9,udp"])? == [0x11]);
    ensure!(chosen(&["--strict", "table=0,priority=9,ip"])?.is_empty());
    ensure!(lab.text(&["flow", "dump", "udp"])?.contains(", idle_timeout=60, send_flow_rem, priority=9,udp"));
    let sum = format!("packet_count=2 byte_count={} flow_count=2", UDP.len());
    ensure!(lab.text(&["flow", "sum", "table=0"])?.trim() == sum, "{}", lab.text(&["flow", "sum"])?);
    ensure!(number(&lab.json(&["flow", "aggregate"])?["n_flows"]) == 3);

    fs::write(
        lab.dir.join("rules"),
        "cookie=0x11,priority=9,udp,idle_timeout=60,send_flow_rem,actions=output:p2\n\
         cookie=0x12,priority=9,tcp,actions=output:p2\ntable=4,actions=drop\n",
    )?;
    let finished = lab.run(&["flow", "diff", "@rules"])?;
    ensure!(finished.status.code() == Some(1), "{}", finished.stderr);
    let wanted = "-cookie=0x12, table=0, priority=9,tcp actions=drop\n\
                  -cookie=0x21, table=3, priority=32768,ip,nw_dst=10.0.0.1 actions=output:1\n\
                  +cookie=0x0, table=4, priority=32768 actions=drop\n\
                  +cookie=0x12, table=0, priority=9,tcp actions=output:2\n";
    ensure!(finished.stdout == wanted, "{}", finished.stdout);
    lab.text(&["flow", "replace", "@rules"])?;
    ensure!(lab.text(&["flow", "diff", "@rules"])?.is_empty());
    fs::write(lab.dir.join("rules"), "ip,actions=drop\n\nip,acitons=drop\n")?;
    let said = lab.refusal(&["flow", "diff", "@rules"])?;
    ensure!(said.contains("rules:3: character 4"), "{said}");
    ensure!(lab.refusal(&["flow", "dump", "tabel=0"])?.contains("did you mean `table`"));
    ensure!(lab.refusal(&["flow", "dump", "--strict", "ip"])?.contains("table=0"));
    lab.check_conservation()
}

#[test]
fn tables_sets_fragments_options_and_ports_have_settings_that_last() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = ["--virtual", "--socket", "lab.sock", "--state-dir", "state", "--log", "warn"];
    lab.start(&args)?;
    for port in ["p1", "p2", "p3"] {
        lab.text(&["lab", "port", "add", port])?;
    }
    lab.text(&["table", "set", "1", "--name", "hosts", "--max-rules", "1", "--miss", "continue"])?;
    lab.text(&["set", "add", "servers", "type=ipv4", "10.0.0.1,10.0.9.0/24"])?;
    lab.text(&["frags", "nx-match"])?;
    let options = "{class=0xffff,type=0x1,len=4}->tun_metadata1,{class=0xffff,type=0x2}->tun_metadata9";
    lab.text(&["tlv-map", "add", options])?;
    lab.text(&["tlv-map", "del", "{class=0xffff,type=0x1}"])?;
    lab.text(&[
        "bundle",
        "flow add ip,actions=resubmit(,1)",
        "flow add table=1,ip,nw_dst=$servers,actions=output:p2",
        "flow add table=2,actions=flood",
        "set insert servers 10.0.0.7",
    ])?;
    let said = lab.refusal(&["flow", "add", "table=1,arp,actions=drop"])?;
    ensure!(said.contains("full"), "{said}");
    let goes = |to: &str| -> Result<(usize, usize)> {
        let flow = format!("udp,nw_dst={to}");
        let answer = lab.json(&["lab", "inject", "p1", "--flow", &flow])?;
        Ok((frames(&answer, "p2").len(), frames(&answer, "p3").len()))
    };
    ensure!(goes("10.0.0.7")? == (1, 0) && goes("10.0.9.9")? == (1, 0) && goes("10.0.0.8")? == (1, 1));
    lab.text(&["set", "remove", "servers", "10.0.0.7"])?;
    ensure!(goes("10.0.0.7")? == (1, 1), "it is still in the set");
    let said = lab.refusal(&["set", "del", "servers"])?;
    ensure!(said.contains("servers"), "{said}");
    let tables = lab.json(&["table", "list"])?;
    let second = &tables[1];
    ensure!(
        second["name"] == "hosts" && number(&second["n_lookups"]) == 4 && number(&second["n_matches"]) == 2,
        "{tables}"
    );

    lab.text(&["port", "mod", "p3", "--flood", "off"])?;
    ensure!(goes("10.0.0.8")? == (1, 0), "it is flooded");
    lab.text(&["port", "mod", "p2", "--forward", "off"])?;
    let answer = lab.json(&["lab", "inject", "p1", "--flow", "udp,nw_dst=10.0.0.1"])?;
    ensure!(answer["drops"][0]["reason"] == "port-down", "{answer}");
    lab.text(&["port", "mod", "p2", "--forward", "on"])?;
    let set =
        lab.text(&["port", "mod", "p1", "--vlan-mode", "native-untagged", "--tag", "5", "--trunks", "6,7"])?;
    ensure!(set.trim() == "p1: forward on, flood on, vlan-mode native-untagged, tag 5, trunks 6,7", "{set}");

    let state = |lab: &Lab| -> Result<[String; 6]> {
        let ports = lab.json(&["port", "list"])?;
        let ports = list(&ports)
            .iter()
            .map(|port| format!("{} {} {}", port["floods"], port["forwards"], port["vlan"]));
        Ok([
            lab.text(&["set", "list"])?,
            lab.text(&["frags"])?,
            lab.text(&["tlv-map", "list"])?,
            lab.json(&["table", "list"])?[1]["name"].to_string(),
            lab.json(&["table", "list"])?[1]["max_rules"].to_string(),
            ports.collect(),
        ])
    };
    let before = state(&lab)?;
    ensure!(
        before[0].trim() == "servers type=ipv4 10.0.0.1,10.0.9.0/24" && before[1].trim() == "nx-match",
        "{before:?}"
    );
    ensure!(
        before[2].lines().collect::<Vec<_>>()
            == [
                "{class=0x102,type=0x80,len=4}->tun_metadata0",
                "{class=0xffff,type=0x2,len=4}->tun_metadata9"
            ],
        "{before:?}"
    );
    lab.check_conservation()?;
    lab.stop()?;
    lab.start(&args)?;
    ensure!(state(&lab)? == before, "{:?} instead of {before:?}", state(&lab)?);

    let cases: [(&[&str], &str); 14] = [
        (&["tlv-map", "add", "{class=1,typ=2,len=4}->tun_metadata1"], "did you mean `type`"),
        (&["tlv-map", "add", "{class=1,type=2,len=8}->tun_metadata1"], "room for 4 bytes"),
        (&["tlv-map", "add", "{class=1,type=2,len=4}->tun_metadata9"], "belongs to another"),
        (&["tlv-map", "del", "{class=0x102,type=0x80}"], "logical networks need"),
        (&["port", "mod", "p1"], "--flood"),
        (&["table", "set", "1"], "--max-rules"),
        (&["table", "set", "255", "--miss", "drop"], "255"),
        (&["table", "set", "2", "--name", "hosts"], "hosts"),
        (&["frags", "nomral"], "did you mean `normal`"),
        (&["set", "add", "x", "10.0.0.1"], "type"),
        (&["set", "insert", "severs", "10.0.0.1"], "servers"),
        (&["port", "mod", "p1", "--vlan-mode", "access", "--tag", "4096"], "0 to 4095"),
        (&["port", "mod", "p9", "--flood", "on"], "p9"),
        (&["port", "mod", "p1", "--tag", "4"], "vlan-mode"),
    ];
    lab.refuses(&cases)?;
    Ok(())
}

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

/// Blocks of commands with what they print, as the page has them.
fn steps(page: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        match (line, line.strip_prefix("$ ")) {
            ("```console", _) => is_inside = true,
            ("```", _) => is_inside = false,
            (_, Some(command)) if is_inside => steps.push((command.to_owned(), String::new())),
            _ if is_inside => {
                if let Some((_, output)) = steps.last_mut() {
                    output.push_str(line);
                    output.push('\n');
                }
            }
            _ => {}
        }
    }
    steps
}

/// The same lines; `…` on the page stands for anything within one.
fn is_as_shown(said: &str, page: &str) -> bool {
    let is_line = |(said, page): (&str, &str)| match page.split_once('…') {
        Some((start, end)) => {
            said.len() >= start.len() + end.len() && said.starts_with(start) && said.ends_with(end)
        }
        None => said == page,
    };
    said.lines().count() == page.lines().count() && said.lines().zip(page.lines()).all(is_line)
}

/// Two bridges with a link between them: `p1` on `br0`, `q1` on `br1`.
fn linked() -> Result<Lab> {
    let lab = Lab::with_ports(1)?;
    for words in [
        "bridge add br1",
        "lab port add br1 q1 --number 1",
        "port add br0 to-br1 --peer to-br0 --number 9",
        "port add br1 to-br0 --peer to-br1 --number 9",
    ] {
        lab.text(&words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(lab)
}

#[test]
fn bridges_are_switches_of_their_own_with_links_between_them() -> Result<()> {
    let lab = linked()?;
    // Each has its own tables, groups, meters and sets, though their numbers are the same.
    lab.text(&[
        "flow",
        "add",
        "br0",
        "ip,in_port=p1,actions=mod_nw_tos:32,output:9",
        "in_port=9,actions=p1",
    ])?;
    lab.text(&["group", "add", "br1", "group_id=1,type=all,bucket=output:q1,bucket=output:q1"])?;
    lab.text(&[
        "flow",
        "add",
        "br1",
        "in_port=9,udp,nw_tos=32,actions=group:1",
        "in_port=1,actions=output:9",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(number(&answer["n_forwarded"]) == 1 && frames(&answer, "q1").len() == 2, "{answer}");
    let back = lab.json(&["lab", "inject", "br1", "1", UDP])?;
    ensure!(frames(&back, "p1") == [UDP], "{back}");
    let stats = lab.json(&["group", "stats", "br1", "1"])?;
    ensure!(number(&list(&stats)[0]["n_packets"]) == 1, "{stats}");
    ensure!(list(&lab.json(&["group", "dump", "br0"])?).is_empty());
    ensure!(list(&lab.json(&["megaflow", "dump", "br1"])?).len() == 2);

    // A trace goes on in the other bridge, with the packet as it gets there.
    let traced = lab.json(&["trace", "--in-port", "p1", "udp,nw_dst=10.0.0.2"])?;
    let hop = &list(&traced["hops"])[0];
    ensure!(hop["bridge"] == "br1" && hop["in_port"] == "to-br0" && hop["from"] == "to-br1", "{traced}");
    ensure!(hop["steps"][0]["match"] == "udp,in_port=9,nw_tos=32", "{traced}");
    ensure!(traced["verdict"] == "forwarded", "{traced}");
    let traced = lab.json(&["trace", "--in-port", "p1", "tcp,nw_dst=10.0.0.2"])?;
    ensure!(
        traced["verdict"] == "dropped" && traced["hops"][0]["drop"]["reason"] == "table-miss",
        "{traced}"
    );

    // What is dropped there is counted there.
    let answer = lab.json(&["lab", "inject", "p1", "--flow", "tcp,nw_dst=10.0.0.2"])?;
    let drop = &list(&answer["drops"])[0];
    ensure!(
        drop["bridge"] == "br1" && drop["port"] == "to-br0" && drop["reason"] == "table-miss",
        "{answer}"
    );
    let said = lab.refusal(&["flow", "dump"])?;
    ensure!(said.contains("several bridges, br0, br1"), "{said}");
    let said = lab.refusal(&["bridge", "add", "tcp"])?;
    ensure!(said.contains("word of rules"), "{said}");
    lab.check_conservation()?;

    // A link with one end leads nowhere, and says so.
    lab.text(&["port", "del", "to-br0"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "port-down", "{answer}");
    lab.text(&["bridge", "del", "br1"])?;
    ensure!(list(&lab.json(&["port", "list"])?).len() == 2, "its ports have gone with it");
    ensure!(lab.text(&["flow", "dump"])?.lines().count() == 2, "there is only one again");
    lab.check_conservation()
}

#[test]
fn links_can_form_a_circle_and_the_packet_ends_under_a_name() -> Result<()> {
    let lab = linked()?;
    lab.text(&["port", "add", "br0", "a2", "--peer", "b2"])?;
    lab.text(&["port", "add", "br1", "b2", "--peer", "a2"])?;
    for bridge in ["br0", "br1"] {
        lab.text(&["flow", "add", bridge, "actions=flood"])?;
    }
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(number(&answer["n_forwarded"]) == 1 && !frames(&answer, "q1").is_empty(), "{answer}");
    let reasons: Vec<_> = list(&answer["drops"]).iter().map(|drop| drop["reason"].as_str()).collect();
    ensure!(reasons.contains(&Some("depth-exceeded")), "{answer}");
    let traced = lab.json(&["trace", "--in-port", "p1", "udp,nw_dst=10.0.0.2"])?;
    ensure!(number(&traced["n_omitted_hops"]) > 0, "{traced}");
    lab.check_conservation()
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

#[test]
fn the_tutorial_is_true() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/lab.md");
    let steps = steps(&fs::read_to_string(&page)?);
    ensure!(steps.len() > 70, "{} commands in {}", steps.len(), page.display());
    let mut lab = Lab::new()?;
    let mut exported = BTreeMap::new();
    let path = format!("{}:{}", target_dir()?.display(), std::env::var("PATH").unwrap_or_default());
    for (typed, wanted) in steps {
        if let Some(daemon) = typed.strip_prefix("vswitchd ").and_then(|args| args.strip_suffix(" &")) {
            lab.start(&daemon.split_whitespace().collect::<Vec<_>>())?;
            continue;
        }
        if let Some(network) = typed.strip_prefix("vswitchctl ").and_then(|args| args.strip_suffix(" &")) {
            // The one that the page speaks of.
            let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-switches.yaml");
            fs::copy(example, lab.dir.join("two-switches.yaml"))?;
            lab.start_network(&network.split_whitespace().collect::<Vec<_>>())?;
            continue;
        }
        let mut shell = Command::new("sh");
        shell.current_dir(&lab.dir).env("PATH", &path).env("PWD", &lab.dir).envs(&exported);
        if let Some((name, value)) = typed.strip_prefix("export ").and_then(|set| set.split_once('=')) {
            let value = command::output(shell.args(["-c", &format!("printf %s \"{value}\"")]), LIMIT)?;
            exported.insert(name.to_owned(), value);
            continue;
        }
        let finished = command::run(shell.args(["-c", &typed]), LIMIT)?;
        let said = finished.stdout + &finished.stderr;
        if !is_as_shown(&said, &wanted) {
            bail!("$ {typed}\nprints\n{said}where the page has\n{wanted}{}", lab.log());
        }
    }
    lab.check_conservation()
}

/// A network of hosts in one process, with which tests do what users do.
struct Network(Lab);

impl Network {
    /// Hosts with the network of the example, `web-1` on the first and `db-1` on the second.
    fn example(n_hosts: u32) -> Result<Self> {
        let mut lab = Lab::new()?;
        lab.start_network(&["lab", "start", "--dir", "net", "--hosts", &n_hosts.to_string()])?;
        let network = Self(lab);
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-switches.yaml");
        network.text(&["apply", "-f", &file.display().to_string(), "--wait"])?;
        network.attach("h1", "web-1")?;
        network.attach("h2", "db-1")?;
        Ok(network)
    }

    fn run(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new(find_program(&target_dir()?, "vswitchctl")?);
        command.args(["--lab", "net"]).args(words).current_dir(&self.0.dir);
        command::run(&mut command, LIMIT)
    }

    fn text(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(finished.status.success(), "{words:?}: {}{}", command::complaint(&finished), self.0.log());
        Ok(finished.stdout)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(&[&["-o", "json"], words].concat())?)?)
    }

    fn attach(&self, host: &str, port: &str) -> Result<()> {
        self.text(&["--host", host, "lab", "port", "add", port, "--logical-port", port, "--wait"]).map(drop)
    }

    fn inject(&self, host: &str, port: &str, flow: &str) -> Result<Value> {
        self.json(&["--host", host, "lab", "inject", port, "--flow", flow])
    }
}

const TO_DB: &str = "udp,dl_src=0a:00:00:00:01:0b,dl_dst=0a:00:00:00:01:01,nw_src=10.0.1.11,nw_dst=10.0.2.11,\
                     nw_ttl=64,tp_src=4000,tp_dst=53";

/// Host and port of each frame that has left.
fn places(answer: &Value) -> Vec<(&str, &str)> {
    fn text<'a>(value: &'a Value, name: &str) -> &'a str {
        value[name].as_str().unwrap_or_default()
    }
    list(&answer["outputs"]).iter().map(|sent| (text(sent, "chassis"), text(sent, "port"))).collect()
}

#[test]
fn hosts_of_a_lab_forward_as_their_controller_says() -> Result<()> {
    let network = Network::example(3)?;
    let answer = network.inject("h1", "web-1", TO_DB)?;
    ensure!(places(&answer) == [("h2", "db-1")], "{answer}");
    // What the far host drops is told with the host and the object.
    let answer =
        network.inject("h1", "web-1", &TO_DB.replace("udp", "tcp").replace("tp_dst=53", "tp_dst=23"))?;
    let drop = &answer["drops"][0];
    ensure!(places(&answer).is_empty() && drop["chassis"] == "h2", "{answer}");
    ensure!(drop["origin"]["object"] == "switches/db/acls/no-telnet", "{answer}");
    // A frame that was not sent by a tunnel peer does not get in.
    let forged = "0202c61200020201c61200020800".to_owned()
        + "45000024000040004011ae4ec6120009c6120002958c17c100100000";
    let answer = network.json(&["--host", "h2", "lab", "inject", "underlay", &forged])?;
    ensure!(number(&answer["n_dropped"]) == 1, "{answer}");

    // A trace goes the same ways, from host to host.
    let flow = TO_DB.replace("udp", "tcp");
    let traced = network.json(&["trace", "--from", "web-1", &flow])?;
    let hosts = list(&traced["hosts"]);
    ensure!(hosts.len() == 2 && hosts[1]["chassis"] == "h2" && hosts[1]["from"] == "h1", "{traced}");
    ensure!(hosts[1]["trace"]["outputs"][0]["logical_port"] == "db-1", "{traced}");
    let traced = network.json(&["trace", "--from", "web-1", &flow.replace("tp_dst=53", "tp_dst=23")])?;
    let far = &traced["hosts"][1]["trace"];
    ensure!(far["drop"]["origin"]["object"] == "switches/db/acls/no-telnet", "{traced}");
    ensure!(traced["verdict"] == "dropped", "{traced}");

    // A change of the network holds as soon as the command that waits for it returns.
    network.text(&["acl", "del", "db/no-telnet", "--wait"])?;
    let answer =
        network.inject("h1", "web-1", &TO_DB.replace("udp", "tcp").replace("tp_dst=53", "tp_dst=23"))?;
    ensure!(places(&answer) == [("h2", "db-1")], "{answer}");

    // So does a move.
    network.text(&["--host", "h2", "lab", "port", "del", "db-1"])?;
    network.attach("h3", "db-1")?;
    let answer = network.inject("h1", "web-1", TO_DB)?;
    ensure!(places(&answer) == [("h3", "db-1")], "{answer}");
    Ok(())
}

#[test]
fn hosts_of_a_lab_share_a_clock_and_physical_networks() -> Result<()> {
    let network = Network::example(2)?;
    network.text(&["--host", "h1", "lab", "clock", "stop"])?;
    let now = |host: &str| {
        network.json(&["--host", host, "lab", "clock", "show"]).map(|clock| number(&clock["now"]))
    };
    let before = now("h2")?;
    network.text(&["--host", "h1", "lab", "clock", "advance", "300"])?;
    ensure!((now("h1")?, now("h2")?) == (before + 300_000_000_000, before + 300_000_000_000));

    // A switch with a physical network: its ports on two hosts reach each other by that.
    network.text(&["switch", "add", "pub"])?;
    network.text(&["switch-port", "add", "pub", "pub-net", "--network", "provider"])?;
    for (host, port, address) in
        [("h1", "a", "0a:00:00:00:09:01 10.9.0.1"), ("h2", "b", "0a:00:00:00:09:02 10.9.0.2")]
    {
        network.text(&["--host", host, "lab", "port", "add", "eth1", "--network", "provider"])?;
        network.text(&["switch-port", "add", "pub", port, "--address", address])?;
        network.attach(host, port)?;
    }
    let flow =
        "udp,dl_src=0a:00:00:00:09:01,dl_dst=0a:00:00:00:09:02,nw_src=10.9.0.1,nw_dst=10.9.0.2,nw_ttl=64";
    let answer = network.inject("h1", "a", flow)?;
    ensure!(places(&answer).contains(&("h2", "b")), "{answer}");
    ensure!(network.text(&["--host", "h1", "lab", "output", "underlay"])?.is_empty(), "it was tunnelled");
    Ok(())
}

#[test]
fn a_trace_goes_through_a_tunnel_and_the_translation_of_a_gateway() -> Result<()> {
    let network = Network::example(2)?;
    for words in [
        "switch add pub",
        "switch-port add pub pub-net --network provider",
        "router-port add r1 r1-out --mac 0a:00:00:00:02:02 --network 203.0.113.1/24 --gateway h2=20 \
         --static-mac 203.0.113.254=0a:00:00:00:09:fe",
        "switch-port add pub pub-r1 --router-port r1-out",
        "nat add r1 hide --type snat --external 203.0.113.1 --logical 10.0.0.0/16",
        "--host h2 lab port add eth1 --network provider",
    ] {
        network.text(&words.split_whitespace().collect::<Vec<_>>())?;
    }
    network.text(&["router", "set", "r1", "--route", "0.0.0.0/0 via 203.0.113.254", "--wait"])?;
    let flow = TO_DB.replace("10.0.2.11", "198.51.100.7");
    let answer = network.inject("h1", "web-1", &flow)?;
    ensure!(places(&answer) == [("h2", "eth1")], "{answer}");
    // The source is the gateway's.
    let frame = answer["outputs"][0]["frame"].as_str().unwrap_or_default();
    ensure!(frame.contains("cb007101c6336407"), "{frame}");
    let traced = network.json(&["trace", "--from", "web-1", &flow])?;
    let hosts = list(&traced["hosts"]);
    ensure!(hosts.len() == 2 && hosts[1]["trace"]["outputs"][0]["port"] == "eth1", "{traced}");
    ensure!(hosts[1]["trace"].to_string().contains("203.0.113.1"), "{traced}");
    Ok(())
}
