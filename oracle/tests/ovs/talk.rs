//! What hosts say to each other.

use flowtable::build::{self, Host};
use oracle::{checksum, frame, traffic::Arrival};

const SYN: u16 = 2;
const ACK: u16 = 16;
const FIN: u16 = 1;

/// A host behind a port, and to whom it sends what is for others.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) port: u32,
    pub(crate) host: Host,
}

/// A frame with right checksums.
pub(crate) fn completed(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(view) = frame::view(&frame) {
        checksum::complete(&mut frame, &view, true);
    }
    frame
}

/// The frame with another TTL.
pub(crate) fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    let at = if frame[12..14] == [0x86, 0xdd] { 21 } else { 22 };
    frame[at] = ttl;
    completed(frame)
}

/// A segment with these numbers.
pub(crate) fn segment(from: &Host, to: &Host, flags: u16, numbers: [u32; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = build::tcp(from, to, flags, payload);
    let at = frame::view(&frame).and_then(|view| view.l4).unwrap().1;
    for (idx, number) in numbers.into_iter().enumerate() {
        frame[at + 4 + 4 * idx..][..4].copy_from_slice(&number.to_be_bytes());
    }
    completed(frame)
}

/// A neighbour solicitation.
pub(crate) fn solicitation(from: &Host, target: &Host) -> Vec<u8> {
    let (std::net::IpAddr::V6(src), std::net::IpAddr::V6(dst)) = (from.ip, target.ip) else {
        return build::arp(1, from, target);
    };
    let last = dst.octets();
    let mut frame = vec![0x33, 0x33, 0xff, last[13], last[14], last[15]];
    frame.extend(from.mac.octets());
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(src.octets());
    frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, last[13], last[14], last[15]]);
    frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(last);
    frame.extend([1, 1]);
    frame.extend(from.mac.octets());
    completed(frame)
}

/// Flags, numbers, payload and direction of a TCP conversation from its first segment to its last.
pub(crate) fn tcp_conversation() -> Vec<(bool, u16, [u32; 2], &'static [u8])> {
    vec![
        (false, SYN, [100, 0], b""),
        (true, SYN | ACK, [900, 101], b""),
        (false, ACK, [101, 901], b""),
        (false, ACK, [101, 901], b"question"),
        (true, ACK, [901, 109], b""),
        (true, ACK, [901, 109], b"answer"),
        (false, FIN | ACK, [109, 907], b""),
        (true, FIN | ACK, [907, 110], b""),
        (false, ACK, [110, 908], b""),
    ]
}

/// An ICMP error by a router about a frame that somebody got.
pub(crate) fn unreachable(about: &[u8], router: &Host, to: &Host) -> Option<Vec<u8>> {
    let std::net::IpAddr::V4(ip) = router.ip else { return None };
    let quoted = about.get(14..42)?;
    if about[12..14] != [8, 0] {
        return None;
    }
    let mut frame = [to.mac.octets(), router.mac.octets()].concat();
    frame.extend([8, 0, 0x45, 0, 0, 56, 0, 1, 0, 0, 64, 1, 0, 0]);
    frame.extend(ip.octets());
    frame.extend(&quoted[12..16]);
    frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    frame.extend(quoted);
    Some(completed(frame))
}

/// Frame by port.
pub(crate) fn arrival(port: u32, frame: Vec<u8>) -> Arrival {
    Arrival { port, frame }
}
