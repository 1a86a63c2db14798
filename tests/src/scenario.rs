//! What the scenarios in `tests/tests` start with: one at a time, root or a loud word, a fresh fabric.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use anyhow::{Context, Result};

use crate::daemon::Life;
use crate::fabric::{Fabric, Plan, Programs};
use crate::probe::Probe;
use crate::{fabric, netns, privilege};

/// Start of the names of the scenarios' namespaces; the process id follows.
const PREFIX: &str = "fft";
/// Where the scenarios' folders are.
const DIR: &str = "/run";

/// Runs a scenario over a fresh prefix, unless it is to be skipped. Scenarios of one process run one after the
/// other: each starts polling daemons, and their timing is part of what is tested.
///
/// # Errors
/// The scenario's own, and when it may not run.
pub fn run(name: &str, scenario: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    if !privilege::may_run(name)? {
        return Ok(());
    }
    let _turn = turn();
    remove_stale();
    static N_FABRICS: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("{PREFIX}-{}-{}", std::process::id(), N_FABRICS.fetch_add(1, Ordering::Relaxed));
    scenario(&prefix).with_context(|| name.to_owned())
}

/// Runs a scenario on a fabric whose hosts forward by `examples/two-switches.yaml`. When it fails, the
/// daemons' logs are part of the error; when it succeeds, no daemon may have ended by itself.
///
/// # Errors
/// The scenario's own, and when the fabric cannot be built.
pub fn on_fabric(name: &str, probe: &str, scenario: impl FnOnce(&mut Fabric) -> Result<()>) -> Result<()> {
    run(name, |prefix| {
        let mut fabric = Fabric::start(plan(prefix, probe)?, &|_| ())?;
        let result = fabric
            .realise(&example(), &|_| ())
            .and_then(|()| scenario(&mut fabric))
            .and_then(|()| fabric.check_daemons());
        result.with_context(|| fabric.logs(30))
    })
}

/// Set to a number by who wants scenarios with many cycles to have so many.
const CYCLES: &str = "FERROFLOW_CYCLES";

/// How many cycles a scenario has, unless somebody wants another number.
///
/// # Errors
/// When what is set is no number.
pub fn cycles(usual: usize) -> Result<usize> {
    match std::env::var(CYCLES) {
        Ok(text) => text.parse().with_context(|| format!("{CYCLES}={text}: write a number")),
        Err(_) => Ok(usual),
    }
}

/// A plan with the programs beside the running test.
///
/// # Errors
/// When a program is missing.
pub fn plan(prefix: &str, probe: &str) -> Result<Plan> {
    let probe = Probe { program: PathBuf::from(probe), words: Vec::new() };
    let programs = Programs::find(&target_dir()?, probe)?;
    Ok(Plan { prefix: prefix.to_owned(), dir: dir(prefix), programs, life: Life::WithParent })
}

/// The network of the fabric.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-switches.yaml")
}

/// Folder of a scenario: short, because a socket's path has 107 bytes at most.
pub fn dir(prefix: &str) -> PathBuf {
    Path::new(DIR).join(prefix)
}

/// Where the programs are: cargo puts a test into `deps`, and them into the folder above.
///
/// # Errors
/// When the test is somewhere else.
pub fn target_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let dir = test.parent().and_then(Path::parent).context("the test is not in cargo's output folder")?;
    Ok(dir.to_owned())
}

fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A scenario that panicked has cleaned up by its guards.
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Removes what test processes that are no more have left behind.
fn remove_stale() {
    let prefix = format!("{PREFIX}-");
    let folders = fs::read_dir(Path::new(DIR)).into_iter().flatten().flatten();
    let folders = folders.filter_map(|entry| entry.file_name().into_string().ok());
    let folders = folders.filter(|name| name.starts_with(&prefix));
    let names: BTreeSet<_> =
        folders.chain(netns::with_prefix(&prefix)).chain(netns::folders_with_prefix(&prefix)).collect();
    for name in names {
        let mut parts = name.split(['-', '.']).skip(1);
        let (Some(pid), Some(n)) = (parts.next(), parts.next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let prefix = format!("{PREFIX}-{pid}-{n}");
            // A scenario without a folder may have a log.
            let _ = fs::remove_file(dir(&prefix).with_extension("log"));
            if let Err(error) = fabric::remove(&prefix, &dir(&prefix)) {
                crate::say(&format!("cannot remove what {prefix} left behind: {error:#}"));
            }
        }
    }
}

/// A private folder that goes away with its guard.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    keep: bool,
}

impl Dir {
    /// Makes the folder.
    ///
    /// # Errors
    /// When there is one already.
    pub fn create(path: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        // Not `create_all`: a folder that somebody else has made is refused.
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path: path.to_owned(), keep: false })
    }

    /// Leaves it in place when the guard is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            crate::say(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}
