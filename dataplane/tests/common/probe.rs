//! Traffic from inside a namespace: the test binary runs itself there as a client or as
//! an echo server, with sockets of the kernel.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// What the process is to do, in words; set in the processes that tests start.
pub const TASK: &str = "DATAPLANE_TEST_PROBE";
/// Name of the test that such a process runs.
pub const ENTRY: &str = "probe_process";
/// Port of the echo servers.
pub const ECHO_PORT: u16 = 7000;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The probe's task, if this process is one.
pub fn main() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.split_whitespace().collect();
    let number = |idx: usize| words[idx].parse::<usize>().unwrap();
    match words[0] {
        "echo" => echo(),
        "ask" => ask(words[1], number(2), number(3)),
        "stream" => stream(words[1], number(2)),
        "gap" => gap(words[1], number(2)),
        "flows" => flows(words[1], number(2)),
        "send" => send(words[1], &words[2..]),
        other => panic!("{other}: no such task"),
    }
}

/// Answers datagrams and streams with what they say, for ever.
fn echo() {
    let listener = TcpListener::bind(("0.0.0.0", ECHO_PORT)).unwrap();
    let datagrams = UdpSocket::bind(("0.0.0.0", ECHO_PORT)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut stream, mut text) = (stream.unwrap(), Vec::new());
                stream.read_to_end(&mut text).unwrap();
                stream.write_all(&text).unwrap();
            });
        }
    });
    let mut buf = [0; 65536];
    loop {
        let (len, peer) = datagrams.recv_from(&mut buf).unwrap();
        let _ = datagrams.send_to(&buf[..len], peer);
    }
}

/// Sends `n` datagrams of `len` bytes, each when the one before was answered.
fn ask(address: &str, n: usize, len: usize) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    socket.connect((address, ECHO_PORT)).unwrap();
    let mut buf = [0; 65536];
    for idx in 0..n {
        let question: Vec<u8> = (0..len).map(|at| (at ^ idx) as u8).collect();
        socket.send(&question).unwrap();
        let len = socket.recv(&mut buf).unwrap_or_else(|error| panic!("question {idx}: {error}"));
        assert_eq!(buf[..len], question);
    }
}

/// Asks every few milliseconds, for `millis` of them, and prints the longest time without an
/// answer.
fn gap(address: &str, millis: usize) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    socket.connect((address, ECHO_PORT)).unwrap();
    let began = Instant::now();
    let (mut last, mut longest) = (None, Duration::ZERO);
    while began.elapsed() < Duration::from_millis(millis as u64) {
        let _ = socket.send(b"there?");
        if socket.recv(&mut [0; 64]).is_ok() {
            longest = longest.max(last.map_or(Duration::ZERO, |last: Instant| last.elapsed()));
            last = Some(Instant::now());
        }
    }
    let last = last.expect("there is an answer");
    println!("longest gap {}", longest.max(last.elapsed()).as_millis());
}

/// Sends `len` bytes by TCP and has them sent back.
fn stream(address: &str, len: usize) {
    let mut stream = TcpStream::connect((address, ECHO_PORT)).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    let text: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    stream.write_all(&text).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back == text, "{} of {len} bytes came back", back.len());
}

/// Sends one datagram in each of `n` flows.
fn flows(address: &str, n: usize) {
    for idx in 0..n {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.send_to(&[0; 100], (address, 20_000 + idx as u16)).unwrap();
    }
}

/// Sends "to N" to each UDP port N.
fn send(address: &str, ports: &[&str]) {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    for port in ports {
        socket.send_to(format!("to {port}").as_bytes(), (address, port.parse().unwrap())).unwrap();
    }
}
