//! Changes of groups and meters: what is refused, what stays, and what goes with them.

use super::*;
use crate::{
    meter::MeterConfig,
    port::PortTable,
    text::{parse_flow, parse_group, parse_meter},
    types::{BucketId, GroupId, MeterId, PortNo, Timestamp},
};

fn id(raw: u32) -> GroupId {
    GroupId::new(raw).unwrap()
}

fn add(text: &str) -> Change {
    Change::Group(GroupChange::Add(parse_group(text, &PortTable::default()).unwrap()))
}

fn modify(text: &str) -> Change {
    Change::Group(GroupChange::Modify(parse_group(text, &PortTable::default()).unwrap()))
}

fn meter(text: &str) -> MeterConfig {
    parse_meter(text).unwrap()
}

fn flow(text: &str) -> Change {
    Change::Add(parse_flow(text, &PortTable::default()).unwrap())
}

fn with(changes: Vec<Change>) -> Tables {
    Tables::default().transact(changes).unwrap()
}

fn refused(tables: &Tables, change: Change) -> RuleError {
    tables.transact(vec![change]).unwrap_err().reason
}

#[test]
fn a_group_comes_before_what_leads_to_it() {
    let empty = Tables::default();
    assert_eq!(refused(&empty, flow("actions=group:1")), GroupError::Missing(id(1)).into());
    assert_eq!(refused(&empty, flow("actions=clone(group:1)")), GroupError::Missing(id(1)).into());
    assert_eq!(refused(&empty, flow("actions=write_actions(group:1)")), GroupError::Missing(id(1)).into());
    assert_eq!(refused(&empty, add("group_id=2,type=all,bucket=group:1")), GroupError::Missing(id(1)).into());
    let meter_1 = MeterId::new(1).unwrap();
    assert_eq!(refused(&empty, flow("actions=meter:1")), RuleError::NoSuchMeter { id: meter_1 });
    // One transaction brings both, in this order only.
    let group = || add("group_id=1,type=all,bucket=output:1");
    let tables = with(vec![group(), flow("actions=group:1")]);
    assert_eq!((tables.len(), tables.n_references_to_group(id(1))), (1, 1));
    assert!(empty.transact(vec![flow("actions=group:1"), group()]).is_err());
    assert_eq!(refused(&tables, group()), GroupError::Exists(id(1)).into());
    assert_eq!(refused(&empty, modify("group_id=1,type=all")), GroupError::Missing(id(1)).into());
}

#[test]
fn a_refused_change_leaves_groups_as_they_were() {
    let tables = with(vec![add("group_id=1,type=all,bucket=output:1")]);
    let before = tables.clone();
    let changes = vec![modify("group_id=1,type=all"), flow("actions=group:9")];
    let error = tables.transact(changes).unwrap_err();
    assert_eq!((error.change, error.reason), (1, GroupError::Missing(id(9)).into()));
    assert_eq!(tables, before);
}

#[test]
fn groups_have_the_shape_of_their_type() {
    let empty = Tables::default();
    let refused_group = |text: &str| refused(&empty, add(text));
    assert_eq!(refused_group("group_id=1,type=indirect"), GroupError::NotOneBucket(0).into());
    assert_eq!(
        refused_group("group_id=1,type=indirect,bucket=output:1,bucket=output:2"),
        GroupError::NotOneBucket(2).into()
    );
    let first = BucketId::new(0).unwrap();
    assert_eq!(refused_group("group_id=1,type=ff,bucket=output:1"), GroupError::NotWatching(first).into());
    assert_eq!(
        refused_group("group_id=1,type=all,bucket=bucket_id:0,output:1,bucket=bucket_id:0,output:2"),
        GroupError::SameBucket(first).into()
    );
    assert_eq!(
        refused_group("group_id=1,type=select,fields(ip_src),bucket=output:1"),
        GroupError::FieldsWithoutHash.into()
    );
    let not_in_set = RuleError::NotInActionSet { action: "clone(output:1)".to_owned() };
    assert_eq!(refused_group("group_id=1,type=all,bucket=clone(output:1)"), not_in_set);
    assert!(matches!(
        refused_group("group_id=1,type=all,bucket=push_vlan:0x1,output:1"),
        RuleError::WrongTpid { .. }
    ));
    // Buckets do not know which packets come: what a packet lacks is left alone.
    with(vec![add("group_id=1,type=all,bucket=set_field:1->tcp_dst,dec_ttl,output:1")]);
}

#[test]
fn groups_never_lead_to_themselves() {
    let empty = Tables::default();
    assert_eq!(refused(&empty, add("group_id=1,type=all,bucket=group:1")), GroupError::Loop(id(1)).into());
    let chain = |from: u32| format!("group_id={from},type=all,bucket=group:{}", from + 1);
    let mut tables = with(vec![add("group_id=3,type=all,bucket=output:1")]);
    tables = tables.transact(vec![add(&chain(2)), add(&chain(1))]).unwrap();
    let back = "group_id=3,type=ff,bucket=watch_group:1,actions=output:1";
    assert_eq!(refused(&tables, modify(back)), GroupError::Loop(id(2)).into());
    // However it is built, a chain ends.
    let down = (1..100).rev().try_fold(with(vec![add("group_id=100,type=all")]), |tables, from| {
        tables.transact(vec![add(&chain(from))])
    });
    assert_eq!(down.unwrap_err().reason, GroupError::TooDeep.into());
    let singles: Vec<_> = (1..=100).map(|n| add(&format!("group_id={n},type=all"))).collect();
    let up = (1..100).try_fold(with(singles), |tables, from| tables.transact(vec![modify(&chain(from))]));
    assert_eq!(up.unwrap_err().reason, GroupError::TooDeep.into());
}

#[test]
fn a_group_takes_its_rules_along_but_not_other_groups() {
    let tables = with(vec![
        add("group_id=1,type=all,bucket=output:1"),
        add("group_id=2,type=all,bucket=group:1"),
        flow("priority=1,send_flow_rem,actions=clone(group:2)"),
        flow("priority=2,actions=write_actions(group:1)"),
        flow("priority=3,actions=output:1"),
    ]);
    let delete = |raw| Change::Group(GroupChange::Delete(id(raw)));
    assert_eq!(refused(&tables, delete(1)), GroupError::InUse(id(2)).into());
    let commit = tables.commit(vec![delete(2), delete(1), delete(77)], Timestamp::from_nanos(5)).unwrap();
    assert_eq!((commit.tables.len(), commit.tables.groups().count()), (1, 0));
    assert_eq!(commit.removed.len(), 1, "only one wanted it to be told");
    assert_eq!((commit.removed[0].reason, commit.removed[0].at.nanos()), (RemovedReason::GroupDelete, 5));
    let all = tables.transact(vec![Change::Group(GroupChange::DeleteAll)]).unwrap();
    assert_eq!((all.len(), all.groups().count()), (1, 0));
    let filter = Filter { out_group: Some(id(1)), ..Filter::default() };
    assert_eq!(tables.transact(vec![Change::Delete(filter)]).unwrap().len(), 2);
}

#[test]
fn buckets_come_and_go_and_keep_their_statistics() {
    let text = "group_id=1,type=all,bucket=output:1,bucket=output:2";
    let tables = with(vec![add(text)]);
    tables.group(id(1)).unwrap().buckets[1].stats.add(7, 700);
    let bucket = |raw, out| {
        let text = format!("group_id=1,type=all,bucket=bucket_id:{raw},output:{out}");
        parse_group(&text, &PortTable::default()).unwrap().buckets
    };
    let ids = |tables: &Tables| -> Vec<_> {
        tables.group(id(1)).unwrap().buckets.iter().map(|bucket| bucket.id.get()).collect()
    };
    let insert = |at, buckets| Change::Group(GroupChange::InsertBuckets { group: id(1), at, buckets });
    let remove = |which| Change::Group(GroupChange::RemoveBuckets { group: id(1), which });
    let known = |raw| BucketId::new(raw).unwrap();
    let grown = tables
        .transact(vec![
            insert(BucketPlace::First, bucket(10, 3)),
            insert(BucketPlace::Last, bucket(11, 3)),
            insert(BucketPlace::After(known(0)), bucket(12, 3)),
        ])
        .unwrap();
    assert_eq!(ids(&grown), [10, 0, 12, 1, 11]);
    assert_eq!(grown.group(id(1)).unwrap().bucket(known(1)).unwrap().stats.get(), (7, 700));
    assert_eq!(
        refused(&tables, insert(BucketPlace::Last, bucket(1, 3))),
        GroupError::SameBucket(known(1)).into()
    );
    let missing = GroupError::NoBucket { group: id(1), bucket: known(9) };
    assert_eq!(refused(&tables, remove(BucketChoice::Id(known(9)))), missing.into());
    let shrunk = |which| ids(&grown.transact(vec![remove(which)]).unwrap());
    assert_eq!(shrunk(BucketChoice::First), [0, 12, 1, 11]);
    assert_eq!(shrunk(BucketChoice::Last), [10, 0, 12, 1]);
    assert_eq!(shrunk(BucketChoice::Id(known(12))), [10, 0, 1, 11]);
    assert_eq!(shrunk(BucketChoice::All), [0; 0]);
    assert_eq!(ids(&tables), [0, 1], "the version before is as it was");
}

#[test]
fn meters_come_and_go_with_their_rules() {
    let text = "meter=1,pktps,burst,bands=type=drop,rate=1,burst_size=2";
    let tables = with(vec![Change::Meter(MeterChange::Add(meter(text))), flow("actions=meter:1,output:1")]);
    let meter_1 = MeterId::new(1).unwrap();
    assert_eq!(tables.n_rules_of_meter(meter_1), 1);
    tables.meter(meter_1).unwrap().measure(Timestamp::default(), PortNo::CONTROLLER, 100);
    let same = tables.transact(vec![Change::Meter(MeterChange::Modify(meter(text)))]).unwrap();
    assert_eq!(same.meter(meter_1).unwrap().stats(), (1, 100));
    assert_eq!(same, tables);
    let again = Change::Meter(MeterChange::Add(meter(text)));
    assert_eq!(refused(&tables, again), RuleError::Meter(MeterError::Exists(meter_1)));
    let delete = || Change::Meter(MeterChange::Delete(meter_1));
    assert_eq!(tables.transact(vec![delete()]).unwrap(), Tables::default());
    let grouped = tables.transact(vec![add("group_id=1,type=all,bucket=meter:1,output:1")]).unwrap();
    assert_eq!(refused(&grouped, delete()), RuleError::Meter(MeterError::InUse(id(1))));
    let mut wrong = meter(text);
    wrong.bands[0].rate = 0;
    assert_eq!(
        refused(&tables, Change::Meter(MeterChange::Set(wrong))),
        RuleError::Meter(MeterError::NoRate)
    );
}

#[test]
fn instructions_have_one_order() {
    let good = "actions=output:1,clear_actions,write_actions(output:2),write_metadata:1,goto_table:3";
    with(vec![flow(good)]);
    for (wrong, instruction) in [
        ("actions=clear_actions,output:1", "clear_actions"),
        ("actions=write_actions(output:1),clear_actions", "clear_actions"),
        ("actions=write_metadata:1,write_actions(output:1)", "write_actions"),
        ("actions=clear_actions,clear_actions", "clear_actions"),
        ("actions=clone(write_metadata:1)", "write_metadata"),
    ] {
        let reason = refused(&Tables::default(), flow(wrong));
        assert_eq!(reason, RuleError::InstructionOrder { instruction }, "{wrong}");
    }
    let nested = refused(&Tables::default(), flow("actions=write_actions(goto_table:3)"));
    assert!(matches!(nested, RuleError::NotInActionSet { .. }));
}
