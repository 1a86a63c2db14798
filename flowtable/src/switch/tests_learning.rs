//! Tests of what packets teach: rules, timeouts, stations; through the caches.

use super::{
    tests::{Collector, send},
    *,
};
use crate::{
    build::{self, Host},
    drop::DropReason,
    fdb::FdbFilter,
    pipeline::random::{self, port},
    port::{Bridging, PortTable, VlanMode},
    table::{Change, Filter, Learning, RemovedReason, Tables},
    testing::rules_of,
    text::{parse_actions, parse_filter, parse_flow, print_flow_with_stats},
    types::{Epoch, MacAddr, VlanId},
};

const SIZES: [SwitchConfig; 2] =
    [SwitchConfig { n_sessions: 0, n_megaflows: 0 }, SwitchConfig { n_sessions: 64, n_megaflows: 64 }];

/// A switch, and who owns its tables.
struct Bridge {
    switch: Switch,
    snapshot: Arc<Snapshot>,
    now: u64,
}

impl Bridge {
    fn new(config: SwitchConfig, lines: &[&str]) -> Self {
        let ports = PortTable::default();
        let change = |line: &&str| Change::Add(parse_flow(line, &ports).unwrap());
        let tables = Tables::default().transact(lines.iter().map(change).collect()).unwrap();
        let usual = random::snapshot(1, &[]);
        let mut snapshot = Snapshot { tables: Arc::new(tables), ..(*usual).clone() };
        let ports = Arc::make_mut(&mut snapshot.ports);
        (1..=4).for_each(|raw| ports.set_bridging(port(raw), Bridging::default()));
        Self { switch: Switch::with_seed(config, 1), snapshot: Arc::new(snapshot), now: 0 }
    }

    fn publish(&mut self, tables: Tables) {
        let epoch = Epoch::new(self.snapshot.epoch.get() + 1).unwrap();
        self.snapshot = Arc::new(Snapshot { epoch, tables: Arc::new(tables), ..(*self.snapshot).clone() });
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.now * 1_000_000_000)
    }

    /// Lets time pass and rules expire.
    fn wait(&mut self, secs: u64) -> Vec<(String, RemovedReason)> {
        self.now += secs;
        self.switch.flush_stats();
        self.snapshot.tables.fdb().expire(self.at());
        let Some(commit) = self.snapshot.tables.expire(self.at()) else { return Vec::new() };
        self.publish(commit.tables);
        commit.removed.iter().map(|removed| (removed.rule.to_string(), removed.reason)).collect()
    }

    /// Takes what was learned into the tables.
    fn learn(&mut self) -> Learning {
        let learned = self.switch.take_learned();
        let learning = self.snapshot.tables.learn(&learned, self.at());
        if let Some(commit) = &learning.commit {
            self.publish(commit.tables.clone());
        }
        learning
    }

    fn send(&mut self, raw: u32, frame: &[u8]) -> Vec<u32> {
        let mut sink = Collector::default();
        let mut batch = vec![build::packet(frame, port(raw))];
        self.switch.process(self.at(), &self.snapshot, port(raw), &mut batch, &mut sink);
        sink.out.iter().map(|(port, _)| port.get()).collect()
    }

    fn rules(&self, table: u8) -> Vec<String> {
        let rules = self.snapshot.tables.rules().filter(|rule| rule.table.get() == table);
        rules.map(|rule| rule.to_string()).collect()
    }
}

fn udp(src: u8, dst: u8) -> Vec<u8> {
    build::udp(&Host::v4(src), &Host::v4(dst), b"x")
}

fn tcp(src: u8, dst: u8, flags: u16) -> Vec<u8> {
    build::tcp(&Host::v4(src), &Host::v4(dst), flags, b"")
}

/// A learning switch as the manuals have it.
const MAC_LEARNING: &str = include_str!("../../testdata/tables/mac-learning.flows");

#[test]
fn a_learned_rule_takes_effect_with_its_commit() {
    for config in SIZES {
        let mut bridge = Bridge::new(config, &rules_of(MAC_LEARNING));
        assert_eq!(bridge.send(1, &udp(1, 2)), [2, 3]);
        assert_eq!(bridge.send(1, &udp(1, 2)), [2, 3], "not committed yet");
        let learning = bridge.learn();
        assert_eq!((learning.n_added, learning.n_renewed, learning.n_refused), (1, 0, 0));
        let learned = &bridge.rules(10)[0];
        let mac = Host::v4(1).mac;
        assert_eq!(
            *learned,
            format!("cookie=0x0, table=10, hard_timeout=10, priority=32768,dl_dst={mac} actions=output:1")
        );
        assert_eq!(bridge.send(2, &udp(2, 1)), [1]);
        assert_eq!(bridge.learn().n_added, 1);
        assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
        assert_eq!(bridge.learn().n_added, 0);
        // It moves: the rule does something else, and keeps its place.
        assert_eq!(bridge.send(3, &udp(1, 2)), [2]);
        assert_eq!(bridge.learn().n_changed, 1);
        assert_eq!(bridge.send(2, &udp(2, 1)), [3]);
        assert_eq!(bridge.switch.learn_counters().n_queued, 3);
    }
}

#[test]
fn packets_in_the_cache_keep_what_they_learned() {
    for config in SIZES {
        let mut bridge = Bridge::new(config, &rules_of(MAC_LEARNING));
        bridge.send(1, &udp(1, 2));
        bridge.learn();
        for _ in 0..5 {
            bridge.send(1, &udp(1, 2));
            assert!(bridge.wait(8).is_empty());
            assert_eq!(bridge.rules(10).len(), 3, "made anew every 8 seconds");
        }
        assert!(bridge.switch.take_learned().is_empty(), "nothing new");
        if config.n_megaflows > 0 {
            assert_eq!(bridge.switch.counters().n_misses, 1);
        }
        bridge.wait(2);
        assert_eq!(bridge.rules(10).len(), 2, "not made anew for 10 seconds");
        bridge.send(1, &udp(1, 2));
        assert_eq!(bridge.learn().n_added, 1, "and learned again");
    }
}

#[test]
fn an_idle_timeout_waits_for_packets_that_match() {
    // As Open vSwitch 3.1 does: making it anew leaves `idle_age` alone.
    let line =
        "table=0,actions=learn(table=1,idle_timeout=10,dl_dst[]=dl_src[],output:in_port[]),resubmit(,1)";
    for config in SIZES {
        let mut bridge = Bridge::new(config, &[line]);
        bridge.send(1, &udp(1, 2));
        bridge.learn();
        for _ in 0..4 {
            bridge.wait(8);
            bridge.send(2, &udp(2, 1));
            assert_eq!(bridge.rules(1)[0].matches("output:1").count(), 1, "in use");
            bridge.switch.take_learned();
        }
        bridge.wait(8);
        bridge.send(1, &udp(1, 2));
        bridge.wait(2);
        assert!(bridge.rules(1).is_empty());
    }
}

#[test]
fn a_limit_counts_the_rules_with_the_cookie() {
    for config in SIZES {
        let lines = [
            "table=0,actions=learn(table=1,cookie=0x5,limit=2,result_dst=reg0[0],dl_dst[]=dl_src[]),resubmit(,2)",
            "table=2,reg0=1,actions=output:2",
            "table=2,reg0=0,actions=output:3",
            "table=1,cookie=0x6,actions=drop",
        ];
        let mut bridge = Bridge::new(config, &lines);
        assert_eq!(bridge.send(1, &udp(1, 9)), [2]);
        assert_eq!(bridge.send(1, &udp(2, 9)), [2]);
        assert_eq!(bridge.send(1, &udp(3, 9)), [2], "nobody knows yet");
        let learning = bridge.learn();
        assert_eq!((learning.n_added, learning.n_over_limit), (2, 1));
        assert_eq!(bridge.send(1, &udp(3, 9)), [3]);
        assert_eq!(bridge.send(1, &udp(1, 9)), [2], "it is there");
        assert!(bridge.switch.take_learned().is_empty());
        // Whoever goes makes room.
        let tables = bridge.snapshot.tables.transact(vec![Change::Delete(first_learned())]).unwrap();
        bridge.publish(tables);
        assert_eq!(bridge.send(1, &udp(3, 9)), [2]);
        assert_eq!(bridge.learn().n_added, 1);
        assert_eq!(bridge.rules(1).len(), 3);
    }
}

fn first_learned() -> Filter {
    let mac = Host::v4(1).mac;
    parse_filter(&format!("table=1,dl_dst={mac}"), &PortTable::default()).unwrap()
}

#[test]
fn what_was_learned_goes_with_the_last_who_learns() {
    let learn = "learn(table=1,cookie=0x5,delete_learned,dl_dst[]=dl_src[])";
    let lines = [
        format!("table=0,priority=1,actions={learn}"),
        format!("table=0,priority=2,udp,actions=clone({learn})"),
        "table=1,cookie=0x7,send_flow_rem,actions=drop".to_owned(),
    ];
    let mut bridge = Bridge::new(SIZES[1], &lines.each_ref().map(String::as_str));
    bridge.send(1, &udp(1, 2));
    bridge.send(1, &tcp(2, 1, 2));
    assert_eq!(bridge.learn().n_added, 2);
    let delete = |bridge: &mut Bridge, text: &str| {
        let filter = parse_filter(text, &PortTable::default()).unwrap();
        let tables = bridge.snapshot.tables.transact(vec![Change::Delete(filter)]).unwrap();
        bridge.publish(tables);
    };
    delete(&mut bridge, "table=0,udp");
    assert_eq!(bridge.rules(1).len(), 3, "another one learns the same");
    let other = Change::Modify { filter: Filter::default(), actions: vec![] };
    assert_eq!(bridge.snapshot.tables.transact(vec![other]).unwrap().n_rules(random::table(1)), 1);
    delete(&mut bridge, "table=0");
    assert_eq!(bridge.rules(1).len(), 1);
    assert!(bridge.rules(1)[0].contains("cookie=0x7"));
}

#[test]
fn the_end_of_a_connection_lowers_timeouts() {
    for config in SIZES {
        let mut bridge = Bridge::new(
            config,
            &[
                "tcp,idle_timeout=60,send_flow_rem,actions=fin_timeout(idle_timeout=5,hard_timeout=30),output:2",
            ],
        );
        assert_eq!(bridge.send(1, &tcp(1, 2, 0x10)), [2]);
        assert!(bridge.wait(20).is_empty());
        assert_eq!(bridge.send(1, &tcp(1, 2, 0x11)), [2]);
        bridge.switch.flush_stats();
        let rule = bridge.snapshot.tables.rules().next().unwrap();
        assert_eq!((rule.current_life().idle_timeout, rule.current_life().hard_timeout), (5, 30));
        assert!(print_flow_with_stats(rule).contains("idle_timeout=5, hard_timeout=30,"));
        assert!(rule.to_string().contains("idle_timeout=60"), "what it was made as");
        assert!(bridge.wait(4).is_empty());
        assert_eq!(bridge.send(1, &tcp(1, 2, 0x10)), [2]);
        assert!(bridge.wait(4).is_empty());
        assert_eq!(bridge.wait(1)[0].1, RemovedReason::IdleTimeout);
    }
    // A rule without timeouts gets some; one that replaces it has its own.
    let line = "tcp,actions=fin_timeout(hard_timeout=3)";
    let mut bridge = Bridge::new(SIZES[1], &[line]);
    bridge.now = 5;
    bridge.send(1, &tcp(1, 2, 0x04));
    let again = Change::Add(parse_flow(line, &PortTable::default()).unwrap());
    bridge.switch.flush_stats();
    let commit = bridge.snapshot.tables.commit(vec![again], bridge.at()).unwrap();
    bridge.publish(commit.tables);
    assert_eq!((bridge.wait(100).len(), bridge.rules(0).len()), (0, 1));
    bridge.send(1, &tcp(1, 2, 0x01));
    bridge.wait(3);
    assert!(bridge.rules(0).is_empty());
}

#[test]
fn learned_rules_end_with_their_connection() {
    let line = "tcp,actions=learn(table=1,idle_timeout=60,fin_idle_timeout=2,eth_type=0x800,nw_proto=6,tcp_dst[]=tcp_src[]),resubmit(,1)";
    let mut bridge = Bridge::new(SIZES[1], &[line]);
    bridge.send(1, &tcp(1, 2, 2));
    assert_eq!(bridge.learn().n_added, 1, "{:?}", bridge.switch.drops());
    assert!(bridge.rules(1)[0].ends_with("actions=fin_timeout(idle_timeout=2)"), "{:?}", bridge.rules(1));
}

#[test]
fn the_queue_of_learned_rules_is_bounded_and_each_port_has_its_share() {
    let line = "actions=learn(table=1,udp_src[]),drop";
    assert!(parse_flow(line, &PortTable::default()).is_err(), "drop stands alone");
    let mut bridge =
        Bridge::new(SIZES[1], &["udp,actions=learn(table=1,eth_type=0x800,nw_proto=17,udp_src[])"]);
    for src in 0..2000_u16 {
        let frame = build::udp(&Host { port: src, ..Host::v4(1) }, &Host::v4(2), b"x");
        bridge.send(1, &frame);
        bridge.send(1, &frame);
    }
    let counters = bridge.switch.learn_counters();
    assert_eq!(counters.n_queued, MAX_PORT_LEARNED as u64);
    assert_eq!(counters.n_lost, 2 * (2000 - MAX_PORT_LEARNED as u64));
    bridge.send(2, &udp(200, 2));
    assert_eq!(bridge.learn().n_added, MAX_PORT_LEARNED + 1);
    // What was lost is learned when there is room again, although it is in the cache.
    let frame = build::udp(&Host { port: 1999, ..Host::v4(1) }, &Host::v4(2), b"x");
    bridge.send(1, &frame);
    assert_eq!(bridge.learn().n_added, 1);
}

#[test]
fn a_rule_that_may_not_be_is_refused_and_counted() {
    let mut bridge = Bridge::new(SIZES[1], &rules_of(MAC_LEARNING));
    let full = crate::table::TableSettings { max_rules: Some(2), ..Default::default() };
    let tables = bridge.snapshot.tables.transact(vec![Change::Table(random::table(10), full)]).unwrap();
    bridge.publish(tables);
    bridge.send(1, &udp(1, 2));
    let learning = bridge.learn();
    assert_eq!((learning.n_added, learning.n_refused), (0, 1));
    assert!(learning.commit.is_none());
    assert!(learning.refusal.unwrap().to_string().contains("full"));
}

fn mac(last: u8) -> MacAddr {
    Host::v4(last).mac
}

#[test]
fn normal_learns_forwards_moves_and_forgets() {
    for config in SIZES {
        let mut bridge = Bridge::new(config, &["actions=NORMAL"]);
        assert_eq!(bridge.send(1, &udp(1, 2)), [2, 3], "port 4 is down");
        assert_eq!(bridge.send(2, &udp(2, 1)), [1]);
        assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
        let before = bridge.switch.counters();
        for _ in 0..20 {
            assert_eq!((bridge.send(1, &udp(1, 2)), bridge.send(2, &udp(2, 1))), (vec![2], vec![1]));
            bridge.wait(200);
        }
        if config.n_megaflows > 0 {
            // The caches forget what is silent for 10 s, not the database.
            assert_eq!(bridge.switch.counters().n_renewals, before.n_renewals + 1);
        }
        assert_eq!(bridge.snapshot.tables.fdb().len(), 2);
        // Station 2 moves: what goes there follows at once.
        assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
        assert_eq!(bridge.send(3, &udp(2, 1)), [1]);
        assert_eq!(bridge.send(1, &udp(1, 2)), [3]);
        assert_eq!(bridge.send(3, &udp(9, 2)), Vec::<u32>::new(), "it is where it came from");
        assert_eq!(bridge.switch.drops().last().unwrap().reason, DropReason::SamePort);
        bridge.wait(300);
        assert!(bridge.snapshot.tables.fdb().is_empty());
        assert_eq!(bridge.send(1, &udp(1, 2)), [2, 3]);
        bridge.snapshot.tables.fdb().flush(&FdbFilter::default());
        assert_eq!(bridge.send(2, &udp(3, 1)), [1, 3]);
        assert_eq!(bridge.snapshot.epoch.get(), 1, "no rule has changed");
    }
}

#[test]
fn learning_one_station_leaves_entries_of_others_alone() {
    let mut bridge = Bridge::new(SIZES[1], &["actions=NORMAL"]);
    (0..2).for_each(|_| drop((bridge.send(1, &udp(1, 2)), bridge.send(2, &udp(2, 1)))));
    let counters = bridge.switch.counters();
    (10..30).for_each(|host| drop(bridge.send(3, &udp(host, 2))));
    let stale = bridge.switch.megaflows().iter().filter(|dump| dump.is_stale).count();
    assert_eq!(stale, 20, "those that have taught something themselves");
    assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
    assert_eq!(bridge.switch.counters().n_renewals, counters.n_renewals);
}

#[test]
fn a_batch_sees_what_its_first_packets_have_taught() {
    for config in SIZES {
        let mut bridge = Bridge::new(config, &["actions=NORMAL"]);
        // The second one's destination is where both come from; so is the third one's, itself.
        let sink = send(&mut bridge.switch, &bridge.snapshot, 1, &[udp(1, 2), udp(3, 1), udp(4, 4)]);
        assert_eq!(sink.out.iter().map(|(port, _)| port.get()).collect::<Vec<_>>(), [2, 3]);
    }
}

#[test]
fn bridges_own_protocols_are_not_forwarded() {
    let mut bridge = Bridge::new(SIZES[1], &["actions=NORMAL"]);
    for (last, n_out) in [(0, 0), (0x0e, 0), (0x0f, 0), (0x10, 2)] {
        let mut frame = udp(1, 2);
        frame[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, last]);
        assert_eq!(bridge.send(1, &frame).len(), n_out, "{last:#x}");
    }
    let mut cisco = udp(1, 2);
    for (last, n_out) in
        [(0xbf, 2), (0xc0, 0), (0xc7, 0), (0xc8, 2), (0xcb, 2), (0xcc, 0), (0xcd, 0), (0xce, 2)]
    {
        cisco[..6].copy_from_slice(&[0x01, 0x00, 0x0c, 0xcc, 0xcc, last]);
        assert_eq!(bridge.send(1, &cisco).len(), n_out, "{last:#x}");
    }
    assert_eq!(bridge.switch.drops()[0].reason, DropReason::ReservedAddress);
    assert_eq!(bridge.switch.drops()[0].n_packets, 3 + 4);
}

#[test]
fn a_gratuitous_arp_tells_where_a_station_is_now() {
    for config in SIZES {
        let mut bridge = Bridge::new(config, &["actions=NORMAL"]);
        let announce = build::arp(1, &Host::v4(1), &Host::v4(1));
        bridge.send(1, &udp(1, 2));
        bridge.send(3, &announce);
        // Late frames from the old place, the same again from the cache.
        (0..3).for_each(|_| drop(bridge.send(1, &udp(1, 2))));
        assert_eq!(bridge.send(2, &udp(2, 1)), [3]);
        assert_eq!(bridge.snapshot.tables.fdb().counters().n_refused, 3);
        bridge.now += 5;
        bridge.send(1, &udp(1, 2));
        assert_eq!(bridge.send(2, &udp(2, 1)), [1]);
    }
}

#[test]
fn vlans_are_kept_apart_and_tagged_as_ports_want() {
    let vlan = |raw| VlanId::new(raw).unwrap();
    let mut bridge = Bridge::new(SIZES[1], &["actions=NORMAL"]);
    let snapshot = Arc::make_mut(&mut bridge.snapshot);
    let ports = Arc::make_mut(&mut snapshot.ports);
    ports.set_bridging(port(1), Bridging { mode: VlanMode::Access(vlan(10)), ..Bridging::default() });
    ports
        .set_bridging(port(2), Bridging { trunks: Some([vlan(10), vlan(20)].into()), ..Bridging::default() });
    let native =
        Bridging { mode: VlanMode::NativeUntagged(vlan(10)), trunks: Some([].into()), ..Bridging::default() };
    ports.set_bridging(port(3), native);
    let untagged = udp(1, 2);
    let tagged = |vid: u16| {
        let tag = [0x81, 0x00, (vid >> 8) as u8 | 0x60, vid as u8];
        [&untagged[..12], &tag, &untagged[12..]].concat()
    };
    // By which ports, and how much longer than without a tag.
    let out = |bridge: &mut Bridge, raw: u32, frame: &[u8]| {
        let sink = send(&mut bridge.switch, &bridge.snapshot, raw, &[frame.to_vec()]);
        let more = |frame: &Vec<u8>| frame.len() - untagged.len();
        sink.out.iter().map(|(port, frame)| (port.get(), more(frame))).collect::<Vec<_>>()
    };
    let bridge = &mut bridge;
    assert_eq!(out(bridge, 1, &untagged), [(2, 4), (3, 0)]);
    assert_eq!(out(bridge, 2, &tagged(10)), [(1, 0), (3, 0)]);
    assert_eq!(out(bridge, 3, &untagged), [(1, 0), (2, 4)]);
    assert_eq!(out(bridge, 2, &tagged(20)), [], "nobody else is in VLAN 20");
    assert_eq!(out(bridge, 2, &tagged(30)), [], "the trunk does not take it");
    assert_eq!(out(bridge, 1, &tagged(10)), [], "an access port takes no tags");
    let reasons: Vec<_> = bridge.switch.drops().iter().map(|drop| drop.reason).collect();
    assert_eq!(reasons, [DropReason::RuleDrop, DropReason::NotInVlan, DropReason::NotInVlan]);
    // A tag with a priority alone: gone where frames have none, and kept in no VLAN.
    assert_eq!(out(bridge, 1, &tagged(0)), [(2, 4), (3, 0)]);
    let fdb = bridge.snapshot.tables.fdb();
    let entries: Vec<_> = fdb.dump().iter().map(|e| (e.vlan.get(), e.mac, e.port.get())).collect();
    assert_eq!(entries, [(10, mac(1), 1), (20, mac(1), 2)]);
    // The priority stays whatever becomes of the tag.
    let sink = send(&mut bridge.switch, &bridge.snapshot, 1, &[tagged(0)]);
    assert_eq!(sink.out[0].1[12..16], [0x81, 0x00, 0x60, 10]);
}

#[test]
fn local_is_a_port_like_others_once_it_is_there() {
    let mut bridge = Bridge::new(SIZES[1], &["in_port=1,actions=LOCAL", "in_port=LOCAL,actions=NORMAL"]);
    assert!(bridge.send(1, &udp(1, 2)).is_empty());
    assert_eq!(bridge.switch.drops()[0].reason, DropReason::NoSuchPort);
    let snapshot = Arc::make_mut(&mut bridge.snapshot);
    let info = snapshot.ports.get(port(1)).unwrap().clone();
    Arc::make_mut(&mut snapshot.ports).insert(PortNo::LOCAL, info);
    bridge.publish((*bridge.snapshot.tables).clone());
    assert_eq!(bridge.send(1, &udp(1, 2)), [PortNo::LOCAL.get()]);
    assert_eq!(bridge.send(PortNo::LOCAL.get(), &udp(2, 1)), [1, 2, 3]);
    assert_eq!(bridge.snapshot.tables.fdb().dump()[0].port, PortNo::LOCAL);
    assert_eq!(bridge.switch.port_counters(PortNo::LOCAL).rx_packets, 1);
}

#[test]
fn flood_spares_ports_that_all_reaches() {
    let lines = ["in_port=1,udp,actions=FLOOD", "in_port=1,tcp,actions=ALL", "in_port=1,arp,actions=NORMAL"];
    let mut bridge = Bridge::new(SIZES[1], &lines);
    let ports = Arc::make_mut(&mut Arc::make_mut(&mut bridge.snapshot).ports);
    ports.set_bridging(port(3), Bridging { floods: false, ..Bridging::default() });
    assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
    assert_eq!(bridge.send(1, &tcp(1, 2, 2)), [2, 3]);
    assert_eq!(bridge.send(1, &build::arp(1, &Host::v4(1), &Host::v4(2))), [2]);
}

#[test]
fn table_begins_again() {
    let lines = ["reg0=0,actions=load:1->reg0[],output:TABLE,output:3", "reg0=1,actions=output:2"];
    assert_eq!(Bridge::new(SIZES[1], &lines).send(1, &udp(1, 2)), [2, 3]);
    let mut forever = Bridge::new(SIZES[1], &["actions=output:TABLE"]);
    assert!(forever.send(1, &udp(1, 2)).is_empty());
    assert_eq!(forever.switch.drops()[0].reason, DropReason::DepthExceeded);
}

#[test]
fn rules_that_change_too_much_are_stopped() {
    let learn = "learn(table=9,dl_dst[]=dl_src[]),".repeat(100);
    let line = format!("actions={learn}resubmit(,0)");
    let mut bridge = Bridge::new(SIZES[1], &[&line]);
    assert!(bridge.send(1, &udp(1, 2)).is_empty());
    assert_eq!(bridge.switch.drops()[0].reason, DropReason::TooManyEffects);
    assert!(bridge.switch.take_learned().is_empty(), "nothing of a walk that is stopped is done");
}

#[test]
fn length_decides_per_packet_and_never_per_entry() {
    let lines = [
        "table=0,actions=check_pkt_larger(100)->reg0[3],resubmit(,1)",
        "table=1,reg0=0x8/0x8,actions=output:2",
        "table=1,priority=1,actions=output:3",
    ];
    let mut bridge = Bridge::new(SIZES[1], &lines);
    for round in 0..2 {
        for len in 0..200 {
            let frame = build::udp(&Host::v4(1), &Host::v4(2), &vec![0; len]);
            let expected = if frame.len() > 100 { 2 } else { 3 };
            assert_eq!(bridge.send(1, &frame), [expected], "{} bytes, round {round}", frame.len());
        }
    }
    assert!(bridge.switch.n_megaflows() <= 16, "lengths share entries: {}", bridge.switch.n_megaflows());
    // As it would leave: a pushed tag counts.
    let tagged =
        ["table=0,actions=push_vlan:0x8100,check_pkt_larger(100)->reg0[3],resubmit(,1)", lines[1], lines[2]];
    let mut bridge = Bridge::new(SIZES[1], &tagged);
    let frame = |len: usize| build::udp(&Host::v4(1), &Host::v4(2), &vec![0; len - 42]);
    assert_eq!((bridge.send(1, &frame(96)), bridge.send(1, &frame(97))), (vec![3], vec![2]));
}

#[test]
fn samples_are_as_many_as_asked_for_and_look_as_they_should() {
    let line = "actions=sample(probability=6554,collector_set_id=7,obs_domain_id=8,obs_point_id=9,sampling_port=1,egress),\
                push_vlan:0x8100,sample(probability=65535),output:2";
    let mut bridge = Bridge::new(SIZES[1], &[line]);
    let mut n_first = 0;
    for _ in 0..1000 {
        assert_eq!(bridge.send(1, &udp(1, 2)), [2]);
        let samples = bridge.switch.take_samples();
        let (first, all): (Vec<_>, Vec<_>) =
            samples.iter().partition(|sampled| sampled.sample.collector_set == 7);
        assert_eq!((all.len(), all[0].bytes.len()), (1, udp(1, 2).len() + 4));
        assert!(first.iter().all(|sampled| sampled.bytes == udp(1, 2) && sampled.in_port == port(1)));
        n_first += first.len();
    }
    assert!((70..130).contains(&n_first), "{n_first} of 1000 at one in ten");
    let counters = bridge.switch.sample_counters();
    assert_eq!((counters.n_seen, counters.n_queued, counters.n_lost), (2000, 1000 + n_first as u64, 0));
    // Nobody comes for them: the port has its share, and packets go on.
    (0..2 * MAX_PORT_SAMPLES).for_each(|_| assert_eq!(bridge.send(1, &udp(1, 2)), [2]));
    assert_eq!(bridge.switch.take_samples().len(), MAX_PORT_SAMPLES);
    assert!(bridge.switch.sample_counters().n_lost > MAX_PORT_SAMPLES as u64);
    // A sample alone forwards nothing.
    let mut bridge = Bridge::new(SIZES[1], &["actions=sample(probability=65535)"]);
    assert!(bridge.send(1, &udp(1, 2)).is_empty());
    assert_eq!(
        (bridge.switch.drops()[0].reason, bridge.switch.take_samples().len()),
        (DropReason::RuleDrop, 1)
    );
}

#[test]
fn an_input_port_is_learned_by_the_name_it_has_in_open_vswitch() {
    for spec in ["NXM_OF_IN_PORT[]", "NXM_OF_IN_PORT[]=NXM_OF_IN_PORT[]", "in_port=in_port[]"] {
        let learns = format!("actions=learn(table=10,{spec},output:NXM_OF_IN_PORT[])");
        let mut bridge = Bridge::new(SIZES[1], &[&learns]);
        bridge.send(3, &udp(1, 2));
        bridge.learn();
        assert_eq!(
            bridge.rules(10),
            ["cookie=0x0, table=10, priority=32768,in_port=3 actions=output:3"],
            "{spec}"
        );
    }
    let line = "actions=load:2->NXM_NX_REG1[],learn(table=10,in_port[]=NXM_NX_REG1[0..15],output:reg1[])";
    let mut bridge = Bridge::new(SIZES[1], &[line]);
    bridge.send(3, &udp(1, 2));
    bridge.learn();
    assert_eq!(bridge.rules(10), ["cookie=0x0, table=10, priority=32768,in_port=2 actions=output:2"]);
}

#[test]
fn actions_without_meaning_are_refused() {
    let check = |line: &str| {
        let change = Change::Add(parse_flow(line, &PortTable::default()).unwrap());
        Tables::default().transact(vec![change]).map(drop).map_err(|error| error.reason.to_string())
    };
    for (line, part) in [
        ("actions=learn(nw_src[])", "`nw_src` needs"),
        ("udp,actions=learn(nw_src[])", "`nw_src` needs"),
        ("udp,actions=learn(eth_type=0x800,udp_src[])", "`udp_src` needs"),
        ("actions=learn(eth_type[0..7])", "only be used whole"),
        ("actions=learn(in_port[0..7])", "only be used whole"),
        ("udp,actions=learn(load:5->udp_dst[])", "`udp_dst` needs"),
        ("actions=learn(result_dst=tcp_dst[0])", "`tcp_dst` needs"),
        ("actions=fin_timeout(idle_timeout=1)", "`fin_timeout` needs"),
        ("ip,actions=check_pkt_larger(5)->tcp_dst[0]", "`tcp_dst` needs"),
        ("actions=controller(meter_id=3)", "there is no meter 3"),
        ("actions=output(port=TABLE,max_len=20)", "not a port"),
        ("actions=enqueue:TABLE:1", "not a port"),
        ("actions=write_actions(fin_timeout(idle_timeout=1))", "action set"),
    ] {
        assert!(check(line).unwrap_err().contains(part), "{line}: {:?}", check(line));
    }
    assert_eq!(check("udp,actions=learn(eth_type=0x800,nw_proto=17,udp_src[],load:5->udp_dst[])"), Ok(()));
    assert!(parse_actions("check_pkt_larger(5)->reg0[]", &PortTable::default()).is_err());
}

#[test]
fn what_one_worker_learns_makes_entries_of_another_stale() {
    let mut bridge = Bridge::new(SIZES[1], &["actions=NORMAL"]);
    let mut other = Switch::with_seed(SIZES[1], 2);
    bridge.send(2, &udp(2, 1));
    (0..3).for_each(|_| assert_eq!(bridge.send(1, &udp(1, 2)), [2]));
    send(&mut other, &bridge.snapshot, 3, &[udp(2, 1)]);
    assert_eq!(bridge.send(1, &udp(1, 2)), [3]);
    bridge.snapshot.tables.fdb().flush(&FdbFilter::default());
    assert_eq!(bridge.send(1, &udp(1, 2)), [2, 3]);
}

#[test]
fn limits_and_learners_are_counted_like_a_recount() {
    use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
    let line = (0_u8..3, 0_u64..3, 0_u8..4, 0_u8..6).prop_map(|(table, cookie, priority, kind)| {
        let target = (table + 1) % 3;
        let actions = match kind {
            0 => format!("learn(table={target},cookie={cookie},limit=3)"),
            1 => format!("learn(table={target},cookie={cookie},delete_learned)"),
            2 => format!("clone(learn(table={target},cookie={cookie},limit=1,delete_learned)),learn(table={target},cookie=1,limit=2)"),
            _ => "drop".to_owned(),
        };
        (kind, format!("table={table},priority={priority},cookie={cookie},actions={actions}"))
    });
    TestRunner::default()
        .run(&vec((0_u8..4, line), 1..60), |steps| {
            let ports = PortTable::default();
            let mut tables = Tables::default();
            for (step, (_, line)) in steps {
                let rule = parse_flow(&line, &ports).unwrap();
                let (table, priority, matching) = (rule.table, rule.priority, rule.matching.clone());
                let change = match step {
                    0 => Change::DeleteStrict { table, priority, matching },
                    1 => Change::ModifyStrict { table, priority, matching, actions: rule.actions.clone() },
                    _ => Change::Add(rule),
                };
                tables = tables.transact(vec![change]).unwrap();
                for raw in 0..3 {
                    for cookie in 0..3 {
                        let table = random::table(raw);
                        let is_counted = tables.rules().any(|rule| {
                            let mut found = false;
                            crate::flow::each_learn(&rule.actions, &mut |learn| {
                                found |= (learn.table, learn.cookie) == (table, cookie);
                            });
                            found
                        });
                        let n = tables
                            .rules()
                            .filter(|rule| (rule.table, rule.cookie) == (table, cookie))
                            .count();
                        prop_assert_eq!(tables.n_learned(table, cookie), if is_counted { n } else { 0 });
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
