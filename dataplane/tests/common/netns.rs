//! Namespaces and veth pairs that go away with their guards.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    os::unix::fs::MetadataExt,
    process::{Child, Command, Output, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::probe;

/// A test's turn, if it runs as root; says loudly when it does not. One at a time: they
/// measure how idle and how fast the switch is.
pub fn root() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs a command line.
pub fn try_run(line: &str) -> Output {
    let mut words = line.split_whitespace();
    Command::new(words.next().unwrap()).args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Runs a command line that must succeed; returns what it printed.
pub fn run(line: &str) -> String {
    let output = try_run(line);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A namespace with one end of a veth pair; the other end, `host_if`, is here. An echo
/// server runs inside.
pub struct Pod {
    pub netns: String,
    pub host_if: String,
    pub address: String,
    server: Option<Child>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Pod {
    /// A pod at 10.77.0.`n`/24, its `eth0` up.
    pub fn new(n: u8) -> Self {
        Self::with_queues(n, 1)
    }

    /// A pod whose host end has several queues.
    pub fn with_queues(n: u8, n_queues: u32) -> Self {
        let pod = Self::bare(n);
        let Self { netns, host_if, .. } = &pod;
        run(&format!(
            "ip link add {host_if} numrxqueues {n_queues} numtxqueues {n_queues} type veth \
             peer name eth0 numrxqueues {n_queues} numtxqueues {n_queues} netns {netns}"
        ));
        // Router solicitations and the like would disturb the counts.
        run(&format!("sysctl -qw net.ipv6.conf.{host_if}.disable_ipv6=1"));
        run(&format!("ip link set {host_if} up"));
        pod.furnished()
    }

    /// A pod whose `eth0` is made by `make`, under the name that is `host_if`, and moved inside.
    pub fn around(n: u8, make: impl FnOnce(&str)) -> Self {
        let pod = Self::bare(n);
        let Self { netns, host_if, .. } = &pod;
        make(host_if);
        run(&format!("ip link set {host_if} netns {netns} name eth0"));
        pod.furnished()
    }

    fn bare(n: u8) -> Self {
        let unique = format!("{}{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pod = Self {
            server: None,
            netns: format!("ffdp-{unique}"),
            host_if: format!("fd{unique}"),
            address: format!("10.77.0.{n}"),
        };
        run(&format!("ip netns add {}", pod.netns));
        pod
    }

    fn furnished(mut self) -> Self {
        self.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        self.exec(&format!("ip addr add {}/24 dev eth0", self.address));
        self.exec("ip link set eth0 up");
        self.exec("ip link set lo up");
        self.server = Some(self.probe_command("", "echo").spawn().unwrap());
        self.await_server();
        self
    }

    /// Another echo server takes the place of the one that there is.
    pub fn restart_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        self.server = Some(self.probe_command("", "echo").spawn().unwrap());
        self.await_server();
    }

    /// A counter of the pod's stack, as in `/proc/net/snmp`: `Tcp InCsumErrors`.
    pub fn counter(&self, group: &str, name: &str) -> u64 {
        let text = self.exec("cat /proc/net/snmp");
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{group}:")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let idx = names.split_whitespace().position(|word| word == name).unwrap();
        values.split_whitespace().nth(idx).unwrap().parse().unwrap()
    }

    /// Runs a command inside that must succeed.
    pub fn exec(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.netns))
    }

    /// Runs a task of the probe inside; true if it went well.
    pub fn probe(&self, task: &str) -> bool {
        self.probe_command("", task).status().unwrap().success()
    }

    /// Starts a task whose output is wanted.
    pub fn spawn_probe(&self, task: &str) -> Child {
        self.probe_command("", task).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// The same on one core.
    pub fn probe_on(&self, core: usize, task: &str) -> bool {
        self.probe_command(&format!("taskset -c {core}"), task).status().unwrap().success()
    }

    /// All of `n` datagrams of `len` bytes to another pod are answered.
    pub fn reaches(&self, to: &Pod, n: u32, len: u32) -> bool {
        self.probe(&format!("ask {} {n} {len}", to.address))
    }

    /// Not even one datagram of `len` bytes is answered.
    pub fn misses(&self, to: &Pod, len: u32) -> bool {
        let task = format!("ask {} 1 {len}", to.address);
        // That the probe fails is expected: what it says would only confuse.
        !self.probe_command("", &task).stderr(Stdio::null()).status().unwrap().success()
    }

    fn probe_command(&self, prefix: &str, task: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns]).args(prefix.split_whitespace());
        command.arg(std::env::current_exe().unwrap()).args(["--exact", probe::ENTRY, "--nocapture"]);
        command.env(probe::TASK, task).stdout(Stdio::null());
        command
    }

    /// Waits until the echo server listens.
    fn await_server(&self) {
        let listening = format!(":{:04X}", probe::ECHO_PORT);
        crate::common::eventually("the echo server listens", || {
            self.exec("cat /proc/net/udp").contains(&listening)
        });
    }

    /// An XDP program is attached to the host's end.
    pub fn has_xdp(&self) -> bool {
        run(&format!("ip -j link show dev {}", self.host_if)).contains("\"xdp\"")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = try_run(&format!("ip link del {}", self.host_if));
        let _ = try_run(&format!("ip netns del {}", self.netns));
    }
}
