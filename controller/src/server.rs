//! The services on a socket.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use credentials::{Credentials, accept};
use ferroflow_proto::{
    FILE_DESCRIPTOR_SET, chassis::chassis_service_server::ChassisServiceServer,
    northbound::northbound_service_server::NorthboundServiceServer,
};
use tokio::net::{TcpListener, UnixListener};
use tonic::transport::{Server, server::Router};
use tower::layer::util::{Identity, Stack};

use crate::{
    access::Gate, chassis::Chassis, company, controller::Controller, network, northbound::Northbound,
    resource::limits::MAX_MESSAGE_LEN,
};

/// A host that does not answer pings for this long is not connected.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls may take to finish when the controller ends.
const GRACE: Duration = Duration::from_secs(10);
/// Calls of one client at a time.
const MAX_STREAMS: u32 = 1024;

/// Where to listen: `address:port` or `unix:///path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A socket in the file system, for its owner only.
    Unix(PathBuf),
}

/// Text is not a place to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen at; write one like 127.0.0.1:6641, [::1]:6641 or unix:///run/x.sock"
)]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(ListenError(text.to_owned())),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A port cannot be listened at like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "whoever reaches {0} would be master of the network: name a directory made by `vswitchctl pki issue DIR controller \
     NAME` with --credentials, or listen at a loopback address or unix:///PATH, or say --insecure-plaintext"
)]
pub struct ExposedError(SocketAddr);

impl Listen {
    /// Whether who connects is known, or can only be from this machine, or is let in knowingly.
    ///
    /// # Errors
    /// [`ExposedError`].
    pub fn check(&self, has_credentials: bool, insecure: bool) -> Result<(), ExposedError> {
        match self {
            Self::Tcp(address) if !address.ip().is_loopback() && !has_credentials && !insecure => {
                Err(ExposedError(*address))
            }
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP, with credentials where peers have to have some, too.
    Tcp(TcpListener, Option<Arc<Credentials>>),
    /// In the file system.
    Unix(UnixListener),
}

impl Listener {
    /// Binds.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        Self::bind_with(listen, None).await
    }

    /// Binds; over TCP only those get in who have credentials, too.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind_with(listen: &Listen, credentials: Option<Arc<Credentials>>) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(|listener| Self::Tcp(listener, credentials))
            }
            Listen::Unix(path) => bind_unix(path).map(Self::Unix),
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        // Left behind by a process that is gone.
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the controller ends.
///
/// # Errors
/// The transport's.
pub async fn serve(controller: Arc<Controller>, listener: Listener) -> Result<(), tonic::transport::Error> {
    let compiler = tokio::spawn(network::run(Arc::clone(&controller)));
    let company = tokio::spawn(company::keep(Arc::clone(&controller)));
    let router = router(&controller).await;
    let mut ending = controller.ending();
    let ended = async move { drop(ending.wait_for(Option::is_some).await) };
    let mut ending = controller.ending();
    let late = async move {
        drop(ending.wait_for(Option::is_some).await);
        tokio::time::sleep(GRACE).await;
    };
    let serving = async {
        let incoming = match listener {
            Listener::Tcp(listener, credentials) => accept::tcp(listener, credentials),
            Listener::Unix(listener) => accept::unix(listener),
        };
        router.serve_with_incoming_shutdown(incoming, ended).await
    };
    let served = tokio::select! {
        served = serving => served,
        () = late => Ok(()),
    };
    compiler.abort();
    // It ends by itself: what it has told is taken back.
    if controller.ending().borrow().is_some() {
        let _ = tokio::time::timeout(GRACE, company).await;
    }
    served
}

async fn router(controller: &Arc<Controller>) -> Router<Stack<Gate, Identity>> {
    let northbound = NorthboundServiceServer::new(Northbound::new(Arc::clone(controller)))
        .max_decoding_message_size(MAX_MESSAGE_LEN);
    let chassis = ChassisServiceServer::new(Chassis::new(Arc::clone(controller)))
        .max_decoding_message_size(MAX_MESSAGE_LEN);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<NorthboundServiceServer<Northbound>>().await;
    reporter.set_serving::<ChassisServiceServer<Chassis>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are compiled in");
    Server::builder()
        .layer(Gate::new(Arc::clone(&controller.access)))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .add_service(northbound)
        .add_service(chassis)
        .add_service(health)
        .add_service(reflection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_at() {
        assert_eq!("[::1]:6641".parse(), Ok(Listen::Tcp("[::1]:6641".parse().unwrap())));
        assert_eq!("unix:///run/x.sock".parse(), Ok(Listen::Unix("/run/x.sock".into())));
        assert_eq!("unix:///run/x.sock".parse::<Listen>().unwrap().to_string(), "unix:///run/x.sock");
        for wrong in ["", "localhost", "unix://x", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
