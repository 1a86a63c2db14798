//! Docker with directories of its own, whose networks are ours.
//!
//! Docker looks for drivers in one folder of the machine: there, this one sees only its own. A Docker that is
//! started again finds what the one before had mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{self, Finished};
use crate::containerd::{self, Mounts, hold_mounts, inside};
use crate::daemon::{Daemon, find_program};
use crate::fabric::{Fabric, HOSTS};
pub use crate::libnetwork::DRIVER;
use crate::{image, libnetwork, say, scenario, stop};

/// The image that containers are made of.
pub const IMAGE: &str = "busybox:local";
/// Name of the driver that Docker manages itself.
pub const MANAGED: &str = "ferroflow:latest";
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a daemon may take to answer.
const START_LIMIT: Duration = Duration::from_secs(40);

/// Docker on a host of a fabric, with our driver; dropping it ends its containers.
#[derive(Debug)]
pub struct Docker {
    // Dropped in this order.
    dockerd: Option<Daemon>,
    driver: Option<Daemon>,
    _containerd: Daemon,
    holder: Daemon,
    netns: String,
    host_name: &'static str,
    dir: PathBuf,
    live_restore: bool,
}

impl Docker {
    /// Starts Docker and the driver, and gives it an image.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(fabric: &Fabric, host_idx: usize, live_restore: bool) -> Result<Self> {
        let mut docker = Self::prepare(fabric, host_idx, live_restore)?;
        docker.start_driver(fabric)?;
        docker.start_dockerd()?;
        docker.import()?;
        Ok(docker)
    }

    /// Starts Docker, which has the driver as a plugin that it manages itself, for networks of a swarm.
    ///
    /// # Errors
    /// When it does not start, or refuses the plugin.
    pub fn start_managed(fabric: &Fabric, host_idx: usize) -> Result<Self> {
        let mut docker = Self::prepare(fabric, host_idx, false)?;
        docker.start_dockerd()?;
        docker.import()?;
        let (dir, vswitchd) = (&docker.dir, fabric.plan().dir.join(format!("{}.sock", docker.host_name)));
        let (plugin, state) = (dir.join("plugin"), dir.join("driver"));
        let mut make = Command::new(find_program(&scenario::target_dir()?, "vswitch-libnetwork")?);
        make.args(["--scope=global", "--log=vswitch_libnetwork=debug"]);
        make.arg("--make-plugin").arg(&plugin).arg("--vswitchd").arg(vswitchd).arg("--state-dir").arg(state);
        command::output(&mut make, LIMIT)?;
        docker.run(&["plugin", "create", MANAGED, path(&plugin)?])?;
        docker.run(&["plugin", "enable", MANAGED])?;
        Ok(docker)
    }

    fn import(&self) -> Result<()> {
        let tar = image::tar(&self.dir)?;
        self.run(&["import", "-c", "ENV PATH=/bin", &tar, IMAGE]).map(drop)
    }

    fn prepare(fabric: &Fabric, host_idx: usize, live_restore: bool) -> Result<Self> {
        let host_name = HOSTS[host_idx].name;
        let dir = fabric.plan().dir.join(format!("{host_name}-docker"));
        fs::create_dir_all(dir.join("plugins"))?;
        let netns = fabric.host_netns(host_idx);
        let holder = hold_mounts(netns, &dir, Mounts::Own)?;
        Ok(Self {
            dockerd: None,
            driver: None,
            _containerd: containerd::start(netns.name(), &holder, &dir, containerd::NO_CRI)?,
            holder,
            netns: netns.name().to_owned(),
            host_name,
            dir,
            live_restore,
        })
    }

    /// Starts the driver, again after it was killed.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_driver(&mut self, fabric: &Fabric) -> Result<()> {
        self.driver = Some(libnetwork::start(fabric, self.host_name, &self.dir)?);
        Ok(())
    }

    /// Starts Docker, again after it was stopped or killed.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_dockerd(&mut self) -> Result<()> {
        let dir = path(&self.dir)?.to_owned();
        // What a killed one left; its process may have a new owner.
        let _ = fs::remove_file(self.dir.join("pid"));
        fs::write(self.dir.join("daemon.json"), "{}")?;
        let mut command = inside(&self.netns, &self.holder, "dockerd");
        command.args([format!("--containerd={dir}/containerd.sock"), "--storage-driver=vfs".to_owned()]);
        command.args(["--default-address-pool", "base=172.20.0.0/16,size=24"]);
        command.args([format!("--data-root={dir}/data"), format!("--exec-root={dir}/exec")]);
        command.args([format!("--pidfile={dir}/pid"), format!("--config-file={dir}/daemon.json")]);
        command.arg(format!("--host=unix://{dir}/docker.sock"));
        if self.live_restore {
            command.arg("--live-restore");
        }
        let mut dockerd = Daemon::spawn(command, "dockerd".to_owned(), &self.dir.join("dockerd.log"))?;
        stop::wait_for("dockerd answers", START_LIMIT, || {
            dockerd.check()?;
            let asked = self.attempt(&["version"])?;
            Ok(if asked.status.success() { Ok(()) } else { Err(command::complaint(&asked)) })
        })?;
        self.dockerd = Some(dockerd);
        Ok(())
    }

    /// The driver's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn driver(&mut self) -> Result<&mut Daemon> {
        self.driver.as_mut().context("the driver was started")
    }

    /// Docker's process.
    ///
    /// # Errors
    /// When it was not started.
    pub fn dockerd(&mut self) -> Result<&mut Daemon> {
        self.dockerd.as_mut().context("dockerd was started")
    }

    /// Runs `docker` and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let printed = command::output(&mut self.command(words), LIMIT);
        printed.with_context(|| format!("{}\n{}", self.log_tail("dockerd"), self.log_tail("driver")))
    }

    /// Runs `docker`, which may fail.
    ///
    /// # Errors
    /// When it cannot run or does not end.
    pub fn attempt(&self, words: &[&str]) -> Result<Finished> {
        command::run(&mut self.command(words), LIMIT)
    }

    /// Makes a network of ours, with further words.
    ///
    /// # Errors
    /// When it fails.
    pub fn network(&self, name: &str, words: &[&str]) -> Result<()> {
        let ours = ["network", "create", "-d", DRIVER, "--ipam-driver", DRIVER];
        self.run(&[&ours, words, &[name]].concat()).map(drop)
    }

    /// Runs a container that sleeps, with further words.
    ///
    /// # Errors
    /// When it fails.
    pub fn sleeper(&self, name: &str, network: &str, words: &[&str]) -> Result<()> {
        // Its process does not mind being asked to end.
        let ours = ["run", "-d", "--stop-timeout=1", "--name", name, "--network", network];
        self.run(&[&ours, words, &[IMAGE, "sleep", "3600"]].concat()).map(drop)
    }

    /// Runs a command in a container that runs.
    ///
    /// # Errors
    /// When it fails.
    pub fn exec(&self, container: &str, words: &[&str]) -> Result<String> {
        self.run(&[&["exec", container], words].concat())
    }

    /// A field of what `docker inspect` says of an endpoint.
    ///
    /// # Errors
    /// When there is none.
    pub fn endpoint(&self, container: &str, network: &str, field: &str) -> Result<String> {
        let all: Value = serde_json::from_str(&self.run(&["inspect", container])?)?;
        let value = &all[0]["NetworkSettings"]["Networks"][network][field];
        value.as_str().map(str::to_owned).with_context(|| format!("no {field} of {container} in {network}"))
    }

    /// A container's process: its namespaces are there without Docker, too.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, container: &str) -> Result<String> {
        Ok(self.run(&["inspect", "-f", "{{.State.Pid}}", container])?.trim().to_owned())
    }

    /// What the driver keeps: names of files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kept(&self) -> Result<Vec<String>> {
        libnetwork::kept(&self.dir)
    }

    /// The end of a daemon's log.
    pub fn log_tail(&self, daemon: &str) -> String {
        let text = fs::read(self.dir.join(format!("{daemon}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        format!("--- log of {daemon}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }

    fn command(&self, words: &[&str]) -> Command {
        // Debian's own, which fits to its dockerd.
        let debians = Path::new("/usr/bin/docker");
        let mut command = Command::new(if debians.exists() { debians } else { Path::new("docker") });
        command.arg(format!("--host=unix://{}/docker.sock", self.dir.display())).args(words);
        // Nobody's settings but ours.
        command.env("DOCKER_CONFIG", &self.dir).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if self.driver.is_none() {
            // A swarm would start again what is ended, and its driver has to outlive what it is of.
            let _ = command::run_regardless(&mut self.command(&["swarm", "leave", "--force"]), LIMIT);
        }
        let listed = command::run_regardless(&mut self.command(&["ps", "-aq"]), LIMIT);
        let listed = listed.map(|finished| finished.stdout).unwrap_or_default();
        let words: Vec<_> = ["rm", "-f"].into_iter().chain(listed.split_whitespace()).collect();
        if words.len() > 2
            && let Err(error) = command::run_regardless(&mut self.command(&words), LIMIT)
        {
            say(&format!("Docker's containers cannot be removed: {error:#}"));
        }
    }
}

fn path(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => bail!("{} is not UTF-8", path.display()),
    }
}
