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
use crate::netns::{Folder, Netns};
use crate::{command, image, stop};

/// How long a daemon may take to answer.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The image that pods and their containers are made of.
pub const IMAGE: &str = "localhost/busybox:local";
/// What pods need of containerd where it may not do everything. Their namespaces are where they are found when
/// everything that could tell of them was killed.
const CRI: &str = r#"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/busybox:local"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
    max_conf_num = 1
"#;

/// Who sees what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// Nobody else.
    Own,
    /// Nobody else, but for network namespaces, which are everybody's: Kubernetes' runtimes make them.
    SharedNetns,
}

/// containerd on a host of a fabric.
#[derive(Debug)]
pub struct Containerd {
    // Dropped in this order.
    containerd: Option<Daemon>,
    has_cri: bool,
    holder: Daemon,
    _pods: Option<Folder>,
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
        Self::start_as(fabric, host_idx, false)
    }

    /// Starts it as Kubernetes does, with an image for pods.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_for_pods(fabric: &Fabric, host_idx: usize) -> Result<Self> {
        let containerd = Self::start_as(fabric, host_idx, true)?;
        let archive = image::archive(&containerd.dir, IMAGE)?;
        let mut import = containerd.ctr(&["--namespace=k8s.io", "images", "import", "--snapshotter=native"]);
        command::output(import.arg(archive), LIMIT)?;
        // Kubernetes installs it, and containerd calls it for each pod.
        let mut install = containerd.inside("install");
        command::output(install.args(["-D", "/usr/lib/cni/loopback", "/opt/cni/bin/loopback"]), LIMIT)?;
        Ok(containerd)
    }

    fn start_as(fabric: &Fabric, host_idx: usize, has_cri: bool) -> Result<Self> {
        let name = HOSTS[host_idx].name;
        let dir = fabric.plan().dir.join(format!("{name}-containerd"));
        fs::create_dir_all(&dir)?;
        let netns = fabric.host_netns(host_idx);
        let mounts = if has_cri { Mounts::SharedNetns } else { Mounts::Own };
        let pods = if has_cri { Some(pods_folder(netns, &dir)?) } else { None };
        let holder = hold_mounts(netns, &dir, mounts)?;
        image::tar(&dir)?;
        let extra = if has_cri { CRI } else { NO_CRI };
        Ok(Self {
            containerd: Some(start(netns.name(), &holder, &dir, extra)?),
            has_cri,
            holder,
            _pods: pods,
            netns: netns.name().to_owned(),
            control: fabric.plan().programs.control.clone(),
            host_socket: fabric.plan().dir.join(format!("{name}.sock")),
            dir,
        })
    }

    /// Kills it, as a crash would, and starts it again; its containers go on meanwhile.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        if let Some(mut containerd) = self.containerd.take() {
            containerd.kill()?;
        }
        let extra = if self.has_cri { CRI } else { NO_CRI };
        self.containerd = Some(start(&self.netns, &self.holder, &self.dir, extra)?);
        Ok(())
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.dir.join("containerd.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
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
        let mut command = self.ctr(&["run", "--rm", "--cni", "--rootfs", "--env", "PATH=/bin"]);
        command::output(command.arg(self.dir.join("image")).arg(id).args(words), LIMIT)
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = self.inside("ctr");
        command.arg(format!("--address={}", self.socket().display())).args(words);
        command
    }

    fn inside(&self, program: &str) -> Command {
        inside(&self.netns, &self.holder, program)
    }
}

/// Where containerd puts the namespaces of pods, which is among those of this machine: vswitchd has to see them.
fn pods_folder(netns: &Netns, dir: &Path) -> Result<Folder> {
    let folder = Folder::create(&format!("{}-pods", netns.name()))?;
    let state = dir.join("containerd-state/io.containerd.grpc.v1.cri");
    fs::create_dir_all(&state)?;
    std::os::unix::fs::symlink(folder.path(), state.join("netns"))?;
    Ok(folder)
}

/// Starts what holds a mount namespace, in which the runtimes' folders of this machine are their
/// own.
pub(crate) fn hold_mounts(netns: &Netns, dir: &Path, mounts: Mounts) -> Result<Daemon> {
    for dir in ["/run/docker", "/run/containerd", "/etc/cni"] {
        fs::create_dir_all(dir)?;
    }
    fs::create_dir_all(dir.join("plugins"))?;
    let ready = dir.join("mounted");
    let script = "if [ \"$1\" = unchanged ]; then mount --make-private / && \
                  { ! mountpoint -q /run || mount --make-private /run; }; fi && \
                  mount -t tmpfs tmpfs /run/docker && mount -t tmpfs tmpfs /run/containerd && \
                  mount -t tmpfs tmpfs /etc/cni && mount -t tmpfs tmpfs /opt && \
                  mkdir /run/docker/plugins && mount --bind \"$0/plugins\" /run/docker/plugins && \
                  touch \"$0/mounted\" && exec setpriv --pdeathsig KILL sleep infinity";
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", netns.name()));
    let propagation = match mounts {
        Mounts::Own => "private",
        Mounts::SharedNetns => "unchanged",
    };
    command.args(["unshare", "--mount", "--propagation", propagation, "sh", "-c", script]);
    command.arg(dir).arg(propagation);
    let mut holder = Daemon::spawn(command, "the holder of mounts".to_owned(), &dir.join("holder.log"))?;
    stop::wait_for("a mount namespace is made", START_LIMIT, || {
        holder.check()?;
        Ok(if ready.exists() { Ok(()) } else { Err("not yet".to_owned()) })
    })?;
    Ok(holder)
}

/// What containerd is told when nobody asks it for pods.
pub(crate) const NO_CRI: &str = "[plugins]\n";

/// Starts the daemon that holds containers, for Docker and others.
pub(crate) fn start(netns: &str, holder: &Daemon, dir: &Path, extra: &str) -> Result<Daemon> {
    let shown = dir.display();
    let disabled = if extra == NO_CRI { "\"io.containerd.grpc.v1.cri\"" } else { "" };
    let config = format!(
        "version = 2\nroot = \"{shown}/containerd\"\nstate = \"{shown}/containerd-state\"\n\
         disabled_plugins = [{disabled}]\n[grpc]\naddress = \"{shown}/containerd.sock\"\n{extra}",
    );
    let file = dir.join("containerd.toml");
    fs::write(&file, config)?;
    let mut command = inside(netns, holder, "containerd");
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
