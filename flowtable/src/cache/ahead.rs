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
//! entry compares, it answers for every packet of the entry. Where nothing but rules of some
//! tables has changed, a walk that is not at any of these is the same without being taken, and
//! another one searches only those ([`Taken`]).

use std::sync::Arc;

use super::{
    Megaflows,
    megaflow::Megaflow,
    shape::{do_the_same, port_idx},
};
use crate::{
    key::FlowKey,
    pipeline::{Taken, Tally, Translation},
    table::TableSet,
    types::{Epoch, PortNo, Timestamp},
};

impl Megaflows {
    /// Number of slots that entries may be in.
    pub(crate) fn n_slots(&self) -> usize {
        self.entries.len()
    }

    /// The entry of a slot, if it is of this version, was used since `since`, and changes nothing:
    /// what does is translated by the packet that does.
    fn to_look_at(&self, slot: usize, epoch: Epoch, since: Timestamp) -> Option<&Megaflow> {
        let entry = self.entries.get(slot)?.as_ref()?;
        let is_worth_it = entry.is_of(epoch) && entry.last_used >= since && entry.rests_on.hold();
        (is_worth_it && entry.program.effects.is_empty() && !changes_rules(&entry.tally)).then_some(entry)
    }

    /// Whether there is anything to look at in a slot, for a version that differs from that of
    /// `epoch` in the rules of some tables. An entry whose packets are at none of these is one of
    /// the `later` version as well from now on.
    pub(crate) fn begin_look(
        &mut self,
        slot: usize,
        (epoch, since): (Epoch, Timestamp),
        differing: Option<&TableSet>,
        later: Epoch,
    ) -> bool {
        let Some(entry) = self.to_look_at(slot, epoch, since) else { return false };
        let is_at = |differing: &TableSet| {
            entry.rules.iter().any(|rule| differing.has(rule.table))
                || entry.tally.misses.iter().any(|table| differing.has(*table))
        };
        let has_to = differing.is_none_or(is_at);
        if !has_to && let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.holds_until(later);
        }
        has_to
    }

    /// The port and the key that stand for the packets of a slot's entry.
    pub(crate) fn stands_for(&self, slot: usize) -> Option<(PortNo, FlowKey)> {
        let (place, entry) = (self.keys.get(slot)?, self.entries.get(slot)?.as_ref()?);
        let shape = self.ports.get(usize::from(place.port))?.shapes.get(place.shape)?;
        let inline = place.words.iter().take(usize::from(place.n_words));
        let port = PortNo::new(place.port.into()).ok()?;
        Some((port, shape.expand(inline.chain(&entry.more_words))))
    }

    /// The walk that was taken for a slot's entry, where only rules of some tables differ since.
    pub(crate) fn taken(&self, slot: usize, differing: TableSet) -> Option<Taken<'_>> {
        let entry = self.entries.get(slot)?.as_ref()?;
        Some(Taken { rules: &entry.rules, misses: &entry.tally.misses, differing })
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
        let received = self.received.of(from_tunnel, recirculated);
        let mask: Vec<_> = received.part_of(&new.mask).collect();
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
