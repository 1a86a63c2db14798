//! Tests of packets that wait for a controller, and of those it sends.

use super::{tests::Collector, *};
use crate::{
    build::{self, Host},
    conntrack::{Config, Storage},
    drop::DropReason,
    field::Field,
    flow::{Match, PuntReason},
    key::ct_state,
    pipeline::random::{self, port},
    port::PortTable,
    table::{Change, MeterChange, Tables},
    text::{parse_actions, parse_flow, parse_meter},
};

fn world(lines: &[&str]) -> Arc<Snapshot> {
    let ports = PortTable::default();
    let change = |line: &&str| match line.starts_with("meter") {
        true => Change::Meter(MeterChange::Add(parse_meter(line).unwrap())),
        false => Change::Add(parse_flow(line, &ports).unwrap()),
    };
    let tables = Tables::default().transact(lines.iter().map(change).collect()).unwrap();
    Arc::new(Snapshot { tables: Arc::new(tables), ..(*random::snapshot(1, &[])).clone() })
}

fn switch() -> Switch {
    Switch::with_seed(SwitchConfig::default(), 1)
}

fn udp() -> Vec<u8> {
    build::udp(&Host::v4(1), &Host::v4(2), b"x")
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn send(switch: &mut Switch, snapshot: &Arc<Snapshot>, frame: &[u8]) -> Vec<u32> {
    let mut sink = Collector::default();
    let mut batch = vec![build::packet(frame, port(1))];
    switch.process(at(1), snapshot, port(1), &mut batch, &mut sink);
    sink.out.iter().map(|(port, _)| port.get()).collect()
}

/// Where the packet goes on, or what is wrong.
fn resume(
    switch: &mut Switch,
    snapshot: &Arc<Snapshot>,
    id: ContinuationId,
    metadata: &Match,
    frame: &[u8],
) -> Result<Vec<u32>, String> {
    let mut sink = Collector::default();
    let packet = build::packet(frame, PortNo::ZERO);
    let result = switch.resume(at(2), snapshot, (id, metadata), packet, &mut sink);
    result.map(|()| sink.out.iter().map(|(port, _)| port.get()).collect()).map_err(|error| error.to_string())
}

fn waiting(switch: &mut Switch) -> PacketIn {
    let mut packet_ins = switch.take_packet_ins();
    assert_eq!(packet_ins.len(), 1);
    packet_ins.remove(0)
}

#[test]
fn a_packet_goes_on_where_it_waited_with_all_that_it_had() {
    let lines = [
        "table=0,actions=load:5->reg3[],load:7->metadata[],push:in_port[],resubmit(,4),resubmit(,1),output:2",
        "table=4,actions=write_actions(output:3)",
        "table=1,actions=controller(userdata=00.01,pause,id=4),pop:reg0[0..15],resubmit(,2)",
        "table=2,reg3=5,metadata=7,reg0=1,in_port=1,actions=IN_PORT",
    ];
    let snapshot = world(&lines);
    let mut switch = switch();
    assert!(send(&mut switch, &snapshot, &udp()).is_empty(), "nothing happens before the answer");
    let packet_in = waiting(&mut switch);
    assert_eq!((packet_in.punt.to.controller, &packet_in.bytes[..]), (4, &udp()[..]));
    assert_eq!(packet_in.punt.metadata.get(Field::Reg3).0, 5);
    let id = packet_in.continuation.unwrap();
    // Table 2's rule, the output behind the resubmit of table 0, and the action set.
    let out = resume(&mut switch, &snapshot, id, &Match::any(), &udp());
    assert_eq!(out, Ok(vec![1, 2, 3]));
    let again = resume(&mut switch, &snapshot, id, &Match::any(), &udp());
    assert!(again.unwrap_err().contains("no packet waits"));
    let counters = switch.counters();
    assert_eq!((counters.n_packets, counters.n_forwarded, counters.n_injected), (1, 1, 1));
    assert_eq!(switch.injected_counters().rx_forwarded, 1);
    assert_eq!(switch.continuation_counters().n_resumed, 1);
}

#[test]
fn the_answer_may_change_frame_and_metadata_but_not_one_by_the_other() {
    let lines = [
        "table=0,actions=controller(pause),resubmit(,1)",
        "table=1,udp,reg0=1/1,actions=output:2",
        "table=1,tcp,actions=output:3",
        "table=1,priority=1,actions=drop",
    ];
    let snapshot = world(&lines);
    let mut switch = switch();
    let mut ask = |metadata: &Match, frame: &[u8]| {
        send(&mut switch, &snapshot, &udp());
        let id = waiting(&mut switch).continuation.unwrap();
        resume(&mut switch, &snapshot, id, metadata, frame)
    };
    assert_eq!(ask(&Match::any(), &udp()), Ok(vec![]));
    assert_eq!(ask(&Match::any().with_masked(Field::Reg0, 1, 1), &udp()), Ok(vec![2]));
    let tcp = build::tcp(&Host::v4(1), &Host::v4(2), 2, b"");
    assert_eq!(ask(&Match::any(), &tcp), Ok(vec![3]));
    let refused = ask(&Match::any().with(Field::NwDst, 5), &udp()).unwrap_err();
    assert!(refused.contains("is in the frame"), "{refused}");
    assert!(ask(&Match::any(), &[0; 5]).unwrap_err().contains("malformed"));
    let guess = resume(&mut switch, &snapshot, ContinuationId::new(77), &Match::any(), &udp());
    assert!(guess.is_err());
    // Three went on, and of these one was dropped by name.
    let injected = switch.injected_counters();
    assert_eq!((injected.rx_packets, injected.rx_forwarded, injected.rx_dropped), (3, 2, 1));
    let drops = switch.drops();
    assert_eq!((drops[0].in_port, drops[0].reason), (PortNo::CONTROLLER, DropReason::RuleDrop));
}

#[test]
fn within_a_clone_only_the_clone_waits() {
    let snapshot = world(&["actions=clone(controller(pause,max_len=20),output:3),output:2"]);
    let mut switch = switch();
    assert_eq!(send(&mut switch, &snapshot, &udp()), [2]);
    let packet_in = waiting(&mut switch);
    assert_eq!(packet_in.bytes, udp(), "who answers needs all of it");
    let id = packet_in.continuation.unwrap();
    assert_eq!(resume(&mut switch, &snapshot, id, &Match::any(), &udp()), Ok(vec![3]));
}

#[test]
fn a_waiting_packet_keeps_its_connection() {
    let lines = [
        "table=0,udp,actions=ct(commit,zone=9,exec(load:6->ct_mark[]),table=1)",
        "table=1,ct_state=+trk,actions=controller(pause),resubmit(,2)",
        "table=2,udp,ct_state=+new+trk,ct_zone=9,ct_mark=6,actions=ct(table=3,zone=9)",
        "table=3,ct_mark=6,actions=output:2",
    ];
    let snapshot = world(&lines);
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    let mut switch = switch().with_conntrack(tracker);
    assert!(send(&mut switch, &snapshot, &udp()).is_empty());
    let packet_in = waiting(&mut switch);
    let (state, _) = packet_in.punt.metadata.get(Field::CtState);
    assert_eq!(state as u16 & ct_state::TRK, ct_state::TRK);
    let id = packet_in.continuation.unwrap();
    assert_eq!(resume(&mut switch, &snapshot, id, &Match::any(), &udp()), Ok(vec![2]));
}

#[test]
fn a_meter_for_the_controller_spares_the_rest() {
    let lines = [
        "meter=5 pktps burst bands=type=drop rate=1 burst_size=2",
        "actions=controller(meter_id=5),output:2",
    ];
    let snapshot = world(&lines);
    let mut switch = switch();
    (0..10).for_each(|_| assert_eq!(send(&mut switch, &snapshot, &udp()), [2]));
    assert_eq!(switch.take_packet_ins().len(), 2);
    assert_eq!((switch.counters().n_forwarded, switch.counters().n_failed_copies), (10, 8));
}

#[test]
fn a_packet_out_does_what_it_says() {
    let snapshot = world(&["in_port=3,udp,actions=output:2", "in_port=CONTROLLER,actions=output:1"]);
    let mut switch = switch();
    let mut out = |in_port: PortNo, text: &str| {
        let actions = parse_actions(text, &PortTable::default()).unwrap();
        let mut sink = Collector::default();
        let packet = build::packet(&udp(), PortNo::ZERO);
        let result = switch.packet_out(at(1), &snapshot, (in_port, actions), packet, &mut sink);
        result
            .map(|()| sink.out.iter().map(|(port, _)| port.get()).collect::<Vec<_>>())
            .map_err(|e| e.to_string())
    };
    assert_eq!(out(PortNo::NONE, "output:2,output:3"), Ok(vec![2, 3]));
    assert_eq!(out(port(3), "output:TABLE"), Ok(vec![2]));
    assert_eq!(out(PortNo::CONTROLLER, "TABLE"), Ok(vec![1]));
    assert_eq!(out(port(1), "FLOOD"), Ok(vec![2, 3]));
    assert_eq!(out(port(1), "IN_PORT"), Ok(vec![1]));
    assert!(out(PortNo::NONE, "set_field:5->tcp_dst").unwrap_err().contains("`tcp_dst` needs"));
    assert_eq!(out(PortNo::NONE, "set_field:5->udp_dst,controller"), Ok(vec![]));
    let packet_in = waiting(&mut switch);
    assert_eq!((packet_in.punt.to.reason, packet_in.in_port), (PuntReason::PacketOut, PortNo::NONE));
    assert_eq!(switch.injected_counters().rx_packets, 6);
    assert_eq!(switch.counters().n_packets, 0);
}
