//! The tracer that writes steps down.

use std::{fmt, sync::Arc};

use super::{Step, StepEvent, why};
use crate::{flow::Rule, key::FlowKey, pipeline::Tracer, snapshot::Snapshot, types::TableId};

/// Steps that are kept; a walk within its limits can have more than anyone reads.
const MAX_STEPS: usize = 10_000;

/// The tracer that writes steps down.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    snapshot: &'a Snapshot,
    /// Tell why other rules were not the ones.
    why: bool,
    /// The packet as the table that is looked up next sees it.
    seen: FlowKey,
    pub(super) steps: Vec<Step>,
    pub(super) n_omitted: usize,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, why: bool) -> Self {
        Self { snapshot, why, seen: FlowKey::zero(), steps: Vec::new(), n_omitted: 0 }
    }

    fn record(&mut self, depth: usize, event: impl FnOnce() -> StepEvent) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(Step { depth, event: event() });
        } else {
            self.n_omitted += 1;
        }
    }
}

impl Tracer for Recorder<'_> {
    fn sees(&mut self, key: &FlowKey) {
        if self.why {
            self.seen = *key;
        }
    }

    fn lookup(&mut self, depth: usize, table: TableId, rule: Option<&Arc<Rule>>) {
        self.record(depth, || rule.map_or(StepEvent::Miss(table), |rule| StepEvent::Hit(Arc::clone(rule))));
        if !self.why || self.n_omitted > 0 {
            return;
        }
        let lost = why::lost(&self.snapshot.tables, (table, rule), &self.seen);
        for (rule, reason) in lost.rules {
            self.record(depth + 1, || StepEvent::Lost(rule, reason));
        }
        if lost.n_omitted > 0 {
            let n = lost.n_omitted;
            self.record(depth + 1, || {
                StepEvent::Note(format!("{n} more rules of table {table} do not match"))
            });
        }
    }

    fn note(&mut self, depth: usize, note: fmt::Arguments<'_>) {
        self.record(depth, || StepEvent::Note(note.to_string()));
    }
}
