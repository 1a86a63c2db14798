//! Wires the parts together and runs them until the process is told to stop.

use std::{
    fs,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use credentials::{Address, Credentials, Dial, Role};
use dataplane::{Balancing, Beginning, Clock, Dataplane, DataplaneConfig, VirtualClock, WorkerConfig};
use flowtable::quota::Quota;
use futures::FutureExt as _;
use supervision::{http, notify};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    agent, bfd,
    cli::{self, RunOptions},
    endpoint::{Endpoints, TEND_INTERVAL, Translator, departed_dir},
    holder::Holder,
    host::{AUDIT_INTERVAL, FailMode, Host, Identity, Lab, Mode, SharedHost},
    log::LogControl,
    service::{self, EndpointServer, Metrics, Service, Socket},
    stages::Stages,
    stand_in::StandIn,
    state::StateDir,
    tunnel_endpoint, underlay,
};

/// Folder of the state directory with the containers' interfaces.
const ENDPOINTS_DIR: &str = "endpoints";
/// How often ports are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(500);
/// How long a successor waits for the metrics' address.
const BIND_LIMIT: Duration = Duration::from_secs(5);
/// How often bridges' protocols are looked after.
const PROTOCOLS: Duration = Duration::from_millis(100);
/// How long what packets make may wait for more of it.
const SETTLE: Duration = Duration::from_millis(1);

/// Runs until SIGTERM or SIGINT; `translator` changes the host's tables, where there is one.
///
/// # Errors
/// What keeps it from starting, and what to do.
pub async fn run(options: RunOptions, log: LogControl, translator: Option<Translator>) -> anyhow::Result<()> {
    let mut stages = Stages::default();
    options.check().map_err(anyhow::Error::msg)?;
    let controller = controller(&options)?;
    let identity = identity(&options)?;
    let ended = told_to_stop()?.shared();
    let holder = options.holder.as_deref().map(Holder::connect).transpose()?;
    let successor = holder.clone().filter(Holder::is_successor);
    stages.done("what is held");
    // The socket first: it shows whether another daemon runs here. A successor knows.
    let socket = match successor {
        Some(_) => None,
        None => Some(Socket::bind(&options.socket)?),
    };
    let state = options.state_dir().map_or(Ok(StateDir::none()), StateDir::open)?;
    let clock = options.r#virtual.then(VirtualClock::new);
    // No packet is taken before there are rules for it.
    let beginning = Beginning { holds_back: true, ..Beginning::default() };
    let beginning = holder.as_ref().map_or(beginning, Holder::beginning);
    let dataplane = Dataplane::start_with(dataplane_config(&options, clock.clone()), beginning)?;
    stages.done("workers and connections");
    // Before anything is attached: an address that cannot be had is a wrong option.
    let metrics = match options.metrics.filter(|_| successor.is_none()) {
        Some(address) => Some(http::bind(address).await.with_context(|| format!("--metrics {address}"))?),
        None => None,
    };
    let mode = match clock {
        Some(clock) if controller.is_some() => Mode::LabNetwork(Lab::new(clock)),
        Some(clock) => Mode::Lab(Lab::new(clock)),
        None if options.standalone => Mode::Standalone {
            fail_mode: match options.fail_mode {
                cli::FailMode::Secure => FailMode::Secure,
                cli::FailMode::Standalone => FailMode::Standalone,
            },
        },
        None => Mode::Network,
    };
    let host = Host::start(identity.clone(), dataplane, state, mode)?;
    stages.done("state, ports and rules");
    tracing::info!(chassis = host.identity().chassis, socket = %options.socket.display(), "running");

    let said = agent::Said::of(&host);
    let host = SharedHost::new(host);
    if !options.r#virtual {
        underlay::look_ahead(&host).await;
    }
    if let Some(holder) = successor.clone() {
        // First of all by what the one before leaves in memory: the rest is told, and takes its time.
        host.with(|host| host.dataplane().want_turn()).await;
        stages.done("ready for its turn");
        tokio::task::spawn_blocking(move || holder.wait_for_turn()).await??;
    }
    begin(&host, holder).await?;
    stages.done("forwarding");
    let stand_in = StandIn::begin(&host).await.context("--uplink-mode owned")?;
    if stand_in.is_some() {
        underlay::look_ahead(&host).await;
    }
    if let Some((own, port)) = host.with(|host| host.station()).await {
        let host = host.clone();
        let run = move || tunnel_endpoint::run(&host, &own, &port);
        thread::Builder::new().name("endpoint".to_owned()).spawn(run)?;
    }
    // The daemon before is ending.
    let socket = socket.map_or_else(|| Socket::replace(&options.socket), Ok)?;
    let metrics = match options.metrics.filter(|_| successor.is_some()) {
        Some(address) => bind_late(address).await,
        None => metrics,
    };
    let endpoints =
        Arc::new(endpoints(&options, &host, (identity.chassis, controller.as_ref()), translator)?);
    tokio::spawn(tend_endpoints(Arc::clone(&endpoints)));
    keep(&host, controller.map(|controller| (controller, said)));
    let is_real = !options.r#virtual;
    let followed = host.clone();
    let underlay = async move { if is_real { underlay::run(followed).await } else { Ok(()) } };
    let underlay = tokio::spawn(underlay);
    let housekeeping = tokio::spawn(housekeeping(host.clone()));
    let stand_in = stand_in.map(|stand_in| tokio::spawn(stand_in.follow(host.clone())));
    if let Some(listener) = metrics {
        tokio::spawn(http::serve(listener, Metrics::new(host.clone())));
    }
    let bfd = host.with(|host| host.bfd()).await;
    notify::tell(notify::State::Ready);
    let failed_underlay = async move {
        match underlay.await {
            Ok(Err(error)) => Err(error.context("cannot follow the host's routes and neighbours by netlink")),
            // No uplink: nothing to follow.
            Ok(Ok(())) | Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = service::serve(socket, Service::new(host.clone(), Arc::new(Mutex::new(log))), EndpointServer::new(endpoints), ended) => served?,
        failed = failed_underlay => failed?,
        failed = housekeeping => failed??,
    }
    notify::tell(notify::State::Stopping);
    if let (Some(stand_in), Some(names)) = (stand_in, host.with(|host| host.owned_uplink()).await) {
        stand_in.abort();
        StandIn::withdraw(&names).await;
        host.with(Host::release_wire).await;
    }
    host.with(|host| {
        host.end_protocols();
        host.save_noted_ports();
    })
    .await;
    // Others need not wait until they miss this host.
    tokio::task::spawn_blocking(move || bfd.end()).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes packets from now on; the holder is told, and listened to.
async fn begin(host: &SharedHost, holder: Option<Holder>) -> anyhow::Result<()> {
    let told = holder.clone();
    let begin = move |host: &mut Host| {
        host.begin(|dataplane| {
            if let Some(Err(error)) = told.map(|holder| holder.begun(dataplane.stood())) {
                tracing::warn!(%error, "vswitch-holder cannot be told that packets are forwarded");
            }
        })
    };
    host.with(begin).await?;
    if let Some(holder) = holder {
        if let Err(error) = holder.forget_rest() {
            tracing::warn!(%error, "vswitch-holder holds what nobody needs");
        }
        holder.follow(host.clone())?;
    }
    Ok(())
}

/// Metrics at an address that the daemon before has until it has ended.
async fn bind_late(address: SocketAddr) -> Option<TcpListener> {
    let deadline = Instant::now() + BIND_LIMIT;
    loop {
        match http::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) if Instant::now() >= deadline => {
                tracing::error!(%error, %address, "no metrics are shown");
                return None;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The containers' interfaces of the last run, which this one looks after.
fn endpoints(
    options: &RunOptions,
    host: &SharedHost,
    (chassis, controller): (String, Option<&Dial>),
    translator: Option<Translator>,
) -> anyhow::Result<Endpoints> {
    let state = options.state_dir().map(|dir| dir.join(ENDPOINTS_DIR));
    let departed = departed_dir(&options.socket);
    Endpoints::open(host.clone(), chassis, controller, state.as_deref(), departed, translator)
        .context("the endpoints of the last run cannot be read; --state-dir names another directory")
}

/// Starts what keeps a host going, whatever its ports are: the stream to its controller, if it
/// has one, and what packets, other hosts and time bring.
pub(crate) fn keep(host: &SharedHost, controller: Option<(Dial, agent::Said)>) {
    if let Some((controller, said)) = controller {
        tokio::spawn(agent::run(host.clone(), controller, said));
    }
    tokio::spawn(news(host.clone()));
    tokio::spawn(audit(host.clone()));
    tokio::spawn(protocols(host.clone()));
    tokio::spawn(bfd::run(host.clone()));
}

/// Does what was left to do about containers' interfaces, now and from time to time.
async fn tend_endpoints(endpoints: Arc<Endpoints>) {
    endpoints.settle().await;
    let leased = Arc::clone(&endpoints);
    tokio::spawn(async move { leased.lease_ahead().await });
    loop {
        endpoints.tend().await;
        tokio::time::sleep(TEND_INTERVAL).await;
    }
}

/// Takes what packets have made as soon as a worker tells of it.
async fn news(host: SharedHost) {
    let told = Arc::new(Notify::new());
    let teller = Arc::clone(&told);
    host.with(move |host| host.dataplane().on_news(move || teller.notify_one())).await;
    loop {
        host.with(|host| host.take_news()).await;
        told.notified().await;
        // What comes right behind is taken at once.
        tokio::time::sleep(SETTLE).await;
    }
}

/// Compares what packets see with what it should be.
async fn audit(host: SharedHost) {
    let mut tick = tokio::time::interval(AUDIT_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        host.with(Host::audit).await;
    }
}

/// Has bridges say to each other what is due, and looks after the links of bonds.
async fn protocols(host: SharedHost) {
    let mut tick = tokio::time::interval(PROTOCOLS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        host.with(Host::tend_protocols).await;
    }
}

/// Looks after ports and workers; ends only when a worker has, which is a bug: a new
/// process forwards again, this one would not.
pub(crate) async fn housekeeping(host: SharedHost) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let dead = host
            .with(|host| {
                host.tend_rules();
                host.tend_ports();
                host.tend_saved_ports();
                host.tend_neighbours();
                host.tend_gateways();
                if let Err(error) = host.dataplane().tend_queues() {
                    tracing::error!(%error, "a receive queue could not be moved");
                }
                host.dataplane().workers().into_iter().find(|worker| !worker.running)
            })
            .await;
        if let Some(worker) = dead {
            anyhow::bail!(
                "worker {} has ended by itself; start vswitchd again, and report its log",
                worker.id
            );
        }
    }
}

fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Seed of a lab's hashes: each run is like the other.
pub(crate) const LAB_SEED: u64 = 0;

fn dataplane_config(options: &RunOptions, clock: Option<VirtualClock>) -> DataplaneConfig {
    let n_connections = options.conntrack_max as usize;
    let quota = Quota {
        misses_per_second: options.port_misses,
        max_megaflows: options.port_megaflows,
        sessions_per_second: options.port_sessions,
    };
    if let Some(clock) = clock {
        let (clock, seed) = (Clock::Virtual(clock), Some(LAB_SEED));
        return DataplaneConfig { clock, seed, n_connections, quota, ..DataplaneConfig::default() };
    }
    let mut workers: Vec<_> = options.core.iter().map(|core| WorkerConfig { core: Some(*core) }).collect();
    if workers.is_empty() {
        workers.push(WorkerConfig::default());
    }
    DataplaneConfig {
        workers,
        busy: options.busy,
        af_xdp: options.af_xdp(),
        pins: options.pin.clone(),
        balancing: Balancing { auto: options.auto_balance, ..Balancing::default() },
        quota,
        n_connections,
        ..DataplaneConfig::default()
    }
}

fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

fn chassis_id(options: &RunOptions) -> anyhow::Result<String> {
    let chassis = options.chassis.clone().unwrap_or_else(hostname);
    anyhow::ensure!(!chassis.is_empty(), "this host has no hostname; give it an id with --chassis");
    Ok(chassis)
}

fn identity(options: &RunOptions) -> anyhow::Result<Identity> {
    let hostname = hostname();
    let chassis = chassis_id(options)?;
    let controllers: Vec<_> = options.controller.iter().map(Address::to_string).collect();
    let (endpoint, controller) =
        (options.endpoint(), (!controllers.is_empty()).then(|| controllers.join(", ")));
    let (encap_types, tunnel_peers) = (options.encap_type.clone(), options.tunnel_peer.clone());
    let liveness = options.liveness();
    let (internal_port, own_address) = (options.internal(), options.own_address());
    Ok(Identity {
        chassis,
        hostname,
        endpoint,
        internal_port,
        own_address,
        encap_types,
        tunnel_peers,
        controller,
        liveness,
    })
}

/// The way to the controllers, if there are any, with who this host is.
fn controller(options: &RunOptions) -> anyhow::Result<Option<Dial>> {
    if options.controller.is_empty() {
        return Ok(None);
    }
    let credentials = options.credentials.as_deref().map(Credentials::open).transpose()?.map(Arc::new);
    if let Some(credentials) = &credentials {
        let identity = credentials.identity();
        anyhow::ensure!(
            identity.role() == Role::Chassis && identity.name() == chassis_id(options)?,
            "--credentials are those of {identity}, and this is chassis/{}; issue some with `vswitchctl pki issue DIR \
             chassis ID`, or say --chassis",
            chassis_id(options)?
        );
    }
    let dial = Dial::new(&options.controller, credentials, options.insecure_plaintext);
    Ok(Some(dial.context("--controller")?))
}

/// Where a lab's controller is.
pub(crate) fn dial(url: &str) -> anyhow::Result<Dial> {
    let address = url.parse().with_context(|| format!("--controller {url}"))?;
    Ok(Dial::new(&[address], None, false)?)
}
