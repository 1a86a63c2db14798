//! What one dataplane leaves to the next, through a keeper.

#![allow(missing_docs, clippy::unwrap_used)]
#![forbid(unsafe_code)]

#[path = "common/shelf.rs"]
mod shelf;

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{Beginning, Dataplane, DataplaneConfig, Keeper, StartError, WorkerConfig};
use flowtable::conntrack::{Connection, Filter, L4, Request, Tuple, View};
use shelf::Shelf;

const N_CONNECTIONS: usize = 1000;

fn start(shelf: &Arc<Shelf>, n_connections: usize, is_successor: bool) -> Dataplane {
    start_with(shelf, n_connections, (is_successor, 1)).unwrap()
}

fn start_with(
    shelf: &Arc<Shelf>,
    n_connections: usize,
    (is_successor, n_workers): (bool, usize),
) -> Result<Dataplane, StartError> {
    let keeper: Arc<dyn Keeper> = Arc::clone(shelf) as _;
    let beginning = Beginning { keeper: Some(keeper), is_successor, holds_back: true };
    let workers = vec![WorkerConfig::default(); n_workers];
    Dataplane::start_with(DataplaneConfig { n_connections, workers, ..DataplaneConfig::default() }, beginning)
}

fn commit(dataplane: &Dataplane, n: u16) {
    let tuple = Tuple {
        zone: 0,
        ipv6: false,
        proto: 17,
        src: 0x0a00_0001,
        dst: 0x0a00_0002,
        src_port: n,
        dst_port: 53,
    };
    let request = Request { zone: 3, commit: true, mark: (n.into(), !0), ..Request::default() };
    dataplane.conntrack().track(dataplane.now(), &request, &View { tuple, l4: L4::Udp }).unwrap();
}

fn connections(dataplane: &Dataplane) -> Vec<Connection> {
    let mut all = dataplane.conntrack().dump(dataplane.now(), &Filter::default());
    all.sort_by_key(|connection| connection.mark);
    all
}

fn marks(dataplane: &Dataplane) -> Vec<u32> {
    connections(dataplane).iter().map(|connection| connection.mark).collect()
}

#[test]
fn connections_go_on_when_a_process_has_ended_without_a_word() {
    let shelf = Arc::default();
    let first = start(&shelf, N_CONNECTIONS, false);
    first.begin();
    (1..=5).for_each(|n| commit(&first, n));
    let before = connections(&first);
    std::thread::sleep(std::time::Duration::from_millis(20));
    drop(first);

    let second = start(&shelf, N_CONNECTIONS, false);
    second.begin();
    let after = connections(&second);
    assert_eq!(marks(&second), [1, 2, 3, 4, 5]);
    // Their time goes on over all of it.
    assert!(after.iter().zip(&before).all(|(after, before)| after.expires_in < before.expires_in));
    commit(&second, 6);
    assert_eq!(marks(&second), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_successor_goes_on_where_its_predecessor_has_stopped() {
    let shelf = Arc::default();
    let first = start(&shelf, N_CONNECTIONS, false);
    first.begin();
    commit(&first, 1);
    let second = start(&shelf, N_CONNECTIONS, true);
    assert!(second.is_waiting() && !first.is_waiting());
    commit(&first, 2);
    first.pause();
    second.begin();
    assert_eq!(marks(&second), [1, 2]);
    assert_eq!(second.conntrack().stats().n_connections, 2);
    commit(&second, 3);

    // Nobody has gone on with what the second leaves: it does so itself.
    second.pause();
    second.go_on();
    assert_eq!(marks(&second), [1, 2, 3]);
    commit(&second, 4);
    assert_eq!(second.conntrack().stats().n_connections, 4);
}

#[test]
fn a_successor_that_waits_for_its_turn_begins_when_the_first_has_paused() {
    for n_workers in [1, 3] {
        let shelf = Arc::default();
        let first = start_with(&shelf, N_CONNECTIONS, (false, n_workers)).unwrap();
        first.begin();
        commit(&first, 1);
        let second = start_with(&shelf, N_CONNECTIONS, (true, n_workers)).unwrap();
        second.want_turn();
        commit(&first, 2);
        std::thread::sleep(Duration::from_millis(30));
        let n_known = second.conntrack().stats().n_connections;
        assert_eq!((second.stood(), n_known), (None, 0), "it is not its turn");
        first.pause();
        let start = Instant::now();
        while second.stood().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "nobody has told it");
            std::thread::sleep(Duration::from_millis(1));
        }
        // It is told in the other way, too.
        second.begin();
        assert_eq!((marks(&second), second.is_waiting()), (vec![1, 2], false));
        commit(&second, 3);
        // Nobody waits for the turn now: it goes to nobody.
        second.pause();
        let third = start_with(&shelf, N_CONNECTIONS, (true, n_workers)).unwrap();
        third.want_turn();
        std::thread::sleep(Duration::from_millis(30));
        assert!(third.stood().is_none(), "what was before it has come is not for it");
        third.begin();
        assert_eq!(marks(&third), [1, 2, 3]);
    }
}

#[test]
fn a_successor_refuses_to_go_on_without_the_connections() {
    let shelf: Arc<Shelf> = Arc::default();
    let first = start(&shelf, N_CONNECTIONS, false);
    first.begin();
    commit(&first, 1);
    let error = start_with(&shelf, N_CONNECTIONS * 2, (true, 1)).err().unwrap().to_string();
    for part in ["--conntrack-max", "it goes on", "systemctl restart"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    commit(&first, 2);
    assert_eq!(marks(&first), [1, 2]);
    drop(first);
    let next = start(&shelf, N_CONNECTIONS, false);
    next.begin();
    assert_eq!(marks(&next), [1, 2], "they are held as before");
}

/// Makes the memory that of a version whose layout is another one.
fn skew(shelf: &Arc<Shelf>) {
    let kept = shelf.take("memory/connections").unwrap();
    let memory = File::from(kept.files.into_iter().next().unwrap());
    let mut head = [0; 7 * 8];
    memory.read_exact_at(&mut head, 0).unwrap();
    // The second word is the layout, the last one the checksum of those before it.
    head[8] += 1;
    let sum = u64::from(flowtable::crc32c::of([&head[..48]])) | 1 << 32;
    head[48..].copy_from_slice(&sum.to_le_bytes());
    memory.write_all_at(&head, 0).unwrap();
}

#[test]
fn connections_of_another_version_are_not_lost_in_an_upgrade_and_not_believed_after_a_crash() {
    let shelf: Arc<Shelf> = Arc::default();
    let first = start(&shelf, N_CONNECTIONS, false);
    first.begin();
    commit(&first, 1);
    skew(&shelf);
    let error = start_with(&shelf, N_CONNECTIONS, (true, 1)).err().unwrap().to_string();
    assert!(error.contains("another version of vswitchd has laid it out"), "{error}");
    assert_eq!(marks(&first), [1], "the first goes on");
    drop(first);
    let next = start(&shelf, N_CONNECTIONS, false);
    next.begin();
    assert!(marks(&next).is_empty());
    commit(&next, 2);
    assert_eq!(marks(&next), [2]);
}

#[test]
fn memory_of_another_shape_is_not_believed() {
    let shelf: Arc<Shelf> = Arc::default();
    let first = start(&shelf, N_CONNECTIONS, false);
    first.begin();
    commit(&first, 1);
    drop(first);
    let other = start(&shelf, N_CONNECTIONS * 2, false);
    other.begin();
    assert!(marks(&other).is_empty());
    commit(&other, 2);
    drop(other);
    // It is held instead of the first.
    let third = start(&shelf, N_CONNECTIONS * 2, false);
    third.begin();
    assert_eq!(marks(&third), [2]);
    drop(third);
    // A file that is none of ours.
    let file = std::fs::File::open("/dev/null").unwrap();
    shelf.keep("memory/connections", "", &[std::os::fd::AsFd::as_fd(&file)]).unwrap();
    let fourth = start(&shelf, N_CONNECTIONS, false);
    fourth.begin();
    commit(&fourth, 3);
    assert_eq!(marks(&fourth), [3]);
}
