//! Entries that are looked at for a version to come: those that stay right cost nothing then,
//! those that do not are never used again.

use super::{tests::Collector, *};
use crate::{
    build::{self, Host},
    pipeline::random::port,
    port::{PortInfo, PortRole, PortTable},
    quota::Quota,
    table::{Change, Tables},
    text::parse_flow,
    types::Epoch,
};

const N_FLOWS: u16 = 40;

fn tables(before: &Tables, lines: &[&str]) -> Tables {
    let add = |line: &&str| Change::Add(parse_flow(line, &PortTable::default()).unwrap());
    before.transact(lines.iter().map(add).collect()).unwrap()
}

/// The next version: a rule more.
fn next(current: &Arc<Snapshot>, lines: &[&str]) -> Arc<Snapshot> {
    let tables = Arc::new(tables(&current.tables, lines));
    Arc::new(Snapshot { epoch: current.epoch.next(), tables, ..(**current).clone() })
}

fn version(epoch: u64, tables: Tables) -> Arc<Snapshot> {
    let mut ports = PortTable::default();
    for raw in [1, 2] {
        let (name, role) = (format!("p{raw}"), PortRole::Workload);
        ports.insert(port(raw), PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false });
    }
    let (epoch, tables, ports) = (Epoch::new(epoch).unwrap(), Arc::new(tables), Arc::new(ports));
    Arc::new(Snapshot { epoch, tables, ports, ..Snapshot::default() })
}

/// A packet of each flow; answers how many left.
fn send(switch: &mut Switch, snapshot: &Arc<Snapshot>) -> usize {
    let frame = |n: u16| build::udp(&Host { port: 2000 + n, ..Host::v4(1) }, &Host::v4(2), &[]);
    let mut batch = (0..N_FLOWS).map(|n| build::packet(&frame(n), port(1))).collect();
    let mut sink = Collector::default();
    switch.process(Timestamp::default(), snapshot, port(1), &mut batch, &mut sink);
    sink.out.len()
}

fn warm(lines: &[&str]) -> (Switch, Arc<Snapshot>) {
    let mut switch = Switch::with_seed(SwitchConfig::default(), 1);
    let snapshot = version(1, tables(&Tables::default(), lines));
    for _ in 0..3 {
        assert_eq!(send(&mut switch, &snapshot), usize::from(N_FLOWS));
    }
    (switch, snapshot)
}

/// Looks at all entries, a few at a time.
fn look(switch: &mut Switch, current: &Snapshot, next: &Snapshot) {
    let n_looks = (1..).find(|_| switch.look_at_entries(Timestamp::default(), current, next, 7));
    assert!(n_looks.unwrap() <= 1 + switch.n_megaflows() / 7 * 2);
}

const EXACT: &str = "table=0,udp,actions=move:NXM_OF_UDP_SRC[]->NXM_NX_REG1[0..15],resubmit(,1)";

#[test]
fn a_change_elsewhere_costs_the_packets_nothing() {
    let tracked = "table=0,udp,ct_state=-trk,actions=ct(commit,table=1)";
    let others = "table=1,priority=50000,udp,nw_src=203.0.113.9,actions=drop";
    // Where no packet comes; where they come, and find the same as before.
    let changes = ["table=9,tcp", "table=1,udp,nw_src=203.0.113.1"];
    for (first, change) in
        [EXACT, tracked].into_iter().flat_map(|first| changes.map(|change| (first, change)))
    {
        let lines = [first, "table=1,udp,actions=output:2", others];
        let (mut switch, mut current) = warm(&lines);
        for n in 0..3 {
            let later = next(&current, &[&format!("{change},priority=4000{n},actions=drop")]);
            look(&mut switch, &current, &later);
            current = later;
            let before = switch.counters();
            assert_eq!(send(&mut switch, &current), usize::from(N_FLOWS));
            let after = switch.counters();
            let translated = |of: SwitchCounters| of.n_misses + of.n_renewals;
            assert_eq!(translated(after), translated(before), "{lines:?} {change}");
        }
        // Without a look, they are.
        let unseen = next(&current, &["table=9,priority=77,tcp,actions=drop"]);
        let before = switch.counters().n_renewals;
        send(&mut switch, &unseen);
        assert!(switch.counters().n_renewals > before);
    }
}

/// More than rules differs: entries are then translated.
#[test]
fn a_look_is_at_everything_that_has_changed() {
    let (mut switch, first) = warm(&[EXACT, "table=1,udp,actions=output:2"]);
    let mut ports = (*first.ports).clone();
    ports.remove(port(2));
    let later = Snapshot { epoch: first.epoch.next(), ports: Arc::new(ports), ..(*first).clone() };
    look(&mut switch, &first, &later);
    assert_eq!(send(&mut switch, &Arc::new(later)), 0);
}

#[test]
fn what_the_change_reaches_is_translated_again() {
    let (mut switch, first) = warm(&[EXACT, "table=1,udp,actions=output:2"]);
    let later = next(&first, &["table=1,priority=40000,udp,tp_src=2007,actions=drop"]);
    look(&mut switch, &first, &later);
    assert_eq!(send(&mut switch, &first), usize::from(N_FLOWS), "not before it is in force");
    assert_eq!(send(&mut switch, &later), usize::from(N_FLOWS) - 1);
    let dropped = switch.drops();
    assert_eq!(dropped.iter().map(|row| row.n_packets).sum::<u64>(), 1);
}

/// Versions are passed over when they come too fast: entries looked at for one of those are of no
/// other.
#[test]
fn an_entry_is_of_no_version_that_it_was_not_looked_at_for() {
    let (mut switch, first) = warm(&[EXACT, "table=1,udp,actions=output:2"]);
    let second = next(&first, &["table=9,tcp,actions=drop"]);
    look(&mut switch, &first, &second);
    let third = next(&second, &["table=1,priority=40000,udp,actions=drop"]);
    assert_eq!(send(&mut switch, &third), 0);
}

#[test]
fn quotas_refuse_by_name_what_is_above_them() {
    let (mut switch, first) = warm(&[EXACT, "table=1,udp,actions=output:2"]);
    let n_known = switch.n_megaflows();
    switch.set_quota(Quota { misses_per_second: 5, max_megaflows: n_known as u32, ..Quota::default() });
    let frame = |n: u16| build::udp(&Host { port: 9000 + n, ..Host::v4(1) }, &Host::v4(2), &[]);
    let mut batch = (0..20).map(|n| build::packet(&frame(n), port(1))).collect();
    let mut sink = Collector::default();
    switch.process(Timestamp::default(), &first, port(1), &mut batch, &mut sink);
    assert_eq!(sink.out.len(), 5);
    let drops = switch.drops();
    assert_eq!(
        (drops.len(), drops[0].reason, drops[0].n_packets),
        (1, crate::drop::DropReason::MissQuota, 15)
    );
    assert_eq!(switch.quota_counters().n_misses, 15);
    assert_eq!(switch.n_megaflows(), n_known, "a port at its limit loses its own");
    let counters = switch.counters();
    assert_eq!(counters.n_packets, counters.n_forwarded + counters.n_dropped);
}
