//! The database: a model that keeps everything in a list, fairness, ageing, generations.

use proptest::prelude::*;

use super::*;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn station(mac: u8, port: u32) -> Station {
    Station {
        vlan: VlanId::NONE,
        mac: MacAddr::new([2, 0, 0, 0, 0, mac]),
        port: PortNo::new(port).unwrap(),
        is_announced: false,
    }
}

fn port_of(fdb: &Fdb, mac: u8) -> Option<u32> {
    fdb.lookup(VlanId::NONE, MacAddr::new([2, 0, 0, 0, 0, mac])).0.map(PortNo::get)
}

#[test]
fn a_station_is_where_it_was_last_seen_until_it_is_silent_for_too_long() {
    let fdb = Fdb::default();
    assert!(fdb.learn(at(1), &station(1, 1)));
    assert!(!fdb.learn(at(2), &station(1, 1)));
    assert!(fdb.learn(at(3), &station(1, 2)), "it has moved");
    fdb.refresh(at(100), &station(1, 1));
    assert_eq!(fdb.dump()[0].seen, Some(at(3)), "what was known before is not news");
    fdb.refresh(at(100), &station(1, 2));
    assert_eq!((fdb.expire(at(399)), port_of(&fdb, 1)), (0, Some(2)));
    assert_eq!((fdb.expire(at(400)), port_of(&fdb, 1)), (1, None));
    let FdbCounters { n_learned, n_moved, n_expired, .. } = fdb.counters();
    assert_eq!((n_learned, n_moved, n_expired), (1, 1, 1));
}

#[test]
fn generations_count_what_decisions_depend_on() {
    let fdb = Fdb::default();
    let mac = station(1, 1).mac;
    let (_, unknown) = fdb.lookup(VlanId::NONE, mac);
    fdb.learn(at(1), &station(1, 1));
    assert!(!fdb.is_unchanged(unknown));
    let (_, known) = fdb.lookup(VlanId::NONE, mac);
    fdb.learn(at(2), &station(1, 1));
    fdb.refresh(at(3), &station(1, 1));
    fdb.learn(at(2), &Station { vlan: VlanId::new(7).unwrap(), ..station(1, 2) });
    fdb.learn(at(2), &station(2, 2));
    assert!(fdb.is_unchanged(known), "being seen again is no change, nor are others");
    fdb.learn(at(4), &station(1, 2));
    assert!(!fdb.is_unchanged(known));
    for forget in [|fdb: &Fdb| fdb.expire(at(1000)), |fdb: &Fdb| fdb.flush(&FdbFilter::default())] {
        fdb.learn(at(5), &station(1, 3));
        let (_, known) = fdb.lookup(VlanId::NONE, mac);
        assert!(forget(&fdb) > 0);
        assert!(!fdb.is_unchanged(known));
    }
}

#[test]
fn a_port_that_floods_addresses_loses_its_own() {
    let fdb = Fdb::new(FdbConfig { max_entries: 16, ..FdbConfig::default() });
    assert!((0..4).all(|mac| fdb.learn(at(1), &station(mac, 1))));
    assert!((10..200).all(|mac| fdb.learn(at(u64::from(mac)), &station(mac, 2))));
    assert_eq!(fdb.len(), 16);
    assert!((0..4).all(|mac| port_of(&fdb, mac) == Some(1)));
    assert!((188..200).all(|mac| port_of(&fdb, mac) == Some(2)), "the youngest are left");
    assert_eq!(fdb.counters().n_evicted, 190 - 12);
    fdb.set_config(FdbConfig { max_entries: 5, ..FdbConfig::default() });
    assert_eq!(fdb.len(), 5);
    fdb.set_config(FdbConfig { max_entries: 0, ..FdbConfig::default() });
    assert!(!fdb.learn(at(300), &station(1, 1)) && fdb.is_empty());
}

#[test]
fn a_gratuitous_arp_is_believed_for_a_while() {
    let fdb = Fdb::default();
    let announced = |port| Station { is_announced: true, ..station(1, port) };
    fdb.learn(at(1), &station(1, 1));
    assert!(fdb.learn(at(2), &announced(2)));
    assert!(!fdb.learn(at(6), &station(1, 1)), "a late frame of the old place");
    assert_eq!((port_of(&fdb, 1), fdb.counters().n_refused), (Some(2), 1));
    assert!(fdb.learn(at(6), &announced(1)));
    assert!(fdb.learn(at(11), &station(1, 2)));
}

#[test]
fn static_entries_stay() {
    let fdb = Fdb::new(FdbConfig { max_entries: 2, ..FdbConfig::default() });
    fdb.set_static(VlanId::NONE, station(1, 1).mac, station(1, 1).port);
    assert!(!fdb.learn(at(1), &station(1, 2)));
    assert!(fdb.learn(at(1), &station(2, 2)) && fdb.learn(at(2), &station(3, 2)));
    assert_eq!((port_of(&fdb, 1), port_of(&fdb, 2), port_of(&fdb, 3)), (Some(1), None, Some(2)));
    assert_eq!(fdb.expire(at(10_000)), 1);
    assert_eq!(fdb.flush(&FdbFilter::default()), 0);
    assert_eq!(fdb.flush(&FdbFilter { with_static: true, ..FdbFilter::default() }), 1);
}

proptest! {
    /// The same as a list of (address, port, last seen).
    #[test]
    fn the_database_agrees_with_a_list(ops in prop::collection::vec((0_u8..6, 0_u8..8, 1_u32..4, 0_u64..40), 1..80)) {
        let fdb = Fdb::new(FdbConfig { max_entries: 100, max_age: Duration::from_secs(30) });
        let mut model: Vec<(u8, u32, u64)> = Vec::new();
        let mut now = 0;
        for (op, mac, port, wait) in ops {
            match op {
                0..4 => {
                    fdb.learn(at(now), &station(mac, port));
                    model.retain(|(other, ..)| *other != mac);
                    model.push((mac, port, now));
                }
                4 => {
                    now += wait;
                    fdb.expire(at(now));
                    model.retain(|(_, _, seen)| now - seen < 30);
                }
                _ => {
                    let chosen = FdbFilter { port: PortNo::new(port).ok(), ..FdbFilter::default() };
                    fdb.flush(&chosen);
                    model.retain(|(_, other, _)| *other != port);
                }
            }
            model.sort_unstable();
            let dump = fdb.dump();
            let found: Vec<_> = dump.iter().map(|e| (e.mac.octets()[5], e.port.get(), e.seen.unwrap().nanos() / 1_000_000_000)).collect();
            prop_assert_eq!(&found, &model);
            prop_assert!((0..8).all(|mac| port_of(&fdb, mac) == model.iter().find(|(m, ..)| *m == mac).map(|(_, port, _)| *port)));
        }
    }
}
