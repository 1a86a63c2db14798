//! The steering programs, run by the kernel on made-up frames (BPF_PROG_TEST_RUN).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

const CMD_PROG_TEST_RUN: libc::c_long = 10;
const XDP_REDIRECT: u32 = 4;
const XDP_PASS: u32 = steer::XDP_PASS as u32;
const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const LOCAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80c8);
const PORTS: [u16; 2] = [6081, 4789];

#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
}

fn to(local: IpAddr, udp_ports: &[u16], gre: bool) -> TunnelSteering {
    TunnelSteering { local, udp_ports: udp_ports.to_vec(), gre }
}

fn root() -> bool {
    // SAFETY: has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: this test loads BPF programs and needs root");
    }
    root
}

/// What the program answers to a frame.
fn run(program: &Program, frame: &[u8]) -> u32 {
    let mut attr = TestRun {
        prog_fd: program.fd.as_raw_fd().cast_unsigned(),
        retval: u32::MAX,
        data_size_in: frame.len() as u32,
        data_size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        pad: 0,
    };
    // SAFETY: the layout is that of BPF_PROG_TEST_RUN and the frame is live.
    unsafe { bpf(CMD_PROG_TEST_RUN, &mut attr) }.unwrap();
    attr.retval
}

/// A map with a socket on queue 0, which is the queue of test runs.
fn map_with_socket() -> (SocketMap, OwnedFd) {
    // SAFETY: plain socket creation.
    let socket = owned(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0) });
    let map = SocketMap::new("test", 1).unwrap();
    map.insert("test", 0, socket.as_raw_fd()).unwrap();
    (map, socket)
}

/// Ethernet, IPv4, UDP to `LOCAL`, eight bytes of payload.
fn frame(dst_port: u16) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 36, 0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1]);
    frame.extend(LOCAL.octets());
    frame.extend(49152_u16.to_be_bytes());
    frame.extend(dst_port.to_be_bytes());
    frame.extend([0, 16, 0, 0]);
    frame.extend([0xab; 8]);
    frame
}

fn with(dst_port: u16, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame(dst_port);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn tunnel_steering_takes_exactly_the_tunnels_frames() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let program = Program::steer_tunnel("test", &map, &to(LOCAL.into(), &PORTS, false), false).unwrap();
    for port in PORTS {
        assert_eq!(run(&program, &frame(port)), XDP_REDIRECT, "port {port}");
        assert_eq!(run(&program, &with(port, 20, &[0, 0])), XDP_REDIRECT, "without don't-fragment");
        // IP_DST has its top bit set: a sign-extending comparison would pass it by.
        for (what, other) in [
            ("first fragment", with(port, 20, &[0x20, 0])),
            ("later fragment", with(port, 20, &[0, 100])),
            ("last fragment", with(port, 20, &[0x1f, 0xff])),
            ("IPv4 options", with(port, 14, &[0x46])),
            ("IPv6", with(port, 12, &[0x86, 0xdd])),
            ("802.1Q", with(port, 12, &[0x81, 0x00])),
            ("ARP", with(port, 12, &[0x08, 0x06])),
            ("TCP", with(port, 23, &[6])),
            ("another address", with(port, 33, &[201])),
            ("another network", with(port, 30, &[191])),
        ] {
            assert_eq!(run(&program, &other), XDP_PASS, "{what}, port {port}");
        }
    }
    for port in [0, 1, 22, 53, 4788, 4790, 6080, 6082, 0xc117, u16::MAX] {
        assert_eq!(run(&program, &frame(port)), XDP_PASS, "port {port}");
    }
}

/// Ethernet, IPv6, UDP to `LOCAL6`, eight bytes of payload.
fn frame6(dst_port: u16) -> Vec<u8> {
    let mut frame = vec![0x02; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 16, 17, 64]);
    frame.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend(LOCAL6.octets());
    frame.extend(49152_u16.to_be_bytes());
    frame.extend(dst_port.to_be_bytes());
    frame.extend([0, 16, 0, 0]);
    frame.extend([0xab; 8]);
    frame
}

#[test]
fn tunnels_over_ipv6_are_taken_as_exactly() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let program = Program::steer_tunnel("test", &map, &to(LOCAL6.into(), &PORTS, false), false).unwrap();
    let with = |port, at: usize, bytes: &[u8]| {
        let mut frame = frame6(port);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    for port in PORTS {
        assert_eq!(run(&program, &frame6(port)), XDP_REDIRECT, "port {port}");
        assert_eq!(run(&program, &with(port, 15, &[0x3f, 1, 2])), XDP_REDIRECT, "class and label");
        for (what, other) in [
            ("fragment", with(port, 20, &[44])),
            ("hop-by-hop options", with(port, 20, &[0])),
            ("TCP", with(port, 20, &[6])),
            ("IPv4", with(port, 12, &[0x08, 0x00])),
            ("802.1Q", with(port, 12, &[0x81, 0x00])),
            ("another address", with(port, 53, &[0xc9])),
            ("another network", with(port, 38, &[0x21])),
            ("another subnet", with(port, 45, &[1])),
        ] {
            assert_eq!(run(&program, &other), XDP_PASS, "{what}, port {port}");
        }
        assert_eq!(run(&program, &frame(port)), XDP_PASS, "to the address of IPv4");
    }
    let whole = frame6(6081);
    for len in 14..=whole.len() {
        let expected = if len < 62 { XDP_PASS } else { XDP_REDIRECT };
        assert_eq!(run(&program, &whole[..len]), expected, "length {len}");
    }
}

#[test]
fn gre_is_taken_when_it_is_wanted() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let gre = |mut frame: Vec<u8>, at: usize| {
        frame[at] = 47;
        frame
    };
    for (ports, gre_wanted) in [(&PORTS[..], true), (&[], true), (&PORTS[..], false)] {
        let program =
            |local| Program::steer_tunnel("test", &map, &to(local, ports, gre_wanted), false).unwrap();
        let (program4, program6) = (program(LOCAL.into()), program(LOCAL6.into()));
        let verdict = |wanted: bool| if wanted { XDP_REDIRECT } else { XDP_PASS };
        assert_eq!(run(&program4, &gre(frame(1), 23)), verdict(gre_wanted));
        assert_eq!(run(&program6, &gre(frame6(1), 20)), verdict(gre_wanted));
        assert_eq!(run(&program4, &frame(PORTS[0])), verdict(!ports.is_empty()));
        assert_eq!(run(&program4, &gre(with(1, 33, &[201]), 23)), XDP_PASS, "another address");
        assert_eq!(run(&program4, &gre(with(1, 20, &[0x20]), 23)), XDP_PASS, "a fragment");
    }
}

#[test]
fn tunnel_steering_leaves_truncated_frames_to_the_host() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let program = Program::steer_tunnel("test", &map, &to(LOCAL.into(), &PORTS, false), false).unwrap();
    let whole = frame(6081);
    // The kernel takes no frame shorter than an Ethernet header for a test run.
    for len in 14..=whole.len() {
        let expected = if len < 42 { XDP_PASS } else { XDP_REDIRECT };
        assert_eq!(run(&program, &whole[..len]), expected, "length {len}");
    }
}

#[test]
fn steering_all_takes_everything_but_only_with_a_socket() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let program = Program::steer_all("test", &map, false).unwrap();
    assert_eq!(run(&program, &[0x02; 14]), XDP_REDIRECT);
    assert_eq!(run(&program, &frame(22)), XDP_REDIRECT);

    let empty = SocketMap::new("test", 1).unwrap();
    let program = Program::steer_all("test", &empty, false).unwrap();
    assert_eq!(run(&program, &frame(22)), XDP_PASS, "no socket: the host keeps the frame");
}

#[test]
fn no_port_means_nothing_is_taken() {
    if !root() {
        return;
    }
    let (map, _socket) = map_with_socket();
    let program = Program::steer_tunnel("test", &map, &to(LOCAL.into(), &[], false), false).unwrap();
    assert_eq!(run(&program, &frame(6081)), XDP_PASS);
}

#[test]
fn a_refused_program_brings_the_verifiers_words() {
    if !root() {
        return;
    }
    let mut asm = super::super::asm::Assembler::default();
    asm.exit();
    let error = Program::load("test", Hook::Xdp, 0, asm.finish()).unwrap_err().to_string();
    assert!(error.contains("verifier:") && error.contains("R0"), "{error}");
}
