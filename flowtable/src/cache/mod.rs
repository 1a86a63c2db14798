//! What the switch remembers of past translations.
//!
//! Two levels. A *megaflow* (`megaflow/`) holds a translation for all packets that
//! agree in its masked bits; megaflows with the same mask form a *shape*
//! (`shape.rs`), and a lookup probes each shape of the packet's port. Most packets need not
//! be parsed in full for that: what their signature says is all that most masks look at, and
//! `signed.rs` finds their megaflows by it. Where a port has many masks, a *session*
//! (`session.rs`) leads from a signature to its megaflow, so that a packet of a known
//! conversation costs one probe however many shapes there are. Where masks multiply and rules
//! are few, the rules themselves are compared (`direct.rs`).
//!
//! Why reuse is sound: a translation is right for every packet that agrees in its
//! mask (the law of [`crate::pipeline`]); a lookup compares exactly those bits; masks
//! are only ever widened; a megaflow is only found by signature when its mask lies within the
//! bits that signatures say; and a session is a guess, which the megaflow's own words
//! confirm. Megaflows may overlap: entries of one epoch
//! then agree, and entries of another are translated again before use.
//!
//! Everything is bounded: entries, shapes per port, sessions. When the entries run
//! out, the port that has more than its share loses its own, so that a port can
//! misbehave only at its own cost.

use std::ops::Range;

mod ahead;
mod by_signature;
mod direct;
mod index;
mod megaflow;
mod session;
mod shape;
mod signed;

pub(crate) use by_signature::Words;
pub(crate) use index::Index;
pub use megaflow::MegaflowDump;
pub(crate) use megaflow::{Handle, Megaflow, Megaflows, Remembered, State};
pub(crate) use signed::{N_LONG, TunnelWords, bits, tunnelled};

/// A packet from a port that is not a tunnel can have this key.
#[cfg(test)]
pub(crate) fn can_be_received(key: &crate::key::FlowKey) -> bool {
    shape::ReceivedBits::new().of(false, false).has_all_of(key)
}

/// Where a table is in memory, with the room it has to grow.
pub(crate) fn bytes_of<T>(table: &Vec<T>) -> Range<*const u8> {
    let start = table.as_ptr();
    start.cast()..start.wrapping_add(table.capacity()).cast()
}

/// Spreads 64 bits over all bits of the result: the two halves of a full product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Numbers that make a hash unguessable, from one seed.
#[derive(Debug, Clone)]
struct Secrets<const N: usize>([u64; N]);

impl<const N: usize> Secrets<N> {
    fn new(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64 (Steele, Lea, Flood 2014).
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }))
    }
}
