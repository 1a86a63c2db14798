//! A network under load for long, in which something always changes: what its daemons hold on to, and whether every packet is
//! accounted for.
//!
//! Between two hosts goes a stream at 70 % of what they carry when it is tried at the beginning. Meanwhile ports, ACLs, members of
//! sets and connections come and go, and the controller is killed and started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::checks;
use crate::fabric::{Fabric, HOSTS};
use crate::stop;

/// Where the stream goes.
const PORT: u16 = 7100;
/// A datagram of it.
const LEN: usize = 512;
/// How long the stream is tried without a limit.
const TRIAL: Duration = Duration::from_secs(3);
/// The part of that at which it goes then.
const LOAD: f64 = 0.7;
/// How often the sender is woken.
const TICK: Duration = Duration::from_millis(1);
/// How often daemons are looked at.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often something changes.
const CHANGE: Duration = Duration::from_millis(250);
/// Room for what comes while the machine does something else.
const ROOM: usize = 8 << 20;

/// What a daemon held on to.
#[derive(Debug)]
pub struct Holdings {
    /// The host.
    pub name: &'static str,
    /// When, in seconds, and KiB of resident memory.
    pub memory: Vec<(f64, f64)>,
    /// Open files at the beginning of the second half, and at the end.
    pub files: (usize, usize),
}

impl Holdings {
    /// What memory grew by in the second half, by the line that fits best (least squares), in percent of its mean.
    pub fn growth(&self) -> f64 {
        growth(&self.memory[self.memory.len() / 2..])
    }
}

fn growth(samples: &[(f64, f64)]) -> f64 {
    let n = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (mean_at, mean_kib) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let (mut both, mut square) = (0.0, 0.0);
    for (at, kib) in samples {
        both += (at - mean_at) * (kib - mean_kib);
        square += (at - mean_at).powi(2);
    }
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return 0.0 };
    if square == 0.0 || mean_kib == 0.0 { 0.0 } else { both / square * (last.0 - first.0) / mean_kib * 100.0 }
}

/// What came of it.
#[derive(Debug)]
pub struct Account {
    /// Datagrams in a second that arrived when it was tried.
    pub capacity: f64,
    /// Datagrams of the stream: sent, arrived.
    pub stream: (u64, u64),
    /// Changes of the network.
    pub n_changes: u64,
    /// How often the controller was killed.
    pub n_restarts: u64,
    /// Drops of all ports by reason.
    pub drops: BTreeMap<String, u64>,
    /// Of the hosts' daemons.
    pub holdings: Vec<Holdings>,
    /// KiB of the controller's memory, each time before it was killed, and at the end.
    pub controller_kib: Vec<u64>,
}

impl Account {
    /// The same for programs.
    pub fn json(&self) -> Value {
        let holdings = self.holdings.iter().map(|holdings| {
            let kib: Vec<_> = holdings.memory.iter().map(|(_, kib)| *kib as u64).collect();
            let step = (kib.len() / 100).max(1);
            json!({
                "host": holdings.name,
                "growth_percent": holdings.growth(),
                "files": { "middle": holdings.files.0, "end": holdings.files.1 },
                "memory_kib": kib.iter().step_by(step).collect::<Vec<_>>(),
            })
        });
        json!({
            "capacity_pps": self.capacity,
            "stream": { "sent": self.stream.0, "arrived": self.stream.1 },
            "changes": self.n_changes,
            "controller_restarts": self.n_restarts,
            "drops": self.drops,
            "unexplained": 0,
            "hosts": holdings.collect::<Vec<_>>(),
            "controller_kib": self.controller_kib,
        })
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "stream: {} of {} datagrams arrived, at {:.0} % of {:.0} a second; {} changes, {} restarts of the controller\n",
            self.stream.1,
            self.stream.0,
            LOAD * 100.0,
            self.capacity,
            self.n_changes,
            self.n_restarts,
        );
        for holdings in &self.holdings {
            let (middle, end) = holdings.files;
            text += &format!(
                "{}: memory {:+.2} % over the second half, of {:.1} MiB; files {middle} and {end}\n",
                holdings.name,
                holdings.growth(),
                holdings.memory.last().map_or(0.0, |(_, kib)| kib / 1024.0),
            );
        }
        text += &format!("controller: KiB at the end of each life {:?}\n", self.controller_kib);
        let drops: Vec<_> = self.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        text + &format!("dropped as: {}", drops.join(", "))
    }
}

/// Runs for a while. At the end every packet of every port is accounted for.
///
/// # Errors
/// When a daemon ends by itself, a change is refused, or a packet is unaccounted for.
pub fn soak(fabric: &mut Fabric, duration: Duration, restart_every: Duration) -> Result<Account> {
    let (sender, receiver) = sockets(fabric)?;
    let pids = [0, 1].map(|idx| fabric.switch(idx).map(|daemon| daemon.pid()));
    let pids = pids.into_iter().collect::<Option<Vec<_>>>().context("a host has no daemon")?;
    let counter = Counter::default();
    thread::scope(|scope| {
        scope.spawn(|| counter.receive(&receiver));
        let result = under_load(fabric, &sender, &counter, (&pids, duration, restart_every));
        counter.is_over.store(true, Relaxed);
        result
    })
}

fn under_load(
    fabric: &mut Fabric,
    sender: &UdpSocket,
    counter: &Counter,
    (pids, duration, restart_every): (&[u32], Duration, Duration),
) -> Result<Account> {
    let begun = Instant::now();
    counter.send(sender, None, || begun.elapsed() < TRIAL);
    let capacity = counter.settled() as f64 / TRIAL.as_secs_f64();
    ensure!(capacity > 0.0, "nothing of the stream arrives");
    counter.n_sent.store(0, Relaxed);
    counter.n_arrived.store(0, Relaxed);
    let (start, mut changes) = (Instant::now(), Changes::default());
    let mut controller_kib = Vec::new();
    let is_over = AtomicBool::new(false);
    let samples = thread::scope(|scope| {
        scope.spawn(|| counter.send(sender, Some(capacity * LOAD), || !is_over.load(Relaxed)));
        let sampling = scope.spawn(|| sample(pids, start, &is_over));
        let changed = (|| -> Result<()> {
            let mut restart_at = restart_every;
            while start.elapsed() < duration {
                stop::check()?;
                if start.elapsed() >= restart_at {
                    controller_kib.push(restart(fabric)?);
                    restart_at += restart_every;
                }
                changes.next(fabric)?;
                thread::sleep(CHANGE);
            }
            changes.undo(fabric)
        })();
        is_over.store(true, Relaxed);
        let samples = sampling.join().map_err(|_| anyhow::anyhow!("the sampling thread panicked"))?;
        changed.and(samples)
    })?;
    let n_arrived = counter.settled();
    fabric.check_daemons()?;
    checks::conservation(fabric)?;
    let controller = fabric.controller().context("no controller")?.pid();
    let n_restarts = controller_kib.len() as u64;
    controller_kib.push(memory_kib(controller)?);
    let mut drops = BTreeMap::new();
    for host in fabric.hosts() {
        for drop in host.control.drops()? {
            *drops.entry(drop.reason).or_default() += drop.n_packets;
        }
    }
    let holdings = HOSTS.iter().zip(samples).map(|(host, samples)| {
        let files = |idx: usize| samples.get(idx).map_or(0, |(_, _, n_files)| *n_files);
        Holdings {
            name: host.name,
            files: (files(samples.len() / 2), files(samples.len().saturating_sub(1))),
            memory: samples.iter().map(|(at, kib, _)| (*at, *kib as f64)).collect(),
        }
    });
    Ok(Account {
        capacity,
        stream: (counter.n_sent.load(Relaxed), n_arrived),
        n_changes: changes.n,
        n_restarts,
        drops,
        holdings: holdings.collect(),
        controller_kib,
    })
}

/// Both ends of the stream.
fn sockets(fabric: &Fabric) -> Result<(UdpSocket, UdpSocket)> {
    let (from, to) = (fabric.workload("web-1")?, fabric.workload("web-2")?);
    let receiver = to.netns.inside(|| UdpSocket::bind((to.plan.address, PORT)))??;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket2::SockRef::from(&receiver).set_recv_buffer_size(ROOM)?;
    let sender = from.netns.inside(|| UdpSocket::bind((from.plan.address, 0)))??;
    sender.connect((to.plan.address, PORT))?;
    Ok((sender, receiver))
}

/// The stream.
#[derive(Debug, Default)]
struct Counter {
    n_sent: AtomicU64,
    n_arrived: AtomicU64,
    is_over: AtomicBool,
}

impl Counter {
    fn receive(&self, socket: &UdpSocket) {
        let mut buffer = [0; LEN];
        while !self.is_over.load(Relaxed) {
            if socket.recv(&mut buffer).is_ok() {
                self.n_arrived.fetch_add(1, Relaxed);
            }
        }
    }

    /// Sends at a rate, or as fast as it goes.
    fn send(&self, socket: &UdpSocket, rate: Option<f64>, goes_on: impl Fn() -> bool) {
        let (start, mut n_done) = (Instant::now(), 0_u64);
        while goes_on() && !stop::requested() {
            let due = rate.map_or(n_done + 64, |rate| (start.elapsed().as_secs_f64() * rate) as u64);
            // What it is late by for long, for want of a core, it does not send in one burst.
            n_done = n_done.max(due.saturating_sub(rate.map_or(64, |rate| (rate / 50.0) as u64 + 1)));
            while n_done < due {
                n_done += 1;
                self.n_sent.fetch_add(u64::from(socket.send(&[0; LEN]).is_ok()), Relaxed);
            }
            if rate.is_some() {
                thread::sleep(TICK);
            }
        }
    }

    /// How many have arrived, when no more come.
    fn settled(&self) -> u64 {
        loop {
            let n = self.n_arrived.load(Relaxed);
            thread::sleep(Duration::from_millis(300));
            if self.n_arrived.load(Relaxed) == n {
                return n;
            }
        }
    }
}

/// What changes, one thing after the other.
#[derive(Debug, Default)]
struct Changes {
    n: u64,
}

impl Changes {
    const STEPS: [(&'static [&'static str], bool); 8] = [
        (&["switch-port", "add", "web", "guest", "--address", "0a:00:00:00:01:99 10.0.1.99"], true),
        (&["port", "add", "guest", "--logical-port", "guest", "--kind", "tap"], false),
        (&["address-set", "add", "soak", "--address", "10.99.0.1", "--address", "10.99.0.2"], true),
        (
            &[
                "acl",
                "add",
                "web",
                "soak",
                "--direction",
                "to-lport",
                "--priority",
                "77",
                "--match",
                "ip4.src == $soak && tcp.dst == 99",
                "--action",
                "drop",
            ],
            true,
        ),
        (&["acl", "del", "web/soak"], true),
        (&["address-set", "del", "soak"], true),
        (&["port", "del", "guest"], false),
        (&["switch-port", "del", "guest"], true),
    ];

    /// Changes something, and has a connection begin.
    fn next(&mut self, fabric: &Fabric) -> Result<()> {
        let idx = (self.n % Self::STEPS.len() as u64) as usize;
        let (words, is_networks) = Self::STEPS[idx];
        let control = if is_networks { &fabric.control } else { &fabric.host(0).control };
        control.text(words).with_context(|| words.join(" "))?;
        self.n += 1;
        if idx == 0 {
            checks::ping(fabric, "db-2", "web-1", 56)?;
        }
        // A connection of its own.
        let (client, server) = (fabric.workload("db-1")?, fabric.workload("web-2")?);
        client.netns.inside(|| -> std::io::Result<()> {
            let socket = UdpSocket::bind((client.plan.address, 0))?;
            socket.send_to(&[0; 64], (server.plan.address, PORT + 1)).map(drop)
        })??;
        Ok(())
    }

    /// Goes on until nothing of it is left.
    fn undo(&mut self, fabric: &Fabric) -> Result<()> {
        while !self.n.is_multiple_of(Self::STEPS.len() as u64) {
            self.next(fabric)?;
        }
        Ok(())
    }
}

/// Kills the controller and starts it again; what memory it had.
fn restart(fabric: &mut Fabric) -> Result<u64> {
    let controller = fabric.controller().context("no controller")?;
    let kib = memory_kib(controller.pid())?;
    controller.kill()?;
    fabric.start_controller()?;
    Ok(kib)
}

fn memory_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// When, KiB of memory, open files.
type Sample = (f64, u64, usize);

/// Looks at processes again and again, each by itself.
fn sample(pids: &[u32], start: Instant, is_over: &AtomicBool) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); pids.len()];
    while !is_over.load(Relaxed) {
        for (pid, samples) in pids.iter().zip(&mut samples) {
            let n_files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            samples.push((start.elapsed().as_secs_f64(), memory_kib(*pid)?, n_files));
        }
        thread::sleep(SAMPLE);
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_among_noise() {
        let noise = |n: u32| f64::from(n % 7) - 3.0;
        let flat: Vec<_> = (0..700).map(|n| (f64::from(n), 1000.0 + noise(n))).collect();
        assert!(growth(&flat).abs() < 0.05, "{}", growth(&flat));
        let rising: Vec<_> =
            (0..700).map(|n| (f64::from(n), 1000.0 + f64::from(n) / 10.0 + noise(n))).collect();
        // From 1000 to 1070, of a mean of 1035.
        assert!((growth(&rising) - 6.76).abs() < 0.1, "{}", growth(&rising));
        assert_eq!((growth(&[]), growth(&[(1.0, 5.0)])), (0.0, 0.0));
    }
}
