//! What many rules cost: to load a million in one transaction, and to change one of them then. Readers go on
//! with their version meanwhile; what a change copies is what it costs.

use std::{hint::black_box, time::Instant};

use benches::{
    measure::heap_in_use,
    rules::{output, rule},
};
use criterion::{Criterion, criterion_group, criterion_main};
use flowtable::{
    field::Field,
    flow::{Match, Rule},
    table::{Change, Tables},
    types::TableId,
};

/// Rules of the large table.
const N_RULES: u32 = 1_000_000;
/// Length of the prefixes of its destinations; sources are whole.
const PREFIX: u128 = 0xffff_ff00;

/// Pairs of a host and a network, each once.
fn pair(n: u32) -> Rule {
    let (host, network) = (n % 4096, n / 4096);
    let matching = Match::any()
        .with(Field::EthType, 0x0800)
        .with(Field::NwSrc, u128::from(0x0a00_0000 | host))
        .with_masked(Field::NwDst, u128::from(0x0b00_0000 | network << 8), PREFIX);
    rule(0, (n % 1000) as u16 + 1, matching, output())
}

fn load() -> Tables {
    let changes = (0..N_RULES).map(|n| Change::Add(pair(n))).collect();
    Tables::default().transact(changes).expect("bench rules are good")
}

fn many(criterion: &mut Criterion) {
    let (before, start) = (heap_in_use(), Instant::now());
    let tables = load();
    println!(
        "tables/load-1M: {:.2} s, {} bytes a rule",
        start.elapsed().as_secs_f64(),
        (heap_in_use() - before) / N_RULES as usize,
    );
    let mut n = N_RULES;
    criterion.bench_function("tables/one-more-of-1M", |bencher| {
        bencher.iter(|| {
            n += 1;
            black_box(tables.transact(vec![Change::Add(pair(n))]).expect("a bench rule is good"))
        });
    });
    criterion.bench_function("tables/one-less-of-1M", |bencher| {
        bencher.iter(|| {
            n = (n + 7919) % N_RULES;
            let Rule { priority, matching, .. } = pair(n);
            let table = TableId::new(0).expect("there is a first table");
            let change = Change::DeleteStrict { table, priority, matching };
            black_box(tables.transact(vec![change]).expect("a bench rule is good"))
        });
    });
}

criterion_group!(benches, many);
criterion_main!(benches);
