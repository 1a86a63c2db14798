//! Debian's kernel for virtual machines, in a folder of the user's cache. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::output;

/// The newest one is what this depends on.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Limit for what asks a mirror.
const DOWNLOAD: Duration = Duration::from_secs(300);
/// What the network device needs, in this order; what the kernel has built in is not there.
const MODULES: [&str; 8] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// A kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its image.
    pub image: PathBuf,
    /// Its modules for the network device, in the order in which they are loaded.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Finds it in the cache, or gets it.
    ///
    /// # Errors
    /// When it cannot be downloaded.
    pub fn get() -> Result<Self> {
        let cache = match std::env::var_os("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
        };
        let root = cache.join("ferroflow/guest-kernel");
        if !root.is_dir() {
            let fresh = root.with_extension(std::process::id().to_string());
            fs::create_dir_all(&fresh)?;
            let got = download(&fresh);
            let kept = got.and_then(|()| Ok(fs::rename(&fresh, &root)?));
            let _ = fs::remove_dir_all(&fresh);
            kept?;
        }
        Self::in_folder(&root)
    }

    fn in_folder(root: &Path) -> Result<Self> {
        let (mut images, mut files) = (Vec::new(), Vec::new());
        walk(root, &mut |path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("vmlinuz") {
                images.push(path.to_owned());
            } else if let Some(module) = name.strip_suffix(".ko") {
                files.push((module.to_owned(), path.to_owned()));
            }
        })?;
        let find =
            |module: &&str| files.iter().find(|(name, _)| name == *module).map(|(_, path)| path.clone());
        let modules: Vec<PathBuf> = MODULES.iter().filter_map(find).collect();
        let image = images.pop().with_context(|| format!("there is no kernel in {}", root.display()))?;
        ensure!(modules.iter().any(|path| path.ends_with("virtio_net.ko")), "a kernel without virtio_net");
        Ok(Self { image, modules })
    }
}

/// Gets what the package depends on, and keeps what is needed of it.
fn download(folder: &Path) -> Result<()> {
    let text = output(Command::new("apt-cache").args(["depends", "--important", PACKAGE]), DOWNLOAD)?;
    let mut depends = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let newest = depends.rfind(|name| name.starts_with("linux-image-"));
    let newest = newest.with_context(|| format!("{PACKAGE} depends on no kernel; apt-get update"))?;
    output(Command::new("apt-get").args(["download", newest]).current_dir(folder), DOWNLOAD)?;
    let archive = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let archive = archive.filter(|path| path.extension().is_some_and(|end| end == "deb")).last();
    let archive = archive.context("nothing was downloaded")?;
    let all = folder.join("all");
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&all), DOWNLOAD)?;
    let mut wanted = Vec::new();
    walk(&all, &mut |path| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let is_module = path.extension().is_some_and(|end| end == "ko") && MODULES.contains(&stem.as_str());
        if is_module || path.to_string_lossy().contains("/vmlinuz") {
            wanted.push(path.to_owned());
        }
    })?;
    for path in wanted {
        let name = path.file_name().context("a file has a name")?;
        fs::rename(&path, folder.join(name))?;
    }
    fs::remove_dir_all(all)?;
    Ok(fs::remove_file(archive)?)
}

fn walk(folder: &Path, found: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        match entry.file_type()? {
            kind if kind.is_dir() => walk(&entry.path(), found)?,
            kind if kind.is_file() => found(&entry.path()),
            _ => {}
        }
    }
    Ok(())
}
