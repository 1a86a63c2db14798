//! The local gRPC service: what `vswitchctl` and the container shims ask of this host.

mod connection_events;
mod conntrack;
mod dump;
mod endpoint;
mod events;
mod flows;
mod lab;
mod rules;
mod socket;
mod trace;
mod workers;

use std::{collections::BTreeSet, sync::Arc};

use ferroflow_proto::host::{self as pb, host_service_server::HostService};
use flowtable::types::PortNo;
use tonic::{Code, Request, Response, Status};

use connection_events::ConnectionEvents;
pub use endpoint::EndpointServer;
pub use socket::{Socket, SocketError, serve};

use crate::host::{Host, PortError, SharedHost, VlanMode};

/// Longest interface name (IFNAMSIZ without its final zero).
const MAX_INTERFACE_LEN: usize = 15;
/// Longest id of a switch port.
const MAX_ID_LEN: usize = 63;

/// The service.
pub struct Service {
    host: SharedHost,
    connection_events: Arc<ConnectionEvents>,
}

impl Service {
    /// Serves a host.
    pub fn new(host: SharedHost) -> Self {
        Self { host, connection_events: Arc::default() }
    }
}

#[tonic::async_trait]
impl HostService for Service {
    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.host.with(|host| dump::status(host)).await))
    }

    async fn add_port(
        &self,
        request: Request<pb::AddPortRequest>,
    ) -> Result<Response<pb::AddPortResponse>, Status> {
        let pb::AddPortRequest { interface, logical_port, port_no, network } = request.into_inner();
        check_interface(&interface)?;
        check_logical_port(&logical_port)?;
        check_network(&network)?;
        let number = port_number(port_no)?;
        self.host
            .with(move |host| {
                let port = host.add_port(&interface, (&logical_port, &network), number).map_err(refusal)?;
                let port = dump::ports(host).into_iter().find(|found| found.port_no == port.get());
                Ok(Response::new(pb::AddPortResponse { port }))
            })
            .await
    }

    async fn modify_port(
        &self,
        request: Request<pb::ModifyPortRequest>,
    ) -> Result<Response<pb::AddPortResponse>, Status> {
        let pb::ModifyPortRequest { interface, forwards, floods, vlan } = request.into_inner();
        let vlan = vlan.map(port_vlan).transpose()?;
        self.host
            .with(move |host| {
                let modified = host.modify_port(&interface, |settings| {
                    settings.forwards = forwards.unwrap_or(settings.forwards);
                    settings.floods = floods.unwrap_or(settings.floods);
                    if let Some((mode, tag, trunks)) = vlan {
                        (settings.mode, settings.tag, settings.trunks) = (mode, tag, trunks);
                    }
                });
                modified.map_err(refusal)?;
                let port = dump::ports(host).into_iter().find(|found| found.name == interface);
                Ok(Response::new(pb::AddPortResponse { port }))
            })
            .await
    }

    async fn remove_port(
        &self,
        request: Request<pb::RemovePortRequest>,
    ) -> Result<Response<pb::RemovePortResponse>, Status> {
        let pb::RemovePortRequest { interface, allow_missing } = request.into_inner();
        check_interface(&interface)?;
        self.host
            .with(move |host| match host.remove_port(&interface) {
                Err(PortError::NotFound(_)) if allow_missing => Ok(()),
                removed => removed.map_err(refusal),
            })
            .await?;
        Ok(Response::new(pb::RemovePortResponse {}))
    }

    async fn list_ports(
        &self,
        request: Request<pb::ListPortsRequest>,
    ) -> Result<Response<pb::ListPortsResponse>, Status> {
        let also_removed = request.into_inner().removed;
        let list = move |host: &mut Host| {
            // What is told is what packets meet from now on.
            host.tend_ports();
            let mut ports = dump::ports(host);
            if also_removed {
                ports.extend(dump::removed_ports(host));
            }
            ports
        };
        let ports = self.host.with(list).await;
        Ok(Response::new(pb::ListPortsResponse { ports }))
    }

    async fn dump_flows(
        &self,
        request: Request<pb::DumpFlowsRequest>,
    ) -> Result<Response<pb::DumpFlowsResponse>, Status> {
        let request = request.into_inner();
        let flows = self.host.with(move |host| flows::dump(host, &request)).await?;
        Ok(Response::new(pb::DumpFlowsResponse { flows }))
    }

    async fn dump_megaflows(
        &self,
        _request: Request<pb::DumpMegaflowsRequest>,
    ) -> Result<Response<pb::DumpMegaflowsResponse>, Status> {
        let megaflows = self.host.with(|host| dump::megaflows(host)).await;
        Ok(Response::new(pb::DumpMegaflowsResponse { megaflows }))
    }

    async fn list_drops(
        &self,
        _request: Request<pb::ListDropsRequest>,
    ) -> Result<Response<pb::ListDropsResponse>, Status> {
        let drops = self.host.with(|host| dump::drops(host)).await;
        Ok(Response::new(pb::ListDropsResponse { drops }))
    }

    async fn trace(&self, request: Request<pb::TraceRequest>) -> Result<Response<pb::TraceResponse>, Status> {
        let request = request.into_inner();
        let traced = self.host.with(move |host| trace::trace(host, request)).await;
        traced.map(Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// Tags of a port: what, which VLAN, which others.
fn port_vlan(vlan: pb::PortVlan) -> Result<(VlanMode, u16, BTreeSet<u16>), Status> {
    let mode = VlanMode::by_name(&vlan.mode).ok_or_else(|| {
        Status::invalid_argument(format!(
            "vlan mode `{}`: it is trunk, access, native-tagged or native-untagged",
            vlan.mode.escape_debug()
        ))
    })?;
    let id = |raw: u32| {
        u16::try_from(raw).map_err(|_| Status::invalid_argument(format!("VLAN {raw}: VLANs are 0 to 4095")))
    };
    let trunks = vlan.trunks.into_iter().map(id).collect::<Result<_, _>>()?;
    Ok((mode, id(vlan.tag)?, trunks))
}

/// The number that a port is to have; 0: any.
fn port_number(raw: u32) -> Result<Option<PortNo>, Status> {
    if raw == 0 {
        return Ok(None);
    }
    let port = PortNo::new(raw).ok().filter(|port| port.is_real() || *port == PortNo::LOCAL);
    port.map(Some).ok_or_else(|| {
        let max = PortNo::MAX_REAL;
        Status::invalid_argument(format!(
            "port {raw}: numbers are 1 to {max}, and {} is LOCAL",
            PortNo::LOCAL
        ))
    })
}

fn check_interface(name: &str) -> Result<(), Status> {
    let is_well_formed = !name.is_empty()
        && name.len() <= MAX_INTERFACE_LEN
        && !name.bytes().any(|byte| byte == b'/' || byte == 0 || byte.is_ascii_whitespace());
    if is_well_formed {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "interface `{}`: give the name of an interface of this host, 1 to {MAX_INTERFACE_LEN} characters, as `ip link` shows it",
        name.escape_debug()
    )))
}

/// Names of networks are as ids.
fn check_network(name: &str) -> Result<(), Status> {
    check_logical_port(name).map_err(|_| {
        let reason =
            format!("network `{}`: use at most {MAX_ID_LEN} of a-z A-Z 0-9 . _ -", name.escape_default());
        Status::invalid_argument(reason)
    })
}

fn check_logical_port(id: &str) -> Result<(), Status> {
    let is_well_formed = id.len() <= MAX_ID_LEN
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if is_well_formed {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "logical_port `{}`: give the id of a switch port, at most {MAX_ID_LEN} of a-z A-Z 0-9 . _ -",
        id.escape_debug()
    )))
}

fn refusal(error: PortError) -> Status {
    let code = match error {
        PortError::NotFound(_) => Code::NotFound,
        PortError::Claimed { .. }
        | PortError::LogicalInUse { .. }
        | PortError::NetworkInUse { .. }
        | PortError::NumberInUse { .. }
        | PortError::Differs(_) => Code::AlreadyExists,
        PortError::Attach(_)
        | PortError::IsUplink(_)
        | PortError::EncapIp(_)
        | PortError::IsLab(_)
        | PortError::NoNetwork(_)
        | PortError::TwoPurposes => Code::FailedPrecondition,
        PortError::Vlan(_) => Code::InvalidArgument,
        PortError::Full => Code::ResourceExhausted,
        PortError::State(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
