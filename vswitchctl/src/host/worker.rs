//! `worker`: the workers of a host's switch, and which of them has which receive queue.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{
    AssignQueueRequest, Balancing, ListQueuesRequest, Queue, QueueMove, RebalanceRequest, RebalanceResponse,
    SetBalancingRequest, SetQuotaRequest,
};
use serde::Serialize;

use crate::{
    error::CtlError,
    output::{Table, Tabular, write_fields, yes},
    session::{Session, host_answer},
};

/// Workers, and which of them has which receive queue.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the receive queues with their workers
    List,
    /// Give a queue to a worker and tie it there; packets keep their order and none is lost
    Assign(Assign),
    /// Let a queue be moved by load again
    Unassign(Unassign),
    /// Measure for a moment, and spread the queues by what each costs
    Rebalance(Rebalance),
    /// Say when queues are moved without being told to
    Balancing(SetBalancing),
    /// Limit what each port may take of what all ports share; tell what was refused
    Quota(SetQuota),
}

/// A queue and its worker.
#[derive(Debug, Args)]
pub struct Assign {
    /// The queue: `eth1/0`; `eth1`: all of that port
    queue: String,
    /// Its worker, from 0
    worker: u32,
}

/// A queue.
#[derive(Debug, Args)]
pub struct Unassign {
    /// The queue: `eth1/0`; `eth1`: all of that port
    queue: String,
}

/// How to spread the queues.
#[derive(Debug, Args)]
pub struct Rebalance {
    /// Tell what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to measure before
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=8000))]
    window: u32,
}

/// When queues are moved; what is not given stays as it is.
#[derive(Debug, Args)]
pub struct SetBalancing {
    /// Move queues by load: yes or no
    #[arg(long, value_name = "yes|no", value_parser = yes_or_no)]
    auto: Option<bool>,
    /// Load of a worker from which on, in percent of its core
    #[arg(long, value_name = "PERCENT")]
    load: Option<u32>,
    /// How long it must have been loaded so, and how long nothing is moved after that
    #[arg(long, value_name = "SECONDS")]
    interval: Option<u32>,
    /// Part of the variance of the workers' loads that must go away
    #[arg(long, value_name = "PERCENT")]
    improvement: Option<u32>,
}

/// What each port may take, on each worker; what is not given stays as it is, 0 is no limit.
#[derive(Debug, Args)]
pub struct SetQuota {
    /// First packets of flows in a second; more are dropped as `miss-quota`
    #[arg(long, value_name = "N")]
    misses: Option<u32>,
    /// Megaflows; one more takes the place of another of the same port
    #[arg(long, value_name = "N")]
    megaflows: Option<u32>,
    /// New sessions in a second while sessions are nearly full
    #[arg(long, value_name = "N")]
    sessions: Option<u32>,
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("it is yes or no".to_owned()),
    }
}

/// Port and queue of `eth1/0`.
fn place(text: &str) -> Result<(String, Option<u32>), CtlError> {
    match text.rsplit_once('/') {
        None => Ok((text.to_owned(), None)),
        Some((port, queue)) => match queue.parse() {
            Ok(queue) => Ok((port.to_owned(), Some(queue))),
            Err(_) => Err(CtlError::Usage(format!("`{text}`: write PORT or PORT/QUEUE, queues are numbers"))),
        },
    }
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List => list(session).await,
            Self::Assign(Assign { queue, worker }) => assign(session, &queue, Some(worker)).await,
            Self::Unassign(Unassign { queue }) => assign(session, &queue, None).await,
            Self::Rebalance(rebalance) => rebalance.run(session).await,
            Self::Balancing(balancing) => balancing.run(session).await,
            Self::Quota(quota) => quota.run(session).await,
        }
    }
}

/// What is shown of a queue.
#[derive(Debug, Serialize)]
struct QueueView {
    port: String,
    queue: u32,
    worker: u32,
    pinned: bool,
    n_packets: u64,
    cycles_per_packet: Option<f64>,
}

/// All that is shown.
#[derive(Debug, Serialize)]
struct ListView {
    n_workers: u32,
    queues: Vec<QueueView>,
    balancing: BalancingView,
}

/// When queues are moved.
#[derive(Debug, Default, Serialize)]
struct BalancingView {
    auto: bool,
    load_percent: u32,
    interval_ms: u64,
    improvement_percent: u32,
}

impl From<Queue> for QueueView {
    fn from(queue: Queue) -> Self {
        Self {
            port: queue.port,
            queue: queue.queue,
            worker: queue.worker,
            pinned: queue.pinned,
            n_packets: queue.n_packets,
            cycles_per_packet: queue.cycles_per_packet,
        }
    }
}

impl From<Balancing> for BalancingView {
    fn from(balancing: Balancing) -> Self {
        Self {
            auto: balancing.auto,
            load_percent: balancing.load_percent,
            interval_ms: balancing.interval_ms,
            improvement_percent: balancing.improvement_percent,
        }
    }
}

impl Tabular for QueueView {
    const HEADINGS: &'static [&'static str] =
        &["WORKER", "PORT", "QUEUE", "TIED", "PACKETS", "CYCLES/PACKET"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.worker.to_string(),
            self.port.clone(),
            self.queue.to_string(),
            yes(self.pinned),
            self.n_packets.to_string(),
            self.cycles_per_packet.map_or(String::new(), |cycles| format!("{cycles:.0}")),
        ]
    }
}

impl BalancingView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "queues are {}moved by load: when a worker is {} % loaded for {} s and {} % of the variance would go",
            if self.auto { "" } else { "NOT " },
            self.load_percent,
            self.interval_ms / 1000,
            self.improvement_percent
        )
    }
}

async fn list(session: &mut Session<'_>) -> Result<(), CtlError> {
    let mut workers = session.workers().await?;
    let answer = host_answer(workers.list_queues(session.request(ListQueuesRequest {})).await)?;
    let mut queues: Vec<QueueView> = answer.queues.into_iter().map(QueueView::from).collect();
    queues.sort_by_key(|queue| queue.worker);
    let balancing = answer.balancing.map(BalancingView::from).unwrap_or_default();
    let view = ListView { n_workers: answer.n_workers, queues, balancing };
    session.print(&view, |out| {
        Table::of(&view.queues).write(out)?;
        writeln!(out)?;
        view.balancing.write(out)
    })
}

async fn assign(session: &mut Session<'_>, queue: &str, worker: Option<u32>) -> Result<(), CtlError> {
    let (port, queue) = place(queue)?;
    let mut workers = session.workers().await?;
    let request = AssignQueueRequest { port, queue, worker };
    host_answer(workers.assign_queue(session.request(request)).await).map(|_| ())
}

/// What is shown of a rebalancing.
#[derive(Debug, Serialize)]
struct RebalanceView {
    dry_run: bool,
    moves: Vec<MoveView>,
    before_percent: Vec<f64>,
    after_percent: Vec<f64>,
    improvement_percent: u32,
}

/// One move.
#[derive(Debug, Serialize)]
struct MoveView {
    port: String,
    queue: u32,
    from: u32,
    to: u32,
}

impl From<QueueMove> for MoveView {
    fn from(step: QueueMove) -> Self {
        Self { port: step.port, queue: step.queue, from: step.from, to: step.to }
    }
}

impl RebalanceView {
    fn new(dry_run: bool, answer: RebalanceResponse) -> Self {
        let percent = |parts: Vec<f64>| parts.into_iter().map(|part| part * 100.0).collect();
        Self {
            dry_run,
            moves: answer.moves.into_iter().map(MoveView::from).collect(),
            before_percent: percent(answer.before),
            after_percent: percent(answer.after),
            improvement_percent: answer.improvement_percent,
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let verb = if self.dry_run { "would go" } else { "went" };
        for MoveView { port, queue, from, to } in &self.moves {
            writeln!(out, "{port}/{queue} {verb} from worker {from} to worker {to}")?;
        }
        if self.moves.is_empty() {
            writeln!(out, "nothing to move")?;
        }
        let loads =
            |loads: &[f64]| loads.iter().map(|load| format!("{load:.0}%")).collect::<Vec<_>>().join(", ");
        writeln!(out, "load now: {}", loads(&self.before_percent))?;
        if !self.moves.is_empty() {
            let (after, part) = (loads(&self.after_percent), self.improvement_percent);
            writeln!(out, "then:     {after} (variance less by {part} %)")?;
        }
        Ok(())
    }
}

impl Rebalance {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut workers = session.workers().await?;
        let request = RebalanceRequest { dry_run: self.dry_run, window_ms: self.window };
        let answer = host_answer(workers.rebalance(session.request(request)).await)?;
        let view = RebalanceView::new(self.dry_run, answer);
        session.print(&view, |out| view.write(out))
    }
}

impl SetBalancing {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut workers = session.workers().await?;
        let request = SetBalancingRequest {
            auto: self.auto,
            load_percent: self.load,
            interval_ms: self.interval.map(|seconds| u64::from(seconds) * 1000),
            improvement_percent: self.improvement,
        };
        let answer = host_answer(workers.set_balancing(session.request(request)).await)?;
        let view = answer.balancing.map(BalancingView::from).unwrap_or_default();
        session.print(&view, |out| view.write(out))
    }
}

/// What is shown of quotas.
#[derive(Debug, Serialize)]
struct QuotaView {
    misses_per_second: u32,
    max_megaflows: u32,
    sessions_per_second: u32,
    n_misses_refused: u64,
    n_sessions_refused: u64,
}

impl QuotaView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let limit = |limit: u32, unit: &str| match limit {
            0 => "no limit".to_owned(),
            limit => format!("{limit}{unit}"),
        };
        write_fields(
            out,
            &[
                ("first packets", limit(self.misses_per_second, " a second of each port")),
                ("megaflows", limit(self.max_megaflows, " of each port")),
                ("new sessions", limit(self.sessions_per_second, " a second of each port")),
                (
                    "refused",
                    format!("{} first packets, {} sessions", self.n_misses_refused, self.n_sessions_refused),
                ),
            ],
        )
    }
}

impl SetQuota {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut workers = session.workers().await?;
        let request = SetQuotaRequest {
            misses_per_second: self.misses,
            max_megaflows: self.megaflows,
            sessions_per_second: self.sessions,
        };
        let answer = host_answer(workers.set_quota(session.request(request)).await)?;
        let view = QuotaView {
            misses_per_second: answer.misses_per_second,
            max_megaflows: answer.max_megaflows,
            sessions_per_second: answer.sessions_per_second,
            n_misses_refused: answer.n_misses_refused,
            n_sessions_refused: answer.n_sessions_refused,
        };
        session.print(&view, |out| view.write(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_port_and_perhaps_a_number() {
        assert_eq!(place("eth1").unwrap(), ("eth1".to_owned(), None));
        assert_eq!(place("eth1/3").unwrap(), ("eth1".to_owned(), Some(3)));
        assert!(place("eth1/x").is_err() && place("eth1/").is_err());
    }

    #[test]
    fn a_rebalancing_is_told_in_words() {
        let told = |dry_run, answer| {
            let mut text = Vec::new();
            RebalanceView::new(dry_run, answer).write(&mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        let step = QueueMove { port: "eth1".into(), queue: 2, from: 0, to: 1 };
        let answer = RebalanceResponse {
            moves: vec![step],
            before: vec![0.99, 0.1],
            after: vec![0.6, 0.49],
            improvement_percent: 98,
        };
        assert_eq!(
            told(true, answer),
            "eth1/2 would go from worker 0 to worker 1\nload now: 99%, 10%\nthen:     60%, 49% (variance less by 98 %)\n"
        );
        let nothing = RebalanceResponse { before: vec![0.5], after: vec![0.5], ..Default::default() };
        assert_eq!(told(false, nothing), "nothing to move\nload now: 50%\n");
    }
}
