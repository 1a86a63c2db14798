//! `vswitch-controller`: parses its options, opens the store, serves until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use controller::{
    controller::{Controller, Ending},
    metrics::Metrics,
    server::{Listen, Listener, serve},
    store::{LogLimits, RedbStore},
};
use supervision::{
    http,
    log::{self, Format},
    notify,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The central server of Ferroflow: keeps the logical network and tells each host its part.
#[derive(Debug, Parser)]
#[command(name = "vswitch-controller", version)]
struct Options {
    /// Where to serve: ADDRESS:PORT or unix:///PATH.
    #[arg(long, default_value = "127.0.0.1:6641")]
    listen: Listen,
    /// Directory of the store.
    #[arg(long, default_value = "/var/lib/ferroflow/controller")]
    data_dir: PathBuf,
    /// What to log, for example `info` or `controller=debug,tonic=warn`.
    #[arg(long, default_value = "info")]
    log: String,
    /// How lines of the log look: `text`, or `json`, an object each
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: Format,
    /// Where to show metrics to Prometheus, and whether the daemon is ready: `127.0.0.1:9476`,
    /// with /metrics, /healthz and /readyz. None: nowhere.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitch-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&options.log).with_context(|| format!("--log {}", options.log))?;
    // Colours are for people: not in a journal or a file.
    let is_seen = std::io::stderr().is_terminal();
    tracing_subscriber::registry().with(filter).with(log::lines(options.log_format, is_seen)).init();

    let limits = LogLimits::default();
    let store = RedbStore::open(&options.data_dir.join("network.redb"), limits)?;
    let controller = Controller::open(Box::new(store), limits)?;
    let listener = Listener::bind(&options.listen)
        .await
        .with_context(|| format!("cannot listen at {}", options.listen))?;
    if let Some(address) = options.metrics {
        let listener = http::bind(address).await.with_context(|| format!("--metrics {address}"))?;
        tokio::spawn(http::serve(listener, Metrics::new(Arc::clone(&controller))));
    }
    tracing::info!(listen = %options.listen, revision = %controller.state().revision(), "serving");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = controller.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify::tell(notify::State::Stopping);
        told.end(Ending::Shutdown);
    });
    notify::tell(notify::State::Ready);
    serve(controller.clone(), listener).await?;
    let ending = controller.ending().borrow().clone();
    match ending {
        Some(Ending::Failed(reason)) => anyhow::bail!("stopped: {reason}"),
        Some(Ending::Shutdown) | None => Ok(()),
    }
}
