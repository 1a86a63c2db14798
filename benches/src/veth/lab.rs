//! Namespaces and links of a measurement, removed at its end.

use std::process::id;

use anyhow::Result;
use ferroflow_tests::netns::{End, Netns, link};

/// Two workloads and the hosts they are on.
pub(super) struct Lab {
    pub(super) workloads: [Netns; 2],
    /// One, or two with an underlay between them.
    pub(super) hosts: Vec<Netns>,
}

/// The workloads' interfaces, and the hosts' ends of theirs.
pub(super) const WORKLOAD_ENDS: [&str; 2] = ["va", "vb"];
pub(super) const HOST_ENDS: [&str; 2] = ["vas", "vbs"];
pub(super) const UNDERLAY_ENDS: [&str; 2] = ["u1", "u2"];
/// The workloads' addresses, and those of the hosts on the underlay.
pub(super) const ADDRESSES: [&str; 2] = ["10.0.1.11", "10.0.1.12"];
pub(super) const HOSTS: [&str; 2] = ["172.31.0.1", "172.31.0.2"];
/// The workloads' MAC addresses, as in `examples/two-switches.yaml`.
const MACS: [&str; 2] = ["0a:00:00:00:01:0b", "0a:00:00:00:01:0c"];
const UNDERLAY_MTU: u32 = 1500;

impl Lab {
    /// Workloads at `n_hosts` hosts, without links to them.
    pub(super) fn bare(n_hosts: usize) -> Result<Self> {
        let make = |part: &str| {
            let netns = Netns::create(&format!("ffv{}-{part}", id()))?;
            // Router solicitations would only disturb.
            netns.set_sysctls(&[
                ("net.ipv6.conf.all.disable_ipv6", "1"),
                ("net.ipv6.conf.default.disable_ipv6", "1"),
            ])?;
            Ok::<_, anyhow::Error>(netns)
        };
        let workloads = [make("a")?, make("b")?];
        let hosts = (1..=n_hosts).map(|n| make(&format!("h{n}"))).collect::<Result<Vec<_>>>()?;
        if let [first, second] = &hosts[..] {
            let addresses = HOSTS.map(|address| format!("{address}/24"));
            let end = |idx: usize, netns| End {
                address: Some(addresses[idx].as_str()),
                ..End::new(netns, UNDERLAY_ENDS[idx])
            };
            link(end(0, first), end(1, second), UNDERLAY_MTU)?;
        }
        Ok(Self { workloads, hosts })
    }

    /// The same, joined to their hosts by veth pairs.
    pub(super) fn linked(n_hosts: usize, mtu: u32) -> Result<Self> {
        let lab = Self::bare(n_hosts)?;
        for idx in 0..2 {
            let address = format!("{}/24", ADDRESSES[idx]);
            let inside = End {
                mac: Some(MACS[idx]),
                address: Some(&address),
                ..End::new(&lab.workloads[idx], WORKLOAD_ENDS[idx])
            };
            link(inside, End::new(lab.host_of(idx), HOST_ENDS[idx]), mtu)?;
        }
        Ok(lab)
    }

    /// The host that a workload is on.
    pub(super) fn host_of(&self, idx: usize) -> &Netns {
        &self.hosts[idx.min(self.hosts.len() - 1)]
    }

    /// Moves an interface of a workload's host to the workload, as its only one.
    pub(super) fn give(&self, idx: usize, interface: &str) -> Result<()> {
        let workload = &self.workloads[idx];
        self.host_of(idx).ip(&["link", "set", "dev", interface, "netns", workload.name()])?;
        workload.ip(&["address", "add", &format!("{}/24", ADDRESSES[idx]), "dev", interface])?;
        workload.ip(&["link", "set", "dev", interface, "up"]).map(drop)
    }
}
