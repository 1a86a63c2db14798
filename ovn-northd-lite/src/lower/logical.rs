//! Logical flows: a rule for each match that a flow's expression needs.

use std::sync::Arc;

use flowtable::{
    field::Field,
    flow::{Action, Origin},
    types::TableId,
};

use super::{
    Context, LOG_EGRESS, LOG_INGRESS, N_EGRESS_STAGES, N_INGRESS_STAGES, REMOTE_OUTPUT, SAVE_INPORT,
    rules::{Head, RuleSet},
};
use crate::{
    actions, expr,
    southbound::{LogicalFlow, Pipeline},
};

pub(super) fn build(context: &Context<'_>, rules: &mut RuleSet) {
    for (id, flow) in &context.view.flows {
        if let Err(reason) = lower(context, rules, *id, flow) {
            let object = if flow.object.is_empty() { &flow.stage_name } else { &flow.object };
            rules.error(object, format!("{}: {reason}", flow.stage_name));
        }
    }
}

/// # Errors
/// Says what about the flow cannot be realised. With an error in the match there is no
/// rule, with one in the actions there are rules that drop.
fn lower(context: &Context<'_>, rules: &mut RuleSet, id: u64, flow: &LogicalFlow) -> Result<(), String> {
    let table = stage_table(flow.pipeline, flow.stage)
        .ok_or_else(|| format!("there is no table for stage {}", flow.stage))?;
    let ports = |name: &str| context.key(flow.datapath, name);
    let in_match = |error: expr::ExprError| format!("match `{}`: {error}", flow.matching);
    let matches = expr::parse(&flow.matching).and_then(|expr| expr.to_matches(&ports)).map_err(in_match)?;
    let (actions, error) = match actions_of(flow, table, &ports) {
        Ok(actions) => (actions, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let origin =
        Arc::new(Origin { logical_flow: id, stage: flow.stage_name.clone(), object: flow.object.clone() });
    for matching in matches {
        let head = Head {
            table,
            priority: flow.priority,
            matching: matching.with(Field::Metadata, flow.datapath.get().into()),
            cookie: id,
            origin: Arc::clone(&origin),
        };
        rules.add(head, actions.clone());
    }
    error.map_or(Ok(()), Err)
}

fn actions_of(flow: &LogicalFlow, table: TableId, ports: expr::Resolver<'_>) -> Result<Vec<Action>, String> {
    let in_actions = |reason: String| format!("actions `{}`: {reason}", flow.actions);
    let statements = actions::parse(&flow.actions).map_err(|error| in_actions(error.to_string()))?;
    let stage = |pipeline: Option<Pipeline>, stage: Option<u8>| {
        stage_table(pipeline.unwrap_or(flow.pipeline), stage.or(flow.stage.checked_add(1))?)
    };
    let output = match flow.pipeline {
        Pipeline::Ingress => REMOTE_OUTPUT,
        Pipeline::Egress => SAVE_INPORT,
    };
    actions::lower(&statements, &actions::Lowering { ports, table, stage: &stage, output })
        .map_err(in_actions)
}

/// Table of a stage, if it has one.
fn stage_table(pipeline: Pipeline, stage: u8) -> Option<TableId> {
    let (first, n_stages) = match pipeline {
        Pipeline::Ingress => (LOG_INGRESS, N_INGRESS_STAGES),
        Pipeline::Egress => (LOG_EGRESS, N_EGRESS_STAGES),
    };
    Some(stage).filter(|stage| *stage < n_stages).and_then(|stage| TableId::new(first.get() + stage).ok())
}
