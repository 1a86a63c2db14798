//! The interface to other hosts stays the host's, however tunnelled packets are taken from it.
//! Needs root; says so when skipped.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/probe.rs"]
mod probe;

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use common::*;
use dataplane::{Dataplane, DataplaneConfig, Device, MemoryPort, PortSpec, Steering, TunnelSteering};
use flowtable::{
    build::{Host, udp},
    field::Field,
    flow::Action,
    port::{PortInfo, PortRole},
    program::TunnelKind,
    snapshot::Snapshot,
    underlay::{NextHop, TunnelPort, Underlay},
};
use netns::{Pod, root, run};

/// Set in the child of the test that kills a process: interface to attach, and how.
const CHILD_INTERFACE: &str = "DATAPLANE_TEST_CHILD_INTERFACE";
/// The host's own address on the uplink.
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
const UDP_PORT: u16 = 6081;

/// How an uplink is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Socket,
    AfXdp,
}

const BOTH: [By; 2] = [By::Socket, By::AfXdp];

fn uplink(by: By, interface: &str, local: Ipv4Addr) -> PortSpec {
    let (name, interface) = (interface.to_owned(), interface.to_owned());
    let steering =
        Steering::Tunnel(TunnelSteering { local: local.into(), udp_ports: vec![4789, UDP_PORT], gre: false });
    let device = match by {
        By::Socket => Device::Packet { interface, steering },
        By::AfXdp => Device::AfXdp { interface, steering },
    };
    PortSpec { port: port(1).into(), name, device }
}

fn start() -> Dataplane {
    Dataplane::start(DataplaneConfig::default()).unwrap()
}

/// Another host on the other side of an interface with an address of this host.
fn neighbour() -> Pod {
    let peer = Pod::new(9);
    run(&format!("ip addr add {LOCAL}/32 dev {}", peer.host_if));
    run(&format!("ip route add {}/32 dev {}", peer.address, peer.host_if));
    peer
}

/// Answers datagrams to the host until it is dropped.
struct Echo(Option<thread::JoinHandle<()>>, UdpSocket);

impl Echo {
    fn start() -> Self {
        let server = UdpSocket::bind((LOCAL, probe::ECHO_PORT)).unwrap();
        let socket = server.try_clone().unwrap();
        let answer = move || {
            let mut buf = [0; 65536];
            while let Ok((len @ 1.., peer)) = server.recv_from(&mut buf) {
                let _ = server.send_to(&buf[..len], peer);
            }
        };
        Self(Some(thread::spawn(answer)), socket)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // An empty datagram from nobody ends it.
        let _ = self.1.send_to(&[], (LOCAL, probe::ECHO_PORT));
        let _ = self.0.take().unwrap().join();
    }
}

#[test]
fn the_host_keeps_what_is_not_tunnelled_to_it() {
    let Some(_turn) = root() else { return };
    for by in BOTH {
        let peer = neighbour();
        let dataplane = start();
        dataplane.attach(uplink(by, &peer.host_if, LOCAL)).unwrap();
        let memory = MemoryPort::new(64);
        attach_memory(&dataplane, 2, &memory);
        publish(&dataplane, snapshot(1, &[1, 2], vec![rule(1, &[2])]));
        let echo = Echo::start();
        assert!(peer.probe(&format!("ask {LOCAL} 20 1400")), "{by:?}: the host still answers");
        assert!(peer.probe(&format!("ask {LOCAL} 5 4000")), "{by:?}: fragments as well");
        drop(echo);
        assert_eq!(
            status(&dataplane.ports(), 1).counters.rx_packets,
            0,
            "{by:?}: the switch sees none of it"
        );
        let before = peer.counter("Icmp", "InDestUnreachs");
        assert!(peer.probe(&format!("send {LOCAL} 6081 4789")));
        for port in [6081, 4789] {
            let frame = memory.receive_within(PATIENCE).unwrap();
            assert!(frame.ends_with(format!("to {port}").as_bytes()), "{by:?}: {frame:?}");
        }
        assert_eq!(memory.receive_within(Duration::from_millis(100)), None);
        assert_eq!(
            peer.counter("Icmp", "InDestUnreachs"),
            before,
            "{by:?}: nobody says that nobody is there"
        );
        let ports = check_conservation(&dataplane);
        assert_eq!(status(&ports, 1).counters.rx_packets, 2, "{by:?}");
    }
}

/// Not a test by itself: the process that the next test kills.
#[test]
fn child_that_holds_an_uplink() {
    let Ok(text) = std::env::var(CHILD_INTERFACE) else { return };
    let (interface, by) = text.split_once(' ').unwrap();
    let by = if by == "Socket" { By::Socket } else { By::AfXdp };
    let dataplane = start();
    dataplane.attach(uplink(by, interface, LOCAL)).unwrap();
    std::fs::write(format!("/tmp/{interface}.attached"), "").unwrap();
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn attaching_detaching_and_dying_do_not_interrupt_the_host() {
    let Some(_turn) = root() else { return };
    for by in BOTH {
        let peer = neighbour();
        let _echo = Echo::start();
        let watch = peer.spawn_probe(&format!("gap {LOCAL} 4000"));
        thread::sleep(Duration::from_millis(200));
        let dataplane = start();
        for _ in 0..8 {
            dataplane.attach(uplink(by, &peer.host_if, LOCAL)).unwrap();
            thread::sleep(Duration::from_millis(40));
            dataplane.detach(port(1)).unwrap();
            thread::sleep(Duration::from_millis(40));
        }
        let marker = format!("/tmp/{}.attached", peer.host_if);
        for _ in 0..3 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_that_holds_an_uplink", "--nocapture"])
                .env(CHILD_INTERFACE, format!("{} {by:?}", peer.host_if))
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            eventually("the child has attached", || std::fs::remove_file(&marker).is_ok());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let output = watch.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let gap = text.lines().find_map(|line| line.strip_prefix("longest gap ")?.parse::<u64>().ok());
        let gap = gap.unwrap_or_else(|| panic!("{by:?}: no answers: {text}"));
        assert!(gap < 100, "{by:?}: the host was not reached for {gap} ms");
    }
}

/// A version of the rules of a host: its workload at port 2, and a tunnel to the other one.
fn tunnelled(local: Ipv4Addr, remote: Ipv4Addr, kind: TunnelKind, (src_mac, dst_mac): Macs) -> Arc<Snapshot> {
    const TUNNEL: u32 = 3;
    let mut out = rule(2, &[TUNNEL]);
    out.actions.insert(0, Action::SetTunnel(77));
    let (value, mask) = (remote.to_bits().into(), u32::MAX.into());
    out.actions.insert(0, Action::SetField { field: Field::TunDst, value, mask });
    // What comes by AF_XDP does not say that its checksums are left to a device.
    let base = with_silent(snapshot(1, &[1, 2], vec![out, rule(TUNNEL, &[2])]), &[(1, true), (2, false)]);
    let mut snapshot = Arc::unwrap_or_clone(base);
    let ports = Arc::make_mut(&mut snapshot.ports);
    let info = ports.get(port(1)).unwrap().clone();
    ports.insert(port(1), PortInfo { role: PortRole::Uplink, ..info.clone() });
    ports.insert(port(TUNNEL), PortInfo { role: PortRole::Tunnel, ..info });
    let (local, remote) = (IpAddr::V4(local), IpAddr::V4(remote));
    let udp_port = if kind == TunnelKind::Vxlan { 4789 } else { UDP_PORT };
    snapshot.underlay = Arc::new(Underlay {
        tunnels: vec![TunnelPort { port: port(TUNNEL), kind, udp_port, local }],
        peers: [remote].into(),
        next_hops: [(remote, NextHop { port: port(1), src_mac, dst_mac })].into(),
    });
    Arc::new(snapshot)
}

type Macs = (flowtable::types::MacAddr, flowtable::types::MacAddr);

/// Two switches with a workload each, joined by a veth pair.
struct Hosts {
    switches: [Dataplane; 2],
    pods: [Pod; 2],
    ends: [String; 2],
}

impl Hosts {
    fn new(kind: TunnelKind, by: [By; 2], mtu: u32) -> Self {
        let pid = std::process::id();
        let ends = [format!("fu{pid}"), format!("fv{pid}")];
        run(&format!("ip link add {} type veth peer name {}", ends[0], ends[1]));
        let addresses = [Ipv4Addr::new(10, 79, 0, 1), Ipv4Addr::new(10, 79, 0, 2)];
        let (pods, switches) = ([Pod::new(1), Pod::new(2)], [start(), start()]);
        let mut macs = Vec::new();
        for idx in 0..2 {
            let end = &ends[idx];
            run(&format!("sysctl -qw net.ipv6.conf.{end}.disable_ipv6=1"));
            run(&format!("ip addr add {}/32 dev {end}", addresses[idx]));
            run(&format!("ip link set {end} up"));
            let report = switches[idx].attach(uplink(by[idx], end, addresses[idx])).unwrap();
            macs.push(report.mac);
            let pod = &pods[idx];
            pod.exec(&format!("ip link set eth0 mtu {mtu}"));
            let device = Device::Packet { interface: pod.host_if.clone(), steering: Steering::All };
            switches[idx].attach(PortSpec { port: port(2).into(), name: "w".to_owned(), device }).unwrap();
        }
        for idx in 0..2 {
            let other = 1 - idx;
            let rules = tunnelled(addresses[idx], addresses[other], kind, (macs[idx], macs[other]));
            publish(&switches[idx], rules);
        }
        Self { switches, pods, ends }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for switch in &self.switches {
            let _ = switch.detach(port(1));
        }
        let _ = netns::try_run(&format!("ip link del {}", self.ends[0]));
    }
}

#[test]
fn streams_cross_tunnels_whatever_the_uplinks_are() {
    let Some(_turn) = root() else { return };
    for kind in [TunnelKind::Geneve, TunnelKind::Vxlan] {
        for by in [[By::Socket, By::Socket], [By::Socket, By::AfXdp], [By::AfXdp, By::AfXdp]] {
            let hosts = Hosts::new(kind, by, 1440);
            let [a, b] = &hosts.pods;
            for len in [0, 56, 1000, 1412, 4000] {
                assert!(a.reaches(b, 5, len), "{kind:?} by {by:?}: {len} bytes");
            }
            assert!(a.probe(&format!("stream {} 8000000", b.address)), "{kind:?} by {by:?}");
            assert!(b.probe(&format!("stream {} 8000000", a.address)), "{kind:?} by {by:?}");
            for (switch, pod) in hosts.switches.iter().zip(&hosts.pods) {
                let wrong = pod.counter("Tcp", "InCsumErrors") + pod.counter("Udp", "InCsumErrors");
                assert_eq!(wrong, 0, "{kind:?} by {by:?}");
                let ports = check_conservation(switch);
                let counters = status(&ports, 1).counters;
                let mean = counters.rx_bytes / counters.rx_packets;
                // Many at a time, acknowledgements included; or frames, one by one.
                let is_whole = by == [By::Socket, By::Socket];
                assert!(if is_whole { mean > 4000 } else { mean < 1500 }, "{kind:?} by {by:?}: {mean} bytes");
                assert!(switch.drops().is_empty(), "{kind:?} by {by:?}: {:?}", switch.drops());
            }
        }
    }
}

/// What looks like a tunnelled packet and is none is dropped by its name, and does not harm.
#[test]
fn strangers_and_nonsense_on_an_uplink_have_a_name() {
    let Some(_turn) = root() else { return };
    let peer = neighbour();
    let switch = start();
    switch.attach(uplink(By::Socket, &peer.host_if, LOCAL)).unwrap();
    let memory = MemoryPort::new(64);
    switch
        .attach(PortSpec {
            port: port(2).into(),
            name: "m".to_owned(),
            device: Device::Memory(memory.clone()),
        })
        .unwrap();
    let (mac, nobody) = (flowtable::types::MacAddr::ZERO, Ipv4Addr::new(192, 0, 2, 1));
    publish(&switch, tunnelled(LOCAL, nobody, TunnelKind::Geneve, (mac, mac)));
    assert!(peer.probe(&format!("send {LOCAL} {UDP_PORT} {UDP_PORT} {UDP_PORT}")));
    eventually("all three are dropped", || status(&switch.ports(), 1).counters.rx_dropped == 3);
    let rows = switch.drops();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].reason, flowtable::drop::DropReason::TunnelUnknownPeer);
    // A way out whose peer is not there.
    memory.inject(&udp(&Host::v4(1), &Host::v4(2), &[0; 64])).unwrap();
    eventually("what leaves is counted", || status(&switch.ports(), 1).counters.tx_packets == 1);
    check_conservation(&switch);
}

/// Not a test by itself: what runs inside the pods.
#[test]
fn probe_process() {
    probe::main();
}
