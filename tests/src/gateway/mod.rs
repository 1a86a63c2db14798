//! A switch that is a gateway by rules written by hand, between a client and the world:
//!
//! ```text
//!   PREFIX-client          PREFIX-switch              PREFIX-router            PREFIX-server
//!   eth0 10.0.1.2 ------ inside | outside ------ west 10.0.2.1 | east 10.0.3.1 ------ eth0 10.0.3.2
//!        fd00:1::2            vswitchd                fd00:2::1  fd00:3::1                 fd00:3::2
//! ```
//! The router is Linux. The switch has a client's side and an outside, where it answers to addresses of its own:
//! one that the client may be hidden behind, one that the server may be reached by. Neighbours are known
//! beforehand; ARP and neighbour discovery have no part in it.

mod rules;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::{self, Finished};
use crate::control::{Control, PortCounters};
use crate::daemon::{Daemon, Life, find_program};
use crate::netns::{self, End, Netns};
use crate::probe::Probe;
use crate::{scenario, stop};

pub use self::rules::{Opening, rules};

/// How long a daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
const MTU: u32 = 1500;

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Host `host` of network `net`.
    fn address(self, net: u8, host: u16) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, net, host as u8).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, u16::from(net), 0, 0, 0, 0, 0, host).into(),
        }
    }

    /// The client.
    pub fn client(self) -> IpAddr {
        self.address(1, 2)
    }

    /// The router, as packets meet it on their way to the server.
    pub fn router(self) -> IpAddr {
        self.address(2, 1)
    }

    /// Where the client may be hidden.
    pub fn public(self) -> IpAddr {
        self.address(2, 100)
    }

    /// The server.
    pub fn server(self) -> IpAddr {
        self.address(3, 2)
    }

    /// What the server may be reached by.
    pub fn service(self) -> IpAddr {
        self.address(9, 9)
    }

    /// Words of rules: packets of this kind, and where they go.
    fn fields(self) -> [&'static str; 2] {
        match self {
            Self::V4 => ["ip", "nw_dst"],
            Self::V6 => ["ipv6", "ipv6_dst"],
        }
    }

    /// The address as a URL has it.
    pub fn url(ip: IpAddr) -> String {
        if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
    }
}

/// Which addresses the gateway translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The client's.
    pub source: bool,
    /// The server's.
    pub destination: bool,
}

impl Translation {
    /// Neither, one, the other, both.
    pub const ALL: [Self; 4] = [
        Self { source: false, destination: false },
        Self { source: true, destination: false },
        Self { source: false, destination: true },
        Self { source: true, destination: true },
    ];

    /// What the client calls the server.
    pub fn server(self, family: Family) -> IpAddr {
        if self.destination { family.service() } else { family.server() }
    }

    /// What the server calls the client.
    pub fn client(self, family: Family) -> IpAddr {
        if self.source { family.public() } else { family.client() }
    }
}

/// The network. Dropping it removes everything.
#[derive(Debug)]
pub struct Gateway {
    // Dropped in this order: what runs ends before what it stands on goes.
    daemon: Daemon,
    /// `vswitchctl` for the switch.
    pub control: Control,
    /// Where the client is.
    pub client: Netns,
    /// Where the router is.
    pub router: Netns,
    /// Where the server is.
    pub server: Netns,
    /// Where another client is that has the first one's addresses.
    pub twin: Option<Netns>,
    switch: Netns,
    /// Source of traffic.
    pub probe: Probe,
    /// Folder for what servers need.
    pub dir: PathBuf,
    _guard: scenario::Dir,
}

const CLIENT_MAC: &str = "0a:00:00:00:01:02";
const INSIDE_MAC: &str = "0a:00:00:00:01:01";
const OUTSIDE_MAC: &str = "0a:00:00:00:02:fe";
const ROUTER_MAC: &str = "0a:00:00:00:02:01";
const EAST_MAC: &str = "0a:00:00:00:03:01";
const SERVER_MAC: &str = "0a:00:00:00:03:02";

impl Gateway {
    /// Builds it, with a switch that has no rules yet.
    ///
    /// # Errors
    /// When a step fails; what was made is removed.
    pub fn start(prefix: &str, probe: &str) -> Result<Self> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let programs = scenario::target_dir()?;
        let [client, switch, router, server] =
            ["client", "switch", "router", "server"].map(|part| Netns::create(&format!("{prefix}-{part}")));
        let (client, switch, router, server) = (client?, switch?, router?, server?);
        [&client, &switch, &router, &server].into_iter().try_for_each(settle)?;
        let end = |netns, name, mac| End { mac: Some(mac), ..End::new(netns, name) };
        netns::link(end(&client, "eth0", CLIENT_MAC), End::new(&switch, "inside"), MTU)?;
        netns::link(end(&router, "west", ROUTER_MAC), End::new(&switch, "outside"), MTU)?;
        netns::link(end(&router, "east", EAST_MAC), end(&server, "eth0", SERVER_MAC), MTU)?;
        address(&client, &router, &server)?;
        let socket = dir.join("s.sock").display().to_string();
        let state = dir.join("state").display().to_string();
        let args = ["--standalone", "--socket", &socket, "--state-dir", &state, "--log", "info"];
        let program = find_program(&programs, "vswitchd")?;
        let mut daemon = Daemon::start(&switch, &program, &args, &dir.join("s.log"), Life::WithParent)?;
        let control = Control::to_host(&find_program(&programs, "vswitchctl")?, &format!("unix://{socket}"));
        stop::wait_for("vswitchd answers", START_LIMIT, || {
            daemon.check()?;
            let finished = control.attempt(&["status"])?;
            Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
        })?;
        control.text(&["port", "add", "inside", "--number", "1"])?;
        control.text(&["port", "add", "outside", "--number", "2"])?;
        let probe = Probe { program: PathBuf::from(probe), words: Vec::new() };
        let gateway =
            Self { daemon, control, client, router, server, twin: None, switch, probe, dir, _guard: guard };
        gateway.wait_for_links()?;
        Ok(gateway)
    }

    /// The switch notices that a link is up a little later than the interface does.
    fn wait_for_links(&self) -> Result<()> {
        self.set_rules(&["in_port=1,actions=output:2".to_owned(), "in_port=2,actions=output:1".to_owned()])?;
        stop::wait_for("both ports are up", START_LIMIT, || {
            let [inside, outside] = ["inside", "outside"].map(|port| self.control.trace(port, "arp"));
            let verdicts = [inside?.verdict, outside?.verdict];
            Ok(if verdicts == ["forwarded", "forwarded"] { Ok(()) } else { Err(format!("{verdicts:?}")) })
        })?;
        self.set_rules(&[])
    }

    /// Gives the switch just these rules.
    ///
    /// # Errors
    /// When it refuses them.
    pub fn set_rules(&self, rules: &[String]) -> Result<()> {
        let file = self.dir.join("rules");
        fs::write(&file, rules.join("\n"))?;
        self.control.text(&["flow", "replace", &format!("@{}", file.display())]).map(drop)
    }

    /// Another client with the addresses of the first, behind another port of the switch.
    ///
    /// # Errors
    /// When a step fails.
    pub fn add_twin(&mut self, port: u8) -> Result<()> {
        let twin = Netns::create(&self.client.name().replace("-client", "-twin"))?;
        settle(&twin)?;
        let end = End { mac: Some(CLIENT_MAC), ..End::new(&twin, "eth0") };
        netns::link(end, End::new(&self.switch, "twin"), MTU)?;
        address_client(&twin)?;
        self.control.text(&["port", "add", "twin", "--number", &port.to_string()])?;
        self.twin = Some(twin);
        Ok(())
    }

    /// Lets the router know another address of the switch.
    ///
    /// # Errors
    /// When the command fails.
    pub fn add_public(&self, ip: IpAddr) -> Result<()> {
        let ip = ip.to_string();
        self.router.ip(&["neighbour", "add", &ip, "lladdr", OUTSIDE_MAC, "dev", "west"]).map(drop)
    }

    /// Actions that send a packet on to the client by a port, or to the router.
    pub fn forward(to_client: Option<u8>) -> String {
        let (from, to, port) = match to_client {
            Some(port) => (INSIDE_MAC, CLIENT_MAC, port),
            None => (OUTSIDE_MAC, ROUTER_MAC, 2),
        };
        format!("set_field:{from}->dl_src,set_field:{to}->dl_dst,dec_ttl,output:{port}")
    }

    /// Starts a server, or what else goes on until the scenario ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&self, netns: &Netns, program: &str, args: &[&str]) -> Result<Daemon> {
        let log = self.dir.join(format!("{}.log", program.rsplit('/').next().unwrap_or(program)));
        Daemon::start(netns, Path::new(program), args, &log, Life::WithParent)
    }

    /// Runs a command of the client, which may fail.
    ///
    /// # Errors
    /// When it cannot run or does not end.
    pub fn of_client(&self, program: &str, args: &[&str], limit: Duration) -> Result<Finished> {
        command::run(self.client.command(program).args(args), limit)
    }

    /// Every packet that the ports received was forwarded, or dropped under a name; and the daemon still runs.
    ///
    /// # Errors
    /// When not.
    pub fn check(&mut self) -> Result<Vec<PortCounters>> {
        self.daemon.check()?;
        let ports = self.control.check_conservation()?;
        ensure!(ports.iter().all(|port| port.rx_packets > 0), "a port has received nothing: {ports:?}");
        Ok(ports)
    }

    /// What the switch knows, for the error of a scenario that failed.
    pub fn state(&self) -> String {
        let tell = |words: &[&str]| self.control.text(words).unwrap_or_else(|error| format!("{error:#}"));
        let flows = tell(&["flow", "dump"]);
        let used: Vec<&str> = flows.lines().filter(|line| !line.contains("n_packets=0,")).collect();
        format!(
            "--- log\n{}\n--- ports\n{}--- drops\n{}--- rules in use\n{}\n",
            self.daemon.log_tail(20),
            tell(&["port", "list"]),
            tell(&["drops"]),
            used.join("\n")
        )
    }
}

/// Runs a scenario on a gateway. When it fails, what the switch knows is part of the error; when it succeeds,
/// every packet is accounted for.
///
/// # Errors
/// The scenario's own, and when the gateway cannot be built.
pub fn on_gateway(name: &str, probe: &str, scenario: impl FnOnce(&mut Gateway) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let mut gateway = Gateway::start(prefix, probe)?;
        let result = scenario(&mut gateway).and_then(|()| gateway.check().map(drop));
        result.with_context(|| gateway.state())
    })
}

/// Prefix lengths of the networks.
const PREFIX_LEN: [(Family, u8); 2] = [(Family::V4, 24), (Family::V6, 64)];

/// Addresses, routes and neighbours of all three.
fn address(client: &Netns, router: &Netns, server: &Netns) -> Result<()> {
    address_client(client)?;
    for (family, len) in PREFIX_LEN {
        for (netns, interface, net, host) in
            [(router, "west", 2, 1), (router, "east", 3, 1), (server, "eth0", 3, 2)]
        {
            add_address(netns, interface, family.address(net, host), len)?;
        }
        add_default(router, "west", family.address(2, 254), OUTSIDE_MAC)?;
        let public = family.public().to_string();
        router.ip(&["neighbour", "add", &public, "lladdr", OUTSIDE_MAC, "dev", "west"])?;
        let server_address = family.server().to_string();
        router.ip(&["neighbour", "add", &server_address, "lladdr", SERVER_MAC, "dev", "east"])?;
        add_default(server, "eth0", family.address(3, 1), EAST_MAC)?;
    }
    router.set_sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])
}

/// Before there are links: nobody waits for others with the same address, and no error is one too many.
fn settle(netns: &Netns) -> Result<()> {
    netns.set_sysctls(&[
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
    ])
}

fn address_client(client: &Netns) -> Result<()> {
    for (family, len) in PREFIX_LEN {
        add_address(client, "eth0", family.client(), len)?;
        add_default(client, "eth0", family.address(1, 1), INSIDE_MAC)?;
    }
    Ok(())
}

fn add_address(netns: &Netns, interface: &str, ip: IpAddr, len: u8) -> Result<()> {
    let address = format!("{ip}/{len}");
    // Nobody else has it: no need to wait for duplicates.
    let no_dad: &[&str] = if ip.is_ipv6() { &["nodad"] } else { &[] };
    netns.ip(&[&["address", "add", &address, "dev", interface], no_dad].concat()).map(drop)
}

/// A default route by a neighbour that is known beforehand.
fn add_default(netns: &Netns, interface: &str, gateway: IpAddr, mac: &str) -> Result<()> {
    let gateway = gateway.to_string();
    netns.ip(&["neighbour", "add", &gateway, "lladdr", mac, "dev", interface])?;
    netns.ip(&["route", "add", "default", "via", &gateway, "dev", interface]).map(drop)
}
