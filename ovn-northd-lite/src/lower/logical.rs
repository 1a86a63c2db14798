//! Logical flows: a rule for each match that a flow's expression needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowtable::{
    field::Field,
    flow::{Action, Match, Origin},
    types::{Priority, TableId},
};

use super::{
    CONTINUATION, Context, LOG_EGRESS, LOG_INGRESS, N_EGRESS_STAGES, N_INGRESS_STAGES, REMOTE_OUTPUT,
    SAVE_INPORT,
    rules::{Head, RuleSet},
    sets::Sets,
};
use crate::{
    actions,
    expr::{self, Matches},
    key::{DatapathKey, hash32},
    southbound::{LogicalFlow, Pipeline},
};

pub(super) fn build(context: &Context<'_>, sets: &Sets<'_>, rules: &mut RuleSet) {
    let numbers = numbers(context.view.flows.iter());
    for (id, flow) in &context.view.flows {
        let number = numbers.get(id).copied().unwrap_or(0);
        if let Err(reason) = lower((context, sets), rules, (*id, number), flow) {
            let object = if flow.object.is_empty() { &flow.stage_name } else { &flow.object };
            rules.error(object, format!("{}: {reason}", flow.stage_name));
        }
    }
}

/// # Errors
/// Says what about the flow cannot be realised. With an error in the actions its rules
/// drop. With one in the match there is no rule, unless the flow drops: then everything
/// in the stage is dropped at its priority.
fn lower(
    (context, sets): (&Context<'_>, &Sets<'_>),
    rules: &mut RuleSet,
    (id, number): (u64, u32),
    flow: &LogicalFlow,
) -> Result<(), String> {
    let table = stage_table(flow.pipeline, flow.stage)
        .ok_or_else(|| format!("there is no table for stage {}", flow.stage))?;
    let ports = |name: &str| context.key(flow.datapath, name);
    let in_match = |error: expr::ExprError| format!("match `{}`: {error}", flow.matching);
    let is_router = context.view.datapaths.get(&flow.datapath).is_some_and(|datapath| datapath.is_router);
    let (lowered, mut error) = match actions_of(flow, (table, number, is_router), &ports) {
        Ok(lowered) => (lowered, None),
        Err(reason) => (actions::Lowered::default(), Some(reason)),
    };
    let mut actions = lowered.actions;
    let members = |name: expr::SetName<'_>| context.set(name);
    let named = |name: expr::SetName<'_>, kind, negated| sets.name(flow.datapath, name, kind, negated);
    let is_here = |port: &str| super::is_resident(context.view, context.local, port);
    let parsed = expr::parse(&flow.matching).map(|expr| expr.with_residents(&is_here));
    let parsed = parsed.and_then(|expr| expr.with_odd_sets(&members));
    let matches = match parsed.and_then(|expr| expr.to_matches_by_clause(&ports, &named)) {
        Ok(matches) => matches,
        Err(reason) if denies(&actions) => {
            error = Some(in_match(reason));
            actions.clear();
            vec![Matches::Any(vec![Match::any()])]
        }
        Err(reason) => return Err(in_match(reason)),
    };
    let origin =
        Arc::new(Origin { logical_flow: id, stage: flow.stage_name.clone(), object: flow.object.clone() });
    let can_match = matches.iter().any(|matches| !matches.is_empty());
    if can_match {
        lowered.groups.into_iter().for_each(|group| rules.group(group));
        for continuation in lowered.continuations {
            let head = Head {
                table: CONTINUATION,
                priority: flow.priority,
                matching: continuation.matching.with(Field::Metadata, flow.datapath.get().into()),
                cookie: id,
                origin: Arc::clone(&origin),
            };
            rules.add(head, continuation.actions);
        }
    }
    let place = Place { table, priority: flow.priority, datapath: flow.datapath, cookie: id, origin };
    for (idx, matches) in matches.into_iter().enumerate() {
        place.add(rules, matches, &actions, idx);
    }
    error.map_or(Ok(()), Err)
}

/// A packet ends here: nothing is done with it, or only its connection is marked and its
/// sender told.
fn denies(actions: &[Action]) -> bool {
    actions.iter().all(|action| match action {
        Action::Ct(ct) => ct.table.is_none(),
        Action::Controller(_) | Action::Meter(_) => true,
        Action::Clone(actions) => denies(actions),
        _ => false,
    })
}

/// Where the rules of a flow are.
struct Place {
    table: TableId,
    priority: Priority,
    datapath: DatapathKey,
    cookie: u64,
    origin: Arc<Origin>,
}

impl Place {
    /// Adds the rules for some matches of the flow, those with number `idx`.
    fn add(&self, rules: &mut RuleSet, matches: Matches, actions: &[Action], idx: usize) {
        match matches {
            Matches::Any(list) => {
                list.into_iter().for_each(|matching| rules.add(self.head(matching), actions.to_vec()));
            }
            Matches::All { clauses, .. } if clauses.iter().any(Vec::is_empty) => {}
            Matches::All { clauses, common } => {
                let id = rules.conjunction(self.cookie, idx);
                let n_clauses = clauses.len() as u8;
                for (list, clause) in clauses.into_iter().zip(1..) {
                    for matching in list {
                        let part = Action::Conjunction { id, clause, n_clauses };
                        rules.add(self.head(matching), vec![part]);
                    }
                }
                rules.add(self.head(common.with(Field::ConjId, id.into())), actions.to_vec());
            }
        }
    }

    fn head(&self, matching: Match) -> Head {
        Head {
            table: self.table,
            priority: self.priority,
            matching: matching.with(Field::Metadata, self.datapath.get().into()),
            cookie: self.cookie,
            origin: Arc::clone(&self.origin),
        }
    }
}

fn actions_of(
    flow: &LogicalFlow,
    (table, number, is_router): (TableId, u32, bool),
    ports: expr::Resolver<'_>,
) -> Result<actions::Lowered, String> {
    let in_actions = |reason: String| format!("actions `{}`: {reason}", flow.actions);
    let statements = actions::parse(&flow.actions).map_err(|error| in_actions(error.to_string()))?;
    let stage = |pipeline: Option<Pipeline>, stage: Option<u8>| {
        stage_table(pipeline.unwrap_or(flow.pipeline), stage.or(flow.stage.checked_add(1))?)
    };
    let output = match flow.pipeline {
        Pipeline::Ingress => REMOTE_OUTPUT,
        Pipeline::Egress => SAVE_INPORT,
    };
    let flow = actions::Flow { ports, table, stage: &stage, output, is_router, number };
    actions::lower(&statements, &flow).map_err(in_actions)
}

/// A number for each flow that has a group or has packets made: it depends on the flow's
/// place and match alone, so that a group stays the same one while its members change.
fn numbers<'a>(flows: impl Iterator<Item = (&'a u64, &'a Arc<LogicalFlow>)>) -> BTreeMap<u64, u32> {
    let mut taken = BTreeSet::new();
    let needs_one = |flow: &LogicalFlow| flow.actions.contains(['(', '{']);
    flows
        .filter(|(_, flow)| needs_one(flow))
        .map(|(id, flow)| {
            let place =
                [flow.datapath.get(), flow.pipeline as u32, flow.stage.into(), flow.priority.get().into()];
            let place = place.iter().flat_map(|number| number.to_be_bytes());
            let bytes: Vec<_> = place.chain(flow.matching.bytes()).collect();
            let mut number = hash32(&bytes) >> 1;
            while number == 0 || !taken.insert(number) {
                number = (number + 1) & 0x7fff_ffff;
            }
            (*id, number)
        })
        .collect()
}

/// Table of a stage of ingress, if it has one.
pub(super) fn ingress_table(stage: u8) -> Option<TableId> {
    stage_table(Pipeline::Ingress, stage)
}

/// Table of a stage, if it has one.
fn stage_table(pipeline: Pipeline, stage: u8) -> Option<TableId> {
    let (first, n_stages) = match pipeline {
        Pipeline::Ingress => (LOG_INGRESS, N_INGRESS_STAGES),
        Pipeline::Egress => (LOG_EGRESS, N_EGRESS_STAGES),
    };
    Some(stage).filter(|stage| *stage < n_stages).and_then(|stage| TableId::new(first.get() + stage).ok())
}
