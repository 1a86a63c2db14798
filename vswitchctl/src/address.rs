//! Where a daemon listens, and connecting to it.

use std::{
    error::Error as _,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use tonic::transport::{Channel, Endpoint, Uri};

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

/// Address of a daemon: `http://HOST:PORT` (or just `HOST:PORT`), or `unix:///PATH`
/// (or just `/PATH`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// gRPC over TCP, as a URL.
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
        if text.starts_with("https://") {
            return Err("TLS is not supported; use http:// or unix:///PATH".into());
        }
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = url.parse().map_err(|_| WANTED.to_owned())?;
        if uri.scheme_str() != Some("http")
            || uri.port_u16().is_none()
            || uri.host().is_none_or(str::is_empty)
        {
            return Err(WANTED.into());
        }
        Ok(Self::Tcp(url))
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

const WANTED: &str = "an address is http://HOST:PORT or unix:///PATH";

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
    /// [`CtlError::Connect`] with the reason the operating system gave.
    pub async fn connect(&self, daemon: Daemon, timeout: Duration) -> Result<Channel, CtlError> {
        let failed = |reason: String| CtlError::Connect { daemon, address: self.clone(), reason };
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(|error| failed(error.to_string()))?;
        endpoint.connect_timeout(timeout).connect().await.map_err(|error| failed(root_cause(&error)))
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
        assert_eq!(printed("controller.example:6641").unwrap(), "http://controller.example:6641");
        assert_eq!(printed("[::1]:6641").unwrap(), "http://[::1]:6641");
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
        assert!("https://a:1".parse::<Address>().unwrap_err().contains("TLS"));
    }

    #[tokio::test]
    async fn a_missing_socket_says_which_daemon_to_start() {
        let address = Address::Unix("/nonexistent/vswitchd.sock".into());
        let error = address.connect(Daemon::Host, Duration::from_secs(2)).await.unwrap_err();
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
        let error = address.connect(Daemon::Controller, Duration::from_secs(2)).await.unwrap_err();
        assert!(error.to_string().ends_with(": connection refused"), "{error}");
    }
}
