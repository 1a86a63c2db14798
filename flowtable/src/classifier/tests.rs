//! The tuple space against its dull twin, and what lookups leave wild.

use proptest::prelude::*;

use super::*;
use crate::{
    field::Field,
    flow::{Action, Origin, RuleStats},
    key::FlowKey,
    set::{NamedSet, SetKind, SetName, ValueRange},
    types::{PortNo, TableId},
};

/// Fields of all stages, tries and shared words, with few values so that rules and
/// keys meet.
const FIELDS: &[Field] = &[
    Field::InPort,
    Field::Reg0,
    Field::Metadata,
    Field::CtState,
    Field::EthDst,
    Field::EthType,
    Field::VlanTci,
    Field::NwSrc,
    Field::NwDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::NwProto,
    Field::TcpSrc,
    Field::TcpDst,
    Field::NdTarget,
    Field::TunMetadata3,
    Field::ConjId,
];

/// A value whose set bits are few and spread over the field.
fn value(field: Field) -> impl Strategy<Value = u128> {
    let n_bits = field.info().n_bits;
    (0..2_u128, 0..3_u128, 0..2_u128).prop_map(move |(low, high, mid)| {
        (low | high << (n_bits - 2) | mid << (n_bits / 2)) & field.all_bits()
    })
}

/// Mostly one of two masks, so that rules share subtables.
fn mask(field: Field) -> impl Strategy<Value = u128> {
    let n_bits = field.info().n_bits;
    let all = field.all_bits();
    let prefix = move |n_wild| all & !crate::key::low_bits(n_wild);
    prop_oneof![
        8 => Just(all),
        4 => Just(prefix(n_bits / 2)),
        4 => (0..=n_bits).prop_map(prefix),
        1 => any::<u128>().prop_map(move |bits| bits & all),
    ]
}

/// Half of them of one field per stage, so that rules share subtables.
fn part() -> impl Strategy<Value = (Field, u128, u128)> {
    let common = &[Field::Reg0, Field::EthDst, Field::NwDst, Field::TcpDst];
    let field = prop_oneof![proptest::sample::select(FIELDS), proptest::sample::select(common)];
    field.prop_flat_map(|field| (Just(field), value(field), mask(field)))
}

/// From one value to another.
fn range(field: Field) -> impl Strategy<Value = ValueRange> {
    (value(field), value(field), 0..3_u128, 0..3_u128).prop_map(move |(a, b, before, behind)| {
        let (first, last) = (a.min(b).saturating_sub(before), a.max(b) + behind);
        ValueRange::new(first, last.min(field.all_bits())).unwrap()
    })
}

/// A range or one of the sets; most often of one of a few fields, so that rules share
/// subtables and have branches of many arms.
fn membership() -> impl Strategy<Value = (Field, Result<ValueRange, SetName>)> {
    let common = &[Field::NwSrc, Field::TcpDst, Field::Reg0];
    let field = prop_oneof![1 => proptest::sample::select(FIELDS), 4 => proptest::sample::select(common)];
    field.prop_flat_map(|field| {
        let values = prop_oneof![
            2 => range(field).prop_map(Ok),
            1 => proptest::sample::select(SETS).prop_map(|name| Err(SetName::new(name).unwrap())),
        ];
        (Just(field), values)
    })
}

fn matching() -> impl Strategy<Value = Match> {
    let memberships = prop_oneof![2 => Just(0), 2 => Just(1), 1 => Just(2), 1 => Just(3)]
        .prop_flat_map(|n| proptest::collection::vec(membership(), n));
    (proptest::collection::vec(part(), 0..3), memberships).prop_map(|(parts, memberships)| {
        let bits = |m: Match, (field, value, mask): (Field, u128, u128)| m.with_masked(field, value, mask);
        let words = parts.into_iter().fold(Match::any(), bits);
        memberships.into_iter().fold(words, |m, (field, values)| match values {
            Ok(range) => m.with_range(field, range),
            Err(set) => m.with_set(field, set),
        })
    })
}

/// Names of sets; the last one is not there.
const SETS: &[&str] = &["a", "b", "c", "d"];

/// What is added to sets, or else taken out.
fn members() -> impl Strategy<Value = Vec<(usize, ValueRange, bool)>> {
    let member = proptest::sample::select(FIELDS).prop_flat_map(range);
    proptest::collection::vec((0..SETS.len() - 1, member, proptest::bool::weighted(0.8)), 0..30)
}

fn sets(members: &[(usize, ValueRange, bool)]) -> Sets {
    let mut sets = Sets::default();
    for name in &SETS[..SETS.len() - 1] {
        sets.insert(NamedSet::new(SetName::new(name).unwrap(), SetKind::Number));
    }
    change(&mut sets, members);
    sets
}

fn change(sets: &mut Sets, members: &[(usize, ValueRange, bool)]) {
    for (idx, member, is_added) in members {
        let name = SetName::new(SETS[*idx]).unwrap();
        let _ =
            if *is_added { sets.insert_member(&name, *member) } else { sets.remove_member(&name, *member) };
    }
}

fn rule() -> impl Strategy<Value = Arc<Rule>> {
    // A third are ways to satisfy a clause of one of two conjunctions.
    let part = (0..3_u32, 1..3_u8).prop_map(|(id, clause)| Action::Conjunction { id, clause, n_clauses: 2 });
    let parts = proptest::option::weighted(0.35, proptest::collection::vec(part, 1..3));
    (0..4_u16, matching(), 1..100_u32, parts).prop_map(|(priority, matching, port, parts)| {
        Arc::new(Rule {
            table: TableId::new(0).unwrap(),
            priority: Priority::new(priority).unwrap(),
            matching,
            actions: parts.unwrap_or_else(|| vec![Action::Output(PortNo::new(port).unwrap())]),
            cookie: 0,
            origin: Arc::new(Origin::default()),
            life: Default::default(),
            stats: Arc::new(RuleStats::default()),
        })
    })
}

fn key() -> impl Strategy<Value = FlowKey> {
    proptest::collection::vec(part(), 0..10).prop_map(|parts| {
        let mut key = FlowKey::zero();
        for (field, value, _) in parts {
            key.set(field, value);
        }
        key
    })
}

/// Keys near to the rules: some rule's values, then a few fields changed.
fn near(rules: &[Arc<Rule>], pick: usize, noise: &FlowKey, changes: usize) -> FlowKey {
    let mut key = *noise;
    if let Some(rule) = rules.get(pick % rules.len().max(1)) {
        for word in rule.matching.words() {
            let slot = &mut key.words_mut()[usize::from(word.idx)];
            *slot = *slot & !word.mask | word.value;
        }
    }
    for membership in rules.get(pick % rules.len().max(1)).iter().flat_map(|rule| rule.matching.memberships())
    {
        if let Some(range) = membership.range().filter(|_| !changes.is_multiple_of(4)) {
            let value = noise.get(membership.field).clamp(range.first(), range.last());
            key.set(membership.field, value);
        }
    }
    let field = FIELDS[changes % FIELDS.len()];
    if changes.is_multiple_of(3) {
        key.set(field, noise.get(field) ^ 1);
    }
    key
}

fn same(a: Option<&Arc<Rule>>, b: Option<&Arc<Rule>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Other keys that agree with `key` in the masked bits find the same rule.
fn assert_sound<C: Classifier>(classifier: &C, sets: &Sets, key: &FlowKey, seed: u64) {
    assert_twins(classifier, sets, key, seed, false);
}

/// And need the same bits. (Not where tries of prefixes leave a choice of what to exclude
/// a subtable by.)
fn assert_stable<C: Classifier>(classifier: &C, sets: &Sets, key: &FlowKey, seed: u64) {
    assert_twins(classifier, sets, key, seed, true);
}

fn assert_twins<C: Classifier>(classifier: &C, sets: &Sets, key: &FlowKey, seed: u64, same_mask: bool) {
    let mut tracked = Tracked::new(*key);
    let found = classifier.lookup(sets, &mut tracked);
    let mut state = seed | 1;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    };
    for sample in 0..64 {
        let mut other = *key;
        for (word, mask) in other.words_mut().iter_mut().zip(tracked.mask().words()) {
            // Sparse flips find near misses, dense ones leave the neighbourhood.
            let flips = if sample % 2 == 0 { random() & random() & random() } else { random() };
            *word ^= flips & !mask;
        }
        let mut twin = Tracked::new(other);
        let again = classifier.lookup(sets, &mut twin);
        assert!(same(found, again), "{:?}\n{key:?}\n{other:?}", tracked.mask());
        assert!(!same_mask || tracked.mask() == twin.mask(), "{key:?}\n{other:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn tuple_space_agrees_with_the_reference(
        rules in proptest::collection::vec(rule(), 0..40),
        removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
        noise in proptest::collection::vec((key(), any::<usize>(), any::<usize>()), 1..12),
        members in members(), later in members(),
    ) {
        let before = sets(&members);
        let mut after = before.clone();
        change(&mut after, &later);
        let (mut fast, mut dull) = (TupleSpace::default(), Reference::default());
        for rule in &rules {
            let replaced = (fast.insert(rule.clone()), dull.insert(rule.clone()));
            prop_assert!(same(replaced.0.as_ref(), replaced.1.as_ref()));
        }
        for idx in removed.iter().filter(|_| !rules.is_empty()) {
            let rule = &rules[idx.index(rules.len())];
            let gone = (
                fast.remove(rule.priority, &rule.matching),
                dull.remove(rule.priority, &rule.matching),
            );
            prop_assert!(same(gone.0.as_ref(), gone.1.as_ref()));
            prop_assert!(fast.get(rule.priority, &rule.matching).is_none());
        }
        prop_assert_eq!(fast.rules().count(), dull.rules().count());
        prop_assert_eq!(fast.len(), dull.rules().count());
        for (noise, pick, changes) in &noise {
            let key = near(&rules, *pick, noise, *changes);
            for sets in [&before, &after] {
                let (mut a, mut b) = (Tracked::new(key), Tracked::new(key));
                prop_assert!(same(fast.lookup(sets, &mut a), dull.lookup(sets, &mut b)));
            }
        }
    }

    #[test]
    fn masks_are_sound(
        rules in proptest::collection::vec(rule(), 0..25),
        noise in key(), pick in any::<usize>(), changes in any::<usize>(), seed in any::<u64>(),
        members in members(),
    ) {
        let sets = sets(&members);
        let (mut fast, mut dull) = (TupleSpace::default(), Reference::default());
        for rule in &rules {
            fast.insert(rule.clone());
            dull.insert(rule.clone());
        }
        let key = near(&rules, pick, &noise, changes);
        assert_sound(&fast, &sets, &key, seed);
        assert_sound(&dull, &sets, &key, seed);
    }

    #[test]
    fn a_copy_does_not_see_later_changes(
        rules in proptest::collection::vec(rule(), 2..40), noise in key(), pick in any::<usize>(),
    ) {
        let mut fast = TupleSpace::default();
        let half = rules.len() / 2;
        for rule in &rules[..half] {
            fast.insert(rule.clone());
        }
        let before = fast.clone();
        let key = near(&rules, pick, &noise, 1);
        let found = before.lookup(&Sets::default(), &mut Tracked::new(key)).cloned();
        for rule in &rules[half..] {
            fast.insert(rule.clone());
        }
        for rule in &rules[..half] {
            fast.remove(rule.priority, &rule.matching);
        }
        prop_assert!(same(found.as_ref(), before.lookup(&Sets::default(), &mut Tracked::new(key))));
    }
}

fn simple(priority: u16, matching: Match) -> Arc<Rule> {
    Arc::new(Rule {
        table: TableId::new(0).unwrap(),
        priority: Priority::new(priority).unwrap(),
        matching,
        actions: vec![],
        cookie: 0,
        origin: Arc::new(Origin::default()),
        life: Default::default(),
        stats: Arc::new(RuleStats::default()),
    })
}

#[test]
fn a_miss_in_an_early_stage_leaves_later_stages_wild() {
    let mut fast = TupleSpace::default();
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    fast.insert(simple(9, tcp.with(Field::Reg0, 7).with(Field::TcpDst, 80)));
    let mut key = Tracked::new(FlowKey::zero());
    assert!(fast.lookup(&Sets::default(), &mut key).is_none());
    assert_eq!(key.mask().get(Field::Reg0), Field::Reg0.all_bits());
    assert_eq!(key.mask().get(Field::EthType), 0);
    assert_eq!(key.mask().get(Field::TcpDst), 0);
}

#[test]
fn a_route_examines_no_more_than_distinguishes_it() {
    let mut fast = TupleSpace::default();
    let to = |address: u128, mask: u128| {
        Match::any().with(Field::EthType, 0x0800).with_masked(Field::NwDst, address, mask)
    };
    fast.insert(simple(32, to(0x0a00_0001, 0xffff_ffff)));
    fast.insert(simple(24, to(0x0a00_0000, 0xffff_ff00)));
    fast.insert(simple(8, to(0x1400_0000, 0xff00_0000)));
    let mut packet = FlowKey::zero();
    packet.eth_type.set(0x0800);
    packet.nw_dst.set(0x1401_0203);
    let mut key = Tracked::new(packet);
    assert_eq!(fast.lookup(&Sets::default(), &mut key).unwrap().priority.get(), 8);
    // Four bits exclude 10.0.0.0/24 and the host; the hit needs its own eight.
    assert_eq!(key.mask().get(Field::NwDst), 0xff00_0000);
    packet.nw_dst.set(0x0b00_0000);
    let mut key = Tracked::new(packet);
    assert!(fast.lookup(&Sets::default(), &mut key).is_none());
    assert_eq!(key.mask().get(Field::NwDst), 0xff00_0000);
    packet.nw_dst.set(0xc0a8_0101);
    let mut key = Tracked::new(packet);
    assert!(fast.lookup(&Sets::default(), &mut key).is_none());
    assert_eq!(key.mask().get(Field::NwDst), 0x8000_0000);
}

#[test]
fn the_smaller_mask_wins_a_tie_wherever_it_stands() {
    let mut fast = TupleSpace::default();
    let (low, high) = (Match::any().with(Field::Reg1, 0), Match::any().with(Field::Reg9, 0));
    assert!(match_order(&low, &high).is_lt());
    let winner = simple(5, low);
    fast.insert(simple(5, high.clone()));
    // Moves the other one's subtable to the front of the search.
    fast.insert(simple(9, Match::any().with(Field::Reg9, 7)));
    fast.insert(winner.clone());
    assert!(same(fast.lookup(&Sets::default(), &mut Tracked::new(FlowKey::zero())), Some(&winner)));
}

#[test]
fn removing_a_rule_leaves_those_that_share_its_early_stages() {
    let mut fast = TupleSpace::default();
    let rules: Vec<_> = (0..4)
        .map(|reg| Match::any().with(Field::Reg0, 1).with(Field::EthDst, reg))
        .map(|matching| simple(1, matching))
        .collect();
    for rule in &rules {
        fast.insert(rule.clone());
    }
    let mut key = FlowKey::zero();
    key.set(Field::Reg0, 1);
    for n in 1..rules.len() {
        fast.remove(rules[n].priority, &rules[n].matching);
        assert!(same(fast.lookup(&Sets::default(), &mut Tracked::new(key)), Some(&rules[0])));
    }
    fast.remove(rules[0].priority, &rules[0].matching);
    assert!(fast.lookup(&Sets::default(), &mut Tracked::new(key)).is_none());
    assert_eq!((fast.len(), fast.n_subtables()), (0, 0));
}

#[test]
fn written_bits_are_not_recorded() {
    let mut fast = TupleSpace::default();
    fast.insert(simple(1, Match::any().with_masked(Field::Reg3, 0x12, 0xffff)));
    let mut key = Tracked::new(FlowKey::zero());
    key.write_bits(Field::Reg3, 0x12, 0xff);
    assert!(fast.lookup(&Sets::default(), &mut key).is_some());
    assert_eq!(key.mask().get(Field::Reg3), 0xff00);
}

#[test]
fn lower_priority_subtables_are_not_examined_after_a_hit() {
    let mut fast = TupleSpace::default();
    fast.insert(simple(5, Match::any().with(Field::InPort, 0)));
    fast.insert(simple(4, Match::any().with(Field::Reg1, 1)));
    let mut key = Tracked::new(FlowKey::zero());
    assert_eq!(fast.lookup(&Sets::default(), &mut key).unwrap().priority.get(), 5);
    assert_eq!(key.mask().get(Field::Reg1), 0);
}

/// Rules that only ranges and sets tell apart are found as by the reference, and the masks
/// hold, also when there are more than a few of them.
#[test]
fn many_ranges_in_one_place() {
    let mut state = 7_u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        u128::from((state >> 33) % n)
    };
    let members: Vec<_> = (0..30).map(|n| (n % 3, ValueRange::one(random(400)), true)).collect();
    let sets = sets(&members);
    let (mut fast, mut dull) = (TupleSpace::default(), Reference::default());
    let mut rules = Vec::new();
    for n in 0..200_u16 {
        let mut some = |wide: u64| {
            let first = random(400);
            ValueRange::new(first, first + random(wide)).unwrap()
        };
        let (src, dst) = (some(100), some(40));
        let name = SetName::new(SETS[usize::from(n) % 3]).unwrap();
        let base = Match::any().with(Field::EthType, 0x0800);
        let matching = match n % 4 {
            0 => base.with_set(Field::NwSrc, name).with_range(Field::TcpDst, dst),
            _ => base.with_range(Field::NwSrc, src).with_range(Field::TcpDst, dst),
        };
        rules.push(simple(n % 50, matching));
    }
    let mut check = |fast: &TupleSpace, dull: &Reference| {
        for _ in 0..100 {
            let mut key = FlowKey::zero();
            key.eth_type.set(0x0800);
            key.nw_src.set(random(520) as u32);
            key.tp_dst.set(random(450) as u16);
            let found = fast.lookup(&sets, &mut Tracked::new(key));
            assert!(same(found, dull.lookup(&sets, &mut Tracked::new(key))));
            assert_stable(fast, &sets, &key, u64::from(key.nw_src));
        }
    };
    for rule in &rules {
        fast.insert(rule.clone());
        dull.insert(rule.clone());
    }
    assert_eq!(fast.n_subtables(), 1);
    check(&fast, &dull);
    for rule in rules.iter().skip(3) {
        assert!(same(fast.remove(rule.priority, &rule.matching).as_ref(), Some(rule)));
        dull.remove(rule.priority, &rule.matching);
        if fast.len().is_multiple_of(40) {
            check(&fast, &dull);
        }
    }
    check(&fast, &dull);
    rules.iter().take(3).for_each(|rule| drop(fast.remove(rule.priority, &rule.matching)));
    assert_eq!((fast.len(), fast.n_subtables()), (0, 0));
}

#[test]
fn a_range_examines_the_largest_block_around_the_value() {
    let mut fast = TupleSpace::default();
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    fast.insert(simple(9, tcp.with_range(Field::TcpDst, ValueRange::new(1000, 2000).unwrap())));
    let mask_of = |port: u16| {
        let mut packet = FlowKey::zero();
        packet.eth_type.set(0x0800);
        packet.nw_proto = 6;
        packet.tp_dst.set(port);
        let mut key = Tracked::new(packet);
        let found = fast.lookup(&Sets::default(), &mut key).is_some();
        (found, key.mask().get(Field::TcpDst))
    };
    // 1536 to 1791, 1984 to 1999, 2000; 4096 to 8191 and so on are outside.
    assert_eq!(mask_of(1600), (true, 0xff00));
    assert_eq!(mask_of(1990), (true, 0xfff0));
    assert_eq!(mask_of(2000), (true, 0xffff));
    assert_eq!(mask_of(2001), (false, 0xffff));
    assert_eq!(mask_of(40000), (false, 0x8000));
    assert_eq!(mask_of(80), (false, 0xfe00));
}

#[test]
fn ranges_and_sets_are_looked_at_last_and_only_while_they_can_win() {
    let mut fast = TupleSpace::default();
    let web = SetName::new("a").unwrap();
    let ip = Match::any().with(Field::EthType, 0x0800);
    fast.insert(simple(5, ip.clone().with_set(Field::NwSrc, web.clone())));
    fast.insert(simple(4, ip.clone().with_set(Field::NwDst, web)));
    fast.insert(simple(3, ip.clone()));
    let sets = sets(&[(0, ValueRange::new(0x0a00_0000, 0x0aff_ffff).unwrap(), true)]);
    let mut packet = FlowKey::zero();
    let mut key = Tracked::new(packet);
    assert!(fast.lookup(&sets, &mut key).is_none());
    assert_eq!(key.mask().get(Field::NwSrc), 0, "not even IP");
    packet.eth_type.set(0x0800);
    packet.nw_src.set(0x0a01_0203);
    let mut key = Tracked::new(packet);
    assert_eq!(fast.lookup(&sets, &mut key).unwrap().priority.get(), 5);
    assert_eq!((key.mask().get(Field::NwSrc), key.mask().get(Field::NwDst)), (0xff00_0000, 0));
    packet.nw_src.set(0xc000_0201);
    let mut key = Tracked::new(packet);
    assert_eq!(fast.lookup(&sets, &mut key).unwrap().priority.get(), 3);
    assert_eq!((key.mask().get(Field::NwSrc), key.mask().get(Field::NwDst)), (0x8000_0000, 0xf800_0000));
}

/// Rules that many sets tell apart are found as by the reference, and the masks hold,
/// while sets, members and rules come and go.
#[test]
fn many_sets_in_one_place() {
    let mut state = 11_u64;
    let mut random = |n: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        u128::from((state >> 33) % n)
    };
    let name = |n: u16| SetName::new(&format!("s{n}")).unwrap();
    let ip = Match::any().with(Field::EthType, 0x0800);
    let (mut fast, mut dull, mut sets) = (TupleSpace::default(), Reference::default(), Sets::default());
    let mut rules = Vec::new();
    for n in 0..60_u16 {
        sets.insert(NamedSet::new(name(n), SetKind::Ipv4));
        for _ in 0..random(12) {
            let first = random(2000);
            sets.insert_member(&name(n), ValueRange::new(first, first + random(64)).unwrap());
        }
        let of_src = ip.clone().with_set(Field::NwSrc, name(n));
        let both = of_src.clone().with_set(Field::NwDst, name(random(u64::from(n) + 1) as u16));
        rules.extend([simple(random(9) as u16, of_src), simple(random(9) as u16, both)]);
    }
    let mut keys = Vec::new();
    for _ in 0..60 {
        let mut key = FlowKey::zero();
        key.eth_type.set(0x0800);
        (key.nw_src, key.nw_dst) = ((random(2100) as u32).into(), (random(2100) as u32).into());
        keys.push(key);
    }
    let check = |fast: &TupleSpace, dull: &Reference, sets: &Sets| {
        for key in &keys {
            let found = fast.lookup(sets, &mut Tracked::new(*key));
            assert!(same(found, dull.lookup(sets, &mut Tracked::new(*key))));
            assert_stable(fast, sets, key, u64::from(key.nw_src));
        }
    };
    for (n, rule) in rules.iter().enumerate() {
        fast.insert(rule.clone());
        dull.insert(rule.clone());
        if n.is_multiple_of(20) {
            check(&fast, &dull, &sets);
        }
    }
    assert_eq!(fast.n_subtables(), 2);
    for n in 0..60 {
        let member = sets.get(&name(n)).unwrap().members().next();
        member.map(|member| sets.remove_member(&name(n), member));
        sets.insert_member(&name(n), ValueRange::one(random(2000)));
    }
    check(&fast, &dull, &sets);
    for rule in &rules[20..] {
        fast.remove(rule.priority, &rule.matching);
        dull.remove(rule.priority, &rule.matching);
        if fast.len().is_multiple_of(25) {
            check(&fast, &dull, &sets);
        }
    }
}
