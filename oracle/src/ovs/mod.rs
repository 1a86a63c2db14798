//! Open vSwitch, run beside the tests: Debian's own programs from unpacked packages, without installing
//! anything, without privileges, with dummy ports. What it sends is read from the capture files that its
//! dummy ports write.
//!
//! [`package`] gets the programs · `processes.rs` runs them · [`unixctl`] talks to the daemon · [`pcap`] reads
//! captures · [`ovn`] the same of OVN, without hosts.

pub mod ovn;
pub mod package;
pub mod pcap;
mod processes;
pub mod unixctl;

use std::{collections::BTreeMap, fs::File, io::Write, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail, ensure};

use self::{
    package::Package,
    pcap::Capture,
    processes::{Processes, START_LIMIT, text},
    unixctl::Unixctl,
};
use crate::compare::hex;

/// How often a frame may be lost before that is no accident.
const MAX_LOSSES: usize = 20;

/// Packets that the datapath has looked up, and those of them that it could not take.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Lookups {
    n: u64,
    n_lost: u64,
}

/// Protocol in which rules are handed over. Some actions exist in one and not in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenFlow 1.0, with `mod_vlan_vid`.
    OpenFlow10,
    /// OpenFlow 1.3, with `push_vlan` and `goto_table`.
    OpenFlow13,
    /// OpenFlow 1.5, as OVN uses it.
    OpenFlow15,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::OpenFlow10 => "OpenFlow10",
            Self::OpenFlow13 => "OpenFlow13",
            Self::OpenFlow15 => "OpenFlow15",
        }
    }
}

/// A running Open vSwitch with one bridge. It ends, and its folder goes, with this value.
#[derive(Debug)]
pub struct Ovs {
    processes: Processes,
    captures: BTreeMap<u32, Capture>,
    unixctl: Option<Unixctl>,
}

impl Ovs {
    /// Starts it with these ports, named `p` and the number.
    ///
    /// # Errors
    /// When a daemon does not start.
    pub fn start(package: Package, ports: &[u32]) -> Result<Self> {
        let processes = Processes::new(package, "ff-ovs")?;
        let mut ovs = Self { processes, captures: BTreeMap::new(), unixctl: None };
        ovs.start_daemons()?;
        ovs.make_bridge(ports)?;
        Ok(ovs)
    }

    fn start_daemons(&mut self) -> Result<()> {
        self.processes.open_vswitch()?;
        self.unixctl = Some(Unixctl::connect(&self.path("vswitchd.ctl"))?);
        Ok(())
    }

    fn make_bridge(&mut self, ports: &[u32]) -> Result<()> {
        let mut words: Vec<String> = vec![self.database(), "--timeout=20".to_owned()];
        // Two tags are looked through here, which is not Open vSwitch's default.
        let bridge = "set Open_vSwitch . other_config:vlan-limit=2 -- add-br br0 -- set bridge br0 \
                      datapath-type=dummy fail-mode=secure protocols=OpenFlow10,OpenFlow13,OpenFlow15";
        words.extend(bridge.split_whitespace().map(str::to_owned));
        for port in ports {
            let capture = self.path(&format!("p{port}.pcap"));
            let port_words = format!(
                "-- add-port br0 p{port} -- set interface p{port} type=dummy ofport_request={port} \
                 options:tx_pcap={}",
                text(&capture)
            );
            words.extend(port_words.split_whitespace().map(str::to_owned));
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run("usr/bin/ovs-vsctl", &words)?;
        // First fragments show their ports, which is not Open vSwitch's default either.
        let bridge = format!("unix:{}", text(&self.path("br0.mgmt")));
        self.run("usr/bin/ovs-ofctl", &["set-frags", &bridge, "nx-match"])?;
        for port in ports {
            let name = format!("p{port}.pcap");
            self.processes.wait_for(&name)?;
            self.captures.insert(*port, Capture::open(&self.path(&name))?);
        }
        Ok(())
    }

    /// The release.
    pub fn version(&self) -> &str {
        self.processes.package.version()
    }

    /// Replaces all rules, and forgets what was cached for the old ones and all connections.
    ///
    /// # Errors
    /// When a rule is refused.
    pub fn set_flows(&mut self, protocol: Protocol, flows: &str) -> Result<()> {
        self.set_rules(protocol, "", flows)
    }

    /// The same, with groups, those that others lead to first.
    ///
    /// # Errors
    /// When a rule or a group is refused.
    pub fn set_rules(&mut self, protocol: Protocol, groups: &str, flows: &str) -> Result<()> {
        let (flow_file, group_file) = (self.path("flows"), self.path("groups"));
        File::create(&group_file)?.write_all(groups.as_bytes())?;
        let protocol = protocol.name();
        let bridge = format!("unix:{}", text(&self.path("br0.mgmt")));
        self.run("usr/bin/ovs-ofctl", &["-O", protocol, "del-flows", &bridge])?;
        self.run("usr/bin/ovs-ofctl", &["-O", "OpenFlow13", "del-groups", &bridge])?;
        self.run("usr/bin/ovs-ofctl", &["-O", "OpenFlow13", "del-meters", &bridge])?;
        let (meters, flows): (Vec<&str>, Vec<&str>) =
            flows.lines().partition(|line| line.starts_with("meter="));
        for meter in meters {
            self.run("usr/bin/ovs-ofctl", &["-O", "OpenFlow13", "add-meter", &bridge, meter])?;
        }
        File::create(&flow_file)?.write_all(flows.join("\n").as_bytes())?;
        if !groups.is_empty() {
            self.run("usr/bin/ovs-ofctl", &["-O", "OpenFlow15", "add-groups", &bridge, &text(&group_file)])?;
        }
        self.run("usr/bin/ovs-ofctl", &["-O", protocol, "add-flows", &bridge, &text(&flow_file)])?;
        self.call("revalidator/purge", &[])?;
        self.call("dpctl/flush-conntrack", &[])?;
        self.call("fdb/flush", &["br0"])?;
        Ok(())
    }

    /// From now on its clock moves only by [`Ovs::pass`].
    ///
    /// # Errors
    /// When it refuses.
    pub fn stop_time(&mut self) -> Result<()> {
        self.call("time/stop", &[]).map(drop)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When it refuses.
    pub fn pass(&mut self, millis: u64) -> Result<()> {
        self.call("time/warp", &[&millis.to_string()]).map(drop)
    }

    /// Empties its caches, so that what packets have taught is known. Entries that stay would teach again
    /// whenever they are looked at, which may be later.
    ///
    /// # Errors
    /// When it refuses.
    pub fn settle(&mut self) -> Result<()> {
        self.call("revalidator/purge", &[]).map(drop)
    }

    /// How rules see fragments: `normal`, `drop`, `nx-match`.
    ///
    /// # Errors
    /// When it refuses.
    pub fn set_fragments(&self, mode: &str) -> Result<()> {
        let bridge = format!("unix:{}", text(&self.path("br0.mgmt")));
        self.run("usr/bin/ovs-ofctl", &["set-frags", &bridge, mode]).map(drop)
    }

    /// Lets a frame come in, and answers what leaves, sorted. A frame that Open vSwitch
    /// loses comes in again: its datapath drops what misses the cache while another
    /// thread holds the translator, and counts it as lost.
    ///
    /// # Errors
    /// When Open vSwitch does not take it, loses it every time, or has ended.
    pub fn send(&mut self, port: u32, frame: &[u8]) -> Result<Vec<(u32, Vec<u8>)>> {
        for _ in 0..MAX_LOSSES {
            let (before, start) = (self.lookups()?, Instant::now());
            self.call("netdev-dummy/receive", &[&format!("p{port}"), &hex(frame)])?;
            // One thread forwards and answers: once the lookup has been counted, all is done.
            let after = loop {
                let after = self.lookups()?;
                if after != before {
                    break after;
                }
                ensure!(start.elapsed() < START_LIMIT, "the frame is not taken: {}", hex(frame));
            };
            let mut sent = Vec::new();
            for (port, capture) in &mut self.captures {
                sent.extend(capture.new_frames()?.into_iter().map(|frame| (*port, frame)));
            }
            if after.n_lost == before.n_lost {
                sent.sort();
                return Ok(sent);
            }
        }
        bail!("Open vSwitch has lost a frame {MAX_LOSSES} times: {}", hex(frame))
    }

    /// Packets that its datapath has looked up.
    fn lookups(&mut self) -> Result<Lookups> {
        let text = self.call("dpctl/show", &[])?;
        let line =
            text.lines().find(|line| line.contains("lookups:")).context("dpctl/show tells no lookups")?;
        let numbers: Vec<u64> = line.split([':', ' ']).filter_map(|word| word.parse().ok()).collect();
        let [_hit, _missed, n_lost] = numbers[..] else { bail!("not three numbers of lookups: {line}") };
        Ok(Lookups { n: numbers.iter().sum(), n_lost })
    }

    /// What Open vSwitch says to a command of ovs-appctl(8).
    ///
    /// # Errors
    /// When it refuses.
    pub fn call(&mut self, method: &str, params: &[&str]) -> Result<String> {
        self.unixctl.as_mut().context("Open vSwitch is not running")?.call(method, params)
    }

    fn database(&self) -> String {
        format!("--db=unix:{}", text(&self.path("db.sock")))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.processes.path(name)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        self.processes.run(program, words)
    }

    /// The rules as ovs-ofctl(8) dumps them, with what decorates them.
    ///
    /// # Errors
    /// When they cannot be dumped.
    pub fn dump_flows(&self) -> Result<String> {
        self.dump("dump-flows")
    }

    /// The groups as ovs-ofctl(8) dumps them.
    ///
    /// # Errors
    /// When they cannot be dumped.
    pub fn dump_groups(&self) -> Result<String> {
        self.dump("dump-groups")
    }

    /// Lets `tun_metadata0` be the Geneve option that OVN sends.
    ///
    /// # Errors
    /// When it is something already.
    pub fn map_ovn_option(&self) -> Result<()> {
        let bridge = format!("unix:{}", text(&self.path("br0.mgmt")));
        let map = "{class=0x102,type=0x80,len=4}->tun_metadata0";
        self.run("usr/bin/ovs-ofctl", &["add-tlv-map", &bridge, map]).map(drop)
    }

    fn dump(&self, what: &str) -> Result<String> {
        let bridge = format!("unix:{}", text(&self.path("br0.mgmt")));
        self.run("usr/bin/ovs-ofctl", &["-O", "OpenFlow15", what, &bridge])
    }
}
