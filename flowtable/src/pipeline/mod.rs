//! The pipeline: what the tables make of a packet.
//!
//! [`translate`] walks a packet's key through the tables of a snapshot and answers
//! with three things: the [`Program`] for packets like this one, the mask that says
//! which packets are like this one, and the rules that were hit. It is a pure
//! function; caches, `trace` and tests all call the same one.
//!
//! **The mask law.** Any packet that agrees with the translated one in the masked bits
//! gets the same program from the same snapshot. The law needs no care in this folder's
//! code: the key is a [`Tracked`], which records what is read, and what is written
//! follows from what was read. The only places that look at the key without recording
//! are the ones that compute header edits (`edit.rs`), and each of them says why that
//! is sound.
//!
//! Read `walk.rs` first (tables, nesting, limits), then `action_set.rs`, `group.rs` and
//! `metering.rs` (what OpenFlow adds to the way), `write.rs` (what actions do to the key;
//! `labels.rs` for MPLS, `length.rs` for what depends on the frame's length), `spread.rs` and
//! `select.rs` (choices by a hash), `guard.rs` (what comes before the tables), `output.rs`, `normal.rs` with
//! `multicast.rs` and `bond.rs`, `mirror.rs`, `punt.rs` and `sample.rs`
//! (where copies go) and `edit.rs` (how a copy differs from the
//! packet that was received). `ct.rs`, `punt.rs` and `packet_out.rs` put walks aside and begin
//! in the middle of one (`frozen.rs`). `recent.rs` remembers what tables answered, `along.rs` shows that a walk of an older version is still the
//! same.
//!
//! **What packets change.** A walk changes nothing. What its packets shall change in rules,
//! timeouts or the database of stations is part of the answer: as an
//! [`Effect`](crate::program::Effect) of the program as long as it is news, and as
//! an item of the [`Tally`] once it only keeps something young, so that the fast path counts
//! it in bulk.

mod action_set;
mod along;
mod bond;
mod ct;
mod edit;
mod frozen;
mod group;
mod guard;
mod labels;
mod learn;
mod length;
mod metering;
mod mirror;
mod multicast;
mod normal;
mod output;
mod packet_out;
mod punt;
#[cfg(test)]
pub(crate) mod random;
mod recent;
mod resubmit;
mod sample;
mod select;
mod spread;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_fragments;
#[cfg(test)]
mod tests_openflow;
mod walk;
mod write;

use std::{fmt, sync::Arc};

#[cfg(test)]
pub(crate) use self::tests::{same, within};
pub(crate) use self::{
    along::Taken,
    frozen::{frame_field, set_connection},
    packet_out::begin as begin_packet_out,
    recent::Recent,
};
pub use self::{
    frozen::{Frozen, MAX_PASSES},
    metering::MAX_METERS,
    tally::{Finished, Tally},
};
use crate::{
    fdb::Dependencies,
    flow::Rule,
    key::{FlowKey, FlowMask},
    program::Program,
    snapshot::Snapshot,
    types::TableId,
};

#[cfg(doc)]
use crate::key::Tracked;

/// Resubmits to the same or an earlier table, and clones, within each other. Steps
/// forward do not count, since the tables end (the same rule and limit as in Open
/// vSwitch).
pub const MAX_DEPTH: usize = 64;
/// Table lookups of one packet.
pub const MAX_LOOKUPS: usize = 4096;
/// Copies of one packet.
pub const MAX_EMITS: usize = 16_384;

/// Rules and stations that one packet may change or keep young.
pub const MAX_EFFECTS: usize = 4096;

/// Values on the stack of one packet.
pub const MAX_STACK: usize = 4096;

/// What the tables make of a packet.
#[derive(Debug, Clone)]
pub struct Translation {
    /// What to do.
    pub program: Program,
    /// The bits of the key that decided it.
    pub mask: FlowMask,
    /// The rules that were hit, in the order of the walk; one that was hit twice is
    /// there twice and counts twice.
    pub rules: Vec<Arc<Rule>>,
    /// What else counts its packets.
    pub tally: Tally,
    /// What it rests on besides the snapshot's epoch.
    pub(crate) rests_on: Dependencies,
    /// Actions have looked at headers.
    acts_on_headers: bool,
}

impl Translation {
    /// Any other fresh packet of the same port and IP version that takes its walk over the same
    /// rules is translated to the same.
    pub(crate) fn follows_from_rules(&self) -> bool {
        !self.acts_on_headers && self.rests_on.is_empty() && self.program.effects.is_empty()
    }
}

/// Whoever wants to know the steps of a walk.
pub trait Tracer {
    /// A table is about to be looked up for this packet.
    fn sees(&mut self, _key: &FlowKey) {}
    /// A table was looked up: the rule it gave, or `None` for a miss.
    fn lookup(&mut self, depth: usize, table: TableId, rule: Option<&Arc<Rule>>);
    /// Something worth a line happened.
    fn note(&mut self, depth: usize, note: fmt::Arguments<'_>);
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTrace;

impl Tracer for NoTrace {
    #[inline]
    fn lookup(&mut self, _: usize, _: TableId, _: Option<&Arc<Rule>>) {}

    #[inline]
    fn note(&mut self, _: usize, _: fmt::Arguments<'_>) {}
}

/// Walks a packet's key through the tables, from table 0.
///
/// # Cost
/// Microseconds: a lookup per table, and one allocation for each list it answers with.
pub fn translate<T: Tracer>(snapshot: &Snapshot, key: &FlowKey, tracer: &mut T) -> Translation {
    walk::Walk::new(snapshot, key, tracer, None).run(None)
}

/// The same, from the start or from where a walk was put aside, for a switch that remembers what
/// tables answered its packets before.
pub(crate) fn translate_recalling(
    snapshot: &Snapshot,
    key: &FlowKey,
    frozen: Option<&Frozen>,
    recent: &mut Recent,
) -> Translation {
    let translation = walk::Walk::new(snapshot, key, &mut NoTrace, Some(recent)).run(frozen);
    recent.n_rules = translation.rules.len();
    translation
}

/// Goes on with a walk that was put aside; `key` is the packet's as it is now.
pub fn translate_frozen<T: Tracer>(
    snapshot: &Snapshot,
    key: &FlowKey,
    frozen: &Frozen,
    tracer: &mut T,
) -> Translation {
    walk::Walk::new(snapshot, key, tracer, None).run(Some(frozen))
}

/// Takes a walk again in another version; `None`: it is another walk now. The mask that it answers
/// with lacks bits which are in that of the walk taken.
pub(crate) fn translate_along(
    snapshot: &Snapshot,
    key: &FlowKey,
    frozen: Option<&Frozen>,
    taken: Taken<'_>,
) -> Option<Translation> {
    walk::Walk::new(snapshot, key, &mut NoTrace, None).run_along(frozen, taken)
}
