//! What containers are made of: busybox, and what it is linked with. No registry is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::command;

/// The image's program.
const BUSYBOX: &str = "/bin/busybox";
/// The names it is called by.
const APPLETS: [&str; 10] = ["sh", "ip", "ping", "sleep", "nc", "nslookup", "httpd", "wget", "cat", "true"];
/// How long packing may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Makes the image's archive in a folder, to be imported.
///
/// # Errors
/// When busybox is not there, or the folder cannot be written.
pub fn tar(dir: &Path) -> Result<String> {
    let root = dir.join("image");
    // One that is linked with nothing says so by failing.
    let libraries = command::run(Command::new("ldd").arg(BUSYBOX), command::SHORT)?.stdout;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([BUSYBOX]) {
        copy(Path::new(file), &root)?;
    }
    let bin = root.join("bin");
    for applet in APPLETS {
        std::os::unix::fs::symlink(BUSYBOX, bin.join(applet))?;
    }
    fs::create_dir_all(root.join("www"))?;
    fs::write(root.join("www/index.html"), "it works\n")?;
    let tar = dir.join("image.tar");
    command::output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."), LIMIT)?;
    Ok(tar.to_str().context("the folder's name is not UTF-8")?.to_owned())
}

/// Makes the image's archive as Docker writes it, by a name, of what [`tar`] has made.
///
/// # Errors
/// When the folder cannot be written.
pub fn archive(dir: &Path, name: &str) -> Result<PathBuf> {
    let layer = fs::read(dir.join("image.tar"))?;
    let digest: String = Sha256::digest(&layer).iter().map(|byte| format!("{byte:02x}")).collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "1000000"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["image.tar"] }]);
    fs::write(dir.join("config.json"), config.to_string())?;
    fs::write(dir.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join("archive.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(dir).arg("-cf").arg(&archive).args(["manifest.json", "config.json", "image.tar"]);
    command::output(&mut tar, LIMIT)?;
    Ok(archive)
}

fn copy(file: &Path, root: &Path) -> Result<()> {
    let Ok(inside) = file.strip_prefix("/") else { bail!("{} is not absolute", file.display()) };
    let to = root.join(inside);
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}
