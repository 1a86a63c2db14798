//! Debian's Open vSwitch with DPDK, and the driver of the ports in memory, in a folder of the
//! user's cache. Nothing is installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::command::{output, run};
use oracle::ovs::package::cache;

/// What is asked for; what it depends on comes along.
const PACKAGES: &[&str] = &["openvswitch-switch-dpdk", "libdpdk-dev"];
/// Drivers of DPDK that are wanted. Given all, it would look for hardware.
const DRIVERS: &[&str] = &["librte_bus_vdev.so", "librte_mempool_ring.so"];
/// What DPDK's own forwarder comes in, and its file.
const FORWARDER: (&str, &str) = ("dpdk-dev", "usr/bin/dpdk-testpmd");
/// Drivers that it is given for AF_XDP.
const FORWARDER_DRIVERS: [&str; 3] = ["bus_vdev", "mempool_ring", "net_af_xdp"];
/// The source of frames for veths, and its file.
const FRAMES: (&str, &str) = (include_str!("../../peer/frames.c"), "frames");
/// The driver of our ports.
const SOURCE: &str = include_str!("../../peer/flowgen.c");
/// Its file; DPDK wants this prefix.
const FLOWGEN: &str = "librte_net_flowgen.so";
/// Limits for downloads, and for what only works here.
const DOWNLOAD: Duration = Duration::from_secs(600);
const LOCAL: Duration = Duration::from_secs(120);

/// The unpacked programs.
#[derive(Debug, Clone)]
pub struct Install {
    root: PathBuf,
}

/// DPDK's own forwarder.
#[derive(Debug, Clone)]
pub struct Forwarder {
    /// The program.
    pub program: PathBuf,
    /// Drivers that it has to be given.
    pub drivers: Vec<PathBuf>,
    /// Where its libraries are; empty: where those of the host are.
    pub libraries: String,
}

impl Install {
    /// Finds them in the cache, or gets them; compiles the driver.
    ///
    /// # Errors
    /// When something cannot be downloaded or compiled.
    pub fn get() -> Result<Self> {
        let cache = cache()?;
        let root = cache.join("openvswitch-dpdk");
        if !root.is_dir() {
            let fresh = cache.join(format!("openvswitch-dpdk.{}", std::process::id()));
            let got = download(&fresh, PACKAGES).and_then(|()| download_headers(&fresh));
            if got.is_ok() {
                fs::rename(&fresh, &root).with_context(|| format!("cannot make {}", root.display()))?;
            }
            let _ = fs::remove_dir_all(&fresh);
            got?;
        }
        let install = Self { root };
        install.compile_driver()?;
        Ok(install)
    }

    /// A file of the packages; where the host has them installed, the host's.
    pub fn file(&self, path: &str) -> PathBuf {
        let unpacked = self.root.join(path);
        if unpacked.exists() { unpacked } else { Path::new("/").join(path) }
    }

    /// DPDK's own forwarder, as a command that knows AF_XDP; gets it if it is not here.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub fn forwarder(&self) -> Result<Forwarder> {
        let (package, path) = FORWARDER;
        if !self.file(path).exists() {
            download(&self.root, &[package])?;
        }
        let program = self.file(path);
        // The host's own finds its drivers by itself.
        if !program.starts_with(&self.root) {
            return Ok(Forwarder { program, drivers: Vec::new(), libraries: String::new() });
        }
        let folder = self.all_drivers()?;
        let mut drivers = Vec::new();
        for driver in FORWARDER_DRIVERS {
            let prefix = format!("librte_{driver}.so.");
            let is_it = |path: &PathBuf| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.strip_prefix(&prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            };
            let mut files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
            drivers.push(files.find(is_it).with_context(|| format!("DPDK without its driver {driver}"))?);
        }
        Ok(Forwarder { program, drivers, libraries: self.libraries() })
    }

    /// The program that makes frames for veths (`peer/frames.c`), compiled.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn frames(&self) -> Result<PathBuf> {
        let (text, name) = FRAMES;
        let (program, source) = (self.root.join(name), self.root.join("frames.c"));
        let is_known = fs::read_to_string(&source).is_ok_and(|known| known == text);
        if !is_known || !program.exists() {
            fs::write(&source, text)?;
            let mut gcc = Command::new("gcc");
            gcc.args(["-O2", "-Wall", "-o"]).arg(&program).arg(&source);
            output(&mut gcc, LOCAL).context("cannot compile the source of frames")?;
        }
        Ok(program)
    }

    /// The drivers, that of our ports last. Each by its file: of a folder DPDK would load those
    /// with other names.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn drivers(&self) -> Result<Vec<PathBuf>> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(self.driver_folder())?.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.push(self.flowgen());
        Ok(paths)
    }

    fn driver_folder(&self) -> PathBuf {
        self.root.join("drivers")
    }

    fn flowgen(&self) -> PathBuf {
        self.root.join(FLOWGEN)
    }

    /// Where the libraries are, as the loader wants it.
    pub fn libraries(&self) -> String {
        let paths = self.library_folders();
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    }

    /// The release of Open vSwitch, as it says itself.
    ///
    /// # Errors
    /// When it does not run here.
    pub fn version(&self) -> Result<String> {
        let mut command = Command::new(self.file("usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"));
        let text = output(command.arg("--version").env("LD_LIBRARY_PATH", self.libraries()), LOCAL)?;
        let lines = text.lines().map(|line| line.split_whitespace().last().unwrap_or("?"));
        let versions: Vec<&str> = lines.take(2).collect();
        Ok(versions.join(", DPDK "))
    }

    fn library_folders(&self) -> Vec<PathBuf> {
        let folders = [self.root.join("usr/lib"), self.root.join("lib"), PathBuf::from("/usr/lib")];
        let below = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        below
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
            .collect()
    }

    /// The folder of all of DPDK's drivers.
    fn all_drivers(&self) -> Result<PathBuf> {
        let below =
            self.library_folders().into_iter().filter_map(|path| fs::read_dir(path.join("dpdk")).ok());
        let mut found = below.flatten().flatten().map(|entry| entry.path());
        found.find(|path| path.to_string_lossy().contains("/pmds-")).context("DPDK without drivers")
    }

    /// Copies the wanted drivers, each under the one name that programs link to: a driver in
    /// two files would be loaded twice. Answers the name of the first.
    fn copy_drivers(&self, folder: &Path) -> Result<String> {
        let mut bus = None;
        for entry in fs::read_dir(self.all_drivers()?)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = |driver: &&str| name.strip_prefix(*driver).and_then(|rest| rest.strip_prefix('.'));
            let Some(driver) = DRIVERS
                .iter()
                .find(|driver| rest(driver).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())))
            else {
                continue;
            };
            fs::copy(entry.path(), folder.join(&name))?;
            if *driver == DRIVERS[0] {
                bus = Some(name);
            }
        }
        bus.context("DPDK without virtual devices")
    }

    fn compile_driver(&self) -> Result<()> {
        let (source, drivers) = (self.root.join("flowgen.c"), self.driver_folder());
        if fs::read_to_string(&source).is_ok_and(|text| text == SOURCE) && self.flowgen().exists() {
            return Ok(());
        }
        for old in [&drivers, &self.flowgen()] {
            let _ = fs::remove_dir_all(old).or_else(|_| fs::remove_file(old));
        }
        fs::create_dir_all(&drivers)?;
        let bus = self.copy_drivers(&drivers)?;
        fs::write(&source, SOURCE)?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O3", "-march=native", "-fPIC", "-shared", "-Wall"]);
        gcc.args(["-DALLOW_INTERNAL_API", "-DALLOW_EXPERIMENTAL_API", "-include", "rte_config.h"]);
        for folder in ["usr/include/dpdk", "usr/include/x86_64-linux-gnu/dpdk", "usr/include"] {
            gcc.arg("-I").arg(self.file(folder));
        }
        for folder in ["lib/ethdev", "drivers/bus/vdev", "lib/eal/include"] {
            gcc.arg("-I").arg(self.root.join("source").join(folder));
        }
        gcc.arg("-o").arg(self.flowgen()).arg(&source).arg("-Wl,--no-as-needed");
        for folder in self.library_folders() {
            gcc.arg("-L").arg(folder);
        }
        gcc.arg("-L").arg(&drivers).arg(format!("-l:{bus}"));
        gcc.args(["-lrte_ethdev", "-lrte_kvargs", "-lrte_mbuf", "-lrte_mempool", "-lrte_eal"]);
        output(&mut gcc, LOCAL).context("cannot compile the driver of the ports").map(drop)
    }
}

fn apt(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words).current_dir(folder).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn download(root: &Path, packages: &[&str]) -> Result<()> {
    let archives = root.join("archives");
    fs::create_dir_all(archives.join("partial"))
        .with_context(|| format!("cannot make {}", archives.display()))?;
    let place = format!("Dir::Cache::archives={}", archives.display());
    let mut words = vec!["install", "-y", "--no-install-recommends", "--download-only", "-o", &place];
    words.extend(packages);
    if !run(&mut apt(root, &words), DOWNLOAD)?.status.success() {
        // A fresh image has no lists of packages, an old one names versions that are gone.
        run(&mut apt(root, &["update"]), DOWNLOAD)?;
        output(&mut apt(root, &words), DOWNLOAD)?;
    }
    for entry in fs::read_dir(&archives)?.collect::<Result<Vec<_>, _>>()? {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg").arg("-x").arg(entry.path()).arg(root), LOCAL)?;
        }
    }
    Ok(fs::remove_dir_all(&archives)?)
}

/// The headers for drivers are in no package; DPDK's source has them.
fn download_headers(root: &Path) -> Result<()> {
    let (parts, apt_folder, source) = (root.join("sources"), root.join("apt"), root.join("source"));
    for folder in [&parts, &source, &apt_folder.join("lists/partial"), &apt_folder.join("archives/partial")] {
        fs::create_dir_all(folder)?;
    }
    write_sources(&parts)?;
    let options = [
        "Dir::Etc::SourceList=/dev/null".to_owned(),
        format!("Dir::Etc::SourceParts={}", parts.display()),
        format!("Dir::State::Lists={}", apt_folder.join("lists").display()),
        format!("Dir::Cache={}", apt_folder.display()),
    ];
    let mut words: Vec<&str> = options.iter().flat_map(|option| ["-o", option.as_str()]).collect();
    let n_options = words.len();
    words.push("update");
    output(&mut apt(&source, &words), DOWNLOAD)?;
    words.truncate(n_options);
    words.extend(["source", "--download-only", "dpdk"]);
    output(&mut apt(&source, &words), DOWNLOAD)?;
    let mut names = fs::read_dir(&source)?.flatten().map(|entry| entry.file_name());
    let archive = names.find(|name| name.to_string_lossy().contains(".orig.tar."));
    let archive = archive.context("the source of DPDK has no archive")?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).args(["--strip-components=1", "--wildcards"]);
    output(tar.args(["*/lib", "*/drivers/bus/vdev"]).current_dir(&source), LOCAL)?;
    for folder in [parts, apt_folder] {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// The host's sources of packages of Debian, as sources of source packages.
fn write_sources(folder: &Path) -> Result<()> {
    let mut n_found = 0;
    let listed = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let paths = listed.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    for (n, path) in paths.enumerate() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let (changed, extension) = match path.extension().is_some_and(|extension| extension == "sources") {
            true => (source_stanzas(&text), "sources"),
            false => (source_lines(&text), "list"),
        };
        if !changed.is_empty() {
            n_found += 1;
            fs::write(folder.join(format!("{n}.{extension}")), changed)?;
        }
    }
    ensure!(n_found > 0, "apt knows no source of Debian's packages");
    Ok(())
}

fn source_stanzas(text: &str) -> String {
    let stanzas = text.split("\n\n").filter(|stanza| stanza.contains("/debian"));
    let lines = |stanza: &str| -> Vec<String> {
        let change = |line: &str| match line.strip_prefix("Types:") {
            Some(_) => "Types: deb-src".to_owned(),
            None => line.to_owned(),
        };
        stanza.lines().filter(|line| !line.starts_with('#')).map(change).collect()
    };
    stanzas.map(|stanza| lines(stanza).join("\n") + "\n\n").collect()
}

fn source_lines(text: &str) -> String {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("deb "));
    lines.filter(|line| line.contains("/debian")).map(|line| format!("deb-src {line}\n")).collect()
}

/// Fails where Open vSwitch cannot run beside us.
///
/// # Errors
/// Says what is missing.
pub fn check_host() -> Result<()> {
    if !ferroflow_tests::privilege::is_root() {
        bail!("the comparison lends huge pages and makes a network namespace: it needs root");
    }
    for program in ["apt-get", "dpkg", "gcc", "taskset", "unshare", "nsenter", "setpriv", "ip"] {
        ensure!(ferroflow_tests::daemon::has_command(program), "the comparison needs `{program}`");
    }
    ensure!(cfg!(target_arch = "x86_64"), "the comparison is made for x86-64");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_debian_become_sources_of_source() {
        let text = "Types: deb\n# old\nURIs: http://m/debian\nSuites: x\n\nTypes: deb\nURIs: http://n/node\n";
        assert_eq!(source_stanzas(text), "Types: deb-src\nURIs: http://m/debian\nSuites: x\n\n");
        let text = "deb http://m/debian x main\ndeb-src http://m/debian x main\n# deb http://m/debian y\n";
        assert_eq!(source_lines(text), "deb-src http://m/debian x main\n");
    }
}
