//! Connections that begin, are established and go, for everybody who watches. As long as
//! somebody does, one task takes what the tracker tells and hands it to all; what comes too
//! fast for the tracker's queue or for a reader is counted.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ferroflow_proto::host::{self as pb, ConnectionEventKind as Kind, connection_event::Event as Happened};
use flowtable::{
    conntrack::{Connection, Conntrack, Event, Filter, Watched},
    types::Timestamp,
};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::Status;

use super::conntrack::connection;
use crate::host::SharedHost;

/// How often the tracker is asked. Its queue lasts for 200 000 events in a second.
const INTERVAL: Duration = Duration::from_millis(20);
/// Events that wait for the slowest reader.
const KEPT: usize = 8192;
/// Events that wait to be sent to one reader.
const CHUNK: usize = 64;

/// What a reader gets.
pub(super) type ConnectionEventStream =
    Pin<Box<dyn Stream<Item = Result<pb::ConnectionEvent, Status>> + Send>>;

/// Something to tell, and when it was told.
#[derive(Debug, Clone)]
enum Told {
    Change(Timestamp, Arc<Event>),
    Lost(Timestamp, u64),
}

/// Who watches, and the way to them.
#[derive(Debug)]
pub(super) struct ConnectionEvents {
    sender: broadcast::Sender<Told>,
    watchers: Mutex<Watchers>,
}

#[derive(Debug, Default)]
struct Watchers {
    /// The zone of each, if it is one.
    zones: BTreeMap<u64, Option<u16>>,
    next: u64,
    /// A task takes events from the tracker.
    is_fed: bool,
}

impl Default for ConnectionEvents {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(KEPT), watchers: Mutex::default() }
    }
}

impl ConnectionEvents {
    /// Tells a new reader of what happens from now on.
    pub(super) fn watch(
        self: &Arc<Self>,
        tracker: &Arc<Conntrack>,
        host: &SharedHost,
        filter: Filter,
        kinds: Vec<Kind>,
    ) -> ConnectionEventStream {
        let told = self.sender.subscribe();
        let mut watchers = self.watchers();
        let id = watchers.next;
        watchers.next += 1;
        watchers.zones.insert(id, filter.zone);
        tracker.set_events(watchers.watched());
        if !std::mem::replace(&mut watchers.is_fed, true) {
            tokio::spawn(Arc::clone(self).feed(Arc::clone(tracker), host.clone()));
        }
        drop(watchers);
        let (sender, receiver) = mpsc::channel(CHUNK);
        let watcher = Watcher { id, of: Arc::clone(self), tracker: Arc::clone(tracker) };
        tokio::spawn(watcher.read(told, (filter, kinds), sender));
        Box::pin(ReceiverStream::new(receiver))
    }

    /// Hands out what the tracker tells, until nobody watches.
    async fn feed(self: Arc<Self>, tracker: Arc<Conntrack>, host: SharedHost) {
        // What was lost before is of no concern.
        let (_, mut n_lost) = tracker.fetch_events();
        while self.goes_on() {
            tokio::time::sleep(INTERVAL).await;
            let (events, lost) = tracker.fetch_events();
            if events.is_empty() && lost == n_lost {
                continue;
            }
            let now = host.with(|host| host.dataplane().now()).await;
            for event in events {
                let _ = self.sender.send(Told::Change(now, Arc::new(event)));
            }
            // They would have come behind those that there was room for.
            if lost > n_lost {
                let _ = self.sender.send(Told::Lost(now, lost - n_lost));
            }
            n_lost = lost;
        }
    }

    /// Somebody still watches; if not, the next one starts another task.
    fn goes_on(&self) -> bool {
        let mut watchers = self.watchers();
        watchers.is_fed = !watchers.zones.is_empty();
        watchers.is_fed
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchers {
    /// What the tracker has to tell.
    fn watched(&self) -> Watched {
        match self.zones.values().copied().collect::<Option<_>>() {
            _ if self.zones.is_empty() => Watched::Nothing,
            Some(zones) => Watched::Zones(zones),
            None => Watched::All,
        }
    }
}

/// Somebody who watches, until he is dropped.
struct Watcher {
    id: u64,
    of: Arc<ConnectionEvents>,
    tracker: Arc<Conntrack>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watchers = self.of.watchers();
        watchers.zones.remove(&self.id);
        self.tracker.set_events(watchers.watched());
    }
}

impl Watcher {
    /// Sends on what is wanted until the reader is gone.
    async fn read(
        self,
        mut told: broadcast::Receiver<Told>,
        (filter, kinds): (Filter, Vec<Kind>),
        sender: mpsc::Sender<Result<pb::ConnectionEvent, Status>>,
    ) {
        let mut last = Timestamp::default();
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = sender.closed() => return,
            };
            let message = match next {
                Ok(Told::Change(now, event)) => {
                    last = now;
                    wanted(&event, &filter, &kinds).map(|change| (now, Happened::Change(change)))
                }
                Ok(Told::Lost(now, n_lost)) => Some((now, Happened::NLost(n_lost))),
                Err(broadcast::error::RecvError::Lagged(n_lost)) => Some((last, Happened::NLost(n_lost))),
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let Some((time, event)) = message else { continue };
            let message = pb::ConnectionEvent { time: time.nanos(), event: Some(event) };
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    }
}

/// The message of an event, if it is one of those wanted.
fn wanted(event: &Event, filter: &Filter, kinds: &[Kind]) -> Option<pb::ConnectionChange> {
    let (kind, found): (Kind, &Connection) = match event {
        Event::Created(found) => (Kind::New, found),
        Event::Established(found) => (Kind::Established, found),
        Event::Removed(found) => (Kind::Destroyed, found),
    };
    let is_wanted = (kinds.is_empty() || kinds.contains(&kind)) && filter.accepts(found);
    is_wanted.then(|| pb::ConnectionChange { kind: kind.into(), connection: Some(connection(found)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tracker_tells_what_somebody_watches() {
        let mut watchers = Watchers::default();
        assert_eq!(watchers.watched(), Watched::Nothing);
        watchers.zones.insert(0, Some(7));
        watchers.zones.insert(1, Some(5));
        watchers.zones.insert(2, Some(7));
        assert_eq!(watchers.watched(), Watched::Zones([5, 7].into()));
        watchers.zones.insert(3, None);
        assert_eq!(watchers.watched(), Watched::All);
        watchers.zones.remove(&3);
        watchers.zones.remove(&1);
        assert_eq!(watchers.watched(), Watched::Zones([7].into()));
    }
}
