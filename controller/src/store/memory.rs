//! A store that lives as long as the process: for tests and simulations.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Commit, Contents, LogLimits, Revision, Store, StoreError, Txn, is_over};

/// A [`Store`] in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    limits: LogLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    revision: Revision,
    compacted: Revision,
    values: BTreeMap<String, Vec<u8>>,
    log: VecDeque<Commit>,
    n_changes: u64,
}

impl MemoryStore {
    /// An empty store that keeps this much log.
    pub fn new(limits: LogLimits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn read(&self) -> Result<Contents, StoreError> {
        let inner = self.inner();
        Ok(Contents { revision: inner.revision, compacted: inner.compacted, values: inner.values.clone() })
    }

    fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let mut inner = self.inner();
        if txn.based_on != inner.revision {
            return Err(StoreError::Moved { at: inner.revision, based_on: txn.based_on });
        }
        let revision = inner.revision.next();
        let mut changes = Vec::with_capacity(txn.writes.len());
        for (key, value) in txn.writes {
            let before = match &value {
                Some(value) => inner.values.insert(key.clone(), value.clone()),
                None => inner.values.remove(&key),
            };
            if before.is_some() || value.is_some() {
                changes.push((key, value));
            }
        }
        let commit = Commit { revision, changes };
        inner.revision = revision;
        inner.n_changes += commit.changes.len() as u64;
        inner.log.push_back(commit.clone());
        inner.compact(self.limits);
        Ok(commit)
    }

    fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
        let inner = self.inner();
        if after < inner.compacted {
            return Err(StoreError::Compacted { compacted: inner.compacted });
        }
        Ok(inner.log.iter().filter(|commit| commit.revision > after).cloned().collect())
    }
}

impl Inner {
    fn compact(&mut self, limits: LogLimits) {
        while is_over(limits, self.log.len() as u64, self.n_changes) {
            let Some(oldest) = self.log.pop_front() else { return };
            self.n_changes = self.n_changes.saturating_sub(oldest.changes.len() as u64);
            self.compacted = oldest.revision;
        }
    }
}
