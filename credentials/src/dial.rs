//! The caller's side: connecting to one of several addresses, with or without a certificate.

use std::{
    fmt, io,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::{CONTROLLER_NAME, material::Credentials};

/// How long one address may take.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Where somebody listens: `https://HOST:PORT`, `http://HOST:PORT`, `HOST:PORT` (with
/// credentials the former, else the latter), or `unix:///PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp {
        /// Name or address, and port.
        authority: String,
        /// Whether with TLS; `None`: with credentials.
        secure: Option<bool>,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Text is no address, or one that must not be used like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is none.
    #[error("`{}` is no address; write https://HOST:PORT, http://HOST:PORT or unix:///PATH", .0.escape_debug())]
    Text(String),
    /// TLS needs a certificate.
    #[error(
        "{0} is to be reached with TLS; name a directory made by `vswitchctl pki issue` with --credentials"
    )]
    NoCredentials(Address),
    /// No TLS to another machine.
    #[error(
        "{0} is on another machine, and everybody on the way could read and change what is said; use https:// with \
         --credentials, or say --insecure-plaintext"
    )]
    Plaintext(Address),
    /// There must be one.
    #[error("there is no address")]
    None,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AddressError::Text(text.chars().take(256).collect());
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.len() > 1 && path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(wrong())
            };
        }
        let (secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (Some(true), rest),
            (None, Some(rest)) => (Some(false), rest),
            (None, None) => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| wrong())?;
        let is_plain = uri.path() == "/" && uri.query().is_none() && !rest.contains('@');
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        if !is_plain || !has_host || uri.port_u16().is_none() {
            return Err(wrong());
        }
        Ok(Self::Tcp { authority: rest.to_owned(), secure })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { authority, secure: Some(true) } => write!(f, "https://{authority}"),
            Self::Tcp { authority, secure: Some(false) } => write!(f, "http://{authority}"),
            Self::Tcp { authority, secure: None } => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// What is said to this host and port stays on the machine.
pub fn is_loopback(authority: &str) -> bool {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Addresses of those who can all answer, tried one after the other; the last that answered
/// is the first that is asked again.
#[derive(Debug, Clone)]
pub struct Dial {
    addresses: Arc<[Address]>,
    credentials: Option<Arc<Credentials>>,
    first: Arc<AtomicUsize>,
}

impl Dial {
    /// Somebody who can be reached at any of these addresses. `insecure` lets what is said
    /// leave this machine without TLS.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn new(
        addresses: &[Address],
        credentials: Option<Arc<Credentials>>,
        insecure: bool,
    ) -> Result<Self, AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::None);
        }
        for address in addresses {
            let Address::Tcp { authority, secure } = address else { continue };
            if secure.unwrap_or(credentials.is_some()) {
                if credentials.is_none() {
                    return Err(AddressError::NoCredentials(address.clone()));
                }
            } else if !insecure && !is_loopback(authority) {
                return Err(AddressError::Plaintext(address.clone()));
            }
        }
        Ok(Self { addresses: addresses.into(), credentials, first: Arc::default() })
    }

    /// Where it is.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The next connection is tried with the next address first: this one answers, and is of
    /// no use.
    pub fn turn(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// Connects now.
    ///
    /// # Errors
    /// That of the last address tried.
    pub async fn connect(&self, with: impl FnOnce(Endpoint) -> Endpoint) -> Result<Channel, Error> {
        let dial = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dial = dial.clone();
            async move { dial.open().await.map(TokioIo::new) }
        });
        with(endpoint()).connect_with_connector(connector).await
    }

    /// Connects whenever there is something to say.
    pub fn connect_lazy(&self, with: impl FnOnce(Endpoint) -> Endpoint) -> Channel {
        let dial = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dial = dial.clone();
            async move { dial.open().await.map(TokioIo::new) }
        });
        with(endpoint()).connect_with_connector_lazy(connector)
    }

    async fn open(&self) -> io::Result<Stream> {
        let mut result = Err(io::Error::other("there is no address"));
        for _ in 0..self.addresses.len() {
            let first = self.first.load(Ordering::Relaxed);
            let Some(address) = self.addresses.get(first % self.addresses.len()) else { break };
            result = match tokio::time::timeout(ATTEMPT, self.open_at(address)).await {
                Ok(result) => result,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer"))),
            };
            if result.is_ok() {
                break;
            }
            // Several calls that fail at the same time turn once.
            let next = first.wrapping_add(1);
            let _ = self.first.compare_exchange(first, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        result
    }

    async fn open_at(&self, address: &Address) -> io::Result<Stream> {
        let (authority, secure) = match address {
            Address::Unix(path) => return UnixStream::connect(path).await.map(Stream::Unix),
            Address::Tcp { authority, secure } => (authority, secure.unwrap_or(self.credentials.is_some())),
        };
        let stream = TcpStream::connect(authority.as_str()).await?;
        stream.set_nodelay(true)?;
        match self.credentials.as_ref().filter(|_| secure) {
            None => Ok(Stream::Tcp(stream)),
            Some(credentials) => {
                let connector = TlsConnector::from(Arc::clone(&credentials.material().client));
                let name = ServerName::try_from(CONTROLLER_NAME).map_err(io::Error::other)?;
                let stream = connector.connect(name, stream).await?;
                Ok(Stream::Tls(Box::new(stream)))
            }
        }
    }
}

/// Names are no part of it: certificates say who is who.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://controller")
}

/// A connection of ours.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_stream!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_are_written() {
        for text in
            ["https://c1.example:6641", "http://127.0.0.1:6641", "[::1]:6641", "unix:///run/x.sock", "c1:1"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "unix://",
            "unix:x",
            "ftp://a:1",
            "https://",
            "https://c1",
            "a b:1",
            "https://a:1/x",
            "http://u@a:1",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn plaintext_does_not_leave_the_machine_unless_that_is_said() {
        let dial = |text: &str, insecure| Dial::new(&[text.parse().unwrap()], None, insecure);
        for near in ["127.0.0.1:1", "[::1]:1", "http://localhost:1", "unix:///x"] {
            assert!(dial(near, false).is_ok(), "{near}");
        }
        for far in ["192.0.2.1:1", "http://c1.example:1", "http://localhost.example:1"] {
            assert!(matches!(dial(far, false), Err(AddressError::Plaintext(_))), "{far}");
            assert!(dial(far, true).is_ok());
        }
        assert!(matches!(dial("https://127.0.0.1:1", true), Err(AddressError::NoCredentials(_))));
        assert!(matches!(Dial::new(&[], None, true), Err(AddressError::None)));
    }
}
