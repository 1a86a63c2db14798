//! TCP, UDP and SCTP ports, TCP flags; ICMP is next door.

use zerocopy::FromBytes;

use super::icmp;
use crate::{
    key::FlowKey,
    wire::{Sctp, Tcp, Udp, ethertype, ip_proto},
};

/// Reads the header at the start of `segment`. False when it is cut off, contradicts
/// itself or is none the switch knows; then the key is as before.
pub(super) fn parse(segment: &[u8], proto: u8, key: &mut FlowKey) -> bool {
    let ipv4 = key.eth_type == ethertype::IPV4;
    match proto {
        ip_proto::TCP => tcp(segment, key),
        ip_proto::UDP => Udp::ref_from_prefix(segment).is_ok_and(|(udp, _)| {
            key.tp_src = udp.src;
            key.tp_dst = udp.dst;
            true
        }),
        ip_proto::SCTP => Sctp::ref_from_prefix(segment).is_ok_and(|(sctp, _)| {
            key.tp_src = sctp.src;
            key.tp_dst = sctp.dst;
            true
        }),
        ip_proto::ICMP | ip_proto::IGMP if ipv4 => icmp::parse_v4(segment, key),
        ip_proto::ICMPV6 if !ipv4 => icmp::parse_v6(segment, key),
        _ => false,
    }
}

fn tcp(segment: &[u8], key: &mut FlowKey) -> bool {
    let Ok((tcp, _)) = Tcp::ref_from_prefix(segment) else { return false };
    let header_len = usize::from(tcp.control.get() >> 12) * 4;
    if header_len < Tcp::LEN || header_len > segment.len() {
        return false;
    }
    key.tp_src = tcp.src;
    key.tp_dst = tcp.dst;
    key.tcp_flags.set(tcp.control.get() & 0xfff);
    true
}
