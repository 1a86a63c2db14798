//! Other hosts and neighbours, as this host knows them.

use std::net::IpAddr;

use flowtable::{
    program::TunnelKind,
    types::{MacAddr, PortNo},
};

use super::Host;

/// The way to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Port of the tunnel, in rules.
    pub port: PortNo,
    /// Its name.
    pub name: String,
    /// Encapsulation.
    pub kind: TunnelKind,
    /// This host's address.
    pub local: IpAddr,
    /// The other's.
    pub remote: IpAddr,
    /// UDP port of the encapsulation.
    pub udp_port: u16,
    /// Id of the other host, if it is one of the network.
    pub chassis: Option<String>,
    /// Where packets to it go, if that is known.
    pub next_hop: Option<MacAddr>,
    /// State of the session that watches it, if one does.
    pub liveness: Option<&'static str>,
}

/// A neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourStatus {
    /// It is on the underlay, not in the logical network.
    pub is_underlay: bool,
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Interface on the underlay, or id of the router port.
    pub port: String,
}

impl Host {
    /// The hosts that tunnelled packets are exchanged with.
    pub fn tunnels(&self) -> Vec<TunnelStatus> {
        let chassis = &self.lowering.view().chassis;
        let name_of = |peer: IpAddr| {
            chassis.iter().find(|(_, record)| record.encap_ip == peer).map(|(name, _)| name.clone())
        };
        let ports = &self.first().port_table;
        let mut tunnels = Vec::new();
        for tunnel in &self.underlay.tunnels {
            let name = ports.get(tunnel.port).map(|port| port.name.clone()).unwrap_or_default();
            tunnels.extend(self.underlay.peers.iter().map(|peer| TunnelStatus {
                port: tunnel.port,
                name: name.clone(),
                kind: tunnel.kind,
                local: tunnel.local,
                remote: *peer,
                udp_port: tunnel.udp_port,
                chassis: name_of(*peer),
                next_hop: self.underlay.next_hops.get(peer).map(|hop| hop.dst_mac),
                liveness: self.bfd.state(*peer).map(|state| state.name()),
            }));
        }
        tunnels
    }

    /// The neighbours that are known: on the underlay those that lead to other hosts, in the
    /// logical network those of its routers.
    pub fn known_neighbours(&self) -> Vec<NeighbourStatus> {
        let uplink = self.uplink().unwrap_or_default();
        let underlay = self.underlay.next_hops.iter().map(|(peer, hop)| NeighbourStatus {
            is_underlay: true,
            address: *peer,
            mac: hop.dst_mac,
            port: uplink.to_owned(),
        });
        let view = self.lowering.view();
        let logical = self.neighbours.iter().map(|learned| {
            let is_of = |port: &ovn_northd_lite::southbound::PortBinding| {
                (port.datapath, port.key) == (learned.datapath, learned.port)
            };
            let port = view.bindings.iter().find(|(_, binding)| is_of(binding)).map(|(name, _)| name.clone());
            NeighbourStatus {
                is_underlay: false,
                address: learned.ip,
                mac: learned.mac,
                port: port.unwrap_or_default(),
            }
        });
        underlay.chain(logical).collect()
    }
}
