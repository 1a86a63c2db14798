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
//! Here: the table. `record.rs` noting a packet's long way · `ride.rs` the short one.

mod record;
mod ride;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::record::Recording;
use crate::{
    cache::Handle, conntrack::Place, hints::prefetch, parse::Signature, program::Emit, program::Program,
};

/// Connections that a packet of a journey belongs to, one after the other.
const MAX_TRACKED: usize = 4;
/// Journeys that there is room for at first.
const MIN_PLACES: usize = 256;
/// Places that a conversation's journey can be in.
const N_WAYS: usize = 4;
/// How rarely a journey makes way for another when there is no more room.
const REPLACE_ONE_IN: u32 = 16;
/// Ways that are looked through for one that a new journey can share.
const MAX_RECENT: usize = 64;

/// What the tracker said in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    zone: u16,
    state: u16,
    mark: u32,
    label: u128,
    /// The packet has its last addresses already.
    is_translated: bool,
}

/// What the journeys of many conversations have in common.
#[derive(Debug)]
struct Way {
    /// What the entry of the first pass did.
    first: Arc<Program>,
    /// The entries of the passes behind the tracker, and what they did.
    entries: Vec<(Handle, Arc<Program>)>,
    said: Vec<Said>,
}

impl PartialEq for Way {
    fn eq(&self, other: &Self) -> bool {
        let same =
            |a: &(Handle, Arc<Program>), b: &(Handle, Arc<Program>)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1);
        Arc::ptr_eq(&self.first, &other.first)
            && self.said == other.said
            && self.entries.len() == other.entries.len()
            && self.entries.iter().zip(&other.entries).all(|(a, b)| same(a, b))
    }
}

/// The journey of one conversation, one way.
#[derive(Debug)]
struct Journey {
    signature: Signature,
    /// The entry of the first pass.
    from: Handle,
    way: Arc<Way>,
    /// What becomes of the packet in the end.
    emit: Box<Emit>,
    /// Its connections.
    places: [Place; MAX_TRACKED],
    /// Of its last addresses; for a tunnel.
    flow_hash: u32,
}

/// The journeys of a worker.
#[derive(Debug)]
pub(super) struct Journeys {
    /// [`N_WAYS`] places for each hash; a power of two of them, or none.
    table: Vec<Option<Journey>>,
    n_used: usize,
    max: usize,
    seed: u64,
    n_clashes: u32,
    recent: Vec<Arc<Way>>,
    n_recordings: u32,
    /// Packets that took the short way.
    n_rides: u64,
    /// The packet under way is being noted.
    pub(super) recording: Option<Box<Recording>>,
}

impl Journeys {
    /// For at most so many.
    pub(super) fn new(max: usize, seed: u64) -> Self {
        let max = max.next_power_of_two().max(N_WAYS);
        let (table, recent) = (Vec::new(), Vec::new());
        Self {
            table,
            n_used: 0,
            max,
            seed,
            n_clashes: 0,
            recent,
            n_recordings: 0,
            n_rides: 0,
            recording: None,
        }
    }

    /// The first of a conversation's places.
    #[inline]
    fn place(&self, signature: &Signature) -> usize {
        let sum = signature.0.iter().fold(self.seed, |sum, word| {
            let product = u128::from(sum ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
            product as u64 ^ (product >> 64) as u64
        });
        sum as usize & self.table.len().wrapping_sub(1) & !(N_WAYS - 1)
    }

    /// Fetches the places of a conversation's journey; answers the first of them.
    #[inline]
    pub(super) fn fetch(&self, signature: &Signature) -> usize {
        let at = self.place(signature);
        self.table.get(at..at + N_WAYS).unwrap_or_default().iter().for_each(prefetch);
        at
    }

    /// The journey of a conversation is here.
    #[inline]
    fn get(&self, at: usize, signature: &Signature, from: Handle) -> Option<&Journey> {
        let journey = self.table.get(at).and_then(Option::as_ref);
        journey.filter(|journey| journey.signature == *signature && journey.from == from)
    }

    /// Where the journey of a conversation is, of whose places this is the first.
    #[inline]
    fn find(&self, first: usize, signature: &Signature, from: Handle) -> Option<usize> {
        (first..first + N_WAYS).find(|at| self.get(*at, signature, from).is_some())
    }

    fn remove(&mut self, at: usize) {
        if self.table.get_mut(at).and_then(Option::take).is_some() {
            self.n_used -= 1;
        }
    }

    fn insert(&mut self, journey: Journey) {
        if self.n_used * 2 >= self.table.len() && self.table.len() < self.max {
            self.grow();
        }
        let at = self.place(&journey.signature);
        if let Some(at) = self.find(at, &journey.signature, journey.from) {
            self.table[at] = Some(journey);
            return;
        }
        let free = (at..at + N_WAYS).find(|at| self.table[*at].is_none());
        let at = free.or_else(|| {
            self.n_clashes = self.n_clashes.wrapping_add(1);
            let is_its_turn = self.n_clashes.is_multiple_of(REPLACE_ONE_IN);
            is_its_turn.then_some(at + (self.n_clashes / REPLACE_ONE_IN) as usize % N_WAYS)
        });
        if let Some(at) = at {
            self.n_used += usize::from(self.table[at].is_none());
            self.table[at] = Some(journey);
        }
    }

    /// Twice as much room.
    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(MIN_PLACES).min(self.max);
        let old = std::mem::take(&mut self.table);
        self.table.resize_with(len, || None);
        self.n_used = 0;
        for journey in old.into_iter().flatten() {
            let at = self.place(&journey.signature);
            if let Some(free) = (at..at + N_WAYS).find(|at| self.table[*at].is_none()) {
                self.table[free] = Some(journey);
                self.n_used += 1;
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
