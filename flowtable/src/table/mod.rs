//! The flow tables: contract stub, to be written (owner: rules).

use std::sync::Arc;

use crate::{flow::Rule, key::Tracked, types::TableId};

/// One version of all flow tables. Cheap to clone: tables are shared until changed.
#[derive(Debug, Clone, Default)]
pub struct Tables {}

impl Tables {
    /// The rule of highest priority that matches; records everything examined.
    pub fn lookup(&self, _table: TableId, _key: &mut Tracked) -> Option<&Arc<Rule>> {
        None
    }

    /// All rules in order of table, falling priority, match text.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        std::iter::empty()
    }
}
