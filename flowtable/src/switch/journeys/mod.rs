//! Journeys: all passes of a known conversation's packets, as one. The tracker sends most packets through the
//! tables more than once; behind a load balancer or towards a router each pass changes them. For a packet of a
//! conversation that has come this way before there is one lookup, a look at each connection it belongs to, one
//! change of its headers, and out.
//!
//! Why it is sound: packets with the same signature agree in everything that any pass can compare
//! ([`Signature`]), but for what the tracker says and what few entries look at beside (TCP flags, say), which
//! are then not made journeys of. The tracker is asked for each packet and pass, so that numbers, windows and
//! times are right, and must say what it said when the journey was noted: of the same connection, which translates
//! the same way, with the same state, mark and label. The entries of all passes must be current and do what they
//! did. Whatever is otherwise takes the long way (`recirculate.rs`), and is noted anew.
//!
//! Only conversations of which both sides have spoken are noted, so that a scan leaves no trace.
//!
//! Here: the table, which may have as many journeys as memory was set aside for; then any other makes way for a new one. When most packets are on none all the same, nobody looks for a while.
//! `find.rs` which packets are on one · `record.rs` noting a packet's long way · `ride.rs` the short one · `rewrite.rs` what it does to IPv4 headers.

mod find;
mod record;
mod rewrite;
mod ride;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicU64},
};

pub(super) use self::record::Recording;
use self::{
    find::Judged,
    rewrite::{Ends, Rewrite},
};
use crate::{
    cache::{Handle, Index, bytes_of},
    hints::prefetch_all,
    parse::Signature,
    program::{Emit, Program, TunnelHeader},
    types::PortNo,
};

/// Connections that a packet of a journey belongs to, one after the other.
const MAX_TRACKED: usize = 4;
/// Ways that are looked through for one that a new journey can share.
const MAX_RECENT: usize = 64;
/// When not one in so many packets of a port was on a journey, nobody looks for so many batches of it.
const WORTH_ONE_IN: u32 = 4;
const N_RESTS: u32 = 256;

/// Destination and source.
type MacAddrs = [u8; 12];

/// What the tracker said in a pass, of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Said {
    zone: u16,
    state: u16,
    mark: u32,
    label: u128,
    /// The packet has its last addresses already.
    is_translated: bool,
    /// Of the connection: 0 for its originator's packets.
    direction: u8,
    /// The connection translates.
    translates: bool,
    /// What its slot is marked as.
    identity: u32,
}

/// What the journeys of many conversations have in common.
#[derive(Debug)]
struct Way {
    /// The entry of the first pass, and what it did.
    from: (Handle, Arc<Program>),
    /// The entries of the passes behind the tracker, and what they did.
    entries: Vec<(Handle, Arc<Program>)>,
    said: Vec<Said>,
    /// MAC addresses in the end, where they change.
    macs: Option<MacAddrs>,
    /// More headers change than those.
    rewrites: bool,
    tunnel: Option<Arc<TunnelHeader>>,
    port: PortNo,
    /// Batch in which the entries were last seen to be there, current, and to do what they did.
    seen_in: AtomicU64,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |a: &(Handle, Arc<Program>), b: &(Handle, Arc<Program>)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1);
        same(&self.from, &other.from)
            && self.said == other.said
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(a, b)| same(a, b))
            && (self.macs, self.rewrites, self.port) == (other.macs, other.rewrites, other.port)
            && self.tunnel == other.tunnel
    }
}

/// The journey of one conversation, one way: two cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct Journey {
    signature: Signature,
    way: Arc<Way>,
    /// What becomes of the packet, where way and rewrite do not say it.
    emit: Option<Box<Emit>>,
    /// Slots of its connections.
    slots: [u32; MAX_TRACKED],
    rewrite: Rewrite,
    /// Of its last addresses; for a tunnel.
    flow_hash: u32,
    hash: u32,
}

const _: () = assert!(size_of::<Option<Journey>>() == 128);

/// The journeys of a worker.
#[derive(Debug)]
pub(super) struct Journeys {
    /// Never longer than what it has room for from the start.
    table: Vec<Option<Journey>>,
    index: Index,
    free: Vec<u32>,
    max: usize,
    seed: u64,
    n_replaced: u32,
    recent: Vec<Arc<Way>>,
    n_recordings: u32,
    /// Of these, how many in a row came to nothing.
    n_in_vain: u32,
    /// The packet under way is to be noted, if that is decided.
    pub(super) is_to_note: Option<bool>,
    /// Packets that took the short way.
    n_rides: u64,
    /// Counts changes: what was found before one may be gone.
    n_changes: u64,
    n_batches: u64,
    /// By number.
    ports: Vec<Judged>,
    /// The packet under way is being noted.
    pub(super) recording: Option<Box<Recording>>,
}

impl Journeys {
    /// For at most so many.
    pub(super) fn new(max: usize, seed: u64) -> Self {
        Self {
            table: Vec::with_capacity(max),
            index: Index::new(max),
            free: Vec::new(),
            max,
            seed,
            n_replaced: 0,
            recent: Vec::new(),
            n_recordings: 0,
            n_in_vain: 0,
            is_to_note: None,
            n_rides: 0,
            n_changes: 0,
            n_batches: 0,
            ports: Vec::new(),
            recording: None,
        }
    }

    /// The memory of the tables.
    pub(super) fn memory(&self) -> [Range<*const u8>; 2] {
        [bytes_of(&self.table), self.index.memory()]
    }

    fn is_full(&self) -> bool {
        self.free.is_empty() && self.table.len() >= self.max
    }

    #[inline]
    fn hash(&self, signature: &Signature) -> u32 {
        let sum = signature.0.iter().fold(self.seed, |sum, word| {
            let product = u128::from(sum ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
            product as u64 ^ (product >> 64) as u64
        });
        sum as u32
    }

    /// Fetches where a conversation's journey is told; answers its hash.
    #[inline]
    fn fetch(&self, signature: &Signature) -> u32 {
        let hash = self.hash(signature);
        self.index.prefetch(hash);
        hash
    }

    /// Fetches the journey that is most likely the one of a hash.
    #[inline]
    fn fetch_likely(&self, hash: u32) {
        if let Some(journey) = self.index.first(hash).and_then(|at| self.table.get(at as usize)) {
            prefetch_all(journey);
        }
    }

    /// The journey of a conversation, if it is here.
    #[inline]
    fn get(&self, at: u32, signature: &Signature) -> Option<&Journey> {
        let journey = self.table.get(at as usize).and_then(Option::as_ref);
        journey.filter(|journey| journey.signature.is(signature))
    }

    /// The journey of a conversation that begins with an entry that suits.
    #[inline]
    fn find(
        &self,
        hash: u32,
        signature: &Signature,
        suits: impl Fn(Handle) -> bool,
    ) -> Option<(u32, &Journey)> {
        let mut found = None;
        self.index.find(hash, |at| {
            found = self
                .get(at, signature)
                .filter(|journey| suits(journey.way.from.0))
                .map(|journey| (at, journey));
            found.is_some()
        })?;
        found
    }

    fn remove(&mut self, at: u32) {
        let Some(journey) = self.table.get_mut(at as usize).and_then(Option::take) else { return };
        self.n_changes += 1;
        self.index.remove(journey.hash, at);
        self.free.push(at);
    }

    fn insert(&mut self, journey: Journey) {
        if self.max == 0 {
            return;
        }
        let hash = journey.hash;
        let same = self.find(hash, &journey.signature, |from| from == journey.way.from.0).map(|(at, _)| at);
        if let Some(at) = same {
            self.remove(at);
        } else if self.is_full() {
            self.n_replaced = self.n_replaced.wrapping_add(0x9e37_79b9);
            self.remove(((u64::from(self.n_replaced) * self.max as u64) >> 32) as u32);
        }
        self.n_changes += 1;
        self.n_in_vain = 0;
        match self.free.pop() {
            Some(at) => {
                self.table[at as usize] = Some(journey);
                self.index.insert(hash, at);
            }
            None => {
                self.index.insert(hash, self.table.len() as u32);
                self.table.push(Some(journey));
            }
        }
    }

    /// A way that says the same, if there is one.
    fn share(&mut self, way: Way) -> Arc<Way> {
        if let Some(known) = self.recent.iter().find(|known| ***known == way) {
            return Arc::clone(known);
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.clear();
        }
        let way = Arc::new(way);
        self.recent.push(Arc::clone(&way));
        way
    }
}
