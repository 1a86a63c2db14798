//! Several controllers on one store: each follows what the others write, and tells them which hosts
//! are connected to it and how far they are, so that all of them give the same receipts.
//!
//! Nobody leads. A write goes to any of them; a host is connected to one of them, and goes to another when
//! that is gone. What a controller has told counts as long as it tells it again and again: one that
//! died is believed for a few seconds more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message;

use crate::{
    chassis::{Elsewhere, Turn, settle_claims},
    controller::{Controller, Ending},
    state::Refusal,
    store::Revision,
};

/// How often hosts' progress is told.
const TELL: Duration = Duration::from_millis(200);
/// How often it is told that there is nothing new.
const REMIND: Duration = Duration::from_secs(1);
/// Whoever has told nothing for so long is not believed any more.
const BELIEF: Duration = Duration::from_secs(3);
/// Whoever has heard nothing for so long sends hosts away.
const SILENCE: Duration = Duration::from_secs(5);
/// And what he has told is cleared away after so long.
const FORGET: Duration = Duration::from_secs(120);
/// How long news are waited for at a time.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, PartialEq, Message)]
struct Told {
    /// Counts up, so that others see that it is told anew.
    #[prost(uint64, tag = "1")]
    beat: u64,
    #[prost(message, repeated, tag = "2")]
    chassis: Vec<ToldChassis>,
}

#[derive(Clone, PartialEq, Message)]
struct ToldChassis {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    applied: u64,
    #[prost(uint64, tag = "4")]
    stream: u64,
}

/// Keeps a controller in step with the others until it ends; nothing where the store is its own.
pub(crate) async fn keep(controller: Arc<Controller>) {
    if !controller.store().is_shared() {
        return;
    }
    let (following, telling) = (Arc::clone(&controller), Arc::clone(&controller));
    let following = tokio::task::spawn_blocking(move || follow(&following));
    let telling = tokio::task::spawn_blocking(move || tell(&telling));
    for ended in [following.await, telling.await] {
        if let Err(error) = ended {
            controller.end(Ending::Failed(format!("it does not follow the others any more: {error}")));
        }
    }
}

fn is_ending(controller: &Controller) -> bool {
    controller.ending().borrow().is_some()
}

fn follow(controller: &Controller) {
    let mut follower = Follower::default();
    while !is_ending(controller) {
        let at = controller.state().revision();
        let is_news = controller.store().wait_beyond(at, WAIT);
        if let Err(refusal) = follower.follow(controller, is_news) {
            tracing::debug!(%refusal, "not in step with the others");
            std::thread::sleep(TELL);
        }
    }
}

fn tell(controller: &Controller) {
    let who = format!(
        "{:016x}",
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
    );
    let mut company = Company::new(who, Instant::now());
    while !is_ending(controller) {
        company.tell(controller, Instant::now());
        std::thread::sleep(TELL);
    }
    company.leave(controller);
}

/// How far a controller has followed the others; whoever runs it waits for news of the store.
#[derive(Debug, Default)]
pub struct Follower {
    seen: Revision,
}

impl Follower {
    /// Takes over what the others have written, if there is news, and binds what they have made for
    /// hosts that are here.
    ///
    /// # Errors
    /// The store does not answer, or the controller ends; it is to be tried again.
    pub fn follow(&mut self, controller: &Controller, is_news: bool) -> Result<(), Refusal> {
        if is_news {
            controller.catch_up()?;
        }
        let now = controller.state().revision();
        if now > self.seen {
            settle_claims(controller)?;
        }
        self.seen = now;
        Ok(())
    }
}

/// What is known of another controller.
#[derive(Debug)]
struct Other {
    told: Vec<u8>,
    since: Instant,
}

/// What a controller and the others tell each other of hosts; whoever runs it calls several times
/// a second.
#[derive(Debug)]
pub struct Company {
    who: String,
    others: HashMap<String, Other>,
    told: Option<BTreeMap<String, Elsewhere>>,
    told_at: Instant,
    beat: u64,
    heard_at: Instant,
    /// Who is elsewhere has changed, and ports that are claimed here have not followed yet.
    is_unsettled: bool,
}

impl Company {
    /// Of a controller that is called so among the others.
    pub fn new(who: String, now: Instant) -> Self {
        Self {
            who,
            others: HashMap::new(),
            told: None,
            told_at: now,
            beat: 0,
            heard_at: now,
            is_unsettled: false,
        }
    }

    /// Tells which hosts are here, where that is new, and hears which are with others; ports that
    /// are claimed here, and whose holders are gone, are taken over.
    pub fn tell(&mut self, controller: &Controller, now: Instant) {
        let here = here(controller);
        if self.told.as_ref() != Some(&here) || now.duration_since(self.told_at) >= REMIND {
            self.beat += 1;
            match controller.store().share(&self.who, encode(self.beat, &here)) {
                Ok(heard) => {
                    (self.told, self.told_at, self.heard_at) = (Some(here), now, now);
                    controller.set_cut_off(false);
                    self.hear(heard, controller, now);
                }
                Err(error) => {
                    tracing::debug!(%error, "the others are not told of hosts");
                    controller.set_cut_off(now.duration_since(self.heard_at) > SILENCE);
                }
            }
        }
        if controller.registry.set_elsewhere(elsewhere(&self.others, now)) {
            controller.receipts.changed();
            self.is_unsettled = true;
        }
        if self.is_unsettled {
            let settled = settle_claims(controller);
            self.is_unsettled = settled.is_err();
            if let Err(refusal) = settled {
                tracing::debug!(%refusal, "ports of hosts that are gone are taken over later");
            }
        }
    }

    /// Takes back what was told: then hosts are not looked for here.
    pub fn leave(&self, controller: &Controller) {
        if let Err(error) = controller.store().unshare(&self.who) {
            tracing::debug!(%error, "the others are not told of the end");
        }
    }

    /// Takes note of what the others have told.
    fn hear(&mut self, heard: BTreeMap<String, Vec<u8>>, controller: &Controller, now: Instant) {
        self.others.retain(|who, _| heard.contains_key(who));
        for (who, told) in heard {
            match self.others.get_mut(&who) {
                Some(other) if other.told == told => {
                    if now.duration_since(other.since) > FORGET {
                        // He may be cut off, and tells it again when he is not.
                        let _ = controller.store().unshare(&who);
                    }
                }
                Some(other) => *other = Other { told, since: now },
                None => drop(self.others.insert(who, Other { told, since: now })),
            }
        }
    }
}

/// The hosts that are here, and what they forward by: what was compiled last, where they have all of it
/// that concerns them. Others may have compiled some revisions as one, and then ask for the last of these.
fn here(controller: &Controller) -> BTreeMap<String, Elsewhere> {
    // First: then what it is about has been published.
    let compiled = controller.receipts.newest().unwrap_or(Revision::ZERO);
    let mut here = controller.registry.here();
    for (id, said) in &mut here {
        let has_all = controller.registry.view_revision(id).is_some_and(|view| said.applied >= view);
        if has_all {
            said.applied = said.applied.max(compiled);
        }
    }
    here
}

fn encode(beat: u64, here: &BTreeMap<String, Elsewhere>) -> Vec<u8> {
    let chassis = here.iter().map(|(id, said)| ToldChassis {
        id: id.clone(),
        incarnation: said.turn.incarnation,
        applied: said.applied.get(),
        stream: said.turn.stream,
    });
    Told { beat, chassis: chassis.collect() }.encode_to_vec()
}

/// Hosts that are connected to others, as far as these are believed.
fn elsewhere(others: &HashMap<String, Other>, now: Instant) -> BTreeMap<String, Elsewhere> {
    let mut all: BTreeMap<String, Elsewhere> = BTreeMap::new();
    for other in others.values().filter(|other| now.duration_since(other.since) < BELIEF) {
        let Ok(told) = Told::decode(other.told.as_slice()) else { continue };
        for ToldChassis { id, incarnation, applied, stream } in told.chassis {
            let said = Elsewhere { turn: Turn { incarnation, stream }, applied: Revision::new(applied) };
            // It has gone from one to the other: the newer word holds.
            let is_newer = |present: &Elsewhere| (present.turn, present.applied) < (said.turn, said.applied);
            if all.get(&id).is_none_or(is_newer) {
                all.insert(id, said);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn said(incarnation: u64, stream: u64, applied: u64) -> Elsewhere {
        Elsewhere { turn: Turn { incarnation, stream }, applied: Revision::new(applied) }
    }

    fn told(beat: u64, chassis: &[(&str, Elsewhere)]) -> Vec<u8> {
        encode(beat, &chassis.iter().map(|(id, said)| ((*id).to_owned(), said.clone())).collect())
    }

    #[test]
    fn of_a_host_the_newer_word_holds_and_nobody_is_believed_for_ever() {
        let now = Instant::now();
        let other = |told: Vec<u8>, since| Other { told, since };
        let mut others = HashMap::from([
            ("a".to_owned(), other(told(1, &[("h1", said(1, 7, 9)), ("h2", said(1, 2, 3))]), now)),
            ("b".to_owned(), other(told(1, &[("h1", said(2, 1, 4)), ("h2", said(1, 1, 5))]), now)),
            ("c".to_owned(), other(vec![0xff], now)),
        ]);
        let all = elsewhere(&others, now);
        assert_eq!(all["h1"], said(2, 1, 4));
        assert_eq!(all["h2"], said(1, 2, 3));
        let Some(long_ago) = now.checked_sub(2 * BELIEF) else { return };
        others.get_mut("b").unwrap().since = long_ago;
        assert_eq!(elsewhere(&others, now)["h1"].applied, Revision::new(9));
    }
}
