//! Traces behind the tracker, and reasons why rules lost.

use std::sync::Arc;

use super::*;
use crate::{
    key::ct_state,
    port::{PortInfo, PortRole, PortTable},
    table::Tables,
    text::{ChangeKind, parse_change, parse_key, print_program},
    types::PortNo,
};

fn snapshot(rules: &[&str]) -> Snapshot {
    let mut ports = PortTable::default();
    for raw in 1..4 {
        let name = format!("p{raw}");
        let info = PortInfo { name, role: PortRole::Workload, up: true, mtu: 1500, partial_checksums: false };
        ports.insert(PortNo::new(raw).unwrap(), info);
    }
    let changes = rules.iter().map(|rule| parse_change(ChangeKind::Add, rule, &ports).unwrap()).collect();
    let tables = Tables::default().transact(changes).unwrap();
    Snapshot { tables: Arc::new(tables), ports: Arc::new(ports), ..Snapshot::default() }
}

fn traced(snapshot: &Snapshot, key: &str, options: &TraceOptions) -> Trace {
    let mut key = parse_key(key, &snapshot.ports).unwrap();
    key.in_port.set(1);
    trace_with(snapshot, &key, options)
}

const FIREWALL: &[&str] = &[
    "table=0,ip,actions=dec_ttl,load:7->NXM_NX_REG5[],ct(table=1,zone=4)",
    "table=1,ct_state=+new+trk,tcp,tp_dst=80,ct_zone=4,reg5=7,nw_ttl=63,actions=ct(commit,zone=4,table=2,exec(load:9->NXM_NX_CT_MARK[]))",
    "table=1,ct_state=+est+trk,ip,actions=output:2",
    "table=2,ct_mark=9,actions=output:3",
];

fn states(trace: &Trace) -> Vec<(u32, Option<u16>)> {
    trace.passes.iter().map(|pass| (pass.recirc_id, pass.assumed)).collect()
}

fn programs(trace: &Trace) -> Vec<String> {
    let later = trace.passes.iter().filter_map(|pass| pass.outcome.as_ref().ok());
    let all = [&trace.translation].into_iter().chain(later.map(|passed| &passed.translation));
    all.map(|translation| print_program(&translation.program)).collect()
}

#[test]
fn a_connection_is_new_unless_told_otherwise() {
    let (snapshot, new) = (snapshot(FIREWALL), Some(ct_state::TRK | ct_state::NEW));
    let trace = traced(&snapshot, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80", &TraceOptions::default());
    assert_eq!(states(&trace), [(1, new), (2, new)]);
    let programs = programs(&trace);
    assert!(programs[0].ends_with("ct(zone=4),recirc(0x1)"), "{programs:?}");
    assert!(programs[1].starts_with("ct(commit,zone=4,mark=0x9") && programs[1].ends_with("recirc(0x2)"));
    assert_eq!(programs[2], "3");
    assert!(trace.leaves());
}

#[test]
fn states_are_assumed_in_the_order_they_are_asked_for() {
    let (snapshot, est) = (snapshot(FIREWALL), ct_state::TRK | ct_state::EST);
    let options = TraceOptions { ct_next: vec![est], ..TraceOptions::default() };
    let trace = traced(&snapshot, "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2", &options);
    assert_eq!(states(&trace), [(1, Some(est))]);
    assert!(trace.passes[0].is_asked);
    assert_eq!(programs(&trace)[1], "2");
    let trace = traced(&snapshot, "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2", &TraceOptions::default());
    assert!(!trace.leaves() && !trace.passes[0].is_asked);
}

#[test]
fn the_original_tuple_of_an_answer_is_turned_round() {
    let snapshot = snapshot(&[
        "table=0,ip,ct_state=-trk,actions=ct(table=0)",
        "table=0,priority=9,ct_state=+rpl+trk,ct_nw_src=10.0.0.2,ct_nw_dst=10.0.0.1,ct_tp_src=80,ip,actions=output:2",
    ]);
    let options = TraceOptions {
        ct_next: vec![ct_state::TRK | ct_state::EST | ct_state::RPL],
        ..TraceOptions::default()
    };
    let trace = traced(&snapshot, "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80", &options);
    assert!(trace.leaves(), "{trace:?}");
}

#[test]
fn what_never_ends_is_cut_off_as_real_packets_are() {
    let snapshot = snapshot(&["ip,actions=ct(table=0)"]);
    let trace = traced(&snapshot, "udp", &TraceOptions::default());
    assert_eq!(trace.passes.len(), crate::pipeline::MAX_PASSES);
    assert!(matches!(trace.passes.last().unwrap().outcome, Err(DropReason::RecircLimit)));
    let snapshot = self::snapshot(&["ip,actions=ct(table=0),ct(table=0,zone=1),ct(table=0,zone=2)"]);
    let trace = traced(&snapshot, "udp", &TraceOptions::default());
    assert!(trace.n_omitted_passes > 0 && trace.passes.len() < 100);
}

fn lost(trace: &Trace) -> Vec<String> {
    let steps = trace.steps.iter().filter_map(|step| match &step.event {
        StepEvent::Lost(rule, reason) => Some(format!("{}: {reason}", rule.cookie)),
        StepEvent::Hit(_) | StepEvent::Miss(_) | StepEvent::Note(_) => None,
    });
    steps.collect()
}

#[test]
fn others_lost_for_a_reason() {
    let snapshot = snapshot(&[
        "cookie=1,priority=30,tcp,tp_dst=22,actions=drop",
        "cookie=2,priority=20,tcp,nw_dst=10.0.0.0/24,actions=output:2",
        "cookie=3,priority=10,ip,actions=output:3",
        "cookie=4,priority=5,arp,actions=flood",
        "cookie=5,priority=40,udp,nw_src=10.9.0.0/16,in_port=2,actions=drop",
    ]);
    let packet = "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80";
    assert!(lost(&traced(&snapshot, packet, &TraceOptions::default())).is_empty());
    let why = TraceOptions { why: true, ..TraceOptions::default() };
    assert_eq!(
        lost(&traced(&snapshot, packet, &why)),
        [
            "3: it matches, too, with the lower priority 10",
            "1: tcp_dst is 80, not 22",
            "5: in_port is 1, not 2, nw_src is 10.0.0.1, not 10.9.0.0/16, nw_proto is 6, not 17",
        ]
    );
    // Of a miss, all of them.
    assert_eq!(lost(&traced(&snapshot, "ipv6", &why)).len(), 5);
}

#[test]
fn asking_why_changes_nothing_else() {
    let snapshot = snapshot(FIREWALL);
    let packet = "tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80";
    let plain = traced(&snapshot, packet, &TraceOptions::default());
    let asked = traced(&snapshot, packet, &TraceOptions { why: true, ..TraceOptions::default() });
    assert_eq!(programs(&plain), programs(&asked));
    assert_eq!(plain.translation.mask, asked.translation.mask);
}
