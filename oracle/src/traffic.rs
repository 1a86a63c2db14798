//! Random frames of a small world, so that they meet the rules of `rules.rs`; most are sound, some are
//! cut off or damaged.

use crate::{checksum, frame, rng::Rng};

/// Ports that frames come in by.
pub const IN_PORTS: [u32; 4] = [1, 2, 3, 4];

/// A frame and where it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The port.
    pub port: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A random arrival.
pub fn arrival(rng: &mut Rng) -> Arrival {
    let port = rng.pick(&IN_PORTS);
    let mut frame = sound(rng);
    if rng.one_in(40) {
        let at = 14 + rng.index(frame.len() - 14);
        frame[at] ^= 1 << rng.below(8);
    }
    if rng.one_in(40) {
        frame.truncate(rng.index(frame.len() + 1));
    }
    if rng.one_in(12) {
        let n = 1 + rng.index(20);
        frame.extend(std::iter::repeat_n(0xee, n));
    }
    // Whatever is left has right checksums: a wrong one stays wrong, which is another test's matter.
    let keep_zero = rng.one_in(10);
    if let Some(view) = frame::view(&frame) {
        checksum::complete(&mut frame, &view, !keep_zero);
    }
    Arrival { port, frame }
}

fn sound(rng: &mut Rng) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, rng.below(4) as u8, 2, 0, 0, 0, 0, rng.below(4) as u8];
    if rng.one_in(12) {
        frame[..6].fill(0xff);
    }
    let n_tags = rng.pick(&[0, 0, 0, 0, 1, 1, 2]);
    for _ in 0..n_tags {
        frame.extend(rng.pick(&[0x8100_u16, 0x8100, 0x88a8]).to_be_bytes());
        let dei = if rng.one_in(8) { 0x1000 } else { 0 };
        let tci = rng.pick(&[0_u16, 100, 100, 101, 0x2064]) | dei;
        frame.extend(tci.to_be_bytes());
    }
    let (eth_type, body) = match rng.below(16) {
        0 => (0x88b5, payload(rng)),
        1 => (0x0806, arp(rng)),
        2 => (0x8847, mpls(rng)),
        3 => (16, payload(rng)),
        4..=7 => (0x86dd, ipv6(rng)),
        _ => (0x0800, ipv4(rng)),
    };
    frame.extend(u16::to_be_bytes(eth_type));
    frame.extend(body);
    frame
}

fn payload(rng: &mut Rng) -> Vec<u8> {
    (0..16 + rng.below(40)).map(|_| rng.bits() as u8).collect()
}

fn arp(rng: &mut Rng) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1 + rng.below(2) as u8];
    for _ in 0..2 {
        arp.extend([2, 0, 0, 0, 0, rng.below(4) as u8, 10, 0, 0, rng.below(8) as u8]);
    }
    arp
}

fn mpls(rng: &mut Rng) -> Vec<u8> {
    let label = (rng.below(4) as u32) << 12 | (rng.below(8) as u32) << 9 | 0x100 | 64;
    [&label.to_be_bytes()[..], &payload(rng)].concat()
}

fn ipv4(rng: &mut Rng) -> Vec<u8> {
    let proto = rng.pick(&[6_u8, 6, 6, 17, 17, 132, 1, 1, 47, 0]);
    let segment = segment(rng, proto);
    let n_options = if rng.one_in(8) { 2 } else { 0 };
    let fragment = rng.pick(&[0_u16, 0, 0, 0, 0, 0, 0x4000, 0x2000, 0x2010, 0x0010]);
    let mut ip = vec![0x45 + n_options, rng.pick(&[0, 0, 4, 0x2e, 1])];
    ip.extend((20 + 4 * u16::from(n_options) + segment.len() as u16).to_be_bytes());
    ip.extend((rng.bits() as u16).to_be_bytes());
    ip.extend(fragment.to_be_bytes());
    ip.extend([rng.pick(&[64, 64, 64, 2, 1, 0]), proto, 0, 0]);
    for _ in 0..2 {
        ip.extend([10, 0, 0, rng.below(8) as u8]);
    }
    ip.extend(std::iter::repeat_n(1, 4 * usize::from(n_options)));
    ip.extend(segment);
    ip
}

fn ipv6(rng: &mut Rng) -> Vec<u8> {
    let proto = rng.pick(&[6_u8, 6, 17, 17, 132, 58, 58, 47]);
    let segment = segment(rng, proto);
    let mut extensions = Vec::new();
    let mut next = proto;
    match rng.below(12) {
        0 => {
            extensions = vec![proto, 0, 1, 4, 0, 0, 0, 0];
            next = rng.pick(&[0, 60]);
        }
        1 | 2 => {
            let [high, low] = rng.pick(&[1_u16, 8 << 3, 8 << 3 | 1, 0]).to_be_bytes();
            extensions = vec![proto, 0, high, low, 0, 0, 0, 7];
            next = 44;
        }
        _ => {}
    }
    let mut ip = (6 << 28 | rng.pick(&[0_u32, 0x2e, 1]) << 20 | rng.below(3) as u32).to_be_bytes().to_vec();
    ip.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
    ip.extend([next, rng.pick(&[64, 64, 64, 2, 1, 0])]);
    for _ in 0..2 {
        ip.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, rng.below(8) as u8]);
    }
    ip.extend(extensions);
    ip.extend(segment);
    ip
}

fn segment(rng: &mut Rng, proto: u8) -> Vec<u8> {
    let port = |rng: &mut Rng| [0, rng.below(4) as u8];
    let mut bytes = [port(rng), port(rng)].concat();
    match proto {
        6 => {
            bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, rng.pick(&[2, 0x10, 0x12, 4]), 0x20, 0, 0, 0, 0, 0]);
            bytes.extend(payload(rng));
        }
        17 => {
            let payload = payload(rng);
            bytes.extend((8 + payload.len() as u16).to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(payload);
        }
        132 => {
            bytes.extend([0, 0, 0, 5, 0, 0, 0, 0]);
            bytes.extend(payload(rng));
        }
        1 => {
            bytes = vec![rng.pick(&[0, 8, 3]), rng.below(3) as u8, 0, 0, 0, 1, 0, 2];
            bytes.extend(payload(rng));
        }
        58 => bytes = icmpv6(rng),
        _ => bytes = payload(rng),
    }
    bytes
}

fn icmpv6(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.pick(&[128_u8, 135, 136, 136, 1]);
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    if matches!(kind, 135 | 136) {
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, rng.below(8) as u8]);
        bytes.extend([if kind == 135 { 1 } else { 2 }, 1, 2, 0, 0, 0, 0, rng.below(4) as u8]);
    } else {
        bytes.extend(payload(rng));
    }
    bytes
}
