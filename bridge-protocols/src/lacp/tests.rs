//! Pairs of systems with cables between them, in virtual time.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// From a port of a bond to another one.
type Cable = ((usize, u16), (usize, u16));

/// Bonds, and cables from a port of one to a port of another (or to nobody).
struct Room {
    now: Timestamp,
    bonds: Vec<Lacp>,
    cables: Vec<Cable>,
}

fn config(system: u8, key: u16) -> Config {
    let system = MacAddr::new([2, 0, 0, 0, 0, system]);
    Config { system, system_priority: 0x8000, key, is_active: true, is_fast: true }
}

impl Room {
    fn new(configs: &[Config], cables: &[Cable]) -> Self {
        let bonds = configs.iter().map(|config| Lacp::new(*config)).collect();
        let mut room = Self { now: Timestamp::from_nanos(1), bonds, cables: cables.to_vec() };
        for ((a, port_a), (b, port_b)) in cables {
            room.bonds[*a].set_link(*port_a, 0x8000, true);
            room.bonds[*b].set_link(*port_b, 0x8000, true);
        }
        room
    }

    fn pass(&mut self, secs: u32) {
        for _ in 0..secs {
            self.now = self.now.after(SECOND);
            for _ in 0..8 {
                self.bonds.iter_mut().for_each(|bond| bond.tick(self.now));
                for from in 0..self.bonds.len() {
                    for (port, pdu) in self.bonds[from].take_frames() {
                        let read = Pdu::parse(&pdu.to_frame(MacAddr::ZERO)).unwrap();
                        let ends = self.cables.iter().flat_map(|(a, b)| [(a, b), (b, a)]);
                        let to = ends.filter(|(a, _)| **a == (from, port)).map(|(_, b)| *b).next();
                        if let Some((to, port)) = to {
                            self.bonds[to].receive(self.now, port, &read);
                        }
                    }
                }
            }
        }
    }

    fn usable(&self, bond: usize) -> Vec<u16> {
        let bond = &self.bonds[bond];
        bond.links().filter(|port| bond.is_usable(*port)).collect()
    }
}

#[test]
fn two_cables_to_one_system_are_one() {
    let mut room = Room::new(&[config(1, 10), config(2, 20)], &[((0, 1), (1, 7)), ((0, 2), (1, 8))]);
    room.pass(2);
    assert_eq!((room.usable(0), room.usable(1)), (vec![1, 2], vec![7, 8]));
    // A cable is cut where nobody sees it: the others miss it within three seconds and one.
    room.cables.remove(0);
    room.pass(4);
    assert_eq!((room.usable(0), room.usable(1)), (vec![2], vec![8]));
    room.cables.push(((0, 1), (1, 7)));
    room.pass(3);
    assert_eq!(room.usable(0), [1, 2]);
}

#[test]
fn two_that_only_answer_never_meet_and_one_that_asks_is_enough() {
    let passive = |config: Config| Config { is_active: false, ..config };
    let cables = [((0, 1), (1, 1))];
    let mut silent = Room::new(&[passive(config(1, 1)), passive(config(2, 1))], &cables);
    silent.pass(100);
    assert!(silent.usable(0).is_empty() && silent.bonds[0].link(1).unwrap().n_units == (0, 0));
    let mut asked = Room::new(&[passive(config(1, 1)), config(2, 1)], &cables);
    asked.pass(2);
    assert_eq!(asked.usable(0), [1]);
}

#[test]
fn a_slow_partner_is_sent_a_unit_in_thirty_seconds() {
    let slow = |config: Config| Config { is_fast: false, ..config };
    let mut room = Room::new(&[slow(config(1, 1)), slow(config(2, 1))], &[((0, 1), (1, 1))]);
    room.pass(5);
    let before = room.bonds[0].link(1).unwrap().n_units.0;
    room.pass(60);
    assert_eq!(room.bonds[0].link(1).unwrap().n_units.0 - before, 2);
    assert_eq!(room.usable(0), [1]);
    room.cables.clear();
    // Three units late, whenever the last one was.
    room.pass(58);
    assert_eq!(room.usable(0), [1]);
    room.pass(34);
    assert!(room.usable(0).is_empty());
}

#[test]
fn what_comes_back_from_itself_is_no_partner() {
    let mut room = Room::new(&[config(1, 1)], &[((0, 1), (0, 2))]);
    room.pass(5);
    assert!(room.usable(0).is_empty() && !room.bonds[0].is_negotiated());
}

#[test]
fn a_link_without_carrier_carries_nothing_at_once() {
    let mut room = Room::new(&[config(1, 1), config(2, 1)], &[((0, 1), (1, 1)), ((0, 2), (1, 2))]);
    room.pass(2);
    room.bonds[0].set_link(1, 0x8000, false);
    assert_eq!(room.usable(0), [2]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However the cables run: what a bond uses leads to one system and one key, the other
    /// end uses it too, and a bond that has a partner at all uses some cable.
    #[test]
    fn only_equal_partners_are_one(
        ends in proptest::collection::vec((0..3_usize, 0..3_usize), 1..8),
        keys in proptest::array::uniform3(0..2_u16),
        priorities in proptest::array::uniform3(0..3_u16),
        cut in proptest::option::of(0..8_usize),
    ) {
        let configs: Vec<_> = (0..3)
            .map(|idx| Config { system_priority: priorities[idx], ..config(idx as u8 + 1, keys[idx]) })
            .collect();
        let cable = |(idx, (a, b)): (usize, &(usize, usize))| ((*a, idx as u16 * 2 + 1), (*b, idx as u16 * 2 + 2));
        let cables: Vec<_> = ends.iter().enumerate().map(cable).collect();
        let mut room = Room::new(&configs, &cables);
        room.pass(5);
        if let Some(cut) = cut.filter(|cut| *cut < room.cables.len()) {
            room.cables.remove(cut);
            room.pass(12);
        }
        for (a, b) in room.cables.clone() {
            let (one, other) = (&room.bonds[a.0], &room.bonds[b.0]);
            prop_assert_eq!(one.is_usable(a.1), other.is_usable(b.1), "{:?} {:?}", a, b);
        }
        for idx in 0..3 {
            let bond = &room.bonds[idx];
            let used: Vec<_> = room.usable(idx).iter().map(|port| bond.link(*port).unwrap().partner).collect();
            let equal = used.windows(2).all(|pair| (pair[0].system, pair[0].key) == (pair[1].system, pair[1].key));
            prop_assert!(equal, "{:?}", used);
            for port in room.usable(idx) {
                let wired = room.cables.iter().any(|(a, b)| *a == (idx, port) || *b == (idx, port));
                prop_assert!(wired, "{} of {} hears nobody", port, idx);
            }
        }
    }
}
