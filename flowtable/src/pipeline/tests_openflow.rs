//! Tests of what OpenFlow adds to a walk: action sets, groups, meters, table misses.

use super::{
    random::{port, snapshot, table},
    *,
};
use crate::{
    drop::DropReason,
    field::Field,
    port::PortTable,
    table::{Change, GroupChange, MeterChange, MissPolicy, TableSettings, Tables},
    testing::rules_of,
    text::{parse_flow, parse_group, parse_key, parse_meter},
};

/// Ports 1 to 4, of which 4 is down; and the rules, groups and meters of these lines.
fn world(lines: &[&str]) -> Snapshot {
    let ports = PortTable::default();
    let change = |line: &&str| match line.split_once('=') {
        Some(("group_id", _)) => Change::Group(GroupChange::Add(parse_group(line, &ports).unwrap())),
        Some(("meter", _)) => Change::Meter(MeterChange::Add(parse_meter(line).unwrap())),
        _ => Change::Add(parse_flow(line, &ports).unwrap()),
    };
    let tables = Tables::default().transact(lines.iter().map(change).collect()).unwrap();
    Snapshot { tables: Arc::new(tables), ..(*snapshot(1, &[])).clone() }
}

fn key(text: &str) -> FlowKey {
    parse_key(text, &PortTable::default()).unwrap()
}

const TCP: &str = "in_port=1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1000,tp_dst=80";

fn walk(lines: &[&str]) -> Translation {
    translate(&world(lines), &key(TCP), &mut NoTrace)
}

fn ports(translation: &Translation) -> Vec<u32> {
    translation.program.emits.iter().map(|emit| emit.port.get()).collect()
}

fn reason(translation: &Translation) -> DropReason {
    translation.program.drop.as_ref().expect("it is dropped").reason
}

#[test]
fn the_action_set_is_executed_at_the_end_in_its_own_order() {
    let set = walk(&rules_of(include_str!("../../testdata/tables/action-set-order.flows")));
    assert_eq!(ports(&set), [3, 2]);
    let emit = &set.program.emits[1];
    assert_eq!(emit.vlan_pushes.len(), 1);
    assert!(emit.edits.iter().any(|edit| edit.field == Field::NwTtl && edit.value == 4));
    assert!(emit.edits.iter().any(|edit| edit.field == Field::EthDst));
    // The last output wins; a group wins over all.
    let lines =
        ["table=0,actions=write_actions(output:2),goto_table:1", "table=1,actions=write_actions(output:3)"];
    assert_eq!(ports(&walk(&lines)), [3]);
    let grouped = walk(&["group_id=1,type=all,bucket=output:2", "actions=write_actions(group:1,output:3)"]);
    assert_eq!(ports(&grouped), [2]);
}

#[test]
fn the_action_set_can_be_emptied_and_clones_do_not_reach_it() {
    let cleared = walk(&[
        "table=0,actions=write_actions(output:2),goto_table:1",
        "table=1,actions=clear_actions,write_actions(set_field:1->reg0)",
    ]);
    assert_eq!(reason(&cleared), DropReason::RuleDrop);
    let cloned =
        walk(&["table=0,actions=clone(resubmit(,1)),output:3", "table=1,actions=write_actions(output:2)"]);
    assert_eq!(ports(&cloned), [3]);
    let resubmitted =
        walk(&["table=0,actions=resubmit(,1),output:3", "table=1,actions=write_actions(output:2)"]);
    assert_eq!(ports(&resubmitted), [3, 2]);
    // A set that begins again and again ends all the same.
    let again = walk(&["actions=write_actions(resubmit(,0))"]);
    assert_eq!(reason(&again), DropReason::TooManyResubmits);
}

#[test]
fn actset_output_tells_where_the_set_leads() {
    let lines = |write: &str| {
        let first = format!("table=0,actions={write}goto_table:1");
        walk(&[
            "group_id=1,type=all,bucket=output:3",
            &first,
            "table=1,actset_output=2,actions=output:2",
            "table=1,actset_output=UNSET,actions=output:3",
        ])
    };
    assert_eq!(ports(&lines("")), [3]);
    assert_eq!(ports(&lines("write_actions(output:2),")), [2, 2]);
    assert_eq!(ports(&lines("write_actions(output:2,group:1),")), [3, 3]);
    assert_eq!(ports(&lines("clear_actions,write_actions(output:2,set_field:1->reg0),")), [2, 2]);
    assert_eq!(lines("").mask.get(Field::ActsetOutput), 0, "no packet is received with one");
}

#[test]
fn metadata_is_written_under_its_mask() {
    let lines = [
        "table=0,actions=set_field:0xff->metadata,write_metadata:0x120/0xff0,goto_table:1",
        "table=1,metadata=0x12f,actions=output:2",
    ];
    assert_eq!(ports(&walk(&lines)), [2]);
}

#[test]
fn every_bucket_of_all_gets_the_packet_as_it_was() {
    let lines = [
        "group_id=1,type=all,bucket=output:1,bucket=mod_dl_dst:02:00:00:00:00:09,output:2,bucket=output:3,output:2,bucket=drop",
        "actions=group:1,output:3",
    ];
    let all = walk(&lines);
    assert_eq!(ports(&all), [2, 2, 3], "port 1 is where it came from");
    assert_eq!(all.program.emits[0].edits.len(), 1);
    assert!(all.program.emits[1].edits.is_empty() && all.program.emits[2].edits.is_empty());
    assert_eq!(all.tally.groups.len(), 5, "the group and each bucket count it");
    let empty = walk(&["group_id=1,type=all", "actions=group:1"]);
    assert_eq!(reason(&empty), DropReason::RuleDrop);
}

#[test]
fn fast_failover_follows_ports_and_groups() {
    let lines = [
        "group_id=1,type=all,bucket=watch_port:4,actions=output:4",
        "group_id=2,type=ff,bucket=watch_port:4,actions=output:4,bucket=watch_group:1,actions=output:1,bucket=watch_port:3,actions=output:3",
        "actions=group:2",
    ];
    let mut world = world(&lines);
    let run = |world: &Snapshot| ports(&translate(world, &key(TCP), &mut NoTrace));
    assert_eq!(run(&world), [3]);
    let mut set_up = |raw, up| {
        let all = Arc::make_mut(&mut world.ports);
        let mut info = all.get(port(raw)).cloned().unwrap();
        info.up = up;
        all.insert(port(raw), info);
        world.clone()
    };
    let recovered = set_up(4, true);
    assert_eq!(run(&recovered), [4]);
    set_up(4, false);
    let dead = set_up(3, false);
    assert_eq!(reason(&translate(&dead, &key(TCP), &mut NoTrace)), DropReason::NoLiveBucket);
}

#[test]
fn a_selection_looks_at_what_it_hashes() {
    let lines = [
        "group_id=1,type=select,selection_method=hash,fields(ip_src),bucket=output:2,bucket=output:3",
        "group_id=2,type=select,bucket=output:2,bucket=watch_port:4,output:4",
        "ip,nw_dst=10.0.0.2,actions=group:1",
        "ip,nw_dst=10.0.0.3,actions=group:2",
    ];
    let selected = walk(&lines);
    assert_eq!(ports(&selected).len(), 1);
    assert_eq!(selected.mask.get(Field::NwSrc), 0xffff_ffff);
    assert_eq!((selected.mask.get(Field::TcpSrc), selected.mask.get(Field::TcpDst)), (0, 0));
    // One live bucket is no choice.
    let only = translate(&world(&lines), &key(&TCP.replace("0.0.2", "0.0.3")), &mut NoTrace);
    assert_eq!((ports(&only), only.mask.get(Field::NwSrc)), (vec![2], 0));
}

#[test]
fn groups_that_meet_again_by_resubmits_end() {
    let lines = ["group_id=1,type=all,bucket=resubmit(,0)", "actions=group:1"];
    assert_eq!(reason(&walk(&lines)), DropReason::DepthExceeded);
    let fan = "group_id=1,type=all,bucket=resubmit(,0),bucket=resubmit(,0)";
    assert_eq!(reason(&walk(&[fan, "actions=output:2,group:1"])), DropReason::DepthExceeded);
}

#[test]
fn a_meter_guards_what_follows_it_in_its_scope() {
    let meters = ["meter=1,bands=type=drop,rate=1", "meter=2,bands=type=drop,rate=1"];
    let run = |flow: &str| walk(&[meters[0], meters[1], flow]).program;
    let guards = |flow: &str| -> Vec<_> {
        let steps = run(flow).meters;
        steps.iter().map(|step| (step.meter.config().id.get(), step.emits.clone(), step.n_within)).collect()
    };
    assert_eq!(guards("actions=output:2,meter:1,output:3,output:2"), [(1, 1..3, 0)]);
    assert_eq!(guards("actions=clone(meter:1,output:2),meter:2,output:3"), [(1, 0..1, 0), (2, 1..2, 0)]);
    assert_eq!(
        guards("actions=meter:1,clone(meter:2,output:2),meter:2"),
        [(1, 0..1, 2), (2, 0..1, 0), (2, 1..1, 0)]
    );
    // A packet that is dropped has been measured all the same.
    assert_eq!(guards("actions=meter:1"), [(1, 0..0, 0)]);
    let many = format!("actions={}output:2", "meter:1,".repeat(MAX_METERS + 1));
    let program = run(&many);
    assert_eq!(program.drop.map(|cause| cause.reason), Some(DropReason::TooManyMeters));
    assert!(program.meters.is_empty());
}

#[test]
fn tables_say_what_a_miss_means() {
    let mut world = world(&["table=0,actions=goto_table:5", "table=7,actions=output:2"]);
    let run = |world: &Snapshot| translate(world, &key(TCP), &mut NoTrace);
    assert_eq!(reason(&run(&world)), DropReason::TableMiss);
    let mut with = |raw: u8, miss| {
        let settings = TableSettings { miss, ..TableSettings::default() };
        let tables = world.tables.transact(vec![Change::Table(table(raw), settings)]).unwrap();
        world.tables = Arc::new(tables);
        run(&world)
    };
    assert_eq!(reason(&with(5, MissPolicy::Continue)), DropReason::TableMiss);
    let through = with(6, MissPolicy::Continue);
    assert_eq!((ports(&through), through.tally.misses), (vec![2], vec![table(5), table(6)]));
    let last = walk(&["table=0,actions=goto_table:254"]);
    assert_eq!(last.tally.misses, [table(254)]);
    assert_eq!(with(254, MissPolicy::Continue).program.emits.len(), 1);
}
