//! Two hosts and four workloads in network namespaces, joined by an underlay, with the daemons running:
//! the network of `examples/two-switches.yaml`.
//!
//! ```text
//!   PREFIX-web-1   PREFIX-db-1         PREFIX-web-2   PREFIX-db-2
//!      eth0           eth0                eth0           eth0
//!        |              |                   |              |
//!      web-1          db-1                web-2          db-2
//!   PREFIX-h1: vswitchd h1             PREFIX-h2: vswitchd h2
//!         underlay 172.31.0.1 --------- underlay 172.31.0.2
//! ```
//! The controller listens on a unix socket, which no network namespace hides; it runs in a namespace of
//! its own, so that everything that runs can be found by the namespace it is in.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command;
use crate::control::Control;
use crate::daemon::{Daemon, Life, find_program};
use crate::netns::{self, End, Netns};
use crate::probe::Probe;
use crate::processes;
use crate::scenario::Dir;
use crate::stop;

/// MTU of the underlay.
pub const UNDERLAY_MTU: u32 = 1500;
/// What the header of IPv6 is longer than that of IPv4.
const IPV6_MORE: u32 = 20;
/// What Geneve puts around a workload's IP packet: IPv4 20, UDP 8, Geneve 8, one option 8, inner Ethernet 14.
pub const GENEVE_OVERHEAD: u32 = 58;
/// MTU of the workloads.
pub const WORKLOAD_MTU: u32 = UNDERLAY_MTU - GENEVE_OVERHEAD;
/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long the hosts may take until they forward by what the controller says.
const CONVERGE_LIMIT: Duration = Duration::from_secs(30);

/// A host of the fabric.
#[derive(Debug, Clone, Copy)]
pub struct HostPlan {
    /// Name of the chassis.
    pub name: &'static str,
    /// Its address on the underlay.
    pub encap_ip: &'static str,
}

/// A workload of the fabric; its logical port and its interface on the host have its name.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadPlan {
    /// Name.
    pub name: &'static str,
    /// Index of its host.
    pub host_idx: usize,
    /// MAC address.
    pub mac: &'static str,
    /// Address.
    pub address: Ipv4Addr,
    /// Default gateway, an address of the router.
    pub gateway: Ipv4Addr,
    /// MAC address of the gateway.
    pub gateway_mac: &'static str,
}

/// The hosts.
pub const HOSTS: [HostPlan; 2] =
    [HostPlan { name: "h1", encap_ip: "172.31.0.1" }, HostPlan { name: "h2", encap_ip: "172.31.0.2" }];

/// The workloads.
pub const WORKLOADS: [WorkloadPlan; 4] = [
    workload("web-1", 0, "0a:00:00:00:01:0b", [10, 0, 1, 11], [10, 0, 1, 1], "0a:00:00:00:01:01"),
    workload("db-1", 0, "0a:00:00:00:02:0b", [10, 0, 2, 11], [10, 0, 2, 1], "0a:00:00:00:02:01"),
    workload("web-2", 1, "0a:00:00:00:01:0c", [10, 0, 1, 12], [10, 0, 1, 1], "0a:00:00:00:01:01"),
    workload("db-2", 1, "0a:00:00:00:02:0c", [10, 0, 2, 12], [10, 0, 2, 1], "0a:00:00:00:02:01"),
];

const fn workload(
    name: &'static str,
    host_idx: usize,
    mac: &'static str,
    address: [u8; 4],
    gateway: [u8; 4],
    gateway_mac: &'static str,
) -> WorkloadPlan {
    let [a, b, c, d] = address;
    let address = Ipv4Addr::new(a, b, c, d);
    let [a, b, c, d] = gateway;
    WorkloadPlan { name, host_idx, mac, address, gateway: Ipv4Addr::new(a, b, c, d), gateway_mac }
}

/// The programs a fabric is made of.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `vswitch-controller`.
    pub controller: PathBuf,
    /// `vswitchd`.
    pub switch: PathBuf,
    /// `vswitchctl`.
    pub control: PathBuf,
    /// Source of traffic.
    pub probe: Probe,
}

impl Programs {
    /// The programs in cargo's output folder.
    ///
    /// # Errors
    /// When one is missing.
    pub fn find(dir: &Path, probe: Probe) -> Result<Self> {
        Ok(Self {
            controller: find_program(dir, "vswitch-controller")?,
            switch: find_program(dir, "vswitchd")?,
            control: find_program(dir, "vswitchctl")?,
            probe,
        })
    }
}

/// What to build a fabric from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Start of the namespaces' names; no other fabric may have it.
    pub prefix: String,
    /// Folder for sockets, state and logs; made, and removed at the end.
    pub dir: PathBuf,
    /// Programs.
    pub programs: Programs,
    /// What happens to the daemons when this process is killed.
    pub life: Life,
}

/// A host with its daemon.
#[derive(Debug)]
pub struct Host {
    /// What it is.
    pub plan: HostPlan,
    /// `vswitchctl` for its daemon.
    pub control: Control,
    encap_types: String,
    encap_ip: String,
    /// What else its daemon is told.
    options: Vec<String>,
    daemon: Option<Daemon>,
    netns: Netns,
}

/// A workload.
#[derive(Debug)]
pub struct Workload {
    /// What it is.
    pub plan: WorkloadPlan,
    /// Where it lives.
    pub netns: Netns,
}

/// Two hosts, four workloads, the daemons. Dropping it removes everything.
#[derive(Debug)]
pub struct Fabric {
    // Dropped in this order: daemons end in order before what they stand on goes.
    hosts: Vec<Host>,
    controller: Option<Daemon>,
    workloads: Vec<Workload>,
    controller_netns: Netns,
    /// `vswitchctl` for the controller.
    pub control: Control,
    plan: Plan,
    _dir: Dir,
}

impl Fabric {
    /// Builds namespaces and links and starts the daemons. The logical network is still empty.
    ///
    /// # Errors
    /// When a step fails; what was made is removed.
    pub fn start(plan: Plan, progress: &dyn Fn(&str)) -> Result<Self> {
        let dir = Dir::create(&plan.dir)?;
        let name = |part: &str| format!("{}-{part}", plan.prefix);
        progress("making two hosts and four workloads");
        let controller_netns = Netns::create(&name("ctl"))?;
        let mut hosts = Vec::new();
        for host in HOSTS {
            let url = socket_url(&plan.dir, host.name);
            let control = Control::to_host(&plan.programs.control, &url);
            let (encap_types, netns) = ("geneve".to_owned(), Netns::create(&name(host.name))?);
            let encap_ip = host.encap_ip.to_owned();
            let options = Vec::new();
            hosts.push(Host { plan: host, control, encap_types, encap_ip, options, daemon: None, netns });
        }
        let mut workloads = Vec::new();
        for workload in WORKLOADS {
            workloads.push(Workload { plan: workload, netns: Netns::create(&name(workload.name))? });
        }
        wire(&hosts, &workloads)?;
        let control = Control::to_controller(&plan.programs.control, &socket_url(&plan.dir, "controller"));
        let mut fabric =
            Self { hosts, controller: None, workloads, controller_netns, control, plan, _dir: dir };
        progress("starting vswitch-controller");
        fabric.start_controller()?;
        for (idx, host) in HOSTS.iter().enumerate() {
            progress(&format!("starting vswitchd on {}", host.name));
            fabric.start_switch(idx)?;
        }
        Ok(fabric)
    }

    /// Gives the network its objects, and the workloads' interfaces their logical ports; waits until all hosts
    /// forward by it.
    ///
    /// # Errors
    /// When a daemon refuses, or does not get there in time.
    pub fn realise(&mut self, network: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        progress(&format!("applying {}", network.display()));
        self.control.apply(network)?;
        for workload in &self.workloads {
            let WorkloadPlan { name, host_idx, .. } = workload.plan;
            progress(&format!("attaching {name} to {}", HOSTS[host_idx].name));
            self.hosts[host_idx].control.add_port(name, name)?;
        }
        progress("waiting until both hosts have applied it");
        self.wait_converged()
    }

    /// Waits until every host is connected and has realised everything, and the controller has seen every
    /// workload's port up on its host and has a receipt for that from all hosts.
    ///
    /// # Errors
    /// When that does not come true in time, or a daemon has ended.
    pub fn wait_converged(&mut self) -> Result<()> {
        stop::wait_for("hosts forward by the controller's word", CONVERGE_LIMIT, || {
            self.check_daemons()?;
            Ok(self.not_converged().map_or(Ok(()), Err))
        })?;
        let places = self.control.places()?;
        let newest = places.iter().map(|place| place.update_revision).max();
        self.control.wait_applied(newest.context("the network has no ports")?)
    }

    /// Host by index.
    pub fn host(&self, idx: usize) -> &Host {
        &self.hosts[idx]
    }

    /// Hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Workload by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn workload(&self, name: &str) -> Result<&Workload> {
        let found = self.workloads.iter().find(|workload| workload.plan.name == name);
        found.with_context(|| format!("no workload {name}"))
    }

    /// Workloads.
    pub fn workloads(&self) -> &[Workload] {
        &self.workloads
    }

    /// What it was built from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A command that runs in a host's namespace.
    pub fn host_netns(&self, idx: usize) -> &Netns {
        &self.hosts[idx].netns
    }

    /// Starts the controller, again after it was killed, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_controller(&mut self) -> Result<()> {
        let listen = socket_url(&self.plan.dir, "controller");
        let data_dir = self.sub_dir("controller-data")?;
        let args = ["--listen", &listen, "--data-dir", &data_dir];
        let Plan { programs, life, .. } = &self.plan;
        let log = self.plan.dir.join("controller.log");
        let mut daemon = Daemon::start(&self.controller_netns, &programs.controller, &args, &log, *life)?;
        let control = &self.control;
        stop::wait_for("vswitch-controller answers", START_LIMIT, || {
            daemon.check()?;
            answers(control, &["chassis", "list"])
        })?;
        self.controller = Some(daemon);
        Ok(())
    }

    /// Starts a host's daemon, again after it was killed, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_switch(&mut self, idx: usize) -> Result<()> {
        let name = self.hosts[idx].plan.name;
        let state_dir = self.sub_dir(&format!("{name}-state"))?;
        let socket = socket_path(&self.plan.dir, name).display().to_string();
        let controller = socket_url(&self.plan.dir, "controller");
        let log = self.plan.dir.join(format!("{name}.log"));
        let host = &mut self.hosts[idx];
        #[rustfmt::skip]
        let args = [
            "--chassis", name, "--encap-ip", &host.encap_ip, "--uplink", "underlay", "--controller", &controller,
            "--socket", &socket, "--state-dir", &state_dir, "--log", "info", "--encap-type", &host.encap_types,
        ];
        let args: Vec<&str> = args.into_iter().chain(host.options.iter().map(String::as_str)).collect();
        let Plan { programs, life, .. } = &self.plan;
        let mut daemon = Daemon::start(&host.netns, &programs.switch, &args, &log, *life)?;
        stop::wait_for(&format!("vswitchd on {name} answers"), START_LIMIT, || {
            daemon.check()?;
            answers(&host.control, &["status"])
        })?;
        host.daemon = Some(daemon);
        Ok(())
    }

    /// Starts a host's daemon again, which others reach by these encapsulations, the best first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_with(&mut self, idx: usize, encap_types: &str) -> Result<()> {
        let host = &mut self.hosts[idx];
        encap_types.clone_into(&mut host.encap_types);
        if let Some(mut daemon) = host.daemon.take() {
            daemon.stop()?;
        }
        self.start_switch(idx)
    }

    /// Starts a host's daemon again, which is told this as well.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_as(&mut self, idx: usize, options: &[&str]) -> Result<()> {
        self.hosts[idx].options = options.iter().map(|word| (*word).to_owned()).collect();
        let encap_types = self.hosts[idx].encap_types.clone();
        self.restart_with(idx, &encap_types)
    }

    /// The same, and others reach it by this address.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_at(&mut self, idx: usize, encap_ip: &str, options: &[&str]) -> Result<()> {
        encap_ip.clone_into(&mut self.hosts[idx].encap_ip);
        self.restart_as(idx, options)
    }

    /// Makes the link between the hosts again, which somebody has deleted.
    ///
    /// # Errors
    /// When it is there.
    pub fn wire_underlay(&self) -> Result<()> {
        wire_hosts(&self.hosts)
    }

    /// Gives the underlay addresses of IPv6 as well, and room for their longer headers, and starts both hosts'
    /// daemons again to send by these alone.
    ///
    /// # Errors
    /// When an address cannot be had, or a daemon does not start.
    pub fn restart_over_ipv6(&mut self) -> Result<()> {
        for idx in 0..self.hosts.len() {
            let host = &mut self.hosts[idx];
            host.encap_ip = format!("fd00:31::{}", idx + 1);
            let address = format!("{}/64", host.encap_ip);
            host.netns.ip(&["address", "add", &address, "dev", "underlay", "nodad"])?;
            let mtu = (UNDERLAY_MTU + IPV6_MORE).to_string();
            host.netns.ip(&["link", "set", "dev", "underlay", "mtu", &mtu])?;
            let encap_types = host.encap_types.clone();
            self.restart_with(idx, &encap_types)?;
        }
        self.wait_converged()
    }

    /// Gives a workload a TAP device in the place of its veth pair, and attaches it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn attach_by_tap(&self, name: &str) -> Result<()> {
        let workload = self.workload(name)?;
        let WorkloadPlan { host_idx, mac, address, gateway, .. } = workload.plan;
        let (host, inside) = (&self.hosts[host_idx], &workload.netns);
        host.control.text(&["port", "del", name])?;
        // A TAP device that was there in its place has gone with its port.
        if host.netns.ip(&["link", "show", "dev", name]).is_ok() {
            host.netns.ip(&["link", "del", "dev", name])?;
        }
        host.control.text(&["port", "add", name, "--logical-port", name, "--kind", "tap"])?;
        host.netns.ip(&["link", "set", "dev", name, "netns", inside.name(), "name", "eth0"])?;
        let mtu = WORKLOAD_MTU.to_string();
        inside.ip(&["link", "set", "dev", "eth0", "address", mac, "mtu", &mtu, "up"])?;
        inside.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
        inside.ip(&["route", "add", "default", "via", &gateway.to_string()]).map(drop)
    }

    /// The controller's process, when it runs.
    pub fn controller(&mut self) -> Option<&mut Daemon> {
        self.controller.as_mut()
    }

    /// A host's process, when it runs.
    pub fn switch(&mut self, idx: usize) -> Option<&mut Daemon> {
        self.hosts[idx].daemon.as_mut()
    }

    /// Fails when a daemon has ended by itself.
    ///
    /// # Errors
    /// When one has, with the end of its log.
    pub fn check_daemons(&mut self) -> Result<()> {
        let daemons =
            self.hosts.iter_mut().filter_map(|host| host.daemon.as_mut()).chain(&mut self.controller);
        daemons.into_iter().try_for_each(Daemon::check)
    }

    /// The last lines of every daemon's log.
    pub fn logs(&self, n_lines: usize) -> String {
        let daemons = self.hosts.iter().filter_map(|host| Some((host.plan.name, host.daemon.as_ref()?)));
        let daemons = daemons.chain(self.controller.as_ref().map(|daemon| ("controller", daemon)));
        daemons.map(|(name, daemon)| format!("--- log of {name}\n{}\n", daemon.log_tail(n_lines))).collect()
    }

    /// Leaves everything running. [`remove`] takes it down.
    pub fn keep(mut self) {
        self.controller_netns.keep();
        self.workloads.iter_mut().for_each(|workload| workload.netns.keep());
        self.controller.iter_mut().for_each(Daemon::keep);
        for host in &mut self.hosts {
            host.netns.keep();
            host.daemon.iter_mut().for_each(Daemon::keep);
        }
        self._dir.keep();
    }

    fn sub_dir(&self, name: &str) -> Result<String> {
        let dir = self.plan.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir.display().to_string())
    }

    /// The first thing that is not as it should be.
    fn not_converged(&self) -> Option<String> {
        for (idx, host) in self.hosts.iter().enumerate() {
            let name = host.plan.name;
            let status = match host.control.status() {
                Ok(status) => status,
                Err(error) => return Some(format!("{name}: {error:#}")),
            };
            if !status.controller_connected {
                return Some(format!("{name} is not connected to the controller"));
            }
            if let Some(error) = status.errors.first() {
                return Some(format!("{name}: {error}"));
            }
            let ports = match host.control.ports() {
                Ok(ports) => ports,
                Err(error) => return Some(format!("{name}: {error:#}")),
            };
            for workload in WORKLOADS.iter().filter(|workload| workload.host_idx == idx) {
                if !ports.iter().any(|port| port.logical_port == workload.name && port.up) {
                    return Some(format!("{name}: port {} is not up", workload.name));
                }
            }
        }
        let places = match self.control.places() {
            Ok(places) => places,
            Err(error) => return Some(format!("controller: {error:#}")),
        };
        let is_placed = |workload: &&WorkloadPlan| {
            let host = HOSTS[workload.host_idx].name;
            places.iter().any(|place| place.id == workload.name && place.chassis == host && place.up)
        };
        let lost = WORKLOADS.iter().find(|workload| !is_placed(workload))?;
        Some(format!("the controller has not seen {} up on {}", lost.name, HOSTS[lost.host_idx].name))
    }
}

/// Removes what a fabric with this prefix and folder left behind. Gives the number of namespaces.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(prefix: &str, dir: &Path) -> Result<usize> {
    processes::end_containers(dir)?;
    for folder in netns::folders_with_prefix(&format!("{prefix}-")) {
        netns::remove_folder(&folder)?;
    }
    let names = netns::with_prefix(&format!("{prefix}-"));
    for name in &names {
        netns::remove(name)?;
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(names.len()),
    }
}

/// A daemon that answers this command is ready.
fn answers(control: &Control, words: &[&str]) -> Result<Result<(), String>> {
    let finished = control.attempt(words)?;
    Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
}

/// Makes the link between the hosts.
fn wire_hosts(hosts: &[Host]) -> Result<()> {
    let [h1, h2] = hosts else { anyhow::bail!("a fabric has two hosts") };
    let [address_1, address_2] = [h1, h2].map(|host| format!("{}/30", host.plan.encap_ip));
    netns::link(
        End { address: Some(&address_1), ..End::new(&h1.netns, "underlay") },
        End { address: Some(&address_2), ..End::new(&h2.netns, "underlay") },
        UNDERLAY_MTU,
    )
}

fn wire(hosts: &[Host], workloads: &[Workload]) -> Result<()> {
    wire_hosts(hosts)?;
    for Workload { plan, netns } in workloads {
        let address = format!("{}/24", plan.address);
        netns::link(
            End { netns, name: "eth0", mac: Some(plan.mac), address: Some(&address) },
            End::new(&hosts[plan.host_idx].netns, plan.name),
            WORKLOAD_MTU,
        )?;
        netns.ip(&["route", "add", "default", "via", &plan.gateway.to_string()])?;
    }
    Ok(())
}

fn socket_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.sock"))
}

fn socket_url(dir: &Path, name: &str) -> String {
    format!("unix://{}", socket_path(dir, name).display())
}

impl Workload {
    /// A TCP address of this workload.
    pub fn tcp(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.plan.address, port)
    }
}
