//! Journeys do what the long way does: a switch without caches only knows that one.

use proptest::{prelude::*, sample::select};

use crate::{
    build::{self, Host},
    conntrack::Filter,
    flow::Rule,
    port::PortTable,
    switch::{
        SwitchConfig,
        ct_tests::World,
        tests::{Event, NO_CACHES, observe},
    },
    text::parse_flow,
    types::Timestamp,
};

/// A load balancer, a router, a policy in another zone.
const POD: &[&str] = &[
    "table=0,priority=10,ip,in_port=1,actions=ct(zone=1,nat,table=1)",
    "table=0,priority=10,ip,in_port=2,actions=ct(zone=2,table=4)",
    "table=1,priority=30,udp,ct_state=+trk+new,nw_dst=10.0.0.99,actions=ct(commit,zone=1,nat(dst=10.0.0.2),table=2)",
    "table=1,priority=20,ip,ct_state=+trk+est,actions=resubmit(,2)",
    "table=2,priority=10,ip,actions=dec_ttl,set_field:02:00:00:00:00:77->dl_src,ct(zone=2,table=3)",
    "table=3,priority=20,ip,ct_state=+new+trk,udp,udp_dst=53,actions=ct(commit,zone=2),output:2",
    "table=3,priority=10,ip,ct_state=+est+trk-rpl,udp,udp_dst=53,actions=output:2",
    "table=4,priority=10,ip,ct_state=+est+trk+rpl,actions=ct(zone=1,nat,table=5)",
    "table=5,priority=10,ip,ct_state=+est+trk+rpl,actions=dec_ttl,output:1",
];

#[test]
fn a_known_conversation_is_balanced_and_routed_in_one_go() {
    let mut world = World::new(POD);
    let (client, service) = (Host::v4(1), Host { port: 53, ..Host::v4(99) });
    let backend = Host { port: 53, ..Host::v4(2) };
    let (there, back) = (build::udp(&client, &service, b"?"), build::udp(&backend, &client, b"!"));
    let [asked] = &world.send_once(1, &there)[..] else { panic!("one copy") };
    let asked = asked.clone();
    let answered = world.send(2, &back);
    assert_eq!(answered.len(), 1);
    for _ in 0..10 {
        assert_eq!(world.send_once(1, &there), std::slice::from_ref(&asked));
        assert_eq!(world.send_once(2, &back), answered);
    }
    let n_rides = world.switch.journeys.n_rides;
    assert!(n_rides >= 18, "both ways: {n_rides}");
    // What the tracker no longer knows ends the journey, and begins anew.
    let now = Timestamp::from_nanos(world.now);
    world.switch.conntrack().unwrap().flush(now, &Filter::default());
    assert_eq!(world.send_once(2, &back), [], "nobody has asked");
    assert_eq!(world.send_once(1, &there), [asked]);
    assert_eq!(world.send_once(2, &back), answered);
    assert!(world.switch.journeys.n_rides < n_rides + 3);
}

/// Signatures do not say flags: where the first table looks at them, they lead nowhere.
#[test]
fn what_signatures_do_not_say_is_looked_at() {
    let mut world = World::new(&[
        "table=0,priority=20,tcp,tcp_flags=+psh,actions=drop",
        "table=0,priority=10,ip,actions=ct(zone=1,table=1)",
        "table=1,priority=20,ip,ct_state=+new+trk,actions=ct(commit,zone=1),output:2",
        "table=1,priority=10,ip,ct_state=+est+trk,in_port=1,actions=output:2",
        "table=1,priority=10,ip,ct_state=+est+trk,in_port=2,actions=output:1",
    ]);
    let ends = [Host::v4(1), Host::v4(2)];
    let there = |flags| build::tcp(&ends[0], &ends[1], flags, b"");
    // Both are picked up in the middle.
    assert_eq!(world.send(1, &there(0x10)).len(), 1);
    assert_eq!(world.send(2, &build::tcp(&ends[1], &ends[0], 0x10, b"")).len(), 1);
    for _ in 0..20 {
        assert_eq!(world.send(1, &there(0x10)).len(), 1);
    }
    assert_eq!(world.send(1, &there(0x18)), []);
}

/// What passes do with their packets.
const STEPS: &[&str] = &[
    "drop",
    "output:1",
    "output:2",
    "output:2",
    "dec_ttl,output:2",
    "set_field:02:00:00:00:00:77->dl_src,output:2",
    "set_field:10.0.0.3->nw_src,output:2",
    "output:1,output:2",
    "meter:1,output:2",
    "push_vlan:0x8100,output:2",
    "resubmit(,2)",
    "ct(table=2,zone=2)",
    "ct(table=2,zone=2,nat)",
    "ct(table=2,zone=1,nat)",
    "ct(table=2,zone=1)",
    "dec_ttl,ct(table=2,zone=2)",
    "set_field:10.0.0.2->nw_dst,ct(table=2,zone=2)",
    "ct(commit,zone=2,table=2)",
    "ct(commit,zone=1,exec(set_field:1->ct_mark)),output:1",
];
const BEGINS: &[&str] = &[
    "ct(commit,zone=1,nat(dst=10.0.0.2),table=2)",
    "ct(commit,zone=1,nat(src=10.0.0.9),table=2)",
    "ct(commit,zone=1,nat(src=10.0.0.8-10.0.0.9:1000-1003)),output:2",
    "ct(commit,zone=1),ct(commit,zone=2),output:2",
    "ct(commit,zone=1,nat(dst=10.0.0.3:99)),output:2",
];
const MATCHES: &[&str] = &[
    "ip",
    "ip",
    "tcp",
    "udp",
    "ip,ct_state=+est+trk",
    "ip,ct_state=+rpl+trk",
    "ip,ct_state=+dnat",
    "ip,nw_dst=10.0.0.2",
    "udp,udp_dst=7",
    "tcp,tcp_flags=+ack",
    "ip,nw_ttl=64",
    "ip,ct_nw_dst=10.0.0.2",
    "ip,ct_mark=1",
    "ip,in_port=1",
];

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let later = (0_u8..3, select(MATCHES), select(STEPS));
    (select(BEGINS), prop::collection::vec(later, 2..9), any::<bool>()).prop_map(|(begin, later, nat)| {
        let first = if nat { "ct(table=1,zone=1,nat)" } else { "ct(table=1,zone=1)" };
        let fixed = [(0, "ip", first), (1, "ip,ct_state=+new+trk", begin), (2, "ip", "output:2")];
        let read = |(priority, (table, matching, actions))| {
            let text = format!("table={table},priority={priority},{matching},actions={actions}");
            parse_flow(&text, &PortTable::default()).ok()
        };
        (1..).zip(fixed.into_iter().chain(later)).filter_map(read).collect()
    })
}

/// Both ways between a few hosts, again and again.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let frame = (
        1_u8..4,
        1_u8..4,
        select(&[7_u16, 99][..]),
        any::<bool>(),
        select(&[2_u16, 0x12, 0x10, 0x18, 0x11][..]),
    );
    let step = (0_u8..60, any::<usize>(), frame);
    prop::collection::vec(step, 30..120).prop_map(|steps| {
        let event = |(kind, pick, (from, to, port, is_tcp, flags)): (u8, usize, (u8, u8, u16, bool, u16))| {
            let (from, to) = (Host { port, ..Host::v4(from) }, Host { port, ..Host::v4(to) });
            let mut frame =
                if is_tcp { build::tcp(&from, &to, flags, b"!") } else { build::udp(&from, &to, b"?") };
            match kind {
                0 => return vec![Event::Change(pick)],
                1 => return vec![Event::Wait(1_000_000_000 * (pick % 40) as u64)],
                2 => frame.iter_mut().next_back().into_iter().for_each(|last| *last ^= 1),
                _ => {}
            }
            vec![Event::Frame(1, frame); 1 + pick % 4]
        };
        steps.into_iter().flat_map(event).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The same bytes out, the same drops and counters, and the same connections in the end.
    #[test]
    fn a_journey_is_the_long_way(rules in rules(), events in events()) {
        let plain = observe(NO_CACHES, 1, 0, &rules, &events);
        for (n_sessions, n_megaflows) in [(1 << 10, 1 << 10), (4, 2)] {
            for n_batch in [1, 50] {
                let config = SwitchConfig { n_sessions, n_megaflows };
                let seen = observe(config, n_batch, 0, &rules, &events);
                prop_assert!(seen == plain, "{config:?} batch {n_batch}");
            }
        }
    }
}
