//! Entries looked at for a version to come, while the present one is in force.
//!
//! When rules change, most entries stay right: their packets take the same walk over the same
//! rules. Shown beforehand, that makes an entry one of both versions, and the change costs its
//! packets nothing. An entry for which it cannot be shown is translated again at its next hit,
//! as ever.
//!
//! Why it is sound: what stands for all packets of an entry is its masked key with zeros
//! elsewhere. The new translation of that key answers for every packet that agrees in the new
//! mask's bits (the law of [`crate::pipeline`]); when all of these are among the bits that the
//! entry compares, it answers for every packet of the entry.

use std::sync::Arc;

use super::{
    Megaflows,
    shape::{do_the_same, port_idx},
};
use crate::{
    key::FlowKey,
    pipeline::{Tally, Translation},
    types::{Epoch, PortNo, Timestamp},
};

impl Megaflows {
    /// Number of slots that entries may be in.
    pub(crate) fn n_slots(&self) -> usize {
        self.entries.len()
    }

    /// The port and the key that stand for the packets of a slot's entry, if it is of this
    /// version and was used since `since`.
    pub(crate) fn stands_for(
        &self,
        slot: usize,
        epoch: Epoch,
        since: Timestamp,
    ) -> Option<(PortNo, FlowKey)> {
        let (place, entry) = (self.keys.get(slot)?, self.entries.get(slot)?.as_ref()?);
        let is_worth_it = entry.is_of(epoch) && entry.last_used >= since && entry.rests_on.hold();
        // What changes something is translated by the packet that does.
        if !is_worth_it || !entry.program.effects.is_empty() || changes_rules(&entry.tally) {
            return None;
        }
        let shape = self.ports.get(usize::from(place.port))?.shapes.get(place.shape)?;
        let inline = place.words.iter().take(usize::from(place.n_words));
        let port = PortNo::new(place.port.into()).ok()?;
        Some((port, shape.expand(inline.chain(&entry.more_words))))
    }

    /// What the tables of a later version make of the packets of a slot's entry. If it is the
    /// same, the entry is one of that version too.
    /// `(from_tunnel, recirculated)`: how they get to the tables.
    pub(crate) fn extend(
        &mut self,
        slot: usize,
        new: &Translation,
        (from_tunnel, recirculated): (bool, bool),
        epoch: Epoch,
    ) -> bool {
        let (Some(place), Some(Some(entry))) = (self.keys.get(slot), self.entries.get_mut(slot)) else {
            return false;
        };
        let port = PortNo::new(place.port.into()).map_or(0, port_idx);
        let shape = self.ports.get(port).and_then(|entries| entries.shapes.get(place.shape));
        let mask = self.received.of(from_tunnel, recirculated).part_of(&new.mask);
        let is_same = shape.is_some_and(|shape| shape.words().covers(&mask))
            && do_the_same(&entry.program, &new.program)
            && entry.rules.len() == new.rules.len()
            && entry.rules.iter().zip(&new.rules).all(|(old, new)| Arc::ptr_eq(old, new))
            && counts_the_same(&entry.tally, &new.tally);
        if is_same {
            entry.holds_until(epoch);
        }
        is_same
    }
}

/// Packets keep rules or stations alive, or end them.
fn changes_rules(tally: &Tally) -> bool {
    !(tally.renewed.is_empty() && tally.finished.is_empty() && tally.stations.is_empty())
}

fn counts_the_same(one: &Tally, other: &Tally) -> bool {
    one.groups.len() == other.groups.len()
        && one.groups.iter().zip(&other.groups).all(|(one, other)| Arc::ptr_eq(one, other))
        && one.misses == other.misses
        && Arc::ptr_eq(&one.tables, &other.tables)
        && !changes_rules(other)
}
