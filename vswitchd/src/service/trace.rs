//! `Trace`: the walk of one described packet, by the code that real packets take.

use ferroflow_proto::host as pb;
use flowtable::{
    drop::DropReason,
    flow::Rule,
    key::FlowKey,
    offload,
    packet::Packet,
    parse::parse,
    pipeline::Translation,
    port::PortRole,
    program::Emit,
    snapshot::Snapshot,
    text::{
        TextError, parse_ct_state, parse_key, print_actions, print_ct_state, print_megaflow_match,
        print_program,
    },
    trace::{Step, StepEvent, Trace, TraceOptions, TracedPass, trace_with},
    tunnel,
    types::{BridgeId, PortNo},
};

use super::{bridges, destinations, dump::origin, hops};
use crate::host::{Host, UPLINK};

/// Longest frame that is traced.
const MAX_FRAME_LEN: usize = 65_535;

/// The packet cannot be traced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("no packet: give a flow, `icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2`, or the bytes of a frame")]
    NoPacket,
    #[error("{0}")]
    Flow(#[from] TextError),
    #[error("{0}")]
    Bridge(String),
    #[error(
        "in_port `{0}`: no port, interface or switch port of this host has this name; vswitchctl port list shows them"
    )]
    NoPort(String),
    #[error("no input port: name one with --in-port, or write in_port=N into the flow")]
    PortMissing,
    #[error("ct_next {index}: {error}")]
    CtNext { index: usize, error: TextError },
    #[error("the frame has {0} bytes; at most {MAX_FRAME_LEN} are traced")]
    TooLong(usize),
}

/// Traces a packet, through all bridges that it comes to.
pub(crate) fn trace(host: &Host, request: pb::TraceRequest) -> Result<pb::TraceResponse, TraceError> {
    let bridge = bridges::of_port(host, &request.bridge, &request.in_port)
        .map_err(|status| TraceError::Bridge(status.message().to_owned()))?;
    let snapshot = host.snapshot_of(bridge);
    let in_port = match request.in_port.as_str() {
        _ if request.from_underlay => Some(UPLINK),
        "" => None,
        name => Some(
            find_port(host, bridge.id(), &snapshot, name)
                .ok_or_else(|| TraceError::NoPort(name.to_owned()))?,
        ),
    };
    let ct_next = request.ct_next.iter().enumerate().map(|(idx, text)| {
        parse_ct_state(text).map_err(|error| TraceError::CtNext { index: idx + 1, error })
    });
    let options = TraceOptions { why: request.why, ct_next: ct_next.collect::<Result<_, _>>()? };
    let parsed = match request.packet.ok_or(TraceError::NoPacket)? {
        pb::trace_request::Packet::Flow(text) => Ok(key_of_flow(&text, in_port, &snapshot)?),
        pb::trace_request::Packet::Frame(bytes) => {
            key_of_frame(bytes, in_port.ok_or(TraceError::PortMissing)?, &snapshot)?
        }
    };
    let seen = Seen { bridge: bridge.name(), snapshot: &snapshot };
    Ok(match parsed {
        Ok(key) => {
            let traced = trace_with(&snapshot, &key, &options);
            let hops = hops::follow(host, (bridge.id(), &key, &traced), &options);
            let leaves = hops::leaves(host, bridge.id(), &traced) || hops.leaves;
            let (tunnelled, outputs) = destinations::of(host, bridge.id(), (&key, &traced));
            pb::TraceResponse {
                tunnelled,
                outputs,
                hops: hops.hops,
                n_omitted_hops: hops.n_omitted,
                ..answer(&seen, &key, (traced, leaves))
            }
        }
        Err(reason) => refused(&seen, in_port, reason),
    })
}

fn find_port(host: &Host, bridge: BridgeId, snapshot: &Snapshot, name: &str) -> Option<PortNo> {
    let mut ports = host.workload_ports().filter(|(_, port)| port.bridge == bridge);
    let by_logical = || ports.find(|(_, port)| port.logical_port == name).map(|(_, port)| port.port);
    let by_number = || PortNo::new(name.parse().ok()?).ok();
    snapshot.ports.by_name(name).or_else(by_logical).or_else(by_number)
}

/// What a packet sees, and by which name that goes.
pub(super) struct Seen<'a> {
    pub(super) bridge: &'a str,
    pub(super) snapshot: &'a Snapshot,
}

fn key_of_flow(text: &str, in_port: Option<PortNo>, snapshot: &Snapshot) -> Result<FlowKey, TraceError> {
    let mut key = parse_key(text, &snapshot.ports)?;
    if let Some(port) = in_port {
        key.in_port.set(port.get());
    }
    if key.in_port.get() == 0 { Err(TraceError::PortMissing) } else { Ok(key) }
}

/// The key a received frame would have; or why it is dropped before the tables.
fn key_of_frame(
    bytes: Vec<u8>,
    in_port: PortNo,
    snapshot: &Snapshot,
) -> Result<Result<FlowKey, DropReason>, TraceError> {
    let len = bytes.len();
    if len > MAX_FRAME_LEN {
        return Err(TraceError::TooLong(len));
    }
    let mut packet = Packet::new(bytes, 0, len, in_port);
    let mut key = FlowKey::zero();
    let is_uplink = snapshot.ports.get(in_port).is_some_and(|port| port.role == PortRole::Uplink);
    let parsed = if is_uplink {
        tunnel::receive(&mut packet, &mut key, (&snapshot.underlay, snapshot.tables.options()))
    } else {
        parse(&mut packet, &mut key).map(|()| offload::detect_partial(&mut packet))
    };
    Ok(parsed.map(|()| key))
}

fn answer(seen: &Seen<'_>, key: &FlowKey, (traced, leaves): (Trace, bool)) -> pb::TraceResponse {
    let pb::TraceHop { bridge, steps, drop, megaflow, passes, n_omitted_passes, .. } = hop(seen, key, traced);
    let verdict = if leaves { "forwarded" } else { "dropped" }.to_owned();
    pb::TraceResponse {
        verdict,
        drop,
        megaflow,
        passes,
        n_omitted_passes,
        steps,
        bridge,
        ..pb::TraceResponse::default()
    }
}

/// What one bridge makes of a packet.
pub(super) fn hop(seen: &Seen<'_>, key: &FlowKey, traced: Trace) -> pb::TraceHop {
    pb::TraceHop {
        bridge: seen.bridge.to_owned(),
        drop: cause(seen, key, &traced.translation),
        megaflow: Some(megaflow(seen, key, &traced.translation)),
        passes: traced.passes.into_iter().map(|pass| later(seen, key, pass)).collect(),
        n_omitted_passes: traced.n_omitted_passes as u64,
        steps: traced.steps.into_iter().map(step).collect(),
        ..pb::TraceHop::default()
    }
}

/// A pass after the first.
fn later(seen: &Seen<'_>, first: &FlowKey, pass: TracedPass) -> pb::TracePass {
    let message = pb::TracePass {
        recirc_id: pass.recirc_id,
        ct_state: pass.assumed.map(print_ct_state).unwrap_or_default(),
        asked: pass.is_asked,
        ..pb::TracePass::default()
    };
    match pass.outcome {
        Ok(passed) => pb::TracePass {
            drop: cause(seen, &passed.key, &passed.translation),
            megaflow: Some(megaflow(seen, &passed.key, &passed.translation)),
            steps: passed.steps.into_iter().map(step).collect(),
            ..message
        },
        Err(reason) => {
            let in_port = PortNo::new(first.in_port.get()).ok();
            pb::TracePass { drop: Some(drop_of(seen, in_port, reason)), ..message }
        }
    }
}

/// Why nothing leaves.
fn cause(seen: &Seen<'_>, key: &FlowKey, translation: &Translation) -> Option<pb::Drop> {
    let program = &translation.program;
    let dropped = program.drop.as_ref().filter(|_| program.emits.iter().all(Emit::is_mirrored));
    dropped.map(|cause| pb::Drop {
        origin: cause.rule.as_ref().map(|rule| origin(&rule.origin)),
        ..drop_of(seen, PortNo::new(key.in_port.get()).ok(), cause.reason)
    })
}

/// The cache entry that such a packet makes.
fn megaflow(seen: &Seen<'_>, key: &FlowKey, translation: &Translation) -> pb::Megaflow {
    pb::Megaflow {
        r#match: print_megaflow_match(key, &translation.mask),
        actions: print_program(&translation.program),
        epoch: seen.snapshot.epoch.get(),
        bridge: seen.bridge.to_owned(),
        origins: translation.rules.iter().map(|rule| origin(&rule.origin)).collect(),
        ..pb::Megaflow::default()
    }
}

fn refused(seen: &Seen<'_>, in_port: Option<PortNo>, reason: DropReason) -> pb::TraceResponse {
    pb::TraceResponse {
        bridge: seen.bridge.to_owned(),
        verdict: "dropped".to_owned(),
        drop: Some(drop_of(seen, in_port, reason)),
        ..pb::TraceResponse::default()
    }
}

pub(super) fn drop_of(seen: &Seen<'_>, in_port: Option<PortNo>, reason: DropReason) -> pb::Drop {
    let name = in_port.and_then(|port| seen.snapshot.ports.get(port)).map(|info| info.name.clone());
    pb::Drop {
        bridge: seen.bridge.to_owned(),
        port: name.unwrap_or_default(),
        reason: reason.name().to_owned(),
        description: reason.describe().to_owned(),
        ..pb::Drop::default()
    }
}

fn step(step: Step) -> pb::TraceStep {
    let depth = step.depth as u32;
    match step.event {
        StepEvent::Hit(rule) => {
            pb::TraceStep { actions: print_actions(&rule.actions), ..of_rule(depth, &rule) }
        }
        StepEvent::Lost(rule, why) => pb::TraceStep { note: why, lost: true, ..of_rule(depth, &rule) },
        StepEvent::Miss(table) => {
            pb::TraceStep { depth, table: Some(table.get().into()), ..pb::TraceStep::default() }
        }
        StepEvent::Note(note) => pb::TraceStep { depth, note, ..pb::TraceStep::default() },
    }
}

fn of_rule(depth: u32, rule: &Rule) -> pb::TraceStep {
    pb::TraceStep {
        depth,
        table: Some(rule.table.get().into()),
        priority: Some(rule.priority.get().into()),
        r#match: rule.matching.to_string(),
        origin: Some(origin(&rule.origin)),
        ..pb::TraceStep::default()
    }
}
