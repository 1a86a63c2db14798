//! What a host has to say to a controller, without a stream: for whoever carries the messages
//! himself, and asks now and then.

use std::sync::{Arc, atomic::Ordering};

use ferroflow_proto::chassis::{Hello, SyncRequest, SyncResponse, sync_request::Message};

use super::{Said, claims, holders, neighbours};

/// One stream's side of it: begins with a hello and all that the host claims.
#[derive(Debug)]
pub struct Outbox {
    hello: Option<Hello>,
    said: Said,
    claims: claims::Telling,
    takes_claim_changes: bool,
    neighbours: neighbours::Telling,
}

impl Outbox {
    /// Of a new stream. What the host has said on others is said again, but for words about virtual
    /// ports.
    pub fn new(hello: Hello, mut said: Said) -> Self {
        said.claims.mark_changed();
        said.heard.mark_changed();
        said.holders.mark_changed();
        // An empty list says no more than none.
        if !said.health.borrow().backends.is_empty() {
            said.health.mark_changed();
        }
        if !said.sessions.borrow().sessions.is_empty() {
            said.sessions.mark_changed();
        }
        Self {
            hello: Some(hello),
            said,
            claims: claims::Telling::default(),
            takes_claim_changes: false,
            neighbours: neighbours::Telling::default(),
        }
    }

    /// Hears what the controller takes.
    pub fn hear(&mut self, update: &SyncResponse) {
        self.takes_claim_changes |= update.takes_claim_changes;
    }

    /// What is to be said now, in this order.
    pub fn take(&mut self) -> Vec<SyncRequest> {
        let Said { claims, health, heard, holders, sessions, told } = &mut self.said;
        let mut messages: Vec<_> = self.hello.take().into_iter().map(Message::Hello).collect();
        // Whoever would tell of changes may be gone: then there are none.
        if claims.has_changed().unwrap_or(false) {
            messages.extend(self.claims.news(&claims.borrow_and_update(), self.takes_claim_changes));
        }
        if health.has_changed().unwrap_or(false) {
            messages.push(Message::Health(health.borrow_and_update().clone()));
        }
        if holders.has_changed().unwrap_or(false) {
            let now = Arc::clone(&holders.borrow_and_update());
            if let Some((new, last)) = holders::news(&now, told.load(Ordering::Acquire)) {
                messages.push(Message::Holders(new));
                told.fetch_max(last, Ordering::AcqRel);
            }
        }
        if heard.has_changed().unwrap_or(false) {
            let now = Arc::clone(&heard.borrow_and_update());
            messages.extend(self.neighbours.news(now).map(Message::Neighbours));
        }
        if sessions.has_changed().unwrap_or(false) {
            messages.push(Message::Sessions(sessions.borrow_and_update().clone()));
        }
        messages.into_iter().map(|message| SyncRequest { message: Some(message) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::chassis::{Claim, Claims};
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn all_is_said_at_first_and_then_what_is_new() {
        let claims = watch::Sender::new(Claims::default());
        let (health, sessions) = (watch::Sender::default(), watch::Sender::default());
        let (heard, holders) = (watch::Sender::default(), watch::Sender::default());
        let said = Said {
            claims: claims.subscribe(),
            health: health.subscribe(),
            heard: heard.subscribe(),
            holders: holders.subscribe(),
            sessions: sessions.subscribe(),
            told: Arc::default(),
        };
        let mut outbox = Outbox::new(Hello::default(), said);
        let kinds = |messages: Vec<SyncRequest>| -> Vec<&str> {
            let kind = |message: SyncRequest| match message.message {
                Some(Message::Hello(_)) => "hello",
                Some(Message::Claims(_)) => "claims",
                Some(Message::ClaimChanges(_)) => "changes",
                Some(Message::Neighbours(said)) if said.full => "neighbours",
                _ => "other",
            };
            messages.into_iter().map(kind).collect()
        };
        assert_eq!(kinds(outbox.take()), ["hello", "claims", "neighbours"]);
        assert_eq!(kinds(outbox.take()), [""; 0]);
        let up = |port: &str| Claim { logical_port: port.to_owned(), up: true };
        claims.send_replace(Claims { claims: vec![up("a")] });
        assert_eq!(kinds(outbox.take()), ["claims"]);
        outbox.hear(&SyncResponse { takes_claim_changes: true, ..SyncResponse::default() });
        claims.send_replace(Claims { claims: vec![up("a"), up("b")] });
        assert_eq!(kinds(outbox.take()), ["changes"]);
        outbox.hear(&SyncResponse::default());
        claims.send_replace(Claims::default());
        assert_eq!(kinds(outbox.take()), ["changes"], "for the whole stream");
    }
}
