//! What a translation learned from the database, and whether that still holds.

use std::sync::Arc;

use super::{Dependency, Fdb};

/// Cells that a translation looked into. Most look into none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dependencies(Option<Box<(Arc<Fdb>, Vec<Dependency>)>>);

impl Dependencies {
    /// Notes one more.
    pub(crate) fn add(&mut self, fdb: &Arc<Fdb>, dependency: Dependency) {
        let (_, list) = &mut **self.0.get_or_insert_with(|| Box::new((Arc::clone(fdb), Vec::new())));
        if !list.contains(&dependency) {
            list.push(dependency);
        }
    }

    /// Nothing was looked into.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Nothing has changed in what was looked into.
    #[inline]
    pub(crate) fn hold(&self) -> bool {
        match &self.0 {
            None => true,
            Some(inner) => inner.1.iter().all(|dependency| inner.0.is_unchanged(*dependency)),
        }
    }
}
