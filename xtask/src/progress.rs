//! What is being done, for the person who waits: one line per step, with the time since the start.

use std::time::Instant;

use ferroflow_tests::say;

/// Prints steps as they begin.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// A step begins.
    pub(crate) fn step(&self, what: &str) {
        say(&format!("[{:7.1} s] {what}", self.seconds()));
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// An error with its causes, without a backtrace: it is for people.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
