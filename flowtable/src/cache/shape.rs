//! Shapes: the masks of a port's megaflows, and the cap on how many there are.

use std::{mem::offset_of, sync::Arc};

use super::{Secrets, fold};
use crate::{
    field::Field,
    key::{FlowKey, FlowMask, N_WORDS},
    program::Program,
    types::PortNo,
};

/// Different masks of one port, besides the one that compares everything. A lookup
/// that finds nothing probes each, so this bounds what an attacker can make a packet
/// cost (tuple-space explosion, CVE-2019-25076).
pub(crate) const MAX_SHAPES: usize = 16;

/// Lookups after which a port's shapes are sorted by their hits.
const SORT_AFTER: u32 = 1024;

/// One mask, as the words that have a bit.
#[derive(Debug)]
pub(crate) struct Shape {
    /// (index, mask) of words.
    words: Box<[(u8, u64)]>,
    n_bits: u32,
    pub(crate) n_entries: u32,
    n_hits: u32,
    /// Makes equal words of different shapes differ in their hash.
    salt: u64,
    /// What the last entry does: most often the next one does the same.
    program: Option<Arc<Program>>,
}

impl Shape {
    fn new(mask: &FlowMask, salt: u64) -> Self {
        let words: Box<[_]> = mask
            .words()
            .iter()
            .enumerate()
            .filter(|(_, word)| **word != 0)
            .map(|(idx, word)| (idx as u8, *word))
            .collect();
        let n_bits = words.iter().map(|(_, word)| word.count_ones()).sum();
        Self { words, n_bits, n_entries: 0, n_hits: 0, salt, program: None }
    }

    /// The masked words of a key.
    pub(crate) fn words_of<'a>(&'a self, key: &'a FlowKey) -> impl Iterator<Item = u64> + 'a {
        self.words.iter().map(|(idx, mask)| key.words()[usize::from(*idx)] & mask)
    }

    /// The hash of a key's masked words.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey, secrets: &Secrets<N_WORDS>) -> u64 {
        let words = key.words();
        let sum = self.words.iter().zip(&secrets.0).fold(self.salt, |sum, ((idx, mask), secret)| {
            let word = words[usize::from(*idx)] & mask;
            sum.wrapping_add(fold(word ^ secret, secret.rotate_left(32) ^ word.rotate_left(29)))
        });
        fold(sum, secrets.0[0] | 1)
    }

    /// The program, or the shape's last one if that does the same.
    pub(crate) fn share(&mut self, program: Program) -> Arc<Program> {
        if let Some(last) = &self.program
            && do_the_same(last, &program)
        {
            return Arc::clone(last);
        }
        Arc::clone(self.program.insert(Arc::new(program)))
    }

    pub(crate) fn mask(&self) -> FlowMask {
        let mut mask = FlowMask::empty();
        for (idx, word) in &self.words {
            mask.words_mut()[usize::from(*idx)] = *word;
        }
        mask
    }

    /// The key that has these masked words.
    pub(crate) fn expand<'a>(&self, masked: impl Iterator<Item = &'a u64>) -> FlowKey {
        let mut key = FlowKey::zero();
        for ((idx, _), value) in self.words.iter().zip(masked) {
            key.words_mut()[usize::from(*idx)] = *value;
        }
        key
    }
}

/// Two programs do the same, for the same cause.
pub(super) fn do_the_same(one: &Program, other: &Program) -> bool {
    let cause = |program: &Program| {
        let cause = program.drop.as_ref();
        cause.map(|cause| (cause.reason, cause.rule.as_ref().map(Arc::as_ptr)))
    };
    one.emits == other.emits
        && one.meters == other.meters
        && one.effects == other.effects
        && one.samples == other.samples
        && cause(one) == cause(other)
}

/// The shapes of one port.
#[derive(Debug, Default)]
pub(crate) struct PortShapes {
    /// Ids stay valid while the shape has entries.
    shapes: Vec<Option<Shape>>,
    /// Ids in the order to probe.
    order: Vec<u8>,
    n_lookups: u32,
}

impl PortShapes {
    pub(crate) fn get(&self, id: u8) -> Option<&Shape> {
        self.shapes.get(usize::from(id))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: u8) -> Option<&mut Shape> {
        self.shapes.get_mut(usize::from(id))?.as_mut()
    }

    /// Number of shapes.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The shapes in the order to probe.
    pub(crate) fn probes(&self) -> impl Iterator<Item = (u8, &Shape)> {
        self.order.iter().filter_map(|id| Some((*id, self.get(*id)?)))
    }

    /// Notes which shape a lookup ended at; now and then sorts the busy ones to the
    /// front.
    pub(crate) fn count(&mut self, hit: Option<u8>) {
        if let Some(shape) = hit.and_then(|id| self.get_mut(id)) {
            shape.n_hits = shape.n_hits.saturating_add(1);
        }
        self.n_lookups += 1;
        if self.n_lookups >= SORT_AFTER {
            self.n_lookups = 0;
            self.sort();
        }
    }

    fn sort(&mut self) {
        let shapes = &mut self.shapes;
        let hits = |id: &u8| shapes[usize::from(*id)].as_ref().map_or(0, |shape| shape.n_hits);
        self.order.sort_by_key(|id| std::cmp::Reverse(hits(id)));
        for shape in shapes.iter_mut().flatten() {
            shape.n_hits /= 2;
        }
    }

    /// The mask under which an entry with this mask is kept: this one while there is
    /// room, else the narrowest present one that covers it, else everything.
    pub(crate) fn fit(&self, mask: &FlowMask, everything: &FlowMask) -> FlowMask {
        let present = |shape: &&Shape| shape.mask() == *mask;
        let n_masks = self.probes().filter(|(_, shape)| shape.mask() != *everything).count();
        if n_masks < MAX_SHAPES || self.probes().any(|(_, shape)| present(&shape)) {
            return *mask;
        }
        self.probes()
            .map(|(_, shape)| (shape.n_bits, shape.mask()))
            .filter(|(_, wider)| wider.covers(mask))
            .min_by_key(|(n_bits, _)| *n_bits)
            .map_or(*everything, |(_, wider)| wider)
    }

    /// The shape with this mask, made if there is none; it counts one more entry.
    pub(crate) fn take(&mut self, mask: &FlowMask, next_salt: &mut u64) -> u8 {
        let found = self.probes().find(|(_, shape)| shape.mask() == *mask).map(|(id, _)| id);
        let id = found.unwrap_or_else(|| {
            *next_salt = next_salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let shape = Some(Shape::new(mask, *next_salt));
            let free = self.shapes.iter().position(Option::is_none).unwrap_or(self.shapes.len());
            match self.shapes.get_mut(free) {
                Some(place) => *place = shape,
                None => self.shapes.push(shape),
            }
            self.order.push(free as u8);
            free as u8
        });
        if let Some(shape) = self.get_mut(id) {
            shape.n_entries += 1;
        }
        id
    }

    /// One entry of the shape is gone; the last one takes the shape with it.
    pub(crate) fn release(&mut self, id: u8) {
        let Some(place) = self.shapes.get_mut(usize::from(id)) else { return };
        let Some(shape) = place else { return };
        shape.n_entries -= 1;
        if shape.n_entries == 0 {
            *place = None;
            self.order.retain(|other| *other != id);
        }
    }
}

/// The bits that a received packet's key can have at all. The others are zero in every
/// key that the parser makes, so that comparing them would tell nothing.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedBits {
    packet: FlowMask,
    with_tunnel: FlowMask,
    /// Of packets that come back from the connection tracker.
    recirculated: FlowMask,
}

impl ReceivedBits {
    pub(crate) fn new() -> Self {
        let (mut packet, mut with_tunnel) = (FlowMask::empty(), FlowMask::empty());
        let mut recirculated = FlowMask::empty();
        for field in Field::ALL {
            let offset = field.info().offset;
            let headers = offset_of!(FlowKey, eth_dst)..offset_of!(FlowKey, ct_mark);
            let connection = offset_of!(FlowKey, ct_mark)..offset_of!(FlowKey, tun_tos);
            let tunnel = offset_of!(FlowKey, tun_tos)..offset_of!(FlowKey, metadata);
            let options = offset_of!(FlowKey, tun_metadata_present);
            if matches!(field, Field::InPort | Field::RecircId) || headers.contains(&offset) {
                packet.add(*field, field.all_bits());
            } else if connection.contains(&offset) {
                recirculated.add(*field, field.all_bits());
            } else if tunnel.contains(&offset) || offset >= options {
                with_tunnel.add(*field, field.all_bits());
            }
        }
        with_tunnel.union(&packet);
        recirculated.union(&with_tunnel);
        Self { packet, with_tunnel, recirculated }
    }

    /// Of packets that came in by a port: only those from tunnels have tunnel fields. Of
    /// one that comes back from the tracker, all but the scratch fields, for which its
    /// recirculation stands.
    pub(crate) fn of(&self, from_tunnel: bool, recirculated: bool) -> &FlowMask {
        match (from_tunnel, recirculated) {
            (_, true) => &self.recirculated,
            (true, false) => &self.with_tunnel,
            (false, false) => &self.packet,
        }
    }

    /// What of a translation's mask tells received packets apart.
    pub(crate) fn clean(mask: &FlowMask, received: &FlowMask) -> FlowMask {
        let mut mask = *mask;
        for (word, received) in mask.words_mut().iter_mut().zip(received.words()) {
            *word &= received;
        }
        mask
    }
}

/// Index of a port's shapes in a list of all ports'.
pub(crate) fn port_idx(port: PortNo) -> usize {
    port.get() as usize
}
