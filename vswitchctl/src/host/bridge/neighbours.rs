//! What is shown of those at the other ends of a bridge's ports, and of collectors of flows.

use ferroflow_proto::host::{BfdSession, CfmEnd, FlowExport, LldpPort};
use serde::Serialize;

use crate::output::{Tabular, yes};

/// A port with discovery.
#[derive(Debug, Serialize)]
pub(super) struct LldpView {
    port: String,
    n_sent: u64,
    n_received: u64,
    n_aged_out: u64,
    n_refused: u64,
    neighbours: Vec<NeighbourView>,
}

#[derive(Debug, Serialize)]
struct NeighbourView {
    chassis_id: String,
    port_id: String,
    port_description: String,
    system_name: String,
    system_description: String,
    capabilities: u32,
    management: Vec<String>,
    seconds_left: u64,
}

/// A neighbour as a row.
pub(super) struct NeighbourRow<'a> {
    port: &'a str,
    neighbour: &'a NeighbourView,
}

impl From<LldpPort> for LldpView {
    fn from(port: LldpPort) -> Self {
        let LldpPort { port, n_sent, n_received, n_aged_out, n_refused, neighbours } = port;
        let neighbours = neighbours.into_iter().map(|neighbour| NeighbourView {
            chassis_id: neighbour.chassis_id,
            port_id: neighbour.port_id,
            port_description: neighbour.port_description,
            system_name: neighbour.system_name,
            system_description: neighbour.system_description,
            capabilities: neighbour.capabilities,
            management: neighbour.management,
            seconds_left: neighbour.seconds_left,
        });
        Self { port, n_sent, n_received, n_aged_out, n_refused, neighbours: neighbours.collect() }
    }
}

impl LldpView {
    /// A row for each neighbour.
    pub(super) fn rows(&self) -> impl Iterator<Item = NeighbourRow<'_>> {
        self.neighbours.iter().map(|neighbour| NeighbourRow { port: &self.port, neighbour })
    }
}

impl Tabular for NeighbourRow<'_> {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "NEIGHBOUR", "ITS-PORT", "CHASSIS", "MANAGEMENT", "SECONDS-LEFT"];

    fn cells(&self) -> Vec<String> {
        let NeighbourView { chassis_id, port_id, system_name, management, seconds_left, .. } = self.neighbour;
        vec![
            self.port.to_owned(),
            system_name.clone(),
            port_id.clone(),
            chassis_id.clone(),
            management.join(","),
            seconds_left.to_string(),
        ]
    }
}

/// An end of an association that watches over itself.
#[derive(Debug, Serialize)]
pub(super) struct CfmView {
    port: String,
    id: u32,
    level: u32,
    faults: Vec<String>,
    n_sent: u64,
    n_received: u64,
    remotes: Vec<RemoteView>,
}

#[derive(Debug, Serialize)]
struct RemoteView {
    id: u32,
    address: String,
    heard: bool,
    remote_defect: bool,
    n_received: u64,
    n_lost: u64,
}

/// An end as rows: for each other end, or for none.
pub(super) struct RemoteRow<'a> {
    end: &'a CfmView,
    remote: Option<&'a RemoteView>,
}

impl From<CfmEnd> for CfmView {
    fn from(end: CfmEnd) -> Self {
        let CfmEnd { port, id, level, faults, n_sent, n_received, remotes } = end;
        let remotes = remotes.into_iter().map(|remote| RemoteView {
            id: remote.id,
            address: remote.address,
            heard: remote.heard,
            remote_defect: remote.remote_defect,
            n_received: remote.n_received,
            n_lost: remote.n_lost,
        });
        Self { port, id, level, faults, n_sent, n_received, remotes: remotes.collect() }
    }
}

impl CfmView {
    /// A row for each other end; for none, one without.
    pub(super) fn rows(&self) -> impl Iterator<Item = RemoteRow<'_>> {
        let alone = self.remotes.is_empty().then_some(RemoteRow { end: self, remote: None });
        let others = self.remotes.iter().map(|remote| RemoteRow { end: self, remote: Some(remote) });
        others.chain(alone)
    }
}

impl Tabular for RemoteRow<'_> {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "ID", "LEVEL", "FAULTS", "REMOTE", "HEARD", "DEFECT", "RECEIVED", "LOST"];

    fn cells(&self) -> Vec<String> {
        let CfmView { port, id, level, faults, .. } = self.end;
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(",") };
        let mut cells = vec![port.clone(), id.to_string(), level.to_string(), faults];
        cells.extend(match self.remote {
            Some(remote) => [
                remote.id.to_string(),
                yes(remote.heard).to_owned(),
                yes(remote.remote_defect).to_owned(),
                remote.n_received.to_string(),
                remote.n_lost.to_string(),
            ],
            None => Default::default(),
        });
        cells
    }
}

/// A session that says whether somebody is at the other end.
#[derive(Debug, Serialize)]
pub(super) struct BfdView {
    port: String,
    state: String,
    diagnostic: u32,
    remote_state: String,
    remote_diagnostic: u32,
    local_discriminator: u32,
    remote_discriminator: u32,
    interval_ms: u64,
    detection_time_ms: u64,
    n_changes: u64,
}

impl From<BfdSession> for BfdView {
    fn from(session: BfdSession) -> Self {
        Self {
            port: session.port,
            state: session.state,
            diagnostic: session.diagnostic,
            remote_state: session.remote_state,
            remote_diagnostic: session.remote_diagnostic,
            local_discriminator: session.local_discriminator,
            remote_discriminator: session.remote_discriminator,
            interval_ms: session.interval,
            detection_time_ms: session.detection_time,
            n_changes: session.n_changes,
        }
    }
}

impl Tabular for BfdView {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "BFD", "DIAGNOSTIC", "REMOTE", "INTERVAL-MS", "DETECTION-MS", "CHANGES"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.port.clone(),
            self.state.clone(),
            self.diagnostic.to_string(),
            self.remote_state.clone(),
            self.interval_ms.to_string(),
            self.detection_time_ms.to_string(),
            self.n_changes.to_string(),
        ]
    }
}

/// What collectors of flows are told.
#[derive(Debug, Serialize)]
pub(super) struct ExportView {
    kind: String,
    set: u32,
    n_flows: u64,
    n_lost: u64,
    n_uncounted: u64,
}

impl From<FlowExport> for ExportView {
    fn from(export: FlowExport) -> Self {
        let FlowExport { kind, set, n_flows, n_lost, n_uncounted } = export;
        Self { kind, set, n_flows, n_lost, n_uncounted }
    }
}

impl Tabular for ExportView {
    const HEADINGS: &'static [&'static str] = &["COLLECTORS", "SET", "FLOWS", "LOST", "UNCOUNTED"];

    fn cells(&self) -> Vec<String> {
        let set = if self.set == 0 { String::new() } else { self.set.to_string() };
        let counts = [self.n_flows, self.n_lost, self.n_uncounted].map(|n| n.to_string());
        [self.kind.clone(), set].into_iter().chain(counts).collect()
    }
}
