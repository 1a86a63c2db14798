//! What containers are made of: busybox, and what it is linked with. No registry is asked.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;

/// The image's program.
const BUSYBOX: &str = "/bin/busybox";
/// The names it is called by.
const APPLETS: [&str; 9] = ["sh", "ip", "ping", "sleep", "nc", "httpd", "wget", "cat", "true"];
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

fn copy(file: &Path, root: &Path) -> Result<()> {
    let Ok(inside) = file.strip_prefix("/") else { bail!("{} is not absolute", file.display()) };
    let to = root.join(inside);
    fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}
