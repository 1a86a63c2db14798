//! Where fields are in the words of a key. Translating a packet reads and writes hundreds of fields, so that
//! this is done by words, not by bytes.

use super::{N_WORDS, low_bits};
use crate::field::{Field, FieldInfo};

/// The bits of a field within one word of the key, or two that follow each other, as a number in network
/// byte order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The word, or the first of both.
    word: u8,
    is_wide: bool,
    /// Bits to the right of the field.
    shift: u8,
    n_bits: u8,
    /// As many ones as the field has bits, where it is in one word.
    ones: u64,
}

/// By field.
static PLACES: [Place; Field::ALL.len()] = places();

const fn places() -> [Place; Field::ALL.len()] {
    let mut places = [Place { word: 0, is_wide: false, shift: 0, n_bits: 0, ones: 0 }; Field::ALL.len()];
    let mut idx = 0;
    while idx < places.len() {
        places[idx] = place(Field::ALL[idx].info());
        idx += 1;
    }
    places
}

const fn place(info: &FieldInfo) -> Place {
    let (word, end) = (info.offset / 8, info.offset % 8 + info.len);
    let is_wide = end > 8;
    let n_bytes = if is_wide { 16 } else { 8 };
    assert!(end <= n_bytes && word + n_bytes / 8 <= N_WORDS, "a field is in one word, or in two");
    Place {
        word: word as u8,
        is_wide,
        shift: ((n_bytes - end) * 8) as u8 + info.shift as u8,
        n_bits: info.n_bits as u8,
        ones: if is_wide { 0 } else { low_bits(info.n_bits) as u64 },
    }
}

impl Place {
    #[inline]
    pub(super) fn of(field: Field) -> Self {
        PLACES[field as usize]
    }

    /// The field's value, right-aligned, given the words.
    #[inline]
    pub(super) fn get(self, word: impl Fn(usize) -> u64) -> u128 {
        if self.is_wide {
            return self.both(word) >> self.shift & self.all();
        }
        (u64::from_be(word(self.word.into())) >> self.shift & self.ones).into()
    }

    /// Sets the field; what is beyond its width is ignored.
    #[inline]
    pub(super) fn set(self, words: &mut [u64; N_WORDS], value: u128) {
        if self.is_wide {
            let kept = self.both(|idx| words[idx]) & !(self.all() << self.shift);
            return self.set_both(words, kept | (value & self.all()) << self.shift);
        }
        let word = &mut words[usize::from(self.word)];
        let kept = *word & !(self.ones << self.shift).to_be();
        *word = kept | ((value as u64 & self.ones) << self.shift).to_be();
    }

    /// Sets these bits of the field.
    #[inline]
    pub(super) fn add(self, words: &mut [u64; N_WORDS], bits: u128) {
        if self.is_wide {
            let all = self.both(|idx| words[idx]) | (bits & self.all()) << self.shift;
            return self.set_both(words, all);
        }
        words[usize::from(self.word)] |= ((bits as u64 & self.ones) << self.shift).to_be();
    }

    /// Sets these bits of the field to those of a value, and in `written` to ones.
    #[inline]
    pub(super) fn write(
        self,
        words: &mut [u64; N_WORDS],
        written: &mut [u64; N_WORDS],
        value: u128,
        bits: u128,
    ) {
        if self.is_wide {
            let kept = self.both(|idx| words[idx]) & !((bits & self.all()) << self.shift);
            self.set_both(words, kept | (value & bits & self.all()) << self.shift);
            return self.add(written, bits);
        }
        let idx = usize::from(self.word);
        let bits = ((bits as u64 & self.ones) << self.shift).to_be();
        words[idx] = words[idx] & !bits | (((value as u64) << self.shift).to_be() & bits);
        written[idx] |= bits;
    }

    #[inline]
    fn all(self) -> u128 {
        low_bits(self.n_bits.into())
    }

    #[inline]
    fn both(self, word: impl Fn(usize) -> u64) -> u128 {
        let at = usize::from(self.word);
        u128::from(u64::from_be(word(at))) << 64 | u128::from(u64::from_be(word(at + 1)))
    }

    #[inline]
    fn set_both(self, words: &mut [u64; N_WORDS], value: u128) {
        let at = usize::from(self.word);
        words[at] = ((value >> 64) as u64).to_be();
        words[at + 1] = (value as u64).to_be();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromBytes, IntoBytes};

    use super::*;
    use crate::key::FlowKey;

    proptest! {
        /// Byte by byte, as the declaration of the fields says.
        #[test]
        fn fields_are_where_they_are_declared(
            bytes in proptest::collection::vec(any::<u8>(), size_of::<FlowKey>()),
            value in any::<u128>(),
            bits in any::<u128>(),
        ) {
            let key = FlowKey::read_from_bytes(&bytes).unwrap();
            for field in Field::ALL {
                let info = field.info();
                let storage = info.offset..info.offset + info.len;
                let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
                let was = number(&bytes[storage.clone()]);
                prop_assert_eq!(key.get(*field), was >> info.shift & field.all_bits());
                let (mut set, mut added, mut part_set) = (key, *key.words(), *key.words());
                set.set(*field, value);
                Place::of(*field).add(&mut added, value);
                let mut written = *FlowKey::zero().words();
                Place::of(*field).write(&mut part_set, &mut written, value, bits);
                let expected = [set.get(*field) & bits | key.get(*field) & !bits, bits & field.all_bits()];
                let seen = [part_set, written].map(|words| Place::of(*field).get(|idx| words[idx]));
                prop_assert_eq!(seen, expected);
                Place::of(*field).set(&mut part_set, key.get(*field));
                Place::of(*field).set(&mut written, 0);
                prop_assert_eq!([part_set, written], [*key.words(), *FlowKey::zero().words()]);
                let rest = was & !(field.all_bits() << info.shift);
                let part = (value & field.all_bits()) << info.shift;
                prop_assert_eq!(number(&set.as_bytes()[storage.clone()]), rest | part);
                prop_assert_eq!(number(&added.as_bytes()[storage.clone()]), was | part);
                for at in (0..bytes.len()).filter(|at| !storage.contains(at)) {
                    prop_assert_eq!([set.as_bytes()[at], added.as_bytes()[at]], [bytes[at]; 2]);
                }
            }
        }
    }
}
