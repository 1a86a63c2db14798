//! AF_XDP ports on veth pairs into namespaces. Needs root; says so when skipped.
#![allow(missing_docs)]

#[path = "common/netns.rs"]
mod netns;

mod common;

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::*;
use dataplane::{
    AttachError, Dataplane, DataplaneConfig, Device, MemoryPort, PortReport, PortSpec, Steering,
};
use flowtable::{
    build::{Host, udp},
    drop::DropReason,
};
use netns::{Pod, root, run, try_run};

/// Set in the child of the test that kills a process: interface to attach.
const CHILD_INTERFACE: &str = "DATAPLANE_TEST_CHILD_INTERFACE";

fn spec(number: u32, interface: &str, steering: Steering) -> PortSpec {
    PortSpec {
        port: port(number),
        name: interface.to_owned(),
        device: Device::AfXdp { interface: interface.to_owned(), steering },
    }
}

fn attach(dataplane: &Dataplane, number: u32, pod: &Pod) -> PortReport {
    dataplane.attach(spec(number, &pod.host_if, Steering::All)).unwrap()
}

fn start() -> Dataplane {
    Dataplane::start(DataplaneConfig::default()).unwrap()
}

/// Two pods behind one switch that forwards between them.
fn two_pods() -> (Dataplane, Pod, Pod) {
    let (a, b) = (Pod::new(1), Pod::new(2));
    let dataplane = start();
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    (dataplane, a, b)
}

#[test]
fn pods_ping_through_the_switch_at_every_size() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    for len in [0, 56, 1000, 1472] {
        assert!(a.pings(&b, 20, len), "{len} bytes from a to b");
        assert!(b.pings(&a, 20, len), "{len} bytes from b to a");
    }
    for (number, status) in (1..).zip(check_conservation(&dataplane)) {
        assert_eq!(status.mode, "native-copy");
        assert!(status.up);
        let counters = status.counters;
        assert!(counters.rx_packets >= 320, "port {number}: {counters:?}");
        assert_eq!((counters.rx_dropped, counters.rx_kernel_dropped), (0, 0), "port {number}");
        assert_eq!(counters.tx_dropped_total(), 0, "port {number}");
    }
}

#[test]
fn tcp_and_udp_pass_with_checksums_left_to_the_device() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    // Proof that the case under test is there: the pods leave checksums to the device.
    assert!(a.exec("ethtool -k eth0").contains("tx-checksumming: on"));
    let text: String = (0..200_000).map(|n: u32| char::from(b'a' + (n % 23) as u8)).collect();
    for kind in ["SOCK_STREAM", "SOCK_DGRAM"] {
        // Each datagram is answered with its length; a stream is read to its end.
        let server = format!(
            "import socket\n\
             s = socket.socket(socket.AF_INET, socket.{kind})\n\
             s.bind(('0.0.0.0', 7000))\n\
             print('ready', flush=True)\n\
             if socket.{kind} == socket.SOCK_STREAM:\n\
             \x20   s.listen()\n\
             \x20   c, _ = s.accept()\n\
             \x20   data = b''\n\
             \x20   while chunk := c.recv(65536): data += chunk\n\
             \x20   c.sendall(data[::-1])\n\
             else:\n\
             \x20   data, peer = s.recvfrom(65536)\n\
             \x20   s.sendto(data[::-1], peer)\n"
        );
        let client = format!(
            "import socket, sys\n\
             text = sys.stdin.buffer.read()\n\
             c = socket.socket(socket.AF_INET, socket.{kind})\n\
             c.settimeout(20)\n\
             c.connect(('{}', 7000))\n\
             if socket.{kind} == socket.SOCK_STREAM:\n\
             \x20   c.sendall(text); c.shutdown(socket.SHUT_WR)\n\
             \x20   data = b''\n\
             \x20   while chunk := c.recv(65536): data += chunk\n\
             else:\n\
             \x20   text = text[:1400]\n\
             \x20   c.send(text); data = c.recv(65536)\n\
             assert data == text[::-1], len(data)\n",
            b.address
        );
        let mut serving = python(&b, &server).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = [0; 6];
        std::io::Read::read_exact(serving.stdout.as_mut().unwrap(), &mut line).unwrap();
        let mut asking = python(&a, &client).stdin(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut asking.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let answered = asking.wait().unwrap().success();
        let _ = serving.kill();
        serving.wait().unwrap();
        assert!(answered, "{kind}");
    }
    check_conservation(&dataplane);
}

fn python(pod: &Pod, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &pod.netns, "python3", "-c", program]);
    command
}

#[test]
fn every_queue_of_an_interface_is_served() {
    if !root() {
        return;
    }
    let (a, b) = (Pod::with_queues(1, 4), Pod::new(2));
    let dataplane = start();
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    // A sender's veth queue, and with it our receive queue, follows from the sending
    // core and flow: many flows from every core reach several.
    for core in 0..thread::available_parallelism().unwrap().get() {
        let program = format!(
            "import socket\n\
             for port in range(5000, 5100):\n\
             \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             \x20   s.sendto(b'x' * 100, ('{}', port))\n",
            b.address
        );
        assert!(a.pings(&b, 3, 56), "before core {core}");
        let line = ["netns", "exec", &a.netns, "taskset", "-c", &core.to_string(), "python3", "-c", &program];
        assert!(Command::new("ip").args(line).status().unwrap().success());
    }
    let n_sent = 100 * thread::available_parallelism().unwrap().get() as u64;
    eventually("all datagrams are through", || status(&dataplane.ports(), 1).counters.rx_packets >= n_sent);
    // What is in a queue without a socket would have gone to the host instead.
    let host = run(&format!("cat /sys/class/net/{}/statistics/rx_dropped", a.host_if));
    assert_eq!(host.trim(), "0");
    check_conservation(&dataplane);
}

#[test]
fn steering_by_tunnel_leaves_the_host_its_traffic() {
    if !root() {
        return;
    }
    // The switch's own namespace is this one: the uplink has an address of the host.
    let peer = Pod::new(9);
    let local = Ipv4Addr::new(10, 77, 0, 200);
    run(&format!("ip addr add {local}/32 dev {}", peer.host_if));
    run(&format!("ip route add {}/32 dev {}", peer.address, peer.host_if));
    let dataplane = start();
    let steering = Steering::Tunnel { local, udp_ports: vec![6081, 4789] };
    dataplane.attach(spec(1, &peer.host_if, steering)).unwrap();
    let memory = MemoryPort::new(64);
    attach_memory(&dataplane, 2, &memory);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));

    let ping = format!("ping -n -q -i 0.01 -c 20 -W 5 {local}");
    assert!(peer.try_exec(&ping).status.success(), "the host still answers");
    assert_eq!(status(&dataplane.ports(), 1).counters.rx_packets, 0, "and the switch sees none of it");

    let program = format!(
        "import socket\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         for port in [6081, 53, 4789, 6082]: s.sendto(b'to %d' % port, ('{local}', port))\n"
    );
    assert!(python(&peer, &program).status().unwrap().success());
    for port in [6081, 4789] {
        let frame = memory.receive_within(PATIENCE).unwrap();
        assert!(frame.ends_with(format!("to {port}").as_bytes()), "{frame:?}");
    }
    assert_eq!(memory.receive_within(Duration::from_millis(200)), None);
    let ports = check_conservation(&dataplane);
    assert_eq!(status(&ports, 1).counters.rx_packets, 2);
}

#[test]
fn attaching_and_detaching_again_and_again_leaves_nothing() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    for round in 0..20 {
        dataplane.detach(port(1)).unwrap();
        assert!(!a.has_xdp(), "round {round}: a program stayed");
        assert_eq!(attach(&dataplane, 1, &a).mode, "native-copy", "round {round}");
        assert!(a.has_xdp());
        if round % 5 == 0 {
            assert!(a.pings(&b, 3, 56), "round {round}");
        }
    }
    assert!(a.pings(&b, 3, 56));
    check_conservation(&dataplane);
    drop(dataplane);
    assert!(!a.has_xdp() && !b.has_xdp());
}

/// Not a test by itself: the process that the next test kills.
#[test]
fn child_that_holds_an_interface() {
    let Ok(interface) = std::env::var(CHILD_INTERFACE) else { return };
    let dataplane = start();
    dataplane.attach(spec(1, &interface, Steering::All)).unwrap();
    println!("attached");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_nothing_attached() {
    if !root() {
        return;
    }
    let pod = Pod::new(1);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_an_interface", "--nocapture"])
        .env(CHILD_INTERFACE, &pod.host_if)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the child has attached", || pod.has_xdp());
    let busy = start().attach(spec(1, &pod.host_if, Steering::All)).unwrap_err().to_string();
    assert!(busy.contains(&pod.host_if), "{busy}");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the kernel has detached the program", || !pod.has_xdp());
    // And the queue is free again.
    let dataplane = start();
    assert_eq!(attach(&dataplane, 1, &pod).mode, "native-copy");
}

#[test]
fn a_deleted_interface_is_a_port_that_is_down() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    let memory = MemoryPort::new(64);
    attach_memory(&dataplane, 3, &memory);
    publish(&dataplane, snapshot(2, &[1, 2, 3], vec![rule(1, &[2]), rule(2, &[1]), rule(3, &[2])]));
    assert!(a.pings(&b, 3, 56));
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
    let c = Pod::new(2);
    attach(&dataplane, 2, &c);
    assert!(a.pings(&c, 3, 56));
}

#[test]
fn an_idle_switch_over_a_deleted_interface_stays_idle() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    for pod in [&a, &b] {
        run(&format!("ip link del {}", pod.host_if));
    }
    thread::sleep(Duration::from_millis(100));
    let before = dataplane.workers()[0];
    thread::sleep(Duration::from_millis(500));
    let after = dataplane.workers()[0];
    assert!(after.n_polls - before.n_polls < 20_000, "{before:?} {after:?}");
}

#[test]
fn an_interface_set_down_and_up_carries_again() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    assert!(a.pings(&b, 3, 56));
    run(&format!("ip link set {} down", b.host_if));
    eventually("the port is down", || !status(&dataplane.ports(), 2).up);
    let _ = a.try_exec(&format!("ping -n -q -c 3 -i 0.01 -W 1 {}", b.address));
    run(&format!("ip link set {} up", b.host_if));
    eventually("the port is up", || status(&dataplane.ports(), 2).up);
    eventually("packets pass again", || a.pings(&b, 1, 56));
    check_conservation(&dataplane);
}

#[test]
fn what_does_not_fit_is_named_and_a_changed_mtu_is_followed() {
    if !root() {
        return;
    }
    let (dataplane, a, b) = two_pods();
    run(&format!("ip link set {} mtu 1000", b.host_if));
    b.exec("ip link set eth0 mtu 1000");
    assert_eq!(status(&dataplane.ports(), 2).mtu, 1000);
    assert!(a.pings(&b, 3, 972));
    assert!(
        !a.try_exec(&format!("ping -n -q -c 2 -i 0.01 -W 1 -M do -s 973 {}", b.address)).status.success()
    );
    let ports = check_conservation(&dataplane);
    let too_big = dataplane.drops().into_iter().find(|row| row.reason == DropReason::TooBig).unwrap();
    assert_eq!((too_big.in_port, too_big.n_copies), (port(1), 2));
    assert_eq!(status(&ports, 2).counters.tx_dropped, [0, 0, 2, 0]);
}

#[test]
fn larger_frames_pass_and_too_large_ones_are_refused_at_attaching() {
    if !root() {
        return;
    }
    let (a, b) = (Pod::new(1), Pod::new(2));
    for pod in [&a, &b] {
        run(&format!("ip link set {} mtu 3400", pod.host_if));
        pod.exec("ip link set eth0 mtu 3400");
    }
    let dataplane = start();
    attach(&dataplane, 1, &a);
    attach(&dataplane, 2, &b);
    publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2]), rule(2, &[1])]));
    for len in [1700, 1800, 3372] {
        assert!(a.pings(&b, 5, len), "{len} bytes");
    }
    check_conservation(&dataplane);

    let c = Pod::new(3);
    run(&format!("ip link set {} mtu 9000", c.host_if));
    let error = dataplane.attach(spec(3, &c.host_if, Steering::All)).unwrap_err();
    assert!(matches!(error, AttachError::MtuTooBig { mtu: 9000, .. }), "{error}");
    assert!(!c.has_xdp());
}

#[test]
fn errors_of_attaching_name_interface_and_remedy() {
    if !root() {
        return;
    }
    let dataplane = start();
    let error = dataplane.attach(spec(1, "no-such-if", Steering::All)).unwrap_err().to_string();
    assert!(error.contains("no-such-if") && error.contains("No such device"), "{error}");

    let pod = Pod::new(1);
    attach(&dataplane, 1, &pod);
    let error = start().attach(spec(1, &pod.host_if, Steering::All)).unwrap_err().to_string();
    for part in [pod.host_if.as_str(), "busy", "stop the process that holds it"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    assert!(pod.has_xdp(), "the port that was there is unharmed");
    assert!(try_run(&format!("ip link set {} xdp off", pod.host_if)).status.code().is_some());
}
