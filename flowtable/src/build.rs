//! Makes frames: for tests, benches, traces and demos. Checksums and lengths are right;
//! speed is no concern here.
//!
//! [`Host`]s send to each other by [`udp`], [`tcp`], [`icmp_echo`], [`arp`]; [`vlan`] adds
//! a tag. [`frame_from_key`] makes a frame of a flow's description.

use std::net::{IpAddr, Ipv4Addr};

use zerocopy::IntoBytes;

use crate::{
    checksum::{Sum, pseudo_ipv4, pseudo_ipv6},
    crc32c,
    key::{FlowKey, N_MPLS, nw_frag},
    packet::{HEADROOM, Packet},
    types::{MacAddr, PortNo},
    wire::{
        Arp, Ethernet, Icmp, Ipv4, Ipv6, Ipv6Fragment, Sctp, Tag, Tcp, Udp, ethertype, ip_proto,
        ipv4_fragment, nd,
    },
};

/// Fragment offset of later fragments, in units of 8 bytes: a full frame's worth.
const LATER_OFFSET: u16 = 185;

/// Largest payload of [`frame_from_key`]: any headers fit into 65 535 bytes with it.
pub const MAX_PAYLOAD: usize = 65_000;

/// One end of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// MAC address.
    pub mac: MacAddr,
    /// IP address.
    pub ip: IpAddr,
    /// TCP, UDP or SCTP port.
    pub port: u16,
}

impl Host {
    /// A host at 10.0.0.`n` with the MAC address 0a:00:00:00:00:`n` and port 1000 + `n`.
    pub fn v4(n: u8) -> Self {
        Self {
            mac: MacAddr::new([0x0a, 0, 0, 0, 0, n]),
            ip: Ipv4Addr::new(10, 0, 0, n).into(),
            port: 1000 + u16::from(n),
        }
    }

    /// The same host at fd00::`n`.
    pub fn v6(n: u8) -> Self {
        Self { ip: IpAddr::V6((0xfd << 120 | u128::from(n)).into()), ..Self::v4(n) }
    }
}

/// A frame as a packet with the usual headroom.
pub fn packet(frame: &[u8], in_port: PortNo) -> Packet<Vec<u8>> {
    let mut buf = vec![0; HEADROOM];
    buf.extend_from_slice(frame);
    Packet::new(buf, HEADROOM, frame.len(), in_port)
}

/// A UDP datagram.
pub fn udp(from: &Host, to: &Host, payload: &[u8]) -> Vec<u8> {
    let mut key = between(from, to, ip_proto::UDP);
    (key.tp_src, key.tp_dst) = (from.port.into(), to.port.into());
    frame(&key, payload)
}

/// A TCP segment; `flags` are the header's low 12 bits, 0x02 is SYN.
pub fn tcp(from: &Host, to: &Host, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut key = between(from, to, ip_proto::TCP);
    (key.tp_src, key.tp_dst) = (from.port.into(), to.port.into());
    key.tcp_flags.set(flags & 0xfff);
    frame(&key, payload)
}

/// A ping or its answer, ICMP or ICMPv6 by the kind of `from`'s address.
pub fn icmp_echo(from: &Host, to: &Host, reply: bool, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
    let (proto, request, answer) =
        if from.ip.is_ipv4() { (ip_proto::ICMP, 8, 0) } else { (ip_proto::ICMPV6, 128, 129) };
    let mut key = between(from, to, proto);
    key.tp_src.set(if reply { answer } else { request });
    key.nd_reserved.set(u32::from(id) << 16 | u32::from(seq));
    frame(&key, payload)
}

/// An ARP packet between IPv4 hosts: a request (broadcast, `op` 1) or reply (`op` 2).
pub fn arp(op: u8, from: &Host, to: &Host) -> Vec<u8> {
    let mut key = FlowKey::zero();
    let request = op == 1;
    key.eth_dst = if request { MacAddr::BROADCAST } else { to.mac }.octets();
    key.eth_src = from.mac.octets();
    key.eth_type.set(ethertype::ARP);
    key.nw_proto = op;
    key.arp_sha = from.mac.octets();
    key.arp_tha = if request { MacAddr::ZERO } else { to.mac }.octets();
    if let (IpAddr::V4(src), IpAddr::V4(dst)) = (from.ip, to.ip) {
        (key.nw_src, key.nw_dst) = (src.to_bits().into(), dst.to_bits().into());
    }
    frame(&key, &[])
}

/// An Ethernet frame of any type.
pub fn ethernet(dst: MacAddr, src: MacAddr, eth_type: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet { dst: dst.octets(), src: src.octets(), eth_type: eth_type.into() };
    [header.as_bytes(), payload].concat()
}

/// The frame with a tag as its new outermost one.
pub fn vlan(frame: &[u8], tpid: u16, tci: u16) -> Vec<u8> {
    let (macs, rest) = frame.split_at(frame.len().min(12));
    let tag = Tag { tpid: tpid.into(), tci: tci.into() };
    [macs, tag.as_bytes(), rest].concat()
}

/// An untagged IP frame cut into fragments of at most `max_len` bytes of payload (rounded
/// down to units of 8, one at least), in order. What is no such frame comes back as it is.
pub fn fragments(frame: &[u8], id: u32, max_len: usize) -> Vec<Vec<u8>> {
    let Some((ethernet, packet)) = frame.split_at_checked(Ethernet::LEN) else { return vec![frame.to_vec()] };
    let step = max_len.clamp(8, 65_528) / 8 * 8;
    let (header_len, is_ipv6) = match packet.first().map(|first| first >> 4) {
        Some(4) => (usize::from(packet[0] & 0xf) * 4, false),
        Some(6) => (Ipv6::LEN, true),
        _ => return vec![frame.to_vec()],
    };
    let Some((header, payload)) = packet.split_at_checked(header_len) else { return vec![frame.to_vec()] };
    let n = payload.len().div_ceil(step).max(1);
    let pieces = payload.chunks(step).enumerate();
    let cut = |(idx, piece): (usize, &[u8])| {
        let (offset, more) = (idx * step, idx + 1 < n);
        let mut header = header.to_vec();
        if is_ipv6 {
            let units = (offset as u16) | u16::from(more);
            let next = std::mem::replace(&mut header[6], ip_proto::FRAGMENT);
            let fragment = Ipv6Fragment { next, reserved: 0, offset: units.into(), id: id.into() };
            header.extend_from_slice(fragment.as_bytes());
            header[4..6].copy_from_slice(&((Ipv6Fragment::LEN + piece.len()) as u16).to_be_bytes());
        } else {
            let bits = (offset / 8) as u16 | if more { ipv4_fragment::MORE } else { 0 };
            header[2..4].copy_from_slice(&((header_len + piece.len()) as u16).to_be_bytes());
            header[4..6].copy_from_slice(&(id as u16).to_be_bytes());
            header[6..8].copy_from_slice(&bits.to_be_bytes());
            header[10..12].fill(0);
            let sum = crate::checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        [ethernet, &header, piece].concat()
    };
    pieces.map(cut).collect()
}

/// A frame with the headers that `key` describes and `payload_len` bytes of payload (0,
/// 1, 2, …; at most [`MAX_PAYLOAD`]). Metadata, registers and tunnel fields have no part in it. For a key that
/// some frame can have, parsing the result gives the key again; of others, fields
/// without a place in the frame are left out.
pub fn frame_from_key(key: &FlowKey, payload_len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_len.min(MAX_PAYLOAD)).map(|idx| idx as u8).collect();
    frame(key, &payload)
}

/// Like [`frame_from_key`] with a payload of the caller's.
fn frame(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let eth_type = key.eth_type.get();
    let body = match eth_type {
        ethertype::IPV4 => ipv4(key, payload),
        ethertype::IPV6 => ipv6(key, payload),
        ethertype::ARP | ethertype::RARP => arp_body(key, payload),
        ethertype::MPLS | ethertype::MPLS_UPSTREAM => mpls(key, payload),
        _ => payload.to_vec(),
    };
    // An 802.3 frame has its length in the place of the type.
    let wire_type = if eth_type == ethertype::LLC { body.len().min(1500) as u16 } else { eth_type };
    let mut frame = ethernet(MacAddr::new(key.eth_dst), MacAddr::new(key.eth_src), wire_type, &body);
    for (tpid, tci) in [(key.cvlan_tpid, key.cvlan_tci), (key.vlan_tpid, key.vlan_tci)] {
        if tci != 0 {
            let tpid = if tpid == 0 { ethertype::VLAN } else { tpid.get() };
            frame = vlan(&frame, tpid, tci.get() & !crate::parse::TAG_PRESENT);
        }
    }
    frame
}

/// Key of an IP packet between two hosts, without ports.
fn between(from: &Host, to: &Host, proto: u8) -> FlowKey {
    let mut key = FlowKey::zero();
    (key.eth_src, key.eth_dst) = (from.mac.octets(), to.mac.octets());
    (key.nw_proto, key.nw_ttl) = (proto, 64);
    match (from.ip, to.ip) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            key.eth_type.set(ethertype::IPV4);
            (key.nw_src, key.nw_dst) = (src.to_bits().into(), dst.to_bits().into());
        }
        (src, dst) => {
            let bits = |ip| match ip {
                IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip).to_bits(),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            key.eth_type.set(ethertype::IPV6);
            (key.ipv6_src, key.ipv6_dst) = (bits(src).into(), bits(dst).into());
        }
    }
    key
}

fn arp_body(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let arp = Arp {
        hardware: 1.into(),
        protocol: ethertype::IPV4.into(),
        hardware_len: 6,
        protocol_len: 4,
        op: u16::from(key.nw_proto).into(),
        sha: key.arp_sha,
        spa: key.nw_src,
        tha: key.arp_tha,
        tpa: key.nw_dst,
    };
    [arp.as_bytes(), payload].concat()
}

fn mpls(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let n = usize::from(key.n_mpls).min(N_MPLS);
    [key.mpls.get(..n).unwrap_or_default().as_bytes(), payload].concat()
}

fn ipv4(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let pseudo = |len| pseudo_ipv4(key.nw_src.get(), key.nw_dst.get(), key.nw_proto, len);
    let body = segment(key, payload, pseudo);
    let fragment = match key.nw_frag {
        0 => 0,
        nw_frag::ANY => ipv4_fragment::MORE,
        _ => LATER_OFFSET,
    };
    let mut header = Ipv4 {
        version_ihl: 0x45,
        tos: key.nw_tos,
        total_len: ((Ipv4::LEN + body.len()) as u16).into(),
        id: 0.into(),
        fragment: fragment.into(),
        ttl: key.nw_ttl,
        proto: key.nw_proto,
        checksum: 0.into(),
        src: key.nw_src,
        dst: key.nw_dst,
    };
    header.checksum = crate::checksum::of(header.as_bytes()).into();
    [header.as_bytes(), &body].concat()
}

fn ipv6(key: &FlowKey, payload: &[u8]) -> Vec<u8> {
    let pseudo = |len| pseudo_ipv6(key.ipv6_src.get(), key.ipv6_dst.get(), key.nw_proto, len);
    let body = segment(key, payload, pseudo);
    let mut next = key.nw_proto;
    let mut extension = Vec::new();
    if key.nw_frag != 0 {
        let later = key.nw_frag & nw_frag::LATER != 0;
        let fragment = Ipv6Fragment {
            // The key does not know what later fragments carry.
            next: if later { ip_proto::NONE } else { key.nw_proto },
            reserved: 0,
            offset: if later { LATER_OFFSET << 3 } else { 1 }.into(),
            id: 1.into(),
        };
        extension = fragment.as_bytes().to_vec();
        next = ip_proto::FRAGMENT;
    }
    let header = Ipv6 {
        flow: (6 << 28 | u32::from(key.nw_tos) << 20 | key.ipv6_label.get() & 0xf_ffff).into(),
        payload_len: ((extension.len() + body.len()) as u16).into(),
        next,
        hop_limit: key.nw_ttl,
        src: key.ipv6_src,
        dst: key.ipv6_dst,
    };
    [header.as_bytes(), &extension, &body].concat()
}

/// The L4 header and payload; `pseudo` sums up the pseudo header for a length.
fn segment(key: &FlowKey, payload: &[u8], pseudo: impl Fn(usize) -> Sum) -> Vec<u8> {
    if key.nw_frag & nw_frag::LATER != 0 {
        return payload.to_vec();
    }
    let (src, dst) = (key.tp_src, key.tp_dst);
    let ipv4 = key.eth_type == ethertype::IPV4;
    match key.nw_proto {
        ip_proto::TCP => {
            let control = 5 << 12 | key.tcp_flags.get() & 0xfff;
            let tcp = Tcp {
                src,
                dst,
                seq: 1.into(),
                ack: 0.into(),
                control: control.into(),
                window: 0xffff.into(),
                checksum: 0.into(),
                urgent: 0.into(),
            };
            summed([tcp.as_bytes(), payload].concat(), key.nw_proto, 16, pseudo)
        }
        ip_proto::UDP => {
            let len = (Udp::LEN + payload.len()) as u16;
            let udp = Udp { src, dst, len: len.into(), checksum: 0.into() };
            summed([udp.as_bytes(), payload].concat(), key.nw_proto, 6, pseudo)
        }
        ip_proto::SCTP => {
            let mut sctp = Sctp { src, dst, tag: 1.into(), checksum: [0; 4] };
            sctp.checksum = crc32c::of([sctp.as_bytes(), payload]).to_le_bytes();
            [sctp.as_bytes(), payload].concat()
        }
        ip_proto::ICMP | ip_proto::IGMP if ipv4 => {
            summed([icmp(key).as_bytes(), payload].concat(), key.nw_proto, 2, |_| Sum::ZERO)
        }
        ip_proto::ICMPV6 if !ipv4 => {
            let message = [icmp(key).as_bytes(), &neighbour(key), payload].concat();
            summed(message, key.nw_proto, 2, pseudo)
        }
        _ => payload.to_vec(),
    }
}

fn icmp(key: &FlowKey) -> Icmp {
    Icmp {
        kind: key.tp_src.get() as u8,
        code: key.tp_dst.get() as u8,
        checksum: 0.into(),
        body: key.nd_reserved,
    }
}

/// Target and options of a solicitation or advertisement; nothing for other messages.
fn neighbour(key: &FlowKey) -> Vec<u8> {
    if !crate::parse::is_nd(&icmp(key)) {
        return Vec::new();
    }
    let mut options = [(nd::SOURCE_LINK, key.arp_sha), (nd::TARGET_LINK, key.arp_tha)];
    if key.nd_options_type == nd::TARGET_LINK {
        options.reverse();
    }
    let mut bytes = key.nd_target.as_bytes().to_vec();
    for (kind, link) in options {
        // An option that says "no address" is there only where the key says so.
        if link != [0; 6] || kind == key.nd_options_type {
            bytes.extend_from_slice(&[kind, 1]);
            bytes.extend_from_slice(&link);
        }
    }
    bytes
}

/// The segment with its checksum at `offset`.
fn summed(mut segment: Vec<u8>, proto: u8, offset: usize, pseudo: impl Fn(usize) -> Sum) -> Vec<u8> {
    let checksum = match pseudo(segment.len()).bytes(&segment).checksum() {
        // Zero would mean "none" (RFC 768).
        0 if proto == ip_proto::UDP => u16::MAX,
        checksum => checksum,
    };
    if let Some(field) = segment.get_mut(offset..offset + 2) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    segment
}
