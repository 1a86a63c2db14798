//! Tells a controller which logical ports are on this host: all of them on a new stream, then what has
//! changed, if the controller takes that.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ferroflow_proto::chassis::{Claim, ClaimChanges, Claims, SyncRequest, sync_request::Message};
use tokio::sync::{mpsc, watch};

use super::queue;

/// What a stream was told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Whether each is up; `None`: nothing was told yet.
    told: Option<BTreeMap<String, bool>>,
}

impl Telling {
    /// What is to be said now; `None`: it is known.
    pub(super) fn news(&mut self, now: &Claims, takes_changes: bool) -> Option<Message> {
        let claims = now.claims.iter().map(|claim| (claim.logical_port.clone(), claim.up)).collect();
        let Some(told) = self.told.replace(claims) else { return Some(Message::Claims(now.clone())) };
        let claims = self.told.as_ref()?;
        let is_new = |claim: &&Claim| told.get(&claim.logical_port) != Some(&claim.up);
        let changes = ClaimChanges {
            claims: now.claims.iter().filter(is_new).cloned().collect(),
            removed: told.keys().filter(|port| !claims.contains_key(*port)).cloned().collect(),
        };
        if changes == ClaimChanges::default() {
            return None;
        }
        Some(if takes_changes { Message::ClaimChanges(changes) } else { Message::Claims(now.clone()) })
    }
}

/// Sends the claims now, and again whenever they change.
pub(super) async fn send(
    sender: mpsc::Sender<SyncRequest>,
    mut claims: watch::Receiver<Claims>,
    takes_changes: Arc<AtomicBool>,
) {
    let mut telling = Telling::default();
    claims.mark_changed();
    while claims.changed().await.is_ok() {
        let news = telling.news(&claims.borrow_and_update(), takes_changes.load(Ordering::Acquire));
        if let Some(message) = news
            && queue(&sender, message).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(ports: &[(&str, bool)]) -> Claims {
        let claim = |(port, up): &(&str, bool)| Claim { logical_port: (*port).to_owned(), up: *up };
        Claims { claims: ports.iter().map(claim).collect() }
    }

    #[test]
    fn all_is_told_at_first_and_then_what_has_changed() {
        let mut telling = Telling::default();
        let first = claims(&[("a", true), ("b", false)]);
        assert_eq!(telling.news(&first, true), Some(Message::Claims(first.clone())));
        assert_eq!(telling.news(&first, true), None);
        let changes = telling.news(&claims(&[("b", true), ("c", false)]), true);
        let wanted = ClaimChanges {
            claims: claims(&[("b", true), ("c", false)]).claims,
            removed: vec!["a".to_owned()],
        };
        assert_eq!(changes, Some(Message::ClaimChanges(wanted)));
        let last = claims(&[("b", true)]);
        assert_eq!(telling.news(&last, false), Some(Message::Claims(last)), "it takes no changes");
    }
}
