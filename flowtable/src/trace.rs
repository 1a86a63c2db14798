//! Tracing one packet: the same walk as any packet's, with its steps written down.
//!
//! Nothing is sent and no counter moves.

use std::{fmt, sync::Arc};

use crate::{
    flow::Rule,
    key::FlowKey,
    pipeline::{self, Tracer, Translation},
    snapshot::Snapshot,
    types::TableId,
};

/// Steps that are kept; a walk within its limits can have more than anyone reads.
const MAX_STEPS: usize = 10_000;

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
    /// Something else, in one line.
    Note(String),
}

/// A traced walk.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Steps that were too many to keep.
    pub n_omitted: usize,
    /// Program, mask and rules, as the caches would hold them.
    pub translation: Translation,
}

/// Traces a packet with this key.
pub fn trace(snapshot: &Snapshot, key: &FlowKey) -> Trace {
    let mut recorder = Recorder::default();
    let translation = pipeline::translate(snapshot, key, &mut recorder);
    Trace { steps: recorder.steps, n_omitted: recorder.n_omitted, translation }
}

/// The tracer that writes steps down.
#[derive(Debug, Default)]
struct Recorder {
    steps: Vec<Step>,
    n_omitted: usize,
}

impl Recorder {
    fn record(&mut self, depth: usize, event: impl FnOnce() -> StepEvent) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(Step { depth, event: event() });
        } else {
            self.n_omitted += 1;
        }
    }
}

impl Tracer for Recorder {
    fn lookup(&mut self, depth: usize, table: TableId, rule: Option<&Arc<Rule>>) {
        self.record(depth, || rule.map_or(StepEvent::Miss(table), |rule| StepEvent::Hit(Arc::clone(rule))));
    }

    fn note(&mut self, depth: usize, note: fmt::Arguments<'_>) {
        self.record(depth, || StepEvent::Note(note.to_string()));
    }
}
