//! Views and their differences as messages.

use std::{net::IpAddr, sync::Arc};

use ferroflow_proto::chassis as pb;
use ovn_northd_lite::{
    GroupChange, SetChange, SouthboundDelta, diff,
    key::{DatapathKey, PortKey},
    model::{Protocol, Rate, Snooping},
    punt::Service,
    southbound::{
        Announced, Candidate, ChassisRecord, Datapath, LogicalFlow, Pipeline, PortBinding, Probe, Session,
        Shaping, Southbound, Wire,
    },
};

use crate::store::Revision;

/// The whole view.
pub(super) fn full(revision: Revision, view: &Southbound) -> pb::SyncResponse {
    let all = diff(&Southbound::default(), view);
    pb::SyncResponse { full: true, removed: None, takes_claim_changes: true, ..delta(revision, all) }
}

/// A change of the view.
pub fn delta(revision: Revision, delta: SouthboundDelta) -> pb::SyncResponse {
    let removed = delta.removed;
    pb::SyncResponse {
        revision: revision.get(),
        full: false,
        datapaths: delta.datapaths.into_iter().map(datapath).collect(),
        port_bindings: delta.bindings.into_iter().map(port_binding).collect(),
        multicast_groups: delta.groups.into_iter().map(multicast_group).collect(),
        chassis: delta.chassis.into_iter().map(chassis).collect(),
        logical_flows: delta.flows.into_iter().map(logical_flow).collect(),
        removed: Some(pb::Removed {
            datapaths: removed.datapaths.into_iter().map(DatapathKey::get).collect(),
            port_bindings: removed.bindings.into_iter().collect(),
            multicast_groups: removed
                .groups
                .into_iter()
                .map(|(datapath, key)| pb::MulticastGroupKey {
                    datapath: datapath.get(),
                    key: u32::from(key.get()),
                })
                .collect(),
            chassis: removed.chassis.into_iter().collect(),
            logical_flows: removed.flows.into_iter().collect(),
            sets: removed.sets.into_iter().collect(),
        }),
        set_changes: delta.sets.into_iter().map(set_change).collect(),
        takes_claim_changes: false,
    }
}

fn datapath((key, datapath): (DatapathKey, Datapath)) -> pb::Datapath {
    pb::Datapath {
        key: key.get(),
        name: datapath.name,
        router: datapath.is_router,
        sets: datapath.sets.into_iter().collect(),
        limits: datapath.limits.into_iter().map(limit).collect(),
        snooping: datapath.snooping.map(snooping),
        ct_zone_limit: datapath.max_connections.unwrap_or_default(),
        snat_ct_zone: datapath.snat_zone.map(u32::from),
    }
}

fn snooping(snooping: Snooping) -> pb::Snooping {
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let querier = snooping.querier.map(|querier| pb::Querier {
        interval: querier.interval.into(),
        max_response: querier.max_response.into(),
        mac: querier.mac.to_string(),
        ip4: text(querier.v4.map(IpAddr::from)),
        ip6: text(querier.v6.map(IpAddr::from)),
    });
    pb::Snooping {
        table_size: snooping.max_groups,
        idle_timeout: snooping.max_age.into(),
        querier,
        flood_unregistered: snooping.floods_unknown,
    }
}

fn limit((service, rate): (Service, Rate)) -> pb::Limit {
    pb::Limit { class: service.class().to_owned(), rate: rate.pps, burst: rate.burst }
}

fn set_change((name, change): (String, SetChange)) -> pb::SetChange {
    let SetChange { added, removed } = change;
    pb::SetChange { name, added: added.into_iter().collect(), removed: removed.into_iter().collect() }
}

fn port_binding((name, binding): (String, PortBinding)) -> pb::PortBinding {
    pb::PortBinding {
        name,
        datapath: binding.datapath.get(),
        key: u32::from(binding.key.get()),
        peer: binding.peer.unwrap_or_default(),
        chassis: binding.chassis.unwrap_or_default(),
        gateway: binding.gateway.into_iter().map(candidate).collect(),
        open_for: binding.open_for.into_iter().collect(),
        announced: binding.announced.into_iter().map(announced).collect(),
        wire: wire(binding.wire),
        probes: binding.probes.into_iter().map(probe).collect(),
        sessions: binding.sessions.into_iter().map(session).collect(),
        additional_chassis: binding.additional.into_iter().collect(),
        awaits_rarp: binding.awaits_rarp,
        tracked: binding.tracked,
        ct_zone_limit: binding.max_connections.unwrap_or_default(),
        shaping: binding.shaping.map(|Shaping { min, max, burst }| pb::Shaping {
            min_rate: min.unwrap_or_default(),
            max_rate: max.unwrap_or_default(),
            burst: burst.unwrap_or_default(),
        }),
        advertises: binding.advertises.map(|advertises| pb::Advertises {
            mac: advertises.mac.octets().to_vec(),
            message: advertises.message,
            min_interval: advertises.interval.0.into(),
            max_interval: advertises.interval.1.into(),
        }),
    }
}

fn probe(probe: Probe) -> pb::Probe {
    pb::Probe {
        load_balancer: probe.balancer,
        vip_ip: probe.vip.ip.to_string(),
        vip_port: probe.vip.port.unwrap_or(0).into(),
        backend_ip: probe.backend.0.to_string(),
        backend_port: probe.backend.1.into(),
        mac: probe.mac.to_string(),
        protocol: probe.protocol.map_or("icmp", Protocol::name).to_owned(),
        source: probe.source.to_string(),
        interval: probe.check.interval.into(),
        timeout: probe.check.timeout.into(),
        n_successes: probe.check.n_successes.into(),
        n_failures: probe.check.n_failures.into(),
    }
}

fn session(session: Session) -> pb::Session {
    pb::Session {
        peer: session.peer.to_string(),
        source: session.source.to_string(),
        mac: session.mac.to_string(),
        min_tx: session.min_tx,
        min_rx: session.min_rx,
        detect_multiplier: session.multiplier.into(),
    }
}

fn candidate(candidate: Candidate) -> pb::Candidate {
    pb::Candidate { chassis: candidate.chassis, priority: candidate.priority.into() }
}

fn announced(Announced { mac, ip, port }: Announced) -> pb::Announced {
    pb::Announced { mac: mac.to_string(), ip: ip.map(|ip| ip.to_string()).unwrap_or_default(), port }
}

fn wire(wire: Wire) -> Option<pb::port_binding::Wire> {
    use pb::port_binding::Wire as Encoded;
    Some(match wire {
        Wire::Own => return None,
        Wire::Network { name, tag, is_service } => {
            let tag = tag.map_or(0, |tag| tag.get().into());
            Encoded::Network(pb::NetworkWire { name, tag, is_service })
        }
        Wire::Redirect { stage } => Encoded::RedirectStage(stage.into()),
        Wire::Nested { parent, tag } => Encoded::Nested(pb::NestedWire { parent, tag: tag.get().into() }),
        Wire::EachChassis => Encoded::EachChassis(true),
        Wire::External => Encoded::External(true),
    })
}

fn multicast_group(((datapath, key), group): ((DatapathKey, PortKey), GroupChange)) -> pb::MulticastGroup {
    pb::MulticastGroup {
        datapath: datapath.get(),
        key: u32::from(key.get()),
        name: group.name,
        ports: group.added.into_iter().collect(),
        removed_ports: group.removed.into_iter().collect(),
    }
}

fn chassis((name, record): (String, ChassisRecord)) -> pb::Chassis {
    let encap_types = record.encap_types.iter().map(|kind| kind.name().to_owned()).collect();
    pb::Chassis { name, encap_ip: record.encap_ip.to_string(), encap_types }
}

fn logical_flow((id, flow): (u64, Arc<LogicalFlow>)) -> pb::LogicalFlow {
    let flow = Arc::unwrap_or_clone(flow);
    pb::LogicalFlow {
        id,
        datapath: flow.datapath.get(),
        egress: match flow.pipeline {
            Pipeline::Ingress => false,
            Pipeline::Egress => true,
        },
        stage: u32::from(flow.stage),
        stage_name: flow.stage_name.to_string(),
        priority: u32::from(flow.priority.get()),
        r#match: flow.matching,
        actions: flow.actions,
        object: flow.object.to_string(),
        why: flow.why.to_string(),
    }
}
