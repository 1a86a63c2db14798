//! Views and their differences as messages.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ferroflow_proto::chassis as pb;
use ovn_northd_lite::{
    GroupChange, SetChange, SouthboundDelta,
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
    let none = BTreeSet::new();
    pb::SyncResponse {
        revision: revision.get(),
        full: true,
        datapaths: view.datapaths.iter().map(datapath).collect(),
        port_bindings: view.bindings.iter().map(port_binding).collect(),
        multicast_groups: view
            .groups
            .iter()
            .map(|(key, group)| multicast_group(*key, &group.name, (&group.ports, &none)))
            .collect(),
        chassis: view.chassis.iter().map(chassis).collect(),
        logical_flows: view.flows.iter().map(logical_flow).collect(),
        removed: None,
        set_changes: view.sets.iter().map(|(name, members)| set_change(name, (members, &none))).collect(),
        takes_claim_changes: true,
    }
}

/// A change of the view.
pub fn delta(revision: Revision, delta: &SouthboundDelta) -> pb::SyncResponse {
    let removed = &delta.removed;
    let group_key = |(datapath, key): &(DatapathKey, PortKey)| pb::MulticastGroupKey {
        datapath: datapath.get(),
        key: u32::from(key.get()),
    };
    let group = |(key, change): (&(DatapathKey, PortKey), &GroupChange)| {
        multicast_group(*key, &change.name, (&change.added, &change.removed))
    };
    let set = |(name, change): (&String, &SetChange)| set_change(name, (&change.added, &change.removed));
    pb::SyncResponse {
        revision: revision.get(),
        full: false,
        datapaths: delta.datapaths.iter().map(datapath).collect(),
        port_bindings: delta.bindings.iter().map(port_binding).collect(),
        multicast_groups: delta.groups.iter().map(group).collect(),
        chassis: delta.chassis.iter().map(chassis).collect(),
        logical_flows: delta.flows.iter().map(logical_flow).collect(),
        removed: Some(pb::Removed {
            datapaths: removed.datapaths.iter().map(|key| key.get()).collect(),
            port_bindings: removed.bindings.iter().cloned().collect(),
            multicast_groups: removed.groups.iter().map(group_key).collect(),
            chassis: removed.chassis.iter().cloned().collect(),
            logical_flows: removed.flows.iter().copied().collect(),
            sets: removed.sets.iter().cloned().collect(),
        }),
        set_changes: delta.sets.iter().map(set).collect(),
        takes_claim_changes: false,
    }
}

fn datapath((key, datapath): (&DatapathKey, &Datapath)) -> pb::Datapath {
    let datapath = datapath.clone();
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

type Members = BTreeSet<String>;

fn set_change(name: &str, (added, removed): (&Members, &Members)) -> pb::SetChange {
    pb::SetChange {
        name: name.to_owned(),
        added: added.iter().cloned().collect(),
        removed: removed.iter().cloned().collect(),
    }
}

fn port_binding((name, binding): (&String, &PortBinding)) -> pb::PortBinding {
    let binding = binding.clone();
    pb::PortBinding {
        name: name.clone(),
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

fn multicast_group(
    (datapath, key): (DatapathKey, PortKey),
    name: &str,
    (added, removed): (&Members, &Members),
) -> pb::MulticastGroup {
    pb::MulticastGroup {
        datapath: datapath.get(),
        key: u32::from(key.get()),
        name: name.to_owned(),
        ports: added.iter().cloned().collect(),
        removed_ports: removed.iter().cloned().collect(),
    }
}

fn chassis((name, record): (&String, &ChassisRecord)) -> pb::Chassis {
    let encap_types = record.encap_types.iter().map(|kind| kind.name().to_owned()).collect();
    pb::Chassis { name: name.clone(), encap_ip: record.encap_ip.to_string(), encap_types }
}

fn logical_flow((id, flow): (&u64, &Arc<LogicalFlow>)) -> pb::LogicalFlow {
    pb::LogicalFlow {
        id: *id,
        datapath: flow.datapath.get(),
        egress: match flow.pipeline {
            Pipeline::Ingress => false,
            Pipeline::Egress => true,
        },
        stage: u32::from(flow.stage),
        stage_name: flow.stage_name.to_string(),
        priority: u32::from(flow.priority.get()),
        r#match: flow.matching.clone(),
        actions: flow.actions.clone(),
        object: flow.object.to_string(),
        why: flow.why.to_string(),
    }
}
