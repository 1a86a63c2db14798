//! Ranges and named sets under the caches.

use proptest::prelude::*;

use super::{tests::send, *};
use crate::{
    build::{self, Host},
    flow::Rule,
    pipeline::random::{self, rule, snapshot},
    port::PortTable,
    table::Change,
    text::{SetChangeKind, parse_actions, parse_match, parse_set_change},
    types::Epoch,
};

fn rules(texts: &[(&str, u16)]) -> Vec<Rule> {
    let ports = PortTable::default();
    let actions = parse_actions("output:2", &ports).unwrap();
    texts.iter().map(|(text, n)| rule(0, *n, parse_match(text, &ports).unwrap(), actions.clone())).collect()
}

fn changed(before: &Snapshot, kind: SetChangeKind, text: &str) -> Arc<Snapshot> {
    let change = Change::Set(parse_set_change(kind, text).unwrap());
    let tables = Arc::new(before.tables.transact(vec![change]).unwrap());
    let epoch = Epoch::new(before.epoch.get() + 1).unwrap();
    Arc::new(Snapshot { epoch, tables, ..before.clone() })
}

fn udp(src: u8, port: u16) -> Vec<u8> {
    build::udp(&Host::v4(src), &Host { port, ..Host::v4(9) }, b"")
}

#[test]
fn one_megaflow_covers_a_block_of_a_range() {
    let snapshot = snapshot(1, &rules(&[("udp,tp_dst=1000-2000", 1)]));
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let frames: Vec<_> = (1536..1792).map(|port| udp(1, port)).collect();
    let sent = frames.chunks(32).map(|frames| send(&mut switch, &snapshot, 1, frames).out.len());
    assert_eq!(sent.sum::<usize>(), frames.len());
    assert_eq!((switch.n_megaflows(), switch.counters().n_misses), (1, 1));
    for port in [999, 2001] {
        assert!(send(&mut switch, &snapshot, 1, &[udp(1, port)]).out.is_empty());
    }
    switch.flush_stats();
    assert_eq!(snapshot.tables.rules().next().unwrap().stats.get().0, frames.len() as u64);
}

#[test]
fn a_change_of_members_reaches_cached_packets_and_keeps_the_counters() {
    let first = snapshot(1, &rules(&[("ip,nw_src=$hosts", 1)]));
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let n_out = |switch: &mut Switch, snapshot: &Arc<Snapshot>| {
        [1, 4, 9].map(|host| send(switch, snapshot, 1, &[udp(host, 1), udp(host, 2)]).out.len())
    };
    assert_eq!(n_out(&mut switch, &first), [2, 2, 0]);
    assert_eq!(n_out(&mut switch, &first), [2, 2, 0]);
    let without = changed(&first, SetChangeKind::Remove, "hosts 10.0.0.1");
    assert_eq!(n_out(&mut switch, &without), [0, 2, 0]);
    let other = changed(&without, SetChangeKind::Insert, "hosts 10.0.0.8-10.0.0.9");
    assert_eq!(n_out(&mut switch, &other), [0, 2, 2]);
    switch.flush_stats();
    let stats = other.tables.rules().map(|rule| rule.stats.get().0).collect::<Vec<_>>();
    assert_eq!(stats, [4 + 4 + 2 + 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// With and without caches the same packets leave, while members come and go.
    #[test]
    fn caches_follow_the_members(
        rules in random::rules(),
        keys in prop::collection::vec(random::key(), 1..8),
        steps in prop::collection::vec((any::<usize>(), 0_u8..9), 1..60),
    ) {
        // Each has tables of its own, since meters remember what they have seen.
        let none = SwitchConfig { n_sessions: 0, n_megaflows: 0 };
        let [mut cached, mut plain] = [SwitchConfig::default(), none]
            .map(|config| (Switch::with_seed(config, 1), snapshot(1, &rules)));
        for (pick, kind) in steps {
            let key = &keys[pick % keys.len()];
            let frame = build::frame_from_key(key, 0);
            let [a, b] = [&mut cached, &mut plain].map(|(switch, current)| {
                if kind == 0 {
                    let text = format!("hosts 10.0.0.{}", pick % 8);
                    let member = crate::set::ValueRange::one(0x0a00_0000 + (pick % 8) as u128);
                    let hosts = current.tables.sets().iter().find(|set| set.name().as_str() == "hosts");
                    let is_there = hosts.is_some_and(|set| set.has_member(member));
                    let kind = if is_there { SetChangeKind::Remove } else { SetChangeKind::Insert };
                    *current = changed(current, kind, &text);
                }
                send(switch, current, key.in_port.get(), std::slice::from_ref(&frame)).out
            });
            prop_assert_eq!(a, b);
        }
    }
}
