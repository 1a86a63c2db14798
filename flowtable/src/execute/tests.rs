//! Edits, tags and partial checksums: the result must parse to the edited key, with
//! checksums that others compute from scratch.

use std::{net::IpAddr, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    build::{self, Host, frame_from_key},
    checksum::{pseudo_ipv4, pseudo_ipv6},
    field::Field,
    key::{FlowKey, nw_frag},
    offload,
    program::{Extras, FieldEdit, LabelEdit, TunnelHeader, TunnelKind, VlanTag},
    testing::{assert_checksums, frame_key, parsed},
    types::{PortNo, Vni},
    wire::{ethertype, ip_proto, nd},
};

/// All fields that can be in a frame and be written.
const FRAME_FIELDS: &[Field] = &[
    Field::EthDst,
    Field::EthSrc,
    Field::VlanTci,
    Field::VlanVid,
    Field::VlanPcp,
    Field::VlanVidOxm,
    Field::MplsLabel,
    Field::MplsTc,
    Field::MplsTtl,
    Field::NwSrc,
    Field::NwDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::NwTos,
    Field::IpDscp,
    Field::NwEcn,
    Field::NwTtl,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::Icmpv6Code,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::NdReserved,
];

fn emit(edits: &[FieldEdit]) -> Emit {
    Emit {
        n_vlan_pops: 0,
        vlan_pushes: Vec::new(),
        edits: edits.to_vec(),
        tunnel: None,
        port: PortNo::ZERO,
        extras: None,
        ct: None,
    }
}

fn set(field: Field, value: u128) -> FieldEdit {
    FieldEdit { field, value, mask: field.all_bits() }
}

/// Parses and applies.
fn applied(frame: &[u8], emit: &Emit) -> Packet<Vec<u8>> {
    let (mut packet, _) = parsed(frame);
    assert_eq!(apply(&mut packet, emit, 7), Ok(()));
    packet
}

/// The frame of this key has the field.
fn has(key: &FlowKey, field: Field) -> bool {
    let l4 = |proto| {
        let ip = matches!(key.eth_type.get(), ethertype::IPV4 | ethertype::IPV6);
        ip && key.nw_proto == proto && key.nw_frag & nw_frag::LATER == 0
    };
    let is_nd = l4(ip_proto::ICMPV6) && matches!(key.tp_src.get(), 135 | 136);
    match field {
        Field::EthDst | Field::EthSrc => true,
        Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::VlanVidOxm => key.vlan_tci != 0,
        Field::MplsLabel | Field::MplsTc | Field::MplsTtl => key.eth_type == ethertype::MPLS,
        Field::NwSrc | Field::NwDst => key.eth_type == ethertype::IPV4,
        Field::Ipv6Src | Field::Ipv6Dst | Field::Ipv6Label => key.eth_type == ethertype::IPV6,
        Field::NwTos | Field::IpDscp | Field::NwEcn | Field::NwTtl => {
            matches!(key.eth_type.get(), ethertype::IPV4 | ethertype::IPV6)
        }
        Field::ArpOp | Field::ArpSpa | Field::ArpTpa | Field::ArpSha | Field::ArpTha => {
            matches!(key.eth_type.get(), ethertype::ARP | ethertype::RARP)
        }
        Field::TcpSrc | Field::TcpDst => l4(ip_proto::TCP),
        Field::UdpSrc | Field::UdpDst => l4(ip_proto::UDP),
        Field::SctpSrc | Field::SctpDst => l4(ip_proto::SCTP) && key.nw_frag == 0,
        Field::IcmpType | Field::IcmpCode => key.eth_type == ethertype::IPV4 && l4(ip_proto::ICMP),
        Field::Icmpv6Type | Field::Icmpv6Code => l4(ip_proto::ICMPV6),
        Field::NdTarget | Field::NdReserved => is_nd,
        Field::NdSll => is_nd && key.arp_sha != [0; 6],
        Field::NdTll => is_nd && key.arp_tha != [0; 6],
        _ => false,
    }
}

/// Bits of the field that are on the wire.
fn wire_bits(field: Field) -> u128 {
    match field {
        Field::IcmpType | Field::IcmpCode | Field::Icmpv6Type | Field::Icmpv6Code => 0xff,
        Field::VlanTci | Field::VlanVidOxm => field.all_bits() & !0x1000,
        _ => field.all_bits(),
    }
}

/// Edits of fields that the key's frame has and that leave it the kind of frame it is.
fn edits(key: &FlowKey) -> impl Strategy<Value = Vec<FieldEdit>> + use<> {
    let is_nd = has(key, Field::NdTarget);
    let fields: Vec<Field> = FRAME_FIELDS
        .iter()
        .copied()
        .filter(|field| has(key, *field))
        .filter(|field| !(is_nd && matches!(field, Field::Icmpv6Type | Field::Icmpv6Code)))
        .collect();
    let edit = (prop::sample::select(fields), any::<u128>(), any::<u128>(), any::<bool>()).prop_map(
        |(field, value, mask, whole)| {
            let mask = if whole { field.all_bits() } else { mask & field.all_bits() };
            // A link-layer address of zero, or type 135, would be read as something else.
            let value = match field {
                Field::NdSll | Field::NdTll => value | 1,
                Field::Icmpv6Type => value & !0x80,
                _ => value,
            };
            let mask = match field {
                Field::NdSll | Field::NdTll => mask | 1,
                Field::Icmpv6Type => mask | 0x80,
                _ => mask,
            };
            FieldEdit { field, value, mask }
        },
    );
    prop::collection::vec(edit, 0..6)
}

/// What the edits do to a key.
fn edited(mut key: FlowKey, edits: &[FieldEdit]) -> FlowKey {
    for edit in edits {
        let mask = edit.mask & wire_bits(edit.field);
        key.set(edit.field, key.get(edit.field) & !mask | edit.value & mask);
    }
    key
}

fn key_and_edits() -> impl Strategy<Value = (FlowKey, Vec<FieldEdit>)> {
    frame_key().prop_flat_map(|key| (Just(key), edits(&key)))
}

proptest! {
    #[test]
    fn an_edited_frame_parses_to_the_edited_key((key, edits) in key_and_edits(), payload_len in 0_usize..50) {
        let frame = frame_from_key(&key, payload_len);
        let packet = applied(&frame, &emit(&edits));
        let (again, back) = parsed(packet.bytes());
        prop_assert_eq!(back, edited(key, &edits));
        prop_assert_eq!(again.layout, packet.layout);
        prop_assert_eq!(packet.len(), frame.len());
        if key.eth_type != ethertype::LLC {
            assert_checksums(packet.bytes());
        }
    }

    #[test]
    fn fields_the_frame_does_not_have_are_left_alone(key in frame_key(), value: u128, which: prop::sample::Index) {
        let absent: Vec<Field> = FRAME_FIELDS
            .iter()
            .copied()
            .filter(|field| !has(&key, *field))
            // Refused instead, see below.
            .filter(|field| !(key.nw_proto == ip_proto::SCTP && matches!(field, Field::SctpSrc | Field::SctpDst)))
            .collect();
        let field = absent[which.index(absent.len())];
        let frame = frame_from_key(&key, 30);
        let packet = applied(&frame, &emit(&[set(field, value)]));
        prop_assert_eq!(packet.bytes(), &frame[..]);
    }

    #[test]
    fn tags_move_like_a_stack(
        key in frame_key(), n_pops in 0_u8..3, pushes in prop::collection::vec((any::<bool>(), any::<u16>()), 0..3),
        dst: [u8; 6], vid in 0_u128..4096,
    ) {
        let mut tags: Vec<(u16, u16)> = [(key.cvlan_tpid, key.cvlan_tci), (key.vlan_tpid, key.vlan_tci)]
            .iter()
            .filter(|(_, tci)| *tci != 0)
            .map(|(tpid, tci)| (tpid.get(), tci.get()))
            .collect();
        tags.truncate(tags.len().saturating_sub(usize::from(n_pops)));
        prop_assume!(tags.len() + pushes.len() <= 2);
        if let Some((_, tci)) = tags.last_mut() {
            // The edit is of the outermost tag that stays.
            *tci = *tci & 0xf000 | vid as u16;
        }
        let pushes: Vec<_> = pushes
            .into_iter()
            .map(|(qinq, tci)| VlanTag { tpid: if qinq { ethertype::QINQ } else { ethertype::VLAN }, tci })
            .collect();
        tags.extend(pushes.iter().map(|tag| (tag.tpid, tag.tci | 0x1000)));
        let emit = Emit {
            n_vlan_pops: n_pops,
            vlan_pushes: pushes,
            edits: vec![set(Field::EthDst, u128::from_be_bytes([&[0; 10][..], &dst].concat().try_into().unwrap())), set(Field::VlanVid, vid)],
            tunnel: None,
            port: PortNo::ZERO,
            extras: None,
            ct: None,
        };
        let packet = applied(&frame_from_key(&key, 20), &emit);

        let mut expected = key;
        expected.eth_dst = dst;
        let mut slots = tags.into_iter().rev();
        let (tpid, tci) = slots.next().unwrap_or_default();
        (expected.vlan_tpid, expected.vlan_tci) = (tpid.into(), tci.into());
        let (tpid, tci) = slots.next().unwrap_or_default();
        (expected.cvlan_tpid, expected.cvlan_tci) = (tpid.into(), tci.into());
        let (again, back) = parsed(packet.bytes());
        prop_assert_eq!(back, expected);
        prop_assert_eq!(again.layout, packet.layout);
    }

    #[test]
    fn wrong_checksums_stay_wrong((key, edits) in key_and_edits(), error in 1_u16..) {
        let (mut packet, _) = parsed(&frame_from_key(&key, 30));
        let offset = match (packet.layout.l4_proto, key.nw_frag) {
            (ip_proto::TCP, 0) => 16,
            (ip_proto::ICMP, 0) => 2,
            _ => return Ok(()),
        };
        let at = usize::from(packet.layout.l4) + offset;
        let wrong = |bytes: &mut [u8]| {
            let sum = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&(sum ^ error).to_be_bytes());
        };
        // 0x0000 and 0xffff are the same number.
        let sum = u16::from_be_bytes([packet.bytes()[at], packet.bytes()[at + 1]]);
        prop_assume!((sum ^ error) % 0xffff != sum % 0xffff);
        wrong(packet.bytes_mut());
        apply(&mut packet, &emit(&edits), 0).unwrap();
        let result = std::panic::catch_unwind(|| assert_checksums(packet.bytes()));
        prop_assert!(result.is_err());
    }

    #[test]
    fn nonsense_is_survived(
        mut frame in prop::collection::vec(any::<u8>(), 14..90), eth_type in 0_usize..6, n_vlan_pops in 0_u8..4,
        fields in prop::collection::vec((prop::sample::select(Field::ALL), any::<u128>()), 0..8),
    ) {
        let types = [0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x8847, 0x05dc];
        frame[12..14].copy_from_slice(&types[eth_type].to_be_bytes());
        if let Some(version) = frame.get_mut(14) {
            *version = if eth_type == 0 { 0x45 } else { 0x60 };
        }
        let (mut packet, _) = parsed(&frame);
        let edits: Vec<_> = fields.iter().map(|(field, value)| set(*field, *value)).collect();
        let pushes = vec![VlanTag { tpid: 0x8100, tci: 1 }];
        let emit = Emit { n_vlan_pops, vlan_pushes: pushes, edits, tunnel: None, port: PortNo::ZERO, extras: None, ct: None };
        let supported = fields.iter().all(|(field, _)| FRAME_FIELDS.contains(field) || *field == Field::NdOptionsType);
        let result = apply(&mut packet, &emit, 0);
        prop_assert!(supported || result.is_err());
    }
}

#[test]
fn a_solicitation_becomes_its_advertisement() {
    let mut key = FlowKey::zero();
    key.eth_type.set(ethertype::IPV6);
    (key.nw_proto, key.nw_ttl) = (ip_proto::ICMPV6, 255);
    (key.ipv6_src, key.ipv6_dst, key.nd_target) = (1.into(), 2.into(), 2.into());
    key.tp_src.set(135);
    (key.arp_sha, key.nd_options_type) = ([1; 6], nd::SOURCE_LINK);
    // The address before the type of the option: the order of the fields' declaration.
    let edits = [
        set(Field::Icmpv6Type, 136),
        set(Field::NdTll, 0x0a00_0000_0001),
        set(Field::NdReserved, 0x6000_0000),
        set(Field::NdOptionsType, 2),
    ];
    let packet = applied(&frame_from_key(&key, 0), &emit(&edits));
    let (_, back) = parsed(packet.bytes());
    assert_eq!((back.tp_src.get(), back.arp_sha, back.arp_tha), (136, [0; 6], [0x0a, 0, 0, 0, 0, 1]));
    assert_eq!((back.nd_reserved.get(), back.nd_options_type), (0x6000_0000, nd::TARGET_LINK));
    assert_checksums(packet.bytes());
}

#[test]
fn sctp_ports_of_fragments_are_refused() {
    let mut key = FlowKey::zero();
    key.eth_type.set(ethertype::IPV4);
    (key.nw_proto, key.nw_frag) = (ip_proto::SCTP, nw_frag::ANY);
    let (mut packet, _) = parsed(&frame_from_key(&key, 64));
    assert_eq!(apply(&mut packet, &emit(&[set(Field::SctpDst, 1)]), 0), Err(DropReason::Unsupported));
}

#[test]
fn metadata_is_not_in_frames() {
    let (mut packet, _) = parsed(&build::udp(&Host::v4(1), &Host::v4(2), b""));
    for field in [Field::Reg0, Field::TunId, Field::CtMark, Field::TcpFlags, Field::NwProto] {
        assert_eq!(apply(&mut packet, &emit(&[set(field, 1)]), 0), Err(DropReason::Unsupported), "{field}");
    }
}

#[test]
fn a_udp_checksum_is_never_computed_to_zero() {
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"abc");
    let mut n_ones = 0;
    for port in 0..=u16::MAX {
        let packet = applied(&frame, &emit(&[set(Field::UdpSrc, port.into())]));
        let sum = &packet.bytes()[14 + 20 + 6..][..2];
        assert_ne!(sum, [0, 0], "port {port}");
        if sum == [0xff, 0xff] {
            n_ones += 1;
            assert_checksums(packet.bytes());
        }
    }
    assert!(n_ones >= 1);
}

#[test]
fn an_absent_udp_checksum_stays_absent() {
    let mut frame = build::udp(&Host::v4(1), &Host::v4(2), b"abc");
    frame[40..42].fill(0);
    let packet = applied(&frame, &emit(&[set(Field::UdpSrc, 5), set(Field::NwDst, 9)]));
    assert_eq!(packet.bytes()[40..42], [0, 0]);
    assert_checksums(packet.bytes());
}

#[test]
fn later_fragments_keep_their_payload() {
    for eth_type in [ethertype::IPV4, ethertype::IPV6] {
        let mut key = FlowKey::zero();
        key.eth_type.set(eth_type);
        key.nw_frag = nw_frag::ANY | nw_frag::LATER;
        key.nw_proto = if eth_type == ethertype::IPV4 { ip_proto::TCP } else { ip_proto::FRAGMENT };
        let frame = frame_from_key(&key, 60);
        let edits =
            [Field::NwSrc, Field::Ipv6Dst, Field::TcpDst, Field::UdpDst].map(|field| set(field, 0xabcd));
        let packet = applied(&frame, &emit(&edits));
        assert_eq!(packet.bytes()[frame.len() - 60..], frame[frame.len() - 60..]);
        assert_ne!(packet.bytes(), frame);
        assert_checksums(packet.bytes());
    }
}

#[test]
fn the_destination_of_a_routed_packet_is_not_in_its_checksum() {
    let udp = build::udp(&Host::v6(1), &Host::v6(2), b"abcd");
    for (segments_left, covered) in [(1, false), (0, true)] {
        let mut frame = udp.clone();
        let routing: [u8; 8] = [ip_proto::UDP, 0, 4, segments_left, 0, 0, 0, 0];
        frame[14 + 6] = ip_proto::ROUTING;
        frame[14 + 5] += 8;
        frame.splice(54..54, routing);
        let packet = applied(&frame, &emit(&[set(Field::Ipv6Dst, 77)]));
        let sum = |bytes: &[u8]| bytes[54 + 8 + 6..][..2].to_vec();
        assert_eq!(sum(packet.bytes()) != sum(&frame), covered);
        assert_eq!(parsed(packet.bytes()).1.ipv6_dst.get(), 77);
    }
}

#[test]
fn headroom_runs_out_with_a_name() {
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"");
    let mut packet = Packet::new(frame.clone(), 0, frame.len(), PortNo::ZERO);
    crate::parse::parse(&mut packet, &mut FlowKey::zero()).unwrap();
    let push = Emit { vlan_pushes: vec![VlanTag { tpid: 0x8100, tci: 1 }], ..emit(&[]) };
    assert_eq!(apply(&mut packet, &push, 0), Err(DropReason::NoHeadroom));
    let header = TunnelHeader {
        kind: TunnelKind::Vxlan,
        vni: Vni::new(1).unwrap(),
        remote: Host::v4(1).ip,
        bytes: vec![0; 50],
        tunnel_port: PortNo::ZERO,
    };
    let tunnel = Emit { tunnel: Some(Arc::new(header)), ..emit(&[]) };
    assert_eq!(apply(&mut packet, &tunnel, 0), Err(DropReason::NoHeadroom));
}

/// A frame as a veth hands it over: the checksum is that of the pseudo header.
fn partial(from: &Host, to: &Host, proto: u8) -> Vec<u8> {
    let (mut frame, offset) = match proto {
        ip_proto::TCP => (build::tcp(from, to, 0x18, b"some payload"), 16),
        _ => (build::udp(from, to, b"some payload"), 6),
    };
    let (packet, key) = parsed(&frame);
    let l4 = usize::from(packet.layout.l4);
    let len = frame.len() - l4;
    let pseudo = match from.ip {
        IpAddr::V4(_) => pseudo_ipv4(key.nw_src.get(), key.nw_dst.get(), proto, len),
        IpAddr::V6(_) => pseudo_ipv6(key.ipv6_src.get(), key.ipv6_dst.get(), proto, len),
    };
    frame[l4 + offset..l4 + offset + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
    frame
}

#[test]
fn partial_checksums_survive_every_edit() {
    for (from, to) in [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))] {
        for proto in [ip_proto::TCP, ip_proto::UDP] {
            for edits in [
                vec![],
                vec![set(Field::NwSrc, 0xc0a8_0001), set(Field::NwTtl, 3)],
                vec![set(Field::Ipv6Src, 0xffff_0000_ffff_1234 << 64), set(Field::Ipv6Dst, 1)],
                vec![
                    set(Field::TcpDst, 443),
                    set(Field::UdpDst, 53),
                    set(Field::NwDst, 1),
                    set(Field::NwTos, 4),
                ],
            ] {
                let (mut packet, key) = parsed(&partial(&from, &to, proto));
                offload::detect_partial(&mut packet);
                assert!(packet.offload.csum_partial);
                let retag = Emit { vlan_pushes: vec![VlanTag { tpid: 0x8100, tci: 5 }], ..emit(&edits) };
                apply(&mut packet, &retag, 0).unwrap();
                assert!(packet.offload.csum_partial);
                assert_eq!(packet.offload.csum_start, packet.layout.l4);

                // It is still what a device would expect, to be found again.
                let (mut found, back) = parsed(packet.bytes());
                offload::detect_partial(&mut found);
                assert_eq!(found.offload, packet.offload);

                offload::complete(&mut packet);
                assert!(!packet.offload.csum_partial);
                assert_checksums(packet.bytes());
                let applicable: Vec<_> = edits.iter().copied().filter(|edit| has(&key, edit.field)).collect();
                let mut expected = edited(key, &applicable);
                (expected.vlan_tpid, expected.vlan_tci) = (0x8100.into(), 0x1005.into());
                assert_eq!(back, expected);
            }
        }
    }
}

#[test]
fn whole_checksums_are_not_taken_for_partial_ones() {
    for (from, to) in [(Host::v4(1), Host::v4(2)), (Host::v6(1), Host::v6(2))] {
        for frame in [
            build::tcp(&from, &to, 2, b"x"),
            build::udp(&from, &to, b"x"),
            build::icmp_echo(&from, &to, false, 1, 2, b"x"),
        ] {
            let (mut packet, _) = parsed(&frame);
            offload::detect_partial(&mut packet);
            assert!(!packet.offload.csum_partial);
            offload::complete(&mut packet);
            assert_eq!(packet.bytes(), frame);
        }
    }
}

#[test]
fn a_whole_checksum_that_looks_partial_is_completed_to_itself() {
    let (from, to) = (Host::v4(1), Host::v4(2));
    let n_found = (0..=u16::MAX)
        .filter(|word| {
            let frame = build::udp(&from, &to, &word.to_be_bytes());
            let (mut packet, _) = parsed(&frame);
            offload::detect_partial(&mut packet);
            let found = packet.offload.csum_partial;
            offload::complete(&mut packet);
            assert_eq!(packet.bytes(), frame, "{word:#x}");
            found
        })
        .count();
    assert!(n_found >= 1);
}

#[test]
fn fragments_have_no_partial_checksum() {
    let mut frame = partial(&Host::v4(1), &Host::v4(2), ip_proto::UDP);
    frame[14 + 6] = 0x20;
    let (mut packet, _) = parsed(&frame);
    offload::detect_partial(&mut packet);
    assert!(!packet.offload.csum_partial);
}

#[test]
fn a_missing_sctp_checksum_is_computed() {
    let mut key = FlowKey::zero();
    key.eth_type.set(ethertype::IPV4);
    key.nw_proto = ip_proto::SCTP;
    let frame = frame_from_key(&key, 33);
    let mut missing = frame.clone();
    missing[34 + 8..34 + 12].fill(0);
    let (mut packet, _) = parsed(&missing);
    offload::detect_partial(&mut packet);
    assert_eq!(packet.bytes(), frame);
    assert!(!packet.offload.csum_partial);
}

#[test]
fn mac_addresses_are_edited_by_masked_bits() {
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"");
    let edit = FieldEdit { field: Field::EthDst, value: u128::MAX, mask: 0xff };
    let packet = applied(&frame, &emit(&[edit]));
    assert_eq!(packet.bytes()[..6], [0x0a, 0, 0, 0, 0, 0xff]);
}

/// What a copy with these labels instead of the received ones is.
fn relabelled(n_pops: u8, pushes: Vec<u32>, eth_type: u16) -> Emit {
    let labels = Some(LabelEdit { n_pops, pushes, eth_type });
    Emit { extras: Some(Box::new(Extras { labels, ..Extras::default() })), ..emit(&[]) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Labels go behind the tags and in front of the packet; taking them off again gives
    /// the frame that was.
    #[test]
    fn labels_come_and_go(key in frame_key(), pushes in proptest::collection::vec(any::<u32>(), 1..4)) {
        let frame = frame_from_key(&key, 20);
        let (_, key) = parsed(&frame);
        prop_assume!(key.eth_type.get() >= 0x600);
        let below = usize::from(key.n_mpls);
        // Only the innermost label of a packet that had none is the bottom.
        let bottom = if below == 0 { 0x100 } else { 0 };
        let mut pushes: Vec<u32> = pushes.iter().map(|entry| entry & !0x100).collect();
        pushes[0] |= bottom;
        let n = pushes.len();
        let labelled = applied(&frame, &relabelled(0, pushes.clone(), 0x8847));
        let (_, seen) = parsed(labelled.bytes());
        prop_assert_eq!(seen.eth_type.get(), 0x8847);
        prop_assert_eq!((seen.vlan_tci, seen.cvlan_tci, seen.eth_dst), (key.vlan_tci, key.cvlan_tci, key.eth_dst));
        let stack: Vec<u32> =
            pushes.iter().rev().copied().chain(key.mpls.iter().take(below).map(|entry| entry.get())).collect();
        let depth = stack.len().min(3);
        prop_assert_eq!(usize::from(seen.n_mpls), depth);
        prop_assert_eq!(seen.mpls.iter().take(depth).map(|entry| entry.get()).collect::<Vec<_>>(), &stack[..depth]);
        prop_assert_eq!(labelled.layout, parsed(labelled.bytes()).0.layout);
        let back = applied(labelled.bytes(), &relabelled(n as u8, vec![], key.eth_type.get()));
        prop_assert_eq!(back.bytes(), &frame[..]);
        // In one step: others in their place.
        let swapped = applied(labelled.bytes(), &relabelled(n as u8, vec![0x1_0140], 0x8847));
        let at_once = applied(&frame, &relabelled(0, vec![0x1_0140], 0x8847));
        prop_assert_eq!(swapped.bytes(), at_once.bytes());
    }

    /// A frame that is cut keeps its start, and its length where it is short enough.
    #[test]
    fn cut_frames_keep_their_start(key in frame_key(), max_len in 14_u32..120) {
        let frame = frame_from_key(&key, 20);
        let extras = Some(Box::new(Extras { max_len: Some(max_len), ..Extras::default() }));
        let cut = applied(&frame, &Emit { extras, ..emit(&[]) });
        prop_assert_eq!(cut.bytes(), &frame[..frame.len().min(max_len as usize)]);
    }
}

#[test]
fn labels_that_are_not_there_or_do_not_fit_are_drops() {
    let frame = build::udp(&Host::v4(1), &Host::v4(2), b"x");
    let (mut packet, _) = parsed(&frame);
    assert_eq!(apply(&mut packet, &relabelled(200, vec![], 0x0800), 0), Err(DropReason::Malformed));
    let mut full = Packet::new(frame.clone(), 0, frame.len(), PortNo::ZERO);
    crate::parse::parse(&mut full, &mut FlowKey::zero()).unwrap();
    assert_eq!(apply(&mut full, &relabelled(0, vec![1], 0x8847), 0), Err(DropReason::NoHeadroom));
}
