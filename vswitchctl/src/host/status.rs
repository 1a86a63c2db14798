//! `status`: who this switch is and how it fares.

use std::io::{self, Write};

use clap::Args;
use ferroflow_proto::host::{Gateway, GatewayCandidate, GetStatusRequest, GetStatusResponse, Worker};
use serde::Serialize;

use crate::{
    error::CtlError,
    net::progress,
    output::{Table, Tabular, printable, write_fields},
    session::{Session, host_answer},
};

/// Who this switch is and how it fares.
#[derive(Debug, Args)]
pub struct Status {
    /// How far each host of the network is, by the controller: what is not applied there yet, and why
    #[arg(long)]
    network: bool,
}

/// What is shown of a switch.
#[derive(Debug, Serialize)]
struct StatusView {
    version: String,
    chassis: String,
    encap_ip: String,
    encap_types: Vec<String>,
    controller: String,
    controller_connected: bool,
    applied_revision: u64,
    epoch: u64,
    n_rules: u64,
    workers: Vec<WorkerView>,
    gateways: Vec<GatewayView>,
    errors: Vec<String>,
    n_repairs: u64,
}

/// What is shown of something that one of several hosts has.
#[derive(Debug, Serialize)]
struct GatewayView {
    port: String,
    active: String,
    candidates: Vec<CandidateView>,
}

/// What is shown of a host that may be a gateway.
#[derive(Debug, Serialize)]
struct CandidateView {
    chassis: String,
    priority: u32,
    state: String,
}

impl From<Gateway> for GatewayView {
    fn from(gateway: Gateway) -> Self {
        let candidate =
            |GatewayCandidate { chassis, priority, state }| CandidateView { chassis, priority, state };
        let candidates = gateway.candidates.into_iter().map(candidate).collect();
        Self { port: gateway.port, active: gateway.active, candidates }
    }
}

impl Tabular for GatewayView {
    const HEADINGS: &'static [&'static str] = &["GATEWAY", "ACTIVE", "CANDIDATES"];

    fn cells(&self) -> Vec<String> {
        let one = |CandidateView { chassis, priority, state }: &CandidateView| {
            format!("{chassis}={priority} {state}")
        };
        let candidates: Vec<_> = self.candidates.iter().map(one).collect();
        vec![self.port.clone(), self.active.clone(), candidates.join(", ")]
    }
}

/// What is shown of a worker.
#[derive(Debug, Serialize)]
struct WorkerView {
    id: u32,
    core: Option<u32>,
    n_polls: u64,
    n_idle_polls: u64,
    n_sleeps: u64,
    n_packets: u64,
    n_session_hits: u64,
    n_megaflow_hits: u64,
    n_misses: u64,
    n_sessions: u64,
    n_megaflows: u64,
}

impl Status {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        if self.network {
            return progress::run(session).await;
        }
        let mut host = session.host().await?;
        let status = host_answer(host.get_status(session.request(GetStatusRequest {})).await)?;
        let view = StatusView::from(status);
        session.print(&view, |out| view.write(out))
    }
}

impl From<GetStatusResponse> for StatusView {
    fn from(status: GetStatusResponse) -> Self {
        Self {
            version: status.version,
            chassis: status.chassis,
            encap_ip: status.encap_ip,
            encap_types: status.encap_types,
            controller: status.controller,
            controller_connected: status.controller_connected,
            applied_revision: status.applied_revision,
            epoch: status.epoch,
            n_rules: status.n_rules,
            workers: status.workers.into_iter().map(WorkerView::from).collect(),
            gateways: status.gateways.into_iter().map(GatewayView::from).collect(),
            errors: status.errors,
            n_repairs: status.n_repairs,
        }
    }
}

impl From<Worker> for WorkerView {
    fn from(worker: Worker) -> Self {
        Self {
            id: worker.id,
            core: worker.core,
            n_polls: worker.n_polls,
            n_idle_polls: worker.n_idle_polls,
            n_sleeps: worker.n_sleeps,
            n_packets: worker.n_packets,
            n_session_hits: worker.n_session_hits,
            n_megaflow_hits: worker.n_megaflow_hits,
            n_misses: worker.n_misses,
            n_sessions: worker.n_sessions,
            n_megaflows: worker.n_megaflows,
        }
    }
}

impl Tabular for WorkerView {
    const HEADINGS: &'static [&'static str] = &[
        "WORKER",
        "CORE",
        "PACKETS",
        "SESSION-HITS",
        "MEGAFLOW-HITS",
        "MISSES",
        "SESSIONS",
        "MEGAFLOWS",
        "IDLE",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.core.map(|core| core.to_string()).unwrap_or_default(),
            self.n_packets.to_string(),
            self.n_session_hits.to_string(),
            self.n_megaflow_hits.to_string(),
            self.n_misses.to_string(),
            self.n_sessions.to_string(),
            self.n_megaflows.to_string(),
            percent(self.n_idle_polls, self.n_polls),
        ]
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    format!("{}%", u128::from(part) * 100 / u128::from(whole))
}

impl StatusView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write_fields(
            out,
            &[
                ("version", self.version.clone()),
                ("chassis", self.chassis.clone()),
                ("tunnel address", self.encap_ip.clone()),
                ("encapsulations", self.encap_types.join(", ")),
                ("controller", self.controller_text()),
                ("applied", format!("revision {}", self.applied_revision)),
                ("tables", format!("{} rules, epoch {}", self.n_rules, self.epoch)),
            ],
        )?;
        if !self.workers.is_empty() {
            writeln!(out)?;
            Table::of(&self.workers).write(out)?;
        }
        if self.n_repairs > 0 {
            writeln!(out, "\nrepaired {} times: the log says what had drifted", self.n_repairs)?;
        }
        if !self.gateways.is_empty() {
            writeln!(out)?;
            Table::of(&self.gateways).write(out)?;
        }
        if !self.errors.is_empty() {
            writeln!(out, "\nnot realised:")?;
        }
        for error in &self.errors {
            writeln!(out, "  {}", printable(error))?;
        }
        Ok(())
    }

    fn controller_text(&self) -> String {
        match (self.controller.is_empty(), self.controller_connected) {
            (true, _) => "none".into(),
            (false, true) => format!("{}, connected", self.controller),
            (false, false) => format!("{}, NOT connected", self.controller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_do_not_overflow() {
        assert_eq!(percent(0, 0), "");
        assert_eq!(percent(1, 3), "33%");
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
    }
}
