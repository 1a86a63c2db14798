//! What bridges speak and do by themselves, as messages: their settings, and what their
//! protocols have found out.

use std::collections::BTreeMap;

use bridge_protocols::{bond, lacp::LinkStatus, multicast, stp};
use ferroflow_proto::host::{self as pb, bridge_service_server::BridgeService};
use flowtable::{
    text::ChangeKind,
    types::{PortNo, Timestamp},
};
use tonic::{Code, Request, Response, Status};

use super::{Service, bridges, neighbours};
use crate::host::{
    BondMember, Bridge, Declaration, Host, MemberError, PortSettings, ProtocolError, Verb, WrittenChange,
};

#[tonic::async_trait]
impl BridgeService for Service {
    async fn get_bridge_settings(
        &self,
        request: Request<pb::GetBridgeSettingsRequest>,
    ) -> Result<Response<pb::GetBridgeSettingsResponse>, Status> {
        let bridge = request.into_inner().bridge;
        let get = move |host: &mut Host| {
            let bridge = host.bridge(&bridge).map_err(bridges::refusal)?;
            let settings = host.bridge_settings(bridge.id()).text();
            Ok::<_, Status>(pb::GetBridgeSettingsResponse { settings, bridge: bridge.name().to_owned() })
        };
        self.host.with(get).await.map(Response::new)
    }

    async fn change_bridge_settings(
        &self,
        request: Request<pb::ChangeBridgeSettingsRequest>,
    ) -> Result<Response<pb::GetBridgeSettingsResponse>, Status> {
        let pb::ChangeBridgeSettingsRequest { bridge, patch, validate_only } = request.into_inner();
        let change = move |host: &mut Host| {
            by_hand(host)?;
            let bridge = host.bridge(&bridge).map_err(bridges::refusal)?;
            let (id, name) = (bridge.id(), bridge.name().to_owned());
            let settings = host.change_bridge_settings(id, &patch, validate_only).map_err(refusal)?;
            Ok(pb::GetBridgeSettingsResponse { settings: settings.text(), bridge: name })
        };
        self.host.with(change).await.map(Response::new)
    }

    async fn check_bridge(
        &self,
        request: Request<pb::CheckBridgeRequest>,
    ) -> Result<Response<pb::CheckBridgeResponse>, Status> {
        let wanted = declaration(request.into_inner())?;
        let check = move |host: &mut Host| {
            by_hand(host)?;
            host.check_declaration(&wanted).map_err(|error| Status::invalid_argument(error.to_string()))
        };
        self.host.with(check).await.map(|()| Response::new(pb::CheckBridgeResponse {}))
    }

    async fn set_active_member(
        &self,
        request: Request<pb::SetActiveMemberRequest>,
    ) -> Result<Response<pb::DescribeProtocolsResponse>, Status> {
        let pb::SetActiveMemberRequest { bridge, bond, member } = request.into_inner();
        let set = move |host: &mut Host| {
            by_hand(host)?;
            let id = host.bridge(&bridge).map_err(bridges::refusal)?.id();
            host.set_active_member(id, &bond, &member).map_err(|error| {
                let code = match error {
                    MemberError::Bond { .. } | MemberError::Member { .. } => Code::NotFound,
                    MemberError::Disabled(_) | MemberError::Primary(_) => Code::FailedPrecondition,
                };
                Status::new(code, error.to_string())
            })?;
            let (now, bridge) = (host.dataplane().now(), host.bridge(&bridge).map_err(bridges::refusal)?);
            Ok::<_, Status>(describe(host, bridge, now))
        };
        self.host.with(set).await.map(Response::new)
    }

    async fn describe_protocols(
        &self,
        request: Request<pb::DescribeProtocolsRequest>,
    ) -> Result<Response<pb::DescribeProtocolsResponse>, Status> {
        let bridge = request.into_inner().bridge;
        let describe = move |host: &mut Host| {
            host.dataplane().flush_stats();
            let now = host.dataplane().now();
            let bridge = host.bridge(&bridge).map_err(bridges::refusal)?;
            Ok::<_, Status>(describe(host, bridge, now))
        };
        self.host.with(describe).await.map(Response::new)
    }
}

fn by_hand(host: &Host) -> Result<(), Status> {
    if host.is_by_hand() {
        return Ok(());
    }
    Err(Status::failed_precondition(
        "this vswitchd forwards for a logical network; bridges are told by hand with vswitchd --standalone or --virtual",
    ))
}

fn declaration(request: pb::CheckBridgeRequest) -> Result<Declaration, Status> {
    let pb::CheckBridgeRequest { bridge, ports, settings, has_flows, flows } = request;
    let port = |wanted: pb::WantedPort| {
        super::check_interface(&wanted.name)?;
        let vlan = super::port_vlan(wanted.vlan.unwrap_or_default());
        let vlan = vlan.map_err(|status| {
            Status::invalid_argument(format!("port {}: {}", wanted.name, status.message()))
        })?;
        let settings = PortSettings {
            mode: vlan.mode,
            tag: vlan.tag,
            trunks: vlan.trunks,
            priority_tags: vlan.priority_tags.unwrap_or_default(),
            ..PortSettings::default()
        };
        Ok::<_, Status>((wanted.name, super::port_number(wanted.port_no)?, settings))
    };
    let rule = |text: String| WrittenChange { verb: Verb::Flow(ChangeKind::Add), text };
    Ok(Declaration {
        name: bridge,
        ports: ports.into_iter().map(port).collect::<Result<_, _>>()?,
        settings: if settings.is_empty() { "{}".to_owned() } else { settings },
        rules: has_flows.then(|| flows.into_iter().map(rule).collect()),
    })
}

fn refusal(error: ProtocolError) -> Status {
    let code = match error {
        ProtocolError::Settings(_) => Code::InvalidArgument,
        ProtocolError::NameInUse(_) | ProtocolError::Number(_) => Code::AlreadyExists,
        ProtocolError::State(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

fn describe(host: &Host, bridge: &Bridge, now: Timestamp) -> pb::DescribeProtocolsResponse {
    let names: BTreeMap<PortNo, String> =
        bridge.ports().iter().map(|(port, info)| (port, info.name.clone())).collect();
    let settings = host.bridge_settings(bridge.id());
    let bonds = bridge.bonds().map(|(name, number, negotiated, members)| {
        let told = settings.bonds.get(name).cloned().unwrap_or_default();
        pb::Bond {
            name: name.to_owned(),
            port_no: number.get(),
            mode: bond::Mode::from(told.mode).name().to_owned(),
            lacp: told.lacp.name().to_owned(),
            negotiated,
            members: members.into_iter().map(member).collect(),
        }
    });
    let mirrors = bridge.mirrored().map(|(name, (n_packets, n_bytes))| pb::Mirror {
        name: name.to_owned(),
        n_packets,
        n_bytes,
    });
    let groups = bridge.groups().map(|groups| groups.entries(now)).unwrap_or_default();
    pb::DescribeProtocolsResponse {
        bridge: bridge.name().to_owned(),
        spanning_tree: bridge.tree().map(|tree| spanning_tree(tree, &names)),
        bonds: bonds.collect(),
        mirrors: mirrors.collect(),
        group_members: groups.into_iter().map(|entry| group_member(entry, &names)).collect(),
        lldp_ports: neighbours::lldp(bridge, &names, now),
        cfm_ends: neighbours::cfm(bridge),
        bfd_sessions: neighbours::bfd(host, bridge, &names),
        flow_exports: bridge.exports().iter().map(neighbours::flow_export).collect(),
    }
}

pub(super) fn name_of(names: &BTreeMap<PortNo, String>, port: PortNo) -> String {
    names.get(&port).cloned().unwrap_or_else(|| port.to_string())
}

fn spanning_tree(tree: &stp::Bridge, names: &BTreeMap<PortNo, String>) -> pb::SpanningTree {
    let name = |id: u16| PortNo::new(id.into()).map(|port| name_of(names, port)).unwrap_or_default();
    let (root, cost, root_port) = tree.root();
    let ports = tree.ports().filter_map(|id| tree.port(id).map(|port| tree_port(name(id), port)));
    pb::SpanningTree {
        protocol: if tree.config().is_rapid { "rstp" } else { "stp" }.to_owned(),
        bridge_id: tree.config().id.to_string(),
        root_id: root.to_string(),
        root_cost: cost,
        root_port: root_port.map(name).unwrap_or_default(),
        n_changes: tree.n_changes(),
        ports: ports.collect(),
    }
}

fn tree_port(name: String, port: stp::PortStatus) -> pb::TreePort {
    let state = match port.state {
        stp::State::Discarding => "discarding",
        stp::State::Learning => "learning",
        stp::State::Forwarding => "forwarding",
    };
    pb::TreePort {
        name,
        role: port.role.name().to_owned(),
        state: state.to_owned(),
        edge: port.is_edge,
        rapid: port.is_rapid,
        designated_bridge: port.priority.bridge.to_string(),
        designated_cost: port.priority.cost,
        n_sent: port.n_units.0,
        n_received: port.n_units.1,
        n_transitions: port.n_transitions,
    }
}

fn member(member: BondMember) -> pb::BondMember {
    let BondMember { name, enabled, active, n_slots, lacp } = member;
    let message = pb::BondMember { name, enabled, active, n_slots, ..pb::BondMember::default() };
    let Some(LinkStatus { hearing, actor, partner, n_units, .. }) = lacp else { return message };
    let names = |names: Vec<&'static str>| names.into_iter().map(str::to_owned).collect();
    pb::BondMember {
        lacp: hearing.name().to_owned(),
        partner: partner.system.to_string(),
        partner_key: partner.key.into(),
        actor_state: names(actor.state.names()),
        partner_state: names(partner.state.names()),
        n_sent: n_units.0,
        n_received: n_units.1,
        ..message
    }
}

fn group_member(entry: multicast::Entry, names: &BTreeMap<PortNo, String>) -> pb::GroupMember {
    pb::GroupMember {
        vlan: entry.vlan.get().into(),
        group: entry.group.map(|group| group.to_string()).unwrap_or_default(),
        port: name_of(names, entry.port),
        seconds_left: entry.left.map(|left| left.as_secs()),
    }
}
