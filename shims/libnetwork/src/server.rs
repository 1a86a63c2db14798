//! HTTP/1.1 on a unix socket, as Docker speaks it: each question is a POST of JSON, and so is
//! the answer. It may be without a `Host` that makes sense, and without a body.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::{driver::Driver, refusal::Refusal};

/// The type of what Docker reads.
const JSON: &str = "application/vnd.docker.plugins.v1.2+json";
/// Largest question.
const MAX_LEN: usize = 1 << 20;
/// Pause after a connection that cannot be accepted, as when no file is left.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is this process's; it goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Takes the socket; one left behind by a process that is gone is replaced.
    ///
    /// # Errors
    /// Another driver serves it, or the file system refuses.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another driver serves it"));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // One that stays says that nobody listens, too.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers all who connect; to be run in a [`tokio::task::LocalSet`].
///
/// # Errors
/// The socket can no longer be used.
pub async fn run(socket: Socket, driver: Rc<Driver>) -> anyhow::Result<()> {
    loop {
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(error).context("the socket cannot be served any more");
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let driver = Rc::clone(&driver);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| answer(Rc::clone(&driver), request));
            // Who goes away early reads nothing, and needs no answer.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(driver: Rc<Driver>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.uri().path().trim_start_matches('/').to_owned();
    // On a task of its own: what has begun is ended, also when Docker stops waiting.
    let answered = tokio::task::spawn_local(async move {
        let body = Limited::new(request.into_body(), MAX_LEN).collect().await;
        let body = body.map_err(|error| Refusal::new(format!("the question cannot be read: {error}")))?;
        driver.call(&method, &body.to_bytes()).await
    });
    let answered = answered.await.unwrap_or_else(|error| Err(Refusal::new(error.to_string())));
    Ok(match answered {
        Ok(value) => response(StatusCode::OK, &value),
        Err(refusal) => {
            tracing::warn!(%refusal, "refused");
            // Docker does without what is not found; what is refused it tells the user.
            let status = match refusal.is_unknown_method {
                true => StatusCode::NOT_FOUND,
                false => StatusCode::INTERNAL_SERVER_ERROR,
            };
            // Network drivers say `Err`, IPAM drivers `Error`.
            response(status, &json!({ "Err": refusal.text, "Error": refusal.text }))
        }
    })
}

fn response(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(JSON));
    response
}
