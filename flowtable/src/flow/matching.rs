//! A match: some bits of some fields must have given values.

use crate::{
    field::{Field, Prerequisites},
    key::{FlowKey, FlowMask, N_WORDS, load},
};

/// The bits that a packet's key must have. Stored sparsely: only the words of the key
/// that have a masked bit, in order.
///
/// # Invariants
/// - `value & !mask == 0` and `mask != 0` in each word; indices rise.
/// - The prerequisites of each matched field are part of the match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Match {
    words: Vec<MatchWord>,
}

/// One word of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatchWord {
    /// Index of the word in [`FlowKey::words`].
    pub idx: u8,
    /// Bits that matter.
    pub mask: u64,
    /// Their values.
    pub value: u64,
}

impl Match {
    /// Matches every packet.
    pub fn any() -> Self {
        Self::default()
    }

    /// Takes the masked bits of a key as they are; the caller sees to prerequisites.
    pub fn from_key(key: &FlowKey, mask: &FlowMask) -> Self {
        let words = (0..N_WORDS)
            .filter(|idx| mask.words()[*idx] != 0)
            .map(|idx| MatchWord {
                idx: idx as u8,
                mask: mask.words()[idx],
                value: key.words()[idx] & mask.words()[idx],
            })
            .collect();
        Self { words }
    }

    /// Requires the given bits of a field to have the value's bits, replacing what was
    /// required of those bits before. Prerequisites are the caller's to add.
    #[must_use]
    pub fn with_masked(self, field: Field, value: u128, mask: u128) -> Self {
        let (mut key, mut bits) = self.expand();
        let mask = mask & field.all_bits();
        key.set(field, key.get(field) & !mask | value & mask);
        bits.add(field, mask);
        Self::from_key(&key, &bits)
    }

    /// Requires a field to have a value.
    #[must_use]
    pub fn with(self, field: Field, value: u128) -> Self {
        self.with_masked(field, value, field.all_bits())
    }

    /// The words, in order of their index.
    pub fn words(&self) -> &[MatchWord] {
        &self.words
    }

    /// As a key and a mask.
    pub fn expand(&self) -> (FlowKey, FlowMask) {
        let (mut key, mut mask) = (FlowKey::zero(), FlowMask::empty());
        for word in &self.words {
            key.words_mut()[usize::from(word.idx)] = word.value;
            mask.words_mut()[usize::from(word.idx)] = word.mask;
        }
        (key, mask)
    }

    /// The bits required of a field: (value, mask).
    pub fn get(&self, field: Field) -> (u128, u128) {
        let info = field.info();
        // A field spans at most three words.
        let (first, start) = (info.offset / 8, info.offset % 8);
        let (mut value, mut mask) = ([0; 24], [0; 24]);
        for word in &self.words {
            let Some(place) = usize::from(word.idx).checked_sub(first).filter(|place| *place < 3) else {
                continue;
            };
            value[place * 8..][..8].copy_from_slice(&word.value.to_ne_bytes());
            mask[place * 8..][..8].copy_from_slice(&word.mask.to_ne_bytes());
        }
        let part = |bytes: &[u8; 24]| load(&bytes[start..start + info.len]) >> info.shift & field.all_bits();
        (part(&value), part(&mask))
    }

    /// Every packet that matches this also matches `other`: it requires the same or more.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut mine = self.words.iter();
        other.words.iter().all(|theirs| {
            mine.by_ref().find(|word| word.idx >= theirs.idx).is_some_and(|word| {
                word.idx == theirs.idx
                    && word.mask & theirs.mask == theirs.mask
                    && word.value & theirs.mask == theirs.value
            })
        })
    }

    /// A key matches.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.words.iter().all(|word| key.words()[usize::from(word.idx)] & word.mask == word.value)
    }

    /// What the match requires satisfies `prerequisites`.
    pub fn satisfies(&self, prerequisites: Prerequisites) -> bool {
        let exactly = |field: Field, allowed: &[u128]| {
            let (value, mask) = self.get(field);
            mask == field.all_bits() && allowed.contains(&value)
        };
        let ip = || exactly(Field::EthType, &[0x0800, 0x86dd]);
        match prerequisites {
            Prerequisites::None => true,
            Prerequisites::Vlan => {
                let (value, mask) = self.get(Field::VlanTci);
                value & mask & 0x1000 != 0
            }
            Prerequisites::Mpls => exactly(Field::EthType, &[0x8847, 0x8848]),
            Prerequisites::Ipv4 => exactly(Field::EthType, &[0x0800]),
            Prerequisites::Ipv6 => exactly(Field::EthType, &[0x86dd]),
            Prerequisites::Ip => ip(),
            Prerequisites::Arp => exactly(Field::EthType, &[0x0806, 0x8035]),
            Prerequisites::Tcp => ip() && exactly(Field::NwProto, &[6]),
            Prerequisites::Udp => ip() && exactly(Field::NwProto, &[17]),
            Prerequisites::Sctp => ip() && exactly(Field::NwProto, &[132]),
            Prerequisites::Icmp => exactly(Field::EthType, &[0x0800]) && exactly(Field::NwProto, &[1]),
            Prerequisites::Icmpv6 => exactly(Field::EthType, &[0x86dd]) && exactly(Field::NwProto, &[58]),
            Prerequisites::Nd => {
                self.satisfies(Prerequisites::Icmpv6)
                    && exactly(Field::Icmpv6Type, &[135, 136])
                    && exactly(Field::Icmpv6Code, &[0])
            }
            Prerequisites::NdSolicit => {
                self.satisfies(Prerequisites::Nd) && exactly(Field::Icmpv6Type, &[135])
            }
            Prerequisites::NdAdvert => {
                self.satisfies(Prerequisites::Nd) && exactly(Field::Icmpv6Type, &[136])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_reads_back_from_the_sparse_form() {
        for field in Field::ALL {
            let (value, mask) = (0x5a5a_1234_dead_beef_u128 << 64 | 0x0123_4567_89ab_cdef, u128::MAX / 3);
            let m = Match::any().with_masked(*field, value, mask);
            let mask = mask & field.all_bits();
            assert_eq!(m.get(*field), (value & mask, mask), "{field}");
        }
    }

    #[test]
    fn within_means_at_least_as_demanding() {
        let ip = Match::any().with(Field::EthType, 0x0800);
        let net = ip.clone().with_masked(Field::NwDst, 0x0a00_0000, 0xff00_0000);
        let host = ip.clone().with(Field::NwDst, 0x0a01_0203);
        assert!(host.is_within(&net) && net.is_within(&ip) && ip.is_within(&Match::any()));
        assert!(ip.is_within(&ip));
        assert!(!net.is_within(&host) && !Match::any().is_within(&ip));
        assert!(!host.is_within(&Match::any().with(Field::Reg0, 0)));
        assert!(!host.is_within(&ip.with(Field::NwDst, 0x0b01_0203)));
    }

    #[test]
    fn a_match_is_sparse_and_compares_only_masked_bits() {
        let m = Match::any().with(Field::EthType, 0x0800).with_masked(Field::NwDst, 0x0a00_0000, 0xff00_0000);
        assert!(m.words().len() <= 2);
        let mut key = FlowKey::zero();
        key.eth_type.set(0x0800);
        key.nw_dst.set(0x0a01_0203);
        assert!(m.matches(&key));
        key.nw_dst.set(0x0b01_0203);
        assert!(!m.matches(&key));
    }
}
