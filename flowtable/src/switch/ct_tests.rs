//! The connection tracker as rules see it: passes, translation, books.

use std::sync::Arc;

use super::{Switch, SwitchConfig, tests::Collector};
use crate::{
    build::{self, Host},
    conntrack::{Config, Conntrack, Filter, Storage},
    drop::DropReason,
    packet::Packet,
    pipeline::random::{port, snapshot},
    port::PortTable,
    snapshot::Snapshot,
    testing::{assert_checksums, parsed, rules_of},
    text::{parse_flow, print_program},
    types::Timestamp,
};

/// A switch, and what leaves it.
pub(super) struct World {
    pub(super) switch: Switch,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) now: u64,
}

impl World {
    pub(super) fn new(rules: &[&str]) -> Self {
        let rules: Vec<_> =
            rules.iter().map(|text| parse_flow(text, &PortTable::default()).unwrap()).collect();
        let snapshot = snapshot(1, &rules);
        assert_eq!(snapshot.tables.len(), rules.len(), "all rules may be in tables");
        Self { switch: Switch::with_seed(SwitchConfig::default(), 1), snapshot, now: 0 }
    }

    /// Sends a frame three times, so that it is missed, found and found again; all must
    /// fare the same.
    pub(super) fn send(&mut self, raw: u32, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let first = self.send_once(raw, frame);
        for _ in 0..2 {
            assert_eq!(self.send_once(raw, frame), first);
        }
        first
    }

    pub(super) fn send_once(&mut self, raw: u32, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut sink = Collector::default();
        let mut batch: Vec<Packet<Vec<u8>>> = vec![build::packet(frame, port(raw))];
        self.now += 1000;
        self.switch.process(
            Timestamp::from_nanos(self.now),
            &self.snapshot,
            port(raw),
            &mut batch,
            &mut sink,
        );
        let counters = self.switch.counters();
        assert_eq!(counters.n_packets, counters.n_forwarded + counters.n_dropped);
        sink.out.iter().for_each(|(_, frame)| assert_checksums(frame));
        sink.out.into_iter().map(|(port, frame)| (port.get(), frame)).collect()
    }

    pub(super) fn n_connections(&self) -> usize {
        let tracker = self.switch.conntrack().unwrap();
        tracker.dump(Timestamp::from_nanos(self.now), &Filter::default()).len()
    }

    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        self.switch.drops().iter().map(|drop| (drop.reason, drop.n_packets)).collect()
    }
}

/// Port 1 may begin conversations with port 2, not the other way around.
const FIREWALL: &str = include_str!("../../testdata/tables/firewall.flows");

#[test]
fn a_stateful_firewall_lets_answers_in_and_nothing_else() {
    let mut world = World::new(&rules_of(FIREWALL));
    let (a, b) = (Host::v4(1), Host::v4(2));
    let (there, back) = (build::udp(&a, &b, b"x"), build::udp(&b, &a, b"y"));
    assert_eq!(world.send(2, &back), [], "nobody has asked");
    assert_eq!(world.n_connections(), 0);
    assert_eq!(world.send(1, &there), [(2, there.clone())]);
    assert_eq!(world.n_connections(), 1);
    assert_eq!(world.send(2, &back), [(1, back.clone())]);
    assert_eq!(world.send(1, &there), [(2, there.clone())]);
    let stranger = build::udp(&Host::v4(3), &a, b"");
    assert_eq!(world.send(2, &stranger), []);
    assert_eq!(world.drops(), [(DropReason::RuleDrop, 6)]);
    let counters = world.switch.counters();
    assert_eq!((counters.n_packets, counters.n_recirculations), (15, 15));
    // A second pass of the same kind is found in the caches.
    let n_megaflows = world.switch.n_megaflows();
    let other = build::udp(&Host { port: 9, ..a }, &b, b"");
    assert_eq!(world.send(1, &other).len(), 1);
    assert_eq!(world.switch.n_megaflows(), n_megaflows);
    let programs: Vec<_> = world.switch.megaflows().iter().map(|dump| print_program(&dump.program)).collect();
    assert!(programs.contains(&"ct(zone=7),recirc(0x1)".to_owned()), "{programs:?}");
    assert!(programs.contains(&"ct(commit,zone=7,mark=0x5/0xffffffff),2".to_owned()), "{programs:?}");
}

#[test]
fn a_load_balancer_translates_there_and_back() {
    let mut world = World::new(&[
        "table=0,priority=2,in_port=1,udp,nw_dst=10.0.0.99,actions=load:3->reg0,ct(commit,table=1,zone=1,nat(dst=10.0.0.2:53))",
        "table=0,priority=1,in_port=2,ip,actions=ct(table=1,zone=1,nat)",
        // The register is as it was, the address is the new one, the tuple the old one.
        "table=1,priority=2,reg0=3,ct_state=+dnat,ip,ct_nw_dst=10.0.0.99,nw_dst=10.0.0.2,udp,udp_dst=53,actions=output:2",
        "table=1,priority=2,reg0=0,ct_state=+est+rpl+snat,ip,nw_src=10.0.0.99,actions=output:1",
    ]);
    let (client, backend) = (Host::v4(1), Host { port: 53, ..Host::v4(2) });
    let service = Host { ip: [10, 0, 0, 99].into(), port: 5353, ..backend };
    let question = build::udp(&client, &service, b"?");
    assert_eq!(world.send(1, &question), [(2, build::udp(&client, &backend, b"?"))]);
    let answer = build::udp(&backend, &client, b"!");
    assert_eq!(world.send(2, &answer), [(1, build::udp(&service, &client, b"!"))]);
    assert_eq!(world.n_connections(), 1);
}

#[test]
fn actions_behind_a_translation_see_it_and_those_around_a_clone_do_not() {
    let mut world = World::new(&[
        "table=0,ip,actions=clone(ct(commit,zone=1,nat(src=10.0.0.50)),output:2),output:3,resubmit(,5)",
        "table=5,priority=1,ip,nw_src=10.0.0.1,actions=ct(commit,zone=2,nat(src=10.0.0.51)),resubmit(,6),output:2",
        "table=6,ip,nw_src=10.0.0.51,actions=output:3",
    ]);
    let (a, b) = (Host::v4(1), Host::v4(2));
    let from = |n: u8| build::udp(&Host { ip: [10, 0, 0, n].into(), ..a }, &b, b"x");
    assert_eq!(world.send(1, &from(1)), [(2, from(50)), (3, from(1)), (3, from(51)), (2, from(51))]);
}

#[test]
fn header_changes_before_the_tracker_count() {
    let mut world = World::new(&[
        "table=0,in_port=1,vlan_tci=0,ip,actions=set_field:10.0.0.7->nw_dst,push_vlan:0x8100,set_field:4196->vlan_vid,ct(commit,zone=1),ct(table=1,zone=1)",
        "table=1,ct_state=+new,vlan_tci=0x1064/0x1fff,ip,nw_dst=10.0.0.7,actions=pop_vlan,output:2",
    ]);
    let (a, b) = (Host::v4(1), Host::v4(2));
    let out = world.send(1, &build::udp(&a, &b, b"x"));
    assert_eq!(out, [(2, build::udp(&a, &Host { ip: [10, 0, 0, 7].into(), ..b }, b"x"))]);
    assert_eq!(world.n_connections(), 1);
    let original =
        world.switch.conntrack().unwrap().dump(Timestamp::from_nanos(1), &Filter::default())[0].original;
    assert_eq!(original.dst, 0x0a00_0007, "tracked as it was at that point");
}

#[test]
fn a_pass_keeps_stack_action_set_and_queue() {
    let mut world = World::new(&[
        "table=0,ip,actions=load:0x55->reg0,push:reg0[],load:0->reg0,set_queue:7,ct(table=1,zone=1),write_actions(set_field:10.0.0.9->nw_src,output:3)",
        "table=1,priority=2,ct_state=+trk,actions=pop:reg1[],resubmit(,2),clear_actions,write_actions(output:2)",
        "table=2,reg0=0,reg1=0x55,actions=output:3",
    ]);
    let (a, b) = (Host::v4(1), Host::v4(2));
    let frame = build::udp(&a, &b, b"x");
    let translated = build::udp(&Host { ip: [10, 0, 0, 9].into(), ..a }, &b, b"x");
    assert_eq!(world.send(1, &frame), [(3, frame.clone()), (2, frame.clone()), (3, translated.clone())]);
    let programs: Vec<_> = world.switch.megaflows().iter().map(|dump| print_program(&dump.program)).collect();
    assert!(programs.iter().any(|text| text.contains("queue(7)") && !text.contains("ct(")), "{programs:?}");
    // Written before the pass: executed behind it, once, after what is left of the actions.
    let mut world = World::new(&[
        "table=0,ip,actions=write_actions(output:3),goto_table:1",
        "table=1,ip,actions=ct(commit,zone=1,nat(src=10.0.0.9)),output:2",
    ]);
    assert_eq!(world.send(1, &frame), [(2, translated.clone()), (3, translated)]);
}

/// However often the rest of a clone is put aside: what it writes to the action set is not executed.
#[test]
fn the_action_set_of_a_clone_is_not_executed_behind_passes() {
    let mut world = World::new(&[
        "table=0,ip,actions=clone(ct(commit,zone=1,nat(src=10.0.0.9)),ct(commit,zone=2,nat(src=10.0.0.8)),resubmit(,1)),output:3",
        "table=1,ip,actions=write_actions(output:2)",
    ]);
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"x");
    assert_eq!(world.send(1, &frame), [(3, frame)]);
}

#[test]
fn a_loop_through_the_tracker_ends_under_its_name() {
    let mut world = World::new(&["table=0,ip,actions=ct(table=0)"]);
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"");
    assert_eq!(world.send(1, &frame), []);
    assert_eq!(world.drops(), [(DropReason::RecircLimit, 3)]);
    // And one that doubles at each turn.
    let mut world = World::new(&["table=0,ip,actions=ct(table=0,zone=1),ct(table=0,zone=2),output:2"]);
    let n_out = world.send(1, &frame).len();
    assert!((1..=64).contains(&n_out), "{n_out} copies");
}

#[test]
fn clearing_forgets_and_refusals_are_named() {
    let mut world = World::new(&[
        "table=0,ip,actions=ct(commit,table=1,zone=3)",
        "table=1,ct_state=+trk,actions=ct_clear,resubmit(,2)",
        "table=2,priority=2,ct_state=+trk,actions=output:2",
        "table=2,priority=1,ct_state=-trk,ct_zone=0,actions=output:3",
    ]);
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    tracker.set_zone_limit(Some(3), Some(1));
    world.switch = world.switch.with_conntrack(Arc::clone(&tracker));
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"");
    assert_eq!(world.send(1, &frame), [(3, frame.clone())]);
    assert_eq!(world.send(1, &build::udp(&Host::v4(4), &Host::v4(2), b"")), []);
    assert_eq!(world.drops(), [(DropReason::CtLimit, 3)]);
    assert_eq!(tracker.stats().n_limited, 3);
}

#[test]
fn the_other_fork_knows_of_no_connection() {
    for tracks in ["ct(commit,zone=4,table=3)", "ct(commit,zone=4)", "ct(commit,zone=4,nat(src=10.0.0.9))"] {
        let mut world = World::new(&[
            "table=0,ip,actions=ct(table=1)",
            &format!("table=1,ip,ct_state=+trk,actions={tracks},resubmit(,2)"),
            "table=2,priority=2,ct_state=+trk,actions=output:3",
            "table=2,priority=1,ct_state=-trk,ct_zone=0,actions=output:2",
        ]);
        let sent = world.send(1, &build::udp(&Host::v4(1), &Host::v4(2), b""));
        assert_eq!(sent.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [2], "{tracks}");
    }
}

/// Both directions at different workers, which share the tracker.
#[test]
fn two_workers_share_connections() {
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    let [mut one, mut other] = [(); 2].map(|()| {
        let world = World::new(&rules_of(FIREWALL));
        let switch = world.switch.with_conntrack(Arc::clone(&tracker));
        World { switch, ..World::new(&rules_of(FIREWALL)) }
    });
    let (a, b) = (Host::v4(1), Host::v4(2));
    let syn = build::tcp(&a, &b, 2, b"");
    assert_eq!(other.send(2, &build::tcp(&b, &a, 0x12, b"")), []);
    assert_eq!(one.send_once(1, &syn).len(), 1);
    let (_, key) = parsed(&syn);
    assert_eq!(key.tcp_flags.get(), 2);
    // The answer must acknowledge the SYN, whose number is 1.
    let mut syn_ack = build::tcp(&b, &a, 0x12, b"");
    let sum = u16::from_be_bytes([syn_ack[14 + 20 + 16], syn_ack[14 + 20 + 17]]);
    syn_ack[14 + 20 + 8..][..4].copy_from_slice(&2_u32.to_be_bytes());
    let change = crate::checksum::Sum::ZERO.change(0, 2, 2);
    syn_ack[14 + 20 + 16..][..2].copy_from_slice(&crate::checksum::update(sum, change).to_be_bytes());
    assert_eq!(other.send(2, &syn_ack), [(1, syn_ack.clone())]);
}

#[test]
fn a_ping_is_translated_there_and_back_through_two_zones() {
    let mut world = World::new(&[
        "table=0,in_port=1,ip,actions=ct(table=1,zone=1,nat)",
        "table=1,ct_state=+new,ip,actions=ct(commit,table=2,zone=1)",
        "table=1,ct_state=+est,ip,actions=resubmit(,2)",
        "table=2,ip,actions=ct(commit,table=3,zone=2,nat(src=10.0.0.9))",
        "table=3,ip,actions=output:2",
        "table=0,in_port=2,ip,actions=ct(table=4,zone=2,nat)",
        "table=4,ct_state=+est,ip,actions=ct(table=5,zone=1,nat)",
        "table=5,ct_state=+est,ip,actions=output:1",
    ]);
    let (a, b, public) = (Host::v4(1), Host::v4(2), Host { ip: [10, 0, 0, 9].into(), ..Host::v4(1) });
    let ping = |from, to, is_reply| build::icmp_echo(from, to, is_reply, 7, 1, b"x");
    assert_eq!(world.send(1, &ping(&a, &b, false)), [(2, ping(&public, &b, false))]);
    assert_eq!(world.send(2, &ping(&b, &public, true)), [(1, ping(&b, &a, true))]);
}
