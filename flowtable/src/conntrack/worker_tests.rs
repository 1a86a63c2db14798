//! Workers that share a tracker: real threads, both directions of each conversation on
//! different ones. What is checked holds for every interleaving.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Barrier,
};

use super::{tests::at, *};
use crate::{build::Host, key::ct_state};

/// Conversations of a round.
const N_FLOWS: u32 = 200;
/// Rounds, each with a tracker of its own and another order.
const N_ROUNDS: u64 = 8;

fn view(n: u32, l4: L4, ipv6: bool) -> View {
    let high = if ipv6 { 0xfd << 120 } else { 0 };
    let proto = if matches!(l4, L4::Tcp(_)) { 6 } else { 17 };
    let (src, dst) = (high | u128::from(0x0a00_0000 + n / 4), high | 0x0b00_0001);
    let tuple = Tuple { zone: 0, ipv6, proto, src, dst, src_port: 1000 + n as u16, dst_port: 80 };
    View { tuple, l4 }
}

fn segment(flags: u8, seq: u32, ack: u32) -> L4 {
    L4::Tcp(Segment { flags, seq, ack, window: 1000, scale: None, len: 0 })
}

/// What all that belongs to a conversation is marked with.
fn mark_of(n: u32) -> (u32, u128) {
    (n.wrapping_mul(0x9e37_79b1) | 1, u128::from(n).wrapping_mul(0x9e37_79b1_85eb_ca6b_c2b2_ae35_27d4_eb2f))
}

fn request(n: u32, commit: bool) -> Request {
    let range = NatRange {
        kind: NatKind::Source,
        addresses: Some((Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(192, 0, 2, 2).into())),
        ports: None,
        order: NatOrder::Keep,
        persistent: false,
    };
    let (mark, label) = mark_of(n);
    let nat = Some(if commit { Nat::New(range) } else { Nat::Existing });
    Request { zone: 5, commit, nat, mark: (mark, u32::MAX), label: (label, u128::MAX), ..Request::default() }
}

/// Whatever a verdict says of a connection is all of the same connection.
fn assert_whole(n: u32, verdict: &Verdict, first: &View) {
    if verdict.state & ct_state::EST == 0 {
        return;
    }
    assert_eq!(verdict.original, Some(Tuple { zone: 5, ..first.tuple }), "connection {n}");
    assert_eq!((verdict.mark, verdict.label), mark_of(n), "connection {n}");
}

/// One side of each TCP conversation at each worker: none is lost or mixed up with
/// another, and translations are unique.
#[test]
fn both_directions_at_different_workers() {
    for round in 0..N_ROUNDS {
        let config = Config { seed: round, ..Config::default() };
        let tracker = Conntrack::new(config, Storage::on_heap(1024));
        let barrier = Barrier::new(2);
        let order = |step: u32| (step.wrapping_mul(77).wrapping_add(round as u32 * 13)) % N_FLOWS;
        // Translations as the responder sees them, once it has been told.
        let told: Vec<Mutex<Option<Tuple>>> = (0..N_FLOWS).map(|_| Mutex::new(None)).collect();
        let originator = || {
            barrier.wait();
            for step in 0..N_FLOWS {
                let n = order(step);
                let first = view(n, segment(2, 100, 0), false);
                let verdict = tracker.track(at(1), &request(n, true), &first).unwrap();
                *told[n as usize].lock().unwrap() = Some(verdict.rewrite.unwrap().outer);
                // Again, and what follows as soon as the other side has answered.
                tracker.track(at(1), &request(n, true), &first).unwrap();
                let ack = View { l4: segment(0x10, 101, 501), ..first };
                while tracker.track(at(1), &request(n, false), &ack).unwrap().state & ct_state::EST == 0 {
                    std::thread::yield_now();
                }
                for _ in 0..20 {
                    let verdict = tracker.track(at(1), &request(n, true), &ack).unwrap();
                    assert_ne!(verdict.state & ct_state::EST, 0, "connection {n} is not forgotten");
                    assert_whole(n, &verdict, &first);
                }
            }
        };
        let responder = || {
            barrier.wait();
            for step in 0..N_FLOWS {
                let n = order(step);
                let seen = loop {
                    match *told[n as usize].lock().unwrap() {
                        Some(outer) => break outer,
                        None => {
                            tracker.tick(at(1));
                            std::thread::yield_now();
                        }
                    }
                };
                let first = view(n, L4::Udp, false);
                let first = View { tuple: Tuple { proto: 6, ..first.tuple }, ..first };
                let answer =
                    View { tuple: Tuple { zone: 0, ..seen }.reversed(), l4: segment(0x12, 500, 101) };
                for _ in 0..20 {
                    let verdict = tracker.track(at(1), &request(n, false), &answer).unwrap();
                    assert_eq!(
                        verdict.state & (ct_state::EST | ct_state::RPL),
                        ct_state::EST | ct_state::RPL
                    );
                    assert_whole(n, &verdict, &first);
                    assert_eq!(verdict.rewrite.unwrap().outer, Tuple { zone: 5, ..first.tuple }.reversed());
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(originator);
            scope.spawn(responder);
        });
        let dump = tracker.dump(at(1), &Filter::default());
        assert_eq!((dump.len(), tracker.stats().n_connections), (N_FLOWS as usize, u64::from(N_FLOWS)));
        assert!(dump.iter().all(|found| found.state == State::TcpEstablished && found.has_replied));
        let replies: BTreeSet<_> = dump.iter().map(|found| found.reply).collect();
        assert_eq!(replies.len(), dump.len(), "no translation twice");
    }
}

/// The same conversation begun by both ends at once, at different workers: it is one
/// connection, and both are told the same of it.
#[test]
fn a_conversation_begun_at_both_ends_is_one_connection() {
    for round in 0..N_ROUNDS {
        for ipv6 in [false, true] {
            let config = Config { seed: round, ..Config::default() };
            let tracker = Conntrack::new(config, Storage::on_heap(1024));
            let barrier = Barrier::new(2);
            let side = |reverse: bool| {
                barrier.wait();
                for n in 0..N_FLOWS {
                    let first = view(n, L4::Udp, ipv6);
                    let mine = if reverse { View { tuple: first.tuple.reversed(), ..first } } else { first };
                    let request = Request { nat: None, ..request(n, true) };
                    for _ in 0..5 {
                        let verdict = tracker.track(at(1), &request, &mine).unwrap();
                        let original = verdict.original.unwrap();
                        let either =
                            [first.tuple, first.tuple.reversed()].map(|tuple| Tuple { zone: 5, ..tuple });
                        assert!(either.contains(&original));
                        assert_eq!((verdict.mark, verdict.label), mark_of(n));
                        let is_reply = original != Tuple { zone: 5, ..mine.tuple };
                        assert_eq!(verdict.state & ct_state::RPL != 0, is_reply);
                    }
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| side(false));
                scope.spawn(|| side(true));
            });
            let dump = tracker.dump(at(1), &Filter::default());
            assert_eq!(dump.len(), N_FLOWS as usize);
            assert!(dump.iter().all(|found| found.has_replied), "no packet was lost to the count");
            assert_eq!(tracker.stats().n_created, u64::from(N_FLOWS));
        }
    }
}

/// Connections come and go at one worker while another looks at its own: slots change
/// hands all the time, and nobody is shown somebody else's.
#[test]
fn slots_change_hands_under_the_eyes_of_others() {
    let tracker = Conntrack::new(Config { seed: 3, ..Config::default() }, Storage::on_heap(64));
    let busy = AtomicBool::new(true);
    let churn = || {
        for round in 0..20_000_u32 {
            let n = 1000 + round % 500;
            // Too many for the storage: each takes the slot of another.
            let _ = tracker.track(
                at(1),
                &Request { nat: None, ..request(n, true) },
                &view(n, L4::Udp, n % 2 == 0),
            );
            if round % 64 == 0 {
                tracker.flush(at(1), &Filter { mark: Some((mark_of(n).0, u32::MAX)), ..Filter::default() });
            }
        }
        busy.store(false, Relaxed);
    };
    let watch = || {
        let mut n_seen = 0_u64;
        while busy.load(Relaxed) {
            for n in 1000..1500_u32 {
                let first = view(n, L4::Udp, n % 2 == 0);
                let request = Request { nat: None, commit: false, ..request(n, false) };
                let verdict = tracker.track(at(1), &request, &first).unwrap();
                assert_eq!(verdict.state & ct_state::INV, 0);
                assert_eq!(verdict.original, Some(Tuple { zone: 5, ..first.tuple }));
                if verdict.mark != 0 {
                    n_seen += 1;
                    assert_eq!((verdict.mark, verdict.label), mark_of(n), "torn, or another's");
                }
            }
            for found in tracker.dump(at(1), &Filter::default()) {
                let n = u32::from(found.original.src_port) - 1000;
                assert_eq!((found.mark, found.label), mark_of(n), "torn, or another's");
                assert_eq!(found.reply, found.original.reversed());
            }
        }
        assert!(n_seen > 0);
    };
    std::thread::scope(|scope| {
        scope.spawn(churn);
        scope.spawn(watch);
    });
    let dump = tracker.dump(at(1), &Filter::default());
    assert_eq!(tracker.stats().n_connections, dump.len() as u64);
    tracker.flush(at(1), &Filter::default());
    assert!(tracker.index().is_empty(), "no cell is left behind");
}

/// All of an address counts, also where the parts of two add up to the same.
#[test]
fn ipv6_addresses_are_compared_whole() {
    let tracker = Conntrack::new(Config { seed: 3, ..Config::default() }, Storage::on_heap(64));
    let (a, b) = (Host::v6(1), Host::v6(2));
    let IpAddr::V6(address) = a.ip else { unreachable!() };
    let (one, twin) = (address.to_bits(), address.to_bits() ^ 5 << 64 ^ 5 << 32);
    let IpAddr::V6(to) = b.ip else { unreachable!() };
    for src in [one, twin] {
        let first = view(1, L4::Udp, true);
        let first = View { tuple: Tuple { src, dst: to.to_bits(), ..first.tuple }, ..first };
        let verdict = tracker.track(at(1), &Request { nat: None, ..request(1, true) }, &first).unwrap();
        assert_eq!(verdict.original.unwrap().src, src);
    }
    assert_eq!(tracker.stats().n_connections, 2);
}
