//! `coverage`: how often what happens to packets besides being forwarded, and what is in
//! memory.

use clap::Args;
use ferroflow_proto::host::{GetStatusRequest, Worker};
use serde::Serialize;

use super::bridge;
use crate::{
    error::CtlError,
    output::{Table, Tabular},
    session::{Session, host_answer},
};

/// How often what happened, and how much there is of what takes memory.
#[derive(Debug, Args)]
pub struct Coverage {}

impl Coverage {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let status = host_answer(host.get_status(session.request(GetStatusRequest {})).await)?;
        let sum = |of: fn(&Worker) -> u64| status.workers.iter().map(of).sum::<u64>();
        let bridges = bridge::list(session).await?;
        let counts = [
            ("packets", sum(|worker| worker.n_packets), "received"),
            ("session-hits", sum(|worker| worker.n_session_hits), "found an exact entry of the cache"),
            ("megaflow-hits", sum(|worker| worker.n_megaflow_hits), "found a masked entry of the cache"),
            ("misses", sum(|worker| worker.n_misses), "found none and were translated by their worker"),
            ("renewals", sum(|worker| worker.n_renewals), "found an entry of older rules, translated anew"),
            ("evictions", sum(|worker| worker.n_evictions), "entries that made room for others"),
            (
                "recirculations",
                sum(|worker| worker.n_recirculations),
                "came back from the connection tracker",
            ),
            ("injected", sum(|worker| worker.n_injected), "came from controllers"),
            ("forwarded", sum(|worker| worker.n_forwarded), "left by a port"),
            ("dropped", sum(|worker| worker.n_dropped), "did not: see `drops`"),
            (
                "failed-copies",
                sum(|worker| worker.n_failed_copies),
                "copies lost of packets that had several",
            ),
            ("buffer-waits", sum(|worker| worker.n_exhausted), "times that no packet buffer was free"),
            ("sleeps", sum(|worker| worker.n_sleeps), "times that a worker slept"),
            ("sessions", sum(|worker| worker.n_sessions), "in the caches now"),
            ("megaflows", sum(|worker| worker.n_megaflows), "in the caches now"),
            ("buffers", sum(|worker| worker.n_frames), "packet buffers"),
            ("free-buffers", sum(|worker| worker.n_free_frames), "packet buffers that are free now"),
            ("rules", status.n_rules, "in the tables of all bridges"),
            ("stations", bridges.iter().map(|bridge| bridge.n_stations).sum(), "known to all bridges"),
        ];
        let counts = counts.map(|(name, n, meaning)| CountView { name, n, meaning });
        session.print(&counts, |out| Table::of(&counts).write(out))
    }
}

/// What is shown of a counter.
#[derive(Debug, Serialize)]
struct CountView {
    name: &'static str,
    n: u64,
    meaning: &'static str,
}

impl Tabular for CountView {
    const HEADINGS: &'static [&'static str] = &["COUNT", "N", "MEANING"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_owned(), self.n.to_string(), self.meaning.to_owned()]
    }
}
