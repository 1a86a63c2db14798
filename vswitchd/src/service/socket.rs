//! The service's socket: a path only root can use.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use ferroflow_proto::{
    FILE_DESCRIPTOR_SET,
    host::{
        bridge_service_server::BridgeServiceServer, capture_service_server::CaptureServiceServer,
        conntrack_service_server::ConntrackServiceServer, endpoint_service_server::EndpointServiceServer,
        event_service_server::EventServiceServer, host_service_server::HostServiceServer,
        lab_service_server::LabServiceServer, rule_service_server::RuleServiceServer,
        underlay_service_server::UnderlayServiceServer, worker_service_server::WorkerServiceServer,
    },
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::{EndpointServer, Service};

/// Largest request: a frame to trace, and room.
const MAX_REQUEST_LEN: usize = 128 * 1024;
/// Largest request that changes rules, or injects frames: all rules of a large switch in
/// one bundle.
const MAX_BULK_REQUEST_LEN: usize = 64 << 20;
/// How long calls may take to finish at the end.
const GRACE: Duration = Duration::from_secs(2);

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon does.
    #[error("another vswitchd serves {0}; stop it, or give this one another --socket and --state-dir")]
    InUse(PathBuf),
    /// The file system refuses.
    #[error("cannot listen at {path}: {source}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The transport failed.
    #[error("the local service failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A socket that is this process's.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Takes the socket from a process that still runs, and is about to end.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn replace(path: &Path) -> Result<Self, SocketError> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket {
            let wrong = |source| SocketError::Bind { path: path.to_owned(), source };
            fs::remove_file(path).map_err(wrong)?;
        }
        Self::bind(path)
    }

    /// Takes the socket; one left behind by a process that is gone is replaced.
    ///
    /// # Errors
    /// Another daemon serves it, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let wrong = |source| SocketError::Bind { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(wrong)?;
        }
        let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket {
            if UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(wrong)?;
        }
        let listener = UnixListener::bind(path).map_err(wrong)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(wrong)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

/// Serves the host until `ended` completes, then removes the socket.
///
/// # Errors
/// The transport's.
pub async fn serve(
    socket: Socket,
    service: Service,
    endpoints: EndpointServer,
    ended: impl Future<Output = ()> + Clone,
) -> Result<(), SocketError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<HostServiceServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are compiled in");
    let lab = LabServiceServer::new(service.clone()).max_decoding_message_size(MAX_BULK_REQUEST_LEN);
    let rules = RuleServiceServer::new(service.clone()).max_decoding_message_size(MAX_BULK_REQUEST_LEN);
    let conntrack = ConntrackServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let events = EventServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let endpoints = EndpointServiceServer::new(endpoints).max_decoding_message_size(MAX_REQUEST_LEN);
    let bridges = BridgeServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let captures = CaptureServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let underlay = UnderlayServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let workers = WorkerServiceServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST_LEN);
    let service = HostServiceServer::new(service).max_decoding_message_size(MAX_REQUEST_LEN);
    let serving = Server::builder()
        .add_service(service)
        .add_service(lab)
        .add_service(rules)
        .add_service(conntrack)
        .add_service(events)
        .add_service(endpoints)
        .add_service(workers)
        .add_service(bridges)
        .add_service(captures)
        .add_service(underlay)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(UnixListenerStream::new(socket.listener), ended.clone());
    let late = async {
        ended.await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = late => Ok(()),
    };
    // Another process may have taken the path by now only by force; then it is theirs.
    let _ = fs::remove_file(&socket.path);
    Ok(served?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/x.sock");
        let first = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse(_))));
        drop(first);
        Socket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "x").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::Bind { .. })));
        assert!(path.exists());
    }
}
