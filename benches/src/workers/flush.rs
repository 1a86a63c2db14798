//! What is lost when all rules change under load (P13): 50 000 flows, each an entry of its own,
//! at half the rate that the worker can do.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dataplane::DataplaneConfig;
use flowtable::{
    port::PortTable,
    switch::SwitchConfig,
    table::{Change, Tables},
    text::parse_flow,
};
use serde_json::{Value, json};

use super::{
    latency::{full_rate, paced},
    median, snapshot_of, workers,
};
use crate::workload::{Traffic, Workload, list::find};

/// Flows.
const N_FLOWS: u32 = 50_000;
/// How often the rules change.
const N_FLUSHES: u64 = 8;

/// Measures; answers a line for people and the same for programs, for one table and for twenty.
///
/// # Errors
/// When a plant cannot start.
pub fn run() -> Result<Vec<(String, Value)>> {
    ["P12a", "P12b"].into_iter().map(measure).collect()
}

fn with_another_rule(tables: &Tables, n: u64) -> Result<Tables> {
    let rule = format!("table=200,priority={},tcp,actions=drop", n % 60_000);
    let rule = parse_flow(&rule, &PortTable::default()).context(rule)?;
    Ok(tables.transact(vec![Change::Add(rule)])?)
}

fn measure(rules: &'static str) -> Result<(String, Value)> {
    let like = find(rules).context("the workload is in the list")?;
    let workload = &Workload { traffic: Traffic::plain(N_FLOWS), warm_up: 1.0, ..*like };
    let config = DataplaneConfig {
        workers: workers(1),
        switch: SwitchConfig { n_sessions: 1 << 17, n_megaflows: 1 << 17 },
        ..DataplaneConfig::default()
    };
    let full = full_rate(workload, config.clone())?;
    let (plant, told, hz) = paced(workload, config)?;
    told.set_interval((hz / (full / 2.0)) as u64);
    plant.warm()?;
    let mut snapshot = (*snapshot_of(workload)?).clone();
    let (mut lost, mut taken, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..N_FLUSHES {
        told.begin();
        // One more rule: every entry is of an older version then.
        snapshot.epoch = snapshot.epoch.next();
        snapshot.tables = Arc::new(with_another_rule(&snapshot.tables, snapshot.epoch.get())?);
        let start = Instant::now();
        plant.publish(Arc::new(snapshot.clone()))?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_millis(500));
        lost.push(told.n_lost.load(Relaxed) as f64);
        gaps.push(told.longest_gap.load(Relaxed) as f64 / hz * 1e6);
    }
    let line = format!(
        "P13 {rules} {N_FLOWS} entries made anew at {:.2} Mpps (half): lost {:.0} of {:.0} in the half second after (median), most {:.0}; in force after {:.1} ms; longest away {:.0} us",
        full / 2.0 / 1e6,
        median(&lost),
        full / 4.0,
        lost.iter().copied().fold(0.0, f64::max),
        median(&taken),
        gaps.iter().copied().fold(0.0, f64::max),
    );
    let value = json!({
        "id": "P13",
        "rules": rules,
        "goal_lost": 0,
        "n_entries": N_FLOWS,
        "mpps": full / 2.0 / 1e6,
        "lost": lost,
        "in_force_ms": taken,
        "longest_away_us": gaps,
    });
    Ok((line, value))
}
