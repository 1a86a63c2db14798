//! AF_XDP ports that one dataplane leaves to the next, through a keeper. Needs root; says so when skipped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/probe.rs"]
mod probe;
#[path = "common/shelf.rs"]
mod shelf;

use std::{
    fs::File,
    io::ErrorKind,
    net::Ipv4Addr,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use common::*;
use dataplane::{
    AfXdpBackend, AfXdpConfig, AttachError, Beginning, Dataplane, DataplaneConfig, Device, Keeper,
    MemoryPort, PortSpec, Steering, TunnelSteering, WorkerConfig,
};
use netns::{Pod, root, run};
use shelf::Shelf;

/// Not a test by itself: what runs inside the pods.
#[test]
fn probe_process() {
    probe::main();
}

fn spec(number: u32, interface: &str, steering: Steering) -> PortSpec {
    PortSpec {
        port: port(number).into(),
        name: interface.to_owned(),
        device: Device::AfXdp { interface: interface.to_owned(), steering },
    }
}

fn start(shelf: &Arc<Shelf>, is_successor: bool) -> Dataplane {
    start_with(shelf, is_successor, (AfXdpConfig::default(), 1))
}

fn start_with(
    shelf: &Arc<Shelf>,
    is_successor: bool,
    (af_xdp, n_workers): (AfXdpConfig, usize),
) -> Dataplane {
    let keeper: Arc<dyn Keeper> = Arc::clone(shelf) as _;
    let beginning = Beginning { keeper: Some(keeper), is_successor, holds_back: true };
    let workers = vec![WorkerConfig::default(); n_workers];
    let config = DataplaneConfig { n_connections: 100, af_xdp, workers, ..DataplaneConfig::default() };
    Dataplane::start_with(config, beginning).unwrap()
}

/// Attaches both pods, one to the other.
fn furnish(dataplane: &Dataplane, pods: [&Pod; 2]) {
    for (number, pod) in (1..).zip(pods) {
        dataplane.attach(spec(number, &pod.host_if, Steering::All)).unwrap();
    }
    publish(dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
}

fn first(shelf: &Arc<Shelf>, pods: [&Pod; 2]) -> Dataplane {
    let dataplane = start(shelf, false);
    furnish(&dataplane, pods);
    dataplane.begin();
    assert!(pods[0].reaches(pods[1], 3, 56));
    dataplane
}

fn n_memories(shelf: &Shelf) -> usize {
    shelf.names().iter().filter(|name| name.starts_with("memory/frames/")).count()
}

fn received(dataplane: &Dataplane, number: u32) -> u64 {
    status(&dataplane.ports(), number).counters.rx_packets
}

#[test]
fn what_comes_while_nobody_runs_is_forwarded_by_the_next_process() {
    let Some(_turn) = root() else { return };
    let (shelf, a, b) = (Arc::default(), Pod::with_queues(1, 2), Pod::new(2));
    let mut dataplane = first(&shelf, [&a, &b]);
    for round in 0..10 {
        // Ended without a word.
        drop(dataplane);
        assert!(a.has_xdp() && b.has_xdp(), "round {round}");
        assert!(a.probe(&format!("flows {} 300", b.address)));
        dataplane = start(&shelf, false);
        furnish(&dataplane, [&a, &b]);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(received(&dataplane, 1), 0, "no packet is taken before it begins");
        dataplane.begin();
        eventually("all of it is taken", || received(&dataplane, 1) >= 300);
        assert!(a.reaches(&b, 100, 1000) && b.reaches(&a, 100, 0), "round {round}");
        for status in check_conservation(&dataplane) {
            let counters = status.counters;
            assert_eq!((counters.rx_dropped, counters.rx_kernel_dropped), (0, 0), "{counters:?}");
            assert_eq!((status.mode.as_str(), counters.tx_dropped_total()), ("native-copy", 0));
        }
    }
    // Many more than there are frames: none is lost.
    assert!(a.reaches(&b, 10_000, 100));
    assert_eq!(n_memories(&shelf), 1);
    for number in [1, 2] {
        dataplane.detach(port(number)).unwrap();
    }
    assert!(!a.has_xdp() && !b.has_xdp(), "interfaces are the host's");
    assert!(!shelf.names().iter().any(|name| name.starts_with("port/")), "{:?}", shelf.names());
}

#[test]
fn a_successor_takes_over_under_traffic_and_nothing_is_lost() {
    let Some(_turn) = root() else { return };
    for n_workers in [1, 2] {
        let (shelf, a, b) = (Arc::default(), Pod::new(1), Pod::new(2));
        let mut dataplane = first(&shelf, [&a, &b]);
        let mut clients: Vec<_> = [(&a, &b), (&b, &a)]
            .map(|(from, to)| from.spawn_probe(&format!("ask {} 20000 200", to.address)))
            .into();
        for _ in 0..8 {
            let next = start_with(&shelf, true, (AfXdpConfig::default(), n_workers));
            furnish(&next, [&a, &b]);
            next.want_turn();
            std::thread::sleep(Duration::from_millis(60));
            assert!(next.stood().is_none() && received(&next, 1) == 0);
            dataplane.pause();
            next.begin();
            // It ends, and undoes nothing.
            drop(std::mem::replace(&mut dataplane, next));
        }
        for client in &mut clients {
            assert!(client.wait().unwrap().success(), "each question was answered at the first time");
        }
        check_conservation(&dataplane);
        assert!(a.reaches(&b, 5000, 100) && a.probe(&format!("stream {} 1000000", b.address)));
        assert_eq!(n_memories(&shelf), 1);
    }
}

#[test]
fn who_goes_on_after_all_attaches_its_ports_anew() {
    let Some(_turn) = root() else { return };
    let (shelf, a, b) = (Arc::default(), Pod::new(1), Pod::new(2));
    let dataplane = first(&shelf, [&a, &b]);
    let next = start(&shelf, true);
    furnish(&next, [&a, &b]);
    dataplane.pause();
    next.begin();
    assert!(a.reaches(&b, 3, 56));
    // It has had frames of both, and is gone.
    drop(next);
    dataplane.go_on();
    for number in [1, 2] {
        assert!(status(&dataplane.ports(), number).gone, "whoever tends ports is told");
        dataplane.detach(port(number)).unwrap();
    }
    assert!(!a.has_xdp() && !b.has_xdp());
    for (number, pod) in [(1, &a), (2, &b)] {
        dataplane.attach(spec(number, &pod.host_if, Steering::All)).unwrap();
    }
    assert!(a.reaches(&b, 5000, 100));
    check_conservation(&dataplane);
}

#[test]
fn an_interface_that_was_made_anew_is_attached_anew() {
    let Some(_turn) = root() else { return };
    let (shelf, a, mut b) = (Arc::default(), Pod::new(1), Pod::new(2));
    drop(first(&shelf, [&a, &b]));
    // Of the same name, and of the same number.
    let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", b.host_if)).unwrap();
    run(&format!("ip link del {}", b.host_if));
    run(&format!(
        "ip link add {} index {} type veth peer name eth0 netns {}",
        b.host_if,
        index.trim(),
        b.netns
    ));
    run(&format!("ip link set {} up", b.host_if));
    b.exec(&format!("ip addr add {}/24 dev eth0", b.address));
    b.exec("ip link set eth0 up");
    b.restart_server();
    // It has another address.
    a.exec("ip neigh flush all");
    let dataplane = start(&shelf, false);
    furnish(&dataplane, [&a, &b]);
    dataplane.begin();
    assert!(a.reaches(&b, 5000, 100));
    check_conservation(&dataplane);
    drop(dataplane);
    // And one that does not come back is waited for.
    run(&format!("ip link del {}", b.host_if));
    let dataplane = start(&shelf, false);
    let error = dataplane.attach(spec(2, &b.host_if, Steering::All)).unwrap_err().to_string();
    assert!(error.contains("No such device"), "{error}");
    assert!(!shelf.names().contains(&format!("port/afxdp/{}", b.host_if)));
}

#[test]
fn sockets_that_were_set_up_in_another_way_are_not_gone_on_with() {
    let Some(_turn) = root() else { return };
    let (shelf, a, b) = (Arc::default(), Pod::new(1), Pod::new(2));
    drop(first(&shelf, [&a, &b]));
    let library = AfXdpConfig { backend: AfXdpBackend::XskRs, ..AfXdpConfig::default() };
    let polled = AfXdpConfig { busy_poll: Some(64), ..AfXdpConfig::default() };
    for af_xdp in [library, polled, AfXdpConfig::default()] {
        let dataplane = start_with(&shelf, false, (af_xdp, 1));
        furnish(&dataplane, [&a, &b]);
        dataplane.begin();
        assert!(a.reaches(&b, 100, 100), "{af_xdp:?}");
    }
    // Longer frames.
    run(&format!("ip link set {} mtu 3000", b.host_if));
    let dataplane = start(&shelf, false);
    furnish(&dataplane, [&a, &b]);
    dataplane.begin();
    assert!(a.reaches(&b, 100, 100));
    check_conservation(&dataplane);
    // A successor does not have them before the first has let go.
    run(&format!("ip link set {} mtu 1500", b.host_if));
    let next = start(&shelf, true);
    next.attach(spec(1, &a.host_if, Steering::All)).unwrap();
    let error = next.attach(spec(2, &b.host_if, Steering::All)).unwrap_err();
    assert!(matches!(error, AttachError::NotYet(_)), "{error}");
    assert!(a.reaches(&b, 100, 100), "the first goes on");
    publish(&next, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    dataplane.pause();
    next.begin();
    drop(dataplane);
    next.attach(spec(2, &b.host_if, Steering::All)).unwrap();
    assert!(a.reaches(&b, 5000, 100));
    check_conservation(&next);
}

#[test]
fn a_port_that_has_lost_too_many_frames_is_attached_anew() {
    let Some(_turn) = root() else { return };
    let (shelf, a, b) = (Arc::<Shelf>::default(), Pod::new(1), Pod::new(2));
    drop(first(&shelf, [&a, &b]));
    let name = shelf.names().into_iter().find(|name| name.starts_with("memory/frames/")).unwrap();
    let kept = shelf.take(&name).unwrap();
    let numbers: Vec<u64> = kept.note.split(' ').map(|word| word.parse().unwrap()).collect();
    let (memory, n_words) = (File::from(kept.files.into_iter().next().unwrap()), numbers[0] / 64);
    let n_halves = numbers[2] * 2;
    let note_at =
        |half: u64, word: u64| numbers[0] * numbers[1] + (8 + n_halves * 8 + half * n_words + word) * 8;
    let read = |at| {
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, at).unwrap();
        u64::from_ne_bytes(word)
    };
    // 640 frames that nobody has are noted as the kernel's.
    let is_free = |word: &u64| (0..n_halves).all(|half| read(note_at(half, *word)) == 0);
    for word in (0..n_words).filter(is_free).take(10).collect::<Vec<_>>() {
        match memory.write_all_at(&u64::MAX.to_ne_bytes(), note_at(0, word)) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                return eprintln!("skipped: the frames are in huge pages, which write(2) does not take");
            }
            written => written.unwrap(),
        }
    }
    let dataplane = start(&shelf, false);
    furnish(&dataplane, [&a, &b]);
    dataplane.begin();
    eventually("it is noticed", || status(&dataplane.ports(), 1).gone);
    dataplane.detach(port(1)).unwrap();
    dataplane.attach(spec(1, &a.host_if, Steering::All)).unwrap();
    assert!(a.reaches(&b, 5000, 100));
    assert!(!status(&dataplane.ports(), 2).gone);
    check_conservation(&dataplane);
}

#[test]
fn ports_come_and_go_and_the_keeper_has_what_there_is() {
    let Some(_turn) = root() else { return };
    let (shelf, a, b) = (Arc::default(), Pod::new(1), Pod::new(2));
    let dataplane = first(&shelf, [&a, &b]);
    for round in 0..10 {
        let before = Instant::now();
        dataplane.detach(port(1)).unwrap();
        assert!(before.elapsed() < Duration::from_secs(1), "the keeper has closed his at once");
        assert!(!a.has_xdp(), "round {round}");
        dataplane.attach(spec(1, &a.host_if, Steering::All)).unwrap();
    }
    assert!(a.reaches(&b, 5000, 100));
    assert_eq!(n_memories(&shelf), 1, "places are used again");
    // The uplink that is the switch's goes with the process.
    dataplane.detach(port(2)).unwrap();
    let device = Device::Wire { interface: b.host_if.clone() };
    dataplane.attach(PortSpec { port: port(2).into(), name: b.host_if.clone(), device }).unwrap();
    assert!(a.reaches(&b, 100, 100));
    drop(dataplane);
    assert!(a.has_xdp() && !b.has_xdp());
}

#[test]
fn a_shared_uplink_is_kept_and_the_host_has_its_traffic_all_the_while() {
    let Some(_turn) = root() else { return };
    let (shelf, peer, local) = (Arc::default(), Pod::new(9), Ipv4Addr::new(10, 77, 0, 200));
    run(&format!("ip addr add {local}/32 dev {}", peer.host_if));
    run(&format!("ip route add {}/32 dev {}", peer.address, peer.host_if));
    let tunnel = TunnelSteering { local: local.into(), udp_ports: vec![6081], gre: false };
    let (steering, memory) = (Steering::Tunnel(tunnel), MemoryPort::new(64));
    let attach = |dataplane: &Dataplane, steering: &Steering| {
        dataplane.attach(spec(1, &peer.host_if, steering.clone())).unwrap();
        publish(dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
    };
    let begin = |steering: &Steering, memory: &MemoryPort| {
        let dataplane = start(&shelf, false);
        attach_memory(&dataplane, 2, memory);
        attach(&dataplane, steering);
        dataplane.begin();
        dataplane
    };
    drop(begin(&steering, &memory));
    let host = std::net::UdpSocket::bind((local, probe::ECHO_PORT)).unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(peer.probe(&format!("send {local} 6081 {} 6081", probe::ECHO_PORT)));
    let mut text = [0; 64];
    let len = host.recv(&mut text).unwrap();
    assert_eq!(&text[..len], b"to 7000", "nobody runs, and the host has what is its own");
    let memory = MemoryPort::new(64);
    let dataplane = begin(&steering, &memory);
    for _ in 0..2 {
        assert!(memory.receive_within(PATIENCE).unwrap().ends_with(b"to 6081"));
    }
    drop(dataplane);
    // Another tunnel's program would take something else.
    let other = Steering::Tunnel(TunnelSteering { local: local.into(), udp_ports: vec![4789], gre: false });
    let memory = MemoryPort::new(64);
    let dataplane = begin(&other, &memory);
    assert!(peer.probe(&format!("send {local} 6081 4789")));
    assert!(memory.receive_within(PATIENCE).unwrap().ends_with(b"to 4789"));
    check_conservation(&dataplane);
}
