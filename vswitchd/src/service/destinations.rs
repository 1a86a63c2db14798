//! Where a traced packet leaves the host: by ports, and through tunnels, as it is on the underlay,
//! so that the trace can go on at the other host.

use std::collections::BTreeSet;

use dataplane::PortId;
use ferroflow_proto::host as pb;
use flowtable::{
    key::FlowKey,
    program::Emit,
    trace::{Trace, leaving},
    types::{BridgeId, PortNo},
};

use super::hops::passes_of;
use crate::host::Host;

/// Copies for other hosts, and ports of this one.
pub(super) fn of(
    host: &Host,
    bridge: BridgeId,
    (key, traced): (&FlowKey, &Trace),
) -> (Vec<pb::TunnelledCopy>, Vec<pb::TracedOutput>) {
    let (mut copies, mut ports) = (Vec::new(), BTreeSet::new());
    for (key, translation) in passes_of(traced, key) {
        for emit in translation.program.emits.iter().filter(|emit| emit.ct.is_none()) {
            match (&emit.tunnel, emit.port) {
                (Some(_), _) => copies.extend(copy(&key, emit)),
                // Questions to the host have steps of their own.
                (None, port) if port.is_real() => drop(ports.insert(port)),
                (None, _) => {}
            }
        }
    }
    (copies, ports.into_iter().map(|port| output(host, PortId::new(bridge, port))).collect())
}

/// One that does not get out says so in its steps.
fn copy(key: &FlowKey, emit: &Emit) -> Option<pb::TunnelledCopy> {
    let frame = leaving(key, emit).ok()?;
    let peer = emit.tunnel.as_ref()?.remote.to_string();
    Some(pb::TunnelledCopy { peer, frame })
}

fn output(host: &Host, id: PortId) -> pb::TracedOutput {
    let known = host.workload_ports().find(|(_, port)| port.id() == id);
    let (port, logical_port) = match known {
        Some((name, port)) => (name.to_owned(), port.logical_port.clone()),
        None => (PortNo::to_string(&id.port), String::new()),
    };
    pb::TracedOutput { port, logical_port }
}
