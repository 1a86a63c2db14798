//! The XDP programs: which received frames go to our sockets; all others go on to the
//! host's network stack.
//!
//! Both end in `bpf_redirect_map` with XDP_PASS as the answer for a queue without
//! socket, so that a frame we cannot take is the host's, not lost.

use std::net::Ipv4Addr;

use super::asm::{Assembler, Insn, Label, Reg, Width};

/// Let the host have the frame.
pub(crate) const XDP_PASS: i32 = 2;
/// Most UDP ports a program can compare with.
pub(crate) const MAX_UDP_PORTS: usize = 64;

/// The host's stack does not get the packet.
const TC_ACT_SHOT: i32 = 2;

const HELPER_REDIRECT_MAP: i32 = 51;
/// Offsets in `struct xdp_md`.
const MD_DATA: i16 = 0;
const MD_DATA_END: i16 = 4;
const MD_RX_QUEUE: i16 = 16;
/// Offsets in an untagged frame with an IPv4 header without options.
const ETH_TYPE: i16 = 12;
const IP_VERSION_IHL: i16 = 14;
const IP_FRAGMENT: i16 = 20;
const IP_PROTO: i16 = 23;
const IP_DST: i16 = 30;
const UDP_DST: i16 = 36;
const UDP_END: i32 = 42;

/// Nothing for the host's stack.
pub(super) fn shut() -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    asm.set(Reg::R0, TC_ACT_SHOT);
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

/// Tunnelled frames for `local` to the socket of their queue: untagged, IPv4 without
/// options, not a fragment, UDP to one of the ports.
pub(super) fn tunnel(map_fd: i32, local: Ipv4Addr, udp_ports: &[u16]) -> Option<Vec<Insn>> {
    let mut asm = Assembler::default();
    let (pass, take) = (asm.label(), asm.label());
    if udp_ports.is_empty() {
        // The verifier refuses code that nothing leads to.
        asm.set(Reg::R0, XDP_PASS);
        asm.exit();
        return asm.finish();
    }
    asm.copy(Reg::R6, Reg::R1);
    asm.load(Width::Word, Reg::R2, Reg::R6, MD_DATA);
    asm.load(Width::Word, Reg::R3, Reg::R6, MD_DATA_END);
    asm.copy(Reg::R4, Reg::R2);
    asm.add(Reg::R4, UDP_END);
    asm.jump_if_greater(Reg::R4, Reg::R3, pass);
    require(&mut asm, Width::Half, ETH_TYPE, be16(0x0800), pass);
    require(&mut asm, Width::Byte, IP_VERSION_IHL, 0x45, pass);
    asm.load(Width::Half, Reg::R5, Reg::R2, IP_FRAGMENT);
    // "More fragments" and the offset; "don't fragment" may be set.
    asm.and(Reg::R5, be16(0x3fff).cast_signed());
    asm.jump_if_not(Reg::R5, 0, pass);
    require(&mut asm, Width::Byte, IP_PROTO, 17, pass);
    require(&mut asm, Width::Word, IP_DST, u32::from_ne_bytes(local.octets()), pass);
    asm.load(Width::Half, Reg::R5, Reg::R2, UDP_DST);
    for port in udp_ports {
        asm.jump_if(Reg::R5, be16(*port), take);
    }
    asm.place(pass);
    asm.set(Reg::R0, XDP_PASS);
    asm.exit();
    asm.place(take);
    redirect(&mut asm, map_fd);
    asm.finish()
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
