//! Debian's Open vSwitch and OVN, downloaded and unpacked into a folder of the user's cache. Nothing is installed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};

/// The programs, and those of their libraries that a plain system does not have.
const PACKAGES: &[&str] = &[
    "openvswitch-switch",
    "openvswitch-common",
    "libxdp1",
    "libbpf1",
    "libunbound8",
    "libevent-2.1-7",
    "libcap-ng0",
    "libnuma1",
];
/// What OVN has besides.
const OVN_PACKAGES: &[&str] = &["ovn-common", "ovn-central", "ovn-host"];
/// Set to `1` where no package mirror can be reached.
pub const OFFLINE: &str = "FERROFLOW_OFFLINE";
/// Set to `1` by whoever accepts that tests are skipped for lack of rights.
pub const UNPRIVILEGED: &str = "FERROFLOW_UNPRIVILEGED";

/// Whose programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Open vSwitch.
    Ovs,
    /// Open vSwitch and OVN.
    Ovn,
}

impl Names {
    /// Folder in the cache.
    fn folder(self) -> &'static str {
        match self {
            Self::Ovs => "openvswitch",
            Self::Ovn => "ovn",
        }
    }

    fn packages(self) -> Vec<&'static str> {
        let besides = if self == Self::Ovn { OVN_PACKAGES } else { &[] };
        [PACKAGES, besides].concat()
    }
}

/// An unpacked Open vSwitch, maybe with OVN.
#[derive(Debug, Clone)]
pub struct Package {
    root: PathBuf,
    version: String,
}

impl Package {
    /// Finds Open vSwitch in the cache, or gets it.
    ///
    /// # Errors
    /// When it cannot be downloaded or does not run here.
    pub fn get() -> Result<Self> {
        Self::get_of(Names::Ovs)
    }

    /// Finds programs in the cache, or gets them.
    ///
    /// # Errors
    /// When they cannot be downloaded or do not run here.
    pub fn get_of(names: Names) -> Result<Self> {
        // One at a time: tests of one process share its folder until what is in it is complete.
        static GETTING: Mutex<()> = Mutex::new(());
        let _turn = GETTING.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache()?;
        let root = cache.join(names.folder());
        if !root.is_dir() {
            let fresh = cache.join(format!("{}.{}", names.folder(), std::process::id()));
            fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
            let got = download(names, &fresh);
            if got.is_ok() && !root.is_dir() {
                // Another process may have been faster; one is as good as the other.
                let _ = fs::rename(&fresh, &root);
            }
            let _ = fs::remove_dir_all(&fresh);
            got?;
        }
        Self::open(root)
    }

    /// Like [`Package::get`]; nothing, said aloud, where [`OFFLINE`] or [`UNPRIVILEGED`] allow for that.
    ///
    /// # Errors
    /// When it cannot be had and nobody has said that this is all right.
    pub fn get_or_skip(test: &str) -> Result<Option<Self>> {
        Self::get_or_skip_of(Names::Ovs, test)
    }

    /// The same of others.
    ///
    /// # Errors
    /// When they cannot be had and nobody has said that this is all right.
    pub fn get_or_skip_of(names: Names, test: &str) -> Result<Option<Self>> {
        let allowed = [OFFLINE, UNPRIVILEGED]
            .into_iter()
            .find(|name| env::var_os(name).is_some_and(|value| value == "1"));
        match (Self::get_of(names), allowed) {
            (Ok(package), _) => Ok(Some(package)),
            (Err(error), Some(name)) => {
                eprintln!("SKIPPED {test}: {error:#}, and {name}=1 is set");
                Ok(None)
            }
            (Err(error), None) => Err(error.context(format!(
                "{test} needs Debian's Open vSwitch or OVN; set {OFFLINE}=1 to skip it where there is no mirror"
            ))),
        }
    }

    fn open(root: PathBuf) -> Result<Self> {
        let mut package = Self { root, version: String::new() };
        let program = package.file("usr/lib/openvswitch-switch/ovs-vswitchd");
        let output = Command::new(&program)
            .arg("--version")
            .env("LD_LIBRARY_PATH", package.libraries())
            .output()
            .with_context(|| {
                format!("cannot run {}; remove {}", program.display(), package.root.display())
            })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "{} does not run: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        package.version =
            text.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned();
        Ok(package)
    }

    /// The release.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A file of the packages.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where the libraries are, as the loader wants it.
    pub fn libraries(&self) -> String {
        let folders = ["usr/lib", "lib"].map(|folder| self.root.join(folder));
        let below = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let found =
            below.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
        found.map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    }
}

/// The user's cache; as root on a host without homes, a folder for temporary files.
///
/// # Errors
/// When it cannot be made.
pub fn cache() -> Result<PathBuf> {
    let home = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let cache = home.unwrap_or_else(env::temp_dir).join("ferroflow");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

fn download(names: Names, folder: &Path) -> Result<()> {
    let mut words = vec!["download"];
    words.extend(names.packages());
    if let Err(error) = run("apt-get", &words, folder) {
        // A fresh image has no lists of packages, an old one names versions that are gone.
        run("apt-get", &["update"], folder).context(format!("{error:#}"))?;
        run("apt-get", &words, folder)?;
    }
    for entry in fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".deb") {
            run("dpkg", &["-x", &name, "."], folder)?;
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn run(program: &str, words: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .current_dir(folder)
        .output()
        .with_context(|| format!("cannot run {program}; the packages are Debian's"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
