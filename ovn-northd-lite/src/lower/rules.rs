//! Makes rules that are no logical flow's.

use std::sync::Arc;

use flowtable::{
    field::Field,
    flow::{Action, Match, Origin, Rule},
    key::{FlowKey, FlowMask},
    table::check_rule,
    types::{Priority, TableId},
};

use super::LowerError;

/// Rules under construction.
#[derive(Default)]
pub(super) struct RuleSet {
    rules: Vec<Rule>,
    errors: Vec<LowerError>,
}

/// A rule's place, match and provenance.
pub(super) struct Head {
    pub(super) table: TableId,
    pub(super) priority: Priority,
    pub(super) matching: Match,
    pub(super) cookie: u64,
    pub(super) origin: Arc<Origin>,
}

impl Head {
    /// The rule with these actions. One that the tables would refuse, and the whole
    /// transaction with it, drops instead.
    pub(super) fn rule(self, actions: Vec<Action>) -> (Rule, Option<LowerError>) {
        let Self { table, priority, matching, cookie, origin } = self;
        let (life, stats) = (Default::default(), Arc::default());
        let mut rule = Rule { table, priority, matching, actions, cookie, origin, life, stats };
        let Err(reason) = check_rule(&rule) else { return (rule, None) };
        let object = if rule.origin.object.is_empty() { &rule.origin.stage } else { &rule.origin.object };
        let error = LowerError { object: object.clone(), reason: format!("{}: {reason}", rule.origin.stage) };
        rule.actions.clear();
        (rule, Some(error))
    }
}

impl RuleSet {
    fn add(&mut self, head: Head, actions: Vec<Action>) {
        let (rule, error) = head.rule(actions);
        self.errors.extend(error);
        self.rules.push(rule);
    }

    /// Adds a rule that is no logical flow's; fields are matched whole.
    pub(super) fn physical(
        &mut self,
        table: TableId,
        priority: u16,
        fields: &[(Field, u128)],
        actions: Vec<Action>,
        object: String,
    ) {
        let whole = |(field, value): &(Field, u128)| (*field, *value, field.all_bits());
        let fields: Vec<_> = fields.iter().map(whole).collect();
        self.physical_masked(table, priority, &fields, actions, object);
    }

    /// Adds a rule that is no logical flow's; fields are matched by value and mask.
    pub(super) fn physical_masked(
        &mut self,
        table: TableId,
        priority: u16,
        fields: &[(Field, u128, u128)],
        actions: Vec<Action>,
        object: String,
    ) {
        let origin = Origin { logical_flow: 0, stage: stage_name(table).to_owned(), object };
        let priority = Priority::new(priority).unwrap_or(LOWEST);
        let (mut key, mut mask) = (FlowKey::zero(), FlowMask::empty());
        for (field, value, bits) in fields {
            key.set(*field, value & bits);
            mask.add(*field, *bits);
        }
        let matching = Match::from_key(&key, &mask);
        self.add(Head { table, priority, matching, cookie: 0, origin: Arc::new(origin) }, actions);
    }

    pub(super) fn error(&mut self, object: impl Into<String>, reason: impl Into<String>) {
        self.errors.push(LowerError { object: object.into(), reason: reason.into() });
    }

    /// Rules, and what could not be realised.
    pub(super) fn finish(self) -> (Vec<Rule>, Vec<LowerError>) {
        (self.rules, self.errors)
    }
}

/// Priority 0.
const LOWEST: Priority = match Priority::new(0) {
    Ok(priority) => priority,
    Err(_) => panic!("0 is a priority"),
};

/// Name of a table that is no logical stage.
fn stage_name(table: TableId) -> &'static str {
    match table {
        super::PHYS_TO_LOG => "phys_to_log",
        super::REMOTE_OUTPUT => "remote_output",
        super::LOCAL_OUTPUT => "local_output",
        super::CHECK_LOOPBACK => "check_loopback",
        super::SAVE_INPORT => "save_inport",
        super::LOG_TO_PHYS => "log_to_phys",
        super::GET_NEIGHBOUR => "get_neighbour",
        super::LOOKUP_NEIGHBOUR => "lookup_neighbour",
        super::LB_AFFINITY => "lb_affinity",
        _ => "",
    }
}

/// Writes a whole field.
pub(super) fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.all_bits() }
}

/// Looks up in a table and comes back.
pub(super) fn resubmit(table: TableId) -> Action {
    Action::Resubmit { port: None, table: Some(table) }
}
