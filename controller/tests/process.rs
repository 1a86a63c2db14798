//! The binary: what was acknowledged survives SIGKILL, SIGTERM is an orderly end, and a
//! refusal to start is one clear sentence.

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{create, switch};
use controller::store::{LogLimits, RedbStore, Store as _};
use ferroflow_proto::northbound::{self as nb, northbound_service_client::NorthboundServiceClient};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

fn start(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_vswitch-controller"))
        .arg("--data-dir")
        .arg(dir)
        .arg("--listen")
        .arg(format!("unix://{}", dir.join("nb.sock").display()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Tries until the process listens.
async fn connect(dir: &Path) -> NorthboundServiceClient<Channel> {
    let socket = dir.join("nb.sock");
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://controller");
    let mut retry = tokio::time::interval(Duration::from_millis(10));
    common::soon(async {
        loop {
            retry.tick().await;
            if let Ok(channel) = endpoint.connect_with_connector(connector.clone()).await {
                return NorthboundServiceClient::new(channel);
            }
        }
    })
    .await
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
        let mut process = start(dir.path());
        let mut client = connect(dir.path()).await;
        let writer = tokio::spawn(async move {
            let mut newest = 0;
            for i in 0.. {
                match add(&mut client, &format!("switches/r{round}-{i}")).await {
                    Ok(revision) => newest = revision,
                    Err(_) => break,
                }
            }
            newest
        });
        // In the middle of writing.
        while !dir.path().join("network.redb").exists() || writer.is_finished() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        process.kill().unwrap();
        process.wait().unwrap();
        let newest = writer.await.unwrap();
        assert!(newest > acknowledged, "nothing was written in round {round}");
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
    let process = start(dir.path());
    let mut client = connect(dir.path()).await;
    add(&mut client, "switches/a").await.unwrap();
    let mut watch = client.watch(nb::WatchRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let status = Command::new("kill").arg(process.id().to_string()).status().unwrap();
    assert!(status.success());
    let output = tokio::task::spawn_blocking(move || process.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_refusal_to_start_is_one_clear_sentence() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("network.redb"), [0x5a; 4096]).unwrap();
    let output = start(dir.path()).wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.starts_with("Error: the store") && text.contains("damaged"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "{text}");
}
