//! The local gRPC service: what `vswitchctl` and the container shims ask of this host.

mod bridges;
mod bridging;
mod capture;
mod connection_events;
mod conntrack;
mod destinations;
mod dump;
mod endpoint;
mod events;
mod flows;
mod hops;
mod lab;
mod metrics;
mod neighbours;
mod rates;
mod rules;
mod socket;
mod top;
mod trace;
mod underlay;
mod workers;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use ferroflow_proto::host::{self as pb, host_service_server::HostService};
use flowtable::types::PortNo;
use tonic::{Code, Request, Response, Status};

use connection_events::ConnectionEvents;
pub(crate) use dump::drops_of;
pub use endpoint::EndpointServer;
pub use metrics::Metrics;
pub use socket::{Socket, SocketError, serve};
pub(crate) use trace::trace;

use crate::{
    host::{Host, PortError, PortKind, PortKindError, PriorityTagsName, SharedHost, VhostSettings, VlanMode},
    lab::Fabric,
    log::LogControl,
};

/// Longest interface name (IFNAMSIZ without its final zero).
const MAX_INTERFACE_LEN: usize = 15;
/// Longest id of a switch port.
const MAX_ID_LEN: usize = 63;

/// The service.
#[derive(Clone)]
pub struct Service {
    host: SharedHost,
    log: Arc<Mutex<LogControl>>,
    connection_events: Arc<ConnectionEvents>,
    fabric: Arc<Fabric>,
}

impl Service {
    /// Serves a host. The log is the process's.
    pub fn new(host: SharedHost, log: Arc<Mutex<LogControl>>) -> Self {
        Self { host, connection_events: Arc::default(), log, fabric: Arc::default() }
    }

    /// The same, one of several hosts of a lab.
    #[must_use]
    pub fn among(self, fabric: Arc<Fabric>) -> Self {
        Self { fabric, ..self }
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

    async fn list_bridges(
        &self,
        _request: Request<pb::ListBridgesRequest>,
    ) -> Result<Response<pb::ListBridgesResponse>, Status> {
        Ok(Response::new(self.host.with(|host| bridges::list(host)).await))
    }

    async fn add_bridge(
        &self,
        request: Request<pb::AddBridgeRequest>,
    ) -> Result<Response<pb::AddBridgeResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| bridges::add(host, &request)).await.map(Response::new)
    }

    async fn modify_bridge(
        &self,
        request: Request<pb::AddBridgeRequest>,
    ) -> Result<Response<pb::AddBridgeResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| bridges::modify(host, &request)).await.map(Response::new)
    }

    async fn remove_bridge(
        &self,
        request: Request<pb::RemoveBridgeRequest>,
    ) -> Result<Response<pb::RemoveBridgeResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| bridges::remove(host, &request)).await.map(Response::new)
    }

    async fn add_port(
        &self,
        request: Request<pb::AddPortRequest>,
    ) -> Result<Response<pb::AddPortResponse>, Status> {
        let pb::AddPortRequest { interface, logical_port, port_no, bridge, peer, kind, network, vhost_user } =
            request.into_inner();
        let kind =
            port_kind(&kind, vhost_user).map_err(|error| Status::invalid_argument(error.to_string()))?;
        check_interface(&interface)?;
        if !peer.is_empty() {
            check_interface(&peer)?;
        }
        check_logical_port(&logical_port)?;
        check_network(&network)?;
        let number = port_number(port_no)?;
        self.host
            .with(move |host| {
                let bridge = host.bridge(&bridge).map_err(bridges::refusal)?.id();
                let added = match peer.as_str() {
                    "" => {
                        let purpose = (logical_port.as_str(), network.as_str());
                        host.add_port_by(bridge, (&interface, kind), purpose, number)
                    }
                    peer => host.add_patch(bridge, &interface, peer, number),
                };
                added.map_err(refusal)?;
                let port = dump::ports(host).into_iter().find(|found| found.name == interface);
                Ok(Response::new(pb::AddPortResponse { port }))
            })
            .await
    }

    async fn modify_port(
        &self,
        request: Request<pb::ModifyPortRequest>,
    ) -> Result<Response<pb::AddPortResponse>, Status> {
        let request = request.into_inner();
        let rates = rates::RateChange::of(&request)?;
        let vlan = request.vlan.map(port_vlan).transpose()?;
        self.host
            .with(move |host| {
                let modified = host.modify_port(&request.interface, |settings| {
                    settings.forwards = request.forwards.unwrap_or(settings.forwards);
                    settings.floods = request.floods.unwrap_or(settings.floods);
                    settings.receives = request.receives.unwrap_or(settings.receives);
                    settings.enabled = request.enabled.unwrap_or(settings.enabled);
                    settings.packet_ins = request.packet_ins.unwrap_or(settings.packet_ins);
                    settings.protected = request.protected.unwrap_or(settings.protected);
                    rates::change(&mut settings.rates, rates);
                    if let Some(PortVlan { mode, tag, trunks, priority_tags }) = vlan {
                        (settings.mode, settings.tag, settings.trunks) = (mode, tag, trunks);
                        settings.priority_tags = priority_tags.unwrap_or(settings.priority_tags);
                    }
                });
                modified.map_err(refusal)?;
                let port = dump::ports(host).into_iter().find(|found| found.name == request.interface);
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
        let pb::ListPortsRequest { removed: also_removed, bridge } = request.into_inner();
        let list = move |host: &mut Host| {
            if !bridge.is_empty() {
                host.bridge(&bridge).map_err(bridges::refusal)?;
            }
            // What is told is what packets meet from now on.
            host.tend_ports();
            let mut ports = dump::ports(host);
            if also_removed {
                ports.extend(dump::removed_ports(host));
            }
            ports.retain(|port| bridge.is_empty() || port.bridge == bridge);
            Ok::<_, Status>(ports)
        };
        let ports = self.host.with(list).await?;
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
        request: Request<pb::DumpMegaflowsRequest>,
    ) -> Result<Response<pb::DumpMegaflowsResponse>, Status> {
        let bridge = request.into_inner().bridge;
        let dump = move |host: &mut Host| bridges::some(host, &bridge).map(|ids| dump::megaflows(host, &ids));
        let megaflows = self.host.with(dump).await?;
        Ok(Response::new(pb::DumpMegaflowsResponse { megaflows }))
    }

    async fn list_drops(
        &self,
        request: Request<pb::ListDropsRequest>,
    ) -> Result<Response<pb::ListDropsResponse>, Status> {
        let bridge = request.into_inner().bridge;
        let list = move |host: &mut Host| bridges::some(host, &bridge).map(|ids| dump::drops(host, &ids));
        let drops = self.host.with(list).await?;
        Ok(Response::new(pb::ListDropsResponse { drops }))
    }

    async fn trace(&self, request: Request<pb::TraceRequest>) -> Result<Response<pb::TraceResponse>, Status> {
        let request = request.into_inner();
        let traced = self.host.with(move |host| trace::trace(host, request)).await;
        traced.map(Response::new).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    async fn describe_frames(
        &self,
        request: Request<pb::DescribeFramesRequest>,
    ) -> Result<Response<pb::DescribeFramesResponse>, Status> {
        let frames = request.into_inner().frames;
        let flows = frames.iter().map(|frame| events::headers_of(frame, PortNo::ZERO)).collect();
        Ok(Response::new(pb::DescribeFramesResponse { flows }))
    }

    async fn set_log(
        &self,
        request: Request<pb::SetLogRequest>,
    ) -> Result<Response<pb::SetLogResponse>, Status> {
        let filter = request.into_inner().filter;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if !filter.is_empty() {
            log.set(&filter).map_err(|reason| Status::invalid_argument(format!("`{filter}`: {reason}")))?;
        }
        Ok(Response::new(pb::SetLogResponse { filter: log.filter().to_owned() }))
    }
}

/// Tags of a port.
struct PortVlan {
    mode: VlanMode,
    tag: u16,
    trunks: BTreeSet<u16>,
    priority_tags: Option<PriorityTagsName>,
}

fn port_kind(name: &str, guest: Option<pb::VhostUser>) -> Result<PortKind, PortKindError> {
    let settings =
        |guest: pb::VhostUser| VhostSettings::new(guest.socket, guest.listens, guest.queues, guest.mtu);
    PortKind::by_name(name, guest.map(settings).transpose()?)
}

fn port_vlan(vlan: pb::PortVlan) -> Result<PortVlan, Status> {
    let mode = VlanMode::by_name(&vlan.mode).ok_or_else(|| {
        Status::invalid_argument(format!(
            "vlan mode `{}`: it is trunk, access, native-tagged, native-untagged or dot1q-tunnel",
            vlan.mode.escape_debug()
        ))
    })?;
    let id = |raw: u32| {
        u16::try_from(raw).map_err(|_| Status::invalid_argument(format!("VLAN {raw}: VLANs are 0 to 4095")))
    };
    let trunks = vlan.trunks.into_iter().map(id).collect::<Result<_, _>>()?;
    let priority_tags = match vlan.priority_tags.as_str() {
        "" => None,
        name => Some(PriorityTagsName::by_name(name).ok_or_else(|| {
            let name = name.escape_debug();
            Status::invalid_argument(format!("priority tags `{name}`: it is no, if-nonzero or always"))
        })?),
    };
    Ok(PortVlan { mode, tag: id(vlan.tag)?, trunks, priority_tags })
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
        | PortError::IsBond(_)
        | PortError::Differs(_) => Code::AlreadyExists,
        PortError::Attach(_)
        | PortError::IsUplink(_)
        | PortError::Reserved { .. }
        | PortError::IsLab(_)
        | PortError::NoLinks
        | PortError::NoNetwork(_)
        | PortError::TwoPurposes => Code::FailedPrecondition,
        PortError::Vlan(_) | PortError::Rate(_) | PortError::OwnPeer(_) => Code::InvalidArgument,
        PortError::Full => Code::ResourceExhausted,
        PortError::State(_) | PortError::Uplink(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
