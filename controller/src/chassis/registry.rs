//! Who is connected: sessions, what they claim, how far they are, and the newest view of
//! each chassis. In memory; after a restart of the controller the chassis tell it again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use ovn_northd_lite::SouthboundDelta;
use tokio::sync::watch;
use tonic::Status;

use crate::{
    state::{Binding, ChassisStatus},
    store::Revision,
};

/// What a chassis has not been told yet.
#[derive(Debug)]
pub(super) enum News {
    /// It needs the whole view.
    Whole,
    /// Changes up to a revision, which may be none.
    Changes(Revision, Arc<SouthboundDelta>),
}

/// Why a session is over.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// The chassis closed it.
    Closed,
    /// The controller did.
    Refused(Status),
}

/// Flows that changes may add and remove while they wait for a slow chassis; with more, it
/// gets the whole view.
const MAX_PENDING: usize = 100_000;

/// All chassis that have been seen.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    chassis: BTreeMap<String, Live>,
    /// Chassis that are connected to other controllers.
    elsewhere: BTreeMap<String, Elsewhere>,
    /// Port id → the connected chassis that claim it, the latest last.
    claims: HashMap<String, Vec<Claimant>>,
    n_sessions: u64,
}

/// Which stream of a chassis, over all controllers; the later one is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Which run of its daemon.
    pub incarnation: u64,
    /// Which stream of that; 0: the chassis does not say.
    pub stream: u64,
}

/// What another controller says of a chassis that is connected there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// By which stream.
    pub turn: Turn,
    /// What it forwards by.
    pub applied: Revision,
}

#[derive(Debug)]
struct Live {
    session: Option<Session>,
    /// Of the last session.
    turn: Turn,
    applied: Revision,
    applied_at: Option<SystemTime>,
    /// When the last session began, or ended.
    since: Option<SystemTime>,
    errors: Vec<String>,
    /// Revision of the newest view.
    view: watch::Sender<Option<Revision>>,
    /// What the session has not sent yet; `None`: it has to begin with the whole view.
    pending: Option<Arc<SouthboundDelta>>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    end: watch::Sender<Option<End>>,
    /// Its claims; `None` before the first.
    claims: Option<BTreeSet<String>>,
}

#[derive(Debug)]
struct Claimant {
    chassis: String,
    up: bool,
}

/// One stream of one chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionId(u64);

/// The session is no longer the one of its chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superseded;

/// What a new session gets.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) session: SessionId,
    pub(super) end: watch::Sender<Option<End>>,
    pub(super) view: watch::Receiver<Option<Revision>>,
}

impl Registry {
    /// Whether a chassis is connected and how far it is.
    pub fn status(&self, chassis: &str) -> ChassisStatus {
        let inner = self.inner();
        let live = inner.chassis.get(chassis);
        let here = live.map_or_else(ChassisStatus::default, |live| ChassisStatus {
            connected: live.session.is_some(),
            applied: live.applied,
            applied_at: live.applied_at,
            since: live.since,
        });
        match inner.elsewhere.get(chassis) {
            Some(elsewhere) if !here.connected => {
                ChassisStatus { connected: true, applied: elsewhere.applied, ..here }
            }
            _ => here,
        }
    }

    /// What a chassis could not apply of its last update.
    pub fn errors(&self, chassis: &str) -> Vec<String> {
        self.inner().chassis.get(chassis).map(|live| live.errors.clone()).unwrap_or_default()
    }

    /// Revision of the newest view of a chassis.
    pub fn view_revision(&self, chassis: &str) -> Option<Revision> {
        let inner = self.inner();
        *inner.chassis.get(chassis)?.view.borrow()
    }

    /// The chassis that are connected here.
    pub fn here(&self) -> BTreeMap<String, Elsewhere> {
        let inner = self.inner();
        let connected = inner.chassis.iter().filter(|(_, live)| live.session.is_some());
        let said = |live: &Live| Elsewhere { turn: live.turn, applied: live.applied };
        connected.map(|(id, live)| (id.clone(), said(live))).collect()
    }

    /// Takes note of who is connected to other controllers; false when that was known. A stream to
    /// this one that is older than that is over, even where nobody has noticed yet: what was claimed
    /// on it may not hold any more.
    pub fn set_elsewhere(&self, elsewhere: BTreeMap<String, Elsewhere>) -> bool {
        let mut inner = self.inner();
        if inner.elsewhere == elsewhere {
            return false;
        }
        for (id, there) in &elsewhere {
            let Some(live) = inner.chassis.get(id).filter(|live| live.turn < there.turn) else { continue };
            if let Some(session) = &live.session {
                session.end(Status::aborted("this chassis has connected to another controller since"));
            }
        }
        inner.elsewhere = elsewhere;
        true
    }

    /// Ends all sessions.
    pub(crate) fn dismiss(&self, reason: &str) {
        let inner = self.inner();
        for session in inner.chassis.values().filter_map(|live| live.session.as_ref()) {
            session.end(Status::unavailable(reason));
        }
    }

    /// Ids of ports that chassis claim here.
    pub(super) fn claimed(&self) -> BTreeSet<String> {
        self.inner().claims.keys().cloned().collect()
    }

    /// Those of the chassis that may have another interface of a port that do: that claim it, or
    /// had it and have not spoken yet.
    pub fn additional<'a>(
        &self,
        port: &str,
        present: &BTreeSet<String>,
        wanted: impl Iterator<Item = &'a String>,
    ) -> BTreeSet<String> {
        let inner = self.inner();
        let claimants = inner.claims.get(port).map(Vec::as_slice).unwrap_or_default();
        let has_it = |id: &&String| {
            let session = inner.chassis.get(*id).and_then(|live| live.session.as_ref());
            let has_spoken = session.is_some_and(|session| session.claims.is_some());
            claimants.iter().any(|claim| claim.chassis == **id) || (present.contains(*id) && !has_spoken)
        };
        wanted.filter(has_it).cloned().collect()
    }

    /// Whether a chassis has the view as it was, so that changes of it are of use.
    pub(crate) fn listens(&self, chassis: &str) -> bool {
        self.inner().chassis.get(chassis).is_some_and(|live| live.pending.is_some())
    }

    /// Has a chassis told of a change of its view; without the change, of the whole.
    pub(crate) fn publish(&self, chassis: &str, revision: Revision, delta: Option<Arc<SouthboundDelta>>) {
        let mut inner = self.inner();
        let live = inner.live(chassis);
        if delta.is_none() {
            live.pending = None;
        }
        if let Some((pending, delta)) = live.pending.as_mut().zip(delta) {
            // Nearly always there is nothing that waits, and others have the same.
            if pending.is_empty() {
                *pending = delta;
            } else {
                Arc::make_mut(pending).merge(Arc::unwrap_or_clone(delta));
            }
            let n_flows = pending.flows.len() + pending.removed.flows.len();
            if live.session.is_none() || n_flows > MAX_PENDING {
                live.pending = None;
            }
        }
        live.view.send_replace(Some(revision));
    }

    /// What is to be sent by a session.
    pub(super) fn take(&self, chassis: &str, session: SessionId) -> Result<Option<News>, Superseded> {
        let mut inner = self.inner();
        let live = inner.current(chassis, session)?;
        let Some(revision) = *live.view.borrow() else { return Ok(None) };
        Ok(Some(match &mut live.pending {
            None => News::Whole,
            Some(pending) => News::Changes(revision, std::mem::take(pending)),
        }))
    }

    /// A session is about to send the whole view, and goes on with changes. The caller
    /// holds the network, so that nothing is published meanwhile.
    pub(super) fn begin(&self, chassis: &str, session: SessionId) -> Result<(), Superseded> {
        let mut inner = self.inner();
        inner.current(chassis, session)?.pending = Some(Arc::default());
        Ok(())
    }

    /// The chassis is not part of the network any more.
    pub(crate) fn retract(&self, chassis: &str) {
        let mut inner = self.inner();
        match inner.chassis.get_mut(chassis) {
            Some(live) if live.session.is_some() => {
                live.pending = None;
                live.view.send_replace(None);
            }
            Some(_) => drop(inner.chassis.remove(chassis)),
            None => {}
        }
    }

    /// A chassis opens a stream. A stream it had is ended, unless that is a newer one.
    pub(super) fn connect(&self, chassis: &str, turn: Turn) -> Result<Connected, Superseded> {
        let mut inner = self.inner();
        inner.n_sessions += 1;
        let session = SessionId(inner.n_sessions);
        let live = inner.live(chassis);
        if live.session.is_some() && live.turn > turn {
            return Err(Superseded);
        }
        if live.turn.incarnation != turn.incarnation {
            // A new run of the host's daemon starts with nothing applied.
            live.applied = Revision::ZERO;
            live.applied_at = None;
            live.errors.clear();
        }
        live.turn = turn;
        live.since = Some(SystemTime::now());
        let end = watch::Sender::new(None);
        let view = live.view.subscribe();
        live.pending = None;
        let old = live.session.replace(Session { id: session, end: end.clone(), claims: None });
        if let Some(old) = old {
            inner.drop_claims(chassis, &old);
            let reason = "another stream of this chassis has taken over; if that is another host, give each its own id";
            old.end.send_replace(Some(End::Refused(Status::aborted(reason))));
        }
        Ok(Connected { session, end, view })
    }

    /// A stream is over; false when another has taken over before.
    pub(super) fn disconnect(&self, chassis: &str, session: SessionId) -> bool {
        let mut inner = self.inner();
        let Ok(live) = inner.current(chassis, session) else { return false };
        if let Some(old) = live.session.take() {
            live.since = Some(SystemTime::now());
            inner.drop_claims(chassis, &old);
        }
        true
    }

    /// Replaces the claims of a chassis; returns the ports whose claims may differ now.
    pub(super) fn claim(
        &self,
        chassis: &str,
        session: SessionId,
        claims: &BTreeMap<String, bool>,
    ) -> Result<BTreeSet<String>, Superseded> {
        let mut inner = self.inner();
        let live = inner.current(chassis, session)?;
        let new: BTreeSet<String> = claims.keys().cloned().collect();
        let old = live.session.as_mut().and_then(|session| session.claims.replace(new)).unwrap_or_default();
        for port in old.iter().filter(|port| !claims.contains_key(*port)) {
            inner.drop_claim(chassis, port);
        }
        inner.add_claims(chassis, claims);
        Ok(old.into_iter().chain(claims.keys().cloned()).collect())
    }

    /// Changes the claims of a chassis; returns how many it has then. `None`: it has not said what it
    /// claims, so that there is nothing to change.
    pub(super) fn change_claims(
        &self,
        chassis: &str,
        session: SessionId,
        claims: &BTreeMap<String, bool>,
        removed: &BTreeSet<String>,
    ) -> Result<Option<usize>, Superseded> {
        let mut inner = self.inner();
        let live = inner.current(chassis, session)?;
        let Some(known) = live.session.as_mut().and_then(|session| session.claims.as_mut()) else {
            return Ok(None);
        };
        let gone: Vec<_> = removed.iter().filter(|port| known.remove(*port)).collect();
        known.extend(claims.keys().cloned());
        let n_claims = known.len();
        gone.into_iter().for_each(|port| inner.drop_claim(chassis, port));
        inner.add_claims(chassis, claims);
        Ok(Some(n_claims))
    }

    /// A chassis forwards by a revision.
    pub(super) fn ack(
        &self,
        chassis: &str,
        session: SessionId,
        revision: Revision,
        errors: Vec<String>,
    ) -> Result<(), Superseded> {
        let mut inner = self.inner();
        let live = inner.current(chassis, session)?;
        if revision >= live.applied {
            live.applied = revision;
            live.applied_at = Some(SystemTime::now());
            live.errors = errors;
        }
        Ok(())
    }

    /// Where a port should be, given where it is: with its holder as long as that claims
    /// it, has not spoken yet, or is away and nobody else claims it; else with the latest
    /// claimant. It is up once its chassis forwards by the revision that bound it. Only some
    /// may have it.
    pub(crate) fn place(
        &self,
        port: &str,
        present: Option<&Binding>,
        may_have: impl Fn(&str) -> bool,
    ) -> Option<(String, bool)> {
        let inner = self.inner();
        let claimants = inner.claims.get(port).map(Vec::as_slice).unwrap_or_default();
        let claimants: Vec<_> = claimants.iter().filter(|claim| may_have(&claim.chassis)).collect();
        let present = present.filter(|holder| may_have(&holder.chassis));
        let claim_of = |id: &str| claimants.iter().copied().find(|claim| claim.chassis == id);
        if let Some(holder) = present {
            let session = inner.chassis.get(&holder.chassis).and_then(|live| live.session.as_ref());
            let may_speak = session.is_some_and(|session| session.claims.is_none());
            let is_elsewhere = session.is_none() && inner.elsewhere.contains_key(&holder.chassis);
            if may_speak || is_elsewhere || (session.is_none() && claimants.is_empty()) {
                return Some((holder.chassis.clone(), holder.up));
            }
        }
        let claim = present.and_then(|holder| claim_of(&holder.chassis)).or(claimants.last().copied())?;
        let applied = inner.chassis.get(&claim.chassis).map_or(Revision::ZERO, |live| live.applied);
        let is_realised = present
            .is_some_and(|holder| holder.chassis == claim.chassis && (holder.up || applied >= holder.since));
        Some((claim.chassis.clone(), claim.up && is_realised))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Ends it, unless it has been ended.
    fn end(&self, reason: Status) {
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(End::Refused(reason));
            is_first
        });
    }
}

impl Inner {
    fn live(&mut self, chassis: &str) -> &mut Live {
        self.chassis.entry(chassis.to_owned()).or_insert_with(|| Live {
            session: None,
            turn: Turn::default(),
            applied: Revision::ZERO,
            applied_at: None,
            since: None,
            errors: Vec::new(),
            view: watch::Sender::new(None),
            pending: None,
        })
    }

    fn current(&mut self, chassis: &str, session: SessionId) -> Result<&mut Live, Superseded> {
        let live = self.chassis.get_mut(chassis).ok_or(Superseded)?;
        let is_current = live.session.as_ref().is_some_and(|current| current.id == session);
        if is_current { Ok(live) } else { Err(Superseded) }
    }

    fn drop_claims(&mut self, chassis: &str, session: &Session) {
        for port in session.claims.iter().flatten() {
            self.drop_claim(chassis, port);
        }
    }

    fn add_claims(&mut self, chassis: &str, claims: &BTreeMap<String, bool>) {
        for (port, up) in claims {
            let claimants = self.claims.entry(port.clone()).or_default();
            match claimants.iter_mut().find(|claim| claim.chassis == chassis) {
                Some(claim) => claim.up = *up,
                None => claimants.push(Claimant { chassis: chassis.to_owned(), up: *up }),
            }
        }
    }

    fn drop_claim(&mut self, chassis: &str, port: &str) {
        if let Some(claimants) = self.claims.get_mut(port) {
            claimants.retain(|claim| claim.chassis != chassis);
            if claimants.is_empty() {
                self.claims.remove(port);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(ports: &[&str]) -> BTreeMap<String, bool> {
        ports.iter().map(|port| ((*port).to_owned(), true)).collect()
    }

    fn run(incarnation: u64) -> Turn {
        Turn { incarnation, stream: 0 }
    }

    fn at(chassis: &str, since: u64) -> Binding {
        Binding { chassis: chassis.to_owned(), up: false, since: Revision::new(since) }
    }

    #[test]
    fn a_port_stays_with_a_connected_holder_and_moves_when_that_is_gone() {
        let registry = Registry::default();
        let one = registry.connect("h1", run(1)).unwrap().session;
        let two = registry.connect("h2", run(1)).unwrap().session;
        registry.claim("h1", one, &claims(&["p"])).unwrap();
        registry.claim("h2", two, &claims(&["p"])).unwrap();
        let holder = at("h1", 3);
        assert_eq!(registry.place("p", Some(&holder), |_| true), Some(("h1".to_owned(), false)));
        registry.ack("h1", one, Revision::new(3), Vec::new()).unwrap();
        assert_eq!(registry.place("p", Some(&holder), |_| true), Some(("h1".to_owned(), true)));
        assert!(registry.disconnect("h1", one));
        assert_eq!(registry.place("p", Some(&holder), |_| true), Some(("h2".to_owned(), false)));
        assert!(registry.disconnect("h2", two));
        assert_eq!(
            registry.place("p", Some(&holder), |_| true),
            Some(("h1".to_owned(), false)),
            "nobody else"
        );
        assert_eq!(registry.place("p", None, |_| true), None);
    }

    #[test]
    fn a_port_that_moves_is_with_those_who_have_it_too() {
        let registry = Registry::default();
        let ids = ["h2".to_owned(), "h3".to_owned()];
        let (none, h2) = (BTreeSet::new(), BTreeSet::from(["h2".to_owned()]));
        assert_eq!(registry.additional("p", &none, ids.iter()), none);
        let two = registry.connect("h2", run(1)).unwrap().session;
        registry.claim("h2", two, &claims(&["p"])).unwrap();
        assert_eq!(registry.additional("p", &none, ids.iter()), h2);
        assert_eq!(registry.additional("p", &h2, [].iter()), none, "no longer wanted");
        assert!(registry.disconnect("h2", two));
        assert_eq!(registry.additional("p", &h2, ids.iter()), h2, "it is away");
        let again = registry.connect("h2", run(2)).unwrap().session;
        assert_eq!(registry.additional("p", &h2, ids.iter()), h2, "it has not spoken");
        registry.claim("h2", again, &claims(&[])).unwrap();
        assert_eq!(registry.additional("p", &h2, ids.iter()), none);
    }

    #[test]
    fn a_holder_that_comes_back_keeps_its_ports_until_it_has_spoken() {
        let registry = Registry::default();
        let two = registry.connect("h2", run(1)).unwrap().session;
        registry.claim("h2", two, &claims(&["p"])).unwrap();
        let one = registry.connect("h1", run(1)).unwrap().session;
        let holder = at("h1", 3);
        assert_eq!(registry.place("p", Some(&holder), |_| true).unwrap().0, "h1");
        registry.claim("h1", one, &claims(&[])).unwrap();
        assert_eq!(registry.place("p", Some(&holder), |_| true).unwrap().0, "h2");
    }

    #[test]
    fn changes_of_claims_lead_to_what_all_of_them_would() {
        let registry = Registry::default();
        let one = registry.connect("h1", run(1)).unwrap().session;
        let change = |new: &[&str], gone: &[&str]| {
            let gone = gone.iter().map(|port| (*port).to_owned()).collect();
            registry.change_claims("h1", one, &claims(new), &gone).unwrap()
        };
        assert_eq!(change(&["a"], &[]), None, "it has not said what it claims");
        assert_eq!(registry.place("a", None, |_| true), None);
        registry.claim("h1", one, &claims(&["a", "b"])).unwrap();
        assert_eq!(change(&["c", "b"], &["a", "never"]), Some(2));
        let claimed = |port: &str| registry.place(port, None, |_| true).is_some();
        assert_eq!(["a", "b", "c", "never"].map(claimed), [false, true, true, false]);
        assert_eq!(registry.claim("h1", one, &claims(&[])).unwrap().len(), 2);
        assert!(registry.claimed().is_empty());
        let two = registry.connect("h1", run(2)).unwrap().session;
        assert_eq!(registry.change_claims("h1", one, &claims(&["a"]), &[].into()), Err(Superseded));
        assert_eq!(registry.change_claims("h1", two, &claims(&["a"]), &[].into()), Ok(None));
    }

    #[test]
    fn a_newer_incarnation_takes_over_and_an_older_is_refused() {
        let registry = Registry::default();
        let first = registry.connect("h1", run(5)).unwrap();
        registry.claim("h1", first.session, &claims(&["p"])).unwrap();
        registry.ack("h1", first.session, Revision::new(9), Vec::new()).unwrap();
        assert_eq!(registry.connect("h1", run(4)).unwrap_err(), Superseded);
        assert!(first.end.borrow().is_none());
        let second = registry.connect("h1", run(6)).unwrap();
        assert!(matches!(&*first.end.borrow(), Some(End::Refused(_))));
        assert_eq!(registry.place("p", None, |_| true), None);
        assert_eq!(registry.status("h1").applied, Revision::ZERO);
        assert!(!registry.disconnect("h1", first.session));
        assert_eq!(registry.claim("h1", first.session, &claims(&["p"])), Err(Superseded));
        assert!(registry.status("h1").connected);
        assert!(registry.disconnect("h1", second.session));
    }

    #[test]
    fn a_stream_is_over_when_the_chassis_has_opened_a_later_one_elsewhere() {
        let registry = Registry::default();
        let turn = |stream| Turn { incarnation: 1, stream };
        let first = registry.connect("h1", turn(2)).unwrap();
        let other = registry.connect("h2", turn(1)).unwrap();
        let there = |stream| {
            let elsewhere = Elsewhere { turn: turn(stream), applied: Revision::ZERO };
            BTreeMap::from([("h1".to_owned(), elsewhere)])
        };
        for earlier in [0, 1, 2] {
            assert!(registry.set_elsewhere(there(earlier)));
            assert!(first.end.borrow().is_none(), "stream {earlier}");
        }
        assert!(registry.set_elsewhere(there(3)));
        assert!(matches!(&*first.end.borrow(), Some(End::Refused(_))));
        assert!(other.end.borrow().is_none());
        assert_eq!(registry.connect("h1", turn(1)).unwrap_err(), Superseded, "it came late");
        assert!(registry.connect("h1", turn(4)).is_ok());
    }
}
