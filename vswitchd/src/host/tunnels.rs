//! Tunnels over the uplink: which encapsulations there are, their ports, and who is at the
//! other ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use dataplane::{AttachError, Device, PortSpec, Steering, TunnelSteering};
use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    program::TunnelKind,
    types::{BridgeId, PortNo},
    underlay::{NextHop, TunnelPort},
};
use ovn_northd_lite::tunnel_to;
use tokio::sync::watch;

use super::{ETHERNET_MTU, Host, PortError, lab, number, owned};

/// Port number of the uplink.
pub const UPLINK: PortNo = number(1);

/// An encapsulation.
#[derive(Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Which.
    pub kind: TunnelKind,
    /// The port that leads into its tunnels, which has its name.
    pub port: PortNo,
    /// UDP port of its packets; none: 0.
    udp_port: u16,
    /// What it adds to a packet over IPv4, the inner Ethernet header included.
    pub(super) overhead: u32,
}

/// What IPv6's header is longer than IPv4's.
const IPV6_OVERHEAD: u32 = 20;

/// UDP port of 6081 (RFC 8926 §3.3); the headers of IP, UDP and Geneve, an option of 8 bytes.
pub(super) const GENEVE: Encapsulation = Encapsulation {
    kind: TunnelKind::Geneve,
    port: number(2),
    udp_port: 6081,
    overhead: 20 + 8 + 8 + 8 + 14,
};
/// UDP port of 4789 (RFC 7348 §5); the headers of IP, UDP and VXLAN.
const VXLAN: Encapsulation =
    Encapsulation { kind: TunnelKind::Vxlan, port: number(3), udp_port: 4789, overhead: 20 + 8 + 8 + 14 };

/// The headers of IP and GRE with a key (RFC 2890 §2), and the inner Ethernet header. It cannot say
/// which port of a network a packet is for: rules by hand use it alone.
const GRE: Encapsulation =
    Encapsulation { kind: TunnelKind::Gre, port: number(4), udp_port: 0, overhead: 20 + 8 + 14 };

/// Port number of the Geneve tunnel, which a host has unless it is told otherwise.
pub const TUNNEL: PortNo = GENEVE.port;

impl Encapsulation {
    /// UDP port of its packets; 0: none.
    pub(super) const fn udp_port(&self) -> u16 {
        self.udp_port
    }

    /// The one of a kind.
    pub const fn of(kind: TunnelKind) -> &'static Self {
        match kind {
            TunnelKind::Geneve => &GENEVE,
            TunnelKind::Vxlan => &VXLAN,
            TunnelKind::Gre => &GRE,
        }
    }
}

impl Host {
    /// Encapsulations that this host has, the one it likes best first; none without an uplink.
    pub fn encapsulations(&self) -> impl Iterator<Item = &'static Encapsulation> + use<> {
        let kinds = self.identity.endpoint.as_ref().map(|_| self.identity.encap_types.clone());
        kinds.unwrap_or_default().into_iter().map(Encapsulation::of)
    }

    /// Port of an encapsulation that this host has.
    pub(super) fn tunnel(&self, kind: TunnelKind) -> Option<PortNo> {
        self.encapsulations().find(|encapsulation| encapsulation.kind == kind).map(|known| known.port)
    }

    /// First number of a workload's port.
    pub(super) fn first_number(&self) -> u32 {
        if self.is_handmade && self.identity.endpoint.is_none() {
            return UPLINK.get();
        }
        let reserved = self.encapsulations().map(|encapsulation| encapsulation.port).chain([TUNNEL]).max();
        reserved.map_or(0, PortNo::get) + 1
    }

    /// Attaches the uplink, with the tunnels over it.
    pub(super) fn attach_uplink(&mut self) -> Result<(), PortError> {
        let Some((interface, ip)) = self.identity.endpoint.clone() else { return Ok(()) };
        let first = self.first_number();
        let is_in_the_way = |saved: &crate::state::SavedPort| {
            let is_first = saved.bridge.is_empty() || saved.bridge == super::FIRST_NAME;
            self.is_handmade && is_first && saved.port < first
        };
        // Rules written by hand know it by its number.
        if let Some(saved) = self.state.ports().into_iter().find(is_in_the_way) {
            return Err(PortError::Reserved { interface: saved.interface, port: saved.port });
        }
        let is_gre = |encapsulation: &&Encapsulation| encapsulation.kind == TunnelKind::Gre;
        let by_udp = self.encapsulations().filter(|encapsulation| !is_gre(encapsulation));
        let udp_ports = by_udp.map(|encapsulation| encapsulation.udp_port).collect();
        let gre = self.encapsulations().any(|encapsulation| is_gre(&encapsulation));
        if self.owned_uplink().is_some() {
            self.make_uplink_bridge()?;
        } else {
            let device = match &mut self.lab {
                Some(lab) => Device::Memory(lab.add_uplink()),
                None => Device::Uplink {
                    interface: interface.clone(),
                    steering: Steering::Tunnel(TunnelSteering { local: ip, udp_ports, gre }),
                },
            };
            match self.dataplane.attach(PortSpec { port: UPLINK.into(), name: interface, device }) {
                Ok(_) => {}
                Err(error @ AttachError::NotYet(_)) => self.late_uplink = Some(error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        let tunnel_port = |&Encapsulation { kind, port, udp_port, .. }: &Encapsulation| TunnelPort {
            port,
            kind,
            udp_port,
            local: ip,
        };
        let tunnels = self.encapsulations().map(tunnel_port).collect();
        Arc::make_mut(&mut self.underlay).tunnels = tunnels;
        if self.is_handmade {
            self.take_peers(self.identity.tunnel_peers.iter().copied().collect());
            self.destinations_changed();
        }
        self.ports_changed();
        Ok(())
    }

    /// Attaches the uplink if it could not be as long as another process had it.
    pub(super) fn attach_late(&mut self) -> Result<(), PortError> {
        match self.late_uplink.take() {
            Some(_) => self.attach_uplink(),
            None => Ok(()),
        }
    }

    /// Lets go of an uplink that is gone, and attaches it when it is back.
    pub(super) fn tend_uplink(&mut self) {
        let Some((interface, _)) = self.identity.endpoint.clone().filter(|_| self.lab.is_none()) else {
            return;
        };
        let wire = self.wire();
        if self.dataplane.port_links().iter().any(|status| status.gone && owned::id(status) == wire) {
            tracing::warn!(interface, "the uplink is gone; waiting for it");
            self.detach(wire);
            self.late_uplink =
                Some(format!("{interface}: the uplink is gone; it is attached when it is back"));
            self.has_wire.send_replace(false);
            self.ports_changed();
        } else if self.late_uplink.is_some() {
            let is_owned = self.owned_uplink().is_some();
            match if is_owned { self.attach_wire() } else { self.attach_uplink() } {
                Ok(()) => {
                    tracing::info!(interface, "the uplink is back");
                    self.late_uplink = None;
                    self.shape_uplink();
                }
                Err(error) => self.late_uplink = Some(error.to_string()),
            }
        }
        if self.owned_uplink().is_some() {
            self.tend_internal();
        }
    }

    /// Adds the ports of tunnels, which are as the uplink is.
    pub(super) fn add_tunnels(&self, table: &mut PortTable) {
        let Some(uplink) = table.get(UPLINK).filter(|port| port.role == PortRole::Uplink).cloned() else {
            return;
        };
        for encapsulation in self.encapsulations() {
            let name = encapsulation.kind.name().to_owned();
            let info = PortInfo { name, role: PortRole::Tunnel, partial_checksums: false, ..uplink.clone() };
            table.insert(encapsulation.port, info);
        }
    }

    /// Peers that tunnelled packets go to, as they change.
    pub fn peers(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.peers.subscribe()
    }

    /// Uplink interface with its port, when there is one.
    pub fn uplink(&self) -> Option<&str> {
        self.identity.endpoint.as_ref().map(|(interface, _)| interface.as_str())
    }

    /// Takes over what the host's routes and neighbours say of the way to peers.
    pub fn set_next_hops(&mut self, next_hops: BTreeMap<IpAddr, NextHop>) {
        if self.underlay.next_hops != next_hops {
            let known: Vec<_> = next_hops.keys().map(ToString::to_string).collect();
            tracing::info!(known = known.join(" "), "next hops of tunnel peers");
            Arc::make_mut(&mut self.underlay).next_hops = next_hops;
            self.publish(BridgeId::FIRST);
        }
    }

    /// Largest packet of a workload that reaches the other hosts whole, whichever way this
    /// host sends it.
    pub fn workload_mtu(&self) -> u32 {
        let uplink = self.first().port_table.get(UPLINK).filter(|port| port.role == PortRole::Uplink);
        let over_ipv6 = self.identity.endpoint.as_ref().is_some_and(|(_, ip)| ip.is_ipv6());
        let more = if over_ipv6 { IPV6_OVERHEAD } else { 0 };
        let overhead = self.encapsulations().map(|encapsulation| encapsulation.overhead + more).max();
        uplink.map_or(ETHERNET_MTU, |port| port.mtu.saturating_sub(overhead.unwrap_or(0)))
    }

    /// Takes the other hosts of the view as the only ones that may send tunnelled packets.
    pub(super) fn underlay_peers(&mut self) {
        let chassis = &self.identity.chassis;
        let local = self.local_ports();
        let others = || self.lowering.view().chassis.iter().filter(|(name, _)| *name != chassis);
        let ways = others().filter_map(|(_, record)| Some((record.encap_ip, tunnel_to(record, &local)?.1)));
        self.bfd.set_ways(ways.collect());
        self.take_peers(others().map(|(_, record)| record.encap_ip).collect());
    }

    fn take_peers(&mut self, peers: BTreeSet<IpAddr>) {
        if self.underlay.peers != peers {
            Arc::make_mut(&mut self.underlay).peers = peers;
            self.destinations_changed();
        }
    }

    /// Finds the ways to whom tunnelled packets go: those that may send some themselves, and
    /// those that only get copies of mirrors.
    pub(super) fn destinations_changed(&mut self) {
        let copied = self.mirror_remotes().filter(|_| self.uplink().is_some());
        let wanted: BTreeSet<IpAddr> = self.underlay.peers.iter().copied().chain(copied).collect();
        if *self.peers.borrow() == wanted {
            return;
        }
        let underlay = Arc::make_mut(&mut self.underlay);
        underlay.next_hops.retain(|peer, _| wanted.contains(peer));
        if self.lab.is_some() {
            // All on one wire.
            underlay.next_hops = wanted.iter().map(|peer| (*peer, lab::next_hop(*peer))).collect();
        }
        self.peers.send_replace(wanted);
    }
}
