//! What has been found out, as the port table has it.

use std::{collections::BTreeSet, sync::Arc};

use bridge_protocols::stp;
use flowtable::{
    port::{Bridging, Mirror, MirrorOutput, PortInfo, PortRole, PortTable, Snooping, TreeState},
    types::{PortNo, VlanId},
};

use super::{
    MAX_TREE_PORT, Protocols,
    bonds::{LiveBond, id_of},
    settings,
};

/// Bits of `Bridging::listens`: bridges, and links that are one.
const LISTENS_TREE: u16 = 1 << 0;
const LISTENS_LACP: u16 = 1 << 2;

impl Protocols {
    /// Puts into a port table what has been found out.
    pub(in crate::host) fn furnish(&self, table: &mut PortTable) {
        for (name, bond) in &self.bonds {
            if let Some(settings) = self.settings.bonds.get(name) {
                self.furnish_bond((name, bond), settings, table);
            }
        }
        if let Some(tree) = &self.tree {
            self.furnish_tree(tree, table);
        }
        table.set_mirrors(self.mirrors_of(table));
        self.neighbours.furnish(&self.settings, table);
        table.set_sampling(self.monitoring.sampling());
        table.set_accounts(self.monitoring.accounts().cloned());
        for name in &self.settings.multicast.flood_reports {
            if let Some(port) = table.by_name(name) {
                let own = table.bridging(port).clone();
                table.set_bridging(port, Bridging { hears_reports: true, ..own });
            }
        }
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
            let output = match (wanted.output_port.as_str(), wanted.remote) {
                ("", _) => MirrorOutput::Vlan(VlanId::new(wanted.output_vlan).ok()?),
                (port, None) => MirrorOutput::Port(table.by_name(port)?),
                (port, Some(remote)) => {
                    MirrorOutput::Tunnel { port: table.by_name(port)?, remote, key: wanted.key }
                }
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
}
