//! Why a rule was not the one: another of higher priority matched, or the packet differs.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    field::{Field, Format},
    flow::{Action, Match, Rule},
    key::FlowKey,
    table::Tables,
    text::print_field_value,
    types::TableId,
};

/// Rules that would have matched, and those that nearly did, that are told of each lookup.
const MAX_TOLD: usize = 5;
/// Fields that are told of each rule.
const MAX_FIELDS: usize = 3;

/// The other rules of a table.
pub(super) struct Lost {
    /// Rules and why each was not the one: first those that match, too, then those that the
    /// packet came nearest to.
    pub(super) rules: Vec<(Arc<Rule>, String)>,
    /// Rules that do not match either.
    pub(super) n_omitted: usize,
}

/// The other rules of a table that could have been the one for this packet.
pub(super) fn lost(tables: &Tables, (table, winner): (TableId, Option<&Arc<Rule>>), key: &FlowKey) -> Lost {
    let is_other = |rule: &&Arc<Rule>| winner.is_none_or(|winner| !Arc::ptr_eq(winner, rule));
    let (mut beaten, mut missed) = (Vec::new(), Vec::new());
    for rule in tables.rules().filter(|rule| rule.table == table).filter(is_other) {
        if !rule.matching.matches_with(key, tables.sets()) {
            // What the winner would have beaten is of no interest.
            if winner.is_none_or(|winner| rule.priority >= winner.priority) {
                missed.push((differences(&rule.matching, key, tables), rule));
            }
        } else if beaten.len() < MAX_TOLD {
            beaten.push((Arc::clone(rule), beaten_by(rule, winner)));
        }
    }
    missed.sort_by_key(|(differences, rule)| (differences.len(), Reverse(rule.priority)));
    let n_omitted = missed.len().saturating_sub(MAX_TOLD);
    let told = missed.into_iter().take(MAX_TOLD).map(|(mut differences, rule)| {
        let n_more = differences.len().saturating_sub(MAX_FIELDS);
        differences.truncate(MAX_FIELDS);
        let mut reason = differences.join(", ");
        if n_more > 0 {
            reason += &format!(", and {n_more} more");
        }
        (Arc::clone(rule), reason)
    });
    beaten.extend(told);
    Lost { rules: beaten, n_omitted }
}

fn beaten_by(rule: &Rule, winner: Option<&Arc<Rule>>) -> String {
    let is_clause = rule.actions.iter().any(|action| matches!(action, Action::Conjunction { .. }));
    match winner {
        _ if is_clause => "it matches as one clause of a conjunction".to_owned(),
        Some(winner) if winner.priority == rule.priority => {
            "it matches, too, with the same priority; which one is taken is not defined".to_owned()
        }
        _ => format!("it matches, too, with the lower priority {}", rule.priority),
    }
}

/// Each field in which the packet differs from what the match requires.
fn differences(matching: &Match, key: &FlowKey, tables: &Tables) -> Vec<String> {
    let (wanted, mask) = matching.expand();
    let mut found = Vec::new();
    let mut told = crate::key::FlowMask::empty();
    for field in Field::ALL {
        let bits = mask.get(*field);
        if (key.get(*field) ^ wanted.get(*field)) & bits == 0 || told.get(*field) & bits == bits {
            continue;
        }
        // Fields share bits; each is told once.
        told.add(*field, field.all_bits());
        // Of flags, those that matter.
        let shown = if is_flags(*field) { bits } else { field.all_bits() };
        let has = print_field_value(*field, key.get(*field) & shown, shown);
        let needs = print_field_value(*field, wanted.get(*field) & bits, bits);
        found.push(format!("{field} is {has}, not {needs}"));
    }
    for membership in matching.memberships().iter().filter(|one| !one.has(key, tables.sets())) {
        let field = membership.field;
        let has = print_field_value(field, key.get(field), field.all_bits());
        found.push(format!("{field} is {has}, not one of those wanted"));
    }
    found
}

fn is_flags(field: Field) -> bool {
    matches!(field.info().format, Format::CtState | Format::TcpFlags | Format::TunFlags)
}
