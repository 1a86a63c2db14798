//! What attackers send, one packet after the other: all from 12.0.0.1, with right checksums.

use std::{net::Ipv4Addr, sync::LazyLock};

use flowtable::{
    build::{self, Host},
    checksum::{Sum, update},
};

/// Who sends them.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 1);
/// Where the L4 header is.
const L4: usize = 34;

static SYN: LazyLock<Vec<u8>> = LazyLock::new(|| build::tcp(&attacker(), &Host::v4(2), 2, b""));
static SCAN: LazyLock<Vec<u8>> = LazyLock::new(|| build::udp(&attacker(), &Host::v4(2), b""));
static PING: LazyLock<Vec<u8>> =
    LazyLock::new(|| build::icmp_echo(&attacker(), &Host::v4(2), false, 0, 0, b""));
static HALF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let frame = build::udp(&attacker(), &Host::v4(2), &[0; 1200]);
    build::fragments(&frame, 0, 800).swap_remove(0)
});

fn attacker() -> Host {
    Host { ip: ATTACKER.into(), port: 0, ..Host::v4(9) }
}

/// First segments of connections, from ever other ports.
pub fn syns(n: u32, buf: &mut [u8]) -> usize {
    vary(&SYN, (L4, L4 + 16), n, buf)
}

/// A scan of ports.
pub fn scan(n: u32, buf: &mut [u8]) -> usize {
    vary(&SCAN, (L4, L4 + 6), n.rotate_left(16), buf)
}

/// Echo requests with ever other identifiers.
pub fn pings(n: u32, buf: &mut [u8]) -> usize {
    vary(&PING, (L4 + 4, L4 + 2), n.rotate_left(16), buf)
}

/// First halves of packets.
pub fn halves(n: u32, buf: &mut [u8]) -> usize {
    vary(&HALF, (16, 24), 820 << 16 | n & 0xffff, buf)
}

/// A frame with another word at a place; the checksum at another place follows.
fn vary(template: &[u8], (at, sum_at): (usize, usize), new: u32, buf: &mut [u8]) -> usize {
    let frame = &mut buf[..template.len()];
    frame.copy_from_slice(template);
    let place = &mut frame[at..at + 4];
    let old = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
    place.copy_from_slice(&new.to_be_bytes());
    let sum = u16::from_be_bytes([frame[sum_at], frame[sum_at + 1]]);
    let sum = update(sum, Sum::ZERO.change(old.into(), new.into(), 2));
    frame[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    frame.len()
}
