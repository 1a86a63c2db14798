//! What ranges and named sets cost: to build and to change a set of ten thousand
//! addresses, and to look a packet up among rules that only ranges and sets tell apart.
//! A lookup is what a translation does once per table, never what a cached packet does.

use std::hint::black_box;

use benches::{
    measure::{Heap, case},
    rules::{output, rule},
};
use criterion::{Criterion, criterion_group, criterion_main};
use flowtable::{
    field::Field,
    flow::{Match, Rule},
    key::{FlowKey, Tracked},
    set::{NamedSet, SetKind, SetName, ValueRange},
    table::{Change, SetChange, Tables},
    types::TableId,
};

/// Members of the large set.
const N_MEMBERS: u32 = 10_000;
/// Keys that are looked up in turn.
const N_KEYS: u32 = 1024;

/// The same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) % u64::from(below)) as u32
    }
}

fn name(text: &str) -> SetName {
    SetName::new(text).expect("bench sets have plain names")
}

/// Addresses all over 10.0.0.0/8; each tenth one is a short range.
fn addresses(random: &mut Random, n: u32) -> Vec<ValueRange> {
    let member = |idx: u32| {
        let first = u128::from(0x0a00_0000 | random.next(1 << 24));
        ValueRange::new(first, first + if idx.is_multiple_of(10) { 9 } else { 0 })
    };
    (0..n).map(member).map(|range| range.expect("ranges rise")).collect()
}

fn set(text: &str, members: &[ValueRange]) -> NamedSet {
    let mut set = NamedSet::new(name(text), SetKind::Ipv4);
    for member in members {
        set.insert(*member);
    }
    set
}

fn tables(sets: Vec<NamedSet>, rules: Vec<Rule>) -> Tables {
    let sets = sets.into_iter().map(|set| Change::Set(SetChange::Add(set)));
    let changes = sets.chain(rules.into_iter().map(Change::Add)).collect();
    Tables::default().transact(changes).expect("bench rules are good")
}

fn tcp() -> Match {
    Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6)
}

fn keys(random: &mut Random) -> Vec<FlowKey> {
    let key = |_| {
        let mut key = FlowKey::zero();
        key.eth_type.set(0x0800);
        key.nw_proto = 6;
        key.nw_src.set(0x0a00_0000 | random.next(1 << 24));
        key.nw_dst.set(0x0a00_0000 | random.next(1 << 24));
        key.tp_dst.set(random.next(1 << 16) as u16);
        key
    };
    (0..N_KEYS).map(key).collect()
}

fn lookups(criterion: &mut Criterion, name: &str, tables: &Tables) {
    let keys = keys(&mut Random(3));
    case(criterion, name, Heap::Used, N_KEYS.into(), || {
        for key in &keys {
            let mut key = Tracked::new(*key);
            black_box(tables.lookup(TableId::FIRST, &mut key));
            black_box(&key);
        }
    });
}

fn large_set(criterion: &mut Criterion) {
    let members = addresses(&mut Random(1), N_MEMBERS);
    case(criterion, "set/build-10k", Heap::Used, N_MEMBERS.into(), || {
        black_box(set("large", &members));
    });
    let rules = vec![rule(0, 1, tcp().with_set(Field::NwSrc, name("large")), output())];
    let tables = tables(vec![set("large", &members)], rules);
    let change = |kind: fn(SetName, Vec<ValueRange>) -> SetChange, member| {
        Change::Set(kind(name("large"), vec![ValueRange::one(member)]))
    };
    // The version before stays, as a published one does.
    case(criterion, "set/change-one-of-10k", Heap::Used, 1, || {
        let add = change(|set, members| SetChange::Insert { set, kind: SetKind::Ipv4, members }, 0x0b00_0001);
        black_box(tables.transact(vec![add]).is_ok());
    });
    lookups(criterion, "set/lookup-10k", &tables);
}

/// Rules of one mask that only two ranges tell apart.
fn ranges(criterion: &mut Criterion) {
    for n in [10_u32, 1_000, 10_000] {
        let mut random = Random(2);
        let mut range = |all: u32, wide: u32| {
            let first = random.next(all - wide);
            ValueRange::new(first.into(), (first + random.next(wide)).into()).expect("ranges rise")
        };
        let mut rules = Vec::new();
        for idx in 0..n {
            let matching = tcp().with_range(Field::TcpDst, range(1 << 16, 1 << 8)).with_masked(
                Field::NwSrc,
                0x0a00_0000,
                0xff00_0000,
            );
            let matching = matching.with_range(Field::NwDst, {
                let range = range(1 << 24, 1 << 16);
                ValueRange::new(range.first() | 0x0a00_0000, range.last() | 0x0a00_0000).unwrap_or(range)
            });
            rules.push(rule(0, (idx % 60_000) as u16, matching, output()));
        }
        lookups(criterion, &format!("range/lookup-{n}-rules"), &tables(vec![], rules));
    }
}

/// Rules of one mask, each with a set of its own.
fn sets(criterion: &mut Criterion) {
    for n in [10, 100, 1_000] {
        let mut random = Random(4);
        let sets = (0..n).map(|idx| set(&format!("s{idx}"), &addresses(&mut random, 100))).collect();
        let matching = |idx| tcp().with_set(Field::NwSrc, name(&format!("s{idx}")));
        let rules = (0..n).map(|idx| rule(0, idx as u16, matching(idx), output())).collect();
        lookups(criterion, &format!("set/lookup-{n}-sets"), &tables(sets, rules));
    }
}

criterion_group!(benches, large_set, ranges, sets);
criterion_main!(benches);
