//! The protocols that a bridge speaks itself, at work: spanning tree, bonds with LACP, who hears
//! which group, who is at the other ends; and the mirrors' counters. The machines are those of
//! `bridge-protocols`; here they get frames, links and time, and what they find out goes into the
//! bridge's port table.
//!
//! `settings/` is what they are told, `bonds.rs` one bond, `links.rs` who is at the other ends,
//! `monitoring/` what collectors get, `furnishing.rs` what the port table is told, `tending.rs` how
//! the host has them do what is due.

mod bonds;
mod furnishing;
mod links;
mod monitoring;
mod settings;
mod tending;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_links;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bridge_protocols::{
    multicast::{self, Groups, Querier},
    stp::{self, Bpdu, PortConfig},
};
use flowtable::{
    crc32c,
    flow::RuleStats,
    port::PortTable,
    types::{MacAddr, PortNo, Timestamp, VlanId},
};

pub use self::{
    bonds::BondMember,
    monitoring::{ExportKind, ExportStatus},
    settings::{BondModeName, BridgeSettings, LacpName, SettingsError, TreeProtocol},
    tending::{MemberError, ProtocolError},
};
use self::{
    bonds::{LiveBond, id_of, number_of},
    links::Neighbours,
    monitoring::Monitoring,
};
use super::Bridge;
#[cfg(test)]
pub(in crate::host) use tests::daemon_without_interfaces;

/// What the spanning tree counts time in.
const SECOND: Duration = Duration::from_secs(1);
/// A port's number has 12 bits in this protocol.
const MAX_TREE_PORT: u32 = 0xfff;
/// Seconds that a late tree makes up for at most.
const MAX_LATE: u32 = 60;

/// The protocols of a bridge.
#[derive(Debug, Default)]
pub(in crate::host) struct Protocols {
    address: MacAddr,
    /// Name of the host.
    system: String,
    settings: BridgeSettings,
    /// Collectors of what the network's rules sample, by the numbers of their sets.
    sampled: BTreeMap<u32, BTreeSet<SocketAddr>>,
    tree: Option<stp::Bridge>,
    ticked: Timestamp,
    bonds: BTreeMap<String, LiveBond>,
    groups: Option<Groups>,
    mirrors: BTreeMap<String, Arc<RuleStats>>,
    neighbours: Neighbours,
    monitoring: Monitoring,
    /// Ports whose sessions say that nobody is at the other end.
    silent: BTreeSet<PortNo>,
    /// What the machines want done.
    pub(super) wants: Wants,
}

/// What machines want done.
#[derive(Debug, Default)]
pub(in crate::host) struct Wants {
    /// To be sent by these ports.
    pub(super) frames: Vec<(PortNo, Vec<u8>)>,
    /// To be sent to all in a VLAN.
    pub(super) queries: Vec<(VlanId, Vec<u8>)>,
    /// Stations behind these ports are not there any more.
    pub(super) flushes: Vec<PortNo>,
    pub(super) groups: Vec<multicast::Change>,
    /// Bonds whose stations have to be told of.
    pub(super) announces: Vec<String>,
    /// The port table is another one.
    pub(super) changed: bool,
}

/// A port's number, and whether its link is up, by name.
type Links = BTreeMap<String, (PortNo, bool)>;

impl Protocols {
    /// Of a bridge that is told nothing.
    pub(super) fn of(chassis: &str, bridge: &str) -> Self {
        // Each bridge needs an address that stays and that no other one has.
        let [a, b, c, d] = crc32c::of([chassis.as_bytes(), b"/", bridge.as_bytes()]).to_be_bytes();
        Self {
            address: MacAddr::new([0x02, 0xbf, a, b, c, d]),
            system: chassis.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn settings(&self) -> &BridgeSettings {
        &self.settings
    }

    /// Takes over what it is told.
    pub(super) fn set_settings(&mut self, settings: BridgeSettings, now: Timestamp) {
        self.settings = settings;
        let settings = &self.settings;
        self.ticked = now;
        let id = stp::BridgeId { address: self.address, ..stp::BridgeId::default() };
        let tree = settings.spanning_tree.config(id);
        match (&mut self.tree, settings.spanning_tree.protocol) {
            (known, TreeProtocol::None) => *known = None,
            (Some(known), _) => known.set_config(tree),
            (known, _) => *known = Some(stp::Bridge::new(tree)),
        }
        self.bonds.retain(|name, _| settings.bonds.contains_key(name));
        for (name, bond) in &settings.bonds {
            if let Ok(number) = PortNo::new(bond.number) {
                self.bonds.entry(name.clone()).or_insert_with(|| LiveBond::new(number)).number = number;
            }
        }
        self.mirrors.retain(|name, _| settings.mirrors.contains_key(name));
        for name in settings.mirrors.keys() {
            self.mirrors.entry(name.clone()).or_default();
        }
        self.monitoring.set_settings(&self.settings.with_collectors(&self.sampled), now);
        let last = self.neighbours.set_settings(settings, (self.address, &self.system));
        self.wants.frames.extend(last);
        let config = groups_config(settings, self.address);
        match (&mut self.groups, settings.multicast.snooping) {
            (known, false) => *known = None,
            (Some(known), true) => {
                known.set_config(config);
                // Those that are still said by hand come back with the links.
                for entry in known.entries(now).into_iter().filter(|entry| entry.left.is_none()) {
                    known.set_static(entry.vlan, entry.group, entry.port, false);
                }
            }
            (known, true) => *known = Some(Groups::new(config)),
        }
        self.wants.changed = true;
    }

    /// Says who collects what the network's rules sample.
    pub(super) fn set_sampled(&mut self, sampled: BTreeMap<u32, BTreeSet<SocketAddr>>, now: Timestamp) {
        if self.sampled != sampled {
            self.sampled = sampled;
            self.monitoring.set_settings(&self.settings.with_collectors(&self.sampled), now);
        }
    }

    /// There is something to do from time to time.
    pub(super) fn speaks(&self) -> bool {
        let watches = self.neighbours.is_on(&self.settings) || !self.settings.bfd.is_empty();
        let forwards = self.tree.is_some() || !self.bonds.is_empty() || self.groups.is_some();
        forwards || watches || self.monitoring.is_on()
    }

    /// Numbers that bonds have, with their names.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (PortNo, &str)> {
        self.bonds.iter().map(|(name, bond)| (bond.number, name.as_str()))
    }

    /// Takes over which links there are.
    fn configure(&mut self, (links, living): (&Links, &Links), now: Timestamp) {
        for (name, bond) in &mut self.bonds {
            if let Some(settings) = self.settings.bonds.get(name) {
                bond.configure(settings, self.address, living);
            }
        }
        self.neighbours.configure(&self.settings, self.address, (links, now));
        self.configure_tree(links);
        if let Some(groups) = &mut self.groups {
            for entry in groups.entries(Timestamp::default()) {
                let is_up = links.values().any(|(port, up)| *port == entry.port && *up)
                    || self.bonds.values().any(|bond| bond.number == entry.port);
                if !is_up {
                    groups.forget_port(entry.port);
                }
            }
            let wanted = |name: &str| links.get(name).map(|(port, _)| *port);
            for member in &self.settings.multicast.members {
                if let (Some(port), Ok(vlan)) = (wanted(&member.port), VlanId::new(member.vlan)) {
                    groups.set_static(vlan, member.group, port, true);
                }
            }
        }
    }

    /// All ports take part that are none of a bond's, and bonds do.
    fn configure_tree(&mut self, links: &Links) {
        let Some(tree) = &mut self.tree else { return };
        let aside = self.settings.beside_tree();
        let single = links.iter().filter(|(name, _)| !aside.contains(name.as_str()));
        let single = single.map(|(name, (port, up))| (name, *port, *up));
        let bonds = self.bonds.iter().map(|(name, bond)| (name, bond.number, bond.state.active().is_some()));
        let mut present = BTreeSet::new();
        for (name, port, up) in single.chain(bonds) {
            let settings = self.settings.spanning_tree.ports.get(name).cloned().unwrap_or_default();
            if aside.contains(name.as_str()) || port.get() > MAX_TREE_PORT {
                continue;
            }
            present.insert(id_of(port));
            tree.set_port(
                id_of(port),
                PortConfig {
                    enabled: up,
                    priority: settings.priority,
                    cost: settings.cost,
                    is_edge: settings.edge,
                    auto_edge: settings.auto_edge,
                    is_point_to_point: settings.point_to_point,
                },
            );
        }
        for gone in tree.ports().filter(|id| !present.contains(id)).collect::<Vec<_>>() {
            tree.remove_port(gone);
        }
    }

    /// Links as bonds see them: where nobody is at the other end, there is none.
    fn living(&self, links: &Links) -> Links {
        let lives =
            |name: &str, port: &PortNo| !self.silent.contains(port) && !self.neighbours.is_faulty(name);
        links.iter().map(|(name, (port, up))| (name.clone(), (*port, *up && lives(name, port)))).collect()
    }

    /// Says which ports' sessions say that nobody is at the other end.
    pub(super) fn set_silent(&mut self, silent: BTreeSet<PortNo>) {
        self.silent = silent;
    }

    /// Makes another member of a bond the active one.
    pub(super) fn set_active_member(
        &mut self,
        name: &str,
        member: &str,
        no_bond: MemberError,
    ) -> Result<(), MemberError> {
        let (Some(bond), Some(told)) = (self.bonds.get_mut(name), self.settings.bonds.get(name)) else {
            return Err(no_bond);
        };
        let Some(port) = bond.members.get(member) else {
            return Err(MemberError::Member { bond: name.to_owned(), member: member.to_owned() });
        };
        let before = bond.state.active();
        if told.primary != member && bond.members.contains_key(&told.primary) {
            return Err(MemberError::Primary(told.primary.clone()));
        }
        if !bond.state.set_active(id_of(*port)) {
            return Err(MemberError::Disabled(member.to_owned()));
        }
        if before != bond.state.active() {
            self.wants.changed = true;
            if bond.lacp.is_none() {
                self.wants.announces.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// Tells neighbours and collectors all that is still to be told.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.monitoring.end(now);
        let last = self.neighbours.end();
        self.wants.frames.extend(last);
    }

    /// Does what is due by now.
    pub(super) fn tick(&mut self, now: Timestamp, links: &Links) {
        let before = self.states();
        let living = self.living(links);
        self.configure((links, &living), now);
        let frames = self.neighbours.tick(now);
        self.wants.frames.extend(frames);
        for (name, bond) in &mut self.bonds {
            let active = bond.state.active();
            let (frames, changed) = bond.tick(now, self.address, &living);
            self.wants.frames.extend(frames);
            self.wants.changed |= changed;
            if changed && bond.lacp.is_none() && bond.state.active() != active {
                self.wants.announces.push(name.clone());
            }
        }
        if let Some(tree) = &mut self.tree {
            for _ in 0..MAX_LATE {
                if now.since(self.ticked) < SECOND {
                    break;
                }
                self.ticked = self.ticked.after(SECOND);
                tree.tick();
            }
            if now.since(self.ticked) >= SECOND {
                self.ticked = now;
            }
        }
        if let Some(groups) = &mut self.groups {
            groups.tick(now);
        }
        self.collect();
        self.wants.changed |= self.states() != before;
    }

    /// A frame has come that is for the bridge itself, or that it listens to.
    pub(super) fn hear(&mut self, now: Timestamp, (port, ports): (PortNo, &PortTable), frame: &[u8]) {
        let before = self.states();
        let bundle = ports.bundle_of(port);
        let is_for_bond = self.bonds.values_mut().any(|bond| bond.hear(now, port, frame));
        if is_for_bond || self.neighbours.hear(now, port, frame) {
            return;
        }
        if let (Some(tree), Some(bpdu)) = (&mut self.tree, Bpdu::parse(frame)) {
            tree.receive(id_of(bundle), &bpdu);
        } else if let (Some(groups), Some(message)) = (&mut self.groups, multicast::Message::parse(frame)) {
            let tci =
                frame.get(14..16).filter(|_| matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8])));
            let vid = tci.map_or(0, |tci| u16::from_be_bytes([tci[0], tci[1]]) & 0xfff);
            let vlan = VlanId::new(vid).ok().and_then(|vid| ports.bridging(bundle).vlan_in(vid));
            if let (Some(vlan), true) = (vlan, ports.get(bundle).is_some()) {
                groups.hear(now, (vlan, bundle), &message);
            }
        }
        self.collect();
        self.wants.changed |= self.states() != before;
    }

    /// Takes what the machines want done.
    fn collect(&mut self) {
        if let Some(tree) = &mut self.tree {
            let frames = tree.take_frames().into_iter();
            let frames = frames.filter_map(|(id, bpdu)| Some((number_of(id)?, bpdu.to_frame(self.address))));
            self.wants.frames.extend(frames);
            self.wants.flushes.extend(tree.take_flushes().into_iter().filter_map(number_of));
        }
        if let Some(groups) = &mut self.groups {
            self.wants.groups.extend(groups.take_changes());
            self.wants.queries.extend(groups.take_queries());
        }
    }

    /// What may pass each port.
    fn states(&self) -> Vec<(u16, Option<stp::State>)> {
        let tree = self.tree.iter();
        tree.flat_map(|tree| tree.ports().map(|id| (id, tree.port(id).map(|port| port.state)))).collect()
    }

    /// The bonds.
    fn bonds(&self) -> impl Iterator<Item = (&str, &LiveBond)> {
        self.bonds.iter().map(|(name, bond)| (name.as_str(), bond))
    }
}

/// What the protocols of a bridge have found out, for dumps.
impl Bridge {
    /// The spanning tree.
    pub fn tree(&self) -> Option<&stp::Bridge> {
        self.protocols.tree.as_ref()
    }

    /// Who hears which group.
    pub fn groups(&self) -> Option<&Groups> {
        self.protocols.groups.as_ref()
    }

    /// What mirrors have copied: packets and bytes, by name.
    pub fn mirrored(&self) -> impl Iterator<Item = (&str, (u64, u64))> {
        self.protocols.mirrors.iter().map(|(name, stats)| (name.as_str(), stats.get()))
    }

    /// What collectors of flows are told.
    pub fn exports(&self) -> Vec<ExportStatus> {
        self.protocols.monitoring.exports()
    }

    /// Its bonds: their numbers, whether LACP has found a partner, and their members.
    pub fn bonds(&self) -> impl Iterator<Item = (&str, PortNo, bool, Vec<BondMember>)> {
        let bonds = self.protocols.bonds();
        bonds.map(|(name, bond)| (name, bond.number, bond.is_negotiated(), bond.describe()))
    }
}

fn groups_config(settings: &BridgeSettings, mac: MacAddr) -> multicast::Config {
    let wanted = &settings.multicast;
    let vlans = wanted.querier_vlans.iter().filter_map(|vlan| VlanId::new(*vlan).ok()).collect();
    multicast::Config {
        max_groups: wanted.max_groups,
        max_age: Duration::from_secs(wanted.max_age),
        fast_leave: wanted.fast_leave,
        querier: wanted.querier.map(|address| Querier::new(mac, address, vlans)),
    }
}
