//! Noise: packets that no honest sender makes, pseudo-random by a seed.

use std::io::Error;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result};
use nix::errno::Errno;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::random::Random;

const IPV4_HEADER_LEN: usize = 20;
/// Transport protocols whose headers a switch parses: ICMP, TCP, UDP, GRE, ESP, ICMPv6, SCTP; and one it does not.
const PROTOCOLS: [u8; 8] = [1, 6, 17, 47, 50, 58, 132, 253];
/// Longer than any header, shorter than any MTU.
const PAYLOAD_MAX_LEN: u64 = 200;

/// Sends `n` IPv4 packets whose fragment fields, options and payload are noise.
pub(super) fn ip(to: Ipv4Addr, n: u64, seed: u64) -> Result<Value> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).context("raw socket")?;
    socket.set_header_included_v4(true)?;
    let address = SocketAddrV4::new(to, 0).into();
    let mut random = Random::new(seed);
    let mut n_sent = 0;
    for _ in 0..n {
        match socket.send_to(&ip_packet(to, &mut random), &address) {
            Ok(_) => n_sent += 1,
            // The kernel looks at its own packets too, and a full queue is no news.
            Err(error) if is_refusal(&error) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(json!({ "sent": n_sent }))
}

/// Sends `n` UDP datagrams of noise, every second one with a Geneve header (RFC 8926) that is right at first sight.
pub(super) fn udp(from: Ipv4Addr, to: SocketAddrV4, n: u64, seed: u64) -> Result<Value> {
    let socket =
        UdpSocket::bind(SocketAddrV4::new(from, 0)).with_context(|| format!("cannot send from {from}"))?;
    let mut random = Random::new(seed);
    let mut n_sent = 0;
    for i in 0..n {
        let len = random.below(PAYLOAD_MAX_LEN) as usize;
        let mut datagram = random.bytes(len);
        if i % 2 == 0 {
            let vni = [0, 0, random.below(8) as u8];
            let n_words = random.below(4) as u8;
            let header = [n_words, 0, 0x65, 0x58, vni[0], vni[1], vni[2], 0];
            datagram.splice(..0, header);
        }
        match socket.send_to(&datagram, to) {
            Ok(_) => n_sent += 1,
            Err(error) if is_refusal(&error) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(json!({ "sent": n_sent }))
}

/// The kernel fills in source, length and checksum; the rest goes out as it is here.
fn ip_packet(to: Ipv4Addr, random: &mut Random) -> Vec<u8> {
    let payload_len = random.below(PAYLOAD_MAX_LEN) as usize;
    let n_option_words = if random.below(4) == 0 { random.below(11) as usize } else { 0 };
    let mut packet = vec![0; IPV4_HEADER_LEN];
    packet[0] = 0x40 | (5 + n_option_words) as u8;
    packet[1] = random.below(256) as u8;
    let fragment = if random.below(2) == 0 { random.below(65_536) as u16 & !0x4000 } else { 0 };
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[8] = random.below(256) as u8;
    packet[9] = PROTOCOLS[random.below(PROTOCOLS.len() as u64) as usize];
    packet[16..20].copy_from_slice(&to.octets());
    packet.extend(random.bytes(4 * n_option_words + payload_len));
    packet
}

/// Errors that say something about one packet, not about the socket.
fn is_refusal(error: &Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::EINVAL
                | Errno::ENOBUFS
                | Errno::EAGAIN
                | Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::EMSGSIZE
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_for_the_same_seed_and_has_a_whole_header() {
        let to = Ipv4Addr::new(10, 0, 0, 1);
        let packets = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| ip_packet(to, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(packets(7), packets(7));
        assert_ne!(packets(7), packets(9));
        for packet in packets(7) {
            assert!(packet.len() >= usize::from(packet[0] & 0x0f) * 4);
        }
    }

    #[test]
    fn datagrams_arrive() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(to) = receiver.local_addr().unwrap() else { unreachable!() };
        assert_eq!(udp(Ipv4Addr::LOCALHOST, to, 5, 1).unwrap()["sent"], 5);
        let mut buffer = [0; 2048];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len].get(2..4), Some([0x65, 0x58].as_slice()));
    }
}
