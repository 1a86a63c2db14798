//! ICMP echo (RFC 792) over a raw socket.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// An answer later than this is lost. The first one may wait for ARP on both sides of a router.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two requests.
const INTERVAL: Duration = Duration::from_millis(50);
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ICMP_HEADER_LEN: usize = 8;

/// The longest that `n` requests can take.
pub(super) fn limit(n: u64) -> Duration {
    (PATIENCE + INTERVAL) * u32::try_from(n).unwrap_or(u32::MAX)
}

/// Sends `n` requests one after the other and counts answers that carry the same payload.
pub(super) fn ping(to: Ipv4Addr, n: u16, payload_len: usize) -> Result<Value> {
    ensure!(payload_len <= 65_507, "no packet holds {payload_len} bytes");
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("raw socket")?;
    socket.connect(&SocketAddrV4::new(to, 0).into()).context("no route")?;
    let id = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let mut rtts = Vec::new();
    for seq in 1..=n {
        let request = request(id, seq, payload_len);
        let start = Instant::now();
        match socket.send(&request) {
            Ok(_) => rtts.extend(answer(&socket, &request, start)?),
            // An earlier request made the kernel learn that nobody is there: that one is lost.
            Err(error) if error.kind() == ErrorKind::HostUnreachable => {}
            Err(error) => return Err(error).context("cannot send"),
        }
        std::thread::sleep(INTERVAL);
    }
    let rtt_min_ns = rtts.iter().min().map_or(0, Duration::as_nanos);
    Ok(json!({ "sent": n, "received": rtts.len(), "rtt_min_ns": u64::try_from(rtt_min_ns)? }))
}

fn request(id: u16, seq: u16, payload_len: usize) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend((0..payload_len).map(|i| (i % 251) as u8));
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Waits for the answer to `request`; other ICMP traffic of the namespace passes by.
fn answer(mut socket: &Socket, request: &[u8], start: Instant) -> Result<Option<Duration>> {
    let mut buffer = vec![0; 65_536];
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let len = match socket.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) if matches!(error.kind(), ErrorKind::HostUnreachable) => return Ok(None),
            Err(error) => return Err(error).context("cannot receive"),
        };
        if is_answer(&buffer[..len], request) {
            return Ok(Some(start.elapsed()));
        }
    }
}

/// The packet, IPv4 header included, is an echo reply with the request's id, number and payload.
fn is_answer(packet: &[u8], request: &[u8]) -> bool {
    let header_len = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    packet.get(header_len..).is_some_and(|icmp| {
        icmp.len() >= ICMP_HEADER_LEN
            && icmp[0] == ECHO_REPLY
            && checksum(icmp) == 0
            && icmp[4..] == request[4..]
    })
}

/// Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_true_answer_counts() {
        let request = request(7, 1, 33);
        assert_eq!(checksum(&request), 0);
        let mut icmp = request.clone();
        icmp[0] = ECHO_REPLY;
        icmp[2..4].fill(0);
        let sum = checksum(&icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = [vec![0x45; 1], vec![0; 19], icmp].concat();
        assert!(is_answer(&packet, &request));
        for i in 20..packet.len() {
            let mut wrong = packet.clone();
            wrong[i] ^= 1;
            assert!(!is_answer(&wrong, &request), "byte {i}");
        }
        assert!((0..packet.len()).all(|len| !is_answer(&packet[..len], &request)));
    }
}
