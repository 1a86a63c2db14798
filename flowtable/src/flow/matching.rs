//! A match: some bits of some fields must have given values, and some fields a value that
//! is in a range or a named set.

use super::{Membership, Values};
use crate::{
    field::{Field, Prerequisites},
    key::{FlowKey, FlowMask, N_WORDS, field_in, low_bits},
    set::{SetName, Sets, ValueRange},
};

/// The bits that a packet's key must have, stored sparsely: only the words of the key
/// that have a masked bit, in order; and the ranges and sets that values must be in.
///
/// # Invariants
/// - `value & !mask == 0` and `mask != 0` in each word; indices rise.
/// - Memberships rise, none is there twice.
/// - The prerequisites of each matched field are part of the words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Match {
    words: Vec<MatchWord>,
    memberships: Vec<Membership>,
}

/// One word of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
        Self { words, memberships: Vec::new() }
    }

    /// Requires the given bits of a field to have the value's bits, replacing what was
    /// required of those bits before. Prerequisites are the caller's to add.
    #[must_use]
    pub fn with_masked(self, field: Field, value: u128, mask: u128) -> Self {
        let (mut key, mut bits) = self.expand();
        let mask = mask & field.all_bits();
        key.set(field, key.get(field) & !mask | value & mask);
        bits.add(field, mask);
        if field == Field::NwFrag {
            // What is no fragment is no later one, and a later one is a fragment: one way to
            // say so, which has a name.
            match (key.get(field), bits.get(field)) {
                (0, 1) => bits.add(field, 2),
                (2, 2) => {
                    key.set(field, 3);
                    bits.add(field, 1);
                }
                _ => {}
            }
        }
        Self { memberships: self.memberships, ..Self::from_key(&key, &bits) }
    }

    /// Requires a field to have a value.
    #[must_use]
    pub fn with(self, field: Field, value: u128) -> Self {
        self.with_masked(field, value, field.all_bits())
    }

    /// Requires a field's value to be in a range as well. Prerequisites are the caller's
    /// to add.
    #[must_use]
    pub fn with_range(self, field: Field, range: ValueRange) -> Self {
        self.with_membership(Membership::new(field, Values::Range(range)))
    }

    /// Requires a field's value to be in a set as well. Prerequisites are the caller's to
    /// add.
    #[must_use]
    pub fn with_set(self, field: Field, set: SetName) -> Self {
        self.with_membership(Membership::new(field, Values::Set(set)))
    }

    fn with_membership(mut self, membership: Membership) -> Self {
        if let Err(idx) = self.memberships.binary_search(&membership) {
            self.memberships.insert(idx, membership);
        }
        self
    }

    /// The ranges and sets, in order. The words say nothing of them.
    pub fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// Every packet matches.
    pub fn is_any(&self) -> bool {
        self.words.is_empty() && self.memberships.is_empty()
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
        let word = |idx: usize| self.words.iter().find(|word| usize::from(word.idx) == idx);
        let value = field_in(field, |idx| word(idx).map_or(0, |word| word.value));
        (value, field_in(field, |idx| word(idx).map_or(0, |word| word.mask)))
    }

    /// Every packet that matches this also matches `other`: it requires the same or more.
    /// A set stands for whatever it holds, now or later: only the same set is within it,
    /// and it is within nothing but itself.
    pub fn is_within(&self, other: &Self) -> bool {
        let implied = self.with_implied_bits();
        let mut mine = implied.iter();
        let bits = other.words.iter().all(|theirs| {
            mine.by_ref().find(|word| word.idx >= theirs.idx).is_some_and(|word| {
                word.idx == theirs.idx
                    && word.mask & theirs.mask == theirs.mask
                    && word.value & theirs.mask == theirs.value
            })
        });
        bits && other.memberships.iter().all(|theirs| self.implies(theirs))
    }

    /// The words, and the bits that all values of a range have in common.
    fn with_implied_bits(&self) -> std::borrow::Cow<'_, [MatchWord]> {
        let ranges =
            self.memberships.iter().filter_map(|membership| Some((membership.field, membership.range()?)));
        let with_range = |m: Self, (field, range): (Field, ValueRange)| {
            m.with_masked(field, range.first(), field.all_bits() & !low_bits(range.n_open()))
        };
        if self.memberships.is_empty() {
            return self.words.as_slice().into();
        }
        let words = Self { words: self.words.clone(), memberships: Vec::new() };
        ranges.fold(words, with_range).words.into()
    }

    /// What the match requires is at least that.
    fn implies(&self, wanted: &Membership) -> bool {
        let Some(range) = wanted.range() else { return self.memberships.contains(wanted) };
        let (value, mask) = self.get(wanted.field);
        let bits = ValueRange::new(value, value | wanted.field.all_bits() & !mask);
        let mut ranges = self.ranges_of(wanted.field).chain(bits);
        ranges.any(|mine| mine.is_within(range))
    }

    fn ranges_of(&self, field: Field) -> impl Iterator<Item = ValueRange> {
        let mine = self.memberships.iter().filter(move |membership| membership.field == field);
        mine.filter_map(Membership::range)
    }

    /// Some packet may match both: nothing is required to be different. What sets hold is
    /// not looked at, since it may change.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mut theirs = other.words.iter().peekable();
        let bits = self.words.iter().all(|word| {
            while theirs.next_if(|other| other.idx < word.idx).is_some() {}
            theirs.peek().is_none_or(|other| {
                other.idx != word.idx || (word.value ^ other.value) & word.mask & other.mask == 0
            })
        });
        bits && self.ranges_admit(other) && other.ranges_admit(self)
    }

    /// No range of this is apart from what the other requires.
    fn ranges_admit(&self, other: &Self) -> bool {
        let ranges =
            self.memberships.iter().filter_map(|membership| Some((membership.field, membership.range()?)));
        ranges.into_iter().all(|(field, range)| {
            let (value, mask) = other.get(field);
            range.meets(value, mask)
                && other
                    .ranges_of(field)
                    .all(|theirs| theirs.first() <= range.last() && range.first() <= theirs.last())
        })
    }

    /// A key matches; sets are what `sets` holds.
    pub fn matches_with(&self, key: &FlowKey, sets: &Sets) -> bool {
        self.words.iter().all(|word| key.words()[usize::from(word.idx)] & word.mask == word.value)
            && self.memberships.iter().all(|membership| membership.has(key, sets))
    }

    /// A key matches; sets are empty, so that nothing matches them.
    pub fn matches(&self, key: &FlowKey) -> bool {
        self.matches_with(key, &Sets::default())
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
    fn within_and_overlap_know_ranges_and_sets() {
        let range = |a, b| ValueRange::new(a, b).unwrap();
        let ip = || Match::any().with(Field::EthType, 0x0800);
        let from = |a, b| ip().with_range(Field::NwSrc, range(a, b));
        let some = from(0x0a00_0005, 0x0a00_004d);
        assert!(some.is_within(&ip()) && some.is_within(&some) && !ip().is_within(&some));
        assert!(
            some.is_within(&from(0x0a00_0000, 0x0a00_004d))
                && !some.is_within(&from(0x0a00_0006, 0x0a00_004d))
        );
        assert!(some.is_within(&ip().with_masked(Field::NwSrc, 0x0a00_0000, 0xffff_ff80)));
        assert!(!some.is_within(&ip().with_masked(Field::NwSrc, 0x0a00_0000, 0xffff_ffc0)));
        assert!(ip().with_masked(Field::NwSrc, 0x0a00_0010, 0xffff_fff0).is_within(&some));
        assert!(!ip().with_masked(Field::NwSrc, 0x0a00_0040, 0xffff_fff0).is_within(&some));
        assert!(ip().is_within(&from(0, 0xffff_ffff)), "that is every address");
        let set = |text: &str| ip().with_set(Field::NwSrc, SetName::new(text).unwrap());
        assert!(set("a").is_within(&ip()) && set("a").is_within(&set("a")));
        assert!(!set("a").is_within(&set("b")) && !some.is_within(&set("a")) && !set("a").is_within(&some));
        assert!(
            some.overlaps(&from(0x0a00_004d, 0x0b00_0000)) && !some.overlaps(&from(0x0a00_004e, 0x0b00_0000))
        );
        assert!(some.overlaps(&ip()) && ip().overlaps(&some) && set("a").overlaps(&set("b")));
        assert!(!some.overlaps(&ip().with(Field::NwSrc, 0x0a00_0004)));
        assert!(!ip().with(Field::NwSrc, 0x0a00_0004).overlaps(&some));
        assert!(some.overlaps(&ip().with_masked(Field::NwSrc, 1, 1)));
    }

    #[test]
    fn memberships_are_in_order_and_once() {
        let range = ValueRange::new(1, 9).unwrap();
        let m = Match::any().with_range(Field::UdpDst, range).with_range(Field::NwSrc, range);
        let again = m.clone().with_range(Field::TcpDst, range).with(Field::EthType, 0x0800);
        assert_eq!(m.memberships(), again.memberships(), "UDP and TCP ports are in one place");
        assert!(m.memberships().is_sorted() && m.memberships().len() == 2);
        let mut key = FlowKey::zero();
        key.nw_src.set(5);
        assert!(!m.matches(&key));
        key.tp_dst.set(9);
        assert!(m.matches(&key));
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
