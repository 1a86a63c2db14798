//! One stream of one chassis: a task reads what the chassis says, a pulled stream sends
//! it the newest view. What they say is `dialogue.rs`.
//!
//! There is no queue towards a chassis: changes are merged until the transport asks for the
//! next message. The first one is the whole view.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ferroflow_proto::chassis as pb;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{oneshot, watch},
    time::sleep_until,
};
use tonic::{Status, Streaming};

use super::{Dialogue, dialogue::NeedsWhole, registry::End};
use crate::{
    access::Caller,
    controller::{Controller, Ending},
    store::Revision,
};

/// How long a chassis may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

type Updates = BoxStream<'static, Result<pb::SyncResponse, Status>>;

/// The reading half.
struct Inbound {
    dialogue: Arc<Dialogue>,
    requests: Streaming<pb::SyncRequest>,
    ending: watch::Receiver<Option<Ending>>,
}

/// The sending half.
struct Outbound {
    dialogue: Arc<Dialogue>,
    view: watch::Receiver<Option<Revision>>,
    end: watch::Receiver<Option<End>>,
    ending: watch::Receiver<Option<Ending>>,
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
    let ending = controller.ending();
    let first = match tokio::time::timeout(HELLO_TIMEOUT, requests.message()).await {
        Ok(Ok(first)) => first,
        Ok(Err(status)) => return drop(started.send(Err(status))),
        Err(_) => return drop(started.send(Err(Status::deadline_exceeded("no hello came")))),
    };
    let begun = tokio::task::spawn_blocking(move || Dialogue::begin(controller, &caller, first)).await;
    let dialogue = match begun.unwrap_or_else(|_| Err(stopping())) {
        Ok(dialogue) => Arc::new(dialogue),
        Err(status) => return drop(started.send(Err(status))),
    };
    let (alive, gone) = oneshot::channel();
    let outbound = Outbound {
        view: dialogue.view.clone(),
        end: dialogue.end.subscribe(),
        ending: ending.clone(),
        dialogue: Arc::clone(&dialogue),
        _alive: alive,
    };
    let mut inbound = Inbound { dialogue, requests, ending };
    if started.send(Ok(outbound)).is_ok() {
        inbound.read(gone).await;
    }
    let _ = blocking(&inbound.dialogue, Dialogue::finish).await;
}

/// Runs what may write on a thread that may block.
async fn blocking<T: Send + 'static>(
    dialogue: &Arc<Dialogue>,
    work: impl FnOnce(&Dialogue) -> T + Send + 'static,
) -> Result<T, Status> {
    let dialogue = Arc::clone(dialogue);
    tokio::task::spawn_blocking(move || work(&dialogue)).await.map_err(|_| stopping())
}

impl Inbound {
    /// Reads until either side is through.
    async fn read(&mut self, mut gone: oneshot::Receiver<()>) {
        let mut ended = self.dialogue.end.subscribe();
        loop {
            let due = self.dialogue.due();
            let request = tokio::select! {
                request = self.requests.message() => Some(request),
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => None,
                _ = ended.wait_for(Option::is_some) => return,
                _ = self.ending.wait_for(Option::is_some) => return,
                _ = &mut gone => return,
            };
            let verdict = match request {
                Some(Ok(Some(request))) => {
                    blocking(&self.dialogue, move |dialogue| dialogue.hear(request, Instant::now())).await
                }
                None => blocking(&self.dialogue, |dialogue| dialogue.tend(Instant::now())).await,
                Some(Ok(None) | Err(_)) => {
                    self.dialogue.end.send_replace(Some(End::Closed));
                    return;
                }
            };
            if let Err(status) = verdict.and_then(|verdict| verdict) {
                self.dialogue.end.send_replace(Some(End::Refused(status)));
                return;
            }
        }
    }
}

impl Outbound {
    /// The next update; `None` when the chassis has closed the stream.
    async fn next(&mut self) -> Option<Result<pb::SyncResponse, Status>> {
        loop {
            self.view.borrow_and_update();
            let said = match self.dialogue.say_at_once() {
                Ok(said) => Ok(said),
                Err(NeedsWhole) => blocking(&self.dialogue, Dialogue::say_all).await,
            };
            match said {
                Ok(Some(update)) => return Some(Ok(update)),
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
}
