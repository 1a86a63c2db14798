//! Frames of workloads: each has a number, by which it is known again wherever and as whatever it arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::{
    build::{Host, tcp, udp},
    types::MacAddr,
};

use crate::model::{Packet, ipv4, ipv6};

/// Before the number.
const MARK: &[u8; 8] = b"ferrosim";
/// Lengths of headers (IEEE 802.3, RFC 791 without options, RFC 8200, RFC 768).
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// The frame of a packet.
pub(crate) fn frame(packet: &Packet, src_port: u16, number: u64) -> Vec<u8> {
    let end = |mac, ip: Ipv4Addr, port| {
        let ip: IpAddr = if packet.is_ipv6 { ipv6(ip).into() } else { ip.into() };
        Host { mac: MacAddr::new(mac), ip, port }
    };
    let from = end(packet.src_mac, packet.src, src_port);
    let to = end(packet.dst_mac, packet.dst, packet.dst_port);
    let payload = [&MARK[..], &number.to_be_bytes()].concat();
    match packet.is_tcp {
        // The first one of a connection.
        true => tcp(&from, &to, 0x02, &payload),
        false => udp(&from, &to, &payload),
    }
}

/// A frame of a workload: the packet, the source's port, the number. Anything else is none.
pub(crate) fn read(frame: &[u8]) -> Option<(Packet, u16, u64)> {
    let bytes = |from: usize, len: usize| frame.get(from..from + len);
    let mac = |from| bytes(from, 6)?.try_into().ok();
    let short = |from| Some(u16::from_be_bytes(bytes(from, 2)?.try_into().ok()?));
    let is_ipv6 = match (short(12)?, frame.get(ETHERNET)?) {
        (0x0800, 0x45) => false,
        (0x86dd, first) if first >> 4 == 6 => true,
        _ => return None,
    };
    let ip = |idx: usize| match is_ipv6 {
        true => ipv4(Ipv6Addr::from(<[u8; 16]>::try_from(bytes(ETHERNET + 8 + 16 * idx, 16)?).ok()?)),
        false => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes(ETHERNET + 12 + 4 * idx, 4)?).ok()?)),
    };
    let (protocol, l4) = if is_ipv6 { (6, ETHERNET + IPV6) } else { (9, ETHERNET + IPV4) };
    let protocol = *frame.get(ETHERNET + protocol)?;
    let is_tcp = protocol == 6;
    if !(is_tcp || protocol == 17) {
        return None;
    }
    let header = if is_tcp { usize::from(frame.get(l4 + 12)? >> 4) * 4 } else { UDP };
    let payload = l4 + header;
    if bytes(payload, MARK.len())? != MARK {
        return None;
    }
    let number = u64::from_be_bytes(bytes(payload + MARK.len(), 8)?.try_into().ok()?);
    let packet = Packet {
        dst_mac: mac(0)?,
        src_mac: mac(6)?,
        src: ip(0)?,
        dst: ip(1)?,
        is_ipv6,
        is_tcp,
        dst_port: short(l4 + 2)?,
    };
    Some((packet, short(l4)?, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_again() {
        let packet = Packet {
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: [2, 0, 0, 0, 0, 2],
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            is_ipv6: false,
            is_tcp: false,
            dst_port: 80,
        };
        for (is_ipv6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let packet = Packet { is_ipv6, is_tcp, ..packet };
            let frame = frame(&packet, 999, 0x0102_0304);
            assert_eq!(read(&frame), Some((packet, 999, 0x0102_0304)));
            (0..frame.len()).for_each(|len| assert_eq!(read(&frame[..len]), None));
        }
        assert_eq!(read(b"something else"), None);
    }
}
