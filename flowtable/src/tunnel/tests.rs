//! Encapsulation and decapsulation against each other, etherparse, and damage.

use std::{net::IpAddr, sync::Arc};

use etherparse::{SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::{
    build::{self, Host, frame_from_key},
    execute::apply,
    offload,
    program::Emit,
    testing::{assert_checksums, frame_key, parsed},
    types::{MacAddr, PortNo},
    wire::ethertype as types,
};

const TUNNEL: u32 = 40;
const VNI_OFFSET: usize = 4;

/// Two hosts of one family and the tunnel as seen from the second.
struct Pair {
    from: Host,
    to: Host,
    kind: TunnelKind,
    options: OptionMap,
}

impl Pair {
    fn all() -> Vec<Self> {
        let pair = |host: fn(u8) -> Host, kind| {
            let options = OptionMap::default();
            Self { from: host(1), to: host(2), kind, options }
        };
        TunnelKind::OF_NETWORKS
            .into_iter()
            .flat_map(|kind| [pair(Host::v4, kind), pair(Host::v6, kind)])
            .collect()
    }

    fn port(&self, local: IpAddr) -> TunnelPort {
        let udp_port = if self.kind == TunnelKind::Geneve { 6081 } else { 4789 };
        TunnelPort { port: PortNo::new(TUNNEL).unwrap(), kind: self.kind, udp_port, local }
    }

    fn underlay(&self) -> Underlay {
        Underlay {
            tunnels: vec![self.port(self.to.ip)],
            peers: [self.from.ip].into(),
            next_hops: Default::default(),
        }
    }

    fn header_len(&self) -> usize {
        let ip = if self.from.ip.is_ipv4() { 20 } else { 40 };
        14 + ip + 8
    }

    fn spec(&self, flags: u16) -> TunnelSpec {
        let mut tun_metadata = [0; TUN_METADATA_LEN];
        tun_metadata[..4].copy_from_slice(&[0, 5, 0, 9]);
        TunnelSpec {
            vni: Vni::new(0xabcdef).unwrap(),
            remote: self.to.ip,
            tos: 0xb8,
            ttl: 0,
            flags,
            policy: GroupPolicy { flags: 0x48, id: 0x1234 },
            tun_metadata_present: OVN_OPTION.bit(),
            tun_metadata,
        }
    }

    /// Encapsulates a frame as the first host would.
    fn wrap(&self, inner: &[u8], flags: u16, flow_hash: u32) -> Packet<Vec<u8>> {
        self.wrap_packet(parsed(inner).0, flags, flow_hash)
    }

    fn wrap_packet(&self, mut packet: Packet<Vec<u8>>, flags: u16, flow_hash: u32) -> Packet<Vec<u8>> {
        let hop = NextHop { port: PortNo::ZERO, src_mac: self.from.mac, dst_mac: self.to.mac };
        let header =
            build_header((&self.spec(flags), &self.options), &self.port(self.from.ip), &hop).unwrap();
        let emit = Emit {
            n_vlan_pops: 0,
            vlan_pushes: Vec::new(),
            edits: Vec::new(),
            tunnel: Some(Arc::new(header)),
            port: PortNo::ZERO,
            extras: None,
            ct: None,
        };
        apply(&mut packet, &emit, flow_hash).unwrap();
        packet
    }

    /// Receives a frame as the second host would.
    fn unwrap(&self, outer: &[u8]) -> Result<(Packet<Vec<u8>>, FlowKey), DropReason> {
        let mut packet = build::packet(outer, PortNo::new(1).unwrap());
        let mut key = FlowKey::zero();
        receive(&mut packet, &mut key, (&self.underlay(), &self.options))?;
        Ok((packet, key))
    }

    /// Corrects the outer checksums after bytes were changed on purpose.
    fn resum(&self, outer: &mut [u8]) {
        let udp = self.header_len() - 8;
        if self.from.ip.is_ipv4() {
            outer[24..26].fill(0);
            let sum = crate::checksum::of(&outer[14..udp]);
            outer[24..26].copy_from_slice(&sum.to_be_bytes());
            outer[udp + 6..udp + 8].fill(0);
        } else {
            let (packet, _) = parsed(outer);
            let pseudo = Headers::of(outer, &packet.layout).pseudo(outer).unwrap();
            outer[udp + 6..udp + 8].fill(0);
            let sum = pseudo.bytes(&outer[udp..]).checksum();
            outer[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(inner in frame_key(), payload_len in 0_usize..90, checksum: bool, flow_hash: u32) {
        let frame = frame_from_key(&inner, payload_len);
        let flags = if checksum { tun_flags::CHECKSUM } else { 0 };
        for pair in Pair::all() {
            let outer = pair.wrap(&frame, flags, flow_hash);
            assert_checksums(outer.bytes());
            let (again, _) = parsed(outer.bytes());
            prop_assert_eq!(again.layout, outer.layout);

            let (packet, key) = pair.unwrap(outer.bytes()).unwrap();
            prop_assert_eq!(packet.bytes(), &frame[..]);
            prop_assert_eq!(packet.in_port.get(), TUNNEL);
            let mut expected = inner;
            expected.in_port.set(TUNNEL);
            expected.tun_id.set(0xabcdef);
            expected.tun_ttl = 64;
            let ip = matches!(inner.eth_type.get(), types::IPV4 | types::IPV6);
            expected.tun_tos = 0xb8 | if ip { inner.nw_tos & 3 } else { 0 };
            let v6 = pair.from.ip.is_ipv6();
            expected.tun_flags.set(
                tun_flags::KEY
                    | if checksum || v6 { tun_flags::CHECKSUM } else { 0 }
                    | if v6 { 0 } else { tun_flags::DONT_FRAGMENT },
            );
            match (pair.from.ip, pair.to.ip) {
                (IpAddr::V4(src), IpAddr::V4(dst)) => {
                    (expected.tun_src, expected.tun_dst) = (src.to_bits().into(), dst.to_bits().into());
                }
                (IpAddr::V6(src), IpAddr::V6(dst)) => {
                    (expected.tun_ipv6_src, expected.tun_ipv6_dst) = (src.to_bits().into(), dst.to_bits().into());
                }
                _ => unreachable!(),
            }
            if pair.kind == TunnelKind::Vxlan {
                (expected.tun_gbp_flags, expected.tun_gbp_id) = (0x48, 0x1234.into());
            } else {
                expected.tun_metadata_present.set(1);
                expected.tun_metadata[..4].copy_from_slice(&[0, 5, 0, 9]);
            }
            prop_assert_eq!(key, expected);
            let spec = TunnelSpec::from_key(&key).unwrap();
            prop_assert_eq!((spec.vni, spec.remote), (pair.spec(0).vni, pair.to.ip));
        }
    }

    #[test]
    fn damage_is_survived_and_mostly_noticed(at in 0_usize..110, bit in 0_u8..8) {
        for pair in Pair::all() {
            let inner = build::udp(&Host::v4(3), &Host::v4(4), &[7; 60]);
            let mut outer = pair.wrap(&inner, tun_flags::CHECKSUM, 1).bytes().to_vec();
            outer[at] ^= 1 << bit;
            let result = pair.unwrap(&outer);
            // IPv4 and UDP checksums leave only Ethernet addresses and the parts of the
            // IPv6 header that no checksum covers.
            let unprotected = at < 12 || pair.from.ip.is_ipv6() && (14..18).contains(&at) || at == 21;
            prop_assert!(unprotected || result.is_err(), "byte {} bit {}", at, bit);
        }
    }

    #[test]
    fn nonsense_is_survived(tail in prop::collection::vec(any::<u8>(), 0..120), keep in 0_usize..60) {
        for pair in Pair::all() {
            let mut outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b""), 0, 1).bytes()[..keep].to_vec();
            outer.extend_from_slice(&tail);
            if let Ok((packet, _)) = pair.unwrap(&outer) {
                prop_assert!(packet.len() <= outer.len());
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for pair in Pair::all() {
        let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), 0, 1);
        for len in 0..outer.len() {
            assert_eq!(pair.unwrap(&outer.bytes()[..len]).err(), Some(DropReason::TunnelMalformed), "{len}");
        }
        // Padding of the outer frame is no part of the inner one.
        let padded = [outer.bytes(), &[0; 9]].concat();
        assert_eq!(pair.unwrap(&padded).unwrap().0.len(), 14 + 20 + 8 + 3);
    }
}

#[test]
fn strangers_and_other_traffic_have_a_name_each() {
    for pair in Pair::all() {
        let frame = build::udp(&Host::v4(3), &Host::v4(4), b"abc");
        let wrapped = pair.wrap(&frame, 0, 1);
        let receive = |underlay: &Underlay, bytes: &[u8]| {
            let mut packet = build::packet(bytes, PortNo::ZERO);
            receive(&mut packet, &mut FlowKey::zero(), (underlay, &pair.options)).err()
        };
        let ours = pair.underlay();
        assert_eq!(receive(&ours, wrapped.bytes()), None);

        let nobody = Underlay { peers: Default::default(), ..ours.clone() };
        assert_eq!(receive(&nobody, wrapped.bytes()), Some(DropReason::TunnelUnknownPeer));
        let elsewhere = Underlay { tunnels: vec![pair.port(pair.from.ip)], ..ours.clone() };
        assert_eq!(receive(&elsewhere, wrapped.bytes()), Some(DropReason::TunnelNotForUs));
        let other_port = TunnelPort { udp_port: 1, ..pair.port(pair.to.ip) };
        let elsewhere = Underlay { tunnels: vec![other_port], ..ours.clone() };
        assert_eq!(receive(&elsewhere, wrapped.bytes()), Some(DropReason::TunnelNotForUs));
        for other in [
            build::arp(1, &Host::v4(1), &Host::v4(2)),
            build::tcp(&pair.from, &pair.to, 2, b""),
            build::icmp_echo(&pair.from, &pair.to, false, 1, 1, b""),
        ] {
            assert_eq!(receive(&ours, &other), Some(DropReason::TunnelNotForUs));
        }
    }
}

#[test]
fn outer_fragments_are_refused() {
    let pair = &Pair::all()[0];
    let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), 0, 1);
    for fragment in [0x2000_u16, 0x0010, 0x2010] {
        let mut bytes = outer.bytes().to_vec();
        bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
        pair.resum(&mut bytes);
        assert_eq!(pair.unwrap(&bytes).err(), Some(DropReason::TunnelMalformed), "{fragment:#x}");
    }
}

#[test]
fn checksums_over_ipv6_may_be_absent_for_vxlan_only() {
    for pair in Pair::all().into_iter().filter(|pair| pair.from.ip.is_ipv6()) {
        let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), 0, 1);
        let mut bytes = outer.bytes().to_vec();
        bytes[54 + 6..54 + 8].fill(0);
        assert_eq!(pair.unwrap(&bytes).is_ok(), pair.kind == TunnelKind::Vxlan);
    }
}

#[test]
fn a_partial_outer_checksum_of_a_local_sender_is_accepted() {
    for pair in Pair::all() {
        let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), tun_flags::CHECKSUM, 1);
        let mut bytes = outer.bytes().to_vec();
        let pseudo = Headers::of(&bytes, &outer.layout).pseudo(&bytes).unwrap().fold();
        let at = pair.header_len() - 2;
        bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        assert!(pair.unwrap(&bytes).is_ok());
        bytes[at] ^= 1;
        assert_eq!(pair.unwrap(&bytes).err(), Some(DropReason::TunnelMalformed));
    }
}

/// A Geneve packet with these options instead of ours, received.
fn with_options(pair: &Pair, options: &[u8]) -> Result<(Packet<Vec<u8>>, FlowKey), DropReason> {
    let packet = with_options_packet(pair, options);
    pair.unwrap(packet.bytes())
}

fn with_options_packet(pair: &Pair, options: &[u8]) -> Packet<Vec<u8>> {
    let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), 0, 1);
    let at = pair.header_len();
    let mut bytes = outer.bytes().to_vec();
    bytes.splice(at + 8..at + 16, options.iter().copied());
    bytes[at] = (options.len() / 4) as u8;
    let more = options.len() as i32 - 8;
    for len_at in [16, at - 4] {
        let len = u16::from_be_bytes([bytes[len_at], bytes[len_at + 1]]);
        let len = (i32::from(len) + more) as u16;
        bytes[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    }
    pair.resum(&mut bytes);
    build::packet(&bytes, PortNo::new(1).unwrap())
}

/// A pair that knows two options more, in fields 1 and 9.
fn with_more_options() -> Pair {
    let mut pair = Pair::all().remove(0);
    for (class, kind, idx) in [(0x0103, 0x81, 9), (0x0103, 0x02, 1)] {
        let option = GeneveOption { class, kind, len: 4, idx };
        pair.options.change(OptionChange::Map(option)).unwrap();
    }
    pair
}

#[test]
fn options_that_have_fields_are_read_and_written() {
    let pair = with_more_options();
    let all = [
        [0x01, 0x02, 0x80, 1, 0, 1, 0, 2],
        [0x01, 0x03, 0x81, 1, 9, 9, 9, 9],
        [0x01, 0x03, 0x02, 1, 1, 1, 1, 1],
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let (_, key) = with_options(&pair, &order.map(|idx| all[idx]).concat()).unwrap();
        assert_eq!(key.tun_metadata_present.get(), 1 << 9 | 1 << 1 | 1);
        assert_eq!(key.tun_metadata[..8], [0, 1, 0, 2, 1, 1, 1, 1]);
        assert_eq!(key.tun_metadata[36..40], [9; 4]);
        // What is found by signatures is told apart by the first two fields.
        let arrival = {
            let mut packet = with_options_packet(&pair, &order.map(|idx| all[idx]).concat());
            unwrap(&mut packet, (&pair.underlay(), &pair.options)).unwrap()
        };
        let mut mask = FlowMask::empty();
        mask.add(Field::TunMetadataPresent, u64::MAX.into());
        mask.add(Field::tun_metadata(1).unwrap(), u32::MAX.into());
        let words = arrival.words();
        let [_, _, present, first] = Arrival::mask_words(&mask);
        assert_eq!(words[2] & present, key.tun_metadata_present.get());
        assert_eq!((words[3] & first).to_ne_bytes(), [0, 0, 0, 0, 1, 1, 1, 1]);
    }
    let twice = with_options(&pair, &[all[1], all[1]].concat());
    assert_eq!(twice.err(), Some(DropReason::TunnelMalformed));
    // Without the map the critical one is refused.
    assert_eq!(with_options(&Pair::all()[0], &all[1]).err(), Some(DropReason::TunnelMalformed));
    // What is written reads back.
    let mut spec = pair.spec(0);
    spec.tun_metadata_present = 1 << 9 | 1 << 1 | 1 << 5;
    spec.tun_metadata[4..8].fill(7);
    spec.tun_metadata[36..40].fill(8);
    let hop = NextHop { port: PortNo::ZERO, src_mac: pair.from.mac, dst_mac: pair.to.mac };
    let header = build_header((&spec, &pair.options), &pair.port(pair.from.ip), &hop).unwrap();
    let geneve = &header.bytes[pair.header_len()..];
    assert_eq!(geneve[..2], [4, 0x40], "two options, one of them critical");
    assert_eq!(geneve[8..], [1, 3, 0x02, 1, 7, 7, 7, 7, 1, 3, 0x81, 1, 8, 8, 8, 8]);
}

#[test]
fn geneve_options_are_read_as_rfc_8926_says() {
    let pair = &Pair::all()[0];
    let present = |options: &[u8]| with_options(pair, options).map(|(_, key)| key.tun_metadata_present.get());
    let ours = [0x01, 0x02, 0x80, 1, 0, 1, 0, 2];
    let unknown = [0x01, 0x03, 0x01, 2, 9, 9, 9, 9, 9, 9, 9, 9];
    assert_eq!(present(&ours), Ok(1));
    assert_eq!(present(&[]), Ok(0));
    assert_eq!(present(&[&unknown[..], &ours].concat()), Ok(1));
    let refused: [(&str, Vec<u8>); 5] = [
        ("unknown and critical", vec![0x01, 0x03, 0x81, 0]),
        ("same class, other critical type", vec![0x01, 0x02, 0x81, 0]),
        ("longer than the options", vec![0x01, 0x03, 0x01, 1]),
        ("ours with a wrong length", vec![0x01, 0x02, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("ours twice", [ours, ours].concat()),
    ];
    for (what, options) in refused {
        assert_eq!(present(&options), Err(DropReason::TunnelMalformed), "{what}");
    }
    // 252 bytes of options are the most there can be.
    let many = [0x01, 0x03, 0x01, 0].repeat(63);
    assert_eq!(present(&many), Ok(0));
}

#[test]
fn tunnel_headers_are_checked() {
    for pair in Pair::all() {
        let outer = pair.wrap(&build::udp(&Host::v4(3), &Host::v4(4), b"abc"), 0, 1);
        let at = pair.header_len();
        let changed = |offset: usize, byte: u8| {
            let mut bytes = outer.bytes().to_vec();
            bytes[at + offset] = byte;
            pair.resum(&mut bytes);
            pair.unwrap(&bytes).map(|(_, key)| (key.tun_id.get(), key.tun_flags.get() & tun_flags::OAM))
        };
        assert_eq!(changed(VNI_OFFSET, 0xff), Ok((0xffcdef, 0)));
        assert_eq!(changed(VNI_OFFSET + 3, 0xff), Ok((0xabcdef, 0)), "reserved bits are ignored");
        match pair.kind {
            TunnelKind::Geneve => {
                assert_eq!(changed(0, 0x42), Err(DropReason::TunnelMalformed), "version");
                assert_eq!(changed(0, 0x3f), Err(DropReason::TunnelMalformed), "options beyond the packet");
                assert_eq!(changed(2, 0x08), Err(DropReason::TunnelMalformed), "not Ethernet");
                assert_eq!(changed(1, 0x80), Ok((0xabcdef, tun_flags::OAM)));
            }
            TunnelKind::Vxlan => {
                assert_eq!(changed(0, 0), Err(DropReason::TunnelMalformed), "no identifier");
                assert_eq!(changed(0, 0x08), Ok((0xabcdef, 0)));
                let mut bytes = outer.bytes().to_vec();
                // The flag that says so is off: what follows is reserved.
                bytes[at] = 0x08;
                pair.resum(&mut bytes);
                let (_, key) = pair.unwrap(&bytes).unwrap();
                assert_eq!((key.tun_gbp_flags, key.tun_gbp_id.get()), (0, 0));
            }
            TunnelKind::Gre => unreachable!("it has no UDP header"),
        }
    }
}

#[test]
fn congestion_marks_move_inside() {
    let inner = |tos: u8, host: fn(u8) -> Host| {
        let (_, mut key) = parsed(&build::tcp(&host(3), &host(4), 0x10, b""));
        key.nw_tos = tos;
        frame_from_key(&key, 5)
    };
    for pair in Pair::all() {
        for host in [Host::v4 as fn(u8) -> Host, Host::v6] {
            for (tos, expected) in [(0x2a, Some(0x2b)), (0x29, Some(0x2b)), (0x2b, Some(0x2b)), (0x28, None)]
            {
                let frame = inner(tos, host);
                let mut outer = pair.wrap(&frame, 0, 1).bytes().to_vec();
                let ecn = parsed(&outer).1.nw_tos & 3;
                assert_eq!(ecn, tos & 3, "the outer header copies the inner mark");
                let edit = FieldEdit { field: Field::NwEcn, value: 3, mask: 3 };
                let (mut congested, _) = parsed(&outer);
                edit_fields(&mut congested, &[edit], 0).unwrap();
                outer = congested.bytes().to_vec();
                match pair.unwrap(&outer) {
                    Ok((packet, key)) => {
                        assert_eq!(Some(key.nw_tos), expected);
                        assert_eq!(parsed(packet.bytes()).1.nw_tos, key.nw_tos);
                        assert_checksums(packet.bytes());
                    }
                    Err(reason) => assert_eq!((expected, reason), (None, DropReason::TunnelMalformed)),
                }
            }
        }
    }
}

#[test]
fn source_ports_are_dynamic_and_spread_flows() {
    let pair = &Pair::all()[0];
    let frame = build::udp(&Host::v4(3), &Host::v4(4), b"abc");
    let port = |flow_hash| {
        let outer = pair.wrap(&frame, 0, flow_hash);
        match SlicedPacket::from_ethernet(outer.bytes()).unwrap().transport {
            Some(TransportSlice::Udp(udp)) => udp.source_port(),
            other => panic!("not UDP: {other:?}"),
        }
    };
    let ports: std::collections::BTreeSet<u16> =
        (0..200_u32).map(|n| port(n.wrapping_mul(0x9e37_79b9))).collect();
    assert!(ports.iter().all(|port| *port >= 32768));
    assert!(ports.len() > 190, "{} ports", ports.len());
    assert_eq!(port(77), port(77));
}

#[test]
fn a_partial_checksum_is_completed_before_it_is_hidden() {
    for pair in Pair::all() {
        let mut frame = build::tcp(&Host::v4(3), &Host::v4(4), 0x18, b"payload");
        let whole = frame.clone();
        let (packet, _) = parsed(&frame);
        let pseudo = Headers::of(&frame, &packet.layout).pseudo(&frame).unwrap().fold();
        frame[34 + 16..34 + 18].copy_from_slice(&pseudo.to_be_bytes());
        let (mut packet, _) = parsed(&frame);
        offload::detect_partial(&mut packet);
        assert!(packet.offload.csum_partial);
        let outer = pair.wrap_packet(packet, 0, 1);
        assert!(!outer.offload.csum_partial);
        assert_eq!(pair.unwrap(outer.bytes()).unwrap().0.bytes(), whole);
    }
}

#[test]
fn headers_need_a_family_and_a_key() {
    let hop = NextHop { port: PortNo::ZERO, src_mac: MacAddr::ZERO, dst_mac: MacAddr::ZERO };
    let [v4, v6] = [Host::v4(1).ip, Host::v6(1).ip];
    let pair = &Pair::all()[0];
    let spec = |remote| TunnelSpec { remote, ..pair.spec(0) };
    assert!(build_header((&spec(v6), &pair.options), &pair.port(v4), &hop).is_none());
    assert!(build_header((&spec(v4), &pair.options), &pair.port(v6), &hop).is_none());

    let mut key = FlowKey::zero();
    assert_eq!(TunnelSpec::from_key(&key), None);
    key.tun_dst.set(1);
    assert!(TunnelSpec::from_key(&key).is_some());
    key.tun_id.set(0x100_0000);
    assert_eq!(TunnelSpec::from_key(&key), None);
}

#[test]
fn packets_beyond_65535_bytes_are_too_big() {
    let pair = &Pair::all()[0];
    let (_, key) = parsed(&build::udp(&Host::v4(3), &Host::v4(4), b""));
    let mut frame = frame_from_key(&key, 65_000);
    frame.resize(65_520, 0);
    let (mut packet, _) = parsed(&frame);
    let hop = NextHop { port: PortNo::ZERO, src_mac: MacAddr::ZERO, dst_mac: MacAddr::ZERO };
    let header = build_header((&pair.spec(0), &pair.options), &pair.port(pair.from.ip), &hop).unwrap();
    let emit = Emit {
        n_vlan_pops: 0,
        vlan_pushes: Vec::new(),
        edits: Vec::new(),
        tunnel: Some(Arc::new(header)),
        port: PortNo::ZERO,
        extras: None,
        ct: None,
    };
    assert_eq!(apply(&mut packet, &emit, 0), Err(DropReason::TooBig));
}
