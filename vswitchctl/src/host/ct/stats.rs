//! `ct stats`: how full the tracker is, and what it has done.

use ferroflow_proto::host::{ConntrackZone, GetConntrackRequest, GetConntrackResponse};
use serde::Serialize;

use super::write_pairs;
use crate::{
    error::CtlError,
    session::{Session, host_answer},
};

pub(super) async fn get(session: &Session<'_>) -> Result<GetConntrackResponse, CtlError> {
    let mut conntrack = session.conntrack().await?;
    host_answer(conntrack.get_conntrack(session.request(GetConntrackRequest {})).await)
}

pub(super) async fn show(session: &mut Session<'_>) -> Result<(), CtlError> {
    let view = StatsView::from(get(session).await?);
    session.print(&view, |out| {
        let pairs = [
            ("connections", format!("{} of {}", view.n_connections, view.n_slots)),
            ("created", view.n_created.to_string()),
            ("expired", view.n_expired.to_string()),
            ("evicted", view.n_evicted.to_string()),
            ("removed", view.n_removed.to_string()),
            ("invalid-packets", view.n_invalid.to_string()),
            ("refused-full", view.n_full.to_string()),
            ("refused-limit", view.n_limited.to_string()),
            ("refused-nat", view.n_nat_exhausted.to_string()),
        ];
        write_pairs(out, &pairs)?;
        view.zones
            .iter()
            .filter(|zone| zone.n_connections > 0)
            .try_for_each(|zone| writeln!(out, "zone {}: {} connections", zone.zone, zone.n_connections))
    })
}

/// What is shown of the tracker.
#[derive(Debug, Serialize)]
struct StatsView {
    n_connections: u64,
    n_slots: u64,
    n_created: u64,
    n_expired: u64,
    n_evicted: u64,
    n_removed: u64,
    /// Packets that fit no connection.
    n_invalid: u64,
    /// Connections refused: no room.
    n_full: u64,
    n_limited: u64,
    n_nat_exhausted: u64,
    zones: Vec<ZoneView>,
}

/// What is shown of a zone.
#[derive(Debug, Serialize)]
pub(super) struct ZoneView {
    pub(super) zone: u32,
    pub(super) n_connections: u64,
    pub(super) limit: Option<u32>,
    pub(super) policy: u32,
}

impl From<ConntrackZone> for ZoneView {
    fn from(zone: ConntrackZone) -> Self {
        let ConntrackZone { zone, n_connections, limit, policy } = zone;
        Self { zone, n_connections, limit, policy }
    }
}

impl From<GetConntrackResponse> for StatsView {
    fn from(answer: GetConntrackResponse) -> Self {
        Self {
            n_connections: answer.n_connections,
            n_slots: answer.n_slots,
            n_created: answer.n_created,
            n_expired: answer.n_expired,
            n_evicted: answer.n_evicted,
            n_removed: answer.n_removed,
            n_invalid: answer.n_invalid,
            n_full: answer.n_full,
            n_limited: answer.n_limited,
            n_nat_exhausted: answer.n_nat_exhausted,
            zones: answer.zones.into_iter().map(ZoneView::from).collect(),
        }
    }
}
