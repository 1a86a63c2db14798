//! Packet-rate benches of the pure switch, from parser to tunnel.
//!
//! The numbers of flows and rules are those of the project's reference workloads: 60-byte
//! frames, batches of 32, one core; the source's copy of the frame is part of the figure.

use std::{hint::black_box, sync::Arc, time::Duration};

use benches::{
    measure::{Heap, case, is_wanted},
    rules::{self, IN, LOCAL, PEER, UPLINK, port, snapshot},
    traffic::{Load, Source, random_frame, sent_by, udp_frame},
};
use criterion::{Criterion, criterion_group, criterion_main};
use flowtable::{
    build::{self, Host},
    flow::Rule,
    key::FlowKey,
    packet::Packet,
    parse::parse,
    pipeline::{NoTrace, translate},
    switch::SwitchConfig,
    types::{Epoch, PortNo},
};

/// Caches large enough for every case.
const LARGE: SwitchConfig = SwitchConfig { n_sessions: 1 << 18, n_megaflows: 1 << 18 };
/// Megaflows alone.
const NO_SESSIONS: SwitchConfig = SwitchConfig { n_sessions: 0, n_megaflows: 1 << 18 };

fn parse_all(criterion: &mut Criterion) {
    let (v4, v6) = (Host::v4(1), Host::v6(1));
    let udp4 = udp_frame(1);
    let kinds = [
        ("parse/udp4", udp4.clone()),
        ("parse/vlan-udp4", build::vlan(&udp4, 0x8100, 100)),
        ("parse/tcp6", build::tcp(&v6, &Host::v6(2), 0x10, b"")),
        ("parse/arp", build::arp(1, &v4, &Host::v4(2))),
    ];
    for (name, frame) in kinds {
        let mut packets: Vec<Packet<Vec<u8>>> =
            (0..32).map(|_| build::packet(&frame, PortNo::ZERO)).collect();
        let mut key = FlowKey::zero();
        case(criterion, name, Heap::Untouched, 32, || {
            for packet in &mut packets {
                let _ = black_box(parse(packet, &mut key));
                black_box(&key);
            }
        });
    }
}

/// A warmed-up load whose packets all leave, and none of which misses any more.
fn hits(criterion: &mut Criterion, name: &str, config: SwitchConfig, rules: Vec<Rule>, n_flows: u32) {
    if !is_wanted(name) {
        return;
    }
    let mut load = Load::new(config, snapshot(rules, LOCAL, PEER), port(IN), Source::Flows(n_flows)).warm();
    let (before, n_sent) = (load.switch().counters(), load.n_sent());
    case(criterion, name, Heap::Untouched, 32, || load.step());
    let after = load.switch().counters();
    assert_eq!(after.n_misses, before.n_misses, "{name} misses");
    assert_eq!(after.n_packets - before.n_packets, load.n_sent() - n_sent, "{name} drops");
    let n_sessions = after.n_session_hits - before.n_session_hits;
    let share = 100 * n_sessions / (after.n_packets - before.n_packets);
    println!("{name}: {share} % by session, {} megaflows", load.switch().n_megaflows());
}

fn session(criterion: &mut Criterion) {
    hits(criterion, "session/hit", LARGE, rules::masks(), 1_000);
    hits(criterion, "session/hit-50k", LARGE, rules::masks(), 50_000);
}

fn megaflow(criterion: &mut Criterion) {
    hits(criterion, "megaflow/hit", LARGE, rules::one_rule(), 1_000);
    hits(criterion, "megaflow/hit-100k-one-mask", LARGE, rules::one_mask(), 100_000);
    hits(criterion, "megaflow/hit-16-masks", NO_SESSIONS, rules::masks(), 10_000);
}

fn translation(criterion: &mut Criterion) {
    let key = {
        let mut packet = build::packet(&udp_frame(1), port(IN));
        let mut key = FlowKey::zero();
        let parsed = parse(&mut packet, &mut key);
        assert!(parsed.is_ok(), "the bench's own frame");
        key
    };
    for (name, rules) in [
        ("translate/1-table", rules::one_rule()),
        ("translate/20-tables", rules::tables(20, 60)),
        ("translate/geneve", rules::encap(PEER)),
    ] {
        let snapshot = snapshot(rules, LOCAL, PEER);
        case(criterion, name, Heap::Used, 1, || {
            black_box(translate(&snapshot, black_box(&key), &mut NoTrace));
        });
    }
    // First packets: more flows than entries, each looked at whole.
    for (name, n_tables) in [("translate/first-packet-1-table", 1), ("translate/first-packet-20-tables", 20)]
    {
        let mut rules = rules::tables(n_tables, 60);
        let last = rules[rules.len() - 1].table;
        rules.extend(rules::one_mask().into_iter().map(|rule| Rule { table: last, ..rule }));
        let config = SwitchConfig { n_sessions: 1 << 10, n_megaflows: 1 << 10 };
        let mut load =
            Load::new(config, snapshot(rules, LOCAL, PEER), port(IN), Source::Flows(20_000)).warm();
        let before = load.switch().counters();
        case(criterion, name, Heap::Used, 32, || load.step());
        let after = load.switch().counters();
        assert_eq!(after.n_misses - before.n_misses, after.n_packets - before.n_packets, "{name} hits");
    }
}

fn attack(criterion: &mut Criterion) {
    if !is_wanted("megaflow/random-headers") {
        return;
    }
    let frames = Source::Frames((0..200_000).map(random_frame).collect());
    let mut load = Load::new(LARGE, snapshot(rules::acl(), LOCAL, PEER), port(IN), frames).warm();
    case(criterion, "megaflow/random-headers", Heap::Used, 32, || load.step());
    let counters = load.switch().counters();
    println!(
        "megaflow/random-headers: {} % missed, {} megaflows",
        100 * counters.n_misses / counters.n_packets,
        load.switch().n_megaflows()
    );
}

/// Every entry is out of date at its next hit.
fn renewal(criterion: &mut Criterion) {
    let snapshot = snapshot(rules::tables(20, 60), LOCAL, PEER);
    let mut load = Load::new(LARGE, Arc::clone(&snapshot), port(IN), Source::Flows(1)).warm();
    let mut epoch = Epoch::ZERO.next();
    case(criterion, "translate/renewal", Heap::Used, 32, || {
        epoch = epoch.next();
        let mut next = (*snapshot).clone();
        next.epoch = epoch;
        load.publish(Arc::new(next));
        load.step();
    });
}

fn geneve(criterion: &mut Criterion) {
    hits(criterion, "geneve/encap", LARGE, rules::encap(PEER), 10_000);
    if !is_wanted("geneve/decap") {
        return;
    }
    let flows: Vec<_> = (0..10_000).map(udp_frame).collect();
    let wire = sent_by(&snapshot(rules::encap(LOCAL), PEER, LOCAL), port(IN), &flows);
    let snapshot = snapshot(rules::decap(), LOCAL, PEER);
    let mut load = Load::new(LARGE, snapshot, port(UPLINK), Source::Frames(wire)).warm();
    case(criterion, "geneve/decap", Heap::Untouched, 32, || load.step());
    let counters = load.switch().counters();
    assert_eq!(counters.n_packets, counters.n_forwarded, "geneve/decap drops");
}

criterion_group! {
    name = packets;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = parse_all, session, megaflow, translation, renewal, attack, geneve
}
criterion_main!(packets);
