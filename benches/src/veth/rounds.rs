//! Questions and answers of one byte over one connection of TCP, one after the other.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ferroflow_tests::netns::Netns;

/// Exchanges that are measured, and those before that warm up.
const N: usize = 5_000;
const N_BEFORE: usize = 500;
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an exchange takes: the median, and what one in a hundred exceeds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rounds {
    pub(super) median_us: f64,
    pub(super) p99_us: f64,
}

/// Measures from one workload to another, which has this address.
pub(super) fn measure(from: &Netns, to: &Netns, address: &str) -> Result<Rounds> {
    // Sockets stay in the namespace that they were made in.
    let listener = to.inside(|| TcpListener::bind((address, 0)))?.context("cannot listen")?;
    let at = listener.local_addr()?;
    let server = thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let times = from.inside(|| -> std::io::Result<Vec<f64>> {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut times = Vec::with_capacity(N);
        for n in 0..N_BEFORE + N {
            let start = Instant::now();
            stream.write_all(&[n as u8])?;
            stream.read_exact(&mut [0])?;
            if n >= N_BEFORE {
                times.push(start.elapsed().as_nanos() as f64 / 1000.0);
            }
        }
        Ok(times)
    })?;
    // Without a connection the server would wait for ever; it goes with the process.
    let mut times = times.context("an exchange failed")?;
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN);
    Ok(Rounds { median_us: at(0.5), p99_us: at(0.99) })
}
