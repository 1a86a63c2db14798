//! A daemon without interfaces, and the commands that users give it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::command::{self, Finished};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::privilege;
use ferroflow_tests::scenario::target_dir;
use serde_json::Value;

/// A request that takes longer is lost.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// From a UDP datagram of 10.0.0.1 to one of 10.0.0.2, the first byte of its destination's MAC on.
pub(crate) const UDP: &str = "0a00000000020a00000000010800450000200001000040116\
                   6ca0a0000010a0000020fa00fa1000c000001020304";

/// A folder with a daemon in it; dropping it removes both.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) daemon: Option<Child>,
    /// A controller with hosts, where there is one as well.
    pub(crate) network: Option<Child>,
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        static N_LABS: AtomicU32 = AtomicU32::new(0);
        let n = N_LABS.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("fflab-{}-{n}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, daemon: None, network: None })
    }

    /// A lab whose daemon runs, with ports `p1` to `pN`.
    pub(crate) fn with_ports(n_ports: u32) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.start(&["--virtual", "--socket", "lab.sock", "--log", "warn"])?;
        for port in 1..=n_ports {
            lab.text(&["lab", "port", "add", &format!("p{port}"), "--number", &port.to_string()])?;
        }
        Ok(lab)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("lab.sock")
    }

    /// Starts a program as nobody special: as root, without root's capabilities.
    pub(crate) fn spawn(&self, name: &str, args: &[&str]) -> Result<Child> {
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

    pub(crate) fn start(&mut self, args: &[&str]) -> Result<()> {
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
    pub(crate) fn start_network(&mut self, args: &[&str]) -> Result<()> {
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

    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        command::output(Command::new("kill").arg(daemon.id().to_string()), LIMIT)?;
        ensure!(daemon.wait()?.success(), "it did not end well: {}", self.log());
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn run(&self, words: &[&str]) -> Result<Finished> {
        let mut command = Command::new(find_program(&target_dir()?, "vswitchctl")?);
        command.arg("--host").arg(format!("unix://{}", self.socket().display())).args(words);
        command::run(command.current_dir(&self.dir), LIMIT)
    }

    pub(crate) fn text(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(finished.status.success(), "{words:?}: {}", command::complaint(&finished));
        Ok(finished.stdout)
    }

    pub(crate) fn json(&self, words: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(&[&["-o", "json"], words].concat())?)?)
    }

    /// Runs what has to fail, and gives what it says.
    pub(crate) fn refusal(&self, words: &[&str]) -> Result<String> {
        let finished = self.run(words)?;
        ensure!(!finished.status.success(), "{words:?} was done: {}", finished.stdout);
        Ok(finished.stderr)
    }

    /// Runs what has to fail, and say this.
    pub(crate) fn refuses(&self, cases: &[(&[&str], &str)]) -> Result<()> {
        cases.iter().try_for_each(|(words, wanted)| {
            let said = self.refusal(words)?;
            ensure!(said.contains(wanted), "{words:?}: nothing of {wanted:?} in {said:?}");
            Ok(())
        })
    }

    /// Packets of the rule with these actions.
    pub(crate) fn n_packets(&self, actions: &str) -> Result<u64> {
        let flows = self.json(&["flow", "dump"])?;
        let rule = list(&flows).iter().find(|rule| rule["actions"] == actions);
        Ok(number(&rule.with_context(|| format!("no rule does {actions}: {flows}"))?["n_packets"]))
    }

    /// What every port received was forwarded or dropped under a name, and what left was counted.
    pub(crate) fn check_conservation(&self) -> Result<()> {
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

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

pub(crate) fn frames(answer: &Value, port: &str) -> Vec<String> {
    let sent = list(&answer["outputs"]).iter().filter(|sent| sent["port"] == port);
    sent.map(|sent| sent["frame"].as_str().unwrap_or_default().to_owned()).collect()
}
