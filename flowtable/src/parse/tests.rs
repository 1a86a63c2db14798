//! The parser against etherparse, against frames made from keys, and against nonsense.

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, NetSlice, PacketBuilder,
    SlicedPacket, TransportSlice, VlanId,
};
use proptest::prelude::*;

use super::*;
use crate::{
    build::{self, Host, frame_from_key},
    key::nw_frag,
    testing::{assert_checksums, frame_key, parsed},
    types::{MacAddr, PortNo},
    wire::ip_proto,
};

/// The key's fields that etherparse reads too, read by etherparse.
fn assert_agrees_with_etherparse(frame: &[u8], key: &FlowKey) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let vlans = sliced.vlan_ids();
    let expected: Vec<u16> =
        [key.vlan_tci, key.cvlan_tci].iter().map(|tci| tci.get()).filter(|tci| *tci != 0).collect();
    assert_eq!(
        vlans.iter().map(|id| id.value()).collect::<Vec<_>>(),
        expected.iter().map(|tci| tci & 0xfff).collect::<Vec<_>>()
    );
    match sliced.net.as_ref() {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!(u32::from(header.source_addr()), key.nw_src.get());
            assert_eq!(u32::from(header.destination_addr()), key.nw_dst.get());
            assert_eq!((header.ttl(), header.protocol().0), (key.nw_ttl, key.nw_proto));
            assert_eq!(header.dcp().value() << 2 | header.ecn().value(), key.nw_tos);
            assert_eq!(header.is_fragmenting_payload(), key.nw_frag != 0);
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            assert_eq!(u128::from(header.source_addr()), key.ipv6_src.get());
            assert_eq!(u128::from(header.destination_addr()), key.ipv6_dst.get());
            assert_eq!((header.hop_limit(), header.traffic_class()), (key.nw_ttl, key.nw_tos));
            assert_eq!(header.flow_label().value(), key.ipv6_label.get());
            assert_eq!(ip.is_payload_fragmented(), key.nw_frag != 0);
        }
        Some(NetSlice::Arp(arp)) => {
            assert_eq!(arp.operation().0, u16::from(key.nw_proto));
            assert_eq!((arp.sender_hw_addr(), arp.target_hw_addr()), (&key.arp_sha[..], &key.arp_tha[..]));
            assert_eq!(arp.sender_protocol_addr(), key.nw_src.get().to_be_bytes());
            assert_eq!(arp.target_protocol_addr(), key.nw_dst.get().to_be_bytes());
        }
        None => assert!(
            ![ethertype::IPV4, ethertype::IPV6, ethertype::ARP].contains(&key.eth_type.get()),
            "etherparse knows no L3 of {key:?}"
        ),
    }
    let ports = (key.tp_src.get(), key.tp_dst.get());
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!((tcp.source_port(), tcp.destination_port()), ports);
            let flags = key.tcp_flags.get();
            assert_eq!(
                [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack()],
                [0, 1, 2, 3, 4].map(|bit| flags >> bit & 1 == 1)
            );
        }
        Some(TransportSlice::Udp(udp)) => assert_eq!((udp.source_port(), udp.destination_port()), ports),
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!((u16::from(icmp.type_u8()), u16::from(icmp.code_u8())), ports);
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert_eq!((u16::from(icmp.type_u8()), u16::from(icmp.code_u8())), ports);
        }
        None => {}
    }
}

proptest! {
    #[test]
    fn a_frame_made_from_a_key_parses_to_that_key(key in frame_key(), payload_len in 0_usize..90) {
        let frame = frame_from_key(&key, payload_len);
        let (packet, back) = parsed(&frame);
        prop_assert_eq!(back, key);
        prop_assert!(packet.layout.l3_end as usize <= frame.len());
        // An LLC payload of zeros or a short one is not for etherparse to judge.
        if key.eth_type != ethertype::LLC {
            assert_agrees_with_etherparse(&frame, &key);
            assert_checksums(&frame);
        }
    }

    #[test]
    fn padding_changes_nothing(key in frame_key(), payload_len in 0_usize..20) {
        let mut frame = frame_from_key(&key, payload_len);
        let (tight, expected) = parsed(&frame);
        frame.extend_from_slice(&[0xee; 46]);
        let (padded, back) = parsed(&frame);
        prop_assert_eq!(back, expected);
        if packet_has_length(&key) {
            prop_assert_eq!(padded.layout, tight.layout);
        }
    }

    #[test]
    fn nonsense_is_survived(frame in proptest::collection::vec(any::<u8>(), 0..120), in_port in 0_u32..9) {
        let mut packet = build::packet(&frame, PortNo::new(in_port).unwrap());
        let mut key = FlowKey::zero();
        let result = parse(&mut packet, &mut key);
        prop_assert_eq!(result.is_ok(), frame.len() >= 14);
        prop_assert_eq!(key.in_port.get(), in_port);
    }

    #[test]
    fn damage_is_survived(key in frame_key(), payload_len in 0_usize..60, at: prop::sample::Index, byte: u8) {
        let mut frame = frame_from_key(&key, payload_len);
        let at = at.index(frame.len());
        frame[at] ^= byte;
        let (packet, _) = parsed(&frame);
        let layout = packet.layout;
        prop_assert!(usize::from(layout.l3_end) <= frame.len());
        prop_assert!(layout.l4 <= layout.l3_end);
        prop_assert!(layout.l4 != 0 || layout.l4_proto == 0);
    }

    #[test]
    fn a_truncated_frame_shows_a_prefix_of_its_key(key in frame_key()) {
        let frame = frame_from_key(&key, 8);
        for len in 0..frame.len() {
            let mut packet = build::packet(&frame[..len], PortNo::ZERO);
            let mut cut = FlowKey::zero();
            let result = parse(&mut packet, &mut cut);
            prop_assert_eq!(result.is_err(), len < 14);
            if len >= 14 && packet_has_length(&key) {
                // The IP header says how long the packet is, so nothing of it counts.
                prop_assert_eq!((cut.nw_proto, cut.tp_src.get(), cut.nw_src.get()), (0, 0, 0));
                prop_assert_eq!(packet.layout.l4, 0);
            }
        }
    }

    #[test]
    fn reads_what_etherparse_writes(
        tags in 0_u8..3, vids in any::<[u16; 2]>(), options in 0_usize..11, ttl: u8, ports in any::<[u16; 2]>(),
        src: [u8; 4], dst: [u8; 4], payload in proptest::collection::vec(any::<u8>(), 0..60), kind in 0_u8..3,
    ) {
        let mut ip = Ipv4Header::new(0, ttl, IpNumber(0), src, dst).unwrap();
        ip.options = (&[1; 40][..4 * options]).try_into().unwrap();
        let vid = |idx: usize| VlanId::try_new(vids[idx] & 0xfff).unwrap();
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = IpHeaders::Ipv4(ip, Ipv4Extensions::default());
        let network = match tags {
            0 => link.ip(ip),
            1 => link.single_vlan(vid(0)).ip(ip),
            _ => link.double_vlan(vid(0), vid(1)).ip(ip),
        };
        let mut frame = Vec::new();
        match kind {
            0 => network.udp(ports[0], ports[1]).write(&mut frame, &payload).unwrap(),
            1 => network.tcp(ports[0], ports[1], 7, 9).syn().ack(3).write(&mut frame, &payload).unwrap(),
            _ => network.icmpv4_echo_request(1, 2).write(&mut frame, &payload).unwrap(),
        }
        let (_, key) = parsed(&frame);
        assert_agrees_with_etherparse(&frame, &key);
        prop_assert_eq!(key.nw_src.get(), u32::from_be_bytes(src));
        let tp_src = if kind == 2 { 8 } else { ports[0] };
        prop_assert_eq!(key.tp_src.get(), tp_src);
    }
}

/// Its end is known without counting the frame's bytes.
fn packet_has_length(key: &FlowKey) -> bool {
    matches!(key.eth_type.get(), ethertype::IPV4 | ethertype::IPV6)
}

fn ipv6_frame(extensions: Ipv6Extensions) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0x2e,
        flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
        hop_limit: 9,
        source: [1; 16],
        destination: [2; 16],
        ..Ipv6Header::default()
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ip(IpHeaders::Ipv6(header, extensions))
        .udp(53, 99)
        .write(&mut frame, &[7; 12])
        .unwrap();
    frame
}

#[test]
fn ipv6_extension_headers_are_passed_over() {
    let raw = |len: usize| Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; len]).unwrap();
    let all = Ipv6Extensions {
        hop_by_hop_options: Some(raw(6)),
        destination_options: Some(raw(14)),
        routing: Some(Ipv6RoutingExtensions { routing: raw(22), final_destination_options: Some(raw(6)) }),
        fragment: None,
        auth: None,
    };
    let frame = ipv6_frame(all);
    let (packet, key) = parsed(&frame);
    assert_eq!((key.nw_proto, key.tp_src.get(), key.tp_dst.get(), key.nw_frag), (17, 53, 99, 0));
    assert_eq!((key.nw_tos, key.nw_ttl, key.ipv6_label.get()), (0x2e, 9, 0x12345));
    assert_eq!(usize::from(packet.layout.l4), frame.len() - 20);
    assert_eq!(packet.layout.l4_proto, ip_proto::UDP);
}

#[test]
fn authentication_headers_count_in_words_of_four() {
    let auth = etherparse::IpAuthHeader::new(IpNumber(0), 1, 2, &[0; 12]).unwrap();
    let frame = ipv6_frame(Ipv6Extensions { auth: Some(auth), ..Ipv6Extensions::default() });
    assert_eq!(parsed(&frame).1.tp_dst.get(), 99);
}

#[test]
fn ipv6_fragments_are_told_apart() {
    let frame = |offset, more_fragments| {
        ipv6_frame(Ipv6Extensions {
            fragment: Some(Ipv6FragmentHeader {
                next_header: IpNumber(17),
                fragment_offset: IpFragOffset::try_new(offset).unwrap(),
                more_fragments,
                identification: 5,
            }),
            ..Ipv6Extensions::default()
        })
    };
    let key = |offset, more| parsed(&frame(offset, more)).1;
    // RFC 6946: a fragment by itself is a whole packet.
    let atomic = key(0, false);
    assert_eq!((atomic.nw_frag, atomic.nw_proto, atomic.tp_src.get()), (0, 17, 53));
    let first = key(0, true);
    assert_eq!((first.nw_frag, first.nw_proto, first.tp_src.get()), (nw_frag::ANY, 17, 53));
    for more in [false, true] {
        let later = key(3, more);
        assert_eq!(
            (later.nw_frag, later.nw_proto, later.tp_src.get()),
            (nw_frag::ANY | nw_frag::LATER, 44, 0)
        );
    }
}

#[test]
fn a_chain_that_is_cut_off_has_no_protocol() {
    let mut key = FlowKey::zero();
    key.eth_type.set(ethertype::IPV6);
    key.nw_ttl = 3;
    // A hop-by-hop header that says it is longer than the packet.
    key.nw_proto = ip_proto::HOP_BY_HOP;
    let mut frame = frame_from_key(&key, 16);
    frame[14 + 40..14 + 42].copy_from_slice(&[6, 9]);
    let (packet, cut) = parsed(&frame);
    assert_eq!((cut.nw_proto, cut.nw_ttl), (0, 3));
    assert_eq!((packet.layout.l4, packet.layout.l4_proto), (0, 0));
    // The same one with its right length leads to a TCP header that is cut off.
    frame[14 + 41] = 0;
    let (packet, whole) = parsed(&frame);
    assert_eq!((whole.nw_proto, whole.tp_src.get()), (6, 0));
    assert_eq!((packet.layout.l4, packet.layout.l4_proto), (14 + 48, 0));
}

#[test]
fn ipv4_headers_that_contradict_themselves_count_as_absent() {
    let good = build::udp(&Host::v4(1), &Host::v4(2), b"hello");
    let wrong: [(&str, usize, u8); 5] = [
        ("version", 14, 0x65),
        ("header shorter than 20", 14, 0x44),
        ("header longer than packet", 14, 0x4f),
        ("packet longer than frame", 17, 0xff),
        ("packet shorter than header", 17, 19),
    ];
    for (what, at, byte) in wrong {
        let mut frame = good.clone();
        frame[at] = byte;
        let (packet, key) = parsed(&frame);
        assert_eq!((key.nw_src.get(), key.nw_proto, key.nw_ttl), (0, 0, 0), "{what}");
        assert_eq!(key.eth_type, ethertype::IPV4);
        assert_eq!((packet.layout.l3, packet.layout.l3_end, packet.layout.l4), (14, 0, 0), "{what}");
    }
}

#[test]
fn a_bad_tcp_data_offset_hides_the_ports() {
    let good = build::tcp(&Host::v4(1), &Host::v4(2), 2, b"");
    for offset in [0_u8, 4, 6, 15] {
        let mut frame = good.clone();
        frame[14 + 20 + 12] = offset << 4;
        let (packet, key) = parsed(&frame);
        assert_eq!((key.nw_proto, key.tp_src.get(), key.tcp_flags.get()), (6, 0, 0), "{offset}");
        assert_eq!(packet.layout.l4_proto, 0);
    }
}

#[test]
fn llc_and_snap_are_told_apart() {
    let frame = |body: &[u8]| build::ethernet(MacAddr::BROADCAST, MacAddr::ZERO, 40, body);
    let snap = |tail: [u8; 2]| frame(&[&[0xaa, 0xaa, 3, 0, 0, 0][..], &tail, &[0x45; 30]].concat());
    assert_eq!(parsed(&snap([0x08, 0x00])).1.eth_type, ethertype::IPV4);
    assert_eq!(parsed(&snap([0x08, 0x00])).0.layout.l3, 22);
    assert_eq!(parsed(&snap([0x01, 0x00])).1.eth_type, ethertype::LLC);
    assert_eq!(parsed(&frame(&[0x42, 0x42, 3, 0, 0, 0, 0, 0])).1.eth_type, ethertype::LLC);
    assert_eq!(parsed(&frame(&[0xaa, 0xaa, 3])).1.eth_type, ethertype::LLC);
}

#[test]
fn a_third_tag_is_an_unknown_type() {
    let mut frame = build::udp(&Host::v4(1), &Host::v4(2), b"");
    for vid in [1, 2, 3] {
        frame = build::vlan(&frame, ethertype::VLAN, vid);
    }
    let (_, key) = parsed(&frame);
    assert_eq!((key.vlan_tci.get(), key.cvlan_tci.get()), (0x1003, 0x1002));
    assert_eq!((key.eth_type.get(), key.nw_proto), (ethertype::VLAN, 0));
}

#[test]
fn nd_options_twice_make_the_message_ambiguous() {
    let mut key = FlowKey::zero();
    key.eth_type.set(ethertype::IPV6);
    key.nw_proto = ip_proto::ICMPV6;
    key.tp_src.set(135);
    key.nd_target.set(7);
    key.arp_sha = [1, 2, 3, 4, 5, 6];
    key.nd_options_type = 1;
    let mut frame = frame_from_key(&key, 0);
    assert_eq!(parsed(&frame).1, key);
    let option = frame.split_off(frame.len() - 8);
    frame.extend_from_slice(&[option.clone(), option].concat());
    frame[14 + 5] += 8;
    let ambiguous = parsed(&frame).1;
    assert_eq!((ambiguous.tp_src.get(), ambiguous.nd_target.get(), ambiguous.arp_sha), (135, 0, [0; 6]));
}

#[test]
fn arp_of_other_kinds_and_operations_is_not_read() {
    let good = build::arp(1, &Host::v4(1), &Host::v4(2));
    assert_eq!(parsed(&good).1.nw_proto, 1);
    for (at, byte) in [(15, 6), (17, 1), (18, 8), (19, 16)] {
        let mut frame = good.clone();
        frame[at] = byte;
        assert_eq!(parsed(&frame).1.arp_sha, [0; 6], "byte {at}");
    }
    let mut large = good;
    large[20] = 1;
    assert_eq!(parsed(&large).1.nw_proto, 0);
    assert_ne!(parsed(&large).1.arp_sha, [0; 6]);
}

#[test]
fn frames_beyond_16_bits_are_refused() {
    let mut packet = build::packet(&vec![0; 65_536], PortNo::ZERO);
    assert_eq!(parse(&mut packet, &mut FlowKey::zero()), Err(DropReason::Malformed));
}
