//! How far each host is: what it has applied, and what of the network it has not.

use std::time::{SystemTime, UNIX_EPOCH};

use ferroflow_proto::northbound as pb;
use tonic::Status;

use crate::{
    controller::Controller,
    resource::{Kind, Name},
    state::State,
    store::Revision,
};

/// Revisions of a host that are told.
const MAX_PENDING: usize = 100;
/// Resources of a revision that are told.
const MAX_RESOURCES: usize = 10;

/// The status of one host, or of all.
pub(super) fn get(
    controller: &Controller,
    request: &pb::GetStatusRequest,
) -> Result<pb::GetStatusResponse, Status> {
    let state = controller.state();
    let chassis = match request.chassis.as_str() {
        "" => {
            let all = state.scan(state.revision(), Kind::Chassis, None, "").map_err(Status::from)?;
            all.map(|record| record.name.clone()).collect()
        }
        text => {
            let name = Name::parse(text).ok().filter(|name| name.kind() == Kind::Chassis);
            let known = name.filter(|name| state.get(name).is_some());
            vec![known.ok_or_else(|| Status::not_found(format!("there is no chassis {text:?}")))?]
        }
    };
    Ok(pb::GetStatusResponse {
        revision: state.revision().get(),
        compiled_revision: controller.receipts.newest().map_or(0, Revision::get),
        chassis: chassis.iter().map(|name| of_chassis(controller, &state, name)).collect(),
    })
}

fn of_chassis(controller: &Controller, state: &State, name: &Name) -> pb::ChassisStatus {
    let id = name.id();
    let status = controller.registry.status(id);
    let mut pending = controller.receipts.concerning(id, status.applied, MAX_PENDING + 1);
    let has_more = pending.len() > MAX_PENDING;
    pending.truncate(MAX_PENDING);
    let wanted = controller.registry.view_revision(id).unwrap_or(Revision::ZERO);
    pb::ChassisStatus {
        chassis: name.to_string(),
        connected: status.connected,
        since_unix_ms: unix_ms(status.since),
        applied_revision: status.applied.get(),
        applied_unix_ms: unix_ms(status.applied_at),
        wanted_revision: wanted.get(),
        pending: pending.into_iter().map(|revision| of_revision(state, revision)).collect(),
        has_more,
        errors: controller.registry.errors(id),
    }
}

/// What a revision has changed, as far as the log reaches.
fn of_revision(state: &State, revision: Revision) -> pb::PendingRevision {
    let before = Revision::new(revision.get().saturating_sub(1));
    let revised = state.changes_since(before).ok().and_then(|mut later| later.next());
    let changes = revised.filter(|revised| revised.revision == revision).map(|revised| &revised.changes);
    let names = changes.into_iter().flatten().take(MAX_RESOURCES).map(|change| change.name.to_string());
    pb::PendingRevision {
        revision: revision.get(),
        resources: names.collect(),
        n_resources: changes.map_or(0, |changes| changes.len() as u64),
    }
}

fn unix_ms(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
}
