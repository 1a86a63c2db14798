//! A pulse: numbered UDP datagrams at even distances, and when they were missed. By the clock of the
//! machine, which all namespaces share, so that both sides' times can be compared.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Number, when it was sent, how many there are in all.
const LEN: usize = 24;
/// Shorter silences are not told: a busy machine makes such by itself.
const SHORT: Duration = Duration::from_micros(1500);
/// After so long without a datagram there are no more.
const END: Duration = Duration::from_secs(5);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Waits for a word from somebody and answers with a pulse.
pub(super) fn send(at: SocketAddrV4, interval: Duration, duration: Duration) -> Result<Value> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot send from {at}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let (_, to) = socket.recv_from(&mut [0; LEN]).context("nobody wants a pulse")?;
    socket.connect(to)?;
    ensure!(!interval.is_zero(), "an interval is more than nothing");
    let n = (duration.as_nanos() / interval.as_nanos()) as u64;
    let start = Instant::now();
    let mut n_refused = 0_u64;
    for number in 0..n {
        let due = interval * u32::try_from(number).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let words = [number, now(), n];
        let mut datagram = [0; LEN];
        for (part, word) in datagram.chunks_mut(8).zip(words) {
            part.copy_from_slice(&word.to_be_bytes());
        }
        n_refused += u64::from(socket.send(&datagram).is_err());
    }
    Ok(json!({ "sent": n, "refused": n_refused }))
}

/// Says a word to a sender and listens to its pulse to the end: how many came, how many twice, the
/// silences between them as (when one began, how long it was, how late what ended it was, how many are
/// missing in it).
pub(super) fn receive(at: SocketAddrV4, from: SocketAddrV4) -> Result<Value> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot receive at {at}"))?;
    socket.connect(from)?;
    // The way to the sender may be new to both, and he may not be there yet, which is told at once.
    let pause = Duration::from_millis(200);
    socket.set_read_timeout(Some(pause))?;
    let mut buffer = [0; LEN];
    let mut first = None;
    for _ in 0..50 {
        let asked = Instant::now();
        let _ = socket.send(b"?");
        if let Ok(LEN) = socket.recv(&mut buffer) {
            first = Some(now());
            break;
        }
        std::thread::sleep(pause.saturating_sub(asked.elapsed()));
    }
    let mut last_at = first.context("no pulse comes")?;
    socket.set_read_timeout(Some(END))?;
    let (mut next, mut n_received, mut n_again, mut n_lost) =
        (1 + word(&buffer, 0), 1_u64, 0_u64, word(&buffer, 0));
    let n = word(&buffer, 2);
    let mut silences = Vec::new();
    while next < n {
        match socket.recv(&mut buffer) {
            Ok(LEN) => {}
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            // The machine says that somebody was not there; he may be back.
            Err(_) => continue,
        }
        let at = now();
        let (number, sent_at) = (word(&buffer, 0), word(&buffer, 1));
        if number < next {
            n_again += 1;
            continue;
        }
        let n_missing = number - next;
        n_received += 1;
        n_lost += n_missing;
        next = number + 1;
        let silence = at.saturating_sub(last_at);
        let late = at.saturating_sub(sent_at);
        if n_missing > 0 || silence > SHORT.as_nanos() as u64 {
            silences.push(json!([last_at, silence, late, n_missing]));
        }
        last_at = at;
    }
    n_lost += n - next;
    Ok(json!({ "sent": n, "received": n_received, "again": n_again, "lost": n_lost, "silences": silences }))
}

/// Counts what comes from anybody, until the time is over.
pub(super) fn count(at: SocketAddrV4, duration: Duration) -> Result<Value> {
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot receive at {at}"))?;
    let start = Instant::now();
    let mut n = 0_u64;
    loop {
        let left = duration.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(json!({ "received": n }));
        }
        socket.set_read_timeout(Some(left))?;
        n += u64::from(socket.recv(&mut [0; LEN]).is_ok());
    }
}

/// Sends to somebody who has not asked for it, once each `interval`, until the time is over.
pub(super) fn flood(to: SocketAddrV4, interval: Duration, duration: Duration) -> Result<Value> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let start = Instant::now();
    let mut n = 0_u64;
    while start.elapsed() < duration {
        // Whatever is answered to it is of no interest.
        n += u64::from(socket.send_to(&[0; LEN], to).is_ok());
        std::thread::sleep(interval);
    }
    Ok(json!({ "sent": n }))
}

fn word(buffer: &[u8; LEN], idx: usize) -> u64 {
    buffer
        .chunks_exact(8)
        .nth(idx)
        .map_or(0, |part| part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_arrives_whole_over_loopback() {
        let free = || match UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap() {
            std::net::SocketAddr::V4(at) => at,
            std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        };
        let (near, far) = (free(), free());
        let (interval, duration) = (Duration::from_millis(1), Duration::from_millis(200));
        let sender = std::thread::spawn(move || send(far, interval, duration).unwrap());
        let received = receive(near, far).unwrap();
        assert_eq!(sender.join().unwrap()["sent"], 200);
        assert_eq!((received["received"].as_u64(), received["lost"].as_u64()), (Some(200), Some(0)));
    }

    #[test]
    fn nobody_sends_no_pulse() {
        assert_eq!(count("127.0.0.1:0".parse().unwrap(), Duration::from_millis(20)).unwrap()["received"], 0);
    }
}
