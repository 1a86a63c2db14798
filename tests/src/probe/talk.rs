//! TCP conversations whose server says who it is: which one a load balancer has chosen, whom a translation
//! shows it, and whether a connection stays where it is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// How long a single step may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Pause between two questions on a connection.
const PAUSE: Duration = Duration::from_millis(50);
/// Bytes of an answer: a name and an address, filled up with spaces.
const ANSWER_LEN: usize = 64;

/// Answers each byte of each connection with `name` and the address it sees, until it is killed.
pub(super) fn greet(at: SocketAddrV4, name: &str) -> Result<Value> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    loop {
        let Ok((stream, peer)) = listener.accept() else { continue };
        let answer = format!("{name} {:width$}", peer.ip(), width = ANSWER_LEN - name.len() - 1);
        std::thread::spawn(move || serve(stream, answer.as_bytes()));
    }
}

/// Ends with the client.
fn serve(mut stream: TcpStream, answer: &[u8]) {
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(answer).is_ok() {}
}

/// Connects `n` times; how often which answer came.
pub(super) fn ask(to: SocketAddrV4, n: u64) -> Result<Value> {
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..n {
        *answers.entry(question(&mut connect(to)?)?).or_default() += 1;
    }
    Ok(json!({ "answers": answers }))
}

/// Connects once and asks again and again for a while.
pub(super) fn stay(to: SocketAddrV4, duration: Duration) -> Result<Value> {
    let (mut stream, start) = (connect(to)?, Instant::now());
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    while start.elapsed() < duration {
        *answers.entry(question(&mut stream)?).or_default() += 1;
        std::thread::sleep(PAUSE);
    }
    Ok(json!({ "answers": answers }))
}

fn connect(to: SocketAddrV4) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.into(), LIMIT).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn question(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"?").context("ask")?;
    let mut answer = [0; ANSWER_LEN];
    stream.read_exact(&mut answer).context("answer")?;
    let answer = String::from_utf8_lossy(&answer).trim_end().to_owned();
    ensure!(answer.contains(' '), "{answer:?}");
    Ok(answer)
}
