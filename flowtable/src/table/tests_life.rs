//! How rules begin and end: overlaps, limits, eviction, timeouts, and who is told.

use super::*;
use crate::{port::PortTable, text::parse_flow, types::Timestamp};

fn flow(text: &str) -> Change {
    Change::Add(parse_flow(text, &PortTable::default()).unwrap())
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn cookies(tables: &Tables) -> Vec<u64> {
    let mut cookies: Vec<_> = tables.rules().map(|rule| rule.cookie).collect();
    cookies.sort_unstable();
    cookies
}

fn told(commit: &Commit) -> Vec<(u64, RemovedReason)> {
    commit.removed.iter().map(|removed| (removed.rule.cookie, removed.reason)).collect()
}

#[test]
fn timeouts_end_rules_on_time() {
    let changes = vec![
        flow("cookie=1,priority=1,idle_timeout=10,send_flow_rem,actions=drop"),
        flow("cookie=2,priority=2,hard_timeout=15,send_flow_rem,actions=drop"),
        flow("cookie=3,priority=3,idle_timeout=10,hard_timeout=12,send_flow_rem,actions=drop"),
        flow("cookie=4,priority=4,idle_timeout=10,actions=drop"),
        flow("cookie=5,priority=5,send_flow_rem,actions=drop"),
    ];
    let tables = Tables::default().commit(changes, at(100)).unwrap().tables;
    assert_eq!(tables.next_expiry(), Some(at(110)));
    assert!(tables.expire(Timestamp::from_nanos(at(110).nanos() - 1)).is_none());
    let used = |cookie, secs| {
        tables.rules().find(|rule| rule.cookie == cookie).unwrap().stats.credit(1, 60, at(secs));
    };
    used(1, 105);
    used(3, 109);
    let first = tables.expire(at(110)).unwrap();
    assert_eq!((cookies(&first.tables), told(&first)), (vec![1, 2, 3, 5], vec![]), "nobody asked about 4");
    let second = first.tables.expire(at(112)).unwrap();
    assert_eq!(told(&second), [(3, RemovedReason::HardTimeout)]);
    assert_eq!(second.removed[0].at, at(112));
    let third = second.tables.expire(at(115)).unwrap();
    assert_eq!(told(&third), [(2, RemovedReason::HardTimeout), (1, RemovedReason::IdleTimeout)]);
    assert_eq!(third.removed[1].rule.stats.get(), (1, 60));
    assert_eq!(cookies(&third.tables), [5]);
    assert!(third.tables.expire(at(1_000_000)).is_none());
    assert_eq!(third.tables.next_expiry(), None);
}

#[test]
fn adding_again_begins_a_new_life_and_modifying_does_not() {
    let text = "cookie=1,idle_timeout=10,hard_timeout=20,actions=drop";
    let tables = Tables::default().commit(vec![flow(text)], at(0)).unwrap().tables;
    let modify = Change::Modify { filter: Filter::default(), actions: vec![] };
    let modified = tables.commit(vec![modify], at(9)).unwrap().tables;
    assert_eq!(modified.next_expiry(), Some(at(10)));
    let added = tables.commit(vec![flow(text)], at(9)).unwrap().tables;
    assert_eq!(added.next_expiry(), Some(at(19)));
    assert_eq!(added, tables, "it is the same rule, all the same");
}

#[test]
fn deletions_are_told_to_who_asked() {
    let tables = Tables::default()
        .transact(vec![
            flow("cookie=1,priority=1,send_flow_rem,actions=drop"),
            flow("cookie=2,priority=2,actions=drop"),
            flow("cookie=3,priority=3,idle_timeout=1,send_flow_rem,ip,actions=drop"),
        ])
        .unwrap();
    let delete = Change::DeleteStrict {
        table: TableId::FIRST,
        priority: Priority::new(1).unwrap(),
        matching: Match::any(),
    };
    assert_eq!(told(&tables.commit(vec![delete], at(1)).unwrap()), [(1, RemovedReason::Delete)]);
    for all in [Change::Clear, Change::Delete(Filter::default())] {
        let commit = tables.commit(vec![all], at(1)).unwrap();
        assert_eq!(commit.removed.len(), 2);
        assert!(commit.tables.is_empty() && commit.tables.expire(at(9)).is_none());
    }
}

#[test]
fn overlaps_are_found_when_asked_for() {
    let tables = Tables::default()
        .transact(vec![
            flow("priority=5,ip,nw_dst=10.0.0.0/8,actions=drop"),
            flow("priority=5,tcp,tp_dst=80,actions=drop"),
        ])
        .unwrap();
    let overlaps = |text: &str| match tables.transact(vec![flow(text)]) {
        Err(error) => matches!(error.reason, RuleError::Overlap { .. }),
        Ok(_) => false,
    };
    assert!(overlaps("check_overlap,priority=5,ip,nw_src=1.2.3.4,actions=drop"));
    assert!(overlaps("check_overlap,priority=5,ip,nw_dst=10.0.0.0/8,actions=drop"), "itself");
    assert!(overlaps("check_overlap,priority=5,actions=drop"));
    assert!(!overlaps("priority=5,ip,nw_src=1.2.3.4,actions=drop"));
    assert!(!overlaps("check_overlap,priority=6,ip,nw_src=1.2.3.4,actions=drop"));
    assert!(!overlaps("check_overlap,priority=5,udp,nw_dst=11.0.0.0/8,actions=drop"));
    assert!(!overlaps("check_overlap,priority=5,arp,actions=drop"));
}

fn limited(overflow: OverflowPolicy) -> Change {
    Change::Table(TableId::FIRST, TableSettings { max_rules: Some(2), overflow, ..TableSettings::default() })
}

#[test]
fn a_full_table_refuses_or_evicts() {
    let rules = || {
        vec![
            flow("cookie=1,priority=1,importance=5,actions=drop"),
            flow("cookie=2,priority=2,importance=3,hard_timeout=50,send_flow_rem,actions=drop"),
        ]
    };
    let third = || flow("cookie=3,priority=3,importance=4,actions=drop");
    let refusing = Tables::default().transact(vec![limited(OverflowPolicy::Refuse)]).unwrap();
    let refusing = refusing.transact(rules()).unwrap();
    let full = RuleError::TableFull { table: TableId::FIRST, max: 2 };
    assert_eq!(refusing.transact(vec![third()]).unwrap_err().reason, full);
    // Replacing needs no room, and other tables have their own.
    refusing.transact(vec![rules().remove(0), flow("table=1,actions=drop")]).unwrap();
    let evicting = refusing.transact(vec![limited(OverflowPolicy::Evict)]).unwrap();
    let commit = evicting.commit(vec![third()], at(1)).unwrap();
    assert_eq!((cookies(&commit.tables), told(&commit)), (vec![1, 3], vec![(2, RemovedReason::Eviction)]));
    let unimportant = flow("cookie=4,priority=4,importance=3,actions=drop");
    assert_eq!(commit.tables.transact(vec![unimportant]).unwrap_err().reason, full);
    // A limit below what is there.
    let unlimited = Tables::default().transact(rules()).unwrap().transact(vec![third()]).unwrap();
    assert_eq!(
        unlimited.transact(vec![limited(OverflowPolicy::Refuse)]).unwrap_err().reason,
        RuleError::TableFull { table: TableId::FIRST, max: 3 }
    );
    assert_eq!(cookies(&unlimited.transact(vec![limited(OverflowPolicy::Evict)]).unwrap()), [1, 3]);
}

#[test]
fn names_of_tables_are_theirs_alone() {
    let named = |raw, name: &str| {
        Change::Table(
            TableId::new(raw).unwrap(),
            TableSettings { name: name.to_owned(), ..Default::default() },
        )
    };
    let tables = Tables::default().transact(vec![named(1, "acl"), named(2, ""), named(3, "")]).unwrap();
    assert_eq!(tables.by_name("acl"), TableId::new(1).ok());
    assert_eq!(
        tables.transact(vec![named(2, "acl")]).unwrap_err().reason,
        RuleError::TableNameTaken { name: "acl".to_owned(), table: TableId::new(1).unwrap() }
    );
    let renamed = tables.transact(vec![named(1, ""), named(2, "acl")]).unwrap();
    assert_eq!(renamed.by_name("acl"), TableId::new(2).ok());
}
