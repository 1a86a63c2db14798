//! Tunnels to switches of others, over IPv4 and IPv6: the kernel's VXLAN device, and Open vSwitch's Geneve and
//! GRE.
//!
//! ```text
//!   PREFIX-here              PREFIX-switch                        PREFIX-peer
//!   eth0 10.5.0.1 -------- here | underlay 172.31.0.1 ========== underlay 172.31.0.2
//!                     vswitchd --standalone  fd00:31::1 ======== fd00:31::2
//!                                                                 vx0, or Open vSwitch's w0: 10.5.0.2
//! ```

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::control::Control;
use ferroflow_tests::daemon::{Daemon, Life, find_program};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{command, scenario, stop};
use oracle::ovs::package::Package;

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);
/// MTU of the underlay, and what IP, UDP, the tunnel's header without options and Ethernet take of it.
const UNDERLAY_MTU: u32 = 1500;
const OVERHEAD: u32 = 20 + 8 + 8 + 14;
/// Headers of IP and ICMP.
const PING_HEADERS: u32 = 28;
const HERE: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 2);
const PORT: u16 = 5001;
/// Bytes of a transfer.
const LEN: u64 = 8 << 20;

/// What a tunnel goes over.
#[derive(Clone, Copy)]
struct Over {
    local: &'static str,
    peer: &'static str,
    /// The field of rules with the peer.
    field: &'static str,
    /// What an outer header takes.
    overhead: u32,
}

const IPV4: Over = Over { local: "172.31.0.1", peer: "172.31.0.2", field: "tun_dst", overhead: OVERHEAD };
const IPV6: Over =
    Over { local: "fd00:31::1", peer: "fd00:31::2", field: "tun_ipv6_dst", overhead: OVERHEAD + 20 };

/// A switch by hand, between a workload and an underlay.
struct Site {
    over: Over,
    // Dropped in this order.
    daemon: Daemon,
    control: Control,
    here: Netns,
    peer: Netns,
    switch: Netns,
    probe: Probe,
    _dir: scenario::Dir,
    path: PathBuf,
}

impl Site {
    fn start(prefix: &str, over: Over) -> Result<Self> {
        let path = scenario::dir(prefix);
        let dir = scenario::Dir::create(&path)?;
        let [here, switch, peer] =
            ["here", "switch", "peer"].map(|part| Netns::create(&format!("{prefix}-{part}")));
        let (here, switch, peer) = (here?, switch?, peer?);
        let address = format!("{HERE}/24");
        let inner = End { address: Some(&address), ..End::new(&here, "eth0") };
        netns::link(inner, End::new(&switch, "here"), UNDERLAY_MTU - over.overhead)?;
        netns::link(
            End { address: Some("172.31.0.1/30"), ..End::new(&switch, "underlay") },
            End { address: Some("172.31.0.2/30"), ..End::new(&peer, "underlay") },
            UNDERLAY_MTU,
        )?;
        for (netns, address) in [(&switch, "fd00:31::1/64"), (&peer, "fd00:31::2/64")] {
            netns.ip(&["address", "add", address, "dev", "underlay", "nodad"])?;
        }
        let [socket, state] = ["s.sock", "state"].map(|name| path.join(name).display().to_string());
        #[rustfmt::skip]
        let args = [
            "--standalone", "--socket", &socket, "--state-dir", &state, "--uplink", "underlay",
            "--encap-ip", over.local, "--encap-type", "geneve,vxlan,gre", "--tunnel-peer", over.peer,
        ];
        let programs = scenario::target_dir()?;
        let program = find_program(&programs, "vswitchd")?;
        let mut daemon = Daemon::start(&switch, &program, &args, &path.join("s.log"), Life::WithParent)?;
        let control = Control::to_host(&find_program(&programs, "vswitchctl")?, &format!("unix://{socket}"));
        stop::wait_for("vswitchd answers", LIMIT, || {
            daemon.check()?;
            let finished = control.attempt(&["status"])?;
            Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
        })?;
        control.text(&["port", "add", "here"])?;
        let probe = Probe { program: PathBuf::from(PROBE), words: Vec::new() };
        Ok(Self { over, daemon, control, here, peer, switch, probe, _dir: dir, path })
    }

    /// Joins the workload to a network of the peer by a tunnel.
    fn join(&self, tunnel: &str, key: u32) -> Result<()> {
        let rules = [
            format!(
                "in_port=here,actions=set_field:{}->{},set_field:{key}->tun_id,output:{tunnel}",
                self.over.peer, self.over.field
            ),
            format!("in_port={tunnel},tun_id={key},actions=output:here"),
        ];
        let file = self.path.join("rules");
        fs::write(&file, rules.join("\n"))?;
        self.control.text(&["flow", "replace", &format!("@{}", file.display())]).map(drop)
    }

    /// Packets of all sizes and streams pass, both ways.
    fn talk(&self) -> Result<()> {
        stop::wait_for("the peer answers", LIMIT, || {
            let result = self.probe.ping(&self.here, THERE, 1, 56)?;
            Ok(if result.n_received == 1 { Ok(()) } else { Err("no answer".to_owned()) })
        })?;
        let largest = (UNDERLAY_MTU - self.over.overhead - PING_HEADERS) as usize;
        for (from, to) in [(&self.here, THERE), (&self.peer, HERE)] {
            for len in [0, 56, largest] {
                let result = self.probe.ping(from, to, 3, len)?;
                ensure!(result.n_received == 3, "{len} bytes to {to}: {result:?}");
            }
        }
        for (from, at, ip) in [(&self.here, &self.peer, THERE), (&self.peer, &self.here, HERE)] {
            let to = SocketAddrV4::new(ip, PORT);
            let (sent, received) = self.probe.transfer(from, (at, to), LEN, LIMIT)?;
            ensure!(received.len == LEN && sent.sha256 == received.sha256, "{to}: {sent:?}, {received:?}");
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.daemon.check()?;
        self.control.check_conservation().map(drop)
    }
}

fn on_site(name: &str, over: Over, run: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let mut site = Site::start(prefix, over)?;
        let result = run(&mut site).and_then(|()| site.check());
        let told = || {
            let tell = |words: &[&str]| site.control.text(words).unwrap_or_else(|error| format!("{error:#}"));
            let (ports, drops) = (tell(&["port", "list"]), tell(&["drops"]));
            format!("{}\n{}\n{ports}{drops}", site.daemon.log_tail(20), site.path.display())
        };
        result.with_context(told)
    })
}

#[test]
fn the_kernels_vxlan_device_is_at_the_other_end() -> Result<()> {
    kernel("the_kernels_vxlan_device_is_at_the_other_end", IPV4)
}

#[test]
fn the_kernels_vxlan_device_is_reached_over_ipv6() -> Result<()> {
    kernel("the_kernels_vxlan_device_is_reached_over_ipv6", IPV6)
}

fn kernel(name: &str, over: Over) -> Result<()> {
    on_site(name, over, |site| {
        site.join("vxlan", 7)?;
        #[rustfmt::skip]
        site.peer.ip(&[
            "link", "add", "vx0", "type", "vxlan", "id", "7", "local", over.peer, "remote", over.local,
            "dstport", "4789",
        ])?;
        site.peer.ip(&["address", "add", &format!("{THERE}/24"), "dev", "vx0"])?;
        site.peer.ip(&["link", "set", "vx0", "up"])?;
        site.talk()?;
        // Another network of the same peer is not this one.
        site.join("vxlan", 8)?;
        let result = site.probe.ping(&site.here, THERE, 2, 56)?;
        ensure!(result.n_received == 0, "network 8 is answered by network 7");
        Ok(())
    })
}

/// Open vSwitch's programs in the peer's namespace, its switch in userspace.
struct Ovs<'a> {
    package: Package,
    site: &'a Site,
    dir: PathBuf,
    daemons: Vec<Daemon>,
}

impl Ovs<'_> {
    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = self.site.peer.command("env");
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.arg(format!("OVS_{name}={}", self.dir.display()));
        }
        command.arg(format!("LD_LIBRARY_PATH={}", self.package.libraries()));
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(self.package.file(program)).args(words);
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(program, words), LIMIT)
    }

    fn vsctl(&self, words: &str) -> Result<()> {
        self.run("usr/bin/ovs-vsctl", &words.split_whitespace().collect::<Vec<_>>()).map(drop)
    }

    fn daemon(&mut self, program: &str, words: &[&str], socket: &str) -> Result<()> {
        let log = self.dir.join(format!("{}.log", self.daemons.len()));
        let mut daemon = Daemon::spawn(self.command(program, words), program.to_owned(), &log)?;
        let socket = self.dir.join(socket);
        stop::wait_for("Open vSwitch listens", LIMIT, || {
            daemon.check()?;
            Ok(if socket.exists() { Ok(()) } else { Err(format!("no {}", socket.display())) })
        })?;
        self.daemons.push(daemon);
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let schema = self.package.file("usr/share/openvswitch/vswitch.ovsschema").display().to_string();
        let [database, db, control] =
            ["conf.db", "db.sock", "ctl"].map(|name| self.dir.join(name).display().to_string());
        self.run("usr/bin/ovsdb-tool", &["create", &database, &schema])?;
        self.daemon("usr/sbin/ovsdb-server", &[&format!("--remote=punix:{db}"), &database], "db.sock")?;
        self.vsctl("--no-wait init")?;
        let words = ["--disable-system", &format!("--unixctl={control}"), &format!("unix:{db}")];
        self.daemon("usr/lib/openvswitch-switch/ovs-vswitchd", &words, "ctl")
    }
}

#[test]
fn open_vswitchs_geneve_is_at_the_other_end() -> Result<()> {
    open_vswitch("open_vswitchs_geneve_is_at_the_other_end", IPV4, "geneve")
}

#[test]
fn open_vswitchs_geneve_is_reached_over_ipv6() -> Result<()> {
    open_vswitch("open_vswitchs_geneve_is_reached_over_ipv6", IPV6, "geneve")
}

#[test]
fn open_vswitchs_gre_is_at_the_other_end() -> Result<()> {
    open_vswitch("open_vswitchs_gre_is_at_the_other_end", IPV4, "gre")
}

fn open_vswitch(name: &str, over: Over, kind: &str) -> Result<()> {
    let Some(package) = Package::get_or_skip(name)? else { return Ok(()) };
    on_site(name, over, |site| {
        site.join(kind, 9)?;
        // What leaves is as on a wire, not as it is between namespaces: of that, Open vSwitch knows nothing.
        let words = ["-K", "underlay", "tx", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off"];
        command::output(site.switch.command("ethtool").args(words), LIMIT)?;
        let dir = site.path.join("ovs");
        fs::create_dir_all(&dir)?;
        let mut ovs = Ovs { package, site, dir, daemons: Vec::new() };
        ovs.start()?;
        let mac = site.peer.ip(&["-o", "link", "show", "underlay"])?;
        let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC")?;
        ovs.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other-config:hwaddr=\"{mac}\" \
             -- add-port br-phy underlay"
        ))?;
        ovs.vsctl(&format!(
            "add-br br-int -- set bridge br-int datapath_type=netdev -- add-port br-int gnv0 \
             -- set interface gnv0 type={kind} options:remote_ip=\"{}\" options:key=9 \
             -- add-port br-int w0 -- set interface w0 type=internal",
            over.local
        ))?;
        // Its address on the underlay is that of its bridge now.
        let peer = &site.peer;
        peer.ip(&["address", "flush", "dev", "underlay"])?;
        peer.ip(&["link", "set", "br-phy", "up"])?;
        peer.ip(&["address", "add", "172.31.0.2/30", "dev", "br-phy"])?;
        peer.ip(&["address", "add", "fd00:31::2/64", "dev", "br-phy", "nodad"])?;
        peer.ip(&["address", "add", &format!("{THERE}/24"), "dev", "w0"])?;
        peer.ip(&["link", "set", "w0", "mtu", &(UNDERLAY_MTU - over.overhead).to_string(), "up"])?;
        site.talk()
    })
}
