//! Conjunctions: a packet that satisfies all clauses of one, by rules of the same
//! priority, is looked up again with the conjunction's id (ovs-fields(7), "Conjunctive
//! Match Fields"). A rule with `conjunction` actions is a way to satisfy a clause, and
//! nothing else.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    field::Field,
    flow::{Action, Rule},
    key::Tracked,
    types::Priority,
};

/// Which clauses of a conjunction are satisfied, and how many there are.
#[derive(Default)]
struct Clauses {
    satisfied: u64,
    n_clauses: u8,
    /// Rules disagree about the number of clauses: it is never complete.
    broken: bool,
}

impl Clauses {
    fn add(&mut self, clause: u8, n_clauses: u8) {
        self.broken |= self.n_clauses != 0 && self.n_clauses != n_clauses;
        self.n_clauses = n_clauses;
        self.satisfied |= 1_u64.checked_shl(u32::from(clause).wrapping_sub(1)).unwrap_or(0);
    }

    fn is_complete(&self) -> bool {
        !self.broken && self.satisfied.count_ones() == u32::from(self.n_clauses)
    }
}

/// The rule that a conjunction leads to, when one of higher priority than `plain`, the
/// best plain match, is complete.
///
/// `parts` are all rules of conjunctions that match and have a higher priority than
/// `plain`; `again` looks up among the plain rules. Of several complete ones with a rule
/// of their own the one of highest priority, then of lowest id, wins.
pub(super) fn complete<'a>(
    key: &mut Tracked,
    parts: &[&'a Arc<Rule>],
    plain: Option<&'a Arc<Rule>>,
    again: impl Fn(&mut Tracked) -> Option<&'a Arc<Rule>>,
) -> Option<&'a Arc<Rule>> {
    let mut conjunctions: BTreeMap<(std::cmp::Reverse<Priority>, u32), Clauses> = BTreeMap::new();
    for rule in parts {
        for action in &rule.actions {
            if let Action::Conjunction { id, clause, n_clauses } = action {
                let clauses = conjunctions.entry((std::cmp::Reverse(rule.priority), *id)).or_default();
                clauses.add(*clause, *n_clauses);
            }
        }
    }
    for ((_, id), _) in conjunctions.iter().filter(|(_, clauses)| clauses.is_complete()) {
        // The id follows from the rules that matched, and these from what was read.
        let saved = key.clone();
        key.write(Field::ConjId, (*id).into());
        let found = again(key);
        key.restore(&saved);
        // Without a rule for the id the lookup ends where the first one did.
        if let Some(found) = found.filter(|found| plain.is_none_or(|plain| !Arc::ptr_eq(found, plain))) {
            return Some(found);
        }
    }
    plain
}
