//! Errors as the specification has them: a number that runtimes act on, and texts for people.

use std::{fmt::Display, io};

use serde_json::json;
use tonic::{Code, Status};

/// Version told when the runtime's is not known.
const FALLBACK_VERSION: &str = "1.0.0";

/// What an error means to the runtime (CNI specification, section "Error").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// The configuration's version is not supported.
    IncompatibleVersion = 1,
    /// The container is not there; the runtime need not clean up.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// What was read is not JSON.
    Decoding = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// Later it may succeed.
    TryAgainLater = 11,
    /// No container can be attached now.
    NotReady = 50,
    /// The host's switch refuses.
    Refused = 100,
    /// The IPAM plugin failed.
    Ipam = 101,
}

/// An error for the runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {details}")]
pub struct CniError {
    /// What it means.
    pub code: u32,
    /// What is wrong.
    pub message: String,
    /// More of it.
    pub details: String,
}

impl CniError {
    /// An error.
    pub fn new(code: ErrorCode, message: impl Into<String>, details: impl Display) -> Self {
        Self { code: code as u32, message: message.into(), details: details.to_string() }
    }

    /// Reading or writing failed.
    pub fn io(message: &str, error: &io::Error) -> Self {
        Self::new(ErrorCode::Io, message, error)
    }

    /// The daemon refuses, or is not there.
    pub fn daemon(what: &str, status: &Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => ErrorCode::InvalidConfig,
            Code::NotFound => ErrorCode::UnknownContainer,
            Code::Unavailable | Code::DeadlineExceeded | Code::Aborted | Code::Cancelled => {
                ErrorCode::TryAgainLater
            }
            _ => ErrorCode::Refused,
        };
        Self::new(code, what, status.message())
    }

    /// As printed for the runtime.
    pub fn to_json(&self, version: &str) -> String {
        let version = if version.is_empty() { FALLBACK_VERSION } else { version };
        json!({
            "cniVersion": version,
            "code": self.code,
            "msg": self.message,
            "details": self.details,
        })
        .to_string()
    }
}
