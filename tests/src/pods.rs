//! A switch with rules by hand and some pods on it, each attached another way:
//!
//! ```text
//!   PREFIX-pod1 eth0 10.0.7.1 ── p1 ┐
//!   PREFIX-pod2 eth0 10.0.7.2 ── p2 ├ PREFIX-host: vswitchd --standalone
//!   ...                             ┘
//! ```
//! The number of a pod's port is the pod's.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::control::{Control, PortCounters};
use crate::daemon::{Daemon, find_program};
use crate::netns::{self, End, Netns};
use crate::{scenario, stop};

/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
const MTU: u32 = 1500;

/// How a pod is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A veth pair, by a packet socket.
    Packet,
    /// A TAP device.
    Tap,
    /// A veth pair, by AF_XDP.
    AfXdp,
}

impl By {
    /// Its name in commands.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Tap => "tap",
            Self::AfXdp => "afxdp",
        }
    }
}

/// Where a pod is.
#[derive(Debug)]
pub struct Pod {
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's end of its link, or the name of its TAP device there: its port.
    pub port: String,
    by: By,
}

/// The switch and its pods. What is first is removed first.
#[derive(Debug)]
pub struct Pods {
    /// The daemon.
    pub daemon: Daemon,
    /// `vswitchctl` for it.
    pub control: Control,
    /// The pods, from number 1.
    pub pods: Vec<Pod>,
    /// Where the daemon is.
    pub host: Netns,
    /// Where its files are.
    pub dir: PathBuf,
    command: Vec<String>,
    _guard: scenario::Dir,
}

impl Pods {
    /// Starts a switch and attaches a pod for each of `ways`; the switch learns where they are.
    ///
    /// # Errors
    /// When a step fails.
    pub fn start(prefix: &str, ways: &[By]) -> Result<Self> {
        Self::start_as(prefix, ways, &[], &[])
    }

    /// The same, the daemon with further options and run by a command that takes it as its last words.
    ///
    /// # Errors
    /// When a step fails.
    pub fn start_as(prefix: &str, ways: &[By], wrapper: &[String], options: &[&str]) -> Result<Self> {
        let host = Netns::create(&format!("{prefix}-host"))?;
        quiet(&host)?;
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let target = scenario::target_dir()?;
        let socket = dir.join("h.sock").display().to_string();
        let state = dir.join("state").display().to_string();
        let mut command: Vec<String> = wrapper.to_vec();
        command.push(find_program(&target, "vswitchd")?.display().to_string());
        let fixed = ["--standalone", "--fail-mode", "standalone", "--socket", &socket, "--state-dir", &state];
        command.extend(fixed.iter().chain(options).map(|word| (*word).to_owned()));
        let daemon = spawn(&host, &command, &dir)?;
        let url = format!("unix://{socket}");
        let control = Control::to_host(&find_program(&target, "vswitchctl")?, &url);
        let mut pods = Self { daemon, control, pods: Vec::new(), host, dir, command, _guard: guard };
        pods.wait_until_up()?;
        for by in ways {
            pods.add(prefix, *by)?;
        }
        pods.wait_for_links()?;
        Ok(pods)
    }

    /// Waits until the switch knows that all links are there.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_links(&self) -> Result<()> {
        stop::wait_for("all ports are up", START_LIMIT, || {
            let ports = self.control.ports()?;
            Ok(if ports.iter().all(|port| port.up) { Ok(()) } else { Err(format!("{ports:?}")) })
        })
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let (daemon, control) = (&mut self.daemon, &self.control);
        stop::wait_for("the switch answers", START_LIMIT, || {
            daemon.check()?;
            Ok(control.text(&["status"]).map(drop).map_err(|error| format!("{error:#}")))
        })
    }

    /// Makes a pod and attaches it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn add(&mut self, prefix: &str, by: By) -> Result<()> {
        let n = self.pods.len() + 1;
        let netns = Netns::create(&format!("{prefix}-pod{n}"))?;
        quiet(&netns)?;
        let (address, port) = (Ipv4Addr::new(10, 0, 7, n as u8), format!("p{n}"));
        if by != By::Tap {
            netns::link(End::new(&netns, "eth0"), End::new(&self.host, &port), MTU)?;
        }
        let number = n.to_string();
        self.control.text(&["port", "add", &port, "--kind", by.kind(), "--number", &number])?;
        let pod = Pod { netns, address, port, by };
        if by == By::Tap {
            give(&self.host, &pod)?;
        }
        pod.netns.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        pod.netns.ip(&["link", "set", "dev", "eth0", "up"])?;
        self.pods.push(pod);
        Ok(())
    }

    /// Kills the daemon, or asks it to end, and starts it again with the same state. TAP devices are new then.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self, kill: bool) -> Result<()> {
        if kill {
            self.daemon.kill()?
        } else {
            self.daemon.stop().map(drop)?
        };
        self.daemon = spawn(&self.host, &self.command, &self.dir)?;
        self.wait_until_up()?;
        for pod in self.pods.iter().filter(|pod| pod.by == By::Tap) {
            give(&self.host, pod)?;
            pod.netns.ip(&["address", "add", &format!("{}/24", pod.address), "dev", "eth0"])?;
            pod.netns.ip(&["link", "set", "dev", "eth0", "up"])?;
        }
        // A new device has another address.
        self.pods.iter().try_for_each(|pod| pod.netns.ip(&["neigh", "flush", "all"]).map(drop))?;
        self.wait_for_links()
    }

    /// A pod, from number 1.
    pub fn pod(&self, n: usize) -> &Pod {
        &self.pods[n - 1]
    }

    /// What was counted of a pod's port.
    ///
    /// # Errors
    /// When the switch does not answer, or does not have it.
    pub fn counters(&self, n: usize) -> Result<PortCounters> {
        let port = &self.pod(n).port;
        let mut ports = self.control.ports()?.into_iter();
        ports.find(|found| found.name == *port).with_context(|| format!("there is no port {port}"))
    }

    /// Every packet that the ports received was forwarded, or dropped under a name; and the daemon still runs.
    ///
    /// # Errors
    /// When not.
    pub fn check(&mut self) -> Result<Vec<PortCounters>> {
        self.daemon.check()?;
        self.control.check_conservation()
    }

    /// What the switch knows, for the error of a scenario that failed.
    pub fn state(&self) -> String {
        let tell = |words: &[&str]| self.control.text(words).unwrap_or_else(|error| format!("{error:#}"));
        let log = self.daemon.log_tail(20);
        format!("--- log\n{log}\n--- ports\n{}--- drops\n{}", tell(&["port", "list"]), tell(&["drops"]))
    }
}

/// Router solicitations would only disturb.
fn quiet(netns: &Netns) -> Result<()> {
    netns.set_sysctls(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")])
}

fn spawn(host: &Netns, words: &[String], dir: &Path) -> Result<Daemon> {
    let mut command = host.command("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(words);
    Daemon::spawn(command, "vswitchd".to_owned(), &dir.join("vswitchd.log"))
}

/// A TAP device goes into its pod, as its `eth0`.
fn give(host: &Netns, pod: &Pod) -> Result<()> {
    let words = ["link", "set", "dev", &pod.port, "netns", pod.netns.name(), "name", "eth0"];
    host.ip(&words).map(drop)
}

/// Runs a scenario on a switch with pods. When it fails, what the switch knows is part of the error; when it
/// succeeds, every packet is accounted for.
///
/// # Errors
/// The scenario's own, and when the switch or a pod cannot be made.
pub fn on_pods(name: &str, ways: &[By], scenario: impl FnOnce(&mut Pods) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let mut pods = Pods::start(prefix, ways)?;
        let result = scenario(&mut pods).and_then(|()| pods.check().map(drop));
        result.with_context(|| pods.state())
    })
}

/// Runs a command that must find something in its output within a time.
///
/// # Errors
/// When it does not end well, or what is looked for is not there.
pub fn output_has(command: &mut Command, wanted: &str, limit: Duration) -> Result<String> {
    let text = crate::command::output(command, limit)?;
    ensure!(text.contains(wanted), "{wanted:?} is not in: {text}");
    Ok(text)
}
