//! How long a packet is under way through a worker at a tenth of the rate that it can do (P17).

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use dataplane::{DataplaneConfig, FrameSink, FrameSource};
use serde_json::{Value, json};

use super::{
    Counter, Endless, Observed, Plant,
    pace::{Paced, Timed, Told},
    workers,
};
use crate::workload::{Workload, list::find};

/// A worker that was away for so long may have been so by the kernel's will.
const SUSPICIOUS: Duration = Duration::from_micros(15);
/// Workloads.
const WORKLOADS: [&str; 2] = ["P1", "P6a"];

/// Packets in a second that a worker can do of a workload.
///
/// # Errors
/// When it cannot start.
pub fn full_rate(workload: &Workload, config: DataplaneConfig) -> Result<f64> {
    let source: Box<dyn FrameSource> = Box::new(Endless::new(workload, 0));
    let sink: Box<dyn FrameSink> = Box::new(Counter::default());
    let plant = Plant::start(workload, config, vec![source], vec![sink])?;
    plant.warm()?;
    Ok(plant.observe(Duration::from_millis(500)).iter().map(Observed::pps).sum())
}

/// A plant with a paced source and a sink that tells the time.
///
/// # Errors
/// When it cannot start.
pub fn paced(workload: &Workload, config: DataplaneConfig) -> Result<(Plant, Arc<Told>, f64)> {
    // The frequency is known only once a dataplane runs.
    let hz = {
        let plant = Plant::start(workload, config.clone(), Vec::new(), Vec::new())?;
        thread::sleep(Duration::from_millis(100));
        plant.dataplane.perf().first().context("there is a worker")?.hz as f64
    };
    let told = Told::new((SUSPICIOUS.as_secs_f64() * hz) as u64);
    let source: Box<dyn FrameSource> = Box::new(Paced::new(workload, 0, Arc::clone(&told)));
    let sink: Box<dyn FrameSink> = Box::new(Timed::new(Arc::clone(&told)));
    Ok((Plant::start(workload, config, vec![source], vec![sink])?, told, hz))
}

/// Measures; answers a line for people and the same for programs, for each workload.
///
/// # Errors
/// When a plant cannot start.
pub fn run(duration: Duration) -> Result<Vec<(String, Value)>> {
    WORKLOADS.into_iter().map(|id| measure(id, duration)).collect()
}

fn measure(id: &str, duration: Duration) -> Result<(String, Value)> {
    let workload = find(id).context("the workload is in the list")?;
    let config = DataplaneConfig { workers: workers(1), ..DataplaneConfig::default() };
    let full = full_rate(workload, config.clone())?;
    let (plant, told, hz) = paced(workload, config)?;
    told.set_interval((hz / (full / 10.0)) as u64);
    plant.warm()?;
    told.begin();
    thread::sleep(duration);
    let [clean, disturbed] = told.histograms.lock().map(|histograms| histograms.clone()).unwrap_or_default();
    let micros = |cycles: u64| cycles as f64 / hz * 1e6;
    let quantile = |part| micros(clean.quantile(part));
    let disturbed_part = disturbed.n() as f64 / (clean.n() + disturbed.n()).max(1) as f64 * 100.0;
    let line = format!(
        "P17 {id:<4} {} at {:.2} Mpps (a tenth): p50 {:.2} us, p99 {:.2}, p99.9 {:.2}, most {:.1}; {disturbed_part:.1} % disturbed",
        workload.title,
        full / 10.0 / 1e6,
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        micros(clean.max()),
    );
    let value = json!({
        "id": "P17",
        "workload": id,
        "title": workload.title,
        "goal_us": { "p50": 5.0, "p99.9": 50.0 },
        "mpps": full / 10.0 / 1e6,
        "us": {
            "p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99), "p99.9": quantile(0.999),
            "max": micros(clean.max()),
        },
        "n": clean.n(),
        "disturbed": {
            "percent": disturbed_part,
            "p99.9_us": micros(disturbed.quantile(0.999)),
        },
    });
    Ok((line, value))
}
