//! `drops`: dropped packets, each with its reason and the object that caused it.

use clap::Args;
use ferroflow_proto::host::{Drop, ListDropsRequest};
use serde::Serialize;

use super::origin::OriginView;
use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// Dropped packets.
#[derive(Debug, Args)]
pub struct Drops {
    /// Only packets that came in by this port
    #[arg(long)]
    port: Option<String>,
    /// Only this reason, rule-drop for one
    #[arg(long)]
    reason: Option<String>,
}

impl Drops {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let answer = host_answer(
            host.list_drops(session.request(ListDropsRequest { bridge: session.bridge() })).await,
        )?;
        let asked = |drop: &DropView| {
            self.port.as_ref().is_none_or(|port| *port == drop.port)
                && self.reason.as_ref().is_none_or(|reason| *reason == drop.reason)
        };
        let mut drops: Vec<DropView> = answer.drops.into_iter().map(DropView::from).filter(asked).collect();
        // What happens most is what is asked about.
        let lost = |drop: &DropView| drop.n_packets + drop.n_copies;
        drops.sort_by(|a, b| lost(b).cmp(&lost(a)).then_with(|| a.cells().cmp(&b.cells())));
        session.print_rows(&drops)
    }
}

/// What is shown of drops with the same cause.
#[derive(Debug, Clone, Serialize)]
pub struct DropView {
    /// The host that dropped them; empty: the one that was asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    chassis: String,
    bridge: String,
    port: String,
    /// Name of the reason.
    pub(super) reason: String,
    /// The reason in one sentence.
    pub(super) description: String,
    /// The rule that dropped.
    pub(super) origin: Option<OriginView>,
    n_packets: u64,
    n_bytes: u64,
    /// Copies lost of packets that had left by another port, or on their way out.
    n_copies: u64,
}

impl From<Drop> for DropView {
    fn from(drop: Drop) -> Self {
        Self {
            chassis: drop.chassis,
            bridge: drop.bridge,
            port: drop.port,
            reason: drop.reason,
            description: drop.description,
            origin: drop.origin.map(OriginView::from),
            n_packets: drop.n_packets,
            n_bytes: drop.n_bytes,
            n_copies: drop.n_copies,
        }
    }
}

impl DropView {
    /// It has the same cause.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let place = |drop: &Self| (drop.chassis.clone(), drop.bridge.clone(), drop.port.clone());
        let same_place = place(self) == place(other);
        same_place && (&self.reason, &self.origin) == (&other.reason, &other.origin)
    }

    /// Adds what is counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.n_packets += other.n_packets;
        self.n_bytes += other.n_bytes;
        self.n_copies += other.n_copies;
    }

    /// How many, and why.
    pub(super) fn sentence(&self) -> String {
        let Self { n_packets, n_copies, reason, description, .. } = self;
        let many = match n_copies {
            0 => n_packets.to_string(),
            copies if *n_packets == 0 => format!("{copies} copies"),
            copies => format!("{n_packets} and {copies} copies"),
        };
        let origin = self.origin.as_ref().map(OriginView::text).filter(|text| !text.is_empty());
        let by = origin.map(|text| format!(" By {text}")).unwrap_or_default();
        let at = if self.chassis.is_empty() { String::new() } else { format!("at {}: ", self.chassis) };
        format!("{at}{many} {reason}: {description}{by}")
    }
}

impl Tabular for DropView {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "PACKETS", "BYTES", "COPIES", "REASON", "OBJECT", "STAGE", "MEANING"];

    fn cells(&self) -> Vec<String> {
        let origin = self.origin.as_ref();
        vec![
            self.port.clone(),
            self.n_packets.to_string(),
            self.n_bytes.to_string(),
            self.n_copies.to_string(),
            self.reason.clone(),
            origin.map(|origin| origin.object.clone()).unwrap_or_default(),
            origin.map(|origin| origin.stage.clone()).unwrap_or_default(),
            self.description.clone(),
        ]
    }
}
