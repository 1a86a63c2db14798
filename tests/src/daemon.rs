//! A daemon under test: started in a namespace, its log in a file, ended with its guard.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::describe;
use crate::netns::Netns;

/// How long a daemon may take to end when asked to.
const GRACE: Duration = Duration::from_secs(5);

/// What happens to a daemon when the process that started it dies without cleaning up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// The kernel kills it.
    WithParent,
    /// It goes on, until something ends it.
    OnItsOwn,
}

/// A running daemon; dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    keep: bool,
}

impl Daemon {
    /// Starts a program in a namespace; its output is appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(netns: &Netns, program: &Path, args: &[&str], log: &Path, life: Life) -> Result<Self> {
        let mut command = match life {
            Life::WithParent => {
                let mut command = netns.command("setpriv");
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            Life::OnItsOwn => netns.command(program),
        };
        command.args(args);
        let name = program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self::spawn(command, name, log)
    }

    /// Starts a command that is a daemon, or ends by becoming one; its output is appended to the file `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(mut command: Command, name: String, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot run {}", describe(&command)))?;
        Ok(Self { name, child, log: log.to_owned(), keep: false })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended ({status}); the end of its log:\n{}", self.name, self.log_tail(20));
        }
        Ok(())
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&mut self) -> Result<()> {
        self.check()?;
        self.child.kill()?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.signal() == Some(9), "{} ended by itself: {status}", self.name);
        Ok(())
    }

    /// Asks it to end, and kills it when it does not. Gives how it ended and how long that took.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn stop(&mut self) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        if let Some(status) = self.child.try_wait()? {
            return Ok((status, Duration::ZERO));
        }
        self.signal(Signal::SIGTERM);
        while start.elapsed() < GRACE {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, start.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill()?;
        Ok((self.child.wait()?, start.elapsed()))
    }

    /// The last lines of its log.
    pub fn log_tail(&self, n_lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(n_lines)..].join("\n")
    }

    /// Leaves it running when the guard is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.stop()
        {
            crate::say(&format!("cannot end {}: {error:#}", self.name));
        }
    }
}

/// The path of a program, or how to get it.
///
/// # Errors
/// When there is no such program.
pub fn find_program(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    anyhow::ensure!(path.is_file(), "{} is missing; build it with `cargo build --bins`", path.display());
    Ok(path)
}

/// A program of the host, such as `ip`, is on the path.
pub fn has_command(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's path often lacks the administrator's directories.
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(name).is_file())
}
