//! Tracing one packet: the same walk as any packet's, with its steps written down.
//!
//! Nothing is sent and no counter moves. A packet that comes back from the connection
//! tracker is traced on (`passes.rs`), with what the tracker would say assumed. Asked why,
//! a trace also tells which other rules there were (`why.rs`).

mod passes;
mod recorder;
mod why;

use std::sync::Arc;

use crate::{
    build,
    drop::DropReason,
    execute,
    flow::Rule,
    key::FlowKey,
    packet::Packet,
    parse::parse,
    pipeline::Translation,
    program::Emit,
    snapshot::Snapshot,
    types::{PortNo, TableId},
};

/// One thing that happened on the walk.
#[derive(Debug, Clone)]
pub struct Step {
    /// Nesting: what a rule's actions lead to is one deeper than the rule.
    pub depth: usize,
    /// What it was.
    pub event: StepEvent,
}

/// What can happen on a walk.
#[derive(Debug, Clone)]
pub enum StepEvent {
    /// A rule of its table matched.
    Hit(Arc<Rule>),
    /// No rule of this table matched.
    Miss(TableId),
    /// Another rule of the table, and why it was not the one.
    Lost(Arc<Rule>, String),
    /// Something else, in one line.
    Note(String),
}

/// What is asked of a trace, and what it shall assume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceOptions {
    /// Tell why other rules were not the ones.
    pub why: bool,
    /// State bits of the connection in the second pass, the third and so on. When they run
    /// out: a new connection.
    pub ct_next: Vec<u16>,
}

/// A traced packet.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The steps of the first pass, in order.
    pub steps: Vec<Step>,
    /// Steps that were too many to keep.
    pub n_omitted: usize,
    /// Program, mask and rules of the first pass, as the caches would hold them.
    pub translation: Translation,
    /// What comes back from the connection tracker, in the order in which that happens.
    pub passes: Vec<TracedPass>,
    /// Passes that were too many to trace.
    pub n_omitted_passes: usize,
}

/// A packet that came back from the connection tracker.
#[derive(Debug, Clone)]
pub struct TracedPass {
    /// Number by which the program before names it.
    pub recirc_id: u32,
    /// State bits that were assumed; `None`: this pass does not learn them.
    pub assumed: Option<u16>,
    /// They were asked for, not the default.
    pub is_asked: bool,
    /// What came of it, or why it did not come back.
    pub outcome: Result<Passed, DropReason>,
}

/// A later pass.
#[derive(Debug, Clone)]
pub struct Passed {
    /// The packet as it came back.
    pub key: FlowKey,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Program, mask and rules, as the caches would hold them.
    pub translation: Translation,
}

impl Trace {
    /// Something leaves by a port, or goes to a controller.
    pub fn leaves(&self) -> bool {
        let leaves = |translation: &Translation| {
            let mut emits = translation.program.emits.iter();
            emits.any(|emit| emit.forwards() && emit.ct.is_none())
        };
        let mut later = self.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
        leaves(&self.translation) || later.any(|passed| leaves(&passed.translation))
    }
}

/// Traces a packet with this key, by the usual assumptions.
pub fn trace(snapshot: &Snapshot, key: &FlowKey) -> Trace {
    trace_with(snapshot, key, &TraceOptions::default())
}

/// Traces a packet with this key.
pub fn trace_with(snapshot: &Snapshot, key: &FlowKey, options: &TraceOptions) -> Trace {
    passes::trace(snapshot, key, options)
}

/// The key of the copy that an emit makes of a packet, where it comes in next: at a port of
/// another bridge.
///
/// # Errors
/// Why it does not get there.
pub fn arriving(key: &FlowKey, emit: &Emit, in_port: PortNo) -> Result<FlowKey, DropReason> {
    let mut packet = copy(key, emit, in_port)?;
    let mut arrived = FlowKey::zero();
    parse(&mut packet, &mut arrived)?;
    arrived.set_frame_len(packet.len());
    Ok(arrived)
}

/// The frame that an emit makes of the shortest packet with a key: of one that is tunnelled, as it
/// is on the underlay.
///
/// # Errors
/// Why it does not leave.
pub fn leaving(key: &FlowKey, emit: &Emit) -> Result<Vec<u8>, DropReason> {
    Ok(copy(key, emit, PortNo::ZERO)?.bytes().to_vec())
}

fn copy(key: &FlowKey, emit: &Emit, in_port: PortNo) -> Result<Packet<Vec<u8>>, DropReason> {
    let mut packet = build::packet(&build::frame_from_key(key, 0), in_port);
    parse(&mut packet, &mut FlowKey::zero())?;
    execute::apply(&mut packet, emit, 0)?;
    Ok(packet)
}

#[cfg(test)]
mod tests;
