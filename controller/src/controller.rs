//! The one object that the services share: the store, the state in memory, who is
//! connected, and the way every write takes.
//!
//! A write: writer lock → draft on the state → commit to the store → apply to the state →
//! tell. The locks are taken in the order writer, state, registry. Writes block, so
//! services make them from blocking threads, where a client that goes away cannot
//! cut one in half.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use crate::{
    chassis::Registry,
    receipts::Receipts,
    state::{ChassisStatus, Draft, LoadError, Prepared, Reason, Record, Refusal, State},
    store::{LogLimits, Revision, Store, StoreError},
};

/// The heart of the server.
pub struct Controller {
    store: Box<dyn Store>,
    state: RwLock<State>,
    /// Held through a whole write. True: the store has failed and nothing may be written.
    writer: Mutex<bool>,
    revision: watch::Sender<Revision>,
    /// Why the controller ends; streams end with it.
    ending: watch::Sender<Option<Ending>>,
    /// Who is connected, and what they claim and apply.
    pub registry: Registry,
    /// Which chassis a revision concerns.
    pub receipts: Receipts,
}

/// Why a controller stops serving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was told to.
    Shutdown,
    /// Something it cannot go on without failed, in these words.
    Failed(String),
}

/// A finished write.
#[derive(Debug)]
pub struct Written {
    /// Revision of the change, or of the store when nothing had to change.
    pub revision: Revision,
    /// The resources that creates and updates asked for.
    pub results: Vec<Arc<Record>>,
}

impl Controller {
    /// Loads a store.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(store: Box<dyn Store>, limits: LogLimits) -> Result<Arc<Self>, LoadError> {
        let state = State::load(&*store, limits)?;
        let revision = state.revision();
        Ok(Arc::new(Self {
            store,
            state: RwLock::new(state),
            writer: Mutex::new(false),
            revision: watch::Sender::new(revision),
            ending: watch::Sender::new(None),
            registry: Registry::default(),
            receipts: Receipts::new(revision),
        }))
    }

    /// The state; hold it briefly and never across an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells when the revision moves.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Tells when the controller ends.
    pub fn ending(&self) -> watch::Receiver<Option<Ending>> {
        self.ending.subscribe()
    }

    /// Ends all streams.
    pub fn end(&self, ending: Ending) {
        self.ending.send_if_modified(|present| {
            let is_first = present.is_none();
            present.get_or_insert(ending);
            is_first
        });
    }

    /// What is known of a connected chassis.
    pub fn chassis_status(&self, chassis: &str) -> ChassisStatus {
        self.registry.status(chassis)
    }

    /// Makes a write: `work` fills the draft. With `validate_only` nothing changes.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, except that after [`Reason::Store`] nobody knows
    /// and the controller ends.
    ///
    /// # Concurrency
    /// Blocks for other writes and for the disk.
    pub fn write(
        &self,
        validate_only: bool,
        work: impl FnOnce(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Written, Refusal> {
        let mut failed = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(Reason::Stopping.into());
        }
        let (based_on, prepared) = {
            let state = self.state();
            let mut draft = Draft::new(&state);
            work(&mut draft)?;
            (state.revision(), draft.finish(|port| self.registry.claimant(port))?)
        };
        let results = prepared.results.clone();
        if prepared.changes.is_empty() || validate_only {
            return Ok(Written { revision: based_on, results });
        }
        if let Err(error) = self.store.commit(prepared.txn(based_on)) {
            *failed = true;
            return Err(self.fail(error));
        }
        let revision = prepared.revision;
        self.publish(prepared);
        Ok(Written { revision, results })
    }

    fn publish(&self, prepared: Prepared) {
        let revision = prepared.revision;
        self.state.write().unwrap_or_else(PoisonError::into_inner).apply(prepared);
        self.revision.send_replace(revision);
    }

    /// After a failed commit the state in memory may be behind the store: stop, and let a
    /// restart read what is true.
    fn fail(&self, error: StoreError) -> Refusal {
        tracing::error!(%error, "the store failed; stopping");
        self.end(Ending::Failed(error.to_string()));
        match error {
            StoreError::Moved { at, .. } => Reason::Moved { at }.into(),
            error => Reason::Store(error).into(),
        }
    }
}
