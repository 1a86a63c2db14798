//! Why Docker is refused something.

use std::{fmt, io};

use tonic::Status;

/// An answer that is none: one sentence for the user, who sees it behind
/// `Error response from daemon`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Docker knows what to do without this method.
    pub is_unknown_method: bool,
    /// The sentence.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(text: impl Into<String>) -> Self {
        Self { is_unknown_method: false, text: text.into() }
    }

    /// There is no such method.
    pub fn unknown_method(method: &str) -> Self {
        let text = format!("{} is not a method of this driver", method.escape_debug());
        Self { is_unknown_method: true, text }
    }

    /// vswitchd refuses, or is not there.
    pub fn daemon(what: &str, status: &Status) -> Self {
        Self::new(format!("{what}: {}", status.message()))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::new(format!("the driver's state directory cannot be written: {error}"))
    }
}
