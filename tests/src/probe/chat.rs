//! A conversation: one byte there, one byte back, again and again, over one connection.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::tcp;

/// Sends every byte of one connection back, until it ends.
pub(super) fn echo(at: SocketAddrV4, limit: Duration) -> Result<Value> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    let mut stream = tcp::accept(&listener, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut n_bytes = 0_u64;
    let mut byte = [0];
    // However it ends is for the other side to tell.
    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {
        n_bytes += 1;
    }
    Ok(json!({ "bytes": n_bytes }))
}

/// Says `n` bytes, one each `interval`, and waits for each to come back, at most `patience`.
pub(super) fn chat(to: SocketAddrV4, n: u64, interval: Duration, patience: Duration) -> Result<Value> {
    let mut stream = tcp::connect_when_ready(to.into(), patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    let mut n_answered = 0;
    while n_answered < n {
        let start = Instant::now();
        let mut byte = [n_answered as u8];
        if stream.write_all(&byte).is_err() || stream.read_exact(&mut byte).is_err() {
            break;
        }
        n_answered += 1;
        std::thread::sleep(interval.saturating_sub(start.elapsed()));
    }
    Ok(json!({ "answered": n_answered }))
}
