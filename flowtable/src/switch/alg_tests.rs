//! The helpers as rules see them: whole conversations through a firewall and through
//! translations.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use proptest::prelude::*;

use super::ct_tests::World;
use crate::{
    build::{self, Host},
    checksum::{Sum, update},
    conntrack::{Bucket, Config, Conntrack, Filter, Slot, Storage},
    drop::DropReason,
    testing::{assert_checksums, parsed},
    types::Timestamp,
};

const SYN: u16 = 2;
const ACK: u16 = 0x10;

/// Port 1 may begin FTP conversations with port 2; what they announce may come.
const FIREWALL: &[&str] = &[
    "table=0,priority=1,ip,actions=ct(table=1,zone=7)",
    "table=0,priority=1,ipv6,actions=ct(table=1,zone=7)",
    "table=1,priority=9,in_port=1,ct_state=+new-rel,tcp,tcp_dst=21,actions=ct(commit,zone=7,alg=ftp,exec(set_field:5->ct_mark,set_field:9->ct_label)),output:2",
    "table=1,priority=9,in_port=1,ct_state=+new-rel,tcp6,tcp_dst=21,actions=ct(commit,zone=7,alg=ftp,exec(set_field:5->ct_mark,set_field:9->ct_label)),output:2",
    "table=1,priority=9,in_port=1,ct_state=+new-rel,udp,udp_dst=69,actions=ct(commit,zone=7,alg=tftp),output:2",
    // The tuple is that of the conversation which announced it.
    "table=1,priority=8,ct_state=+new+rel,ct_mark=5,ct_label=9,tcp,ct_nw_src=10.0.0.1,ct_tp_dst=21,actions=ct(commit,zone=7),resubmit(,2)",
    "table=1,priority=8,ct_state=+new+rel,ct_mark=5,ct_label=9,tcp6,ct_ipv6_src=fd00::1,ct_tp_dst=21,actions=ct(commit,zone=7),resubmit(,2)",
    "table=1,priority=8,ct_state=+new+rel,udp,ct_tp_dst=69,actions=ct(commit,zone=7),resubmit(,2)",
    "table=1,priority=7,ct_state=+est-inv,actions=resubmit(,2)",
    "table=1,priority=1,actions=drop",
    "table=2,in_port=1,actions=output:2",
    "table=2,in_port=2,actions=output:1",
];

/// Port 1 is inside; outside it is 10.9.9.9 (fd00::99).
const SOURCE_NAT: &[&str] = &[
    "table=0,in_port=1,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9),alg=ftp)",
    "table=0,in_port=1,ipv6,actions=ct(commit,table=1,zone=1,nat(src=fd00::99),alg=ftp)",
    "table=0,in_port=2,ip,actions=ct(table=1,zone=1,nat)",
    "table=0,in_port=2,ipv6,actions=ct(table=1,zone=1,nat)",
    "table=1,priority=3,in_port=1,ct_state=-inv,actions=output:2",
    "table=1,priority=3,in_port=2,ct_state=+new+rel,ip,actions=ct(commit,table=2,zone=1,nat)",
    "table=1,priority=3,in_port=2,ct_state=+new+rel,ipv6,actions=ct(commit,table=2,zone=1,nat)",
    "table=1,priority=2,in_port=2,ct_state=+est-inv,actions=output:1",
    "table=1,priority=1,actions=drop",
    "table=2,actions=output:1",
];

/// Port 2 has the server that port 1 knows as 10.9.9.9.
const DESTINATION_NAT: &[&str] = &[
    "table=0,in_port=1,ip,nw_dst=10.9.9.9,actions=ct(commit,table=1,zone=1,nat(dst=10.0.0.2),alg=ftp)",
    "table=0,in_port=2,ip,actions=ct(table=1,zone=1,nat)",
    "table=1,priority=3,in_port=1,ct_state=-inv,actions=output:2",
    "table=1,priority=3,in_port=2,ct_state=+new+rel,ip,actions=ct(commit,table=2,zone=1,nat)",
    "table=1,priority=2,in_port=2,ct_state=+est-inv,actions=output:1",
    "table=1,priority=1,actions=drop",
    "table=2,actions=output:1",
];

/// The helper is of a zone that packets are only noted in.
const TWO_ZONES: &[&str] = &[
    "table=0,ip,actions=ct(table=1,zone=1)",
    "table=1,priority=2,ct_state=+new+trk,ip,actions=ct(commit,zone=1),ct(commit,zone=2,alg=ftp),output:2",
    "table=1,priority=1,in_port=1,ip,actions=ct(commit,zone=2),output:2",
    "table=1,priority=1,in_port=2,ip,actions=ct(commit,zone=2),output:1",
];

/// A TCP segment with these numbers.
fn segment(from: &Host, to: &Host, flags: u16, (seq, ack): (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut frame = build::tcp(from, to, flags, payload);
    let l4 = if from.ip.is_ipv4() { 34 } else { 54 };
    let change = Sum::ZERO.change(1, seq.into(), 2).change(0, ack.into(), 2);
    let sum = update(u16::from_be_bytes([frame[l4 + 16], frame[l4 + 17]]), change);
    frame[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    frame[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
    frame[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
    assert_checksums(&frame);
    frame
}

/// Sequence number, acknowledgement and payload.
fn said(frame: &[u8]) -> (u32, u32, String) {
    assert_checksums(frame);
    let l4 = usize::from(parsed(frame).0.layout.l4);
    let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    let payload = String::from_utf8(frame[l4 + 20..].to_vec()).unwrap();
    (word(l4 + 4), word(l4 + 8), payload)
}

/// A conversation of two ends, each of which sends and hears.
struct Talk {
    world: World,
    /// Client and server, as each knows itself.
    ends: [Host; 2],
    /// How each knows the other.
    seen: [Host; 2],
    /// Next number of each, and the next it waits for.
    next: [u32; 2],
    awaited: [u32; 2],
}

impl Talk {
    fn new(rules: &[&str], ends: [Host; 2], seen: [Host; 2]) -> Self {
        Self::within(World::new(rules), ends, seen)
    }

    fn within(world: World, ends: [Host; 2], seen: [Host; 2]) -> Self {
        let mut talk = Self { world, ends, seen, next: [1000, u32::MAX - 20], awaited: [0; 2] };
        talk.flags(0, SYN);
        talk.flags(1, SYN | ACK);
        talk.flags(0, ACK);
        talk.say(1, "220 ready\r\n");
        talk.say(0, "USER x\r\n");
        talk
    }

    fn send(&mut self, side: usize, flags: u16, seq: u32, text: &str) -> Option<(u32, u32, String)> {
        let ack = if flags & ACK == 0 { 0 } else { self.awaited[side] };
        let (from, to) = (&self.ends[side], &self.seen[side]);
        let frame = segment(from, to, flags, (seq, ack), text.as_bytes());
        let mut out = self.world.send_once(1 + side as u32, &frame);
        assert!(out.len() <= 1);
        let (port, frame) = out.pop()?;
        assert_eq!(port, 2 - side as u32);
        Some(said(&frame))
    }

    fn flags(&mut self, side: usize, flags: u16) {
        let (seq, _, _) = self.send(side, flags, self.next[side], "").expect("it passes");
        self.next[side] = self.next[side].wrapping_add(u32::from(flags & SYN != 0));
        self.awaited[1 - side] = seq.wrapping_add(u32::from(flags & SYN != 0));
    }

    /// Says a line; answers what the other side hears. Numbers fit on both sides.
    fn say(&mut self, side: usize, text: &str) -> String {
        let (seq, ack, heard) = self.send(side, ACK, self.next[side], text).expect("it passes");
        assert_eq!(seq, self.awaited[1 - side], "the next number as the other side counts");
        assert_eq!(ack, self.next[1 - side], "all that the other side has sent");
        self.next[side] = self.next[side].wrapping_add(text.len() as u32);
        self.awaited[1 - side] = seq.wrapping_add(heard.len() as u32);
        heard
    }

    /// The first segment of a data connection; answers what arrives.
    fn open(&mut self, side: usize, from: Host, to: Host) -> Option<Vec<u8>> {
        let frame = segment(&from, &to, SYN, (7, 0), b"");
        let out = self.world.send_once(1 + side as u32, &frame);
        out.into_iter().next().map(|(_, frame)| frame)
    }

    fn n_expected(&self) -> usize {
        let tracker = self.world.switch.conntrack().unwrap();
        tracker.expected_connections(Timestamp::from_nanos(self.world.now)).len()
    }
}

fn hosts(v6: bool) -> [Host; 2] {
    let host = |n| if v6 { Host::v6(n) } else { Host::v4(n) };
    [host(1), Host { port: 21, ..host(2) }]
}

fn plain(v6: bool) -> Talk {
    let [a, b] = hosts(v6);
    Talk::new(FIREWALL, [a, b], [b, a])
}

/// Behind a translation of sources.
fn inside(v6: bool) -> Talk {
    let [a, b] = hosts(v6);
    let outside: IpAddr = if v6 { "fd00::99".parse().unwrap() } else { Ipv4Addr::new(10, 9, 9, 9).into() };
    Talk::new(SOURCE_NAT, [a, b], [b, Host { ip: outside, ..a }])
}

fn at(host: Host, port: u16) -> Host {
    Host { port, ..host }
}

#[test]
fn a_helper_hears_what_is_only_noted_in_its_zone() {
    let [a, b] = hosts(false);
    let mut talk = Talk::new(TWO_ZONES, [a, b], [b, a]);
    talk.say(0, "PORT 10,0,0,1,4,1\r\n");
    assert_eq!(talk.n_expected(), 1);
}

#[test]
fn what_is_announced_is_related_and_nothing_else() {
    for v6 in [false, true] {
        let [a, b] = hosts(v6);
        let mut talk = plain(v6);
        assert!(talk.open(0, at(a, 5000), at(b, 1025)).is_none(), "nobody has announced it");
        talk.say(0, "EPSV\r\n");
        assert_eq!(talk.say(1, "229 Extended (|||1025|)\r\n"), "229 Extended (|||1025|)\r\n");
        assert_eq!(talk.n_expected(), 1);
        assert!(talk.open(0, at(a, 5000), at(b, 1026)).is_none(), "another port");
        assert!(talk.open(1, at(b, 5000), at(a, 1025)).is_none(), "the other way");
        assert!(talk.open(0, at(a, 5000), at(b, 1025)).is_some());
        assert_eq!(talk.n_expected(), 0, "once");
        assert!(talk.open(0, at(a, 5001), at(b, 1025)).is_none());
        // The client may call for it.
        let text = if v6 { "EPRT |2|fd00::1|4000|\r\n" } else { "PORT 10,0,0,1,15,160\r\n" };
        assert_eq!(talk.say(0, text), text);
        assert!(talk.open(1, at(b, 20), at(a, 4000)).is_some());
        let tracker = talk.world.switch.conntrack().unwrap();
        let found = tracker.dump(Timestamp::from_nanos(talk.world.now), &Filter::default());
        let related: Vec<_> = found.iter().filter(|found| found.master.is_some()).collect();
        assert_eq!(related.len(), 2);
        for found in related {
            let master = found.master.unwrap();
            assert_eq!((found.mark, found.label), (5, 9), "inherited");
            assert_eq!((master.src_port, master.dst_port, master.proto), (a.port, 21, 6));
        }
        assert_eq!(tracker.stats().n_related, 2);
        // Flushing the conversation takes its expectations along.
        talk.say(1, "229 Extended (|||1030|)\r\n");
        let tracker = talk.world.switch.conntrack().unwrap();
        tracker.flush(Timestamp::from_nanos(talk.world.now), &Filter::default());
        assert_eq!((talk.n_expected(), talk.world.n_connections()), (0, 0));
    }
}

/// What is in storage goes on when another tracker takes it over; what somebody has announced
/// is not there, and must be announced again.
#[test]
fn a_restart_keeps_conversations_and_forgets_what_they_announced() {
    let slots: &'static [Slot] = Box::leak((0..32).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..8).map(|_| Bucket::default()).collect());
    let start = |seed, now| {
        let config = Config { seed, ..Config::default() };
        let tracker = Conntrack::new(config, Storage::lent(slots, buckets).unwrap());
        let World { switch, .. } = World::new(FIREWALL);
        World { switch: switch.with_conntrack(Arc::new(tracker)), now, ..World::new(FIREWALL) }
    };
    let [a, b] = hosts(false);
    let mut talk = Talk::within(start(1, 0), [a, b], [b, a]);
    talk.say(0, "EPSV\r\n");
    talk.say(1, "229 Extended (|||1025|)\r\n");
    assert_eq!((talk.n_expected(), talk.world.n_connections()), (1, 1));
    talk.world = start(2, talk.world.now);
    assert_eq!((talk.n_expected(), talk.world.n_connections()), (0, 1));
    assert!(talk.open(0, at(a, 5000), at(b, 1025)).is_none(), "it is not related to anything");
    talk.say(0, "EPSV\r\n");
    talk.say(1, "229 Extended (|||1026|)\r\n");
    assert!(talk.open(0, at(a, 5001), at(b, 1026)).is_some());
}

#[test]
fn a_server_calls_back_through_a_translation() {
    let mut talk = inside(false);
    let [a, b] = hosts(false);
    let heard = talk.say(0, "PORT 10,0,0,1,4,1\r\n");
    assert_eq!(heard, "PORT 10,9,9,9,4,1\r\n");
    talk.say(1, "200 fine\r\n");
    // As long as the port of the announcement is free, it stays.
    let arrived = talk.open(1, at(b, 20), Host { ip: [10, 9, 9, 9].into(), ..at(a, 1025) }).unwrap();
    assert_eq!(arrived, segment(&at(b, 20), &at(a, 1025), SYN, (7, 0), b""));
    // Longer, and longer again: numbers stay right on both sides.
    assert_eq!(talk.say(0, "EPRT |1|10.0.0.1|9|\r\n"), "EPRT |1|10.9.9.9|9|\r\n");
    for _ in 0..3 {
        talk.say(1, "200 fine\r\n");
        talk.say(0, "NOOP\r\n");
    }
    let mut talk = inside(true);
    let [a, b] = hosts(true);
    assert_eq!(talk.say(0, "EPRT |2|fd00::1|1025|\r\n"), "EPRT |2|fd00::99|1025|\r\n");
    talk.say(1, "200 fine\r\n");
    talk.say(0, "LIST\r\n");
    let arrived = talk.open(1, at(b, 20), Host { ip: "fd00::99".parse().unwrap(), ..at(a, 1025) }).unwrap();
    assert_eq!(arrived, segment(&at(b, 20), &at(a, 1025), SYN, (7, 0), b""));
}

#[test]
fn a_server_behind_a_translation_is_found() {
    let [a, b] = hosts(false);
    let public = Host { ip: [10, 9, 9, 9].into(), ..b };
    let mut talk = Talk::new(DESTINATION_NAT, [a, b], [public, a]);
    talk.say(0, "PASV\r\n");
    let heard = talk.say(1, "227 Entering Passive Mode (10,0,0,2,4,1).\r\n");
    assert_eq!(heard, "227 Entering Passive Mode (10,9,9,9,4,1).\r\n");
    talk.say(0, "LIST\r\n");
    let arrived = talk.open(0, at(a, 5000), at(public, 1025)).unwrap();
    assert_eq!(arrived, segment(&at(a, 5000), &at(b, 1025), SYN, (7, 0), b""));
    // Called back, it seems to call by its public address.
    talk.say(0, "PORT 10,0,0,1,4,2\r\n");
    let arrived = talk.open(1, at(b, 20), at(a, 1026)).unwrap();
    assert_eq!(arrived, segment(&at(public, 20), &at(a, 1026), SYN, (7, 0), b""));
}

#[test]
fn what_nobody_should_believe_is_not_believed() {
    let mut talk = plain(false);
    // Of another host: the bounce attack.
    talk.say(0, "PORT 10,0,0,9,4,1\r\n");
    // By the wrong side.
    talk.say(1, "PORT 10,0,0,2,4,1\r\n");
    // In the middle of a line, where a name has been echoed.
    talk.say(1, "550 no such file: ");
    talk.say(1, "227 Entering Passive Mode (10,0,0,2,4,1)\r\n");
    assert_eq!(talk.n_expected(), 0);
    // Cut: not passed on, so that it comes again.
    let next = talk.next[0];
    assert_eq!(talk.send(0, ACK, next, "PORT 10,0,0"), None);
    assert_eq!(talk.world.drops().last(), Some(&(DropReason::AlgSplit, 1)));
    talk.say(0, "PORT 10,0,0,1,4,1\r\n");
    assert_eq!(talk.n_expected(), 1);
    // No more than some of one conversation.
    for port in 0..20 {
        talk.say(0, &format!("PORT 10,0,0,1,5,{port}\r\n"));
    }
    assert_eq!(talk.n_expected(), 4);
    talk.world.now += 301_000_000_000;
    assert_eq!(talk.n_expected(), 0, "not for ever");
}

#[test]
fn a_command_that_is_sent_again_is_changed_again() {
    let mut talk = inside(false);
    let seq = talk.next[0];
    let heard = talk.say(0, "PORT 10,0,0,1,200,200\r\n");
    assert_eq!(heard, "PORT 10,9,9,9,200,200\r\n");
    let longer = "EPRT |1|10.0.0.1|60000|\r\n";
    let seq_longer = talk.next[0];
    let heard = talk.say(0, longer);
    let (seq_heard, _, again) = talk.send(0, ACK, seq_longer, longer).unwrap();
    assert_eq!(again, heard);
    assert_eq!(seq_heard.wrapping_add(heard.len() as u32), talk.awaited[1]);
    assert!(seq < seq_longer);
    talk.say(1, "200 fine\r\n");
    talk.say(0, "LIST\r\n");
}

#[test]
fn two_clients_may_announce_the_same_port() {
    let [a, b] = hosts(false);
    let mut talk = inside(false);
    talk.say(0, "PORT 10,0,0,1,4,1\r\n");
    let other = Host::v4(3);
    let (world, second) = (talk.world, Host { ip: [10, 9, 9, 9].into(), ..other });
    let mut talk = Talk { world, ends: [other, b], seen: [b, second], next: [50, 90], awaited: [0; 2] };
    talk.flags(0, SYN);
    talk.flags(1, SYN | ACK);
    talk.flags(0, ACK);
    talk.say(0, "USER y\r\n");
    assert_eq!(talk.say(0, "PORT 10,0,0,3,4,1\r\n"), "PORT 10,9,9,9,4,2\r\n");
    for (port, inside) in [(1025, a), (1026, other)] {
        let arrived = talk.open(1, at(b, 20), Host { port, ..second }).unwrap();
        assert_eq!(
            arrived,
            segment(&at(b, 20), &Host { mac: second.mac, ..at(inside, 1025) }, SYN, (7, 0), b"")
        );
    }
}

#[test]
fn tftp_answers_from_another_port() {
    let [a, b] = [Host::v4(1), Host { port: 69, ..Host::v4(2) }];
    let mut world = World::new(FIREWALL);
    let answer = build::udp(&at(b, 3000), &a, b"\0\x03data");
    assert_eq!(world.send_once(2, &answer), []);
    let request = build::udp(&a, &b, b"\0\x01file\0octet\0");
    assert_eq!(world.send_once(1, &request), [(2, request.clone())]);
    assert_eq!(world.send_once(2, &answer), [(1, answer.clone())]);
    let ack = build::udp(&a, &at(b, 3000), b"\0\x04\0\x01");
    assert_eq!(world.send_once(1, &ack), [(2, ack.clone())]);
    // Translated: the port that the server knows leads back.
    let mut rules = SOURCE_NAT.to_vec();
    rules[0] = "table=0,in_port=1,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9:777),alg=tftp)";
    let mut world = World::new(&rules);
    let seen = Host { ip: [10, 9, 9, 9].into(), port: 777, ..a };
    let out = world.send_once(1, &request);
    assert_eq!(out, [(2, build::udp(&seen, &b, b"\0\x01file\0octet\0"))]);
    let answer = |to: &Host| build::udp(&at(b, 3000), to, b"\0\x03data");
    assert_eq!(world.send_once(2, &answer(&seen)), [(1, answer(&a))]);
    assert_eq!(world.send_once(1, &ack), [(2, build::udp(&seen, &at(b, 3000), b"\0\x04\0\x01"))]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any sequence of commands and answers, some of them sent again: the streams arrive
    /// without gaps, and what was announced is all that differs.
    #[test]
    fn streams_arrive_whole_however_long_announcements_become(
        lines in prop::collection::vec((0_u8..6, 1_u16..60_000, any::<bool>()), 1..30),
    ) {
        let mut talk = inside(false);
        for (kind, port, again) in lines {
            let side = usize::from(kind == 5);
            let [high, low] = port.to_be_bytes();
            let text = match kind {
                0 => format!("PORT 10,0,0,1,{high},{low}\r\n"),
                1 => format!("EPRT |1|10.0.0.1|{port}|\r\n"),
                2 => format!("RETR file{port}\r\n"),
                _ => "NOOP\r\n".to_owned(),
            };
            let seq = talk.next[side];
            let heard = talk.say(side, &text);
            prop_assert_eq!(heard.replace("10,9,9,9", "10,0,0,1").replace("10.9.9.9", "10.0.0.1"), text.clone());
            prop_assert_eq!(heard == text, kind > 1);
            if again {
                let (_, _, repeated) = talk.send(side, ACK, seq, &text).unwrap();
                prop_assert_eq!(repeated, heard);
            }
        }
    }
}
