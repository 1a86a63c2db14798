//! Where a daemon listens, and connecting to it.

use std::{
    error::Error as _,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use credentials::{Credentials, Dial};
use tonic::transport::Channel;

use crate::error::CtlError;

/// Which daemon is meant; errors tell how to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// `vswitch-controller`.
    Controller,
    /// `vswitchd`.
    Host,
}

impl Daemon {
    /// Name of its binary.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Controller => "vswitch-controller",
            Self::Host => "vswitchd",
        }
    }

    /// How to say where it is.
    pub fn option(self) -> &'static str {
        match self {
            Self::Controller => "--controller or VSWITCH_CONTROLLER",
            Self::Host => "--host or VSWITCH_HOST",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "the controller",
            Self::Host => "the host's switch",
        })
    }
}

/// Address of a daemon: `https://HOST:PORT`, `http://HOST:PORT`, `HOST:PORT` (with credentials
/// the former), or `unix:///PATH` (or just `/PATH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// gRPC over TCP, as it was written.
    Tcp(String),
    /// gRPC over a unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Self::unix(path);
        }
        if text.starts_with('/') {
            return Self::unix(text);
        }
        match text.parse() {
            Ok(credentials::Address::Tcp { .. }) => Ok(Self::Tcp(text.to_owned())),
            Ok(credentials::Address::Unix(_)) | Err(_) => Err(WANTED.into()),
        }
    }
}

/// Where a host is: at an address, or the host of this name in a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAddress {
    /// Its address.
    At(Address),
    /// Its name.
    Named(String),
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            && !text.starts_with('.');
        if is_name { Ok(Self::Named(text.to_owned())) } else { text.parse().map(Self::At) }
    }
}

/// How a daemon on another machine is known, and shown who asks.
#[derive(Debug, Clone, Default, Args)]
pub struct Trust {
    /// Directory made by vswitchctl pki issue: who asks, and whose controllers are trusted
    #[arg(long, global = true, env = "VSWITCH_CREDENTIALS", value_name = "DIR")]
    pub credentials: Option<PathBuf>,
    /// Speak with another machine without TLS
    #[arg(long, global = true, conflicts_with = "credentials")]
    pub insecure_plaintext: bool,
}

impl Trust {
    fn credentials(&self) -> Result<Option<Arc<Credentials>>, CtlError> {
        let opened = self.credentials.as_deref().map(Credentials::open).transpose();
        Ok(opened.map_err(|error| CtlError::Usage(error.to_string()))?.map(Arc::new))
    }
}

const WANTED: &str = "an address is https://HOST:PORT, http://HOST:PORT or unix:///PATH";

impl Address {
    /// Where a daemon of a lab is.
    ///
    /// # Errors
    /// The lab's directory cannot be told.
    pub fn in_lab(lab: &Path, name: &str) -> Result<Self, CtlError> {
        let lab = std::path::absolute(lab).map_err(|error| CtlError::File {
            file: lab.display().to_string(),
            line: None,
            reason: error.to_string(),
        })?;
        Ok(Self::Unix(lab.join(format!("{name}.sock"))))
    }

    /// Path of the socket, when it is one.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }

    fn unix(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') || path.len() < 2 {
            return Err("the path of a unix socket is absolute: unix:///PATH".into());
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }

    /// Connects to `daemon`, which is said to be here.
    ///
    /// # Errors
    /// [`CtlError::Connect`] with the reason the operating system gave, [`CtlError::Usage`] when what is
    /// said must not be said like this.
    pub async fn connect(
        &self,
        daemon: Daemon,
        trust: &Trust,
        timeout: Duration,
    ) -> Result<Channel, CtlError> {
        let failed = |reason: String| CtlError::Connect { daemon, address: self.clone(), reason };
        let address = self.to_string().parse::<credentials::Address>();
        let address = address.map_err(|error| CtlError::Usage(error.to_string()))?;
        let dial = Dial::new(&[address], trust.credentials()?, trust.insecure_plaintext);
        let dial = dial.map_err(|error| CtlError::Usage(error.to_string()))?;
        let connected = dial.connect(|endpoint| endpoint.connect_timeout(timeout)).await;
        connected.map_err(|error| failed(root_cause(&error)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The last error of the chain, which for a connection is the operating system's.
fn root_cause(error: &tonic::transport::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(error) = cause {
        text = match error.downcast_ref::<io::Error>() {
            Some(error) => plain(error),
            None => error.to_string(),
        };
        cause = error.source();
    }
    text
}

/// Words instead of "Connection refused (os error 111)" for what happens daily.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::NotFound => "no such socket".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_used() {
        let printed = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(printed("http://127.0.0.1:6641").unwrap(), "http://127.0.0.1:6641");
        assert_eq!(printed("https://controller.example:6641").unwrap(), "https://controller.example:6641");
        assert_eq!(printed("controller.example:6641").unwrap(), "controller.example:6641");
        assert_eq!(printed("[::1]:6641").unwrap(), "[::1]:6641");
        assert_eq!(printed("unix:///run/x.sock").unwrap(), "unix:///run/x.sock");
        assert_eq!(printed("/run/x.sock").unwrap(), "unix:///run/x.sock");
    }

    #[test]
    fn other_addresses_are_refused_with_a_reason() {
        for text in
            ["", "unix://", "unix:run/x", "ftp://a:1", "http://", "http://host", "a b:1", "http://:6641"]
        {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
    }

    #[tokio::test]
    async fn another_machine_is_spoken_to_with_tls_or_knowingly_without() {
        let refused = async |text: &str| {
            let address: Address = text.parse().unwrap();
            let connected =
                address.connect(Daemon::Controller, &Trust::default(), Duration::from_secs(2)).await;
            connected.unwrap_err().to_string()
        };
        assert!(refused("192.0.2.1:6641").await.contains("--insecure-plaintext"));
        assert!(refused("https://127.0.0.1:6641").await.contains("--credentials"));
    }

    #[tokio::test]
    async fn a_missing_socket_says_which_daemon_to_start() {
        let address = Address::Unix("/nonexistent/vswitchd.sock".into());
        let error =
            address.connect(Daemon::Host, &Trust::default(), Duration::from_secs(2)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot reach the host's switch at unix:///nonexistent/vswitchd.sock: no such socket"
        );
        assert_eq!(error.hint().unwrap(), "is vswitchd running? Point elsewhere with --host or VSWITCH_HOST");
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address: Address = format!("127.0.0.1:{port}").parse().unwrap();
        let error =
            address.connect(Daemon::Controller, &Trust::default(), Duration::from_secs(2)).await.unwrap_err();
        assert!(error.to_string().ends_with(": connection refused"), "{error}");
    }
}
