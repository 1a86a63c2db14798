//! A `vswitchd --standalone` in a namespace, and what is said to it.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ferroflow_tests::control::Control;
use ferroflow_tests::daemon::{Daemon, Life, find_program};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{command, scenario, stop};
use serde_json::Value;

use crate::LIMIT;

/// A running switch with one bridge, `br0`. It can be killed and started again.
pub(crate) struct Switch {
    // Ends before its namespace goes.
    daemon: Daemon,
    pub(crate) control: Control,
    pub(crate) netns: Netns,
    dir: PathBuf,
    args: Vec<String>,
}

impl Switch {
    /// Starts it; `args` beside the usual ones.
    pub(crate) fn start(netns: Netns, dir: &Path, args: &[&str]) -> Result<Self> {
        let socket = dir.join("s.sock").display().to_string();
        let state = dir.join("state").display().to_string();
        let usual = ["--standalone", "--socket", &socket, "--state-dir", &state, "--log", "info"];
        let args: Vec<String> = usual.iter().chain(args).map(|word| (*word).to_owned()).collect();
        let vswitchctl = find_program(&scenario::target_dir()?, "vswitchctl")?;
        let control = Control::to_host(&vswitchctl, &format!("unix://{socket}"));
        let daemon = run(&netns, dir, &args, &control)?;
        Ok(Self { daemon, control, netns, dir: dir.to_owned(), args })
    }

    /// Kills it as a crash would, and starts it again.
    pub(crate) fn crash(&mut self) -> Result<()> {
        self.daemon.kill()?;
        self.daemon = run(&self.netns, &self.dir, &self.args, &self.control)?;
        Ok(())
    }

    pub(crate) fn set(&self, changes: &[&str]) -> Result<()> {
        self.control.text(&[&["bridge", "set", "br0"], changes].concat()).map(drop)
    }

    pub(crate) fn protocols(&self) -> Result<Value> {
        self.control.json(&["bridge", "protocols", "br0"])
    }

    pub(crate) fn add_ports<'a>(&self, ports: impl IntoIterator<Item = &'a str>) -> Result<()> {
        ports.into_iter().try_for_each(|port| self.control.text(&["port", "add", port]).map(drop))
    }

    /// Nothing goes round.
    pub(crate) fn check_quiet(&self) -> Result<()> {
        let received =
            || -> Result<u64> { Ok(self.control.ports()?.iter().map(|port| port.rx_packets).sum()) };
        let before = received()?;
        std::thread::sleep(std::time::Duration::from_secs(1));
        let n = received()? - before;
        ensure!(n < 100, "{n} packets in a second: something goes in circles");
        Ok(())
    }

    /// It runs, and each packet has become something.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.check()?;
        self.control.check_conservation().map(drop)
    }

    /// What a person would want to see.
    pub(crate) fn told(&self) -> String {
        let tell = |words: &[&str]| self.control.text(words).unwrap_or_else(|error| format!("{error:#}"));
        format!(
            "--- log\n{}\n--- protocols\n{}--- ports\n{}--- flows\n{}--- drops\n{}",
            self.daemon.log_tail(20),
            tell(&["bridge", "protocols", "br0"]),
            tell(&["port", "list"]),
            tell(&["flow", "dump", "--bridge", "br0"]),
            tell(&["drops"])
        )
    }
}

fn run(netns: &Netns, dir: &Path, args: &[String], control: &Control) -> Result<Daemon> {
    let program = find_program(&scenario::target_dir()?, "vswitchd")?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start(netns, &program, &words, &dir.join("s.log"), Life::WithParent)?;
    stop::wait_for("vswitchd answers", LIMIT, || {
        daemon.check()?;
        let finished = control.attempt(&["status"])?;
        Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
    })?;
    Ok(daemon)
}
