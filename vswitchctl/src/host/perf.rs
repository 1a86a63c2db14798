//! `perf`: where the workers' time goes, live or since they started.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use ferroflow_proto::host::{GetPerfRequest, SetPerfRequest, WorkerPerf};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::write_fields,
    session::{Session, host_answer},
};

/// Where the workers' time goes: cycles by stage, sizes of batches, what answered packets.
///
/// Cycles are those of the time stamp counter. Stages are measured in one round of 256, which
/// costs less than a hundredth of the rate; `--every` changes that.
#[derive(Debug, Args)]
pub struct Perf {
    /// Seconds to look at
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    interval: f64,
    /// Look again and again, so often; 0: without end
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "0")]
    watch: Option<u32>,
    /// Tell what was since the start, or since it was last forgotten, instead of what is
    #[arg(long, conflicts_with_all = ["watch", "interval"])]
    total: bool,
    /// From now on, measure one busy round in N by stage; 0: none
    #[arg(long, value_name = "N")]
    every: Option<u32>,
    /// Forget what was measured so far
    #[arg(long)]
    forget: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "seconds are 0.01 to 3600".to_owned())
}

/// What is shown of a worker.
#[derive(Debug, Serialize)]
struct PerfView {
    worker: u32,
    core: Option<u32>,
    seconds: f64,
    packets_per_second: f64,
    /// Of its time, in percent: with packets, looking for some, asleep, in commands.
    busy_percent: f64,
    idle_percent: f64,
    asleep_percent: f64,
    jobs_percent: f64,
    /// The longest command since the start.
    longest_job_us: f64,
    cycles_per_packet: Option<f64>,
    stages: Vec<StageView>,
    n_sampled_packets: u64,
    batches: Vec<u64>,
    n_batches: u64,
    packets_per_batch: Option<f64>,
    n_packets: u64,
    /// What answered packets, in percent of them.
    session_percent: f64,
    megaflow_percent: f64,
    miss_percent: f64,
    renewed_percent: f64,
    second_pass_percent: f64,
    n_sleeps: u64,
    hz: u64,
    every: u32,
}

/// One stage.
#[derive(Debug, Serialize)]
struct StageView {
    stage: String,
    cycles_per_packet: f64,
    percent: f64,
}

impl Perf {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        if self.every.is_some() || self.forget {
            let mut workers = session.workers().await?;
            let request = SetPerfRequest { every: self.every, forget: self.forget };
            host_answer(workers.set_perf(session.request(request)).await)?;
            return Ok(());
        }
        let mut before = if self.total { Vec::new() } else { get(session).await? };
        let mut left = self.watch.map_or(1, |n| if n == 0 { u32::MAX } else { n });
        while left > 0 {
            if !self.total {
                tokio::time::sleep(Duration::from_secs_f64(self.interval)).await;
            }
            let now = get(session).await?;
            let views: Vec<PerfView> =
                now.iter().map(|now| PerfView::of(before.iter().find(|old| old.id == now.id), now)).collect();
            let write = |out: &mut dyn Write| views.iter().try_for_each(|view| view.write(out));
            match self.watch {
                Some(_) => session.print_line(&views, write)?,
                None => session.print(&views, write)?,
            }
            before = now;
            left = if left == u32::MAX { left } else { left - 1 };
        }
        Ok(())
    }
}

async fn get(session: &Session<'_>) -> Result<Vec<WorkerPerf>, CtlError> {
    let mut workers = session.workers().await?;
    Ok(host_answer(workers.get_perf(session.request(GetPerfRequest {})).await)?.workers)
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

impl PerfView {
    /// What was between two answers. A count that went down was forgotten meanwhile.
    fn of(before: Option<&WorkerPerf>, now: &WorkerPerf) -> Self {
        let none = WorkerPerf::default();
        let before = before.unwrap_or(&none);
        let since = |count: fn(&WorkerPerf) -> u64| {
            let (old, new) = (count(before), count(now));
            if new >= old { new - old } else { new }
        };
        let parts = [since(|w| w.busy), since(|w| w.idle), since(|w| w.asleep), since(|w| w.jobs)];
        let time: u64 = parts.iter().sum();
        let seconds = time as f64 / now.hz.max(1) as f64;
        let n_packets = since(|w| w.n_packets);
        let n_sampled_packets = since(|w| w.n_sampled_packets);
        let batches: Vec<u64> = (now.batches.iter().enumerate())
            .map(|(size, n)| n.saturating_sub(before.batches.get(size).copied().unwrap_or(0)))
            .collect();
        let n_batches = batches.iter().sum();
        let n_batched: u64 = (0..).zip(&batches).map(|(size, n)| size * n).sum();
        Self {
            worker: now.id,
            core: now.core,
            seconds,
            packets_per_second: n_batched as f64 / seconds.max(1e-9),
            busy_percent: percent(parts[0], time),
            idle_percent: percent(parts[1], time),
            asleep_percent: percent(parts[2], time),
            jobs_percent: percent(parts[3], time),
            longest_job_us: now.longest_job as f64 * 1e6 / now.hz.max(1) as f64,
            cycles_per_packet: ratio(parts[0] as f64, n_batched),
            stages: stages(before, now, n_sampled_packets),
            n_sampled_packets,
            batches,
            n_batches,
            packets_per_batch: ratio(n_batched as f64, n_batches),
            n_packets,
            session_percent: percent(since(|w| w.n_session_hits), n_packets),
            megaflow_percent: percent(since(|w| w.n_megaflow_hits), n_packets),
            miss_percent: percent(since(|w| w.n_misses), n_packets),
            renewed_percent: percent(since(|w| w.n_renewals), n_packets),
            second_pass_percent: percent(since(|w| w.n_recirculations), n_packets),
            n_sleeps: since(|w| w.n_sleeps),
            hz: now.hz,
            every: now.every,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let core = self.core.map_or(String::new(), |core| format!(", core {core}"));
        writeln!(out, "worker {}{core}, {:.2} s", self.worker, self.seconds)?;
        let cycles = |cycles: Option<f64>| cycles.map_or("-".to_owned(), |cycles| format!("{cycles:.0}"));
        let fields = [
            ("  packets/s", format!("{:.0}", self.packets_per_second)),
            ("  cycles/packet", cycles(self.cycles_per_packet)),
            (
                "  time",
                format!(
                    "{:.1}% busy, {:.1}% looking, {:.1}% asleep, {:.1}% commands (longest {:.0} us)",
                    self.busy_percent,
                    self.idle_percent,
                    self.asleep_percent,
                    self.jobs_percent,
                    self.longest_job_us
                ),
            ),
            (
                "  answered by",
                format!(
                    "{:.1}% session, {:.1}% megaflow, {:.1}% tables, {:.1}% again; {:.1}% second pass",
                    self.session_percent,
                    self.megaflow_percent,
                    self.miss_percent,
                    self.renewed_percent,
                    self.second_pass_percent
                ),
            ),
            ("  batches", self.batch_text()),
        ];
        write_fields(out, &fields)?;
        if self.stages.is_empty() {
            let why = if self.every == 0 { "; measuring is off, see --every" } else { "" };
            return writeln!(out, "  no round with packets was measured{why}");
        }
        writeln!(out, "  cycles/packet by stage, of {} packets:", self.n_sampled_packets)?;
        for StageView { stage, cycles_per_packet, percent } in &self.stages {
            writeln!(out, "    {stage:<10} {cycles_per_packet:>8.1} {percent:>5.1}%")?;
        }
        Ok(())
    }

    /// Sizes in steps of powers of two, with their part of all batches.
    fn batch_text(&self) -> String {
        let Some(mean) = self.packets_per_batch else { return "none".to_owned() };
        let steps = [(1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, usize::MAX)];
        let part = |(from, to): (usize, usize)| {
            let n: u64 = self.batches.iter().take(to.saturating_add(1)).skip(from).sum();
            let size = if from == to {
                from.to_string()
            } else if to == usize::MAX {
                format!("{from}")
            } else {
                format!("{from}-{to}")
            };
            (n > 0).then(|| format!("{size}: {:.0}%", percent(n, self.n_batches)))
        };
        let parts: Vec<String> = steps.into_iter().filter_map(part).collect();
        format!("{} of {mean:.1} packets ({})", self.n_batches, parts.join(", "))
    }
}

fn stages(before: &WorkerPerf, now: &WorkerPerf, n_packets: u64) -> Vec<StageView> {
    if n_packets == 0 {
        return Vec::new();
    }
    let cycles = |stage: &str, cycles: u64| {
        let old = before.stages.iter().find(|old| old.stage == stage).map_or(0, |old| old.cycles);
        if cycles >= old { cycles - old } else { cycles }
    };
    let stages: Vec<(&str, u64)> =
        now.stages.iter().map(|stage| (stage.stage.as_str(), cycles(&stage.stage, stage.cycles))).collect();
    let sum = stages.iter().map(|(_, cycles)| cycles).sum();
    let view = |(stage, cycles): (&str, u64)| StageView {
        stage: stage.to_owned(),
        cycles_per_packet: cycles as f64 / n_packets as f64,
        percent: percent(cycles, sum),
    };
    stages.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::host::StageCycles;

    use super::*;

    fn answer(n: u64) -> WorkerPerf {
        let stage = |stage: &str, cycles| StageCycles { stage: stage.into(), cycles };
        WorkerPerf {
            hz: 1_000,
            busy: 600 * n,
            idle: 300 * n,
            asleep: 100 * n,
            stages: vec![stage("parse", 30 * n), stage("execute", 10 * n)],
            n_sampled_packets: 4 * n,
            batches: [vec![0, 4 * n, 0, 2 * n], vec![0; 29]].concat(),
            n_packets: 10 * n,
            n_session_hits: 9 * n,
            n_misses: n,
            every: 128,
            ..Default::default()
        }
    }

    #[test]
    fn what_is_shown_is_the_difference() {
        let view = PerfView::of(Some(&answer(3)), &answer(4));
        assert!((view.seconds - 1.0).abs() < 1e-9 && (view.packets_per_second - 10.0).abs() < 1e-9);
        assert_eq!((view.busy_percent, view.session_percent, view.miss_percent), (60.0, 90.0, 10.0));
        assert_eq!(view.cycles_per_packet, Some(60.0));
        assert_eq!((view.stages[0].cycles_per_packet, view.stages[0].percent), (7.5, 75.0));
        assert_eq!(view.batch_text(), "6 of 1.7 packets (1: 67%, 2-3: 33%)");
        // Forgotten between two answers.
        let view = PerfView::of(Some(&answer(3)), &answer(1));
        assert!((view.seconds - 1.0).abs() < 1e-9);
        let idle = PerfView::of(None, &WorkerPerf::default());
        assert_eq!(
            (idle.cycles_per_packet, idle.stages.len(), idle.batch_text().as_str()),
            (None, 0, "none")
        );
    }

    #[test]
    fn intervals_are_sensible() {
        assert_eq!(seconds("0.5"), Ok(0.5));
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("NaN").is_err());
    }
}
