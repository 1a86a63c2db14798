//! What a start takes its time with, in the log at level debug: packets wait for it.

use std::time::Instant;

/// The stages of a start.
#[derive(Debug)]
pub(crate) struct Stages {
    began: Instant,
    last: Instant,
}

impl Default for Stages {
    fn default() -> Self {
        let now = Instant::now();
        Self { began: now, last: now }
    }
}

impl Stages {
    /// Logs that one is over.
    pub(crate) fn done(&mut self, stage: &'static str) {
        let now = Instant::now();
        let took_us = now.duration_since(self.last).as_micros() as u64;
        let since_start_us = now.duration_since(self.began).as_micros() as u64;
        tracing::debug!(stage, took_us, since_start_us, "start");
        self.last = now;
    }
}
