//! The logical network as the controller holds it: all resources at the newest revision,
//! the recent changes, and the rules of how resources hang together.
//!
//! [`State`] is a copy of the store in typed form. It changes in one way only: a
//! [`Draft`] is prepared from it, committed to the store, then applied. Read `draft.rs`
//! for the rules, `record.rs` for what one resource is.

mod addresses;
mod draft;
mod hosts;
mod index;
mod keys;
mod loading;
mod nats;
mod nested;
mod record;
mod references;
mod refusal;
mod services;
mod sets;
mod tags;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_services;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

pub use self::{
    draft::{Claimed, Draft, Prepared, Resulting},
    record::{Binding, ChassisStatus, Heard, Holder, Known, Record, SessionState},
    refusal::{Reason, Refusal},
};
use self::{index::Index, keys::COUNTERS};
use crate::{
    resource::{Kind, Name},
    store::{Commit, LogLimits, Revision, Store, StoreError},
};

/// One changed resource.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its name.
    pub name: Name,
    /// What it was; `None` also when the change is from before the controller started.
    pub before: Option<Arc<Record>>,
    /// What it is; `None`: it is gone.
    pub after: Option<Arc<Record>>,
}

/// The changes of one revision.
#[derive(Debug)]
pub struct Revised {
    /// The revision.
    pub revision: Revision,
    /// Its changes, in order of names.
    pub changes: Vec<Change>,
}

/// The log no longer reaches back to the revision that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {asked} is no longer kept (the oldest is {oldest}); list again and go on from there")]
pub struct TooOld {
    /// What was asked for.
    pub asked: Revision,
    /// The oldest that can be.
    pub oldest: Revision,
}

/// The store's content cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One record makes no sense.
    #[error("the store holds `{key}`, which this version cannot read: {reason}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// All resources at one revision, and how they came to be.
#[derive(Debug)]
pub struct State {
    revision: Revision,
    records: [BTreeMap<Name, Arc<Record>>; Kind::ALL.len()],
    index: Index,
    counters: HashMap<String, u32>,
    limits: LogLimits,
    log: VecDeque<Arc<Revised>>,
    n_logged: u64,
    /// The log holds every revision after this one.
    compacted: Revision,
    /// Past states can be told from here on.
    history: Revision,
}

impl State {
    /// Reads a store.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(store: &dyn Store, limits: LogLimits) -> Result<Self, LoadError> {
        let contents = store.read()?;
        let mut state = Self {
            revision: contents.revision,
            records: Default::default(),
            index: Index::default(),
            counters: HashMap::new(),
            limits,
            log: VecDeque::new(),
            n_logged: 0,
            compacted: contents.compacted,
            history: contents.revision,
        };
        let is_counter = |key: &str| key.starts_with(COUNTERS);
        for (key, value) in contents.values.iter().filter(|(key, _)| is_counter(key)) {
            let counter = decode_counter(value).ok_or_else(|| LoadError::Record {
                key: key.clone(),
                reason: "it is not a counter".to_owned(),
            })?;
            state.counters.insert(key.clone(), counter);
        }
        let values: Vec<_> = contents.values.iter().filter(|(key, _)| !is_counter(key)).collect();
        for record in loading::decode_all(&values)? {
            state.index.add(&record);
            state.of_kind_mut(record.name.kind()).insert(record.name.clone(), record);
        }
        for commit in store.changes_since(contents.compacted)? {
            let revised = loading::decode_commit(commit, |key, value| {
                let is_newest = contents.values.get(key).is_some_and(|newest| newest == value);
                is_newest.then(|| state.by_text(key)).flatten()
            })?;
            state.log(revised);
        }
        Ok(state)
    }

    /// The resource of a name that is written out.
    fn by_text(&self, name: &str) -> Option<Arc<Record>> {
        let kind = Name::parse(name).ok()?.kind();
        self.of_kind(kind).get(name).cloned()
    }

    /// The revision.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The resource of this name.
    pub fn get(&self, name: &Name) -> Option<&Arc<Record>> {
        self.of_kind(name.kind()).get(name)
    }

    /// The port with this id.
    pub fn port(&self, id: &str) -> Option<&Arc<Record>> {
        self.index.ports.get(id).and_then(|name| self.get(name))
    }

    /// The chassis with this id.
    pub fn chassis(&self, id: &str) -> Option<&Arc<Record>> {
        Name::chassis(id).ok().and_then(|name| self.get(&name))
    }

    /// Names of the ports of workloads behind a port's interface.
    pub fn nested_in(&self, port: &str) -> impl Iterator<Item = &Name> {
        self.index.nested.get(port).into_iter().flatten()
    }

    /// Names of the ports bound to a chassis.
    pub fn bound_to(&self, chassis: &str) -> impl Iterator<Item = &Name> {
        self.index.bound.get(chassis).into_iter().flatten()
    }

    /// All resources of a kind, by name.
    pub fn iter_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Record>> {
        self.of_kind(kind).values()
    }

    /// All resources, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.iter().flat_map(BTreeMap::values)
    }

    /// Resources of a kind as of `at`, by name: those after `cursor` and below `parent`.
    ///
    /// # Errors
    /// [`TooOld`] when that revision is forgotten.
    ///
    /// # Cost
    /// The changes since `at`, plus what is taken from the iterator.
    pub fn scan(
        &self,
        at: Revision,
        kind: Kind,
        parent: Option<&Name>,
        cursor: &str,
    ) -> Result<impl Iterator<Item = Arc<Record>>, TooOld> {
        let undo = self.undo(at, kind)?;
        let prefix = parent.map(|parent| format!("{parent}/")).unwrap_or_default();
        let from = if cursor > prefix.as_str() { cursor } else { prefix.as_str() };
        let range = (Bound::Excluded(from), Bound::Unbounded);
        let past: Vec<_> = undo.range::<str, _>(range).filter_map(|(_, before)| before.clone()).collect();
        let mut past = past.into_iter().peekable();
        let now = self.of_kind(kind).range::<str, _>(range);
        let mut now = now.filter(move |(name, _)| !undo.contains_key(*name)).map(|(_, now)| now).peekable();
        let merged = std::iter::from_fn(move || match (past.peek(), now.peek()) {
            (Some(a), Some(b)) if a.name < b.name => past.next(),
            (_, Some(_)) => now.next().cloned(),
            (_, None) => past.next(),
        });
        Ok(merged.take_while(move |record| record.name.as_str().starts_with(&prefix)))
    }

    /// What to put back to be at `at` again.
    fn undo(&self, at: Revision, kind: Kind) -> Result<BTreeMap<Name, Option<Arc<Record>>>, TooOld> {
        let oldest = self.history.max(self.compacted);
        if at < oldest || at > self.revision {
            return Err(TooOld { asked: at, oldest });
        }
        let mut undo = BTreeMap::new();
        for revised in self.log.iter().rev().take_while(|revised| revised.revision > at) {
            for change in revised.changes.iter().filter(|change| change.name.kind() == kind) {
                undo.insert(change.name.clone(), change.before.clone());
            }
        }
        Ok(undo)
    }

    /// The revisions after `after`, oldest first.
    ///
    /// # Errors
    /// [`TooOld`] when the log no longer has them.
    pub fn changes_since(&self, after: Revision) -> Result<impl Iterator<Item = &Arc<Revised>>, TooOld> {
        if after < self.compacted {
            return Err(TooOld { asked: after, oldest: self.compacted });
        }
        let n_known = self.log.partition_point(|revised| revised.revision <= after);
        Ok(self.log.iter().skip(n_known))
    }

    /// What somebody else has committed on top of this, as if it had been prepared here.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn prepared(&self, commit: Commit) -> Result<Prepared, LoadError> {
        let mut counters = BTreeMap::new();
        for (key, value) in commit.changes.iter().filter(|(key, _)| key.starts_with(COUNTERS)) {
            let counter = value.as_ref().map(|value| {
                let reason =
                    || LoadError::Record { key: key.clone(), reason: "it is not a counter".to_owned() };
                decode_counter(value).ok_or_else(reason)
            });
            counters.insert(key.clone(), counter.transpose()?);
        }
        let mut revised = loading::decode_commit(commit, |_, _| None)?;
        for change in &mut revised.changes {
            change.before = self.get(&change.name).cloned();
        }
        revised.changes.retain(|change| change.before.is_some() || change.after.is_some());
        revised.changes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Prepared { revision: revised.revision, changes: revised.changes, results: Vec::new(), counters })
    }

    /// Takes over what was committed.
    pub fn apply(&mut self, prepared: Prepared) {
        let Prepared { revision, changes, counters, .. } = prepared;
        for before in changes.iter().filter_map(|change| change.before.as_ref()) {
            self.index.remove(before);
        }
        for change in &changes {
            let records = self.of_kind_mut(change.name.kind());
            match &change.after {
                Some(after) => {
                    records.insert(change.name.clone(), Arc::clone(after));
                    self.index.add(after);
                }
                None => {
                    records.remove(&change.name);
                }
            }
        }
        for (scope, counter) in counters {
            match counter {
                Some(counter) => self.counters.insert(scope, counter),
                None => self.counters.remove(&scope),
            };
        }
        self.revision = revision;
        self.log(Revised { revision, changes });
    }

    fn log(&mut self, revised: Revised) {
        self.n_logged += revised.changes.len() as u64;
        self.log.push_back(Arc::new(revised));
        while self.log.len() > 1
            && (self.log.len() as u64 > self.limits.n_revisions || self.n_logged > self.limits.n_changes)
        {
            let Some(oldest) = self.log.pop_front() else { break };
            self.n_logged = self.n_logged.saturating_sub(oldest.changes.len() as u64);
            self.compacted = oldest.revision;
        }
    }

    fn of_kind(&self, kind: Kind) -> &BTreeMap<Name, Arc<Record>> {
        &self.records[kind as usize]
    }

    fn of_kind_mut(&mut self, kind: Kind) -> &mut BTreeMap<Name, Arc<Record>> {
        &mut self.records[kind as usize]
    }

    /// The resources below a switch or router.
    fn below<'a>(&'a self, parent: &'a Name) -> impl Iterator<Item = &'a Name> {
        let prefix = format!("{parent}/");
        parent.kind().child_kinds().flat_map(move |kind| {
            let prefix = prefix.clone();
            let from = (Bound::Excluded(prefix.as_str()), Bound::Unbounded);
            let names = self.of_kind(kind).range::<str, _>(from).map(|(name, _)| name);
            names.take_while(move |name| name.as_str().starts_with(&prefix)).collect::<Vec<_>>()
        })
    }
}

fn encode_counter(counter: u32) -> Vec<u8> {
    counter.to_be_bytes().to_vec()
}

fn decode_counter(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}
