//! An uplink that the switch has for itself: a bridge of its own between the wire, the host and the tunnels. All that
//! the interface receives comes here; what is tunnelled to this host goes on to the first bridge, all else to the
//! host's internal port ([`crate::stand_in`]).
//!
//! ```text
//!                    br-uplink                      first bridge
//!   eth0 ── 1 ─┬─ tunnelled to us ── 3 ════ 1 ── tunnels, workloads
//!              └─ all else ── 2 ── eth0-host (TAP): the host
//! ```
//! An address for tunnelled packets that is the switch's own has a fourth port, `endpoint`, behind which the switch
//! answers for it ([`crate::tunnel_endpoint`]).
//!
//! A bridge, and not a detour past the switch: so the host's packets are seen, counted and dropped under a name like
//! all others. Its rules are these, and nobody changes them.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane::{Device, MemoryPort, PortId, PortSpec};
use flowtable::{
    port::PortTable,
    program::TunnelKind,
    types::{BridgeId, MacAddr},
    underlay::NextHop,
};
use tokio::sync::watch;

use super::{Bridge, Encapsulation, FailMode, Host, PortError, number, tunnels::UPLINK, written};
use crate::tunnel_endpoint::OwnAddress;

/// Name of the uplink's bridge.
pub const UPLINK_BRIDGE: &str = "br-uplink";
/// Its number: the last one, which no other bridge gets before all others are taken.
pub(super) const ID: BridgeId = match BridgeId::new(BridgeId::COUNT as u16 - 1) {
    Ok(id) => id,
    Err(_) => panic!("not a bridge number"),
};
/// The interface.
const WIRE: PortId = PortId::new(ID, number(1));
/// The host.
const HOST: PortId = PortId::new(ID, number(2));
/// The first bridge, and what leads there.
const TUNNELS: PortId = PortId::new(ID, number(3));
const TUNNELS_NAME: &str = "tunnels";
/// The switch as a station itself, where it is one.
const STATION: PortId = PortId::new(ID, number(4));
const STATION_NAME: &str = "endpoint";
/// Frames that may wait on their way there, and their length: what is for a station is short, but for pings.
const STATION_QUEUE: usize = 256;
const STATION_MTU: u32 = 9000;
/// What the first bridge has for an uplink.
const UPLINK_NAME: &str = "uplink";

/// Interfaces of an uplink that the switch has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedUplink {
    /// The uplink.
    pub interface: String,
    /// What the host has instead.
    pub internal: String,
}

impl Host {
    /// The uplink, if the switch has it for itself.
    pub fn owned_uplink(&self) -> Option<OwnedUplink> {
        let (interface, _) = self.identity.endpoint.as_ref()?;
        let internal = self.identity.internal_port.clone()?;
        Some(OwnedUplink { interface: interface.clone(), internal })
    }

    /// Interface by which the host's own routes lead to other hosts; `None` also where that is not the host's
    /// affair, because the switch is a station itself.
    pub fn underlay_interface(&self) -> Option<&str> {
        if self.identity.own_address.is_some() {
            return None;
        }
        self.identity.internal_port.as_deref().filter(|_| self.uplink().is_some()).or_else(|| self.uplink())
    }

    /// It is the uplink's bridge.
    pub(super) fn is_uplinks(&self, bridge: BridgeId) -> bool {
        bridge == ID && self.identity.internal_port.is_some()
    }

    /// The port that stands on the uplink's interface.
    pub(super) fn wire(&self) -> PortId {
        if self.identity.internal_port.is_some() { WIRE } else { UPLINK.into() }
    }

    /// The switch has the uplink's frames, as that changes.
    pub fn has_wire(&self) -> watch::Receiver<bool> {
        self.has_wire.subscribe()
    }

    /// A port of this name is part of the uplink.
    pub(super) fn is_of_uplink(&self, name: &str) -> bool {
        let own =
            |owned: OwnedUplink| [UPLINK_NAME, TUNNELS_NAME, STATION_NAME, &owned.internal].contains(&name);
        self.uplink() == Some(name) || self.owned_uplink().is_some_and(own)
    }

    /// What a port of the uplink is for, in words.
    pub fn uplink_role(&self, port: PortId) -> Option<&'static str> {
        let is_owned = self.identity.internal_port.is_some();
        match port {
            HOST if is_owned => Some("internal"),
            TUNNELS if is_owned => Some("patch"),
            STATION if is_owned => Some("endpoint"),
            WIRE if is_owned => Some("uplink"),
            port if port == UPLINK.into() && self.uplink().is_some() => Some("uplink"),
            _ => None,
        }
    }

    /// Makes the bridge and the link to the first one; frames come later ([`Host::attach_wire`]).
    pub(super) fn make_uplink_bridge(&mut self) -> Result<(), PortError> {
        if self.bridge_of(ID).is_some() {
            return Ok(());
        }
        self.make_bridge(ID, UPLINK_BRIDGE, FailMode::Secure);
        let device = Device::Patch { keeps_queues: true };
        let ends = [(UPLINK.into(), UPLINK_NAME), (TUNNELS, TUNNELS_NAME)];
        for (port, name) in ends {
            self.dataplane.attach(PortSpec { port, name: name.to_owned(), device: device.clone() })?;
        }
        for (end, other) in [(UPLINK.into(), TUNNELS), (TUNNELS, UPLINK.into())] {
            // The only error: the port is not attached.
            let _ = self.dataplane.link(end, Some(other));
        }
        if self.identity.own_address.is_some() {
            let memory = MemoryPort::with(STATION_QUEUE, MacAddr::ZERO, STATION_MTU);
            let (name, device) = (STATION_NAME.to_owned(), Device::Memory(memory.clone()));
            self.dataplane.attach(PortSpec { port: STATION, name, device })?;
            self.station = Some(memory);
        }
        let lines = self.uplink_rules();
        let changes: Vec<_> = lines.iter().map(|line| written::saved_line(line)).collect();
        let now = self.dataplane.now();
        let tables = self.bridge_of(ID).map(|bridge| bridge.tables.clone()).unwrap_or_default();
        let commit = written::parse(&changes, &PortTable::default(), &tables)
            .and_then(|changes| Ok(tables.commit(changes, now)?))
            .map_err(|error| PortError::Uplink(error.to_string()))?;
        self.take_tables(ID, commit);
        Ok(())
    }

    /// What is tunnelled to this host is what the program of an uplink that is shared would take: untagged, no
    /// fragment, to the address and port of a tunnel.
    fn uplink_rules(&self) -> Vec<String> {
        let [wire, host, tunnels] = [WIRE, HOST, TUNNELS].map(|port| port.port);
        let tunnelled = self.encapsulations().filter_map(|encapsulation| self.tunnel_match(encapsulation));
        let to_tunnels = |matching| format!("priority=20,in_port={wire},{matching},actions=output:{tunnels}");
        let mut rules: Vec<_> = tunnelled.map(to_tunnels).collect();
        rules.push(format!("priority=10,in_port={wire},actions=output:{host}"));
        rules.extend([host, tunnels].map(|from| format!("priority=10,in_port={from},actions=output:{wire}")));
        rules.extend(self.station_rules());
        rules
    }

    fn tunnel_match(&self, encapsulation: &Encapsulation) -> Option<String> {
        let (_, local) = self.identity.endpoint.as_ref()?;
        let (udp, ip, field) = match local {
            IpAddr::V4(_) => ("udp", "ip", "nw_dst"),
            IpAddr::V6(_) => ("udp6", "ipv6", "ipv6_dst"),
        };
        let protocol = match encapsulation.kind {
            TunnelKind::Gre => format!("{ip},nw_proto=47"),
            TunnelKind::Geneve | TunnelKind::Vxlan => format!("{udp},tp_dst={}", encapsulation.udp_port()),
        };
        Some(format!("{protocol},vlan_tci=0x0000,nw_frag=no,{field}={local}"))
    }

    /// What else is to be done where the tunnels' address is the switch's own: who asks for it, or sends it anything
    /// else than tunnelled packets, is answered by the station.
    fn station_rules(&self) -> Vec<String> {
        let Some(OwnAddress { address, .. }) = &self.identity.own_address else { return Vec::new() };
        let [wire, host, station] = [WIRE, HOST, STATION].map(|port| port.port);
        let (sent_to, asked_for, answers) = match address {
            IpAddr::V4(ip) => {
                (format!("ip,nw_dst={ip}"), format!("arp,arp_op=1,arp_tpa={ip}"), "arp,arp_op=2".to_owned())
            }
            IpAddr::V6(ip) => (
                format!("ipv6,ipv6_dst={ip}"),
                format!("icmp6,icmp_type=135,icmp_code=0,nd_target={ip}"),
                "icmp6,icmp_type=136".to_owned(),
            ),
        };
        let mut rules = Vec::new();
        for from in [wire, host] {
            let own = [&sent_to, &asked_for];
            let to_station = |what| format!("priority=15,in_port={from},{what},actions=output:{station}");
            rules.extend(own.map(to_station));
        }
        rules.push(format!("priority=14,in_port={wire},{answers},actions=output:{host},output:{station}"));
        // Whom it is for knows it by his address.
        rules.push(format!("priority=10,in_port={station},actions=output:{wire},output:{host}"));
        rules
    }

    /// Where the switch is a station itself: what it has, and how it is spoken to.
    pub fn station(&self) -> Option<(OwnAddress, MemoryPort)> {
        self.identity.own_address.clone().zip(self.station.clone())
    }

    /// MAC address and MTU of the uplink, while its frames are had.
    pub fn wire_facts(&self) -> Option<(MacAddr, u32)> {
        let statuses = self.dataplane.port_links();
        let wire = statuses.iter().find(|status| id(status) == self.wire() && !status.gone)?;
        Some((wire.mac, wire.mtu))
    }

    /// Takes over what the station has found of the ways to peers.
    pub fn set_own_hops(&mut self, src_mac: MacAddr, hops: &BTreeMap<IpAddr, MacAddr>) {
        let hop = |dst_mac: MacAddr| NextHop { port: UPLINK, src_mac, dst_mac };
        self.set_next_hops(hops.iter().map(|(peer, mac)| (*peer, hop(*mac))).collect());
    }

    /// Makes the host's internal port, which nothing leads to yet.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn attach_internal(&mut self) -> Result<(), PortError> {
        let Some(OwnedUplink { internal, .. }) = self.owned_uplink() else { return Ok(()) };
        if self.is_attached(HOST) {
            return Ok(());
        }
        let device = Device::Internal { interface: internal.clone() };
        self.dataplane.attach(PortSpec { port: HOST, name: internal, device })?;
        self.ports_changed();
        Ok(())
    }

    /// Takes the uplink's frames, all of them.
    ///
    /// # Errors
    /// They cannot be had.
    pub fn attach_wire(&mut self) -> Result<(), PortError> {
        let Some(OwnedUplink { interface, .. }) = self.owned_uplink() else { return Ok(()) };
        if !self.is_attached(WIRE) {
            let device = Device::Wire { interface: interface.clone() };
            self.dataplane.attach(PortSpec { port: WIRE, name: interface, device })?;
            self.ports_changed();
            self.shape_uplink();
        }
        self.late_uplink = None;
        self.has_wire.send_replace(true);
        Ok(())
    }

    /// Gives the uplink's frames to the host, before the process ends: what it had takes its time to go.
    pub fn release_wire(&mut self) {
        if self.owned_uplink().is_some() {
            self.has_wire.send_replace(false);
            self.detach(WIRE);
        }
    }

    /// Makes the internal port again when somebody has deleted it.
    pub(super) fn tend_internal(&mut self) {
        let gone = self.dataplane.port_links().into_iter().any(|status| status.gone && id(&status) == HOST);
        if gone {
            tracing::warn!("the internal port is gone; making it again");
            self.detach(HOST);
            if let Err(error) = self.attach_internal() {
                tracing::error!(%error, "the host has no internal port");
            }
            // Whoever furnishes it is told.
            self.has_wire.send_modify(|_| ());
        }
    }

    pub(super) fn is_attached(&self, port: PortId) -> bool {
        self.dataplane.port_links().iter().any(|status| id(status) == port)
    }

    /// A bridge that commands may change.
    pub(super) fn is_changeable(&self, bridge: &Bridge) -> bool {
        !self.is_uplinks(bridge.id)
    }
}

/// Which port it is.
pub(super) fn id(status: &dataplane::PortStatus) -> PortId {
    PortId::new(status.bridge, status.port)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use dataplane::{Dataplane, DataplaneConfig, PortStatus};
    use flowtable::build::{self, Host as Station};

    use super::*;
    use crate::{
        bfd::Timing,
        host::{Identity, Mode},
        state::StateDir,
    };

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A host whose wire, and whose own port, are queues.
    fn host(address: IpAddr, is_own: bool) -> (Host, MemoryPort, MemoryPort) {
        let prefix_len = if address.is_ipv4() { 24 } else { 64 };
        let identity = Identity {
            chassis: "h1".to_owned(),
            hostname: "h1".to_owned(),
            endpoint: Some(("eth0".to_owned(), address)),
            internal_port: Some("eth0-host".to_owned()),
            own_address: is_own.then_some(OwnAddress { address, prefix_len, gateway: None }),
            encap_types: vec![TunnelKind::Geneve, TunnelKind::Vxlan],
            tunnel_peers: Vec::new(),
            controller: None,
            liveness: Timing { interval: Duration::from_secs(1), multiplier: 3 },
        };
        let dataplane = Dataplane::start(DataplaneConfig::default()).unwrap();
        let mut host = Host::start(identity, dataplane, StateDir::none(), Mode::Network).unwrap();
        let (wire, own) = (MemoryPort::new(64), MemoryPort::new(64));
        for (port, name, memory) in [(HOST, "eth0-host", &own), (WIRE, "eth0", &wire)] {
            let device = Device::Memory(memory.clone());
            host.dataplane.attach(PortSpec { port, name: name.to_owned(), device }).unwrap();
        }
        host.ports_changed();
        (host, wire, own)
    }

    fn status(host: &Host, port: PortId) -> PortStatus {
        host.dataplane.ports().into_iter().find(|status| id(status) == port).unwrap()
    }

    fn ends(family: u8) -> (Station, Station) {
        if family == 4 { (Station::v4(9), Station::v4(1)) } else { (Station::v6(9), Station::v6(1)) }
    }

    #[test]
    fn what_is_tunnelled_goes_to_the_tunnels_and_all_else_to_the_host() {
        for family in [4, 6] {
            let (far, near) = ends(family);
            let (host, wire, own) = host(near.ip, false);
            let to = |port| Station { port, ..near };
            for (n, port) in (1..).zip([6081, 4789]) {
                wire.inject(&build::udp(&far, &to(port), &[0; 64])).unwrap();
                let until = Instant::now() + PATIENCE;
                while status(&host, UPLINK.into()).counters.rx_packets < n {
                    assert!(Instant::now() < until, "port {port} of IPv{family} does not go to the tunnels");
                }
            }
            let datagram = build::udp(&far, &to(6081), &[7; 3000]);
            let mut others = vec![
                build::udp(&far, &to(53), &[0; 64]),
                build::tcp(&far, &to(6081), 2, &[]),
                build::vlan(&build::udp(&far, &to(6081), &[0; 64]), 0x8100, 5),
                build::icmp_echo(&far, &near, false, 1, 1, &[0; 56]),
            ];
            others.extend(build::fragments(&datagram, 1, 1400));
            for frame in &others {
                wire.inject(frame).unwrap();
                assert_eq!(own.receive_within(PATIENCE).as_ref(), Some(frame), "IPv{family}");
                own.inject(frame).unwrap();
                assert_eq!(wire.receive_within(PATIENCE).as_ref(), Some(frame), "IPv{family}, out");
            }
            for port in [WIRE, HOST, TUNNELS] {
                let counters = status(&host, port).counters;
                assert_eq!(counters.rx_packets, counters.rx_forwarded + counters.rx_dropped, "{port}");
                assert_eq!(counters.rx_dropped, 0, "{port}");
            }
        }
    }

    #[test]
    fn what_is_for_an_address_of_the_switchs_own_goes_to_the_station() {
        for family in [4, 6] {
            let (far, near) = ends(family);
            let (host, wire, own) = host(near.ip, true);
            let (_, station) = host.station().unwrap();
            let ping = build::icmp_echo(&far, &near, false, 1, 1, &[0; 56]);
            let mut frames = vec![ping.clone()];
            if family == 4 {
                frames.push(build::arp(1, &far, &near));
            }
            for frame in &frames {
                for side in [&wire, &own] {
                    side.inject(frame).unwrap();
                    assert_eq!(station.receive_within(PATIENCE).as_ref(), Some(frame), "IPv{family}");
                }
            }
            if family == 4 {
                // Who asks for others, or answers, may mean the host.
                let (others, answer) = (build::arp(1, &near, &Station::v4(3)), build::arp(2, &far, &near));
                wire.inject(&others).unwrap();
                assert_eq!(own.receive_within(PATIENCE), Some(others));
                wire.inject(&answer).unwrap();
                assert_eq!(own.receive_within(PATIENCE).as_ref(), Some(&answer));
                assert_eq!(station.receive_within(PATIENCE), Some(answer));
            }
            station.inject(&ping).unwrap();
            assert_eq!(wire.receive_within(PATIENCE).as_ref(), Some(&ping));
            assert_eq!(own.receive_within(PATIENCE), Some(ping));
        }
    }

    #[test]
    fn the_uplinks_bridge_is_nobodys_to_change() {
        let (mut host, ..) = host([192, 0, 2, 1].into(), false);
        assert_eq!(host.bridge("").unwrap().id(), BridgeId::FIRST, "there is one that can be meant");
        assert!(host.bridge(UPLINK_BRIDGE).is_err() && host.visible_bridge(UPLINK_BRIDGE).is_ok());
        for name in ["eth0", "eth0-host", UPLINK_NAME, TUNNELS_NAME, STATION_NAME] {
            assert!(matches!(host.remove_port(name), Err(PortError::IsUplink(_))), "{name}");
        }
        host.release_wire();
        assert!(!*host.has_wire().borrow() && host.wire_facts().is_none());
    }
}
