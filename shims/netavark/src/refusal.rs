//! What podman is told instead of an answer.

use tonic::Status;

/// One sentence: podman shows it to its user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    text: String,
}

impl Refusal {
    /// In these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// The daemon's refusal, with what was to be done.
    pub fn daemon(what: &str, status: &Status) -> Self {
        Self::new(format!("{what}: {}", status.message()))
    }
}
