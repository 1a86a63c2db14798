//! A process dies at any write to a slot, and the next one takes the connections over.

use super::{memory_tests::*, slot::death, *};
use crate::wire::ip_proto::{TCP, UDP};

const N_SLOTS: usize = 8;

/// What decides about packets of a connection.
type Known = (Tuple, Tuple, u32, u128);

fn known(tracker: &Conntrack) -> Vec<Known> {
    let mut all: Vec<_> = tracker
        .dump(now(), &Filter::default())
        .into_iter()
        .map(|found| (found.original, found.reply, found.mark, found.label))
        .collect();
    all.sort_by_key(|known| (known.0.src, known.0.src_port, known.0.proto));
    all
}

/// Connections of all shapes come, are marked anew, and go; their slots are used again.
fn step(tracker: &Conntrack, n: usize) {
    let track = |view: &View, request: Request| {
        let _ = tracker.track(now(), &request, view);
    };
    let flush = |filter: Filter| {
        tracker.flush(now(), &filter);
    };
    let source = |ipv6| Request { nat: Some(to(NatKind::Source, ipv6)), ..COMMIT };
    match n {
        0 => track(&first(1, false, TCP), COMMIT),
        1 => track(&first(2, true, TCP), source(true)),
        2 => track(&first(3, false, UDP), source(false)),
        // The label's halves change together.
        3 => track(&first(1, false, TCP), Request { mark: (6, !0), label: (9 << 100 | 9, !0), ..COMMIT }),
        4 => {
            flush(Filter { tuple: Some(Tuple { zone: 7, ..first(2, true, TCP).tuple }), ..Filter::default() })
        }
        5 => flush(Filter { mark: Some((6, !0)), ..Filter::default() }),
        6 => track(&first(4, true, UDP), Request { label: (77 << 64 | 77, !0), ..source(true) }),
        7 => track(&first(5, true, TCP), COMMIT),
        8 => track(&first(6, true, TCP), Request { mark: (8, !0), ..source(true) }),
        _ => flush(Filter { zone: Some(7), ..Filter::default() }),
    }
}

const N_STEPS: usize = 10;

#[test]
fn a_process_that_dies_at_any_write_leaves_connections_that_are_whole() {
    dies_at_any_write(|storage| storage);
}

#[test]
fn so_does_one_that_counts_which_slots_it_has_used() {
    let used: &'static AtomicU64 = Box::leak(Box::default());
    dies_at_any_write(|storage| storage.counting(used));
}

fn dies_at_any_write(counting: impl Fn(Storage) -> Storage) {
    let slots: &'static [Slot] = Box::leak((0..N_SLOTS).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..N_SLOTS / 4).map(|_| Bucket::default()).collect());
    let storage = || counting(Storage::lent(slots, buckets).unwrap());
    let start = |seed| Conntrack::new(Config { seed, ..Config::default() }, storage());
    let mut n_dropped = 0;
    for n_writes in 0.. {
        // Nothing of the round before, but what its writes have left in free slots.
        start(1).flush(now(), &Filter::default());
        let tracker = start(1);
        let (mut left, mut was_alive) = (n_writes, true);
        for n in 0..N_STEPS {
            let before = known(&tracker);
            death::after(left);
            step(&tracker, n);
            left = death::left();
            if !death::revive() {
                continue;
            }
            was_alive = false;
            let new = start(2);
            let found = known(&new);
            n_dropped += new.stats().n_damaged;
            // What would have been, had it lived: the same step on what was there before.
            let after = whole(n);
            let expected = |known: &Known| before.contains(known) || after.contains(known);
            let torn: Vec<_> = found.iter().filter(|known| !expected(known)).collect();
            assert!(torn.is_empty(), "step {n}, {n_writes} writes: {torn:#?}");
            let untouched = before.iter().filter(|known| after.contains(known));
            let lost: Vec<_> = untouched.filter(|known| !found.contains(known)).collect();
            assert!(lost.is_empty(), "step {n}, {n_writes} writes: lost {lost:#?}");
            new.flush(now(), &Filter::default());
            for n in 0..N_SLOTS as u16 {
                assert!(new.track(now(), &COMMIT, &first(100 + n, false, UDP)).is_ok(), "a slot is lost");
            }
            assert_eq!(new.stats().n_evicted, 0, "all slots can be used again");
            break;
        }
        if was_alive {
            assert!(n_writes > 100, "{n_writes} writes are too few for all that");
            assert!(n_dropped > 0, "some died in the middle of a change");
            return;
        }
    }
}

/// Connections after this step, when nobody dies.
fn whole(n: usize) -> Vec<Known> {
    let tracker = Conntrack::new(Config { seed: 1, ..Config::default() }, Storage::on_heap(N_SLOTS));
    (0..=n).for_each(|n| step(&tracker, n));
    known(&tracker)
}

#[test]
fn slots_that_were_never_used_are_not_looked_at() {
    const N_SLOTS: usize = 64;
    let slots: &'static [Slot] = Box::leak((0..N_SLOTS).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..N_SLOTS / 4).map(|_| Bucket::default()).collect());
    let used: &'static AtomicU64 = Box::leak(Box::default());
    let start = || {
        let storage = Storage::lent(slots, buckets).unwrap().counting(used);
        Conntrack::new(Config { seed: 1, ..Config::default() }, storage)
    };
    let first_of = |n| first(n, false, UDP);
    let old = start();
    let commit = |tracker: &Conntrack, n| tracker.track(now(), &COMMIT, &first_of(n)).map(|_| ()).unwrap();
    (0..5).for_each(|n| commit(&old, n));
    old.flush(now(), &Filter { tuple: Some(Tuple { zone: 7, ..first_of(1).tuple }), ..Filter::default() });
    commit(&old, 9);
    assert_eq!(used.load(Relaxed), 5, "a slot that was given back is used before one that was not");
    let before = known(&old);
    drop(old);
    // Nobody can have touched what is behind; were it looked at, this one would be unlocked.
    let is_locked = || slots[5].get(0) >> 63 == 1;
    std::mem::forget(slots[5].lock());
    let new = start();
    assert_eq!((known(&new), is_locked()), (before, true));
    slots[5].break_lock();
    assert!(!is_locked());
    new.flush(now(), &Filter::default());
    drop(new);
    let newer = start();
    assert_eq!(used.load(Relaxed), 0, "nothing is left in any of them");
    (0..N_SLOTS as u16).for_each(|n| commit(&newer, n));
    assert_eq!((newer.stats().n_evicted, used.load(Relaxed)), (0, N_SLOTS as u64), "all can be used");
}

#[test]
fn a_ledger_of_the_version_before_is_understood() {
    let slots: &'static [Slot] = Box::leak((0..N_SLOTS).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..N_SLOTS / 4).map(|_| Bucket::default()).collect());
    let lent = || Storage::lent(slots, buckets).unwrap();
    let config = Config { seed: 1, ..Config::default() };
    let old = Conntrack::new(config, lent());
    for n in 0..N_SLOTS as u16 {
        old.track(now(), &COMMIT, &first(n, false, UDP)).unwrap();
    }
    old.flush(
        now(),
        &Filter { tuple: Some(Tuple { zone: 7, ..first(3, false, UDP).tuple }), ..Filter::default() },
    );
    let (before, mut words) = (known(&old), old.park());
    // That one had all its free slots in a list, as this one has now, and no word for the others.
    words[0] -= 1;
    assert_eq!(words.remove(11), N_SLOTS as u32);
    let new = Conntrack::waiting(config, lent());
    new.go_on(Some(&words));
    assert_eq!((known(&new), new.stats().n_damaged), (before, 0));
    new.track(now(), &COMMIT, &first(50, false, UDP)).unwrap();
    assert_eq!((new.stats().n_connections, new.stats().n_evicted), (N_SLOTS as u64, 0));
}

#[test]
fn a_parked_tracker_goes_on_without_looking_at_its_slots() {
    let slots: &'static [Slot] = Box::leak((0..N_SLOTS).map(|_| Slot::default()).collect());
    let buckets: &'static [Bucket] = Box::leak((0..N_SLOTS / 4).map(|_| Bucket::default()).collect());
    let config = Config { seed: 1, ..Config::default() };
    let lent = || Storage::lent(slots, buckets).unwrap();
    let old = Conntrack::new(config, lent());
    let new = Conntrack::waiting(config, lent());
    (0..4).for_each(|n| step(&old, n));
    let (before, parked) = (known(&old), old.park());
    assert!(parked.len() <= Conntrack::MAX_PARKED);
    drop(old);
    new.go_on(Some(&parked));
    assert_eq!(known(&new), before);
    assert_eq!((new.stats().n_connections, new.zones()), (3, vec![(7, 3)]));
    (4..N_STEPS).for_each(|n| step(&new, n));
    assert_eq!(new.stats().n_connections, 0);
    assert!(new.index().is_empty(), "no cell is left behind");

    // What cannot be right is not believed, whatever it is.
    step(&new, 0);
    let parked = new.park();
    let wrong = |words: &[u32]| {
        let tracker = Conntrack::waiting(config, lent());
        tracker.go_on(Some(words));
        assert_eq!(known(&tracker), known(&new));
        tracker.park()
    };
    for len in [0, 5, 11, parked.len() - 1] {
        wrong(&parked[..len]);
    }
    for idx in [0, 1, 2, 3, 6, 7, 11] {
        let mut words = parked.clone();
        words[idx] = 0xffff_fff0;
        wrong(&words);
    }
}
