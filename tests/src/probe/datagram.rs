//! UDP: an echo, and questions to it, of any length that a datagram may have.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::random::Random;

/// An answer later than this is lost.
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_LEN: usize = 65_507;

/// The longest that `n` questions can take.
pub(super) fn limit(n: u64) -> Duration {
    PATIENCE * u32::try_from(n).unwrap_or(u32::MAX)
}

/// Sends every datagram back, until it is killed.
pub(super) fn echo(at: SocketAddr) -> Result<Value> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot receive at {at}"))?;
    let mut buffer = vec![0; MAX_LEN];
    loop {
        // Errors are about answers that an earlier client did not want.
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

/// Sends `n` datagrams one after the other and counts those that come back unchanged.
pub(super) fn ask(to: SocketAddr, n: u64, payload_len: usize) -> Result<Value> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to).with_context(|| format!("no route to {to}"))?;
    let mut random = Random::new(u64::from(std::process::id()));
    let mut n_received = 0;
    for _ in 0..n {
        let question = random.bytes(payload_len.min(MAX_LEN));
        match socket.send(&question) {
            Ok(_) => n_received += u64::from(is_answered(&socket, &question)?),
            // An earlier one found nobody.
            Err(error) if is_refusal(error.kind()) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(json!({ "sent": n, "received": n_received }))
}

fn is_answered(socket: &UdpSocket, question: &[u8]) -> Result<bool> {
    let start = Instant::now();
    let mut buffer = vec![0; MAX_LEN];
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut buffer) {
            Ok(len) if buffer[..len] == *question => return Ok(true),
            // Of an earlier question.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(error) if is_refusal(error.kind()) => return Ok(false),
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_answers_and_its_absence_is_seen() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let nobody = taken.local_addr().unwrap();
        drop(taken);
        assert_eq!(ask(nobody, 2, 10).unwrap()["received"], 0);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        drop(socket);
        std::thread::spawn(move || echo(at));
        while ask(at, 1, 1).unwrap()["received"] == 0 {}
        for len in [0, 1, 9000, MAX_LEN] {
            assert_eq!(ask(at, 2, len).unwrap()["received"], 2, "{len}");
        }
    }
}
