//! Fragments through the tracker: the oracle is the whole packet, through the same rules.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::ct_tests::World;
use crate::{
    build::{self, Host},
    conntrack::{Config, Conntrack, Filter, FragmentLimits, Storage},
    drop::DropReason,
    testing::parsed,
    types::Timestamp,
};

const SECOND: u64 = 1_000_000_000;

/// Port 1 is behind a translation of sources; answers come back by port 2.
const GATEWAY: &[&str] = &[
    "table=0,priority=2,in_port=1,ip,actions=ct(commit,table=1,zone=1,nat(src=10.9.9.9:4000-4999))",
    "table=0,priority=2,in_port=1,ipv6,actions=ct(commit,table=1,zone=1,nat(src=[fd00::99]:4000-4999))",
    "table=0,priority=1,in_port=2,ip,actions=ct(table=1,zone=1,nat)",
    "table=0,priority=1,in_port=2,ipv6,actions=ct(table=1,zone=1,nat)",
    "table=1,priority=2,ct_state=+trk-inv,in_port=1,actions=output:2",
    "table=1,priority=2,ct_state=+est+rpl-inv,in_port=2,actions=output:1",
    "table=1,priority=1,actions=drop",
];

/// Port 2 gets first fragments, port 3 later ones, both what is whole: of tracked packets.
const BY_KIND: &[&str] = &[
    "table=0,priority=2,ip,actions=ct(table=1,zone=7)",
    "table=0,priority=2,ipv6,actions=ct(table=1,zone=7)",
    "table=1,priority=3,ct_state=+trk+new,ip,nw_frag=first,actions=ct(commit,zone=7),output:2",
    "table=1,priority=3,ct_state=+trk+new,ip,nw_frag=later,actions=ct(commit,zone=7),output:3",
    "table=1,priority=3,ct_state=+trk+new,ipv6,nw_frag=first,actions=ct(commit,zone=7),output:2",
    "table=1,priority=3,ct_state=+trk+new,ipv6,nw_frag=later,actions=ct(commit,zone=7),output:3",
    "table=1,priority=3,ct_state=+trk+new,ip,nw_frag=no,actions=output:2,output:3",
    "table=1,priority=1,actions=drop",
];

/// Payload of an IP frame without its fragment header, and where it belongs.
fn payload(frame: &[u8]) -> (usize, &[u8]) {
    let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match (frame[14] >> 4, frame[14 + 6]) {
        (4, _) => ((word(14 + 6) & 0x1fff) * 8, &frame[34..14 + word(14 + 2)]),
        (_, 44) => (word(54 + 2) & !7, &frame[62..54 + word(14 + 4)]),
        _ => (0, &frame[54..54 + word(14 + 4)]),
    }
}

/// Addresses and payload of the packet that these fragments make.
fn whole(fragments: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut addresses = BTreeMap::new();
    for fragment in fragments {
        let (offset, piece) = payload(fragment);
        assert_eq!(offset, bytes.len(), "in order");
        bytes.extend_from_slice(piece);
        let range = if fragment[14] >> 4 == 4 { 26..34 } else { 22..54 };
        addresses.insert(fragment[range].to_vec(), ());
    }
    assert_eq!(addresses.len(), 1, "all have the same addresses");
    (addresses.into_keys().next().unwrap(), bytes)
}

fn packet(kind: u8, v6: bool, payload: &[u8]) -> [Vec<u8>; 2] {
    let host = |n| if v6 { Host::v6(n) } else { Host::v4(n) };
    let (a, b) = (host(1), host(2));
    let outside: IpAddr =
        if v6 { "fd00::99".parse::<Ipv6Addr>().unwrap().into() } else { Ipv4Addr::new(10, 9, 9, 9).into() };
    match kind {
        0 => {
            let seen = Host { ip: outside, port: 4000, ..a };
            [build::udp(&a, &b, payload), build::udp(&b, &seen, payload)]
        }
        1 => {
            let seen = Host { ip: outside, ..a };
            [build::icmp_echo(&a, &b, false, 7, 1, payload), build::icmp_echo(&b, &seen, true, 7, 1, payload)]
        }
        2 => {
            let seen = Host { ip: outside, port: 4000, ..a };
            [build::tcp(&a, &b, 0x10, payload), build::tcp(&b, &seen, 0x10, payload)]
        }
        _ => {
            let mut key = parsed(&build::udp(&a, &b, b"")).1;
            key.nw_proto = 132;
            let there = build::frame_from_key(&key, payload.len());
            [there.clone(), there]
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut into pieces of any size, in any order: the same packet leaves, in pieces of the
    /// same sizes, there and back, and its checksum is right as a whole.
    #[test]
    fn fragments_fare_as_their_packet(
        kind in 0_u8..4, v6: bool, len in 600_usize..9000, max_len in 256_usize..3000,
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..12),
    ) {
        let body: Vec<u8> = (0..len).map(|idx| (idx * 7) as u8).collect();
        let [there, back] = packet(kind, v6, &body);
        let (mut cut, mut uncut) = (World::new(GATEWAY), World::new(GATEWAY));
        // A reset or an unknown chunk begins nothing; the answer to SCTP needs another tag.
        for (raw, frame) in [(1, &there), (2, &back)].into_iter().take(if kind == 3 { 1 } else { 2 }) {
            let mut pieces = build::fragments(frame, 77 + raw, max_len);
            let sizes: Vec<usize> = pieces.iter().map(Vec::len).collect();
            for (a, b) in &swaps {
                let (a, b) = (a.index(pieces.len()), b.index(pieces.len()));
                pieces.swap(a, b);
            }
            let expected = uncut.send_once(raw, frame);
            let (last, first) = pieces.split_last().unwrap();
            for piece in first {
                prop_assert_eq!(cut.send_once(raw, piece), []);
            }
            let out = cut.send_once(raw, last);
            if expected.is_empty() {
                prop_assert_eq!(out, []);
                continue;
            }
            prop_assert!(out.iter().all(|(port, _)| *port == expected[0].0));
            let out: Vec<Vec<u8>> = out.into_iter().map(|(_, frame)| frame).collect();
            prop_assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            prop_assert_eq!(whole(&out), whole(&[expected[0].1.clone()]));
        }
        prop_assert_eq!(cut.n_connections(), uncut.n_connections());
        prop_assert_eq!(cut.switch.conntrack().unwrap().fragments_held(), (0, 0));
    }

    /// Whatever pieces there are: each is entered once, nothing stays for ever, and what
    /// leaves is all of a packet without overlaps.
    #[test]
    fn random_pieces_are_accounted_for(
        v6: bool,
        pieces in prop::collection::vec((0_usize..12, 1_usize..6, any::<bool>(), 0_u32..2), 1..60),
    ) {
        let mut world = World::new(BY_KIND);
        let body = build::udp(&if v6 { Host::v6(1) } else { Host::v4(1) }, &if v6 { Host::v6(2) } else { Host::v4(2) }, &[7; 8000]);
        let all = build::fragments(&body, 1, 256);
        let mut n_out = 0;
        for (at, n, is_last, id) in &pieces {
            // A longer piece from several.
            let mut frame = all[*at].clone();
            for other in &all[*at + 1..*at + n] {
                frame.extend_from_slice(payload(other).1);
            }
            set_header(&mut frame, at * 256, !is_last, *id);
            n_out += world.send_once(1, &frame).len() as u64;
        }
        world.now += 31 * SECOND;
        n_out += world.send_once(1, &build::arp(1, &Host::v4(1), &Host::v4(2))).len() as u64;
        let counters = world.switch.counters();
        prop_assert_eq!(counters.n_packets, pieces.len() as u64 + 1);
        prop_assert_eq!(counters.n_forwarded, n_out);
        prop_assert_eq!(world.switch.conntrack().map(|tracker| tracker.fragments_held()), Some((0, 0)));
    }
}

/// Makes a frame of another length, offset and id.
fn set_header(frame: &mut [u8], offset: usize, more: bool, id: u32) {
    let len = frame.len();
    if frame[14] >> 4 == 4 {
        frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        let bits = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&bits.to_be_bytes());
        frame[24..26].fill(0);
        let sum = crate::checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
        frame[56..58].copy_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
        frame[58..62].copy_from_slice(&id.to_be_bytes());
    }
}

#[test]
fn each_fragment_keeps_its_kind_and_knows_its_connection() {
    for (a, b) in [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))] {
        let mut world = World::new(BY_KIND);
        let pieces = build::fragments(&build::udp(&a, &b, &[1; 1000]), 9, 512);
        assert_eq!(world.send_once(1, &pieces[0]), []);
        assert_eq!(world.n_connections(), 0, "nothing is known of half a packet");
        let out = world.send_once(1, &pieces[1]);
        assert_eq!(out, [(2, pieces[0].clone()), (3, pieces[1].clone())]);
        // Committed by both, once.
        assert_eq!(world.n_connections(), 1);
        assert_eq!(world.switch.conntrack().unwrap().stats().n_created, 1);
    }
    let mut world = World::new(BY_KIND);
    let frame = build::udp(&Host::v4(1), &Host::v4(2), &[1; 1000]);
    assert_eq!(world.send(1, &frame), [(2, frame.clone()), (3, frame)]);
}

/// Sends pieces and says what was dropped of them.
fn drops_of(pieces: &[Vec<u8>]) -> (usize, Vec<(DropReason, u64)>) {
    let mut world = World::new(BY_KIND);
    let n_out = pieces.iter().map(|piece| world.send_once(1, piece).len()).sum();
    world.now += 40 * SECOND;
    world.send_once(3, &build::arp(1, &Host::v4(1), &Host::v4(2)));
    let drops = world.drops().into_iter().filter(|(reason, _)| *reason != DropReason::TableMiss).collect();
    (n_out, drops)
}

#[test]
fn drops_have_their_names() {
    for (a, b) in [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))] {
        let pieces = build::fragments(&build::udp(&a, &b, &[1; 3000]), 9, 1000);
        let [first, second, third, fourth] = &pieces[..] else { panic!("{}", pieces.len()) };
        let all =
            |order: &[&Vec<u8>]| drops_of(&order.iter().map(|piece| (*piece).clone()).collect::<Vec<_>>());
        assert_eq!(all(&[fourth, second, third, first]), (4, vec![]));
        assert_eq!(all(&[first, second, third]), (0, vec![(DropReason::FragmentTimeout, 3)]));
        let duplicate = vec![(DropReason::FragmentDuplicate, 1)];
        assert_eq!(all(&[first, second, second, third, fourth]), (4, duplicate));
        // One that begins within another: all of the packet is lost, and what comes late.
        let mut between = second.clone();
        set_header(&mut between, 504, true, 9);
        let overlap = vec![(DropReason::FragmentOverlap, 5)];
        assert_eq!(all(&[first, second, &between, third, fourth]), (0, overlap.clone()));
        // Two ends.
        let mut end = second.clone();
        set_header(&mut end, 1000, false, 9);
        assert_eq!(all(&[first, third, fourth, &end, second]), (0, overlap.clone()));
        assert_eq!(all(&[&end, third, first, second, fourth]), (0, overlap));
        // Not of whole units, but not the last; tiny; without the whole header of TCP; beyond the end.
        let invalid = |n| vec![(DropReason::FragmentInvalid, n)];
        let mut odd = first[..first.len() - 3].to_vec();
        set_header(&mut odd, 0, true, 9);
        assert_eq!(all(&[&odd]), (0, invalid(1)));
        let tiny = build::fragments(&build::udp(&a, &b, &[1; 500]), 9, 248);
        assert_eq!(drops_of(&tiny).1, [(DropReason::FragmentInvalid, 2), (DropReason::FragmentTimeout, 1)]);
        let header = build::fragments(&build::tcp(&a, &b, 2, &[1; 500]), 9, 16);
        assert_eq!(all(&[&header[0]]), (0, invalid(1)));
        let mut far = first.clone();
        set_header(&mut far, 65_000, false, 9);
        assert_eq!(all(&[&far]), (0, invalid(1)));
    }
}

#[test]
fn a_packet_of_too_many_fragments_is_given_up() {
    let mut world = World::new(BY_KIND);
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    tracker.set_fragment_limits(None, Some(FragmentLimits { min_len: 8, ..FragmentLimits::default() }));
    world.switch = world.switch.with_conntrack(Arc::clone(&tracker));
    let pieces = build::fragments(&build::udp(&Host::v4(1), &Host::v4(2), &[1; 2000]), 9, 8);
    let n_out: usize = pieces.iter().map(|piece| world.send_once(1, piece).len()).sum();
    assert_eq!((n_out, world.drops()), (0, vec![(DropReason::FragmentLimit, pieces.len() as u64)]));
}

#[test]
fn memory_is_bounded_and_a_port_that_floods_pushes_out_its_own() {
    let mut world = World::new(BY_KIND);
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    let limits = FragmentLimits { memory: 64 << 10, ..FragmentLimits::default() };
    tracker.set_fragment_limits(Some(7), Some(limits));
    world.switch = world.switch.with_conntrack(Arc::clone(&tracker));
    let victim = build::fragments(&build::udp(&Host::v4(1), &Host::v4(2), &[1; 1500]), 1, 1000);
    assert_eq!(world.send_once(1, &victim[0]), []);
    for id in 0..2000 {
        let flood = build::fragments(&build::udp(&Host::v4(8), &Host::v4(9), &[1; 1500]), id, 1000);
        assert_eq!(world.send_once(3, &flood[0]), []);
        let (_, memory) = tracker.fragments_held();
        assert!(memory <= limits.memory / 4 + 4096, "{memory} bytes");
    }
    assert_eq!(world.send_once(1, &victim[1]).len(), 2, "another port has lost nothing");
    let lost: u64 = world.drops().iter().map(|(_, n)| n).sum();
    let (n_held, _) = tracker.fragments_held();
    assert_eq!(world.drops()[0].0, DropReason::FragmentLimit);
    assert_eq!(lost + n_held as u64, 2000);
}

#[test]
fn time_is_limited_by_zone() {
    let mut world = World::new(BY_KIND);
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    let limits = FragmentLimits { timeout: Duration::from_secs(2), ..FragmentLimits::default() };
    tracker.set_fragment_limits(Some(7), Some(limits));
    world.switch = world.switch.with_conntrack(tracker);
    let pieces = build::fragments(&build::udp(&Host::v4(1), &Host::v4(2), &[1; 1000]), 9, 512);
    world.send_once(1, &pieces[0]);
    world.now += 3 * SECOND;
    assert_eq!(world.send_once(1, &pieces[1]), []);
    assert_eq!(world.drops(), [(DropReason::FragmentTimeout, 1)]);
    // The other half waits in its turn.
    world.now += SECOND;
    assert_eq!(world.send_once(1, &pieces[0]).len(), 2);
}

/// Halves come to different workers; either may complete the packet.
#[test]
fn workers_complete_each_others_packets() {
    let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
    let [mut one, mut other] = [(); 2].map(|()| {
        let World { switch, .. } = World::new(GATEWAY);
        World { switch: switch.with_conntrack(Arc::clone(&tracker)), ..World::new(GATEWAY) }
    });
    // Numbers of frozen walks differ between the two.
    other.send_once(2, &build::udp(&Host::v4(2), &Host::v4(1), b""));
    let pieces = build::fragments(&build::udp(&Host::v4(1), &Host::v4(2), &[1; 1000]), 9, 512);
    assert_eq!(one.send_once(1, &pieces[0]), []);
    assert_eq!(one.switch.counters().n_packets, 0, "not entered before its fate is known");
    let out = other.send_once(1, &pieces[1]);
    assert_eq!(out.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(other.switch.counters().n_packets, 3);
}

/// A flush is about connections: halves belong to none yet, and make one when they are whole.
/// They do not outlive their tracker; what came of them before is lost, as on a bad link.
#[test]
fn halves_outlive_a_flush_but_not_a_restart() {
    let start = || {
        let World { switch, snapshot, now } = World::new(BY_KIND);
        let tracker = Arc::new(Conntrack::new(Config::default(), Storage::on_heap(64)));
        World { switch: switch.with_conntrack(tracker), snapshot, now }
    };
    let pieces = build::fragments(&build::udp(&Host::v4(1), &Host::v4(2), &[1; 1000]), 9, 512);
    let mut world = start();
    assert_eq!(world.send_once(1, &pieces[0]), []);
    let tracker = Arc::clone(world.switch.conntrack().unwrap());
    tracker.flush(Timestamp::from_nanos(world.now), &Filter::default());
    assert_eq!(tracker.fragments_held().0, 1);
    assert_eq!(world.send_once(1, &pieces[1]).len(), 2);

    assert_eq!(world.send_once(1, &pieces[0]), []);
    let mut world = World { now: world.now, ..start() };
    assert_eq!(world.send_once(1, &pieces[1]), [], "alone, it waits");
    world.now += 40 * SECOND;
    assert_eq!(world.send_once(1, &pieces[1]), []);
    assert_eq!(world.drops(), [(DropReason::FragmentTimeout, 1)], "what waited has gone under its name");
    assert_eq!(world.send_once(1, &pieces[0]).len(), 2, "and the next whole packet passes");
}
