//! Watches. A watch reads the state's log at its own pace; it has no queue, so a slow
//! client costs nothing but, at last, its place in the log.
//!
//! Large answers come in parts. The revision of an answer is always one to resume from
//! without loss: all parts but the last carry the revision before.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use ferroflow_proto::northbound as pb;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use prost::Message as _;
use tokio::sync::watch;
use tonic::Status;

use super::{
    Northbound,
    list::{parse_kind, parse_parent},
};
use crate::{
    access::{self, Caller},
    controller::Ending,
    resource::{Kind, Name},
    state::{Change, Record, Revised, State},
    store::Revision,
};

/// Bytes of events in one answer, far below the 4 MiB that clients take by default.
const MAX_ANSWER_LEN: usize = 1 << 20;
/// Revisions taken from the log under one lock.
const MAX_REVISIONS: usize = 64;

struct Filter {
    kinds: BTreeSet<Kind>,
    prefix: String,
    caller: Arc<Caller>,
}

/// Whose a change is, for a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    Others,
    /// It has become, or is no longer, the tenant's; or nobody remembers.
    Unclear,
}

impl Filter {
    fn wants(&self, name: &Name) -> bool {
        let is_kind = self.kinds.is_empty() || self.kinds.contains(&name.kind());
        is_kind && name.as_str().starts_with(&self.prefix)
    }

    fn wants_present(&self, state: &State, name: &Name) -> bool {
        self.wants(name) && access::sees(&self.caller.who, state, name)
    }

    /// Whose a change in a revision is.
    fn whose(&self, state: &State, revised: &Revised, change: &Change) -> Whose {
        let Some(tenant) = self.caller.tenant() else {
            return if access::sees(&self.caller.who, state, &change.name) {
                Whose::Own
            } else {
                Whose::Others
            };
        };
        let is_own =
            |record: &Arc<Record>| record.labels.get(access::OWNER).is_some_and(|owner| owner == tenant);
        let root = access::root(&change.name);
        if let Some(of_root) = revised.changes.iter().find(|change| change.name == root) {
            return match (of_root.before.as_ref().map(is_own), of_root.after.as_ref().map(is_own)) {
                (Some(true), Some(true)) => Whose::Own,
                (Some(true), Some(false)) | (Some(false), Some(true)) => Whose::Unclear,
                (Some(false), _) => Whose::Others,
                (None | Some(true), None) if of_root.before.is_some() => Whose::Own,
                (_, None) => Whose::Unclear,
                // Made by this revision, or from before this controller started.
                (None, Some(is_own))
                    if of_root
                        .after
                        .as_ref()
                        .is_some_and(|root| root.create_revision == revised.revision) =>
                {
                    if is_own {
                        Whose::Own
                    } else {
                        Whose::Others
                    }
                }
                (None, Some(_)) => Whose::Unclear,
            };
        }
        match state.get(&root) {
            Some(root) if is_own(root) => Whose::Own,
            Some(_) => Whose::Others,
            // It went later; what was below it went with it, or before.
            None => Whose::Unclear,
        }
    }
}

struct Watch {
    service: Northbound,
    filter: Filter,
    /// Everything up to here has been put into `ready` or sent.
    cursor: Revision,
    /// The client knows that it has seen everything up to here.
    announced: Option<Revision>,
    /// What is present at the start, not yet in `ready`.
    present: VecDeque<Arc<Record>>,
    ready: VecDeque<pb::WatchResponse>,
    revisions: watch::Receiver<Revision>,
    ending: watch::Receiver<Option<Ending>>,
}

/// Starts a watch.
pub(super) fn watch(
    service: &Northbound,
    caller: Arc<Caller>,
    request: pb::WatchRequest,
) -> Result<BoxStream<'static, Result<pb::WatchResponse, Status>>, Status> {
    let kinds = request.kinds.iter().map(|kind| parse_kind(*kind)).collect::<Result<_, _>>()?;
    let prefix = parse_parent(&request.parent)?.map(|parent| format!("{parent}/")).unwrap_or_default();
    let filter = Filter { kinds, prefix, caller };
    let (revisions, ending) = (service.controller.revisions(), service.controller.ending());
    let state = service.controller.state();
    let (cursor, present) = if request.after_revision == 0 {
        let wanted = state.iter().filter(|record| filter.wants_present(&state, &record.name));
        let present = wanted.cloned().collect();
        (state.revision(), present)
    } else {
        let after = Revision::new(request.after_revision);
        if after > state.revision() {
            let message = format!(
                "revision {after} does not exist, the newest is {}; list again and watch from there",
                state.revision()
            );
            return Err(Status::out_of_range(message));
        }
        drop(state.changes_since(after)?);
        (after, VecDeque::new())
    };
    drop(state);
    let watch = Watch {
        service: service.clone(),
        filter,
        cursor,
        announced: None,
        present,
        ready: VecDeque::new(),
        revisions,
        ending,
    };
    // After an error there is nothing more.
    let answers = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(answer) => Some((Ok(answer), Some(watch))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(answers.boxed())
}

impl Watch {
    async fn next(&mut self) -> Result<pb::WatchResponse, Status> {
        loop {
            if let Some(answer) = self.ready.pop_front() {
                return Ok(answer);
            }
            if !self.present.is_empty() {
                return Ok(self.next_present());
            }
            self.revisions.borrow_and_update();
            if self.read_log()? {
                continue;
            }
            if self.announced != Some(self.cursor) {
                self.announced = Some(self.cursor);
                return Ok(pb::WatchResponse { revision: self.cursor.get(), events: Vec::new() });
            }
            tokio::select! {
                _ = self.revisions.changed() => {}
                _ = self.ending.wait_for(Option::is_some) => {
                    return Err(Status::unavailable("the controller is stopping; watch again"));
                }
            }
        }
    }

    /// One answer of what is present at the start. Only the last part can be resumed from.
    fn next_present(&mut self) -> pb::WatchResponse {
        let (mut events, mut len) = (Vec::new(), 0);
        while len < MAX_ANSWER_LEN {
            let Some(record) = self.present.pop_front() else { break };
            let event = put(&self.service, &record);
            len += event.encoded_len();
            events.push(event);
        }
        let revision = if self.present.is_empty() { self.cursor } else { Revision::ZERO };
        pb::WatchResponse { revision: revision.get(), events }
    }

    /// Takes the next revisions from the log; false when there are none.
    fn read_log(&mut self) -> Result<bool, Status> {
        let state = self.service.controller.state();
        let revised: Vec<_> = state.changes_since(self.cursor)?.take(MAX_REVISIONS).cloned().collect();
        let mut wanted = Vec::with_capacity(revised.len());
        for revised in &revised {
            let mut own = Vec::new();
            for change in revised.changes.iter().filter(|change| self.filter.wants(&change.name)) {
                match self.filter.whose(&state, revised, change) {
                    Whose::Own => own.push(change),
                    Whose::Others => {}
                    Whose::Unclear => {
                        let message = "what is yours has changed; list again and watch from there";
                        return Err(Status::out_of_range(message));
                    }
                }
            }
            wanted.push(own);
        }
        drop(state);
        for (revised, wanted) in revised.iter().zip(wanted) {
            let events: Vec<_> = wanted.into_iter().map(|change| event(&self.service, change)).collect();
            if !events.is_empty() {
                self.ready.extend(parts(self.cursor, revised.revision, events));
                if self.announced.is_some() {
                    self.announced = Some(revised.revision);
                }
            }
            self.cursor = revised.revision;
        }
        Ok(!revised.is_empty())
    }
}

fn event(service: &Northbound, change: &Change) -> pb::Event {
    match &change.after {
        Some(record) => put(service, record),
        None => pb::Event { event: Some(pb::event::Event::Deleted(change.name.to_string())) },
    }
}

fn put(service: &Northbound, record: &Record) -> pb::Event {
    pb::Event { event: Some(pb::event::Event::Put(service.to_wire(record))) }
}

/// Splits the events of one revision into answers of bounded size.
fn parts(before: Revision, revision: Revision, events: Vec<pb::Event>) -> Vec<pb::WatchResponse> {
    let mut answers = Vec::new();
    let (mut part, mut len) = (Vec::new(), 0);
    for event in events {
        let event_len = event.encoded_len();
        if len + event_len > MAX_ANSWER_LEN && !part.is_empty() {
            let events = std::mem::take(&mut part);
            answers.push(pb::WatchResponse { revision: before.get(), events });
            len = 0;
        }
        len += event_len;
        part.push(event);
    }
    answers.push(pb::WatchResponse { revision: revision.get(), events: part });
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_part_of_a_revision_can_be_resumed_after() {
        let name = "x".repeat(MAX_ANSWER_LEN / 3);
        let event = pb::Event { event: Some(pb::event::Event::Deleted(name)) };
        let answers = parts(Revision::new(4), Revision::new(5), vec![event; 7]);
        let revisions: Vec<_> = answers.iter().map(|answer| answer.revision).collect();
        assert_eq!(revisions, [4, 4, 4, 5]);
        assert_eq!(answers.iter().map(|answer| answer.events.len()).sum::<usize>(), 7);
    }
}
