//! Named sets in transactions.

use std::sync::Arc;

use super::*;
use crate::{
    field::Field,
    flow::Match,
    key::FlowKey,
    port::PortTable,
    set::{MAX_MEMBERS, SetName},
    text::{ChangeKind, SetChangeKind, parse_change, parse_match, parse_set_change},
};

fn flow(kind: ChangeKind, text: &str) -> Change {
    parse_change(kind, text, &PortTable::default()).unwrap()
}

fn add(text: &str) -> Change {
    flow(ChangeKind::Add, text)
}

fn set(kind: SetChangeKind, text: &str) -> Change {
    Change::Set(parse_set_change(kind, text).unwrap())
}

fn name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn refused(tables: &Tables, change: Change) -> String {
    tables.transact(vec![change]).unwrap_err().to_string()
}

fn hosts() -> Tables {
    let changes = vec![
        set(SetChangeKind::Add, "web-hosts type=ipv4 10.0.0.1,10.1.0.0/16,10.2.0.5-10.2.0.9"),
        set(SetChangeKind::Add, "ports type=port 80,443,1000-2000"),
        add("cookie=1,priority=9,tcp,nw_src=$web-hosts,tp_dst=$ports,actions=output:1"),
        add("cookie=2,priority=1,actions=drop"),
    ];
    Tables::default().transact(changes).unwrap()
}

fn hit(tables: &Tables, src: u32, port: u16) -> u64 {
    let mut key = FlowKey::zero();
    key.eth_type.set(0x0800);
    key.nw_proto = 6;
    key.nw_src.set(src);
    key.tp_dst.set(port);
    tables.lookup(TableId::FIRST, &mut Tracked::new(key)).unwrap().cookie
}

#[test]
fn members_come_and_go_and_rules_stay_as_they_are() {
    let tables = hosts();
    assert_eq!(tables.len(), 2, "a rule is one rule, whatever its sets hold");
    assert_eq!((hit(&tables, 0x0a01_0203, 443), hit(&tables, 0x0a03_0000, 443)), (1, 2));
    assert_eq!((hit(&tables, 0x0a02_0009, 1999), hit(&tables, 0x0a02_0009, 81)), (1, 2));
    tables.rules().next().unwrap().stats.add(3, 300);
    let more = tables
        .transact(vec![
            set(SetChangeKind::Insert, "web-hosts 10.3.0.0"),
            set(SetChangeKind::Remove, "web-hosts 10.1.0.0/16"),
            set(SetChangeKind::Insert, "ports 81"),
        ])
        .unwrap();
    assert_eq!((hit(&more, 0x0a01_0203, 443), hit(&more, 0x0a03_0000, 81)), (2, 1));
    assert_eq!((hit(&tables, 0x0a01_0203, 443), hit(&tables, 0x0a03_0000, 81)), (1, 2), "the version before");
    assert!(tables.rules().zip(more.rules()).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert!(tables.tables.iter().zip(&more.tables).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(more.rules().next().unwrap().stats.get(), (3, 300));
    assert_ne!(tables, more);
    let other = set(SetChangeKind::Replace, "web-hosts type=ipv4 10.9.0.0/16");
    let replaced = more.transact(vec![other]).unwrap();
    assert_eq!((hit(&replaced, 0x0a03_0000, 443), hit(&replaced, 0x0a09_0000, 443)), (2, 1));
    let emptied = more.transact(vec![set(SetChangeKind::Replace, "web-hosts type=ipv4")]).unwrap();
    assert_eq!(hit(&emptied, 0x0a03_0000, 443), 2, "an empty set lets nothing through");
}

#[test]
fn a_refused_change_of_a_set_changes_nothing() {
    let tables = hosts();
    for (kind, text, reason) in [
        (SetChangeKind::Add, "web-hosts type=ipv4", "exists already"),
        (SetChangeKind::Replace, "web-host type=ipv4", "did you mean `web-hosts`"),
        (SetChangeKind::Replace, "web-hosts type=ipv6", "of type ipv4"),
        (SetChangeKind::Insert, "web-hosts 80", "of type ipv4"),
        (SetChangeKind::Insert, "ports 70000", "more than 16 bits"),
        (SetChangeKind::Insert, "prots 80", "did you mean `ports`"),
        (SetChangeKind::Remove, "web-hosts 10.1.0.5", "no member 10.1.0.5"),
        (SetChangeKind::Delete, "nothing-like-it", "no set `nothing-like-it`"),
        (SetChangeKind::Delete, "ports", "rules name the set `ports`"),
    ] {
        let error = refused(&tables, set(kind, text));
        assert!(error.contains(reason), "{text}: {error}");
    }
    let half = vec![set(SetChangeKind::Insert, "web-hosts 10.9.9.9"), set(SetChangeKind::Delete, "ports")];
    assert_eq!(tables.transact(half).unwrap_err().change, 1);
    assert!(!tables.set(&name("web-hosts")).unwrap().contains(0x0a09_0909));
    assert_eq!(tables, hosts());
    let freed = tables.transact(vec![flow(ChangeKind::Delete, "tcp"), set(SetChangeKind::Delete, "ports")]);
    assert_eq!(freed.unwrap().sets().iter().count(), 1);
}

#[test]
fn a_rule_names_sets_that_are_there_and_suit() {
    let tables = hosts();
    for (text, reason) in [
        ("ip,nw_src=$web-host,actions=drop", "did you mean `web-hosts`"),
        ("ip,nw_src=$ports,actions=drop", "that needs: ipv4"),
        ("dl_src=$web-hosts,actions=drop", "that needs: mac"),
        ("tcp,tp_src=$web-hosts,actions=drop", "that needs: port"),
    ] {
        let error = refused(&tables, add(text));
        assert!(error.contains(reason), "{text}: {error}");
    }
    for kind in [ChangeKind::Delete, ChangeKind::DeleteStrict] {
        let error = refused(&tables, flow(kind, "table=0,ip,nw_src=$web-host"));
        assert!(error.contains("did you mean `web-hosts`"), "{error}");
    }
    let both = vec![add("arp,arp_spa=$late,actions=drop"), set(SetChangeKind::Add, "late type=ipv4")];
    assert_eq!(tables.transact(both.clone()).unwrap_err().change, 0);
    assert_eq!(tables.transact(both.into_iter().rev().collect()).unwrap().len(), 3);
}

#[test]
fn rules_with_ranges_and_sets_are_chosen_by_them() {
    let rules = [
        "cookie=1,tcp,tp_dst=1000-2000,actions=drop",
        "cookie=2,tcp,tp_dst=1500-1600,actions=drop",
        "cookie=3,tcp,tp_dst=1550,actions=drop",
        "cookie=4,tcp,nw_src=$web-hosts,actions=drop",
        "cookie=5,tcp,nw_src=$web-hosts,tp_dst=1500-1600,actions=drop",
        "cookie=6,udp,actions=drop",
    ];
    let base = hosts().transact(vec![Change::Clear]).unwrap();
    let tables = base.transact(rules.iter().map(|text| add(text)).collect()).unwrap();
    assert_eq!(tables.len(), rules.len());
    let left = |kind, text: &str| {
        let tables = tables.transact(vec![flow(kind, text)]).unwrap();
        let mut cookies: Vec<_> = tables.rules().map(|rule| rule.cookie).collect();
        cookies.sort_unstable();
        cookies
    };
    assert_eq!(left(ChangeKind::Delete, "tcp,tp_dst=1000-2000"), [4, 6]);
    assert_eq!(left(ChangeKind::Delete, "tcp,tp_dst=1500-1600"), [1, 4, 6]);
    assert_eq!(left(ChangeKind::Delete, "tcp,nw_src=$web-hosts"), [1, 2, 3, 6]);
    assert_eq!(left(ChangeKind::Delete, "tcp,tp_dst=0x400/0xfc00"), [1, 4, 6], "1024 to 2047");
    assert_eq!(left(ChangeKind::Delete, "tcp"), [6]);
    assert_eq!(left(ChangeKind::DeleteStrict, "table=0,tcp,tp_dst=1500-1600"), [1, 3, 4, 5, 6]);
    assert_eq!(
        left(ChangeKind::DeleteStrict, "table=0,tcp,nw_src=$web-hosts,tp_dst=1500-1600"),
        [1, 2, 3, 4, 6]
    );
    assert_eq!(left(ChangeKind::DeleteStrict, "table=0,tcp,tp_dst=1000-2001"), [1, 2, 3, 4, 5, 6]);
    let again = tables.transact(vec![add("cookie=7,tcp,tp_dst=1500-1600,actions=output:1")]).unwrap();
    assert_eq!(again.len(), rules.len(), "it replaces the one with the same range");
    assert_eq!(tables.rules_of_set(&name("web-hosts")).count(), 2);
    let overlaps =
        |text: &str| tables.transact(vec![add(&format!("check_overlap,{text},actions=drop"))]).is_err();
    assert!(overlaps("tcp,tp_dst=1999-3000") && overlaps("tcp,tp_dst=2001-3000"), "sets may hold anything");
    assert!(!overlaps("priority=5,tcp,tp_dst=1-5") && !overlaps("sctp,tp_dst=1000-2000"));
}

#[test]
fn rules_with_ranges_and_sets_are_modified_and_evicted() {
    let tables = hosts()
        .transact(vec![
            flow(ChangeKind::Modify, "tcp,nw_src=$web-hosts,actions=output:7"),
            flow(ChangeKind::ModifyStrict, "table=0,priority=1,actions=output:8"),
        ])
        .unwrap();
    let actions: Vec<_> = tables.rules().map(|rule| crate::text::print_actions(&rule.actions)).collect();
    assert_eq!(actions, ["output:7", "output:8"]);
    let strict = "table=0,priority=9,tcp,nw_src=$web-hosts,tp_dst=$ports,actions=output:9";
    let modified = tables.transact(vec![flow(ChangeKind::ModifyStrict, strict)]).unwrap();
    assert_eq!(crate::text::print_actions(&modified.rules().next().unwrap().actions), "output:9");
    let evict = TableSettings { max_rules: Some(2), overflow: OverflowPolicy::Evict, ..Default::default() };
    let full = tables.transact(vec![Change::Table(TableId::FIRST, evict)]).unwrap();
    let next = full.transact(vec![add("cookie=3,importance=5,tcp,tp_dst=7-9,actions=drop")]).unwrap();
    let again = next.transact(vec![add("cookie=4,importance=5,tcp,tp_dst=7-10,actions=drop")]).unwrap();
    let mut cookies: Vec<_> = again.rules().map(|rule| rule.cookie).collect();
    cookies.sort_unstable();
    assert_eq!(cookies, [3, 4], "the less important ones are gone");
}

#[test]
fn conjunctions_take_ranges_and_sets() {
    let tables = hosts()
        .transact(vec![
            Change::Clear,
            add("cookie=1,conj_id=7,actions=output:1"),
            add("tcp,nw_src=$web-hosts,actions=conjunction(7,1/2)"),
            add("tcp,tp_dst=5000-5010,actions=conjunction(7,2/2)"),
            add("tcp,tp_dst=$ports,actions=conjunction(7,2/2)"),
            add("cookie=2,priority=0,actions=drop"),
        ])
        .unwrap();
    assert_eq!((hit(&tables, 0x0a00_0001, 5005), hit(&tables, 0x0a00_0001, 443)), (1, 1));
    assert_eq!((hit(&tables, 0x0a00_0002, 5005), hit(&tables, 0x0a00_0001, 5011)), (2, 2));
}

#[test]
fn the_number_of_members_has_an_end() {
    use crate::set::MAX_PREFIXES;
    assert_eq!(set_change::check_size(MAX_MEMBERS, MAX_PREFIXES), Ok(()));
    assert_eq!(set_change::check_size(MAX_MEMBERS + 1, 0), Err(SetError::TooManyMembers));
    assert_eq!(set_change::check_size(1, MAX_PREFIXES + 1), Err(SetError::TooManyMembers));
    let set = crate::text::parse_set("a type=ipv6 ::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe").unwrap();
    assert_eq!((set.len(), set.n_prefixes()), (1, 254));
}

#[test]
fn matches_of_tables_are_those_of_text() {
    let tables = hosts();
    let matching = parse_match("tcp,nw_src=$web-hosts,tp_dst=$ports", &PortTable::default()).unwrap();
    let rule = tables.rules().find(|rule| rule.cookie == 1).unwrap();
    assert_eq!(rule.matching, matching);
    let mut key = FlowKey::zero();
    key.set(Field::EthType, 0x0800);
    key.set(Field::NwProto, 6);
    key.set(Field::NwSrc, 0x0a00_0001);
    key.set(Field::TcpDst, 80);
    assert!(matching.matches_with(&key, tables.sets()) && !matching.matches(&key));
    assert!(!Match::any().is_within(&matching) && matching.is_within(&Match::any()));
}
