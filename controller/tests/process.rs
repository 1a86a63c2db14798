//! The binary: what was acknowledged survives SIGKILL, SIGTERM is an orderly end, and a
//! refusal to start is one clear sentence.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{create, switch};
use controller::store::{LogLimits, RedbStore, Store as _};
use ferroflow_proto::northbound::{self as nb, northbound_service_client::NorthboundServiceClient};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::watch};
use tonic::transport::{Channel, Endpoint, Uri};

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitch-controller"));
    let listen = format!("unix://{}", dir.join("nb.sock").display());
    command.arg("--data-dir").arg(dir).arg("--listen").arg(listen).stderr(Stdio::piped());
    command
}

/// Starts the process and waits until it says that it serves.
async fn start(dir: &Path) -> (Child, NorthboundServiceClient<Channel>) {
    let mut process = command(dir).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    let serving = tokio::task::spawn_blocking(move || {
        log.by_ref().map_while(Result::ok).any(|line| line.contains("serving"))
    });
    assert!(common::soon(serving).await.unwrap(), "it ended before it served");
    let socket = dir.join("nb.sock");
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://controller");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    (process, NorthboundServiceClient::new(channel))
}

async fn add(client: &mut NorthboundServiceClient<Channel>, name: &str) -> Result<u64, tonic::Status> {
    let request = nb::TransactRequest { operations: vec![create(switch(name))], ..Default::default() };
    client.transact(request).await.map(|answer| answer.into_inner().revision)
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for round in 0..3 {
        let (mut process, mut client) = start(dir.path()).await;
        let (progress, mut enough) = watch::channel(0);
        let writer = tokio::spawn(async move {
            for i in 0.. {
                match add(&mut client, &format!("switches/r{round}-{i}")).await {
                    Ok(revision) => drop(progress.send_replace(revision)),
                    Err(_) => break,
                }
            }
            *progress.borrow()
        });
        // In the middle of writing.
        common::soon(enough.wait_for(|newest| *newest >= acknowledged + 20)).await.unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let newest = writer.await.unwrap();
        acknowledged = newest;
        let contents = RedbStore::open(&dir.path().join("network.redb"), LogLimits::default()).unwrap();
        let contents = contents.read().unwrap();
        assert!(contents.revision.get() >= acknowledged, "{} < {acknowledged}", contents.revision);
        assert!(contents.values.len() as u64 >= acknowledged);
    }
}

#[tokio::test]
async fn a_term_signal_is_an_orderly_end_with_watches_open() {
    let dir = TempDir::new().unwrap();
    let (mut process, mut client) = start(dir.path()).await;
    add(&mut client, "switches/a").await.unwrap();
    let mut watch = client.watch(nb::WatchRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let status = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(status.success());
    let ended = tokio::task::spawn_blocking(move || process.wait());
    let ended = common::soon(ended).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn a_refusal_to_start_is_one_clear_sentence() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("network.redb"), [0x5a; 4096]).unwrap();
    let output = command(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.starts_with("vswitch-controller: the store") && text.contains("damaged"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
}
