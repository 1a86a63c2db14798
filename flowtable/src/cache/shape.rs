//! Shapes: the masks of a port's megaflows, and the cap on how many there are.

use std::{mem::offset_of, sync::Arc};

use super::{Secrets, bits, fold, signed};
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

/// A mask, as the words that have a bit: index and bits, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaskWords(Box<[(u8, u64)]>);

impl MaskWords {
    fn of(mask: &FlowMask) -> Self {
        let words = mask.words().iter().enumerate().filter(|(_, word)| **word != 0);
        Self(words.map(|(idx, word)| (idx as u8, *word)).collect())
    }

    /// What of another mask is in this one: of a translation's, what tells received packets apart.
    pub(crate) fn part_of<'a>(&'a self, mask: &'a FlowMask) -> impl Iterator<Item = (u8, u64)> + 'a {
        let part = self.0.iter().map(|(idx, bits)| (*idx, bits & mask.words()[usize::from(*idx)]));
        part.filter(|(_, word)| *word != 0)
    }

    fn expand(&self) -> FlowMask {
        let mut mask = FlowMask::empty();
        for (idx, word) in &self.0 {
            mask.words_mut()[usize::from(*idx)] = *word;
        }
        mask
    }

    /// No other bit of the key is set.
    #[cfg(test)]
    pub(super) fn has_all_of(&self, key: &FlowKey) -> bool {
        let mask = self.expand();
        key.words().iter().zip(mask.words()).all(|(word, mask)| word & !mask == 0)
    }

    /// Everything that matters in `other` matters here.
    pub(crate) fn covers(&self, other: &[(u8, u64)]) -> bool {
        let mut mine = self.0.iter();
        other.iter().all(|(idx, theirs)| mine.any(|(at, bits)| at == idx && theirs & !bits == 0))
    }
}

/// One mask of a port's megaflows.
#[derive(Debug)]
pub(crate) struct Shape {
    words: MaskWords,
    n_bits: u32,
    /// Signatures say all that the mask looks at.
    pub(crate) is_signed: bool,
    pub(crate) n_entries: u32,
    n_hits: u32,
    /// Makes equal words of different shapes differ in their hash.
    salt: u64,
    /// What the last entry does: most often the next one does the same.
    program: Option<Arc<Program>>,
}

impl Shape {
    fn new(words: MaskWords, salt: u64) -> Self {
        let n_bits = words.0.iter().map(|(_, word)| word.count_ones()).sum();
        let is_signed = signed::covers(&words.expand());
        Self { words, n_bits, is_signed, n_entries: 0, n_hits: 0, salt, program: None }
    }

    /// The masked words of a key.
    pub(crate) fn words_of<'a>(&'a self, key: &'a FlowKey) -> impl Iterator<Item = u64> + 'a {
        self.words.0.iter().map(|(idx, mask)| key.words()[usize::from(*idx)] & mask)
    }

    /// The hash of a key's masked words.
    #[inline]
    pub(crate) fn hash(&self, key: &FlowKey, secrets: &Secrets<N_WORDS>) -> u64 {
        let words = key.words();
        let sum = self.words.0.iter().zip(&secrets.0).fold(self.salt, |sum, ((idx, mask), secret)| {
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
        self.words.expand()
    }

    /// The same, as words.
    pub(crate) fn words(&self) -> &MaskWords {
        &self.words
    }

    fn is_of(&self, mask: &[(u8, u64)]) -> bool {
        *self.words.0 == *mask
    }

    /// The key that has these masked words.
    pub(crate) fn expand<'a>(&self, masked: impl Iterator<Item = &'a u64>) -> FlowKey {
        let mut key = FlowKey::zero();
        for ((idx, _), value) in self.words.0.iter().zip(masked) {
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
    /// Those that have got entries of late, a bit for each id: these are below [`MAX_SHAPES`], or it.
    fresh: u32,
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

    /// The shape under which an entry with this mask is kept: the one of this mask, made if there is none as
    /// long as there is room; else the narrowest present one that covers it; else the one of everything.
    /// `None`: it has to be made, of the mask or, where there is no room, of everything.
    fn present(&self, mask: &[(u8, u64)], everything: &MaskWords) -> (Option<u8>, bool) {
        let of = |mask: &[(u8, u64)]| self.probes().find(|(_, shape)| shape.is_of(mask)).map(|(id, _)| id);
        if let Some(id) = of(mask) {
            return (Some(id), true);
        }
        let n_masks = self.probes().filter(|(_, shape)| !shape.is_of(&everything.0)).count();
        if n_masks < MAX_SHAPES {
            return (None, true);
        }
        let wider = self.probes().filter(|(_, shape)| shape.words.covers(mask));
        let narrowest = wider.min_by_key(|(_, shape)| shape.n_bits).map(|(id, _)| id);
        (narrowest.or_else(|| of(&everything.0)), false)
    }

    /// The shape under which an entry with this mask would be kept, if it is there.
    pub(crate) fn fit(&self, mask: &[(u8, u64)], everything: &MaskWords) -> Option<u8> {
        self.present(mask, everything).0
    }

    /// The same, made if it is not there; it counts one more entry.
    pub(crate) fn take(&mut self, mask: &[(u8, u64)], everything: &MaskWords, next_salt: &mut u64) -> u8 {
        let (present, has_room) = self.present(mask, everything);
        let id = present.unwrap_or_else(|| {
            *next_salt = next_salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let words = if has_room { MaskWords(mask.into()) } else { everything.clone() };
            let shape = Some(Shape::new(words, *next_salt));
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
        self.fresh |= 1 << id;
        id
    }

    /// From now on, what is fresh is what comes.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.fresh = 0;
    }

    /// The shapes that have got entries since.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = (u8, &Shape)> {
        bits(self.fresh).filter_map(|id| Some((id as u8, self.get(id as u8)?)))
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
    packet: MaskWords,
    with_tunnel: MaskWords,
    /// Of packets that come back from the connection tracker.
    recirculated: MaskWords,
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
        let [packet, with_tunnel, recirculated] =
            [packet, with_tunnel, recirculated].map(|mask| MaskWords::of(&mask));
        Self { packet, with_tunnel, recirculated }
    }

    /// Of packets that came in by a port: only those from tunnels have tunnel fields. Of
    /// one that comes back from the tracker, all but the scratch fields, for which its
    /// recirculation stands.
    pub(crate) fn of(&self, from_tunnel: bool, recirculated: bool) -> &MaskWords {
        match (from_tunnel, recirculated) {
            (_, true) => &self.recirculated,
            (true, false) => &self.with_tunnel,
            (false, false) => &self.packet,
        }
    }
}

/// Index of a port's shapes in a list of all ports'.
pub(crate) fn port_idx(port: PortNo) -> usize {
    port.get() as usize
}
