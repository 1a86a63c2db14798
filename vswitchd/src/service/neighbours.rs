//! Those at the other ends of a bridge's ports, and collectors of flows, as messages.

use std::collections::BTreeMap;

use bridge_protocols::{
    cfm::{EndPoint, Remote},
    lldp::Neighbour,
};
use ferroflow_proto::host as pb;
use flowtable::types::{PortNo, Timestamp};

use super::bridging::name_of;
use crate::{
    bfd::LinkSession,
    host::{Bridge, ExportKind, ExportStatus, Host},
};

type Names = BTreeMap<PortNo, String>;

pub(super) fn lldp(bridge: &Bridge, names: &Names, now: Timestamp) -> Vec<pb::LldpPort> {
    let ports = bridge.neighbours().map(|(port, heard, counters)| pb::LldpPort {
        port: name_of(names, port),
        n_sent: counters.n_sent,
        n_received: counters.n_received,
        n_aged_out: counters.n_aged_out,
        n_refused: counters.n_refused,
        neighbours: heard.into_iter().map(|heard| neighbour(heard, now)).collect(),
    });
    ports.collect()
}

fn neighbour(heard: &Neighbour, now: Timestamp) -> pb::LldpNeighbour {
    let unit = &heard.unit;
    pb::LldpNeighbour {
        chassis_id: unit.chassis.chassis_text(),
        port_id: unit.port.port_text(),
        port_description: unit.port_description.clone(),
        system_name: unit.system_name.clone(),
        system_description: unit.system_description.clone(),
        capabilities: unit.capabilities.map_or(0, |(_, does)| does.into()),
        management: unit.management.iter().map(ToString::to_string).collect(),
        seconds_left: heard.expires.since(now).as_secs(),
    }
}

pub(super) fn cfm(bridge: &Bridge) -> Vec<pb::CfmEnd> {
    bridge.ends().map(|(port, end)| cfm_end(port, end)).collect()
}

fn cfm_end(port: &str, end: &EndPoint) -> pb::CfmEnd {
    let (n_sent, n_received) = end.n_messages();
    pb::CfmEnd {
        port: port.to_owned(),
        id: end.config().mpid.into(),
        level: end.config().level.into(),
        faults: end.faults().iter().map(|fault| fault.name().to_owned()).collect(),
        n_sent,
        n_received,
        remotes: end.remotes().map(remote).collect(),
    }
}

fn remote(remote: &Remote) -> pb::CfmRemote {
    pb::CfmRemote {
        id: remote.mpid.into(),
        address: remote.address.to_string(),
        heard: remote.is_heard,
        remote_defect: remote.rdi,
        n_received: remote.n_messages.0,
        n_lost: remote.n_messages.1,
    }
}

pub(super) fn bfd(host: &Host, bridge: &Bridge, names: &Names) -> Vec<pb::BfdSession> {
    let sessions = host.bfd().links().into_iter();
    let own = sessions.filter(|(port, _)| port.bridge == bridge.id());
    own.map(|(port, session)| bfd_session(name_of(names, port.port), &session)).collect()
}

fn bfd_session(port: String, LinkSession { status, .. }: &LinkSession) -> pb::BfdSession {
    let (remote_state, remote_diagnostic) =
        status.remote.map_or((String::new(), 0), |(state, diagnostic)| (state.name().to_owned(), diagnostic));
    pb::BfdSession {
        port,
        state: status.state.name().to_owned(),
        diagnostic: status.diagnostic.into(),
        remote_state,
        remote_diagnostic: remote_diagnostic.into(),
        local_discriminator: status.discriminators.0,
        remote_discriminator: status.discriminators.1,
        interval: status.pause.as_millis() as u64,
        detection_time: status.detection.as_millis() as u64,
        n_changes: status.n_changes,
    }
}

pub(super) fn flow_export(status: &ExportStatus) -> pb::FlowExport {
    let (kind, set) = match status.kind {
        ExportKind::Netflow => ("netflow", 0),
        ExportKind::Ipfix => ("ipfix", 0),
        ExportKind::IpfixSet(set) => ("ipfix-set", set),
    };
    pb::FlowExport {
        kind: kind.to_owned(),
        set,
        n_flows: status.n_flows,
        n_lost: status.n_lost,
        n_uncounted: status.n_uncounted,
    }
}
