//! Attacks in virtual time: a minute of each at a rate that is plausible for storage of
//! this size. An established conversation loses no packet; who fills the table is named.

use std::time::Duration;

use super::{
    fragments::{Held, Offered},
    piece::Piece,
    tests::{at, establish},
    *,
};
use crate::{
    build::{self, Host},
    key::ct_state,
    testing::parsed,
    types::BridgeId,
};

/// A minute.
const DURATION: u64 = 60;
/// Packets of the attacker in a second; slots are as few in proportion.
const RATE: u64 = 500;
const N_SLOTS: usize = 256;
const VICTIM_ZONE: u16 = 5;
const ATTACKER: u32 = 0xc0a8_0001;

fn request(zone: u16, in_port: u16) -> Request {
    Request { zone, commit: true, in_port, ..Request::default() }
}

fn view(src: u32, ports: (u16, u16), l4: L4) -> View {
    let proto = match l4 {
        L4::Tcp(_) => 6,
        L4::Icmp => 1,
        _ => 17,
    };
    let tuple = Tuple {
        zone: 0,
        ipv6: false,
        proto,
        src: src.into(),
        dst: 0x0a00_0002,
        src_port: ports.0,
        dst_port: ports.1,
    };
    View { tuple, l4 }
}

fn segment(flags: u8, seq: u32, ack: u32) -> L4 {
    L4::Tcp(Segment { flags, seq, ack, window: 1000, scale: None, len: 0 })
}

/// Runs an attack beside a victim's conversation, a packet of which comes every 50 ms.
fn attack(tracker: &Conntrack, zone: u16, packet: impl Fn(u64) -> View) {
    establish(tracker, 0, 1, 77);
    let data = view(1, (77, 80), segment(0x10, 101, 501));
    for n in 0..DURATION * RATE {
        let now = Timestamp::from_nanos(1_000_000_000 + n * (1_000_000_000 / RATE));
        if n % 32 == 0 {
            tracker.tick(now);
        }
        let _ = tracker.track(now, &request(zone, 9), &packet(n));
        if n % (RATE / 20) == 0 {
            let verdict = tracker.track(now, &Request { commit: false, ..request(VICTIM_ZONE, 1) }, &data);
            assert_eq!(verdict.unwrap().state, ct_state::TRK | ct_state::EST, "the victim lost packet {n}");
        }
    }
}

fn tracker() -> Conntrack {
    Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(N_SLOTS))
}

/// The attacker has more connections than anybody else, and has them by its name.
fn assert_named(tracker: &Conntrack, zone: u16) {
    let talkers = tracker.top_talkers(at(DURATION + 1), 1);
    let address = Tuple { ipv6: false, ..view(ATTACKER, (0, 0), L4::Udp).tuple }.address(ATTACKER.into());
    assert_eq!((talkers[0].zone, talkers[0].who), (zone, address));
    assert!(talkers[0].n_connections as usize > N_SLOTS / 2);
    assert_eq!(talkers[0].n_unreplied, talkers[0].n_connections);
}

/// A new conversation gets through all the same.
fn assert_open(tracker: &Conntrack) {
    let now = DURATION + 1;
    establish(tracker, now, 3, 99);
}

#[test]
fn a_flood_of_syns() {
    let tracker = tracker();
    attack(&tracker, VICTIM_ZONE, |n| view(ATTACKER, (n as u16, (n >> 16) as u16), segment(2, n as u32, 0)));
    assert_named(&tracker, VICTIM_ZONE);
    assert_open(&tracker);
    assert_eq!(tracker.stats().n_full, 0);
}

#[test]
fn a_scan_by_udp() {
    let tracker = tracker();
    attack(&tracker, VICTIM_ZONE, |n| view(ATTACKER, (7, n as u16), L4::Udp));
    assert_named(&tracker, VICTIM_ZONE);
    assert_open(&tracker);
}

/// Who makes up a source for each packet still has a port.
#[test]
fn a_flood_of_made_up_sources() {
    let tracker = tracker();
    attack(&tracker, VICTIM_ZONE, |n| view(n as u32, (7, 80), segment(2, 1, 0)));
    assert_open(&tracker);
    let ports = tracker.top_ports(at(DURATION + 1), 1);
    assert_eq!((ports[0].zone, ports[0].who), (VICTIM_ZONE, 9));
    assert!(ports[0].n_connections as usize > N_SLOTS / 2);
}

#[test]
fn a_flood_of_pings() {
    let tracker = tracker();
    attack(&tracker, VICTIM_ZONE, |n| view(ATTACKER, (n as u16, 0x0800), L4::Icmp));
    assert_named(&tracker, VICTIM_ZONE);
    assert_open(&tracker);
}

/// Connections that are all established leave no room: new ones are refused, under a
/// name, and none that is there is lost.
#[test]
fn a_table_full_of_established_connections() {
    let tracker = tracker();
    for port in 1000..1000 + N_SLOTS as u16 - 1 {
        establish(&tracker, 0, ATTACKER, port);
    }
    attack(&tracker, VICTIM_ZONE, |n| view(ATTACKER, (n as u16 % 900, 80), segment(2, 1, 0)));
    let stats = tracker.stats();
    assert_eq!((stats.n_connections, stats.n_evicted), (N_SLOTS as u64, 0));
    assert_eq!(stats.n_full, DURATION * RATE);
    let talkers = tracker.top_talkers(at(DURATION), 1);
    assert_eq!(talkers[0].n_connections, N_SLOTS as u64 - 1);
}

/// One tenant's zone, or port, is full at its limit: the others do not notice.
#[test]
fn a_zone_that_is_full() {
    for by_port in [false, true] {
        let tracker = tracker();
        if by_port {
            tracker.set_port_limit(Some(100));
        } else {
            tracker.set_zone_limit(Some(8), Some(100));
        }
        attack(&tracker, 8, |n| view(ATTACKER, (n as u16, 80), L4::Udp));
        let zone = tracker.zones().iter().find(|(zone, _)| *zone == 8).map(|(_, n)| *n);
        assert_eq!(zone, Some(100));
        assert_open(&tracker);
        let talkers = tracker.top_talkers(at(DURATION), 1);
        assert_eq!((talkers[0].zone, talkers[0].n_connections), (8, 100));
    }
}

#[test]
fn halves_of_packets() {
    let tracker = tracker();
    let limits = FragmentLimits { memory: 256 << 10, ..FragmentLimits::default() };
    tracker.set_fragment_limits(None, Some(limits));
    let held = |host: u8, id: u64, which: usize, port: u32| {
        let frame = build::udp(&Host::v4(host), &Host::v4(2), &[0; 1200]);
        let frame = &build::fragments(&frame, id as u32, 800)[which];
        let (packet, key) = parsed(frame);
        let port = crate::types::PortNo::new(port).unwrap();
        Held {
            frame: frame.as_slice().into(),
            layout: packet.layout,
            key: Box::new(key),
            piece: Piece::read(&packet, VICTIM_ZONE).unwrap(),
            port,
            received: (port, frame.len() as u64),
        }
    };
    let mut n_lost = 0;
    for n in 0..DURATION * 100 {
        let now = Timestamp::from_nanos(n * 10_000_000);
        assert!(matches!(tracker.gather(now, held(9, n, 0, 9)), Offered::Kept));
        let lost = tracker.lost_fragments(now, BridgeId::FIRST);
        assert!(lost.iter().all(|(_, held)| held.port.get() == 9), "the attacker's own");
        n_lost += lost.len() as u64;
        assert!(tracker.fragments_held().1 <= limits.memory / 2);
        // The victim's packets come in halves too, one after the other.
        if n % 10 == 0 {
            assert!(matches!(tracker.gather(now, held(1, n, 0, 1)), Offered::Kept));
            assert!(
                matches!(tracker.gather(now, held(1, n, 1, 1)), Offered::Whole(pieces) if pieces.len() == 2)
            );
        }
    }
    let (n_held, _) = tracker.fragments_held();
    assert_eq!(n_lost + n_held as u64, DURATION * 100, "each is accounted for");
    let end = Timestamp::from_nanos((DURATION + 60) * 1_000_000_000);
    assert_eq!(tracker.lost_fragments(end, BridgeId::FIRST).len(), n_held);
    assert_eq!(tracker.fragments_held(), (0, 0));
    assert_eq!(limits.timeout, Duration::from_secs(30));
}
