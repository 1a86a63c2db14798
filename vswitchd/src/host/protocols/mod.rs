//! The protocols that a bridge speaks itself, at work: spanning tree, bonds with LACP, who hears
//! which group; and the mirrors' counters. The machines are those of `bridge-protocols`; here
//! they get frames, links and time, and what they find out goes into the bridge's port table.
//!
//! `settings.rs` is what they are told, `bonds.rs` one bond, `monitoring.rs` what collectors get, `tending.rs` how the host has them
//! do what is due.

mod bonds;
mod monitoring;
mod settings;
mod tending;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
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
    port::{Bridging, Mirror, MirrorOutput, PortInfo, PortRole, PortTable, Snooping, TreeState},
    types::{MacAddr, PortNo, Timestamp, VlanId},
};

pub use self::{
    bonds::BondMember,
    settings::{BondModeName, BridgeSettings, LacpName, SettingsError, TreeProtocol},
    tending::ProtocolError,
};
use self::{
    bonds::{LiveBond, id_of, number_of},
    monitoring::Sflow,
};
use super::Bridge;

/// Bits of `Bridging::listens`: bridges, and links that are one.
const LISTENS_TREE: u16 = 1 << 0;
const LISTENS_LACP: u16 = 1 << 2;
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
    settings: BridgeSettings,
    tree: Option<stp::Bridge>,
    ticked: Timestamp,
    bonds: BTreeMap<String, LiveBond>,
    groups: Option<Groups>,
    mirrors: BTreeMap<String, Arc<RuleStats>>,
    sflow: Option<Sflow>,
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
        Self { address: MacAddr::new([0x02, 0xbf, a, b, c, d]), ..Self::default() }
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
        if settings.sflow.targets.is_empty() {
            self.sflow = None;
        } else if self.sflow.as_ref().is_none_or(|sflow| *sflow.settings() != settings.sflow) {
            self.sflow = Some(Sflow::new(&settings.sflow, now));
        }
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

    /// There is something to do from time to time.
    pub(super) fn speaks(&self) -> bool {
        self.tree.is_some() || !self.bonds.is_empty() || self.groups.is_some() || self.sflow.is_some()
    }

    /// Numbers that bonds have, with their names.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (PortNo, &str)> {
        self.bonds.iter().map(|(name, bond)| (bond.number, name.as_str()))
    }

    /// Takes over which links there are.
    fn configure(&mut self, links: &Links) {
        for (name, bond) in &mut self.bonds {
            if let Some(settings) = self.settings.bonds.get(name) {
                bond.configure(settings, self.address, links);
            }
        }
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

    /// Does what is due by now.
    pub(super) fn tick(&mut self, now: Timestamp, links: &Links) {
        let before = self.states();
        self.configure(links);
        for (name, bond) in &mut self.bonds {
            let active = bond.state.active();
            let (frames, changed) = bond.tick(now, self.address, links);
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
        if self.bonds.values_mut().any(|bond| bond.hear(now, port, frame)) {
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

    /// Puts into a port table what has been found out.
    pub(super) fn furnish(&self, table: &mut PortTable) {
        for (name, bond) in &self.bonds {
            if let Some(settings) = self.settings.bonds.get(name) {
                self.furnish_bond((name, bond), settings, table);
            }
        }
        if let Some(tree) = &self.tree {
            self.furnish_tree(tree, table);
        }
        table.set_mirrors(self.mirrors_of(table));
        table.set_sampling(self.sflow.as_ref().map(Sflow::sampling));
        let floods_unknown = self.settings.multicast.flood_unregistered;
        table.set_snooping(self.groups.is_some().then_some(Snooping { floods_unknown }));
    }

    /// What may pass each port; nothing, where the tree has not heard of one yet.
    fn furnish_tree(&self, tree: &stp::Bridge, table: &mut PortTable) {
        let aside = self.settings.beside_tree();
        let takes_part = |(port, info): &(PortNo, &PortInfo)| {
            info.role == PortRole::Workload
                && port.get() <= MAX_TREE_PORT
                && !aside.contains(info.name.as_str())
        };
        let ports: Vec<PortNo> = table.iter().filter(takes_part).map(|(port, _)| port).collect();
        for port in ports {
            let state = match tree.port(id_of(port)).map(|status| status.state) {
                Some(stp::State::Discarding) | None => TreeState::Discarding,
                Some(stp::State::Learning) => TreeState::Learning,
                Some(stp::State::Forwarding) => TreeState::Forwarding,
            };
            let members = table.bond(port).map(|bond| bond.members.clone()).unwrap_or_default();
            for port in members.into_iter().chain([port]) {
                let own = table.bridging(port).clone();
                let listens = own.listens | LISTENS_TREE;
                table.set_bridging(port, Bridging { tree: state, listens, ..own });
            }
        }
    }

    fn furnish_bond(
        &self,
        (name, bond): (&String, &LiveBond),
        settings: &settings::BondSettings,
        table: &mut PortTable,
    ) {
        let members: Vec<PortInfo> =
            bond.members.values().filter_map(|port| table.get(*port).cloned()).collect();
        let info = PortInfo {
            name: name.clone(),
            role: PortRole::Workload,
            up: bond.state.active().is_some() && settings.port.sends(),
            mtu: members.iter().map(|member| member.mtu).min().unwrap_or_default(),
            partial_checksums: members.iter().any(|member| member.partial_checksums),
        };
        table.insert(bond.number, info);
        let own = settings.port.bridging().unwrap_or_default();
        let receives = own.receives;
        table.set_bridging(bond.number, own);
        table.set_bond(bond.number, bond.as_port(settings.mode.into()));
        for member in bond.members.values() {
            let own = table.bridging(*member).clone();
            let listens = own.listens | if bond.lacp.is_some() { LISTENS_LACP } else { 0 };
            let receives = own.receives && receives;
            table.set_bridging(*member, Bridging { listens, receives, ..own });
        }
    }

    fn mirrors_of(&self, table: &PortTable) -> Vec<Arc<Mirror>> {
        let numbers =
            |names: &BTreeSet<String>| names.iter().filter_map(|name| table.by_name(name)).collect();
        let made = self.settings.mirrors.iter().filter_map(|(name, wanted)| {
            let output = match wanted.output_port.as_str() {
                "" => MirrorOutput::Vlan(VlanId::new(wanted.output_vlan).ok()?),
                port => MirrorOutput::Port(table.by_name(port)?),
            };
            let by_ports = !(wanted.select_src.is_empty() && wanted.select_dst.is_empty());
            let is_any = wanted.select_all || !by_ports;
            let vlans: BTreeSet<_> =
                wanted.select_vlans.iter().filter_map(|vlan| VlanId::new(*vlan).ok()).collect();
            Some(Arc::new(Mirror {
                name: name.clone(),
                from: (!is_any).then(|| numbers(&wanted.select_src)),
                to: (!is_any).then(|| numbers(&wanted.select_dst)),
                vlans: (!vlans.is_empty()).then_some(vlans),
                filter: wanted.matching(table),
                output,
                max_len: (wanted.snaplen > 0).then_some(wanted.snaplen),
                stats: Arc::clone(self.mirrors.get(name)?),
            }))
        });
        made.collect()
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
        querier: wanted.querier.map(|address| Querier { mac, address, vlans }),
    }
}
