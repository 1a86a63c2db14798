//! What tables count: lookups, and those that found a rule.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::types::TableId;

/// Counters of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableCounters {
    /// Packets looked up.
    pub n_lookups: u64,
    /// Packets that a rule was found for.
    pub n_matches: u64,
}

/// Counters of all tables. Workers add to them in bulk, from their caches.
#[derive(Debug)]
pub struct TableStats {
    /// (matches, misses) by table.
    tables: Vec<(AtomicU64, AtomicU64)>,
}

impl Default for TableStats {
    fn default() -> Self {
        Self { tables: (0..=u8::MAX).map(|_| Default::default()).collect() }
    }
}

impl TableStats {
    /// The counters of a table so far.
    pub fn get(&self, table: TableId) -> TableCounters {
        let Some((matches, misses)) = self.tables.get(usize::from(table.get())) else {
            return TableCounters::default();
        };
        let n_matches = matches.load(Relaxed);
        TableCounters { n_lookups: n_matches + misses.load(Relaxed), n_matches }
    }

    /// Packets found a rule of the table.
    pub(crate) fn matched(&self, table: TableId, n_packets: u64) {
        if let Some((matches, _)) = self.tables.get(usize::from(table.get())) {
            matches.fetch_add(n_packets, Relaxed);
        }
    }

    /// Packets found none.
    pub(crate) fn missed(&self, table: TableId, n_packets: u64) {
        if let Some((_, misses)) = self.tables.get(usize::from(table.get())) {
            misses.fetch_add(n_packets, Relaxed);
        }
    }
}
