//! Tests of what happens where masks multiply: rules are compared with packets, and a port that
//! makes them multiply does not make others suffer.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{
    tests::{Event, NO_CACHES, observe, send},
    *,
};
use crate::{
    build::{self, Host},
    field::Field,
    flow::{Action, Match, Rule},
    pipeline::random::{port, rule, snapshot, table},
};

/// What an allowed port, network and host are told from.
const PORT: u16 = 443;
const NETWORK: u32 = 0x0a01_0000;
const HOST: u32 = 0x0a02_0304;

fn ip() -> Match {
    Match::any().with(Field::EthType, 0x0800)
}

/// Three rules that allow, and one that denies the rest.
fn three_allowed() -> Vec<Rule> {
    let to = |n| vec![Action::Output(port(n))];
    vec![
        rule(0, 30, ip().with(Field::NwProto, 6).with(Field::TcpDst, PORT.into()), to(2)),
        rule(0, 20, ip().with_masked(Field::NwSrc, NETWORK.into(), 0xffff_0000), to(3)),
        rule(0, 10, ip().with(Field::NwDst, HOST.into()), to(2)),
        rule(0, 1, Match::any(), vec![]),
    ]
}

fn host(bits: u32, port: u16) -> Host {
    Host { ip: Ipv4Addr::from_bits(bits).into(), port, ..Host::v4(1) }
}

/// A frame that differs from what is allowed, if at all, in one bit of each field.
fn near(n: u32) -> Vec<u8> {
    let flip = |bit: u32, width: u32| if bit < width { 1 << bit } else { 0 };
    let src = NETWORK ^ flip(n % 36, 32);
    let dst = HOST ^ flip(n / 36 % 36, 32);
    let port = PORT ^ flip(n / 1296 % 18, 16) as u16;
    build::tcp(&host(src, 1000), &host(dst, port), 2, b"")
}

#[test]
fn where_masks_multiply_few_packets_are_translated() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let snapshot = snapshot(1, &three_allowed());
    let mut plain = Switch::with_seed(NO_CACHES, 1);
    let frames: Vec<_> = (0..23_328_u32).map(|n| near(n.wrapping_mul(7919) % 23_328)).collect();
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, send(&mut plain, &snapshot, 1, &frames).out);
    assert!(switch.counters().n_misses < 50, "{} misses", switch.counters().n_misses);
    assert!(switch.n_megaflows() < 50);
    switch.flush_stats();
    let counted: Vec<_> = snapshot.tables.rules().map(|rule| rule.stats.get().0).collect();
    assert_eq!(counted.iter().sum::<u64>(), 2 * 23_328, "both switches count with the same rules");
    let sums = |switch: &Switch| switch.drops().iter().map(|drop| drop.n_packets).sum::<u64>();
    assert_eq!(sums(&switch), sums(&plain));
}

#[test]
fn rules_that_change_are_compared_anew() {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let mut rules = three_allowed();
    let frames: Vec<_> = (0..2_000).map(near).collect();
    for epoch in 1..6 {
        rules[epoch as usize % 4].actions = vec![Action::Output(port(2 + epoch as u32 % 3))];
        let snapshot = snapshot(epoch, &rules);
        let expected = send(&mut Switch::with_seed(NO_CACHES, 1), &snapshot, 1, &frames).out;
        assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, expected, "epoch {epoch}");
    }
}

/// The first packet of a rule may have already what the rule sets; the others have not.
#[test]
fn what_a_rule_sets_is_set_in_all_its_packets() {
    let set = |value| Action::SetField { field: Field::NwDst, value, mask: Field::NwDst.all_bits() };
    let mut rules = three_allowed();
    rules[3].actions = vec![set(u128::from(HOST ^ 1)), Action::Output(port(3))];
    let snapshot = snapshot(1, &rules);
    let mut frames: Vec<_> = (0..2_000).map(near).collect();
    // Masks have multiplied; then each first packet is one with that address.
    frames.insert(1_000, build::tcp(&host(1, 1000), &host(HOST ^ 1, 7), 2, b""));
    for from in [0, 999, 1_000] {
        let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
        let order = [&frames[from..], &frames[..from]].concat();
        let expected = send(&mut Switch::with_seed(NO_CACHES, 1), &snapshot, 1, &order).out;
        assert_eq!(send(&mut switch, &snapshot, 1, &order).out, expected, "from {from}");
    }
}

/// Fields that all fresh packets have alike are not zero in all of them.
#[test]
fn a_rule_that_wants_an_empty_action_set_is_compared() {
    let mut rules = three_allowed();
    let unset = u128::from(PortNo::UNSET.get());
    let wanted = ip().with(Field::NwProto, 6).with(Field::ActsetOutput, unset);
    rules.push(rule(0, 5, wanted, vec![Action::Output(port(3))]));
    let snapshot = snapshot(1, &rules);
    let frames: Vec<_> = (0..2_000).map(near).collect();
    let expected = send(&mut Switch::with_seed(NO_CACHES, 1), &snapshot, 1, &frames).out;
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    assert_eq!(send(&mut switch, &snapshot, 1, &frames).out, expected);
    assert!(switch.counters().n_misses < 50, "rules are not compared");
}

/// The victim keeps all that the caches know of it, so that its packets cost what they did
/// before: what an attacker on another port makes of masks, entries and sessions is its own.
#[test]
fn a_port_whose_masks_multiply_leaves_others_their_entries() {
    let config = SwitchConfig { n_sessions: 1 << 10, n_megaflows: 1 << 10 };
    let mut switch = Switch::with_seed(config, 1);
    // Too many rules to compare, so that the attacker has to be borne with.
    let mut rules = three_allowed();
    rules.extend((0..100).map(|n| rule(0, 5, ip().with(Field::NwDst, n), vec![])));
    let snapshot = snapshot(1, &rules);
    let victim: Vec<_> =
        (0..200).map(|n| build::udp(&host(NETWORK | n, 7), &host(HOST ^ n << 9, 9), b"")).collect();
    for _ in 0..4 {
        send(&mut switch, &snapshot, 2, &victim);
    }
    for round in 0..20 {
        let attack: Vec<_> = (0..1_000).map(|n| near(round * 1_000 + n)).collect();
        send(&mut switch, &snapshot, 1, &attack);
        let before = switch.counters();
        send(&mut switch, &snapshot, 2, &victim);
        let after = switch.counters();
        assert_eq!(after.n_misses, before.n_misses, "round {round}");
        let n_found = after.n_session_hits + after.n_megaflow_hits;
        assert_eq!(n_found - before.n_session_hits - before.n_megaflow_hits, 200);
    }
    assert!(switch.counters().n_misses > 5_000, "the attack did nothing");
}

/// Rules as access lists have them, and some whose actions look at the packet.
fn access_list() -> impl Strategy<Value = Vec<Rule>> {
    let len = prop::sample::select(vec![0_u32, 8, 13, 16, 24, 31, 32]);
    let network = (len.clone(), any::<u32>(), 0_u32..3);
    let one = (0_u16..6, network.clone(), network, 0_u32..4, 0_usize..9, 0_u32..5);
    prop::collection::vec(one, 1..9).prop_map(|list| {
        let mask = |len: u32| if len == 0 { 0 } else { u32::MAX << (32 - len) };
        let mut rules: Vec<_> = list
            .into_iter()
            .map(|(priority, (src_len, src_bit, _), (dst_len, dst_bit, kind), ports, act, extra)| {
                let (src, dst) = (NETWORK ^ (src_bit & 3) << 14, HOST ^ (dst_bit & 3) << 7);
                let mut matching = if extra == 4 { Match::any() } else { ip() };
                if extra < 3 {
                    let (src_mask, dst_mask) = (mask(src_len), mask(dst_len));
                    matching = matching
                        .with_masked(Field::NwSrc, (src & src_mask).into(), src_mask.into())
                        .with_masked(Field::NwDst, (dst & dst_mask).into(), dst_mask.into());
                }
                if ports == 1 && extra != 4 {
                    matching = matching
                        .with(Field::NwProto, 6)
                        .with(Field::TcpDst, u128::from(PORT) + u128::from(kind));
                }
                let to = |n| Action::Output(port(n));
                let set = Action::SetField { field: Field::EthDst, value: 7, mask: Field::EthDst.all_bits() };
                let actions = match act {
                    0 => vec![],
                    1 => vec![to(1)],
                    2 => vec![Action::DecTtl, to(2)],
                    3 => vec![set, to(3)],
                    4 => vec![Action::Resubmit { port: None, table: Some(table(1)) }],
                    5 => vec![to(2), to(3)],
                    6 => vec![Action::Output(PortNo::IN_PORT)],
                    _ => vec![to(2)],
                };
                rule(0, priority, matching, actions)
            })
            .collect();
        rules.push(rule(
            1,
            1,
            ip().with_masked(Field::NwSrc, NETWORK.into(), 0xffff_ff00),
            vec![Action::Output(port(3))],
        ));
        rules
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let step = (0_u8..60, any::<u32>(), 1_u32..3);
    prop::collection::vec(step, 1..250).prop_map(|steps| {
        let event = |(kind, n, from): (u8, u32, u32)| match kind {
            0 => Event::Change(n as usize),
            1 => Event::Wait(u64::from(n % 20) * 1_000_000_000),
            2 => Event::Frame(from, build::arp(1, &Host::v4(1), &Host::v4(2))),
            3 => Event::Frame(from, build::udp(&Host::v6(1), &Host::v6(2), b"x")),
            4 => Event::Frame(from, build::vlan(&near(n), 0x8100, 5)),
            _ => Event::Frame(from, near(n)),
        };
        steps.into_iter().map(event).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// As `caches_and_batches_change_nothing`, with rules and packets that make masks multiply.
    #[test]
    fn comparing_rules_changes_nothing(rules in access_list(), events in events()) {
        let plain = observe(NO_CACHES, 1, 0, &rules, &events);
        for (n_sessions, n_megaflows) in [(64, 64), (4, 5), (1 << 10, 1 << 10)] {
            for n_batch in [1, 50] {
                let config = SwitchConfig { n_sessions, n_megaflows };
                prop_assert_eq!(&observe(config, n_batch, 0, &rules, &events), &plain, "{:?} batch {}", config, n_batch);
            }
        }
    }
}
