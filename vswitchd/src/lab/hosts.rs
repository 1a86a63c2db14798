//! Starting the hosts of a lab.

use std::{
    future::Future,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use dataplane::{Clock, Dataplane, DataplaneConfig, VirtualClock};
use flowtable::program::TunnelKind;
use tokio::task::JoinSet;

use super::Fabric;
use crate::{
    agent,
    bfd::Timing,
    daemon::{self, LAB_SEED},
    endpoint::{Endpoints, departed_dir},
    host::{Host, Identity, LAB_UPLINK, Lab, Mode, SharedHost},
    log::LogControl,
    service::{self, EndpointServer, Service, Socket},
    state::StateDir,
};

/// Connections that a host of a lab can track, and frames that it has room for: there may be
/// many hosts.
const N_CONNECTIONS: usize = 1 << 14;
const N_FRAMES: usize = 1024;

/// A host to start.
#[derive(Debug, Clone)]
pub struct LabHost {
    /// Its id.
    pub chassis: String,
    /// Its address on the underlay.
    pub ip: Ipv4Addr,
    /// Where it serves vswitchctl.
    pub socket: PathBuf,
}

/// What all hosts have in common.
pub struct LabOptions {
    /// URL of the controller.
    pub controller: String,
    /// How hosts find out whether others live.
    pub liveness: Timing,
    /// The log of the process.
    pub log: LogControl,
}

/// Runs hosts until `ended` completes. `ready` is called when all of them serve.
///
/// # Errors
/// What keeps one from starting.
pub async fn run(
    hosts: Vec<LabHost>,
    options: LabOptions,
    ready: impl FnOnce(),
    ended: impl Future<Output = ()> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let LabOptions { controller, liveness, log } = options;
    let (log, clock) = (Arc::new(Mutex::new(log)), VirtualClock::new());
    let fabric = Arc::new(Fabric::default());
    let mut serving = JoinSet::new();
    for LabHost { chassis, ip, socket: path } in hosts {
        let socket = Socket::bind(&path)?;
        let endpoint = Some((LAB_UPLINK.to_owned(), ip.into()));
        let identity = Identity {
            hostname: chassis.clone(),
            chassis: chassis.clone(),
            endpoint,
            internal_port: None,
            own_address: None,
            encap_types: vec![TunnelKind::Geneve],
            tunnel_peers: Vec::new(),
            controller: Some(controller.clone()),
            liveness,
        };
        let config = DataplaneConfig {
            clock: Clock::Virtual(clock.clone()),
            seed: Some(LAB_SEED),
            n_connections: N_CONNECTIONS,
            n_frames: N_FRAMES,
            ..DataplaneConfig::default()
        };
        let mode = Mode::LabNetwork(Lab::among_others(clock.clone()));
        let host = Host::start(identity, Dataplane::start(config)?, StateDir::none(), mode)?;
        let said = agent::Said::of(&host);
        let host = SharedHost::new(host);
        fabric.join(&chassis, ip, host.clone());
        let dial = daemon::dial(&controller)?;
        let endpoints = Endpoints::open(host.clone(), chassis, Some(&dial), None, departed_dir(&path), None)?;
        daemon::keep(&host, Some((dial, said)));
        tokio::spawn(daemon::housekeeping(host.clone()));
        let service = Service::new(host, Arc::clone(&log)).among(Arc::clone(&fabric));
        serving.spawn(service::serve(
            socket,
            service,
            EndpointServer::new(Arc::new(endpoints)),
            ended.clone(),
        ));
    }
    let carrying = tokio::spawn(async move { fabric.run().await });
    ready();
    while let Some(served) = serving.join_next().await {
        served??;
    }
    carrying.abort();
    Ok(())
}
