//! What an idle worker costs, and how soon it is back at its full rate (P18).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use dataplane::{DataplaneConfig, FrameSink, FrameSource, cycles};
use serde_json::{Value, json};

use super::{Endless, Observed, Plant, Switched, latency::full_rate, median, workers};
use crate::workload::list::find;

/// Frames between two notes of the time.
const NOTE_EVERY: u64 = 256;
/// Notes of one try.
const N_NOTES: usize = 4096;
/// Part of the full rate that counts as full.
const FULL: f64 = 0.9;
/// Notes that the rate must hold for.
const N_HELD: usize = 8;

/// Notes the time now and then.
#[derive(Clone, Default)]
struct Clocked {
    notes: Arc<Mutex<Vec<u64>>>,
    is_on: Arc<AtomicBool>,
}

/// The sink's own side.
struct ClockedSink {
    shared: Clocked,
    n: u64,
}

impl FrameSink for ClockedSink {
    fn take(&mut self, _: &[u8]) -> bool {
        if self.shared.is_on.load(Relaxed)
            && self.n.is_multiple_of(NOTE_EVERY)
            && let Ok(mut notes) = self.shared.notes.try_lock()
            && notes.len() < N_NOTES
        {
            notes.push(cycles());
        }
        self.n += 1;
        true
    }
}

/// Measures; answers a line for people and the same for programs.
///
/// # Errors
/// When a plant cannot start.
pub fn run(n_tries: usize, duration: Duration) -> Result<(String, Value)> {
    let workload = find("P1").context("the workload is in the list")?;
    let config = DataplaneConfig { workers: workers(1), ..DataplaneConfig::default() };
    let full = full_rate(workload, config.clone())?;
    let (source, valve) = Switched::new(Endless::new(workload, 0));
    let clocked = Clocked { notes: Arc::new(Mutex::new(Vec::with_capacity(N_NOTES))), ..Clocked::default() };
    let sink = ClockedSink { shared: clocked.clone(), n: 0 };
    let source: Box<dyn FrameSource> = Box::new(source);
    let plant = Plant::start(workload, config, vec![source], vec![Box::new(sink)])?;
    valve.set(true);
    thread::sleep(Duration::from_millis(300));
    valve.set(false);
    thread::sleep(Duration::from_millis(50));
    let idle = plant.observe(duration);
    let share =
        idle.iter().map(|o: &Observed| o.cpu.as_secs_f64() / o.wall.as_secs_f64()).sum::<f64>() * 100.0;
    let hz = plant.dataplane.perf().first().context("there is a worker")?.hz as f64;
    let mut returns = Vec::new();
    for _ in 0..n_tries {
        if let Ok(mut notes) = clocked.notes.lock() {
            notes.clear();
        }
        clocked.is_on.store(true, Relaxed);
        let start = cycles();
        valve.set(true);
        thread::sleep(Duration::from_millis(8));
        clocked.is_on.store(false, Relaxed);
        valve.set(false);
        thread::sleep(Duration::from_millis(12));
        let notes = clocked.notes.lock().map(|notes| notes.clone()).unwrap_or_default();
        let Some(at) = back_at_full(&notes, hz / full * NOTE_EVERY as f64) else { continue };
        returns.push(at.saturating_sub(start) as f64 / hz * 1e6);
    }
    returns.sort_by(f64::total_cmp);
    let p90 = returns.get(returns.len() * 9 / 10).copied().unwrap_or(f64::NAN);
    let line = format!(
        "P18       an idle worker takes {share:.2} % of a core; back at full rate after {:.0} us (median), {p90:.0} us (p90) of {} times",
        median(&returns),
        returns.len(),
    );
    let value = json!({
        "id": "P18",
        "goal": { "idle_percent": 3.0, "back_us": 1000.0 },
        "idle_percent": share,
        "back_us": { "min": returns.first(), "p50": median(&returns), "p90": p90, "max": returns.last() },
        "n_tries": n_tries,
        "n_reached": returns.len(),
        "full_mpps": full / 1e6,
    });
    Ok((line, value))
}

/// When the rate became full and stayed so; `per_note`: cycles from note to note at full rate.
fn back_at_full(notes: &[u64], per_note: f64) -> Option<u64> {
    let limit = (per_note * N_HELD as f64 / FULL) as u64;
    notes.windows(N_HELD + 1).find(|window| window[N_HELD] - window[0] <= limit).map(|window| window[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_full_when_it_stays_so() {
        let slow = (0..5).map(|n| n * 1000);
        let fast = (0..20).map(|n| 5000 + n * 100);
        let notes: Vec<u64> = slow.chain(fast).collect();
        assert_eq!(back_at_full(&notes, 100.0), Some(5000));
        assert_eq!(back_at_full(&notes, 50.0), None);
    }
}
