//! Headers that are rare, in frames made by hand.

use super::*;
use crate::{
    build::{self, Host, frame_from_key},
    field::Field,
    testing::parsed,
    types::{MacAddr, PortNo},
    wire::ip_proto,
};

fn frame(eth_type: u16, body: &[u8]) -> Vec<u8> {
    build::ethernet(MacAddr::BROADCAST, MacAddr::ZERO, eth_type, body)
}

/// An IPv6 packet with these bytes behind the fixed header.
fn ipv6(next: u8, payload_len: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&payload_len.to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&[0xfd; 32]);
    packet.extend_from_slice(payload);
    frame(ethertype::IPV6, &packet)
}

#[test]
fn three_labels_are_read_and_a_fourth_is_payload() {
    let label = |n: u32, bottom: u32| (n << 12 | 5 << 9 | bottom << 8 | 64).to_be_bytes();
    let stack = |n: u32| (1..=n).flat_map(|idx| label(idx, u32::from(idx == n))).collect::<Vec<_>>();
    for (n, n_read) in [(1, 1), (2, 2), (3, 3), (4, 3), (9, 3)] {
        let (packet, key) = parsed(&frame(ethertype::MPLS, &[stack(n), vec![0x45; 30]].concat()));
        assert_eq!(usize::from(key.n_mpls), n_read, "{n} labels");
        let labels: Vec<_> = key.mpls.iter().map(|entry| entry.get() >> 12).collect();
        let wanted: Vec<_> = (1..=3).map(|idx| if idx <= n { idx } else { 0 }).collect();
        assert_eq!(labels, wanted);
        assert_eq!((key.get(Field::MplsTc), key.get(Field::MplsTtl)), (5, 64));
        assert_eq!(key.get(Field::MplsBos), u128::from(n == 1));
        assert_eq!(key.mpls.last().map(|entry| entry.get() >> 8 & 1), Some(u32::from(n == 3)));
        assert_eq!((key.nw_proto, packet.layout.l4), (0, 0), "what is below labels is not looked at");
    }
    // The stack ends with the frame.
    let (_, cut) = parsed(&frame(ethertype::MPLS_UPSTREAM, &label(7, 0)));
    assert_eq!((cut.n_mpls, cut.mpls[0].get() >> 12), (1, 7));
    let (packet, none) = parsed(&frame(ethertype::MPLS, &[0, 0, 0]));
    assert_eq!((none.n_mpls, packet.layout.l3_end), (0, 0));
}

#[test]
fn a_mobility_header_is_the_protocol_and_hides_nothing_behind_it() {
    // RFC 6275 §6.1.1: what follows is "no next header", whatever it says.
    let mobility = [ip_proto::TCP, 0, 5, 0, 0, 0, 0, 0];
    let tcp = [0, 80, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0];
    let payload = [&mobility[..], &tcp].concat();
    let (packet, key) = parsed(&ipv6(135, payload.len() as u16, &payload));
    assert_eq!((key.nw_proto, key.tp_src.get(), key.tcp_flags.get()), (135, 0, 0));
    assert_eq!((packet.layout.l4, packet.layout.l4_proto), (54, 0));
    // Behind other extension headers as well.
    let options = [135, 0, 1, 4, 0, 0, 0, 0];
    let payload = [&options[..], &mobility].concat();
    let (_, key) = parsed(&ipv6(ip_proto::DESTINATION_OPTIONS, payload.len() as u16, &payload));
    assert_eq!(key.nw_proto, 135);
}

#[test]
fn a_jumbogram_ends_behind_its_fixed_header() {
    // RFC 2675: the length is 0 and the true one, beyond 65 535, in an option. No frame that
    // can be received is so long, so this one contradicts itself.
    let jumbo = [ip_proto::UDP, 0, 0xc2, 4, 0, 1, 0, 0];
    let udp = [0, 53, 0, 53, 0, 8, 0, 0];
    let (packet, key) = parsed(&ipv6(ip_proto::HOP_BY_HOP, 0, &[&jumbo[..], &udp].concat()));
    assert_eq!((key.nw_proto, key.tp_src.get(), key.nw_ttl), (0, 0, 64));
    assert_eq!((packet.layout.l3_end, packet.layout.l4), (54, 0));
}

#[test]
fn reverse_arp_is_read_like_arp() {
    for op in [3, 4] {
        let mut request = build::arp(op, &Host::v4(1), &Host::v4(2));
        request[12..14].copy_from_slice(&ethertype::RARP.to_be_bytes());
        let (_, key) = parsed(&request);
        assert_eq!((key.eth_type.get(), key.nw_proto), (ethertype::RARP, op));
        assert_eq!((key.nw_src.get(), key.nw_dst.get()), (0x0a00_0001, 0x0a00_0002));
        assert_eq!((key.arp_sha, key.arp_tha[5]), (Host::v4(1).mac.octets(), 2));
    }
}

#[test]
fn types_of_igmp_are_read() {
    // Query, reports of all versions, leave (RFC 3376 §4).
    for kind in [0x11, 0x12, 0x16, 0x22, 0x17] {
        let mut key = FlowKey::zero();
        key.eth_type.set(ethertype::IPV4);
        (key.nw_proto, key.nw_ttl) = (ip_proto::IGMP, 1);
        (key.tp_src, key.tp_dst) = (u16::from(kind).into(), 100.into());
        let message = frame_from_key(&key, 0);
        let (packet, back) = parsed(&message);
        assert_eq!((back, packet.layout.l4_proto), (key, ip_proto::IGMP));
        assert_eq!(message[14 + 20], kind);
        // Eight bytes, or none.
        let mut cut = message;
        cut.truncate(14 + 20 + 7);
        cut[17] -= 1;
        assert_eq!(parsed(&cut).1.tp_src.get(), 0);
    }
}

#[test]
fn snap_of_other_organisations_and_short_lengths_are_llc() {
    let body = |oui: [u8; 3]| [&[0xaa, 0xaa, 3][..], &oui, &[8, 0], &[0x45; 40]].concat();
    assert_eq!(parsed(&frame(48, &body([0, 0, 0]))).1.eth_type, ethertype::IPV4);
    assert_eq!(parsed(&frame(48, &body([0, 0, 0x0c]))).1.eth_type, ethertype::LLC);
    assert_eq!(parsed(&frame(0x05ff, &[0; 46])).1.eth_type, ethertype::LLC);
    assert_eq!(parsed(&frame(0x0600, &[0; 46])).1.eth_type.get(), 0x0600);
    // Tags in front of an 802.3 length.
    let tagged = build::vlan(&frame(48, &body([0, 0, 0])), ethertype::QINQ, 7);
    let (packet, key) = parsed(&tagged);
    assert_eq!((key.vlan_tci.get(), key.eth_type.get(), packet.layout.l3), (0x1007, ethertype::IPV4, 26));
}

#[test]
fn protocols_without_ports_show_none() {
    for proto in [4, 41, 47, 50, 112, 139, 140, 255] {
        let (packet, key) = parsed(&ipv6(proto, 8, &[0xff; 8]));
        assert_eq!((key.nw_proto, key.tp_src.get(), key.tp_dst.get()), (proto, 0, 0));
        assert_eq!((packet.layout.l4, packet.layout.l4_proto), (54, 0));
    }
    let mut packet = build::packet(&[0; 13], PortNo::ZERO);
    assert_eq!(parse(&mut packet, &mut FlowKey::zero()), Err(DropReason::Malformed));
}
