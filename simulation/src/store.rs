//! The store as controllers see it: one map with revisions behind links that break, answer late, lose
//! what is asked or lose the answer. It asks of its users what etcd does: a commit holds only at the revision
//! that it was thought out at, and the log is compacted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use controller::store::{Commit, Contents, LogLimits, MemoryStore, Revision, Store, StoreError, Txn};

use crate::plant::Plant;

/// What becomes of the next commit of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fate {
    /// It is made, and answered.
    #[default]
    Done,
    /// It gets lost on its way.
    LostBefore,
    /// It is made, and the answer gets lost.
    LostAfter,
}

/// A revision, and the keys of what it changed.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) revision: u64,
    pub(crate) keys: Vec<String>,
}

/// The store itself, which outlives those who use it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

struct Inner {
    contents: MemoryStore,
    shares: BTreeMap<String, Vec<u8>>,
    /// Several controllers use it.
    is_shared: bool,
    /// Controllers that do not reach it.
    unreachable: Vec<usize>,
    fate: Fate,
    /// Revisions made since somebody asked.
    made: Vec<Made>,
    newest: u64,
    plant: Option<Plant>,
}

impl Disk {
    /// An empty one that keeps this much log.
    pub(crate) fn new(limits: LogLimits, is_shared: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            contents: MemoryStore::new(limits),
            shares: BTreeMap::new(),
            is_shared,
            unreachable: Vec::new(),
            fate: Fate::Done,
            made: Vec::new(),
            newest: 0,
            plant: None,
        })))
    }

    /// With a fault.
    pub(crate) fn planted(self, plant: Option<Plant>) -> Self {
        self.inner().plant = plant;
        self
    }

    /// The way of a controller to it.
    pub(crate) fn link(&self, controller: usize) -> Box<dyn Store> {
        Box::new(Link { disk: self.clone(), controller })
    }

    /// Cuts a controller off, or not any more.
    pub(crate) fn set_reachable(&self, controller: usize, is_reachable: bool) {
        let mut inner = self.inner();
        inner.unreachable.retain(|other| *other != controller);
        if !is_reachable {
            inner.unreachable.push(controller);
        }
    }

    /// Whether a controller reaches it.
    pub(crate) fn is_reachable(&self, controller: usize) -> bool {
        !self.inner().unreachable.contains(&controller)
    }

    /// What becomes of the next commit, whoever makes it.
    pub(crate) fn set_fate(&self, fate: Fate) {
        self.inner().fate = fate;
    }

    /// The revisions that were made since the last call.
    pub(crate) fn take_made(&self) -> Vec<Made> {
        std::mem::take(&mut self.inner().made)
    }

    /// The newest revision.
    pub(crate) fn newest(&self) -> u64 {
        self.inner().newest
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A controller's way to the store.
struct Link {
    disk: Disk,
    controller: usize,
}

impl Link {
    fn reach(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.disk.inner();
        if inner.unreachable.contains(&self.controller) {
            return Err(inner.lost("no way"));
        }
        Ok(inner)
    }
}

impl Inner {
    /// A disk of one's own that fails does not come back by itself.
    fn lost(&self, reason: &str) -> StoreError {
        let reason = reason.to_owned();
        match self.is_shared {
            true => StoreError::Unreachable { name: "disk".to_owned(), reason },
            false => StoreError::Unusable { path: "disk".into(), reason },
        }
    }
}

impl Inner {
    /// As if it had been made.
    fn forget(&self, txn: Txn) -> Commit {
        Commit { revision: txn.based_on.next(), changes: txn.writes.into_iter().collect() }
    }
}

impl Store for Link {
    fn read(&self) -> Result<Contents, StoreError> {
        self.reach()?.contents.read()
    }

    fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let mut inner = self.reach()?;
        let fate = std::mem::take(&mut inner.fate);
        if fate == Fate::LostBefore {
            return Err(inner.lost("lost before"));
        }
        let txn = match inner.plant {
            Some(Plant::Unfenced) => Txn { based_on: Revision::new(inner.newest), ..txn },
            Some(Plant::Forgetful) if inner.newest % 8 == 7 => return Ok(inner.forget(txn)),
            _ => txn,
        };
        let commit = inner.contents.commit(txn)?;
        inner.newest = commit.revision.get();
        inner.made.push(Made {
            revision: commit.revision.get(),
            keys: commit.changes.iter().map(|(key, _)| key.clone()).collect(),
        });
        if fate == Fate::LostAfter { Err(inner.lost("lost after")) } else { Ok(commit) }
    }

    fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
        self.reach()?.contents.changes_since(after)
    }

    fn is_shared(&self) -> bool {
        self.disk.inner().is_shared
    }

    fn share(&self, who: &str, what: Vec<u8>) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let mut inner = self.reach()?;
        inner.shares.insert(who.to_owned(), what);
        let others = inner.shares.iter().filter(|(other, _)| *other != who);
        Ok(others.map(|(other, told)| (other.clone(), told.clone())).collect())
    }

    fn unshare(&self, who: &str) -> Result<(), StoreError> {
        self.reach()?.shares.remove(who);
        Ok(())
    }
}
