//! Packet rates through the connection tracker: established conversations, one-way
//! traffic, new connections.
//!
//! Rules and traffic are those that Open vSwitch was measured with: 60-byte UDP frames
//! without checksums, both directions from one port in an order without neighbours,
//! batches of 32, one core.

use std::{sync::Arc, time::Duration};

use benches::{
    measure::{Heap, case, is_wanted, once},
    rules::{self, IN, LOCAL, PEER, port, snapshot},
    traffic::{Load, Source},
};
use criterion::{Criterion, criterion_group, criterion_main};
use flowtable::{
    conntrack::{CELLS_PER_SLOT, Config, Conntrack, Slot, Storage},
    switch::{MAX_BATCH, SwitchConfig},
};

/// As a switch has them that nobody has configured.
const CACHES: SwitchConfig = SwitchConfig { n_sessions: 1 << 16, n_megaflows: 1 << 16 };

fn load(n_slots: usize, source: Source) -> Load {
    let tracker = Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(n_slots));
    Load::new(CACHES, snapshot(rules::stateful(), LOCAL, PEER), port(IN), source)
        .with_conntrack(Arc::new(tracker))
}

/// Conversations that all are known, and whose packets all leave.
fn known(criterion: &mut Criterion, name: &str, n: u32, both_ways: bool) {
    if !is_wanted(name) {
        return;
    }
    let mut load = load(n as usize * 5 / 4, Source::Conversations { n, both_ways }).warm();
    let (before, n_sent) = (load.switch().counters(), load.n_sent());
    case(criterion, name, Heap::Untouched, 32, || load.step());
    let after = load.switch().counters();
    assert_eq!(after.n_packets - before.n_packets, load.n_sent() - n_sent, "{name} drops");
    assert_eq!(after.n_misses, before.n_misses, "{name} misses");
    let n_connections = load.switch().conntrack().map_or(0, |tracker| tracker.stats().n_connections);
    assert_eq!(n_connections, u64::from(n), "{name}: connections");
}

fn established(criterion: &mut Criterion) {
    known(criterion, "conntrack/established-1", 1, true);
    known(criterion, "conntrack/established-10k", 10_000, true);
    known(criterion, "conntrack/established-100k", 100_000, true);
    known(criterion, "conntrack/established-1M", 1_000_000, true);
    println!("conntrack: {} bytes a connection", size_of::<Slot>() + CELLS_PER_SLOT * size_of::<u64>());
}

fn one_way(criterion: &mut Criterion) {
    known(criterion, "conntrack/both-ways-50k", 50_000, true);
    known(criterion, "conntrack/one-way-50k", 50_000, false);
}

/// First packets: looked up, committed, sent.
fn fresh(_: &mut Criterion) {
    for (name, n) in [("conntrack/new-200k", 200_000), ("conntrack/new-1M", 1_000_000)] {
        let prepare = || {
            let mut load = load(n + n / 4, Source::Conversations { n: n as u32, both_ways: false });
            // The rules are known; the first conversations too.
            (0..4).for_each(|_| load.step());
            load
        };
        let n_steps = n / MAX_BATCH - 4;
        once(name, (n_steps * MAX_BATCH) as u64, prepare, |load| (0..n_steps).for_each(|_| load.step()));
    }
}

criterion_group! {
    name = conntrack;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = established, one_way, fresh
}
criterion_main!(conntrack);
