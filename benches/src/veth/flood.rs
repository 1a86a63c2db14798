//! Small frames into one veth and out of another: how many of them in a second, and what is lost when a
//! switch has less to do than it can.

use std::{
    fmt, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ferroflow_tests::{command, netns::Netns};

use super::lab::{Lab, WORKLOAD_ENDS};

/// Nobody's address: the receiving stack counts such a frame and drops it at once.
pub(super) const NOBODY: &str = "02:00:00:00:00:99";
/// The frames are made on the workloads' core.
const CORE: &str = "1";
/// Time for a flood to begin, and for what is under way to arrive.
const SETTLE: Duration = Duration::from_millis(700);
/// Part of the rate that nothing may be lost at.
const PART: f64 = 0.8;

/// What was measured of a switch once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flood {
    /// Millions of frames that came through in a second.
    pub(super) mpps: f64,
    /// Millions that were sent.
    pub(super) offered_mpps: f64,
    /// Frames sent at a part of the rate.
    pub(super) n_sent: u64,
    /// Those of them that did not come through.
    pub(super) n_lost: u64,
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mpps, offered_mpps, n_sent, n_lost } = self;
        write!(f, "{mpps:.3} of {offered_mpps:.2} Mpps; at four fifths of that {n_lost} of {n_sent} lost")
    }
}

/// Measures a switch that is there: as much as it takes for so long, then less for so long.
/// `frames` is the program that makes them.
pub(super) fn measure(lab: &Lab, frames: &Path, duration: Duration) -> Result<Flood> {
    let source = Source { netns: &lab.workloads[0], frames };
    let (mpps, offered) = thread::scope(|scope| {
        let flood = scope.spawn(|| source.send(duration + 2 * SETTLE, 0.0));
        thread::sleep(SETTLE);
        let (start, before) = (Instant::now(), received(lab)?);
        thread::sleep(duration);
        let (n, took) = (received(lab)? - before, start.elapsed());
        let sent = flood.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??;
        Ok::<_, anyhow::Error>((n as f64 / took.as_secs_f64() / 1e6, sent))
    })?;
    thread::sleep(SETTLE);
    let before = received(lab)?;
    let part = source.send(duration, PART * mpps * 1e6)?;
    thread::sleep(SETTLE);
    let n_lost = part.n.saturating_sub(received(lab)? - before);
    Ok(Flood { mpps, offered_mpps: offered.n as f64 / offered.seconds / 1e6, n_sent: part.n, n_lost })
}

/// Frames from a workload.
struct Source<'a> {
    netns: &'a Netns,
    frames: &'a Path,
}

/// What it has sent.
struct Sent {
    n: u64,
    seconds: f64,
}

impl Source<'_> {
    /// Sends so many a second, or (0) as many as it can.
    fn send(&self, duration: Duration, rate: f64) -> Result<Sent> {
        let mut command = self.netns.command("taskset");
        command.args(["-c", CORE]).arg(self.frames);
        command.args([WORKLOAD_ENDS[0], NOBODY]);
        command.args([duration.as_secs_f64().to_string(), rate.round().to_string()]);
        let text = command::output(&mut command, duration + Duration::from_secs(20))?;
        let (n, seconds) = text.trim().split_once(' ').context("the source of frames said nothing")?;
        Ok(Sent { n: n.parse()?, seconds: seconds.parse()? })
    }
}

/// Frames that the second workload has received.
fn received(lab: &Lab) -> Result<u64> {
    let text = lab.workloads[1].inside(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    n_received(&text, WORKLOAD_ENDS[1]).context("the workload has no counters")
}

fn n_received(text: &str, interface: &str) -> Option<u64> {
    let mut rows = text.lines().filter_map(|line| line.split_once(':'));
    let (_, row) = rows.find(|(name, _)| name.trim() == interface)?;
    row.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let text =
            "Inter-|   Receive\n face |bytes    packets errs\n    lo:  10 3 0 0\n   vb: 2299 38 0 0 0\n";
        assert_eq!((n_received(text, "vb"), n_received(text, "va")), (Some(38), None));
    }
}
