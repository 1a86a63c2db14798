//! AF_XDP ports on veth pairs into namespaces. Needs root; says so when skipped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/probe.rs"]
mod probe;

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::*;
use dataplane::{
    AfXdpBackend, AfXdpConfig, AttachError, Dataplane, DataplaneConfig, Device, MemoryPort, PortCounts,
    PortReport, PortSpec, Steering, TunnelSteering, WorkerConfig,
};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
};
use netns::{Pod, root, run};

/// Each test with both kinds of sockets.
macro_rules! with_both {
    ($($name:ident),* $(,)?) => {
        mod own {
            $(#[test] fn $name() { super::$name(super::AfXdpBackend::Own); })*
        }
        mod xsk_rs {
            $(#[test] fn $name() { super::$name(super::AfXdpBackend::XskRs); })*
        }
    };
}

with_both!(
    pods_talk_through_the_switch_at_every_size,
    streams_pass_with_checksums_left_to_the_device,
    every_queue_of_an_interface_is_served,
    steering_by_tunnel_leaves_the_host_its_traffic,
    attaching_and_detaching_again_and_again_leaves_nothing,
    a_killed_process_leaves_nothing_attached,
    a_deleted_interface_is_a_port_that_is_down,
    an_idle_switch_over_a_deleted_interface_stays_idle,
    an_interface_set_down_and_up_carries_again,
    what_does_not_fit_is_named_and_a_changed_mtu_is_followed,
    larger_frames_pass_and_too_large_ones_are_refused_at_attaching,
    errors_of_attaching_name_interface_and_remedy,
);

/// Set in the child of the test that kills a process: interface to attach.
const CHILD_INTERFACE: &str = "DATAPLANE_TEST_CHILD_INTERFACE";

fn spec(number: u32, interface: &str, steering: Steering) -> PortSpec {
    PortSpec {
        port: port(number).into(),
        name: interface.to_owned(),
        device: Device::AfXdp { interface: interface.to_owned(), steering },
    }
}

fn attach(dataplane: &Dataplane, number: u32, pod: &Pod) -> PortReport {
    dataplane.attach(spec(number, &pod.host_if, Steering::All)).unwrap()
}

fn start(backend: AfXdpBackend) -> Dataplane {
    let af_xdp = AfXdpConfig { backend, ..AfXdpConfig::default() };
    Dataplane::start(DataplaneConfig { af_xdp, ..DataplaneConfig::default() }).unwrap()
}

/// Two pods behind one switch that forwards between them.
fn two_pods(backend: AfXdpBackend) -> (Dataplane, Pod, Pod) {
    let (a, b) = (Pod::new(1), Pod::new(2));
    let dataplane = start(backend);
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    (dataplane, a, b)
}

fn pods_talk_through_the_switch_at_every_size(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    for len in [0, 56, 1000, 1472] {
        assert!(a.reaches(&b, 20, len), "{len} bytes from a to b");
        assert!(b.reaches(&a, 20, len), "{len} bytes from b to a");
    }
    for (number, status) in (1..).zip(check_conservation(&dataplane)) {
        assert_eq!(status.mode, "native-copy");
        assert!(status.up);
        let counters = status.counters;
        assert!(counters.rx_packets >= 160, "port {number}: {counters:?}");
        assert_eq!((counters.rx_dropped, counters.rx_kernel_dropped), (0, 0), "port {number}");
        assert_eq!(counters.tx_dropped_total(), 0, "port {number}");
    }
}

fn streams_pass_with_checksums_left_to_the_device(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    for pod in [&a, &b] {
        // Proof that the case under test is there: nobody computes the checksums.
        assert!(pod.exec("ethtool -k eth0").contains("tx-checksumming: on"));
    }
    assert!(a.probe(&format!("stream {} 1000000", b.address)));
    assert!(b.probe(&format!("stream {} 1000000", a.address)));
    check_conservation(&dataplane);
}

fn every_queue_of_an_interface_is_served(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (a, b) = (Pod::with_queues(1, 4), Pod::new(2));
    let dataplane = start(backend);
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    assert!(a.reaches(&b, 3, 56));
    let before = status(&dataplane.ports(), 1).counters.rx_packets;
    // Which queue a flow takes depends on core and flow; many of both reach them all.
    // What came to a queue without a socket would go to the host, and be missing here.
    let n_cores = thread::available_parallelism().unwrap().get();
    for core in 0..n_cores {
        assert!(a.probe_on(core, &format!("flows {} 200", b.address)));
    }
    let n_sent = 200 * n_cores as u64;
    eventually("all datagrams are through", || {
        status(&dataplane.ports(), 1).counters.rx_packets >= before + n_sent
    });
    check_conservation(&dataplane);
}

fn steering_by_tunnel_leaves_the_host_its_traffic(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    // The switch's own namespace is this one: the uplink has an address of the host.
    let peer = Pod::new(9);
    let local = Ipv4Addr::new(10, 77, 0, 200);
    run(&format!("ip addr add {local}/32 dev {}", peer.host_if));
    run(&format!("ip route add {}/32 dev {}", peer.address, peer.host_if));
    let dataplane = start(backend);
    let steering =
        Steering::Tunnel(TunnelSteering { local: local.into(), udp_ports: vec![6081, 4789], gre: false });
    dataplane.attach(spec(1, &peer.host_if, steering)).unwrap();
    let memory = MemoryPort::new(64);
    attach_memory(&dataplane, 2, &memory);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));

    let server = UdpSocket::bind((local, probe::ECHO_PORT)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let echo = thread::spawn(move || {
        let mut buf = [0; 2048];
        for _ in 0..20 {
            let (len, peer) = server.recv_from(&mut buf).unwrap();
            server.send_to(&buf[..len], peer).unwrap();
        }
    });
    assert!(peer.probe(&format!("ask {local} 20 1400")), "the host still answers");
    echo.join().unwrap();
    assert_eq!(status(&dataplane.ports(), 1).counters.rx_packets, 0, "and the switch sees none of it");

    assert!(peer.probe(&format!("send {local} 6081 53 4789 6082")));
    for port in [6081, 4789] {
        let frame = memory.receive_within(PATIENCE).unwrap();
        assert!(frame.ends_with(format!("to {port}").as_bytes()), "{frame:?}");
    }
    assert_eq!(memory.receive_within(Duration::from_millis(200)), None);
    let ports = check_conservation(&dataplane);
    assert_eq!(status(&ports, 1).counters.rx_packets, 2);
}

fn attaching_and_detaching_again_and_again_leaves_nothing(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    for round in 0..20 {
        dataplane.detach(port(1)).unwrap();
        assert!(!a.has_xdp(), "round {round}: a program stayed");
        assert_eq!(attach(&dataplane, 1, &a).mode, "native-copy", "round {round}");
        assert!(a.has_xdp());
        if round % 5 == 0 {
            assert!(a.reaches(&b, 3, 56), "round {round}");
        }
    }
    assert!(a.reaches(&b, 3, 56));
    check_conservation(&dataplane);
    drop(dataplane);
    assert!(!a.has_xdp() && !b.has_xdp());
}

/// Not a test by itself: what runs inside the pods.
#[test]
fn probe_process() {
    probe::main();
}

/// Not a test by itself: the process that the next test kills.
#[test]
fn child_that_holds_an_interface() {
    let Ok(interface) = std::env::var(CHILD_INTERFACE) else { return };
    let dataplane = start(AfXdpBackend::default());
    dataplane.attach(spec(1, &interface, Steering::All)).unwrap();
    println!("attached");
    thread::sleep(Duration::from_secs(60));
}

fn a_killed_process_leaves_nothing_attached(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let pod = Pod::new(1);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_an_interface", "--nocapture"])
        .env(CHILD_INTERFACE, &pod.host_if)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the child has attached", || pod.has_xdp());
    let busy = start(backend).attach(spec(1, &pod.host_if, Steering::All)).unwrap_err().to_string();
    assert!(busy.contains(&pod.host_if), "{busy}");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the kernel has detached the program", || !pod.has_xdp());
    // And the queue is free again.
    let dataplane = start(backend);
    assert_eq!(attach(&dataplane, 1, &pod).mode, "native-copy");
}

fn a_deleted_interface_is_a_port_that_is_down(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    let memory = MemoryPort::new(64);
    attach_memory(&dataplane, 3, &memory);
    publish(&dataplane, snapshot(2, &[1, 2, 3], vec![rule(1, &[2]), rule(2, &[1]), rule(3, &[2])]));
    assert!(a.reaches(&b, 3, 56));
    run(&format!("ip link del {}", b.host_if));

    eventually("the port is down", || !status(&dataplane.ports(), 2).up);
    let frame = udp(&Host::v4(1), &Host::v4(2), &[0; 64]);
    eventually("what goes there is dropped under that name", || {
        memory.inject(&frame).unwrap();
        thread::sleep(Duration::from_millis(5));
        dataplane
            .drops()
            .iter()
            .any(|row| row.in_port == port(3) && row.reason == DropReason::PortDown && row.n_copies > 3)
    });
    // The worker still sleeps: a dead socket must not keep it awake.
    thread::sleep(Duration::from_millis(50));
    let before = dataplane.workers()[0];
    thread::sleep(Duration::from_millis(300));
    let after = dataplane.workers()[0];
    assert!(after.n_sleeps - before.n_sleeps < 20, "{before:?} {after:?}");
    assert!(after.n_polls - before.n_polls < 20_000, "{before:?} {after:?}");

    check_conservation(&dataplane);
    dataplane.detach(port(2)).unwrap();
    // The number can be used again, and the other port is unharmed.
    let c = Pod::new(3);
    attach(&dataplane, 2, &c);
    assert!(a.reaches(&c, 3, 56));
}

fn an_idle_switch_over_a_deleted_interface_stays_idle(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    for pod in [&a, &b] {
        run(&format!("ip link del {}", pod.host_if));
    }
    thread::sleep(Duration::from_millis(100));
    let before = dataplane.workers()[0];
    thread::sleep(Duration::from_millis(500));
    let after = dataplane.workers()[0];
    assert!(after.n_polls - before.n_polls < 20_000, "{before:?} {after:?}");
}

fn an_interface_set_down_and_up_carries_again(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    assert!(a.reaches(&b, 3, 56));
    run(&format!("ip link set {} down", b.host_if));
    eventually("the port is down", || !status(&dataplane.ports(), 2).up);
    assert!(a.probe(&format!("flows {} 300", b.address)));
    run(&format!("ip link set {} up", b.host_if));
    eventually("the port is up", || status(&dataplane.ports(), 2).up);
    eventually("packets pass again", || a.reaches(&b, 1, 56));
    check_conservation(&dataplane);
}

fn what_does_not_fit_is_named_and_a_changed_mtu_is_followed(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(backend);
    run(&format!("ip link set {} mtu 1000", b.host_if));
    b.exec("ip link set eth0 mtu 1000");
    assert_eq!(status(&dataplane.ports(), 2).mtu, 1000);
    assert!(a.reaches(&b, 3, 972));
    assert!(a.misses(&b, 973));
    let ports = check_conservation(&dataplane);
    let too_big = dataplane.drops().into_iter().find(|row| row.reason == DropReason::TooBig).unwrap();
    assert_eq!((too_big.in_port, too_big.n_copies, too_big.n_bytes), (port(1), 1, 973 + 28 + 14));
    assert_eq!(status(&ports, 2).counters.tx_dropped, [0, 0, 1, 0, 0]);
}

fn larger_frames_pass_and_too_large_ones_are_refused_at_attaching(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let (a, b) = (Pod::new(1), Pod::new(2));
    for pod in [&a, &b] {
        run(&format!("ip link set {} mtu 3400", pod.host_if));
        pod.exec("ip link set eth0 mtu 3400");
    }
    let dataplane = start(backend);
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    for len in [1700, 1800, 3372] {
        assert!(a.reaches(&b, 5, len), "{len} bytes");
    }
    check_conservation(&dataplane);

    let c = Pod::new(3);
    run(&format!("ip link set {} mtu 20000", c.host_if));
    let error = dataplane.attach(spec(3, &c.host_if, Steering::All)).unwrap_err();
    assert!(matches!(error, AttachError::MtuTooBig { mtu: 20000, .. }), "{error}");
    assert!(!c.has_xdp());
}

/// Frames that do not fit one descriptor come and go in several.
#[test]
fn jumbo_frames_pass_in_pieces_and_what_cannot_take_them_says_so() {
    let Some(_turn) = root() else { return };
    let (a, b) = (Pod::new(1), Pod::new(2));
    for pod in [&a, &b] {
        run(&format!("ip link set {} mtu 9000", pod.host_if));
        pod.exec("ip link set eth0 mtu 9000");
    }
    let error = start(AfXdpBackend::XskRs).attach(spec(1, &a.host_if, Steering::All)).unwrap_err();
    assert!(matches!(error, AttachError::MtuTooBig { mtu: 9000, .. }), "{error}");
    let dataplane = start(AfXdpBackend::Own);
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    // One descriptor, two, three; and around where the next one begins.
    for len in [56, 3797, 3798, 3799, 7000, 7637, 7639, 8972] {
        assert!(a.reaches(&b, 10, len) && b.reaches(&a, 10, len), "{len} bytes");
    }
    assert!(a.probe(&format!("stream {} 20000000", b.address)));
    // A port of ordinary frames beside them.
    let c = Pod::new(3);
    attach(&dataplane, 3, &c);
    publish(&dataplane, snapshot(2, &[1, 2, 3], vec![rule(1, &[3]), rule(3, &[1])]));
    assert!(a.reaches(&c, 10, 1472));
    assert!(a.misses(&c, 1473 + 8), "what does not fit is not cut");
    let ports = check_conservation(&dataplane);
    assert_eq!(status(&ports, 3).counters.tx_dropped[2], 1, "too big");
    assert_eq!(status(&ports, 1).counters.rx_kernel_dropped, 0);
}

/// What comes in by one port and leaves by another stays in its frame, also when the worker of
/// one is not that of the other; and every frame comes home.
#[test]
fn frames_circulate_among_ports_and_workers_and_none_is_lost() {
    let Some(_turn) = root() else { return };
    let workers = vec![WorkerConfig::default(); 2];
    let dataplane = Dataplane::start(DataplaneConfig { workers, ..DataplaneConfig::default() }).unwrap();
    let pods: Vec<Pod> = (1..=3).map(Pod::new).collect();
    for (number, pod) in (1..).zip(&pods) {
        attach(&dataplane, number, pod);
    }
    // Each datagram is copied to two others, so that frames of several kinds leave by a port.
    let rules = vec![rule(1, &[2, 3]), rule(2, &[1, 3]), rule(3, &[1, 2])];
    publish(&dataplane, snapshot(1, &[1, 2, 3], rules));
    // Many more than there are frames.
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 2), (2, 0)] {
            assert!(pods[from].reaches(&pods[to], 2000, 100));
        }
    }
    let ports = check_conservation(&dataplane);
    let sum = |of: fn(&PortCounts) -> u64| ports.iter().map(|status| of(&status.counters)).sum::<u64>();
    assert_eq!(sum(|counts| counts.rx_kernel_dropped), 0);
    assert_eq!(sum(|counts| counts.tx_packets), 2 * sum(|counts| counts.rx_packets));
}

fn errors_of_attaching_name_interface_and_remedy(backend: AfXdpBackend) {
    let Some(_turn) = root() else { return };
    let dataplane = start(backend);
    let error = dataplane.attach(spec(1, "no-such-if", Steering::All)).unwrap_err().to_string();
    assert!(error.contains("no-such-if") && error.contains("No such device"), "{error}");

    let pod = Pod::new(1);
    attach(&dataplane, 1, &pod);
    let error = start(backend).attach(spec(1, &pod.host_if, Steering::All)).unwrap_err().to_string();
    for part in [pod.host_if.as_str(), "busy", "stop the process that holds it"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    assert!(pod.has_xdp(), "the port that was there is unharmed");
}
