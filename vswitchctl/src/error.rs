//! What can go wrong, in words: one line says what happened, a hint says what to do
//! next, and each kind of error has its exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tonic::{Code, Status};

use crate::{
    address::{Address, Daemon},
    output::printable,
};

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The daemon cannot be reached.
    #[error("cannot reach {daemon} at {address}: {reason}")]
    Connect {
        /// Which one.
        daemon: Daemon,
        /// Where it was looked for.
        address: Address,
        /// What the operating system said.
        reason: String,
    },
    /// The daemon answered with an error.
    #[error("{}", refusal(*.daemon, *.code, .message))]
    Refused {
        /// Which one.
        daemon: Daemon,
        /// gRPC status code.
        code: Code,
        /// Its words.
        message: String,
    },
    /// There is such an object already.
    #[error("{name} exists already")]
    Exists {
        /// Its full name.
        name: String,
        /// The command for such objects.
        command: &'static str,
    },
    /// No object has the name.
    #[error("there is no {word} {name:?}{}", suggestion(.nearest))]
    NotFound {
        /// Word for the object.
        word: &'static str,
        /// As it was typed.
        name: String,
        /// Command that lists those there are.
        command: &'static str,
        /// The name most like it.
        nearest: Option<String>,
    },
    /// More than one object has the id.
    #[error("{word} {name:?} is ambiguous: {}", .candidates.join(", "))]
    Ambiguous {
        /// Word for the object.
        word: &'static str,
        /// As it was typed.
        name: String,
        /// Full names of those that have it.
        candidates: Vec<String>,
    },
    /// A file cannot be used.
    #[error("{file}{}: {reason}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
    File {
        /// Its name, `-` for the standard input.
        file: String,
        /// Line of the mistake, where it has one.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A certificate cannot be made or read.
    #[error(transparent)]
    Authority(#[from] credentials::authority::AuthorityError),
    /// The change is stored, but not all hosts have applied it.
    #[error("revision {revision} is stored, but {reason}")]
    Pending {
        /// Revision of the change.
        revision: u64,
        /// Which hosts, and why.
        reason: String,
    },
    /// A switch port is not where it was attached.
    #[error("the port is attached, but switch port {port} is not up on {chassis}")]
    NotUp {
        /// Its id.
        port: String,
        /// The host.
        chassis: String,
    },
    /// What was compared is not the same.
    #[error("{n} {what} differ")]
    Differs {
        /// How many.
        n: usize,
        /// Of what.
        what: &'static str,
    },
    /// Two workloads cannot talk.
    #[error("they cannot talk")]
    CannotTalk,
    /// The daemon said something this version does not understand.
    #[error("{daemon} sent {what}, which this vswitchctl does not know")]
    Newer {
        /// Which one.
        daemon: Daemon,
        /// What it sent.
        what: String,
    },
    /// Answering failed on this side.
    #[error("cannot print the answer: {0}")]
    Output(#[from] io::Error),
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

fn refusal(daemon: Daemon, code: Code, message: &str) -> String {
    let message = printable(message);
    match code {
        Code::DeadlineExceeded | Code::Cancelled => format!("{daemon} did not answer in time"),
        Code::Unavailable => format!("{daemon} is not available: {message}"),
        Code::Unimplemented => format!("{daemon} does not know this request"),
        _ if message.is_empty() => format!("{daemon} refused: {}", code.description()),
        _ => message.into_owned(),
    }
}

impl CtlError {
    /// The error of a call to `daemon`.
    pub fn from_status(daemon: Daemon, status: &Status) -> Self {
        Self::Refused { daemon, code: status.code(), message: status.message().to_owned() }
    }

    /// The gRPC code the daemon refused with, if that is what happened.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether it says that an object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. }) || self.code() == Some(Code::NotFound)
    }

    /// What to do next, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage(_) => Some("see vswitchctl --help".into()),
            Self::Connect { daemon: Daemon::Host, reason, .. } if reason == "permission denied" => {
                Some("its socket is for root; try with sudo".into())
            }
            Self::Connect { daemon, .. } => {
                Some(format!("is {} running? Point elsewhere with {}", daemon.binary(), daemon.option()))
            }
            Self::Refused { daemon, code, .. } => refusal_hint(*daemon, *code),
            Self::Exists { command, .. } => {
                Some(format!("change it with `vswitchctl {command} set`, or add it with --may-exist"))
            }
            Self::NotFound { command, .. } => Some(format!("see vswitchctl {command}")),
            Self::Ambiguous { .. } => Some("give one of these full names".into()),
            Self::Pending { revision, .. } => {
                Some(format!("see vswitchctl receipt {revision}; wait longer with --wait=SECONDS"))
            }
            Self::NotUp { port, .. } => {
                Some(format!("see vswitchctl switch-port show {port}; wait longer with --wait=SECONDS"))
            }
            Self::Newer { .. } => Some("use the vswitchctl of the daemon's version".into()),
            Self::File { .. }
            | Self::Authority(_)
            | Self::Differs { .. }
            | Self::CannotTalk
            | Self::Output(_) => None,
        }
    }

    /// 2 for wrong usage, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Prints the error and its hint, and gives the exit code. A reader that went
    /// away (`vswitchctl flow dump | head`) is no error.
    pub fn report(&self, err: &mut dyn Write) -> ExitCode {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return ExitCode::SUCCESS;
        }
        // Nothing is left to do when even this cannot be printed.
        let _ = writeln!(err, "error: {self}");
        if let Some(hint) = self.hint() {
            let _ = writeln!(err, "hint: {hint}");
        }
        ExitCode::from(self.exit_code())
    }
}

fn refusal_hint(daemon: Daemon, code: Code) -> Option<String> {
    let hint = match code {
        Code::DeadlineExceeded | Code::Cancelled => "wait longer with --timeout=SECONDS".into(),
        Code::Unavailable => {
            format!("is {} still running? Point elsewhere with {}", daemon.binary(), daemon.option())
        }
        Code::Unimplemented => {
            format!("its version may differ from this vswitchctl's, {}", env!("CARGO_PKG_VERSION"))
        }
        Code::PermissionDenied | Code::Unauthenticated => "ask its operator for access".into(),
        Code::Internal | Code::Unknown | Code::DataLoss => format!("see the log of {}", daemon.binary()),
        _ => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(error: &CtlError) -> (String, ExitCode) {
        let mut text = Vec::new();
        let code = error.report(&mut text);
        (String::from_utf8(text).unwrap(), code)
    }

    #[test]
    fn an_error_is_one_line_and_a_hint() {
        let error = CtlError::Exists { name: "switches/web".into(), command: "switch" };
        assert_eq!(
            reported(&error).0,
            "error: switches/web exists already\n\
             hint: change it with `vswitchctl switch set`, or add it with --may-exist\n"
        );
    }

    #[test]
    fn every_code_of_a_daemon_gives_words() {
        for code in 1..=16 {
            let code = Code::from_i32(code);
            for message in ["", "it says why", "a\nb\u{1b}[31m"] {
                let error = CtlError::from_status(Daemon::Host, &Status::new(code, message));
                let (text, exit) = reported(&error);
                assert!(text.starts_with("error: ") && text.len() > 10, "{code:?}: {text:?}");
                assert!(text.lines().count() <= 2, "{code:?}: {text:?}");
                assert!(!text.contains('\u{1b}'), "{code:?}: {text:?}");
                assert_eq!(exit, ExitCode::from(1));
            }
        }
    }

    #[test]
    fn wrong_usage_exits_with_2_and_a_closed_pipe_with_0() {
        assert_eq!(reported(&CtlError::Usage("nothing to set".into())).1, ExitCode::from(2));
        let (text, code) = reported(&CtlError::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!((text.as_str(), code), ("", ExitCode::SUCCESS));
    }

    #[test]
    fn a_mistake_in_a_file_is_found_by_its_line() {
        let error = CtlError::File {
            file: "net.yaml".into(),
            line: Some(7),
            reason: "unknown key \"adress\"".into(),
        };
        assert_eq!(error.to_string(), "net.yaml:7: unknown key \"adress\"");
    }
}
