//! Processes that nobody waits for: containers outlive their runtime, and whoever started that.

use std::fs;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills every process that is so, by its folder in `/proc`.
///
/// # Errors
/// When processes cannot be listed.
pub fn end(is_wanted: impl Fn(&Path) -> bool) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if is_wanted(&entry.path()) {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Kills every process that has something of a folder mounted that this process has not: containers, and
/// those who keep mounts for them.
///
/// # Errors
/// When processes cannot be listed.
pub fn end_containers(folder: &Path) -> Result<()> {
    let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    // Where the folder is a mount of its own, what is below it is told without what is above.
    let part = format!("/{name}/");
    let ours = fs::read_link("/proc/self/ns/mnt")?;
    end(|process| {
        let is_elsewhere = fs::read_link(process.join("ns/mnt")).is_ok_and(|theirs| theirs != ours);
        is_elsewhere
            && fs::read_to_string(process.join("mountinfo")).is_ok_and(|mounts| mounts.contains(&part))
    })
}
