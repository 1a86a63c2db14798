//! Sessions with next hops of routers (RFC 5881): by the port of a router that is on this host,
//! to somebody whose MAC address the router finds out as for any other packet.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use flowtable::{
    checksum,
    types::{PortNo, Timestamp},
};
use ovn_northd_lite::{
    key::{DatapathKey, PortKey},
    punt::BFD_UDP_PORT,
    sent_to_next_hop,
    southbound::Session as Asked,
};

use super::{
    Bfd, ControlPacket, Session, State, Timing,
    carried::{Carried, Who},
    next,
};

/// Lengths of the headers of a control packet.
const ETH: usize = 14;
const UDP: usize = 8;
/// Source port (RFC 5881 §4).
const SOURCE_PORT: u16 = 49_153;
const PROTO_UDP: u8 = 17;

/// A router's port, and a next hop of it.
pub type HopKey = (DatapathKey, PortKey, IpAddr);

/// A next hop that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Id of the router's port.
    pub port: String,
    /// From where, and how often.
    pub asked: Asked,
}

/// All sessions with next hops.
#[derive(Debug, Default)]
pub(super) struct Hops(BTreeMap<HopKey, (Hop, Session)>);

/// Packets to next hops.
pub(super) type ToHops = Vec<(HopKey, Asked, ControlPacket)>;

impl Hops {
    pub(super) fn sessions(&self) -> impl Iterator<Item = (Who, &Session)> {
        self.0.iter().map(|(key, (_, session))| (Who::Hop(*key), session))
    }

    pub(super) fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.values_mut().map(|(_, session)| session)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has sessions with these, and with no others: the last packets of those that end.
    fn want(
        &mut self,
        wanted: BTreeMap<HopKey, Hop>,
        now: Timestamp,
        (noise, carried): (&mut u32, &mut Carried),
    ) -> ToHops {
        let mut old = std::mem::take(&mut self.0);
        for (key, hop) in wanted {
            let session = match old.remove(&key) {
                Some((known, session)) if known.asked == hop.asked => session,
                _ => {
                    let millis = |n: u32| Duration::from_millis(n.into());
                    let timing =
                        Timing { interval: millis(hop.asked.min_tx), multiplier: hop.asked.multiplier };
                    let fresh = Session::new(timing, now, next(noise), true).taking(millis(hop.asked.min_rx));
                    carried.go_on(Who::Hop(key), fresh, now)
                }
            };
            self.0.insert(key, (hop, session));
        }
        let ended = old.into_iter();
        ended.map(|(key, (hop, mut session))| (key, hop.asked, session.end(now))).collect()
    }

    /// What is due, when to be back, and whether one is silent for too long.
    pub(super) fn tick(&mut self, now: Timestamp, noise: &mut u32) -> (ToHops, Option<Timestamp>, bool) {
        let (mut due, mut wakes, mut is_late) = (Vec::new(), None::<Timestamp>, false);
        for (key, (hop, session)) in &mut self.0 {
            if let Some(packet) = session.tick(now, next(noise) as u8) {
                due.push((*key, hop.asked.clone(), packet));
            }
            wakes = Some(wakes.map_or(session.wakes(), |wakes| wakes.min(session.wakes())));
            is_late |= session.clone().expire(now);
        }
        (due, wakes, is_late)
    }

    pub(super) fn expire(&mut self, now: Timestamp) {
        for (hop, session) in self.0.values_mut() {
            if session.expire(now) {
                tracing::warn!(port = hop.port, peer = %hop.asked.peer, "the next hop is silent");
            }
        }
    }

    pub(super) fn end(&mut self, now: Timestamp) -> ToHops {
        let sessions = self.0.iter_mut();
        sessions.map(|(key, (hop, session))| (*key, hop.asked.clone(), session.end(now))).collect()
    }
}

impl Bfd {
    /// Wants sessions with these next hops, and with no others.
    pub fn want_hops(&self, wanted: BTreeMap<HopKey, Hop>) {
        let now = self.dataplane.now();
        let last = {
            let mut sessions = self.sessions();
            let known = &sessions.hops.0;
            let is_same = known.len() == wanted.len()
                && known.iter().all(|(key, (hop, _))| wanted.get(key) == Some(hop));
            if is_same {
                return;
            }
            let super::Sessions { hops, noise, carried, .. } = &mut *sessions;
            hops.want(wanted, now, (noise, carried))
        };
        self.send_to_hops(last);
        self.changed.notify_one();
    }

    /// Takes in what a next hop has said to a router's port; true: its session is in another
    /// state now.
    pub fn receive_from_hop(&self, (datapath, port): (DatapathKey, PortKey), frame: &[u8]) -> bool {
        let Some((from, packet)) = parse(frame) else { return false };
        let (now, key) = (self.dataplane.now(), (datapath, port, from));
        let (asked, answer, has_changed) = {
            let mut sessions = self.sessions();
            let Some((hop, session)) = sessions.hops.0.get_mut(&key) else { return false };
            let before = session.state();
            let answer = session.receive(now, &packet);
            (hop.asked.clone(), answer, session.state() != before)
        };
        self.send_to_hops(answer.into_iter().map(|answer| (key, asked.clone(), answer)).collect());
        if has_changed {
            self.changed.notify_one();
        }
        has_changed
    }

    /// Sessions with next hops: id of the router's port, the next hop, and the state.
    pub fn hops(&self) -> Vec<(String, IpAddr, State)> {
        let sessions = self.sessions();
        let hops = sessions.hops.0.values();
        hops.map(|(hop, session)| (hop.port.clone(), hop.asked.peer, session.state())).collect()
    }

    pub(super) fn send_to_hops(&self, packets: ToHops) {
        for ((datapath, port, peer), asked, packet) in packets {
            let actions = sent_to_next_hop((datapath, port), peer, asked.source);
            let Some(frame) = frame(&asked, &packet).filter(|_| !actions.is_empty()) else { continue };
            if let Err(error) = self.dataplane.packet_out(PortNo::CONTROLLER, actions, frame) {
                tracing::debug!(%error, %peer, "a packet to a next hop is not sent");
            }
        }
    }
}

/// The frame to a next hop, without its MAC address; `None`: source and next hop are of
/// different families.
fn frame(asked: &Asked, packet: &ControlPacket) -> Option<Vec<u8>> {
    let payload = packet.encode();
    let udp_len = (UDP + payload.len()) as u16;
    let mut udp = Vec::with_capacity(udp_len.into());
    udp.extend(SOURCE_PORT.to_be_bytes());
    udp.extend(BFD_UDP_PORT.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut frame = vec![0; 6];
    frame.extend(asked.mac.octets());
    // RFC 5881 §5: whoever is further than one hop away cannot send with this TTL.
    match (asked.source, asked.peer) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let mut ip = vec![0x45, 0xc0];
            ip.extend((20 + udp_len).to_be_bytes());
            ip.extend([0, 0, 0x40, 0, 255, PROTO_UDP, 0, 0]);
            ip.extend(from.octets());
            ip.extend(to.octets());
            let sum = checksum::Sum::default().bytes(&ip).checksum().to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            frame.extend(ip);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x6c, 0, 0, 0]);
            frame.extend(udp_len.to_be_bytes());
            frame.extend([PROTO_UDP, 255]);
            frame.extend(from.octets());
            frame.extend(to.octets());
            let pseudo = checksum::pseudo_ipv6(from.into(), to.into(), PROTO_UDP, udp.len());
            let sum = pseudo.bytes(&udp).checksum().to_be_bytes();
            udp[6..8].copy_from_slice(&sum);
        }
        _ => return None,
    }
    frame.extend(udp);
    Some(frame)
}

/// Who has sent a control packet, and that.
fn parse(frame: &[u8]) -> Option<(IpAddr, ControlPacket)> {
    let (head, ip) = frame.split_at_checked(ETH)?;
    let (from, udp): (IpAddr, _) = match head.get(12..)? {
        [0x08, 0x00] => {
            let from: [u8; 4] = ip.get(12..16)?.try_into().ok()?;
            let header_len = usize::from(ip.first()? & 0xf) * 4;
            (Ipv4Addr::from(from).into(), ip.get(header_len.max(20)..)?)
        }
        [0x86, 0xdd] if ip.get(6) == Some(&PROTO_UDP) => {
            let from: [u8; 16] = ip.get(8..24)?.try_into().ok()?;
            (from.into(), ip.get(40..)?)
        }
        _ => return None,
    };
    Some((from, ControlPacket::decode(udp.get(UDP..)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_nanos(0);

    fn asked(source: &str, peer: &str) -> Asked {
        Asked {
            peer: peer.parse().unwrap(),
            source: source.parse().unwrap(),
            mac: "0a:00:00:00:00:01".parse().unwrap(),
            min_tx: 300,
            min_rx: 200,
            multiplier: 3,
        }
    }

    fn session(hops: &Hops) -> &Session {
        &hops.0.values().next().unwrap().1
    }

    #[test]
    fn packets_of_both_families_come_back_and_damaged_ones_do_not() {
        let timing = Timing { interval: Duration::from_millis(300), multiplier: 3 };
        let mut session = Session::new(timing, AT, 7, true).taking(Duration::from_millis(200));
        let packet = session.tick(AT, 0).unwrap();
        assert_eq!((packet.min_tx, packet.min_rx), (Duration::from_secs(1), Duration::from_millis(200)));
        for (source, peer) in [("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001:db8::9")] {
            let asked = asked(source, peer);
            let frame = frame(&asked, &packet).unwrap();
            assert_eq!(parse(&frame), Some((asked.source, packet)));
            for len in 0..frame.len() {
                assert_eq!(parse(&frame[..len]), None);
            }
        }
        assert_eq!(frame(&asked("192.0.2.1", "2001:db8::9"), &packet), None);
    }

    #[test]
    fn sessions_go_on_while_they_are_wanted_as_they_are() {
        let (mut hops, mut noise, mut carried) = (Hops::default(), 1, Carried::default());
        let key = (DatapathKey::new(3).unwrap(), PortKey::new(1).unwrap(), [192, 0, 2, 9].into());
        let hop = Hop { port: "r-out".to_owned(), asked: asked("192.0.2.1", "192.0.2.9") };
        let mut want = |hops: &mut Hops, hop: Option<&Hop>| {
            hops.want(hop.map(|hop| (key, hop.clone())).into_iter().collect(), AT, (&mut noise, &mut carried))
        };
        assert!(want(&mut hops, Some(&hop)).is_empty());
        let down = ControlPacket::decode(
            &Session::new(Timing { interval: Duration::from_millis(300), multiplier: 3 }, AT, 9, true)
                .end(AT)
                .encode(),
        )
        .unwrap();
        let heard = ControlPacket { state: State::Down, ..down };
        hops.0.get_mut(&key).unwrap().1.receive(AT, &heard);
        assert_eq!(session(&hops).state(), State::Init);
        assert!(want(&mut hops, Some(&hop)).is_empty());
        assert_eq!(session(&hops).state(), State::Init, "it is the same session");
        let other = Hop { asked: Asked { min_tx: 50, ..hop.asked.clone() }, ..hop };
        assert_eq!(want(&mut hops, Some(&other)).len(), 0, "another one takes its place");
        assert_eq!(session(&hops).state(), State::Down);
        let last = want(&mut hops, None);
        assert_eq!(last.iter().map(|(_, _, packet)| packet.state).collect::<Vec<_>>(), [State::AdminDown]);
        assert!(hops.is_empty());
    }
}
