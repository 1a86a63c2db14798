//! The switch's state as messages.

use std::collections::BTreeMap;

use dataplane::{PortCounts, PortStatus, WorkerStatus};
use ferroflow_proto::host as pb;
use flowtable::{
    cache::MegaflowDump,
    flow::Origin,
    port::PortRole,
    stats::DropCount,
    text::{print_megaflow_match, print_program},
    types::PortNo,
};

use crate::host::{Departed, GatewayStatus, Host, Port, PortSettings, TUNNEL, TUNNEL_NAME};

pub(super) fn status(host: &Host) -> pb::GetStatusResponse {
    let identity = host.identity();
    let snapshot = host.snapshot();
    pb::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        chassis: identity.chassis.clone(),
        encap_ip: identity.endpoint.as_ref().map(|(_, ip)| ip.to_string()).unwrap_or_default(),
        controller_connected: host.is_connected(),
        controller: identity.controller.clone().unwrap_or_default(),
        applied_revision: host.applied_revision(),
        epoch: snapshot.epoch.get(),
        n_rules: snapshot.tables.len() as u64,
        workers: host.dataplane().workers().iter().map(worker).collect(),
        errors: host.errors(),
        gateways: host.gateway_status().into_iter().map(gateway).collect(),
    }
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
    }
}

/// All ports: attached ones with their counters, the tunnel, and those waited for.
pub(super) fn ports(host: &Host) -> Vec<pb::Port> {
    let (statuses, snapshot) = (host.dataplane().ports(), host.snapshot());
    let logical: BTreeMap<_, _> =
        host.workload_ports().map(|(interface, port)| (port.port, (interface, port))).collect();
    let mut ports: Vec<_> = statuses
        .iter()
        .map(|status| {
            let port = logical.get(&status.port).map(|(_, port)| *port);
            let is_uplink = host.uplink() == Some(&status.name);
            // Link and MTU as packets meet them.
            let seen = snapshot.ports.get(status.port);
            let up = match port {
                Some(port) if !port.settings.forwards => status.up,
                Some(_) | None => seen.is_some_and(|seen| seen.up),
            };
            let mut counts = host.counted_before(&status.name);
            counts += status.counters;
            let mtu = seen.map_or(status.mtu, |seen| seen.mtu);
            let message =
                pb::Port { up, mtu, counters: Some(counters(&counts)), ..attached(status, is_uplink) };
            port.map_or(message.clone(), |port| with_settings(message, port))
        })
        .collect();
    let tunnel = snapshot.ports.get(TUNNEL).filter(|port| port.role == PortRole::Tunnel);
    if let Some(tunnel) = tunnel {
        ports.push(pb::Port {
            port_no: TUNNEL.get(),
            name: TUNNEL_NAME.to_owned(),
            kind: "geneve".to_owned(),
            role: "tunnel".to_owned(),
            up: tunnel.up,
            mtu: tunnel.mtu,
            ..pb::Port::default()
        });
    }
    let waiting =
        logical.iter().filter(|(_, (_, port))| !port.is_attached()).map(|(number, (interface, port))| {
            let message = pb::Port {
                port_no: number.get(),
                name: (*interface).to_owned(),
                kind: "afxdp".to_owned(),
                role: "workload".to_owned(),
                counters: Some(counters(&host.counted_before(interface))),
                ..pb::Port::default()
            };
            with_settings(message, port)
        });
    ports.extend(waiting);
    ports.sort_by_key(|port| port.port_no);
    ports
}

/// What was set for the port.
fn with_settings(message: pb::Port, port: &Port) -> pb::Port {
    let PortSettings { forwards, floods, mode, tag, trunks } = &port.settings;
    let vlan = pb::PortVlan {
        mode: mode.name().to_owned(),
        tag: (*tag).into(),
        trunks: trunks.iter().map(|vlan| (*vlan).into()).collect(),
    };
    pb::Port {
        logical_port: port.logical_port.clone(),
        network: port.network.clone(),
        forwards: *forwards,
        floods: *floods,
        vlan: Some(vlan),
        ..message
    }
}

fn attached(status: &PortStatus, is_uplink: bool) -> pb::Port {
    pb::Port {
        port_no: status.port.get(),
        name: status.name.clone(),
        kind: status.kind.to_owned(),
        role: if is_uplink { "uplink" } else { "workload" }.to_owned(),
        mode: status.mode.clone(),
        forwards: true,
        ..pb::Port::default()
    }
}

/// Ports that are gone, and not waited for.
pub(super) fn removed_ports(host: &Host) -> Vec<pb::Port> {
    let is_there = |name: &str| host.workload_ports().any(|(interface, _)| interface == name);
    let removed = host.departed().iter().filter(|departed| !is_there(&departed.name));
    let message = |departed: &Departed| pb::Port {
        port_no: departed.port.get(),
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

pub(super) fn megaflows(host: &Host) -> Vec<pb::Megaflow> {
    let dumped = host.dataplane().megaflows();
    dumped.iter().map(|(worker, entry)| megaflow(*worker, entry)).collect()
}

fn megaflow(worker: usize, entry: &MegaflowDump) -> pb::Megaflow {
    pb::Megaflow {
        worker: worker as u32,
        r#match: print_megaflow_match(&entry.key, &entry.mask),
        actions: print_program(&entry.program),
        n_packets: entry.n_packets,
        n_bytes: entry.n_bytes,
        epoch: entry.epoch.get(),
        origins: entry.rules.iter().map(|rule| origin(&rule.origin)).collect(),
    }
}

/// All drops, those of ports that are gone included: one row for a port, a reason and an
/// object.
pub(super) fn drops(host: &Host) -> Vec<pb::Drop> {
    let present = drops_of(host, &host.drops());
    let departed = host.departed().iter().flat_map(|departed| {
        let message = |row: &DropCount| drop_message(departed.name.clone(), row);
        departed.drops.iter().filter(|row| is_counted(row)).map(message)
    });
    let mut rows: BTreeMap<_, pb::Drop> = BTreeMap::new();
    for row in present.into_iter().chain(departed) {
        let origin = row.origin.clone().unwrap_or_default();
        let cause = (row.port.clone(), row.reason.clone(), origin.logical_flow, origin.stage, origin.object);
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

pub(super) fn drops_of(host: &Host, rows: &[DropCount]) -> Vec<pb::Drop> {
    let snapshot = host.snapshot();
    let name = |row: &DropCount| match snapshot.ports.get(row.in_port) {
        Some(info) => info.name.clone(),
        None if row.in_port.is_real() => {
            // What came in last, before its port went.
            let departed = host.departed().iter().rev().find(|departed| departed.port == row.in_port);
            departed.map_or_else(|| row.in_port.to_string(), |departed| departed.name.clone())
        }
        None if row.in_port == PortNo::CONTROLLER => "CONTROLLER".to_owned(),
        None => String::new(),
    };
    rows.iter().filter(|row| is_counted(row)).map(|row| drop_message(name(row), row)).collect()
}

fn is_counted(row: &DropCount) -> bool {
    row.n_packets + row.n_copies > 0
}

fn drop_message(port: String, row: &DropCount) -> pb::Drop {
    pb::Drop {
        port,
        reason: row.reason.name().to_owned(),
        description: row.reason.describe().to_owned(),
        origin: row.rule.as_ref().map(|rule| origin(&rule.origin)),
        n_packets: row.n_packets,
        n_bytes: row.n_bytes,
        n_copies: row.n_copies,
    }
}
