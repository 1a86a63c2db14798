//! Traces through links between bridges: what leaves one by a link is traced on in the next,
//! by the code that changes and parses real packets.

use std::collections::VecDeque;

use dataplane::PortId;
use ferroflow_proto::host as pb;
use flowtable::{
    drop::DropReason,
    key::FlowKey,
    pipeline::Translation,
    trace::{Trace, TraceOptions, arriving, trace_with},
    types::{BridgeId, PortNo},
};

use super::trace::{Seen, drop_of, hop};
use crate::host::Host;

/// Links that one packet crosses.
const MAX_DEPTH: usize = 16;
/// Walks that are traced behind links.
const MAX_HOPS: usize = 64;

/// What became of a packet behind links.
#[derive(Debug, Default)]
pub(super) struct Hops {
    pub(super) hops: Vec<pb::TraceHop>,
    /// Something leaves there.
    pub(super) leaves: bool,
    pub(super) n_omitted: u64,
}

/// A copy on its way into another bridge.
struct Crossing {
    from: PortId,
    to: PortId,
    arrived: Result<FlowKey, DropReason>,
    depth: usize,
}

/// Follows what leaves a bridge by links.
pub(super) fn follow(host: &Host, first: (BridgeId, &FlowKey, &Trace), options: &TraceOptions) -> Hops {
    let mut queue = VecDeque::from(crossings(host, first, 1));
    let mut done = Hops::default();
    // What the tracker says is told for the first bridge.
    let options = TraceOptions { ct_next: Vec::new(), ..options.clone() };
    while let Some(crossing) = queue.pop_front() {
        if done.hops.len() >= MAX_HOPS || crossing.depth > MAX_DEPTH {
            done.n_omitted += 1;
            continue;
        }
        let Some(bridge) = host.bridge_of(crossing.to.bridge) else { continue };
        let snapshot = host.snapshot_of(bridge);
        let seen = Seen { bridge: bridge.name(), snapshot: &snapshot };
        let traced = match crossing.arrived {
            Ok(key) => {
                let traced = trace_with(&snapshot, &key, &options);
                queue.extend(crossings(host, (crossing.to.bridge, &key, &traced), crossing.depth + 1));
                done.leaves |= leaves(host, crossing.to.bridge, &traced);
                hop(&seen, &key, traced)
            }
            Err(reason) => pb::TraceHop {
                bridge: seen.bridge.to_owned(),
                drop: Some(drop_of(&seen, Some(crossing.to.port), reason)),
                ..pb::TraceHop::default()
            },
        };
        let (in_port, from) = (name_of(host, crossing.to), name_of(host, crossing.from));
        done.hops.push(pb::TraceHop { in_port, from, ..traced });
    }
    done
}

/// Something leaves by a port that is no link.
pub(super) fn leaves(host: &Host, bridge: BridgeId, traced: &Trace) -> bool {
    passes_of(traced, &FlowKey::zero()).into_iter().any(|(_, translation)| {
        let mut emits = translation.program.emits.iter();
        emits.any(|emit| emit.ct.is_none() && host.peer_of(PortId::new(bridge, emit.port)).is_none())
    })
}

/// Copies that leave by links.
fn crossings(
    host: &Host,
    (bridge, key, traced): (BridgeId, &FlowKey, &Trace),
    depth: usize,
) -> Vec<Crossing> {
    let mut found = Vec::new();
    for (key, translation) in passes_of(traced, key) {
        for emit in translation.program.emits.iter().filter(|emit| emit.ct.is_none()) {
            let from = PortId::new(bridge, emit.port);
            let Some(to) = host.peer_of(from) else { continue };
            found.push(Crossing { from, to, arrived: arriving(&key, emit, to.port), depth });
        }
    }
    found
}

/// All passes with the packets as they came to them.
pub(super) fn passes_of<'a>(traced: &'a Trace, key: &FlowKey) -> Vec<(FlowKey, &'a Translation)> {
    let later = traced.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
    let later = later.map(|passed| (passed.key, &passed.translation));
    [(*key, &traced.translation)].into_iter().chain(later).collect()
}

fn name_of(host: &Host, id: PortId) -> String {
    let ports = host.bridge_of(id.bridge).map(|bridge| bridge.ports());
    let name = ports.and_then(|ports| ports.get(id.port)).map(|info| info.name.clone());
    name.unwrap_or_else(|| PortNo::to_string(&id.port))
}
