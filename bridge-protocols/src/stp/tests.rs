//! Networks of bridges in virtual time: what their ports come to, and what happens when links
//! and bridges fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flowtable::types::MacAddr;
use proptest::prelude::*;

use super::*;

/// One end of a cable: bridge and port.
type End = (usize, u16);

/// Bridges and the cables between their ports.
struct Network {
    bridges: Vec<Bridge>,
    cables: BTreeMap<End, End>,
    /// Bridges that are switched off.
    dead: BTreeSet<usize>,
}

impl Network {
    /// So many bridges, with a cable between each of these pairs. `priorities`: a multiple of
    /// 4096 for each; `slow`: those that speak only STP.
    fn new(priorities: &[u16], slow: &[bool], pairs: &[(usize, usize)]) -> Self {
        let bridge = |(idx, priority): (usize, &u16)| {
            let address = MacAddr::new([2, 0, 0, 0, 0, idx as u8 + 1]);
            let id = BridgeId { priority: priority << 12, address };
            let is_rapid = !slow.get(idx).copied().unwrap_or_default();
            Bridge::new(Config { id, is_rapid, ..Config::default() })
        };
        let bridges: Vec<_> = priorities.iter().enumerate().map(bridge).collect();
        let mut network = Self { bridges, cables: BTreeMap::new(), dead: BTreeSet::new() };
        let mut next = vec![1_u16; priorities.len()];
        for (a, b) in pairs {
            let mut end = |idx: usize| {
                next[idx] += 1;
                (idx, next[idx] - 1)
            };
            let (one, other) = (end(*a), end(*b));
            network.cables.insert(one, other);
            network.cables.insert(other, one);
        }
        for (idx, port) in network.cables.keys().copied().collect::<Vec<_>>() {
            network.bridges[idx].set_port(port, PortConfig::default());
        }
        network.deliver();
        network
    }

    /// Frames arrive until nobody sends any more.
    fn deliver(&mut self) {
        let mut on_the_way = VecDeque::new();
        for _ in 0..100_000 {
            for (idx, bridge) in self.bridges.iter_mut().enumerate() {
                let sent = bridge.take_frames();
                on_the_way.extend(sent.into_iter().map(|(port, bpdu)| ((idx, port), bpdu)));
            }
            let Some((from, bpdu)) = on_the_way.pop_front() else { return };
            if let Some((idx, port)) = self.cables.get(&from).copied()
                && !self.dead.contains(&idx)
                && !self.dead.contains(&from.0)
            {
                // As on a wire.
                // What is too old is refused.
                if let Some(read) = Bpdu::parse(&bpdu.to_frame(MacAddr::ZERO)) {
                    self.bridges[idx].receive(port, &read);
                }
            }
        }
        panic!("they never stop talking");
    }

    fn pass(&mut self, secs: usize) {
        for _ in 0..secs {
            for (idx, bridge) in self.bridges.iter_mut().enumerate() {
                if !self.dead.contains(&idx) {
                    bridge.tick();
                }
            }
            self.deliver();
        }
    }

    fn cut(&mut self, end: End) {
        let Some(other) = self.cables.remove(&end) else { return };
        self.cables.remove(&other);
        for (idx, port) in [end, other] {
            self.bridges[idx].set_port(port, PortConfig { enabled: false, ..PortConfig::default() });
        }
        self.deliver();
    }

    fn is_forwarding(&self, (idx, port): End) -> bool {
        !self.dead.contains(&idx)
            && self.bridges[idx].port(port).is_some_and(|port| port.state == State::Forwarding)
    }

    /// Cables by which frames cross, each once.
    fn open(&self) -> Vec<(usize, usize)> {
        let open = self.cables.iter().filter(|(a, b)| a < b);
        let open = open.filter(|(a, b)| self.is_forwarding(**a) && self.is_forwarding(**b));
        open.map(|(a, b)| (a.0, b.0)).collect()
    }

    /// Which bridges can hear each other by these cables.
    fn parts(&self, cables: &[(usize, usize)]) -> Vec<usize> {
        let mut part: Vec<usize> = (0..self.bridges.len()).collect();
        for (a, b) in cables {
            let (from, to) = (part[*a], part[*b]);
            part.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
        }
        part
    }

    /// Some bridge cannot hear its root any more.
    fn has_lost(&self, roots: &[BridgeId]) -> bool {
        let all: Vec<_> = self.cables.iter().map(|(a, b)| (a.0, b.0)).collect();
        let parts = self.parts(&all);
        let hears = |idx: usize, root: &BridgeId| {
            let mut others = self.bridges.iter().enumerate();
            others.any(|(other, bridge)| parts[other] == parts[idx] && bridge.config().id == *root)
        };
        roots.iter().enumerate().any(|(idx, root)| !hears(idx, root))
    }

    /// There is no circle: each open cable joins two parts.
    fn check_no_loop(&self) {
        let open = self.open();
        for idx in 0..open.len() {
            let (a, b) = open[idx];
            let before = self.parts(&open[..idx]);
            assert_ne!(before[a], before[b], "a circle by {open:?}");
        }
    }

    /// In each part of the network there is one tree without circles that has every bridge,
    /// and its root is the lowest id.
    fn check_trees(&self) {
        self.check_no_loop();
        let live = |a: &End, b: &End| !self.dead.contains(&a.0) && !self.dead.contains(&b.0);
        let all: Vec<_> =
            self.cables.iter().filter(|(a, b)| a < b && live(a, b)).map(|(a, b)| (a.0, b.0)).collect();
        let (wired, open) = (self.parts(&all), self.parts(&self.open()));
        for (a, bridge) in self.bridges.iter().enumerate().filter(|(a, _)| !self.dead.contains(a)) {
            let others = (0..self.bridges.len()).filter(|b| !self.dead.contains(b) && wired[a] == wired[*b]);
            let lowest = others.clone().map(|b| self.bridges[b].config().id).min().unwrap();
            assert_eq!(bridge.root().0, lowest, "bridge {a}");
            for b in others {
                assert_eq!(open[a], open[b], "{a} and {b} are wired, but hear nothing of each other");
            }
        }
    }
}

#[test]
fn three_bridges_in_a_ring_agree_at_once() {
    let mut ring = Network::new(&[8, 4, 8], &[], &[(0, 1), (1, 2), (2, 0)]);
    // Proposals and agreements: no timer has to run out.
    ring.pass(1);
    ring.check_trees();
    assert_eq!(ring.bridges[1].root(), (ring.bridges[1].config().id, 0, None));
    let roles: Vec<_> = [(0, 1), (0, 2), (2, 1), (2, 2)]
        .iter()
        .map(|(idx, port)| ring.bridges[*idx as usize].port(*port).unwrap().role)
        .collect();
    assert_eq!(roles, [Role::Root, Role::Designated, Role::Root, Role::Alternate]);
    // The other way takes over at once.
    ring.cut((1, 2));
    ring.check_trees();
    assert_eq!(ring.open(), [(0, 1), (0, 2)]);
    assert!(ring.bridges.iter_mut().any(|bridge| !bridge.take_flushes().is_empty()));
}

#[test]
fn two_cables_between_two_bridges_and_one_to_itself() {
    let mut pair = Network::new(&[8, 8], &[], &[(0, 1), (0, 1), (1, 1)]);
    pair.pass(2 * 15);
    pair.check_trees();
    assert_eq!(pair.bridges[1].port(2).unwrap().role, Role::Alternate);
    assert_eq!(pair.bridges[1].port(4).unwrap().role, Role::Backup);
    pair.cut((0, 1));
    pair.check_trees();
}

#[test]
fn a_silent_bridge_is_missed_after_three_hellos() {
    let mut ring = Network::new(&[0, 8, 8], &[], &[(0, 1), (1, 2), (2, 0)]);
    ring.pass(3);
    ring.dead.insert(0);
    ring.pass(4);
    assert_eq!(ring.bridges[1].root().0, ring.bridges[0].config().id);
    ring.pass(60);
    ring.check_trees();
    assert_eq!(ring.bridges[2].root().0, ring.bridges[1].config().id);
}

#[test]
fn a_port_without_a_bridge_becomes_an_edge_and_forwards_soon() {
    let mut bridge = Bridge::new(Config::default());
    bridge.set_port(1, PortConfig::default());
    (0..4).for_each(|_| bridge.tick());
    let port = bridge.port(1).unwrap();
    assert!(port.is_edge && port.state == State::Forwarding, "{port:?}");
    bridge.set_port(2, PortConfig { is_edge: true, ..PortConfig::default() });
    assert_eq!(bridge.port(2).unwrap().state, State::Forwarding);
    bridge.set_port(3, PortConfig { auto_edge: false, ..PortConfig::default() });
    (0..29).for_each(|_| bridge.tick());
    // Nobody has agreed: twice the delay.
    assert!(bridge.port(3).unwrap().state != State::Forwarding || bridge.port(3).unwrap().is_rapid);
    (0..2).for_each(|_| bridge.tick());
    assert_eq!(bridge.port(3).unwrap().state, State::Forwarding);
}

#[test]
fn stp_waits_and_nothing_forwards_before() {
    let mut pair = Network::new(&[8, 8], &[true, true], &[(0, 1), (0, 1)]);
    // As long as a port that was down waits, and a delay more.
    pair.pass(20 + 14);
    assert_eq!(pair.open(), []);
    pair.pass(2);
    pair.check_trees();
    assert!(!pair.bridges[0].port(1).unwrap().is_rapid);
}

#[test]
fn a_neighbour_of_stp_is_spoken_to_in_stp_and_in_rstp_again_when_it_learns_it() {
    let mut pair = Network::new(&[8, 8], &[false, true], &[(0, 1)]);
    pair.pass(40);
    pair.check_trees();
    assert!(!pair.bridges[0].port(1).unwrap().is_rapid);
    let config = Config { is_rapid: true, ..*pair.bridges[1].config() };
    pair.bridges[1].set_config(config);
    pair.pass(10);
    pair.bridges[0].check_versions();
    pair.pass(40);
    assert!(pair.bridges[0].port(1).unwrap().is_rapid);
    pair.check_trees();
}

#[test]
fn a_change_of_the_tree_makes_others_forget_stations() {
    let mut line = Network::new(&[0, 8, 8, 8], &[], &[(0, 1), (1, 2), (2, 3), (3, 1)]);
    line.pass(40);
    line.bridges.iter_mut().for_each(|bridge| drop(bridge.take_flushes()));
    line.cut((1, 2));
    line.pass(3);
    // What is behind the port that has told is where it says; the rest may have moved.
    assert!(line.bridges[1].take_flushes().contains(&1), "the bridge beside it was not told");
    line.check_trees();
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    let config = Config::default();
    config.check().unwrap();
    for wrong in [
        Config { max_age: 41, ..config },
        Config { hello_time: 0, ..config },
        Config { forward_delay: 4, ..config },
        Config { max_age: 6, hello_time: 5, ..config },
        Config { tx_hold_count: 11, ..config },
        Config { id: BridgeId { priority: 5, ..config.id }, ..config },
    ] {
        assert!(wrong.check().is_err(), "{wrong:?} was taken");
    }
}

/// Seconds after which nobody believes in a root that is gone. News of it grow older by a second with
/// each bridge that passes them on, and are of no use when they are older than max-age (IEEE
/// 802.1D-2004, updtRcvdInfoWhile); a bridge that has said much waits for a second at most until it may
/// say more (txCount), so the last step is made after max-age seconds. Who heard of it then believes it
/// for three hellos.
fn forgets_within(config: &Config) -> usize {
    usize::from(config.max_age) + 3 * usize::from(config.hello_time)
}

fn topology() -> impl Strategy<Value = (Vec<u16>, Vec<bool>, Vec<(usize, usize)>)> {
    (2..7_usize).prop_flat_map(|n| {
        let pairs = proptest::collection::vec((0..n, 0..n), 1..12);
        (
            proptest::collection::vec(0..16_u16, n),
            proptest::collection::vec(proptest::bool::weighted(0.2), n),
            pairs,
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is wired how, trees come about, and come about again when cables are cut and
    /// bridges go; and there is no circle on the way, but where the root is lost: then the news of
    /// it goes round until it is too old, counting the costs up, and ports that forward may meet
    /// meanwhile, as the standard's machines have it (Elmeleegy, Cox, Ng: On Count-to-Infinity
    /// Induced Forwarding Loops in Ethernet Networks, 2006). That ends after [`forgets_within`].
    #[test]
    fn trees_come_about((priorities, slow, pairs) in topology(), cuts in proptest::collection::vec(any::<usize>(), 0..4), dead in proptest::option::of(0..2_usize)) {
        let mut network = Network::new(&priorities, &slow, &pairs);
        for _ in 0..70 {
            network.pass(1);
            network.check_no_loop();
        }
        network.check_trees();
        for cut in cuts {
            let ends: Vec<_> = network.cables.keys().copied().collect();
            let roots: Vec<_> = network.bridges.iter().map(|bridge| bridge.root().0).collect();
            if let Some(end) = (!ends.is_empty()).then(|| ends[cut % ends.len()]) {
                network.cut(end);
            }
            if network.has_lost(&roots) {
                network.pass(forgets_within(&Config::default()));
            }
            network.pass(3);
            network.check_no_loop();
        }
        if let Some(dead) = dead {
            network.dead.insert(dead);
        }
        network.pass(120);
        network.check_trees();
    }
}
