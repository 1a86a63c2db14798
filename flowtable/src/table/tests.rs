//! Transactions on the tables.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    field::{Field, Prerequisites, SubField},
    flow::{Action, Origin, RuleFlags, RuleStats},
    key::FlowKey,
    types::PortNo,
};

fn table(id: u8) -> TableId {
    TableId::new(id).unwrap()
}

fn priority(n: u16) -> Priority {
    Priority::new(n).unwrap()
}

fn output(port: u32) -> Vec<Action> {
    vec![Action::Output(PortNo::new(port).unwrap())]
}

fn rule(id: u8, n: u16, matching: Match, actions: Vec<Action>) -> Rule {
    Rule {
        table: table(id),
        priority: priority(n),
        matching,
        actions,
        cookie: 0,
        origin: Arc::new(Origin::default()),
        life: Default::default(),
        stats: Arc::new(RuleStats::default()),
    }
}

fn ip() -> Match {
    Match::any().with(Field::EthType, 0x0800)
}

fn refused(rule: Rule) -> RuleError {
    Tables::default().transact(vec![Change::Add(rule)]).unwrap_err().reason
}

#[test]
fn the_empty_transaction_changes_nothing() {
    let tables = Tables::default().transact(vec![Change::Add(rule(3, 1, ip(), output(1)))]).unwrap();
    assert_eq!(tables.transact(vec![]).unwrap(), tables);
    assert_eq!(Tables::default().transact(vec![]).unwrap(), Tables::default());
    assert_ne!(tables, Tables::default());
}

#[test]
fn statistics_stay_unless_they_are_reset() {
    let first = Tables::default().transact(vec![Change::Add(rule(0, 1, ip(), output(1)))]).unwrap();
    let stats = |tables: &Tables| tables.rules().next().unwrap().stats.get();
    first.rules().next().unwrap().stats.add(3, 300);

    let filter = Filter { matching: ip(), ..Filter::default() };
    let modified = first.transact(vec![Change::Modify { filter, actions: output(2) }]).unwrap();
    assert_eq!(stats(&modified), (3, 300));
    assert_eq!(modified.rules().next().unwrap().actions, output(2));
    // The version before is as it was, but both count together.
    assert_eq!(first.rules().next().unwrap().actions, output(1));
    modified.rules().next().unwrap().stats.add(1, 100);
    assert_eq!(stats(&first), (4, 400));

    let strict =
        Change::ModifyStrict { table: table(0), priority: priority(1), matching: ip(), actions: output(3) };
    let modified = modified.transact(vec![strict]).unwrap();
    assert_eq!((stats(&modified), modified.rules().next().unwrap().actions.clone()), ((4, 400), output(3)));

    let added = modified.transact(vec![Change::Add(rule(0, 1, ip(), output(1)))]).unwrap();
    assert_eq!((added.len(), stats(&added)), (1, (4, 400)));
    let mut reset = rule(0, 1, ip(), output(1));
    reset.life.flags = RuleFlags::RESET_COUNTS;
    assert_eq!(stats(&added.transact(vec![Change::Add(reset)]).unwrap()), (0, 0));
    assert_eq!(stats(&added), (4, 400));
}

#[test]
fn a_filter_takes_the_more_specific_and_its_cookies() {
    let host = ip().with(Field::NwDst, 0x0a00_0001);
    let with_cookie = |rule: Rule, cookie| Change::Add(Rule { cookie, ..rule });
    let tables = Tables::default()
        .transact(vec![
            with_cookie(rule(0, 1, ip(), vec![]), 0x10),
            with_cookie(rule(0, 2, host.clone(), vec![]), 0x11),
            with_cookie(rule(1, 2, host.clone(), vec![]), 0x20),
            with_cookie(rule(1, 0, Match::any(), vec![]), 0x21),
        ])
        .unwrap();
    let left = |filter| tables.transact(vec![Change::Delete(filter)]).unwrap().len();
    assert_eq!(left(Filter::default()), 0);
    assert_eq!(left(Filter { matching: ip(), ..Filter::default() }), 1);
    assert_eq!(left(Filter { matching: host.clone(), ..Filter::default() }), 2);
    assert_eq!(left(Filter { table: Some(table(1)), ..Filter::default() }), 2);
    assert_eq!(left(Filter { table: Some(table(9)), ..Filter::default() }), 4);
    assert_eq!(left(Filter { cookie: 0x10, cookie_mask: 0xf0, ..Filter::default() }), 2);
    assert_eq!(left(Filter { cookie: 0x10, cookie_mask: u64::MAX, ..Filter::default() }), 3);
    let strict =
        |id, n| Change::DeleteStrict { table: table(id), priority: priority(n), matching: host.clone() };
    assert_eq!(tables.transact(vec![strict(0, 2)]).unwrap().len(), 3);
    assert_eq!(tables.transact(vec![strict(0, 1), strict(7, 2)]).unwrap(), tables);
    assert_eq!(tables.transact(vec![Change::Clear]).unwrap(), Tables::default());
}

#[test]
fn a_refused_change_leaves_no_trace_and_is_named() {
    let good = rule(0, 1, ip(), output(1));
    let bad = rule(5, 7, ip(), vec![Action::GotoTable(table(5))]);
    let error = Tables::default().transact(vec![Change::Add(good), Change::Add(bad)]).unwrap_err();
    assert_eq!(
        (error.change, &error.reason),
        (1, &RuleError::GotoBackwards { from: table(5), to: table(5) })
    );
    assert!(error.rule.contains("table=5") && error.rule.contains("priority=7"), "{error}");
}

#[test]
fn matches_need_their_prerequisites_and_whole_fields() {
    let needs = |field, needs| RuleError::Prerequisites { field, needs };
    let refused_match = |m: Match| refused(rule(0, 1, m, vec![]));
    let dst = Match::any().with(Field::NwDst, 1);
    assert_eq!(refused_match(dst), needs(Field::NwDst, Prerequisites::Ipv4));
    assert_eq!(refused_match(ip().with(Field::TcpDst, 80)), needs(Field::TcpDst, Prerequisites::Tcp));
    assert_eq!(
        refused_match(Match::any().with_masked(Field::EthType, 8, 0xf8)),
        RuleError::NotMaskable { field: Field::EthType }
    );
    let tcp = ip().with(Field::NwProto, 6);
    for good in [
        tcp.clone().with_masked(Field::TcpDst, 80, 0xfff0),
        ip().with(Field::IpDscp, 10),
        ip().with(Field::NwTos, 0x28),
        Match::any().with(Field::VlanTci, 0),
        // The bits of a VLAN id are also bits of `vlan_tci`, which is always there.
        Match::any().with(Field::VlanVid, 5),
        Match::any().with_masked(Field::VlanTci, 0x1000, 0x1000),
        Match::any().with(Field::EthType, 0x0806).with(Field::ArpOp, 1).with(Field::ArpSpa, 7),
        Match::any().with(Field::Xxreg1, 5).with_masked(Field::CtLabel, 5, 0xff),
    ] {
        assert_eq!(check_match(&good), Ok(()), "{good:?}");
    }
}

#[test]
fn actions_are_checked() {
    let with = |actions| refused(rule(1, 1, ip(), actions));
    let set = |field, value, mask| Action::SetField { field, value, mask };
    let sub = |field, start, n_bits| SubField { field, start, n_bits };
    assert_eq!(with(vec![set(Field::EthType, 1, 0xffff)]), RuleError::NotWritable { field: Field::EthType });
    assert_eq!(with(vec![set(Field::Reg0, 1 << 40, 0xff)]), RuleError::WrongValue { field: Field::Reg0 });
    assert_eq!(with(vec![set(Field::Reg0, 0, 0)]), RuleError::WrongValue { field: Field::Reg0 });
    assert_eq!(
        with(vec![set(Field::TcpDst, 1, 0xffff)]),
        RuleError::Prerequisites { field: Field::TcpDst, needs: Prerequisites::Tcp }
    );
    let (src, dst) = (sub(Field::Reg0, 0, 16), sub(Field::Reg1, 0, 15));
    assert_eq!(with(vec![Action::Move { src, dst }]), RuleError::MoveWidths { src, dst });
    let dst = sub(Field::EthType, 0, 16);
    assert_eq!(with(vec![Action::Move { src, dst }]), RuleError::NotWritable { field: Field::EthType });
    let wide = sub(Field::Reg0, 30, 3);
    assert_eq!(with(vec![Action::OutputReg(wide)]), RuleError::WrongSubField { sub: wide });
    assert_eq!(with(vec![Action::GotoTable(table(2)), Action::DecTtl]), RuleError::GotoNotLast);
    assert_eq!(with(vec![Action::Clone(vec![Action::GotoTable(table(2))])]), RuleError::GotoNotLast);
    assert_eq!(with(vec![Action::PushVlan(0x0800)]), RuleError::WrongTpid { tpid: 0x0800 });
    assert_eq!(with(output(0)), RuleError::WrongPort { port: PortNo::ZERO });
    assert_eq!(
        refused(rule(0, 0, Match::any(), vec![Action::DecTtl])),
        RuleError::ActionPrerequisites { action: "dec_ttl", needs: Prerequisites::Ip }
    );
    let deep = (0..40).fold(vec![], |inner, _| vec![Action::Clone(inner)]);
    assert_eq!(with(deep), RuleError::TooDeep);
    assert_eq!(with(vec![Action::PopVlan; 20_000]), RuleError::TooManyActions);

    let vid = set(Field::VlanVid, 5, 0xfff);
    let needs_tag = RuleError::Prerequisites { field: Field::VlanVid, needs: Prerequisites::Vlan };
    assert_eq!(with(vec![vid.clone()]), needs_tag);
    assert_eq!(with(vec![Action::PushVlan(0x8100), Action::PopVlan, vid.clone()]), needs_tag);
    let good = vec![Action::PushVlan(0x8100), vid.clone(), Action::PushVlan(0x88a8), Action::PopVlan, vid];
    assert!(Tables::default().transact(vec![Change::Add(rule(0, 1, ip(), good))]).is_ok());
}

#[test]
fn untouched_tables_are_shared() {
    let tables = Tables::default()
        .transact((0..4).map(|id| Change::Add(rule(id, 1, ip(), output(1)))).collect())
        .unwrap();
    let next = tables.transact(vec![Change::Add(rule(2, 9, ip(), output(2)))]).unwrap();
    let shared: Vec<_> = tables.tables.iter().zip(&next.tables).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
    assert_eq!(shared, [true, true, false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any history of adds and deletes is the map it describes; the order of adds to
    /// different places does not matter.
    #[test]
    fn a_history_of_changes_is_the_map_it_describes(
        steps in proptest::collection::vec((0..3_u8, 0..3_u16, 0..4_u128, 0..5_u32), 0..60),
    ) {
        let mut tables = Tables::default();
        let mut model = BTreeMap::new();
        for (id, n, reg, port) in steps {
            let matching = Match::any().with(Field::Reg0, reg);
            let change = if port == 0 {
                model.remove(&(id, n, reg));
                Change::DeleteStrict { table: table(id), priority: priority(n), matching }
            } else {
                model.insert((id, n, reg), port);
                Change::Add(rule(id, n, matching, output(port)))
            };
            tables = tables.transact(vec![change]).unwrap();
        }
        let add = |((id, n, reg), port): (&(u8, u16, u128), &u32)| {
            Change::Add(rule(*id, *n, Match::any().with(Field::Reg0, *reg), output(*port)))
        };
        let at_once = Tables::default().transact(model.iter().rev().map(add).collect()).unwrap();
        prop_assert_eq!(&tables, &at_once);
        prop_assert_eq!(tables.len(), model.len());
        let place = |rule: &Arc<Rule>| (rule.table, std::cmp::Reverse(rule.priority));
        prop_assert!(tables.rules().map(place).is_sorted());
        let listed = |tables: &Tables| tables.rules().map(|rule| rule.to_string()).collect::<Vec<_>>();
        prop_assert_eq!(listed(&tables), listed(&at_once));
        for ((id, n, reg), port) in &model {
            let mut key = FlowKey::zero();
            key.set(Field::Reg0, *reg);
            let found = tables.lookup(table(*id), &mut Tracked::new(key)).unwrap();
            prop_assert!(found.priority.get() > *n || found.actions == output(*port));
        }
    }
}
