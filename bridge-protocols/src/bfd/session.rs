//! One session with one other host: the state machine and the timers of RFC 5880 §6.8, in
//! asynchronous mode, without echo and authentication. Time is passed in.

use std::{fmt, str::FromStr, time::Duration};

use flowtable::types::Timestamp;

use super::packet::{ControlPacket, State};

/// Longest pause between packets of a session that is not up (RFC 5880 §6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// How long a session that has not come up yet says nothing about the other host.
const GRACE: Duration = Duration::from_secs(3);
/// How long a session that only the other side wants is kept while it is down.
const FORGET: Duration = Duration::from_secs(60);
/// Diagnostics (RFC 5880 §4.1).
const NOTHING: u8 = 0;
const EXPIRED: u8 = 1;
const NEIGHBOUR_DOWN: u8 = 3;
const ADMINISTRATIVE: u8 = 7;

/// How often, and how many may be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two packets, both ways.
    pub interval: Duration,
    /// So many intervals without a packet end a session.
    pub multiplier: u8,
}

/// What a session knows, for dumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its state, and why it went down last (RFC 5880 §4.1).
    pub state: State,
    /// The diagnostic.
    pub diagnostic: u8,
    /// What the other end says of itself; `None`: nothing is heard.
    pub remote: Option<(State, u8)>,
    /// Numbers of the session here and there; 0: not known.
    pub discriminators: (u32, u32),
    /// Between two packets that this end sends, but for jitter.
    pub pause: Duration,
    /// So long the other end may be silent; zero: it has not said anything.
    pub detection: Duration,
    /// Times it has come up or gone down.
    pub n_changes: u64,
}

/// What another process of this end needs to go on with a session that is up. As text it is numbers; what does
/// not make sense is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    mine: u32,
    heard: ControlPacket,
}

/// In front of an [`Alive`] as text.
const ALIVE: &str = "up1";

impl fmt::Display for Alive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALIVE} {} ", self.mine)?;
        self.heard.encode().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Alive {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let (Some(ALIVE), Some(mine), Some(heard), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(());
        };
        let mine = mine.parse().map_err(drop)?;
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let (pairs, rest) = heard.as_bytes().as_chunks::<2>();
        let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>().ok_or(())?;
        let heard = ControlPacket::decode(&bytes).filter(|_| rest.is_empty()).ok_or(())?;
        let is_both_ways = heard.yours == mine && matches!(heard.state, State::Init | State::Up);
        if is_both_ways { Ok(Self { mine, heard }) } else { Err(()) }
    }
}

/// A session.
#[derive(Debug, Clone)]
pub struct Session {
    timing: Timing,
    /// Between two packets that it can take, at least.
    min_rx: Duration,
    made: Timestamp,
    /// The own number, not 0.
    mine: u32,
    /// Asked for by this host, not just by the other one.
    pub is_wanted: bool,
    state: State,
    diagnostic: u8,
    was_up: bool,
    changed: Timestamp,
    /// What the other side has said last.
    heard: Option<(Timestamp, ControlPacket)>,
    next: Timestamp,
    is_polling: bool,
    /// Times it has come up or gone down.
    n_changes: u64,
}

impl Session {
    /// A session that begins.
    pub fn new(timing: Timing, now: Timestamp, mine: u32, is_wanted: bool) -> Self {
        Self {
            min_rx: timing.interval,
            timing,
            made: now,
            mine: mine.max(1),
            is_wanted,
            state: State::Down,
            diagnostic: NOTHING,
            was_up: false,
            changed: now,
            heard: None,
            next: now,
            is_polling: false,
            n_changes: 0,
        }
    }

    /// How often, and how many may be missed, from now on.
    pub fn set_timing(&mut self, timing: Timing) {
        // The other side is asked whether it knows (RFC 5880 §6.8.3).
        self.is_polling |= self.timing != timing && self.state == State::Up;
        (self.timing, self.min_rx) = (timing, timing.interval);
    }

    /// What it knows.
    pub fn status(&self) -> SessionStatus {
        let heard = self.heard.map(|(_, heard)| heard);
        let detection = self.deadline().zip(self.heard).map(|(deadline, (at, _))| deadline.since(at));
        SessionStatus {
            state: self.state,
            diagnostic: self.diagnostic,
            remote: heard.map(|heard| (heard.state, heard.diagnostic)),
            discriminators: (self.mine, heard.map_or(0, |heard| heard.mine)),
            pause: self.pause(),
            detection: detection.unwrap_or_default(),
            n_changes: self.n_changes,
        }
    }

    /// The same, which can take packets as often as this.
    pub fn taking(self, min_rx: Duration) -> Self {
        Self { min_rx, ..self }
    }

    /// What another process needs to go on with it, if it is up.
    pub fn alive(&self) -> Option<Alive> {
        let (_, heard) =
            self.heard.filter(|(_, heard)| self.state == State::Up && heard.yours == self.mine)?;
        // Why it went down once, and who asks whom, is of no consequence.
        let heard = ControlPacket { diagnostic: NOTHING, poll: false, last: false, ..heard };
        Some(Alive { mine: self.mine, heard })
    }

    /// The same which goes on where another process of this end has left it: up. The other side does not notice,
    /// unless it has gone down meanwhile; it is asked whether it knows how often this end sends now.
    pub fn going_on(self, now: Timestamp, alive: &Alive) -> Self {
        let Alive { mine, heard } = *alive;
        let (heard, next) = (Some((now, heard)), now);
        Self { mine, state: State::Up, was_up: true, changed: now, heard, next, is_polling: true, ..self }
    }

    /// Time begins now: nobody has listened before.
    pub fn begin(&mut self, now: Timestamp) {
        (self.made, self.changed, self.next) = (now, now, now);
        if let Some((at, _)) = &mut self.heard {
            *at = now;
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The other host lives, or nothing is known yet.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        let is_young = !self.was_up && now.since(self.made) < GRACE;
        self.state == State::Up || is_young
    }

    /// Nobody needs it any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let is_quiet = self.state != State::Up && now.since(self.changed) >= FORGET;
        !self.is_wanted && is_quiet
    }

    /// Takes a packet in: the answer, if it asks for one (RFC 5880 §6.8.6).
    pub fn receive(&mut self, now: Timestamp, packet: &ControlPacket) -> Option<ControlPacket> {
        if packet.yours != 0 && packet.yours != self.mine {
            return None;
        }
        self.heard = Some((now, *packet));
        if packet.last {
            self.is_polling = false;
        }
        if self.state == State::AdminDown {
            return None;
        }
        let next = match (packet.state, self.state) {
            (State::AdminDown, State::Down) => State::Down,
            (State::AdminDown, _) => State::Down,
            (State::Down, State::Down) => State::Init,
            (State::Init, State::Down | State::Init) | (State::Up, State::Init) => State::Up,
            (State::Down, State::Up) => State::Down,
            (_, same) => same,
        };
        if next == State::Down && self.state != State::Down {
            self.diagnostic = NEIGHBOUR_DOWN;
        }
        self.enter(now, next);
        packet.poll.then(|| ControlPacket { poll: false, last: true, ..self.packet() })
    }

    /// The packet that is due, if one is; `jitter` is 0 to 255.
    pub fn tick(&mut self, now: Timestamp, jitter: u8) -> Option<ControlPacket> {
        if now < self.next {
            return None;
        }
        // RFC 5880 §6.8.7: up to a quarter earlier, and with a multiplier of 1 at least a tenth.
        let least = if self.timing.multiplier == 1 { 100 } else { 0 };
        let early = least + u32::from(jitter) * (250 - least) / 255;
        self.next = now.after(self.pause() * (1000 - early) / 1000);
        let is_silent = self.heard.is_some_and(|(_, heard)| heard.min_rx.is_zero());
        (!is_silent).then(|| self.packet())
    }

    /// Goes down when nothing has been heard for too long; true when it does.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let is_late = matches!(self.state, State::Init | State::Up)
            && self.deadline().is_none_or(|deadline| now >= deadline);
        if is_late {
            self.diagnostic = EXPIRED;
            self.enter(now, State::Down);
            // Whoever answers next may be another run of the other host's daemon.
            self.heard = None;
        }
        is_late
    }

    /// Something is to be done then at the latest.
    pub fn wakes(&self) -> Timestamp {
        match self.deadline().filter(|_| matches!(self.state, State::Init | State::Up)) {
            Some(deadline) => self.next.min(deadline),
            None => self.next,
        }
    }

    /// Ends it: the last packet.
    pub fn end(&mut self, now: Timestamp) -> ControlPacket {
        self.diagnostic = ADMINISTRATIVE;
        self.enter(now, State::AdminDown);
        self.packet()
    }

    /// When the other host has been silent for too long (RFC 5880 §6.8.4).
    fn deadline(&self) -> Option<Timestamp> {
        let (at, heard) = self.heard?;
        let interval = self.min_rx.max(heard.min_tx);
        Some(at.after(interval * u32::from(heard.multiplier)))
    }

    fn enter(&mut self, now: Timestamp, state: State) {
        if state == self.state {
            return;
        }
        self.n_changes += u64::from(state == State::Up || self.state == State::Up);
        self.state = state;
        self.changed = now;
        self.next = now;
        // From now on it sends more often: the other side is asked whether it knows.
        self.is_polling = state == State::Up;
        if state == State::Up {
            self.was_up = true;
            self.diagnostic = NOTHING;
        }
    }

    fn min_tx(&self) -> Duration {
        if self.state == State::Up { self.timing.interval } else { self.timing.interval.max(SLOW) }
    }

    /// Between two packets.
    fn pause(&self) -> Duration {
        let wanted = self.heard.map_or(Duration::ZERO, |(_, heard)| heard.min_rx);
        self.min_tx().max(wanted)
    }

    fn packet(&self) -> ControlPacket {
        ControlPacket {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.is_polling,
            last: false,
            multiplier: self.timing.multiplier,
            mine: self.mine,
            yours: self.heard.map_or(0, |(_, heard)| heard.mine),
            min_tx: self.min_tx(),
            min_rx: self.min_rx,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMING: Timing = Timing { interval: Duration::from_millis(100), multiplier: 3 };
    const STEP: Duration = Duration::from_millis(10);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    /// Two hosts, of which packets get lost as `arrives` says.
    struct Pair(Session, Session, u64);

    impl Pair {
        fn new() -> Self {
            let session = |mine| Session::new(TIMING, at(0), mine, true);
            Self(session(7), session(9), 0)
        }

        fn run(&mut self, millis: u64, mut arrives: impl FnMut() -> bool) {
            let end = self.2 + millis;
            while self.2 < end {
                self.2 += STEP.as_millis() as u64;
                let now = at(self.2);
                let Self(a, b, _) = self;
                for (from, to) in [(0, 1), (1, 0)] {
                    let (from, to) =
                        if (from, to) == (0, 1) { (&mut *a, &mut *b) } else { (&mut *b, &mut *a) };
                    let Some(packet) = from.tick(now, 128) else { continue };
                    if arrives()
                        && let Some(answer) = to.receive(now, &packet)
                        && arrives()
                    {
                        assert!(from.receive(now, &answer).is_none(), "an answer is not answered");
                    }
                }
                a.expire(now);
                b.expire(now);
            }
        }
    }

    #[test]
    fn both_come_up_and_one_that_falls_silent_is_down_in_time() {
        let mut pair = Pair::new();
        assert!(pair.0.is_alive(at(2999)) && !pair.0.is_alive(at(3000)), "unknown for a while");
        pair.run(2500, || true);
        assert_eq!((pair.0.state(), pair.1.state()), (State::Up, State::Up));
        assert!(!pair.0.is_polling && !pair.1.is_polling, "polls are answered");
        // The second host is killed.
        let dead = pair.2;
        while pair.0.state() == State::Up {
            pair.2 += 1;
            pair.0.tick(at(pair.2), 0);
            pair.0.expire(at(pair.2));
        }
        assert!((200..=300).contains(&(pair.2 - dead)), "{} ms", pair.2 - dead);
        assert!(!pair.0.is_alive(at(pair.2)), "it was up: there is no grace");
        assert_eq!(pair.0.packet().diagnostic, EXPIRED);
        // Another run of it, with another number.
        pair.1 = Session::new(TIMING, at(pair.2), 11, true);
        pair.run(2500, || true);
        assert_eq!((pair.0.state(), pair.1.state()), (State::Up, State::Up));
        let last = pair.1.end(at(pair.2));
        pair.0.receive(at(pair.2), &last);
        assert_eq!(pair.0.state(), State::Down, "the other host says that it ends");
    }

    #[test]
    fn what_one_host_wants_alone_is_forgotten_when_it_is_over() {
        let mut session = Session::new(TIMING, at(0), 1, false);
        assert!(!session.is_over(at(59_999)) && session.is_over(at(60_000)));
        session.is_wanted = true;
        assert!(!session.is_over(at(600_000)));
        let other = ControlPacket { yours: 5, ..Session::new(TIMING, at(0), 2, true).packet() };
        assert!(session.receive(at(0), &other).is_none());
        assert_eq!(session.heard, None, "it is for another session");
    }

    #[test]
    fn another_process_goes_on_and_the_other_side_does_not_notice() {
        let mut pair = Pair::new();
        assert_eq!(pair.0.alive(), None);
        pair.run(2500, || true);
        let alive: Alive = pair.0.alive().unwrap().to_string().parse().unwrap();
        assert_eq!(Some(alive), pair.0.alive());
        // Its number would be another one, and it sends less often.
        let slower = Timing { interval: Duration::from_millis(150), multiplier: 2 };
        pair.0 = Session::new(slower, at(pair.2), 8, true).going_on(at(pair.2), &alive);
        assert!(pair.0.is_alive(at(pair.2)));
        let n_changes = pair.1.status().n_changes;
        pair.run(1000, || true);
        let (a, b) = (pair.0.status(), pair.1.status());
        assert_eq!((a.state, b.state, b.n_changes), (State::Up, State::Up, n_changes));
        assert_eq!((a.discriminators, b.discriminators), ((7, 9), (9, 7)));
        assert_eq!((b.detection, pair.0.is_polling), (Duration::from_millis(300), false));
        // The other side is gone: this one finds out in time.
        let gone = pair.2;
        while pair.0.state() == State::Up {
            pair.2 += 1;
            pair.0.expire(at(pair.2));
        }
        assert!((200..=450).contains(&(pair.2 - gone)), "{} ms", pair.2 - gone);
        assert_eq!(pair.0.alive(), None);
    }

    #[test]
    fn what_makes_no_sense_is_no_session_to_go_on_with() {
        let mut pair = Pair::new();
        pair.run(2500, || true);
        let text = pair.0.alive().unwrap().to_string();
        for len in 0..text.len() {
            assert!(text[..len].parse::<Alive>().is_err(), "{}", &text[..len]);
        }
        let down = text.replace(" 20c0", " 2040");
        assert_ne!(down, text);
        for wrong in
            ["", "up1", "up1 7 é", &down, &text.replace("up1 7", "up1 8"), &text.replace("up1", "up2")]
        {
            assert!(wrong.parse::<Alive>().is_err(), "{wrong}");
        }
        assert!(format!("{text} ").parse::<Alive>().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_was_lost_both_come_up_once_packets_arrive(lost in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut pair = Pair::new();
            let mut fate = lost.iter().cycle();
            pair.run(3000, || *fate.next().unwrap());
            pair.run(4000, || true);
            prop_assert_eq!((pair.0.state(), pair.1.state()), (State::Up, State::Up));
            // One in three may always get lost.
            let mut n = 0;
            pair.run(3000, || { n += 1; n % 3 != 0 });
            prop_assert_eq!((pair.0.state(), pair.1.state()), (State::Up, State::Up));
        }
    }
}
