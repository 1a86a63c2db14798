//! The switch as a station of its own on the underlay: a tunnel endpoint whose address the host does not have. It
//! answers who asks for the address (ARP, RFC 4861) and who pings it, and finds out where packets to peers go.
//!
//! All of that is smoltcp's, which sees no packet but those, at the pace of a thread that has nothing else to do. Its
//! neighbours are its own, and nothing tells them; so each peer is pinged now and then, the ping shows by its
//! destination where it would go, and goes nowhere. Rejected: a resolver of ours beside it, which would do the same
//! over again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use dataplane::MemoryPort;
use flowtable::types::MacAddr;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::icmp,
    time::Instant,
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, HardwareAddress, Icmpv4Packet, Icmpv4Repr,
        Icmpv6Packet, Icmpv6Repr, IpCidr, IpProtocol, Ipv4Packet, Ipv6Packet,
    },
};

use crate::host::SharedHost;

/// Header of Ethernet, which smoltcp's MTU counts.
const L2_LEN: usize = 14;
/// Frames that may wait for the station; what comes beyond is lost, as on any busy one.
const MAX_WAITING: usize = 256;
/// How often a peer is looked for that is not found, and how often one that is: before smoltcp forgets it, after a
/// minute.
const SEARCH: Duration = Duration::from_secs(1);
const CONFIRM: Duration = Duration::from_secs(20);
/// A peer that was not found again for so long is not there.
const LIFE: Duration = Duration::from_secs(90);
/// Numbers the pings of peers: they go nowhere, and answers to others' are theirs.
const IDENT: u16 = 0xfe70;
/// Whom the station answers to at most as peers: smoltcp remembers so many neighbours.
pub const MAX_PEERS: usize = 1024;

/// What the switch has for itself on the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its net.
    pub prefix_len: u8,
    /// Who leads out of it.
    pub gateway: Option<IpAddr>,
}

/// The station. Time is given to it.
pub struct TunnelEndpoint {
    station: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    peers: BTreeMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Peer {
    socket: SocketHandle,
    /// When it is looked for next.
    due: Duration,
    /// Where packets to it go, and when that was seen.
    hop: Option<(MacAddr, Duration)>,
}

/// Frames to and from the station.
#[derive(Debug)]
struct Wire {
    mtu: usize,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

impl TunnelEndpoint {
    /// A station with the uplink's MAC address and MTU.
    pub fn new(own: &OwnAddress, mac: MacAddr, mtu: u32) -> Self {
        let mut wire = Wire { mtu: mtu as usize + L2_LEN, received: VecDeque::new(), sent: Vec::new() };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.octets())));
        let mut station = Interface::new(config, &mut wire, Instant::ZERO);
        station.update_ip_addrs(|addresses| {
            // There is room for the first.
            let _ = addresses.push(IpCidr::new(own.address.into(), own.prefix_len));
        });
        let routes = station.routes_mut();
        // As above.
        let _ = match own.gateway {
            Some(IpAddr::V4(gateway)) => routes.add_default_ipv4_route(gateway).map(drop),
            Some(IpAddr::V6(gateway)) => routes.add_default_ipv6_route(gateway).map(drop),
            None => Ok(()),
        };
        Self { station, wire, sockets: SocketSet::new(Vec::new()), peers: BTreeMap::new() }
    }

    /// Wants to know the way to these, and to no others.
    pub fn want(&mut self, peers: &BTreeSet<IpAddr>) {
        let gone: Vec<_> = self.peers.keys().copied().filter(|peer| !peers.contains(peer)).collect();
        for peer in gone.into_iter().filter_map(|peer| self.peers.remove(&peer)) {
            self.sockets.remove(peer.socket);
        }
        for peer in peers.iter().take(MAX_PEERS) {
            let sockets = &mut self.sockets;
            self.peers.entry(*peer).or_insert_with(|| Peer {
                socket: sockets.add(pinging()),
                due: Duration::ZERO,
                hop: None,
            });
        }
    }

    /// Takes in a frame.
    pub fn receive(&mut self, frame: Vec<u8>) {
        if self.wire.received.len() < MAX_WAITING {
            self.wire.received.push_back(frame);
        }
    }

    /// Does what is due; gives the frames that leave.
    pub fn poll(&mut self, now: Duration) -> Vec<Vec<u8>> {
        for (ip, peer) in &mut self.peers {
            if now >= peer.due {
                let is_known = peer.hop.is_some_and(|(_, seen)| now.saturating_sub(seen) < CONFIRM);
                peer.due = now + if is_known { CONFIRM } else { SEARCH };
                ping(self.sockets.get_mut(peer.socket), *ip, self.station.get_source_address(&(*ip).into()));
            }
        }
        self.station.poll(Instant::from_micros(now.as_micros() as i64), &mut self.wire, &mut self.sockets);
        let sent = std::mem::take(&mut self.wire.sent);
        let mut leaving = Vec::with_capacity(sent.len());
        for frame in sent {
            match self.shown_by(&frame) {
                Some((ip, mac)) => {
                    if let Some(peer) = self.peers.get_mut(&ip) {
                        (peer.hop, peer.due) = (Some((mac, now)), now + CONFIRM);
                    }
                }
                None => leaving.push(frame),
            }
        }
        leaving
    }

    /// Where packets to peers go, as far as that is known.
    pub fn hops(&self, now: Duration) -> BTreeMap<IpAddr, MacAddr> {
        let is_fresh = |(mac, seen): (MacAddr, Duration)| (now.saturating_sub(seen) < LIFE).then_some(mac);
        self.peers.iter().filter_map(|(ip, peer)| Some((*ip, peer.hop.and_then(is_fresh)?))).collect()
    }

    /// What a frame of ours shows of the way to a peer, if it is one of the pings that are for that.
    fn shown_by(&self, frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let (peer, ident) = match frame.ethertype() {
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
                let is_icmp = packet.next_header() == IpProtocol::Icmp;
                let icmp = Icmpv4Packet::new_checked(packet.payload()).ok().filter(|_| is_icmp)?;
                (
                    IpAddr::V4(packet.dst_addr()),
                    (icmp.msg_type() == smoltcp::wire::Icmpv4Message::EchoRequest).then(|| icmp.echo_ident()),
                )
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
                let is_icmp = packet.next_header() == IpProtocol::Icmpv6;
                let icmp = Icmpv6Packet::new_checked(packet.payload()).ok().filter(|_| is_icmp)?;
                (
                    IpAddr::V6(packet.dst_addr()),
                    (icmp.msg_type() == smoltcp::wire::Icmpv6Message::EchoRequest).then(|| icmp.echo_ident()),
                )
            }
            _ => return None,
        };
        (ident == Some(IDENT)).then(|| (peer, MacAddr::new(frame.dst_addr().0)))
    }
}

/// How long the station waits for a frame, and how often it looks whether the uplink is another one.
const WAIT: Duration = Duration::from_millis(50);
const LOOK: Duration = Duration::from_millis(500);

/// Is the station, on the calling thread, until the process ends.
pub fn run(host: &SharedHost, own: &OwnAddress, port: &MemoryPort) {
    let since = std::time::Instant::now();
    let wanted = host.with_blocking(|host| host.peers());
    let mut looks = Duration::ZERO;
    let mut facts = None;
    let mut station: Option<TunnelEndpoint> = None;
    let mut told = None;
    loop {
        if since.elapsed() >= looks {
            looks = since.elapsed() + LOOK;
            let found = host.with_blocking(|host| host.wire_facts());
            if found != facts {
                facts = found;
                station = facts.map(|(mac, mtu)| TunnelEndpoint::new(own, mac, mtu));
            }
        }
        let first = port.receive_within(WAIT);
        let now = since.elapsed();
        let (Some((mac, _)), Some(station)) = (facts, &mut station) else { continue };
        let rest = std::iter::from_fn(|| port.receive()).take(MAX_WAITING);
        first.into_iter().chain(rest).for_each(|frame| station.receive(frame));
        station.want(&wanted.borrow());
        for frame in station.poll(now) {
            // A full queue loses it, as a wire would.
            let _ = port.inject(&frame);
        }
        let hops = Some((mac, station.hops(now)));
        if told != hops {
            told.clone_from(&hops);
            host.with_blocking(|host| hops.map(|(mac, hops)| host.set_own_hops(mac, &hops)));
        }
    }
}

/// A socket for the pings of one peer, which wait for the way to him.
fn pinging() -> icmp::Socket<'static> {
    let buffer = |n| icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; n], vec![0; 64]);
    let mut socket = icmp::Socket::new(buffer(1), buffer(1));
    // The only error: it is bound.
    let _ = socket.bind(icmp::Endpoint::Ident(IDENT));
    socket
}

fn ping(socket: &mut icmp::Socket<'static>, peer: IpAddr, own: Option<smoltcp::wire::IpAddress>) {
    let (ident, seq_no, checksums) = (IDENT, 0, ChecksumCapabilities::default());
    // One that still waits is as good as another one, so that a full queue is no error.
    let _ = match (peer, own.map(IpAddr::from)) {
        (IpAddr::V4(_), _) => {
            let ping = Icmpv4Repr::EchoRequest { ident, seq_no, data: &[] };
            socket
                .send(ping.buffer_len(), peer.into())
                .map(|room| ping.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums))
        }
        (IpAddr::V6(to), Some(IpAddr::V6(from))) => {
            let ping = Icmpv6Repr::EchoRequest { ident, seq_no, data: &[] };
            socket
                .send(ping.buffer_len(), peer.into())
                .map(|room| ping.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(room), &checksums))
        }
        (IpAddr::V6(_), _) => Ok(()),
    };
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Leaving<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Leaving(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A frame on its way in.
struct Received(Vec<u8>);

/// Where a frame on its way out goes.
struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let done = fill(&mut frame);
        self.0.push(frame);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const MACS: [MacAddr; 3] = [
        MacAddr::new([2, 0, 0, 0, 0, 1]),
        MacAddr::new([2, 0, 0, 0, 0, 2]),
        MacAddr::new([2, 0, 0, 0, 0, 3]),
    ];

    fn ip(n: u8, is_v6: bool) -> IpAddr {
        if is_v6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(192, 0, 2, n).into()
        }
    }

    fn station(n: u8, is_v6: bool, gateway: Option<u8>) -> TunnelEndpoint {
        let prefix_len = if is_v6 { 64 } else { 24 };
        let own = OwnAddress { address: ip(n, is_v6), prefix_len, gateway: gateway.map(|n| ip(n, is_v6)) };
        TunnelEndpoint::new(&own, MACS[usize::from(n) - 1], 1500)
    }

    /// Carries what stations say to all others, for so many seconds.
    fn talk(stations: &mut [TunnelEndpoint], from: u64, to: u64) {
        for step in from * 10..to * 10 {
            let now = Duration::from_millis(step * 100);
            for sender in 0..stations.len() {
                for frame in stations[sender].poll(now) {
                    for (other, station) in stations.iter_mut().enumerate() {
                        if other != sender {
                            station.receive(frame.clone());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn peers_are_found_where_they_are_and_no_ping_leaves() {
        for is_v6 in [false, true] {
            let mut stations = [station(1, is_v6, None), station(2, is_v6, None)];
            stations[0].want(&[ip(2, is_v6)].into());
            talk(&mut stations, 0, 3);
            let now = Duration::from_secs(3);
            assert_eq!(stations[0].hops(now), [(ip(2, is_v6), MACS[1])].into());
            // What leaves asks for neighbours and nothing else.
            let mut alone = station(1, is_v6, None);
            alone.want(&[ip(2, is_v6)].into());
            let frames: Vec<_> = (0..50).flat_map(|n| alone.poll(Duration::from_millis(n * 100))).collect();
            assert!((2..20).contains(&frames.len()), "{} frames", frames.len());
            assert!(frames.iter().all(|frame| alone.shown_by(frame).is_none()));
            assert_eq!(alone.hops(Duration::from_secs(5)), BTreeMap::new());
        }
    }

    #[test]
    fn a_peer_elsewhere_is_reached_by_the_gateway() {
        let far = IpAddr::from([198, 51, 100, 7]);
        let mut stations = [station(1, false, Some(3)), station(2, false, None), station(3, false, None)];
        stations[0].want(&[far].into());
        talk(&mut stations, 0, 3);
        assert_eq!(stations[0].hops(Duration::from_secs(3)), [(far, MACS[2])].into());
        let mut lost = station(1, false, None);
        lost.want(&[far].into());
        talk(std::slice::from_mut(&mut lost), 0, 3);
        assert_eq!(lost.hops(Duration::from_secs(3)), BTreeMap::new(), "there is no way");
    }

    #[test]
    fn a_peer_that_is_gone_is_forgotten_and_one_that_is_back_found_again() {
        let mut stations = [station(1, false, None), station(2, false, None)];
        let peer = ip(2, false);
        stations[0].want(&[peer].into());
        talk(&mut stations, 0, 100);
        assert_eq!(stations[0].hops(Duration::from_secs(100)).len(), 1, "it is confirmed");
        talk(&mut stations[..1], 100, 300);
        assert_eq!(stations[0].hops(Duration::from_secs(300)).len(), 0);
        talk(&mut stations, 300, 305);
        assert_eq!(stations[0].hops(Duration::from_secs(305)).len(), 1);
        stations[0].want(&BTreeSet::new());
        assert_eq!(stations[0].hops(Duration::from_secs(305)).len(), 0);
    }

    #[test]
    fn whatever_comes_does_no_harm() {
        let mut station = station(1, true, None);
        let mut noise = 1_u64;
        for n in 0..2000 {
            let mut next = || {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 33) as u8
            };
            let mut frame: Vec<u8> = (0..n % 200).map(|_| next()).collect();
            if let Some(kind) = frame.get_mut(12..14) {
                kind.copy_from_slice(&[[8, 0], [8, 6], [0x86, 0xdd]][n % 3]);
            }
            station.receive(frame);
            station.poll(Duration::from_millis(n as u64));
        }
    }
}
