//! TCP: connect, listen, and a transfer whose two sides hash what they sent and received.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CHUNK_LEN: usize = 64 << 10;
const SHA256_LEN: usize = 32;

/// Tries once, for at most `limit`.
pub(super) fn connect(to: SocketAddr, limit: Duration) -> Result<Value> {
    let outcome = match TcpStream::connect_timeout(&to, limit) {
        Ok(_) => "connected",
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => "refused",
            ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::WouldBlock => "silent",
            _ => return Err(error).context("connect"),
        },
    };
    Ok(json!({ "outcome": outcome }))
}

/// Accepts and closes connections until it is killed.
pub(super) fn listen(at: SocketAddr) -> Result<Value> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    loop {
        // A peer that is gone already is no reason to end.
        let _ = listener.accept();
    }
}

/// Takes one stream, hashes it, and answers with the hash.
pub(super) fn receive(at: SocketAddr, limit: Duration) -> Result<Value> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    let mut stream = accept(&listener, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let start = Instant::now();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK_LEN];
    let mut received_len = 0_u64;
    loop {
        let len = stream.read(&mut buffer).context("receive")?;
        if len == 0 {
            break;
        }
        hash.update(&buffer[..len]);
        received_len += len as u64;
        ensure!(start.elapsed() < limit, "{received_len} bytes in {:.0} s", limit.as_secs_f64());
    }
    let digest = hash.finalize();
    stream.write_all(&digest).context("answer")?;
    Ok(report(received_len, &digest, start.elapsed()))
}

/// Sends `len` pseudo-random bytes and waits for the receiver's hash of them.
pub(super) fn send(to: SocketAddr, len: u64, limit: Duration) -> Result<Value> {
    let mut stream = connect_when_ready(to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let start = Instant::now();
    let mut hash = Sha256::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let mut left = len;
    while left > 0 {
        let chunk_len = left.min(CHUNK_LEN as u64) as usize;
        let chunk = random_bytes(&mut state, chunk_len);
        hash.update(&chunk);
        stream.write_all(&chunk).with_context(|| format!("send, {left} bytes left"))?;
        left -= chunk_len as u64;
        ensure!(start.elapsed() < limit, "{left} bytes left after {:.0} s", limit.as_secs_f64());
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = [0; SHA256_LEN];
    stream.read_exact(&mut answer).context("no answer from the receiver")?;
    let digest = hash.finalize();
    ensure!(answer == digest[..], "the receiver's hash differs");
    Ok(report(len, &digest, start.elapsed()))
}

fn report(len: u64, digest: &[u8], took: Duration) -> Value {
    let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "bytes": len, "sha256": sha256, "took_ns": u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) })
}

/// The standard library has no accept with a time limit.
pub(super) fn accept(listener: &TcpListener, limit: Duration) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let start = Instant::now();
    while start.elapsed() < limit {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error).context("accept"),
        }
    }
    bail!("nobody connected within {:.0} s", limit.as_secs_f64())
}

/// The receiver is started at the same time, so a refusal is answered by another try.
pub(super) fn connect_when_ready(to: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        ensure!(!left.is_zero(), "no connection to {to} within {:.0} s", limit.as_secs_f64());
        match TcpStream::connect_timeout(&to, left) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error).with_context(|| format!("no connection to {to}")),
        }
    }
}

/// xorshift64: cheap, and nothing on the way can compress or guess it.
fn random_bytes(state: &mut u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[test]
    fn both_sides_agree_on_what_crossed() {
        let at = free_port();
        let limit = Duration::from_secs(10);
        let receiver = std::thread::spawn(move || receive(at, limit).unwrap());
        let sent = send(at, 300_001, limit).unwrap();
        let received = receiver.join().unwrap();
        assert_eq!(sent["bytes"], 300_001);
        assert_eq!((&sent["bytes"], &sent["sha256"]), (&received["bytes"], &received["sha256"]));
    }

    #[test]
    fn a_closed_port_refuses_and_a_wrong_answer_is_found() {
        let limit = Duration::from_secs(5);
        assert_eq!(connect(free_port(), limit).unwrap()["outcome"], "refused");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let liar = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            stream.write_all(&[0; SHA256_LEN]).unwrap();
        });
        let error = send(at, 1000, limit).unwrap_err().to_string();
        liar.join().unwrap();
        assert!(error.contains("differs"), "{error}");
    }
}
