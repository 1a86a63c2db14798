//! Ports that take packets uncut: TAP devices, and veth pairs by packet sockets. Needs root;
//! says so when skipped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/probe.rs"]
mod probe;

use std::{collections::BTreeSet, net::UdpSocket, thread, time::Duration};

use common::*;
use dataplane::{
    Dataplane, DataplaneConfig, Device, MemoryPort, PortReport, PortSpec, Steering, WorkerConfig,
};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
};
use netns::{Pod, root, run, try_run};

/// How a pod is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Socket,
    Tap,
    AfXdp,
}

fn device(by: By, interface: &str) -> Device {
    let interface = interface.to_owned();
    match by {
        By::Socket => Device::Packet { interface, steering: Steering::All },
        By::Tap => Device::Tap { interface },
        By::AfXdp => Device::AfXdp { interface, steering: Steering::All },
    }
}

fn attach(dataplane: &Dataplane, number: u32, by: By, interface: &str) -> PortReport {
    let device = device(by, interface);
    dataplane.attach(PortSpec { port: port(number).into(), name: interface.to_owned(), device }).unwrap()
}

fn start() -> Dataplane {
    Dataplane::start(DataplaneConfig::default()).unwrap()
}

fn pod(dataplane: &Dataplane, number: u8, by: By) -> Pod {
    if by == By::Tap {
        return Pod::around(number, |name| {
            attach(dataplane, number.into(), by, name);
        });
    }
    let pod = Pod::new(number);
    attach(dataplane, number.into(), by, &pod.host_if);
    pod
}

/// Two pods behind one switch that forwards between them. No checksum is left out silently:
/// what a port is told about each frame is all there is.
fn two_pods(a: By, b: By) -> (Dataplane, Pod, Pod) {
    let dataplane = start();
    let (first, second) = (pod(&dataplane, 1, a), pod(&dataplane, 2, b));
    let is_silent = |by: By| by == By::AfXdp;
    let rules = vec![rule(1, &[2]), rule(2, &[1])];
    publish(&dataplane, with_silent(snapshot(1, &[1, 2], rules), &[(1, is_silent(a)), (2, is_silent(b))]));
    (dataplane, first, second)
}

fn wrong_checksums(pod: &Pod) -> u64 {
    pod.counter("Tcp", "InCsumErrors")
        + pod.counter("Udp", "InCsumErrors")
        + pod.counter("Icmp", "InCsumErrors")
}

/// Bytes of the packets that have come in by a port, on average.
fn mean_len(dataplane: &Dataplane, number: u32) -> u64 {
    let counters = status(&dataplane.ports(), number).counters;
    counters.rx_bytes / counters.rx_packets.max(1)
}

#[test]
fn streams_cross_uncut_between_ports_that_take_them() {
    let Some(_turn) = root() else { return };
    for (a, b) in [(By::Socket, By::Socket), (By::Tap, By::Tap), (By::Tap, By::Socket)] {
        let (dataplane, first, second) = two_pods(a, b);
        assert!(first.probe(&format!("stream {} 20000000", second.address)), "{a:?} to {b:?}");
        assert!(second.probe(&format!("stream {} 20000000", first.address)), "{b:?} to {a:?}");
        // Twenty segments and more at a time, acknowledgements included.
        for number in [1, 2] {
            let mean = mean_len(&dataplane, number);
            assert!(mean > 8000, "{a:?} to {b:?}: {mean} bytes on average at port {number}");
        }
        assert_eq!((wrong_checksums(&first), wrong_checksums(&second)), (0, 0));
        check_conservation(&dataplane);
        assert!(dataplane.drops().is_empty(), "{:?}", dataplane.drops());
    }
}

#[test]
fn large_packets_are_cut_for_ports_that_take_frames() {
    let Some(_turn) = root() else { return };
    for by in [By::Socket, By::Tap] {
        let (dataplane, first, second) = two_pods(by, By::AfXdp);
        assert!(first.probe(&format!("stream {} 4000000", second.address)), "{by:?}");
        assert!(second.probe(&format!("stream {} 4000000", first.address)), "{by:?}");
        assert!(mean_len(&dataplane, 1) > 1600, "large ones came: {}", mean_len(&dataplane, 1));
        let sent = status(&dataplane.ports(), 2).counters;
        assert!(sent.tx_bytes / sent.tx_packets <= 1514, "and left as frames: {sent:?}");
        assert_eq!((wrong_checksums(&first), wrong_checksums(&second)), (0, 0));
        check_conservation(&dataplane);
    }
}

/// A TAP device has a queue for each worker; the kernel spreads flows over them, and each comes
/// back on the queue that it went by.
#[test]
fn a_tap_device_has_a_queue_for_each_worker() {
    let Some(_turn) = root() else { return };
    let workers = vec![WorkerConfig::default(); 2];
    let dataplane = Dataplane::start(DataplaneConfig { workers, ..DataplaneConfig::default() }).unwrap();
    let (first, second) = (pod(&dataplane, 1, By::Tap), pod(&dataplane, 2, By::Tap));
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    let queues = dataplane.queues();
    let workers: BTreeSet<_> = queues.iter().map(|queue| (queue.id.port, queue.worker)).collect();
    assert_eq!((queues.len(), workers.len()), (4, 4), "{queues:?}");
    // Each `ask` is a flow of its own, to and fro.
    for _ in 0..16 {
        assert!(first.reaches(&second, 20, 1000));
    }
    assert!(first.probe(&format!("stream {} 8000000", second.address)));
    for queue in dataplane.queues() {
        assert!(queue.n_packets > 20, "flows are not spread: {queue:?}");
    }
    assert_eq!((wrong_checksums(&first), wrong_checksums(&second)), (0, 0));
    for status in check_conservation(&dataplane) {
        assert_eq!((status.counters.rx_dropped, status.counters.tx_dropped_total()), (0, 0), "{status:?}");
    }
}

/// One that was made with one queue is taken as it is.
#[test]
fn a_tap_device_of_one_queue_stays_one() {
    let Some(_turn) = root() else { return };
    for (queues, n_queues) in [("", 1), ("multi_queue", 2)] {
        let workers = vec![WorkerConfig::default(); 2];
        let dataplane = Dataplane::start(DataplaneConfig { workers, ..DataplaneConfig::default() }).unwrap();
        let name = format!("fdt{}", std::process::id());
        run(&format!("ip tuntap add dev {name} mode tap vnet_hdr {queues}"));
        let spec = |n: u32| PortSpec {
            port: port(n).into(),
            name: name.clone(),
            device: Device::Tap { interface: name.clone() },
        };
        let attached = dataplane.attach(spec(1)).map(|_| dataplane.queues().len());
        drop(dataplane);
        // With one worker, one of several is taken.
        let again = start().attach(spec(1)).map(drop);
        run(&format!("ip tuntap del dev {name} mode tap {queues}"));
        assert_eq!(attached.unwrap(), n_queues, "{queues}");
        again.unwrap();
    }
}

#[test]
fn datagrams_pass_at_every_size() {
    let Some(_turn) = root() else { return };
    for (a, b) in [(By::Socket, By::Tap), (By::Socket, By::AfXdp), (By::Tap, By::Socket)] {
        let (dataplane, first, second) = two_pods(a, b);
        // The largest comes in fragments.
        for len in [0, 56, 1000, 1472, 4000] {
            assert!(first.reaches(&second, 20, len), "{a:?} to {b:?}, {len} bytes");
            assert!(second.reaches(&first, 20, len), "{b:?} to {a:?}, {len} bytes");
        }
        assert_eq!((wrong_checksums(&first), wrong_checksums(&second)), (0, 0));
        for (number, status) in (1..).zip(check_conservation(&dataplane)) {
            let counters = status.counters;
            assert_eq!((counters.rx_dropped, counters.rx_kernel_dropped), (0, 0), "port {number}");
            assert_eq!(counters.tx_dropped_total(), 0, "port {number}");
        }
    }
}

#[test]
fn tags_stay_on_frames_though_the_kernel_keeps_them_apart() {
    let Some(_turn) = root() else { return };
    let (x, y) = (format!("fx{}", std::process::id()), format!("fy{}", std::process::id()));
    run(&format!("ip link add {x} type veth peer name {y}"));
    let dataplane = start();
    for (number, end) in [(2, &x), (3, &y)] {
        run(&format!("sysctl -qw net.ipv6.conf.{end}.disable_ipv6=1"));
        run(&format!("ip link set {end} up"));
        attach(&dataplane, number, By::Socket, end);
    }
    let (source, sink) = (MemoryPort::new(16), MemoryPort::new(16));
    attach_memory(&dataplane, 1, &source);
    attach_memory(&dataplane, 4, &sink);
    let rules = vec![rule(1, &[2]), rule(3, &[4])];
    publish(&dataplane, with_silent(snapshot(1, &[1, 2, 3, 4], rules), &[(1, false), (3, false)]));
    let plain = udp(&Host::v4(1), &Host::v4(2), &[7; 300]);
    let tagged = |tags: &[u8]| [&plain[..12], tags, &plain[12..]].concat();
    let frames = [
        plain.clone(),
        tagged(&[0x81, 0, 0x60, 5]),
        tagged(&[0x88, 0xa8, 0, 9]),
        tagged(&[0x88, 0xa8, 0x20, 9, 0x81, 0, 0, 7]),
        tagged(&[0x81, 0, 0, 0]),
    ];
    for frame in &frames {
        source.inject(frame).unwrap();
        let back = sink.receive_within(PATIENCE).unwrap();
        assert!(back == *frame, "{:x?} became {:x?}", &frame[..24], &back[..24]);
    }
    check_conservation(&dataplane);
    drop(dataplane);
    run(&format!("ip link del {x}"));
}

#[test]
fn the_host_hears_nothing_of_a_workload() {
    let Some(_turn) = root() else { return };
    let a = Pod::new(1);
    // An address of the host that the pod can reach, while nobody keeps it from that.
    run(&format!("ip addr add 10.77.0.200/32 dev {}", a.host_if));
    run(&format!("ip route add {}/32 dev {}", a.address, a.host_if));
    let server = UdpSocket::bind(("10.77.0.200", probe::ECHO_PORT)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let heard = || server.recv_from(&mut [0; 64]).is_ok();
    let send = || assert!(a.probe(&format!("send 10.77.0.200 {}", probe::ECHO_PORT)));
    send();
    assert!(heard(), "without a switch");
    let filters = || run(&format!("tc filter show dev {} ingress", a.host_if));
    for _ in 0..2 {
        let dataplane = start();
        attach(&dataplane, 1, By::Socket, &a.host_if);
        assert!(filters().contains("ferroflow_gate"), "{}", filters());
        send();
        assert!(!heard(), "past the switch");
        assert!(status(&dataplane.ports(), 1).counters.rx_packets > 0);
        // Of a process that ends without a word the filter is left, and lets everything pass.
        drop(dataplane);
        assert!(filters().contains("ferroflow_gate"), "{}", filters());
        eventually("it is the host's again", || {
            send();
            heard()
        });
    }
    let dataplane = start();
    attach(&dataplane, 1, By::Socket, &a.host_if);
    dataplane.detach(port(1)).unwrap();
    assert_eq!(filters(), "");
    send();
    assert!(heard(), "it is the host's again");
    // Somebody else's filter is in the place of ours: a link does the same.
    let rule = "u32 match u32 0 0 classid 1:1";
    run(&format!("tc filter add dev {} ingress protocol ip priority 1 {rule}", a.host_if));
    attach(&dataplane, 1, By::Socket, &a.host_if);
    send();
    assert!(!heard(), "past the switch");
    dataplane.detach(port(1)).unwrap();
    assert!(filters().contains("u32"), "{}", filters());
    send();
    assert!(heard(), "it is the host's again");
}

#[test]
fn a_deleted_interface_is_a_port_that_is_gone() {
    let Some(_turn) = root() else { return };
    for by in [By::Socket, By::Tap] {
        let (dataplane, a, b) = two_pods(By::Socket, by);
        let memory = MemoryPort::new(64);
        attach_memory(&dataplane, 3, &memory);
        let rules = vec![rule(1, &[2]), rule(2, &[1]), rule(3, &[2])];
        let silent = [(1, false), (2, false)];
        publish(&dataplane, with_silent(snapshot(2, &[1, 2, 3], rules), &silent));
        assert!(a.reaches(&b, 3, 56));
        b.exec("ip link del eth0");
        eventually("the port is gone", || status(&dataplane.ports(), 2).gone);
        let frame = udp(&Host::v4(1), &Host::v4(2), &[0; 64]);
        eventually("what goes there is dropped under that name", || {
            memory.inject(&frame).unwrap();
            thread::sleep(Duration::from_millis(5));
            let is_named = |row: &flowtable::stats::DropCount| {
                row.in_port == port(3) && row.reason == DropReason::PortDown && row.n_copies > 3
            };
            dataplane.drops().iter().any(is_named)
        });
        // A dead file does not keep the worker awake.
        thread::sleep(Duration::from_millis(50));
        let before = dataplane.workers()[0];
        thread::sleep(Duration::from_millis(300));
        let after = dataplane.workers()[0];
        assert!(after.n_polls - before.n_polls < 20_000, "{by:?}: {before:?} {after:?}");
        check_conservation(&dataplane);
        dataplane.detach(port(2)).unwrap();
    }
}

#[test]
fn an_interface_set_down_and_up_carries_again() {
    let Some(_turn) = root() else { return };
    for by in [By::Socket, By::Tap] {
        let (dataplane, a, b) = two_pods(By::Socket, by);
        assert!(a.reaches(&b, 3, 56));
        b.exec("ip link set eth0 down");
        assert!(a.probe(&format!("flows {} 300", b.address)));
        b.exec("ip link set eth0 up");
        eventually("packets pass again", || a.reaches(&b, 1, 56));
        let ports = check_conservation(&dataplane);
        assert!(!status(&ports, 2).gone, "{by:?}");
    }
}

#[test]
fn what_does_not_fit_is_named_and_a_changed_mtu_is_followed() {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(By::Tap, By::Socket);
    run(&format!("ip link set {} mtu 1000", b.host_if));
    b.exec("ip link set eth0 mtu 1000");
    assert_eq!(status(&dataplane.ports(), 2).mtu, 1000);
    assert!(a.reaches(&b, 3, 972));
    assert!(a.misses(&b, 973));
    let ports = check_conservation(&dataplane);
    let too_big = dataplane.drops().into_iter().find(|row| row.reason == DropReason::TooBig).unwrap();
    assert_eq!((too_big.in_port, too_big.n_copies, too_big.n_bytes), (port(1), 1, 973 + 28 + 14));
    assert_eq!(status(&ports, 2).counters.tx_dropped, [0, 0, 1, 0, 0]);
    // Larger than what an ordinary buffer holds.
    for pod in [&a, &b] {
        pod.exec("ip link set eth0 mtu 9000");
    }
    run(&format!("ip link set {} mtu 9000", b.host_if));
    dataplane.detach(port(1)).unwrap();
    eventually("the new MTU holds", || status(&dataplane.ports(), 2).mtu == 9000);
    let c = Pod::around(3, |name| {
        run(&format!("ip tuntap add {name} mode tap"));
        run(&format!("ip link set {name} mtu 9000"));
        attach(&dataplane, 3, By::Tap, name);
    });
    let rules = vec![rule(3, &[2]), rule(2, &[3])];
    publish(&dataplane, with_silent(snapshot(2, &[2, 3], rules), &[(2, false), (3, false)]));
    assert!(c.reaches(&b, 10, 8972));
    assert!(b.probe(&format!("stream {} 4000000", c.address)));
}

#[test]
fn attaching_again_and_again_leaves_nothing() {
    let Some(_turn) = root() else { return };
    let (dataplane, a, b) = two_pods(By::Socket, By::Socket);
    for round in 0..20 {
        dataplane.detach(port(1)).unwrap();
        assert_eq!(attach(&dataplane, 1, By::Socket, &a.host_if).mode, "packet-vnet");
        if round % 5 == 0 {
            assert!(a.reaches(&b, 3, 56), "round {round}");
        }
    }
    check_conservation(&dataplane);
    // A TAP device goes with its port.
    let name = format!("ft{}", std::process::id());
    assert_eq!(attach(&dataplane, 3, By::Tap, &name).mode, "tap-vnet");
    assert!(try_run(&format!("ip link show {name}")).status.success());
    let spec = PortSpec { port: port(4).into(), name: name.clone(), device: device(By::Tap, &name) };
    let error = start().attach(spec).unwrap_err().to_string();
    assert!(error.contains("another process holds"), "{error}");
    dataplane.detach(port(3)).unwrap();
    assert!(!try_run(&format!("ip link show {name}")).status.success());
    let spec = PortSpec { port: port(4).into(), name: String::new(), device: device(By::Tap, &a.host_if) };
    let error = dataplane.attach(spec).unwrap_err().to_string();
    assert!(error.contains("is no TAP device"), "{error}");
}

/// Not a test by itself: what runs inside the pods.
#[test]
fn probe_process() {
    probe::main();
}
