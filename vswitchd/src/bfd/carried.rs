//! Sessions outlive the process: those that are up are noted with whoever holds what does, and the
//! next process goes on with them, by their numbers. So the other end does not hear that this one is
//! down, when nothing but a process has ended.
//!
//! It is no news that the other end lives: a session that goes on ends when nothing is heard in its
//! time, as any other.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use bridge_protocols::bfd::{Alive, Path, Session};
use dataplane::{Dataplane, PortId};
use flowtable::types::Timestamp;

use super::HopKey;

/// Names of sessions begin like this.
const PREFIX: &str = "session/";
/// How long what the process before has left may be wanted: later the other end is sure to have noticed.
const PATIENCE: Duration = Duration::from_secs(10);

/// With whom a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A host, within the tunnel to it.
    Host(IpAddr),
    /// Whoever is at the other end of a port.
    Link(PortId, Path),
    /// A next hop of a router.
    Hop(HopKey),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        match self {
            Self::Host(peer) => write!(f, "host/{peer}"),
            Self::Link(PortId { bridge, port }, Path { macs: (own, other), ips: (from, to) }) => {
                write!(f, "port/{bridge}/{port}/{own}/{other}/{from}/{to}")
            }
            Self::Hop((datapath, port, peer)) => write!(f, "hop/{datapath}/{port}/{peer}"),
        }
    }
}

/// What is left to the next process, and what the one before has left.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// By names, and not taken yet.
    found: BTreeMap<String, Alive>,
    found_at: Timestamp,
    /// What is held now, of sessions that are up.
    held: BTreeMap<Who, Alive>,
}

impl Carried {
    /// What the process before has left with who holds it.
    pub(super) fn new(dataplane: &Dataplane) -> Self {
        let Some(keeper) = dataplane.keeper() else { return Self::default() };
        let mut found = BTreeMap::new();
        for (name, kept) in keeper.take_all(PREFIX) {
            match kept.note.parse() {
                Ok(alive) => drop(found.insert(name, alive)),
                Err(()) => {
                    tracing::warn!(
                        name,
                        note = kept.note,
                        "a session begins anew: what is noted of it makes no sense"
                    );
                    keeper.forget(&name);
                }
            }
        }
        Self { found, found_at: dataplane.now(), held: BTreeMap::new() }
    }

    /// A session as the process before has left it, or else this one, which begins.
    pub(super) fn go_on(&mut self, who: Who, fresh: Session, now: Timestamp) -> Session {
        let Some(alive) = self.found.remove(&who.to_string()) else { return fresh };
        tracing::info!(session = %who, "goes on");
        self.held.insert(who, alive);
        fresh.going_on(now, &alive)
    }

    /// Notes which sessions are up now; who holds that is told what has changed.
    pub(super) fn keep<'a>(
        &mut self,
        dataplane: &Dataplane,
        sessions: impl Iterator<Item = (Who, &'a Session)>,
    ) {
        let Some(keeper) = dataplane.keeper() else { return };
        if !self.found.is_empty() && dataplane.now().since(self.found_at) >= PATIENCE {
            std::mem::take(&mut self.found).keys().for_each(|name| keeper.forget(name));
        }
        let alive = |(who, session): (Who, &Session)| Some((who, session.alive()?));
        let alive: BTreeMap<_, _> = sessions.filter_map(alive).collect();
        for (who, is) in alive.iter().filter(|(who, is)| self.held.get(who) != Some(is)) {
            // Without that, it begins anew in the next process.
            let _ = keeper.keep(&who.to_string(), &is.to_string(), &[]);
        }
        for who in self.held.keys().filter(|who| !alive.contains_key(who)) {
            keeper.forget(&who.to_string());
        }
        self.held = alive;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        os::fd::BorrowedFd,
        sync::{Arc, Mutex},
    };

    use bridge_protocols::bfd::{State, Timing};
    use dataplane::{Beginning, Clock, DataplaneConfig, Keeper, Kept, VirtualClock};

    use super::{super::Bfd, *};

    const TIMING: Timing = Timing { interval: Duration::from_millis(100), multiplier: 3 };
    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// Holds notes.
    #[derive(Debug, Default)]
    struct Notes(Mutex<BTreeMap<String, String>>);

    impl Notes {
        fn sessions(&self) -> Vec<String> {
            self.0.lock().unwrap().keys().filter(|name| name.starts_with(PREFIX)).cloned().collect()
        }
    }

    impl Keeper for Notes {
        fn take(&self, _: &str) -> Option<Kept> {
            None
        }

        fn take_all(&self, prefix: &str) -> Vec<(String, Kept)> {
            let notes = self.0.lock().unwrap();
            let named = notes.iter().filter(|(name, _)| name.starts_with(prefix));
            named.map(|(name, note)| (name.clone(), Kept { note: note.clone(), files: Vec::new() })).collect()
        }

        fn has(&self, _: &str) -> bool {
            false
        }

        fn keep(&self, name: &str, note: &str, _: &[BorrowedFd<'_>]) -> io::Result<()> {
            self.0.lock().unwrap().insert(name.to_owned(), note.to_owned());
            Ok(())
        }

        fn forget(&self, name: &str) {
            self.0.lock().unwrap().remove(name);
        }
    }

    /// A process of this host.
    fn process(notes: &Arc<Notes>, clock: &VirtualClock) -> Bfd {
        let keeper: Arc<dyn Keeper> = Arc::clone(notes) as _;
        let beginning = Beginning { keeper: Some(keeper), ..Beginning::default() };
        let clock = Clock::Virtual(clock.clone());
        let config = DataplaneConfig { clock, n_connections: 64, inline: true, ..DataplaneConfig::default() };
        let bfd =
            Bfd::new(Some(LOCAL), TIMING, 5, Arc::new(Dataplane::start_with(config, beginning).unwrap()));
        bfd.want(&[PEER].into());
        bfd.begin();
        bfd
    }

    #[test]
    fn what_nobody_wants_is_forgotten() {
        let (notes, clock) = (Arc::<Notes>::default(), VirtualClock::new());
        let other = "session/host/192.0.2.77";
        notes.keep(other, &format!("up1 7 20c003180000000900000007{}", "00".repeat(12)), &[]).unwrap();
        let bfd = process(&notes, &clock);
        bfd.tick();
        assert_eq!(notes.sessions(), [other]);
        clock.advance(PATIENCE);
        bfd.tick();
        assert!(notes.sessions().is_empty());
    }

    /// Time goes on, and both ends hear each other.
    fn talk(bfd: &Bfd, far: &mut Session, clock: &VirtualClock) {
        for _ in 0..300 {
            clock.advance(Duration::from_millis(10));
            let now = bfd.dataplane.now();
            let said = bfd.sessions().of.get_mut(&PEER).and_then(|session| session.tick(now, 0));
            if let Some(answer) = said.and_then(|said| far.receive(now, &said)) {
                bfd.receive(&answer.frame(&Path::within_tunnel(PEER, LOCAL)), |_| true);
            }
            if let Some(said) = far.tick(now, 0) {
                bfd.receive(&said.frame(&Path::within_tunnel(PEER, LOCAL)), |_| true);
            }
            bfd.tick();
            bfd.expire();
            far.expire(now);
        }
    }

    #[test]
    fn a_session_goes_on_in_the_next_process_and_the_other_end_does_not_notice() {
        let (notes, clock) = (Arc::<Notes>::default(), VirtualClock::new());
        let first = process(&notes, &clock);
        let mut far = Session::new(TIMING, first.dataplane.now(), 99, true);
        assert!(notes.sessions().is_empty());
        talk(&first, &mut far, &clock);
        assert_eq!((first.state(PEER), far.state()), (Some(State::Up), State::Up));
        assert_eq!(notes.sessions(), ["session/host/192.0.2.2"]);
        let before = far.status();
        drop(first);

        let second = process(&notes, &clock);
        assert_eq!(second.state(PEER), Some(State::Up));
        talk(&second, &mut far, &clock);
        let after = far.status();
        assert_eq!((after.state, after.n_changes), (State::Up, before.n_changes));
        assert_eq!(after.discriminators, before.discriminators);
        // It is ended, and nothing of it is left.
        second.end();
        assert!(notes.sessions().is_empty());
        drop(second);
        assert_eq!(process(&notes, &clock).state(PEER), Some(State::Down));
    }

    #[test]
    fn a_session_whose_other_end_is_gone_is_down_in_time_and_not_carried() {
        let (notes, clock) = (Arc::<Notes>::default(), VirtualClock::new());
        let first = process(&notes, &clock);
        let mut far = Session::new(TIMING, first.dataplane.now(), 99, true);
        talk(&first, &mut far, &clock);
        drop(first);
        let second = process(&notes, &clock);
        clock.advance(Duration::from_millis(310));
        second.expire();
        second.tick();
        assert_eq!((second.state(PEER), second.is_alive(PEER)), (Some(State::Down), false));
        assert!(notes.sessions().is_empty());
        // What somebody else may have noted is not believed.
        notes.keep("session/host/192.0.2.2", "up1 0 00", &[]).unwrap();
        assert_eq!(process(&notes, &clock).state(PEER), Some(State::Down));
        assert!(notes.sessions().is_empty());
    }
}
