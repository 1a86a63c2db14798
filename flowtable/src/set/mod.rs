//! Named sets of addresses, ports and other values: `web-hosts` is 10.0.0.1, 10.1.0.0/16
//! and 10.2.0.5 to 10.2.0.9. A rule says `nw_src=$web-hosts` and stays one rule, whatever
//! the set holds.
//!
//! A rule has only the name. What the set holds is kept once per version of the tables
//! ([`Sets`]) and looked up when a rule asks, so that a change of members costs what has
//! changed, and leaves rules, their statistics and the classifier as they are.
//!
//! An empty set is allowed: no packet has a value in it, so it never lets one through.
//! Sets within sets are not supported. How sets change is in [`crate::table`], their text
//! in [`crate::text`], how they are searched together with rules in
//! [`crate::classifier`].

mod members;
mod range;

use std::{collections::BTreeMap, fmt, sync::Arc};

use self::members::Members;
pub use self::range::ValueRange;
use crate::field::{Field, Format};

/// Characters of a set's name.
pub const MAX_NAME_LEN: usize = 63;
/// Members of a set. Room for the longest lists of blocked addresses, and an end to what
/// a request can make the switch keep.
pub const MAX_MEMBERS: usize = 1 << 20;

/// The name of a set: letters, digits, `_`, `.` and `-`, of which a letter or `_` is first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName(Arc<str>);

/// Text was not the name of a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a set; use letters, digits, `_`, `.` and `-`, a letter or `_` first, and at most {MAX_NAME_LEN} of them"
)]
pub struct SetNameError(pub String);

impl SetName {
    /// Checks the characters.
    ///
    /// # Errors
    /// Says what a name may look like.
    pub fn new(text: &str) -> Result<Self, SetNameError> {
        let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_other = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let is_name = text.starts_with(is_first) && text.chars().all(is_other) && text.len() <= MAX_NAME_LEN;
        if is_name { Ok(Self(text.into())) } else { Err(SetNameError(text.to_owned())) }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}

/// What a set holds, and so which fields it can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetKind {
    /// IPv4 addresses.
    Ipv4,
    /// IPv6 addresses.
    Ipv6,
    /// MAC addresses.
    Mac,
    /// TCP, UDP or SCTP ports.
    Port,
    /// Numbers: ports of the switch, VLANs, registers, tunnel keys, marks.
    Number,
}

impl SetKind {
    /// All kinds.
    pub const ALL: &[Self] = &[Self::Ipv4, Self::Ipv6, Self::Mac, Self::Port, Self::Number];

    /// Name in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Mac => "mac",
            Self::Port => "port",
            Self::Number => "number",
        }
    }

    /// The kind with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Bits of a value.
    pub const fn n_bits(self) -> u32 {
        match self {
            Self::Ipv4 => 32,
            Self::Mac => 48,
            Self::Port => 16,
            Self::Ipv6 | Self::Number => 128,
        }
    }

    /// The field holds such values.
    pub fn fits(self, field: Field) -> bool {
        Self::of(field) == Some(self) || self == Self::Number && Self::of(field) == Some(Self::Port)
    }

    /// The kind that suits a field best; `None` where it has no order: flags and the like.
    pub fn of(field: Field) -> Option<Self> {
        let info = field.info();
        match info.format {
            Format::Ipv4 => Some(Self::Ipv4),
            Format::Ipv6 => Some(Self::Ipv6),
            Format::Mac => Some(Self::Mac),
            // Its lowest bits are another field's.
            _ if field == Field::NwTos => None,
            Format::Decimal if is_transport_port(field) => Some(Self::Port),
            Format::Decimal | Format::Hex | Format::Port => Some(Self::Number),
            Format::Frag | Format::CtState | Format::TcpFlags | Format::TunFlags | Format::PacketType => None,
        }
    }
}

impl fmt::Display for SetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Types and codes of ICMP share the storage of ports.
fn is_transport_port(field: Field) -> bool {
    let place = |field: Field| (field.info().offset, field.info().n_bits);
    [Field::TcpSrc, Field::TcpDst, Field::CtTpSrc, Field::CtTpDst].map(place).contains(&place(field))
}

/// A set of values with a name.
///
/// # Cost
/// A copy costs little more than a hundredth of the members; a change after it, what
/// changes.
#[derive(Debug, Clone)]
pub struct NamedSet {
    name: SetName,
    kind: SetKind,
    members: Members,
}

impl NamedSet {
    /// An empty set.
    pub fn new(name: SetName, kind: SetKind) -> Self {
        Self { name, kind, members: Members::default() }
    }

    /// Its name.
    pub fn name(&self) -> &SetName {
        &self.name
    }

    /// What it holds.
    pub fn kind(&self) -> SetKind {
        self.kind
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// It has no members: no value is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in order. They may overlap: each is there until it is taken out.
    pub fn members(&self) -> impl Iterator<Item = ValueRange> {
        self.members.iter()
    }

    /// Just this is a member, not only part of one.
    pub fn has_member(&self, member: ValueRange) -> bool {
        self.members.has(member)
    }

    /// A value is within a member.
    pub fn contains(&self, value: u128) -> bool {
        self.search(value, self.kind.n_bits()).0
    }

    /// Adds a member; false when it is there already. Bits beyond those of the kind are
    /// the caller's to refuse: such values are never found.
    pub fn insert(&mut self, member: ValueRange) -> bool {
        self.members.insert(member, self.kind.n_bits())
    }

    /// Takes a member out; false when there is none.
    pub fn remove(&mut self, member: ValueRange) -> bool {
        self.members.remove(member, self.kind.n_bits())
    }

    /// A value of a field of `n_bits` is in the set, and how many of its leading bits
    /// prove that it is, or is not.
    pub(crate) fn search(&self, value: u128, n_bits: u32) -> (bool, u32) {
        let width = self.kind.n_bits();
        let (found, n_examined) = self.members.search(value.checked_shl(128 - width).unwrap_or(0));
        // Numbers are kept as wide as the widest field; the bits in front are zero in all
        // values of the narrower one.
        (found, n_examined.saturating_sub(width.saturating_sub(n_bits)))
    }
}

/// The same name, kind and members.
impl PartialEq for NamedSet {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.kind == other.kind
            && self.len() == other.len()
            && self.members().eq(other.members())
    }
}

impl Eq for NamedSet {}

/// All sets of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sets {
    by_name: BTreeMap<SetName, Arc<NamedSet>>,
}

impl Sets {
    /// The set with this name.
    pub fn get(&self, name: &SetName) -> Option<&Arc<NamedSet>> {
        self.by_name.get(name)
    }

    /// All sets in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NamedSet>> {
        self.by_name.values()
    }

    /// Adds a set, in the place of one of its name.
    pub fn insert(&mut self, set: NamedSet) {
        self.by_name.insert(set.name.clone(), Arc::new(set));
    }

    /// Takes a set out; false when there is none.
    pub fn remove(&mut self, name: &SetName) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// The set with this name, to be changed: a copy of it where another version has it
    /// too.
    pub fn get_mut(&mut self, name: &SetName) -> Option<&mut NamedSet> {
        self.by_name.get_mut(name).map(Arc::make_mut)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> SetName {
        SetName::new(text).unwrap()
    }

    /// Ranges of a few close values and of values far apart, of 16 bits.
    fn member() -> impl Strategy<Value = ValueRange> {
        (0..40_u128, 0..12_u128, any::<bool>()).prop_map(|(first, len, is_far)| {
            let first = if is_far { first << 10 } else { first };
            ValueRange::new(first, (first + len * len * len).min(0xffff)).unwrap()
        })
    }

    proptest! {
        /// Against a plain list of ranges, whatever comes and goes; and proofs hold.
        #[test]
        fn a_set_is_its_members(
            steps in prop::collection::vec((member(), prop::bool::weighted(0.7)), 0..400),
            values in prop::collection::vec(any::<u16>(), 1..40),
            others in prop::collection::vec(any::<u16>(), 4),
            number: bool,
        ) {
            let kind = if number { SetKind::Number } else { SetKind::Port };
            let (mut set, mut model) = (NamedSet::new(name("s"), kind), BTreeSet::new());
            let mut copies = Vec::new();
            for (n, (member, add)) in steps.into_iter().enumerate() {
                if n % 64 == 0 {
                    copies.push((set.clone(), model.clone()));
                }
                if add {
                    prop_assert_eq!(set.insert(member), model.insert(member));
                } else {
                    prop_assert_eq!(set.remove(member), model.remove(&member));
                }
                prop_assert_eq!(set.has_member(member), add);
            }
            copies.push((set, model));
            for (set, model) in copies {
                prop_assert!(set.members().eq(model.iter().copied()));
                prop_assert_eq!(set.len(), model.len());
                for value in values.iter().map(|value| u128::from(*value)) {
                    let (found, n_examined) = set.search(value, 16);
                    prop_assert_eq!(found, model.iter().any(|member| member.contains(value)));
                    let wild = crate::key::low_bits(16 - n_examined);
                    for other in &others {
                        let twin = value & !wild | u128::from(*other) & wild;
                        prop_assert_eq!(set.search(twin, 16), (found, n_examined));
                    }
                }
            }
        }
    }

    #[test]
    fn names_are_plain_words() {
        for good in ["a", "web-hosts", "_x.9", "A1"] {
            assert_eq!(name(good).as_str(), good);
        }
        for wrong in ["", "9a", "-a", "a b", "a,b", "ä", "a$", &"a".repeat(64)] {
            assert!(SetName::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_fit_the_fields_that_hold_them() {
        let fits = |kind: SetKind, field| kind.fits(field);
        assert!(fits(SetKind::Ipv4, Field::NwSrc) && fits(SetKind::Ipv4, Field::ArpSpa));
        assert!(fits(SetKind::Ipv4, Field::CtNwSrc) && !fits(SetKind::Ipv4, Field::Ipv6Src));
        assert!(fits(SetKind::Port, Field::UdpDst) && fits(SetKind::Port, Field::CtTpDst));
        assert!(fits(SetKind::Number, Field::TcpDst) && fits(SetKind::Number, Field::InPort));
        assert!(fits(SetKind::Number, Field::Xxreg0) && fits(SetKind::Number, Field::VlanVid));
        assert!(!fits(SetKind::Port, Field::VlanVid) && !fits(SetKind::Number, Field::NwTos));
        assert!(SetKind::ALL.iter().all(|kind| !kind.fits(Field::CtState) && !kind.fits(Field::NwFrag)));
        assert!(SetKind::ALL.iter().all(|kind| SetKind::by_name(kind.name()) == Some(*kind)));
    }

    #[test]
    fn the_widest_member_needs_no_bit() {
        let mut set = NamedSet::new(name("all"), SetKind::Ipv6);
        set.insert(ValueRange::new(0, u128::MAX).unwrap());
        assert_eq!(set.search(17, 128), (true, 0));
        set.insert(ValueRange::one(17));
        assert_eq!(set.search(17, 128), (true, 0));
        assert!(set.remove(ValueRange::new(0, u128::MAX).unwrap()));
        assert_eq!(set.search(17, 128), (true, 128));
        assert_eq!(NamedSet::new(name("none"), SetKind::Mac).search(5, 48), (false, 0));
    }
}
