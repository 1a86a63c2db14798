//! `vswitch-controller`: parses its options, opens the store, serves until told to stop.
#![forbid(unsafe_code)]

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use confinement::{Role, confine};
use controller::{
    access::{Access, Audit, quotas::Quota},
    controller::{Controller, Ending},
    metrics::Metrics,
    server::{Listen, Listener, serve},
    store::{EtcdStore, LogLimits, RedbStore, Store},
};
use credentials::{Address, Credentials, Dial};
use mimalloc::MiMalloc;
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
    /// Directory made by `vswitchctl pki issue DIR controller NAME`: over TCP, only those get in
    /// who have a certificate of the same authority. Its files may be replaced at any time.
    #[arg(long, value_name = "DIR")]
    credentials: Option<PathBuf>,
    /// Let whoever reaches the port be master of the network, from other machines as well.
    #[arg(long)]
    insecure_plaintext: bool,
    /// File for the audit log: who has written what. None: only events of the target `audit`.
    #[arg(long, value_name = "PATH")]
    audit_log: Option<PathBuf>,
    /// Size at which the audit log begins anew, in MiB; eight full files are kept.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    audit_log_size: u64,
    /// How much a tenant may have of a kind of resource, `logical_switch=20`, or one tenant,
    /// `acme:logical_switch=50`; repeat it. Of others: 1000.
    #[arg(long, value_name = "[TENANT:]KIND=N")]
    tenant_quota: Vec<Quota>,
    /// Where the network is kept: `etcd://HOST:PORT,HOST:PORT` for several controllers on one etcd;
    /// without it, in a file of --data-dir.
    #[arg(long, value_name = "STORE", value_parser = etcd_addresses)]
    store: Option<Etcd>,
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

/// Members of an etcd.
#[derive(Debug, Clone)]
struct Etcd(Vec<Address>);

fn etcd_addresses(text: &str) -> Result<Etcd, String> {
    let wanted = "write etcd://HOST:PORT, with more members behind commas";
    let members = text.strip_prefix("etcd://").ok_or_else(|| wanted.to_owned())?;
    let parse = |member: &str| match format!("http://{member}").parse() {
        Ok(address) if !member.contains("://") => Ok(address),
        _ => Err(wanted.to_owned()),
    };
    members.split(',').map(parse).collect::<Result<_, _>>().map(Etcd)
}

/// A change is many small allocations among millions that stay; with the C library's, half of a change's time
/// went into finding room.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let options = Options::parse();
    // Before there are other threads: they all are confined with this one.
    let confined = confine(Role::Controller).map_err(anyhow::Error::from);
    let runtime = confined.and_then(|_| Ok(tokio::runtime::Runtime::new()?));
    match runtime.and_then(|runtime| runtime.block_on(run(options))) {
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

    let credentials = options.credentials.as_deref().map(Credentials::open).transpose()?.map(Arc::new);
    if let Some(credentials) = &credentials
        && credentials.identity().role() != credentials::Role::Controller
    {
        anyhow::bail!(
            "--credentials are those of {}; issue some with `vswitchctl pki issue DIR controller NAME`",
            credentials.identity()
        );
    }
    options.listen.check(credentials.is_some(), options.insecure_plaintext)?;
    let audit = match &options.audit_log {
        Some(path) => Audit::open(path, options.audit_log_size << 20)
            .with_context(|| format!("--audit-log {}", path.display()))?,
        None => Audit::default(),
    };
    let limits = LogLimits::default();
    let store: Box<dyn Store> = match &options.store {
        Some(Etcd(addresses)) => {
            let dial = Dial::new(addresses, None, options.insecure_plaintext).context("--store")?;
            let opened = tokio::task::spawn_blocking(move || EtcdStore::open(dial, limits)).await??;
            Box::new(opened)
        }
        None => Box::new(RedbStore::open(&options.data_dir.join("network.redb"), limits)?),
    };
    let access = Access { quotas: options.tenant_quota.into_iter().collect(), audit };
    // Reading an etcd blocks.
    let controller =
        tokio::task::spawn_blocking(move || Controller::open_with(store, limits, access)).await??;
    let listener = Listener::bind_with(&options.listen, credentials)
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
