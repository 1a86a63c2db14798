//! One switch between two workloads, started by its holder: killed and replaced under traffic, and what of
//! that its traffic has noticed.
//!
//! ```text
//!   PREFIX-left               PREFIX-switch                PREFIX-right
//!   eth0 10.0.0.1 -- left [vswitchd <- vswitch-holder] right -- eth0 10.0.0.2
//! ```
//! The rules let `left` begin conversations and nobody else, by connection tracking alone: what `right` sends
//! passes as long as the switch knows the connection, and a TCP connection is known from its first segment or
//! not at all. So a switch that has forgotten connections shows.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command;
use crate::control::Control;
use crate::daemon::{Daemon, Life};
use crate::netns::{self, End, Netns};
use crate::probe::Probe;
use crate::scenario::Dir;
use crate::stop;

const LIMIT: Duration = Duration::from_secs(30);
/// What the holder starts: a link to the switch's program, or a script.
const PROGRAM: &str = "vswitchd";
const MTU: u32 = 1500;
const LEFT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Who receives the pulse, and who sends it.
const PULSE: (SocketAddrV4, SocketAddrV4) = (SocketAddrV4::new(LEFT, 7001), SocketAddrV4::new(RIGHT, 7002));
/// Where nothing from `right` may arrive.
const FORBIDDEN: SocketAddrV4 = SocketAddrV4::new(LEFT, 7003);
const CHAT: SocketAddrV4 = SocketAddrV4::new(RIGHT, 7004);
const BULK: SocketAddrV4 = SocketAddrV4::new(RIGHT, 7005);
/// Distance of the pulse's datagrams.
const INTERVAL: Duration = Duration::from_millis(1);
/// Distance of datagrams that nobody has allowed; where a ring of 2048 frames is all that holds what comes while nobody
/// runs, they must not fill it.
const INTRUSION: Duration = Duration::from_micros(500);
const INTRUSION_RING: Duration = Duration::from_millis(10);
/// Distance of words that are said over one TCP connection, and how long one may take.
const WORDS: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);
const RULES: &str = "\
table=0,priority=100,arp,actions=NORMAL
table=0,priority=90,ip,actions=ct(table=1,zone=5)
table=1,priority=100,ip,ct_state=+trk+est,actions=NORMAL
table=1,priority=90,tcp,in_port=left,ct_state=+trk+new,tcp_flags=+syn-ack,actions=ct(commit,zone=5),NORMAL
table=1,priority=90,udp,in_port=left,ct_state=+trk+new,actions=ct(commit,zone=5),NORMAL
table=1,priority=90,icmp,in_port=left,ct_state=+trk+new,actions=ct(commit,zone=5),NORMAL
table=1,priority=0,actions=drop
";

/// The programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `vswitch-holder`.
    pub holder: PathBuf,
    /// `vswitchd`.
    pub switch: PathBuf,
    /// `vswitchctl`.
    pub control: PathBuf,
    /// Source of traffic.
    pub probe: Probe,
}

/// How the switch's ports are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Veth pairs, by packet sockets.
    Veth,
    /// Veth pairs, by AF_XDP sockets.
    AfXdp,
    /// TAP devices that are in the workloads' namespaces.
    Tap,
}

/// The switch and its workloads. Dropping it removes everything.
#[derive(Debug)]
pub struct Held {
    // Dropped in this order: what runs ends before what it stands on goes.
    holder: Daemon,
    /// `vswitchctl` for the switch.
    pub control: Control,
    left: Netns,
    right: Netns,
    _switch: Netns,
    program: PathBuf,
    probe: Probe,
    /// Distance of what nobody has allowed.
    intrusion: Duration,
    log: PathBuf,
    dir: PathBuf,
    _dir: Dir,
}

/// What is done to the switch, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The daemon is killed.
    Kill,
    /// The holder is told to upgrade.
    Upgrade,
    /// Nothing, to see what traffic notices otherwise.
    Nothing,
}

/// What the traffic has noticed.
#[derive(Debug)]
pub struct Account {
    /// Of each blow, the longest time for which nothing came, or what came was late.
    pub gaps: Vec<Duration>,
    /// The longest such time without a blow.
    pub calm: Duration,
    /// Datagrams of the pulse.
    pub n_sent: u64,
    /// Those that did not arrive.
    pub n_lost: u64,
    /// Words that were said over one TCP connection, and answered.
    pub n_words: (u64, u64),
    /// Bytes that arrived over TCP connections beside it, each of them whole.
    pub bulk_len: u64,
    /// Datagrams that arrived against the rules.
    pub n_forbidden: u64,
}

impl Account {
    /// The gap that so many of a hundred blows did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        let idx = (gaps.len() * percent).div_ceil(100).max(1) - 1;
        gaps.get(idx).copied().unwrap_or_default()
    }
}

impl Held {
    /// Builds it: the switch runs, forwards by the rules, and both workloads know each other's address.
    ///
    /// # Errors
    /// When a step fails; what was made is removed.
    pub fn start(prefix: &str, dir: PathBuf, programs: Programs, ports: Ports) -> Result<Self> {
        let guard = Dir::create(&dir)?;
        let netns = |part: &str| {
            let netns = Netns::create(&format!("{prefix}-{part}"))?;
            let off = |what: &str| format!("net.ipv6.conf.{what}.disable_ipv6");
            netns.set_sysctls(&[(&off("all"), "1"), (&off("default"), "1")])?;
            anyhow::Ok(netns)
        };
        let (left, switch, right) = (netns("left")?, netns("switch")?, netns("right")?);
        let path = |name: &str| dir.join(name).display().to_string();
        let (socket, holding, state) = (path("s.sock"), path("h.sock"), path("state"));
        let program = path(PROGRAM);
        symlink(&programs.switch, &program)?;
        #[rustfmt::skip]
        let args = [
            "--socket", &holding, "--", "setpriv", "--pdeathsig", "KILL", "--", &program, "--holder", &holding,
            "--standalone", "--socket", &socket, "--state-dir", &state, "--log", "info,vswitchd::stages=debug",
        ];
        let log = dir.join("s.log");
        let mut holder = Daemon::start(&switch, &programs.holder, &args, &log, Life::WithParent)?;
        let control = Control::to_host(&programs.control, &format!("unix://{socket}"));
        stop::wait_for("vswitchd answers", LIMIT, || {
            holder.check()?;
            let finished = control.attempt(&["status"])?;
            Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
        })?;
        for (name, workload, address) in [("left", &left, LEFT), ("right", &right, RIGHT)] {
            match ports {
                Ports::Veth | Ports::AfXdp => {
                    netns::link(End::new(workload, "eth0"), End::new(&switch, name), MTU)?;
                    let kind = if ports == Ports::AfXdp { "afxdp" } else { "packet" };
                    control.text(&["port", "add", name, "--kind", kind])?;
                }
                Ports::Tap => {
                    control.text(&["port", "add", name, "--kind", "tap"])?;
                    switch.ip(&["link", "set", "dev", name, "netns", workload.name(), "name", "eth0"])?;
                    workload.ip(&["link", "set", "dev", "eth0", "up"])?;
                }
            }
            workload.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        }
        let replace: Vec<_> = ["flow", "replace"].into_iter().chain(RULES.lines()).collect();
        control.text(&replace)?;
        let probe = programs.probe;
        let program = programs.switch;
        let intrusion = if ports == Ports::AfXdp { INTRUSION_RING } else { INTRUSION };
        let (_switch, _dir) = (switch, guard);
        let held = Self { holder, control, left, right, _switch, program, probe, intrusion, log, dir, _dir };
        stop::wait_for("the workloads reach each other", LIMIT, || {
            let result = held.probe.ping(&held.left, RIGHT, 1, 56)?;
            Ok(if result.n_received == 1 { Ok(()) } else { Err("no answer".to_owned()) })
        })?;
        Ok(held)
    }

    /// Process id of the daemon that the holder has started last.
    ///
    /// # Errors
    /// When there is none.
    pub fn daemon(&self) -> Result<u32> {
        let holder = self.holder.pid();
        let is_child = |pid: &u32| parent_of(*pid) == Some(holder);
        let pids = fs::read_dir("/proc")?.flatten();
        let pids =
            pids.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        pids.filter(is_child).max_by_key(|pid| started(*pid)).context("the holder has no daemon")
    }

    /// The end of the logs of daemon and holder.
    pub fn log_tail(&self, n_lines: usize) -> String {
        self.holder.log_tail(n_lines)
    }

    /// The holder.
    pub fn holder(&mut self) -> &mut Daemon {
        &mut self.holder
    }

    /// Tells the holder to upgrade.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn ask_for_upgrade(&self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.holder.pid())?), Signal::SIGHUP)
            .context("cannot tell the holder")
    }

    /// Times that the log has a text.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn n_said(&self, text: &str) -> Result<usize> {
        Ok(fs::read_to_string(&self.log)?.matches(text).count())
    }

    /// Has the next daemon be one with more options.
    ///
    /// # Errors
    /// The file system's.
    pub fn change_options(&self, more: &str) -> Result<()> {
        let (fresh, program) = (self.dir.join("fresh"), self.dir.join(PROGRAM));
        fs::write(&fresh, format!("#!/bin/sh\nexec {} \"$@\" {more}\n", self.program.display()))?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        fs::rename(&fresh, &program).context("cannot replace the program")
    }

    /// Has the switch have so many rules more, which no packet of the workloads meets.
    ///
    /// # Errors
    /// When it does not take them.
    pub fn add_rules(&self, n: usize) -> Result<()> {
        let rules = (0..n).map(|n| {
            let [_, a, b, c] = (n as u32).to_be_bytes();
            format!(
                "table=1,priority=50,tcp,nw_src=172.{a}.{b}.{c},tp_dst={},actions=drop\n",
                1024 + n % 50_000
            )
        });
        let file = self.dir.join("more.rules");
        fs::write(&file, rules.collect::<String>())?;
        self.control.text(&["flow", "add", &format!("@{}", file.display())]).map(drop)
    }

    /// What daemons have said of their starts so far: each stage, and when half of them were past it, from the
    /// beginning of the program on; then when they forwarded, from the moment on in which the one before was
    /// found dead, and for how long packets have waited in upgrades.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn timeline(&self) -> Result<Vec<(String, Duration)>> {
        let log = fs::read_to_string(&self.log)?;
        let mut stages: Vec<(String, Vec<u64>)> = Vec::new();
        let mut add = |stage: &str, micros: u64| match stages.iter_mut().find(|(known, _)| known == stage) {
            Some((_, times)) => times.push(micros),
            None => stages.push((stage.to_owned(), vec![micros])),
        };
        for line in log.lines() {
            let between = |before: &str, behind: &str| Some(line.split_once(before)?.1.split_once(behind)?.0);
            let stage = between("start stage=\"", "\"");
            let since =
                line.rsplit_once("since_start_us=").and_then(|(_, micros)| micros.trim().parse().ok());
            if let Some((stage, since)) = stage.zip(since) {
                add(stage, since);
            }
            let micros = |before, behind| between(before, behind).and_then(|micros| micros.parse().ok());
            if let Some(dead) = micros("forwards, ", " us after that") {
                add("found dead to forwarding", dead);
            }
            if let Some(waited) = micros("packets waited for ", " us") {
                add("packets wait in an upgrade", waited);
            }
        }
        let median = |times: &mut Vec<u64>| {
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        let medians =
            stages.iter_mut().map(|(stage, times)| (stage.clone(), Duration::from_micros(median(times))));
        Ok(medians.collect())
    }

    /// Deals `n` blows under traffic, one each `every`, and says what was noticed of them. Each finds a daemon
    /// that answers; on a machine that is too slow for that there are fewer.
    ///
    /// # Errors
    /// When traffic cannot be made, or a blow cannot be dealt.
    pub fn endure(&mut self, blow: Blow, n: usize, every: Duration) -> Result<Account> {
        let duration = every * u32::try_from(n + 2)?;
        let n_words = (duration.as_millis() / WORDS.as_millis()) as u64;
        let (this, probe) = (&*self, &self.probe);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let millis = |duration: Duration| duration.as_millis().to_string();
        let ask = |netns: &Netns, asked: &[&str]| {
            let text = command::output(&mut probe.command(netns, &words(asked)), duration + LIMIT)?;
            serde_json::from_str::<Value>(&text).with_context(|| format!("the probe printed {text:?}"))
        };
        std::thread::scope(|scope| {
            let pulse = PULSE;
            let sender = scope.spawn(move || {
                let interval = INTERVAL.as_micros().to_string();
                ask(&this.right, &["udp-pulse", &pulse.1.to_string(), &interval, &millis(duration)])
            });
            let receiver = scope
                .spawn(move || ask(&this.left, &["udp-listen", &pulse.0.to_string(), &pulse.1.to_string()]));
            let forbidden = scope
                .spawn(move || ask(&this.left, &["udp-count", &FORBIDDEN.to_string(), &millis(duration)]));
            let chat =
                scope.spawn(move || probe.chat(&this.left, (&this.right, CHAT), n_words, (WORDS, PATIENCE)));
            let bulk = scope.spawn(move || this.transfer_for(duration));
            // Nobody has allowed it.
            let interval = this.intrusion.as_micros().to_string();
            let mut intruder = probe.command(
                &this.right,
                &words(&["udp-flood", &FORBIDDEN.to_string(), &interval, &millis(duration)]),
            );
            let mut intruder = intruder.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
            let blows = this.deal(blow, n, every);
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Value>>| {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
            };
            let (sent, received) = (join(sender), join(receiver));
            let n_forbidden = number(&join(forbidden)?, "received")?;
            let n_answered = chat.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            let bulk_len = bulk.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            let _ = intruder.kill();
            intruder.wait()?;
            let (blows, received) = (blows?, received?);
            let (gaps, calm) = gaps(&received, &blows, every)?;
            Ok(Account {
                gaps,
                calm,
                n_sent: number(&sent?, "sent")?,
                n_lost: number(&received, "lost")?,
                n_words: (n_words, n_answered),
                bulk_len,
                n_forbidden,
            })
        })
    }

    /// Deals the blows; when each was.
    fn deal(&self, blow: Blow, n: usize, every: Duration) -> Result<Vec<u64>> {
        let start = Instant::now();
        let mut blows = Vec::new();
        let end = every * u32::try_from(n + 1)?;
        for idx in 0..n {
            let due = every * u32::try_from(idx + 1)?;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            stop::wait_for("the daemon answers", LIMIT, || {
                let finished = self.control.attempt(&["status"])?;
                Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
            })?;
            if start.elapsed() > end {
                // A slow machine: traffic is about to end.
                break;
            }
            let pid = self.daemon()?;
            blows.push(now());
            match blow {
                Blow::Nothing => {}
                Blow::Kill => kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?,
                Blow::Upgrade => {
                    let before = self.n_said("upgraded in ")?;
                    self.ask_for_upgrade()?;
                    stop::wait_for("the holder upgrades", LIMIT, || {
                        let is_done = self.n_said("upgraded in ")? > before;
                        Ok(if is_done { Ok(()) } else { Err(self.log_tail(5)) })
                    })?;
                }
            }
        }
        Ok(blows)
    }

    /// Sends streams over new connections as long as there is time; how many bytes arrived whole.
    fn transfer_for(&self, duration: Duration) -> Result<u64> {
        const LEN: u64 = 16 << 20;
        let start = Instant::now();
        let mut len = 0;
        while start.elapsed() < duration {
            let (sent, received) =
                self.probe.transfer(&self.left, (&self.right, BULK), LEN, Duration::from_secs(60))?;
            ensure!(sent.sha256 == received.sha256, "a stream was damaged");
            len += received.len;
        }
        Ok(len)
    }
}

/// Of each blow the longest gap behind it, and the longest that belongs to none.
fn gaps(received: &Value, blows: &[u64], every: Duration) -> Result<(Vec<Duration>, Duration)> {
    let mut gaps = vec![Duration::ZERO; blows.len()];
    let mut calm = Duration::ZERO;
    for silence in received.get("silences").and_then(Value::as_array).context("no silences")? {
        let word = |idx| silence.get(idx).and_then(Value::as_u64).context("not a silence");
        let (began, len, late) = (word(0)?, word(1)?, word(2)?);
        let gap = Duration::from_nanos(len.max(late)).saturating_sub(INTERVAL);
        // A packet that was late may have been sent before the silence.
        let end = began + len;
        match blows.iter().rposition(|blow| *blow <= end) {
            Some(idx) if end - blows[idx] < every.as_nanos() as u64 => gaps[idx] = gaps[idx].max(gap),
            _ => calm = calm.max(gap),
        }
    }
    Ok((gaps, calm))
}

fn number(answer: &Value, name: &str) -> Result<u64> {
    answer.get(name).and_then(Value::as_u64).with_context(|| format!("no {name} in {answer}"))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Fields of a process's line behind its name, which may have spaces in it.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = stat(pid)?;
    // One that has died and is not waited for is nobody's daemon.
    if stat.first()? == "Z" { None } else { stat.get(1)?.parse().ok() }
}

fn started(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}
