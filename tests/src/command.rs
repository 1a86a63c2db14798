//! Other programs, run with a time limit. Nothing here waits for ever, and nothing outlives its limit.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::stop;

/// More output than this of one program is cut: it is a program gone wild.
const OUTPUT_MAX_LEN: u64 = 32 << 20;

/// Limit for commands that only talk to the kernel.
pub const SHORT: Duration = Duration::from_secs(10);

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Runs a program to its end, good or bad.
///
/// # Errors
/// When it cannot be started, takes longer than `limit` or a stop is requested; it is killed then.
pub fn run(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_until(command, limit, stop::requested)
}

/// As [`run`], but goes on when a stop is requested: for clean-up.
///
/// # Errors
/// When it cannot be started or takes longer than `limit`; it is killed then.
pub fn run_regardless(command: &mut Command, limit: Duration) -> Result<Finished> {
    run_until(command, limit, || false)
}

/// Runs a program that has to succeed, and gives what it printed.
///
/// # Errors
/// As [`run`], and when it fails, with what it complained about.
pub fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let finished = run(command, limit)?;
    if !finished.status.success() {
        bail!("{}: {}: {}", describe(command), finished.status, complaint(&finished));
    }
    Ok(finished.stdout)
}

/// `ip` with these words, which has to succeed.
///
/// # Errors
/// As [`output`].
pub fn ip(words: &[&str]) -> Result<String> {
    output(Command::new("ip").args(words), SHORT)
}

/// The command as one would type it.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What a failed program said, in one line of bounded length.
pub fn complaint(finished: &Finished) -> String {
    let text = if finished.stderr.trim().is_empty() { &finished.stdout } else { &finished.stderr };
    let line = text.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    if line.is_empty() { "it said nothing".to_owned() } else { line.chars().take(2000).collect() }
}

fn run_until(command: &mut Command, limit: Duration, stop: impl Fn() -> bool) -> Result<Finished> {
    let start = Instant::now();
    // Its own process group: a limit kills its children too, and Ctrl-C reaches only us.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop() {
            kill_group(&mut child);
            bail!("interrupted: {}", describe(command));
        }
        if start.elapsed() >= limit {
            kill_group(&mut child);
            let said = text_of(&stderr);
            bail!("{}: no end after {:.1} s: {}", describe(command), limit.as_secs_f64(), said.trim());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    Ok(Finished { status, stdout: text_of(&stdout), stderr: text_of(&stderr), took: start.elapsed() })
}

/// Reads a pipe on a thread of its own, so that a full pipe never blocks the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.take(OUTPUT_MAX_LEN).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// Not joined but waited for: a grandchild may hold the pipe open after the program has ended.
fn text_of(pipe: &Receiver<Vec<u8>>) -> String {
    let bytes = pipe.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn kill_group(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_ends_a_program_and_its_children() {
        let start = Instant::now();
        let error = run(Command::new("sh").args(["-c", "sleep 30 & sleep 30"]), Duration::from_millis(200))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no end after 0.2 s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn output_tells_what_went_wrong() {
        let error = output(Command::new("sh").args(["-c", "echo good; echo bad >&2; exit 3"]), SHORT)
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("exit status: 3: bad"), "{error}");
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let text = output(Command::new("sh").args(["-c", "seq 1 100000"]), SHORT).unwrap();
        assert_eq!(text.lines().count(), 100_000);
    }
}
