//! Our controller, and a host with memory ports.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::{
    command,
    daemon::{Daemon, find_program},
};
use serde_json::Value;

use super::{CHASSIS, Cost, Figures, N_CHANGES, Topology, WORKLOAD, cpu, resident, timed, wait_until};

const LIMIT: Duration = Duration::from_secs(120);

/// Our programs, to be started anew for each turn.
pub(super) struct Side {
    pub(super) programs: PathBuf,
}

/// A folder with the daemons' sockets and data; it goes with this value.
struct Place {
    folder: PathBuf,
    programs: PathBuf,
}

impl Side {
    pub(super) fn measure(&self, topology: Topology) -> Result<Figures> {
        let place = Place::new(&self.programs)?;
        place.populate(topology)?;
        let mut figures = Figures::default();
        let start = Instant::now();
        let controller = place.controller()?;
        place.wait_for_controller()?;
        figures.central = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu(&[controller.pid()])? };
        let before = cpu(&[controller.pid()])?;
        let start = Instant::now();
        let host = place.host()?;
        let pids = [controller.pid(), host.pid()];
        wait_until(LIMIT, || place.is_up(WORKLOAD))?;
        figures.host = Cost { wall: start.elapsed().as_secs_f64(), cpu: cpu(&pids)? - before };
        figures.n_rules = place.n_rules()?;
        figures.memory = resident(&pids)?;
        figures.noop = timed(N_CHANGES, |_| place.ctl(&["chassis", "list"]).map(drop))?;
        figures.port = timed(N_CHANGES, |n| {
            let (id, has) = (format!("new{n}"), format!("02:50:00:00:00:{n:02x} 10.4.200.{}", n + 1));
            place.ctl(&["--wait", "switch-port", "add", "ls3", &id, "--address", &has]).map(drop)
        })?;
        figures.acl = timed(N_CHANGES, |n| {
            let matching = format!("outport == @pg0 && ip4 && udp.dst == {}", n + 1);
            let (id, priority) = (format!("new{n}"), (3000 + n).to_string());
            let what = ["--direction", "to-lport", "--priority", &priority, "--match", &matching];
            place
                .ctl(&[&["--wait", "acl", "add", "@pg0", &id], &what[..], &["--action", "drop"]].concat())
                .map(drop)
        })?;
        figures.workload = timed(N_CHANGES / 2, |n| {
            let (id, has) = (format!("hv{n}"), format!("02:40:00:00:00:{n:02x} 10.3.200.{}", n + 1));
            place.ctl(&["switch-port", "add", "ls2", &id, "--address", &has])?;
            place.ctl(&["--wait", "lab", "port", "add", &id, "--logical-port", &id]).map(drop)
        })?;
        drop((controller, host));
        Ok(figures)
    }
}

impl Place {
    fn new(programs: &Path) -> Result<Self> {
        static N_PLACES: AtomicU32 = AtomicU32::new(0);
        let n = N_PLACES.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ffbench-{}-{n}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, programs: programs.to_owned() })
    }

    fn url(&self, name: &str) -> String {
        format!("unix://{}", self.folder.join(name).display())
    }

    fn daemon(&self, name: &str, words: &[&str]) -> Result<Daemon> {
        let mut command = Command::new("setpriv");
        let program = find_program(&self.programs, name)?;
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(["--log", "warn"]).args(words);
        Daemon::spawn(command, name.to_owned(), &self.folder.join("log"))
    }

    fn controller(&self) -> Result<Daemon> {
        let data = self.folder.join("data").display().to_string();
        self.daemon("vswitch-controller", &["--listen", &self.url("controller.sock"), "--data-dir", &data])
    }

    fn host(&self) -> Result<Daemon> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (socket, state, url) = (path("host.sock"), path("state"), self.url("controller.sock"));
        let what = ["--virtual", "--chassis", CHASSIS, "--encap-ip", "198.18.0.1"];
        let place = ["--controller", &url, "--socket", &socket, "--state-dir", &state];
        self.daemon("vswitchd", &[&what[..], &place[..]].concat())
    }

    fn ctl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(find_program(&self.programs, "vswitchctl")?);
        command.args(["--timeout", "100", "--controller", &self.url("controller.sock")]);
        command.args(["--host", &self.url("host.sock")]).args(words);
        command::output(&mut command, LIMIT)
    }

    /// Asks until somebody answers.
    fn answers(&self, words: &[&str]) -> Result<()> {
        wait_until(LIMIT, || Ok(self.ctl(words).is_ok()))
    }

    /// Stores the network, and says what the host has.
    fn populate(&self, topology: Topology) -> Result<()> {
        let (mut controller, mut host) = (self.controller()?, self.host()?);
        self.answers(&["chassis", "list"])?;
        self.answers(&["status"])?;
        self.ctl(&["lab", "port", "add", "v0", "--logical-port", WORKLOAD])?;
        ensure!(host.stop()?.0.success(), "{}", host.log_tail(20));
        for (n, text) in topology.ours().into_iter().enumerate() {
            let file = self.folder.join(format!("{n}.yaml"));
            fs::write(&file, text)?;
            self.ctl(&["apply", "-f", &file.display().to_string()])?;
        }
        ensure!(controller.stop()?.0.success(), "{}", controller.log_tail(20));
        // So that the host begins with nothing but its ports, as a new one does.
        for name in ["view.journal", "view"] {
            let _ = fs::remove_file(self.folder.join("state").join(name));
        }
        Ok(())
    }

    /// Waits until the whole network is compiled: what is asked needs all of it.
    fn wait_for_controller(&self) -> Result<()> {
        wait_until(LIMIT, || {
            let explained = self.ctl(&["explain", WORKLOAD, "p1-1"]);
            Ok(explained.is_ok())
        })
    }

    fn is_up(&self, port: &str) -> Result<bool> {
        let Ok(told) = self.ctl(&["-o", "json", "switch-port", "show", port]) else { return Ok(false) };
        let told: Value = serde_json::from_str(&told)?;
        if told["up"] != true && told["state"] != "up" {
            return Ok(false);
        }
        Ok(self.n_rules()? > 1000)
    }

    fn n_rules(&self) -> Result<usize> {
        let Ok(told) = self.ctl(&["-o", "json", "status"]) else { return Ok(0) };
        let status: Value = serde_json::from_str(&told)?;
        Ok(status["n_rules"].as_u64().unwrap_or_default() as usize)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
