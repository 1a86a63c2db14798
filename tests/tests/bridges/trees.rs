//! Trees and bonds: the kernel's bridge and Open vSwitch by two links.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{command, stop};
use oracle::ovs::package::Package;
use serde_json::Value;

use crate::LIMIT;
use crate::ovs::OpenVSwitch;
use crate::row::{Row, on_row};

/// Trees of STP with the shortest times take less.
const TREE_LIMIT: Duration = Duration::from_secs(60);

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
        row.switch.set(&[
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
        let protocols = row.switch.protocols()?;
        ensure!(protocols["spanning_tree"]["root_port"] == "", "{protocols}");
        let ports = protocols["spanning_tree"]["ports"].as_array().context("no ports")?;
        ensure!(ports.iter().filter(|port| port["rapid"] == false).count() == 2, "{protocols}");
        let open = forwarding(peer)?;
        let used: Vec<_> = open.iter().filter(|port| port.starts_with('p')).collect();
        ensure!(used.len() == 1, "the kernel forwards by {open:?}");
        row.switch.check_quiet()?;
        // The other link takes over.
        peer.ip(&["link", "set", used[0], "down"])?;
        row.wait_for_ping(TREE_LIMIT)?;
        row.switch.check_quiet()
    })
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
    row.switch.set(&[
        "bonds.bond.members=[l1,l2]",
        "bonds.bond.mode=balance-tcp",
        "bonds.bond.lacp=active",
        "bonds.bond.lacp-fast=true",
    ])?;
    row.add_ports()?;
    row.switch.control.text(&["port", "mod", "left", "--vlan-mode", "access", "--tag", "10"])?;
    let both_use = |n: usize| {
        let protocols = row.switch.protocols()?;
        let members = protocols["bonds"][0]["members"].as_array().cloned().unwrap_or_default();
        let n_used = members.iter().filter(|member| member["enabled"] == true).count();
        let theirs = ovs.appctl(peer, &["bond/show", "bond"])?;
        let n_theirs = theirs.matches(": enabled").count();
        let is_agreed = theirs.contains("lacp_status: negotiated") && (n_used, n_theirs) == (n, n);
        Ok(if is_agreed { Ok(()) } else { Err(format!("{protocols}\n{theirs}")) })
    };
    stop::wait_for("both links are one", LIMIT, || both_use(2))?;
    row.wait_for_ping(LIMIT)?;
    row.switch.check_quiet()?;
    peer.ip(&["link", "set", "p1", "down"])?;
    stop::wait_for("one link is left", LIMIT, || both_use(1))?;
    row.wait_for_ping(LIMIT)?;
    peer.ip(&["link", "set", "p1", "up"])?;
    stop::wait_for("both links are one again", LIMIT, || both_use(2))?;
    row.wait_for_ping(LIMIT)
}

fn tree(row: &Row, peer: &Netns, ovs: &OpenVSwitch) -> Result<()> {
    // One after the other, so that there is never a circle that nobody watches.
    row.switch.set(&["spanning-tree.protocol=rstp", "spanning-tree.priority=32768"])?;
    let ours = ["set", "bridge", "br", "rstp_enable=true", "other_config:rstp-priority=4096", "--"];
    let ports = ["del-port", "bond", "--", "add-port", "br", "p1", "--", "add-port", "br", "p2"];
    row.switch.set(&["bonds.bond=null"])?;
    ovs.vsctl(peer, &[&ours[..], &ports].concat())?;
    stop::wait_for("one of both links is blocked", TREE_LIMIT, || {
        let protocols = row.switch.protocols()?;
        let (open, shut) = (in_state(&protocols, "forwarding"), in_state(&protocols, "discarding"));
        let root = protocols["spanning_tree"]["root_port"].as_str().unwrap_or_default();
        let is_right = open.contains(&root) && shut.len() == 1 && shut[0].starts_with('l');
        let speaks_rstp = protocols["spanning_tree"]["ports"]
            .as_array()
            .is_some_and(|ports| ports.iter().all(|port| port["rapid"] == true));
        Ok(if is_right && speaks_rstp { Ok(()) } else { Err(protocols.to_string()) })
    })?;
    row.wait_for_ping(LIMIT)?;
    row.switch.check_quiet()?;
    let theirs = ovs.appctl(peer, &["rstp/show", "br"])?;
    ensure!(theirs.contains("This bridge is the root"), "{theirs}");
    // Agreements, and no timers: the other link takes over at once.
    let protocols = row.switch.protocols()?;
    let root = protocols["spanning_tree"]["root_port"].as_str().unwrap_or_default().replace('l', "p");
    peer.ip(&["link", "set", &root, "down"])?;
    row.wait_for_ping(Duration::from_secs(8))
}
