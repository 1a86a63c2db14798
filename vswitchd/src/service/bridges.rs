//! The bridges as messages, and which one a request means.

use ferroflow_proto::host as pb;
use flowtable::types::BridgeId;
use tonic::{Code, Status};

use crate::host::{Bridge, BridgeError, FailMode, Host};

pub(super) fn list(host: &Host) -> pb::ListBridgesResponse {
    let mut bridges: Vec<_> = host.bridges().iter().map(|bridge| message(host, bridge)).collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    pb::ListBridgesResponse { bridges }
}

pub(super) fn add(host: &mut Host, request: &pb::AddBridgeRequest) -> Result<pb::AddBridgeResponse, Status> {
    let mode = fail_mode(&request.fail_mode)?;
    let id = host.add_bridge(&request.name, mode).map_err(refusal)?;
    Ok(answer(host, id))
}

pub(super) fn modify(
    host: &mut Host,
    request: &pb::AddBridgeRequest,
) -> Result<pb::AddBridgeResponse, Status> {
    let mode = fail_mode(&request.fail_mode)?;
    let id = host.bridge(&request.name).map_err(refusal)?.id();
    host.set_fail_mode(id, mode).map_err(refusal)?;
    Ok(answer(host, id))
}

pub(super) fn remove(
    host: &mut Host,
    request: &pb::RemoveBridgeRequest,
) -> Result<pb::RemoveBridgeResponse, Status> {
    match host.remove_bridge(&request.name) {
        Err(BridgeError::NotFound(_)) if request.allow_missing => {}
        removed => removed.map_err(refusal)?,
    }
    Ok(pb::RemoveBridgeResponse {})
}

/// The bridges that a name means; without one, all.
pub(super) fn some(host: &Host, name: &str) -> Result<Vec<BridgeId>, Status> {
    match name {
        "" => Ok(host.bridges().iter().map(Bridge::id).collect()),
        name => Ok(vec![host.visible_bridge(name).map_err(refusal)?.id()]),
    }
}

/// The bridge that a request means which also names a port: the one of this name, or that of
/// the port, or the only one.
pub(super) fn of_port<'a>(host: &'a Host, name: &str, port: &str) -> Result<&'a Bridge, Status> {
    let of_port = || {
        let mut ports = host.workload_ports();
        let found = ports.find(|(interface, known)| *interface == port || known.logical_port == port);
        found.filter(|_| !port.is_empty()).and_then(|(_, known)| host.bridge_of(known.bridge))
    };
    match name {
        "" => of_port().map_or_else(|| host.bridge("").map_err(refusal), Ok),
        name => host.bridge(name).map_err(refusal),
    }
}

fn fail_mode(name: &str) -> Result<Option<FailMode>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    FailMode::by_name(name).map(Some).ok_or_else(|| {
        let name = name.escape_debug();
        Status::invalid_argument(format!("fail mode `{name}`: it is secure or standalone"))
    })
}

fn answer(host: &Host, id: BridgeId) -> pb::AddBridgeResponse {
    pb::AddBridgeResponse { bridge: host.bridge_of(id).map(|bridge| message(host, bridge)) }
}

fn message(host: &Host, bridge: &Bridge) -> pb::Bridge {
    let tables = bridge.tables();
    let ports = host.workload_ports().filter(|(_, port)| port.bridge == bridge.id());
    pb::Bridge {
        name: bridge.name().to_owned(),
        fail_mode: bridge.fail_mode().name().to_owned(),
        ports: ports.map(|(name, _)| name.to_owned()).collect(),
        n_rules: tables.len() as u64,
        n_groups: tables.groups().count() as u64,
        n_meters: tables.meters().count() as u64,
        n_stations: tables.fdb().len() as u64,
        epoch: host.snapshot_of(bridge).epoch.get(),
    }
}

pub(super) fn refusal(error: BridgeError) -> Status {
    let code = match error {
        BridgeError::WhichOne(_) | BridgeError::Name(_) | BridgeError::IsUplinks(_) => Code::InvalidArgument,
        BridgeError::NotFound(_) => Code::NotFound,
        BridgeError::Full => Code::ResourceExhausted,
        BridgeError::Last(_) | BridgeError::NotByHand => Code::FailedPrecondition,
        BridgeError::Rules(_) | BridgeError::Port(_) | BridgeError::State(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
