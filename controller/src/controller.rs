//! The one object that the services share: the store, the state in memory, who is
//! connected, and the way every write takes.
//!
//! A write: writer lock → draft on the state → commit to the store → apply to the state →
//! tell. The locks are taken in the order writer, network, state, registry. Writes block, so
//! services make them from blocking threads, where a client that goes away cannot
//! cut one in half.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use crate::{
    access::{Access, Author},
    chassis::{Assistants, Moderation, Registry},
    network::Network,
    receipts::Receipts,
    state::{
        Change, ChassisStatus, Claimed, Draft, LoadError, Prepared, Reason, Record, Refusal, Resulting, State,
    },
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
    /// Who can be asked what.
    pub assistants: Assistants,
    /// How often what hosts say of the same is written.
    pub moderation: Moderation,
    network: Mutex<Network>,
    limits: LogLimits,
    /// The store that is shared with others has not answered for long.
    cut_off: AtomicBool,
    /// Who may do what.
    pub access: Arc<Access>,
}

/// How often other controllers may be first while a write is made.
const MAX_TRIES: usize = 32;

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
    pub results: Vec<Resulting>,
    /// What was only validated.
    pub would_change: Vec<Change>,
    /// A revision was made.
    pub is_made: bool,
}

impl Controller {
    /// Loads a store.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open(store: Box<dyn Store>, limits: LogLimits) -> Result<Arc<Self>, LoadError> {
        Self::open_with(store, limits, Access::default())
    }

    /// Loads a store, for those who may.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn open_with(
        store: Box<dyn Store>,
        limits: LogLimits,
        access: Access,
    ) -> Result<Arc<Self>, LoadError> {
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
            assistants: Assistants::default(),
            moderation: Moderation::default(),
            network: Mutex::default(),
            limits,
            cut_off: AtomicBool::new(false),
            access: Arc::new(access),
        }))
    }

    /// The state; hold it briefly and never across an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled network; blocks while it is compiled.
    pub fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Makes a write of an author: `work` fills the draft. With `validate_only` nothing changes, and
    /// what would is in the answer.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed, except that after [`Reason::Store`] nobody knows
    /// and the controller ends.
    ///
    /// # Concurrency
    /// Blocks for other writes and for the disk.
    pub fn write(
        &self,
        author: &Author,
        validate_only: bool,
        mut work: impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Written, Refusal> {
        let mut failed = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tries_left = MAX_TRIES;
        loop {
            match self.attempt(&mut failed, author, validate_only, &mut work) {
                // Another controller was first: what it wrote is taken over, and the change judged anew.
                Err(Refusal { reason: Reason::Moved { .. }, .. }) if tries_left > 0 => {
                    tries_left -= 1;
                    self.take_over(&mut failed)?;
                }
                done => return done,
            }
        }
    }

    fn attempt(
        &self,
        failed: &mut bool,
        author: &Author,
        validate_only: bool,
        work: &mut impl FnMut(&mut Draft<'_>) -> Result<(), Refusal>,
    ) -> Result<Written, Refusal> {
        if *failed {
            return Err(Reason::Stopping.into());
        }
        let (based_on, prepared) = {
            let state = self.state();
            let mut draft = Draft::new(&state);
            work(&mut draft)?;
            (state.revision(), draft.finish(|record| self.claimed(record))?)
        };
        let results = prepared.results.clone();
        if prepared.changes.is_empty() || validate_only {
            return Ok(Written {
                revision: based_on,
                results,
                would_change: prepared.changes,
                is_made: false,
            });
        }
        if let Err(error) = self.store.commit(prepared.txn(based_on)) {
            return Err(match error {
                StoreError::Moved { at, .. } if self.store.is_shared() => Reason::Moved { at }.into(),
                error @ StoreError::TooLarge { .. } => Reason::TooLarge(error).into(),
                error @ StoreError::Unreachable { .. } => Reason::Unknown(error).into(),
                error => {
                    *failed = true;
                    self.fail(error)
                }
            });
        }
        let revision = prepared.revision;
        self.access.audit.written(author, revision, &prepared.changes);
        self.publish(prepared);
        Ok(Written { revision, results, would_change: Vec::new(), is_made: true })
    }

    /// Whether nobody has written anything after a revision; what others have is taken over.
    ///
    /// # Errors
    /// As of [`Controller::catch_up`].
    ///
    /// # Concurrency
    /// Blocks for writes and for the store, where that is shared.
    pub fn is_newest(&self, revision: Revision) -> Result<bool, Refusal> {
        if !self.store.is_shared() {
            return Ok(true);
        }
        self.catch_up()?;
        Ok(self.state().revision() == revision)
    }

    /// Where a port should be, of the chassis that have it.
    fn claimed(&self, record: &Record) -> Claimed {
        let (port, registry) = (record.claimed_as(), &self.registry);
        let place = registry.place(port, record.binding.as_ref(), |chassis| record.may_be_on(chassis));
        Claimed {
            chassis: place.map(|(chassis, _)| chassis),
            additional: registry.additional(port, &record.additional, record.wanted_additional()),
        }
    }

    /// Takes over what other controllers have written to a store that is shared.
    ///
    /// # Errors
    /// The store cannot be read now, or what it holds makes no sense; after the latter the controller ends.
    ///
    /// # Concurrency
    /// Blocks for writes and for the store.
    pub fn catch_up(&self) -> Result<(), Refusal> {
        let mut failed = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(Reason::Stopping.into());
        }
        self.take_over(&mut failed)
    }

    fn take_over(&self, failed: &mut bool) -> Result<(), Refusal> {
        let at = self.state().revision();
        let loaded = match self.store.changes_since(at) {
            Ok(commits) => commits.into_iter().try_for_each(|commit| {
                let prepared = self.state().prepared(commit)?;
                self.publish(prepared);
                Ok(())
            }),
            Err(StoreError::Compacted { .. }) => State::load(&*self.store, self.limits).map(|state| {
                let revision = state.revision();
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                self.revision.send_replace(revision);
            }),
            Err(error) => Err(LoadError::Store(error)),
        };
        match loaded {
            Ok(()) => Ok(()),
            Err(LoadError::Store(error @ StoreError::Unreachable { .. })) => {
                Err(Reason::Unknown(error).into())
            }
            Err(error) => {
                *failed = true;
                tracing::error!(%error, "the store cannot be followed; stopping");
                self.end(Ending::Failed(error.to_string()));
                Err(Reason::Stopping.into())
            }
        }
    }

    /// Whether hosts are better off with another controller.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Sends hosts away when this controller no longer hears what the others write, and takes them again
    /// when it does.
    pub(crate) fn set_cut_off(&self, is_cut_off: bool) {
        if self.cut_off.swap(is_cut_off, Ordering::Relaxed) != is_cut_off {
            if is_cut_off {
                tracing::warn!("the store does not answer; hosts are sent to other controllers");
                self.registry.dismiss("this controller is cut off from its store; connect to another");
            } else {
                tracing::info!("the store answers again");
            }
        }
    }

    /// The store.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ferroflow_proto::northbound::{
        self as pb, northbound_service_server::NorthboundService as _, operation::Op, resource::Spec,
    };
    use tonic::{Code, Request, Status};

    use super::*;
    use crate::{
        access::Caller,
        northbound::Northbound,
        store::{Commit, Contents, MemoryStore, Txn},
    };

    /// A store that tells of each commit and makes it when it is told how.
    struct Held {
        store: MemoryStore,
        entered: mpsc::Sender<()>,
        verdict: Mutex<mpsc::Receiver<Result<(), StoreError>>>,
    }

    impl Store for Held {
        fn read(&self) -> Result<Contents, StoreError> {
            self.store.read()
        }

        fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
            self.entered.send(()).unwrap();
            self.verdict.lock().unwrap().recv().unwrap()?;
            self.store.commit(txn)
        }

        fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
            self.store.changes_since(after)
        }
    }

    type Verdict = mpsc::Sender<Result<(), StoreError>>;

    fn held() -> (Arc<Controller>, mpsc::Receiver<()>, Verdict) {
        let (entered, has_entered) = mpsc::channel();
        let (verdict, receiver) = mpsc::channel();
        let store = Held { store: MemoryStore::default(), entered, verdict: Mutex::new(receiver) };
        (Controller::open(Box::new(store), LogLimits::default()).unwrap(), has_entered, verdict)
    }

    async fn add(controller: Arc<Controller>, name: &str) -> Result<u64, Status> {
        let spec = Some(Spec::LogicalSwitch(Default::default()));
        let resource = pb::Resource { name: name.to_owned(), spec, ..Default::default() };
        let op = Some(Op::Create(pb::Create { resource: Some(resource) }));
        let operations = vec![pb::Operation { op }];
        let mut request = Request::new(pb::TransactRequest { operations, ..Default::default() });
        request.extensions_mut().insert(Arc::new(Caller::local()));
        Northbound::new(controller).transact(request).await.map(|answer| answer.into_inner().revision)
    }

    #[tokio::test]
    async fn a_client_that_goes_away_cannot_cut_a_write_in_half() {
        let (controller, entered, verdict) = held();
        let call = tokio::spawn(add(controller.clone(), "switches/a"));
        tokio::task::spawn_blocking(move || entered.recv().unwrap()).await.unwrap();
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        let mut revisions = controller.revisions();
        verdict.send(Ok(())).unwrap();
        revisions.wait_for(|revision| revision.get() == 1).await.unwrap();
        assert_eq!(controller.state().iter().count(), 1);
    }

    #[tokio::test]
    async fn after_a_failed_commit_nothing_more_is_written() {
        let (controller, _entered, verdict) = held();
        let broken = StoreError::Unusable { path: "x".into(), reason: "no space left".to_owned() };
        verdict.send(Err(broken)).unwrap();
        let error = add(controller.clone(), "switches/a").await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("no space left"), "{}", error.message());
        assert!(matches!(&*controller.ending().borrow(), Some(Ending::Failed(_))));
        let error = add(controller.clone(), "switches/a").await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert_eq!(controller.state().revision(), Revision::ZERO);
    }
}
