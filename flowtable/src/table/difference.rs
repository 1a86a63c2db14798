//! Where two versions of the tables differ.

use std::sync::Arc;

use super::Tables;
use crate::types::TableId;

/// Some tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TableSet([u64; 4]);

impl TableSet {
    pub(crate) fn has(&self, table: TableId) -> bool {
        let id = table.get();
        self.0[usize::from(id / 64)] >> (id % 64) & 1 != 0
    }

    fn insert(&mut self, idx: usize) {
        if let Some(word) = self.0.get_mut(idx / 64) {
            *word |= 1 << (idx % 64);
        }
    }
}

impl Tables {
    /// The tables that may give other rules than in the other version; `None`: there is more than
    /// rules that differs. What the versions share tells it, nothing is compared.
    pub(crate) fn differing(&self, other: &Self) -> Option<TableSet> {
        let is_alike = Arc::ptr_eq(&self.groups, &other.groups)
            && Arc::ptr_eq(&self.meters, &other.meters)
            && Arc::ptr_eq(&self.settings, &other.settings)
            && Arc::ptr_eq(&self.options, &other.options)
            && Arc::ptr_eq(&self.stats, &other.stats)
            && Arc::ptr_eq(&self.fdb, &other.fdb)
            && self.fragments == other.fragments;
        if !is_alike {
            return None;
        }
        let same_sets = Arc::ptr_eq(&self.sets, &other.sets);
        let mut differing = TableSet::default();
        for idx in 0..self.tables.len().max(other.tables.len()) {
            let same = match (self.tables.get(idx), other.tables.get(idx)) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other) && (same_sets || !one.asks_for_members()),
                _ => false,
            };
            if !same {
                differing.insert(idx);
            }
        }
        Some(differing)
    }
}
