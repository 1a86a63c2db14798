//! The ways between two workloads: ours and the kernel's.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use ferroflow_tests::{
    control::Control,
    daemon::{Daemon, Life, find_program},
    scenario::{self, Dir},
    stop,
};

use super::{
    forwarders,
    lab::{HOST_ENDS, HOSTS, Lab, UNDERLAY_ENDS, WORKLOAD_ENDS},
    stream::{self, Figures},
};
use crate::peer::package::Install;

const START_LIMIT: Duration = Duration::from_secs(20);
/// An Ethernet header, and what the kernel's VXLAN puts around it.
const VXLAN_OVERHEAD: u32 = 50;
const GENEVE_OVERHEAD: u32 = 58;
const MTU: u32 = 1500;
/// Core of the switch.
const CORE: &str = "0";

/// A way between two workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The kernel's bridge.
    Bridge,
    /// Open vSwitch, with AF_XDP on veth pairs.
    OvsAfXdp,
    /// Our switch, with packet sockets on veth pairs: what containers have.
    Packet,
    /// Our switch, with TAP devices.
    Tap,
    /// Our switch, with AF_XDP on veth pairs.
    AfXdp,
    /// The same three by a worker that never sleeps.
    BusyPacket,
    /// TAP devices.
    BusyTap,
    /// AF_XDP.
    BusyAfXdp,
    /// The kernel's VXLAN device and bridge on two hosts.
    KernelVxlan,
    /// Two of our hosts and a controller.
    Geneve,
}

impl Way {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "Linux bridge",
            Self::OvsAfXdp => "Open vSwitch, afxdp",
            Self::Packet => "packet socket",
            Self::Tap => "TAP",
            Self::AfXdp => "AF_XDP",
            Self::BusyPacket => "packet socket, busy",
            Self::BusyTap => "TAP, busy",
            Self::BusyAfXdp => "AF_XDP, busy",
            Self::KernelVxlan => "Linux VXLAN and bridge",
            Self::Geneve => "Geneve",
        }
    }
}

/// Our daemons.
#[derive(Debug)]
pub(super) struct Programs {
    switch: PathBuf,
    controller: PathBuf,
    control: PathBuf,
}

impl Programs {
    pub(super) fn find(dir: &Path) -> Result<Self> {
        Ok(Self {
            switch: find_program(dir, "vswitchd")?,
            controller: find_program(dir, "vswitch-controller")?,
            control: find_program(dir, "vswitchctl")?,
        })
    }
}

/// Sets a way up, measures it and removes it again.
pub(super) fn measure(way: Way, programs: &Programs, duration: Duration) -> Result<Figures> {
    match way {
        Way::Bridge => {
            let lab = Lab::linked(1, MTU)?;
            bridge(&lab, 0, &HOST_ENDS)?;
            stream::measure(&lab, duration)
        }
        Way::KernelVxlan => {
            let lab = Lab::linked(2, MTU - VXLAN_OVERHEAD)?;
            for (idx, own) in HOST_ENDS.iter().enumerate() {
                let (local, remote, dev) = (HOSTS[idx], HOSTS[1 - idx], UNDERLAY_ENDS[idx]);
                let words = ["link", "add", "vx0", "type", "vxlan", "id", "7", "dstport", "4789"];
                lab.hosts[idx].ip(&[&words[..], &["local", local, "remote", remote, "dev", dev]].concat())?;
                lab.hosts[idx].ip(&["link", "set", "dev", "vx0", "up"])?;
                bridge(&lab, idx, &[own, "vx0"])?;
            }
            stream::measure(&lab, duration)
        }
        Way::OvsAfXdp => {
            let lab = Lab::linked(1, MTU)?;
            // It takes large packets and checksums that are only begun for damaged ones.
            for (workload, end) in lab.workloads.iter().zip(WORKLOAD_ENDS) {
                let mut ethtool = workload.command("ethtool");
                let words = ["-K", end, "tx", "off", "tso", "off", "gso", "off"];
                ferroflow_tests::command::output(ethtool.args(words), START_LIMIT)?;
            }
            let _ovs = forwarders::open_vswitch(&lab, &Install::get()?)?;
            stream::measure(&lab, duration)
        }
        Way::Packet | Way::AfXdp | Way::BusyPacket | Way::BusyAfXdp => {
            ours(&Lab::linked(1, MTU)?, way, programs, duration)
        }
        Way::Tap | Way::BusyTap => ours(&Lab::bare(1)?, way, programs, duration),
        Way::Geneve => geneve(programs, duration),
    }
}

pub(super) fn bridge(lab: &Lab, host: usize, ends: &[&str]) -> Result<()> {
    let host = &lab.hosts[host];
    host.ip(&["link", "add", "br0", "type", "bridge"])?;
    for end in ends {
        host.ip(&["link", "set", "dev", end, "master", "br0"])?;
    }
    host.ip(&["link", "set", "dev", "br0", "up"])?;
    // Where the kernel has it, a firewall looks at bridged packets too.
    let _ = host.set_sysctls(&[("net.bridge.bridge-nf-call-iptables", "0")]);
    Ok(())
}

/// A switch with rules by hand on one host.
fn ours(lab: &Lab, way: Way, programs: &Programs, duration: Duration) -> Result<Figures> {
    let dir = scenario::dir(&format!("ffv{}", std::process::id()));
    let _dir = Dir::create(&dir)?;
    let is_busy = matches!(way, Way::BusyPacket | Way::BusyTap | Way::BusyAfXdp);
    let options = ["--standalone", "--busy"];
    let (mut daemon, control) =
        switch(lab, 0, &dir, programs, if is_busy { &options } else { &options[..1] })?;
    let (kind, names) = match way {
        Way::Tap | Way::BusyTap => ("tap", ["ta", "tb"]),
        Way::AfXdp | Way::BusyAfXdp => ("afxdp", HOST_ENDS),
        _ => ("packet", HOST_ENDS),
    };
    for (idx, name) in names.iter().enumerate() {
        control.text(&["port", "add", name, "--kind", kind, "--number", &(idx + 1).to_string()])?;
        if kind == "tap" {
            lab.give(idx, name)?;
        }
    }
    control.text(&["flow", "add", "in_port=1,actions=output:2", "in_port=2,actions=output:1"])?;
    let figures = stream::measure(lab, duration)?;
    daemon.check()?;
    Ok(figures)
}

/// Two hosts of a network.
fn geneve(programs: &Programs, duration: Duration) -> Result<Figures> {
    let lab = Lab::linked(2, MTU - GENEVE_OVERHEAD)?;
    let dir = scenario::dir(&format!("ffv{}", std::process::id()));
    let _dir = Dir::create(&dir)?;
    let url = format!("unix://{}", dir.join("controller.sock").display());
    let data = dir.join("controller-data").display().to_string();
    let log = dir.join("controller.log");
    let args = ["--listen", &url, "--data-dir", &data];
    let mut controller =
        Daemon::start(&lab.workloads[0], &programs.controller, &args, &log, Life::WithParent)?;
    let network = Control::to_controller(&programs.control, &url);
    stop::wait_for("the controller answers", START_LIMIT, || {
        controller.check()?;
        Ok(network.text(&["chassis", "list"]).map(drop).map_err(|error| format!("{error:#}")))
    })?;
    let mut switches = Vec::new();
    for idx in 0..2 {
        let name = format!("h{}", idx + 1);
        let uplink = ["--chassis", &name, "--encap-ip", HOSTS[idx], "--uplink", UNDERLAY_ENDS[idx]];
        let args = [&uplink[..], &["--controller", &url]].concat();
        switches.push(switch(&lab, idx, &dir, programs, &args)?);
    }
    network.apply(&scenario::example())?;
    for (idx, (_, control)) in switches.iter().enumerate() {
        control.add_port(HOST_ENDS[idx], &format!("web-{}", idx + 1))?;
    }
    let words = ["-c", "1", "-W", "1", super::lab::ADDRESSES[1]];
    stop::wait_for("the workloads reach each other", START_LIMIT, || {
        let mut ping = lab.workloads[0].command("ping");
        Ok(ferroflow_tests::command::output(ping.args(words), START_LIMIT)
            .map(drop)
            .map_err(|error| format!("{error:#}")))
    })?;
    let figures = stream::measure(&lab, duration)?;
    switches.iter_mut().try_for_each(|(daemon, _)| daemon.check())?;
    Ok(figures)
}

/// A daemon on a host.
pub(super) fn switch(
    lab: &Lab,
    idx: usize,
    dir: &Path,
    programs: &Programs,
    args: &[&str],
) -> Result<(Daemon, Control)> {
    let path = |part: &str| dir.join(format!("h{idx}{part}")).display().to_string();
    let (socket, state) = (path(".sock"), path("-state"));
    let fixed = ["--socket", &socket, "--state-dir", &state];
    let pinned = ["-c", CORE, programs.switch.to_str().unwrap_or("vswitchd")];
    let args = [&pinned[..], args, &fixed].concat();
    let log = dir.join(format!("h{idx}.log"));
    let mut daemon = Daemon::start(&lab.hosts[idx], Path::new("taskset"), &args, &log, Life::WithParent)?;
    let control = Control::to_host(&programs.control, &format!("unix://{socket}"));
    stop::wait_for("the switch answers", START_LIMIT, || {
        daemon.check()?;
        Ok(control.text(&["status"]).map(drop).map_err(|error| format!("{error:#}")))
    })?;
    Ok((daemon, control))
}
