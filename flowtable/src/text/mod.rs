//! Flow text.

use std::fmt;

use crate::flow::Rule;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "table={}, priority={}, {:?} actions={:?}",
            self.table, self.priority, self.matching, self.actions
        )
    }
}
