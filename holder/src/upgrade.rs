//! The steps of an upgrade.
//!
//! | step | the first daemon | its successor |
//! |---|---|---|
//! | [`Step::Starting`] | forwards | starts |
//! | [`Step::Freezing`] | is told to stand still: it forwards, and changes nothing it has saved | waits |
//! | [`Step::Preparing`] | stands still | takes what is held, reads what is saved, builds its tables |
//! | [`Step::HandingOver`] | stops forwarding, leaves its connections | could forward |
//! | [`Step::Beginning`] | waits | forwards |
//!
//! Packets wait in the kernel from the fourth step to the end of the fifth: for a word in memory that
//! both daemons see, where both know of it (`dataplane/src/turn.rs`); the messages of these steps follow. Until then the first
//! daemon can go on as if nothing had been; so whatever goes wrong with the successor, it does.

use std::time::{Duration, Instant};

use crate::process::Daemon;

/// How long a successor may take in all.
const LIMIT: Duration = Duration::from_secs(60);

/// Where an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Starting,
    Freezing,
    Preparing,
    HandingOver,
    Beginning,
}

/// An upgrade under way.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) next: Daemon,
    pub(crate) step: Step,
    pub(crate) started: Instant,
    /// When the first daemon was told to stop forwarding.
    pub(crate) handed_over: Option<Instant>,
}

impl Upgrade {
    pub(crate) fn new(next: Daemon) -> Self {
        Self { next, step: Step::Starting, started: Instant::now(), handed_over: None }
    }

    /// When it has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.started + LIMIT
    }

    /// The first daemon has been told to stand still.
    pub(crate) fn has_frozen(&self) -> bool {
        self.step != Step::Starting
    }
}
