//! Whether tables are what a view became. They are looked at bit by bit, so that it can be
//! asked several times a second, however many rules there are.

use std::{
    collections::BTreeSet,
    fmt,
    ops::Bound::{Included, Unbounded},
};

use flowtable::{flow::Rule, table::Tables};

use super::{
    incremental::Lowering,
    part::{Part, RuleKey},
};
use crate::key::DatapathKey;

/// How far an audit has come.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// The rule to look at next, and whose it is: of a datapath, or of none.
    next: Option<(Option<DatapathKey>, RuleKey)>,
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
        let wanted = self.parts().map(|(_, part)| part.rules.len()).sum::<usize>() + n_others;
        // Rules that packets have made come and go by themselves.
        let found = tables.len() - tables.n_mortal();
        if found != wanted {
            return Err(Drift::Count { found, wanted });
        }
        let (first, mut from) = audit.next.take().unzip();
        let mut left = n_rules;
        for (key, part) in self.parts().skip_while(|(key, _)| first.is_some_and(|first| *key < first)) {
            let from = from.take().filter(|_| first == Some(key));
            for (place, rule) in part.rules.range((from.map_or(Unbounded, Included), Unbounded)) {
                if left == 0 {
                    audit.next = Some((key, place.clone()));
                    return Ok(());
                }
                left -= 1;
                let (table, priority, matching) = place;
                if !tables.get(*table, priority.0, matching).is_some_and(|found| is_same(found, rule)) {
                    return Err(Drift::Rule(format!("table {table}, {rule}")));
                }
            }
        }
        self.audit_named(tables)
    }

    /// What belongs to no datapath first.
    fn parts(&self) -> impl Iterator<Item = (Option<DatapathKey>, &Part)> {
        let own = self.parts.iter().map(|(key, part)| (Some(*key), part));
        [(None, &self.common)].into_iter().chain(own)
    }

    fn audit_named(&self, tables: &Tables) -> Result<(), Drift> {
        let wrong = |name: String| Err(Drift::Named(name));
        let mut groups = BTreeSet::new();
        for (id, group) in self.parts().flat_map(|(_, part)| &part.groups) {
            groups.insert(*id);
            if tables.group(*id).is_none_or(|found| **found != *group) {
                return wrong(format!("group {id}"));
            }
        }
        if let Some(group) = tables.groups().find(|group| !groups.contains(&group.id)) {
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

fn is_same(found: &Rule, wanted: &Rule) -> bool {
    found.actions == wanted.actions && found.cookie == wanted.cookie && found.origin == wanted.origin
}
