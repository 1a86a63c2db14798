//! How rates grow from one worker to two (P19), and what measuring costs.
//!
//! Three plants in turn: one worker; two workers of one dataplane; two dataplanes of one worker
//! each, which share nothing. The last says what the machine gives: two cores may be two threads
//! of one.

use std::time::Duration;

use anyhow::{Context, Result};
use dataplane::{DataplaneConfig, FrameSink, FrameSource};
use serde_json::{Value, json};

use super::{Counter, Endless, Observed, Plant, median, workers};
use crate::workload::{Workload, list::find};

/// Workloads, with the goal of each.
const WORKLOADS: [(&str, f64); 3] = [("P1", 1.9), ("P2", 1.9), ("P6a", 1.8)];

/// Workers from some number on, each with its flows.
fn plant(workload: &Workload, first: usize, n: usize) -> Result<Plant> {
    let all = workers(first + n);
    let config = DataplaneConfig { workers: all[first..].to_vec(), busy: true, ..DataplaneConfig::default() };
    let source = |number| Box::new(Endless::new(workload, number as u32)) as Box<dyn FrameSource>;
    let sources = (first..first + n).map(source).collect();
    let sinks = (0..n).map(|_| Box::new(Counter::default()) as Box<dyn FrameSink>).collect();
    Plant::start(workload, config, sources, sinks)
}

fn sum_pps(observed: &[Observed]) -> f64 {
    observed.iter().map(Observed::pps).sum()
}

/// One round: rates of one worker, of two, and of two that share nothing.
fn round(workload: &Workload, duration: Duration) -> Result<[f64; 3]> {
    let warm = Duration::from_secs_f64(workload.warm_up.min(1.0));
    let measure = |plants: &[Plant]| -> f64 {
        std::thread::sleep(warm);
        std::thread::scope(|scope| {
            let watching: Vec<_> =
                plants.iter().map(|plant| scope.spawn(|| sum_pps(&plant.observe(duration)))).collect();
            watching.into_iter().filter_map(|watching| watching.join().ok()).sum()
        })
    };
    let one = measure(&[plant(workload, 0, 1)?]);
    let two = measure(&[plant(workload, 0, 2)?]);
    let apart = measure(&[plant(workload, 0, 1)?, plant(workload, 1, 1)?]);
    Ok([one, two, apart])
}

/// Measures; answers a line for people and the same for programs, for each workload.
///
/// # Errors
/// When a plant cannot start.
pub fn run(n_rounds: usize, duration: Duration) -> Result<Vec<(String, Value)>> {
    WORKLOADS.into_iter().map(|(id, goal)| scale(id, goal, n_rounds, duration)).collect()
}

fn scale(id: &str, goal: f64, n_rounds: usize, duration: Duration) -> Result<(String, Value)> {
    let workload = find(id).context("the workload is in the list")?;
    let rounds = (0..n_rounds).map(|_| round(workload, duration)).collect::<Result<Vec<_>>>()?;
    let ratios = |of: fn(&[f64; 3]) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
    let together = ratios(|[one, two, _]| two / one);
    let apart = ratios(|[one, _, apart]| apart / one);
    let sharing = ratios(|[_, two, apart]| two / apart);
    let line = format!(
        "P19 {id:<4} {}: two workers {:.2}x one; two that share nothing {:.2}x; sharing costs {:.1} %",
        workload.title,
        median(&together),
        median(&apart),
        (1.0 - median(&sharing)) * 100.0,
    );
    let value = json!({
        "id": "P19",
        "workload": id,
        "title": workload.title,
        "goal": goal,
        "two_to_one": together,
        "two_apart_to_one": apart,
        "two_to_two_apart": sharing,
        "mpps_of_one": ratios(|[one, ..]| one / 1e6),
    });
    Ok((line, value))
}

/// What measuring costs: rates with a round in 256 measured, and with none, in turn.
///
/// # Errors
/// When the plant cannot start.
pub fn measuring(n_rounds: usize, duration: Duration) -> Result<(String, Value)> {
    let workload = find("P1").context("the workload is in the list")?;
    let plant = plant(workload, 0, 1)?;
    std::thread::sleep(Duration::from_millis(500));
    let rate = |every| {
        plant.dataplane.set_measuring(Some(every), false);
        sum_pps(&plant.observe(duration))
    };
    let ratios: Vec<f64> = (0..4 * n_rounds).map(|_| rate(0) / rate(256)).collect();
    let cost = (median(&ratios) - 1.0) * 100.0;
    let line = format!("perf      measuring one round of 256 costs {cost:.2} % of the rate");
    Ok((line, json!({ "id": "perf", "goal_percent": 1.0, "cost_percent": cost, "off_to_on": ratios })))
}
