//! Whether tables are what a view became. They are looked at bit by bit, so that it can be
//! asked several times a second, however many rules there are.

use std::{
    fmt,
    ops::Bound::{Included, Unbounded},
};

use flowtable::table::Tables;

use super::{
    held::{RuleKey, is_same},
    incremental::Lowering,
};

/// How far an audit has come.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Place of the rule to look at next.
    next: Option<RuleKey>,
}

/// How tables differ from what they should be; the first difference that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// There are more rules, or fewer.
    Count {
        /// Rules that there are.
        found: usize,
        /// Rules that there should be.
        wanted: usize,
    },
    /// A rule is missing or does something else.
    Rule(String),
    /// A group, meter or set is missing, is too many, or is something else.
    Named(String),
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { found, wanted } => write!(f, "{found} rules instead of {wanted}"),
            Self::Rule(rule) => write!(f, "not as it should be: {rule}"),
            Self::Named(name) => write!(f, "not as it should be: {name}"),
        }
    }
}

impl Lowering {
    /// Looks at `n_rules` rules more; when it has come around, also at what rules name.
    /// `n_others`: rules that the tables have beside those of the view.
    ///
    /// # Cost
    /// A lookup for each of those rules. Rules that are missing are noticed at once, by
    /// their number.
    pub fn audit(
        &self,
        audit: &mut Audit,
        tables: &Tables,
        n_others: usize,
        n_rules: usize,
    ) -> Result<(), Drift> {
        let wanted = self.rules.len() + n_others;
        // Rules that packets have made come and go by themselves.
        let found = tables.len() - tables.n_mortal();
        if found != wanted {
            return Err(Drift::Count { found, wanted });
        }
        let first = audit.next.take().map_or(Unbounded, Included);
        for (n, (place, rule)) in self.rules.from(first).enumerate() {
            if n == n_rules {
                audit.next = Some(place.clone());
                return Ok(());
            }
            let (table, priority, matching) = place;
            if !tables.get(*table, priority.0, matching).is_some_and(|found| is_same(found, rule)) {
                return Err(Drift::Rule(format!("table {table}, {rule}")));
            }
        }
        self.audit_named(tables)
    }

    fn audit_named(&self, tables: &Tables) -> Result<(), Drift> {
        let wrong = |name: String| Err(Drift::Named(name));
        for (id, group) in self.groups.iter() {
            if tables.group(*id).is_none_or(|found| **found != *group) {
                return wrong(format!("group {id}"));
            }
        }
        if let Some(group) = tables.groups().find(|group| self.groups.get(group.id).is_none()) {
            return wrong(format!("group {}", group.id));
        }
        for (name, (.., set)) in &self.sets {
            if set.as_ref() != tables.set(name).map(|found| &**found) {
                return wrong(format!("set {name}"));
            }
        }
        if let Some(set) = tables.sets().iter().find(|set| !self.sets.contains_key(set.name())) {
            return wrong(format!("set {}", set.name()));
        }
        if !tables.meters().map(|meter| meter.config()).eq(self.meters().values()) {
            return wrong("the meters".to_owned());
        }
        Ok(())
    }
}
