//! What the tracker tells of, to whom, and how much of it.

use super::{
    tests::{at, establish},
    *,
};
use crate::build::{self, Host};

const COMMIT: Request = Request {
    zone: 5,
    commit: true,
    force: false,
    nat: None,
    mark: (0, 0),
    label: (0, 0),
    policy: None,
    in_port: 1,
    alg: None,
};
const LOOK: Request = Request { commit: false, ..COMMIT };

fn view(frame: &[u8]) -> View {
    View::read(&crate::testing::parsed(frame).0).unwrap()
}

fn tracker() -> Conntrack {
    Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(8192))
}

/// What happened, in words.
fn told(tracker: &Conntrack) -> Vec<(&'static str, u16, State)> {
    let word = |event: &Event| match event {
        Event::Created(of) => ("new", of.original.zone, of.state),
        Event::Established(of) => ("established", of.original.zone, of.state),
        Event::Removed(of) => ("removed", of.original.zone, of.state),
    };
    tracker.fetch_events().0.iter().map(word).collect()
}

/// Both ways of looking a packet up tell the same.
fn look(tracker: &Conntrack, now: Timestamp, view: &View) {
    let hash = tracker.hash_of(LOOK.zone, view);
    if tracker.touch(now, (LOOK.zone, false), view, (hash, tracker.fetch(hash))).is_err() {
        tracker.track(now, &LOOK, view).unwrap();
    }
}

#[test]
fn a_connection_is_new_then_established_then_gone() {
    let tracker = tracker();
    tracker.set_events(Watched::All);
    let (there, back) = (
        view(&build::udp(&Host::v4(1), &Host::v4(2), b"?")),
        view(&build::udp(&Host::v4(2), &Host::v4(1), b"!")),
    );
    tracker.track(at(0), &COMMIT, &there).unwrap();
    look(&tracker, at(0), &there);
    assert_eq!(told(&tracker), [("new", 5, State::UdpFirst)]);
    for _ in 0..3 {
        look(&tracker, at(1), &back);
        look(&tracker, at(1), &there);
    }
    assert_eq!(told(&tracker), [("established", 5, State::UdpMultiple)]);
    tracker.tick(at(1));
    tracker.tick(at(40));
    assert_eq!(told(&tracker), [("removed", 5, State::UdpMultiple)]);
    // Of TCP, when the handshake is over.
    establish(&tracker, 50, 1, 9);
    let of_tcp = [("new", 5, State::TcpSynSent), ("established", 5, State::TcpEstablished)];
    assert_eq!(told(&tracker), of_tcp);
    tracker.flush(at(51), &Filter::default());
    assert_eq!(told(&tracker), [("removed", 5, State::TcpEstablished)]);
}

#[test]
fn a_flood_in_another_zone_loses_nothing_of_ours() {
    let tracker = tracker();
    tracker.set_events(Watched::Zones([5].into()));
    let first = view(&build::udp(&Host::v4(1), &Host::v4(2), b"?"));
    let numbered = |port| View { tuple: Tuple { src_port: port, ..first.tuple }, ..first };
    for port in 0..6000 {
        tracker.track(at(0), &Request { zone: 6, ..COMMIT }, &numbered(port)).unwrap();
    }
    tracker.track(at(0), &COMMIT, &first).unwrap();
    assert_eq!(told(&tracker), [("new", 5, State::UdpFirst)]);
    assert_eq!(tracker.stats().n_lost_events, 0);
    // In the zone itself what is not fetched in time is lost, and counted.
    for port in 0..6000 {
        tracker.track(at(0), &COMMIT, &numbered(10_000 + port)).unwrap();
    }
    let (events, n_lost) = tracker.fetch_events();
    assert_eq!(events.len() as u64 + n_lost, 6000);
    assert_eq!((tracker.stats().n_lost_events, n_lost > 0), (n_lost, true));
    tracker.set_events(Watched::Nothing);
    tracker.flush(at(0), &Filter::default());
    assert_eq!(tracker.fetch_events(), (Vec::new(), n_lost));
}
