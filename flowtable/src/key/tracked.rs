//! A key whose reads are recorded: what decided about a packet.

use super::{FlowKey, FlowMask, low_bits};
use crate::field::{Field, SubField};

/// A key under translation: every read is recorded in the mask.
///
/// # Invariants
/// - A bit that was read and not written before is set in [`Tracked::mask`]: two
///   packets that agree in the masked bits take the same walk.
/// - A bit that was written has a value that follows from masked bits alone, so
///   reading it again adds nothing.
#[derive(Clone)]
pub struct Tracked {
    key: FlowKey,
    original: FlowKey,
    mask: FlowMask,
    written: FlowMask,
    /// Actions have looked at headers: what they did does not follow from the rules alone.
    acts_on_headers: bool,
    /// Fields whose prerequisites are recorded, a bit for each: until writes are undone, since
    /// what was written then was not recorded.
    recorded: [u64; Field::ALL.len().div_ceil(64)],
}

impl Tracked {
    /// Starts to track a packet's key.
    pub fn new(key: FlowKey) -> Self {
        let (mask, written) = (FlowMask::empty(), FlowMask::empty());
        Self { key, original: key, mask, written, acts_on_headers: false, recorded: Default::default() }
    }

    /// The whole field as it is now; un-wildcards it.
    pub fn read(&mut self, field: Field) -> u128 {
        self.read_bits(field, low_bits(field.info().n_bits))
    }

    /// The given bits of a field as they are now, others zero; un-wildcards them
    /// and the field's prerequisites.
    pub fn read_bits(&mut self, field: Field, bits: u128) -> u128 {
        self.record(field, bits);
        self.key.get(field) & bits
    }

    /// A sub-field as it is now, right-aligned; un-wildcards it.
    pub fn read_sub(&mut self, sub: SubField) -> u128 {
        self.read_bits(sub.field, sub.bits()) >> sub.start
    }

    /// Writes some bits of a field. What is written must follow from what was read.
    pub fn write_bits(&mut self, field: Field, value: u128, bits: u128) {
        let kept = self.key.get(field) & !bits;
        self.key.set(field, kept | value & bits);
        self.written.add(field, bits);
    }

    /// Writes a whole field.
    pub fn write(&mut self, field: Field, value: u128) {
        self.write_bits(field, value, low_bits(field.info().n_bits));
    }

    /// Writes a sub-field, given right-aligned.
    pub fn write_sub(&mut self, sub: SubField, value: u128) {
        self.write_bits(sub.field, value << sub.start, sub.bits());
    }

    /// The masked words of the key, for the classifier: records `mask[i]` of word
    /// `i` and answers the key's word under that mask. The caller passes whole
    /// matches, whose prerequisites are part of the match.
    pub fn read_word(&mut self, idx: usize, mask: u64) -> u64 {
        self.mask.words_mut()[idx] |= mask & !self.written.words()[idx];
        self.key.words()[idx] & mask
    }

    /// Undoes all writes since `saved` was cloned from this key. What was read stays
    /// recorded: it decided about the part of the walk that is undone.
    pub fn restore(&mut self, saved: &Self) {
        self.key = saved.key;
        self.written = saved.written;
        self.recorded = Default::default();
    }

    /// Shows `search` the field's value and un-wildcards as many of its leading bits as
    /// `search` answers. For searches that work out themselves how much they looked at
    /// (prefix tries): what they conclude must follow from those bits alone. As with
    /// [`Tracked::read_word`], prerequisites are the caller's.
    pub fn read_prefix(&mut self, field: Field, search: impl FnOnce(u128) -> u32) {
        let n_bits = search(self.key.get(field)).min(field.info().n_bits);
        self.acts_on_headers |= field == Field::FrameLen;
        let bits = field.all_bits() & !low_bits(field.info().n_bits - n_bits);
        self.mask.add(field, bits & !self.written.get(field));
    }

    /// What was done is due to what a field was that differs between fresh packets of a port and
    /// an IP version, whoever read it.
    pub(crate) fn has_acted_on_headers(&mut self) {
        self.acts_on_headers = true;
    }

    /// Some field that differs between fresh packets of a port and an IP version was read other
    /// than by a search for rules.
    pub(crate) fn acts_on_headers(&self) -> bool {
        self.acts_on_headers
    }

    /// What mattered so far.
    pub fn mask(&self) -> &FlowMask {
        &self.mask
    }

    /// Which bits have been written since the start.
    pub fn written(&self) -> &FlowMask {
        &self.written
    }

    /// The key the packet had at the start. Not for decisions: whoever looks at it
    /// must have recorded what it looks at.
    pub fn original(&self) -> &FlowKey {
        &self.original
    }

    /// The key for printing and for programs, where `written` or `mask` says which
    /// bits may be used. Not for decisions.
    pub fn peek(&self) -> &FlowKey {
        &self.key
    }

    fn record(&mut self, field: Field, bits: u128) {
        let info = field.info();
        let fresh = bits & !self.written.get(field);
        if fresh == 0 {
            return;
        }
        self.mask.add(field, fresh);
        self.acts_on_headers |= is_header(field);
        let (word, bit) = (field as usize / 64, 1 << (field as usize % 64));
        let known = self.recorded[word];
        self.recorded[word] |= bit;
        if known & bit != 0 {
            return;
        }
        for prerequisite in info.prerequisites.fields() {
            self.record(*prerequisite, low_bits(prerequisite.info().n_bits));
        }
    }
}

/// Packets of one port and one IP version, fresh and unfragmented, can differ in it.
fn is_header(field: Field) -> bool {
    let headers = std::mem::offset_of!(FlowKey, eth_dst)..std::mem::offset_of!(FlowKey, ct_mark);
    headers.contains(&field.info().offset) && !matches!(field, Field::EthType | Field::NwFrag)
}
