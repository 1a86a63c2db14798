//! Our side: the program `workload`, pinned to the core. Between measurements it waits for a
//! line on its standard input, and uses no time.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ferroflow_tests::stop;

use crate::workload::window::Window;

/// A million connections are known by then, on a busy machine.
const ANSWER: Duration = Duration::from_secs(90);

/// A running workload of ours; it ends with this value.
#[derive(Debug)]
pub struct Ours {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Ours {
    /// Starts it, warm.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(program: &Path, core: usize, words: &[&str]) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nice", "-n", "-20", "taskset", "--cpu-list"]);
        command.arg(core.to_string()).arg(program).args(words).arg("--serve");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            let read = BufReader::new(stdout).lines().map_while(Result::ok);
            read.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let ours = Self { child, stdin, lines };
        let word = ours.line()?;
        anyhow::ensure!(word == "ready", "our side said {word}");
        Ok(ours)
    }

    /// Measures once.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn measure(&mut self, duration: Duration) -> Result<Window> {
        let stdin = self.stdin.as_mut().context("no input")?;
        writeln!(stdin, "{}", duration.as_secs_f64())?;
        stdin.flush()?;
        Window::from_json(&serde_json::from_str(&self.line()?)?)
    }

    fn line(&self) -> Result<String> {
        let end = Instant::now() + ANSWER;
        loop {
            stop::check()?;
            match self.lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => bail!("our side ended"),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= end => {
                    bail!("our side did not answer in {} s", ANSWER.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
