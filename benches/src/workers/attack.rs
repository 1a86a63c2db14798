//! What a port under attack does to another one of the same worker: the victim sends a quarter of
//! what the worker can do, the attacker sends without end.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::{Context, Result};
use dataplane::{DataplaneConfig, FrameSource};
use serde_json::{Value, json};

use super::{
    Endless, Switched,
    latency::{full_rate, paced},
    workers,
};
use crate::{
    rules::UPLINK,
    workload::{Traffic, Workload, list::find, texts},
};

/// The attacks: explosion of masks, first packets through one table and through twenty.
const ATTACKS: [&str; 3] = ["P4", "P12a", "P12b"];

/// Their rules, for packets of any port.
const RULES: [fn() -> Vec<String>; 3] =
    [texts::three_allowed, || anywhere(texts::exact()), || anywhere(texts::exact_through_twenty_tables())];

fn anywhere(rules: Vec<String>) -> Vec<String> {
    rules.into_iter().map(|rule| rule.replace("in_port=1,", "")).collect()
}

/// Measures; answers a line for people and the same for programs, for each attack.
///
/// # Errors
/// When a plant cannot start.
pub fn run(duration: Duration) -> Result<Vec<(String, Value)>> {
    ATTACKS.into_iter().map(|id| measure(id, duration)).collect()
}

fn measure(id: &str, duration: Duration) -> Result<(String, Value)> {
    let listed = find(id).context("the workload is in the list")?;
    let attack =
        &Workload { rules: RULES[ATTACKS.iter().position(|own| *own == id).unwrap_or(0)], ..*listed };
    // The rules of the attack, the flows of the victim: 1 000 to where everything may go.
    let peaceful = find("P1").context("the workload is in the list")?;
    let victim = &Workload { traffic: peaceful.traffic, ..*attack };
    let config = DataplaneConfig { workers: workers(1), ..DataplaneConfig::default() };
    let full = full_rate(victim, config.clone())?;
    let (plant, told, hz) = paced(victim, config)?;
    let endless = Workload { traffic: Traffic { n_flows: u32::MAX, ..attack.traffic }, ..*attack };
    let (source, valve) = Switched::new(Endless::new(&endless, 0));
    let source: Box<dyn FrameSource> = Box::new(source);
    plant.attach(UPLINK + 2, vec![source], Vec::new())?;
    told.set_interval((hz / (full / 4.0)) as u64);
    let window = |is_attacked: bool| {
        valve.set(is_attacked);
        thread::sleep(Duration::from_millis(500));
        told.begin();
        thread::sleep(duration);
        let clean = told.histograms.lock().map(|histograms| histograms[0].clone()).unwrap_or_default();
        let (sent, lost) = (told.n_sent.load(Relaxed), told.n_lost.load(Relaxed));
        let micros = |part| clean.quantile(part) as f64 / hz * 1e6;
        (sent, lost, micros(0.5), micros(0.99))
    };
    let calm = window(false);
    let before = plant.dataplane.workers();
    let attacked = window(true);
    let after = plant.dataplane.workers();
    let n_misses: u64 = before
        .iter()
        .zip(&after)
        .map(|(before, after)| after.counters.n_misses - before.counters.n_misses)
        .sum();
    valve.set(false);
    let share = attacked.0 as f64 / (attacked.0 + attacked.1).max(1) as f64 * 100.0;
    let line = format!(
        "attack {id:<4} {}: the victim has {share:.2} % of {:.2} Mpps ({} lost); p50 {:.1} us, calm {:.1}; p99 {:.1} us, calm {:.1}; {n_misses} first packets",
        attack.title,
        full / 4.0 / 1e6,
        attacked.1,
        attacked.2,
        calm.2,
        attacked.3,
        calm.3,
    );
    let value = json!({
        "id": "attack",
        "attack": id,
        "goal_percent": 90.0,
        "victim_mpps": full / 4.0 / 1e6,
        "victim_percent": share,
        "lost": attacked.1,
        "us": { "p50": attacked.2, "p99": attacked.3, "calm_p50": calm.2, "calm_p99": calm.3 },
        "n_first_packets": n_misses,
    });
    Ok((line, value))
}
