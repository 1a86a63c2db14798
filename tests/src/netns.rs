//! Network namespaces that go away with their guard, and virtual Ethernet links between them.
//!
//! Links need no guard of their own: both ends live in namespaces, and go with them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{self, SHORT, ip};
use crate::processes;

/// Where iproute2 keeps namespaces.
const NETNS_DIR: &str = "/run/netns";

/// A network namespace; dropping it ends what runs inside and removes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    keep: bool,
}

impl Netns {
    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// When there is one of that name already, or this process may not make one.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name]).with_context(|| {
            format!("cannot make network namespace {name} (root and CAP_SYS_ADMIN needed)")
        })?;
        let netns = Self { name: name.to_owned(), keep: false };
        netns.ip(&["link", "set", "dev", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel tells it by.
    ///
    /// # Errors
    /// When it is gone.
    pub fn inode(&self) -> Result<u64> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        Ok(fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.ino())
    }

    /// `ip` inside the namespace.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ip(&self, words: &[&str]) -> Result<String> {
        command::output(Command::new("ip").args(["-n", &self.name]).args(words), SHORT)
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does something on a thread that is inside the namespace; sockets opened there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        let netns = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                Ok(work())
            });
            thread.join().map_err(|_| anyhow::anyhow!("a thread inside {} panicked", self.name))?
        })
    }

    /// Sets kernel parameters of the namespace, `("net.ipv4.ip_forward", "1")`.
    ///
    /// # Errors
    /// When the kernel has no such parameter or refuses the value.
    pub fn set_sysctls(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.inside(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/{}", name.replace('.', "/"));
                fs::write(&path, value).with_context(|| format!("cannot set {name} to {value}"))?;
            }
            Ok(())
        })?
    }

    /// Leaves the namespace in place when the guard is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove(&self.name)
        {
            crate::say(&format!("cannot remove network namespace {}: {error:#}", self.name));
        }
    }
}

/// Ends everything that runs in the namespace and removes it.
///
/// # Errors
/// When the namespace cannot be removed.
pub fn remove(name: &str) -> Result<()> {
    let pids = command::run_regardless(Command::new("ip").args(["netns", "pids", name]), SHORT)?;
    for pid in pids.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        // It may have ended by itself meanwhile.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let finished = command::run_regardless(Command::new("ip").args(["netns", "del", name]), SHORT)?;
    anyhow::ensure!(finished.status.success(), "{}", command::complaint(&finished));
    Ok(())
}

/// Who still has a namespace of these, by their inodes, open, or lives in it.
///
/// # Errors
/// When processes cannot be listed.
pub fn holders(inodes: &[u64]) -> Result<Vec<String>> {
    let wanted: Vec<_> = inodes.iter().map(|inode| format!("net:[{inode}]")).collect();
    let is_wanted = |path: &Path| {
        fs::read_link(path)
            .is_ok_and(|target| wanted.iter().any(|wanted| target.as_os_str() == wanted.as_str()))
    };
    let mut holders = Vec::new();
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        // Who ends meanwhile has nothing.
        let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
        let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        let places = files.chain(threads.map(|thread| thread.path().join("ns/net")));
        holders.extend(places.filter(|path| is_wanted(path)).map(|path| path.display().to_string()));
    }
    Ok(holders)
}

/// Names of the namespaces on this machine that start with `prefix`.
pub fn with_prefix(prefix: &str) -> Vec<String> {
    names(prefix, |path| !path.is_dir())
}

/// Names of the folders of namespaces on this machine that start with `prefix`.
pub fn folders_with_prefix(prefix: &str) -> Vec<String> {
    names(prefix, Path::is_dir)
}

fn names(prefix: &str, is_wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(NETNS_DIR)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| is_wanted(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// Where others put namespaces that they make. It is among those of iproute2, which everybody sees who was
/// started before; dropping it ends what runs inside of them and removes them.
#[derive(Debug)]
pub struct Folder {
    name: String,
}

impl Folder {
    /// Makes it.
    ///
    /// # Errors
    /// When there is one of that name already.
    pub fn create(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { name: name.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = remove_folder(&self.name) {
            crate::say(&format!("cannot remove the namespaces in {}: {error:#}", self.name));
        }
    }
}

/// Ends everything that runs in the namespaces of a folder, and removes them and it.
///
/// # Errors
/// When something cannot be removed.
pub fn remove_folder(name: &str) -> Result<()> {
    let folder = Path::new(NETNS_DIR).join(name);
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        end_inhabitants(&[fs::metadata(&path)?.ino()])?;
        // A runtime that was killed in between has made the file, but not mounted the namespace.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Ends all processes that live in a namespace of these, by their inodes.
fn end_inhabitants(inodes: &[u64]) -> Result<()> {
    let wanted: Vec<_> = inodes.iter().map(|inode| format!("net:[{inode}]")).collect();
    processes::end(|process| {
        let lives_in = fs::read_link(process.join("ns/net"));
        lives_in.is_ok_and(|netns| wanted.iter().any(|wanted| netns.as_os_str() == wanted.as_str()))
    })
}

/// One end of a virtual Ethernet link.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub netns: &'a Netns,
    /// Its interface's name, at most 15 bytes.
    pub name: &'a str,
    /// Its MAC address; the kernel chooses one without.
    pub mac: Option<&'a str>,
    /// Its addresses, `10.0.0.1/24`.
    pub address: Option<&'a str>,
}

impl<'a> End<'a> {
    /// An end without addresses.
    pub fn new(netns: &'a Netns, name: &'a str) -> Self {
        Self { netns, name, mac: None, address: None }
    }
}

/// Joins two namespaces by a link, and brings it up.
///
/// # Errors
/// When one of the interfaces exists already or the kernel refuses.
pub fn link(a: End<'_>, b: End<'_>, mtu: u32) -> Result<()> {
    let mtu = mtu.to_string();
    let mut words = vec!["link", "add", "name", a.name, "netns", a.netns.name(), "mtu", &mtu];
    words.extend(a.mac.iter().flat_map(|mac| ["address", mac]));
    words.extend(["type", "veth", "peer", "name", b.name, "netns", b.netns.name(), "mtu", &mtu]);
    words.extend(b.mac.iter().flat_map(|mac| ["address", mac]));
    ip(&words)?;
    for end in [a, b] {
        if let Some(address) = end.address {
            end.netns.ip(&["address", "add", address, "dev", end.name])?;
        }
        end.netns.ip(&["link", "set", "dev", end.name, "up"])?;
    }
    Ok(())
}
