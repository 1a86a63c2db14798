//! The listener's side: connections, each with who is at its other end.
//!
//! A handshake is given a few seconds, and only so many are under way at a time: who connects
//! and says nothing costs a place for that long, and keeps nobody out for longer. A connection
//! ends with the certificate that it was made with: when that is over, or was taken back.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Interval, MissedTickBehavior},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    identity::Identity,
    material::{self, Credentials},
};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// Connections that wait to be served.
const QUEUE: usize = 64;
/// Connections that are open at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16_384;
/// Pause when the system has no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it is looked whether the certificate of an open connection is good still.
const RECHECK: Duration = Duration::from_secs(2);

/// Why somebody is taken for who he is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// He could open our socket in the file system: its mode decides who can.
    Local {
        /// The user, as the kernel says.
        uid: Option<u32>,
    },
    /// None: whoever reaches the port.
    Plaintext,
    /// A certificate of the network's authority.
    Certificate {
        /// What it says.
        identity: Identity,
        /// Its serial number.
        serial: String,
    },
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Why he is taken for who he is.
    pub proof: Proof,
    /// Where he connects from.
    pub address: String,
}

impl Peer {
    /// Somebody on this machine.
    pub fn local(uid: Option<u32>) -> Self {
        Self { proof: Proof::Local { uid }, address: "local".to_owned() }
    }

    /// What his certificate says, if that is how he is known.
    pub const fn identity(&self) -> Option<&Identity> {
        match &self.proof {
            Proof::Certificate { identity, .. } => Some(identity),
            Proof::Local { .. } | Proof::Plaintext => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.proof {
            Proof::Local { uid: Some(uid) } => write!(f, "local uid {uid}"),
            Proof::Local { uid: None } => f.write_str("local"),
            Proof::Plaintext => f.write_str("plaintext"),
            Proof::Certificate { identity, .. } => identity.fmt(f),
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Looked at as long as the connection is open.
    proven: Option<Proven>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A certificate that a connection stands on.
struct Proven {
    credentials: Arc<Credentials>,
    serial: String,
    not_after: SystemTime,
    recheck: Interval,
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl Proven {
    /// Why the connection has to end.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        while self.recheck.poll_tick(cx).is_ready() {
            let is_over = SystemTime::now() > self.not_after;
            if is_over || self.credentials.material().is_revoked(&self.serial) {
                let reason = "the certificate is good no more";
                return Some(io::Error::new(io::ErrorKind::PermissionDenied, reason));
            }
        }
        None
    }
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connections as they come.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// Connections over TCP; with credentials, those of peers that have such, too.
pub fn tcp(listener: TcpListener, credentials: Option<Arc<Credentials>>) -> Incoming {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(accept_tcp(listener, credentials, sender));
    ReceiverStream::new(receiver)
}

/// Connections over a socket in the file system.
pub fn unix(listener: UnixListener) -> Incoming {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
            let peer = Peer::local(uid);
            let connection = Connection { io: Io::Unix(stream), peer, proven: None, _place: None };
            if sender.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept_tcp(
    listener: TcpListener,
    credentials: Option<Arc<Credentials>>,
    sender: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = sender.closed() => return,
        };
        let connection = tokio::select! {
            connection = Arc::clone(&connections).acquire_owned() => connection,
            () = sender.closed() => return,
        };
        let (Ok(place), Ok(connection)) = (place, connection) else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let Ok((stream, address)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // Small messages wait for nobody.
        let _ = stream.set_nodelay(true);
        let address = address.to_string();
        let (credentials, sender) = (credentials.clone(), sender.clone());
        tokio::spawn(async move {
            let known = welcome(stream, address, credentials).await;
            drop(place);
            if let Some((io, peer, proven)) = known {
                let connection = Connection { io, peer, proven, _place: Some(connection) };
                // When nobody listens any more the connection ends with this.
                let _ = sender.send(Ok(connection)).await;
            }
        });
    }
}

/// Finds out who somebody is.
async fn welcome(
    stream: TcpStream,
    address: String,
    credentials: Option<Arc<Credentials>>,
) -> Option<(Io, Peer, Option<Proven>)> {
    let Some(credentials) = credentials else {
        return Some((Io::Tcp(stream), Peer { proof: Proof::Plaintext, address }, None));
    };
    let known = match tokio::time::timeout(HANDSHAKE, handshake(stream, &credentials)).await {
        Ok(known) => known,
        Err(_) => Err("no handshake came".to_owned()),
    };
    match known {
        Ok((stream, proof, proven)) => {
            Some((Io::Tls(Box::new(stream)), Peer { proof, address }, Some(proven)))
        }
        Err(reason) => {
            tracing::warn!(address, reason, "turned away");
            None
        }
    }
}

async fn handshake(
    stream: TcpStream,
    credentials: &Arc<Credentials>,
) -> Result<(TlsStream<TcpStream>, Proof, Proven), String> {
    let material = credentials.material();
    let acceptor = TlsAcceptor::from(Arc::clone(&material.server));
    let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or("no certificate")?;
    let identity = Identity::of(certificate).map_err(|error| error.to_string())?;
    let (serial, not_after) =
        material::serial_and_end(certificate).ok_or("a certificate without a number")?;
    if material.is_revoked(&serial) {
        return Err(format!("the certificate of {identity} was taken back"));
    }
    let mut recheck = tokio::time::interval(RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let proven = Proven { credentials: Arc::clone(credentials), serial: serial.clone(), not_after, recheck };
    Ok((stream, Proof::Certificate { identity, serial }, proven))
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Has the transport do it, whichever it is.
macro_rules! each_io {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
            Io::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(over) = self.proven.as_mut().and_then(|proven| proven.poll_over(cx)) {
            return Poll::Ready(Err(over));
        }
        each_io!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each_io!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_io!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
