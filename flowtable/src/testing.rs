//! What several test modules need: random keys that some frame can have, and a check of
//! all checksums by a parser that is not ours.

use etherparse::{IpPayloadSlice, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use crate::{
    crc32c,
    drop::DropReason,
    key::{FlowKey, nw_frag},
    packet::Packet,
    types::PortNo,
    wire::{ethertype, ip_proto, nd},
};

/// Rules, groups and meters of a file of `testdata/tables/`.
pub(crate) fn rules_of(file: &str) -> Vec<&str> {
    file.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '>'])).collect()
}

/// Parses a frame that is known to have an Ethernet header.
pub(crate) fn parsed(frame: &[u8]) -> (Packet<Vec<u8>>, FlowKey) {
    let mut packet = crate::build::packet(frame, PortNo::ZERO);
    let mut key = FlowKey::zero();
    assert_eq!(crate::parse::parse(&mut packet, &mut key), Ok::<(), DropReason>(()));
    (packet, key)
}

/// Keys of frames: any mixture of tags, ARP, MPLS, IPv4 and IPv6 with fragments, TCP,
/// UDP, SCTP, ICMP, IGMP, ICMPv6 with ND, and others.
pub(crate) fn frame_key() -> impl Strategy<Value = FlowKey> {
    let l2 = (any::<[u8; 6]>(), any::<[u8; 6]>(), 0_u8..3, any::<[u16; 2]>(), any::<[bool; 2]>());
    let l3 = (0_u8..8, any::<[u32; 2]>(), any::<[u128; 2]>(), any::<[u8; 2]>(), any::<u32>());
    let l4 = (0_u8..8, any::<[u16; 2]>(), any::<u16>(), 0_u8..5, any::<[[u8; 6]; 2]>(), any::<u128>());
    (l2, l3, l4).prop_map(|((dst, src, n_tags, tcis, qinq), l3, l4)| {
        let mut key = FlowKey::zero();
        (key.eth_dst, key.eth_src) = (dst, src);
        let tpid = |qinq| if qinq { ethertype::QINQ } else { ethertype::VLAN };
        if n_tags > 0 {
            key.vlan_tpid.set(tpid(qinq[0]));
            key.vlan_tci.set(tcis[0] | 0x1000);
        }
        if n_tags > 1 {
            key.cvlan_tpid.set(tpid(qinq[1]));
            key.cvlan_tci.set(tcis[1] | 0x1000);
        }
        fill_l3(&mut key, l3, l4);
        key
    })
}

type L3 = (u8, [u32; 2], [u128; 2], [u8; 2], u32);
type L4 = (u8, [u16; 2], u16, u8, [[u8; 6]; 2], u128);

fn fill_l3(key: &mut FlowKey, l3: L3, l4: L4) {
    let (kind, v4, v6, [tos, ttl], word) = l3;
    match kind {
        0 => key.eth_type.set(ethertype::LLC),
        1 => key.eth_type.set(0x88b5),
        2 => {
            key.eth_type.set(ethertype::MPLS);
            key.n_mpls = 1 + (ttl & 1);
            let bottom = usize::from(key.n_mpls) - 1;
            for (idx, label) in key.mpls.iter_mut().take(bottom + 1).enumerate() {
                label.set(v4[0].rotate_left(idx as u32) & !0x100 | if idx == bottom { 0x100 } else { 0 });
            }
        }
        3 => {
            key.eth_type.set(if ttl & 1 == 0 { ethertype::ARP } else { ethertype::RARP });
            (key.nw_src, key.nw_dst) = (v4[0].into(), v4[1].into());
            key.nw_proto = tos;
            [key.arp_sha, key.arp_tha] = l4.4;
        }
        _ => {
            let ipv4 = kind < 6;
            (key.nw_tos, key.nw_ttl) = (tos, ttl);
            if ipv4 {
                key.eth_type.set(ethertype::IPV4);
                (key.nw_src, key.nw_dst) = (v4[0].into(), v4[1].into());
            } else {
                key.eth_type.set(ethertype::IPV6);
                (key.ipv6_src, key.ipv6_dst) = (v6[0].into(), v6[1].into());
                key.ipv6_label.set(word & 0xf_ffff);
            }
            fill_l4(key, ipv4, word, l4);
        }
    }
}

fn fill_l4(key: &mut FlowKey, ipv4: bool, word: u32, l4: L4) {
    let (kind, [src, dst], flags, frag, links, target) = l4;
    key.nw_frag = match frag {
        0 => nw_frag::ANY,
        1 => nw_frag::ANY | nw_frag::LATER,
        _ => 0,
    };
    let icmp = if ipv4 { ip_proto::ICMP } else { ip_proto::ICMPV6 };
    key.nw_proto = match kind {
        0 | 1 => ip_proto::TCP,
        2 | 3 => ip_proto::UDP,
        4 => ip_proto::SCTP,
        5 | 6 => icmp,
        _ if ipv4 => ip_proto::IGMP,
        _ => 47,
    };
    if key.nw_frag & nw_frag::LATER != 0 {
        if !ipv4 {
            key.nw_proto = ip_proto::FRAGMENT;
        }
        return;
    }
    match key.nw_proto {
        47 => {}
        ip_proto::ICMPV6 if kind == 5 => {
            key.tp_src.set(if src & 1 == 0 { nd::SOLICITATION } else { nd::ADVERTISEMENT }.into());
            key.nd_reserved.set(word);
            key.nd_target = target.into();
            [key.arp_sha, key.arp_tha] = links;
            if flags & 1 == 0 {
                key.arp_sha = [0; 6];
            }
            if flags & 2 == 0 {
                key.arp_tha = [0; 6];
            }
            let first = match (key.arp_sha != [0; 6], key.arp_tha != [0; 6]) {
                (true, true) => 1 + (flags >> 2 & 1) as u8,
                (true, false) => nd::SOURCE_LINK,
                (false, true) => nd::TARGET_LINK,
                (false, false) => 0,
            };
            key.nd_options_type = first;
        }
        ip_proto::ICMP | ip_proto::IGMP | ip_proto::ICMPV6 => {
            // Not neighbour discovery.
            key.tp_src.set(src & 0x7f);
            key.tp_dst.set(dst & 0xff);
        }
        proto => {
            (key.tp_src, key.tp_dst) = (src.into(), dst.into());
            if proto == ip_proto::TCP {
                key.tcp_flags.set(flags & 0xfff);
            }
        }
    }
}

/// Panics when a checksum in the frame is not what etherparse (for SCTP: a whole CRC)
/// makes of it. Fragments have only their IP header checked.
pub(crate) fn assert_checksums(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    match &sliced.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum(), "IPv4 header");
            let (src, dst) = (header.source(), header.destination());
            match &sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    assert_eq!(Ok(tcp.checksum()), tcp.calc_checksum_ipv4(src, dst).map_err(|_| ()), "TCP");
                }
                Some(TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
                    let sum = udp.to_header().calc_checksum_ipv4_raw(src, dst, udp.payload());
                    assert_eq!(Ok(udp.checksum()), sum.map_err(|_| ()), "UDP");
                }
                Some(TransportSlice::Icmpv4(icmp)) => {
                    assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()), "ICMP");
                }
                _ => {}
            }
            assert_sctp(ip.payload());
        }
        Some(NetSlice::Ipv6(ip)) => {
            let (src, dst) = (ip.header().source(), ip.header().destination());
            match &sliced.transport {
                Some(TransportSlice::Tcp(tcp)) => {
                    assert_eq!(Ok(tcp.checksum()), tcp.calc_checksum_ipv6(src, dst).map_err(|_| ()), "TCP");
                }
                Some(TransportSlice::Udp(udp)) if udp.checksum() != 0 => {
                    let sum = udp.to_header().calc_checksum_ipv6_raw(src, dst, udp.payload());
                    assert_eq!(Ok(udp.checksum()), sum.map_err(|_| ()), "UDP");
                }
                Some(TransportSlice::Icmpv6(icmp)) => assert!(icmp.is_checksum_valid(src, dst), "ICMPv6"),
                _ => {}
            }
            assert_sctp(ip.payload());
        }
        _ => {}
    }
}

fn assert_sctp(payload: &IpPayloadSlice) {
    if payload.ip_number.0 == ip_proto::SCTP && !payload.fragmented && payload.payload.len() >= 12 {
        let (header, chunks) = payload.payload.split_at(12);
        let crc = crc32c::of([&header[..8], &[0; 4], chunks]);
        assert_eq!(header[8..], crc.to_le_bytes(), "SCTP");
    }
}
