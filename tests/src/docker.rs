//! Docker with directories of its own, whose networks are ours.
//!
//! It runs in a mount namespace that lasts as long as its guard, so that what it mounts goes with it, and a
//! Docker that is started again finds what the one before had. Docker looks for drivers in one folder of the
//! machine: there, this one sees only its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{self, Finished};
use crate::daemon::{Daemon, Life, find_program};
use crate::fabric::{Fabric, HOSTS};
use crate::netns::Netns;
use crate::{image, say, scenario, stop};

/// The image that containers are made of.
pub const IMAGE: &str = "busybox:local";
/// Name of our driver.
pub const DRIVER: &str = "ferroflow";
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
    socket: PathBuf,
    dir: PathBuf,
    live_restore: bool,
}

impl Docker {
    /// Starts Docker and the driver, and gives it an image.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(fabric: &Fabric, host_idx: usize, live_restore: bool) -> Result<Self> {
        let host_name = HOSTS[host_idx].name;
        let dir = fabric.plan().dir.join(format!("{host_name}-docker"));
        fs::create_dir_all(dir.join("plugins"))?;
        let netns = fabric.host_netns(host_idx);
        let holder = hold_mounts(netns, &dir)?;
        let mut docker = Self {
            dockerd: None,
            driver: None,
            _containerd: start_containerd(netns, &holder, &dir)?,
            holder,
            netns: netns.name().to_owned(),
            host_name,
            socket: fabric.plan().dir.join(format!("{host_name}.sock")),
            dir,
            live_restore,
        };
        docker.start_driver(fabric)?;
        docker.start_dockerd()?;
        let tar = image::tar(&docker.dir)?;
        docker.run(&["import", "-c", "ENV PATH=/bin", &tar, IMAGE])?;
        Ok(docker)
    }

    /// Starts the driver, again after it was killed.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_driver(&mut self, fabric: &Fabric) -> Result<()> {
        let program = find_program(&scenario::target_dir()?, "vswitch-libnetwork")?;
        let socket = self.dir.join("plugins").join(format!("{DRIVER}.sock"));
        let args = [
            "--socket",
            path(&socket)?,
            "--vswitchd",
            path(&self.socket)?,
            "--state-dir",
            path(&self.dir.join("driver"))?,
            "--log",
            "vswitch_libnetwork=debug",
        ]
        .map(str::to_owned);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let netns = fabric.hosts().iter().position(|host| host.plan.name == self.host_name);
        let netns = fabric.host_netns(netns.context("the host is in the fabric")?);
        let log = self.dir.join("driver.log");
        let mut driver = Daemon::start(netns, &program, &args, &log, Life::WithParent)?;
        stop::wait_for("the driver listens", START_LIMIT, || {
            driver.check()?;
            let connected = std::os::unix::net::UnixStream::connect(&socket);
            Ok(connected.map(drop).map_err(|error| error.to_string()))
        })?;
        self.driver = Some(driver);
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
        let mut kept = Vec::new();
        for part in ["networks", "endpoints", "pools"] {
            for entry in fs::read_dir(self.dir.join("driver").join(part))? {
                kept.push(format!("{part}/{}", entry?.file_name().to_string_lossy()));
            }
        }
        Ok(kept)
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

/// Starts what holds a mount namespace, in which Docker's folders of this machine are this Docker's own.
fn hold_mounts(netns: &Netns, dir: &Path) -> Result<Daemon> {
    for dir in ["/run/docker", "/run/containerd"] {
        fs::create_dir_all(dir)?;
    }
    let ready = dir.join("mounted");
    let script = "mount -t tmpfs tmpfs /run/docker && mount -t tmpfs tmpfs /run/containerd && \
                  mkdir /run/docker/plugins && mount --bind \"$0/plugins\" /run/docker/plugins && \
                  touch \"$0/mounted\" && exec setpriv --pdeathsig KILL sleep infinity";
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", netns.name()));
    command.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", script]).arg(dir);
    let mut holder = Daemon::spawn(command, "the holder of mounts".to_owned(), &dir.join("holder.log"))?;
    stop::wait_for("a mount namespace is made", START_LIMIT, || {
        holder.check()?;
        Ok(if ready.exists() { Ok(()) } else { Err("not yet".to_owned()) })
    })?;
    Ok(holder)
}

/// Starts the daemon that holds containers while there is no Docker.
fn start_containerd(netns: &Netns, holder: &Daemon, dir: &Path) -> Result<Daemon> {
    let shown = dir.display();
    let config = format!(
        "version = 2\nroot = \"{shown}/containerd\"\nstate = \"{shown}/containerd-state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{shown}/containerd.sock\"\n",
    );
    let file = dir.join("containerd.toml");
    fs::write(&file, config)?;
    let mut command = inside(netns.name(), holder, "containerd");
    command.arg("--config").arg(&file);
    let mut daemon = Daemon::spawn(command, "containerd".to_owned(), &dir.join("containerd.log"))?;
    stop::wait_for("containerd listens", START_LIMIT, || {
        daemon.check()?;
        let connected = std::os::unix::net::UnixStream::connect(dir.join("containerd.sock"));
        Ok(connected.map(drop).map_err(|error| error.to_string()))
    })?;
    Ok(daemon)
}

/// A daemon in Docker's namespaces. Not by `ip netns exec`: that hides the cgroups.
fn inside(netns: &str, holder: &Daemon, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid()));
    command.arg(format!("--net=/run/netns/{netns}"));
    command.args(["setpriv", "--pdeathsig", "KILL", "--", program]);
    command
}

fn path(path: &Path) -> Result<&str> {
    match path.to_str() {
        Some(text) => Ok(text),
        None => bail!("{} is not UTF-8", path.display()),
    }
}
