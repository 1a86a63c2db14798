//! Cargo, as seen by the person at the terminal: its output is theirs, and it ends when they say so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ferroflow_tests::command::{describe, run};
use ferroflow_tests::stop;
use serde_json::Value;

/// Limit of cargo commands that compile nothing.
const METADATA_LIMIT: Duration = Duration::from_secs(300);

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_owned()
}

/// A cargo command in the workspace.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root());
    command
}

/// Runs a command whose output the person sees; it has to succeed before `deadline`.
///
/// # Errors
/// When it fails, at the deadline, and when a stop is requested; it is ended then.
pub(crate) fn show(command: &mut Command, deadline: Option<Instant>) -> Result<()> {
    let mut child = command.spawn().with_context(|| format!("cannot run {}", describe(command)))?;
    await_end(&mut child, command, deadline)
}

/// The same for a command that runs already.
///
/// # Errors
/// The same.
pub(crate) fn await_end(child: &mut Child, command: &Command, deadline: Option<Instant>) -> Result<()> {
    loop {
        if let Some(status) = child.try_wait()? {
            // At Ctrl-C the terminal has told the command as well: it is no failure of its own then.
            stop::check()?;
            if status.success() {
                return Ok(());
            }
            bail!("{}: {status}", describe(command));
        }
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if late || stop::requested() {
            end_tree(child.id());
            child.wait()?;
            stop::check()?;
            bail!("{}: not done when its time was over", describe(command));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Cargo's description of the workspace and all it depends on.
///
/// # Errors
/// When cargo fails.
pub(crate) fn metadata() -> Result<Value> {
    let mut command = cargo(&["metadata", "--format-version", "1"]);
    let finished = run(&mut command, METADATA_LIMIT)?;
    anyhow::ensure!(finished.status.success(), "cargo metadata: {}", finished.stderr.trim());
    serde_json::from_str(&finished.stdout).context("cargo metadata printed no JSON")
}

/// Asks a process and those below it to end; cargo does not pass a signal on to what it runs.
fn end_tree(pid: u32) {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -TERM {pid}")]);
    let _ = ferroflow_tests::command::run_regardless(&mut kill, Duration::from_secs(5));
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        end_tree(child);
    }
}
