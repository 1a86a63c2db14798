//! The two daemons of Open vSwitch in folders and a network namespace of their own, with a
//! polling thread on one core.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::{
    command::{describe, output},
    stop::wait_for,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use oracle::ovs::unixctl::Unixctl;

use super::package::Install;

/// Limit for commands that only talk to the daemons.
const SHORT: Duration = Duration::from_secs(20);
/// DPDK takes its memory at the start.
const START: Duration = Duration::from_secs(60);
/// Memory that it takes, in MiB.
const MEMORY: u32 = 1024;
/// Huge pages of 2 MiB that this needs.
pub const N_HUGE_PAGES: u64 = 1100;

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// In a network namespace of its own, with ports of DPDK.
    Alone,
    /// In this network namespace, with ports by AF_XDP.
    Inside(&'a str),
}

impl Place<'_> {
    fn program(self) -> &'static str {
        match self {
            Self::Alone => "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
            Self::Inside(_) => "usr/lib/openvswitch-switch/ovs-vswitchd",
        }
    }

    /// Programs that each become the next one, so that the process is the daemon's.
    fn chain(self) -> Vec<String> {
        let words = match self {
            // Neighbours on the machine shall not disturb it.
            Self::Alone => "setpriv --pdeathsig KILL -- nice -n -20 unshare --net --".to_owned(),
            Self::Inside(netns) => format!("setpriv --pdeathsig KILL -- ip netns exec {netns}"),
        };
        words.split(' ').map(str::to_owned).collect()
    }
}

/// A running Open vSwitch. It ends, and its folder goes, with this value.
#[derive(Debug)]
pub struct Daemon {
    install: Install,
    folder: PathBuf,
    database: Child,
    switch: Option<Child>,
}

impl Daemon {
    /// Starts it; packets will be switched on `core`.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start(install: &Install, core: usize) -> Result<Self> {
        Self::start_at(install, core, Place::Alone)
    }

    /// The same at some place.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_at(install: &Install, core: usize, place: Place<'_>) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("ff-vs-ovs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let schema = install.file("usr/share/openvswitch/vswitch.ovsschema");
        let (data, socket) = (folder.join("conf.db"), folder.join("db.sock"));
        let mut create = tool(install, &folder, "usr/bin/ovsdb-tool");
        output(create.arg("create").arg(&data).arg(schema), SHORT)?;
        let remote = format!("--remote=punix:{}", socket.display());
        let database = spawn(install, (&folder, place), "usr/sbin/ovsdb-server", &[&remote, &text(&data)])?;
        let mut daemon = Self { install: install.clone(), folder, database, switch: None };
        wait_for("ovsdb-server", START, || Ok(socket.exists().then_some(()).ok_or("no socket".to_owned())))?;
        daemon.configure_start(core, place)?;
        let control = format!("--unixctl={}", daemon.folder.join("switch.ctl").display());
        let words = [control.as_str(), &format!("unix:{}", socket.display())];
        daemon.switch = Some(spawn(install, (&daemon.folder, place), place.program(), &words)?);
        wait_for("ovs-vswitchd", START, || {
            daemon.check()?;
            Ok(daemon.call("version", &[]).map(drop).map_err(|error| format!("{error:#}")))
        })?;
        // Answered once the switch has done what the database says: DPDK runs then.
        daemon.vsctl(&["set", "Open_vSwitch", ".", "external_ids:ready=1"])?;
        Ok(daemon)
    }

    fn configure_start(&self, core: usize, place: Place<'_>) -> Result<()> {
        let mut command = self.vsctl_command(&["--no-wait", "init", "--", "set", "Open_vSwitch", "."]);
        command.args([
            format!("other_config:pmd-cpu-mask={:#x}", 1_u64 << core),
            "other_config:n-handler-threads=1".to_owned(),
            "other_config:n-revalidator-threads=1".to_owned(),
            // It is stopped while the other side is measured, and shall forget nothing meanwhile.
            "other_config:max-idle=3600000".to_owned(),
            "other_config:flow-limit=1000000".to_owned(),
        ]);
        if place == Place::Alone {
            command.args(self.dpdk_options(core)?);
        }
        output(&mut command, SHORT).map(drop)
    }

    fn dpdk_options(&self, core: usize) -> Result<[String; 4]> {
        let other = if core == 0 { 1 } else { 0 };
        let drivers = self.install.drivers()?;
        let drivers: Vec<String> = drivers.iter().map(|path| format!("-d {}", path.display())).collect();
        let extra = format!("--no-pci --in-memory {}", drivers.join(" "));
        Ok([
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:dpdk-lcore-mask={:#x}", 1_u64 << other),
            format!("other_config:dpdk-socket-mem={MEMORY}"),
            format!("other_config:dpdk-extra=\"{extra}\""),
        ])
    }

    /// Changes the database, and waits until the switch has followed.
    ///
    /// # Errors
    /// When it does not.
    pub fn vsctl(&self, words: &[&str]) -> Result<()> {
        output(&mut self.vsctl_command(words), START).map(drop)
    }

    /// Adds a bridge that does nothing by itself.
    ///
    /// # Errors
    /// As [`Daemon::vsctl`].
    pub fn add_bridge(&self, name: &str, more: &[&str]) -> Result<()> {
        let mut words = vec!["add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev"];
        words.push("fail_mode=secure");
        words.extend(more);
        self.vsctl(&words)
    }

    /// Adds a port.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn add_port(&self, bridge: &str, name: &str, number: u32, words: &[&str]) -> Result<()> {
        let request = format!("ofport_request={number}");
        let mut all = vec!["add-port", bridge, name, "--", "set", "Interface", name, &request];
        all.extend(words);
        self.vsctl(&all)?;
        let error = output(&mut self.vsctl_command(&["get", "Interface", name, "error"]), SHORT)?;
        ensure!(matches!(error.trim(), "[]" | "\"\""), "port {name}: {}\n{}", error.trim(), self.said());
        Ok(())
    }

    /// Gives a bridge these rules and no others.
    ///
    /// # Errors
    /// When one is refused.
    pub fn replace_rules(&self, bridge: &str, rules: &[String]) -> Result<()> {
        let path = self.folder.join("rules.txt");
        fs::write(&path, rules.join("\n") + "\n")?;
        let mut command = tool(&self.install, &self.folder, "usr/bin/ovs-ofctl");
        output(command.args(["-O", "OpenFlow15", "replace-flows", bridge]).arg(&path), SHORT).map(drop)
    }

    /// Calls a command of the switch, as `ovs-appctl` does.
    ///
    /// # Errors
    /// When it fails.
    pub fn call(&self, method: &str, params: &[&str]) -> Result<String> {
        Unixctl::connect(&self.folder.join("switch.ctl"))?.call(method, params)
    }

    /// `ip` in its network namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, words: &[&str]) -> Result<()> {
        let target = self.pid()?.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &target, "--net", "--", "ip"]).args(words);
        output(&mut command, SHORT).map(drop)
    }

    /// Stops all its threads where they are.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()?), Signal::SIGSTOP)?)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go_on(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()?), Signal::SIGCONT)?)
    }

    /// Time that the polling thread has had of its core.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn polling_time(&self) -> Result<Duration> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()?));
        for entry in fs::read_dir(&tasks)?.flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with("pmd-c") {
                let text = fs::read_to_string(entry.path().join("schedstat"))?;
                let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
                return nanos.map(Duration::from_nanos).context("no time in schedstat");
            }
        }
        anyhow::bail!("Open vSwitch has no polling thread")
    }

    fn pid(&self) -> Result<i32> {
        let switch = self.switch.as_ref().context("ovs-vswitchd is not running")?;
        Ok(i32::try_from(switch.id())?)
    }

    /// Fails when the switch has ended, with the end of what it said.
    fn check(&mut self) -> Result<()> {
        if let Some(switch) = &mut self.switch
            && let Some(status) = switch.try_wait()?
        {
            anyhow::bail!("ovs-vswitchd ended ({status}):\n{}", self.said());
        }
        Ok(())
    }

    /// The end of what the switch has said.
    fn said(&self) -> String {
        let said = ["ovs-vswitchd-dpdk.log", "ovs-vswitchd.log"].map(|name| self.folder.join(name));
        let said = said.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn vsctl_command(&self, words: &[&str]) -> Command {
        let mut command = tool(&self.install, &self.folder, "usr/bin/ovs-vsctl");
        let database = format!("--db=unix:{}", self.folder.join("db.sock").display());
        command.args(["--timeout=30", &database]).args(words);
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its state is of no use to anybody, so it need not be tidied.
        for child in self.switch.iter_mut().chain([&mut self.database]) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn environment(command: &mut Command, install: &Install, folder: &Path) {
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(name, folder);
    }
    command.env("LD_LIBRARY_PATH", install.libraries());
}

fn tool(install: &Install, folder: &Path, program: &str) -> Command {
    let mut command = Command::new(install.file(program));
    environment(&mut command, install, folder);
    command
}

/// Starts a daemon that ends with us.
fn spawn(
    install: &Install,
    (folder, place): (&Path, Place<'_>),
    program: &str,
    words: &[&str],
) -> Result<Child> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let log = File::create(folder.join(format!("{name}.log")))?;
    let chain = place.chain();
    let mut command = Command::new(&chain[0]);
    command.args(&chain[1..]);
    command.arg(install.file(program)).args(words);
    environment(&mut command, install, folder);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.spawn().with_context(|| format!("cannot run {}", describe(&command)))
}
