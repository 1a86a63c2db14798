//! Packet rates through the connection tracker: established conversations, one-way
//! traffic, new connections.
//!
//! Rules and traffic are those that Open vSwitch was measured with: 60-byte UDP frames
//! without checksums, both directions from one port in an order without neighbours,
//! batches of 32, one core.

use std::{sync::Arc, time::Duration};

use benches::{
    floods,
    measure::{Heap, case, is_wanted, minute, once},
    rules::{self, IN, LOCAL, PEER, port, snapshot},
    traffic::{Load, Source},
};
use criterion::{Criterion, criterion_group, criterion_main};
use flowtable::{
    conntrack::{Config, Conntrack, Storage},
    switch::{MAX_BATCH, SwitchConfig},
};

/// As a switch has them that nobody has configured.
const CACHES: SwitchConfig = SwitchConfig { n_sessions: 1 << 16, n_megaflows: 1 << 16 };

fn load(n_slots: usize, source: Source) -> Load {
    let storage = Storage::on_heap_advised(n_slots, dataplane::advise_huge_pages);
    let tracker = Conntrack::new(Config { seed: 1, ..Config::default() }, storage);
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
    let n_slots = 1 << 20;
    println!("conntrack: {} bytes a connection", Storage::on_heap(n_slots).n_bytes() / n_slots);
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

/// A minute of each attack, by the switch's clock: an established conversation loses no
/// packet, and the tracker names who fills it.
fn attacks(_: &mut Criterion) {
    const PPS: u64 = 100_000;
    const N_SLOTS: usize = 1 << 16;
    const EVERY: usize = 1000;
    type Flood = fn(u32, &mut [u8]) -> usize;
    let floods: [(&str, Flood, Option<u32>); 5] = [
        ("attack/syns", floods::syns, None),
        ("attack/udp-scan", floods::scan, None),
        ("attack/pings", floods::pings, None),
        ("attack/full-zone", floods::scan, Some(1000)),
        ("attack/halves", floods::halves, None),
    ];
    for (name, write, limit) in floods {
        if !is_wanted(name) {
            continue;
        }
        let tracker =
            Arc::new(Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(N_SLOTS)));
        let source = Source::Flood { write, every: EVERY };
        let mut load = Load::new(CACHES, snapshot(rules::guarded(), LOCAL, PEER), port(IN), source)
            .with_conntrack(Arc::clone(&tracker))
            .at_rate(PPS);
        load.step();
        tracker.set_zone_limit(Some(1), limit);
        let n_steps = 60 * PPS as usize / MAX_BATCH;
        minute(name, (n_steps * MAX_BATCH) as u64, || (0..n_steps).for_each(|_| load.step()));
        let n_packets = (n_steps + 1) * MAX_BATCH;
        // The first is new, and what answers it is one of the conversation.
        let n_victim = n_packets.div_ceil(EVERY);
        assert_eq!(load.n_sent(), n_victim as u64, "{name}: the victim lost packets");
        let talkers = tracker.top_talkers(load.now(), 1);
        let named = talkers.first().map(|talker| (talker.who.to_string(), talker.n_connections));
        println!(
            "{name}: {n_victim} of {n_victim} packets of the victim passed; most connections: {named:?}"
        );
    }
}

criterion_group! {
    name = conntrack;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = established, one_way, fresh, attacks
}
criterion_main!(conntrack);
