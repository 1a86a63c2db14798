//! Frames that tell a network where an address is now, so that its switches and hosts need
//! not find out by losing packets: gratuitous ARP (RFC 5227 §3), an unsolicited neighbour
//! advertisement (RFC 4861 §7.2.6), RARP for who has no IP address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flowtable::{checksum, types::MacAddr};

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
/// Operations: request (RFC 826), request reverse (RFC 903).
const REQUEST: u8 = 1;
const REVERSE: u8 = 3;
/// All nodes of the link (RFC 4291 §2.7.1), and their Ethernet address (RFC 2464 §7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The frame for an address.
pub(super) fn frame(mac: MacAddr, ip: Option<IpAddr>) -> Vec<u8> {
    match ip {
        Some(IpAddr::V4(ip)) => arp(mac, ARP, REQUEST, ip, [0; 6]),
        Some(IpAddr::V6(ip)) => advertisement(mac, ip),
        None => arp(mac, RARP, REVERSE, Ipv4Addr::UNSPECIFIED, mac.octets()),
    }
}

fn arp(mac: MacAddr, eth_type: u16, operation: u8, ip: Ipv4Addr, target: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.octets());
    frame.extend(eth_type.to_be_bytes());
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac.octets());
    frame.extend(ip.octets());
    frame.extend(target);
    frame.extend(ip.octets());
    frame
}

fn advertisement(mac: MacAddr, ip: Ipv6Addr) -> Vec<u8> {
    // Override, not solicited; the target's link-layer address.
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(ip.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac.octets());
    let pseudo = checksum::pseudo_ipv6(ip.into(), ALL_NODES.into(), 58, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum().to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let mut frame = ALL_NODES_MAC.to_vec();
    frame.extend(mac.octets());
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 255]);
    frame.extend(ip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_what_others_read_in_them() {
        let mac: MacAddr = "0a:00:00:00:00:05".parse().unwrap();
        let packet = |ip: Option<&str>| frame(mac, ip.map(|ip| ip.parse().unwrap()));
        let garp = packet(Some("192.0.2.5"));
        assert_eq!(garp.len(), 42);
        assert_eq!(
            (&garp[12..14], &garp[28..32], &garp[38..42]),
            (&[8, 6][..], &[192, 0, 2, 5][..], &garp[28..32])
        );
        let rarp = packet(None);
        assert_eq!((&rarp[12..14], rarp[21], &rarp[32..38]), (&[0x80, 0x35][..], 3, &mac.octets()[..]));
        let na = packet(Some("2001:db8::5"));
        let parsed = rest_of_checksum(&na);
        assert_eq!(parsed, 0, "the ICMPv6 checksum holds");
    }

    /// What is left of an ICMPv6 message's checksum when it is summed with its pseudo header.
    fn rest_of_checksum(frame: &[u8]) -> u16 {
        let address = |at: usize| <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap();
        let (from, to) = (Ipv6Addr::from(address(22)), Ipv6Addr::from(address(38)));
        let icmp = &frame[54..];
        checksum::pseudo_ipv6(from.into(), to.into(), 58, icmp.len()).bytes(icmp).checksum()
    }
}
