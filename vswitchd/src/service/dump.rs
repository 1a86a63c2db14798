//! The switch's state as messages.

use std::collections::BTreeMap;

use dataplane::{PortCounts, PortId, PortStatus, WorkerStatus};
use ferroflow_proto::host as pb;
use flowtable::{
    cache::MegaflowDump,
    flow::Origin,
    port::PortRole,
    stats::DropCount,
    text::{print_megaflow_match, print_program},
    types::{BridgeId, PortNo},
};

use super::rates;
use crate::host::{Departed, GatewayStatus, Host, Port, PortSettings, Row};

pub(super) fn status(host: &Host) -> pb::GetStatusResponse {
    let identity = host.identity();
    pb::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chassis: identity.chassis.clone(),
        encap_ip: identity.endpoint.as_ref().map(|(_, ip)| ip.to_string()).unwrap_or_default(),
        controller_connected: host.is_connected(),
        controller: identity.controller.clone().unwrap_or_default(),
        applied_revision: host.applied_revision(),
        epoch: host.epoch().get(),
        n_rules: host.bridges().iter().map(|bridge| bridge.tables().len() as u64).sum(),
        workers: host.dataplane().workers().iter().map(worker).collect(),
        errors: host.errors(),
        n_repairs: host.n_repairs(),
        gateways: gateways(host),
        encap_types: host.encapsulations().map(|known| known.kind.name().to_owned()).collect(),
    }
}

pub(super) fn gateways(host: &Host) -> Vec<pb::Gateway> {
    host.gateway_status().into_iter().map(gateway).collect()
}

fn gateway(status: GatewayStatus) -> pb::Gateway {
    let candidates = status.candidates.into_iter().map(|(chassis, priority, state)| pb::GatewayCandidate {
        chassis,
        priority: priority.into(),
        state: state.to_owned(),
    });
    pb::Gateway { port: status.port, active: status.active, candidates: candidates.collect() }
}

fn worker(status: &WorkerStatus) -> pb::Worker {
    let counters = &status.counters;
    pb::Worker {
        id: status.id as u32,
        core: status.core.map(|core| core as u32),
        n_polls: status.n_polls,
        n_idle_polls: status.n_idle_polls,
        n_sleeps: status.n_sleeps,
        n_packets: counters.n_packets,
        n_session_hits: counters.n_session_hits,
        n_megaflow_hits: counters.n_megaflow_hits,
        n_misses: counters.n_misses,
        n_sessions: status.n_sessions as u64,
        n_megaflows: status.n_megaflows as u64,
        n_renewals: counters.n_renewals,
        n_evictions: counters.n_evictions,
        n_forwarded: counters.n_forwarded,
        n_dropped: counters.n_dropped,
        n_failed_copies: counters.n_failed_copies,
        n_recirculations: counters.n_recirculations,
        n_injected: counters.n_injected,
        n_frames: status.n_frames as u64,
        n_free_frames: status.n_free_frames as u64,
        n_exhausted: status.n_exhausted,
    }
}

/// All ports: attached ones with their counters, the tunnel, and those waited for.
pub(super) fn ports(host: &Host) -> Vec<pb::Port> {
    let known: BTreeMap<_, _> = host.workload_ports().map(|(name, port)| (port.id(), (name, port))).collect();
    let mut ports: Vec<_> = host
        .dataplane()
        .ports()
        .iter()
        .map(|status| {
            let id = PortId::new(status.bridge, status.port);
            attached(host, status, known.get(&id).map(|(_, port)| *port))
        })
        .collect();
    let snapshot = host.snapshot();
    for encapsulation in host.encapsulations() {
        let tunnel = snapshot.ports.get(encapsulation.port).filter(|port| port.role == PortRole::Tunnel);
        ports.extend(tunnel.map(|tunnel| pb::Port {
            bridge: host.bridge_name(BridgeId::FIRST).to_owned(),
            port_no: encapsulation.port.get(),
            name: tunnel.name.clone(),
            kind: encapsulation.kind.name().to_owned(),
            role: "tunnel".to_owned(),
            up: tunnel.up,
            mtu: tunnel.mtu,
            ..pb::Port::default()
        }));
    }
    let waiting = known.iter().filter(|(_, (_, port))| !port.is_attached()).map(|(id, (interface, port))| {
        let message = pb::Port {
            bridge: host.bridge_name(id.bridge).to_owned(),
            port_no: id.port.get(),
            name: (*interface).to_owned(),
            kind: if port.kind.vhost().is_some() { "vhost-user" } else { "afxdp" }.to_owned(),
            why_down: port.trouble.clone().unwrap_or_default(),
            role: "workload".to_owned(),
            counters: Some(counters(&host.counted_before(interface))),
            ..pb::Port::default()
        };
        with_settings(message, port)
    });
    ports.extend(waiting);
    ports.sort_by(|a, b| (&a.bridge, a.port_no).cmp(&(&b.bridge, b.port_no)));
    ports
}

/// A port that is there, with link and MTU as packets meet them.
fn attached(host: &Host, status: &PortStatus, port: Option<&Port>) -> pb::Port {
    let role = host.uplink_role(PortId::new(status.bridge, status.port)).unwrap_or("workload");
    let seen = host.bridge_of(status.bridge).and_then(|bridge| bridge.ports().get(status.port));
    let up = match port {
        Some(port) if !port.settings.forwards => status.up && port.settings.enabled,
        Some(_) | None => seen.is_some_and(|seen| seen.up),
    };
    let mut counts = host.counted_before(&status.name);
    counts += status.counters;
    let message = pb::Port {
        bridge: host.bridge_name(status.bridge).to_owned(),
        port_no: status.port.get(),
        name: status.name.clone(),
        kind: status.kind.to_owned(),
        role: role.to_owned(),
        mode: status.mode.clone(),
        forwards: true,
        receives: true,
        enabled: true,
        packet_ins: true,
        up,
        why_down: status.why_down.clone().unwrap_or_default(),
        mtu: seen.map_or(status.mtu, |seen| seen.mtu),
        counters: Some(counters(&counts)),
        ..pb::Port::default()
    };
    let Some(port) = port else { return message };
    let mut message = with_settings(message, port);
    if !port.settings.rates.is_none() {
        let counts = host.dataplane().queue_counts(port.id());
        rates::describe(&mut message, &port.settings.rates, &counts);
    }
    message
}

/// What was set for the port.
fn with_settings(message: pb::Port, port: &Port) -> pb::Port {
    let PortSettings {
        enabled,
        receives,
        forwards,
        packet_ins,
        protected,
        floods,
        mode,
        tag,
        trunks,
        priority_tags,
        rates: _,
    } = &port.settings;
    let vlan = pb::PortVlan {
        mode: mode.name().to_owned(),
        tag: (*tag).into(),
        trunks: trunks.iter().map(|vlan| (*vlan).into()).collect(),
        priority_tags: priority_tags.name().to_owned(),
    };
    let vhost_user = port.kind.vhost().map(|guest| pb::VhostUser {
        socket: guest.socket.clone(),
        listens: guest.listens,
        queues: guest.n_queues.into(),
        mtu: guest.mtu.unwrap_or_default(),
    });
    pb::Port {
        vhost_user,
        logical_port: port.logical_port.clone(),
        peer: port.peer.clone().unwrap_or_default(),
        enabled: *enabled,
        receives: *receives,
        packet_ins: *packet_ins,
        protected: *protected,
        network: port.network.clone(),
        forwards: *forwards,
        floods: *floods,
        vlan: Some(vlan),
        ..message
    }
}

/// Ports that are gone, and not waited for.
pub(super) fn removed_ports(host: &Host) -> Vec<pb::Port> {
    let is_there = |name: &str| host.workload_ports().any(|(interface, _)| interface == name);
    let removed = host.departed().iter().filter(|departed| !is_there(&departed.name));
    let message = |departed: &Departed| pb::Port {
        bridge: host.bridge_name(departed.port.bridge).to_owned(),
        port_no: departed.port.port.get(),
        name: departed.name.clone(),
        role: "removed".to_owned(),
        counters: Some(counters(&departed.counts)),
        ..pb::Port::default()
    };
    removed.map(message).collect()
}

fn counters(counts: &PortCounts) -> pb::PortCounters {
    pb::PortCounters {
        rx_packets: counts.rx_packets,
        rx_bytes: counts.rx_bytes,
        rx_forwarded: counts.rx_forwarded,
        rx_dropped: counts.rx_dropped,
        tx_packets: counts.tx_packets,
        tx_bytes: counts.tx_bytes,
        tx_dropped: counts.tx_dropped_total(),
        rx_kernel_dropped: counts.rx_kernel_dropped,
    }
}

pub(super) fn origin(origin: &Origin) -> pb::Origin {
    pb::Origin {
        logical_flow: origin.logical_flow,
        stage: origin.stage.clone(),
        object: origin.object.clone(),
    }
}

pub(super) fn megaflows(host: &Host, bridges: &[BridgeId]) -> Vec<pb::Megaflow> {
    let of = |id: &BridgeId| {
        let (name, dumped) = (host.bridge_name(*id), host.dataplane().megaflows_of(*id));
        let message = move |(worker, entry): (usize, MegaflowDump)| megaflow(name, worker, &entry);
        dumped.into_iter().map(message)
    };
    bridges.iter().flat_map(of).collect()
}

fn megaflow(bridge: &str, worker: usize, entry: &MegaflowDump) -> pb::Megaflow {
    pb::Megaflow {
        bridge: bridge.to_owned(),
        worker: worker as u32,
        r#match: print_megaflow_match(&entry.key, &entry.mask),
        actions: print_program(&entry.program),
        n_packets: entry.n_packets,
        n_bytes: entry.n_bytes,
        epoch: entry.epoch.get(),
        origins: entry.rules.iter().map(|rule| origin(&rule.origin)).collect(),
    }
}

/// All drops in these bridges, those of ports that are gone included: one row for a port, a
/// reason and an object.
pub(super) fn drops(host: &Host, bridges: &[BridgeId]) -> Vec<pb::Drop> {
    let is_asked = |id: BridgeId| bridges.contains(&id);
    let rows: Vec<_> = host.drops().into_iter().filter(|(id, _)| is_asked(*id)).collect();
    let present = drops_of(host, &rows);
    let departed = host.departed().iter().filter(|departed| is_asked(departed.port.bridge));
    let departed = departed.flat_map(|departed| {
        let message = |row: &DropCount| drop_message(host, departed.port.bridge, departed.name.clone(), row);
        departed.drops.iter().filter(|row| is_counted(row)).map(message)
    });
    let mut rows: BTreeMap<_, pb::Drop> = BTreeMap::new();
    for row in present.into_iter().chain(departed) {
        let origin = row.origin.clone().unwrap_or_default();
        let port = (row.bridge.clone(), row.port.clone());
        let cause = (port, row.reason.clone(), origin.logical_flow, origin.stage, origin.object);
        match rows.get_mut(&cause) {
            Some(same) => {
                same.n_packets += row.n_packets;
                same.n_bytes += row.n_bytes;
                same.n_copies += row.n_copies;
            }
            None => drop(rows.insert(cause, row)),
        }
    }
    rows.into_values().collect()
}

pub(crate) fn drops_of(host: &Host, rows: &[Row]) -> Vec<pb::Drop> {
    let name = |id: BridgeId, row: &DropCount| {
        let known = host.bridge_of(id).and_then(|bridge| bridge.ports().get(row.in_port));
        match known {
            Some(info) => info.name.clone(),
            None if row.in_port.is_real() => {
                // What came in last, before its port went.
                let port = PortId::new(id, row.in_port);
                let departed = host.departed().iter().rev().find(|departed| departed.port == port);
                departed.map_or_else(|| row.in_port.to_string(), |departed| departed.name.clone())
            }
            None if row.in_port == PortNo::CONTROLLER => "CONTROLLER".to_owned(),
            None => String::new(),
        }
    };
    let counted = rows.iter().filter(|(_, row)| is_counted(row));
    counted.map(|(id, row)| drop_message(host, *id, name(*id, row), row)).collect()
}

fn is_counted(row: &DropCount) -> bool {
    row.n_packets + row.n_copies > 0
}

fn drop_message(host: &Host, bridge: BridgeId, port: String, row: &DropCount) -> pb::Drop {
    pb::Drop {
        bridge: host.bridge_name(bridge).to_owned(),
        port,
        reason: row.reason.name().to_owned(),
        description: row.reason.describe().to_owned(),
        origin: row.rule.as_ref().map(|rule| origin(&rule.origin)),
        n_packets: row.n_packets,
        n_bytes: row.n_bytes,
        n_copies: row.n_copies,
        chassis: String::new(),
    }
}
