//! Receipts: how far a revision has got on the hosts.
//!
//! For each recent revision this remembers which chassis had their view changed by it.
//! Who has applied what is the registry's; a receipt is put together when it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::store::Revision;

/// Revisions remembered, as many as the store's log keeps. Older ones are judged by the
/// newest view of each chassis alone.
const MAX_REVISIONS: usize = 10_000;

/// Which chassis each recent revision concerns.
#[derive(Debug)]
pub struct Receipts {
    inner: Mutex<Inner>,
    /// Counts up whenever a receipt may have changed.
    progress: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    compiled: Option<Revision>,
    /// Known are the revisions after this one, up to `compiled`.
    forgotten: Revision,
    /// Revisions that concern some chassis.
    affected: BTreeMap<Revision, Arc<BTreeSet<String>>>,
}

/// Whom a revision concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    /// Not compiled yet.
    Unknown,
    /// Exactly these.
    Chassis(Arc<BTreeSet<String>>),
    /// Nobody remembers: it was before the controller started, or long ago.
    Forgotten,
}

impl Receipts {
    /// Of a controller that starts at `revision`.
    pub fn new(revision: Revision) -> Self {
        let inner = Inner { compiled: None, forgotten: revision, affected: BTreeMap::new() };
        Self { inner: Mutex::new(inner), progress: watch::Sender::new(0) }
    }

    /// Remembers that the revisions up to `revision` have been compiled, and whose view
    /// they changed.
    pub fn compiled(&self, revision: Revision, affected: BTreeSet<String>) {
        {
            let mut inner = self.inner();
            let mut next = inner.compiled.unwrap_or(inner.forgotten).max(inner.forgotten).next();
            let affected = Arc::new(affected);
            while !affected.is_empty() && next <= revision {
                inner.affected.insert(next, Arc::clone(&affected));
                next = next.next();
            }
            inner.compiled = Some(revision);
            while inner.affected.len() > MAX_REVISIONS {
                let Some((oldest, _)) = inner.affected.pop_first() else { break };
                inner.forgotten = oldest;
            }
        }
        self.changed();
    }

    /// Whom a revision concerns.
    pub fn affected(&self, revision: Revision) -> Affected {
        let inner = self.inner();
        if inner.compiled.is_none_or(|compiled| compiled < revision) {
            return Affected::Unknown;
        }
        if revision <= inner.forgotten {
            return Affected::Forgotten;
        }
        Affected::Chassis(inner.affected.get(&revision).cloned().unwrap_or_default())
    }

    /// Newest revision that has been compiled.
    pub fn newest(&self) -> Option<Revision> {
        self.inner().compiled
    }

    /// Revisions after one that concern a chassis, oldest first, and at most so many.
    pub fn concerning(&self, chassis: &str, after: Revision, most: usize) -> Vec<Revision> {
        let inner = self.inner();
        let later = inner.affected.range(after.next()..);
        let concerning = later.filter(|(_, affected)| affected.contains(chassis));
        concerning.map(|(revision, _)| *revision).take(most).collect()
    }

    /// Wakes those who wait for a receipt.
    pub fn changed(&self) {
        self.progress.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Tells when a receipt may have changed.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn revisions_compiled_together_concern_the_same_chassis() {
        let receipts = Receipts::new(Revision::new(5));
        assert_eq!(receipts.affected(Revision::new(5)), Affected::Unknown);
        receipts.compiled(Revision::new(5), set(&["a"]));
        assert_eq!(receipts.affected(Revision::new(5)), Affected::Forgotten);
        assert_eq!(receipts.affected(Revision::new(6)), Affected::Unknown);
        receipts.compiled(Revision::new(7), set(&["b"]));
        receipts.compiled(Revision::new(8), set(&[]));
        for (revision, ids) in [(6, &["b"][..]), (7, &["b"]), (8, &[])] {
            let expected = Affected::Chassis(Arc::new(set(ids)));
            assert_eq!(receipts.affected(Revision::new(revision)), expected);
        }
    }

    #[test]
    fn what_concerns_a_chassis_is_found_in_order() {
        let receipts = Receipts::new(Revision::ZERO);
        receipts.compiled(Revision::new(1), set(&["a", "b"]));
        receipts.compiled(Revision::new(3), set(&["b"]));
        receipts.compiled(Revision::new(4), set(&["a"]));
        let of = |id: &str, after: u64, most| {
            let found = receipts.concerning(id, Revision::new(after), most);
            found.into_iter().map(Revision::get).collect::<Vec<_>>()
        };
        assert_eq!(of("a", 0, 9), [1, 4]);
        assert_eq!(of("b", 1, 9), [2, 3]);
        assert_eq!(of("b", 0, 2), [1, 2]);
        assert_eq!(of("a", 4, 9), [0u64; 0]);
        assert_eq!(receipts.newest(), Some(Revision::new(4)));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_are_forgotten() {
        let receipts = Receipts::new(Revision::ZERO);
        let n = MAX_REVISIONS as u64 + 10;
        receipts.compiled(Revision::new(n), set(&["a"]));
        assert_eq!(receipts.affected(Revision::new(10)), Affected::Forgotten);
        assert_ne!(receipts.affected(Revision::new(11)), Affected::Forgotten);
        assert_eq!(receipts.inner().affected.len(), MAX_REVISIONS);
    }
}
