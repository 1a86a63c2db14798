//! What attackers send, frame by frame.

use std::net::Ipv4Addr;

use crate::random::Random;

/// The attacker's address.
pub(super) const EVIL_MAC: [u8; 6] = [0x0a, 0, 0, 0, 1, 0x66];
/// Where his packets may go.
pub(super) const SINK_MAC: [u8; 6] = [0x0a, 0, 0, 0, 1, 0x67];
/// The router's address on his switch.
const ROUTER_MAC: [u8; 6] = [0x0a, 0, 0, 0, 1, 1];
const BROADCAST: [u8; 6] = [0xff; 6];
const EVIL: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 66);
const SINK: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 67);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const DB: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 11);
/// What the ACLs of the masks' attack name: an address, and two ports.
const NAMED: (Ipv4Addr, u16, u16) = (Ipv4Addr::new(12, 34, 56, 78), 4660, 22136);

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const IGMP: u8 = 2;

/// Kinds of attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None: packets of one conversation.
    Ordinary,
    /// Each packet agrees with what an ACL names up to another bit, in three fields at a time.
    Masks,
    /// Each packet is a new connection by UDP.
    Connections,
    /// Each packet is a new connection by TCP.
    Syn,
    /// What hosts answer by themselves.
    Control,
    /// Fragments.
    Fragments,
    /// Nothing of a packet was in another one before.
    Misses,
}

/// Frames of an attack, without end.
pub(super) struct Frames {
    kind: Kind,
    n: u32,
    random: Random,
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, n: 0, random: Random::new(1), buffer: Vec::with_capacity(2048) }
    }

    /// The next one.
    pub(super) fn next(&mut self) -> &[u8] {
        let n = self.n;
        self.n = n.wrapping_add(1);
        let [a, b, c, d] = n.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let frame = &mut self.buffer;
        match self.kind {
            Kind::Ordinary => ip(frame, SINK_MAC, (EVIL, SINK), UDP, &udp(1000, 2000, &[0; 64])),
            Kind::Masks => {
                let random = &mut self.random;
                let near = |value: u32, n_bits: u32, random: &mut Random| {
                    let bit = random.below(n_bits.into()) as u32;
                    let below = (1_u32 << bit) - 1;
                    (value ^ 1 << bit) & !below | random.number() as u32 & below
                };
                let source = Ipv4Addr::from_bits(near(NAMED.0.to_bits(), 32, random));
                let ports = [NAMED.1, NAMED.2].map(|port| near(port.into(), 16, random) as u16);
                ip(frame, SINK_MAC, (source, SINK), UDP, &udp(ports[0], ports[1], &[0; 64]));
            }
            Kind::Connections => {
                ip(frame, SINK_MAC, (EVIL, SINK), UDP, &udp(low, high.wrapping_add(1024), &[0; 64]));
            }
            Kind::Syn => {
                let source = Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 0, 0).to_bits() | n & 0xff_ffff);
                ip(frame, SINK_MAC, (source, SINK), TCP, &syn(low | 1024, 80));
            }
            Kind::Control => control(frame, n, &mut self.random),
            Kind::Fragments => fragment(frame, n),
            Kind::Misses => {
                let random = &mut self.random;
                let mut address =
                    || Ipv4Addr::from_bits((random.number() >> 16) as u32 & 0x5fff_ffff | 1 << 24);
                let (from, to) = (address(), address());
                ip(frame, ROUTER_MAC, (from, to), UDP, &udp(low, high | 1, &[0; 64]));
            }
        }
        &self.buffer
    }
}

/// What hosts answer, or are asked to learn, one after the other.
fn control(frame: &mut Vec<u8>, n: u32, random: &mut Random) {
    let any = random.number() as u32;
    let somebody = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 1, 0).to_bits() | any & 0xff);
    match n % 8 {
        // Who has an address that the switch knows, and one that it does not.
        0 => arp(frame, 1, (EVIL_MAC, EVIL), ([0; 6], Ipv4Addr::new(10, 0, 1, 11))),
        1 => arp(frame, 1, (EVIL_MAC, EVIL), ([0; 6], somebody)),
        // A router is to learn ever other neighbours.
        2 => arp(frame, 2, (EVIL_MAC, somebody), (ROUTER_MAC, ROUTER)),
        3 => {
            let mut message = vec![1, 1, 6, 0];
            message.extend(any.to_be_bytes());
            message.resize(28, 0);
            message.extend(EVIL_MAC);
            message.resize(236, 0);
            message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
            ip(frame, BROADCAST, (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST), UDP, &udp(68, 67, &message));
        }
        4 => {
            let mut question = any.to_be_bytes()[..2].to_vec();
            question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4]);
            question.extend(format!("{:04x}", any as u16).into_bytes());
            question.extend(*b"\x04shop\x07example\0\0\x01\0\x01");
            ip(frame, ROUTER_MAC, (EVIL, DB), UDP, &udp(5353, 53, &question));
        }
        // Neighbour and router solicitations (RFC 4861 §4.1, §4.3).
        5 => solicitation(frame, any, (n / 8).is_multiple_of(2)),
        6 => {
            let [a, b, c, _] = any.to_be_bytes();
            let group = Ipv4Addr::new(239, a, b, c);
            let mut report = vec![0x16, 0, 0, 0];
            report.extend(group.octets());
            let sum = checksum(&[&report]);
            report[2..4].copy_from_slice(&sum.to_be_bytes());
            ip(frame, [1, 0, 0x5e, a & 0x7f, b, c], (EVIL, group), IGMP, &report);
        }
        _ => {
            ip(frame, ROUTER_MAC, (EVIL, DB), UDP, &udp(any as u16, 33434, &[0; 12]));
            // The router has to say that its time is over.
            frame[22] = 1;
            set_header_checksum(frame);
        }
    }
}

/// First fragments without their last ones, last ones without their first, and such as overlap (RFC 1858, RFC 5722).
fn fragment(frame: &mut Vec<u8>, n: u32) {
    const MORE: u16 = 0x2000;
    let whole = udp(7, n as u16 | 1, &[0; 800]);
    let (at, more, part) = match n % 4 {
        0 | 1 => (0, MORE, &whole[..400]),
        2 => (50, 0, &whole[400..]),
        // Overlaps the first fragment of the number before.
        _ => (25, 0, &whole[200..600]),
    };
    let protocol = if n.is_multiple_of(64) { ICMP } else { UDP };
    ip(frame, SINK_MAC, (EVIL, SINK), protocol, part);
    let id = if n % 4 == 3 { n.wrapping_sub(3) } else { n };
    frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
    frame[20..22].copy_from_slice(&(more | at).to_be_bytes());
    set_header_checksum(frame);
}

fn solicitation(frame: &mut Vec<u8>, any: u32, is_for_routers: bool) {
    let [a, b, c, d] = any.to_be_bytes();
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0xff, 0xfe, 0, 1, 0x66];
    let (mut target, mut message) = ([0; 16], Vec::new());
    target[0] = 0xff;
    target[1] = 2;
    if is_for_routers {
        target[15] = 2;
        message.extend([133, 0, 0, 0, 0, 0, 0, 0]);
    } else {
        target[11..16].copy_from_slice(&[1, 0xff, b, c, d]);
        message.extend([135, 0, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]);
    }
    message.extend([1, 1]);
    message.extend(EVIL_MAC);
    let len = message.len() as u16;
    let sum = checksum(&[&source, &target, &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 58], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    frame.clear();
    frame.extend([0x33, 0x33, target[12], target[13], target[14], target[15]]);
    frame.extend(EVIL_MAC);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(len.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source);
    frame.extend(target);
    frame.extend(message);
}

fn arp(frame: &mut Vec<u8>, operation: u8, from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr)) {
    frame.clear();
    frame.extend(if operation == 1 { BROADCAST } else { to.0 });
    frame.extend(from.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [from, to] {
        frame.extend(mac);
        frame.extend(address.octets());
    }
    frame.resize(60, 0);
}

/// A packet; the checksum of UDP and TCP is made here, as it is over the addresses too.
fn ip(
    frame: &mut Vec<u8>,
    to: [u8; 6],
    (source, target): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    payload: &[u8],
) {
    const HEADER_LEN: u16 = 20;
    frame.clear();
    frame.extend(to);
    frame.extend(EVIL_MAC);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((HEADER_LEN + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    frame.extend(source.octets());
    frame.extend(target.octets());
    frame.extend(payload);
    set_header_checksum(frame);
    let place = match protocol {
        UDP => 6,
        TCP => 16,
        _ => return,
    };
    let len = (payload.len() as u16).to_be_bytes();
    let sum = checksum(&[&source.octets(), &target.octets(), &[0, protocol], &len, payload]);
    frame[34 + place..36 + place].copy_from_slice(&sum.to_be_bytes());
}

fn set_header_checksum(frame: &mut [u8]) {
    frame[24..26].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(from.to_be_bytes());
    datagram.extend(to.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

fn syn(from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20);
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// The checksum of IP (RFC 1071) over parts of even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// An address as text.
pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ATTACKS: [Kind; 6] =
        [Kind::Masks, Kind::Connections, Kind::Syn, Kind::Control, Kind::Fragments, Kind::Misses];

    #[test]
    fn checksums_are_right() {
        for kind in ATTACKS.into_iter().chain([Kind::Ordinary]) {
            let mut frames = Frames::new(kind);
            for _ in 0..500 {
                let frame = frames.next();
                if frame[12..14] != [8, 0] {
                    continue;
                }
                assert_eq!(checksum(&[&frame[14..34]]), 0, "{kind:?}");
                let is_whole = frame[20..22] == [0, 0];
                if is_whole && matches!(frame[23], TCP | UDP) {
                    let len = (frame.len() as u16 - 34).to_be_bytes();
                    let sum = checksum(&[&frame[26..34], &[0, frame[23]], &len, &frame[34..]]);
                    assert_eq!(sum, 0, "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn attacks_do_not_repeat_themselves() {
        for kind in ATTACKS {
            let mut frames = Frames::new(kind);
            let all: BTreeSet<Vec<u8>> = (0..4000).map(|_| frames.next().to_vec()).collect();
            // Some questions are always the same: who has an address, who are the routers.
            assert!(all.len() > 2000, "{kind:?}: {}", all.len());
        }
        let mut ordinary = Frames::new(Kind::Ordinary);
        assert_eq!(ordinary.next().to_vec(), ordinary.next());
    }
}
