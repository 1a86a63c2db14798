//! The short way through the tracker does what the long one does: a switch without caches only
//! knows the long one.

use proptest::{prelude::*, sample::select};

use super::{
    SwitchConfig,
    ct_tests::World,
    tests::{Event, NO_CACHES, observe},
};
use crate::{
    build::{self, Host},
    flow::Rule,
    port::PortTable,
    text::parse_flow,
};

/// First passes; most programs are a way through the tracker and nothing else.
const FIRST: &[&str] = &[
    "ct(table=1,zone=1)",
    "ct(table=1,zone=1)",
    "ct(table=1,zone=1,nat)",
    "ct(commit,table=1,zone=1)",
    "ct(commit,table=1,zone=1,alg=ftp)",
    "ct(commit,table=1,zone=1,nat(src=10.0.0.9))",
    "ct(table=1,zone=reg0[0..15])",
    "dec_ttl,ct(table=1,zone=1)",
    "ct(table=1,zone=1),output:3",
];
/// What later passes ask of a packet.
const MATCHES: &[&str] = &[
    "ip",
    "ipv6",
    "tcp",
    "udp",
    "icmp",
    "ip,ct_state=+new+trk",
    "ip,ct_state=+est",
    "ip,ct_state=+rpl+trk",
    "ip,ct_state=+inv+trk",
    "ip,ct_state=+rel+trk",
    "ip,ct_state=-new+trk",
    "ipv6,ct_state=+est-rpl+trk",
    "ip,ct_mark=1",
    "ip,in_port=1",
    "ip,ct_zone=2",
    "ip,ct_nw_src=10.0.0.1",
];
/// What they do with it.
const LATER: &[&str] = &[
    "drop",
    "output:1",
    "output:2",
    "output:2",
    "output:1,output:2",
    "dec_ttl,output:2",
    "ct_clear,output:3",
    "resubmit(,2)",
    "meter:1,output:2",
    "ct(commit,zone=1),output:2",
    "ct(commit,zone=1),output:2",
    "ct(commit,zone=1,exec(set_field:1->ct_mark)),output:1",
    "ct(commit,force,zone=1),output:2",
    "ct(commit,zone=2),output:2",
    "ct(commit,zone=2,alg=ftp),output:2",
    "output:2,ct(commit,zone=1)",
    "set_field:10.0.0.3->nw_src,ct(commit,zone=1),output:2",
    "ct(commit,zone=1,nat(dst=10.0.0.3)),output:1",
    "ct(commit,zone=1,table=2)",
    "ct(table=2,zone=2)",
    "ct(table=2,zone=1,nat)",
];
/// TCP's flags: SYN, SYN ACK, ACK, FIN ACK, RST, RST ACK, and nonsense.
const FLAGS: &[u16] = &[0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0x03, 0];

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let first = (select(&["ip", "ipv6", "ip,in_port=1", "tcp"][..]), select(FIRST));
    let later = (1_u8..3, select(MATCHES), select(LATER));
    let first = prop::collection::vec(first, 1..4);
    (first, prop::collection::vec(later, 1..10)).prop_map(|(first, later)| {
        let first = first.into_iter().map(|(matching, actions)| (0, matching, actions));
        let read = |(priority, (table, matching, actions))| {
            let text = format!("table={table},priority={priority},{matching},actions={actions}");
            // What a text may not say, such as addresses of the other kind, is left out.
            parse_flow(&text, &PortTable::default()).ok()
        };
        (1..).zip(first.chain(later)).filter_map(read).collect()
    })
}

fn host() -> impl Strategy<Value = Host> {
    (1_u8..4, select(&[21_u16, 7][..])).prop_map(|(n, port)| Host { port, ..Host::v4(n) })
}

fn frame() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let shape = (0_u8..12, any::<bool>(), select(FLAGS));
    (host(), host(), shape).prop_map(|(from, to, (kind, is_ipv6, flags))| {
        let of_kind = |host: Host| {
            let std::net::IpAddr::V4(ip) = host.ip else { return host };
            if is_ipv6 { Host { port: host.port, ..Host::v6(ip.octets()[3]) } } else { host }
        };
        let (from, to) = (of_kind(from), of_kind(to));
        let whole = match kind {
            0..=3 => build::udp(&from, &to, b"?"),
            4..=7 => build::tcp(&from, &to, flags, b"PORT 10,0,0,1,4,1\r\n"),
            8 => build::tcp(&from, &to, flags, b""),
            9 | 10 => build::icmp_echo(&from, &to, kind == 10, 1, 1, b"!"),
            _ => return build::fragments(&build::udp(&from, &to, &[7; 600]), 1, 400),
        };
        vec![whole]
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let step = (0_u8..40, any::<usize>(), 1_u32..4, frame());
    prop::collection::vec(step, 1..100).prop_map(|steps| {
        let event = |(kind, pick, raw, mut frames): (u8, usize, u32, Vec<Vec<u8>>)| {
            match kind {
                0 => return vec![Event::Change(pick)],
                1 => return vec![Event::Wait(1_000_000_000 * (pick % 40) as u64)],
                // A checksum is wrong.
                2 => frames.iter_mut().filter_map(|frame| frame.last_mut()).for_each(|last| *last ^= 1),
                3 => frames.iter_mut().for_each(|frame| *frame = build::vlan(frame, 0x8100, 100)),
                4 => frames.iter_mut().for_each(|frame| frame.truncate(40)),
                _ => {}
            }
            // Few ports in turn make long batches.
            let raw = if kind < 30 { 1 } else { raw };
            frames.into_iter().map(|frame| Event::Frame(raw, frame)).collect()
        };
        steps.into_iter().flat_map(event).collect()
    })
}

#[test]
fn who_speaks_to_itself_by_the_same_port_is_not_answered() {
    let mut world = World::new(&[
        "table=0,priority=1,udp,actions=ct(table=1,zone=1)",
        "table=1,priority=2,udp,ct_state=+rpl+trk,actions=output:3",
        "table=1,priority=1,udp,actions=ct(commit,zone=1),output:2",
    ]);
    let frame = build::udp(&Host::v4(1), &Host::v4(1), b"hello, me");
    (0..20).for_each(|_| assert_eq!(world.send(1, &frame), [(2, frame.clone())]));
    assert_eq!(world.n_connections(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// The same bytes out, the same drops and counters, and the same connections in the end.
    #[test]
    fn the_short_way_is_the_long_one(rules in rules(), events in events(), starve in 0_usize..4) {
        let plain = observe(NO_CACHES, 1, starve, &rules, &events);
        for (n_sessions, n_megaflows) in [(0, 64), (1 << 10, 1 << 10), (4, 2)] {
            for n_batch in [1, 50] {
                let config = SwitchConfig { n_sessions, n_megaflows };
                let seen = observe(config, n_batch, starve, &rules, &events);
                prop_assert_eq!(&seen, &plain, "{:?} batch {}", config, n_batch);
            }
        }
    }
}
