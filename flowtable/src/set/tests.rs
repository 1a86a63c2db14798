//! Sets against plain lists.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::field::Field;

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
            let n_prefixes: usize = model.iter().map(|member| member.prefixes(kind.n_bits()).count()).sum();
            prop_assert_eq!(set.n_prefixes(), n_prefixes);
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

proptest! {
    /// The one search for many sets says what each of them says, and its proof holds.
    #[test]
    fn owners_are_the_sets_that_contain_the_value(
        n_sets in 10..24_usize,
        steps in prop::collection::vec((0..24_usize, member(), prop::bool::weighted(0.8)), 0..120),
        dropped in 0..6_usize,
        values in prop::collection::vec(any::<u16>(), 1..20), others in prop::collection::vec(any::<u16>(), 4),
    ) {
        let mut sets = Sets::default();
        let names: Vec<_> = (0..n_sets).map(|n| name(&format!("s{n}"))).collect();
        for (n, (idx, member, add)) in steps.iter().enumerate() {
            // Sets come while members do.
            if let Some(name) = names.get(n / 4) {
                let mut set = NamedSet::new(name.clone(), SetKind::Port);
                set.insert(*member);
                sets.insert(set);
            }
            let name = &names[idx % n_sets];
            if *add { sets.insert_member(name, *member) } else { sets.remove_member(name, *member) };
        }
            for name in names.iter().take(dropped) {
            let was_there = sets.get(name).is_some();
            prop_assert_eq!(sets.remove(name), was_there);
        }
        let n = sets.iter().count();
        prop_assert_eq!(sets.owners(Field::TcpDst, 0).is_some(), n > FEW_SETS);
        for value in values.iter().map(|value| u128::from(*value)).filter(|_| n > FEW_SETS) {
            let (found, n_examined) = sets.owners(Field::TcpDst, value).unwrap();
            let wanted: Vec<_> = sets.iter().filter(|set| set.contains(value)).map(|set| set.name()).collect();
            prop_assert_eq!(&found, &wanted);
            let wild = crate::key::low_bits(16 - n_examined);
            for other in &others {
                let twin = value & !wild | u128::from(*other) & wild;
                prop_assert_eq!(sets.owners(Field::TcpDst, twin), Some((found.clone(), n_examined)));
            }
        }
    }
}

#[test]
fn names_are_plain_words() {
    for good in ["a", "web-hosts", "_x.9", "A1"] {
        assert_eq!(name(good).as_str(), good);
    }
    for wrong in ["", "9a", "-a", "a b", "a,b", "ä", "a$", &"a".repeat(MAX_NAME_LEN + 1)] {
        assert!(SetName::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn kinds_fit_the_fields_that_hold_them() {
    let fits = |kind, field| SetKind::of(field) == Some(kind);
    assert!(fits(SetKind::Ipv4, Field::NwSrc) && fits(SetKind::Ipv4, Field::ArpSpa));
    assert!(fits(SetKind::Ipv4, Field::CtNwSrc) && !fits(SetKind::Ipv4, Field::Ipv6Src));
    assert!(fits(SetKind::Port, Field::UdpDst) && fits(SetKind::Port, Field::CtTpDst));
    assert!(fits(SetKind::Port, Field::IcmpType) && fits(SetKind::Number, Field::InPort));
    assert!(fits(SetKind::Number, Field::Xxreg0) && fits(SetKind::Number, Field::VlanVid));
    assert!(!fits(SetKind::Port, Field::VlanVid) && !fits(SetKind::Number, Field::TcpDst));
    for field in [Field::CtState, Field::NwFrag, Field::NwTos, Field::PacketType] {
        assert_eq!(SetKind::of(field), None);
    }
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
