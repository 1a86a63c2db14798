//! What a controller and one chassis say to each other, without streams, tasks or clocks: whoever
//! carries the messages calls. `session.rs` carries them by gRPC, a simulation as it likes.
//!
//! Calls may write, and block for that; they are made from threads that may.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use ferroflow_proto::{
    chassis::{self as pb, sync_request::Message},
    northbound,
};
use tokio::sync::watch;
use tonic::Status;

use super::{
    bindings, encode, health, holders, neighbours,
    registry::{Connected, End, News, SessionId, Superseded, Turn},
    sessions,
};
use crate::{
    access::{Author, Caller},
    controller::Controller,
    network,
    resource::{
        Name, check_id,
        limits::{MAX_ACK_ERROR_LEN, MAX_ACK_ERRORS, MAX_CLAIMS, MAX_HEALTH, MAX_NEIGHBOURS, MAX_SESSIONS},
        parse_spec,
    },
    state::{Reason, Refusal},
    store::Revision,
};

/// One stream of one chassis, from its hello to its end.
pub struct Dialogue {
    controller: Arc<Controller>,
    chassis: String,
    session: SessionId,
    /// Why it is over.
    pub(super) end: watch::Sender<Option<End>>,
    /// Revision of the newest view.
    pub(super) view: watch::Receiver<Option<Revision>>,
    /// What the chassis went by before: nothing older is said.
    applied: Revision,
    /// Revision of the newest update sent.
    sent: AtomicU64,
    later: Mutex<Later>,
}

/// What is to be said next is the whole view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeedsWhole;

/// What the chassis has heard of neighbours that has to wait, by router port and address, and
/// when its turn is.
#[derive(Default)]
struct Later {
    heard: BTreeMap<(String, String), pb::Neighbour>,
    due: Option<Instant>,
}

impl Dialogue {
    /// Begins with what a chassis says first; one that the chassis had before is ended.
    ///
    /// # Errors
    /// Why it does not begin.
    pub fn begin(
        controller: Arc<Controller>,
        caller: &Caller,
        first: Option<pb::SyncRequest>,
    ) -> Result<Self, Status> {
        if controller.is_cut_off() {
            let reason = "this controller is cut off from its store; connect to another";
            return Err(Status::unavailable(reason));
        }
        let hello = hello(caller, first)?;
        let applied = reach(&controller, Revision::new(hello.applied))?;
        let chassis = hello.chassis.clone();
        let turn = Turn { incarnation: hello.incarnation, stream: hello.stream };
        let Ok(Connected { session, end, view }) = controller.registry.connect(&chassis, turn) else {
            let reason = "a newer stream of this chassis is connected; give each host its own id";
            return Err(Status::aborted(reason));
        };
        controller.receipts.changed();
        let (sent, later) = (AtomicU64::new(0), Mutex::default());
        let dialogue = Self { controller, chassis, session, end, view, applied, sent, later };
        match dialogue.register(&hello) {
            Ok(()) => {
                tracing::info!(chassis = dialogue.chassis, "connected");
                Ok(dialogue)
            }
            Err(refusal) => {
                dialogue.finish();
                Err(refusal.into())
            }
        }
    }

    /// The chassis.
    pub fn chassis(&self) -> &str {
        &self.chassis
    }

    /// Writes the chassis into the network.
    fn register(&self, hello: &pb::Hello) -> Result<(), Refusal> {
        let name = Name::chassis(&self.chassis).map_err(Reason::from)?;
        let author = Author::chassis(&self.chassis, "hello");
        self.controller
            .write(&author, false, |draft| Ok(draft.register(name.clone(), record(hello))?))
            .map(drop)
    }

    /// Hears something of the chassis.
    ///
    /// # Errors
    /// It makes no sense, or cannot be written; that ends the stream.
    pub fn hear(&self, request: pb::SyncRequest, now: Instant) -> Result<(), Status> {
        match request.message {
            Some(Message::Claims(claims)) => self.claim(claims),
            Some(Message::ClaimChanges(changes)) => self.change_claims(changes),
            Some(Message::Ack(ack)) => self.ack(ack),
            Some(Message::Health(said)) => self.health(said),
            Some(Message::Neighbours(said)) => self.neighbours(said, now),
            Some(Message::Holders(said)) => self.holders(said),
            Some(Message::Sessions(said)) => self.sessions(said),
            Some(Message::Hello(_)) => {
                Err(Status::invalid_argument("`hello` comes once; open another stream to say it again"))
            }
            None => Err(Status::invalid_argument(
                "a message is `claims`, `claim_changes`, `ack`, `health`, `neighbours`, `holders` or `sessions`; set one",
            )),
        }
    }

    /// When something is due that has had to wait.
    pub fn due(&self) -> Option<Instant> {
        self.later().due
    }

    /// Does what is due.
    ///
    /// # Errors
    /// As of [`Dialogue::hear`].
    pub fn tend(&self, now: Instant) -> Result<(), Status> {
        if self.due().is_none_or(|due| due > now) {
            return Ok(());
        }
        let heard = std::mem::take(&mut *self.later()).heard.into_values().collect();
        self.neighbours(pb::Neighbours { heard, ..pb::Neighbours::default() }, now)
    }

    /// What is new for the chassis, if anything is: the whole view at first, then changes, those of
    /// several revisions in one. When it is over there is no news.
    ///
    /// # Concurrency
    /// May wait for the compiler.
    pub fn say(&self) -> Option<pb::SyncResponse> {
        self.say_at_once().unwrap_or_else(|NeedsWhole| self.say_all())
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// It has to be the whole view.
    pub(super) fn say_at_once(&self) -> Result<Option<pb::SyncResponse>, NeedsWhole> {
        match self.controller.registry.take(&self.chassis, self.session) {
            Ok(Some(News::Whole)) => Err(NeedsWhole),
            // One without changes is to be acknowledged as well.
            Ok(Some(News::Changes(revision, delta))) if !delta.is_empty() || self.is_unsaid(revision) => {
                Ok(Some(self.saying(encode::delta(revision, &delta))))
            }
            Ok(Some(News::Changes(..)) | None) | Err(Superseded) => Ok(None),
        }
    }

    /// The whole view; may wait for the compiler.
    pub(super) fn say_all(&self) -> Option<pb::SyncResponse> {
        let mut network = self.controller.network();
        if network.revision() < self.applied {
            drop(network);
            network::follow(&self.controller);
            network = self.controller.network();
        }
        self.controller.registry.begin(&self.chassis, self.session).ok()?;
        let (revision, view) = network.view(&self.chassis);
        drop(network);
        Some(self.saying(encode::full(revision, &view)))
    }

    fn is_unsaid(&self, revision: Revision) -> bool {
        revision.get() > self.sent.load(Ordering::Acquire)
    }

    fn saying(&self, update: pb::SyncResponse) -> pb::SyncResponse {
        self.sent.store(update.revision, Ordering::Release);
        update
    }

    /// Why the controller has ended it, if it has.
    pub fn ended(&self) -> Option<Status> {
        match &*self.end.borrow() {
            Some(End::Refused(status)) => Some(status.clone()),
            Some(End::Closed) => Some(Status::cancelled("the chassis has closed the stream")),
            None => None,
        }
    }

    /// Signs off, and lets others have the ports they have been waiting for.
    pub fn finish(&self) {
        if !self.controller.registry.disconnect(&self.chassis, self.session) {
            return;
        }
        self.controller.receipts.changed();
        tracing::info!(chassis = self.chassis, "disconnected");
        if let Err(refusal) = bindings::settle(&self.controller, &self.chassis, BTreeSet::new()) {
            tracing::warn!(chassis = self.chassis, %refusal, "bindings are not settled");
        }
    }

    fn claim(&self, claims: pb::Claims) -> Result<(), Status> {
        check_number(claims.claims.len())?;
        let claims = self.known_claims(claims.claims);
        let touched = self.controller.registry.claim(&self.chassis, self.session, &claims);
        bindings::settle(&self.controller, &self.chassis, touched.map_err(superseded)?)?;
        bindings::report_refused(&self.controller, &self.chassis, claims.keys());
        Ok(())
    }

    fn change_claims(&self, changes: pb::ClaimChanges) -> Result<(), Status> {
        check_number(changes.claims.len().max(changes.removed.len()))?;
        let claims = self.known_claims(changes.claims);
        let removed: BTreeSet<_> =
            changes.removed.into_iter().filter(|port| !claims.contains_key(port)).collect();
        let changed = self.controller.registry.change_claims(&self.chassis, self.session, &claims, &removed);
        match changed.map_err(superseded)? {
            Some(n_claims) => check_number(n_claims)?,
            None => return Err(Status::invalid_argument("`claim_changes` come after `claims`")),
        }
        let touched = claims.keys().cloned().chain(removed).collect();
        bindings::settle_changed(&self.controller, &self.chassis, &touched)?;
        bindings::report_refused(&self.controller, &self.chassis, claims.keys());
        Ok(())
    }

    /// Whether each port is up; what cannot be the id of one is left out.
    fn known_claims(&self, claims: Vec<pb::Claim>) -> BTreeMap<String, bool> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| check_id(&claim.logical_port).is_ok());
        if !unknown.is_empty() {
            tracing::warn!(
                chassis = self.chassis,
                n = unknown.len(),
                "claims ignored: they name what cannot be the id of a port"
            );
        }
        known.into_iter().map(|claim| (claim.logical_port, claim.up)).collect()
    }

    fn health(&self, said: pb::Health) -> Result<(), Status> {
        if said.backends.len() > MAX_HEALTH {
            let message = format!("{} backends are too many; keep to {MAX_HEALTH}", said.backends.len());
            return Err(Status::invalid_argument(message));
        }
        Ok(health::settle(&self.controller, &self.chassis, &said.backends)?)
    }

    fn holders(&self, said: pb::Holders) -> Result<(), Status> {
        if said.holders.len() > MAX_CLAIMS {
            let message = format!("{} holders are too many; keep to {MAX_CLAIMS}", said.holders.len());
            return Err(Status::invalid_argument(message));
        }
        Ok(holders::settle(&self.controller, &self.chassis, &said)?)
    }

    fn sessions(&self, said: pb::Sessions) -> Result<(), Status> {
        if said.sessions.len() > MAX_SESSIONS {
            let message = format!("{} sessions are too many; keep to {MAX_SESSIONS}", said.sessions.len());
            return Err(Status::invalid_argument(message));
        }
        Ok(sessions::settle(&self.controller, &self.chassis, &said.sessions)?)
    }

    fn neighbours(&self, said: pb::Neighbours, now: Instant) -> Result<(), Status> {
        let n_said = said.heard.len() + said.gone.len();
        if n_said > MAX_NEIGHBOURS {
            let message = format!("{n_said} neighbours are too many; keep to {MAX_NEIGHBOURS}");
            return Err(Status::invalid_argument(message));
        }
        self.later().supersede(&said);
        if let Some((wait, heard)) = neighbours::settle(&self.controller, &self.chassis, said, now)? {
            self.later().wait(heard, now + wait);
        }
        Ok(())
    }

    fn ack(&self, ack: pb::Ack) -> Result<(), Status> {
        let sent = self.sent.load(Ordering::Acquire);
        if ack.revision > sent {
            let message = format!("revision {} was not sent; the newest is {sent}", ack.revision);
            return Err(Status::invalid_argument(message));
        }
        let short = |error: String| error.chars().take(MAX_ACK_ERROR_LEN).collect();
        let errors: Vec<String> = ack.errors.into_iter().take(MAX_ACK_ERRORS).map(short).collect();
        if !errors.is_empty() {
            tracing::warn!(
                chassis = self.chassis,
                revision = ack.revision,
                ?errors,
                "not all could be applied"
            );
        }
        let revision = Revision::new(ack.revision);
        self.controller.registry.ack(&self.chassis, self.session, revision, errors).map_err(superseded)?;
        self.controller.receipts.changed();
        // Ports that wait for this are up now.
        Ok(bindings::settle(&self.controller, &self.chassis, BTreeSet::new())?)
    }

    fn later(&self) -> std::sync::MutexGuard<'_, Later> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes as far as a chassis is that has been with another controller: it shall not go back. What it
/// goes by, if that is of this store, and not of one that was there before.
fn reach(controller: &Controller, applied: Revision) -> Result<Revision, Status> {
    if applied > controller.state().revision() && controller.store().is_shared() {
        controller.catch_up().map_err(|refusal| {
            Status::unavailable(format!(
                "this controller is behind the chassis; connect to another: {refusal}"
            ))
        })?;
    }
    let is_known = applied <= controller.state().revision();
    Ok(if is_known { applied } else { Revision::ZERO })
}

fn hello(caller: &Caller, first: Option<pb::SyncRequest>) -> Result<pb::Hello, Status> {
    let Some(Message::Hello(hello)) = first.and_then(|request| request.message) else {
        return Err(Status::invalid_argument("the first message must be `hello`"));
    };
    // Before anybody's stream is ended on behalf of this one.
    caller.check_speaks_for(&hello.chassis)?;
    let name = Name::chassis(&hello.chassis)
        .map_err(|error| Status::invalid_argument(format!("field `chassis`: {error}")))?;
    let spec = northbound::resource::Spec::Chassis(record(&hello));
    parse_spec(&name, Some(&spec)).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(hello)
}

/// What the network knows of a chassis.
fn record(hello: &pb::Hello) -> northbound::Chassis {
    let (hostname, encap_ip) = (hello.hostname.clone(), hello.encap_ip.clone());
    let encap_types = hello.encap_types.clone();
    northbound::Chassis { hostname, encap_ip, encap_types, ..Default::default() }
}

impl Later {
    /// What is said now holds instead of what was said before.
    fn supersede(&mut self, said: &pb::Neighbours) {
        if said.full {
            *self = Self::default();
        }
        for one in said.heard.iter().chain(&said.gone) {
            self.heard.remove(&(one.port.clone(), one.ip.clone()));
        }
    }

    /// There is never more of it than one message may have.
    fn wait(&mut self, heard: Vec<pb::Neighbour>, due: Instant) {
        let room = MAX_NEIGHBOURS.saturating_sub(self.heard.len());
        for one in heard.into_iter().take(room) {
            self.heard.insert((one.port.clone(), one.ip.clone()), one);
        }
        self.due = Some(self.due.map_or(due, |present| present.min(due)));
    }
}

fn check_number(n_claims: usize) -> Result<(), Status> {
    if n_claims > MAX_CLAIMS {
        let message = format!("{n_claims} claims are too many; keep to {MAX_CLAIMS}");
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

fn superseded(_: Superseded) -> Status {
    Status::aborted("another stream of this chassis has taken over")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Commit, Contents, LogLimits, MemoryStore, Store, StoreError, Txn};

    /// A store that several controllers share, as long as they reach it.
    #[derive(Clone, Default)]
    struct Shared {
        contents: Arc<MemoryStore>,
        is_gone: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Shared {
        fn reach(&self) -> Result<&MemoryStore, StoreError> {
            let is_gone = self.is_gone.load(Ordering::Acquire);
            let (name, reason) = ("shared".to_owned(), "no way".to_owned());
            if is_gone { Err(StoreError::Unreachable { name, reason }) } else { Ok(&self.contents) }
        }

        fn controller(&self) -> Arc<Controller> {
            let controller = Controller::open(Box::new(self.clone()), LogLimits::default()).unwrap();
            network::follow(&controller);
            controller
        }
    }

    impl Store for Shared {
        fn read(&self) -> Result<Contents, StoreError> {
            self.reach()?.read()
        }

        fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
            self.reach()?.commit(txn)
        }

        fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
            self.reach()?.changes_since(after)
        }

        fn is_shared(&self) -> bool {
            true
        }
    }

    fn begin(controller: &Arc<Controller>, id: &str, stream: u64, applied: u64) -> Result<Dialogue, Status> {
        let (chassis, encap_ip) = (id.to_owned(), "192.0.2.1".to_owned());
        let hello = pb::Hello { chassis, encap_ip, incarnation: 1, stream, applied, ..pb::Hello::default() };
        let first = pb::SyncRequest { message: Some(Message::Hello(hello)) };
        Dialogue::begin(Arc::clone(controller), &Caller::local(), Some(first))
    }

    /// What is said, and that it is the newest.
    fn whole(dialogue: &Dialogue) -> u64 {
        let said = dialogue.say().unwrap();
        assert!(said.full);
        said.revision
    }

    #[test]
    fn a_revision_that_changes_nothing_is_said_once_so_that_it_is_acknowledged() {
        let controller = Shared::default().controller();
        let dialogue = begin(&controller, "h1", 1, 0).unwrap();
        network::follow(&controller);
        let revision = whole(&dialogue);
        assert!(dialogue.say().is_none());
        let next = Revision::new(revision + 1);
        controller.registry.publish("h1", next, Some(Arc::default()));
        let said = dialogue.say().unwrap();
        assert_eq!((said.revision, said.full, said.chassis.len()), (next.get(), false, 0));
        assert!(dialogue.say().is_none(), "it has been said");
    }

    #[test]
    fn a_chassis_does_not_go_back_when_it_comes_to_a_controller_that_is_behind() {
        let store = Shared::default();
        let ahead = store.controller();
        drop(begin(&ahead, "h1", 1, 0).unwrap());
        let behind = store.controller();
        drop(begin(&ahead, "h2", 1, 0).unwrap());
        network::follow(&ahead);
        let applied = ahead.network().revision().get();
        assert!(behind.state().revision().get() < applied);
        store.is_gone.store(true, Ordering::Release);
        let refused = begin(&behind, "h1", 2, applied).err().unwrap();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
        store.is_gone.store(false, Ordering::Release);
        let dialogue = begin(&behind, "h1", 3, applied).unwrap();
        assert!(whole(&dialogue) >= applied, "nobody has compiled that revision here before");
    }

    #[test]
    fn a_chassis_of_another_store_begins_anew() {
        let controller = Shared::default().controller();
        let dialogue = begin(&controller, "h1", 1, 1_000).unwrap();
        network::follow(&controller);
        assert!(whole(&dialogue) < 1_000);
    }
}
