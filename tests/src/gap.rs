//! For how long a host is not reached: somebody asks it for an echo all the time, and talks to it over one TCP
//! connection.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Distance of questions.
const INTERVAL: Duration = Duration::from_millis(1);
/// Distance of words over the connection, and how long an answer may take before the connection is given up.
const WORDS: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who asks a host all the time. Dropping it ends him.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Seen>,
    talk: [TcpStream; 2],
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Seen {
    is_over: AtomicBool,
    since: Instant,
    /// Microseconds since the start: when the last answer came, and the longest time without one.
    last: AtomicU64,
    longest: AtomicU64,
    n_words: AtomicU64,
    /// Why the connection has ended.
    end: Mutex<Option<String>>,
}

impl Seen {
    fn now(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn answered(&self) {
        let now = self.now();
        let last = self.last.swap(now, Ordering::Relaxed);
        self.longest.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    fn give_up(&self, why: String) {
        if !self.is_over() {
            self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        }
    }
}

impl Watch {
    /// Has `from` ask `host`, which has this address.
    ///
    /// # Errors
    /// When they cannot reach each other at first.
    pub fn start(from: &Netns, (host, address): (&Netns, IpAddr)) -> Result<Self> {
        let any: SocketAddr = (address, 0).into();
        let (echo, listener) = host.inside(|| (UdpSocket::bind(any), TcpListener::bind(any)))?;
        let (echo, listener) = (echo.context("an echo")?, listener.context("a listener")?);
        let (at, door) = (echo.local_addr()?, listener.local_addr()?);
        let from_any: SocketAddr =
            if address.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let asking = from.inside(|| UdpSocket::bind(from_any))??;
        let talk = from.inside(|| TcpStream::connect_timeout(&door, PATIENCE))??;
        let (answering, _) = listener.accept()?;
        asking.connect(at)?;
        asking.set_read_timeout(Some(INTERVAL))?;
        for end in [&talk, &answering] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(PATIENCE))?;
        }
        let seen = Arc::new(Seen {
            is_over: AtomicBool::new(false),
            since: Instant::now(),
            last: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            n_words: AtomicU64::new(0),
            end: Mutex::default(),
        });
        let mut threads = Vec::new();
        let ends = [talk.try_clone()?, answering.try_clone()?];
        let told = Arc::clone(&seen);
        threads.push(thread::spawn(move || answer(&echo, &told)));
        let told = Arc::clone(&seen);
        threads.push(thread::spawn(move || ask(&asking, &told)));
        threads.push(thread::spawn(move || repeat(answering)));
        let told = Arc::clone(&seen);
        threads.push(thread::spawn(move || speak(talk, &told)));
        Ok(Self { seen, talk: ends, threads })
    }

    /// The longest time without an answer since this was asked last, which begins anew.
    ///
    /// # Errors
    /// When the connection has ended, or nothing was ever answered.
    pub fn longest(&self) -> Result<Duration> {
        if let Some(why) = &*self.seen.end.lock().unwrap_or_else(PoisonError::into_inner) {
            bail!("the connection to the host has ended: {why}");
        }
        let last = self.seen.last.load(Ordering::Relaxed);
        if last == 0 || self.seen.n_words.load(Ordering::Relaxed) == 0 {
            bail!("the host has never answered");
        }
        let silent = self.seen.now().saturating_sub(last);
        let longest = self.seen.longest.swap(0, Ordering::Relaxed).max(silent);
        Ok(Duration::from_micros(longest))
    }

    /// Words that were said and answered over the connection.
    pub fn n_words(&self) -> u64 {
        self.seen.n_words.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        for end in &self.talk {
            let _ = end.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// How long who only waits for others looks whether all is over.
const LOOK: Duration = Duration::from_millis(100);

fn answer(socket: &UdpSocket, seen: &Seen) {
    let mut room = [0; 16];
    let _ = socket.set_read_timeout(Some(LOOK));
    while !seen.is_over() {
        if let Ok((len, peer)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(&room[..len], peer);
        }
    }
}

fn ask(socket: &UdpSocket, seen: &Seen) {
    while !seen.is_over() {
        // A host without a route says so at once; that is no answer.
        if socket.send(b"there?").is_err() || socket.recv(&mut [0; 16]).is_err() {
            thread::sleep(INTERVAL / 10);
            continue;
        }
        seen.answered();
        thread::sleep(INTERVAL / 2);
    }
}

fn repeat(mut stream: TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte)).is_ok() {}
}

fn speak(mut stream: TcpStream, seen: &Seen) {
    let mut word = 0_u8;
    while !seen.is_over() {
        word = word.wrapping_add(1);
        let mut answer = [0];
        match stream.write_all(&[word]).and_then(|()| stream.read_exact(&mut answer)) {
            Ok(()) if answer == [word] => seen.n_words.fetch_add(1, Ordering::Relaxed),
            Ok(()) => return seen.give_up(format!("{word} came back as {answer:?}")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return seen.give_up(format!("no answer for {PATIENCE:?}"));
            }
            Err(error) => return seen.give_up(error.to_string()),
        };
        thread::sleep(WORDS);
    }
}
