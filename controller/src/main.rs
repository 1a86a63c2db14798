//! `vswitch-controller`: parses its options, opens the store, serves until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use controller::{
    controller::{Controller, Ending},
    server::{Listen, Listener, serve},
    store::{LogLimits, RedbStore},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_seen).with_writer(std::io::stderr).init();

    let limits = LogLimits::default();
    let store = RedbStore::open(&options.data_dir.join("network.redb"), limits)?;
    let controller = Controller::open(Box::new(store), limits)?;
    let listener = Listener::bind(&options.listen)
        .await
        .with_context(|| format!("cannot listen at {}", options.listen))?;
    tracing::info!(listen = %options.listen, revision = %controller.state().revision(), "serving");

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = controller.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.end(Ending::Shutdown);
    });
    serve(controller.clone(), listener).await?;
    let ending = controller.ending().borrow().clone();
    match ending {
        Some(Ending::Failed(reason)) => anyhow::bail!("stopped: {reason}"),
        Some(Ending::Shutdown) | None => Ok(()),
    }
}
