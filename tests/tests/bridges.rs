//! A bridge beside others' bridges: the kernel's, and Open vSwitch.
//!
//! ```text
//!   PREFIX-left         PREFIX-switch                  PREFIX-peer          PREFIX-right
//!   eth0 10.0.0.1 ----- left | l1 ======== p1 | right ----- eth0 10.0.0.2
//!                     vswitchd l2 ======== p2 | bridge
//! ```

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::control::Control;
use ferroflow_tests::daemon::{Daemon, Life, find_program};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::{command, scenario, stop};
use oracle::ovs::package::Package;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
/// Trees of STP with the shortest times take less.
const TREE_LIMIT: Duration = Duration::from_secs(60);
const MTU: u32 = 1500;

/// Two hosts, and a switch and another bridge between them. Dropping it removes everything.
struct Row {
    // Dropped in this order: what runs ends before what it stands on goes.
    daemon: Daemon,
    control: Control,
    left: Netns,
    #[expect(dead_code, reason = "it answers")]
    right: Netns,
    #[expect(dead_code, reason = "the daemon is in it")]
    switch: Netns,
    dir: PathBuf,
    _guard: scenario::Dir,
}

impl Row {
    /// All but what makes the peer a bridge, whose name space is handed out for that.
    fn start(prefix: &str) -> Result<(Self, Netns)> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let [left, switch, peer, right] =
            ["left", "switch", "peer", "right"].map(|part| Netns::create(&format!("{prefix}-{part}")));
        let (left, switch, peer, right) = (left?, switch?, peer?, right?);
        for netns in [&left, &switch, &peer, &right] {
            netns.set_sysctls(&[
                ("net.ipv6.conf.all.disable_ipv6", "1"),
                ("net.ipv6.conf.default.disable_ipv6", "1"),
            ])?;
        }
        netns::link(End::new(&left, "eth0"), End::new(&switch, "left"), MTU)?;
        netns::link(End::new(&switch, "l1"), End::new(&peer, "p1"), MTU)?;
        netns::link(End::new(&switch, "l2"), End::new(&peer, "p2"), MTU)?;
        netns::link(End::new(&right, "eth0"), End::new(&peer, "right"), MTU)?;
        for (netns, address) in [(&left, "10.0.0.1/24"), (&right, "10.0.0.2/24")] {
            netns.ip(&["address", "add", address, "dev", "eth0"])?;
        }
        let programs = scenario::target_dir()?;
        let socket = dir.join("s.sock").display().to_string();
        let args = ["--standalone", "--fail-mode", "standalone", "--socket", &socket, "--log", "info"];
        let state = ["--state-dir", &dir.join("state").display().to_string()].map(str::to_owned);
        let args: Vec<&str> = args.into_iter().chain(state.iter().map(String::as_str)).collect();
        let program = find_program(&programs, "vswitchd")?;
        let mut daemon = Daemon::start(&switch, &program, &args, &dir.join("s.log"), Life::WithParent)?;
        let control = Control::to_host(&find_program(&programs, "vswitchctl")?, &format!("unix://{socket}"));
        stop::wait_for("vswitchd answers", LIMIT, || {
            daemon.check()?;
            let finished = control.attempt(&["status"])?;
            Ok(if finished.status.success() { Ok(()) } else { Err(command::complaint(&finished)) })
        })?;
        Ok((Self { daemon, control, left, right, switch, dir, _guard: guard }, peer))
    }

    /// What is to be there when frames may go in circles only by mistake.
    fn add_ports(&self) -> Result<()> {
        ["left", "l1", "l2"].iter().try_for_each(|port| self.control.text(&["port", "add", port]).map(drop))
    }

    fn set(&self, changes: &[&str]) -> Result<()> {
        self.control.text(&[&["bridge", "set", "br0"], changes].concat()).map(drop)
    }

    fn protocols(&self) -> Result<Value> {
        self.control.json(&["bridge", "protocols", "br0"])
    }

    /// The left host reaches the right one, sooner or later.
    fn wait_for_ping(&self, limit: Duration) -> Result<()> {
        stop::wait_for("the right host answers", limit, || {
            let mut ping = self.left.command("ping");
            let finished = command::run(ping.args(["-c", "1", "-W", "1", "10.0.0.2"]), LIMIT)?;
            Ok(if finished.status.success() { Ok(()) } else { Err("no answer".to_owned()) })
        })
    }

    /// A broadcast comes over once, and nothing goes round.
    fn check_quiet(&self) -> Result<()> {
        let received =
            || -> Result<u64> { Ok(self.control.ports()?.iter().map(|port| port.rx_packets).sum()) };
        let before = received()?;
        std::thread::sleep(Duration::from_secs(1));
        let n = received()? - before;
        ensure!(n < 100, "{n} packets in a second: something goes in circles");
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.daemon.check()?;
        self.control.check_conservation().map(drop)
    }

    fn told(&self) -> String {
        let tell = |words: &[&str]| self.control.text(words).unwrap_or_else(|error| format!("{error:#}"));
        format!(
            "--- log\n{}\n--- protocols\n{}--- ports\n{}--- drops\n{}",
            self.daemon.log_tail(20),
            tell(&["bridge", "protocols", "br0"]),
            tell(&["port", "list"]),
            tell(&["drops"])
        )
    }
}

fn on_row(name: &str, scenario: impl FnOnce(&Row, &Netns) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let (mut row, peer) = Row::start(prefix)?;
        let result = scenario(&row, &peer).and_then(|()| row.check());
        result.with_context(|| row.told())
    })
}

/// Names of the spanning tree's ports in this state.
fn in_state<'a>(protocols: &'a Value, state: &str) -> Vec<&'a str> {
    let ports = protocols["spanning_tree"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    ports.iter().filter(|port| port["state"] == state).filter_map(|port| port["name"].as_str()).collect()
}

/// Ports of the kernel's bridge that forward.
fn forwarding(peer: &Netns) -> Result<Vec<String>> {
    let text = command::output(peer.command("bridge").args(["-j", "link", "show"]), LIMIT)?;
    let ports: Vec<Value> = serde_json::from_str(&text)?;
    let up = ports.iter().filter(|port| port["state"] == "forwarding");
    Ok(up.filter_map(|port| port["ifname"].as_str().map(str::to_owned)).collect())
}

#[test]
fn the_kernels_bridge_and_this_one_agree_on_a_tree() -> Result<()> {
    on_row("the_kernels_bridge", |row, peer| {
        let times = ["stp_state", "1", "forward_delay", "400", "hello_time", "100", "max_age", "600"];
        peer.ip(&[&["link", "add", "bridge0", "type", "bridge"], &times[..]].concat())?;
        for port in ["p1", "p2", "right"] {
            peer.ip(&["link", "set", port, "master", "bridge0"])?;
        }
        row.set(&[
            "spanning-tree.protocol=rstp",
            "spanning-tree.priority=4096",
            "spanning-tree.hello-time=1",
            "spanning-tree.max-age=6",
            "spanning-tree.forward-delay=4",
            "spanning-tree.ports.left.edge=true",
        ])?;
        row.add_ports()?;
        peer.ip(&["link", "set", "bridge0", "up"])?;
        row.wait_for_ping(TREE_LIMIT)?;
        // This one is the root, the kernel has blocked one of the links, and STP is spoken.
        let protocols = row.protocols()?;
        ensure!(protocols["spanning_tree"]["root_port"] == "", "{protocols}");
        let ports = protocols["spanning_tree"]["ports"].as_array().context("no ports")?;
        ensure!(ports.iter().filter(|port| port["rapid"] == false).count() == 2, "{protocols}");
        let open = forwarding(peer)?;
        let used: Vec<_> = open.iter().filter(|port| port.starts_with('p')).collect();
        ensure!(used.len() == 1, "the kernel forwards by {open:?}");
        row.check_quiet()?;
        // The other link takes over.
        peer.ip(&["link", "set", used[0], "down"])?;
        row.wait_for_ping(TREE_LIMIT)?;
        row.check_quiet()
    })
}

/// Open vSwitch in a name space, with its datapath in user space.
struct OpenVSwitch {
    package: Package,
    dir: PathBuf,
    _daemons: Vec<Daemon>,
}

impl OpenVSwitch {
    fn start(package: Package, peer: &Netns, dir: &Path) -> Result<Self> {
        let dir = dir.join("ovs");
        std::fs::create_dir_all(&dir)?;
        let mut ovs = Self { package, dir, _daemons: Vec::new() };
        let (database, socket) = (ovs.path("conf.db"), ovs.path("db.sock"));
        let schema = ovs.package.file("usr/share/openvswitch/vswitch.ovsschema").display().to_string();
        command::output(
            &mut ovs.command(peer, "usr/bin/ovsdb-tool", &["create", &database, &schema]),
            LIMIT,
        )?;
        let (remote, control) = (format!("--remote=punix:{socket}"), ovs.path("db.ctl"));
        let words = [&remote, &format!("--unixctl={control}"), &database];
        ovs.daemon(peer, "usr/sbin/ovsdb-server", &words.map(String::as_str), "db.sock")?;
        ovs.vsctl(peer, &["--no-wait", "init"])?;
        let words = [format!("--unixctl={}", ovs.path("ovs.ctl")), format!("unix:{socket}")];
        let words = words.each_ref().map(String::as_str);
        ovs.daemon(peer, "usr/lib/openvswitch-switch/ovs-vswitchd", &words, "ovs.ctl")?;
        Ok(ovs)
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn command(&self, peer: &Netns, program: &str, words: &[&str]) -> Command {
        let mut command = peer.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "env"]);
        command.arg(format!("LD_LIBRARY_PATH={}", self.package.libraries()));
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.arg(format!("OVS_{name}={}", self.dir.display()));
        }
        command.arg(self.package.file(program)).args(words);
        command
    }

    fn daemon(&mut self, peer: &Netns, program: &str, words: &[&str], sign: &str) -> Result<()> {
        let command = self.command(peer, program, words);
        let log = self.dir.join(format!("{sign}.log"));
        let mut daemon = Daemon::spawn(command, program.to_owned(), &log)?;
        stop::wait_for(program, LIMIT, || {
            daemon.check()?;
            Ok(if self.dir.join(sign).exists() { Ok(()) } else { Err("it does not answer".to_owned()) })
        })?;
        self._daemons.push(daemon);
        Ok(())
    }

    fn vsctl(&self, peer: &Netns, words: &[&str]) -> Result<String> {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        command::output(
            &mut self.command(peer, "usr/bin/ovs-vsctl", &[&[database.as_str()], words].concat()),
            LIMIT,
        )
    }

    fn appctl(&self, peer: &Netns, words: &[&str]) -> Result<String> {
        let target = self.path("ovs.ctl");
        command::output(
            &mut self.command(peer, "usr/bin/ovs-appctl", &[&["-t", &target], words].concat()),
            LIMIT,
        )
    }
}

#[test]
fn open_vswitch_agrees_on_bonds_and_on_a_tree() -> Result<()> {
    let Some(package) = Package::get_or_skip("open_vswitch_agrees_on_bonds_and_on_a_tree")? else {
        return Ok(());
    };
    on_row("open_vswitch_agrees", |row, peer| {
        let ovs = OpenVSwitch::start(package, peer, &row.dir)?;
        bonds(row, peer, &ovs)?;
        tree(row, peer, &ovs)
    })
}

fn bonds(row: &Row, peer: &Netns, ovs: &OpenVSwitch) -> Result<()> {
    let bond = ["--", "add-bond", "br", "bond", "p1", "p2", "bond_mode=balance-tcp", "lacp=active"];
    let bridge = ["add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev"];
    // The hosts are in VLAN 10, and frames between the bridges have its tag.
    let right = ["--", "add-port", "br", "right", "tag=10"];
    ovs.vsctl(peer, &[&bridge[..], &right, &bond, &["other_config:lacp-time=fast"]].concat())?;
    row.set(&[
        "bonds.bond.members=[l1,l2]",
        "bonds.bond.mode=balance-tcp",
        "bonds.bond.lacp=active",
        "bonds.bond.lacp-fast=true",
    ])?;
    row.add_ports()?;
    row.control.text(&["port", "mod", "left", "--vlan-mode", "access", "--tag", "10"])?;
    let both_use = |n: usize| {
        let protocols = row.protocols()?;
        let members = protocols["bonds"][0]["members"].as_array().cloned().unwrap_or_default();
        let n_used = members.iter().filter(|member| member["enabled"] == true).count();
        let theirs = ovs.appctl(peer, &["bond/show", "bond"])?;
        let n_theirs = theirs.matches(": enabled").count();
        let is_agreed = theirs.contains("lacp_status: negotiated") && (n_used, n_theirs) == (n, n);
        Ok(if is_agreed { Ok(()) } else { Err(format!("{protocols}\n{theirs}")) })
    };
    stop::wait_for("both links are one", LIMIT, || both_use(2))?;
    row.wait_for_ping(LIMIT)?;
    row.check_quiet()?;
    peer.ip(&["link", "set", "p1", "down"])?;
    stop::wait_for("one link is left", LIMIT, || both_use(1))?;
    row.wait_for_ping(LIMIT)?;
    peer.ip(&["link", "set", "p1", "up"])?;
    stop::wait_for("both links are one again", LIMIT, || both_use(2))?;
    row.wait_for_ping(LIMIT)
}

fn tree(row: &Row, peer: &Netns, ovs: &OpenVSwitch) -> Result<()> {
    // One after the other, so that there is never a circle that nobody watches.
    row.set(&["spanning-tree.protocol=rstp", "spanning-tree.priority=32768"])?;
    let ours = ["set", "bridge", "br", "rstp_enable=true", "other_config:rstp-priority=4096", "--"];
    let ports = ["del-port", "bond", "--", "add-port", "br", "p1", "--", "add-port", "br", "p2"];
    row.set(&["bonds.bond=null"])?;
    ovs.vsctl(peer, &[&ours[..], &ports].concat())?;
    stop::wait_for("one of both links is blocked", TREE_LIMIT, || {
        let protocols = row.protocols()?;
        let (open, shut) = (in_state(&protocols, "forwarding"), in_state(&protocols, "discarding"));
        let root = protocols["spanning_tree"]["root_port"].as_str().unwrap_or_default();
        let is_right = open.contains(&root) && shut.len() == 1 && shut[0].starts_with('l');
        let speaks_rstp = protocols["spanning_tree"]["ports"]
            .as_array()
            .is_some_and(|ports| ports.iter().all(|port| port["rapid"] == true));
        Ok(if is_right && speaks_rstp { Ok(()) } else { Err(protocols.to_string()) })
    })?;
    row.wait_for_ping(LIMIT)?;
    row.check_quiet()?;
    let theirs = ovs.appctl(peer, &["rstp/show", "br"])?;
    ensure!(theirs.contains("This bridge is the root"), "{theirs}");
    // Agreements, and no timers: the other link takes over at once.
    let protocols = row.protocols()?;
    let root = protocols["spanning_tree"]["root_port"].as_str().unwrap_or_default().replace('l', "p");
    peer.ip(&["link", "set", &root, "down"])?;
    row.wait_for_ping(Duration::from_secs(8))
}
