//! What `vswitchd` takes on its command line.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use credentials::Address;
use dataplane::{AfXdpBackend, AfXdpConfig, Pin};
use flowtable::program::TunnelKind;
use supervision::log::Format;

use crate::{bfd::Timing, host::LAB_UPLINK, tunnel_endpoint::OwnAddress};

/// The host daemon of Ferroflow: forwards packets, and realises its part of the logical
/// network.
#[derive(Debug, Parser)]
#[command(name = "vswitchd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: RunOptions,
}

/// What else it can do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Lists what this host can do, and what to do about what it cannot.
    Doctor,
    /// Runs nft for a daemon, which starts it.
    #[command(hide = true)]
    Nft,
}

/// What a switch without rules does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailMode {
    /// It drops everything
    Secure,
    /// It is a learning switch: it begins with the one rule `priority=0,actions=NORMAL`
    Standalone,
}

/// Whose the uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UplinkMode {
    /// The host's: only tunnelled packets are taken from it
    Shared,
    /// The switch's: it takes all frames by AF_XDP, and the host goes on by an internal port with the
    /// uplink's addresses and routes
    Owned,
}

/// Whose AF_XDP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AfXdp {
    /// Our own, whose memory ports share: packets are not copied from one to the other
    Own,
    /// Those of the library xsk-rs
    XskRs,
}

/// How to run.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Id of this host among all hosts; its hostname by default.
    #[arg(long)]
    pub chassis: Option<String>,
    /// Address that other hosts send tunnelled packets to; it must be on the uplink. Of a lab with a
    /// controller any, for it has an uplink that leads nowhere.
    #[arg(long, value_name = "IP")]
    pub encap_ip: Option<IpAddr>,
    /// Interface that carries tunnelled packets. The host keeps all its other traffic.
    #[arg(long, value_name = "INTERFACE", requires = "encap_ip")]
    pub uplink: Option<String>,
    /// Whose the uplink is; see docs/ports.md.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = UplinkMode::Shared, requires_ifs = [("owned", "uplink")])]
    pub uplink_mode: UplinkMode,
    /// Name of the host's internal port, with --uplink-mode owned
    /// [default: that of the uplink and `-host`]
    #[arg(long, value_name = "INTERFACE", requires = "uplink")]
    pub internal_port: Option<String>,
    /// The address of --encap-ip is the switch's own, in a net of this length, and the host does not have it:
    /// the switch answers for it. Needs --uplink-mode owned
    #[arg(long, value_name = "LEN", requires = "uplink", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub encap_prefix: Option<u8>,
    /// Router that leads out of that net
    #[arg(long, value_name = "IP", requires = "encap_prefix")]
    pub encap_gateway: Option<IpAddr>,
    /// How other hosts may send to this one, the way it likes best first: `geneve`, `vxlan` or
    /// both, as `vxlan,geneve`. Each host sends by the first one that it has itself. Rules by hand
    /// (--standalone) may have `gre` as well
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "geneve", value_parser = encap_type)]
    pub encap_type: Vec<TunnelKind>,
    /// Without a network: who may send tunnelled packets, and whom rules may send them to; repeat it
    #[arg(long, value_name = "IP", requires_all = ["standalone", "uplink"])]
    pub tunnel_peer: Vec<IpAddr>,
    /// Controller: https://HOST:PORT, http://HOST:PORT, HOST:PORT (with --credentials the former) or
    /// unix:///PATH. Where a network has several, repeat it: when one does not answer, the next is
    /// asked. None: forward what is known.
    #[arg(long, value_name = "ADDRESS")]
    pub controller: Vec<Address>,
    /// Directory made by `vswitchctl pki issue DIR chassis ID`: this host shows its certificate to
    /// controllers, and takes nobody for one without. Its files may be replaced at any time.
    #[arg(long, value_name = "DIR", requires = "controller")]
    pub credentials: Option<PathBuf>,
    /// Speak with controllers on other machines without TLS.
    #[arg(long, conflicts_with = "credentials")]
    pub insecure_plaintext: bool,
    /// Socket for vswitchctl and the container shims.
    #[arg(long, value_name = "PATH", default_value = "/run/ferroflow/vswitchd.sock")]
    pub socket: PathBuf,
    /// Directory for what must outlive the process: ports, and the last known network or
    /// the rules written by hand
    /// [default: /var/lib/ferroflow/vswitchd; with --standalone:
    /// /var/lib/ferroflow/standalone; with --virtual: none, nothing is kept]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// A lab: a switch without interfaces, whose ports are queues of frames, whose clock
    /// obeys, and whose rules are written by hand, unless there is a controller. Needs no
    /// privilege; see `vswitchctl lab --help`.
    #[arg(long, conflicts_with_all = ["uplink", "core", "busy"])]
    pub r#virtual: bool,
    /// A switch of interfaces without a controller: its rules are written by hand, with
    /// `vswitchctl flow`, `group` and `meter`. Without rules it drops everything. With an uplink
    /// it has ports `geneve` and `vxlan`, as --encap-type says.
    #[arg(long, conflicts_with_all = ["controller", "virtual"])]
    pub standalone: bool,
    /// What a standalone switch does at its first start, when it has no rules
    #[arg(long, value_enum, value_name = "MODE", default_value_t = FailMode::Secure, requires = "standalone")]
    pub fail_mode: FailMode,
    /// Connections that can be tracked, for 128 bytes of memory each; one with a helper, or of
    /// translated TCP over IPv6, takes the place of two.
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..=1 << 26))]
    pub conntrack_max: u32,
    /// Core to run on; repeat it for several workers. None: one worker, wherever the
    /// kernel likes.
    #[arg(long, value_name = "N")]
    pub core: Vec<usize>,
    /// Never sleep: for cores that have nothing else to do.
    #[arg(long)]
    pub busy: bool,
    /// The sockets of AF_XDP ports
    #[arg(long, value_enum, value_name = "SOCKETS", default_value_t = AfXdp::Own, conflicts_with = "virtual")]
    pub af_xdp: AfXdp,
    /// Have workers poll network cards themselves, up to so many frames at a time; a card's
    /// interrupts stay off meanwhile if its `napi_defer_hard_irqs` and `gro_flush_timeout` are
    /// set. For `--busy`.
    #[arg(long, value_name = "N", requires = "busy", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub af_xdp_busy_poll: Option<u16>,
    /// How often this host and others that may be gateways tell each other that they live,
    /// in milliseconds; between two hosts the longer one holds
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(20..=60_000))]
    pub bfd_interval: u32,
    /// So many intervals without a word, and a host is taken for dead
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub bfd_multiplier: u8,
    /// Tie a receive queue to a worker: `eth1/0=1` the first queue of eth1, `eth1=1` all of
    /// them, to the second worker; repeat it for others. The rest goes where there is least.
    #[arg(long, value_name = "PORT[/QUEUE]=WORKER", value_parser = pin, conflicts_with = "virtual")]
    pub pin: Vec<Pin>,
    /// First packets of flows in a second that each port may send to each worker; more are
    /// dropped as `miss-quota`. 0: no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port_misses: u32,
    /// Megaflows that each port may have on each worker. 0: as there is room.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port_megaflows: u32,
    /// New sessions in a second that each port may make on each worker while sessions are
    /// nearly full. 0: no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port_sessions: u32,
    /// Move receive queues to other workers when one has been overloaded for a minute; see
    /// `vswitchctl worker --help`.
    #[arg(long, conflicts_with = "virtual")]
    pub auto_balance: bool,
    /// Where the vswitch-holder listens that has started this daemon: sockets of ports and
    /// tracked connections then outlive the daemon; see docs/restarts.md.
    #[arg(long, value_name = "PATH", conflicts_with = "virtual")]
    pub holder: Option<PathBuf>,
    /// What to log, for example `info` or `dataplane=debug`.
    #[arg(long, default_value = "info")]
    pub log: String,
    /// How lines of the log look: `text`, or `json`, an object each
    #[arg(long, value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
    /// Where to show metrics to Prometheus, and whether the daemon is ready: `127.0.0.1:9475`,
    /// with /metrics, /healthz and /readyz. None: nowhere.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
}

/// Longest name of an interface.
const MAX_INTERFACE_LEN: usize = 15;
/// Where the state of a switch of real interfaces is kept.
const STATE_DIR: &str = "/var/lib/ferroflow/vswitchd";
/// Where that of one without a controller is: its ports have other numbers.
const STANDALONE_STATE_DIR: &str = "/var/lib/ferroflow/standalone";

impl RunOptions {
    /// How AF_XDP ports are had.
    pub fn af_xdp(&self) -> AfXdpConfig {
        let backend = match self.af_xdp {
            AfXdp::Own => AfXdpBackend::Own,
            AfXdp::XskRs => AfXdpBackend::XskRs,
        };
        AfXdpConfig { backend, busy_poll: self.af_xdp_busy_poll }
    }

    /// What goes together.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self) -> Result<(), &'static str> {
        let has_network = !self.controller.is_empty();
        match (self.r#virtual, self.encap_ip.is_some()) {
            (false, true) if self.uplink.is_none() => Err("--encap-ip needs its --uplink"),
            (true, true) if !has_network => Err("--virtual takes --encap-ip only with a --controller"),
            (true, false) if has_network => Err("--virtual with a --controller needs an --encap-ip"),
            _ if self.internal_port.is_some() && self.uplink_mode == UplinkMode::Shared => {
                Err("--internal-port is for --uplink-mode owned")
            }
            _ if self.encap_prefix.is_some() && self.uplink_mode == UplinkMode::Shared => {
                Err("--encap-prefix is for --uplink-mode owned: a shared uplink's address is the host's")
            }
            _ if self.own_address().is_some_and(|own| !is_net(&own)) => Err(
                "--encap-prefix is longer than an address of --encap-ip, or --encap-gateway is not in that net",
            ),
            _ if self.internal().is_some_and(|name| name.len() > MAX_INTERFACE_LEN) => Err(
                "the internal port's name is too long for an interface; give it another one with --internal-port",
            ),
            _ if self.internal().is_some() && self.internal() == self.uplink => Err(
                "--internal-port and --uplink are one interface; the internal port is made, so give it a name of its own",
            ),
            _ if self.encap_type.contains(&TunnelKind::Gre) && !self.standalone => {
                Err("--encap-type gre is for --standalone: it has no room for a port of the network")
            }
            _ if self.encap_type.iter().collect::<BTreeSet<_>>().len() < self.encap_type.len() => {
                Err("--encap-type has one twice")
            }
            _ => Ok(()),
        }
    }

    /// Interface by which the host goes on, when the switch has the uplink for itself.
    pub fn internal(&self) -> Option<String> {
        let uplink = self.uplink.as_ref().filter(|_| self.uplink_mode == UplinkMode::Owned)?;
        Some(self.internal_port.clone().unwrap_or_else(|| format!("{uplink}-host")))
    }

    /// The tunnels' address, when it is the switch's own.
    pub fn own_address(&self) -> Option<OwnAddress> {
        let (address, prefix_len) = self.encap_ip.zip(self.encap_prefix)?;
        Some(OwnAddress { address, prefix_len, gateway: self.encap_gateway })
    }

    /// Directory for what must outlive the process, if anything must.
    pub fn state_dir(&self) -> Option<&Path> {
        match &self.state_dir {
            Some(dir) => Some(dir),
            None if self.standalone => Some(Path::new(STANDALONE_STATE_DIR)),
            None => (!self.r#virtual).then_some(Path::new(STATE_DIR)),
        }
    }

    /// How this host finds out whether others live.
    pub fn liveness(&self) -> Timing {
        Timing { interval: Duration::from_millis(self.bfd_interval.into()), multiplier: self.bfd_multiplier }
    }

    /// The tunnel endpoint, when this host has one.
    pub fn endpoint(&self) -> Option<(String, IpAddr)> {
        let uplink = if self.r#virtual { Some(LAB_UPLINK.to_owned()) } else { self.uplink.clone() };
        Some((uplink?, self.encap_ip?))
    }
}

/// The net is one, and its gateway is in it.
fn is_net(own: &OwnAddress) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (32, u128::from(ip.to_bits()) << 96),
        IpAddr::V6(ip) => (128, ip.to_bits()),
    };
    let ((width, address), len) = (bits(own.address), own.prefix_len);
    let is_near = |gateway: IpAddr| {
        let (other_width, other) = bits(gateway);
        other_width == width && other != address && (other ^ address) >> (128 - u32::from(len)) == 0
    };
    len <= width && own.gateway.is_none_or(is_near)
}

/// Reads the name of an encapsulation.
fn encap_type(name: &str) -> Result<TunnelKind, String> {
    TunnelKind::of_name(name).ok_or_else(|| "write geneve, vxlan or gre, or several with commas".to_owned())
}

/// Reads a pin.
fn pin(text: &str) -> Result<Pin, String> {
    let shape = || format!("{text:?}: write PORT=WORKER or PORT/QUEUE=WORKER, both numbers from 0");
    let (place, worker) = text.rsplit_once('=').ok_or_else(shape)?;
    let (port, queue) = match place.split_once('/') {
        Some((port, queue)) => (port, Some(queue.parse().map_err(|_| shape())?)),
        None => (place, None),
    };
    if port.is_empty() {
        return Err(shape());
    }
    Ok(Pin { port: port.to_owned(), queue, worker: worker.parse().map_err(|_| shape())? })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_lab_has_no_uplink_and_keeps_nothing_unless_told_to() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["vswitchd"], words].concat()).map(|cli| cli.run);
        assert!(parse(&["--virtual", "--uplink", "eth0", "--encap-ip", "192.0.2.1"]).is_err());
        assert_eq!(parse(&["--virtual"]).unwrap().state_dir(), None);
        assert_eq!(parse(&["--virtual", "--state-dir", "/x"]).unwrap().state_dir(), Some(Path::new("/x")));
        assert_eq!(parse(&[]).unwrap().state_dir(), Some(Path::new(STATE_DIR)));
    }

    #[test]
    fn a_standalone_switch_has_no_controller() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["vswitchd"], words].concat()).map(|cli| cli.run);
        assert!(parse(&["--standalone", "--controller", "http://c:1"]).is_err());
        assert!(parse(&["--standalone", "--virtual"]).is_err());
        assert!(parse(&["--fail-mode", "standalone"]).is_err());
        let learning = parse(&["--standalone", "--fail-mode", "standalone"]).unwrap();
        assert_eq!(learning.fail_mode, FailMode::Standalone);
        assert_eq!(parse(&["--standalone"]).unwrap().state_dir(), Some(Path::new(STANDALONE_STATE_DIR)));
    }

    #[test]
    fn encapsulations_come_in_the_order_of_liking() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["vswitchd"], words].concat()).map(|cli| cli.run);
        let types = |text: &str| parse(&["--encap-type", text]).map(|run| run.encap_type);
        assert_eq!(parse(&[]).unwrap().encap_type, [TunnelKind::Geneve]);
        assert_eq!(types("vxlan").unwrap(), [TunnelKind::Vxlan]);
        assert_eq!(types("vxlan,geneve").unwrap(), [TunnelKind::Vxlan, TunnelKind::Geneve]);
        assert!(types("stt").is_err() && types("").is_err());
        assert!(parse(&["--encap-type", "geneve,gre"]).unwrap().check().is_err());
        assert!(parse(&["--standalone", "--encap-type", "geneve,gre"]).unwrap().check().is_ok());
        assert!(parse(&["--encap-type", "vxlan,vxlan"]).unwrap().check().is_err());
        assert!(parse(&["--tunnel-peer", "192.0.2.2"]).is_err());
        let by_hand =
            ["--standalone", "--uplink", "eth0", "--encap-ip", "192.0.2.1", "--tunnel-peer", "192.0.2.2"];
        assert!(parse(&by_hand).unwrap().check().is_ok());
    }

    #[test]
    fn pins_name_a_port_and_perhaps_a_queue() {
        let of = |port: &str, queue, worker| Ok(Pin { port: port.to_owned(), queue, worker });
        assert_eq!(pin("eth1=1"), of("eth1", None, 1));
        assert_eq!(pin("eth1/3=0"), of("eth1", Some(3), 0));
        for wrong in ["eth1", "=1", "/0=1", "eth1/=1", "eth1/x=1", "eth1=", "eth1=-1"] {
            assert!(pin(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_owned_uplink_has_an_internal_port() {
        let base = ["vswitchd", "--uplink", "eth0", "--encap-ip", "192.0.2.1"];
        let parse = |words: &[&str]| Cli::try_parse_from([&base, words].concat()).map(|cli| cli.run);
        assert_eq!(parse(&[]).unwrap().internal(), None);
        let owned = parse(&["--uplink-mode", "owned"]).unwrap();
        assert!(owned.check().is_ok());
        assert_eq!(owned.internal().as_deref(), Some("eth0-host"));
        let named = |name: &str| parse(&["--uplink-mode", "owned", "--internal-port", name]).unwrap();
        assert_eq!(named("host0").internal().as_deref(), Some("host0"));
        assert!(named("host0").check().is_ok() && named("eth0").check().is_err());
        assert!(named("a-name-too-long-x").check().is_err());
        assert!(parse(&["--internal-port", "host0"]).unwrap().check().is_err());
        assert!(Cli::try_parse_from(["vswitchd", "--uplink-mode", "owned"]).is_err());
    }

    #[test]
    fn an_address_of_the_switchs_own_is_in_a_net() {
        let base = ["vswitchd", "--uplink", "eth0", "--encap-ip", "192.0.2.9", "--uplink-mode", "owned"];
        let parse = |words: &[&str]| Cli::try_parse_from([&base, words].concat()).map(|cli| cli.run);
        assert_eq!(parse(&[]).unwrap().own_address(), None);
        let check = |words: &[&str]| parse(words).unwrap().check();
        assert!(check(&["--encap-prefix", "24"]).is_ok());
        assert!(check(&["--encap-prefix", "24", "--encap-gateway", "192.0.2.1"]).is_ok());
        for wrong in ["192.0.3.1", "192.0.2.9", "2001:db8::1"] {
            assert!(check(&["--encap-prefix", "24", "--encap-gateway", wrong]).is_err(), "{wrong}");
        }
        assert!(check(&["--encap-prefix", "33"]).is_err());
        assert!(parse(&["--encap-gateway", "192.0.2.1"]).is_err());
        let shared = ["vswitchd", "--uplink", "eth0", "--encap-ip", "192.0.2.9", "--encap-prefix", "24"];
        assert!(Cli::try_parse_from(shared).unwrap().run.check().is_err());
    }

    #[test]
    fn an_uplink_needs_its_address() {
        assert!(Cli::try_parse_from(["vswitchd", "--uplink", "eth0"]).is_err());
        let parse = |words: &[&str]| Cli::try_parse_from([&["vswitchd"], words].concat()).unwrap().run;
        assert!(parse(&["--encap-ip", "192.0.2.1"]).check().is_err());
        assert!(parse(&["--virtual", "--controller", "http://c:1"]).check().is_err());
        assert!(parse(&["--virtual", "--encap-ip", "192.0.2.1"]).check().is_err());
        let lab = parse(&["--virtual", "--controller", "http://c:1", "--encap-ip", "192.0.2.1"]);
        assert!(lab.check().is_ok() && lab.endpoint().is_some());
        assert!(Cli::try_parse_from(["vswitchd", "--uplink", "eth0", "--encap-ip", "192.0.2.1"]).is_ok());
    }
}
