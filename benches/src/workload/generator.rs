//! Our side's generator: the twin of `peer/flowgen.c`, step by step, so that both switches
//! get the same packets at the same cost. Change both or none.

use std::net::Ipv4Addr;

use flowtable::{checksum, program::TunnelKind};

use super::{LOCAL, REMOTE, Shape, Traffic, VNI, Way};

/// Bytes that a frame may have.
pub const ROOM: usize = 128;
/// A frame, without an outer header.
const FRAME_LEN: usize = 60;
/// Outer Ethernet, IPv4, UDP and tunnel headers.
const OUTER_LEN: usize = 50;

/// Which flow comes next.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Any of them.
    Random(u64),
    /// One after the other, each once.
    Sequential(u32),
}

/// Writes frames.
#[derive(Debug)]
pub struct Generator {
    traffic: Traffic,
    /// Number of the first flow.
    base: u32,
    order: Order,
    x: u64,
    template: [u8; ROOM],
    len: usize,
    /// Where the inner frame begins.
    inner: usize,
    /// Sum of the inner IPv4 header without its addresses.
    ip_sum: u32,
}

impl Generator {
    /// Frames of random flows.
    pub fn new(traffic: Traffic, way: Way) -> Self {
        let mut template = [0; ROOM];
        let inner = match way {
            Way::Decap(kind) => {
                write_outer(&mut template, kind);
                OUTER_LEN
            }
            Way::Ports | Way::Encap(_) => 0,
        };
        let ip_sum = write_frame(&mut template[inner..], traffic.tcp);
        let order = Order::Random(0x2545_f491_4f6c_dd1d);
        Self { traffic, base: 0, order, x: 0, template, len: inner + FRAME_LEN, inner, ip_sum }
    }

    /// The same with other flows: for generators that share none.
    #[must_use]
    pub fn from_flow(self, base: u32) -> Self {
        Self { base, ..self }
    }

    /// From now on flows one after the other, from `start`.
    pub fn go_through(&mut self, start: u32) {
        self.order = Order::Sequential(start);
    }

    /// Writes the next frame; answers its length.
    #[inline]
    pub fn write(&mut self, frame: &mut [u8; ROOM]) -> usize {
        let idx = self.next_idx();
        // Bijective: low half in the address, high half in the port.
        let h = mix(idx.wrapping_add(1));
        let g = mix(h ^ 0x9e37_79b9);
        frame[..64].copy_from_slice(&self.template[..64]);
        if self.len > 64 {
            frame[64..].copy_from_slice(&self.template[64..]);
        }
        let (mut src, mut dst) = (0x0a01_0000 | h & 0xffff, 0x0a02_0000 | g & 0xffff);
        let (mut src_port, mut dst_port) = ((h >> 16) as u16, (g >> 16) as u16 & 1023);
        let Some(inner) = frame[self.inner..].first_chunk_mut::<FRAME_LEN>() else { return 0 };
        match self.traffic.shape {
            Shape::Plain => {}
            Shape::Masks => {
                let (k, network) = (idx % 20, idx / 20 % 500);
                let prefix_len = 13 + k;
                src = 0x2000_0000 | network << (32 - prefix_len);
                if prefix_len < 32 {
                    src |= h & ((1 << (32 - prefix_len)) - 1);
                }
                inner[5] = k as u8;
            }
            Shape::Random => {
                let ports = mix(g ^ 0x9e37_79b9);
                (src, dst) = (h, g);
                (src_port, dst_port) = ((ports >> 16) as u16, ports as u16);
            }
        }
        if self.traffic.both_ways && self.x & 1 == 1 {
            (src, dst) = (self.traffic.backend.map_or(dst, Ipv4Addr::to_bits), src);
            (src_port, dst_port) = (dst_port, src_port);
        }
        inner[26..30].copy_from_slice(&src.to_be_bytes());
        inner[30..34].copy_from_slice(&dst.to_be_bytes());
        inner[34..36].copy_from_slice(&src_port.to_be_bytes());
        inner[36..38].copy_from_slice(&dst_port.to_be_bytes());
        let sum = self.ip_sum + (src >> 16) + (src & 0xffff) + (dst >> 16) + (dst & 0xffff);
        inner[24..26].copy_from_slice(&fold(sum).to_be_bytes());
        if self.inner > 0 {
            frame[34..36].copy_from_slice(&(0xc000 | g as u16 & 0x3fff).to_be_bytes());
        }
        self.len
    }

    fn next_idx(&mut self) -> u32 {
        match &mut self.order {
            Order::Random(x) => {
                *x ^= *x << 13;
                *x ^= *x >> 7;
                *x ^= *x << 17;
                self.x = *x;
                self.base.wrapping_add((((*x >> 32) * u64::from(self.traffic.n_flows)) >> 32) as u32)
            }
            Order::Sequential(next) => {
                let idx = *next;
                *next = next.wrapping_add(1);
                idx
            }
        }
    }
}

fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Ethernet and IPv4 headers; answers the sum of the latter without addresses and checksum.
fn write_headers(frame: &mut [u8], mac: u8, len: usize, proto: u8) -> u32 {
    frame[..14].copy_from_slice(&[2, 0, 0, 0, mac, 2, 2, 0, 0, 0, mac, 1, 8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
    (frame[20], frame[22], frame[23]) = (0x40, 64, proto);
    frame[14..34].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum()
}

fn write_frame(frame: &mut [u8], tcp: bool) -> u32 {
    let sum = write_headers(frame, 0xaa, FRAME_LEN, if tcp { 6 } else { 17 });
    if tcp {
        frame[46..50].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
    } else {
        frame[38..40].copy_from_slice(&((FRAME_LEN - 34) as u16).to_be_bytes());
    }
    sum
}

fn write_outer(frame: &mut [u8], kind: TunnelKind) {
    let len = FRAME_LEN + OUTER_LEN;
    write_headers(frame, 0xbb, len, 17);
    frame[26..30].copy_from_slice(&REMOTE.octets());
    frame[30..34].copy_from_slice(&LOCAL.octets());
    let sum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let (port, tunnel_header) = match kind {
        TunnelKind::Vxlan => (4789_u16, [8, 0, 0, 0]),
        TunnelKind::Geneve => (6081, [0, 0, 0x65, 0x58]),
        TunnelKind::Gre => unreachable!("no workload is of GRE"),
    };
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[38..40].copy_from_slice(&((len - 34) as u16).to_be_bytes());
    frame[42..46].copy_from_slice(&tunnel_header);
    frame[46..50].copy_from_slice(&(VNI << 8).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::workload::BACKEND;

    fn frames(traffic: Traffic, way: Way, n: usize) -> Vec<Vec<u8>> {
        let mut generator = Generator::new(traffic, way);
        let mut next = || {
            let mut frame = [0; ROOM];
            let len = generator.write(&mut frame);
            frame[..len].to_vec()
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn headers_are_right_in_every_shape() {
        let masks = Traffic { shape: Shape::Masks, ..Traffic::plain(1000) };
        let random = Traffic { shape: Shape::Random, tcp: true, ..Traffic::plain(u32::MAX) };
        let served = Traffic { backend: Some(BACKEND), ..Traffic::both_ways(1000) };
        for traffic in [Traffic::plain(1000), Traffic::both_ways(1000), served, masks, random] {
            for frame in frames(traffic, Way::Ports, 1000) {
                assert_eq!(frame.len(), 60);
                assert_eq!(checksum::of(&frame[14..34]), 0, "{frame:02x?}");
            }
        }
        for kind in [TunnelKind::Geneve, TunnelKind::Vxlan] {
            for frame in frames(Traffic::plain(10), Way::Decap(kind), 100) {
                assert_eq!(checksum::of(&frame[14..34]), 0, "{frame:02x?}");
                assert_eq!(checksum::of(&frame[64..84]), 0, "{frame:02x?}");
            }
        }
    }

    #[test]
    fn there_are_as_many_flows_as_asked_for() {
        let tuples = |frames: Vec<Vec<u8>>| frames.iter().map(|f| f[26..38].to_vec()).collect::<HashSet<_>>();
        assert_eq!(tuples(frames(Traffic::plain(500), Way::Ports, 10_000)).len(), 500);
        assert_eq!(tuples(frames(Traffic::both_ways(500), Way::Ports, 20_000)).len(), 1000);
        let mut generator = Generator::new(Traffic::plain(1), Way::Ports);
        generator.go_through(7);
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut frame = [0; ROOM];
            generator.write(&mut frame);
            seen.insert(frame[26..38].to_vec());
        }
        assert_eq!(seen.len(), 1000);
    }
}
