//! One stream of one chassis: a task reads what the chassis says, a pulled stream sends
//! it the newest view.
//!
//! There is no queue towards a chassis: changes are merged until the transport asks for the
//! next message. The first one is the whole view.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ferroflow_proto::{
    chassis::{self as pb, sync_request::Message},
    northbound,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{oneshot, watch},
    time::sleep_until,
};
use tonic::{Status, Streaming};

use super::{
    bindings, encode, health, holders, neighbours,
    registry::{Connected, End, News, SessionId, Superseded},
    sessions,
};
use crate::{
    access::{Author, Caller},
    controller::{Controller, Ending},
    resource::{
        Name, check_id,
        limits::{MAX_ACK_ERROR_LEN, MAX_ACK_ERRORS, MAX_CLAIMS, MAX_HEALTH, MAX_NEIGHBOURS, MAX_SESSIONS},
        parse_spec,
    },
    state::{Reason, Refusal},
    store::Revision,
};

/// How long a chassis may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

type Updates = BoxStream<'static, Result<pb::SyncResponse, Status>>;

/// The reading half.
struct Inbound {
    controller: Arc<Controller>,
    requests: Streaming<pb::SyncRequest>,
    chassis: String,
    session: SessionId,
    end: watch::Sender<Option<End>>,
    sent: Arc<AtomicU64>,
    later: Later,
}

/// What the chassis has heard of neighbours that has to wait, by router port and address, and
/// when its turn is.
#[derive(Default)]
struct Later {
    heard: BTreeMap<(String, String), pb::Neighbour>,
    due: Option<Instant>,
}

/// The sending half.
struct Outbound {
    controller: Arc<Controller>,
    chassis: String,
    session: SessionId,
    /// Revision of the newest view.
    view: watch::Receiver<Option<Revision>>,
    end: watch::Receiver<Option<End>>,
    ending: watch::Receiver<Option<Ending>>,
    /// Revision of the newest update sent.
    sent: Arc<AtomicU64>,
    /// Tells the reading half, by going away, that nobody takes updates any more.
    _alive: oneshot::Sender<()>,
}

/// Starts a session. The task that owns it outlives the call, so that a client that goes
/// away at any time is seen off properly.
pub(super) async fn start(
    controller: Arc<Controller>,
    caller: Arc<Caller>,
    requests: Streaming<pb::SyncRequest>,
) -> Result<Updates, Status> {
    let (started, starting) = oneshot::channel();
    tokio::spawn(run(controller, caller, requests, started));
    let outbound = starting.await.unwrap_or_else(|_| Err(stopping()))?;
    let updates = stream::unfold(Some(outbound), |outbound| async {
        let mut outbound = outbound?;
        match outbound.next().await? {
            Ok(update) => Some((Ok(update), Some(outbound))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(updates.boxed())
}

fn stopping() -> Status {
    Status::unavailable("the controller is stopping; connect again")
}

async fn run(
    controller: Arc<Controller>,
    caller: Arc<Caller>,
    mut requests: Streaming<pb::SyncRequest>,
    started: oneshot::Sender<Result<Outbound, Status>>,
) {
    if controller.is_cut_off() {
        let reason = "this controller is cut off from its store; connect to another";
        return drop(started.send(Err(Status::unavailable(reason))));
    }
    let hello = match hello(&caller, &mut requests).await {
        Ok(hello) => hello,
        Err(status) => return drop(started.send(Err(status))),
    };
    let chassis = hello.chassis.clone();
    let Ok(Connected { session, end, view }) = controller.registry.connect(&chassis, hello.incarnation)
    else {
        let reason = "a newer incarnation of this chassis is connected; give each host its own id";
        return drop(started.send(Err(Status::aborted(reason))));
    };
    controller.receipts.changed();
    let (alive, gone) = oneshot::channel();
    let sent = Arc::new(AtomicU64::new(0));
    let outbound = Outbound {
        controller: Arc::clone(&controller),
        chassis: chassis.clone(),
        session,
        view,
        end: end.subscribe(),
        ending: controller.ending(),
        sent: Arc::clone(&sent),
        _alive: alive,
    };
    let mut inbound = Inbound { controller, requests, chassis, session, end, sent, later: Later::default() };
    match inbound.register(hello).await {
        Ok(()) => {
            tracing::info!(chassis = inbound.chassis, "connected");
            if started.send(Ok(outbound)).is_ok() {
                inbound.read(gone).await;
            }
        }
        Err(status) => drop(started.send(Err(status))),
    }
    inbound.finish().await;
}

async fn hello(caller: &Caller, requests: &mut Streaming<pb::SyncRequest>) -> Result<pb::Hello, Status> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
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

impl Inbound {
    /// Writes the chassis into the network.
    async fn register(&self, hello: pb::Hello) -> Result<(), Status> {
        self.blocking(move |controller, chassis| {
            let name = Name::chassis(chassis).map_err(Reason::from)?;
            let author = Author::chassis(chassis, "hello");
            controller
                .write(&author, false, |draft| Ok(draft.register(name.clone(), record(&hello))?))
                .map(drop)
        })
        .await
    }

    /// Reads until either side is through.
    async fn read(&mut self, mut gone: oneshot::Receiver<()>) {
        let mut ended = self.end.subscribe();
        let mut ending = self.controller.ending();
        loop {
            let due = self.later.due;
            let request = tokio::select! {
                request = self.requests.message() => request,
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    let heard = std::mem::take(&mut self.later).heard.into_values().collect();
                    let said = pb::Neighbours { heard, ..pb::Neighbours::default() };
                    Ok(Some(pb::SyncRequest { message: Some(Message::Neighbours(said)) }))
                }
                _ = ended.wait_for(Option::is_some) => return,
                _ = ending.wait_for(Option::is_some) => return,
                _ = &mut gone => return,
            };
            let verdict = match request {
                Ok(Some(request)) => self.take(request).await,
                Ok(None) | Err(_) => {
                    self.end.send_replace(Some(End::Closed));
                    return;
                }
            };
            if let Err(status) = verdict {
                self.end.send_replace(Some(End::Refused(status)));
                return;
            }
        }
    }

    async fn take(&mut self, request: pb::SyncRequest) -> Result<(), Status> {
        match request.message {
            Some(Message::Claims(claims)) => self.claim(claims).await,
            Some(Message::Ack(ack)) => self.ack(ack).await,
            Some(Message::Health(said)) => self.health(said).await,
            Some(Message::Neighbours(said)) => self.neighbours(said).await,
            Some(Message::Holders(said)) => self.holders(said).await,
            Some(Message::Sessions(said)) => self.sessions(said).await,
            Some(Message::Hello(_)) => {
                Err(Status::invalid_argument("`hello` comes once; open another stream to say it again"))
            }
            None => Err(Status::invalid_argument(
                "a message is `claims`, `ack`, `health`, `neighbours`, `holders` or `sessions`; set one",
            )),
        }
    }

    async fn claim(&self, claims: pb::Claims) -> Result<(), Status> {
        if claims.claims.len() > MAX_CLAIMS {
            let message = format!("{} claims are too many; keep to {MAX_CLAIMS}", claims.claims.len());
            return Err(Status::invalid_argument(message));
        }
        let (known, unknown): (Vec<_>, Vec<_>) =
            claims.claims.into_iter().partition(|claim| check_id(&claim.logical_port).is_ok());
        if !unknown.is_empty() {
            tracing::warn!(
                chassis = self.chassis,
                n = unknown.len(),
                "claims ignored: they name what cannot be the id of a port"
            );
        }
        let claims: BTreeMap<String, bool> =
            known.into_iter().map(|claim| (claim.logical_port, claim.up)).collect();
        let touched = self.controller.registry.claim(&self.chassis, self.session, &claims);
        let touched = touched.map_err(superseded)?;
        self.blocking(move |controller, chassis| {
            bindings::settle(controller, chassis, touched)?;
            bindings::report_refused(controller, chassis, claims.keys());
            Ok(())
        })
        .await
    }

    async fn health(&self, said: pb::Health) -> Result<(), Status> {
        if said.backends.len() > MAX_HEALTH {
            let message = format!("{} backends are too many; keep to {MAX_HEALTH}", said.backends.len());
            return Err(Status::invalid_argument(message));
        }
        self.blocking(move |controller, chassis| health::settle(controller, chassis, &said.backends)).await
    }

    async fn holders(&self, said: pb::Holders) -> Result<(), Status> {
        if said.holders.len() > MAX_CLAIMS {
            let message = format!("{} holders are too many; keep to {MAX_CLAIMS}", said.holders.len());
            return Err(Status::invalid_argument(message));
        }
        self.blocking(move |controller, chassis| holders::settle(controller, chassis, &said)).await
    }

    async fn sessions(&self, said: pb::Sessions) -> Result<(), Status> {
        if said.sessions.len() > MAX_SESSIONS {
            let message = format!("{} sessions are too many; keep to {MAX_SESSIONS}", said.sessions.len());
            return Err(Status::invalid_argument(message));
        }
        self.blocking(move |controller, chassis| sessions::settle(controller, chassis, &said.sessions)).await
    }

    async fn neighbours(&mut self, said: pb::Neighbours) -> Result<(), Status> {
        let n_said = said.heard.len() + said.gone.len();
        if n_said > MAX_NEIGHBOURS {
            let message = format!("{n_said} neighbours are too many; keep to {MAX_NEIGHBOURS}");
            return Err(Status::invalid_argument(message));
        }
        self.later.supersede(&said);
        let now = Instant::now();
        let settling =
            move |controller: &Controller, chassis: &str| neighbours::settle(controller, chassis, said, now);
        if let Some((wait, heard)) = self.blocking(settling).await? {
            self.later.wait(heard, now + wait);
        }
        Ok(())
    }

    async fn ack(&self, ack: pb::Ack) -> Result<(), Status> {
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
        self.blocking(|controller, chassis| bindings::settle(controller, chassis, BTreeSet::new())).await
    }

    /// Signs off, and lets others have the ports they have been waiting for.
    async fn finish(self) {
        if !self.controller.registry.disconnect(&self.chassis, self.session) {
            return;
        }
        self.controller.receipts.changed();
        tracing::info!(chassis = self.chassis, "disconnected");
        let settled =
            self.blocking(|controller, chassis| bindings::settle(controller, chassis, BTreeSet::new())).await;
        if let Err(status) = settled {
            tracing::warn!(chassis = self.chassis, reason = status.message(), "bindings are not settled");
        }
    }

    /// Runs what may write on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Controller, &str) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let (controller, chassis) = (Arc::clone(&self.controller), self.chassis.clone());
        let done = tokio::task::spawn_blocking(move || work(&controller, &chassis)).await;
        Ok(done.map_err(|_| stopping())??)
    }
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

fn superseded(_: Superseded) -> Status {
    Status::aborted("another stream of this chassis has taken over")
}

impl Outbound {
    /// The next update; `None` when the chassis has closed the stream.
    async fn next(&mut self) -> Option<Result<pb::SyncResponse, Status>> {
        loop {
            self.view.borrow_and_update();
            match self.update().await {
                Ok(Some(update)) => {
                    self.sent.store(update.revision, Ordering::Release);
                    return Some(Ok(update));
                }
                Ok(None) => {}
                Err(status) => return Some(Err(status)),
            }
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() {
                    return Some(Err(stopping()));
                },
                end = self.end.wait_for(Option::is_some) => {
                    return match end.ok().and_then(|end| end.clone()) {
                        Some(End::Refused(status)) => Some(Err(status)),
                        Some(End::Closed) | None => None,
                    };
                }
                _ = self.ending.wait_for(Option::is_some) => return Some(Err(stopping())),
            }
        }
    }

    /// What is new for the chassis, if anything is. A session that is over has no news; why
    /// it is over is told by its end.
    async fn update(&self) -> Result<Option<pb::SyncResponse>, Status> {
        Ok(match self.controller.registry.take(&self.chassis, self.session) {
            Ok(Some(News::Whole)) => self.whole().await?,
            Ok(Some(News::Changes(revision, delta))) if !delta.is_empty() => {
                Some(encode::delta(revision, *delta))
            }
            Ok(Some(News::Changes(..)) | None) | Err(Superseded) => None,
        })
    }

    /// The whole view; may wait for the compiler.
    async fn whole(&self) -> Result<Option<pb::SyncResponse>, Status> {
        let (controller, chassis, session) =
            (Arc::clone(&self.controller), self.chassis.clone(), self.session);
        let whole = tokio::task::spawn_blocking(move || {
            let network = controller.network();
            controller.registry.begin(&chassis, session).ok()?;
            let (revision, view) = network.view(&chassis);
            drop(network);
            Some(encode::full(revision, &view))
        });
        whole.await.map_err(|_| stopping())
    }
}
