//! Namespaces and veth pairs that go away with their guards.
#![allow(dead_code)]

use std::{
    os::unix::fs::MetadataExt,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// The test runs as root; says loudly when not.
pub fn root() -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("SKIPPED: this test makes network namespaces and needs root");
    }
    root
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

/// A namespace with one end of a veth pair; the other end, `host_if`, is here.
pub struct Pod {
    pub netns: String,
    pub host_if: String,
    pub address: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Pod {
    /// A pod at 10.77.0.`n`/24, its `eth0` up.
    pub fn new(n: u8) -> Self {
        Self::with_queues(n, 1)
    }

    /// A pod whose host end has several queues.
    pub fn with_queues(n: u8, n_queues: u32) -> Self {
        let unique = format!("{}{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pod = Self {
            netns: format!("ffdp-{unique}"),
            host_if: format!("fd{unique}"),
            address: format!("10.77.0.{n}"),
        };
        let Self { netns, host_if, address } = &pod;
        run(&format!("ip netns add {netns}"));
        run(&format!(
            "ip link add {host_if} numrxqueues {n_queues} numtxqueues {n_queues} type veth \
             peer name eth0 numrxqueues {n_queues} numtxqueues {n_queues} netns {netns}"
        ));
        // Router solicitations and the like would disturb the counts.
        run(&format!("sysctl -qw net.ipv6.conf.{host_if}.disable_ipv6=1"));
        pod.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        pod.exec(&format!("ip addr add {address}/24 dev eth0"));
        pod.exec("ip link set eth0 up");
        pod.exec("ip link set lo up");
        run(&format!("ip link set {host_if} up"));
        pod
    }

    /// Runs a command inside that must succeed.
    pub fn exec(&self, line: &str) -> String {
        run(&format!("ip netns exec {} {line}", self.netns))
    }

    /// Runs a command inside.
    pub fn try_exec(&self, line: &str) -> Output {
        try_run(&format!("ip netns exec {} {line}", self.netns))
    }

    /// All of `n` pings of `len` bytes to another pod are answered.
    pub fn pings(&self, to: &Pod, n: u32, len: u32) -> bool {
        let line = format!("ping -n -q -i 0.01 -c {n} -s {len} -M do -W 5 {}", to.address);
        let output = self.try_exec(&line);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains(" 0% packet loss")
    }

    /// An XDP program is attached to the host's end.
    pub fn has_xdp(&self) -> bool {
        run(&format!("ip -j link show dev {}", self.host_if)).contains("\"xdp\"")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip link del {}", self.host_if));
        let _ = try_run(&format!("ip netns del {}", self.netns));
    }
}
