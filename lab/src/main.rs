//! `vswitch-lab`: a controller and any number of hosts of its network in one process, without
//! interfaces or privilege. `vswitchctl lab start` starts it.
//!
//! Everything is what real hosts run: only ports and underlay are queues of frames
//! (`vswitchd::lab`), and the store of the controller is memory.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::IsTerminal as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use controller::{
    controller::{Controller, Ending},
    server::{Listen, Listener, serve},
    store::{LogLimits, MemoryStore},
};
use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use vswitchd::{
    bfd::Timing,
    lab::{self, LabHost, LabOptions},
    log,
};

/// The underlay's network (RFC 2544 §C.2.2: for tests of devices).
const UNDERLAY: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// Its hosts.
const MAX_HOSTS: i64 = (1 << 17) - 2;

/// A controller and hosts in one process, without interfaces: to learn with and to test.
#[derive(Debug, Parser)]
#[command(name = "vswitch-lab", version)]
struct Options {
    /// Directory for the sockets: `controller.sock`, and `NAME.sock` for each host.
    #[arg(long, value_name = "DIR", default_value = "lab")]
    dir: PathBuf,
    /// How many hosts; their names are h1, h2 and so on.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=MAX_HOSTS))]
    hosts: u32,
    /// How often hosts that may be gateways tell each other that they live, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(150..=60_000))]
    bfd_interval: u32,
    /// What to log, for example `info` or `vswitchd=debug`.
    #[arg(long, default_value = "warn")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitch-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let is_seen = std::io::stderr().is_terminal();
    let log = log::start(&options.log, (log::Format::Text, is_seen))
        .with_context(|| format!("--log {}", options.log))?;
    fs::create_dir_all(&options.dir).with_context(|| format!("cannot make {}", options.dir.display()))?;
    let dir = fs::canonicalize(&options.dir)?;
    let (path, limits) = (dir.join("controller.sock"), LogLimits::default());
    let controller = Controller::open(Box::new(MemoryStore::new(limits)), limits)?;
    let listener = Listener::bind(&Listen::Unix(path.clone()))
        .await
        .with_context(|| format!("cannot listen at {}", path.display()))?;
    let served = tokio::spawn(serve(controller.clone(), listener));

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = controller.clone();
    let ended = async move {
        let mut ending = told.ending();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = ending.wait_for(Option::is_some) => {}
        }
    };
    let url = format!("unix://{}", path.display());
    let liveness = Timing { interval: Duration::from_millis(options.bfd_interval.into()), multiplier: 3 };
    let ready = || println!("controller and {} hosts: export VSWITCH_LAB={}", options.hosts, dir.display());
    let hosts = hosts(options.hosts, &dir);
    let ran = lab::run(hosts, LabOptions { controller: url, liveness, log }, ready, ended.shared()).await;
    // The hosts need no goodbye of a controller that ends with them.
    if let Some(Ending::Failed(reason)) = controller.ending().borrow().clone() {
        anyhow::bail!("stopped: {reason}");
    }
    served.abort();
    // Nobody listens there any more; somebody else's is not removed by accident, for it was ours.
    let _ = fs::remove_file(&path);
    ran
}

fn hosts(n_hosts: u32, dir: &Path) -> Vec<LabHost> {
    let host = |number: u32| {
        let chassis = format!("h{number}");
        let socket = dir.join(format!("{chassis}.sock"));
        LabHost { chassis, ip: Ipv4Addr::from(UNDERLAY + number), socket }
    };
    (1..=n_hosts).map(host).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn hosts_have_names_and_addresses_of_their_own() {
        let hosts = hosts(300, Path::new("/x"));
        assert_eq!((hosts[0].chassis.as_str(), hosts[0].ip), ("h1", Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!(
            (hosts[299].socket.as_path(), hosts[299].ip),
            (Path::new("/x/h300.sock"), Ipv4Addr::new(198, 18, 1, 44))
        );
    }
}
