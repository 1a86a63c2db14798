//! Tests of the switch: caches change nothing, nothing is lost, counters are right.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    build::{self, Host},
    conntrack::Filter,
    drop::DropReason,
    fdb::{FdbCounters, FdbEntry},
    field::{Field, SubField},
    flow::{Action, Learned, Match, Rule},
    group::Group,
    meter::Meter,
    pipeline::{
        NoTrace,
        random::{self, LOCAL, PEER, TUNNEL, UPLINK, port, rule, snapshot},
    },
    port::PortTable,
    program::Punt,
    table::{Change, TableCounters, Tables},
    text::parse_flow,
    types::{Epoch, MacAddr, MeterId},
};

/// Collects what leaves; can run out of buffers.
#[derive(Default)]
pub(super) struct Collector {
    pub(super) out: Vec<(PortNo, Vec<u8>)>,
    n_released: usize,
    n_copied: usize,
    /// Every how many copies there is no buffer; 0: always is.
    starve: usize,
}

impl Sink<Vec<u8>> for Collector {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.out.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        self.n_copied += 1;
        if self.starve != 0 && self.n_copied.is_multiple_of(self.starve) {
            return None;
        }
        Some(build::packet(packet.bytes(), packet.in_port))
    }

    fn make(&mut self, frame: &[u8], like: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        self.copy(&build::packet(frame, like.in_port))
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {
        self.n_released += 1;
    }
}

/// One thing that happens to a switch.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A frame comes in.
    Frame(u32, Vec<u8>),
    /// The rules change: one is taken out, or the last of these comes back.
    Change(usize),
    /// Time passes.
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let flows = prop::collection::vec(random::key(), 1..12);
    let steps = prop::collection::vec((0_u8..40, any::<usize>()), 1..120);
    (flows, steps).prop_map(|(flows, steps)| {
        steps
            .into_iter()
            .map(|(kind, pick)| match kind {
                0 => Event::Change(pick),
                1 | 4 => Event::Wait(1_000_000_000 * (pick % 20) as u64),
                2 => Event::Frame(1, vec![0; pick % 20]),
                _ => {
                    let key = &flows[pick % flows.len()];
                    Event::Frame(key.in_port.get(), build::frame_from_key(key, pick % 50))
                }
            })
            .collect()
    })
}

/// Port, reason, cookie of the rule, and meter.
type Cause = (PortNo, DropReason, Option<u64>, Option<MeterId>);

/// What a run of a switch can be seen to do.
#[derive(Debug, PartialEq, Default)]
pub(super) struct Observed {
    out: Vec<(PortNo, Vec<u8>)>,
    drops: BTreeMap<Cause, [u64; 3]>,
    /// Packets, bytes and last use.
    rules: Vec<(u64, u64, u64)>,
    groups: Vec<(u64, u64)>,
    meters: Vec<Vec<(u64, u64)>>,
    tables: Vec<TableCounters>,
    ports: Vec<PortCounters>,
    n_released: usize,
    packet_ins: Vec<PacketIn>,
    injected: PortCounters,
    n_refused: usize,
    samples: Vec<Sampled>,
    counters: (LearnCounters, SampleCounters, ContinuationCounters),
    /// What was queued at each commit.
    learned: Vec<Vec<Learned>>,
    stations: Vec<(Vec<FdbEntry>, FdbCounters)>,
    /// What the tracker remembers, as text.
    connections: Vec<String>,
}

/// What the owner of the tables does now and then: takes what was learned, lets rules and
/// stations expire, answers every other packet that waits.
fn attend(
    (switch, sink): (&mut Switch, &mut Collector),
    now: Timestamp,
    snapshot: &Arc<Snapshot>,
    seen: &mut Observed,
) -> Arc<Snapshot> {
    switch.flush_stats();
    let learned = switch.take_learned();
    for Learned { rule, .. } in &learned {
        let again = parse_flow(&rule.to_string(), &PortTable::default()).unwrap();
        assert!(again.matching == rule.matching && again.actions == rule.actions, "{rule}");
    }
    let mut tables = (*snapshot.tables).clone();
    tables = tables.learn(&learned, now).commit.map_or(tables, |commit| commit.tables);
    tables = tables.expire(now).map_or(tables, |commit| commit.tables);
    tables.fdb().expire(now);
    seen.stations.push((tables.fdb().dump(), tables.fdb().counters()));
    seen.learned.push(learned);
    seen.samples.extend(switch.take_samples());
    let epoch = Epoch::new(snapshot.epoch.get() + 1_000_000).unwrap();
    let next = Arc::new(Snapshot { epoch, tables: Arc::new(tables), ..(**snapshot).clone() });
    for (idx, packet_in) in switch.take_packet_ins().into_iter().enumerate() {
        if let Some(id) = packet_in.continuation.filter(|_| idx % 2 == 0) {
            let metadata = Match::any().with(Field::Reg1, idx as u128 % 4);
            let packet = build::packet(&packet_in.bytes, packet_in.in_port);
            let resumed = switch.resume(now, &next, (id, &metadata), packet, sink);
            // Many packets of one port that wait make room for each other.
            seen.n_refused += usize::from(resumed.is_err());
        }
        // How it goes on names the rules of one run.
        let punt = Arc::new(Punt { next: None, ..(*packet_in.punt).clone() });
        seen.packet_ins.push(PacketIn { punt, ..packet_in });
    }
    next
}

fn of_group(group: &Group) -> Vec<(u64, u64)> {
    let buckets = group.buckets.iter().map(|bucket| bucket.stats.get());
    [group.stats.get()].into_iter().chain(buckets).collect()
}

fn of_meter(meter: &Meter) -> Vec<(u64, u64)> {
    [meter.stats()].into_iter().chain(meter.band_stats()).collect()
}

fn of_tables(tables: &Tables) -> impl Iterator<Item = TableCounters> {
    (0..8).map(|raw| tables.stats().get(random::table(raw)))
}

/// The next version: a rule less, or one of those more.
fn with_a_change(snapshot: &Arc<Snapshot>, pick: usize, away: &mut Vec<Rule>) -> Arc<Snapshot> {
    let n_rules = snapshot.tables.len();
    let change = match away.pop_if(|_| pick.is_multiple_of(3) || n_rules == 0) {
        Some(rule) => Change::Add(rule),
        None if n_rules == 0 => return Arc::clone(snapshot),
        None => {
            let rule = snapshot.tables.rules().nth(pick % n_rules).unwrap();
            away.push((**rule).clone());
            let Rule { table, priority, .. } = **rule;
            Change::DeleteStrict { table, priority, matching: rule.matching.clone() }
        }
    };
    let tables = Arc::new(snapshot.tables.transact(vec![change]).unwrap());
    Arc::new(Snapshot { epoch: snapshot.epoch.next(), tables, ..(**snapshot).clone() })
}

/// Runs the events with batches of at most `n_batch` packets of a port.
pub(super) fn observe(
    config: SwitchConfig,
    n_batch: usize,
    starve: usize,
    rules: &[Rule],
    events: &[Event],
) -> Observed {
    let mut switch = Switch::with_seed(config, 1);
    let mut sink = Collector { starve, ..Collector::default() };
    let (mut away, mut now) = (Vec::new(), 0);
    let mut current = snapshot(1, rules);
    let mut observed = Observed::default();
    let mut seen = Vec::new();
    let mut keep = |snapshot: &Arc<Snapshot>| seen.push(Arc::clone(snapshot));
    keep(&current);
    let mut batch: Vec<Packet<Vec<u8>>> = Vec::new();
    let run =
        |switch: &mut Switch, now, current: &Arc<Snapshot>, batch: &mut Vec<_>, sink: &mut Collector| {
            let in_port = batch.first().map_or(port(1), |packet: &Packet<Vec<u8>>| packet.in_port);
            switch.process(Timestamp::from_nanos(now), current, in_port, batch, sink);
            assert!(batch.is_empty());
        };
    for event in events {
        let same_port = matches!((event, batch.first()), (Event::Frame(raw, _), Some(first)) if first.in_port == port(*raw));
        if batch.len() >= n_batch || !same_port {
            run(&mut switch, now, &current, &mut batch, &mut sink);
        }
        match event {
            Event::Frame(raw, frame) => batch.push(build::packet(frame, port(*raw))),
            Event::Change(pick) => {
                let before = Arc::clone(&current);
                current = with_a_change(&current, *pick, &mut away);
                if n_batch > 1 {
                    switch.look_at_entries(Timestamp::from_nanos(now), &before, &current, 9);
                }
                keep(&current);
            }
            Event::Wait(nanos) => {
                now += nanos;
                let ends = (&mut switch, &mut sink);
                let before = Arc::clone(&current);
                current = attend(ends, Timestamp::from_nanos(now), &current, &mut observed);
                if n_batch > 1 {
                    // Some of the entries, so that what was not looked at is seen as well.
                    switch.look_at_entries(Timestamp::default(), &before, &current, 40);
                }
                keep(&current);
            }
        }
    }
    run(&mut switch, now, &current, &mut batch, &mut sink);
    keep(&attend((&mut switch, &mut sink), Timestamp::from_nanos(now), &current, &mut observed));
    let connections = switch.conntrack().map(|all| all.dump(Timestamp::from_nanos(now), &Filter::default()));
    observed.connections =
        connections.into_iter().flatten().map(|connection| format!("{connection:?}")).collect();
    observed.connections.sort();
    // Fragments that wait are entered in the books when their time is over.
    run(&mut switch, now + 60_000_000_000, &current, &mut batch, &mut sink);
    check_conservation(&switch, &sink, events, observed.n_refused);
    switch.flush_stats();
    let mut drops: BTreeMap<Cause, [u64; 3]> = BTreeMap::new();
    for drop in switch.drops() {
        let row = drops
            .entry((drop.in_port, drop.reason, drop.rule.map(|rule| rule.cookie), drop.meter))
            .or_default();
        *row = [row[0] + drop.n_packets, row[1] + drop.n_bytes, row[2] + drop.n_copies];
    }
    let tables = || seen.iter().map(|snapshot| &*snapshot.tables);
    let of_rule = |rule: &Arc<Rule>| {
        let (n_packets, n_bytes) = rule.stats.get();
        (n_packets, n_bytes, rule.stats.used().nanos())
    };
    // Those that were sent by packets which went on last.
    let last = switch.take_packet_ins().into_iter().map(|packet_in| {
        let punt = Arc::new(Punt { next: None, ..(*packet_in.punt).clone() });
        PacketIn { punt, ..packet_in }
    });
    observed.packet_ins.extend(last);
    Observed {
        out: sink.out,
        drops,
        rules: tables().flat_map(Tables::rules).map(of_rule).collect(),
        groups: tables().flat_map(Tables::groups).flat_map(|group| of_group(group)).collect(),
        meters: tables().flat_map(Tables::meters).map(|meter| of_meter(meter)).collect(),
        tables: tables().flat_map(of_tables).collect(),
        ports: (0..=TUNNEL).map(|raw| switch.port_counters(port(raw))).collect(),
        n_released: sink.n_released,
        injected: switch.injected_counters(),
        counters: (switch.learn_counters(), switch.sample_counters(), switch.continuation_counters()),
        ..observed
    }
}

/// Received = forwarded + dropped, for each port, and the drops add up.
fn check_conservation(switch: &Switch, sink: &Collector, events: &[Event], n_refused: usize) {
    let n_frames =
        |raw| events.iter().filter(|e| matches!(e, Event::Frame(p, _) if *p == raw)).count() as u64;
    let drops = switch.drops();
    for raw in 0..=TUNNEL {
        let counters = switch.port_counters(port(raw));
        assert_eq!(counters.rx_packets, n_frames(raw));
        assert_eq!(counters.rx_packets, counters.rx_forwarded + counters.rx_dropped);
        let named: u64 =
            drops.iter().filter(|drop| drop.in_port == port(raw)).map(|drop| drop.n_packets).sum();
        assert_eq!(counters.rx_dropped, named);
    }
    let all = switch.counters();
    assert_eq!(all.n_packets, all.n_forwarded + all.n_dropped);
    let malformed = drops.iter().filter(|drop| drop.reason == DropReason::Malformed);
    let n_looked_up = all.n_packets - malformed.map(|drop| drop.n_packets).sum::<u64>();
    assert_eq!(n_looked_up, all.n_session_hits + all.n_megaflow_hits + all.n_misses);
    // Each buffer that came in or was made for a copy went somewhere.
    let n_starved = sink.n_copied.checked_div(sink.starve).unwrap_or(0);
    let injected = switch.injected_counters();
    assert_eq!(injected.rx_packets, injected.rx_forwarded + injected.rx_dropped);
    let n_buffers = (all.n_packets + all.n_injected) as usize + sink.n_copied - n_starved;
    assert_eq!(sink.out.len() + sink.n_released, n_buffers + n_refused);
}

pub(super) const NO_CACHES: SwitchConfig = SwitchConfig { n_sessions: 0, n_megaflows: 0 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Caches of any size and batches of any length: the same bytes out, the same drops,
    /// the same counters, while rules change and time passes.
    #[test]
    fn caches_and_batches_change_nothing(
        rules in random::rules(),
        events in events(),
        starve in 0_usize..4,
        third in 0_usize..3,
    ) {
        let plain = observe(NO_CACHES, 1, starve, &rules, &events);
        // A third of the ways for each case: each size with one batch, each batch with two sizes.
        let sizes = [(0, 0), (0, 64), (64, 64), (4, 2), (1 << 10, 1 << 10), (64, 1)];
        for (idx, (n_sessions, n_megaflows)) in sizes.into_iter().enumerate() {
            let n_batch = [1, 7, 50][(idx + third) % 3];
            let config = SwitchConfig { n_sessions, n_megaflows };
            prop_assert_eq!(&observe(config, n_batch, starve, &rules, &events), &plain, "{:?} batch {}", config, n_batch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever key a received packet can have: if an installed entry's mask lets it in,
    /// the entry's program is the one that translating the packet gives.
    #[test]
    fn installed_entries_are_right_for_all_they_let_in(
        rules in random::rules(),
        keys in prop::collection::vec(random::key(), 1..40),
        noise in prop::collection::vec(crate::testing::frame_key(), 64),
    ) {
        let snapshot = snapshot(1, &rules);
        let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
        for key in &keys {
            let frame = build::frame_from_key(key, 0);
            send(&mut switch, &snapshot, key.in_port.get(), std::slice::from_ref(&frame));
        }
        for dump in switch.megaflows().into_iter().filter(|dump| !dump.is_stale) {
            for (idx, noise) in noise.iter().enumerate() {
                let other = if idx % 2 == 0 { noise } else { &keys[idx % keys.len()] };
                let mut key = dump.key;
                for ((word, mask), other) in key.words_mut().iter_mut().zip(dump.mask.words()).zip(other.words()) {
                    *word |= other & !mask;
                }
                // What stands behind a recirculation is part of what the entry compares.
                let frozen = switch.frozen_ids.get(key.recirc_id.get());
                let translated = match frozen {
                    Some(frozen) => {
                        frozen.restore(&mut key);
                        // What the tracker says is put in after that.
                        let compared = dump.key.words().iter().zip(dump.mask.words());
                        for (word, (value, mask)) in key.words_mut().iter_mut().zip(compared) {
                            *word = *word & !mask | value;
                        }
                        pipeline::translate_frozen(&snapshot, &key, frozen, &mut NoTrace).program
                    }
                    None => pipeline::translate(&snapshot, &key, &mut NoTrace).program,
                };
                prop_assert_eq!(&translated.emits, &dump.program.emits);
                prop_assert_eq!(translated.drop.map(|cause| cause.reason), dump.program.drop.as_ref().map(|cause| cause.reason));
            }
        }
    }

    /// The parser leaves everything zero that entries do not compare.
    #[test]
    fn received_keys_have_only_received_bits(key in crate::testing::frame_key()) {
        let (_, key) = crate::testing::parsed(&build::frame_from_key(&key, 0));
        prop_assert!(crate::cache::can_be_received(&key));
    }
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.all_bits() }
}

pub(super) fn send(switch: &mut Switch, snapshot: &Arc<Snapshot>, raw: u32, frames: &[Vec<u8>]) -> Collector {
    let mut sink = Collector::default();
    let mut batch = frames.iter().map(|frame| build::packet(frame, port(raw))).collect();
    switch.process(Timestamp::from_nanos(1), snapshot, port(raw), &mut batch, &mut sink);
    sink
}

/// Rules by source and destination in different tables, so that there are several shapes.
fn several_shapes() -> Vec<Rule> {
    let ip = || Match::any().with(Field::EthType, 0x0800);
    let next = Action::Resubmit { port: None, table: Some(random::table(1)) };
    vec![
        rule(0, 2, ip().with(Field::NwProto, 6).with(Field::TcpDst, 1), vec![]),
        rule(0, 1, Match::any(), vec![next]),
        rule(1, 2, ip().with(Field::NwDst, 0x0a00_0002), vec![Action::Output(port(2))]),
        rule(1, 1, Match::any(), vec![Action::Output(port(3))]),
    ]
}

#[test]
fn a_conversation_goes_from_miss_to_key_to_signature() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let snapshot = snapshot(1, &several_shapes());
    let (a, b) = (Host::v4(1), Host::v4(2));
    let (udp, tcp) = (build::udp(&a, &b, b"x"), build::tcp(&a, &b, 2, b""));
    let sink = send(&mut switch, &snapshot, 1, &[udp.clone(), tcp.clone(), udp.clone()]);
    assert_eq!(sink.out, [(port(2), udp.clone()), (port(2), tcp), (port(2), udp.clone())]);
    let counters = switch.counters();
    assert_eq!((counters.n_misses, counters.n_megaflow_hits, counters.n_session_hits), (2, 1, 0));
    for _ in 0..2 {
        send(&mut switch, &snapshot, 1, std::slice::from_ref(&udp));
    }
    let counters = switch.counters();
    assert_eq!((counters.n_misses, counters.n_megaflow_hits, counters.n_session_hits), (2, 3, 0));
    assert_eq!((switch.n_sessions(), switch.n_megaflows()), (0, 2));
}

#[test]
fn where_a_port_has_many_masks_conversations_have_sessions() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    // A mask for each prefix of the destination.
    let ip = || Match::any().with(Field::EthType, 0x0800);
    let prefix = |n: u32| !0_u32 << (31 - n);
    let to = |n: u32| 1_u32 << (31 - n);
    let next = Action::Resubmit { port: None, table: Some(random::table(1)) };
    let mut rules = vec![rule(0, 0, Match::any(), vec![next])];
    rules.extend((0..10).map(|n| {
        let matching = ip().with_masked(Field::NwDst, to(n).into(), prefix(n).into());
        rule(1, 1 + n as u16, matching, vec![Action::Output(port(2 + n % 2))])
    }));
    let snapshot = snapshot(1, &rules);
    let host = |bits: u32| Host { ip: std::net::Ipv4Addr::from_bits(bits).into(), ..Host::v4(1) };
    let frames: Vec<_> = (0..10).map(|n| build::udp(&Host::v4(1), &host(to(n) | (n + 1)), b"x")).collect();
    let sent: Vec<_> = (0..10).map(|n| port(2 + n % 2)).zip(frames.iter().cloned()).collect();
    for _ in 0..4 {
        assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, sent);
    }
    assert!((8..=10).contains(&switch.n_sessions()), "{} sessions", switch.n_sessions());
    let before = switch.counters().n_session_hits;
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, sent);
    assert!(switch.counters().n_session_hits - before >= 8);
    // When their megaflows are gone, sessions lead nowhere.
    let later = Timestamp::from_nanos(11_000_000_000);
    let mut sink = Collector::default();
    switch.process(later, &snapshot, port(1), &mut Vec::<Packet<Vec<u8>>>::new(), &mut sink);
    assert_eq!(switch.n_megaflows(), 0);
    let n_misses = switch.counters().n_misses;
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, sent);
    assert_eq!(switch.counters().n_misses - n_misses, 10);
}

#[test]
fn an_entry_of_older_rules_is_never_used() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let rules = several_shapes();
    let frames =
        [build::udp(&Host::v4(1), &Host::v4(2), b"x"), build::tcp(&Host::v4(1), &Host::v4(2), 2, b"")];
    let old = snapshot(1, &rules);
    for _ in 0..4 {
        assert_eq!(send(&mut switch, &old, 1, &frames).out.len(), 2);
    }
    assert_eq!(switch.counters().n_megaflow_hits, 6, "both directions of the walk are cached");
    let denied = Rule { actions: vec![], ..rules[2].clone() };
    let new = snapshot(2, &[rules[0].clone(), rules[1].clone(), denied, rules[3].clone()]);
    let sink = send(&mut switch, &new, 1, &frames);
    assert_eq!((sink.out.len(), sink.n_released), (0, 2));
    assert_eq!(switch.counters().n_renewals, 2);
    // The old rules got what they carried before, the new ones only what came after.
    switch.flush_stats();
    let n_packets = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot.tables.rules().map(|rule| rule.stats.get().0).collect()
    };
    assert_eq!(n_packets(&old), [0, 8, 8, 0]);
    assert_eq!(n_packets(&new), [0, 2, 2, 0]);
    assert!(switch.megaflows().iter().all(|dump| dump.epoch == new.epoch));
}

#[test]
fn what_signatures_do_not_say_is_looked_at_in_the_key() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let rules = [
        rule(0, 2, tcp.with_masked(Field::TcpFlags, 2, 2), vec![]),
        rule(0, 1, Match::any(), vec![Action::Output(port(2))]),
    ];
    let snapshot = snapshot(1, &rules);
    let (a, b) = (Host::v4(1), Host::v4(2));
    let (syn, ack) = (build::tcp(&a, &b, 2, b""), build::tcp(&a, &b, 0x10, b""));
    let udp = build::udp(&a, &b, b"");
    for _ in 0..4 {
        let sink = send(&mut switch, &snapshot, 1, &[ack.clone(), syn.clone(), udp.clone()]);
        assert_eq!(sink.out, [(port(2), ack.clone()), (port(2), udp.clone())]);
    }
    assert_eq!(switch.n_sessions(), 0);
}

#[test]
fn masks_beyond_the_cap_become_wider_and_stay_right() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    // Each prefix of the destination and the source makes masks of its own.
    let ip = || Match::any().with(Field::EthType, 0x0800);
    let mut rules = vec![rule(0, 0, Match::any(), vec![Action::Output(port(2))])];
    for n in 0..30_u32 {
        let mask = !0_u32 << n;
        let deny = |field, value: u32| {
            rule(0, 1 + n as u16, ip().with_masked(field, (value & mask).into(), mask.into()), vec![])
        };
        rules.push(deny(Field::NwSrc, 0xc0a8_0000 ^ 1 << n));
        rules.push(deny(Field::NwDst, 0xac10_0000 ^ 1 << n));
    }
    let snapshot = snapshot(1, &rules);
    let frames: Vec<_> = (0..3000_u32)
        .map(|n| {
            let spread = n.wrapping_mul(0x9e37_79b9);
            let host = |bits: u32| Host { ip: std::net::Ipv4Addr::from_bits(bits).into(), ..Host::v4(1) };
            let near = |base: u32, by: u32| base ^ (1 << (by % 32)) ^ ((by >> 8) % 7);
            build::udp(&host(near(0xc0a8_0000, spread)), &host(near(0xac10_0000, spread >> 7)), b"")
        })
        .collect();
    let mut plain = Switch::with_seed(NO_CACHES, 1);
    let expected = send(&mut plain, &snapshot, 1, &frames).out;
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, expected);
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, expected);
    let mut masks: Vec<_> = switch.megaflows().iter().map(|dump| *dump.mask.words()).collect();
    masks.sort_unstable();
    masks.dedup();
    assert!((16..=17).contains(&masks.len()), "{} masks", masks.len());
}

#[test]
fn a_port_that_floods_evicts_its_own_entries() {
    let config = SwitchConfig { n_sessions: 64, n_megaflows: 64 };
    let mut switch = Switch::with_seed(config, 1);
    // The rule looks at the whole port: an entry for each.
    let udp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 17);
    let (src, dst) = (SubField::whole(Field::UdpSrc), SubField::new(Field::Reg0, 0, 16).unwrap());
    let rules = [rule(0, 1, udp, vec![Action::Move { src, dst }, Action::Output(port(3))])];
    let snapshot = snapshot(1, &rules);
    let from = |n: u16| build::udp(&Host { port: n, ..Host::v4(1) }, &Host::v4(2), b"");
    let quiet: Vec<_> = (100..120).map(from).collect();
    send(&mut switch, &snapshot, 2, &quiet);
    let n_misses = switch.counters().n_misses;
    for round in 0..10_u16 {
        send(&mut switch, &snapshot, 1, &(0..500).map(|n| from(1000 + round * 500 + n)).collect::<Vec<_>>());
    }
    assert_eq!(switch.n_megaflows(), 64);
    assert!(switch.counters().n_evictions > 1000);
    let n_flooded = switch.counters().n_misses;
    send(&mut switch, &snapshot, 2, &quiet);
    assert!(n_misses > 0 && switch.counters().n_misses == n_flooded, "the quiet port kept its entries");
}

#[test]
fn the_least_recently_used_entry_goes_first() {
    let mut switch = Switch::with_seed(SwitchConfig { n_sessions: 0, n_megaflows: 3 }, 1);
    let ip = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 17);
    let rules: Vec<_> = (1..9)
        .map(|n| rule(0, 1, ip.clone().with(Field::UdpSrc, n), vec![Action::Output(port(2))]))
        .collect();
    let snapshot = snapshot(1, &rules);
    let mut at = 0;
    let mut send = |n: u16| {
        at += 1;
        let frame = build::udp(&Host { port: n, ..Host::v4(1) }, &Host::v4(2), b"");
        let mut batch = vec![build::packet(&frame, port(1))];
        let n_misses = switch.counters().n_misses;
        let mut sink = Collector::default();
        switch.process(Timestamp::from_nanos(at), &snapshot, port(1), &mut batch, &mut sink);
        switch.counters().n_misses > n_misses
    };
    assert!([1, 2, 3].map(&mut send).iter().all(|missed| *missed));
    assert!(!send(1) && !send(3));
    assert!(send(4), "pushes out 2");
    assert!(!send(1) && !send(3) && !send(4));
    assert!(send(2));
}

#[test]
fn idle_entries_are_forgotten_and_counted() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let snapshot = snapshot(1, &several_shapes());
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"x");
    send(&mut switch, &snapshot, 1, std::slice::from_ref(&frame));
    assert_eq!(switch.n_megaflows(), 1);
    let mut sink = Collector::default();
    let later = Timestamp::from_nanos(11_000_000_000);
    switch.process(later, &snapshot, port(1), &mut Vec::<Packet<Vec<u8>>>::new(), &mut sink);
    assert_eq!(switch.n_megaflows(), 0);
    let carried: u64 = snapshot.tables.rules().map(|rule| rule.stats.get().0).sum();
    assert_eq!(carried, 2, "the two rules of the walk know of the packet");
}

#[test]
fn a_packet_crosses_a_tunnel_unchanged() {
    let (a, b) = (Host::v4(1), Host::v4(2));
    let send_rules = [rule(
        0,
        1,
        Match::any(),
        vec![
            Action::SetTunnel(77),
            set(Field::TunMetadata0, 0x0001_0002),
            set(Field::TunDst, PEER.to_bits().into()),
            Action::Output(port(TUNNEL)),
        ],
    )];
    let receive_rules = [rule(
        0,
        1,
        Match::any()
            .with(Field::InPort, TUNNEL.into())
            .with(Field::TunId, 77)
            .with(Field::TunSrc, LOCAL.to_bits().into())
            .with(Field::TunMetadata0, 0x0001_0002),
        vec![Action::Output(port(3))],
    )];
    let (here, mut there) = (snapshot(1, &send_rules), (*snapshot(1, &receive_rules)).clone());
    let underlay = Arc::make_mut(&mut there.underlay);
    underlay.tunnels[0].local = PEER.into();
    underlay.peers = [LOCAL.into()].into();
    let there = Arc::new(there);
    let (mut sender, mut receiver) =
        (Switch::with_seed(SwitchConfig::default(), 1), Switch::with_seed(SwitchConfig::default(), 1));
    let frames = [build::udp(&a, &b, b"x"), build::tcp(&a, &b, 2, b"hello"), build::arp(1, &a, &b)];
    for _ in 0..3 {
        let wire: Vec<_> = send(&mut sender, &here, 1, &frames).out;
        assert!(wire.iter().all(|(out, _)| *out == port(UPLINK)));
        let wire: Vec<_> = wire.into_iter().map(|(_, frame)| frame).collect();
        let delivered = send(&mut receiver, &there, UPLINK, &wire).out;
        assert_eq!(delivered, frames.clone().map(|frame| (port(3), frame)));
    }
    // What is not for the tunnel is the uplink's drop, with a name.
    send(&mut receiver, &there, UPLINK, &frames[..1]);
    let drops = receiver.drops();
    assert_eq!((drops[0].in_port, drops[0].reason), (port(UPLINK), DropReason::TunnelNotForUs));
    assert_eq!(receiver.port_counters(port(UPLINK)).rx_packets, 10);
}

#[test]
fn partial_checksums_are_noticed_where_the_port_says_so() {
    let rules = [rule(0, 1, Match::any(), vec![Action::Output(port(2))])];
    let mut snapshot = (*snapshot(1, &rules)).clone();
    let mut info = snapshot.ports.get(port(1)).cloned().unwrap();
    info.partial_checksums = true;
    Arc::make_mut(&mut snapshot.ports).insert(port(1), info);
    let snapshot = Arc::new(snapshot);
    struct Partial(Vec<bool>);
    impl Sink<Vec<u8>> for Partial {
        fn output(&mut self, _: PortNo, packet: Packet<Vec<u8>>) {
            self.0.push(packet.offload.csum_partial);
        }
        fn copy(&mut self, _: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
            None
        }
        fn release(&mut self, _: Packet<Vec<u8>>) {}
    }
    let whole = build::udp(&Host::v4(1), &Host::v4(2), b"x");
    let mut partial = whole.clone();
    let sum = crate::checksum::pseudo_ipv4(0x0a00_0001, 0x0a00_0002, 17, 9).fold();
    partial[14 + 20 + 6..][..2].copy_from_slice(&sum.to_be_bytes());
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    for (raw, expected) in [(1, vec![false, true]), (3, vec![false, false])] {
        let mut batch = [&whole, &partial].map(|frame| build::packet(frame, port(raw))).into();
        let mut sink = Partial(Vec::new());
        switch.process(Timestamp::default(), &snapshot, port(raw), &mut batch, &mut sink);
        assert_eq!(sink.0, expected);
    }
}

#[test]
fn rows_of_rules_that_are_gone_are_merged_not_lost() {
    let mut switch = Switch::with_seed(SwitchConfig { n_sessions: 0, n_megaflows: 0 }, 1);
    let frame = build::ethernet(MacAddr::BROADCAST, MacAddr::ZERO, 0x88b5, b"");
    let n = crate::stats::MAX_DROP_ROWS + 100;
    for epoch in 0..n {
        let snapshot = snapshot(epoch as u64, &[rule(0, 1, Match::any(), vec![])]);
        send(&mut switch, &snapshot, 1, std::slice::from_ref(&frame));
    }
    let drops = switch.drops();
    assert!(drops.len() <= crate::stats::MAX_DROP_ROWS);
    assert_eq!(drops.iter().map(|drop| drop.n_packets).sum::<u64>(), n as u64);
    assert!(drops.last().is_some_and(|drop| drop.rule.is_some()), "what comes now is named again");
}

#[test]
fn a_port_that_floods_the_controller_leaves_room_for_others() {
    use crate::flow::ToController;
    let to = ToController { max_len: 20, ..ToController::default() };
    let rules = [rule(0, 1, Match::any(), vec![Action::Controller(Box::new(to))])];
    let (snapshot, mut sink) = (snapshot(1, &rules), Collector::default());
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"some payload");
    let mut send = |switch: &mut Switch, raw: u32, n: usize| {
        let mut batch: Vec<_> = (0..n).map(|_| build::packet(&frame, port(raw))).collect();
        switch.process(Timestamp::from_nanos(0), &snapshot, port(raw), &mut batch, &mut sink);
    };
    send(&mut switch, 1, MAX_PORT_PUNTS + 10);
    send(&mut switch, 2, 1);
    let packet_ins = switch.take_packet_ins();
    assert_eq!(packet_ins.len(), MAX_PORT_PUNTS + 1);
    assert_eq!((&packet_ins[0].bytes[..], packet_ins[0].n_bytes), (&frame[..20], frame.len()));
    let counters = switch.counters();
    assert_eq!((counters.n_forwarded, counters.n_dropped), (MAX_PORT_PUNTS as u64 + 1, 10));
    assert!(switch.drops().iter().any(|row| row.reason == DropReason::PuntQueueFull && row.n_packets == 10));
    send(&mut switch, 1, 1);
    assert_eq!(switch.take_packet_ins().len(), 1);
}
