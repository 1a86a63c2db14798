//! The same rules and packets through Open vSwitch and through ours: the same frames out of the same
//! ports. What is known to differ is listed in docs/differences-from-ovs.md, and only that is left out.

#![allow(clippy::unwrap_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    switch::{Switch, SwitchConfig},
    table::{Change, GroupChange, Tables},
    text,
    types::{Epoch, PortNo, Timestamp},
};
use oracle::{
    compare::{
        harness::{Collector, numbered},
        hex,
    },
    frame::{self, L4},
    interpreter::{Outcome, Port, Ports, World, interpret, memory::Memory},
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::{Features, Repertoire, rules},
    syntax::{Rules, Step},
    traffic::{Arrival, arrival, traffic},
};

const PORTS: &[u32] = &[1, 2, 3, 4, 5];
/// Random rule sets.
const N_WORLDS: u64 = 400;
/// Packets for each, every one of them twice.
const N_ARRIVALS: usize = 40;
/// No more rule sets are begun after this.
const LIMIT: Duration = Duration::from_secs(60);

/// A switch of ours with its rules.
struct Ours {
    switch: Switch,
    snapshot: Arc<Snapshot>,
}

impl Ours {
    fn new(flows: &str) -> Self {
        let mut ports = PortTable::default();
        for number in PORTS {
            let (name, role) = (format!("p{number}"), PortRole::Workload);
            let info = PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false };
            ports.insert(PortNo::new(*number).unwrap(), info);
        }
        let mut changes = Vec::new();
        for line in flows.lines() {
            let wrong = |error: text::TextError| panic!("{line}: {error}");
            changes.push(if line.starts_with("group_id") {
                let group = text::parse_group(line, &ports).unwrap_or_else(wrong);
                Change::Group(GroupChange::Set(group))
            } else {
                Change::Add(text::parse_flow(line, &ports).unwrap_or_else(|error| panic!("{line}: {error}")))
            });
        }
        // Groups that others lead to come first.
        changes.sort_by_key(|change| match change {
            Change::Group(GroupChange::Set(group)) => std::cmp::Reverse(group.id.get()),
            _ => std::cmp::Reverse(0),
        });
        let tables = Tables::default().transact(changes).unwrap();
        let snapshot = Snapshot {
            epoch: Epoch::new(1).unwrap(),
            tables: Arc::new(tables),
            ports: Arc::new(ports),
            ..Snapshot::default()
        };
        Self { switch: Switch::with_seed(SwitchConfig::default(), 1), snapshot: Arc::new(snapshot) }
    }

    /// What leaves, sorted.
    fn send(&mut self, port: u32, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let port = PortNo::new(port).unwrap();
        let (mut batch, mut sink) = (vec![numbered(frame, port, 0)], Collector { sent: vec![Vec::new()] });
        self.switch.process(Timestamp::from_nanos(0), &self.snapshot, port, &mut batch, &mut sink);
        let mut sent = sink.sent.remove(0);
        sent.sort();
        sent
    }
}

/// Both switches do the same with one packet.
fn check(ovs: &mut Ovs, ours: &mut Ours, rules: &str, Arrival { port, frame }: &Arrival) {
    let (theirs, ours) = (ovs.send(*port, frame).unwrap(), ours.send(*port, frame));
    if theirs != ours {
        let show = |sent: Vec<(u32, Vec<u8>)>| -> String {
            sent.iter().map(|(port, frame)| format!("\n  {port} {}", hex(frame))).collect()
        };
        let trace = ovs.call("ofproto/trace", &["br0", &format!("in_port={port}"), &hex(frame)]);
        panic!(
            "port {port} {}\nOpen vSwitch sends{}\nwe send{}\n{rules}\n{}",
            hex(frame),
            show(theirs),
            show(ours),
            trace.unwrap_or_default()
        );
    }
}

/// Both switches do the same with each packet, also when they have seen it before.
fn compare(ovs: &mut Ovs, protocol: Protocol, flows: &str, arrivals: &[Arrival]) -> usize {
    let mut ours = Ours::new(flows);
    ovs.set_flows(protocol, flows).unwrap_or_else(|error| panic!("{error:#}\n{flows}"));
    arrivals.iter().chain(arrivals).for_each(|arrival| check(ovs, &mut ours, flows, arrival));
    2 * arrivals.len()
}

/// The same for rules that the interpreter knows: it says which packets both switches treat alike.
fn compare_rules(
    ovs: &mut Ovs,
    protocol: Protocol,
    features: &Features,
    rules: &Rules,
    arrivals: &[Arrival],
) -> usize {
    let ports: Ports = PORTS.iter().map(|port| (*port, Port::Workload { up: true })).collect();
    let text = rules.to_string();
    let mut ours = Ours::new(&text);
    let lines = |lines: Vec<String>| lines.join("\n");
    let groups = lines(rules.groups.iter().rev().map(ToString::to_string).collect());
    let flows = lines(rules.flows.iter().map(ToString::to_string).collect());
    if let Err(error) = ovs.set_rules(protocol, &groups, &flows) {
        // It asks more of a rule than that its packets have what it changes.
        let error = format!("{error:#}");
        let refusals = ["actions are invalid with specified match", "OFPBMC_BAD_PREREQ"];
        assert!(refusals.iter().any(|refusal| error.contains(refusal)), "{error}\n{text}");
        return 0;
    }
    let mut memory = Memory::new(rules);
    let mut n = 0;
    for arrival in arrivals.iter().chain(arrivals) {
        let before = memory.snapshot();
        let outcome = interpret(World { rules, ports: &ports }, &mut memory, 0, arrival.port, &arrival.frame);
        if comparable(&outcome, features, rules, arrival) {
            check(ovs, &mut ours, &text, arrival);
            n += 1;
        } else {
            memory.forget_packet(&before);
        }
    }
    n
}

/// Packets that both switches treat alike; why others are left out is in docs/differences-from-ovs.md.
fn comparable(
    outcome: &Outcome,
    features: &Features,
    rules: &Rules,
    Arrival { frame, .. }: &Arrival,
) -> bool {
    let Some(view) = frame::view(frame) else { return false };
    let dei = |tag: &usize| frame.get(tag + 2).is_some_and(|tci| tci & 0x10 != 0);
    let is_ip = matches!(view.eth_type, 0x0800 | 0x86dd);
    let ipv6_fragment = view.eth_type == 0x86dd && frame.get(view.l3 + 6) == Some(&44);
    let is_fragment = view.frag != 0 || ipv6_fragment;
    let readdressed_fragment =
        (view.frag == 3 || ipv6_fragment) && writes(rules, &["->nw_src", "->nw_dst", "->ipv6_", "->icmp_"]);
    let protocol_zero = view.proto == 0 && is_ip;
    // Ports of zero are no ports to its tracker.
    let port_zero = matches!(view.l4, Some((L4::Tcp | L4::Udp, at))
        if frame[at..at + 2] == [0, 0] || frame[at + 2..at + 4] == [0, 0]);
    let tracked_otherwise = features.tracking
        && is_ip
        && (is_fragment || port_zero || !matches!(view.proto, 1 | 6 | 17 | 58) || view.l4.is_none());
    !(protocol_zero
        || outcome.is_lost
        || outcome.whys.contains(&"unsupported")
        || tracked_otherwise
        || view.tags.iter().any(dei)
        || readdressed_fragment)
}

/// Some action of the rules has one of these in its text.
fn writes(rules: &Rules, texts: &[&str]) -> bool {
    let has = |step: &Step| texts.iter().any(|text| step.to_string().contains(text));
    let buckets = rules.groups.iter().flat_map(|group| &group.buckets);
    rules.flows.iter().any(|flow| flow.steps.iter().any(has))
        || buckets.flat_map(|bucket| &bucket.steps).any(has)
}

/// Parts of the language in which Open vSwitch is compared.
fn features(rng: &mut Rng) -> Features {
    Features { conjunctions: rng.one_in(3), ..Features::default() }
}

#[test]
fn random_rules_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison with Open vSwitch").unwrap() else { return };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let start = Instant::now();
    let (mut n_packets, mut n_worlds) = (0, 0);
    let seeds = std::env::var("FERROFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in seeds..seeds + N_WORLDS {
        if start.elapsed() > LIMIT {
            break;
        }
        let mut rng = Rng::new(seed);
        let protocol = rng.pick(&[Protocol::OpenFlow10, Protocol::OpenFlow13]);
        let features = features(&mut rng);
        let repertoire =
            Repertoire { ports: PORTS, tunnel: None, loops: false, protocol: Some(protocol), features };
        let mut rules = rules(&mut rng, &repertoire);
        // Open vSwitch wants no invalid packets to be remembered.
        rules.flows.retain(|flow| !["+inv", "commit"].iter().all(|word| flow.to_string().contains(word)));
        let mut traffic = traffic(&mut rng, &features);
        let mut arrival = || {
            let port = traffic.port(&mut rng);
            Arrival { port, frame: traffic.next(&mut rng, port).frame }
        };
        let arrivals: Vec<Arrival> = (0..N_ARRIVALS).map(|_| arrival()).collect();
        eprintln!("seed {seed}");
        let n = compare_rules(&mut ovs, protocol, &features, &rules, &arrivals);
        n_packets += n;
        n_worlds += u64::from(n > 0);
    }
    eprintln!(
        "Open vSwitch {}: {n_worlds} rule sets, {n_packets} packets, {:.0} s",
        ovs.version(),
        start.elapsed().as_secs_f64()
    );
    assert!(n_worlds >= N_WORLDS / 4, "only {n_worlds} rule sets in {LIMIT:?}");
}

/// Tables as people write them: a switch with VLANs, a router, a filter.
const TABLES: &[&str] = &[
    "table=0,priority=10,vlan_tci=0x0/0x1000,in_port=1,actions=push_vlan:0x8100,set_field:0x1064->vlan_vid,resubmit(,1)\n\
     table=0,priority=5,dl_vlan=100,actions=resubmit(,1)\n\
     table=1,priority=10,dl_vlan=100,dl_dst=02:00:00:00:00:02,actions=pop_vlan,output:2\n\
     table=1,priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=FLOOD\n\
     table=1,priority=0,actions=output:3\n",
    "table=0,priority=10,ip,nw_dst=10.0.0.0/30,actions=dec_ttl,set_field:1->reg0,resubmit(,2)\n\
     table=0,priority=20,ip,nw_dst=10.0.0.2,actions=dec_ttl,set_field:2->reg0,resubmit(,2)\n\
     table=0,priority=9,ipv6,ipv6_dst=fd00::4/126,actions=dec_ttl,set_field:3->reg0,goto_table:2\n\
     table=2,priority=1,reg0=1,actions=set_field:02:00:00:00:00:09->dl_src,output:1,IN_PORT\n\
     table=2,priority=1,reg0=2,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:4\n\
     table=2,priority=1,ipv6,reg0=3,actions=clone(set_field:fd00::1->ipv6_src,output:5),output:2\n",
    "table=0,priority=30,tcp,tcp_dst=0x2/0xfffe,tcp_flags=+syn-ack,actions=drop\n\
     table=0,priority=20,tcp,nw_src=10.0.0.0/29,actions=set_field:3->tcp_dst,output:2\n\
     table=0,priority=20,udp6,udp_src=1,actions=set_field:11->ip_dscp,output:3\n\
     table=0,priority=20,icmp6,icmp_type=135,icmp_code=0,nd_target=fd00::1/fd00::3,actions=FLOOD\n\
     table=0,priority=10,arp,arp_op=1,actions=set_field:2->arp_op,move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],IN_PORT\n\
     table=0,priority=0,actions=output:4,output:5\n",
];

#[test]
fn tables_that_people_write_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of tables with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let mut rng = Rng::new(7);
    for flows in TABLES {
        let sound = |arrival: &Arrival| {
            // No fragments: they are in docs/differences-from-ovs.md.
            comparable(&Outcome::default(), &Features::default(), &Rules::default(), arrival)
                && frame::view(&arrival.frame).is_some_and(|view| {
                    let extended = view.eth_type == 0x86dd && arrival.frame.get(view.l3 + 6) == Some(&44);
                    view.frag == 0 && !extended
                })
        };
        let arrivals: Vec<Arrival> = (0..400).map(|_| arrival(&mut rng)).filter(sound).collect();
        let n_packets = compare(&mut ovs, Protocol::OpenFlow13, flows, &arrivals);
        assert!(n_packets > 200, "only {n_packets} packets");
    }
}
