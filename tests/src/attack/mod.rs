//! A host under attack by one of its workloads, and how the others fare: real daemons, packets between namespaces.
//!
//! ```text
//!   PREFIX-web-1  10.0.1.11 ── web ── r1 ── db ── PREFIX-db-1 10.0.2.11      the victim: questions and answers by UDP,
//!                                                                           which ACLs of both switches track
//!   PREFIX-evil   10.0.1.66 ── web ── PREFIX-sink 10.0.1.67                  the attacker, and where his packets may go
//! ```
//! All four are on the first host of a [`Fabric`], and share its worker. The attacker sends at a steady rate, not as fast as
//! he can: on a machine where sender, switch and victim share the cores, a sender without end measures the scheduler, and the
//! victim's sender would be late by itself. What of the victim's latency is due to sharing is seen by a third measurement beside
//! "calm" and "attacked": *busy*, in which the same sender sends the same number of packets of one conversation.
//! Memory ports would give a steadier victim (`cargo xtask bench --attack` has them), but neither ACLs nor a controller, nor
//! what answers ARP, DHCP and names on the host; and those are what four of the attacks are about.

mod frames;
mod victim;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use socket2::{SockAddr, Socket};

use self::frames::Frames;
pub use self::frames::Kind;
pub use self::victim::Fare;
use crate::control::Control;
use crate::fabric::{Fabric, WORKLOAD_MTU};
use crate::netns::{self, End, Netns};
use crate::raw_frames;
use crate::stop;

/// How often the attacker is woken to send what is due.
const TICK: Duration = Duration::from_millis(1);
/// What the switch needs to hear of the last packets.
const SETTLE: Duration = Duration::from_millis(300);
/// How long fragments may wait for the others of their packet, and some more.
const WAITING: Duration = Duration::from_secs(120);
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(200);

/// The attacks, in the order of the table.
pub const ATTACKS: [Attack; 6] = [
    Attack { name: "masks", what: "packets that miss each ACL by another bit", kind: Kind::Masks },
    Attack { name: "conntrack", what: "a new UDP connection with each packet", kind: Kind::Connections },
    Attack { name: "syn", what: "SYNs from ever other addresses, never answered", kind: Kind::Syn },
    Attack {
        name: "control",
        what: "ARP, ND, router solicitations, DHCP, names, groups, expired TTLs",
        kind: Kind::Control,
    },
    Attack {
        name: "fragments",
        what: "fragments without their others, and overlapping ones",
        kind: Kind::Fragments,
    },
    Attack { name: "misses", what: "packets to and from ever other addresses", kind: Kind::Misses },
];

/// One way to attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What is sent.
    pub what: &'static str,
    kind: Kind,
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How long an attack lasts.
    pub attack: Duration,
    /// How long the victim is measured without.
    pub calm: Duration,
    /// Packets that the attacker sends in a second.
    pub rate: u32,
    /// Questions that the victim asks in a second.
    pub questions: u32,
}

/// What came of an attack.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub attack: Attack,
    /// The victim without it.
    pub calm: Fare,
    /// The victim while the attacker's port sends as many packets of one conversation.
    pub busy: Fare,
    /// The victim under attack.
    pub attacked: Fare,
    /// Packets that the attacker has sent.
    pub n_sent: u64,
    /// What became of them, by the counters of his port: received, forwarded.
    pub rx: (u64, u64),
    /// Drops of his port by reason.
    pub drops: BTreeMap<String, u64>,
    /// Resident memory of the host's daemon, in KiB: before, most, after.
    pub memory_kib: [u64; 3],
}

impl Outcome {
    /// Whether the victim has lost nothing, and 99 of 100 of its questions took at most twice their time.
    pub fn is_good(&self) -> bool {
        self.attacked.n_lost == 0 && self.attacked.p99 <= self.calm.p99 * 2
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let [before, most, after] = self.memory_kib;
        json!({
            "attack": self.attack.name,
            "victim": {
                "calm": self.calm.json(),
                "busy": self.busy.json(),
                "attacked": self.attacked.json(),
            },
            "attacker": {
                "sent": self.n_sent,
                "received": self.rx.0,
                "forwarded": self.rx.1,
                "dropped": self.drops,
            },
            "memory_kib": { "before": before, "most": most, "after": after },
            "holds": self.is_good(),
        })
    }

    /// A row of the table, as wide as [`HEAD`].
    pub fn row(&self) -> String {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        let mut reasons: Vec<_> = self.drops.iter().collect();
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let reasons: Vec<_> = reasons.iter().take(4).map(|(reason, n)| format!("{reason} {n}")).collect();
        format!(
            "{:<10} {:>7} {:>5} {:>6.0} {:>6.0} {:>6.0} {:>7.0} {:>7.0} {:>7.0} {:>9} {:>9} {:>9} {:>5} {:>5}  {}",
            self.attack.name,
            self.attacked.n_asked,
            self.attacked.n_lost,
            micros(self.calm.p50),
            micros(self.busy.p50),
            micros(self.attacked.p50),
            micros(self.calm.p99),
            micros(self.busy.p99),
            micros(self.attacked.p99),
            self.n_sent,
            self.rx.0,
            self.rx.1,
            self.memory_kib[0] >> 10,
            self.memory_kib[1] >> 10,
            if reasons.is_empty() { "nothing dropped".to_owned() } else { reasons.join(", ") },
        )
    }
}

/// The head of the table: questions asked and lost under attack; their times in µs, calm, busy and attacked; packets sent by the
/// attacker, received from him, forwarded; memory in MiB before and at its most; why the others were dropped.
pub const HEAD: &str = "attack       asked  lost    p50   busy attack     p99    busy  attack      sent  received forwarded   MiB  most  dropped as";

/// A fabric with an attacker on its first host.
#[derive(Debug)]
pub struct Siege<'a> {
    fabric: &'a mut Fabric,
    evil: Netns,
    _sink: Netns,
    wire: SockAddr,
}

impl<'a> Siege<'a> {
    /// Attaches attacker and sink, and gives the network what the attacks are against.
    ///
    /// # Errors
    /// When a step fails.
    pub fn lay(fabric: &'a mut Fabric) -> Result<Self> {
        fabric.control.configure(NETWORK)?;
        let name = |part: &str| format!("{}-{part}", fabric.plan().prefix);
        let (evil, sink) = (Netns::create(&name("evil"))?, Netns::create(&name("sink"))?);
        for (netns, interface, mac) in [(&evil, "evil", frames::EVIL_MAC), (&sink, "sink", frames::SINK_MAC)]
        {
            let off = |what: &str| format!("net.ipv6.conf.{what}.disable_ipv6");
            netns.set_sysctls(&[(&off("all"), "1"), (&off("default"), "1")])?;
            let host = fabric.host(0);
            let mac = frames::text(mac);
            let inside = End { mac: Some(&mac), ..End::new(netns, "eth0") };
            netns::link(inside, End::new(fabric.host_netns(0), interface), WORKLOAD_MTU)?;
            host.control.add_port(interface, interface)?;
        }
        let wire = raw_frames::wire(&evil, "eth0")?;
        let siege = Self { fabric, evil, _sink: sink, wire };
        stop::wait_for("attacker and sink are up", Duration::from_secs(20), || {
            let ports = siege.control().ports()?;
            let n_up = ports.iter().filter(|port| port.up).count();
            Ok(if n_up >= 4 { Ok(()) } else { Err(format!("{ports:?}")) })
        })?;
        Ok(siege)
    }

    fn control(&self) -> &Control {
        &self.fabric.host(0).control
    }

    /// Attacks, and measures before and meanwhile.
    ///
    /// # Errors
    /// When something cannot be started or asked, or packets are unaccounted for.
    pub fn endure(&mut self, attack: Attack, plan: Plan) -> Result<Outcome> {
        let pid = self.fabric.switch(0).context("no daemon")?.pid();
        let ask = |duration| victim::ask(self.fabric, duration, plan.questions);
        // The way is known to all before anything is measured.
        ask(Duration::from_millis(500))?;
        let calm = ask(plan.calm)?;
        let is_over = AtomicBool::new(false);
        let busy = thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(Kind::Ordinary, plan.rate, &is_over));
            let busy = ask(plan.calm);
            is_over.store(true, Relaxed);
            joined(sending)??;
            busy
        })?;
        thread::sleep(SETTLE);
        self.wait_for_account()?;
        let before = (self.counted()?, memory_kib(pid)?);
        is_over.store(false, Relaxed);
        let (n_sent, most, attacked) = thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(attack.kind, plan.rate, &is_over));
            let watching = scope.spawn(|| most_memory_kib(pid, &is_over));
            let attacked = ask(plan.attack);
            is_over.store(true, Relaxed);
            let n_sent = joined(sending)??;
            anyhow::Ok((n_sent, joined(watching)??, attacked?))
        })?;
        thread::sleep(SETTLE);
        self.fabric.check_daemons()?;
        self.wait_for_account()?;
        self.control().check_conservation()?;
        let after = (self.counted()?, memory_kib(pid)?);
        let drops = after.0.drops.into_iter().map(|(reason, n)| {
            let had = before.0.drops.get(&reason).copied().unwrap_or_default();
            (reason, n - had)
        });
        Ok(Outcome {
            attack,
            calm,
            busy,
            attacked,
            n_sent,
            rx: (after.0.received - before.0.received, after.0.forwarded - before.0.forwarded),
            drops: drops.filter(|(_, n)| *n > 0).collect(),
            memory_kib: [before.1, most.max(after.1), after.1],
        })
    }

    /// Sends at a rate until it is over; answers how many the kernel took.
    fn send(&self, kind: Kind, rate: u32, is_over: &AtomicBool) -> Result<u64> {
        self.evil.inside(|| {
            let socket: Socket = raw_frames::any_frames()?;
            let mut frames = Frames::new(kind);
            let (start, mut n_due, mut n_sent) = (Instant::now(), 0_u64, 0_u64);
            while !is_over.load(Relaxed) && !stop::requested() {
                let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                // What it is late by, for want of a core, it does not send in one burst.
                n_due = n_due.max(due.saturating_sub(u64::from(rate) / 50));
                while n_due < due {
                    n_due += 1;
                    // A full queue of the kernel's is no news.
                    n_sent += u64::from(socket.send_to(frames.next(), &self.wire).is_ok());
                }
                thread::sleep(TICK);
            }
            ensure!(n_sent > 0, "the kernel sends nothing for the attacker");
            Ok(n_sent)
        })?
    }

    /// Waits until nothing of the attacker's waits in the switch any more.
    fn wait_for_account(&self) -> Result<()> {
        stop::wait_for("what the attacker has sent is forwarded or dropped", WAITING, || {
            let Counted { received, forwarded, drops } = self.counted()?;
            let n_dropped: u64 = drops.values().sum();
            let is_whole = received == forwarded + n_dropped;
            Ok(if is_whole { Ok(()) } else { Err(format!("{received}, {forwarded} and {n_dropped}")) })
        })
    }

    fn counted(&self) -> Result<Counted> {
        let ports = self.control().ports()?;
        let port = ports.iter().find(|port| port.name == "evil").context("the attacker has no port")?;
        let mut drops = BTreeMap::new();
        for drop in self.control().drops()?.into_iter().filter(|drop| drop.port == "evil") {
            *drops.entry(drop.reason).or_default() += drop.n_packets;
        }
        Ok(Counted { received: port.rx_packets, forwarded: port.rx_forwarded, drops })
    }
}

/// What was counted of the attacker's port.
#[derive(Debug)]
struct Counted {
    received: u64,
    forwarded: u64,
    drops: BTreeMap<String, u64>,
}

/// The network: ACLs that track whom the victim talks with; ACLs that a packet can miss by one bit; what answers DHCP and names.
/// The attacker may send from any address, as one without port security may.
const NETWORK: &str = "
    switch-port add web evil --address '0a:00:00:00:01:66 10.0.1.66' --address unknown
    switch-port add web sink --address '0a:00:00:00:01:67 10.0.1.67'
    acl add db questions --direction to-lport --priority 500 --match 'udp.dst == 7000' --action allow-related
    acl add web tracked --direction to-lport --priority 10 --match 'outport == \"sink\" && ip4' --action allow-related
    acl add web by-source --direction from-lport --priority 20 \\
        --match 'inport == \"evil\" && ip4.src == 12.34.56.78' --action drop
    acl add web by-sender-port --direction from-lport --priority 21 \\
        --match 'inport == \"evil\" && udp.src == 4660' --action drop
    acl add web by-port --direction from-lport --priority 22 \\
        --match 'inport == \"evil\" && udp.dst == 22136' --action drop
    dhcp-options add siege --cidr 10.0.1.0/24 --option server_id=10.0.1.1
    names add siege --record web-1.shop.example=10.0.1.11
    switch set web --dhcpv4 siege --names siege
";

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread of the attack panicked"))
}

/// Resident memory of a process.
fn memory_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn most_memory_kib(pid: u32, is_over: &AtomicBool) -> Result<u64> {
    let mut most = 0;
    while !is_over.load(Relaxed) {
        most = most.max(memory_kib(pid)?);
        thread::sleep(SAMPLE);
    }
    Ok(most)
}
