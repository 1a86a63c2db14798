//! Hosts with two networks: the underlay of the tunnels, and a provider's network with VLANs and somebody
//! outside in it. Both are Linux bridges.
//!
//! ```text
//!   workloads                        PREFIX-out: outside 10.99.0.9
//!      |                               |
//!      |                             PREFIX-acc: access switch, a `vswitchd --standalone` that adds VLAN 100
//!      |                               |
//!   PREFIX-h1 .. h3: vswitchd  -- phys -- PREFIX-net: bridge
//!        \________ underlay 172.31.0.N -- PREFIX-und: bridge
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::{self, SHORT};
use crate::control::Control;
use crate::daemon::{Daemon, Life};
use crate::fabric::{Plan, UNDERLAY_MTU, WORKLOAD_MTU};
use crate::netns::{self, End, Netns};
use crate::scenario::{self, Dir};
use crate::stop;

/// VLAN of the provider's network.
pub const VLAN: &str = "100";
/// Who is outside.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 9);
/// VLAN of the second way to the outside.
pub const VLAN_TOO: &str = "101";
/// Who is outside, by the second way.
pub const OUTSIDE_TOO: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 9);
/// Name by which hosts know the network.
pub const NETWORK: &str = "provider";
/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long hosts may take until they forward by what the controller says.
const CONVERGE_LIMIT: Duration = Duration::from_secs(30);

/// A host with its daemon.
#[derive(Debug)]
pub struct Host {
    /// Id of its chassis.
    pub name: String,
    /// `vswitchctl` for it.
    pub control: Control,
    daemon: Option<Daemon>,
    netns: Netns,
}

/// Hosts, a controller, both networks. Dropping it removes everything.
#[derive(Debug)]
pub struct Provider {
    // Dropped in this order: daemons end before what they stand on goes.
    hosts: Vec<Host>,
    controller: Option<Daemon>,
    access: Vec<Daemon>,
    workloads: Vec<Netns>,
    /// Who is outside.
    pub outside: Netns,
    _bridges: [Netns; 2],
    access_netns: Netns,
    controller_netns: Netns,
    /// `vswitchctl` for the controller.
    pub control: Control,
    plan: Plan,
    _dir: Dir,
}

impl Provider {
    /// Builds it with so many hosts, each with an interface to the provider's network.
    ///
    /// # Errors
    /// When a step fails; what was made is removed.
    pub fn start(plan: Plan, n_hosts: usize) -> Result<Self> {
        let dir = Dir::create(&plan.dir)?;
        let name = |part: &str| format!("{}-{part}", plan.prefix);
        let bridges = [bridge(&name("und"))?, bridge(&name("net"))?];
        let (outside, access_netns) = (Netns::create(&name("out"))?, Netns::create(&name("acc"))?);
        let address = format!("{OUTSIDE}/24");
        netns::link(
            End { address: Some(&address), ..End::new(&outside, "eth0") },
            End::new(&access_netns, "out"),
            UNDERLAY_MTU,
        )?;
        plug(&bridges[1], "acc", End::new(&access_netns, "trunk"))?;
        let control = Control::to_controller(&plan.programs.control, &url(&plan, "controller"));
        let controller_netns = Netns::create(&name("ctl"))?;
        let hosts = (1..=n_hosts).map(|n| {
            let netns = Netns::create(&name(&format!("h{n}")))?;
            let address = format!("172.31.0.{n}/24");
            plug(
                &bridges[0],
                &format!("h{n}"),
                End { address: Some(&address), ..End::new(&netns, "underlay") },
            )?;
            plug(&bridges[1], &format!("h{n}"), End::new(&netns, "phys"))?;
            let control = Control::to_host(&plan.programs.control, &url(&plan, &format!("h{n}")));
            Ok(Host { name: format!("h{n}"), control, daemon: None, netns })
        });
        let hosts = hosts.collect::<Result<Vec<_>>>()?;
        let (workloads, controller) = (Vec::new(), None);
        let access = vec![access_switch(&plan, &access_netns, "trunk", &[("out", VLAN)])?];
        let mut provider = Self {
            hosts,
            controller,
            access,
            workloads,
            outside,
            _bridges: bridges,
            access_netns,
            controller_netns,
            control,
            plan,
            _dir: dir,
        };
        provider.start_controller()?;
        for idx in 0..n_hosts {
            provider.start_switch(idx)?;
            let add = ["port", "add", "phys", "--network", NETWORK];
            provider.hosts[idx].control.text(&add)?;
        }
        Ok(provider)
    }

    /// A host by index.
    pub fn host(&self, idx: usize) -> &Host {
        &self.hosts[idx]
    }

    /// A host's process, when it runs.
    pub fn switch(&mut self, idx: usize) -> Option<&mut Daemon> {
        self.hosts[idx].daemon.as_mut()
    }

    /// What it was built from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Changes the network, a command a line; within a word a comma stands for a space.
    ///
    /// # Errors
    /// When one is refused.
    pub fn configure(&self, commands: &[&str]) -> Result<()> {
        for words in commands {
            let typed: Vec<_> = words.split(' ').map(|word| word.replace(',', " ")).collect();
            let typed: Vec<_> = typed.iter().map(String::as_str).collect();
            self.control.text(&typed).with_context(|| (*words).to_owned())?;
        }
        Ok(())
    }

    /// A workload on a host, with its logical port of the same name. With a gateway it has a default route.
    ///
    /// # Errors
    /// When a step fails.
    pub fn workload(
        &mut self,
        host: usize,
        name: &str,
        at: (&str, &str),
        gateway: Option<&str>,
    ) -> Result<usize> {
        self.workload_as(host, (name, name), at, gateway)
    }

    /// The same, with a logical port of another name.
    ///
    /// # Errors
    /// When a step fails.
    pub fn workload_as(
        &mut self,
        host: usize,
        (name, port): (&str, &str),
        (mac, address): (&str, &str),
        gateway: Option<&str>,
    ) -> Result<usize> {
        let netns = Netns::create(&format!("{}-{name}", self.plan.prefix))?;
        let mtu = if gateway.is_some() { WORKLOAD_MTU } else { UNDERLAY_MTU };
        netns::link(
            End { netns: &netns, name: "eth0", mac: Some(mac), address: Some(address) },
            End::new(&self.hosts[host].netns, name),
            mtu,
        )?;
        if let Some(gateway) = gateway {
            netns.ip(&["route", "add", "default", "via", gateway])?;
        }
        self.hosts[host].control.add_port(name, port)?;
        self.workloads.push(netns);
        Ok(self.workloads.len() - 1)
    }

    /// A router `r` with a gateway port `r-out` in the provider's network, `h1` preferred to `h2`, and on the
    /// third host a workload `vm` behind it.
    ///
    /// # Errors
    /// When a step fails.
    pub fn with_gateway(&mut self) -> Result<usize> {
        self.configure(&[
            "switch add in",
            "switch-port add in vm --address 0a:00:00:00:01:0a,10.0.1.10",
            "switch add pub",
            "switch-port add pub pub-net --network provider --tag 100",
            "router add r",
            "router-port add r r-in --mac 0a:00:00:00:01:01 --network 10.0.1.1/24",
            "switch-port add in in-r --router-port r-in",
            "ha-chassis-group add gw --chassis h1=20 --chassis h2=10",
            "router-port add r r-out --mac 0a:00:00:00:02:01 --network 10.99.0.1/24 --ha-chassis-group gw",
            "switch-port add pub pub-r --router-port r-out",
            "nat add r hide --type snat --external 10.99.0.1 --logical 10.0.1.0/24",
            "nat add r float --type dnat-and-snat --external 10.99.0.50 --logical 10.0.1.10",
        ])?;
        let vm = self.workload(2, "vm", ("0a:00:00:00:01:0a", "10.0.1.10/24"), Some("10.0.1.1"))?;
        self.wait_converged()?;
        Ok(vm)
    }

    /// A second way to the outside, in a VLAN of its own.
    ///
    /// # Errors
    /// When a step fails.
    pub fn second_way(&self) -> Result<()> {
        let address = format!("{OUTSIDE_TOO}/24");
        netns::link(
            End { address: Some(&address), ..End::new(&self.outside, "eth1") },
            End::new(&self.access_netns, "out-too"),
            UNDERLAY_MTU,
        )?;
        let control =
            Control::to_host(&self.plan.programs.control, &url(&self.plan, self.access_netns.name()));
        in_vlan(&control, "trunk", ("out-too", VLAN_TOO))
    }

    /// Where a workload lives.
    pub fn netns(&self, workload: usize) -> &Netns {
        &self.workloads[workload]
    }

    /// Where a host lives.
    pub fn host_netns(&self, idx: usize) -> &Netns {
        &self.hosts[idx].netns
    }

    /// Keeps a namespace as long as the rest.
    pub fn adopt(&mut self, netns: Netns) {
        self.workloads.push(netns);
    }

    /// A workload's namespace by its name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Netns> {
        let full = format!("{}-{name}", self.plan.prefix);
        self.workloads
            .iter()
            .find(|netns| netns.name() == full)
            .with_context(|| format!("no workload {name}"))
    }

    /// Waits until every host that runs is connected and has realised everything.
    ///
    /// # Errors
    /// When that does not come true in time.
    pub fn wait_converged(&self) -> Result<()> {
        stop::wait_for("hosts forward by the controller's word", CONVERGE_LIMIT, || {
            for host in self.hosts.iter().filter(|host| host.daemon.is_some()) {
                let status = host.control.status()?;
                if !status.controller_connected {
                    return Ok(Err(format!("{} is not connected", host.name)));
                }
                if let Some(error) = status.errors.first() {
                    return Ok(Err(format!("{}: {error}", host.name)));
                }
            }
            let down =
                self.control.places()?.into_iter().find(|place| !place.up && !place.chassis.is_empty());
            Ok(down.map_or(Ok(()), |place| Err(format!("{} is not up", place.id))))
        })
    }

    /// Every packet on every host that runs was forwarded or dropped by name.
    ///
    /// # Errors
    /// When a port's sum is wrong.
    pub fn check_conservation(&self) -> Result<()> {
        for host in self.hosts.iter().filter(|host| host.daemon.is_some()) {
            host.control.check_conservation().with_context(|| host.name.clone())?;
        }
        Ok(())
    }

    /// The last lines of every daemon's log.
    pub fn logs(&self, n_lines: usize) -> String {
        let daemons = self.hosts.iter().filter_map(|host| Some((host.name.as_str(), host.daemon.as_ref()?)));
        let daemons = daemons.chain(self.controller.as_ref().map(|daemon| ("controller", daemon)));
        daemons.map(|(name, daemon)| format!("--- log of {name}\n{}\n", daemon.log_tail(n_lines))).collect()
    }

    /// Kills a host's daemon at once.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_switch(&mut self, idx: usize) -> Result<()> {
        let mut daemon = self.hosts[idx].daemon.take().context("it does not run")?;
        daemon.kill()
    }

    /// Starts a host's daemon, again after it was killed, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_switch(&mut self, idx: usize) -> Result<()> {
        let Self { hosts, plan, .. } = self;
        let host = &mut hosts[idx];
        let (encap_ip, controller) = (format!("172.31.0.{}", idx + 1), url(plan, "controller"));
        let (socket, state) = (path(plan, &host.name), sub_dir(plan, &format!("{}-state", host.name))?);
        #[rustfmt::skip]
        let args = [
            "--chassis", &host.name, "--encap-ip", &encap_ip, "--uplink", "underlay", "--controller", &controller,
            "--socket", &socket, "--state-dir", &state, "--log", "info",
        ];
        let log = plan.dir.join(format!("{}.log", host.name));
        let mut daemon = Daemon::start(&host.netns, &plan.programs.switch, &args, &log, plan.life)?;
        stop::wait_for(&format!("vswitchd on {} answers", host.name), START_LIMIT, || {
            daemon.check()?;
            answers(&host.control, &["status"])
        })?;
        host.daemon = Some(daemon);
        Ok(())
    }

    fn start_controller(&mut self) -> Result<()> {
        let (listen, data) = (url(&self.plan, "controller"), sub_dir(&self.plan, "controller-data")?);
        let args = ["--listen", &listen, "--data-dir", &data];
        let log = self.plan.dir.join("controller.log");
        let Plan { programs, life, .. } = &self.plan;
        let mut daemon = Daemon::start(&self.controller_netns, &programs.controller, &args, &log, *life)?;
        let control = &self.control;
        stop::wait_for("vswitch-controller answers", START_LIMIT, || {
            daemon.check()?;
            answers(control, &["chassis", "list"])
        })?;
        self.controller = Some(daemon);
        Ok(())
    }

    /// Puts an access switch into a workload: what is behind each of these interfaces has its VLAN on `eth0`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn tag_in(&mut self, workload: usize, ports: &[(&str, &str)]) -> Result<()> {
        let daemon = access_switch(&self.plan, &self.workloads[workload], "eth0", ports)?;
        self.access.push(daemon);
        Ok(())
    }
}

/// Runs a scenario, with its name and probe, on so many hosts.
///
/// # Errors
/// When it fails, with the end of the daemons' logs.
pub fn on_hosts(
    (name, probe): (&str, &str),
    n_hosts: usize,
    run: impl FnOnce(&mut Provider) -> Result<()>,
) -> Result<()> {
    if let Some(program) = missing_program() {
        crate::say(&format!("SKIPPED {name}: there is no `{program}`; apt-get install iputils-ping ethtool"));
        return Ok(());
    }
    scenario::run(name, |prefix| {
        let mut provider = Provider::start(scenario::plan(prefix, probe)?, n_hosts)?;
        run(&mut provider).with_context(|| provider.logs(30))
    })
}

/// Waits until somebody is answered, however many packets that takes.
///
/// # Errors
/// When that takes too long.
pub fn reach(from: &Netns, to: Ipv4Addr) -> Result<()> {
    stop::wait_for(&format!("{to} answers {}", from.name()), Duration::from_secs(20), || {
        Ok(match ping(from, to, 1)? {
            (0, _) => Err("no answer".to_owned()),
            _ => Ok(()),
        })
    })
}

/// Every packet is answered, and once.
///
/// # Errors
/// When one is not.
pub fn reach_cleanly(from: &Netns, to: Ipv4Addr) -> Result<()> {
    reach(from, to)?;
    let (once, twice) = ping(from, to, 20)?;
    ensure!((once, twice) == (20, 0), "{} to {to}: {once} of 20 answers, {twice} twice", from.name());
    Ok(())
}

/// `ping` as a user runs it: how many answers came, and how many came twice.
///
/// # Errors
/// When it cannot be run, or says something else than expected.
pub fn ping(from: &Netns, to: Ipv4Addr, n: u32) -> Result<(u32, u32)> {
    let mut command = from.command("ping");
    command.args(["-n", "-c", &n.to_string(), "-i", "0.05", "-W", "2", &to.to_string()]);
    let finished = command::run_regardless(&mut command, Duration::from_secs(60))?;
    let text = finished.stdout;
    let answers = text.lines().filter(|line| line.contains("bytes from"));
    let (twice, once): (Vec<_>, Vec<_>) = answers.partition(|line| line.contains("DUP!"));
    ensure!(text.contains("packets transmitted"), "ping: {text}");
    Ok((u32::try_from(once.len())?, u32::try_from(twice.len())?))
}

/// A server in a namespace that says its name, and whom it takes the client for.
///
/// # Errors
/// When it does not listen.
pub fn greeter(plan: &Plan, netns: &Netns, at: SocketAddrV4, name: &str) -> Result<Daemon> {
    let probe = &plan.programs.probe;
    let address = at.to_string();
    let words: Vec<&str> = probe.words.iter().map(String::as_str).collect();
    let words = [words.as_slice(), &["tcp-greet", &address, name]].concat();
    let log = plan.dir.join("servers.log");
    let mut daemon = Daemon::start(netns, &probe.program, &words, &log, Life::WithParent)?;
    stop::wait_for(&format!("{name} listens"), Duration::from_secs(5), || {
        daemon.check()?;
        Ok(probe.ask_servers(netns, at, 1).map(drop).map_err(|error| format!("{error:#}")))
    })?;
    Ok(daemon)
}

/// A switch of interfaces, each in a VLAN of the trunk. Not every kernel has VLANs of its own.
fn access_switch(plan: &Plan, netns: &Netns, trunk: &str, ports: &[(&str, &str)]) -> Result<Daemon> {
    let name = netns.name();
    let (socket, state) = (path(plan, name), sub_dir(plan, &format!("{name}-state"))?);
    let args = ["--standalone", "--socket", &socket, "--state-dir", &state];
    let log = plan.dir.join(format!("{name}.log"));
    let mut daemon = Daemon::start(netns, &plan.programs.switch, &args, &log, plan.life)?;
    let control = Control::to_host(&plan.programs.control, &url(plan, name));
    stop::wait_for("an access switch answers", START_LIMIT, || {
        daemon.check()?;
        answers(&control, &["status"])
    })?;
    control.text(&["port", "add", trunk])?;
    for (port, vlan) in ports {
        in_vlan(&control, trunk, (port, vlan))?;
    }
    Ok(daemon)
}

/// An interface of the access switch is in a VLAN of the trunk.
fn in_vlan(control: &Control, trunk: &str, (port, vlan): (&str, &str)) -> Result<()> {
    control.text(&["port", "add", port])?;
    let tag = format!("in_port={port},actions=mod_vlan_vid:{vlan},output:{trunk}");
    let untag = format!("in_port={trunk},dl_vlan={vlan},actions=strip_vlan,output:{port}");
    control.text(&["flow", "add", &tag, &untag])?;
    Ok(())
}

/// A namespace with a bridge.
fn bridge(name: &str) -> Result<Netns> {
    let netns = Netns::create(name)?;
    netns.ip(&["link", "add", "name", "br0", "type", "bridge"])?;
    netns.ip(&["link", "set", "dev", "br0", "up"])?;
    Ok(netns)
}

/// Plugs somebody's interface into a bridge. Tags are put into frames at once: XDP does not see those that are
/// kept beside the frame for a device to put in.
fn plug(bridge: &Netns, port: &str, end: End<'_>) -> Result<()> {
    let (netns, name) = (end.netns, end.name);
    netns::link(end, End::new(bridge, port), UNDERLAY_MTU)?;
    bridge.ip(&["link", "set", "dev", port, "master", "br0"])?;
    for (netns, name) in [(bridge, port), (netns, name)] {
        let mut command = netns.command("ethtool");
        command.args(["-K", name, "txvlan", "off", "rxvlan", "off"]);
        command::output(&mut command, SHORT)?;
        // Those of 802.1ad, where the device has them.
        let mut command = netns.command("ethtool");
        command.args(["-K", name, "tx-vlan-stag-hw-insert", "off", "rx-vlan-stag-hw-parse", "off"]);
        command::run_regardless(&mut command, SHORT)?;
    }
    Ok(())
}

fn answers(control: &Control, words: &[&str]) -> Result<Result<(), String>> {
    let finished = control.attempt(words)?;
    Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
}

fn sub_dir(plan: &Plan, name: &str) -> Result<String> {
    let dir = plan.dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.display().to_string())
}

fn path(plan: &Plan, name: &str) -> String {
    plan.dir.join(format!("{name}.sock")).display().to_string()
}

fn url(plan: &Plan, name: &str) -> String {
    format!("unix://{}", path(plan, name))
}

/// The programs that it needs beside those of the harness.
pub fn missing_program() -> Option<&'static str> {
    ["ping", "ethtool"].into_iter().find(|name| !crate::daemon::has_command(name))
}
