//! `/metrics`, `/healthz` and `/readyz` over HTTP.
//!
//! Who asks is not trusted: connections are few, questions short, and one that does not come is
//! not waited for. Nothing can be changed from here.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::process;

/// Connections at a time; who comes then waits.
const MAX_CONNECTIONS: usize = 16;
/// How long a question may take to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may last: who is slow to read has only this.
const LIFETIME: Duration = Duration::from_secs(60);
/// Largest head of a question.
const MAX_HEAD_LEN: usize = 16 << 10;
/// Pause after a connection that cannot be accepted, as when no file is left.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
/// What Prometheus expects of [`crate::exposition`].
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A daemon that is looked at.
pub trait Subject: Send + Sync + 'static {
    /// What it counts, in the text of [`crate::exposition`].
    fn metrics(&self) -> impl Future<Output = String> + Send;

    /// It does what it is for.
    ///
    /// # Errors
    /// Why not.
    fn readiness(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Takes the address.
///
/// # Errors
/// The system's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers all who connect, until the task is dropped.
pub async fn serve<S: Subject>(listener: TcpListener, subject: S) {
    let (subject, places) = (Arc::new(subject), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics cannot be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let subject = Arc::clone(&subject);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LIFETIME, converse(stream, subject)).await;
            drop(place);
        });
    }
}

async fn converse<S: Subject>(stream: TcpStream, subject: Arc<S>) {
    let service = service_fn(move |request| {
        let subject = Arc::clone(&subject);
        async move { Ok::<_, Infallible>(answer(&*subject, &request).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MAX_HEAD_LEN);
    // Who goes away early reads nothing, and needs no answer.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<S: Subject>(subject: &S, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut text = subject.metrics().await;
            process::add_to(&mut text);
            response(StatusCode::OK, EXPOSITION, text)
        }
        "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match subject.readiness().await {
            Ok(()) => response(StatusCode::OK, TEXT, "ok\n"),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, why + "\n"),
        },
        "/" => response(StatusCode::OK, TEXT, "/metrics\n/healthz\n/readyz\n"),
        _ => response(StatusCode::NOT_FOUND, TEXT, "not found; see /\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Daemon {
        is_ready: bool,
    }

    impl Subject for Daemon {
        async fn metrics(&self) -> String {
            "x_up 1\n".to_owned()
        }

        async fn readiness(&self) -> Result<(), String> {
            if self.is_ready { Ok(()) } else { Err("no network yet".to_owned()) }
        }
    }

    async fn start(is_ready: bool) -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Daemon { is_ready }));
        address
    }

    async fn ask(address: SocketAddr, question: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let question = format!("{question} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_path_has_its_answer_and_nothing_can_be_changed() {
        let address = start(true).await;
        let metrics = ask(address, "GET /metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nx_up 1\n") && metrics.contains("\nprocess_open_fds "), "{metrics}");
        assert!(!ask(address, "HEAD /metrics").await.contains("x_up"));
        for (question, status) in [
            ("GET /healthz", "200"),
            ("GET /readyz", "200"),
            ("GET /", "200"),
            ("GET /x", "404"),
            ("POST /metrics", "405"),
        ] {
            assert!(ask(address, question).await.starts_with(&format!("HTTP/1.1 {status}")), "{question}");
        }
        let unready = start(false).await;
        let text = ask(unready, "GET /readyz").await;
        assert!(text.starts_with("HTTP/1.1 503") && text.ends_with("no network yet\n"), "{text}");
        assert!(ask(unready, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn who_says_nothing_or_too_much_does_not_keep_others_waiting_for_ever() {
        let address = start(true).await;
        let mut loud = TcpStream::connect(address).await.unwrap();
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD_LEN));
        // It may be shut out while it still talks.
        let _ = loud.write_all(long.as_bytes()).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answered = tokio::time::timeout(3 * PATIENCE, ask(address, "GET /healthz")).await;
        assert!(answered.unwrap().starts_with("HTTP/1.1 200"));
    }
}
