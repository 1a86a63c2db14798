//! containerd with directories of its own, and `ctr`, by which it runs containers with networks.
//!
//! It runs in a mount namespace that lasts as long as its guard, so that what it mounts goes with it. What it
//! looks for in folders of the machine, it finds there only when it was put there for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::fabric::{Fabric, HOSTS};
use crate::netns::Netns;
use crate::{command, image, stop};

/// How long a daemon may take to answer.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// containerd on a host of a fabric.
#[derive(Debug)]
pub struct Containerd {
    _containerd: Daemon,
    holder: Daemon,
    netns: String,
    control: PathBuf,
    host_socket: PathBuf,
    dir: PathBuf,
}

impl Containerd {
    /// Starts it, and makes a root for containers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(fabric: &Fabric, host_idx: usize) -> Result<Self> {
        let name = HOSTS[host_idx].name;
        let dir = fabric.plan().dir.join(format!("{name}-containerd"));
        fs::create_dir_all(&dir)?;
        let netns = fabric.host_netns(host_idx);
        let holder = hold_mounts(netns, &dir)?;
        image::tar(&dir)?;
        Ok(Self {
            _containerd: start(netns, &holder, &dir)?,
            holder,
            netns: netns.name().to_owned(),
            control: fabric.plan().programs.control.clone(),
            host_socket: fabric.plan().dir.join(format!("{name}.sock")),
            dir,
        })
    }

    /// `vswitchctl cni` with these words: into containerd's own folders.
    ///
    /// # Errors
    /// When it fails.
    pub fn cni(&self, words: &[&str]) -> Result<String> {
        let mut command = self.inside("env");
        command.arg(&self.control).arg(format!("--host=unix://{}", self.host_socket.display()));
        command::output(command.arg("cni").args(words), LIMIT)
    }

    /// What is in containerd's folders of plugins and networks.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn installed(&self) -> Result<String> {
        command::output(self.inside("find").args(["/etc/cni", "/opt", "-type", "f"]), LIMIT)
    }

    /// Runs a container to its end, with a network, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, id: &str, words: &[&str]) -> Result<String> {
        let mut command = self.inside("ctr");
        command.arg(format!("--address={}/containerd.sock", self.dir.display()));
        command.args(["run", "--rm", "--cni", "--rootfs", "--env", "PATH=/bin"]);
        command::output(command.arg(self.dir.join("image")).arg(id).args(words), LIMIT)
    }

    fn inside(&self, program: &str) -> Command {
        inside(&self.netns, &self.holder, program)
    }
}

/// Starts what holds a mount namespace, in which the runtimes' folders of this machine are their
/// own.
pub(crate) fn hold_mounts(netns: &Netns, dir: &Path) -> Result<Daemon> {
    for dir in ["/run/docker", "/run/containerd", "/etc/cni"] {
        fs::create_dir_all(dir)?;
    }
    fs::create_dir_all(dir.join("plugins"))?;
    let ready = dir.join("mounted");
    let script = "mount -t tmpfs tmpfs /run/docker && mount -t tmpfs tmpfs /run/containerd && \
                  mount -t tmpfs tmpfs /etc/cni && mount -t tmpfs tmpfs /opt && \
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

/// Starts the daemon that holds containers, for Docker and others.
pub(crate) fn start(netns: &Netns, holder: &Daemon, dir: &Path) -> Result<Daemon> {
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

/// A program in the runtimes' namespaces. Not by `ip netns exec`: that hides the cgroups.
pub(crate) fn inside(netns: &str, holder: &Daemon, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid()));
    command.arg(format!("--net=/run/netns/{netns}"));
    command.args(["setpriv", "--pdeathsig", "KILL", "--", program]);
    command
}
