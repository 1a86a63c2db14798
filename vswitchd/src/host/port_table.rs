//! The ports as packets, the controller and readers of events see them.

use std::sync::Arc;

use dataplane::PortStatus;
use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    types::{BridgeId, PortNo},
};
use ovn_northd_lite::SouthboundDelta;

use super::{Bridge, ETHERNET_MTU, Event, Host, PortChange, PortEvent, PortSettings, owned, tunnels::UPLINK};

impl Host {
    /// Makes changed ports visible to packets and to the controller.
    pub(super) fn ports_changed(&mut self) {
        let statuses = self.dataplane.port_links();
        let mut before = Vec::new();
        for id in self.bridges.iter().map(Bridge::id).collect::<Vec<_>>() {
            let table = Arc::new(self.table_of(id, &statuses));
            let Some(bridge) = self.bridge_mut(id) else { continue };
            before.push((id, std::mem::replace(&mut bridge.port_table, table)));
        }
        self.lower(SouthboundDelta::default());
        for (id, before) in before {
            let is_same = self.bridge_of(id).is_some_and(|bridge| bridge.port_table == before);
            // What a network's ports are makes its rules.
            if !is_same || !self.is_handmade {
                self.publish(id);
                self.tell_ports(id, &before);
            }
        }
        self.tell_claims(&statuses);
    }

    /// Tells how the ports of a bridge have changed.
    fn tell_ports(&self, id: BridgeId, before: &PortTable) {
        let Some(bridge) = self.bridge_of(id) else { return };
        let present = &bridge.port_table;
        let tell = |what, port: PortNo, PortInfo { name, up, mtu, .. }: &PortInfo| {
            let event = PortEvent { what, port, name: name.clone(), up: *up, mtu: *mtu };
            self.events.tell_of(&bridge.name, self.dataplane.now(), Event::Port(event));
        };
        for (port, info) in before.iter().filter(|(port, _)| present.get(*port).is_none()) {
            tell(PortChange::Removed, port, info);
        }
        for (port, info) in present.iter() {
            match before.get(port) {
                None => tell(PortChange::Added, port, info),
                Some(old) if old != info => tell(PortChange::Modified, port, info),
                Some(_) => {}
            }
        }
    }

    /// The ports of a bridge as packets are to see them.
    pub(super) fn table_of(&self, bridge: BridgeId, statuses: &[PortStatus]) -> PortTable {
        let mut table = PortTable::default();
        for status in statuses.iter().filter(|status| status.bridge == bridge) {
            let is_uplink = owned::id(status) == UPLINK.into() && self.uplink().is_some();
            let role = if is_uplink { PortRole::Uplink } else { PortRole::Workload };
            let settings = self.ports.get(&status.name).map(|port| &port.settings);
            if let Some(bridging) = settings.and_then(PortSettings::bridging) {
                table.set_bridging(status.port, bridging);
            }
            // What the first bridge has for an uplink is as the interface behind it.
            let wire = statuses.iter().find(|wire| is_uplink && owned::id(wire) == self.wire());
            let on_wire = if is_uplink { wire } else { Some(status) };
            let info = PortInfo {
                name: status.name.clone(),
                role,
                up: on_wire.is_some_and(|wire| wire.up) && settings.is_none_or(PortSettings::sends),
                mtu: on_wire.map_or(ETHERNET_MTU, |wire| wire.mtu),
                partial_checksums: status.kind == "afxdp",
            };
            table.insert(status.port, info);
        }
        self.add_tunnels(&mut table);
        if let Some(bridge) = self.bridge_of(bridge) {
            bridge.protocols.furnish(&mut table);
        }
        table
    }
}
