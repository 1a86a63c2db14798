//! Debian's programs and daemons in a folder of their own. Both end with this value, daemons also when this
//! process is killed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::package::Package;

/// The daemons start in a third of a second; this is for a machine that is busy.
pub(super) const START_LIMIT: Duration = Duration::from_secs(20);

/// Daemons with their folder.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) package: Package,
    folder: PathBuf,
    children: Vec<Child>,
}

impl Processes {
    /// None yet, in a new folder.
    pub(super) fn new(package: Package, name: &str) -> Result<Self> {
        static N_STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), N_STARTED.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { package, folder, children: Vec::new() })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("OVS_{name}"), &self.folder).env(format!("OVN_{name}"), &self.folder);
        }
        command.env("LD_LIBRARY_PATH", self.package.libraries()).stdin(Stdio::null());
        command
    }

    /// What a program prints.
    pub(super) fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let program = text(&self.package.file(program));
        let output =
            self.command(&program).args(words).output().with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a daemon that ends with this process even if that is killed.
    pub(super) fn daemon(&mut self, program: &str, words: &[&str]) -> Result<()> {
        let log = File::create(self.path(&format!("{}.log", self.children.len())))?;
        let program = text(&self.package.file(program));
        let child = self
            .command("setpriv")
            .args(["--pdeathsig", "KILL", &program])
            .args(words)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program} by setpriv, of util-linux"))?;
        self.children.push(child);
        Ok(())
    }

    /// Process ids of the daemons.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }

    /// Starts Open vSwitch, whose database is `db.sock` and whose control socket `vswitchd.ctl`. Dummy devices
    /// take the place of the system's: nothing of the host is touched.
    pub(super) fn open_vswitch(&mut self) -> Result<()> {
        let schema = self.package.file("usr/share/openvswitch/vswitch.ovsschema");
        let database = self.path("conf.db");
        self.run("usr/bin/ovsdb-tool", &["create", &text(&database), &text(&schema)])?;
        let socket = text(&self.path("db.sock"));
        let remote = format!("--remote=punix:{socket}");
        let control = format!("--unixctl={}", text(&self.path("db.ctl")));
        self.daemon("usr/sbin/ovsdb-server", &[&remote, &control, &text(&database)])?;
        self.wait_for("db.sock")?;
        self.run("usr/bin/ovs-vsctl", &[&format!("--db=unix:{socket}"), "--no-wait", "init"])?;
        let control = format!("--unixctl={}", text(&self.path("vswitchd.ctl")));
        let words = ["--enable-dummy=override", "--disable-system", &control, &format!("unix:{socket}")];
        self.daemon("usr/lib/openvswitch-switch/ovs-vswitchd", &words)?;
        self.wait_for("vswitchd.ctl")
    }

    pub(super) fn wait_for(&mut self, name: &str) -> Result<()> {
        let (path, start) = (self.path(name), Instant::now());
        while !path.exists() {
            ensure!(start.elapsed() < START_LIMIT, "{} does not come", path.display());
            for (idx, child) in self.children.iter_mut().enumerate() {
                if let Some(status) = child.try_wait()? {
                    let log = fs::read_to_string(self.folder.join(format!("{idx}.log")))?;
                    bail!("a daemon ended, {status}: {}", log.trim());
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // One that has ended already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
