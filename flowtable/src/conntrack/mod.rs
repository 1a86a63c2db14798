//! The connection tracker: which packets belong together, what state their conversation
//! is in, and how its addresses are translated.
//!
//! [`Conntrack::track`] takes what a packet says ([`View`]) and what a rule asks for
//! ([`Request`]) and answers with a [`Verdict`]: the connection's state, mark, label and
//! original tuple, and the tuple that the packet's headers shall have. The pipeline puts
//! the former into the key; [`rewrite()`] does the latter to the frame.
//!
//! # Shape
//! State is flat: connections are [`Slot`]s of plain words in a [`Storage`] that the
//! caller hands in, addressed by index, so that it can outlive the process. A tuple's
//! hash leads to slot and direction (`index`); who is there, and who goes first when
//! it is full, is in the `ledger`. `tcp` knows the protocol, `nat` chooses
//! translations, `timeout` names the states.
//!
//! # Concurrency
//! All methods take `&self`, and any number of workers may call them: packets of one
//! connection may come to different workers in any order. A packet of a known connection
//! takes no lock but that of its slot. Making and removing a connection takes the
//! ledger's mutex. The order is always mutex, then slot.
//!
//! # When it is full
//! Connections that nobody has answered and those that are over make room, oldest
//! first. An established connection is never evicted: when there is nothing else, the
//! *new* connection is refused, under a name ([`DropReason::CtFull`]).

mod entry;
mod index;
mod ledger;
mod nat;
mod rewrite;
mod sctp;
mod settings;
mod slot;
mod storage;
mod table;
mod tcp;
#[cfg(test)]
mod tests;
mod timeout;
mod tuple;
mod view;

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

pub use self::{
    entry::{Connection, Filter, Talker},
    nat::{Nat, NatKind, NatOrder, NatRange},
    rewrite::rewrite,
    slot::{CELLS_PER_SLOT, Slot},
    storage::{Storage, StorageError},
    tcp::Segment,
    timeout::{MAX_TIMEOUT, N_POLICIES, State},
    tuple::Tuple,
    view::{L4, View},
};
use self::{
    index::{Found, Index},
    ledger::Ledger,
    slot::{Guard, kind},
    timeout::Policies,
};
use crate::{drop::DropReason, key::ct_state, types::Timestamp};

/// Connections that a call of [`Conntrack::tick`] looks at.
const TICK_BUDGET: usize = 64;

/// What a tracker is told at its start; all but the seed can be changed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Segments outside of TCP's windows are invalid.
    pub check_sequence: bool,
    /// A TCP connection may be picked up in its middle.
    pub pick_up: bool,
    /// Makes the hashes unforeseeable.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { check_sequence: true, pick_up: true, seed: RandomState::new().hash_one(0) }
    }
}

/// What a rule asks of the tracker for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    /// Name space.
    pub zone: u16,
    /// Remember the connection.
    pub commit: bool,
    /// A packet of the reply direction begins a new connection instead.
    pub force: bool,
    /// Translate.
    pub nat: Option<Nat>,
    /// New bits of the mark, and which.
    pub mark: (u32, u32),
    /// New bits of the label, and which.
    pub label: (u128, u128),
    /// Timeout policy for a new connection; `None`: the zone's.
    pub policy: Option<u8>,
    /// Port the packet came in by, for that port's limit.
    pub in_port: u16,
}

/// What the tracker knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Bits of [`ct_state`].
    pub state: u16,
    /// The connection's mark.
    pub mark: u32,
    /// The connection's label.
    pub label: u128,
    /// Tuple of the connection's first packet; nothing for invalid packets.
    pub original: Option<Tuple>,
    /// What the packet's headers become.
    pub rewrite: Option<Rewrite>,
}

/// New headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Addresses and ports of the packet. Of an ICMP error only the addresses.
    pub outer: Tuple,
    /// Those of the packet that an ICMP error quotes.
    pub inner: Option<Tuple>,
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was committed.
    Created(Connection),
    /// It expired, was flushed, evicted or replaced.
    Removed(Connection),
}

/// Declares the counters.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Debug, Default)]
        struct Counters { $($name: AtomicU64,)* }

        /// What a tracker has done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Stats {
            /// Connections there are.
            pub n_connections: u64,
            /// Slots there are.
            pub n_slots: u64,
            /// Events that nobody fetched in time.
            pub n_lost_events: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Relaxed),)* ..Stats::default() }
            }
        }
    };
}

counters! {
    /// Connections committed.
    n_created,
    /// Connections whose time was over.
    n_expired,
    /// Connections that made room for others.
    n_evicted,
    /// Connections flushed, replaced or forced out.
    n_removed,
    /// Packets that fit no connection.
    n_invalid,
    /// New connections refused: no room.
    n_full,
    /// New connections refused: the limit of zone, port or tracker.
    n_limited,
    /// New connections refused: no free translation.
    n_nat_exhausted,
}

/// The connections of a switch.
#[derive(Debug)]
pub struct Conntrack {
    storage: Storage,
    secrets: [u64; 4],
    version: AtomicU64,
    policies: Policies,
    check_sequence: AtomicBool,
    pick_up: AtomicBool,
    ledger: Mutex<Ledger>,
    counters: Counters,
}

/// What a new connection begins with.
struct Begin {
    state: State,
    peers: [tcp::Peer; 2],
    tags: [u32; 2],
}

/// What a packet is to a connection that was found.
enum Known {
    Verdict(Verdict),
    Invalid,
    /// The connection must go: its time is over, or the packet begins another.
    Stale,
}

impl Conntrack {
    /// A tracker in this storage. Connections that are in it already go on: their times
    /// are by the clock that the caller's [`Timestamp`]s come from.
    pub fn new(config: Config, storage: Storage) -> Self {
        let mut seed = config.seed;
        let secrets = std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ mixed >> 27 | 1
        });
        let tracker = Self {
            storage,
            secrets,
            version: AtomicU64::new(0),
            policies: Policies::new(),
            check_sequence: AtomicBool::new(config.check_sequence),
            pick_up: AtomicBool::new(config.pick_up),
            ledger: Mutex::new(Ledger::new(seed ^ secrets[0])),
            counters: Counters::default(),
        };
        tracker.take_over();
        tracker
    }

    /// Tracks a packet.
    ///
    /// # Errors
    /// The packet is to be dropped: [`DropReason::CtFull`], [`DropReason::CtLimit`],
    /// [`DropReason::CtNatExhausted`].
    ///
    /// # Cost
    /// One index lookup and one slot; for a new connection, the mutex.
    pub fn track(&self, now: Timestamp, request: &Request, view: &View) -> Result<Verdict, DropReason> {
        let now = millis(now);
        let tuple = Tuple { zone: request.zone, ..view.tuple };
        match &view.l4 {
            L4::Invalid => return Ok(self.invalid()),
            L4::Error { about } => return Ok(self.related(now, request, &tuple, about)),
            L4::Tcp(_) | L4::Udp | L4::Icmp | L4::Sctp { .. } | L4::Other => {}
        }
        let hash = tuple.hash(&self.secrets);
        if let Some((idx, direction, guard)) = self.lookup(&tuple, hash) {
            match self.known(now, request, view, (idx, direction, guard)) {
                Known::Verdict(verdict) => return Ok(verdict),
                Known::Invalid => return Ok(self.invalid()),
                Known::Stale => self.forget(now, &tuple, hash),
            }
        }
        let Some(begin) = self.begin(view) else { return Ok(self.invalid()) };
        let new = Verdict {
            state: ct_state::TRK | ct_state::NEW,
            mark: 0,
            label: 0,
            original: Some(tuple),
            rewrite: None,
        };
        if !request.commit {
            return Ok(new);
        }
        match self.commit(now, request, &tuple, hash, &begin)? {
            Some((mark, label, kind, answers)) => {
                let rewrite = (kind & (kind::SNAT | kind::DNAT) != 0)
                    .then(|| Rewrite { outer: answers.reversed(), inner: None });
                Ok(Verdict { state: new.state | nat_bits(kind, 0), mark, label, rewrite, ..new })
            }
            // Another worker was faster: the packet belongs to its connection.
            None => match self.lookup(&tuple, hash).map(|found| self.known(now, request, view, found)) {
                Some(Known::Verdict(verdict)) => Ok(verdict),
                _ => Ok(self.invalid()),
            },
        }
    }

    fn invalid(&self) -> Verdict {
        self.counters.n_invalid.fetch_add(1, Relaxed);
        Verdict { state: ct_state::TRK | ct_state::INV, mark: 0, label: 0, original: None, rewrite: None }
    }

    /// A packet of a connection that is there.
    fn known(
        &self,
        now: u32,
        request: &Request,
        view: &View,
        (idx, direction, mut guard): (u32, usize, Guard<'_>),
    ) -> Known {
        let Some(slot) = self.slots().get(idx as usize) else { return Known::Invalid };
        if guard.live.is_over(now) || request.force && request.commit && direction == 1 {
            return Known::Stale;
        }
        let before = guard.live;
        match self.step(slot, &mut guard, view, direction) {
            tcp::Fit::Valid => {}
            tcp::Fit::Restart => return Known::Stale,
            tcp::Fit::Invalid => return Known::Invalid,
        }
        let live = &mut guard.live;
        live.has_replied |= direction == 1;
        live.was_touched = true;
        live.expires = now.wrapping_add(self.policies.get(live.policy, live.state));
        let live = *live;
        if request.commit {
            set_marks(slot, request);
        }
        let established = if live.has_replied { ct_state::EST } else { ct_state::NEW };
        let reply = if direction == 1 { ct_state::RPL } else { 0 };
        let nat = if request.nat.is_some() { slot.kind() } else { 0 };
        let translated = nat & (kind::SNAT | kind::DNAT) != 0;
        let verdict = Verdict {
            state: ct_state::TRK | established | reply | nat_bits(nat, direction),
            mark: slot.mark(),
            label: slot.label(),
            original: Some(self.tuple_of(slot, 0)),
            rewrite: translated
                .then(|| Rewrite { outer: self.tuple_of(slot, 1 - direction).reversed(), inner: None }),
        };
        drop(guard);
        // A shorter life needs another place in the order of going.
        if live.state != before.state && (live.state.is_over() || live.state == State::TcpFinWait) {
            self.move_on(idx, &view_tuple(view, request));
        }
        Known::Verdict(verdict)
    }

    /// What the protocol makes of a packet.
    fn step(&self, slot: &Slot, guard: &mut Guard<'_>, view: &View, direction: usize) -> tcp::Fit {
        let live = &mut guard.live;
        let replied = live.has_replied || direction == 1;
        match &view.l4 {
            L4::Tcp(segment) => {
                let mut tcp = tcp::Tcp { state: live.state, peers: slot.peers() };
                let fit = tcp.step(direction, segment, self.check_sequence.load(Relaxed));
                live.state = tcp.state;
                slot.set_peers(&tcp.peers);
                return fit;
            }
            L4::Sctp { chunk, tag, initiate } => {
                let mut tags = slot.tags();
                let fit = sctp::step(&mut live.state, &mut tags, direction, (*chunk, *tag, *initiate));
                slot.set_tags(tags);
                return fit;
            }
            L4::Udp => live.state = if replied { State::UdpMultiple } else { State::UdpSingle },
            L4::Icmp => live.state = if replied { State::IcmpReply } else { State::IcmpFirst },
            L4::Other => live.state = if replied { State::OtherMultiple } else { State::OtherSingle },
            L4::Error { .. } | L4::Invalid => return tcp::Fit::Invalid,
        }
        tcp::Fit::Valid
    }

    /// What a connection begins with when this is its first packet.
    fn begin(&self, view: &View) -> Option<Begin> {
        let plain = |state| Some(Begin { state, peers: Default::default(), tags: [0; 2] });
        match &view.l4 {
            L4::Tcp(segment) => {
                let tcp = tcp::Tcp::begin(segment, self.pick_up.load(Relaxed))?;
                Some(Begin { state: tcp.state, peers: tcp.peers, tags: [0; 2] })
            }
            L4::Udp => plain(State::UdpFirst),
            L4::Icmp if tuple::is_request(view.tuple.ipv6, view.tuple.icmp_type()) => plain(State::IcmpFirst),
            L4::Sctp { chunk, tag, initiate } => {
                let tags = sctp::begin((*chunk, *tag, *initiate))?;
                Some(Begin { state: State::SctpInit, peers: Default::default(), tags })
            }
            L4::Other => plain(State::OtherFirst),
            L4::Icmp | L4::Error { .. } | L4::Invalid => None,
        }
    }

    /// An ICMP error belongs to the connection of the packet that it quotes, and goes the
    /// other way.
    fn related(&self, now: u32, request: &Request, tuple: &Tuple, about: &Tuple) -> Verdict {
        // Nobody else has to hear of it.
        if tuple.dst != about.src {
            return self.invalid();
        }
        let way = Tuple { zone: request.zone, ..*about }.reversed();
        let Some((idx, direction, guard)) = self.lookup(&way, way.hash(&self.secrets)) else {
            return self.invalid();
        };
        let Some(slot) = self.slots().get(idx as usize).filter(|_| !guard.live.is_over(now)) else {
            drop(guard);
            return self.invalid();
        };
        let kind = if request.nat.is_some() { slot.kind() } else { 0 };
        let quoted = self.tuple_of(slot, 1 - direction);
        let rewrite = (kind & (kind::SNAT | kind::DNAT) != 0).then(|| {
            // A router in front of an end that is known by another address is hidden as that
            // end is (RFC 5508 §4.2); others keep theirs.
            let src = if quoted.dst == about.dst { tuple.src } else { quoted.dst };
            Rewrite { outer: Tuple { src, dst: quoted.src, ..*tuple }, inner: Some(quoted) }
        });
        let reply = if direction == 1 { ct_state::RPL } else { 0 };
        Verdict {
            state: ct_state::TRK | ct_state::REL | reply | nat_bits(kind, direction),
            mark: slot.mark(),
            label: slot.label(),
            original: Some(self.tuple_of(slot, 0)),
            rewrite,
        }
    }

    /// The connection with this tuple in one of its directions, its slot locked.
    fn lookup(&self, tuple: &Tuple, hash: u32) -> Option<(u32, usize, Guard<'_>)> {
        const MAX_RETRIES: usize = 4;
        for _ in 0..MAX_RETRIES {
            match self.index().find(hash, |idx, direction| self.holds(idx, direction, tuple)) {
                Found::Nothing => return None,
                Found::Unsure => {}
                Found::At(idx, direction) => {
                    let guard = self.slots().get(idx as usize)?.lock();
                    if self.holds(idx, direction, tuple) {
                        return Some((idx, direction, guard));
                    }
                }
            }
        }
        let _ledger = self.ledger();
        let (idx, direction) = self.find_settled(tuple, hash)?;
        Some((idx, direction, self.slots().get(idx as usize)?.lock()))
    }

    /// Looks for a tuple while nobody changes the index: the caller holds the mutex.
    fn find_settled(&self, tuple: &Tuple, hash: u32) -> Option<(u32, usize)> {
        self.index().probe(hash, &mut |idx, direction| self.holds(idx, direction, tuple))
    }

    fn holds(&self, idx: u32, direction: usize, tuple: &Tuple) -> bool {
        self.slots().get(idx as usize).is_some_and(|slot| {
            slot.resembles(direction, tuple) && (!tuple.ipv6 || self.tuple_of(slot, direction) == *tuple)
        })
    }

    fn tuple_of(&self, slot: &Slot, direction: usize) -> Tuple {
        let is_ipv6 = slot.kind() & kind::IPV6 != 0;
        let extension = self.slots().get(slot.extension() as usize).filter(|_| is_ipv6);
        slot.tuple(direction, extension)
    }

    fn slots(&self) -> &[Slot] {
        self.storage.slots()
    }

    fn index(&self) -> Index<'_> {
        Index { cells: self.storage.cells(), version: &self.version }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in the ledger's methods can panic half-way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// New bits of mark and label. The slot must be locked.
fn set_marks(slot: &Slot, request: &Request) {
    let (mark, mask) = request.mark;
    if mask != 0 {
        slot.set_mark(slot.mark() & !mask | mark & mask);
    }
    let (label, mask) = request.label;
    if mask != 0 {
        slot.set_label(slot.label() & !mask | label & mask);
    }
}

/// Which address of a packet is translated: of answers, the other one.
fn nat_bits(kind: u8, direction: usize) -> u16 {
    let (source, destination) = (kind & kind::SNAT != 0, kind & kind::DNAT != 0);
    let (source, destination) = if direction == 0 { (source, destination) } else { (destination, source) };
    (if source { ct_state::SNAT } else { 0 }) | if destination { ct_state::DNAT } else { 0 }
}

fn view_tuple(view: &View, request: &Request) -> Tuple {
    Tuple { zone: request.zone, ..view.tuple }
}

/// The tracker's clock.
fn millis(now: Timestamp) -> u32 {
    (now.nanos() / 1_000_000) as u32
}
