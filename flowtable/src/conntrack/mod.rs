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
//! it is full, is in the `ledger`. `track` says what a packet is, `tcp` and `sctp` know the
//! protocols, `nat` chooses translations, `timeout` names the states.
//!
//! Three things are not in storage, since they are about seconds: fragments that wait for
//! the rest of their packet (`fragments`), connections that others have announced
//! (`alg`), and events. Another tracker on the same storage begins without them: what was
//! announced before is an ordinary new connection, which rules decide about, until it is
//! announced again; and a half whose other half came before is dropped when its time is
//! over. A flush takes what its connections have announced along, and leaves fragments,
//! which belong to no connection until they are whole.
//!
//! # How to use it
//! | question | answer |
//! |---|---|
//! | what is this packet? | [`Conntrack::view`], then [`Conntrack::track`], then [`rewrite()`] |
//! | time passes | [`Conntrack::tick`], for each batch |
//! | what is there? | [`Conntrack::dump`], [`Conntrack::stats`], [`Conntrack::zones`], [`Conntrack::top_talkers`], [`Conntrack::top_ports`], [`Conntrack::expected_connections`], [`Conntrack::fragments_held`] |
//! | take some out | [`Conntrack::flush`] with a [`Filter`]: by zone, tuple, mark, label |
//! | what happens? | [`Conntrack::set_events`], [`Conntrack::fetch_events`] |
//! | how many may there be? | [`Conntrack::set_zone_limit`], [`Conntrack::set_port_limit`], [`Conntrack::set_limit`], [`Conntrack::set_fragment_limits`] |
//! | how long, how strict? | [`Conntrack::set_timeout`], [`Conntrack::set_zone_policy`], [`Conntrack::set_check_sequence`], [`Conntrack::set_pick_up`], [`Conntrack::set_check_checksums`] |
//!
//! # Concurrency
//! All methods take `&self`, and any number of workers may call them: packets of one
//! connection may come to different workers in any order. A packet of a known connection
//! takes no lock but that of its slot. Making and removing a connection takes the
//! ledger's mutex. The order is always mutex, then slot. Fragments and expectations have
//! mutexes of their own, which are taken last and alone; who has none of either looks at
//! a counter only.
//!
//! # When it is full
//! Connections that nobody has answered and those that are over make room, oldest
//! first. An established connection is never evicted: when there is nothing else, the
//! *new* connection is refused, under a name ([`DropReason::CtFull`]).

mod alg;
#[cfg(test)]
mod attack_tests;
#[cfg(test)]
mod death_tests;
mod entry;
#[cfg(test)]
mod event_tests;
mod extension;
pub(crate) mod fragments;
mod index;
mod ledger;
#[cfg(test)]
mod memory_tests;
mod nat;
pub(crate) mod piece;
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
mod touch;
mod track;
mod tuple;
mod view;
#[cfg(test)]
mod worker_tests;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use self::{
    alg::expect::Expectations, fragments::Fragments, index::Index, ledger::Ledger, slot::kind,
    timeout::Policies,
};
pub use self::{
    alg::{Alg, expect::Expected},
    entry::{Connection, Filter, Talker},
    fragments::FragmentLimits,
    index::{Bucket, SLOTS_PER_BUCKET},
    nat::{Nat, NatKind, NatOrder, NatRange},
    rewrite::rewrite,
    slot::Slot,
    storage::{Storage, StorageError},
    tcp::Segment,
    timeout::{MAX_TIMEOUT, N_POLICIES, State},
    tuple::Tuple,
    view::{L4, View},
};
pub(crate) use self::{
    rewrite::rewrite_part,
    touch::{Directions, Place, Touched, Untouched},
};
use crate::types::Timestamp;
#[cfg(doc)]
use crate::{drop::DropReason, key::ct_state};

/// Connections that a call of [`Conntrack::tick`] looks at.
const TICK_BUDGET: usize = 64;

/// What a tracker is told at its start; all but the seed can be changed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Segments outside of TCP's windows are invalid.
    pub check_sequence: bool,
    /// A TCP connection may be picked up in its middle.
    pub pick_up: bool,
    /// Packets with a wrong checksum are invalid.
    pub check_checksums: bool,
    /// Makes the hashes unforeseeable.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            check_sequence: true,
            pick_up: true,
            check_checksums: true,
            seed: RandomState::new().hash_one(0),
        }
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
    /// Helper of a new connection.
    pub alg: Option<Alg>,
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
    /// Tuple of the connection's first packet, or of that of the connection which announced
    /// it; nothing for invalid packets.
    pub original: Option<Tuple>,
    /// What the packet's headers become.
    pub rewrite: Option<Rewrite>,
    /// The connection's helper.
    pub alg: Option<Alg>,
}

/// New headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Addresses and ports of the packet. Of an ICMP error only the addresses.
    pub outer: Tuple,
    /// Those of the packet that an ICMP error quotes.
    pub inner: Option<Tuple>,
    /// For the numbers of a TCP segment.
    pub shift: Shift,
}

/// What is added to the numbers of a TCP segment, since a helper changed the length of
/// what was sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    /// To the sequence number.
    pub seq: i32,
    /// To the acknowledgement, also of blocks.
    pub ack: i32,
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was committed.
    Created(Connection),
    /// Both sides have spoken: the handshake is over, where there is one.
    Established(Connection),
    /// It expired, was flushed, evicted or replaced.
    Removed(Connection),
}

/// Connections whose events are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Watched {
    /// None.
    #[default]
    Nothing,
    /// Those of some zones.
    Zones(BTreeSet<u16>),
    /// All.
    All,
}

impl Watched {
    fn has(&self, zone: u16) -> bool {
        match self {
            Self::Nothing => false,
            Self::Zones(zones) => zones.contains(&zone),
            Self::All => true,
        }
    }
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
    /// Connections that others had announced.
    n_related,
    /// Connections of the process before that were half-written, and dropped.
    n_damaged,
}

/// The connections of a switch.
#[derive(Debug)]
pub struct Conntrack {
    storage: Storage,
    secrets: [u64; 4],
    policies: Policies,
    check_sequence: AtomicBool,
    pick_up: AtomicBool,
    check_checksums: AtomicBool,
    /// Somebody wants to know of some connections: saves a look behind the mutex.
    is_watched: AtomicBool,
    ledger: Mutex<Ledger>,
    fragments: Mutex<Fragments>,
    /// Packets whose fragments wait: saves a look behind the mutex.
    n_gathering: AtomicUsize,
    expectations: Mutex<Expectations>,
    /// How many there are: saves a look behind the mutex.
    n_expected: AtomicUsize,
    counters: Counters,
}

impl Conntrack {
    /// A tracker in this storage. Connections that are in it already go on: their times
    /// are by the clock that the caller's [`Timestamp`]s come from.
    pub fn new(config: Config, storage: Storage) -> Self {
        let tracker = Self::waiting(config, storage);
        tracker.take_over();
        tracker
    }

    /// A tracker in storage that another one still works in. It can be told how to track, and
    /// does nothing else before [`Conntrack::go_on`].
    pub fn waiting(config: Config, storage: Storage) -> Self {
        let mut seed = config.seed;
        let secrets = std::array::from_fn(|_| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ mixed >> 27 | 1
        });
        Self {
            ledger: Mutex::new(Ledger::new(seed ^ secrets[0], storage.used())),
            storage,
            secrets,
            policies: Policies::new(),
            check_sequence: AtomicBool::new(config.check_sequence),
            pick_up: AtomicBool::new(config.pick_up),
            check_checksums: AtomicBool::new(config.check_checksums),
            is_watched: AtomicBool::new(false),
            fragments: Mutex::default(),
            n_gathering: AtomicUsize::new(0),
            expectations: Mutex::default(),
            n_expected: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    /// Begins with what is in storage; nobody else works there any more. `parked` is what the
    /// tracker before has left by [`Conntrack::park`], if it had the time to, with the same seed:
    /// then nothing is searched, and it does not matter how many connections there are.
    /// Otherwise, or when that cannot be right, all slots are gone through that have been used
    /// ([`Storage::counting`]), and half-written connections dropped.
    pub fn go_on(&self, parked: Option<&[u32]>) {
        let n_slots = self.slots().len() as u32;
        let is_resumed = parked.is_some_and(|words| self.ledger().unpark(words, n_slots));
        if !is_resumed {
            self.take_over();
        }
    }

    /// What another tracker needs to go on at once in the same storage, after which this one
    /// must not work in it. At most [`Conntrack::MAX_PARKED`] words.
    pub fn park(&self) -> Vec<u32> {
        self.ledger().park()
    }

    /// Words that [`Conntrack::park`] makes at most.
    pub const MAX_PARKED: usize = ledger::MAX_PARKED;

    fn tuple_of(&self, slot: &Slot, direction: usize) -> Tuple {
        slot.tuple(direction, self.extension_of(slot))
    }

    fn slots(&self) -> &[Slot] {
        self.storage.slots()
    }

    fn index(&self) -> Index<'_> {
        Index::new(self.storage.buckets(), self.slots().len())
    }

    fn fragments(&self) -> MutexGuard<'_, Fragments> {
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in the ledger's methods can panic half-way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tracker's clock.
fn millis(now: Timestamp) -> u32 {
    (now.nanos() / 1_000_000) as u32
}
