//! Finds the rule of highest priority that matches a packet, and records no more of
//! the packet than the answer needs.
//!
//! [`TupleSpace`] is what the tables use; [`Reference`] is its dull twin, the oracle of
//! the tests. What is recorded decides how wide the cached megaflow is: a bit too many
//! costs a cache entry, a bit too few lets packets through that no rule allows. All
//! access to the packet therefore goes through [`Tracked`].
//!
//! Rules of equal priority that match the same packet have different masks (with the
//! same mask they would be the same match). The one with the smaller mask wins, masks
//! being compared word by word in the order of the flow key. OpenFlow leaves this
//! undefined; here it does not depend on the history of the table.
//!
//! Rules of conjunctions are kept apart (`conjunction.rs`): they match nothing by
//! themselves.
//!
//! Not here: tables and transactions ([`crate::table`]), the cache of megaflows.

mod conjunction;
mod paged_map;
mod prefix_trie;
mod reference;
mod subtable;
mod tuple_space;

use std::{cmp::Ordering, sync::Arc};

pub use reference::Reference;
pub use tuple_space::TupleSpace;

use crate::{
    flow::{Match, Rule},
    key::Tracked,
    types::Priority,
};

/// Rules of one table, searchable.
pub trait Classifier {
    /// Adds a rule; gives back the rule of same priority and match that it replaces.
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>>;

    /// Takes the rule of this priority and match out.
    fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>>;

    /// The rule of this priority and match.
    fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>>;

    /// The rule of highest priority that matches; records what was examined.
    fn lookup(&self, key: &mut Tracked) -> Option<&Arc<Rule>>;

    /// All rules, in no particular order.
    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>>;
}

/// Order of masks: decides between rules of equal priority.
fn mask_order(a: &Match, b: &Match) -> Ordering {
    let masks = |m: &Match| m.words().iter().map(|word| (word.idx, word.mask)).collect::<Vec<_>>();
    masks(a).cmp(&masks(b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        field::Field,
        flow::{Action, Origin, RuleStats},
        key::FlowKey,
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

    fn matching() -> impl Strategy<Value = Match> {
        proptest::collection::vec(part(), 0..3).prop_map(|parts| {
            parts.into_iter().fold(Match::any(), |m, (field, value, mask)| m.with_masked(field, value, mask))
        })
    }

    fn rule() -> impl Strategy<Value = Arc<Rule>> {
        // A third are ways to satisfy a clause of one of two conjunctions.
        let part =
            (0..3_u32, 1..3_u8).prop_map(|(id, clause)| Action::Conjunction { id, clause, n_clauses: 2 });
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
    fn assert_sound<C: Classifier>(classifier: &C, key: &FlowKey, seed: u64) {
        let mut tracked = Tracked::new(*key);
        let found = classifier.lookup(&mut tracked);
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
            let again = classifier.lookup(&mut Tracked::new(other));
            assert!(same(found, again), "{:?}\n{key:?}\n{other:?}", tracked.mask());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn tuple_space_agrees_with_the_reference(
            rules in proptest::collection::vec(rule(), 0..40),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
            noise in proptest::collection::vec((key(), any::<usize>(), any::<usize>()), 1..12),
        ) {
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
                let (mut a, mut b) = (Tracked::new(key), Tracked::new(key));
                prop_assert!(same(fast.lookup(&mut a), dull.lookup(&mut b)));
            }
        }

        #[test]
        fn masks_are_sound(
            rules in proptest::collection::vec(rule(), 0..25),
            noise in key(), pick in any::<usize>(), changes in any::<usize>(), seed in any::<u64>(),
        ) {
            let (mut fast, mut dull) = (TupleSpace::default(), Reference::default());
            for rule in &rules {
                fast.insert(rule.clone());
                dull.insert(rule.clone());
            }
            let key = near(&rules, pick, &noise, changes);
            assert_sound(&fast, &key, seed);
            assert_sound(&dull, &key, seed);
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
            let found = before.lookup(&mut Tracked::new(key)).cloned();
            for rule in &rules[half..] {
                fast.insert(rule.clone());
            }
            for rule in &rules[..half] {
                fast.remove(rule.priority, &rule.matching);
            }
            prop_assert!(same(found.as_ref(), before.lookup(&mut Tracked::new(key))));
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
        assert!(fast.lookup(&mut key).is_none());
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
        assert_eq!(fast.lookup(&mut key).unwrap().priority.get(), 8);
        // Four bits exclude 10.0.0.0/24 and the host; the hit needs its own eight.
        assert_eq!(key.mask().get(Field::NwDst), 0xff00_0000);
        packet.nw_dst.set(0x0b00_0000);
        let mut key = Tracked::new(packet);
        assert!(fast.lookup(&mut key).is_none());
        assert_eq!(key.mask().get(Field::NwDst), 0xff00_0000);
        packet.nw_dst.set(0xc0a8_0101);
        let mut key = Tracked::new(packet);
        assert!(fast.lookup(&mut key).is_none());
        assert_eq!(key.mask().get(Field::NwDst), 0x8000_0000);
    }

    #[test]
    fn the_smaller_mask_wins_a_tie_wherever_it_stands() {
        let mut fast = TupleSpace::default();
        let (low, high) = (Match::any().with(Field::Reg1, 0), Match::any().with(Field::Reg9, 0));
        assert!(mask_order(&low, &high).is_lt());
        let winner = simple(5, low);
        fast.insert(simple(5, high.clone()));
        // Moves the other one's subtable to the front of the search.
        fast.insert(simple(9, Match::any().with(Field::Reg9, 7)));
        fast.insert(winner.clone());
        assert!(same(fast.lookup(&mut Tracked::new(FlowKey::zero())), Some(&winner)));
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
            assert!(same(fast.lookup(&mut Tracked::new(key)), Some(&rules[0])));
        }
        fast.remove(rules[0].priority, &rules[0].matching);
        assert!(fast.lookup(&mut Tracked::new(key)).is_none());
        assert_eq!((fast.len(), fast.n_subtables()), (0, 0));
    }

    #[test]
    fn written_bits_are_not_recorded() {
        let mut fast = TupleSpace::default();
        fast.insert(simple(1, Match::any().with_masked(Field::Reg3, 0x12, 0xffff)));
        let mut key = Tracked::new(FlowKey::zero());
        key.write_bits(Field::Reg3, 0x12, 0xff);
        assert!(fast.lookup(&mut key).is_some());
        assert_eq!(key.mask().get(Field::Reg3), 0xff00);
    }

    #[test]
    fn lower_priority_subtables_are_not_examined_after_a_hit() {
        let mut fast = TupleSpace::default();
        fast.insert(simple(5, Match::any().with(Field::InPort, 0)));
        fast.insert(simple(4, Match::any().with(Field::Reg1, 1)));
        let mut key = Tracked::new(FlowKey::zero());
        assert_eq!(fast.lookup(&mut key).unwrap().priority.get(), 5);
        assert_eq!(key.mask().get(Field::Reg1), 0);
    }
}
