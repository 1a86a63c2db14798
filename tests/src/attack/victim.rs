//! The victim: questions at a steady rate, each of which is answered, and how long that takes.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fabric::Fabric;
use crate::stop;

/// Where questions are answered.
const PORT: u16 = 7000;
/// An answer that takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often who waits looks up.
const LOOK_UP: Duration = Duration::from_millis(50);
/// A question: its number, when it was asked, and some more.
const LEN: usize = 200;
/// Room for what comes while the machine does something else.
const ROOM: usize = 4 << 20;

/// How the victim fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fare {
    /// Questions.
    pub n_asked: u64,
    /// Questions without an answer.
    pub n_lost: u64,
    /// What half of the answers did not take longer than.
    pub p50: Duration,
    /// What 99 of 100 did not.
    pub p99: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Fare {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        json!({
            "asked": self.n_asked,
            "lost": self.n_lost,
            "us": { "p50": micros(self.p50), "p99": micros(self.p99), "longest": micros(self.longest) },
        })
    }

    fn new(n_asked: u64, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let idx = (times.len() * percent).div_ceil(100).max(1) - 1;
            times.get(idx).copied().unwrap_or_default()
        };
        Self { n_asked, n_lost: n_asked - times.len() as u64, p50: at(50), p99: at(99), longest: at(100) }
    }
}

/// Asks `rate` questions a second, from web-1 to db-1.
pub(super) fn ask(fabric: &Fabric, duration: Duration, rate: u32) -> Result<Fare> {
    let (client, server) = (fabric.workload("web-1")?, fabric.workload("db-1")?);
    let is_over = AtomicBool::new(false);
    let bind = |address, port| {
        let socket = UdpSocket::bind((address, port)).with_context(|| format!("cannot bind {address}"))?;
        socket.set_read_timeout(Some(LOOK_UP))?;
        socket2::SockRef::from(&socket).set_recv_buffer_size(ROOM)?;
        anyhow::Ok(socket)
    };
    let answering = server.netns.inside(|| bind(server.plan.address, PORT))??;
    let asking = client.netns.inside(|| bind(client.plan.address, 0))??;
    asking.connect((server.plan.address, PORT))?;
    let n_asked = (duration.as_secs_f64() * f64::from(rate)) as u64;
    let times = thread::scope(|scope| -> Result<Vec<Duration>> {
        scope.spawn(|| answer(&answering, &is_over));
        let start = Instant::now();
        let socket = &asking;
        let hearing = scope.spawn(move || hear(socket, start, n_asked, duration));
        for number in 0..n_asked {
            let due = duration.mul_f64(number as f64 / n_asked as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
            let mut question = [0; LEN];
            question[..8].copy_from_slice(&number.to_be_bytes());
            question[8..16].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
            // What an earlier question met is told here; whether this one is answered is seen.
            let _ = asking.send(&question);
            if stop::requested() {
                break;
            }
        }
        let times = hearing.join().map_err(|_| anyhow::anyhow!("the victim's thread panicked"));
        is_over.store(true, Relaxed);
        times
    })?;
    stop::check()?;
    ensure!(!times.is_empty(), "the victim is not answered at all");
    Ok(Fare::new(n_asked, times))
}

fn answer(socket: &UdpSocket, is_over: &AtomicBool) {
    let mut buffer = [0; LEN];
    while !is_over.load(Relaxed) {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..len], from);
        }
    }
}

/// Takes answers until all are there, or the last one is late.
fn hear(socket: &UdpSocket, start: Instant, n_asked: u64, duration: Duration) -> Vec<Duration> {
    let mut is_answered = vec![false; usize::try_from(n_asked).unwrap_or_default()];
    let (mut times, mut buffer) = (Vec::with_capacity(is_answered.len()), [0; LEN]);
    while times.len() < is_answered.len() && start.elapsed() < duration + PATIENCE {
        if !matches!(socket.recv(&mut buffer), Ok(LEN)) {
            continue;
        }
        let at = start.elapsed();
        let word = |at: usize| buffer[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let Some(place) = usize::try_from(word(0)).ok().and_then(|idx| is_answered.get_mut(idx)) else {
            continue;
        };
        if !std::mem::replace(place, true) {
            times.push(at.saturating_sub(Duration::from_nanos(word(8))));
        }
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_is_lost_and_the_slowest_hundredth_is_left_out() {
        let millis = |n| Duration::from_millis(n);
        let fare = Fare::new(203, (1..=200).rev().map(millis).collect());
        assert_eq!(
            (fare.n_lost, fare.p50, fare.p99, fare.longest),
            (3, millis(100), millis(198), millis(200))
        );
        assert_eq!(Fare::new(5, Vec::new()).n_lost, 5);
    }
}
