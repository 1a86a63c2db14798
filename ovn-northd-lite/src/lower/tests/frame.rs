//! Frames of the keys that the tests send, byte for byte: what a packet must look like
//! when its key says so, checksums included.

use flowtable::{checksum, field::Field, key::FlowKey};

/// The frame of a key: ARP, ICMP echo, or a neighbour message with one option.
pub(super) fn frame(key: &FlowKey) -> Vec<u8> {
    let mut frame = Vec::new();
    put(&mut frame, key, Field::EthDst, 6);
    put(&mut frame, key, Field::EthSrc, 6);
    let tci = key.get(Field::VlanTci) as u16;
    if tci != 0 {
        frame.extend([0x81, 0]);
        frame.extend((tci & !0x1000).to_be_bytes());
    }
    put(&mut frame, key, Field::EthType, 2);
    match key.get(Field::EthType) {
        0x806 => arp(&mut frame, key),
        0x800 => echo(&mut frame, key),
        0x86dd => neighbour(&mut frame, key),
        other => panic!("no test sends {other:#x}"),
    }
    frame
}

fn put(frame: &mut Vec<u8>, key: &FlowKey, field: Field, len: usize) {
    frame.extend(&key.get(field).to_be_bytes()[16 - len..]);
}

fn arp(frame: &mut Vec<u8>, key: &FlowKey) {
    frame.extend([0, 1, 8, 0, 6, 4, 0]);
    put(frame, key, Field::ArpOp, 1);
    for (field, len) in [(Field::ArpSha, 6), (Field::ArpSpa, 4), (Field::ArpTha, 6), (Field::ArpTpa, 4)] {
        put(frame, key, field, len);
    }
}

fn echo(frame: &mut Vec<u8>, key: &FlowKey) {
    let mut icmp = Vec::new();
    put(&mut icmp, key, Field::IcmpType, 1);
    put(&mut icmp, key, Field::IcmpCode, 1);
    icmp.extend([0, 0, 0x12, 0x34, 0, 1]);
    icmp.extend(b"sixteen bytes...");
    let sum = checksum::of(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45];
    put(&mut ip, key, Field::NwTos, 1);
    ip.extend((20 + icmp.len() as u16).to_be_bytes());
    ip.extend([0x77, 0x77, 0x40, 0]);
    put(&mut ip, key, Field::NwTtl, 1);
    put(&mut ip, key, Field::NwProto, 1);
    ip.extend([0, 0]);
    put(&mut ip, key, Field::NwSrc, 4);
    put(&mut ip, key, Field::NwDst, 4);
    let sum = checksum::of(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    frame.extend(ip);
    frame.extend(icmp);
}

fn neighbour(frame: &mut Vec<u8>, key: &FlowKey) {
    let mut icmp = Vec::new();
    put(&mut icmp, key, Field::Icmpv6Type, 1);
    put(&mut icmp, key, Field::Icmpv6Code, 1);
    icmp.extend([0, 0]);
    put(&mut icmp, key, Field::NdReserved, 4);
    put(&mut icmp, key, Field::NdTarget, 16);
    put(&mut icmp, key, Field::NdOptionsType, 1);
    icmp.push(1);
    let is_solicitation = key.get(Field::Icmpv6Type) == 135;
    put(&mut icmp, key, if is_solicitation { Field::NdSll } else { Field::NdTll }, 6);
    let pseudo = checksum::pseudo_ipv6(key.get(Field::Ipv6Src), key.get(Field::Ipv6Dst), 58, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum().to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    put(frame, key, Field::NwProto, 1);
    put(frame, key, Field::NwTtl, 1);
    put(frame, key, Field::Ipv6Src, 16);
    put(frame, key, Field::Ipv6Dst, 16);
    frame.extend(icmp);
}
