//! Tests of the tracker: conversations, translations, floods, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    build::{self, Host},
    drop::DropReason,
    key::ct_state,
    testing::{assert_checksums, frame_key, parsed},
};

const ZONE: u16 = 5;
const COMMIT: Request = Request {
    zone: ZONE,
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

const NEW: u16 = ct_state::TRK | ct_state::NEW;
const EST: u16 = ct_state::TRK | ct_state::EST;
const RPL: u16 = ct_state::RPL;
const INV: u16 = ct_state::TRK | ct_state::INV;

fn tracker(n_slots: usize) -> Conntrack {
    let config = Config { seed: 1, ..Config::default() };
    Conntrack::new(config, Storage::on_heap(n_slots))
}

pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000 * seconds)
}

fn view(frame: &[u8]) -> View {
    View::read(&parsed(frame).0).unwrap()
}

fn udp(from: u8, to: u8) -> View {
    view(&build::udp(&Host::v4(from), &Host::v4(to), b"x"))
}

/// A view like a UDP one with any address and port.
fn flow(src: u32, port: u16, l4: L4) -> View {
    let proto = if matches!(l4, L4::Tcp(_)) { 6 } else { 17 };
    let tuple = Tuple {
        zone: 0,
        ipv6: false,
        proto,
        src: src.into(),
        dst: 0x0a00_0002,
        src_port: port,
        dst_port: 80,
    };
    View { tuple, l4 }
}

fn answer(view: &View, l4: L4) -> View {
    View { tuple: view.tuple.reversed(), l4 }
}

fn tcp(flags: u8, seq: u32, ack: u32, len: u32) -> L4 {
    L4::Tcp(Segment { flags, seq, ack, window: 1000, scale: None, len })
}

fn syn() -> L4 {
    tcp(2, 100, 0, 0)
}

/// Opens a TCP connection.
pub(super) fn establish(tracker: &Conntrack, now: u64, src: u32, port: u16) {
    let first = flow(src, port, syn());
    assert_eq!(tracker.track(at(now), &COMMIT, &first).unwrap().state, NEW);
    let second = answer(&first, tcp(0x12, 500, 101, 0));
    assert_eq!(tracker.track(at(now), &LOOK, &second).unwrap().state, EST | RPL);
    let third = View { l4: tcp(0x10, 101, 501, 0), ..first };
    assert_eq!(tracker.track(at(now), &LOOK, &third).unwrap().state, EST);
}

#[test]
fn a_conversation_is_new_until_answered_and_forgotten_when_idle() {
    let tracker = tracker(16);
    let (there, back) = (udp(1, 2), udp(2, 1));
    for _ in 0..3 {
        assert_eq!(tracker.track(at(0), &LOOK, &there).unwrap().state, NEW);
    }
    assert_eq!(tracker.track(at(0), &COMMIT, &there).unwrap().state, NEW);
    assert_eq!(tracker.track(at(1), &LOOK, &there).unwrap().state, NEW, "nobody has answered");
    assert_eq!(tracker.track(at(2), &LOOK, &back).unwrap().state, EST | RPL);
    let verdict = tracker.track(at(2), &LOOK, &there).unwrap();
    assert_eq!(verdict.state, EST);
    assert_eq!(verdict.original, Some(Tuple { zone: ZONE, ..there.tuple }));
    let elsewhere = Request { zone: 6, ..LOOK };
    assert_eq!(tracker.track(at(2), &elsewhere, &back).unwrap().state, NEW, "zones are apart");
    assert_eq!(tracker.track(at(33), &LOOK, &there).unwrap().state, NEW, "after 30 s of silence");
    assert_eq!(tracker.stats().n_connections, 0);
    assert_eq!(tracker.stats().n_expired, 1);
}

#[test]
fn marks_and_labels_are_set_under_their_masks() {
    let tracker = tracker(16);
    let first = Request { mark: (0xff, 0x0f), label: (1 << 100 | 7, 1 << 100 | 1), ..COMMIT };
    let verdict = tracker.track(at(0), &first, &udp(1, 2)).unwrap();
    assert_eq!((verdict.mark, verdict.label), (0x0f, 1 << 100 | 1));
    let second = Request { mark: (0xaa00, 0xff00), ..COMMIT };
    let verdict = tracker.track(at(0), &second, &udp(2, 1)).unwrap();
    assert_eq!((verdict.mark, verdict.label), (0xaa0f, 1 << 100 | 1));
}

#[test]
fn force_makes_the_answer_the_first_packet() {
    let tracker = tracker(16);
    tracker.track(at(0), &COMMIT, &udp(1, 2)).unwrap();
    let force = Request { force: true, ..COMMIT };
    assert_eq!(tracker.track(at(0), &force, &udp(2, 1)).unwrap().state, NEW);
    let verdict = tracker.track(at(0), &LOOK, &udp(1, 2)).unwrap();
    assert_eq!(verdict.state, EST | RPL);
    assert_eq!(tracker.stats().n_connections, 1);
}

#[test]
fn only_requests_begin_an_icmp_connection() {
    let tracker = tracker(16);
    for (a, b) in [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))] {
        let ping = |reply| view(&build::icmp_echo(&a, &b, reply, 7, 1, b"x"));
        let pong = view(&build::icmp_echo(&b, &a, true, 7, 1, b"x"));
        assert_eq!(tracker.track(at(0), &COMMIT, &ping(true)).unwrap().state, INV);
        assert_eq!(tracker.track(at(0), &COMMIT, &ping(false)).unwrap().state, NEW);
        assert_eq!(tracker.track(at(0), &LOOK, &pong).unwrap().state, EST | RPL);
        let other = view(&build::icmp_echo(&b, &a, true, 8, 1, b"x"));
        assert_eq!(tracker.track(at(0), &LOOK, &other).unwrap().state, INV);
    }
}

#[test]
fn tcp_comes_goes_and_comes_again() {
    let tracker = tracker(16);
    establish(&tracker, 0, 1, 1000);
    let there = |l4| flow(1, 1000, l4);
    let back = |l4| answer(&flow(1, 1000, L4::Udp), l4);
    let back = |l4| View { tuple: Tuple { proto: 6, ..back(l4).tuple }, l4 };
    let track = |view: &View| tracker.track(at(1), &LOOK, view).unwrap().state;
    // Data, beyond the window, an acknowledgement of what was never sent, a blind reset.
    assert_eq!(track(&there(tcp(0x18, 101, 501, 100))), EST);
    assert_eq!(track(&there(tcp(0x18, 5000, 501, 100))), INV);
    assert_eq!(track(&back(tcp(0x10, 501, 9000, 0))), INV);
    assert_eq!(track(&back(tcp(0x04, 9000, 0, 0))), INV);
    assert_eq!(track(&back(tcp(0x04, 600, 0, 0))), EST | RPL, "in the window: the end decides");
    assert_eq!(track(&there(tcp(0x18, 201, 501, 1))), EST, "still there");
    // Both finish.
    assert_eq!(track(&there(tcp(0x11, 202, 501, 0))), EST);
    assert_eq!(track(&back(tcp(0x11, 501, 203, 0))), EST | RPL);
    assert_eq!(track(&there(tcp(0x10, 203, 502, 0))), EST);
    let dump = tracker.dump(at(1), &Filter::default());
    assert_eq!(dump[0].state, State::TcpTimeWait);
    // The same ports again.
    assert_eq!(tracker.track(at(2), &COMMIT, &there(syn())).unwrap().state, NEW);
    assert_eq!(tracker.stats().n_connections, 1);
    // A reset with the right number.
    establish(&tracker, 3, 1, 2000);
    assert_eq!(tracker.track(at(3), &LOOK, &flow(1, 2000, tcp(0x04, 101, 0, 0))).unwrap().state, EST);
    let states: BTreeSet<_> =
        tracker.dump(at(3), &Filter::default()).iter().map(|found| found.state).collect();
    assert_eq!(states, BTreeSet::from([State::TcpSynSent, State::TcpClosed]));
}

#[test]
fn a_connection_in_its_middle_is_picked_up_where_that_is_wanted() {
    let tracker = tracker(16);
    let middle = flow(1, 1, tcp(0x10, 77, 99, 10));
    assert_eq!(tracker.track(at(0), &COMMIT, &middle).unwrap().state, NEW);
    assert_eq!(tracker.track(at(0), &LOOK, &answer(&middle, tcp(0x10, 99, 87, 0))).unwrap().state, EST | RPL);
    tracker.set_pick_up(false);
    assert_eq!(tracker.track(at(0), &COMMIT, &flow(1, 2, tcp(0x10, 77, 99, 10))).unwrap().state, INV);
}

/// The twin: numbers without end, relative to each side's first; each rule as its own
/// sentence.
#[derive(Debug, Clone)]
struct Twin {
    state: State,
    end: [i64; 2],
    acked: [i64; 2],
    window: [i64; 2],
    scale: [Option<u32>; 2],
    finished: [bool; 2],
    /// The originator sent another SYN, with this scale.
    begins_again: Option<Option<u8>>,
}

impl Twin {
    fn step(
        &mut self,
        (from, flags, seq, ack): (usize, u8, i64, i64),
        (window, scale, len): (i64, Option<u8>, i64),
    ) -> tcp::Fit {
        use tcp::Fit::{Invalid, Restart, Valid};
        let to = 1 - from;
        let (fin, syn, rst, has_ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        let end = seq + len + i64::from(fin) + i64::from(syn);
        if syn && (fin || rst) || !syn && !rst && !has_ack {
            return Invalid;
        }
        let is_over = matches!(self.state, State::TcpTimeWait | State::TcpClosed);
        let answers_syn = ack > self.acked[0] && ack <= self.end[0];
        let in_window = end <= self.acked[from] + self.window[to].max(1)
            && seq >= self.end[from] - self.window[to].max(1) - 1;
        let ack_fits =
            has_ack && ack <= self.end[to] && ack >= self.acked[to] - self.window[from].max(66_000);
        if rst {
            let exact = seq == self.end[from] || seq == self.acked[from];
            if self.state == State::TcpSynSent {
                if from == 1 && has_ack && answers_syn || from == 0 && exact {
                    self.agree();
                    self.state = State::TcpClosed;
                    return Valid;
                }
                return if from == 0 { Valid } else { Invalid };
            }
            if exact && !is_over {
                self.state = State::TcpClosed;
                return Valid;
            }
            let refuses = from == 1 && has_ack && self.begins_again.is_some();
            return if in_window && seq >= self.acked[from] || refuses { Valid } else { Invalid };
        }
        if syn && !has_ack {
            if is_over {
                return Restart;
            }
            if self.state == State::TcpSynSent {
                self.open(from, seq, end, window, scale);
                if from == 1 {
                    self.agree();
                    self.state = State::TcpSynRecv;
                }
                return Valid;
            }
            if from == 0 {
                self.begins_again = Some(scale);
            }
            let repeated = self.state == State::TcpSynRecv && end == self.end[1];
            return if from == 0 || repeated { Valid } else { Invalid };
        }
        if syn {
            if self.state == State::TcpSynSent && from == 1 && answers_syn {
                self.open(1, seq, end, window, scale);
                self.acked[0] = ack;
                self.agree();
                self.state = State::TcpSynRecv;
                return Valid;
            }
            if self.state == State::TcpSynSent || is_over {
                return Invalid;
            }
            if self.state == State::TcpSynRecv && end == self.end[from] && ack_fits {
                self.acked[to] = self.acked[to].max(ack);
                if from == 0 && ack == self.end[1] {
                    self.state = State::TcpEstablished;
                }
                return Valid;
            }
            if let (1, Some(first_scale), false) = (from, self.begins_again, in_window && ack_fits) {
                // What the new connection's SYN offered is not known: as much as it can have.
                self.open(0, ack - 1, ack, 65_535, first_scale);
                self.open(1, seq, end, window, scale);
                self.acked[0] = ack;
                self.agree();
                self.state = State::TcpSynRecv;
                self.begins_again = None;
                return Valid;
            }
            let repeated = from == 1 && self.state != State::TcpSynRecv && in_window && ack_fits;
            return if repeated { Valid } else { Invalid };
        }
        if self.state == State::TcpSynSent && from == 1 && !fin {
            return Valid;
        }
        if self.state == State::TcpSynSent || !in_window || !ack_fits {
            return Invalid;
        }
        if self.state == State::TcpClosed {
            return Valid;
        }
        self.end[from] = self.end[from].max(end);
        self.acked[to] = self.acked[to].max(ack);
        self.finished[from] |= fin;
        self.window[from] = self.window[from].max(window << self.scale[from].unwrap_or(0));
        let done = |side: usize| self.finished[side] && self.acked[side] == self.end[side];
        if self.finished == [true, true] {
            self.state = if done(0) && done(1) { State::TcpTimeWait } else { State::TcpClosing };
        } else if self.finished != [false, false] {
            self.state = State::TcpFinWait;
        } else if self.state == State::TcpSynRecv && from == 0 && ack == self.end[1] {
            self.state = State::TcpEstablished;
        }
        Valid
    }

    fn open(&mut self, side: usize, seq: i64, end: i64, window: i64, scale: Option<u8>) {
        (self.end[side], self.acked[side], self.finished[side]) = (end, seq, false);
        self.scale[side] = scale.map(|scale| u32::from(scale).min(14));
        self.window[side] = window;
    }

    fn agree(&mut self) {
        if self.scale.iter().any(Option::is_none) {
            self.window = self.window.map(|window| window.clamp(1, 0xffff));
            self.scale = [None; 2];
        }
        // Windows are kept in units of their scale.
        for (window, scale) in self.window.iter_mut().zip(self.scale) {
            let unit = 1 << scale.unwrap_or(0);
            *window = (*window + unit - 1) / unit * unit;
        }
    }
}

/// One segment: side, flags, how its numbers differ from the plausible ones, window,
/// scale, length.
type Step = (usize, u8, i64, i64, u16, Option<u8>, i64);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![
        0x10_u8, 0x10, 0x10, 0x10, 0x11, 0x11, 0x04, 0x14, 0x02, 0x12, 0x12, 0x00, 0x03,
    ]);
    let off = prop::sample::select(vec![0_i64, 0, 0, 0, 0, 1, -1, 500, -500, 70_000, -70_000]);
    let window = prop::sample::select(vec![0_u16, 1, 1000, 65_535]);
    let scale = prop::option::of(0_u8..16);
    let len = prop::sample::select(vec![0_i64, 0, 1, 100, 1000]);
    prop::collection::vec((0_usize..2, flags, off.clone(), off, window, scale, len), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Plausible and implausible segments, with numbers that wrap around.
    #[test]
    fn tcp_agrees_with_its_twin(isns: [u32; 2], scale in prop::option::of(0_u8..16), steps in steps()) {
        let isn = |side: usize| i64::from(isns[side]);
        let first = Segment { flags: 2, seq: isns[0], ack: 0, window: 1000, scale, len: 0 };
        let mut tcp = tcp::Tcp::begin(&first, false).unwrap();
        let mut twin = Twin {
            state: State::TcpSynSent,
            end: [0; 2],
            acked: [0; 2],
            window: [0; 2],
            scale: [None; 2],
            finished: [false; 2],
            begins_again: None,
        };
        twin.open(0, isn(0), isn(0) + 1, 1000, scale);
        // Until it has spoken, the other side's numbers are zeros.
        let opened = |twin: &Twin| twin.state != State::TcpSynSent;
        for (from, flags, seq_off, ack_off, window, scale, len) in steps {
            let to = 1 - from;
            let base = if from == 1 && !opened(&twin) { isn(1) } else { twin.end[from] };
            let base = if flags & 2 != 0 && opened(&twin) { base - 1 } else { base };
            let (seq, ack) = (base + seq_off, twin.end[to] + ack_off);
            if from == 1 && !opened(&twin) && (flags & 4 != 0) && !twin_can_compare(ack, &twin) {
                continue;
            }
            let scale = if flags & 2 != 0 { scale } else { None };
            let segment = Segment { flags, seq: seq as u32, ack: ack as u32, window, scale, len: len as u32 };
            let before = tcp;
            let fit = tcp.step(from, &segment, true);
            prop_assert_eq!(fit, twin.step((from, flags, seq, ack), (window.into(), scale, len)), "{:?} on {:?}", segment, before);
            prop_assert_eq!(tcp.state, twin.state, "{:?} on {:?}", segment, before);
            let packed = tcp.peers.map(tcp::Peer::to_words).map(|(first, second)| tcp::Peer::from_words(first, second));
            prop_assert_eq!(packed, tcp.peers);
        }
    }
}

/// Numbers far apart have no order.
fn twin_can_compare(ack: i64, twin: &Twin) -> bool {
    (ack - twin.end[0]).abs() < 1 << 30
}

fn source_nat(first: [u8; 4], last: [u8; 4], ports: Option<(u16, u16)>) -> NatRange {
    NatRange {
        kind: NatKind::Source,
        addresses: Some((Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into())),
        ports,
        order: NatOrder::Keep,
        persistent: false,
    }
}

#[test]
fn translations_run_out_under_a_name() {
    let tracker = tracker(64);
    let range = source_nat([192, 0, 2, 1], [192, 0, 2, 2], Some((5000, 5003)));
    let request = Request { nat: Some(Nat::New(range)), ..COMMIT };
    let mut seen = BTreeSet::new();
    for port in 0..8 {
        let there = flow(1, port, L4::Udp);
        let verdict = tracker.track(at(0), &request, &there).unwrap();
        assert_eq!(verdict.state, NEW | ct_state::SNAT);
        let outer = verdict.rewrite.unwrap().outer;
        assert!(seen.insert((outer.src, outer.src_port)) && (5000..=5003).contains(&outer.src_port));
        // The answer comes back to where it belongs.
        let back = View { tuple: Tuple { zone: 0, ..outer }.reversed(), l4: L4::Udp };
        let look = Request { nat: Some(Nat::Existing), ..LOOK };
        let verdict = tracker.track(at(0), &look, &back).unwrap();
        assert_eq!(verdict.state, EST | RPL | ct_state::DNAT);
        assert_eq!(verdict.rewrite.unwrap().outer, Tuple { zone: ZONE, ..there.tuple.reversed() });
    }
    let refused = tracker.track(at(0), &request, &flow(1, 99, L4::Udp));
    assert_eq!(refused, Err(DropReason::CtNatExhausted));
    assert_eq!(tracker.stats().n_nat_exhausted, 1);
    // Time frees them again.
    assert!(tracker.track(at(100), &request, &flow(1, 99, L4::Udp)).is_ok());
    // A range of the other kind of address never lets a packet through as it is.
    let six = view(&build::udp(&Host::v6(1), &Host::v6(2), b""));
    assert_eq!(tracker.track(at(100), &request, &six), Err(DropReason::CtNatExhausted));
}

#[test]
fn all_zero_source_changes_the_port_only_where_it_is_taken() {
    let tracker = tracker(64);
    let masquerade = source_nat([192, 0, 2, 9], [192, 0, 2, 9], Some((1000, 1000)));
    let first = Request { nat: Some(Nat::New(masquerade)), ..COMMIT };
    tracker.track(at(0), &first, &flow(1, 7, L4::Udp)).unwrap();
    let zero = source_nat([0; 4], [0; 4], None);
    let request = Request { nat: Some(Nat::New(zero)), ..COMMIT };
    let own = 0xc000_0209;
    let free = tracker.track(at(0), &request, &flow(own, 1001, L4::Udp)).unwrap();
    assert_eq!((free.rewrite, free.state), (None, NEW));
    let taken = tracker.track(at(0), &request, &flow(own, 1000, L4::Udp)).unwrap();
    let outer = taken.rewrite.unwrap().outer;
    assert_eq!(outer.src, u128::from(own));
    assert_ne!(outer.src_port, 1000);
}

#[test]
fn persistent_translation_gives_an_originator_one_address() {
    let tracker = tracker(4096);
    let range = NatRange { persistent: true, ..source_nat([192, 0, 2, 1], [192, 0, 2, 200], None) };
    let request = Request { nat: Some(Nat::New(range)), ..COMMIT };
    let mut by_source: BTreeMap<u32, BTreeSet<u128>> = BTreeMap::new();
    for n in 0..400_u32 {
        let verdict = tracker.track(at(0), &request, &flow(n % 20, 2000 + n as u16, L4::Udp)).unwrap();
        by_source.entry(n % 20).or_default().insert(verdict.rewrite.unwrap().outer.src);
    }
    assert!(by_source.values().all(|addresses| addresses.len() == 1));
    assert!(by_source.values().flatten().collect::<BTreeSet<_>>().len() > 5, "they are spread");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever ranges are asked for: no two connections have the same translation, each
    /// packet's way back leads to its tuple, in every order.
    #[test]
    fn translation_is_a_bijection(
        flows in prop::collection::vec((0_u32..4, 0_u16..40, any::<bool>(), 0_u8..4), 1..80),
        ports in prop::option::of((1_u16..2000, 0_u16..30)),
        n_addresses in 0_u8..3,
        order in prop::sample::select(vec![NatOrder::Keep, NatOrder::Hash, NatOrder::Random]),
        persistent: bool,
    ) {
        let tracker = tracker(256);
        let ports = ports.map(|(first, n)| (first, first + n));
        let mut ways: BTreeMap<Tuple, Tuple> = BTreeMap::new();
        let mut firsts = BTreeSet::new();
        for (src, port, is_source, kind) in flows {
            let range = NatRange {
                kind: if is_source { NatKind::Source } else { NatKind::Destination },
                order,
                persistent,
                ..source_nat([10, 9, 0, 1], [10, 9, 0, 1 + n_addresses], ports)
            };
            let there = match kind {
                0 => flow(src, port, syn()),
                1 => view(&build::icmp_echo(&Host::v4(src as u8), &Host::v4(77), false, port, 1, b"")),
                _ => flow(src, port, L4::Udp),
            };
            let tuple = Tuple { zone: ZONE, ..there.tuple };
            if firsts.contains(&tuple) || ways.values().any(|first| first.reversed() == tuple) {
                continue;
            }
            let request = Request { nat: Some(Nat::New(range)), ..COMMIT };
            match tracker.track(at(0), &request, &there) {
                Ok(verdict) if verdict.state & ct_state::NEW != 0 => {
                    let sent = verdict.rewrite.map_or(tuple, |new| new.outer);
                    prop_assert!(firsts.insert(tuple));
                    prop_assert_eq!(ways.insert(sent.reversed(), tuple), None);
                }
                Ok(_) => {}
                Err(reason) => prop_assert_eq!(reason, DropReason::CtNatExhausted),
            }
        }
        for (answer, first) in ways {
            let l4 = if first.is_icmp() { L4::Icmp } else if first.proto == 6 { tcp(0x12, 9, 101, 0) } else { L4::Udp };
            let look = Request { nat: Some(Nat::Existing), ..LOOK };
            let verdict = tracker.track(at(1), &look, &View { tuple: Tuple { zone: 0, ..answer }, l4 }).unwrap();
            prop_assert_eq!(verdict.original, Some(first));
            prop_assert_eq!(verdict.rewrite.map_or(answer, |new| new.outer), first.reversed());
        }
    }

    /// After a rewrite the frame says what it should, and all its checksums are right.
    #[test]
    fn rewritten_frames_are_right(key in frame_key(), src: u128, dst: u128, ports: [u16; 2], len in 0_usize..40) {
        let frame = build::frame_from_key(&key, len);
        let (mut packet, _) = parsed(&frame);
        let Some(view) = View::read(&packet) else { return Ok(()) };
        if matches!(view.l4, L4::Invalid | L4::Error { .. }) {
            return Ok(());
        }
        let has_ports = matches!(view.tuple.proto, 6 | 17 | 132);
        let bits = |address: u128| if view.tuple.ipv6 { address } else { address & 0xffff_ffff };
        let outer = Tuple {
            src: bits(src),
            dst: bits(dst),
            src_port: if has_ports || view.tuple.is_icmp() { ports[0] } else { 0 },
            dst_port: if has_ports { ports[1] } else { view.tuple.dst_port },
            ..view.tuple
        };
        rewrite(&mut packet, &view, &Rewrite { outer, inner: None, shift: Shift::default() }).unwrap();
        let after = View::read(&parsed(packet.bytes()).0).unwrap();
        prop_assert_eq!(after.tuple, outer);
        assert_checksums(packet.bytes());
    }

    /// Cut anywhere and with any byte changed, a packet is read without a panic.
    #[test]
    fn hostile_packets_do_no_harm(key in frame_key(), cut in 0_usize..200, change: (usize, u8)) {
        let mut frame = build::frame_from_key(&key, 20);
        let at_byte = 14 + change.0 % (frame.len() - 13).max(1);
        if let Some(byte) = frame.get_mut(at_byte) {
            *byte = change.1;
        }
        frame.truncate(cut.max(14));
        let (mut packet, _) = parsed(&frame);
        if let Some(view) = View::read(&packet) {
            let tracker = tracker(4);
            let _ = tracker.track(at(0), &COMMIT, &view);
            let inner = Some(view.tuple.reversed());
            let _ = rewrite(&mut packet, &view, &Rewrite { outer: view.tuple.reversed(), inner, shift: Shift::default() });
        }
    }
}

/// An ICMP error from a router about a frame.
fn error_about(frame: &[u8], router: &Host) -> Vec<u8> {
    let key = parsed(frame).1;
    let quoted = &frame[14..];
    let to = Host { ip: Ipv4Addr::from_bits(key.nw_src.get()).into(), ..Host::v4(9) };
    let mut error = build::icmp_echo(router, &to, false, 0, 0, quoted);
    let l4 = 14 + 20;
    (error[l4], error[l4 + 1]) = (3, 1);
    error[l4 + 2..l4 + 4].copy_from_slice(&[0, 0]);
    let sum = crate::checksum::of(&error[l4..]);
    error[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    error
}

#[test]
fn errors_are_related_and_translated_with_what_they_quote() {
    let tracker = tracker(16);
    let request =
        Request { nat: Some(Nat::New(source_nat([192, 0, 2, 1], [192, 0, 2, 1], Some((9, 9))))), ..COMMIT };
    let there = build::udp(&Host::v4(1), &Host::v4(2), b"hello");
    let (mut packet, _) = parsed(&there);
    let first = View::read(&packet).unwrap();
    let verdict = tracker.track(at(0), &request, &first).unwrap();
    rewrite(&mut packet, &first, &verdict.rewrite.unwrap()).unwrap();
    for (router, is_end) in [(Host::v4(50), false), (Host::v4(2), true)] {
        let error = error_about(packet.bytes(), &router);
        assert_checksums(&error);
        let (mut error, _) = parsed(&error);
        let seen = View::read(&error).unwrap();
        let look = Request { nat: Some(Nat::Existing), ..LOOK };
        let verdict = tracker.track(at(0), &look, &seen).unwrap();
        assert_eq!(verdict.state, ct_state::TRK | ct_state::REL | RPL | ct_state::DNAT);
        rewrite(&mut error, &seen, &verdict.rewrite.unwrap()).unwrap();
        assert_checksums(error.bytes());
        let after = View::read(&error).unwrap();
        assert_eq!(after.tuple.dst, first.tuple.src);
        assert_eq!(after.tuple.src, if is_end { first.tuple.dst } else { seen.tuple.src });
        assert_eq!(after.l4, L4::Error { about: first.tuple });
        assert_eq!(&error.bytes()[14 + 20 + 8..], &there[14..], "the quoted packet is the one that was sent");
    }
    let told = view(&error_about(packet.bytes(), &Host::v4(50)));
    let elsewhere = View { tuple: Tuple { dst: 0x0a00_0063, ..told.tuple }, ..told };
    assert_eq!(tracker.track(at(0), &LOOK, &elsewhere).unwrap().state, INV, "not for its receiver");
    let stranger = error_about(&build::udp(&Host::v4(3), &Host::v4(2), b""), &Host::v4(50));
    assert_eq!(tracker.track(at(0), &LOOK, &view(&stranger)).unwrap().state, INV);
}

#[test]
fn a_flood_of_syns_costs_established_connections_nothing() {
    let tracker = tracker(256);
    for port in 0..100 {
        establish(&tracker, 0, 1, port);
    }
    for n in 0..20_000_u32 {
        let now = Timestamp::from_nanos(1_000_000_000 + u64::from(n) * 1_000_000);
        tracker.tick(now);
        let verdict = tracker.track(now, &COMMIT, &flow(0x0b00_0000 + n, 1, syn()));
        assert_eq!(verdict.unwrap().state, NEW, "there is always room for a new connection");
        if n % 10 == 0 {
            let port = (n / 10 % 100) as u16;
            let data = flow(1, port, tcp(0x10, 101, 501, 0));
            assert_eq!(tracker.track(now, &LOOK, &data).unwrap().state, EST);
        }
        if n == 10_000 {
            // Somebody else opens a connection in the middle of it.
            let first = flow(2, 1, syn());
            tracker.track(now, &COMMIT, &first).unwrap();
            tracker.track(now, &LOOK, &answer(&first, tcp(0x12, 500, 101, 0))).unwrap();
            let third = tracker.track(now, &LOOK, &View { l4: tcp(0x10, 101, 501, 0), ..first });
            assert_eq!(third.unwrap().state, EST);
        }
    }
    let stats = tracker.stats();
    assert_eq!((stats.n_connections, stats.n_full), (256, 0));
    assert!(stats.n_evicted > 19_000);
    let kept = tracker.dump(at(21), &Filter::default());
    assert_eq!(kept.iter().filter(|found| found.state == State::TcpEstablished).count(), 101);
    let talkers = tracker.top_talkers(at(21), 2);
    assert_eq!((talkers[0].who, talkers[0].n_connections), (IpAddr::from([0, 0, 0, 1]), 100));
}

#[test]
fn established_connections_are_never_evicted() {
    let tracker = tracker(8);
    for port in 0..8 {
        establish(&tracker, 0, 1, port);
    }
    assert_eq!(tracker.track(at(1), &COMMIT, &flow(2, 1, syn())), Err(DropReason::CtFull));
    assert_eq!(tracker.stats().n_full, 1);
    // One that is over makes room.
    tracker.track(at(1), &LOOK, &flow(1, 3, tcp(0x04, 101, 0, 0))).unwrap();
    assert!(tracker.track(at(1), &COMMIT, &flow(2, 1, syn())).is_ok());
}

#[test]
fn limits_hold_for_zones_ports_and_all() {
    let tracker = tracker(64);
    tracker.set_zone_limit(Some(ZONE), Some(2));
    let commit = |n: u16, request: &Request| tracker.track(at(0), request, &flow(1, n, L4::Udp)).err();
    assert_eq!([0, 1, 2].map(|n| commit(n, &COMMIT)), [None, None, Some(DropReason::CtLimit)]);
    let elsewhere = Request { zone: 9, in_port: 2, ..COMMIT };
    tracker.set_port_limit(Some(1));
    assert_eq!([0, 1].map(|n| commit(n, &elsewhere)), [None, Some(DropReason::CtLimit)]);
    tracker.set_port_limit(None);
    tracker.set_limit(Some(3));
    assert_eq!(commit(5, &elsewhere), None, "the oldest makes room");
    assert_eq!(tracker.stats().n_connections, 3);
    assert_eq!(tracker.zones().iter().map(|(_, n)| n).sum::<u32>(), 3);
}

#[test]
fn idle_connections_go_by_themselves_in_bounded_steps() {
    let tracker = tracker(4096);
    for n in 0..2000_u32 {
        tracker.track(at(0), &COMMIT, &flow(n, 1, L4::Udp)).unwrap();
        tracker.track(at(0), &LOOK, &answer(&flow(n, 1, L4::Udp), L4::Udp)).unwrap();
    }
    let mut removed = 0;
    for millis in 0..120_000_u64 {
        tracker.tick(Timestamp::from_nanos(millis * 1_000_000));
        let left = tracker.stats().n_connections;
        assert!(2000 - left - removed <= 4 * TICK_BUDGET as u64);
        removed = 2000 - left;
        assert!(millis >= 30_000 || left == 2000);
    }
    assert_eq!(removed, 2000);
    assert_eq!(tracker.stats().n_expired, 2000);
}

#[test]
fn policies_change_how_long_states_are_kept() {
    let tracker = tracker(16);
    tracker.set_timeout(3, State::UdpFirst, Duration::from_secs(5));
    tracker.set_zone_policy(ZONE, 3);
    tracker.track(at(0), &COMMIT, &flow(1, 1, L4::Udp)).unwrap();
    tracker.track(at(0), &Request { policy: Some(0), ..COMMIT }, &flow(1, 2, L4::Udp)).unwrap();
    let left: Vec<_> =
        tracker.dump(at(1), &Filter::default()).iter().map(|found| found.expires_in.as_secs()).collect();
    assert_eq!(left, [4, 59]);
    assert_eq!(tracker.dump(at(6), &Filter::default()).len(), 1);
}

#[test]
fn flush_takes_just_what_was_meant() {
    let tracker = tracker(64);
    tracker.set_events(Watched::All);
    for n in 0..10 {
        let request =
            Request { zone: n % 2, mark: (n.into(), !0), label: (u128::from(n) << 64, !0), ..COMMIT };
        tracker.track(at(0), &request, &flow(1, n, L4::Udp)).unwrap();
    }
    let flush = |filter: Filter| tracker.flush(at(0), &filter);
    assert_eq!(flush(Filter { mark: Some((3, !0)), ..Filter::default() }), 1);
    assert_eq!(flush(Filter { label: Some((4 << 64, 0xf << 64)), ..Filter::default() }), 1);
    let tuple = Tuple { zone: 0, ..flow(1, 6, L4::Udp).tuple };
    assert_eq!(flush(Filter { tuple: Some(tuple.reversed()), ..Filter::default() }), 1);
    assert_eq!(flush(Filter { zone: Some(1), ..Filter::default() }), 4);
    assert_eq!(tracker.dump(at(0), &Filter::default()).len(), 3);
    assert_eq!(tracker.stats().n_removed, 7);
    let events = tracker.fetch_events().0;
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Created(_))).count(), 10);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Removed(_))).count(), 7);
}

#[test]
fn a_new_tracker_goes_on_with_what_is_in_storage() {
    let slots: &'static [Slot] = Box::leak((0..32).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..8).map(|_| Bucket::default()).collect());
    let start = |seed| {
        let config = Config { pick_up: false, seed, ..Config::default() };
        Conntrack::new(config, Storage::lent(slots, buckets).unwrap())
    };
    // What is in the index does not matter.
    index::Index::new(buckets, 32).insert(7 << 28, 5, 1);
    let old = start(1);
    establish(&old, 0, 1, 1);
    let six = |reply| {
        let (a, b) = if reply { (2, 1) } else { (1, 2) };
        view(&build::udp(&Host::v6(a), &Host::v6(b), b""))
    };
    let (a, b) = (six(false), View { tuple: six(false).tuple.reversed(), l4: L4::Udp });
    old.track(at(0), &Request { mark: (9, !0), ..COMMIT }, &a).unwrap();
    let before = old.dump(at(0), &Filter::default());
    // The process dies while a worker holds a slot.
    std::mem::forget(slots[0].lock());
    drop(old);
    let new = start(2);
    assert_eq!(new.dump(at(0), &Filter::default()), before);
    assert_eq!(new.track(at(1), &LOOK, &b).unwrap().mark, 9);
    assert_eq!(new.track(at(1), &LOOK, &flow(1, 1, tcp(0x10, 101, 501, 0))).unwrap().state, EST);
    assert_eq!(new.stats().n_connections, 2);
    new.flush(at(1), &Filter::default());
    for port in 0..32 {
        assert!(new.track(at(1), &COMMIT, &flow(1, port, L4::Udp)).is_ok(), "all 32 slots are there");
    }
    assert_eq!(new.stats().n_evicted, 0);
    assert!(Storage::lent(slots, &buckets[1..]).is_err() && Storage::lent(&[], &[]).is_err());
}

/// Two workers, each with one direction of the same connections, while slots run short
/// and a third party flushes.
#[test]
fn workers_agree_about_connections_in_any_order() {
    let tracker = tracker(64);
    let range = source_nat([192, 0, 2, 1], [192, 0, 2, 1], Some((1, 2000)));
    let work = |reverse: bool| {
        for round in 0..3000_u64 {
            let n = (round * 7 % 40) as u16;
            let first = flow(1, n, L4::Udp);
            let request = Request { nat: Some(Nat::New(range)), ..COMMIT };
            let verdict = tracker.track(at(0), &request, &first).unwrap();
            assert_eq!(verdict.original, Some(Tuple { zone: ZONE, ..first.tuple }));
            let new = verdict.rewrite.unwrap().outer;
            if reverse {
                let answer = View { tuple: Tuple { zone: 0, ..new.reversed() }, l4: L4::Udp };
                let seen =
                    tracker.track(at(0), &Request { nat: Some(Nat::Existing), ..LOOK }, &answer).unwrap();
                // Unless it was flushed in between, it is the same connection.
                if seen.state & ct_state::EST != 0 {
                    assert_eq!(seen.rewrite.unwrap().outer, Tuple { zone: ZONE, ..first.tuple.reversed() });
                }
            }
            if round % 100 == 0 {
                tracker.flush(
                    at(0),
                    &Filter { tuple: Some(Tuple { zone: ZONE, ..first.tuple }), ..Filter::default() },
                );
                tracker.tick(at(0));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(true));
        scope.spawn(|| work(false));
    });
    let dump = tracker.dump(at(0), &Filter::default());
    assert_eq!(tracker.stats().n_connections, dump.len() as u64);
    let replies: BTreeSet<_> = dump.iter().map(|found| found.reply).collect();
    assert_eq!(replies.len(), dump.len(), "no translation twice");
    assert_eq!(tracker.flush(at(0), &Filter::default()), dump.len() as u64);
    assert_eq!(tracker.stats().n_connections, 0);
    assert!(tracker.index().is_empty(), "no cell is left behind");
}
