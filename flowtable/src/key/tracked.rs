//! A key whose reads are recorded: what decided about a packet.

use super::{FlowKey, FlowMask, low_bits, place::Place};
use crate::field::{Field, Prerequisites, SubField};

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
    /// Prerequisites that were found to hold, a bit for each, until what they rest on is written.
    holding: u16,
}

/// Bits of a key that something was decided by, and what they were.
#[derive(Debug)]
pub(crate) struct Examined {
    /// Words of the key that have such bits: which, the bits, their values.
    words: Vec<(u8, u64, u64)>,
    acts_on_headers: bool,
}

impl Tracked {
    /// Starts to track a packet's key.
    pub fn new(key: FlowKey) -> Self {
        let (mask, written) = (FlowMask::empty(), FlowMask::empty());
        Self {
            key,
            original: key,
            mask,
            written,
            acts_on_headers: false,
            recorded: Default::default(),
            holding: 0,
        }
    }

    /// The whole field as it is now; un-wildcards it.
    pub fn read(&mut self, field: Field) -> u128 {
        self.read_bits(field, low_bits(field.info().n_bits))
    }

    /// The same for a field that nothing has been written to, and that needs no header to have a meaning.
    #[inline]
    pub(crate) fn read_fresh(&mut self, field: Field) -> u128 {
        self.mask.add(field, field.all_bits());
        self.key.get(field)
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
    #[inline]
    pub fn write_bits(&mut self, field: Field, value: u128, bits: u128) {
        if matches!(field, Field::EthType | Field::NwProto | Field::NwFrag) {
            self.holding = 0;
        }
        Place::of(field).write(self.key.words_mut(), self.written.words_mut(), value, bits);
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
    #[inline]
    pub fn read_word(&mut self, idx: usize, mask: u64) -> u64 {
        self.mask.words_mut()[idx] |= mask & !self.written.words()[idx];
        self.key.words()[idx] & mask
    }

    /// What `look` looks at, written or not: all that its answer follows from, besides what does
    /// not change. It is recorded as well.
    pub(crate) fn examine<R>(&mut self, look: impl FnOnce(&mut Self) -> R) -> (R, Examined) {
        let mask = std::mem::replace(&mut self.mask, FlowMask::empty());
        let written = std::mem::replace(&mut self.written, FlowMask::empty());
        let acts_on_headers = std::mem::take(&mut self.acts_on_headers);
        self.recorded = Default::default();
        let answer = look(self);
        let examined = std::mem::replace(&mut self.mask, mask);
        self.written = written;
        self.recorded = Default::default();
        let words = examined.words().iter().zip(self.key.words()).enumerate();
        let words = words.filter(|(_, (mask, _))| **mask != 0);
        let words = words.map(|(idx, (mask, word))| (idx as u8, *mask, word & mask)).collect();
        let examined = Examined { words, acts_on_headers: self.acts_on_headers };
        self.acts_on_headers = acts_on_headers;
        self.record_again(&examined);
        (answer, examined)
    }

    /// Whoever looks at these bits sees what was seen then.
    #[inline]
    pub(crate) fn agrees(&self, examined: &Examined) -> bool {
        let words = self.key.words();
        examined.words.iter().all(|(idx, mask, value)| words[usize::from(*idx)] & mask == *value)
    }

    /// Records what was examined, as if it had been done again.
    #[inline]
    pub(crate) fn record_again(&mut self, examined: &Examined) {
        for (idx, mask, _) in &examined.words {
            self.read_word(usize::from(*idx), *mask);
        }
        self.acts_on_headers |= examined.acts_on_headers;
    }

    /// Undoes all writes since `saved` was cloned from this key. What was read stays
    /// recorded: it decided about the part of the walk that is undone.
    pub fn restore(&mut self, saved: &Self) {
        self.key = saved.key;
        self.written = saved.written;
        self.recorded = Default::default();
        self.holding = 0;
    }

    /// The packet is IP, or of a protocol on it, as was found out before: it is recorded.
    #[inline]
    pub(crate) fn is_known_to_be(&self, what: Prerequisites) -> bool {
        self.holding >> what as u16 & 1 != 0
    }

    /// Notes that the packet was found to be so.
    pub(crate) fn know_to_be(&mut self, what: Prerequisites) {
        self.holding |= 1 << what as u16;
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
