//! The XDP programs: which received frames go to our sockets; all others go on to the
//! host's network stack. And what is attached where the host's stack takes packets from an interface.
//!
//! The XDP programs end in `bpf_redirect_map` with XDP_PASS as the answer for a queue without
//! socket, so that a frame we cannot take is the host's, not lost.

use std::net::IpAddr;

use super::asm::{Assembler, Insn, Label, Reg, Width};
use crate::config::TunnelSteering;

/// Let the host have the frame.
pub(crate) const XDP_PASS: i32 = 2;
/// Most UDP ports a program can compare with.
pub(crate) const MAX_UDP_PORTS: usize = 64;

/// The host's stack does not get the packet.
const TC_ACT_SHOT: i32 = 2;
/// Whoever else is attached decides (for filters: `TC_ACT_UNSPEC`).
const TCX_NEXT: i32 = -1;

/// Where a table of programs has its only one.
pub(super) const FIRST: u32 = 0;

const HELPER_TAIL_CALL: i32 = 12;
const HELPER_REDIRECT: i32 = 23;
const HELPER_REDIRECT_MAP: i32 = 51;
/// Offsets in `struct xdp_md`.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE: i16 = 16;
/// Offsets in `struct __sk_buff`.
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
/// Where an untagged frame says what is in it.
const ETH_TYPE: i16 = 12;
/// Offsets with an IPv4 header without options.
const IP_VERSION_IHL: i16 = 14;
const IP_FRAGMENT: i16 = 20;
const IP_PROTO: i16 = 23;
const IP_DST: i16 = 30;
/// With an IPv6 header.
const IP6_NEXT: i16 = 20;
const IP6_DST: i16 = 38;
/// Length of UDP's header, and where the port is in it.
const UDP_LEN: i16 = 8;
const UDP_DST: i16 = 2;
/// What follows IP.
const PROTO_UDP: u8 = 17;
const PROTO_GRE: u8 = 47;

/// Bytes of a frame that have to be as they are for it to be taken, each by its offset.
struct Wanted {
    halves: Vec<(i16, u16)>,
    bytes: Vec<(i16, u8)>,
    words: Vec<(i16, [u8; 4])>,
    /// Where IPv4 says that it is a fragment.
    fragment: Option<i16>,
    /// Where IP says what follows.
    proto: i16,
    /// Where that begins.
    l4: i16,
}

impl Wanted {
    /// Sent to an address: untagged, no fragment, nothing between the headers of IP and what follows.
    fn sent_to(local: IpAddr) -> Self {
        match local {
            IpAddr::V4(local) => Self {
                halves: vec![(ETH_TYPE, 0x0800)],
                bytes: vec![(IP_VERSION_IHL, 0x45)],
                words: vec![(IP_DST, local.octets())],
                fragment: Some(IP_FRAGMENT),
                proto: IP_PROTO,
                l4: 34,
            },
            IpAddr::V6(local) => {
                let octets = local.octets();
                let (words, _) = octets.as_chunks::<4>();
                Self {
                    halves: vec![(ETH_TYPE, 0x86dd)],
                    bytes: Vec::new(),
                    words: (IP6_DST..).step_by(4).zip(words.iter().copied()).collect(),
                    // It has another header in between.
                    fragment: None,
                    proto: IP6_NEXT,
                    l4: 54,
                }
            }
        }
    }
}

/// Keeps frames from the host's stack: those tunnelled to an address, or all.
pub(super) fn shut(tunnel: Option<&TunnelSteering>) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    if let Some(tunnel) = tunnel.filter(|tunnel| !tunnel.is_empty()) {
        let (pass, take) = (asm.label(), asm.label());
        asm.copy(Reg::R6, Reg::R1);
        select(&mut asm, (SKB_DATA, SKB_DATA_END), tunnel, (pass, take));
        asm.place(pass);
        asm.set(Reg::R0, TCX_NEXT);
        asm.exit();
        asm.place(take);
    }
    asm.set(Reg::R0, TC_ACT_SHOT);
    asm.exit();
    asm.finish()
}

/// What the first program of a table says; if it has none, whoever else is attached decides.
pub(super) fn gate(table_fd: i32) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    asm.set_map(Reg::R2, table_fd);
    asm.set(Reg::R3, FIRST.cast_signed());
    asm.call(HELPER_TAIL_CALL);
    asm.set(Reg::R0, TCX_NEXT);
    asm.exit();
    asm.finish()
}

/// What comes in goes out by an interface.
pub(super) fn pass_on(ifindex: u32) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    asm.set(Reg::R1, ifindex.cast_signed());
    asm.set(Reg::R2, 0);
    asm.call(HELPER_REDIRECT);
    asm.exit();
    asm.finish()
}

/// Every frame to the socket of its queue.
pub(super) fn all(map_fd: i32) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    asm.copy(Reg::R6, Reg::R1);
    redirect(&mut asm, map_fd);
    asm.finish()
}

/// Tunnelled frames to the socket of their queue: untagged, to the tunnels' address, IPv4 without
/// options or IPv6 without other headers, not a fragment, UDP to one of the ports, or GRE.
pub(super) fn tunnel(map_fd: i32, tunnel: &TunnelSteering) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    let (pass, take) = (asm.label(), asm.label());
    if tunnel.is_empty() {
        // The verifier refuses code that nothing leads to.
        asm.set(Reg::R0, XDP_PASS);
        asm.exit();
        return asm.finish();
    }
    asm.copy(Reg::R6, Reg::R1);
    select(&mut asm, (MD_DATA, MD_DATA_END), tunnel, (pass, take));
    asm.place(pass);
    asm.set(Reg::R0, XDP_PASS);
    asm.exit();
    asm.place(take);
    redirect(&mut asm, map_fd);
    asm.finish()
}

/// Jumps to `take` for a tunnelled frame, and to `pass`, or over the end, for another one. The
/// context is in R6; the offsets are those of the frame's start and end in it.
fn select(
    asm: &mut Assembler,
    (data, data_end): (i16, i16),
    tunnel: &TunnelSteering,
    (pass, take): (Label, Label),
) {
    let wanted = Wanted::sent_to(tunnel.local);
    asm.load(Width::Word, Reg::R2, Reg::R6, data);
    asm.load(Width::Word, Reg::R3, Reg::R6, data_end);
    asm.copy(Reg::R4, Reg::R2);
    asm.add(Reg::R4, (wanted.l4 + UDP_LEN).into());
    asm.jump_if_greater(Reg::R4, Reg::R3, pass);
    for (at, value) in wanted.halves {
        require(asm, Width::Half, at, be16(value), pass);
    }
    for (at, value) in wanted.bytes {
        require(asm, Width::Byte, at, value.into(), pass);
    }
    if let Some(at) = wanted.fragment {
        asm.load(Width::Half, Reg::R5, Reg::R2, at);
        // "More fragments" and the offset; "don't fragment" may be set.
        asm.and(Reg::R5, be16(0x3fff).cast_signed());
        asm.jump_if_not(Reg::R5, 0, pass);
    }
    for (at, value) in wanted.words {
        require(asm, Width::Word, at, u32::from_ne_bytes(value), pass);
    }
    if tunnel.gre {
        asm.load(Width::Byte, Reg::R5, Reg::R2, wanted.proto);
        asm.jump_if(Reg::R5, PROTO_GRE.into(), take);
    }
    require(asm, Width::Byte, wanted.proto, PROTO_UDP.into(), pass);
    asm.load(Width::Half, Reg::R5, Reg::R2, wanted.l4 + UDP_DST);
    for port in tunnel.udp_ports.iter().take(MAX_UDP_PORTS) {
        asm.jump_if(Reg::R5, be16(*port), take);
    }
}

/// A classic filter (`struct sock_filter`: code, jumps if true and false, operand) that takes
/// the same frames.
pub(super) fn socket_filter(tunnel: &TunnelSteering) -> Vec<libc::sock_filter> {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF: u16 = 0x15;
    const JUMP_IF_ANY: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let insn = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let n_ports = tunnel.udp_ports.len().min(MAX_UDP_PORTS) as u8;
    let require = |load, at: i16, value| [insn(load, 0, 0, at as u32), insn(JUMP_IF, 0, u8::MAX, value)];
    let wanted = Wanted::sent_to(tunnel.local);
    let mut program = Vec::new();
    for (at, value) in wanted.halves {
        program.extend(require(LOAD_HALF, at, value.into()));
    }
    for (at, value) in wanted.bytes {
        program.extend(require(LOAD_BYTE, at, value.into()));
    }
    if let Some(at) = wanted.fragment {
        program.extend([insn(LOAD_HALF, 0, 0, at as u32), insn(JUMP_IF_ANY, u8::MAX, 0, 0x3fff)]);
    }
    for (at, value) in wanted.words {
        program.extend(require(LOAD_WORD, at, u32::from_be_bytes(value)));
    }
    if tunnel.gre {
        program.push(insn(LOAD_BYTE, 0, 0, wanted.proto as u32));
        // Over what follows: protocol (2), the port's load, the ports, the refusal.
        program.push(insn(JUMP_IF, 2 + 1 + n_ports + 1, 0, PROTO_GRE.into()));
    }
    program.extend(require(LOAD_BYTE, wanted.proto, PROTO_UDP.into()));
    program.push(insn(LOAD_HALF, 0, 0, (wanted.l4 + UDP_DST) as u32));
    for (idx, port) in (0..n_ports).zip(&tunnel.udp_ports) {
        program.push(insn(JUMP_IF, n_ports - idx, 0, (*port).into()));
    }
    program.push(insn(RETURN, 0, 0, 0));
    let refuse = program.len() - 1;
    program.push(insn(RETURN, 0, 0, u32::MAX));
    // All of them are less than 256 instructions ahead.
    for (idx, insn) in program.iter_mut().enumerate() {
        for jump in [&mut insn.jt, &mut insn.jf] {
            if *jump == u8::MAX {
                *jump = (refuse - idx - 1) as u8;
            }
        }
    }
    program
}

/// Jumps to `otherwise` unless a field of the frame (in R2) has a value.
fn require(asm: &mut Assembler, width: Width, off: i16, value: u32, otherwise: Label) {
    asm.load(width, Reg::R5, Reg::R2, off);
    asm.jump_if_not(Reg::R5, value, otherwise);
}

/// Ends with the frame on the socket of the queue it came in by. The context is in R6.
fn redirect(asm: &mut Assembler, map_fd: i32) {
    asm.load(Width::Word, Reg::R2, Reg::R6, MD_RX_QUEUE);
    asm.set_map(Reg::R1, map_fd);
    asm.set(Reg::R3, XDP_PASS);
    asm.call(HELPER_REDIRECT_MAP);
    asm.exit();
}

/// A 16-bit field as a load of the frame's bytes yields it.
fn be16(value: u16) -> u32 {
    u32::from(u16::from_ne_bytes(value.to_be_bytes()))
}
